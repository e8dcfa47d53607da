//! Headers between records and the log: text is text, bytes are bytes.
//!
//! Connect's SimpleHeaderConverter guesses a type from text, so that `007` comes out as 7; here text stays text.

use aqueduct_core::{Datum, Result, Str, Value};
use bytes::Bytes;

/// To bytes: text and bytes as they are, everything else as JSON.
pub fn encode_header(value: &Datum) -> Result<Option<Bytes>> {
    match value.decoded() {
        Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone().into_bytes())),
        Some(Value::Bytes(bytes)) => Ok(Some(bytes.clone())),
        _ => value.to_json().map(Some),
    }
}

/// From bytes: text where it is UTF-8.
pub fn decode_header(bytes: Option<&Bytes>) -> Datum {
    match bytes {
        None => Datum::null(),
        Some(bytes) => match Str::try_from(bytes.clone()) {
            Ok(text) => Datum::schemaless(Value::String(text)),
            Err(_) => Datum::schemaless(Value::Bytes(bytes.clone())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_keep_their_form() {
        for bytes in [&b"007"[..], b"", b"true", b"\xff\x00"] {
            let bytes = Bytes::copy_from_slice(bytes);
            let datum = decode_header(Some(&bytes));
            assert_eq!(encode_header(&datum).expect("encodes"), Some(bytes));
        }
        assert_eq!(encode_header(&decode_header(None)).expect("encodes"), None);
        assert_eq!(encode_header(&Datum::schemaless(7i64)).expect("encodes"), Some(Bytes::from_static(b"7")));
    }
}
