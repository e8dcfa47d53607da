//! `aqueduct broker`: the log alone.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aqueduct_api::{LogConfig, MetricsSource};
use aqueduct_broker::{Broker, BrokerConfig, Handle, HostPort};
use aqueduct_pipeline::yaml;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::failure::{Failure, chain};
use crate::listen;
use crate::signals::Signals;

/// Where metrics are found unless `--metrics` says otherwise: the port of Prometheus' JMX exporter, as beside Kafka.
const METRICS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9404);
/// How long a scrape under way may hold the stop up.
const LAST_SCRAPE: Duration = Duration::from_secs(1);

pub(crate) async fn broker(args: args::Broker) -> Result<(), Failure> {
    let mut config = match &args.config {
        Some(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || yaml::settings::<BrokerConfig>(&path)).await;
            let read = read.map_err(|error| Failure::failed(error.to_string()))?;
            read.map_err(|finding| Failure::usage(finding.to_string()))?
        }
        None => BrokerConfig::default(),
    };
    listen::apply(&args.broker, &mut config, args.insecure)?;
    config.repair_partitions.clone_from(&args.repair_partition);
    let metrics = bind(args.metrics.as_ref(), args.insecure).await?;
    let mut signals = Signals::new()?;
    let data = config.data_dir.clone();
    let broker = Broker::start(config).await.map_err(|error| Failure::failed(chain(&error)))?;
    let data = data.canonicalize().unwrap_or(data);
    let http = metrics.local_addr().ok().map(|address| format!("http://{address}/metrics"));
    if args.json {
        let started = json!({ "event": "started", "kafka": broker.addr(), "data": data, "metrics": http });
        println!("{started}");
    } else {
        println!("kafka  {}", broker.addr());
        println!("data   {}", data.display());
        if let Some(http) = http {
            println!("http   {http}");
        }
    }
    let (stop, serving) = serve(metrics, &broker);
    let name = signals.next().await;
    tracing::info!("stopping on {name}");
    let stopped = signals.or_at_once(broker.shutdown(args.shutdown_timeout)).await?;
    stop.cancel();
    if tokio::time::timeout(LAST_SCRAPE, serving).await.is_err() {
        tracing::debug!("a scrape was cut off");
    }
    stopped.map_err(|error| Failure::failed(chain(&error)))
}

async fn bind(given: Option<&HostPort>, insecure: bool) -> Result<TcpListener, Failure> {
    let (address, host_port) = match given {
        Some(host_port) => (listen::resolve("--metrics", host_port)?, host_port.to_string()),
        None => (SocketAddr::from(METRICS), SocketAddr::from(METRICS).to_string()),
    };
    let bound = match aqueduct_api::bind(address, insecure).await {
        // Several brokers on one machine are no mistake.
        Err(taken) if given.is_none() && taken.kind() == io::ErrorKind::AddrInUse => {
            aqueduct_api::bind(SocketAddr::from((METRICS.0, 0)), insecure).await
        }
        bound => bound,
    };
    bound.map_err(|error| {
        Failure::usage(format!(
            "cannot listen on `{host_port}` for metrics: {error}; choose another `--metrics`"
        ))
    })
}

fn serve(listener: TcpListener, broker: &Handle) -> (CancellationToken, JoinHandle<()>) {
    let mut metrics = Registry::default();
    broker.register_metrics(&mut metrics);
    let config = LogConfig {
        metrics: MetricsSource::Fixed(Arc::new(metrics)),
        log_health: broker.health_check(),
        host_names: vec![broker.advertised().host.clone()],
    };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let serving = tokio::spawn(async move {
        if let Err(error) = aqueduct_api::serve_log(listener, config, stopped).await {
            tracing::error!(%error, "metrics are served no more");
        }
    });
    (stop, serving)
}
