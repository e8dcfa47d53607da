//! PostgreSQL → log → S3 with the real binary and `configs/postgres-to-s3.yaml`, judged by the checker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sqlx::Row as _;
use sqlx::postgres::PgPool;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::checker::{Verdict, check};
use crate::lake::bucket_lines;
use crate::postgres::Postgres;
use crate::process::{Aqueduct, Start, root};
use crate::s3::{ACCESS_KEY, S3, SECRET_KEY};
use crate::workload::Workload;

const BUCKET: &str = "lake";
/// What the example says about the format.
const JSON: &str = "format: json";

/// Everything that one test needs, running.
pub struct Scene {
    /// Runs the asynchronous parts.
    pub runtime: Runtime,
    /// The source.
    pub postgres: Postgres,
    /// The sink.
    pub s3: S3,
    /// How Aqueduct is started.
    pub start: Start,
    pool: PgPool,
    dir: TempDir,
}

impl Scene {
    /// Servers, a table of `rows` rows, an empty bucket. `None`, said by name, where a server is missing.
    pub fn new(test: &str, rows: i64) -> Option<(Self, Workload)> {
        Self::of(test, rows, JSON)
    }

    /// The same with Parquet instead of JSON lines.
    pub fn parquet(test: &str, rows: i64) -> Option<(Self, Workload)> {
        Self::of(test, rows, "format: { parquet: { compression: zstd } }")
    }

    fn of(test: &str, rows: i64, format: &str) -> Option<(Self, Workload)> {
        let postgres = Postgres::start(test)?;
        let s3 = S3::start(test)?;
        Some(Self::with(postgres, s3, rows, format).expect("the servers take the set-up"))
    }

    fn with(postgres: Postgres, s3: S3, rows: i64, format: &str) -> Result<(Self, Workload)> {
        let runtime = Runtime::new()?;
        let (pool, workload) = runtime.block_on(async {
            s3.create_bucket(BUCKET).await?;
            let workload = Workload::create(postgres.pool(1).await?, rows, 7).await?;
            anyhow::Ok((postgres.pool(2).await?, workload))
        })?;
        let dir = tempfile::tempdir()?;
        let file = pipeline(dir.path(), format)?;
        let start = Start::run(dir.path(), &[&file])
            .env("DATABASE_URL", postgres.url())
            .env("S3_ENDPOINT", s3.endpoint())
            .env("S3_ACCESS_KEY", ACCESS_KEY)
            .env("S3_SECRET_KEY", SECRET_KEY)
            .env("S3_BUCKET", BUCKET);
        Ok((Self { runtime, postgres, s3, start, pool, dir }, workload))
    }

    /// The scene's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the workload on its own thread until told to stop; gives it back.
    pub fn change(&self, mut workload: Workload, rate: u32) -> Changing {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let task = self.runtime.spawn(async move {
            let done = workload.change(rate, || told.load(Ordering::Relaxed)).await;
            (workload, done)
        });
        Changing { stop, task }
    }

    /// Waits until everything that PostgreSQL holds is confirmed by the slot and lies in the bucket, and judges it.
    pub fn judge(&self, workload: &Workload, process: &Aqueduct, limit: Duration) -> Result<Verdict> {
        let until = Instant::now() + limit;
        let target = self.flushed()?;
        while self.confirmed()?.is_none_or(|confirmed| confirmed < target) {
            ensure!(Instant::now() < until, "the slot does not reach {target}:\n{}", process.output());
            std::thread::park_timeout(Duration::from_millis(100));
        }
        let table = self.runtime.block_on(workload.table())?;
        // The objects come by age; the judge looks again until nothing is missing or time is up.
        loop {
            let (lines, objects) = self.runtime.block_on(bucket_lines(&self.s3.client(), BUCKET))?;
            let verdict = check(lines, &table, true)?;
            if verdict.wrong.is_empty() {
                eprintln!(
                    "{} lines in {objects} objects, {} repeats by the sink, {} by the source: no difference",
                    verdict.lines, verdict.sink_repeats, verdict.source_repeats
                );
                return Ok(verdict);
            }
            if Instant::now() > until {
                let some: Vec<_> = verdict.wrong.iter().take(20).collect();
                bail!("{} differences: {some:#?}\n{}", verdict.wrong.len(), process.output());
            }
            std::thread::park_timeout(Duration::from_secs(1));
        }
    }

    /// The names of all objects.
    pub fn objects(&self) -> Result<Vec<String>> {
        self.runtime.block_on(self.s3.keys(BUCKET, ""))
    }

    fn number(&self, sql: &'static str) -> Result<Option<i64>> {
        let row = self.runtime.block_on(sqlx::query(sql).fetch_optional(&self.pool))?;
        Ok(row.and_then(|row| row.get::<Option<i64>, _>(0)))
    }

    fn flushed(&self) -> Result<i64> {
        self.number("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")?.context("the server has an LSN")
    }

    /// What the slot has confirmed, as bytes from the beginning of the WAL.
    pub fn confirmed(&self) -> Result<Option<i64>> {
        self.number("SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots")
    }

    /// Bytes of WAL that the server decodes again when streaming begins, because `restart_lsn` lies behind what is confirmed.
    pub fn decoded_again(&self) -> Result<Option<i64>> {
        self.number("SELECT (confirmed_flush_lsn - restart_lsn)::bigint FROM pg_replication_slots")
    }

    /// Bytes of WAL that the slot has not confirmed.
    pub fn lag(&self) -> Result<i64> {
        Ok(self.flushed()? - self.confirmed()?.context("there is no slot")?)
    }
}

/// A workload that runs.
pub struct Changing {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(Workload, Result<u64>)>,
}

impl Changing {
    /// Stops it; how many transactions it made.
    pub fn finish(self, scene: &Scene) -> Result<(Workload, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let (workload, done) = scene.runtime.block_on(self.task)?;
        Ok((workload, done?))
    }
}

/// The example pipeline with objects that come sooner, and the operation, which the checker wants to know.
fn pipeline(dir: &Path, format: &str) -> Result<PathBuf> {
    let text = std::fs::read_to_string(root().join("configs/postgres-to-s3.yaml"))?;
    let quick = text
        .replace("age: 10s", "age: 1s")
        .replace(JSON, format)
        .replace("with: { deletes: rewrite }", "with: { deletes: rewrite, add.fields: op }");
    ensure!(
        quick.contains("age: 1s") && quick.contains("add.fields") && quick.contains(format),
        "the example pipeline has changed; mend this test"
    );
    let file = dir.join("postgres-to-s3.yaml");
    std::fs::write(&file, quick)?;
    Ok(file)
}
