//! What the broker counts, for Prometheus: requests as they pass, the rest when it is asked for.
//! Invariants: the request path takes no lock but for errors; the number of series is bounded; `docs/metrics.md` lists
//! every name, which a test compares.

mod collect;
mod slow;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::ApiKey;

pub(crate) use collect::Sources;
pub(crate) use slow::{SlowRequests, Trace};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    api: &'static str,
    code: &'static str,
}

/// Upper bounds of the buckets of request times.
const TIMES: [Duration; 16] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Counts per bucket, not cumulated; the last one is everything above.
#[derive(Debug, Default)]
struct Times {
    buckets: [AtomicU64; TIMES.len() + 1],
    micros: AtomicU64,
}

impl Times {
    fn observe(&self, time: Duration) {
        let at = TIMES.partition_point(|bound| *bound < time);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What is counted of one API.
#[derive(Debug, Default)]
struct PerApi {
    requests: AtomicU64,
    times: Times,
}

/// What the request path counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// In the order of [`ApiKey::ALL`].
    apis: Vec<PerApi>,
    errors: Family<ErrorLabels, Counter>,
    request_bytes: Counter,
    response_bytes: Counter,
    produced_bytes: Counter,
    fetched_bytes: Counter,
    connections: Gauge,
    connections_opened: Counter,
    connections_refused: Counter,
    fetches_waiting: Gauge,
    pub(crate) slow: SlowRequests,
}

/// Counts one while it lives.
pub(crate) struct Held(Gauge);

impl Held {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Requests that take longer than `slow` are logged; zero for none.
    pub(crate) fn new(slow: Duration) -> Self {
        Self {
            apis: ApiKey::ALL.iter().map(|_| PerApi::default()).collect(),
            errors: Family::default(),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            produced_bytes: Counter::default(),
            fetched_bytes: Counter::default(),
            connections: Gauge::default(),
            connections_opened: Counter::default(),
            connections_refused: Counter::default(),
            fetches_waiting: Gauge::default(),
            slow: SlowRequests::new(slow),
        }
    }

    fn of(&self, api: ApiKey) -> Option<&PerApi> {
        ApiKey::ALL.binary_search(&api).ok().and_then(|at| self.apis.get(at))
    }

    pub(crate) fn request(&self, api: ApiKey, bytes: usize) {
        if let Some(of) = self.of(api) {
            of.requests.fetch_add(1, Ordering::Relaxed);
        }
        self.request_bytes.inc_by(bytes as u64);
    }

    /// A request has its answer.
    pub(crate) fn answered(&self, trace: &Trace) {
        if let Some(of) = self.of(trace.api()) {
            of.times.observe(trace.total());
        }
        self.slow.look_at(trace);
    }

    pub(crate) fn response_bytes(&self, bytes: usize) {
        self.response_bytes.inc_by(bytes as u64);
    }

    /// An error code in an answer.
    pub(crate) fn error(&self, api: ApiKey, code: i16) {
        let labels = ErrorLabels { api: api.name(), code: ErrorCode::from_code(code).name() };
        self.errors.get_or_create(&labels).inc();
    }

    pub(crate) fn bytes_in(&self, bytes: usize) {
        self.produced_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn bytes_out(&self, bytes: usize) {
        self.fetched_bytes.inc_by(bytes as u64);
    }

    /// A fetch waits for data while this lives.
    pub(crate) fn fetch_waits(&self) -> Held {
        Held::new(&self.fetches_waiting)
    }

    pub(crate) fn connection_opened(&self) -> Held {
        self.connections_opened.inc();
        Held::new(&self.connections)
    }

    pub(crate) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Adds everything to a registry; names begin with `aqueduct_broker_`.
    pub(crate) fn register(self: &Arc<Self>, registry: &mut Registry, sources: Sources) {
        let registry = registry.sub_registry_with_prefix("aqueduct_broker");
        let counters = [
            ("request_bytes", "Bytes of Kafka requests", &self.request_bytes),
            ("response_bytes", "Bytes of Kafka answers", &self.response_bytes),
            ("produced_bytes", "Bytes of record batches in produce requests", &self.produced_bytes),
            ("fetched_bytes", "Bytes of record batches in fetch answers", &self.fetched_bytes),
            ("connections_opened", "Connections accepted", &self.connections_opened),
            ("connections_refused", "Connections refused for want of room", &self.connections_refused),
            ("slow_requests", "Requests that took longer than `slow_request_ms`", self.slow.counter()),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("connections", "Connections that are open", self.connections.clone());
        registry.register("fetches_waiting", "Fetches that wait for data", self.fetches_waiting.clone());
        registry.register("errors", "Error codes in answers, by API", self.errors.clone());
        registry.register_collector(Box::new(collect::Requests(Arc::clone(self))));
        registry.register_collector(Box::new(sources));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_of_their_upper_bound() {
        let times = Times::default();
        for micros in [1, 100, 101, 9_999_999, 10_000_001] {
            times.observe(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = times.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!((counts[0], counts[1], counts[15], counts[16]), (2, 1, 1, 1));
    }

    #[test]
    fn every_api_is_found() {
        let metrics = Metrics::new(Duration::ZERO);
        assert!(ApiKey::ALL.iter().all(|api| metrics.of(*api).is_some()));
    }
}
