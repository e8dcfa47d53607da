//! The format of `consume -f`, by kcat's letters.

use aqueduct_client::ReadRecord;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::escapes;
use super::super::position::date;
use crate::args::kafka::Encode;

/// A parsed format.
#[derive(Clone, Debug)]
pub(super) struct Format {
    pieces: Vec<Piece>,
    encode: Encode,
    null: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Key,
    Value,
    Headers,
    KeyLength,
    ValueLength,
    ValueLengthBytes,
    Topic,
    Partition,
    Offset,
    Timestamp,
    Date,
}

impl Format {
    pub(super) fn parse(text: &str, encode: Encode, null: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['%', '\\']) {
            plain.extend_from_slice(&rest.as_bytes()[..at]);
            let is_escape = rest.as_bytes()[at] == b'\\';
            let after = &rest[at + 1..];
            let len = if is_escape {
                let (byte, len) = escapes::one(after)?;
                plain.push(byte);
                len
            } else {
                let Some(letter) = after.chars().next() else {
                    return Err("a `%` stands at its end; write `%%`".into());
                };
                match piece(letter)? {
                    None => plain.push(b'%'),
                    Some(piece) => {
                        if !plain.is_empty() {
                            pieces.push(Piece::Text(std::mem::take(&mut plain)));
                        }
                        pieces.push(piece);
                    }
                }
                letter.len_utf8()
            };
            rest = &after[len..];
        }
        plain.extend_from_slice(rest.as_bytes());
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self { pieces, encode, null: null.as_bytes().to_vec() })
    }

    pub(super) fn write(&self, record: &ReadRecord<'_>, into: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => into.extend_from_slice(text),
                Piece::Key => self.bytes(record.key, into),
                Piece::Value => self.bytes(record.value, into),
                Piece::Headers => self.headers(record, into),
                Piece::KeyLength => number(length(record.key), into),
                Piece::ValueLength => number(length(record.value), into),
                Piece::ValueLengthBytes => {
                    let length = i32::try_from(length(record.value)).unwrap_or(i32::MAX);
                    into.extend_from_slice(&length.to_be_bytes());
                }
                Piece::Topic => into.extend_from_slice(record.topic.as_bytes()),
                Piece::Partition => number(record.partition.into(), into),
                Piece::Offset => number(record.offset, into),
                Piece::Timestamp => number(record.timestamp.unwrap_or(-1), into),
                Piece::Date => match record.timestamp {
                    Some(time) => into.extend_from_slice(date(time).as_bytes()),
                    None => into.push(b'-'),
                },
            }
        }
    }

    fn bytes(&self, bytes: Option<&[u8]>, into: &mut Vec<u8>) {
        let Some(bytes) = bytes else { return into.extend_from_slice(&self.null) };
        match self.encode {
            Encode::Raw => into.extend_from_slice(bytes),
            Encode::Escape => escapes::show(bytes, into),
            Encode::Base64 => into.extend_from_slice(STANDARD.encode(bytes).as_bytes()),
            Encode::Hex => into.extend_from_slice(hex::encode(bytes).as_bytes()),
        }
    }

    fn headers(&self, record: &ReadRecord<'_>, into: &mut Vec<u8>) {
        for (at, (name, value)) in record.headers.iter().enumerate() {
            if at > 0 {
                into.push(b',');
            }
            into.extend_from_slice(name.as_bytes());
            into.push(b'=');
            match value {
                // As kcat; an empty value has nothing behind its sign.
                None => into.extend_from_slice(b"NULL"),
                Some(value) => self.bytes(Some(value), into),
            }
        }
    }
}

/// `None` is the sign itself.
fn piece(letter: char) -> Result<Option<Piece>, String> {
    Ok(Some(match letter {
        '%' => return Ok(None),
        'k' => Piece::Key,
        's' | 'v' => Piece::Value,
        'h' => Piece::Headers,
        'K' => Piece::KeyLength,
        'S' | 'V' => Piece::ValueLength,
        'R' => Piece::ValueLengthBytes,
        't' => Piece::Topic,
        'p' => Piece::Partition,
        'o' => Piece::Offset,
        'T' => Piece::Timestamp,
        'D' => Piece::Date,
        other => {
            return Err(format!(
                "`%{other}` is not known; there are %k %s %v %h %t %p %o %T %D %K %S %V %R and %%"
            ));
        }
    }))
}

fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX))
}

fn number(number: i64, into: &mut Vec<u8>) {
    into.extend_from_slice(number.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>() -> ReadRecord<'a> {
        ReadRecord {
            topic: "orders",
            partition: 2,
            offset: 17,
            timestamp: Some(1_769_846_400_123),
            appended: false,
            key: Some(b"k\xff"),
            value: Some(b"v\n"),
            headers: vec![("a", Some(b"1")), ("b", None)],
        }
    }

    fn check(format: &str, encode: Encode, expect: &[u8]) {
        let mut out = Vec::new();
        Format::parse(format, encode, "(null)").expect(format).write(&record(), &mut out);
        assert_eq!(out, expect, "{format}: {}", String::from_utf8_lossy(&out));
    }

    #[test]
    fn every_letter_prints_what_the_help_says() {
        check("%t-%p@%o %T %D\\n", Encode::Raw, b"orders-2@17 1769846400123 2026-01-31T08:00:00.123Z\n");
        check("%k:%s:%v", Encode::Raw, b"k\xff:v\n:v\n");
        check("%k:%s", Encode::Escape, b"k\\xff:v\\n");
        check("%k:%s", Encode::Base64, b"a/8=:dgo=");
        check("%k:%s", Encode::Hex, b"6bff:760a");
        check("%h|%K|%S|%V", Encode::Raw, b"a=1,b=NULL|2|2|2");
        check("%R", Encode::Raw, &[0, 0, 0, 2]);
        check("100%% \\x41\\t", Encode::Raw, b"100% A\t");
        check("", Encode::Raw, b"");
    }

    #[test]
    fn what_is_null_is_told_from_what_is_empty() {
        let record =
            ReadRecord { key: None, value: Some(b""), timestamp: None, headers: Vec::new(), ..record() };
        let mut out = Vec::new();
        Format::parse("%k|%s|%K|%S|%T|%h", Encode::Raw, "NULL").expect("parses").write(&record, &mut out);
        assert_eq!(out, b"NULL||-1|0|-1|");
    }

    #[test]
    fn wrong_formats_are_refused() {
        for (format, expect) in [("%q", "`%q`"), ("%", "`%%`"), ("\\q", "no escape"), ("%é", "`%é`")] {
            let error = Format::parse(format, Encode::Raw, "").expect_err(format);
            assert!(error.contains(expect), "{format}: {error}");
        }
    }
}
