//! What is read when the metrics are asked for: the log, its partitions, the groups, the process.
//! Invariant: at most [`SERIES`] partitions, topics and group offsets are named, the first by name, so that the same ones are named
//! each time; how many are left out is a metric of its own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use aqueduct_log::{FSYNC_BUCKETS_US, LogCounters, LogDir};
use aqueduct_wire::messages::ApiKey;

use super::{Metrics, TIMES};
use crate::coord::Coordinator;
use crate::coord::group::State;
use crate::fetch_sessions::Sessions;
use crate::partition::{Partitions, Replica, TopicReplicas};

/// Topics, partitions, and group offsets that have series of their own.
const SERIES: usize = 1_000;

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn gauge(number: impl TryInto<i64>) -> ConstGauge<i64> {
    ConstGauge::new(number.try_into().unwrap_or(i64::MAX))
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// One gauge without labels.
fn one(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: impl TryInto<i64>) -> fmt::Result {
    gauge(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// Requests by API.
#[derive(Debug)]
pub(super) struct Requests(pub(super) Arc<Metrics>);

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let asked = || ApiKey::ALL.iter().zip(&self.0.apis).filter(|(_, of)| read(&of.requests) > 0);
        let mut family =
            encoder.encode_descriptor("requests", "Kafka requests, by API", None, MetricType::Counter)?;
        for (api, of) in asked() {
            let labels = [("api", api.name())];
            ConstCounter::new(read(&of.requests)).encode(family.encode_family(&labels)?)?;
        }
        let help = "Time from a request's last byte to its answer, by API";
        let mut family = encoder.encode_descriptor("request_seconds", help, None, MetricType::Histogram)?;
        for (api, of) in asked() {
            let bounds = TIMES.iter().map(|bound| bound.as_secs_f64()).chain([f64::INFINITY]);
            let counts = of.times.buckets.iter().map(read);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let labels = [("api", api.name())];
            let mut metric = family.encode_family(&labels)?;
            let sum = seconds(read(&of.times.micros));
            metric.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

/// Where the rest is read.
pub(crate) struct Sources {
    pub(crate) dir: Arc<LogDir>,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) fetch_sessions: Arc<Mutex<Sessions>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// The committed offset of a group that lags.
struct Lag {
    group: String,
    topic: String,
    partition: i32,
    records: i64,
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.log(encoder)?;
        let mut topics = self.partitions.topics();
        topics.sort_by(|one, other| one.name().cmp(other.name()));
        let mut left_out = Vec::new();
        self.sums(&topics, encoder)?;
        left_out.push(("topics", topics.len().saturating_sub(SERIES)));
        topic_sizes(&topics, encoder)?;
        left_out.push(("partitions", offsets(&topics, encoder)?));
        left_out.push(("group_offsets", self.groups(encoder)?));
        let help = "Topics, partitions and group offsets without series of their own";
        let mut family = encoder.encode_descriptor("series_left_out", help, None, MetricType::Gauge)?;
        for (kind, count) in left_out {
            gauge(count).encode(family.encode_family(&[("kind", kind)])?)?;
        }
        self.sessions(encoder)?;
        match resident_bytes() {
            Some(bytes) => {
                one(encoder, "resident_memory_bytes", "Memory of the process that is resident", bytes)
            }
            None => Ok(()),
        }
    }
}

impl Sources {
    fn log(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters: &LogCounters = self.dir.counters();
        let totals = [
            ("appended_batches", "Record batches appended", &counters.appended_batches),
            ("appended_bytes", "Bytes appended", &counters.appended_bytes),
            ("duplicate_batches", "Replayed batches that were already there", &counters.duplicate_batches),
            ("read_tail_bytes", "Bytes read from memory", &counters.read_bytes_tail),
            ("read_disk_bytes", "Bytes read from files", &counters.read_bytes_disk),
            ("flushes", "Flushes asked for that were done", &counters.flushes),
            ("rolled_segments", "Segments that were closed", &counters.rolled_segments),
            ("deleted_segments", "Segments removed by retention", &counters.deleted_segments),
            ("compactions", "Compactions done", &counters.compactions),
            ("compacted_read_bytes", "Bytes that compaction read", &counters.compacted_bytes_read),
            ("compacted_written_bytes", "Bytes that compaction wrote", &counters.compacted_bytes_written),
            ("torn_tails", "Torn tails cut after a crash", &counters.torn_tails),
            ("torn_bytes", "Bytes of torn tails", &counters.torn_bytes),
        ];
        for (name, help, counter) in totals {
            let counter = ConstCounter::new(read(counter));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let bounds = FSYNC_BUCKETS_US.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.zip(&counters.fsync_buckets).map(|(bound, count)| (bound, read(count))).collect();
        let (sum, count) = (seconds(read(&counters.fsync_micros)), read(&counters.fsyncs));
        let help = "How long fsync took";
        let mut metric = encoder.encode_descriptor("fsync_seconds", help, None, MetricType::Histogram)?;
        metric.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)
    }

    /// What is counted over all partitions.
    fn sums(&self, topics: &[Arc<TopicReplicas>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (mut all, mut offline, mut unmade, mut queued, mut waiting) = (0, 0, 0, 0, 0);
        for replica in topics.iter().flat_map(|topic| topic.partitions()) {
            all += 1;
            offline += usize::from(replica.check_online().is_err());
            unmade += usize::from(replica.is_unmade());
            let (to_append, to_flush) = replica.under_way();
            queued += to_append;
            waiting += to_flush;
        }
        one(encoder, "topics", "Topics", topics.len())?;
        one(encoder, "partitions", "Partitions led by this broker", all)?;
        one(encoder, "offline_partitions", "Partitions that cannot be served", offline)?;
        one(encoder, "unmade_partitions", "Partitions that the disk did not take yet", unmade)?;
        one(encoder, "append_queue", "Batches that wait to be appended", queued)?;
        one(encoder, "produces_waiting", "Batches that wait for their flush", waiting)
    }

    /// Groups by state, and how far they are behind; how many offsets are left out.
    fn groups(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<usize, fmt::Error> {
        let mut states: Vec<(State, usize)> = State::ALL.iter().map(|state| (*state, 0)).collect();
        let mut members = 0;
        let mut lags = Vec::new();
        self.coordinator.peek_at_all(|slot| {
            if let Some((_, count)) = states.iter_mut().find(|(state, _)| *state == slot.group.state()) {
                *count += 1;
            }
            members += slot.group.members().len();
            for (at, committed) in slot.offsets() {
                let topic = self.partitions.topic(&at.topic);
                let replica = topic.as_ref().and_then(|topic| topic.partition(at.partition));
                lags.extend(replica.map(|replica| Lag {
                    group: slot.group.id.clone(),
                    topic: at.topic.clone(),
                    partition: at.partition,
                    records: (replica.high_watermark() - committed.offset).max(0),
                }));
            }
        });
        let mut family = encoder.encode_descriptor("groups", "Groups, by state", None, MetricType::Gauge)?;
        for (state, count) in states {
            gauge(count).encode(family.encode_family(&[("state", state.name())])?)?;
        }
        one(encoder, "group_members", "Members of all groups", members)?;
        lags.sort_by(|one, other| {
            (&one.group, &one.topic, one.partition).cmp(&(&other.group, &other.topic, other.partition))
        });
        let help = "Records behind the committed offset of a group, up to the high watermark";
        let mut family = encoder.encode_descriptor("group_lag", help, None, MetricType::Gauge)?;
        for lag in lags.iter().take(SERIES) {
            let partition = lag.partition.to_string();
            let labels = [("group", &*lag.group), ("topic", &*lag.topic), ("partition", &*partition)];
            ConstGauge::new(lag.records).encode(family.encode_family(&labels)?)?;
        }
        Ok(lags.len().saturating_sub(SERIES))
    }

    fn sessions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (sessions, partitions, evicted) = {
            let sessions = self.fetch_sessions.lock();
            (sessions.len(), sessions.partitions(), sessions.evicted())
        };
        one(encoder, "fetch_sessions", "Fetch sessions that are kept", sessions)?;
        one(encoder, "fetch_session_partitions", "Partitions of all fetch sessions", partitions)?;
        let help = "Fetch sessions given up to make room";
        let descriptor =
            encoder.encode_descriptor("fetch_sessions_evicted", help, None, MetricType::Counter)?;
        ConstCounter::new(evicted).encode(descriptor)
    }
}

fn topic_sizes(topics: &[Arc<TopicReplicas>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Bytes of a topic's segments";
    let mut family = encoder.encode_descriptor("log_bytes", help, None, MetricType::Gauge)?;
    for topic in topics.iter().take(SERIES) {
        let size: u64 = topic.partitions().map(|replica| replica.log().map_or(0, |log| log.size())).sum();
        gauge(size).encode(family.encode_family(&[("topic", topic.name())])?)?;
    }
    Ok(())
}

/// Where the partitions begin and end; how many are left out.
fn offsets(topics: &[Arc<TopicReplicas>], encoder: &mut DescriptorEncoder<'_>) -> Result<usize, fmt::Error> {
    type Offset = fn(&Replica) -> i64;
    let kinds: [(&str, &str, Offset); 3] = [
        ("log_start_offset", "Offset of the first record of a partition", Replica::log_start),
        ("log_end_offset", "Offset that the next record of a partition gets", Replica::log_end),
        ("high_watermark", "Offset up to which a partition can be read", Replica::high_watermark),
    ];
    let all = || topics.iter().flat_map(|topic| topic.partitions());
    for (name, help, offset) in kinds {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for replica in all().take(SERIES) {
            let partition = replica.partition().to_string();
            let labels = [("topic", replica.topic()), ("partition", &*partition)];
            ConstGauge::new(offset(replica)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(all().count().saturating_sub(SERIES))
}

/// As Linux tells it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
