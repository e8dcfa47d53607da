//! Which tables are captured: `schema.table`, with wildcards.

use aqueduct_core::wildcard;

/// A pattern over `schema.table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TablePattern(String);

impl TablePattern {
    /// Reads `schema.table`, `schema.*`, and the simple forms of Debezium's regular expressions (`schema\.table`,
    /// `schema\..*`). Without a schema it is `public`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.replace("\\.", ".").replace("..*", ".*");
        if let Some(odd) = text.chars().find(|c| "\\^$()[]{}|+".contains(*c)) {
            return Err(format!(
                "`{text}`: `{odd}` has no meaning here; write `schema.table`, with `*` and `?`"
            ));
        }
        match text.split_once('.') {
            Some(("", _) | (_, "")) => Err(format!("`{text}` is not a table; write `schema.table`")),
            None if text.is_empty() => Err("an empty name; write `schema.table`".to_owned()),
            None => Ok(Self(format!("public.{text}"))),
            Some(_) => Ok(Self(text)),
        }
    }

    /// The table itself, when there is no wildcard.
    pub(crate) fn literal(&self) -> Option<&str> {
        (!self.0.contains(['*', '?'])).then_some(self.0.as_str())
    }

    /// Whether `table`, as `schema.table`, is meant.
    pub(crate) fn matches(&self, table: &str) -> bool {
        wildcard::matches(&self.0, table)
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_simple_regular_expressions_match() {
        let matches =
            |pattern: &str, table: &str| TablePattern::parse(pattern).expect("valid").matches(table);
        assert!(matches("public.orders", "public.orders"));
        assert!(matches("orders", "public.orders"));
        assert!(!matches("public.orders", "public.orders2"));
        assert!(matches("public.*", "public.a"));
        assert!(matches("public\\..*", "public.a"));
        assert!(matches("*.order?_*", "x.orders_2024"));
        assert!(!matches("*.order?_*", "x.order_2024"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["(a|b).c", ".x", "x.", ""] {
            assert!(TablePattern::parse(text).is_err(), "{text}");
        }
    }
}
