//! PostgreSQL to S3 under load: snapshot while the table changes, one huge transaction in little memory, an outage of S3.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::capture::Scene;
use aqueduct_tests::limit::MemoryLimit;
use aqueduct_tests::process::eventually;

const ROWS: i64 = 300_000;

#[test]
fn a_snapshot_under_changes_and_a_huge_transaction_in_512_mib() {
    let Some((scene, workload)) =
        Scene::new("a_snapshot_under_changes_and_a_huge_transaction_in_512_mib", ROWS)
    else {
        return;
    };
    snapshot_and_transaction(scene, workload).expect("no difference");
}

fn snapshot_and_transaction(mut scene: Scene, workload: aqueduct_tests::workload::Workload) -> Result<()> {
    // Without the right to make cgroups the peak that is checked at the end is the limit.
    let limit = MemoryLimit::new(512 << 20);
    match &limit {
        Ok(limit) => scene.start.wrapper = limit.wrapper(),
        Err(error) => eprintln!("not limited by the kernel: {error:#}"),
    }
    let changing = scene.change(workload, 200);
    let process = scene.start.start()?;
    // The slot stands still while the snapshot runs.
    eventually("the slot is there", Duration::from_secs(30), || {
        scene.confirmed().is_ok_and(|at| at.is_some())
    })?;
    let first = scene.confirmed()?;
    eventually("the snapshot is over and the stream runs", Duration::from_secs(60), || {
        scene.confirmed().is_ok_and(|at| at > first)
    })
    .with_context(|| process.output())?;
    std::thread::park_timeout(Duration::from_secs(2));
    let (mut workload, transactions) = changing.finish(&scene)?;
    ensure!(transactions > 100, "only {transactions} transactions while the snapshot ran");
    scene.judge(&workload, &process, Duration::from_secs(120))?;

    scene.runtime.block_on(workload.insert_many(ROWS, 300))?;
    scene.judge(&workload, &process, Duration::from_secs(180))?;
    let peak = process.peak()?;
    eprintln!("peak resident memory {} MiB", peak >> 20);
    ensure!(peak < 512 << 20, "{} MiB were resident", peak >> 20);
    Ok(())
}

#[test]
fn s3_down_costs_neither_wal_nor_memory() {
    let Some((scene, workload)) = Scene::new("s3_down_costs_neither_wal_nor_memory", 10_000) else { return };
    outage(scene, workload).expect("the outage costs nothing");
}

fn outage(mut scene: Scene, workload: aqueduct_tests::workload::Workload) -> Result<()> {
    let seconds = std::env::var("AQUEDUCT_OUTAGE").ok().and_then(|text| text.parse().ok()).unwrap_or(120);
    let process = scene.start.start()?;
    let changing = scene.change(workload, 400);
    eventually("the stream runs", Duration::from_secs(60), || scene.lag().is_ok_and(|lag| lag < 1 << 20))?;
    std::thread::park_timeout(Duration::from_secs(5));
    let before = process.resident()?;
    scene.s3.kill();
    let down = Instant::now();
    let (mut worst_lag, mut worst_memory) = (0, 0);
    while down.elapsed() < Duration::from_secs(seconds) {
        std::thread::park_timeout(Duration::from_secs(1));
        worst_lag = scene.lag()?.max(worst_lag);
        worst_memory = process.resident()?.max(worst_memory);
    }
    scene.s3.up(&[])?;
    let (workload, _) = changing.finish(&scene)?;
    eprintln!(
        "worst lag {} KiB, resident {} MiB, before {} MiB",
        worst_lag >> 10,
        worst_memory >> 20,
        before >> 20
    );
    ensure!(worst_lag < 16 << 20, "the slot was {worst_lag} bytes behind while S3 was down");
    ensure!(
        worst_memory < before + (50 << 20),
        "{} MiB resident, {} before",
        worst_memory >> 20,
        before >> 20
    );
    scene.judge(&workload, &process, Duration::from_secs(120)).map(drop)
}

#[test]
fn postgres_into_parquet_has_no_difference() {
    let rows =
        std::env::var("AQUEDUCT_PARQUET_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000);
    let test = "postgres_into_parquet_has_no_difference";
    let Some((scene, workload)) = Scene::parquet(test, rows) else { return };
    parquet(&scene, workload, rows).expect("no difference");
}

fn parquet(scene: &Scene, workload: aqueduct_tests::workload::Workload, rows: i64) -> Result<()> {
    let changing = scene.change(workload, 200);
    let process = scene.start.start()?;
    eventually("the stream runs", Duration::from_secs(60), || scene.lag().is_ok_and(|lag| lag < 1 << 20))?;
    std::thread::park_timeout(Duration::from_secs(2));
    let (mut workload, transactions) = changing.finish(scene)?;
    ensure!(transactions > 20, "only {transactions} transactions");
    scene.runtime.block_on(workload.insert_many(rows, 300))?;
    scene.judge(&workload, &process, Duration::from_secs(120))?;
    let objects = scene.objects()?;
    ensure!(objects.iter().all(|key| key.ends_with(".parquet")), "{objects:?}");
    Ok(())
}
