//! What a produced batch must be before it is handed to the partition's writer.
//! Invariant: checked outside of every lock; a batch that passes can be appended without looking into its records.

use bytes::Bytes;

use aqueduct_wire::compression::MAX_DECOMPRESSED;
use aqueduct_wire::{BatchBuilder, BatchError, Compression, RecordBatch};

use super::replica::AppendError;
use crate::topic_config::TopicConfig;

/// So many records of one batch are blamed by their place; the answer has no use for more.
const MAX_BLAMED: usize = 10_000;
/// Where the magic byte stands.
const MAGIC_AT: usize = 16;

/// Why a batch is refused before it reaches its partition.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) error: AppendError,
    /// The places of the records that are to blame (KIP-467); none when it is the batch itself.
    pub(crate) records: Vec<i32>,
}

impl From<AppendError> for Rejection {
    fn from(error: AppendError) -> Self {
        Self { error, records: Vec::new() }
    }
}

/// The one batch that a partition's produce data holds, as it goes to disk.
pub(crate) fn check_batch(records: Bytes, config: &TopicConfig, now: i64) -> Result<RecordBatch, Rejection> {
    let batch = check_whole(records, config, now)?;
    if config.compact {
        check_keys(&batch)?;
    }
    let Some(codec) = new_codec(&batch, config).map_err(AppendError::Corrupt)? else { return Ok(batch) };
    let batch = rebuild(&batch, codec).map_err(AppendError::Corrupt)?;
    check_size(&batch, config)?;
    Ok(batch)
}

/// The codec under which the batch is written anew; `None` where its bytes can stay.
fn new_codec(batch: &RecordBatch, config: &TopicConfig) -> Result<Option<Compression>, BatchError> {
    let (header, sent) = (batch.header(), batch.header().compression()?);
    let codec = config.compression.unwrap_or(sent);
    // librdkafka writes records without a timestamp under a largest one of 0: retention would take them for old.
    let misdated = header.base_timestamp < 0 && header.max_timestamp == 0;
    Ok((codec != sent || misdated).then_some(codec))
}

/// Everything that can be said without looking into the records.
fn check_whole(records: Bytes, config: &TopicConfig, now: i64) -> Result<RecordBatch, AppendError> {
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
    check_size(&batch, config)?;
    if !config.log_append_time {
        check_timestamps(header.base_timestamp, header.max_timestamp, config, now)?;
    }
    Ok(batch)
}

fn check_size(batch: &RecordBatch, config: &TopicConfig) -> Result<(), AppendError> {
    let (size, limit) = (batch.size(), config.max_message_bytes);
    if size as u64 > limit { Err(AppendError::TooLarge { size, limit }) } else { Ok(()) }
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
fn check_keys(batch: &RecordBatch) -> Result<(), Rejection> {
    let mut keyless = Vec::new();
    for (place, record) in (0..).zip(batch.records(MAX_DECOMPRESSED).map_err(AppendError::Corrupt)?) {
        let record = record.map_err(AppendError::Corrupt)?;
        if record.key.is_none() && keyless.len() < MAX_BLAMED {
            keyless.push(place);
        }
    }
    if keyless.is_empty() {
        return Ok(());
    }
    let error = AppendError::InvalidRecord("a record of a compacted topic needs a key".to_owned());
    Err(Rejection { error, records: keyless })
}

/// The same records under this codec, with the timestamps that they have.
fn rebuild(batch: &RecordBatch, codec: Compression) -> Result<RecordBatch, BatchError> {
    let mut builder = BatchBuilder::rewrite(batch.header())?.compression(codec);
    for record in batch.records(MAX_DECOMPRESSED)? {
        builder.push(&record?);
    }
    RecordBatch::parse_trusted(&mut builder.build()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aqueduct_wire::Record;

    use super::*;
    use crate::topic_config::TopicDefaults;

    fn topic(settings: &[(&str, &str)]) -> TopicConfig {
        let settings: BTreeMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        TopicDefaults::default().resolve(&settings).expect("the settings are right")
    }

    fn produced(codec: Compression, keys: &[Option<&str>]) -> Bytes {
        let mut builder = BatchBuilder::new().compression(codec).producer(7, 1, 30);
        for (i, key) in keys.iter().enumerate() {
            let value = format!("value {i}").repeat(50);
            builder.append(1_000 + i as i64, key.map(str::as_bytes), Some(value.as_bytes()), &[]);
        }
        builder.build().expect("a batch of few records")
    }

    fn records(batch: &RecordBatch) -> Vec<Record> {
        batch.records(1 << 20).expect("it can be read").map(|record| record.expect("a record")).collect()
    }

    #[test]
    fn records_without_a_key_are_blamed_one_by_one_in_a_compacted_topic() {
        let sent = produced(Compression::Gzip, &[Some("a"), None, Some("b"), None]);
        let refused = check_batch(sent.clone(), &topic(&[("cleanup.policy", "compact")]), 2_000);
        let refused = refused.expect_err("two records have no key");
        assert!(matches!(refused.error, AppendError::InvalidRecord(_)));
        assert_eq!(refused.records, [1, 3]);
        check_batch(sent, &topic(&[]), 2_000).expect("other topics take them");
    }

    #[test]
    fn a_topic_with_a_codec_of_its_own_keeps_everything_but_the_codec() {
        for from in Compression::ALL {
            let sent = produced(from, &[Some("a"), None, Some("b")]);
            let original = RecordBatch::parse(&mut sent.clone()).expect("it is whole");
            for to in Compression::ALL {
                let name = if to == Compression::None { "uncompressed" } else { to.name() };
                let config = topic(&[("compression.type", name)]);
                let kept = check_batch(sent.clone(), &config, 2_000).expect("it is taken");
                kept.check_crc().expect("the CRC is right");
                assert_eq!(kept.header().compression(), Ok(to));
                assert_eq!(records(&kept), records(&original), "{from:?} to {to:?}");
                let same = |batch: &RecordBatch| {
                    let h = batch.header();
                    (h.producer_id, h.producer_epoch, h.base_sequence, h.max_timestamp, h.last_offset_delta)
                };
                assert_eq!(same(&kept), same(&original));
            }
            let kept = check_batch(sent.clone(), &topic(&[]), 2_000).expect("it is taken");
            assert_eq!(kept.bytes(), &sent, "the default keeps the producer's bytes");
        }
    }

    /// As librdkafka writes records whose timestamp is -1.
    #[test]
    fn records_without_a_timestamp_are_not_taken_for_old() {
        let mut builder = BatchBuilder::new().producer(7, 1, 30);
        builder.append(-1, None, Some(b"one"), &[]);
        builder.append(-1, None, Some(b"two"), &[]);
        let whole = builder.build().expect("a batch of few records");
        let original = RecordBatch::parse(&mut whole.clone()).expect("it is whole");
        let mut sent = whole.to_vec();
        // The largest timestamp stands behind attributes, last offset delta and base timestamp; the CRC before them.
        sent[35..43].copy_from_slice(&0i64.to_be_bytes());
        let crc = crc32c::crc32c(&sent[21..]);
        sent[17..21].copy_from_slice(&crc.to_be_bytes());
        let kept = check_batch(sent.into(), &topic(&[]), 1 << 40).expect("it is taken");
        assert_eq!(kept.header().max_timestamp, -1);
        assert_eq!(records(&kept), records(&original));
    }

    #[test]
    fn what_grows_over_the_limit_is_refused() {
        let sent = produced(Compression::Zstd, &[Some("a"); 20]);
        let limit = (sent.len() + 1).to_string();
        let config = topic(&[("compression.type", "uncompressed"), ("max.message.bytes", &limit)]);
        let refused = check_batch(sent, &config, 2_000).expect_err("too large without compression");
        assert!(matches!(refused.error, AppendError::TooLarge { .. }));
    }
}
