//! Measures how long a log takes to open after a clean stop and after none.
//!
//! `cargo run --release -p aqueduct-log --example recovery -- DIR [GIB] [PARTITIONS]`

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use aqueduct_log::{LogConfig, LogDir, LogDirOptions, PartitionId, PartitionSpec, RealDisk};
use aqueduct_wire::{BatchBuilder, RecordBatch};

const BATCH: usize = 16 << 10;

fn specs(partitions: i32) -> Vec<PartitionSpec> {
    let id = |partition| PartitionId { topic: "large".into(), topic_id: uuid::Uuid::from_u128(1), partition };
    (0..partitions).map(|p| PartitionSpec { id: id(p), config: LogConfig::default() }).collect()
}

fn batch() -> RecordBatch {
    let mut builder = BatchBuilder::new();
    for i in 0..16u8 {
        builder.append(0, None, Some(&[b'a' + i; BATCH / 16]), &[]);
    }
    RecordBatch::parse(&mut builder.build().expect("a small batch")).expect("a whole batch")
}

fn open(dir: &Path, partitions: i32, what: &str) -> aqueduct_log::Result<LogDir> {
    let began = Instant::now();
    let log = LogDir::open(Arc::new(RealDisk), dir, LogDirOptions::default())?;
    let opened = log.load(specs(partitions), 0)?;
    let clean = log.clean_shutdown_epoch().is_some();
    let end: i64 = opened.iter().flat_map(|o| &o.log).map(|log| log.end_offset()).sum();
    println!("{what}: open in {:?}, clean: {clean}, {end} records", began.elapsed());
    Ok(log)
}

fn fill(log: &LogDir, partitions: i32, bytes: u64) -> aqueduct_log::Result<()> {
    let (began, one) = (Instant::now(), batch());
    let logs: Vec<_> = (0..partitions).filter_map(|p| log.get("large", p)).collect();
    for i in 0..bytes / BATCH as u64 {
        let log = &logs[(i % logs.len() as u64) as usize];
        log.append(one.clone(), 0, 0).map_err(|e| aqueduct_log::LogError::Invalid(e.to_string()))?;
        if i % 512 == 511 {
            logs.iter().for_each(|log| log.request_flush(aqueduct_log::Urgency::Soon));
        }
    }
    logs.iter().try_for_each(|log| log.flush_blocking())?;
    println!("wrote {} MiB in {:?}", bytes >> 20, began.elapsed());
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("give a directory on the disk to measure")?;
    let gib: u64 = args.next().map_or(Ok(1), |text| text.parse())?;
    let partitions: i32 = args.next().map_or(Ok(1), |text| text.parse())?;
    let dir = Path::new(&dir);
    let log = open(dir, partitions, "new")?;
    fill(&log, partitions, gib << 30)?;
    log.stop(1)?;
    drop(log);
    let log = open(dir, partitions, "after a clean stop")?;
    fill(&log, partitions, 256 << 20)?;
    // Dropped without a stop: what a killed process leaves.
    drop(log);
    let log = open(dir, partitions, "after none")?;
    log.stop(1)?;
    Ok(())
}
