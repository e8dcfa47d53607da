//! Bytes in text: escapes as users write them, and as they are shown.

/// `\n`, `\r`, `\t`, `\0`, `\\` and `\xHH` as the bytes they stand for.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let (byte, len) = one(after)?;
        bytes.push(byte);
        rest = after.get(len..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// The byte of the escape that begins after a backslash, and how many bytes of text it takes.
pub(crate) fn one(after: &str) -> Result<(u8, usize), String> {
    let byte = match after.as_bytes().first() {
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'0') => 0,
        Some(b'\\') => b'\\',
        Some(b'x') => {
            let digits = after.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let byte =
                digits.ok_or_else(|| format!("`\\{after}`: write two hexadecimal digits after `\\x`"))?;
            return Ok((byte, 3));
        }
        _ => return Err(format!("`\\{after}` is no escape; there are \\n, \\r, \\t, \\0, \\\\ and \\xHH")),
    };
    Ok((byte, 1))
}

/// Printable text as it is, everything else as `\xHH`, so that a terminal is not disturbed and nothing is lost.
pub(crate) fn show(bytes: &[u8], into: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => into.extend_from_slice(b"\\\\"),
                '\n' => into.extend_from_slice(b"\\n"),
                '\t' => into.extend_from_slice(b"\\t"),
                '\r' => into.extend_from_slice(b"\\r"),
                c if c.is_control() => {
                    c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| hex(byte, into));
                }
                c => into.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(*byte, into));
    }
}

fn hex(byte: u8, into: &mut Vec<u8>) {
    into.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back() {
        for bytes in [&b"plain"[..], b"a\\b\n\t\r\0\x1b[31m", b"\xff\xfe\x00", "größe\u{85}".as_bytes(), b""]
        {
            let mut shown = Vec::new();
            show(bytes, &mut shown);
            assert!(shown.iter().all(|byte| !byte.is_ascii_control()), "{shown:?}");
            let text = String::from_utf8(shown).expect("text");
            assert_eq!(parse(&text).expect("escapes"), bytes, "{text}");
        }
    }

    #[test]
    fn wrong_escapes_are_refused() {
        for text in ["\\", "\\q", "\\x1", "\\xzz", "\\xé"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
