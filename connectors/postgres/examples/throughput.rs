//! Measures rows per second and CPU of snapshot and stream against a running server, acknowledging at once.
//!
//! `throughput URL TABLE SNAPSHOT_ROWS STREAM_ROWS [json]`: after the snapshot it waits for that many streamed rows;
//! with `json` every value is encoded, as the runtime does.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use aqueduct_connector_postgres::PostgresCdc;
use aqueduct_core::config::{Config, plain};
use aqueduct_core::source::{NoReport, SourceConnector as _, SourceContext, SourceTask, StoredPositions};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, table, snapshot, stream, rest @ ..] = args.as_slice() else {
        anyhow::bail!("usage: throughput URL TABLE SNAPSHOT_ROWS STREAM_ROWS [json]")
    };
    let entries = [
        ("url", url.as_str()),
        ("tables", table),
        ("topic.prefix", "bench"),
        ("slot.name", "aqueduct_bench"),
    ];
    let config: Config = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut task = PostgresCdc::new().task(&plain(&config))?;
    let context = SourceContext {
        connector: "bench".into(),
        task: 0,
        positions: StoredPositions::default(),
        buffer_bytes: 16 << 20,
        reporter: Arc::new(NoReport),
    };
    task.start(context).await?;
    let json = rest.iter().any(|arg| arg == "json");
    measure("snapshot", &mut *task, snapshot.parse().context("SNAPSHOT_ROWS")?, json).await?;
    measure("stream", &mut *task, stream.parse().context("STREAM_ROWS")?, json).await?;
    task.stop().await?;
    Ok(())
}

async fn measure(what: &str, task: &mut dyn SourceTask, rows: u64, json: bool) -> Result<()> {
    let (mut done, mut bytes, mut batches, mut begun) = (0, 0, 0u64, None);
    while done < rows {
        let batch = match task.poll().await {
            Err(error) if error.is_retriable() => {
                eprintln!("{error}");
                continue;
            }
            other => other?,
        };
        let mut position = None;
        for record in batch {
            if let Some(record) = record.record {
                begun.get_or_insert_with(|| (Instant::now(), cpu()));
                done += 1;
                if json {
                    bytes += record.value.to_json()?.len() + record.key.to_json()?.len();
                }
            }
            position = record.position.or(position);
        }
        batches += 1;
        if let Some(position) = position {
            task.commit(&[position]).await?;
        }
    }
    let (begun, cpu_before) = begun.context("no rows")?;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{what}: {done} rows in {seconds:.2} s, {:.0} rows/s, {:.2} CPU-s per million, {} rows per batch, {bytes} bytes",
        done as f64 / seconds,
        (cpu() - cpu_before) * 1e6 / done as f64,
        done / batches,
    );
    Ok(())
}

/// CPU seconds of this process so far, by the kernel's 10-ms ticks.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
