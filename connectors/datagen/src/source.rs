//! The source connector and its task. The position is `{"next": n}`, the number of the next order.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, ResolvedConfig};
use aqueduct_core::source::{
    JsonMap, SourceConnector, SourceContext, SourcePosition, SourceRecord, SourceTask, partition_of,
};
use aqueduct_core::{Datum, Error, Record, Result, SchemaRef, Topic, Value, check_topic};
use async_trait::async_trait;

use crate::order::{FIELDS, Orders};
use crate::pace::{Due, Pace};

static SPEC: LazyLock<Spec> = LazyLock::new(|| Spec {
    name: "datagen",
    aliases: &[],
    version: env!("CARGO_PKG_VERSION"),
    summary: "Makes orders, for trying things out and for measuring.",
    config: ConfigDef::new([
        ConfigKey::new("topic", ConfigType::String, "Topic to write to.")
            .aliases(&["kafka.topic"])
            .default("orders")
            .importance(Importance::High)
            .check(check_topic),
        ConfigKey::new(
            "rate",
            ConfigType::Int { min: 0, max: 10_000_000 },
            "Records per second; 0 is as fast as the log takes them.",
        )
        .default("100")
        .importance(Importance::High),
        ConfigKey::new(
            "count",
            ConfigType::Int { min: 0, max: i64::MAX },
            "How many records to make in all, restarts included; 0 is without end.",
        )
        .default("0"),
        ConfigKey::new(
            "seed",
            ConfigType::Int { min: 0, max: i64::MAX },
            "The same seed makes the same records in the same order.",
        )
        .default("0"),
        ConfigKey::new(
            "key",
            ConfigType::String,
            "Field that becomes the key of the record; empty for none.",
        )
        .default("id")
        .check(check_key),
    ]),
});

fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() || FIELDS.contains(&key) {
        return Ok(());
    }
    Err(format!("an order has no field `{key}`; its fields are `{}`", FIELDS.join("`, `")))
}

/// The `datagen` source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Datagen;

#[async_trait]
impl SourceConnector for Datagen {
    fn spec(&self) -> &Spec {
        &SPEC
    }

    fn topics(&self, config: &ResolvedConfig) -> Result<Vec<String>> {
        Ok(vec![SPEC.parse(config)?.text("topic")?.to_owned()])
    }

    fn task(&self, config: &ResolvedConfig) -> Result<Box<dyn SourceTask>> {
        let values = SPEC.parse(config)?;
        let topic: Topic = Arc::from(values.text("topic")?);
        let whole = |key| values.int(key).map(i64::unsigned_abs);
        let orders = Orders::new(whole("seed")?);
        let key = FIELDS.iter().position(|field| values.text("key").is_ok_and(|key| key == *field));
        let key = key.map(|index| (index, SchemaRef::clone(&orders.schema().fields()[index].schema)));
        let end = match whole("count")? {
            0 => u64::MAX,
            count => count,
        };
        Ok(Box::new(Task {
            partition: partition_of("topic", &topic),
            topic,
            orders,
            key,
            rate: whole("rate")?,
            end,
            next: 0,
            pace: Pace::new(0, Instant::now()),
        }))
    }
}

struct Task {
    partition: Arc<JsonMap>,
    topic: Topic,
    orders: Orders,
    /// Index and schema of the field that is the key.
    key: Option<(usize, SchemaRef)>,
    rate: u64,
    end: u64,
    next: u64,
    pace: Pace,
}

#[async_trait]
impl SourceTask for Task {
    async fn start(&mut self, context: SourceContext) -> Result<()> {
        if let Some(offset) = context.positions.get(&self.partition) {
            let next = offset.get("next").and_then(serde_json::Value::as_u64);
            self.next = next.ok_or_else(|| {
                Error::fatal(
                    "the stored position of `datagen` has no number `next`; reset the connector's offsets",
                )
            })?;
        }
        self.pace = Pace::new(self.rate, now());
        Ok(())
    }

    async fn poll(&mut self) -> Result<Vec<SourceRecord>> {
        if self.next >= self.end {
            // All made: nothing will ever come, and the task stays as it is until it is stopped.
            return std::future::pending().await;
        }
        let due = loop {
            match self.pace.due(now()) {
                Due::Now(count) => break count.min(self.end - self.next),
                Due::At(at) => tokio::time::sleep_until(at.into()).await,
            }
        };
        let mut records: Vec<SourceRecord> =
            (self.next..self.next + due).map(|n| SourceRecord::unplaced(self.record(n))).collect();
        self.next += due;
        self.pace.made(due);
        // A batch is one step: its last record carries the position.
        if let Some(last) = records.last_mut() {
            let offset = JsonMap::from_iter([("next".to_owned(), self.next.into())]);
            last.position =
                Some(SourcePosition { partition: Arc::clone(&self.partition), offset: Arc::new(offset) });
        }
        Ok(records)
    }

    async fn stop(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Task {
    fn record(&self, n: u64) -> Record {
        let value = self.orders.order(n);
        let key = match (&self.key, &value) {
            (Some((index, schema)), Value::Struct(fields)) => {
                Datum::new(SchemaRef::clone(schema), fields[*index].clone())
            }
            _ => Datum::null(),
        };
        let mut record =
            Record::new(Topic::clone(&self.topic), Datum::new(SchemaRef::clone(self.orders.schema()), value));
        record.key = key;
        record
    }
}

/// Tokio's clock, so that tests may stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aqueduct_core::config::{Config, plain};
    use aqueduct_core::source::{NoReport, StoredPositions};

    use super::*;

    async fn task(config: &[(&str, &str)], positions: Vec<SourcePosition>) -> Box<dyn SourceTask> {
        let config: Config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut task = Datagen.task(&plain(&config)).expect("a valid config");
        let context = SourceContext {
            connector: Arc::from("gen"),
            task: 0,
            positions: StoredPositions(positions),
            buffer_bytes: 1 << 20,
            reporter: Arc::new(NoReport),
        };
        task.start(context).await.expect("it starts");
        task
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_continues_the_sequence() {
        let config = [("rate", "0"), ("count", "2500"), ("topic", "o")];
        let mut whole = Vec::new();
        let mut first = task(&config, vec![]).await;
        for _ in 0..3 {
            whole.extend(first.poll().await.expect("records"));
        }
        assert_eq!(whole.len(), 2500);
        assert!(tokio::time::timeout(Duration::from_secs(60), first.poll()).await.is_err(), "all are made");

        let position = whole[999].position.clone().expect("the last of a batch has the position");
        let mut second = task(&config, vec![position]).await;
        let rest = second.poll().await.expect("records");
        let seen = |records: &[SourceRecord]| format!("{records:?}");
        assert_eq!(seen(&rest), seen(&whole[1000..2000]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_the_first_record_comes_at_once() {
        let mut task = task(&[("rate", "50")], vec![]).await;
        let start = tokio::time::Instant::now();
        assert_eq!(task.poll().await.expect("records").len(), 1);
        assert_eq!(start.elapsed(), Duration::ZERO);
        let mut made = 1;
        while made < 100 {
            made += task.poll().await.expect("records").len();
        }
        let elapsed = start.elapsed().as_millis();
        assert!((1900..2100).contains(&elapsed), "{elapsed}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_key_is_a_field_and_wrong_ones_are_refused() {
        let mut task = task(&[("key", "order_no")], vec![]).await;
        let mut records = task.poll().await.expect("records");
        let record = records[0].record.as_mut().expect("a record");
        assert_eq!(record.key.value().expect("decoded").as_str(), Some("ORD-000000000"));

        let config = Config::from([("key".into(), "nope".into()), ("topic".into(), "a/b".into())]);
        let error = Datagen.task(&plain(&config)).err().expect("refused");
        assert!(error.message().contains("no field `nope`") && error.message().contains("`a/b`"), "{error}");
    }
}
