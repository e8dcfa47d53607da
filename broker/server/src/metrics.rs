//! Counters for Prometheus: requests and bytes as they pass, the log's own at each scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use aqueduct_log::{FSYNC_BUCKETS_US, LogCounters, LogDir};
use aqueduct_wire::messages::ApiKey;

use crate::partition::Partitions;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabel {
    api: &'static str,
}

/// What the request path counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Family<ApiLabel, Counter>,
    request_bytes: Counter,
    produced_bytes: Counter,
    fetched_bytes: Counter,
}

impl Metrics {
    pub(crate) fn request(&self, api: ApiKey, bytes: usize) {
        self.requests.get_or_create(&ApiLabel { api: api.name() }).inc();
        self.request_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn bytes_in(&self, bytes: usize) {
        self.produced_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn bytes_out(&self, bytes: usize) {
        self.fetched_bytes.inc_by(bytes as u64);
    }

    /// Adds everything to a registry; names begin with `aqueduct_broker_`.
    pub(crate) fn register(&self, registry: &mut Registry, dir: Arc<LogDir>, partitions: Arc<Partitions>) {
        let registry = registry.sub_registry_with_prefix("aqueduct_broker");
        registry.register("requests", "Kafka requests, by API", self.requests.clone());
        registry.register("request_bytes", "Bytes of Kafka requests", self.request_bytes.clone());
        registry.register(
            "produced_bytes",
            "Bytes of record batches in produce requests",
            self.produced_bytes.clone(),
        );
        registry.register(
            "fetched_bytes",
            "Bytes of record batches in fetch answers",
            self.fetched_bytes.clone(),
        );
        registry.register_collector(Box::new(LogCollector { dir, partitions }));
    }
}

/// Reads the log's counters when asked.
struct LogCollector {
    dir: Arc<LogDir>,
    partitions: Arc<Partitions>,
}

impl fmt::Debug for LogCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogCollector").finish_non_exhaustive()
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Collector for LogCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters: &LogCounters = self.dir.counters();
        let totals = [
            ("appended_batches", "Record batches appended", &counters.appended_batches),
            ("appended_bytes", "Bytes appended", &counters.appended_bytes),
            ("duplicate_batches", "Replayed batches that were already there", &counters.duplicate_batches),
            ("read_tail_bytes", "Bytes read from memory", &counters.read_bytes_tail),
            ("read_disk_bytes", "Bytes read from files", &counters.read_bytes_disk),
            ("deleted_segments", "Segments removed by retention", &counters.deleted_segments),
            ("compactions", "Compactions done", &counters.compactions),
            ("torn_tails", "Torn tails cut after a crash", &counters.torn_tails),
        ];
        for (name, help, counter) in totals {
            let counter = ConstCounter::new(read(counter));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        self.encode_fsync(counters, &mut encoder)?;
        self.encode_sizes(&mut encoder)
    }
}

impl LogCollector {
    fn encode_fsync(
        &self,
        counters: &LogCounters,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let bounds = FSYNC_BUCKETS_US.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.zip(&counters.fsync_buckets).map(|(bound, count)| (bound, read(count))).collect();
        let (sum, count) = (seconds(read(&counters.fsync_micros)), read(&counters.fsyncs));
        let help = "How long fsync took";
        let mut metric = encoder.encode_descriptor("fsync_seconds", help, None, MetricType::Histogram)?;
        metric.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)
    }

    fn encode_sizes(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let topics = self.partitions.topics();
        let mut total = 0;
        let mut offline = 0;
        {
            let help = "Bytes of a topic's segments";
            let mut family = encoder.encode_descriptor("log_bytes", help, None, MetricType::Gauge)?;
            for topic in &topics {
                let mut size = 0;
                for replica in topic.partitions() {
                    total += 1;
                    offline += i64::from(replica.check_online().is_err());
                    size += replica.log().map_or(0, |log| log.size());
                }
                let labels = [("topic", topic.name())];
                let gauge = ConstGauge::new(i64::try_from(size).unwrap_or(i64::MAX));
                gauge.encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, value) in [
            ("partitions", "Partitions led by this broker", total),
            ("offline_partitions", "Partitions that cannot be served", offline),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
