//! The sink task: records to lines, full buffers to uploads, finished uploads to committed offsets.
//!
//! Each object is uploaded by one background task at a time, so encoding goes on while parts travel. Memory is bounded
//! by the ceiling; beyond it `put` waits. During an outage `put` answers retriable before it takes anything.
//!
//! **Invariant:** an upload is either with its file or with its background task, never lost between the two; a call that
//! is cancelled loses nothing.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use aqueduct_core::component::Spec;
use aqueduct_core::config::{Problem, ResolvedConfig};
use aqueduct_core::rolling::{FileId, Rolled, Rolling, Taken};
use aqueduct_core::sink::{Offsets, SinkConnector, SinkContext, SinkRecord, SinkTask, TopicPartition};
use aqueduct_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{EXTENSION, MIN_PART, S3Config, spec, validate};
use crate::orphans;
use crate::store::Store;
use crate::upload::{Chunk, Names, Upload};

/// Requests at once.
const PARALLEL: usize = 8;

/// How long `stop` waits for uploads under way, and how long it then tries to abort them.
const STOP_WAIT: Duration = Duration::from_secs(2);

static SPEC: LazyLock<Spec> = LazyLock::new(spec);

/// The `s3` sink.
#[derive(Clone, Copy, Debug, Default)]
pub struct S3Sink;

#[async_trait]
impl SinkConnector for S3Sink {
    fn spec(&self) -> &Spec {
        &SPEC
    }

    fn validate(&self, config: &ResolvedConfig) -> Vec<Problem> {
        validate(config, &SPEC)
    }

    fn task(&self, config: &ResolvedConfig) -> Result<Box<dyn SinkTask>> {
        let config = S3Config::new(&SPEC.parse(config)?)?;
        Ok(Box::new(Task {
            store: Arc::new(Store::new(&config)),
            rolling: Rolling::new(config.rolls.clone()),
            ceiling: config.memory.unwrap_or(usize::MAX),
            running: JoinSet::new(),
            aborting: JoinSet::new(),
            permits: Arc::new(Semaphore::new(PARALLEL)),
            uploading: 0,
            failed: None,
            unchecked: Vec::new(),
            context: None,
            config,
        }))
    }
}

/// What is kept with an object that is not in the bucket.
#[derive(Debug, Default)]
struct Body {
    /// Chunks cut while the upload was under way.
    queue: Vec<Chunk>,
    /// Where the upload is.
    upload: Place,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    None,
    Here(Box<Upload>),
    Running,
}

/// A background task's answer.
struct Outcome {
    id: FileId,
    upload: Box<Upload>,
    /// Memory held when it began.
    held: usize,
    result: Result<bool>,
}

struct Task {
    config: S3Config,
    store: Arc<Store>,
    rolling: Rolling<Body>,
    ceiling: usize,
    running: JoinSet<Outcome>,
    aborting: JoinSet<()>,
    permits: Arc<Semaphore>,
    /// Memory held by chunks.
    uploading: usize,
    /// An upload failed, and no later try has succeeded.
    failed: Option<Error>,
    /// Partitions whose orphaned uploads were not looked for yet.
    unchecked: Vec<TopicPartition>,
    context: Option<SinkContext>,
}

#[async_trait]
impl SinkTask for Task {
    async fn start(&mut self, context: SinkContext) -> Result<()> {
        if self.config.memory.is_none() {
            self.ceiling = context.buffer_bytes;
        }
        self.context = Some(context);
        match self.store.check().await {
            Err(error) if error.kind() == ErrorKind::BadConfig => Err(error),
            // An outage passes, and the right to list the bucket is not needed for writing to it.
            Err(error) => {
                tracing::warn!(error = %error.full(), "the bucket does not answer yet");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn open(&mut self, partitions: &Offsets) -> Result<()> {
        for (origin, offset) in partitions {
            self.give_up(origin);
            self.rolling.open(origin.clone(), *offset);
            self.unchecked.push(origin.clone());
        }
        Ok(())
    }

    async fn put(&mut self, records: Vec<SinkRecord>) -> Result<()> {
        self.reap();
        self.recover().await?;
        let now = now();
        self.rolling.begin();
        for record in records {
            self.rolling.next(&record).into_iter().for_each(|id| self.send(id));
            if self.held() > self.ceiling {
                self.make_room().await?;
            }
            match self.rolling.take(record, now) {
                Taken::Written(id) => {
                    let part = self.config.part;
                    if self.rolling.get_mut(id).is_some_and(|file| file.buffered() >= part) {
                        self.send(id);
                    }
                }
                Taken::Skipped => {}
                Taken::Refused(record, error) => {
                    if let Some(context) = &self.context {
                        context.refuse(*record, error);
                    }
                }
            }
        }
        self.rolling.end(now);
        self.send_all();
        self.reap();
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.reap();
        self.rolling.seal_all();
        self.send_all();
        self.wait_all().await
    }

    async fn pre_commit(&mut self, taken: &Offsets) -> Result<Offsets> {
        self.reap();
        Ok(self.rolling.durable(taken))
    }

    async fn close(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        for origin in partitions {
            self.give_up(origin);
            self.unchecked.retain(|unchecked| unchecked != origin);
        }
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        // Uploads that cannot be aborted now are found when their partition is opened again.
        tokio::time::timeout(STOP_WAIT, self.wait_all()).await.ok();
        let origins: Vec<TopicPartition> =
            self.rolling.files().map(|(_, file)| file.origin.clone()).collect();
        for origin in &origins {
            self.give_up(origin);
        }
        tokio::time::timeout(STOP_WAIT, async { while self.aborting.join_next().await.is_some() {} })
            .await
            .ok();
        self.running.shutdown().await;
        self.aborting.shutdown().await;
        Ok(())
    }
}

impl Task {
    fn held(&self) -> usize {
        self.rolling.buffered() + self.uploading
    }

    /// What has to be made good before more records are taken.
    async fn recover(&mut self) -> Result<()> {
        if !self.unchecked.is_empty() {
            let path = &self.rolling.settings().path;
            match orphans::abort(&self.store, path, &self.unchecked).await {
                Err(error) if error.is_retriable() || error.kind() == ErrorKind::BadConfig => {
                    return Err(error);
                }
                Err(error) => tracing::warn!(error = %error.full(), "cannot look for orphaned uploads"),
                Ok(()) => {}
            }
            self.unchecked.clear();
        }
        match &self.failed {
            None => Ok(()),
            Some(error) if !error.is_retriable() => Err(self.failed.take().unwrap_or_else(Error::cancelled)),
            Some(_) => {
                self.failed = None;
                self.send_all();
                self.wait_all().await
            }
        }
    }

    /// Waits until memory is below the ceiling again.
    async fn make_room(&mut self) -> Result<()> {
        while self.held() > self.ceiling {
            if self.running.is_empty() {
                let Some(id) = self.rolling.largest() else { break };
                // Large enough for a part: the object stays open. Everything smaller is completed by a plain put.
                if self.rolling.get_mut(id).is_none_or(|file| file.buffered() < MIN_PART) {
                    self.rolling.seal(id);
                }
                self.send(id);
            }
            if let Some(outcome) = self.running.join_next().await {
                self.settle(outcome);
            }
            if let Some(error) = &self.failed {
                return Err(Error::new(error.kind(), error.full()));
            }
        }
        Ok(())
    }

    /// Waits for everything under way; an error is remembered and returned. Cancel-safe.
    async fn wait_all(&mut self) -> Result<()> {
        while let Some(outcome) = self.running.join_next().await {
            self.settle(outcome);
        }
        self.failed.as_ref().map_or(Ok(()), |error| Err(Error::new(error.kind(), error.full())))
    }

    /// Takes in what has finished, without waiting.
    fn reap(&mut self) {
        while let Some(outcome) = self.running.try_join_next() {
            self.settle(outcome);
        }
        while self.aborting.try_join_next().is_some() {}
    }

    /// Sends whatever is sealed or left over from a failure.
    fn send_all(&mut self) {
        let ids: Vec<FileId> = self.rolling.files().map(|(id, _)| id).collect();
        for id in ids {
            let waits = |file: &mut Rolled<Body>| {
                file.sealed || matches!(&file.body.upload, Place::Here(upload) if upload.has_work())
            };
            if self.rolling.get_mut(id).is_some_and(waits) {
                self.send(id);
            }
        }
    }

    /// Hands over what is buffered and gets the upload going, unless it is.
    fn send(&mut self, id: FileId) {
        // All but the last part of an object have a smallest size.
        let whole = self.rolling.get_mut(id).is_some_and(|file| file.sealed || file.buffered() >= MIN_PART);
        let buffer = if whole { self.rolling.hand_over(id) } else { Vec::new() };
        let Some(file) = self.rolling.get_mut(id) else { return };
        if !buffer.is_empty() {
            let chunk = Chunk::new(buffer);
            self.uploading += chunk.held();
            file.body.queue.push(chunk);
        }
        let mut upload = match std::mem::replace(&mut file.body.upload, Place::Running) {
            Place::Running => return,
            Place::Here(upload) => upload,
            Place::None => {
                let name = file.name(None, EXTENSION);
                let stem =
                    name.strip_suffix(EXTENSION).and_then(|name| name.strip_suffix('.')).unwrap_or(&name);
                let stem = format!("{}{stem}", file.path);
                Box::new(Upload::new(Names::new(stem, self.store.conditional())))
            }
        };
        file.body.queue.drain(..).for_each(|chunk| upload.push(chunk));
        if file.sealed {
            upload.seal();
        }
        let (store, permits) = (Arc::clone(&self.store), Arc::clone(&self.permits));
        self.running.spawn(async move {
            let held = upload.held();
            let permit = permits.acquire().await;
            let result = upload.advance(&store).await;
            drop(permit);
            Outcome { id, upload, held, result }
        });
    }

    fn settle(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) {
        let Outcome { id, upload, held, result } = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                self.failed = Some(Error::fatal("an upload broke off").with_source(error));
                return;
            }
        };
        let Some(file) = self.rolling.get_mut(id) else {
            // Its partition was closed meanwhile.
            self.uploading -= held;
            if !matches!(result, Ok(true)) {
                self.abort(*upload);
            }
            return;
        };
        self.uploading -= held - upload.held();
        match result {
            Ok(true) => {
                self.rolling.finish(id);
                if let Some(context) = &self.context {
                    context.request_commit();
                }
            }
            Ok(false) => {
                let more = file.sealed || !file.body.queue.is_empty();
                file.body.upload = Place::Here(upload);
                if more {
                    self.send(id);
                }
            }
            Err(error) => {
                file.body.upload = Place::Here(upload);
                // The first that cannot be retried decides.
                if self.failed.as_ref().is_none_or(Error::is_retriable) {
                    self.failed = Some(error);
                }
            }
        }
    }

    /// Forgets the files of a partition; whoever gets it next reads their records again.
    fn give_up(&mut self, origin: &TopicPartition) {
        for file in self.rolling.close(origin) {
            self.uploading -= file.body.queue.iter().map(Chunk::held).sum::<usize>();
            if let Place::Here(upload) = file.body.upload {
                self.uploading -= upload.held();
                self.abort(*upload);
            }
        }
    }

    fn abort(&mut self, upload: Upload) {
        let Some((key, id)) = upload.into_multipart() else { return };
        let store = Arc::clone(&self.store);
        self.aborting.spawn(async move {
            if let Err(error) = store.abort(&key, &id).await {
                tracing::warn!(%key, error = %error.full(), "cannot abort a multipart upload");
            }
        });
    }
}

/// Tokio's clock, so that tests may stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
