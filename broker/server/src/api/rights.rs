//! What a client may do, as bits of Kafka's `AclOperation` codes (KIP-430).
//! Invariant: nothing is authorized yet, so everybody may do all that a resource of the kind knows, as on Kafka without an
//! authorizer.

const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const CREATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 6;
const ALTER: i32 = 1 << 7;
const DESCRIBE: i32 = 1 << 8;
const CLUSTER_ACTION: i32 = 1 << 9;
const DESCRIBE_CONFIGS: i32 = 1 << 10;
const ALTER_CONFIGS: i32 = 1 << 11;
const IDEMPOTENT_WRITE: i32 = 1 << 12;

pub(super) const CLUSTER: i32 =
    CREATE | ALTER | DESCRIBE | CLUSTER_ACTION | DESCRIBE_CONFIGS | ALTER_CONFIGS | IDEMPOTENT_WRITE;
pub(super) const TOPIC: i32 =
    READ | WRITE | CREATE | DELETE | ALTER | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;
pub(super) const GROUP: i32 = READ | DELETE | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;

/// The field of an answer: `MIN` stands for "was not asked".
pub(super) fn answer(asked: bool, operations: i32) -> i32 {
    if asked { operations } else { i32::MIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Apache Kafka 4.3 answers.
    #[test]
    fn everything_that_a_resource_knows_is_allowed() {
        let codes = |bits: i32| (0..31).filter(|code| bits & 1 << code != 0).collect::<Vec<i32>>();
        assert_eq!(codes(CLUSTER), [5, 7, 8, 9, 10, 11, 12]);
        assert_eq!(codes(TOPIC), [3, 4, 5, 6, 7, 8, 10, 11]);
        assert_eq!(codes(GROUP), [3, 6, 8, 10, 11]);
        assert_eq!((answer(true, TOPIC), answer(false, TOPIC)), (TOPIC, i32::MIN));
    }
}
