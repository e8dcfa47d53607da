//! The account book of a load test: what was acknowledged, what was read, what was committed.
//!
//! After a crash [`Ledger::check`] compares it with what the log holds. Messages name partition and offset.

use std::collections::{BTreeMap, HashMap};

/// A record as a test sees it: key and value as text.
pub type Entry = (String, String);

/// What clients were told.
#[derive(Debug, Default)]
pub struct Ledger {
    acked: BTreeMap<(i32, i64), Entry>,
    sent: HashMap<String, u64>,
    read: BTreeMap<(i32, i64), Entry>,
    committed: BTreeMap<i32, i64>,
}

/// What the log holds: per partition, records in offset order.
pub type Content = BTreeMap<i32, Vec<(i64, Entry)>>;

impl Ledger {
    /// A record was sent; values are unique over the whole test.
    pub fn sent(&mut self, value: &str) {
        *self.sent.entry(value.to_owned()).or_default() += 1;
    }

    /// A record was acknowledged at that place.
    pub fn acked(&mut self, partition: i32, offset: i64, entry: Entry) {
        self.acked.insert((partition, offset), entry);
    }

    /// A consumer read a record.
    pub fn read(&mut self, partition: i32, offset: i64, entry: Entry) {
        self.read.insert((partition, offset), entry);
    }

    /// A group's commit was acknowledged.
    pub fn committed(&mut self, partition: i32, offset: i64) {
        let at = self.committed.entry(partition).or_default();
        *at = offset.max(*at);
    }

    /// How many records were acknowledged.
    pub fn acked_count(&self) -> usize {
        self.acked.len()
    }

    /// The highest commit of a partition that was acknowledged.
    pub fn commit_of(&self, partition: i32) -> Option<i64> {
        self.committed.get(&partition).copied()
    }

    /// Everything wrong with `content`, or nothing.
    pub fn check(&self, content: &Content) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut seen: HashMap<&str, u64> = HashMap::new();
        let mut order: HashMap<(i32, &str), u64> = HashMap::new();
        for (partition, records) in content {
            for (i, (offset, (key, value))) in records.iter().enumerate() {
                let at = format!("{partition}@{offset}");
                if *offset != i as i64 {
                    wrong.push(format!("{at}: offsets are not dense, {i} was expected"));
                    break;
                }
                *seen.entry(value).or_default() += 1;
                if !self.sent.contains_key(value) {
                    wrong.push(format!("{at}: `{value}` was never sent"));
                }
                // Values end in `#<number rising per key>`.
                let number = value.rsplit('#').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default();
                let last = order.entry((*partition, key)).or_default();
                if number <= *last {
                    wrong.push(format!("{at}: key `{key}` has {number} after {last}"));
                }
                *last = number;
            }
        }
        for (name, told) in [("acknowledged", &self.acked), ("read", &self.read)] {
            for ((partition, offset), entry) in told {
                let found = content
                    .get(partition)
                    .and_then(|records| records.get(usize::try_from(*offset).ok()?))
                    .map(|(_, entry)| entry);
                if found != Some(entry) {
                    wrong.push(format!("{partition}@{offset}: {name} as {entry:?}, now {found:?}"));
                }
            }
        }
        for (value, times) in seen {
            if times > 1 && self.sent.get(value) == Some(&1) {
                wrong.push(format!("`{value}` was sent once and is there {times} times"));
            }
        }
        for (partition, offset) in &self.committed {
            let end = content.get(partition).map_or(0, |records| records.len() as i64);
            if *offset > end {
                wrong.push(format!("partition {partition}: committed {offset} lies above the end {end}"));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &str) -> Entry {
        ("k".into(), value.into())
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for (offset, value) in ["a#1", "b#2", "c#3"].into_iter().enumerate() {
            ledger.sent(value);
            ledger.acked(0, offset as i64, entry(value));
        }
        ledger.committed(0, 2);
        ledger
    }

    fn content(values: &[&str]) -> Content {
        let records = values.iter().enumerate().map(|(i, value)| (i as i64, entry(value)));
        Content::from([(0, records.collect())])
    }

    #[test]
    fn a_whole_log_passes() {
        assert!(ledger().check(&content(&["a#1", "b#2", "c#3"])).is_empty());
    }

    #[test]
    fn a_lost_doubled_changed_or_invented_record_is_seen() {
        for values in [
            &["a#1", "b#2"][..],
            &["a#1", "b#2", "c#3", "c#3"],
            &["a#1", "x#2", "c#3"],
            &["a#1"],
            &["b#2", "a#1", "c#3"],
        ] {
            assert!(!ledger().check(&content(values)).is_empty(), "{values:?}");
        }
    }
}
