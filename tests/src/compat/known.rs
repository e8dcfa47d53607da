//! The differences that have a reason: `SUITE TEST REASON…`, one a line.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

/// The list, by suite and test.
pub(super) struct Known(BTreeMap<(String, String), String>);

impl Known {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut known = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.splitn(3, ' ');
            let mut word =
                || words.next().with_context(|| format!("`{line}`: suite, test and reason are needed"));
            let (suite, test, reason) = (word()?.to_owned(), word()?.to_owned(), word()?.to_owned());
            ensure!(known.insert((suite, test), reason).is_none(), "`{line}` stands twice");
        }
        Ok(Self(known))
    }

    pub(super) fn reason(&self, suite: &str, test: &str) -> Option<&str> {
        self.0.get(&(suite.to_owned(), test.to_owned())).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_list_can_be_read() {
        let known = Known::parse(include_str!("known.txt")).expect("every line has suite, test and reason");
        assert!(known.0.keys().all(|(suite, _)| suite == "librdkafka" || suite == "kafka-python"));
    }

    #[test]
    fn a_difference_without_a_reason_is_refused() {
        assert!(Known::parse("librdkafka 0001_multiobj").is_err());
        assert!(Known::parse("a b one\na b two").is_err());
    }
}
