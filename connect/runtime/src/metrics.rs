//! Counters of connectors, for `/metrics` and for the live view. One set of numbers serves both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aqueduct_core::Error;
use aqueduct_core::source::Progress;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::view::Lag;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfConnector {
    connector: String,
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LagOf {
    connector: String,
    unit: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TasksIn {
    connector: String,
    state: String,
}

type Counters = Family<OfConnector, Counter>;
type Gauges = Family<OfConnector, Gauge>;

/// All metrics of a runtime.
pub(crate) struct Metrics {
    pub(crate) registry: Arc<Mutex<Registry>>,
    records: Counters,
    bytes: Counters,
    errors: Counters,
    dead_letters: Counters,
    skipped: Counters,
    retries: Counters,
    restarts: Counters,
    last_error: Gauges,
    retention: Gauges,
    lag: Family<LagOf, Gauge>,
    tasks: Family<TasksIn, Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Arc::default(),
            records: Counters::default(),
            bytes: Counters::default(),
            errors: Counters::default(),
            dead_letters: Counters::default(),
            skipped: Counters::default(),
            retries: Counters::default(),
            restarts: Counters::default(),
            last_error: Gauges::default(),
            retention: Gauges::default(),
            lag: Family::default(),
            tasks: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock();
        let registry = registry.sub_registry_with_prefix("aqueduct_connector");
        registry.register(
            "records",
            "Records written to the log or taken over by the sink",
            self.records.clone(),
        );
        registry.register_with_unit("size", "Bytes of these records", Unit::Bytes, self.bytes.clone());
        registry.register("errors", "Errors of records and calls", self.errors.clone());
        registry.register("dead_letters", "Dead letters written", self.dead_letters.clone());
        registry.register("skipped", "Bad records skipped without a dead letter", self.skipped.clone());
        registry.register("retries", "Calls tried again", self.retries.clone());
        registry.register("restarts", "Restarts of failed tasks", self.restarts.clone());
        let help = "When the last error happened, seconds since 1970";
        registry.register("last_error_timestamp_seconds", help, self.last_error.clone());
        let help = "How much of its retention the oldest unread record has used, in percent";
        registry.register("retention_used_percent", help, self.retention.clone());
        registry.register("lag", "How far behind, in the unit of the label", self.lag.clone());
        registry.register("tasks", "Tasks by state", self.tasks.clone());
    }

    /// The numbers of one connector.
    pub(crate) fn connector(&self, connector: &str, kind: &str) -> Arc<ConnectorStats> {
        let labels = OfConnector { connector: connector.to_owned(), kind: kind.to_owned() };
        Arc::new(ConnectorStats {
            connector: connector.to_owned(),
            records: self.records.get_or_create_owned(&labels),
            bytes: self.bytes.get_or_create_owned(&labels),
            errors: self.errors.get_or_create_owned(&labels),
            dead_letters: self.dead_letters.get_or_create_owned(&labels),
            skipped: self.skipped.get_or_create_owned(&labels),
            retries: self.retries.get_or_create_owned(&labels),
            restarts: self.restarts.get_or_create_owned(&labels),
            last_error_at: self.last_error.get_or_create_owned(&labels),
            retention: self.retention.get_or_create_owned(&labels),
            lag_family: self.lag.clone(),
            rate: Rate::default(),
            seen: Mutex::default(),
        })
    }

    /// Forgets a connector.
    pub(crate) fn remove(&self, connector: &str, kind: &str) {
        let labels = OfConnector { connector: connector.to_owned(), kind: kind.to_owned() };
        for family in [
            &self.records,
            &self.bytes,
            &self.errors,
            &self.dead_letters,
            &self.skipped,
            &self.retries,
            &self.restarts,
        ] {
            family.remove(&labels);
        }
        self.last_error.remove(&labels);
        self.retention.remove(&labels);
        for unit in ["records", "bytes", "ms"] {
            self.lag.remove(&LagOf { connector: connector.to_owned(), unit: unit.to_owned() });
        }
        self.set_tasks(connector, &BTreeMap::new());
    }

    /// How many tasks are in each state.
    pub(crate) fn set_tasks(&self, connector: &str, counts: &BTreeMap<&'static str, i64>) {
        for state in ["UNASSIGNED", "RUNNING", "PAUSED", "FAILED", "RESTARTING"] {
            let labels = TasksIn { connector: connector.to_owned(), state: state.to_owned() };
            match counts.get(state) {
                Some(count) => drop(self.tasks.get_or_create(&labels).set(*count)),
                None => drop(self.tasks.remove(&labels)),
            }
        }
    }
}

/// The numbers of one connector, shared by its tasks.
pub(crate) struct ConnectorStats {
    connector: String,
    pub(crate) records: Counter,
    pub(crate) bytes: Counter,
    pub(crate) errors: Counter,
    pub(crate) dead_letters: Counter,
    pub(crate) skipped: Counter,
    pub(crate) retries: Counter,
    pub(crate) restarts: Counter,
    last_error_at: Gauge,
    retention: Gauge,
    lag_family: Family<LagOf, Gauge>,
    rate: Rate,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    last_error: Option<String>,
    lag: BTreeMap<usize, Lag>,
    progress: BTreeMap<usize, Progress>,
    retention: BTreeMap<usize, String>,
    trouble: BTreeMap<(usize, Call), String>,
}

/// Calls of a running task that are tried again until they work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Poll,
    Write,
    Put,
    /// What a sink rides out by itself.
    Deliver,
    Fetch,
    Commit,
}

/// Records per second, smoothed over a few seconds.
#[derive(Default)]
struct Rate {
    last: AtomicU64,
    millis: AtomicI64,
    bits: AtomicU64,
}

impl ConnectorStats {
    /// An error of a record or call.
    pub(crate) fn error(&self, error: &Error) {
        self.errors.inc();
        self.last_error(error.full());
    }

    /// Remembers the text.
    pub(crate) fn last_error(&self, text: String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_error_at.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        self.seen.lock().last_error = Some(text);
    }

    /// A call of a running task has failed and is tried again; it shows in the status until the call works.
    pub(crate) fn trying_again(&self, task: usize, call: Call, error: &Error) {
        self.retries.inc();
        self.error(error);
        self.seen.lock().trouble.insert((task, call), format!("trying again: {}", error.full()));
    }

    /// The call works.
    pub(crate) fn works(&self, task: usize, call: Call) {
        self.seen.lock().trouble.remove(&(task, call));
    }

    /// What a running task cannot do at the moment.
    pub(crate) fn trouble(&self, task: usize) -> Option<String> {
        let seen = self.seen.lock();
        seen.trouble.range((task, Call::Poll)..=(task, Call::Commit)).map(|(_, text)| text.clone()).next()
    }

    pub(crate) fn set_lag(&self, task: usize, amount: u64, unit: &'static str) {
        let mut seen = self.seen.lock();
        seen.lag.insert(task, Lag { amount, unit });
        let total: u64 = seen.lag.values().filter(|lag| lag.unit == unit).map(|lag| lag.amount).sum();
        drop(seen);
        let labels = LagOf { connector: self.connector.clone(), unit: unit.to_owned() };
        self.lag_family.get_or_create(&labels).set(i64::try_from(total).unwrap_or(i64::MAX));
    }

    pub(crate) fn set_progress(&self, task: usize, progress: Option<Progress>) {
        let mut seen = self.seen.lock();
        match progress {
            Some(progress) => seen.progress.insert(task, progress),
            None => seen.progress.remove(&task),
        };
    }

    /// Percent of its retention that the oldest unread record has used; the text is shown from 50 % on.
    pub(crate) fn set_retention(&self, task: usize, percent: i64, warning: Option<String>) {
        self.retention.set(percent);
        let mut seen = self.seen.lock();
        match warning {
            Some(text) => seen.retention.insert(task, text),
            None => seen.retention.remove(&task),
        };
    }

    /// A task has ended: what it reported holds no longer.
    pub(crate) fn task_ended(&self, task: usize) {
        let mut seen = self.seen.lock();
        seen.lag.remove(&task);
        seen.progress.remove(&task);
        seen.retention.remove(&task);
        seen.trouble.retain(|(of, _), _| *of != task);
    }

    /// Called about once a second.
    pub(crate) fn sample(&self, elapsed_ms: i64) {
        let total = self.records.get();
        let before = self.rate.last.swap(total, Ordering::Relaxed);
        let first = self.rate.millis.swap(elapsed_ms, Ordering::Relaxed) == 0;
        if elapsed_ms <= 0 || first {
            return;
        }
        let now = total.saturating_sub(before) as f64 * 1000.0 / elapsed_ms as f64;
        let old = f64::from_bits(self.rate.bits.load(Ordering::Relaxed));
        let smooth = if now == 0.0 && old < 1.0 { 0.0 } else { old + (now - old) * 0.5 };
        self.rate.bits.store(smooth.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn rate(&self) -> f64 {
        f64::from_bits(self.rate.bits.load(Ordering::Relaxed))
    }

    pub(crate) fn last_error_text(&self) -> Option<String> {
        self.seen.lock().last_error.clone()
    }

    /// The sum over the tasks.
    pub(crate) fn lag(&self) -> Option<Lag> {
        let seen = self.seen.lock();
        let unit = seen.lag.values().next()?.unit;
        let amount = seen.lag.values().filter(|lag| lag.unit == unit).map(|lag| lag.amount).sum();
        Some(Lag { amount, unit })
    }

    pub(crate) fn progress(&self) -> Vec<Progress> {
        self.seen.lock().progress.values().cloned().collect()
    }

    pub(crate) fn retention_warning(&self) -> Option<String> {
        self.seen.lock().retention.values().next().cloned()
    }
}
