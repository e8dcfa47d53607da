//! The sink task: records to pieces, full pieces to uploads, finished uploads to committed offsets.
//!
//! Each object is encoded and uploaded by one background task at a time, so gathering goes on while parts travel. Memory is bounded
//! by the ceiling; beyond it `put` waits. During an outage `put` answers retriable before it takes anything.
//!
//! **Invariant:** an upload is either with its file or with its background task, never lost between the two; a call that
//! is cancelled loses nothing.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use aqueduct_core::component::Spec;
use aqueduct_core::config::{Problem, ResolvedConfig};
use aqueduct_core::rolling::{Buffer as _, FileId, Rolled, Rolling, Taken};
use aqueduct_core::sink::{Offsets, SinkConnector, SinkContext, SinkRecord, SinkTask, TopicPartition};
use aqueduct_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{S3Config, spec, validate};
use crate::format::{Gathering, Piece};
use crate::orphans;
use crate::store::Store;
use crate::upload::{Names, Upload};

/// Requests at once.
const PARALLEL: usize = 8;

/// Objects encoded at once; each needs memory for what it makes besides what it takes.
const ENCODERS: usize = 2;

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
            rolling: Rolling::gathering(
                config.rolls.clone(),
                Gathering::new(config.format, config.rolls.lines, config.schema.clone()),
            ),
            ceiling: config.memory.unwrap_or(usize::MAX),
            running: JoinSet::new(),
            aborting: JoinSet::new(),
            permits: Arc::new(Semaphore::new(PARALLEL)),
            encoders: Arc::new(Semaphore::new(ENCODERS)),
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
    /// Pieces cut while the upload was under way.
    queue: Vec<Piece>,
    /// Where the upload is.
    upload: Place,
}

impl Body {
    /// Memory held, but for what a background task has.
    fn held(&self) -> usize {
        let queued: usize = self.queue.iter().map(Piece::held).sum();
        queued + if let Place::Here(upload) = &self.upload { upload.held() } else { 0 }
    }
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
    rolling: Rolling<Body, Gathering>,
    ceiling: usize,
    running: JoinSet<Outcome>,
    aborting: JoinSet<()>,
    permits: Arc<Semaphore>,
    encoders: Arc<Semaphore>,
    /// Memory held by uploads and what waits for them.
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
        let piece = self.config.format.piece(self.config.part);
        self.rolling.begin();
        for record in records {
            self.rolling.next(&record).into_iter().for_each(|id| self.send(id, piece));
            if self.held() > self.ceiling {
                self.make_room().await?;
            }
            match self.rolling.take(record, now) {
                Taken::Written(id) => {
                    if self.rolling.get_mut(id).is_some_and(|file| file.buffered() >= piece) {
                        self.send(id, piece);
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
            match orphans::abort(&self.store, path, self.config.format.extension(), &self.unchecked).await {
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
                let largest = self.rolling.largest_by(|file| file.held() + file.body.held());
                let Some(id) = largest else { break };
                self.relieve(id);
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

    /// Lets go of the memory that an object holds. One with enough for a piece or a part stays open; everything smaller
    /// is completed.
    fn relieve(&mut self, id: FileId) {
        let least = self.config.format.least_piece();
        let Some(file) = self.rolling.get_mut(id) else { return };
        let cut = match &mut file.body.upload {
            Place::Here(upload) => upload.cut(),
            Place::None | Place::Running => false,
        };
        if !cut && file.buffered() < least {
            self.rolling.seal(id);
        }
        self.send(id, least);
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
            let waits = |file: &mut Rolled<Body, Piece>| {
                file.sealed || matches!(&file.body.upload, Place::Here(upload) if upload.has_work())
            };
            if self.rolling.get_mut(id).is_some_and(waits) {
                self.send(id, self.config.format.piece(self.config.part));
            }
        }
    }

    /// Hands over what is gathered, if it is sealed or has the size, and gets the upload going, unless it is.
    fn send(&mut self, id: FileId, piece: usize) {
        let whole = self.rolling.get_mut(id).is_some_and(|file| file.sealed || file.buffered() >= piece);
        let gathered = if whole { self.rolling.hand_over(id) } else { Piece::default() };
        let Some(file) = self.rolling.get_mut(id) else { return };
        if gathered.filled() > 0 {
            self.uploading += gathered.held();
            file.body.queue.push(gathered);
        }
        let mut upload = match std::mem::replace(&mut file.body.upload, Place::Running) {
            Place::Running => return,
            Place::Here(upload) => upload,
            Place::None => {
                let extension = self.config.format.extension();
                let name = file.name(None, extension);
                let stem =
                    name.strip_suffix(extension).and_then(|name| name.strip_suffix('.')).unwrap_or(&name);
                let stem = format!("{}{stem}", file.path);
                let names = Names::new(stem, extension, self.store.conditional());
                Box::new(Upload::new(names, self.config.format, self.config.part))
            }
        };
        file.body.queue.drain(..).for_each(|piece| upload.push(piece));
        if file.sealed {
            upload.seal();
        }
        let (store, permits) = (Arc::clone(&self.store), Arc::clone(&self.permits));
        let encoders = Arc::clone(&self.encoders);
        self.running.spawn(async move {
            let held = upload.held();
            let permit = permits.acquire().await;
            let result = upload.advance(&store, &encoders).await;
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
        self.uploading = self.uploading + upload.held() - held;
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
                    self.send(id, self.config.format.piece(self.config.part));
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
            self.uploading -= file.body.queue.iter().map(Piece::held).sum::<usize>();
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
