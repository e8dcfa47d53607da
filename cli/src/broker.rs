//! `aqueduct broker`: the log alone.

use aqueduct_broker::{Broker, BrokerConfig};
use aqueduct_pipeline::yaml;

use crate::args;
use crate::failure::{Failure, chain};
use crate::listen;
use crate::signals::Signals;

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
    let mut signals = Signals::new()?;
    let data = config.data_dir.clone();
    let broker = Broker::start(config).await.map_err(|error| Failure::failed(chain(&error)))?;
    let data = data.canonicalize().unwrap_or(data);
    println!("kafka  {}", broker.addr());
    println!("data   {}", data.display());
    let name = signals.next().await;
    tracing::info!("stopping on {name}");
    let stopped = signals.or_at_once(broker.shutdown(args.shutdown_timeout)).await?;
    stopped.map_err(|error| Failure::failed(chain(&error)))
}
