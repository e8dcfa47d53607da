//! A task as the runtime drives it, on a bucket of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aqueduct_connector_s3::S3Sink;
use aqueduct_core::config::{Config, plain};
use aqueduct_core::sink::{
    Offsets, SinkConnector as _, SinkContext, SinkHandle, SinkRecord, SinkTask, TopicPartition,
};
use aqueduct_core::{Datum, Error, Record, Result, SchemaRef, Value};
use aqueduct_tests::s3::{ACCESS_KEY, REGION, S3, SECRET_KEY};
use bytes::Bytes;

pub(crate) const BUCKET: &str = "lake";

#[derive(Default)]
pub(crate) struct Handle {
    pub(crate) refused: Mutex<Vec<i64>>,
}

impl SinkHandle for Handle {
    fn refuse(&self, record: SinkRecord, _error: Error) {
        self.refused.lock().unwrap().push(record.offset);
    }

    fn request_commit(&self) {}
}

/// A task and what it said to the runtime.
pub(crate) struct Sink {
    pub(crate) task: Box<dyn SinkTask>,
    pub(crate) handle: Arc<Handle>,
}

impl Sink {
    /// Made and started, with partitions `0..partitions` of topic `t` from the given offset.
    pub(crate) async fn start(
        endpoint: &str,
        keys: &[(&str, &str)],
        partitions: i32,
        from: i64,
    ) -> Result<Self> {
        let base = [
            ("bucket", BUCKET),
            ("endpoint", endpoint),
            ("region", REGION),
            ("access_key", ACCESS_KEY),
            ("secret_key", SECRET_KEY),
            ("timeout", "5s"),
            ("part_size", "5MiB"),
        ];
        let config: Config =
            base.iter().chain(keys).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let handle = Arc::new(Handle::default());
        let mut task = S3Sink.task(&plain(&config))?;
        let context = SinkContext {
            connector: Arc::from("lake"),
            task: 0,
            buffer_bytes: 64 << 20,
            handle: Arc::clone(&handle) as Arc<dyn SinkHandle>,
        };
        task.start(context).await?;
        task.open(&(0..partitions).map(|partition| (tp(partition), from)).collect()).await?;
        Ok(Self { task, handle })
    }

    /// Puts as the runtime does: the same batch again after a retriable error.
    pub(crate) async fn put(&mut self, records: &[SinkRecord]) -> Result<()> {
        let mut tries = 0;
        loop {
            match self.task.put(records.to_vec()).await {
                Err(error) if error.is_retriable() && tries < 50 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                result => return result,
            }
        }
    }

    /// Flushes, again after a retriable error, through `put`.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        match self.task.flush().await {
            Err(error) if error.is_retriable() => {
                self.put(&[]).await?;
                self.task.flush().await
            }
            result => result,
        }
    }

    /// What may be committed of partition 0.
    pub(crate) async fn durable(&mut self, taken: i64) -> i64 {
        let durable = self.task.pre_commit(&Offsets::from([(tp(0), taken)])).await.unwrap();
        durable[&tp(0)]
    }
}

pub(crate) fn tp(partition: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from("t"), partition }
}

pub(crate) fn record(partition: i32, offset: i64, json: impl Into<String>) -> SinkRecord {
    let origin = tp(partition);
    let mut record = Record::new(Arc::clone(&origin.topic), Datum::json(None, Bytes::from(json.into())));
    record.timestamp = Some(1_767_225_600_000);
    SinkRecord { record, origin, offset, consumed: Arc::default() }
}

/// A record with a schema.
pub(crate) fn typed(offset: i64, schema: &SchemaRef, fields: Vec<Value>) -> SinkRecord {
    let mut record = record(0, offset, "null");
    record.record.value = Datum::new(Arc::clone(schema), Value::Struct(fields));
    record
}

/// Records of about 1 KiB each that say their number.
pub(crate) fn large(range: std::ops::Range<i64>) -> Vec<SinkRecord> {
    let pad = "x".repeat(1000);
    range.map(|n| record(0, n, format!(r#"{{"n":{n},"pad":"{pad}"}}"#))).collect()
}

/// The numbers that lines say, in order.
pub(crate) fn numbers(lines: &[String]) -> Vec<i64> {
    let number = |line: &String| line.split(['{', ':', ',', '}']).nth(2).unwrap().parse().unwrap();
    lines.iter().map(number).collect()
}

/// A server with the bucket.
pub(crate) async fn server(test: &str) -> Option<S3> {
    let server = S3::start(test)?;
    server.create_bucket(BUCKET).await.unwrap();
    Some(server)
}
