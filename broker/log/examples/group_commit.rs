//! Measures durable appends on this disk: the latency from append to flushed, next to a bare fdatasync of the same size.
//!
//! `cargo run --release -p aqueduct-log --example group_commit -- DIR [PARTITIONS] [SECONDS] [FLUSH_THREADS]`

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use aqueduct_log::{
    FlushSink, LogConfig, LogDir, LogDirOptions, LogError, PartitionId, PartitionSpec, RealDisk, Urgency,
};
use aqueduct_wire::{BatchBuilder, RecordBatch};
use parking_lot::{Condvar, Mutex};

#[derive(Default)]
struct Waiter {
    flushed: Mutex<i64>,
    wake: Condvar,
}

impl FlushSink for Waiter {
    fn flushed(&self, offset: i64) {
        *self.flushed.lock() = offset;
        self.wake.notify_all();
    }

    fn failed(&self, error: &LogError) {
        eprintln!("{error}");
    }
}

fn batch(bytes: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    builder.append(0, None, Some(&vec![b'x'; bytes]), &[]);
    RecordBatch::parse(&mut builder.build().expect("a small batch")).expect("a whole batch")
}

fn report(name: &str, mut samples: Vec<Duration>, elapsed: Duration) {
    samples.sort();
    let at = |q: f64| samples[((samples.len() - 1) as f64 * q) as usize].as_micros();
    let rate = samples.len() as f64 / elapsed.as_secs_f64();
    println!("{name}: {rate:.0}/s, p50 {} us, p90 {} us, p99 {} us", at(0.5), at(0.9), at(0.99));
}

fn bare(dir: &Path, time: Duration) -> std::io::Result<()> {
    let path = dir.join("bare");
    let mut file = std::fs::File::create(&path)?;
    let (began, mut samples) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        let one = Instant::now();
        file.write_all(&[b'x'; 1024])?;
        file.sync_data()?;
        samples.push(one.elapsed());
    }
    report("bare fdatasync", samples, began.elapsed());
    std::fs::remove_file(path)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: group_commit DIR [PARTITIONS] [SECONDS]")?;
    let partitions: i32 = args.next().map_or(Ok(1), |n| n.parse())?;
    let time = Duration::from_secs(args.next().map_or(Ok(3), |n| n.parse())?);
    std::fs::create_dir_all(&dir)?;
    bare(Path::new(&dir), time)?;
    let flush_threads = args.next().map_or(Ok(4), |n| n.parse())?;
    let root = Path::new(&dir).join("log");
    let options = LogDirOptions { flush_threads, ..LogDirOptions::default() };
    let log_dir = LogDir::open(Arc::new(RealDisk), &root, options)?;
    let specs = (0..partitions).map(|partition| PartitionSpec {
        id: PartitionId { topic: "bench".into(), topic_id: uuid::Uuid::from_u128(1), partition },
        config: LogConfig::default(),
    });
    let opened = log_dir.load(specs.collect(), 0)?;
    let began = Instant::now();
    let samples = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for one in &opened {
            scope.spawn(|| {
                let Ok(log) = &one.log else { return };
                let waiter = Arc::new(Waiter::default());
                let sink: Weak<Waiter> = Arc::downgrade(&waiter);
                log.set_flush_sink(sink);
                let mut mine = Vec::new();
                while began.elapsed() < time {
                    let start = Instant::now();
                    let Ok(info) = log.append(batch(1024), 0, 0) else { return };
                    log.request_flush(Urgency::Now);
                    let mut flushed = waiter.flushed.lock();
                    while *flushed <= info.last_offset {
                        waiter.wake.wait(&mut flushed);
                    }
                    mine.push(start.elapsed());
                }
                samples.lock().extend(mine);
            });
        }
    });
    report(&format!("append to flushed, {partitions} partitions"), samples.into_inner(), began.elapsed());
    let (began, count) = (Instant::now(), 200_000 / 16);
    if let Some(log) = opened.first().and_then(|o| o.log.as_ref().ok()) {
        for _ in 0..count {
            log.append_many((0..16).map(|_| batch(1024)).collect(), 0, 0);
        }
        let rate = f64::from(count * 16) / began.elapsed().as_secs_f64();
        println!(
            "append without flush, 16 batches of 1 KiB at a time: {rate:.0} batches/s (building them included)"
        );
    }
    log_dir.stop(0)?;
    let began = Instant::now();
    drop((opened, log_dir));
    LogDir::open(Arc::new(RealDisk), &root, LogDirOptions::default())?;
    println!("open: {:?}", began.elapsed());
    Ok(())
}
