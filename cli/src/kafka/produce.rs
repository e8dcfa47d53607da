//! `aqueduct produce`: records from standard input or files, every one's fate reported.
//!
//! A thread reads and makes records; they wait in a channel of a few batches, and in the producer up to its budget of
//! bytes, so that a fast input never grows in memory.
//!
//! **Invariant:** the exit code is 0 only if every record of the input was acknowledged; each other one is named by its
//! line.

mod input;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use aqueduct_client::{
    ConfigResource, Delivered, DeliveryListener, KafkaProducer, LogProducer as _, ResourceKind,
};
use aqueduct_core::Topic;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::input::{Batch, Reader, Token};
use super::progress::{Progress, records, size};
use super::{CLIENT_ID, Session, chosen, print_json};
use crate::args::kafka::{Codec, Produce};
use crate::failure::Failure;
use crate::signals::Signals;

/// Bytes of records that wait for their acknowledgements.
const BUDGET_BYTES: usize = 32 << 20;
/// What the library makes of a batch by itself.
const BATCH_BYTES: usize = 1_000_000;
/// Failures that are shown one by one; the others are counted.
const SHOWN: usize = 20;
/// Beyond the time that a record may wait.
const GRACE: Duration = Duration::from_secs(5);

/// What became of the records.
#[derive(Default)]
struct Tally {
    delivered: u64,
    failed: u64,
    partitions: BTreeMap<i32, Span>,
    /// The first failures, until they are shown.
    news: Vec<(Token, String)>,
    shown: usize,
}

/// Offsets that were written to a partition.
struct Span {
    records: u64,
    first: i64,
    last: i64,
}

#[derive(Default)]
struct Fates(Mutex<Tally>);

impl Fates {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        // A count is whole between any two of its lines.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, token: Token, why: String) {
        let mut tally = self.tally();
        tally.failed += 1;
        if tally.shown < SHOWN {
            tally.shown += 1;
            tally.news.push((token, why));
        }
    }
}

impl DeliveryListener for Fates {
    fn delivered(&self, token: u64, result: aqueduct_core::Result<Delivered>) {
        match result {
            Ok(Delivered { partition, offset }) => {
                let mut tally = self.tally();
                tally.delivered += 1;
                let span = tally.partitions.entry(partition);
                let span = span.or_insert(Span { records: 0, first: offset, last: offset });
                span.records += 1;
                span.first = span.first.min(offset);
                span.last = span.last.max(offset);
            }
            Err(error) => self.failed(Token::from_bits(token), error.full()),
        }
    }
}

pub(crate) async fn produce(args: Produce) -> Result<(), Failure> {
    let mut session = Session::connect(&args.cluster).await?;
    if let Some(codec) = args.compression {
        session.settings.common.insert("compression.codec".into(), codec_name(codec).into());
    }
    let topic = session.topic(&args.topic).await?;
    bound_batches(&mut session, &args.topic).await?;
    let partition = args.partition.filter(|partition| *partition >= 0);
    if let Some(partition) = partition {
        chosen(&topic, &[partition])?;
    }
    let fates = Arc::new(Fates::default());
    let listener: Arc<dyn DeliveryListener> = Arc::clone(&fates) as _;
    let made =
        KafkaProducer::giving_up(&session.settings, CLIENT_ID, BUDGET_BYTES, session.timeout, listener);
    let producer = made.map_err(|error| Failure::usage(error.full()))?;
    let reader = Reader::new(&args, Topic::from(args.topic.as_str()), session.settings.message_max_bytes())?;
    let (batches_in, batches) = mpsc::channel(4);
    let reading = tokio::task::spawn_blocking(move || reader.run(&batches_in));
    let mut run = Run {
        fates: &fates,
        producer: &producer,
        args: &args,
        progress: Progress::new(!args.quiet && !input::is_typed(&args)),
        bytes: 0,
        sent: 0,
    };
    let interrupted = run.send(batches).await?;
    if !interrupted {
        reading.await.map_err(|error| Failure::failed(error.to_string()))?;
    }
    // Every record is acknowledged or has failed by then.
    let flushed = producer.flush(session.timeout + GRACE).await;
    run.news();
    run.progress.clear();
    producer.close().await;
    run.news();
    run.summary(&session)?;
    let tally = fates.tally();
    let missing = run.sent.saturating_sub(tally.delivered + tally.failed);
    match flushed {
        Err(error) if missing > 0 => {
            Err(Failure::failed(format!("{} without an answer: {}", records(missing), error.full())))
        }
        _ if interrupted => Err(Failure::failed(format!(
            "interrupted: {} delivered, the rest of the input was not sent",
            records(tally.delivered)
        ))),
        _ if tally.failed > 0 => Err(Failure::failed(format!("{} not delivered", records(tally.failed)))),
        _ => Ok(()),
    }
}

/// A batch that is too large for the topic is refused with all its records: no batch becomes so, but for one record
/// that is too large by itself.
async fn bound_batches(session: &mut Session, topic: &str) -> Result<(), Failure> {
    let resource = ConfigResource { kind: ResourceKind::Topic, name: topic.to_owned() };
    // Who may not read the settings may still write.
    let Ok(configs) = session.cluster.configs(&resource, false).await? else { return Ok(()) };
    let limit = configs.iter().find(|entry| entry.name == "max.message.bytes");
    let limit = limit.and_then(|entry| entry.value.as_deref()?.parse::<usize>().ok());
    if let Some(limit) = limit.filter(|limit| *limit < BATCH_BYTES) {
        session.settings.common.entry("batch.size".into()).or_insert_with(|| limit.max(1).to_string());
    }
    Ok(())
}

fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::None => "none",
        Codec::Gzip => "gzip",
        Codec::Snappy => "snappy",
        Codec::Lz4 => "lz4",
        Codec::Zstd => "zstd",
    }
}

struct Run<'a> {
    fates: &'a Fates,
    producer: &'a KafkaProducer,
    args: &'a Produce,
    progress: Progress,
    bytes: u64,
    sent: u64,
}

impl Run<'_> {
    /// Sends everything that is read. Whether it was interrupted.
    async fn send(&mut self, mut batches: mpsc::Receiver<Batch>) -> Result<bool, Failure> {
        let mut signals = Signals::new()?;
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        loop {
            let batch = tokio::select! {
                batch = batches.recv() => batch,
                _ = signals.next() => return Ok(true),
                _ = tick.tick() => {
                    self.tell();
                    continue;
                }
            };
            let Some(batch) = batch else { return Ok(false) };
            for (token, why) in batch.bad {
                self.fates.failed(token, why);
            }
            let tokens: Vec<Token> = batch.records.iter().map(|(token, _)| *token).collect();
            let records: Vec<_> =
                batch.records.into_iter().map(|(token, record)| (token.to_bits(), record)).collect();
            for (token, (bits, record)) in tokens.into_iter().zip(records) {
                self.bytes += record.size() as u64;
                let sending = self.producer.send(vec![(bits, record)]);
                let sent = tokio::select! {
                    sent = sending => sent,
                    _ = signals.next() => return Ok(true),
                };
                match sent {
                    Ok(()) => self.sent += 1,
                    Err(error) => self.fates.failed(token, error.full()),
                }
            }
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.news();
        let delivered = self.fates.tally().delivered;
        self.progress.tell(delivered, self.bytes);
    }

    /// Names the records that failed since the last time.
    fn news(&mut self) {
        let news = std::mem::take(&mut self.fates.tally().news);
        if !news.is_empty() {
            self.progress.clear();
        }
        for (token, why) in news {
            eprintln!("error: {}: {why}", token.place(self.args));
        }
    }

    fn summary(&self, session: &Session) -> Result<(), Failure> {
        let tally = self.fates.tally();
        if tally.failed > tally.shown as u64 {
            eprintln!("error: {} more failed", tally.failed - tally.shown as u64);
        }
        if session.json {
            let partition = |(partition, span): (&i32, &Span)| json!({ "partition": partition, "records": span.records, "first_offset": span.first, "last_offset": span.last });
            return print_json(&json!({
                "topic": self.args.topic,
                "delivered": tally.delivered,
                "failed": tally.failed,
                "bytes": self.bytes,
                "partitions": tally.partitions.iter().map(partition).collect::<Vec<Value>>(),
            }));
        }
        if !self.args.quiet {
            let (delivered, seconds) = (tally.delivered, self.progress.elapsed().as_secs_f64());
            eprintln!(
                "{} delivered to `{}` ({} read, {} partitions, {seconds:.1} s)",
                records(delivered),
                self.args.topic,
                size(self.bytes),
                tally.partitions.len(),
            );
        }
        Ok(())
    }
}
