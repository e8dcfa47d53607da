//! Starting and stopping a broker: as a server, inside `aqueduct run`, in tests.
//! Invariants: the listener opens only after recovery; a clean stop writes the clean-shutdown file after everything else
//! is flushed, so that the next start can tell.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use aqueduct_log::{Disk, LogDir, LogDirOptions, LogError, RealDisk};

use crate::api::Api;
use crate::clock::{SteadyClock, wall_ms};
use crate::config::{BrokerConfig, ConfigError, HostPort};
use crate::coord::{Coordinator, OFFSETS_TOPIC};
use crate::meta::controller;
use crate::meta::image::Image;
use crate::meta::records::BrokerRecord;
use crate::meta::{ChangeError, Meta, MetaError};
use crate::metrics::{Metrics, Sources};
use crate::net;
use crate::node::Node;
use crate::partition::Partitions;
use crate::topic_config::TopicDefaults;

/// How often the log is looked after: compaction, rolling by age, files of deleted topics.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Retention waits as long after a start, unless its interval is shorter, as in Kafka.
const FIRST_RETENTION: Duration = Duration::from_secs(30);
/// How long the health speaks of a disk that had no room; producers try again much sooner.
const FULL_FOR: Duration = Duration::from_secs(10);
/// Kafka's `offsets.retention.check.interval.ms`.
const OFFSETS_EXPIRY: Duration = Duration::from_secs(600);

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the broker configuration is not valid: {}", list(.0))]
    Config(Vec<ConfigError>),
    #[error("cannot listen on `{address}`: {source}; choose another `--listen`")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot create the data directory `{}`: {source}", path.display())]
    DataDir { path: std::path::PathBuf, source: io::Error },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error("there is no partition `{0}` to repair; write `--repair-partition TOPIC-N` as the log names it")]
    NothingToRepair(String),
    #[error("the broker cannot register: {0}")]
    Register(ChangeError),
    #[error("a start-up thread ended early: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

fn list(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The broker.
#[derive(Debug, Clone, Copy)]
pub struct Broker;

impl Broker {
    /// Starts on the disk of this machine. Ready for clients when it returns.
    pub async fn start(config: BrokerConfig) -> Result<Handle, StartError> {
        config.check().map_err(StartError::Config)?;
        let failed = |source| StartError::DataDir { path: config.data_dir.clone(), source };
        std::fs::create_dir_all(&config.data_dir).map_err(failed)?;
        raise_file_limit();
        Self::start_on(Arc::new(RealDisk), config).await
    }

    /// Starts on any disk, such as one that can lose power; the data directory's parent must exist there.
    pub async fn start_on(disk: Arc<dyn Disk>, config: BrokerConfig) -> Result<Handle, StartError> {
        config.check().map_err(StartError::Config)?;
        let defaults =
            TopicDefaults::new(&config.topic_defaults).expect("`check` has looked at the defaults");
        let dir = open_dir(Arc::clone(&disk), &config).await?;
        let bound = net::bind(config.listen);
        let listener = bound.map_err(|source| StartError::Listen { address: config.listen, source })?;
        let address = listener.local_addr();
        let address = address.map_err(|source| StartError::Listen { address: config.listen, source })?;
        let advertised = config.advertise.clone();
        let advertised =
            advertised.unwrap_or_else(|| HostPort { host: address.ip().to_string(), port: address.port() });

        let meta = open_meta(disk, &dir, &advertised).await?;
        if let Some(unknown) = config.repair_partitions.iter().find(|name| !is_partition(&meta.image(), name))
        {
            return Err(StartError::NothingToRepair(unknown.clone()));
        }
        let epoch = register(&meta, &dir, &config, &advertised).await?;
        let partitions = Arc::new(Partitions::new(config.node_id, Arc::clone(&dir), defaults.clone()));
        let (loading, image) = (Arc::clone(&partitions), meta.image());
        tokio::task::spawn_blocking(move || loading.load(&image)).await??;

        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let coordinator = Coordinator::new(config.groups.clone(), tasks.clone(), stop.clone());
        if let Some(topic) = partitions.topic(OFFSETS_TOPIC).filter(|topic| topic.is_made()) {
            coordinator.take_over(topic.partitions().cloned().collect());
        }
        let node = Arc::new(Node {
            cluster_id: dir.identity().cluster_id.clone(),
            advertised,
            defaults,
            meta,
            partitions,
            coordinator,
            metrics: Arc::new(Metrics::new(Duration::from_millis(config.slow_request_ms))),
            clock: SteadyClock::new(),
            fetch_sessions: Arc::default(),
            stop: stop.clone(),
            tasks: tasks.clone(),
            names: Arc::default(),
            making_offsets: tokio::sync::Mutex::default(),
            producer_ids: tokio::sync::Mutex::default(),
            catching_up: AtomicBool::new(false),
            config,
        });
        if node.partitions.unmade() > 0 {
            node.follow_later();
        }
        if let Ok(names) = Arc::clone(&node.names).try_write_owned() {
            let node = Arc::clone(&node);
            tasks.spawn(async move { node.forget_deleted_topics(names).await });
        }
        let kill = CancellationToken::new();
        let retention = Duration::from_millis(node.config.log_retention_check_interval_ms);
        let limits = Arc::new(node.config.limits.clone());
        let service = Arc::new(Api::new(Arc::clone(&node)));
        tasks.spawn(net::listen(
            listener,
            service,
            limits,
            tasks.clone(),
            net::Stops { stop: stop.clone(), kill: kill.clone() },
        ));
        tasks.spawn(keep_house(Arc::clone(&dir), retention, stop.clone()));
        tasks.spawn(expire_offsets(Arc::clone(&node), stop.clone()));
        tracing::info!(%address, advertised = %node.advertised, cluster = node.cluster_id, epoch, "the broker is ready");
        Ok(Handle { node, dir, address, epoch, tasks, stop, kill })
    }
}

/// Every partition keeps a file open, every connection a socket: as many as the system lets this process have.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}

async fn open_dir(disk: Arc<dyn Disk>, config: &BrokerConfig) -> Result<Arc<LogDir>, StartError> {
    let options = LogDirOptions {
        node_id: config.node_id,
        tail_bytes: config.limits.tail_cache_bytes,
        repair: config.repair_partitions.clone(),
        ..LogDirOptions::default()
    };
    let (options, root) = (options.with_environment(), config.data_dir.clone());
    let opened = tokio::task::spawn_blocking(move || LogDir::open(disk, &root, options)).await?;
    Ok(Arc::new(opened?))
}

async fn open_meta(disk: Arc<dyn Disk>, dir: &LogDir, advertised: &HostPort) -> Result<Meta, StartError> {
    let path = dir.root().join("meta");
    if !disk.exists(&path).map_err(|error| LogError::io("look for", &path, error))? {
        disk.create_dir(&path).map_err(|error| LogError::io("create", &path, error))?;
        disk.sync_dir(dir.root()).map_err(|error| LogError::io("sync directory", dir.root(), error))?;
    }
    Ok(Meta::open(disk, &path, advertised.to_string()).await?)
}

/// Whether `name` is a partition's, as its directory is called.
fn is_partition(image: &Image, name: &str) -> bool {
    let found = name.rsplit_once('-').and_then(|(topic, index)| {
        let partitions = &image.topic(topic)?.partitions;
        partitions.get(index.parse::<usize>().ok()?)
    });
    found.is_some()
}

/// Tells the cluster that this broker is up; its new broker epoch.
async fn register(
    meta: &Meta,
    dir: &LogDir,
    config: &BrokerConfig,
    advertised: &HostPort,
) -> Result<u64, StartError> {
    let record = BrokerRecord {
        node_id: config.node_id,
        incarnation: Uuid::new_v4(),
        directory: dir.identity().directory_id,
        host: advertised.host.clone(),
        port: advertised.port,
        epoch: None,
    };
    let clean = dir.clean_shutdown_epoch().and_then(|epoch| u64::try_from(epoch).ok());
    let registered = meta.change(|image| Ok(((), controller::register_broker(image, record, clean)?))).await;
    registered.map_err(StartError::Register)?;
    let image = meta.image();
    Ok(image.brokers.get(&config.node_id).map_or(0, |broker| broker.epoch))
}

async fn keep_house(dir: Arc<LogDir>, retention_every: Duration, stop: CancellationToken) {
    let compactable = Arc::new(Notify::new());
    let wake = Arc::clone(&compactable);
    dir.on_compactable(move || wake.notify_one());
    let mut retention = Instant::now() + retention_every.min(FIRST_RETENTION);
    loop {
        let now = Instant::now();
        tokio::select! {
            () = stop.cancelled() => return,
            () = compactable.notified() => {}
            () = tokio::time::sleep_until(retention.min(now + HOUSEKEEPING)) => {}
        }
        let retention_is_due = Instant::now() >= retention;
        let dir = Arc::clone(&dir);
        let work = move || {
            if retention_is_due { dir.housekeep(wall_ms()) } else { dir.maintain(wall_ms()) }
        };
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%error, "looking after the log failed");
        }
        if retention_is_due {
            retention = Instant::now() + retention_every;
        }
    }
}

async fn expire_offsets(node: Arc<Node>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(OFFSETS_EXPIRY) => node.coordinator.expire().await,
        }
    }
}

/// A running broker. Dropping it stops serving, without the order of a clean stop.
pub struct Handle {
    node: Arc<Node>,
    dir: Arc<LogDir>,
    address: SocketAddr,
    epoch: u64,
    tasks: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Handle {
    /// Where the Kafka protocol is served.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What clients are told to connect to.
    pub fn advertised(&self) -> &HostPort {
        &self.node.advertised
    }

    pub fn cluster_id(&self) -> &str {
        &self.node.cluster_id
    }

    pub fn node_id(&self) -> i32 {
        self.node.config.node_id
    }

    /// Whether the disk takes writes; anything but a full disk stays an error until restart.
    pub fn health(&self) -> Result<(), LogError> {
        self.dir.check_online()?;
        self.node
            .meta
            .check()
            .map_err(|error| LogError::Offline { what: "the metadata".to_owned(), reason: error.to_string() })
    }

    /// Whether the log takes writes, as a question that may be asked at any time, also after the broker has stopped. A
    /// disk without room counts, until no write has been refused for [`FULL_FOR`].
    pub fn health_check(&self) -> Arc<dyn Fn() -> Result<(), String> + Send + Sync> {
        let dir = Arc::clone(&self.dir);
        Arc::new(move || {
            dir.check_online().map_err(|error| error.to_string())?;
            match dir.counters().no_room(FULL_FOR) {
                Some(error) => Err(format!("the log's disk is full, make room: {error}")),
                None => Ok(()),
            }
        })
    }

    /// Adds the broker's metrics to a registry, under `aqueduct_broker_`.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let sources = Sources {
            dir: Arc::clone(&self.dir),
            partitions: Arc::clone(&self.node.partitions),
            coordinator: Arc::clone(&self.node.coordinator),
            fetch_sessions: Arc::clone(&self.node.fetch_sessions),
        };
        self.node.metrics.register(registry, sources);
    }

    /// Stops: no new connections, answers under way are sent until `deadline` is over, everything is flushed, and the
    /// next start will find that this was a clean stop.
    pub async fn shutdown(self, deadline: Duration) -> Result<(), LogError> {
        self.stop.cancel();
        self.tasks.close();
        // A long compaction is not waited for; the next start does it again.
        self.dir.interrupt_housekeeping();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time and were cut");
            self.kill.cancel();
            self.tasks.wait().await;
        }
        let epoch = i64::try_from(self.epoch).unwrap_or(i64::MAX);
        let dir = Arc::clone(&self.dir);
        let stopped = tokio::task::spawn_blocking(move || dir.stop(epoch)).await;
        self.node.meta.shutdown().await;
        match stopped {
            Ok(outcome) => outcome,
            Err(error) => Err(LogError::Invalid(format!("the log could not be stopped: {error}"))),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill.cancel();
    }
}
