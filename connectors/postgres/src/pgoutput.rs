//! The stream that a walsender sends: XLogData and keepalives, and inside of them pgoutput, protocol version 1, text.
//!
//! **Invariant:** pure and borrowing. A malformed message is an error, never a panic, and nothing is copied but names.

use aqueduct_core::{Error, Result};

/// One CopyData body of the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wal<'a> {
    Data { start: u64, message: &'a [u8] },
    Keepalive { wal_end: u64, reply: bool },
}

/// One pgoutput message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message<'a> {
    /// `commit_micros` are microseconds since 1970.
    Begin {
        final_lsn: u64,
        commit_micros: i64,
        xid: u32,
    },
    Commit {
        end_lsn: u64,
    },
    Relation(Relation),
    Insert {
        oid: u32,
        new: Tuple<'a>,
    },
    Update {
        oid: u32,
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        oid: u32,
        old: Old<'a>,
    },
    Truncate {
        oids: Vec<u32>,
    },
    /// Type, Origin, logical messages: nothing that changes a row.
    Other,
}

/// The row before a change: whole, or only the columns of the replica identity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Old<'a> {
    pub(crate) whole: bool,
    pub(crate) tuple: Tuple<'a>,
}

/// What the following rows of a table look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Whether the replica identity is the whole row; then every column is marked as its part.
    pub(crate) whole: bool,
    pub(crate) columns: Vec<RelationColumn>,
}

/// One column of a [`Relation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub(crate) identity: bool,
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) typmod: i32,
}

/// A row, read lazily.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tuple<'a> {
    count: u16,
    bytes: &'a [u8],
}

/// A column of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    /// A TOASTed value that the change left alone; the server does not send it.
    Unchanged,
    Text(&'a [u8]),
}

/// Microseconds between 1970 and 2000, PostgreSQL's epoch.
const PG_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl<'a> Wal<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self> {
        let mut at = Reader(body);
        match at.u8()? {
            b'w' => {
                let start = at.u64()?;
                at.u64()?;
                at.u64()?;
                Ok(Wal::Data { start, message: at.0 })
            }
            b'k' => {
                let wal_end = at.u64()?;
                at.u64()?;
                Ok(Wal::Keepalive { wal_end, reply: at.u8()? != 0 })
            }
            other => Err(malformed(format!("replication message `{}`", char::from(other).escape_default()))),
        }
    }
}

impl<'a> Message<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self> {
        let mut at = Reader(message);
        Ok(match at.u8()? {
            b'B' => {
                let final_lsn = at.u64()?;
                let commit_micros = (at.u64()? as i64).saturating_add(PG_EPOCH_MICROS);
                Message::Begin { final_lsn, commit_micros, xid: at.u32()? }
            }
            b'C' => {
                at.u8()?;
                at.u64()?;
                Message::Commit { end_lsn: at.u64()? }
            }
            b'R' => Message::Relation(Relation::parse(&mut at)?),
            b'I' => {
                let oid = at.u32()?;
                match at.u8()? {
                    b'N' => Message::Insert { oid, new: Tuple::rest(&mut at)? },
                    other => return Err(bad_tuple(other)),
                }
            }
            b'U' => {
                let oid = at.u32()?;
                let (mut tag, mut old) = (at.u8()?, None);
                if matches!(tag, b'K' | b'O') {
                    old = Some(Old { whole: tag == b'O', tuple: Tuple::bounded(&mut at)? });
                    tag = at.u8()?;
                }
                match tag {
                    b'N' => Message::Update { oid, old, new: Tuple::rest(&mut at)? },
                    other => return Err(bad_tuple(other)),
                }
            }
            b'D' => {
                let oid = at.u32()?;
                match at.u8()? {
                    tag @ (b'K' | b'O') => {
                        Message::Delete { oid, old: Old { whole: tag == b'O', tuple: Tuple::rest(&mut at)? } }
                    }
                    other => return Err(bad_tuple(other)),
                }
            }
            b'T' => {
                let count = at.u32()?;
                at.u8()?;
                if count as usize > at.0.len() / 4 {
                    return Err(malformed(format!("a truncate of {count} relations")));
                }
                Message::Truncate { oids: (0..count).map(|_| at.u32()).collect::<Result<_>>()? }
            }
            _ => Message::Other,
        })
    }
}

impl Relation {
    fn parse(at: &mut Reader<'_>) -> Result<Self> {
        let oid = at.u32()?;
        let (schema, name) = (at.text()?, at.text()?);
        let whole = at.u8()? == b'f';
        let mut columns = Vec::new();
        for _ in 0..at.u16()? {
            columns.push(RelationColumn {
                identity: at.u8()? & 1 == 1,
                name: at.text()?,
                type_oid: at.u32()?,
                typmod: at.u32()? as i32,
            });
        }
        // An empty namespace stands for pg_catalog.
        let schema = if schema.is_empty() { "pg_catalog".to_owned() } else { schema };
        Ok(Self { oid, schema, name, whole, columns })
    }
}

impl<'a> Tuple<'a> {
    fn rest(at: &mut Reader<'a>) -> Result<Self> {
        let count = at.u16()?;
        Ok(Self { count, bytes: at.0 })
    }

    fn bounded(at: &mut Reader<'a>) -> Result<Self> {
        let count = at.u16()?;
        let start = at.0;
        for _ in 0..count {
            at.cell()?;
        }
        Ok(Self { count, bytes: &start[..start.len() - at.0.len()] })
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub(crate) fn cells(&self) -> Cells<'a> {
        Cells { left: self.count, at: Reader(self.bytes) }
    }
}

/// The columns of a [`Tuple`].
pub(crate) struct Cells<'a> {
    left: u16,
    at: Reader<'a>,
}

impl<'a> Iterator for Cells<'a> {
    type Item = Result<Cell<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(self.at.cell())
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| malformed("it is cut short"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<String> {
        let end = self.0.iter().position(|b| *b == 0).ok_or_else(|| malformed("a name has no end"))?;
        let text = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = &self.0[end + 1..];
        Ok(text)
    }

    fn cell(&mut self) -> Result<Cell<'a>> {
        match self.u8()? {
            b'n' => Ok(Cell::Null),
            b'u' => Ok(Cell::Unchanged),
            b't' => {
                let len = self.u32()? as usize;
                let (text, rest) =
                    self.0.split_at_checked(len).ok_or_else(|| malformed("it is cut short"))?;
                self.0 = rest;
                Ok(Cell::Text(text))
            }
            other => Err(malformed(format!("column kind `{}`", char::from(other).escape_default()))),
        }
    }
}

fn bad_tuple(tag: u8) -> Error {
    malformed(format!("tuple kind `{}`", char::from(tag).escape_default()))
}

fn malformed(what: impl std::fmt::Display) -> Error {
    Error::fatal(format!("the server sent a message that does not follow the pgoutput protocol: {what}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A tuple of text columns; `None` is null, `Some("\0")` an unchanged TOAST value.
    pub(crate) fn tuple(cells: &[Option<&str>]) -> Vec<u8> {
        let mut out = (cells.len() as u16).to_be_bytes().to_vec();
        for cell in cells {
            match cell {
                None => out.push(b'n'),
                Some("\0") => out.push(b'u'),
                Some(text) => {
                    out.push(b't');
                    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
        out
    }

    fn texts(tuple: Tuple<'_>) -> Vec<String> {
        tuple.cells().map(|cell| format!("{:?}", cell.expect("valid"))).collect()
    }

    #[test]
    fn an_update_with_the_old_row_gives_both_rows() {
        let mut bytes = b"U\0\0\0\x07O".to_vec();
        bytes.extend_from_slice(&tuple(&[Some("1"), Some("long")]));
        bytes.push(b'N');
        bytes.extend_from_slice(&tuple(&[Some("1"), Some("\0")]));
        let Message::Update { oid, old: Some(old), new } = Message::parse(&bytes).expect("valid") else {
            panic!("not an update")
        };
        assert_eq!((oid, old.whole, old.tuple.len()), (7, true, 2));
        assert_eq!(texts(old.tuple)[1], format!("{:?}", Cell::Text(b"long")));
        assert_eq!(texts(new)[1], "Unchanged");
    }

    #[test]
    fn begin_and_commit_carry_their_positions() {
        let mut bytes = b"B".to_vec();
        bytes.extend_from_slice(&500u64.to_be_bytes());
        bytes.extend_from_slice(&0u64.to_be_bytes());
        bytes.extend_from_slice(&42u32.to_be_bytes());
        let begin = Message::parse(&bytes).expect("valid");
        assert_eq!(begin, Message::Begin { final_lsn: 500, commit_micros: PG_EPOCH_MICROS, xid: 42 });
        let mut bytes = b"C\0".to_vec();
        for lsn in [500u64, 548, 0] {
            bytes.extend_from_slice(&lsn.to_be_bytes());
        }
        assert_eq!(Message::parse(&bytes).expect("valid"), Message::Commit { end_lsn: 548 });
    }

    #[test]
    fn a_relation_names_its_columns() {
        let mut bytes = b"R\0\0\0\x07public\0orders\0d\0\x01\x01id\0".to_vec();
        bytes.extend_from_slice(&20u32.to_be_bytes());
        bytes.extend_from_slice(&(-1i32).to_be_bytes());
        let Message::Relation(relation) = Message::parse(&bytes).expect("valid") else {
            panic!("not a relation")
        };
        assert_eq!((relation.schema.as_str(), relation.name.as_str()), ("public", "orders"));
        assert_eq!(
            relation.columns,
            [RelationColumn { identity: true, name: "id".to_owned(), type_oid: 20, typmod: -1 }]
        );
    }

    #[test]
    fn a_truncate_that_claims_more_than_it_holds_is_refused() {
        assert!(Message::parse(b"T\xff\xff\xff\xff\0\0\0\0\x01").is_err());
        let message = Message::parse(b"T\0\0\0\x02\0\0\0\0\x01\0\0\0\x02").expect("valid");
        assert_eq!(message, Message::Truncate { oids: vec![1, 2] });
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes: Vec<u8>, tag in "[BCRIUDTkwYM]") {
            let message = [tag.as_bytes(), &bytes].concat();
            drop(Wal::parse(&message));
            if let Ok(Message::Insert { new, .. } | Message::Update { new, .. }) = Message::parse(&message) {
                proptest::prop_assert!(new.cells().take_while(Result::is_ok).count() <= new.len());
            }
        }
    }
}
