//! Java's SimpleDateFormat patterns as strftime.

/// Translates; the error names what has no counterpart.
pub(super) fn strftime(java: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = java.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.next_if_eq(&'\'').is_some() => out.push('\''),
            '\'' => loop {
                match chars.next() {
                    Some('\'') if chars.next_if_eq(&'\'').is_some() => out.push('\''),
                    Some('\'') => break,
                    Some('%') => out.push_str("%%"),
                    Some(plain) => out.push(plain),
                    None => return Err(format!("`{java}` has a quote without its end")),
                }
            },
            '%' => out.push_str("%%"),
            letter if letter.is_ascii_alphabetic() => {
                let mut count = 1;
                while chars.next_if_eq(&letter).is_some() {
                    count += 1;
                }
                out.push_str(directive(letter, count).ok_or_else(|| {
                    let run = String::from(letter).repeat(count);
                    format!("`{run}` in `{java}` is not supported; use y, M, d, D, E, H, h, k, a, m, s, S, X, Z, z")
                })?);
            }
            plain => out.push(plain),
        }
    }
    Ok(out)
}

fn directive(letter: char, count: usize) -> Option<&'static str> {
    Some(match (letter, count) {
        ('y' | 'u', 2) => "%y",
        ('y' | 'u', _) => "%Y",
        ('M' | 'L', 1) => "%-m",
        ('M' | 'L', 2) => "%m",
        ('M' | 'L', 3) => "%b",
        ('M' | 'L', _) => "%B",
        ('d', 1) => "%-d",
        ('d', _) => "%d",
        ('D', _) => "%j",
        ('E', 1..=3) => "%a",
        ('E', _) => "%A",
        ('H', 1) => "%-H",
        ('H', _) => "%H",
        ('h', 1) => "%-I",
        ('h', _) => "%I",
        ('a', _) => "%p",
        ('m', 1) => "%-M",
        ('m', _) => "%M",
        ('s', 1) => "%-S",
        ('s', _) => "%S",
        // Java's S are milliseconds.
        ('S', 1..=3) => "%3f",
        ('S', 4..=6) => "%6f",
        ('S', _) => "%9f",
        ('X', 3) => "%:z",
        ('X' | 'Z', _) => "%z",
        ('z', _) => "%Z",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_strftime() {
        assert_eq!(strftime("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'").expect("known"), "%Y-%m-%dT%H:%M:%S.%3fZ");
        assert_eq!(strftime("d MMM yy 'o''clock' 100%").expect("known"), "%-d %b %y o'clock 100%%");
        assert!(strftime("yyyy'T").expect_err("open quote").contains("quote"));
        assert!(strftime("ww").expect_err("no weeks").contains("`ww`"));
    }
}
