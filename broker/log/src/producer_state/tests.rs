//! The sequence rules, against a plain model of a producer.

use aqueduct_wire::{BatchBuilder, BatchHeader};
use proptest::prelude::*;

use super::*;

fn header(producer: (i64, i16, i32), base_offset: i64, count: i32) -> BatchHeader {
    let mut builder =
        BatchBuilder::new().base_offset(base_offset).producer(producer.0, producer.1, producer.2);
    for _ in 0..count {
        builder.append(0, None, None, &[]);
    }
    BatchHeader::parse(&builder.build().unwrap()).unwrap()
}

/// Writes batches of two records of producer 1, one after the other.
fn after(batches: &[(i16, i32)]) -> ProducerStates {
    let mut states = ProducerStates::default();
    for (offset, (epoch, sequence)) in (0..).step_by(2).zip(batches) {
        let header = header((1, *epoch, *sequence), offset, 2);
        assert_eq!(states.check(&header), Ok(Verdict::Append), "{epoch} {sequence}");
        states.record(&header, 0);
    }
    states
}

#[test]
fn the_rules_hold_one_by_one() {
    let check =
        |states: &ProducerStates, epoch, sequence| states.check(&header((1, epoch, sequence), 100, 2));
    let out_of_order = |found, expected| Err(SequenceError::OutOfOrder { producer_id: 1, found, expected });
    // An unknown producer may begin anywhere.
    assert_eq!(check(&ProducerStates::default(), 0, 77), Ok(Verdict::Append));
    let states = after(&[(3, 0), (3, 2)]);
    assert_eq!(check(&states, 3, 4), Ok(Verdict::Append));
    assert_eq!(check(&states, 3, 6), out_of_order(6, 4));
    assert_eq!(check(&states, 3, 1), out_of_order(1, 4));
    assert_eq!(check(&states, 4, 0), Ok(Verdict::Append));
    assert_eq!(check(&states, 4, 4), out_of_order(4, 0));
    assert_eq!(check(&states, 2, 4), Err(SequenceError::OldEpoch { producer_id: 1, found: 2, current: 3 }));
    assert!(
        matches!(check(&states, 3, 0), Ok(Verdict::Duplicate(w)) if w.base_offset == 0 && w.last_offset == 1)
    );
    // Five batches are remembered, the sixth last is not.
    let states = after(&[(0, 0), (0, 2), (0, 4), (0, 6), (0, 8), (0, 10)]);
    assert!(matches!(check(&states, 0, 2), Ok(Verdict::Duplicate(_))));
    assert_eq!(check(&states, 0, 0), out_of_order(0, 12));
}

#[test]
fn sequences_begin_again_after_the_largest() {
    let states = after(&[(0, i32::MAX - 3), (0, i32::MAX - 1), (0, 0)]);
    assert_eq!(states.check(&header((1, 0, 2), 10, 1)), Ok(Verdict::Append));
    let states = after(&[(0, i32::MAX - 2), (0, i32::MAX), (0, 1)]);
    assert!(
        matches!(states.check(&header((1, 0, i32::MAX), 10, 2)), Ok(Verdict::Duplicate(w)) if w.last_sequence == 0)
    );
}

#[test]
fn silent_producers_are_forgotten() {
    let mut states = after(&[(0, 0)]);
    states.record(&header((2, 0, 0), 2, 1), 50);
    states.expire(50);
    assert_eq!((states.len(), states.get(1)), (1, None));
}

proptest! {
    #[test]
    fn a_snapshot_is_read_back_and_garbage_is_not(batches in proptest::collection::vec((0..4i64, 0..3i16, 0..i32::MAX, 1..5i32), 0..40), cut in 0..200usize) {
        let mut states = ProducerStates::default();
        for (offset, (id, epoch, sequence, count)) in (0..).step_by(5).zip(batches) {
            let header = header((id, epoch, sequence), offset, count);
            if states.check(&header) == Ok(Verdict::Append) {
                states.record(&header, offset);
            }
        }
        let bytes = states.encode();
        prop_assert_eq!(ProducerStates::decode(&bytes), Some(states));
        let cut = cut.min(bytes.len() - 1);
        prop_assert_eq!(ProducerStates::decode(&bytes[..cut]), None);
    }

    /// A producer with up to five batches in flight that retries at will: the log gets each batch once and in order.
    #[test]
    fn retries_never_double_or_reorder(sends in proptest::collection::vec((0..5usize, 1..4i32), 1..80), start in prop_oneof![Just(0), Just(i32::MAX - 7)]) {
        let mut states = ProducerStates::default();
        let mut log: Vec<(i32, i32, i64)> = Vec::new();
        let (mut next_sequence, mut next_offset) = (start, 0i64);
        for (back, count) in sends {
            // 0 is a new batch, n a retry of the n-th last one.
            let retry = back.checked_sub(1).and_then(|n| log.len().checked_sub(n + 1)).map(|i| log[i]);
            let (sequence, count) = retry.map_or((next_sequence, count), |(s, c, _)| (s, c));
            let header = header((1, 0, sequence), next_offset, count);
            match (states.check(&header).unwrap(), retry) {
                (Verdict::Duplicate(w), Some((_, _, offset))) => prop_assert_eq!(w.base_offset, offset),
                (Verdict::Append, None) => {
                    states.record(&header, 0);
                    log.push((sequence, count, next_offset));
                    next_sequence = sequence_after(sequence, count);
                    next_offset += i64::from(count);
                }
                (verdict, retry) => prop_assert!(false, "{verdict:?} for {retry:?}"),
            }
            // A gap is always noticed.
            let gap = self::header((1, 0, sequence_after(next_sequence, 1)), next_offset, 1);
            prop_assert!(log.is_empty() || states.check(&gap).is_err());
        }
    }
}
