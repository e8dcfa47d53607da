//! Clients that break the rules, by malice or mistake: whatever they send, nothing panics, memory stays within what
//! the limits allow, and everybody else is served.
//!
//! The mutator runs for `AQUEDUCT_MUTATE_SECONDS` (10) from the seed `AQUEDUCT_MUTATE_SEED` (random, printed);
//! `AQUEDUCT_IDLE_CONNECTIONS` (1,000) says how many connections do nothing.

mod bombs;
mod connections;
mod frames;
mod http;
mod mutator;

use std::net::TcpStream;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, ensure};
use aqueduct_tests::process::{Aqueduct, Start};
use aqueduct_tests::raw::Raw;
use aqueduct_tests::topic;
use aqueduct_wire::BatchBuilder;
use bytes::Bytes;

/// How long an answer may take on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;
/// The topic of those who behave.
const STEADY: &str = "steady";

fn number<T: FromStr>(variable: &str, default: T) -> T {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn batch(value: &[u8]) -> Bytes {
    let mut batch = BatchBuilder::new();
    let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis());
    batch.append(i64::try_from(now).unwrap_or(0), None, Some(value), &[]);
    batch.build().expect("a small batch can be built")
}

/// The binary under attack, with a client who behaves.
struct Victim {
    process: Aqueduct,
    client: Option<JoinHandle<Result<u64>>>,
    done: Arc<AtomicBool>,
    _dir: tempfile::TempDir,
}

impl Victim {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let process = Start::run(dir.path(), &[]).start()?;
        topic::create(&process.kafka, STEADY, 1, &[])?;
        let done = Arc::new(AtomicBool::new(false));
        let (kafka, stop) = (process.kafka.clone(), Arc::clone(&done));
        let client = Some(std::thread::spawn(move || behave(&kafka, &stop)));
        Ok(Self { process, client, done, _dir: dir })
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.process.kafka)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// Stops the client who behaves: it was served all the time, nothing has panicked, and the end is orderly.
    fn survives(mut self) -> Result<()> {
        self.done.store(true, Ordering::Relaxed);
        let served = self.client.take().expect("survives once").join();
        let served = served.map_err(|_| anyhow::anyhow!("the client panicked"))?;
        let served = served.map_err(|error| error.context(self.process.output()))?;
        ensure!(served > 0, "nobody was served");
        ensure!(self.process.ended()?.is_none(), "it has ended:\n{}", self.process.output());
        let status = self.process.terminate(LIMIT)?;
        let output = self.process.output();
        ensure!(status.success(), "{status}:\n{output}");
        ensure!(!output.contains("panicked"), "a thread has panicked:\n{output}");
        Ok(())
    }
}

/// Writes a record, reads it back, and says how often; ends with `done`, or with what went wrong.
fn behave(kafka: &str, done: &AtomicBool) -> Result<u64> {
    let mut served = 0;
    let mut client = Raw::connect(kafka)?;
    client.wait_up_to(LIMIT)?;
    loop {
        let sent = batch(format!("record {served}").as_bytes());
        let (code, offset) = client.produce(STEADY, 0, sent)?;
        ensure!(code == 0, "the record was answered with error {code}");
        ensure!(offset == i64::try_from(served)?, "offset {offset} after {served} records");
        let read = client.fetch(STEADY, 0, offset)?;
        let text = format!("record {served}");
        ensure!(read.windows(text.len()).any(|part| part == text.as_bytes()), "{text} is not there");
        served += 1;
        if done.load(Ordering::Relaxed) {
            return Ok(served);
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
