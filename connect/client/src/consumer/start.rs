//! Where a member begins to read a partition. Pure.
//!
//! **Invariant:** a committed offset that is not in the log is never replaced by another one silently.

use aqueduct_core::sink::TopicPartition;
use aqueduct_core::{Error, Result};

/// What the user said about holes, with `consumer.override.auto.offset.reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reset {
    /// Nothing: a hole is an error.
    #[default]
    Refuse,
    /// Go on at the first offset.
    Earliest,
    /// Go on at the end.
    Latest,
}

impl Reset {
    pub(crate) fn from_override(text: Option<&str>) -> Self {
        match text {
            Some("earliest" | "beginning" | "smallest") => Reset::Earliest,
            Some("latest" | "end" | "largest") => Reset::Latest,
            _ => Reset::Refuse,
        }
    }
}

/// The first offset to read, given what the group committed and what the log holds (`low..high`).
pub(crate) fn first_offset(
    group: &str,
    tp: &TopicPartition,
    committed: Option<i64>,
    low: i64,
    high: i64,
    reset: Reset,
) -> Result<i64> {
    let how = "set `consumer.override.auto.offset.reset` to `earliest` or `latest` to go on";
    let hole = match committed {
        None => return Ok(if reset == Reset::Latest { high } else { low }),
        Some(offset) if (low..=high).contains(&offset) => return Ok(offset),
        Some(offset) if offset < low => format!(
            "topic `{}` partition {}: offsets {offset} to {} were removed by retention before group `{group}` read them; \
             {how} without them",
            tp.topic,
            tp.partition,
            low - 1
        ),
        Some(offset) => format!(
            "topic `{}` partition {}: group `{group}` committed offset {offset}, but the log ends at {high}: offsets \
             {high} to {} are missing, or the topic was made anew; {how}",
            tp.topic,
            tp.partition,
            offset - 1
        ),
    };
    match reset {
        Reset::Refuse => Err(Error::fatal(hole)),
        Reset::Earliest => {
            tracing::warn!("{hole}: going on at {low}, as the config says");
            Ok(low)
        }
        Reset::Latest => {
            tracing::warn!("{hole}: going on at {high}, as the config says");
            Ok(high)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(committed: Option<i64>, reset: Reset) -> Result<i64> {
        let tp = TopicPartition { topic: "orders".into(), partition: 2 };
        first_offset("connect-lake", &tp, committed, 100, 200, reset)
    }

    #[test]
    fn the_committed_offset_is_taken_where_the_log_has_it() {
        for offset in [100, 150, 200] {
            assert_eq!(first(Some(offset), Reset::Refuse).expect("in the log"), offset);
        }
    }

    #[test]
    fn a_group_that_never_committed_starts_at_the_first_offset() {
        assert_eq!(first(None, Reset::Refuse).expect("no commit"), 100);
    }

    #[test]
    fn offsets_below_the_log_start_are_refused_by_name() {
        let text = first(Some(40), Reset::Refuse).expect_err("a hole").full();
        for part in
            ["`orders`", "partition 2", "40 to 99", "connect-lake", "consumer.override.auto.offset.reset"]
        {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }

    #[test]
    fn offsets_above_the_log_end_are_refused_by_name() {
        let text = first(Some(260), Reset::Refuse).expect_err("a hole").full();
        assert!(text.contains("200 to 259"), "{text}");
    }

    #[test]
    fn a_hole_is_passed_only_where_the_user_says_so() {
        assert_eq!(first(Some(40), Reset::Earliest).expect("allowed"), 100);
        assert_eq!(first(Some(260), Reset::Latest).expect("allowed"), 200);
    }
}
