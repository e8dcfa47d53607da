//! Names of topics, schemas and fields.

/// `schema.name.adjustment.mode` and `field.name.adjustment.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adjustment {
    None,
    /// What Avro does not allow becomes `_`.
    Avro,
    /// It becomes `_uXXXX`, and so does `_` itself.
    AvroUnicode,
}

impl Adjustment {
    pub(crate) const WORDS: &[&str] = &["none", "avro", "avro_unicode"];

    pub(crate) fn parse(word: &str) -> Self {
        match word {
            "avro" => Adjustment::Avro,
            "avro_unicode" => Adjustment::AvroUnicode,
            _ => Adjustment::None,
        }
    }

    /// The name of a field.
    pub(crate) fn field(self, name: &str) -> String {
        self.adjust(name, false)
    }

    /// The full name of a schema, in which points are allowed.
    pub(crate) fn schema(self, name: &str) -> String {
        self.adjust(name, true)
    }

    fn adjust(self, name: &str, points: bool) -> String {
        if self == Adjustment::None {
            return name.to_owned();
        }
        let mut out = String::with_capacity(name.len());
        for (i, c) in name.chars().enumerate() {
            let letter = c.is_ascii_alphabetic() || points && c == '.';
            let digit = c.is_ascii_digit();
            match self {
                Adjustment::AvroUnicode if !(letter || digit && i > 0) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        out.push_str(&format!("_u{unit:04x}"));
                    }
                }
                Adjustment::Avro if digit && i == 0 => {
                    out.push('_');
                    out.push(c);
                }
                Adjustment::Avro if !letter && !digit => out.push('_'),
                _ => out.push(c),
            }
        }
        out
    }
}

/// A topic's name: what Kafka does not allow in one becomes `_`.
pub(crate) fn topic(name: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().map(|c| if legal(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_for_their_place() {
        assert_eq!(topic("p-1.Odd.a \"b"), "p-1.Odd.a__b");
        assert_eq!(Adjustment::Avro.field("1st x'y"), "_1st_x_y");
        assert_eq!(Adjustment::Avro.schema("a-b.t.Key"), "a_b.t.Key");
        assert_eq!(Adjustment::AvroUnicode.field("1x-y"), "_u0031x_u002dy");
        assert_eq!(Adjustment::AvroUnicode.schema("a_b.t"), "a_u005fb.t");
        assert_eq!(Adjustment::None.field("1 x"), "1 x");
    }
}
