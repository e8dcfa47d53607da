//! `aqueduct consume`: records as text or JSON, from any place on, to the end or for ever.
//!
//! One thread reads and writes; what waits in memory is the library's queue and a buffer of output, both bounded.
//!
//! **Invariant:** a group's offset passes a record only after that was written to standard output.

mod format;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aqueduct_client::{OffsetQuery, Polled, ReadRecord, RecordReader, Subscription, TopicInfo};
use aqueduct_core::Topic;
use aqueduct_core::sink::{Offsets, TopicPartition};

use self::format::Format;
use super::position::Position;
use super::progress::{Progress, records, size};
use super::topics::whole;
use super::{CLIENT_ID, Session, chosen, record_json};
use crate::args::kafka::{Consume, Encode};
use crate::failure::Failure;
use crate::signals::Signals;

const POLL: Duration = Duration::from_millis(50);
const COMMIT_EVERY: Duration = Duration::from_secs(1);
const FLUSH_EVERY: Duration = Duration::from_millis(100);
const FLUSH_BYTES: usize = 64 << 10;

pub(crate) async fn consume(args: Consume) -> Result<(), Failure> {
    let shape = Shape::new(&args)?;
    check(&args)?;
    let mut session = Session::connect(&args.cluster).await?;
    let reader = match &args.group {
        Some(group) => join(&mut session, &args, group).await?,
        None => from_offsets(&mut session, &args).await?,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let run = Run {
        reader,
        shape,
        stop: Arc::clone(&stop),
        // As a member of a group there is one topic then.
        exit_at_end: args.exit_at_end || args.until.is_some(),
        member: args.group.is_some(),
        left: args.count,
        patience: session.timeout,
        progress: Progress::new(!args.quiet && !io::stdout().is_terminal()),
        out: Vec::with_capacity(2 * FLUSH_BYTES),
        flushed: Instant::now(),
        committed: Instant::now(),
        down_since: None,
        unwritten: BTreeMap::new(),
        records: 0,
        bytes: 0,
    };
    let mut signals = Signals::new()?;
    let mut running = tokio::task::spawn_blocking(move || run.run());
    let ended = tokio::select! {
        ended = &mut running => ended,
        _ = signals.next() => {
            stop.store(true, Ordering::Release);
            // Leaving the group takes a moment; a second signal is for those who cannot wait.
            signals.or_at_once(running).await?
        }
    };
    ended.map_err(|error| Failure::failed(error.to_string()))?
}

/// What the command line alone cannot say of flags that exclude each other.
fn check(args: &Consume) -> Result<(), Failure> {
    if args.group.is_none() {
        return Ok(());
    }
    if !matches!(args.offset, Position::Beginning | Position::End) {
        return Err(Failure::usage(
            "a group begins at its committed offsets; --offset may be `beginning` or `end` for where there are none, \
             `aqueduct groups reset-offsets` sets them",
        ));
    }
    if args.exit_at_end && (args.regex || args.topics.len() > 1) {
        return Err(Failure::usage(
            "--exit-at-end with --group works for one topic; leave out the group, or stop by --count",
        ));
    }
    Ok(())
}

/// The topics that are named or match.
async fn topics(session: &mut Session, args: &Consume) -> Result<Vec<TopicInfo>, Failure> {
    if !args.regex {
        return session.topics(&args.topics).await;
    }
    let patterns = args.topics.iter().map(|pattern| whole(pattern)).collect::<Result<Vec<_>, _>>()?;
    let mut topics = session.cluster.topics().await?;
    topics.retain(|topic| patterns.iter().any(|pattern| pattern.is_match(&topic.name)));
    if topics.is_empty() && args.group.is_none() {
        return Err(Failure::failed(format!(
            "no topic matches `{}`; `aqueduct topics ls` lists them",
            args.topics.join("`, `")
        )));
    }
    Ok(topics)
}

async fn join(session: &mut Session, args: &Consume, group: &str) -> Result<RecordReader, Failure> {
    topics(session, args).await?;
    let subscription = match args.regex {
        // librdkafka has expressions of its own kind; these were checked to be ours, too.
        true => Subscription::Pattern(args.topics.join("|")),
        false => Subscription::Topics(args.topics.clone()),
    };
    let from_end = args.offset == Position::End;
    let settings = session.settings.clone();
    Ok(RecordReader::member(&settings, CLIENT_ID, group, &subscription, from_end)?)
}

async fn from_offsets(session: &mut Session, args: &Consume) -> Result<RecordReader, Failure> {
    let mut partitions = Vec::new();
    for topic in topics(session, args).await? {
        partitions.extend(chosen(&topic, &args.partition)?);
    }
    partitions.sort();
    partitions.dedup();
    let uncommitted = session.settings.common.get("isolation.level").is_some_and(|l| l == "read_uncommitted");
    let end = if uncommitted { OffsetQuery::End } else { OffsetQuery::CommittedEnd };
    let places = args.offset.resolve(&mut session.cluster, &partitions, end).await?;
    for (tp, place) in places.iter().filter(|(_, place)| place.wish != place.offset) {
        eprintln!(
            "warning: `{tp}` has the offsets {} to {}, not {}: it begins at {}",
            place.first, place.end, place.wish, place.offset
        );
    }
    let starts: Offsets = places.iter().map(|(tp, place)| (tp.clone(), place.offset)).collect();
    let ends = match args.until {
        Some(until) => Some(until.resolve(&mut session.cluster, &partitions, end).await?),
        None if args.exit_at_end => Some(places),
        None => None,
    };
    let ends: Option<Offsets> = ends.map(|ends| {
        let until = args.until.is_some();
        ends.into_iter().map(|(tp, place)| (tp, if until { place.offset } else { place.end })).collect()
    });
    Ok(RecordReader::from_offsets(&session.settings, CLIENT_ID, &starts, ends.as_ref())?)
}

/// What a record looks like.
enum Shape {
    Json,
    Text(Format),
}

impl Shape {
    fn new(args: &Consume) -> Result<Self, Failure> {
        if args.cluster.json {
            return Ok(Self::Json);
        }
        let terminal = io::stdout().is_terminal();
        let encode = args.encode.unwrap_or(if terminal { Encode::Escape } else { Encode::Raw });
        let format = args.format.as_deref().unwrap_or("%s\\n");
        Format::parse(format, encode, &args.null)
            .map(Self::Text)
            .map_err(|why| Failure::usage(format!("--format: {why}")))
    }
}

struct Run {
    reader: RecordReader,
    shape: Shape,
    stop: Arc<AtomicBool>,
    exit_at_end: bool,
    member: bool,
    left: Option<u64>,
    patience: Duration,
    progress: Progress,
    out: Vec<u8>,
    flushed: Instant,
    committed: Instant,
    down_since: Option<Instant>,
    /// Next offsets of what stands in `out`.
    unwritten: BTreeMap<Topic, BTreeMap<i32, i64>>,
    records: u64,
    bytes: u64,
}

impl Run {
    fn run(mut self) -> Result<(), Failure> {
        let ended = self.read();
        let flushed = self.flush();
        // Committed also after a failure: what was written was written.
        let committed = if self.member { self.reader.commit(true) } else { Ok(()) };
        self.progress.clear();
        ended?;
        flushed?;
        committed?;
        if self.progress.is_enabled() {
            eprintln!("{}, {}", records(self.records), size(self.bytes));
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut ended: Vec<i32> = Vec::new();
        while self.left != Some(0) && !self.stop.load(Ordering::Acquire) {
            let polled = self.next()?;
            match polled {
                Polled::Record => {
                    self.records += 1;
                    self.left = self.left.map(|left| left - 1);
                    self.down_since = None;
                    if self.out.len() >= FLUSH_BYTES || self.flushed.elapsed() >= FLUSH_EVERY {
                        self.flush()?;
                    }
                }
                Polled::AllEnded => return Ok(()),
                Polled::End(partition) if self.member && self.exit_at_end => {
                    ended.push(partition);
                    let assigned = self.reader.assigned()?;
                    if assigned.iter().all(|tp| ended.contains(&tp.partition)) {
                        return Ok(());
                    }
                }
                Polled::Down => self.down()?,
                Polled::End(_) => {}
                Polled::Nothing => {
                    self.flush()?;
                    self.down_for_long()?;
                }
            }
            if self.member && self.committed.elapsed() >= COMMIT_EVERY {
                self.committed = Instant::now();
                self.reader.commit(false)?;
            }
            self.progress.tell(self.records, self.bytes);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Polled, Failure> {
        let Self { reader, shape, out, unwritten, bytes, member, .. } = self;
        let polled = reader.poll(POLL, |record| {
            *bytes += record_bytes(record);
            match shape {
                Shape::Json => record_json::write(record, out),
                Shape::Text(format) => format.write(record, out),
            }
            if *member {
                next_offset(unwritten, record);
            }
        });
        Ok(polled?)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.flushed = Instant::now();
        if !self.out.is_empty() {
            let mut stdout = io::stdout().lock();
            let written = stdout.write_all(&self.out).and_then(|()| stdout.flush());
            self.out.clear();
            // One large record is no reason to keep its memory.
            self.out.shrink_to(2 * FLUSH_BYTES);
            if let Err(error) = written {
                self.unwritten.clear();
                return Err(Failure::output(&error));
            }
        }
        let done = std::mem::take(&mut self.unwritten).into_iter().flat_map(|(topic, partitions)| {
            let tp = move |partition| TopicPartition { topic: Topic::clone(&topic), partition };
            partitions.into_iter().map(move |(partition, offset)| (tp(partition), offset))
        });
        self.reader.done(done);
        Ok(())
    }

    /// Who waits for an end must not wait for ever; others may, the library goes on trying.
    fn down(&mut self) -> Result<(), Failure> {
        if self.down_since.is_none() {
            self.down_since = Some(Instant::now());
            if !self.exit_at_end {
                self.progress.clear();
                eprintln!("warning: no broker can be reached; trying again");
            }
        }
        self.down_for_long()
    }

    fn down_for_long(&self) -> Result<(), Failure> {
        match self.down_since {
            Some(since) if self.exit_at_end && since.elapsed() >= self.patience => {
                Err(Failure::failed(format!(
                    "no broker could be reached for {} s; {} were read",
                    self.patience.as_secs(),
                    records(self.records)
                )))
            }
            _ => Ok(()),
        }
    }
}

fn record_bytes(record: &ReadRecord<'_>) -> u64 {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    (len(record.key) + len(record.value)) as u64
}

fn next_offset(unwritten: &mut BTreeMap<Topic, BTreeMap<i32, i64>>, record: &ReadRecord<'_>) {
    let partitions = match unwritten.get_mut(record.topic) {
        Some(partitions) => partitions,
        None => unwritten.entry(Topic::from(record.topic)).or_default(),
    };
    partitions.insert(record.partition, record.offset + 1);
}
