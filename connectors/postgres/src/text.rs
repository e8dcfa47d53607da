//! PostgreSQL's text of single values into values.
//!
//! **Invariant:** pure, and without panic on any bytes; `None` for text that is not of the type.

use aqueduct_core::{Str, Value, json, logical};
use bytes::Bytes;
use md5::{Digest as _, Md5};

/// Text as a slice of `owner`; invalid UTF-8, which only a `SQL_ASCII` database holds, is replaced.
pub(crate) fn slice(text: &[u8], owner: &Bytes) -> Str {
    match Str::try_from(owner.slice_ref(text)) {
        Ok(text) => text,
        Err(_) => String::from_utf8_lossy(text).into_owned().into(),
    }
}

pub(crate) fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', digits)) => (true, digits),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    // Counted downwards, so that the smallest number fits.
    let mut n = 0i64;
    for digit in digits {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        if !(0..=9).contains(&digit) {
            return None;
        }
        n = n.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative { Some(n) } else { n.checked_neg() }
}

/// Unscaled value and scale of a decimal of at most 18 digits.
pub(crate) fn small_decimal(text: &[u8]) -> Option<(i64, i32)> {
    if text.len() > 18 {
        return None;
    }
    let (negative, digits) = match text.split_first() {
        Some((b'-', digits)) => (true, digits),
        _ => (false, text),
    };
    let (mut n, mut scale, mut point, mut any) = (0i64, 0i32, false, false);
    for byte in digits {
        match byte {
            b'0'..=b'9' => {
                n = n * 10 + i64::from(byte - b'0');
                scale += i32::from(point);
                any = true;
            }
            b'.' if !point => point = true,
            _ => return None,
        }
    }
    any.then_some((if negative { -n } else { n }, scale))
}

/// The unscaled bytes at exactly this scale.
pub(crate) fn decimal(text: &[u8], scale: i32) -> Option<Bytes> {
    if let Some((unscaled, found)) = small_decimal(text)
        && found == scale
    {
        return Some(minimal(unscaled));
    }
    logical::decimal_bytes(std::str::from_utf8(text).ok()?, scale).ok()
}

/// Scale and unscaled bytes, without zeros at the end of the fraction.
pub(crate) fn variable_decimal(text: &[u8]) -> Option<Value> {
    let mut text = text;
    if text.contains(&b'.') {
        while let Some(shorter) = text.strip_suffix(b"0") {
            text = shorter;
        }
        text = text.strip_suffix(b".").unwrap_or(text);
    }
    let (bytes, scale) = match small_decimal(text) {
        Some((unscaled, scale)) => (minimal(unscaled), scale),
        None => logical::decimal_parts(std::str::from_utf8(text).ok()?).ok()?,
    };
    Some(Value::Struct(vec![Value::Int32(scale), Value::Bytes(bytes)]))
}

/// The shortest big-endian two's complement form.
pub(crate) fn minimal(n: i64) -> Bytes {
    let bytes = n.to_be_bytes();
    let mut start = 0;
    while start < 7 {
        let sign_only = match bytes[start] {
            0x00 => bytes[start + 1] & 0x80 == 0,
            0xff => bytes[start + 1] & 0x80 != 0,
            _ => false,
        };
        if !sign_only {
            break;
        }
        start += 1;
    }
    Bytes::copy_from_slice(&bytes[start..])
}

/// The number in `-$1,234.56`, as `lc_monetary=C` writes it, in hundredths.
pub(crate) fn money(text: &[u8]) -> Option<i64> {
    let digits: Vec<u8> = text.iter().copied().filter(|b| !matches!(b, b'$' | b',' | b'.')).collect();
    integer(&digits)
}

/// Hundredths with so many digits after the point, halves rounded away from zero.
pub(crate) fn money_unscaled(hundredths: i64, digits: i32) -> Option<i128> {
    let n = i128::from(hundredths);
    if digits >= 2 {
        return n.checked_mul(10i128.checked_pow(u32::try_from(digits - 2).ok()?)?);
    }
    let unit = 10i128.pow(u32::try_from(2 - digits).ok()?);
    let half = if n < 0 { -unit / 2 } else { unit / 2 };
    Some((n + half) / unit)
}

/// `\x00ff`.
pub(crate) fn hex(text: &[u8]) -> Option<Bytes> {
    let digits = text.strip_prefix(b"\\x")?;
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
    digits.chunks(2).map(pair).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

/// `1010` with the last digit as the lowest bit of the first byte, without zero bytes at the end.
pub(crate) fn bits(text: &[u8]) -> Option<Bytes> {
    let mut bytes = vec![0u8; text.len().div_ceil(8)];
    for (i, digit) in text.iter().rev().enumerate() {
        match digit {
            b'0' => {}
            b'1' => bytes[i / 8] |= 1 << (i % 8),
            _ => return None,
        }
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Some(bytes.into())
}

/// `(1.5,-2)`: x, y, and the same as well-known binary.
pub(crate) fn point(text: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(text).ok()?;
    let (x, y) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let (x, y): (f64, f64) = (x.parse().ok()?, y.parse().ok()?);
    let mut wkb = Vec::with_capacity(21);
    wkb.extend_from_slice(&[1, 1, 0, 0, 0]);
    wkb.extend_from_slice(&x.to_le_bytes());
    wkb.extend_from_slice(&y.to_le_bytes());
    Some(Value::Struct(vec![Value::Float64(x), Value::Float64(y), Value::Bytes(wkb.into()), Value::Null]))
}

/// A key of an hstore and its value.
pub(crate) type Pair = (Str, Option<Str>);

/// `"a"=>"1", "b"=>NULL`.
pub(crate) fn hstore(text: &[u8]) -> Option<Vec<Pair>> {
    let mut rest = std::str::from_utf8(text).ok()?;
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (key, after) = quoted(rest)?;
        rest = after.strip_prefix("=>")?;
        let value = match rest.strip_prefix("NULL") {
            Some(after) => {
                rest = after;
                None
            }
            None => {
                let (value, after) = quoted(rest)?;
                rest = after;
                Some(value.into())
            }
        };
        pairs.push((key.into(), value));
        if !rest.is_empty() {
            rest = rest.strip_prefix(", ")?;
        }
    }
    Some(pairs)
}

/// A quoted word with backslashes, and what comes after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut chars = text.strip_prefix('"')?.chars();
    loop {
        match chars.next()? {
            '"' => return Some((word, chars.as_str())),
            '\\' => word.push(chars.next()?),
            other => word.push(other),
        }
    }
}

/// JSON of text fields.
pub(crate) fn json_object(pairs: &[Pair]) -> String {
    let mut out = b"{".to_vec();
    for (i, (key, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json::encode_text(&mut out, key);
        out.push(b':');
        match value {
            Some(value) => json::encode_text(&mut out, value),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    String::from_utf8(out).unwrap_or_default()
}

/// The elements of `{1,"a,b",NULL}`; `None` stands for NULL. More than one dimension is not a list.
pub(crate) fn elements(text: &[u8], between: u8) -> Option<Vec<Option<Bytes>>> {
    // Bounds that do not begin at 1 stand before: `[0:1]={…}`.
    let text = match text.first() {
        Some(b'[') => &text[text.iter().position(|b| *b == b'=')? + 1..],
        _ => text,
    };
    let mut rest = text.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let mut all = Vec::new();
    if rest.is_empty() {
        return Some(all);
    }
    loop {
        let mut item = Vec::new();
        let mut bare = true;
        if let Some(mut inside) = rest.strip_prefix(b"\"") {
            bare = false;
            loop {
                let (byte, after) = inside.split_first()?;
                inside = after;
                match byte {
                    b'"' => break,
                    b'\\' => {
                        let (byte, after) = inside.split_first()?;
                        item.push(*byte);
                        inside = after;
                    }
                    byte => item.push(*byte),
                }
            }
            rest = inside;
        } else {
            let end = rest.iter().position(|b| *b == between).unwrap_or(rest.len());
            item.extend_from_slice(&rest[..end]);
            if item.first() == Some(&b'{') {
                return None;
            }
            rest = &rest[end..];
        }
        all.push(if bare && item == b"NULL" { None } else { Some(item.into()) });
        match rest.split_first() {
            None => return Some(all),
            Some((byte, after)) if *byte == between => rest = after,
            Some(_) => return None,
        }
    }
}

/// A UUID of version 3 made of a name alone.
pub(crate) fn named_uuid(name: &[u8]) -> String {
    let mut id: [u8; 16] = Md5::digest(name).into();
    id[6] = id[6] & 0x0f | 0x30;
    id[8] = id[8] & 0x3f | 0x80;
    let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_keep_their_smallest_value() {
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        assert!(integer(b"9223372036854775808").is_none());
        assert!(integer(b"-").is_none() && integer(b"1x").is_none());
    }

    #[test]
    fn money_is_read_without_signs_and_rounded_half_up() {
        assert_eq!(money(b"-$92,233,720,368,547,758.08"), Some(i64::MIN));
        assert_eq!(money_unscaled(123_456, 2), Some(123_456));
        assert_eq!(money_unscaled(123_456, 0), Some(1235));
        assert_eq!(money_unscaled(-50, 0), Some(-1));
        assert_eq!(money_unscaled(-1, 0), Some(0));
        assert_eq!(money_unscaled(1, 4), Some(100));
    }

    #[test]
    fn bits_begin_with_the_lowest() {
        assert_eq!(bits(b"101010101010").as_deref(), Some(&[0xaa, 0x0a][..]));
        assert_eq!(bits(b"0000000010000000").as_deref(), Some(&[0x80][..]));
        assert_eq!(bits(b"").as_deref(), Some(&[][..]));
        assert!(bits(b"12").is_none());
    }

    #[test]
    fn hstores_are_unquoted() {
        let pairs = hstore(br#""a"=>"1", "b"=>NULL, "=>"=>"\"\\""#).expect("valid");
        assert_eq!(json_object(&pairs), r#"{"a":"1","b":null,"=>":"\"\\"}"#);
        assert_eq!(hstore(b"").map(|pairs| pairs.len()), Some(0));
        assert!(hstore(br#""a"=>"#).is_none());
    }

    #[test]
    fn elements_are_unquoted_and_bounds_left_out() {
        let words = |text: &str| -> Option<Vec<Option<String>>> {
            let all = elements(text.as_bytes(), b',')?;
            Some(all.into_iter().map(|e| e.map(|e| String::from_utf8_lossy(&e).into_owned())).collect())
        };
        let some = |word: &str| Some(word.to_owned());
        assert_eq!(
            words(r#"{a,"b,\"c\\",NULL,"NULL",""}"#),
            Some(vec![some("a"), some("b,\"c\\"), None, some("NULL"), some("")])
        );
        assert_eq!(words("[0:1]={1,2}"), Some(vec![some("1"), some("2")]));
        assert_eq!(words("{}"), Some(Vec::new()));
        assert_eq!(words("{{1},{2}}"), None);
        assert_eq!(words("{\"a\"b}"), None);
    }

    #[test]
    fn a_named_uuid_is_that_of_java() {
        assert_eq!(named_uuid(b"__debezium_unavailable_value"), "b68a35a7-17ad-35b3-af2a-ae46edb4545a");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes: Vec<u8>) {
            drop((hstore(&bytes), elements(&bytes, b','), bits(&bytes), hex(&bytes), point(&bytes), money(&bytes)));
        }

        #[test]
        fn any_elements_survive(items: Vec<Option<String>>) {
            let quote = |item: &Option<String>| match item {
                None => "NULL".to_owned(),
                Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            };
            let text = format!("{{{}}}", items.iter().map(quote).collect::<Vec<_>>().join(","));
            let read = elements(text.as_bytes(), b',').expect("valid");
            let read: Vec<_> = read.iter().map(|e| e.as_ref().map(|e| String::from_utf8_lossy(e).into_owned())).collect();
            proptest::prop_assert_eq!(read, items);
        }
    }
}
