//! What a produced batch must be before it is handed to the partition's writer.
//! Invariant: checked outside of every lock; a batch that passes can be appended without looking into its records.

use bytes::Bytes;

use aqueduct_wire::{BatchError, RecordBatch};

use super::replica::AppendError;
use crate::topic_config::TopicConfig;

/// Decompression of a batch for a compacted topic stops here.
const MAX_DECOMPRESSED: usize = 256 << 20;
/// Where the magic byte stands.
const MAGIC_AT: usize = 16;

/// The one batch that a partition's produce data holds.
pub(crate) fn check_batch(
    records: Bytes,
    config: &TopicConfig,
    now: i64,
) -> Result<RecordBatch, AppendError> {
    match records.get(MAGIC_AT) {
        Some(2) => {}
        Some(magic @ (0 | 1)) => return Err(AppendError::OldFormat(i8::try_from(*magic).unwrap_or(0))),
        Some(_) | None => return Err(AppendError::Corrupt(short(&records))),
    }
    let mut rest = records;
    let batch = RecordBatch::parse(&mut rest).map_err(AppendError::Corrupt)?;
    if !rest.is_empty() {
        return Err(AppendError::InvalidRecord(
            "a produce request carries one batch per partition".to_owned(),
        ));
    }
    batch.check_produced().map_err(|error| AppendError::InvalidRecord(error.to_string()))?;
    let header = batch.header();
    if header.is_control() {
        return Err(AppendError::InvalidRecord("a client cannot write control batches".to_owned()));
    }
    if header.is_transactional() {
        return Err(AppendError::Transactional);
    }
    if batch.size() as u64 > config.max_message_bytes {
        return Err(AppendError::TooLarge { size: batch.size(), limit: config.max_message_bytes });
    }
    if !config.log_append_time {
        check_timestamps(header.base_timestamp, header.max_timestamp, config, now)?;
    }
    if config.compact {
        check_keys(&batch)?;
    }
    Ok(batch)
}

/// The error that parsing so short a batch gives.
fn short(records: &Bytes) -> BatchError {
    match RecordBatch::parse(&mut records.clone()) {
        Err(error) => error,
        Ok(_) => BatchError::Magic(0),
    }
}

fn check_timestamps(first: i64, largest: i64, config: &TopicConfig, now: i64) -> Result<(), AppendError> {
    if largest.saturating_sub(now) > config.timestamp_after_max_ms {
        let limit = config.timestamp_after_max_ms;
        let why =
            format!("timestamp `{largest}` lies more than `message.timestamp.after.max.ms` = {limit} ahead");
        return Err(AppendError::InvalidTimestamp(why));
    }
    if first >= 0 && now.saturating_sub(first) > config.timestamp_before_max_ms {
        let limit = config.timestamp_before_max_ms;
        let why =
            format!("timestamp `{first}` lies more than `message.timestamp.before.max.ms` = {limit} back");
        return Err(AppendError::InvalidTimestamp(why));
    }
    Ok(())
}

/// Compaction keeps the last record of each key: without keys there is nothing to keep.
fn check_keys(batch: &RecordBatch) -> Result<(), AppendError> {
    let records = batch.records(MAX_DECOMPRESSED).map_err(AppendError::Corrupt)?;
    for record in records {
        let record = record.map_err(AppendError::Corrupt)?;
        if record.key.is_none() {
            return Err(AppendError::InvalidRecord("a record of a compacted topic needs a key".to_owned()));
        }
    }
    Ok(())
}
