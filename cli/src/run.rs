//! `aqueduct run`: the log, the runtime, the REST API and the pipelines in one process.
//!
//! Files are planned and ports are taken before anything is written. Stopping goes the other way: REST takes no more
//! changes, the runtime drains, the log stops last. **Invariant:** the whole stop is bounded by `--shutdown-timeout`.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_api::{ApiConfig, MetricsSource};
use aqueduct_broker::{Broker, BrokerConfig, Handle};
use aqueduct_core::component::Registry;
use aqueduct_pipeline::{Mode, Plan, render};
use aqueduct_runtime::{Applied, RestTrust, Runtime, RuntimeConfig, RuntimeHandle};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args;
use crate::banner::{self, Places};
use crate::failure::{Failure, chain};
use crate::live::{self, Form};
use crate::screen::Screen;
use crate::signals::Signals;
use crate::{listen, pipelines};

/// What the log gets of the time to stop, at least.
const BROKER_SHARE: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: args::Run, screen: Arc<Screen>) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut config = BrokerConfig::default();
    listen::apply(&args.broker, &mut config, args.insecure)?;
    let registry = crate::registry::registry();
    let plans = plan(&args, &registry).await?;
    let rest = bind(&args).await?;
    let rest_address =
        rest.local_addr().map_err(|error| Failure::failed(format!("the rest port is gone: {error}")))?;

    let data = config.data_dir.clone();
    let broker = Broker::start(config).await.map_err(|error| Failure::failed(chain(&error)))?;
    let data = data.canonicalize().unwrap_or(data);
    let places = Places { kafka: broker.addr(), rest: rest_address, data: &data };
    announce(&places, &plans, &registry, &args, &screen);

    let server = Server::start(rest, &broker);
    let mut running = Running {
        broker,
        server,
        runtime: None,
        live: TaskTracker::new(),
        stop_live: CancellationToken::new(),
    };
    let started = tokio::select! {
        started = running.start(&args, &registry, &plans, &places, &screen) => started,
        name = signals.next() => {
            tracing::info!("stopping on {name} while starting");
            Ok(())
        }
    };
    if started.is_ok() && running.runtime.is_some() {
        let name = signals.next().await;
        tracing::info!("stopping on {name}");
        if !args.json {
            screen.line("stopping; a second signal stops at once");
        }
    }
    let stopped = signals.or_at_once(running.stop(args.shutdown_timeout)).await?;
    started?;
    stopped?;
    if args.json {
        screen.line(&serde_json::json!({ "event": "stopped" }).to_string());
    }
    Ok(())
}

/// Reads and checks every file, and builds their steps once.
async fn plan(args: &args::Run, registry: &Registry) -> Result<Vec<Plan>, Failure> {
    let (files, registry) = (args.files.clone(), registry.clone());
    let outcome = tokio::task::spawn_blocking(move || pipelines::plan(&files, &registry, Mode::Run)).await;
    let outcome = outcome.map_err(|error| Failure::failed(format!("planning ended early: {error}")))?;
    if outcome.findings.is_empty() {
        return Ok(outcome.plans);
    }
    Err(Failure::usage(format!("nothing was started\n{}", render(&outcome.findings))))
}

async fn bind(args: &args::Run) -> Result<TcpListener, Failure> {
    let address = listen::resolve("--rest", &args.rest)?;
    if !address.ip().is_loopback() && !args.insecure {
        let text =
            "is reachable from other machines and nothing is authenticated; add `--insecure` to allow it";
        return Err(Failure::usage(format!("`--rest {}` {text}", args.rest)));
    }
    let bound = aqueduct_api::bind(address, args.insecure).await;
    bound.map_err(|error| {
        Failure::failed(format!(
            "cannot listen on `{address}` for the rest api: {error}; choose another `--rest`"
        ))
    })
}

fn announce(places: &Places<'_>, plans: &[Plan], registry: &Registry, args: &args::Run, screen: &Screen) {
    if args.json {
        screen.line(&banner::event(places, plans).to_string());
        return;
    }
    banner::text(places, plans, registry).iter().for_each(|line| screen.line(line));
    if args.insecure {
        tracing::warn!("`--insecure`: whoever reaches these ports may read and change everything");
    }
}

/// The REST server, up before the runtime is.
struct Server {
    tasks: TaskTracker,
    stop: CancellationToken,
    runtime: Arc<OnceCell<RuntimeHandle>>,
}

impl Server {
    fn start(listener: TcpListener, broker: &Handle) -> Self {
        let (tasks, stop, runtime) =
            (TaskTracker::new(), CancellationToken::new(), Arc::new(OnceCell::new()));
        let mut metrics = prometheus_client::registry::Registry::default();
        broker.register_metrics(&mut metrics);
        let config = ApiConfig {
            runtime: Arc::clone(&runtime),
            metrics: vec![MetricsSource::Fixed(Arc::new(metrics))],
            log_health: broker.health_check(),
            host_names: Vec::new(),
            version: env!("CARGO_PKG_VERSION"),
        };
        let stopped = stop.clone();
        tasks.spawn(async move {
            if let Err(error) = aqueduct_api::serve(listener, config, stopped).await {
                tracing::error!(%error, "the rest api has ended");
            }
        });
        Self { tasks, stop, runtime }
    }
}

/// Everything that was started, for the stop.
struct Running {
    broker: Handle,
    server: Server,
    runtime: Option<Runtime>,
    live: TaskTracker,
    stop_live: CancellationToken,
}

impl Running {
    async fn start(
        &mut self,
        args: &args::Run,
        registry: &Registry,
        plans: &[Plan],
        places: &Places<'_>,
        screen: &Arc<Screen>,
    ) -> Result<(), Failure> {
        let config = RuntimeConfig {
            worker_id: places.rest.to_string(),
            rest_trust: RestTrust { env: args.allow_env.clone(), paths: args.allow_path.clone() },
            ..RuntimeConfig::new(self.broker.addr().to_string(), registry.clone())
        };
        let runtime = Runtime::start(config).await.map_err(|error| Failure::failed(chain(&error)))?;
        let handle = runtime.handle();
        self.runtime = Some(runtime);
        let form = if args.json { Form::Json } else { Form::Text };
        self.live.spawn(live::show(handle.clone(), Arc::clone(screen), form, self.stop_live.clone()));
        let pipelines = plans.iter().map(pipelines::for_runtime).collect();
        let applied = handle.apply(pipelines).await.map_err(|error| Failure::failed(chain(&error)))?;
        report(&applied, args, screen);
        self.server.runtime.set(handle).ok();
        Ok(())
    }

    async fn stop(self, timeout: Duration) -> Result<(), Failure> {
        let until = Instant::now() + timeout;
        self.server.stop.cancel();
        let mut drained = true;
        if let Some(runtime) = self.runtime {
            let share = timeout.saturating_sub(BROKER_SHARE.min(timeout / 4));
            drained = tokio::time::timeout(share, runtime.shutdown(share)).await.is_ok();
        }
        self.stop_live.cancel();
        self.live.close();
        self.live.wait().await;
        self.server.tasks.close();
        // A request that still waits for the runtime may not hold the log open.
        tokio::time::timeout(Duration::from_secs(1), self.server.tasks.wait()).await.ok();
        let stopped = self.broker.shutdown(until.saturating_duration_since(Instant::now())).await;
        stopped.map_err(|error| Failure::failed(chain(&error)))?;
        if drained {
            return Ok(());
        }
        let text = "not everything could be drained in time; the next start continues from the last stored positions";
        Err(Failure::failed(format!("{text} (`--shutdown-timeout` is {timeout:?})")))
    }
}

/// Says what applying the files changed that a user may not expect.
fn report(applied: &Applied, args: &args::Run, screen: &Screen) {
    let names = |names: &[String]| names.join("`, `");
    if args.json {
        screen.line(
            &serde_json::json!({
                "event": "applied",
                "created": applied.created,
                "updated": applied.updated,
                "overwritten": applied.overwritten,
                "unchanged": applied.unchanged,
                "stopped": applied.stopped,
            })
            .to_string(),
        );
        return;
    }
    if !applied.overwritten.is_empty() {
        screen.line(&format!("  changed over REST, now as the file says: `{}`", names(&applied.overwritten)));
    }
    if !applied.stopped.is_empty() {
        screen.line(&format!(
            "  stopped, their file was not given: `{}`; positions are kept",
            names(&applied.stopped)
        ));
    }
}
