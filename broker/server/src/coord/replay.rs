//! Reads a shard from its partition at start.
//! Invariant: a record that cannot be understood is passed over and named; it never takes the other groups away.

use aqueduct_wire::compression::MAX_DECOMPRESSED;

use super::records;
use super::shard::Shard;
use crate::partition::Replica;

/// Bytes read at a time.
const LOAD_BYTES: usize = 1 << 20;

/// Reads a partition from its start to its end.
pub(super) fn replay(replica: &Replica, now: i64) -> Result<Shard, ReplayError> {
    let mut shard = Shard::default();
    let mut offset = replica.log_start();
    let end = replica.log_end();
    while offset < end {
        let batches = replica.read_all(offset, LOAD_BYTES)?;
        let before = offset;
        for batch in batches.batches() {
            let batch = batch?;
            let header = *batch.header();
            offset = header.next_offset();
            if header.is_control() {
                continue;
            }
            for record in batch.records(MAX_DECOMPRESSED)? {
                let record = record?;
                match records::decode(record.key.as_ref(), record.value.as_ref()) {
                    Ok(Some(change)) => shard.replay(record.offset, change, now),
                    Ok(None) => {}
                    Err(error) => {
                        // One record of a newer kind must not take all groups away.
                        tracing::warn!(partition = %replica.name(), offset = record.offset, %error, "passed over a group record");
                    }
                }
            }
        }
        if offset == before {
            // Compaction left nothing up to the end: the last records were tombstones.
            break;
        }
    }
    Ok(shard)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error(transparent)]
    Read(#[from] crate::partition::FetchError),
    #[error(transparent)]
    Batch(#[from] aqueduct_wire::BatchError),
}
