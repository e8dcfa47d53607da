//! `file`: a source that reads lines of files, and of files as they grow.
//!
//! A file is known by its device and inode and by its first bytes, not by its name: a renamed file is gone on with, a new
//! one of the same name begun, one that was cut and written anew read from its beginning. A line counts when its end is
//! there; what stands behind the last end waits for more, until the file was replaced.
//!
//! The position of a file is `{"position": bytes, "head": checksum, "head_bytes": n, "path": …}`; of a compressed one it
//! counts the bytes that came out.

mod lines;
mod reader;
mod tracked;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Problem, ResolvedConfig, Values};
use aqueduct_core::source::{SourceConnector, SourceContext, SourceRecord, SourceTask};
use aqueduct_core::{Error, Result, Topic};
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use reader::{Pattern, Reader};

/// Batches that are read ahead; each has at most a mebibyte and a line.
const AHEAD: usize = 2;

static SPEC: LazyLock<Spec> = LazyLock::new(|| {
    Spec {
    name: "file",
    aliases: &["FileStreamSource", "org.apache.kafka.connect.file.FileStreamSourceConnector"],
    version: env!("CARGO_PKG_VERSION"),
    summary: "Reads lines of files, and goes on as they grow.",
    config: ConfigDef::new([
        ConfigKey::new(
            "path",
            ConfigType::String,
            "The file, or files: the last part of the path may have `*` and `?`, as in `/var/log/app/*.log`. Files that \
             end with `.gz` or `.zst` are read decompressed.",
        )
        .aliases(&["file"])
        .required()
        .path(),
        ConfigKey::new("topic", ConfigType::String, "Topic of the records.")
            .required()
            .check(aqueduct_core::check_topic),
        ConfigKey::new(
            "format",
            ConfigType::Enum(&["text", "json"]),
            "What a line is. One that is not JSON, or not UTF-8, becomes a dead letter or stops the task.",
        )
        .default("text"),
        ConfigKey::new(
            "from",
            ConfigType::Enum(&["beginning", "end"]),
            "Where files begin that are there at the very first start; later ones are read from their beginning.",
        )
        .default("beginning"),
        ConfigKey::new(
            "follow",
            ConfigType::Boolean,
            "Whether files are expected to grow. If not, what stands behind the last line end is a line, too.",
        )
        .default("true"),
        ConfigKey::new("poll.interval", ConfigType::Duration, "How often files are looked at once nothing is left to read.")
            .default("500ms"),
        ConfigKey::new(
            "max.line",
            ConfigType::Size,
            "Longest line. Of a longer one, the dead letter has the first 64 KiB.",
        )
        .default("1MiB"),
    ]),
}
});

/// What a line becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// The parsed config.
#[derive(Clone, Debug)]
pub(crate) struct SourceConfig {
    pub(crate) pattern: Pattern,
    pub(crate) topic: Topic,
    pub(crate) format: Format,
    pub(crate) from_end: bool,
    pub(crate) follow: bool,
    pub(crate) interval: Duration,
    pub(crate) max_line: usize,
}

impl SourceConfig {
    fn new(values: &Values) -> Result<Self> {
        let path = PathBuf::from(values.text("path")?);
        let pattern = Pattern::new(&path).map_err(|why| Error::bad_config(format!("`path`: {why}")))?;
        Ok(Self {
            pattern,
            topic: values.text("topic")?.into(),
            format: if values.text("format")? == "json" { Format::Json } else { Format::Text },
            from_end: values.text("from")? == "end",
            follow: values.boolean("follow")?,
            interval: values.duration("poll.interval")?.max(Duration::from_millis(1)),
            max_line: values.size("max.line")?.as_usize().clamp(1, 1 << 30),
        })
    }
}

/// The `file` source.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSource;

#[async_trait]
impl SourceConnector for FileSource {
    fn spec(&self) -> &Spec {
        &SPEC
    }

    fn validate(&self, config: &ResolvedConfig) -> Vec<Problem> {
        // The caller reports what the declared types show.
        let Ok(values) = SPEC.config.parse(config) else { return Vec::new() };
        let wrong = SourceConfig::new(&values).err();
        wrong.map(|error| Problem::new("path", error.full())).into_iter().collect()
    }

    fn topics(&self, config: &ResolvedConfig) -> Result<Vec<String>> {
        Ok(vec![SPEC.parse(config)?.text("topic")?.to_owned()])
    }

    fn task(&self, config: &ResolvedConfig) -> Result<Box<dyn SourceTask>> {
        let config = SourceConfig::new(&SPEC.parse(config)?)?;
        Ok(Box::new(Task { config, running: None }))
    }
}

struct Task {
    config: SourceConfig,
    running: Option<Running>,
}

struct Running {
    batches: mpsc::Receiver<Result<Vec<SourceRecord>>>,
    stop: Arc<AtomicBool>,
    /// Dropped, it wakes a reader that waits for files to grow.
    wake: blocking::Sender<()>,
    reader: JoinHandle<()>,
}

#[async_trait]
impl SourceTask for Task {
    async fn start(&mut self, context: SourceContext) -> Result<()> {
        let (sender, batches) = mpsc::channel(AHEAD);
        let (wake, waiting) = blocking::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let config = self.config.clone();
        let reader = tokio::task::spawn_blocking(move || Reader::new(config, &context.positions)).await;
        let mut reader =
            reader.map_err(|error| Error::fatal("the reader of the files").with_source(error))?;
        let (stopped, interval) = (Arc::clone(&stop), self.config.interval);
        let reader = tokio::task::spawn_blocking(move || {
            let mut out = |batch| sender.blocking_send(batch).is_ok() && !stopped.load(Ordering::Relaxed);
            while reader.round(&mut out) {
                // Nobody ever sends: this is a pause that the other end can cut short.
                if waiting.recv_timeout(interval) != Err(blocking::RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        self.running = Some(Running { batches, stop, wake, reader });
        Ok(())
    }

    async fn poll(&mut self) -> Result<Vec<SourceRecord>> {
        let running = self.running.as_mut().ok_or_else(|| Error::fatal("the task was not started"))?;
        match running.batches.recv().await {
            Some(batch) => batch,
            None => Err(Error::fatal("the reader of the files has ended")),
        }
    }

    async fn stop(&mut self) -> Result<()> {
        let Some(Running { batches, stop, wake, reader }) = self.running.take() else { return Ok(()) };
        stop.store(true, Ordering::Relaxed);
        drop((batches, wake));
        reader.await.ok();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
