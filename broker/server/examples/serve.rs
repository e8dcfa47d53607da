//! Runs a broker alone: `serve DIR [HOST:PORT]`. Stops cleanly when its standard input ends.

use std::io::Read;
use std::time::Duration;

use aqueduct_broker::{Broker, BrokerConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter("info,openraft=warn").with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let data_dir = arguments.next().ok_or("usage: serve DIR [HOST:PORT]")?.into();
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned()).parse()?;
    let handle = Broker::start(BrokerConfig { data_dir, listen, ..BrokerConfig::default() }).await?;
    eprintln!("serving on {}", handle.addr());
    let ended = tokio::task::spawn_blocking(|| {
        let mut rest = Vec::new();
        std::io::stdin().read_to_end(&mut rest)
    });
    ended.await??;
    handle.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
