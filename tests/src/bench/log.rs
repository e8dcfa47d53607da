//! Produce, consume and end-to-end latency of the log, through librdkafka.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::client::{Load, Work};
use super::{Meter, Report, percentile_ms, show};
use crate::process::Start;
use crate::usage::Usage;

/// 100 B and 1 KiB, durable and `durability=os`.
pub fn run(report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    report.sample("disk/fdatasync", fdatasync(dir.path())?);
    for (size, records) in [(100, 2_000_000), (1024, 300_000)] {
        for durability in ["durable", "os"] {
            let dir = tempfile::tempdir()?;
            let start = Start::broker(dir.path());
            report.ran(&show(&start.command()));
            let broker = start.start()?;
            let topic = format!("bench-{size}-{durability}");
            let create = Load {
                records,
                size,
                config: vec![format!("durability={durability}")],
                ..Load::new(&broker.kafka, &topic)
            };
            Work::Create(create.clone()).spawn(report)?;
            let load = |acks: &str| Load { acks: acks.to_owned(), ..create.clone() };
            for acks in ["1", "all"] {
                let name = format!("produce/{size}B/{durability}/acks={acks}");
                measured(report, &name, broker.usage(), &Work::Produce(load(acks)))?;
            }
            let consume = [Work::Consume(load("all")), Work::Fetch(load("all"))];
            for (how, work) in ["consume", "fetch"].into_iter().zip(consume) {
                measured(report, &format!("{how}/{size}B/{durability}"), broker.usage(), &work)?;
            }
            let few = Load { records: 3_000, ..load("all") };
            let name = format!("end-to-end/{size}B/{durability}");
            measured(report, &name, broker.usage(), &Work::Latency(few))?;
        }
    }
    Ok(())
}

fn measured(report: &mut Report, name: &str, broker: Usage, work: &Work) -> Result<()> {
    let figures = costed(report, broker, work)?;
    report.sample(name, figures);
    Ok(())
}

/// One client against one broker: the client's figures and the broker's cost.
pub(super) fn costed(report: &Report, broker: Usage, work: &Work) -> Result<Value> {
    let meter = Meter::start(broker);
    let mut figures = work.spawn(report)?;
    let records = figures["records"].as_u64().or_else(|| figures["n"].as_u64()).unwrap_or(1);
    if let (Some(into), Value::Object(cost)) = (figures.as_object_mut(), meter.cost(records)) {
        into.extend(cost);
    }
    Ok(figures)
}

/// The disk's own figure, without which a durable latency says nothing.
pub(super) fn fdatasync(dir: &Path) -> Result<Value> {
    let mut file = std::fs::File::create(dir.join("probe"))?;
    let mut times = Vec::new();
    for _ in 0..500 {
        file.write_all(&[0; 1024])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(json!({
        "p50_ms": percentile_ms(&times, 0.5), "p99_ms": percentile_ms(&times, 0.99),
        "p999_ms": percentile_ms(&times, 0.999),
    }))
}
