//! Names with wildcards: `*` is any run of characters, `?` is one.

/// Whether `pattern` means the whole of `text`. Never takes longer than the product of both lengths.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    // Where to go on when what follows the last star does not fit.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') => {
                p += 1;
                t = after_character(text, t);
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    let from = after_character(text, from);
                    star = Some((at, from));
                    p = at + 1;
                    t = from;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

fn after_character(text: &[u8], at: usize) -> usize {
    let follows = |byte: &&u8| **byte & 0xc0 == 0x80;
    at + 1 + text[at + 1..].iter().take_while(follows).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_any_run_and_question_marks_one_character() {
        for (pattern, text, expected) in [
            ("app.log", "app.log", true),
            ("*.log", "app.log", true),
            ("*.log", "app.log.1", false),
            ("a*b*c", "aXbYbc", true),
            ("a?c", "aüc", true),
            ("*?c", "aüc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("**x", "abcx", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
