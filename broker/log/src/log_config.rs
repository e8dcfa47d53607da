//! What a topic's settings mean to its logs, and the names and counters a log carries.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::error::LogError;

/// Settings of one partition's log; `-1` stands for "no limit", as in Kafka.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// segment.bytes
    pub segment_bytes: u32,
    /// segment.ms
    pub segment_ms: i64,
    /// index.interval.bytes
    pub index_interval_bytes: usize,
    /// retention.ms
    pub retention_ms: i64,
    /// retention.bytes
    pub retention_bytes: i64,
    /// `cleanup.policy` contains `delete`
    pub delete: bool,
    /// `cleanup.policy` contains `compact`
    pub compact: bool,
    /// min.cleanable.dirty.ratio
    pub min_cleanable_dirty_ratio: f64,
    /// min.compaction.lag.ms
    pub min_compaction_lag_ms: i64,
    /// max.compaction.lag.ms
    pub max_compaction_lag_ms: i64,
    /// delete.retention.ms
    pub delete_retention_ms: i64,
    /// producer.id.expiration.ms
    pub producer_expiry_ms: i64,
}

/// What is compacted is rolled at this size at the latest, because only finished segments are compacted: few keys that change
/// often must not fill a segment of 1 GiB first. Compaction merges the rest up to `segment_bytes`.
const COMPACTED_ROLL_BYTES: u32 = 8 << 20;

impl LogConfig {
    /// The size at which the active segment is finished.
    pub(crate) fn roll_bytes(&self) -> u64 {
        let limit = if self.compact { COMPACTED_ROLL_BYTES } else { u32::MAX };
        u64::from(self.segment_bytes.min(limit))
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        let day = 24 * 60 * 60 * 1000;
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * day,
            index_interval_bytes: 4096,
            retention_ms: 7 * day,
            retention_bytes: -1,
            delete: true,
            compact: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: day,
            producer_expiry_ms: day,
        }
    }
}

/// A partition of a topic, and which incarnation of the topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartitionId {
    pub topic: String,
    pub topic_id: Uuid,
    pub partition: i32,
}

impl PartitionId {
    /// The name of the partition's directory.
    pub fn dir_name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Upper bounds of the fsync latency buckets, in microseconds.
pub const FSYNC_BUCKETS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000];

/// Counters of a log directory; they only rise.
#[derive(Debug, Default)]
pub struct LogCounters {
    pub appended_batches: AtomicU64,
    pub appended_bytes: AtomicU64,
    pub duplicate_batches: AtomicU64,
    pub read_bytes_tail: AtomicU64,
    pub read_bytes_disk: AtomicU64,
    pub flushes: AtomicU64,
    pub fsyncs: AtomicU64,
    pub fsync_micros: AtomicU64,
    /// Counts per bucket of [`FSYNC_BUCKETS_US`], not cumulated; the last one is everything above.
    pub fsync_buckets: [AtomicU64; FSYNC_BUCKETS_US.len() + 1],
    pub rolled_segments: AtomicU64,
    pub deleted_segments: AtomicU64,
    pub compactions: AtomicU64,
    pub compacted_bytes_read: AtomicU64,
    pub compacted_bytes_written: AtomicU64,
    pub torn_tails: AtomicU64,
    pub torn_bytes: AtomicU64,
    pub offline_partitions: AtomicU64,
    /// When the disk last had no room for an append, and what it said.
    no_room: Mutex<Option<(Instant, LogError)>>,
}

impl LogCounters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Notes what stopped an append, if that was the want of room.
    pub(crate) fn append_failed(&self, error: &LogError) {
        if error.is_disk_full() {
            *self.no_room.lock() = Some((Instant::now(), error.clone()));
        }
    }

    /// What the disk said when it had no room for an append, no longer ago than this. Producers try again all the time,
    /// so a disk that stays full keeps saying so.
    pub fn no_room(&self, within: Duration) -> Option<LogError> {
        self.no_room.lock().as_ref().filter(|(at, _)| at.elapsed() <= within).map(|(_, error)| error.clone())
    }

    pub(crate) fn fsync_took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self::add(&self.fsyncs, 1);
        Self::add(&self.fsync_micros, micros);
        let bucket = FSYNC_BUCKETS_US.partition_point(|bound| *bound < micros);
        Self::add(&self.fsync_buckets[bucket], 1);
    }
}
