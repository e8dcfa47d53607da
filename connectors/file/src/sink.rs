//! The sink task: records to lines, lines to [`disk`](crate::disk), complete files to committed offsets.
//!
//! At least once. A replay of the same records makes the same file and is recognised; one that was cut elsewhere is
//! kept beside the first as `….<n>.jsonl`.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Instant;

use aqueduct_core::component::Spec;
use aqueduct_core::config::ResolvedConfig;
use aqueduct_core::rolling::{FileId, Rolling, Taken};
use aqueduct_core::sink::{Offsets, SinkConnector, SinkContext, SinkRecord, SinkTask, TopicPartition};
use aqueduct_core::{Error, Result};
use async_trait::async_trait;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::config::{EXTENSION, FileConfig, spec};
use crate::disk::{self, Job, Name, Temp};

/// Files open at once; beyond it the largest is completed early.
const MAX_OPEN: usize = 256;

static SPEC: LazyLock<Spec> = LazyLock::new(spec);

/// The `file` sink.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSink;

#[async_trait]
impl SinkConnector for FileSink {
    fn spec(&self) -> &Spec {
        &SPEC
    }

    fn task(&self, config: &ResolvedConfig) -> Result<Box<dyn SinkTask>> {
        let config = FileConfig::new(&SPEC.parse(config)?)?;
        Ok(Box::new(Task {
            root: config.root,
            rolling: Rolling::new(config.rolls),
            running: None,
            token: RandomState::new().build_hasher().finish(),
            context: None,
        }))
    }
}

type Done = Vec<(Job, Result<()>)>;

/// What is kept with an unfinished file.
#[derive(Debug, Default)]
struct Body {
    temp: Option<Temp>,
    /// Handed over, but not written.
    pending: Vec<u8>,
}

struct Task {
    root: PathBuf,
    rolling: Rolling<Body>,
    /// Work on the disk that a call was cancelled over; its outcome is taken in by the next.
    running: Option<JoinHandle<Done>>,
    token: u64,
    context: Option<SinkContext>,
}

#[async_trait]
impl SinkTask for Task {
    async fn start(&mut self, context: SinkContext) -> Result<()> {
        self.context = Some(context);
        let root = self.root.clone();
        let made = blocking(move || disk::create_dirs(&root, &root)).await;
        made.map_err(|error| error.context("`path`"))
    }

    async fn open(&mut self, partitions: &Offsets) -> Result<()> {
        for (origin, offset) in partitions {
            for file in self.rolling.close(origin) {
                discard(file.body);
            }
            self.rolling.open(origin.clone(), *offset);
        }
        let (root, depth) = (self.root.clone(), self.rolling.settings().path.depth());
        let partitions: Vec<TopicPartition> = partitions.keys().cloned().collect();
        blocking(move || disk::clean(&root, depth, &partitions)).await
    }

    async fn put(&mut self, records: Vec<SinkRecord>) -> Result<()> {
        // What an earlier call left undone comes first; until it is done, nothing more is taken.
        self.work().await?;
        let now = now();
        self.rolling.begin();
        for record in records {
            match self.rolling.take(record, now) {
                Taken::Written(_) | Taken::Skipped => {}
                Taken::Refused(record, error) => {
                    if let Some(context) = &self.context {
                        context.refuse(*record, error);
                    }
                }
            }
            if self.rolling.unsealed() > MAX_OPEN
                && let Some(id) = self.rolling.largest()
            {
                self.rolling.seal(id);
            }
        }
        self.rolling.end(now);
        self.work().await
    }

    async fn flush(&mut self) -> Result<()> {
        self.rolling.seal_all();
        self.work().await
    }

    async fn pre_commit(&mut self, taken: &Offsets) -> Result<Offsets> {
        Ok(self.rolling.durable(taken))
    }

    async fn close(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.settle().await.ok();
        for origin in partitions {
            for file in self.rolling.close(origin) {
                discard(file.body);
            }
        }
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        self.settle().await.ok();
        let ids: Vec<FileId> = self.rolling.files().map(|(id, _)| id).collect();
        for file in ids.into_iter().filter_map(|id| self.rolling.finish(id)) {
            discard(file.body);
        }
        Ok(())
    }
}

impl Task {
    /// Writes what is buffered and completes what is sealed.
    async fn work(&mut self) -> Result<()> {
        self.settle().await?;
        let jobs = self.jobs();
        if jobs.is_empty() {
            return Ok(());
        }
        let root = self.root.clone();
        self.running = Some(spawn_blocking(move || disk::run(&root, jobs)));
        self.settle().await
    }

    fn jobs(&mut self) -> Vec<Job> {
        let due = self
            .rolling
            .files()
            .filter(|(_, file)| file.buffered() > 0 || file.sealed || !file.body.pending.is_empty());
        let ids: Vec<FileId> = due.map(|(id, _)| id).collect();
        ids.into_iter().filter_map(|id| self.job(id)).collect()
    }

    fn job(&mut self, id: FileId) -> Option<Job> {
        let more = self.rolling.hand_over(id);
        let file = self.rolling.get_mut(id)?;
        let mut bytes = std::mem::take(&mut file.body.pending);
        if bytes.is_empty() {
            bytes = more;
        } else {
            bytes.extend_from_slice(&more);
        }
        let name = file.name(None, EXTENSION);
        let stem = name.strip_suffix(EXTENSION).and_then(|name| name.strip_suffix('.')).unwrap_or(&name);
        Some(Job {
            id,
            dir: self.root.join(&file.path),
            name: Name { stem: stem.to_owned(), token: self.token },
            temp: file.body.temp.take(),
            bytes,
            complete: file.sealed,
        })
    }

    /// Waits for the work under way and takes in its outcome; the first error is returned. Cancel-safe.
    async fn settle(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let done = running.await;
        self.running = None;
        let done = done.map_err(|error| Error::fatal("the work on the disk broke off").with_source(error))?;
        let mut outcome = Ok(());
        let mut completed = false;
        for (job, result) in done {
            match result {
                Ok(()) if job.complete => {
                    self.rolling.finish(job.id);
                    completed = true;
                }
                result => {
                    if let Some(file) = self.rolling.get_mut(job.id) {
                        file.body = Body { temp: job.temp, pending: job.bytes };
                    }
                    outcome = outcome.and(result);
                }
            }
        }
        if completed && let Some(context) = &self.context {
            context.request_commit();
        }
        outcome
    }
}

fn discard(body: Body) {
    if let Some(temp) = body.temp {
        temp.discard();
    }
}

async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::fatal("the work on the disk broke off").with_source(error)),
    }
}

/// Tokio's clock, so that tests may stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
