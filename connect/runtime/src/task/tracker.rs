//! Which positions may be stored. Pure.
//!
//! Every source record gets an entry in the order of `poll`; it is done once all records made from it are acknowledged.
//!
//! **Invariant:** a position is handed out only after its own entry and every earlier one are done.

use std::collections::VecDeque;
use std::sync::Arc;

use aqueduct_core::source::{Receipt, SourcePosition};

/// Tracks acknowledgements in order.
#[derive(Debug, Default)]
pub(crate) struct AckTracker {
    entries: VecDeque<Entry>,
    /// Token of the first entry.
    first: u64,
    /// The newest position of each source partition among what is done.
    ready: Vec<SourcePosition>,
    /// Receipts of requests that are done with all before them.
    settled: Vec<Receipt>,
}

#[derive(Debug)]
struct Entry {
    /// Acknowledgements to come.
    open: u32,
    position: Option<SourcePosition>,
    receipt: Option<Receipt>,
}

impl AckTracker {
    /// Adds a source record of which `parts` records are written; none if a step dropped it. The answer is the token
    /// that each acknowledgement bears.
    pub(crate) fn submit(
        &mut self,
        parts: u32,
        position: Option<SourcePosition>,
        receipt: Option<Receipt>,
    ) -> u64 {
        if parts == 0 {
            self.submit_done(position, receipt);
            return self.first;
        }
        self.entries.push_back(Entry { open: parts, position, receipt });
        self.first + self.entries.len() as u64 - 1
    }

    /// What is done from the start needs no entry of its own: many dropped records behind one that waits cost nothing.
    fn submit_done(&mut self, position: Option<SourcePosition>, receipt: Option<Receipt>) {
        match (self.entries.back_mut(), position, receipt) {
            (_, None, None) => {}
            (None, position, receipt) => self.done(Entry { open: 0, position, receipt }),
            (Some(last), Some(position), None)
                if last.open == 0 && last.position.as_ref().is_none_or(|p| same(p, &position)) =>
            {
                last.position = Some(position);
            }
            (Some(_), position, receipt) => self.entries.push_back(Entry { open: 0, position, receipt }),
        }
    }

    fn done(&mut self, entry: Entry) {
        if let Some(position) = entry.position {
            keep(&mut self.ready, position);
        }
        self.settled.extend(entry.receipt);
    }

    /// One of the records with this token is acknowledged.
    pub(crate) fn acknowledged(&mut self, token: u64) {
        let Some(index) = token.checked_sub(self.first).and_then(|index| usize::try_from(index).ok()) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(index) {
            entry.open = entry.open.saturating_sub(1);
        }
        while self.entries.front().is_some_and(|entry| entry.open == 0) {
            let entry = self.entries.pop_front().expect("there is a first one");
            self.first += 1;
            self.done(entry);
        }
    }

    /// Whether there is something to store.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes what may be stored, at most one position per source partition.
    pub(crate) fn take_ready(&mut self) -> Vec<SourcePosition> {
        std::mem::take(&mut self.ready)
    }

    /// Takes the receipts of requests that are done.
    pub(crate) fn take_settled(&mut self) -> Vec<Receipt> {
        std::mem::take(&mut self.settled)
    }

    /// Whether everything submitted is acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.entries.is_empty()
    }
}

fn same(a: &SourcePosition, b: &SourcePosition) -> bool {
    Arc::ptr_eq(&a.partition, &b.partition) || a.partition == b.partition
}

fn keep(ready: &mut Vec<SourcePosition>, position: SourcePosition) {
    match ready.iter_mut().find(|known| same(known, &position)) {
        Some(known) => *known = position,
        None => ready.push(position),
    }
}

#[cfg(test)]
mod tests {
    use aqueduct_core::source::{JsonMap, partition_of};
    use proptest::prelude::*;

    use super::*;

    fn at(partition: &str, n: u64) -> SourcePosition {
        let offset = Arc::new(JsonMap::from_iter([("n".to_owned(), n.into())]));
        SourcePosition { partition: partition_of("p", partition), offset }
    }

    #[test]
    fn a_position_waits_for_every_earlier_record() {
        let mut tracker = AckTracker::default();
        let first = tracker.submit(1, Some(at("a", 1)), None);
        let second = tracker.submit(1, Some(at("a", 2)), None);
        tracker.acknowledged(second);
        assert!(!tracker.has_ready());
        tracker.acknowledged(first);
        assert_eq!(tracker.take_ready(), [at("a", 2)]);
        assert!(tracker.is_idle());
    }

    #[test]
    fn a_record_that_became_several_waits_for_all_of_them() {
        let mut tracker = AckTracker::default();
        let token = tracker.submit(3, Some(at("a", 1)), None);
        tracker.acknowledged(token);
        tracker.acknowledged(token);
        assert!(!tracker.has_ready());
        tracker.acknowledged(token);
        assert_eq!(tracker.take_ready(), [at("a", 1)]);
    }

    #[test]
    fn dropped_records_advance_the_position_without_memory() {
        let mut tracker = AckTracker::default();
        let token = tracker.submit(1, Some(at("a", 0)), None);
        for n in 1..10_000 {
            tracker.submit(0, Some(at("a", n)), None);
        }
        assert_eq!(tracker.entries.len(), 2);
        assert!(!tracker.has_ready());
        tracker.acknowledged(token);
        assert_eq!(tracker.take_ready(), [at("a", 9_999)]);
    }

    #[test]
    fn one_position_is_kept_per_source_partition() {
        let mut tracker = AckTracker::default();
        for n in 0..4 {
            let token = tracker.submit(1, Some(at(if n % 2 == 0 { "even" } else { "odd" }, n)), None);
            tracker.acknowledged(token);
        }
        assert_eq!(tracker.take_ready(), [at("even", 2), at("odd", 3)]);
    }

    proptest! {
        /// Against the plain definition: the position of a record is ready when it and all before it are acknowledged.
        #[test]
        fn never_ahead_of_what_is_acknowledged(
            parts in proptest::collection::vec(0u32..3, 1..60),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let mut tracker = AckTracker::default();
            let tokens: Vec<u64> =
                parts.iter().enumerate().map(|(n, parts)| tracker.submit(*parts, Some(at("a", n as u64)), None)).collect();
            let mut open = parts.clone();
            let mut stored = None;
            let check = |tracker: &mut AckTracker, open: &[u32], stored: &mut Option<u64>| {
                if let Some(position) = tracker.take_ready().pop() {
                    *stored = position.offset["n"].as_u64();
                }
                let done = open.iter().take_while(|open| **open == 0).count() as u64;
                prop_assert_eq!(*stored, done.checked_sub(1));
                Ok(())
            };
            check(&mut tracker, &open, &mut stored)?;
            for index in order {
                let waiting: Vec<usize> = (0..open.len()).filter(|n| open[*n] > 0).collect();
                if waiting.is_empty() {
                    break;
                }
                let n = waiting[index.index(waiting.len())];
                open[n] -= 1;
                tracker.acknowledged(tokens[n]);
                check(&mut tracker, &open, &mut stored)?;
            }
        }
    }
}
