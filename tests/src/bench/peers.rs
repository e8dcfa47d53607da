//! Side by side with Apache Kafka 4.3: both in one run on one machine, in turns, with the same clients.
//!
//! `aqueduct` is our log with `durability=os`, which acknowledges as Kafka does, before anything is on the disk;
//! `aqueduct durable` is our default, with an fsync before each acknowledgement of `acks=all`.

mod side;
mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::client::{Load, Work};
use super::log::{costed, fdatasync};
use super::{Report, mib};
use crate::kafka::Jars;
use side::Side;

/// How long a broker may take to serve a large log again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(600);

/// What is compared, and how thoroughly.
#[derive(Args, Clone, Debug)]
pub struct Peers {
    /// `start`, `throughput`, `recovery`; all without a name.
    names: Vec<String>,
    /// Turns of every measurement; the table has the medians.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Records of 100 bytes in each turn; of 1 KiB a fifth of that.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Records of each end-to-end measurement.
    #[arg(long, default_value_t = 2_000)]
    latencies: u64,
    /// Partition counts, comma-separated.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256])]
    partitions: Vec<i32>,
    /// GB of the log whose recovery is measured; 10 in a full run.
    #[arg(long, default_value_t = 1)]
    gb: u64,
    /// Writes samples, medians and ratios to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Peers {
    /// Runs it and prints the table.
    pub fn run(&self) -> Result<()> {
        let all = ["start", "throughput", "recovery"];
        for name in &self.names {
            ensure!(all.contains(&name.as_str()), "`{name}` is none of {}", all.join(", "));
        }
        let wanted = |name: &str| self.names.is_empty() || self.names.iter().any(|wanted| wanted == name);
        let jars = Jars::fetch()?;
        let mut report = Report::default();
        if wanted("start") {
            self.start(&mut report, &jars)?;
        }
        if wanted("throughput") {
            self.throughput(&mut report, &jars)?;
        }
        if wanted("recovery") {
            self.recovery(&mut report, &jars)?;
        }
        self.print(&report)
    }

    #[expect(clippy::print_stdout, reason = "the table is the output of a benchmark")]
    fn print(&self, report: &Report) -> Result<()> {
        let rows = table::rows(report.samples());
        println!("\n{}", table::print(&rows));
        if let Some(path) = &self.json {
            let all = json!({"samples": report.samples(), "medians": table::json(&rows)});
            std::fs::write(path, serde_json::to_vec_pretty(&all)?)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// Start, memory idle and with 1,000 partitions.
    fn start(&self, report: &mut Report, jars: &Jars) -> Result<()> {
        for _ in 0..self.rounds {
            let dir = tempfile::tempdir()?;
            for mut side in both(dir.path(), jars, report)? {
                let took = side.start(report)?;
                sample(report, "start", &side, json!({"ms": took.as_secs_f64() * 1e3}));
                memory_after_a_while(report, "idle", &side)?;
                let load = Load { partitions: 1_000, ..Load::new(&side.address(), "thousand") };
                Work::Create(load).spawn(report)?;
                side.wait_served("thousand", 1_000, Duration::from_secs(60))?;
                memory_after_a_while(report, "with 1,000 partitions", &side)?;
                side.stop(Signal::KILL)?;
            }
        }
        Ok(())
    }

    fn throughput(&self, report: &mut Report, jars: &Jars) -> Result<()> {
        let dir = tempfile::tempdir()?;
        let mut sides = both(dir.path(), jars, report)?;
        for side in &mut sides {
            side.start(report)?;
            // A cold JVM is another machine.
            let load = Load { records: self.records, ..Load::new(&side.address(), "warm-up") };
            Work::Create(load.clone()).spawn(report)?;
            for _ in 0..3 {
                Work::Produce(load.clone()).spawn(report)?;
                Work::Fetch(load.clone()).spawn(report)?;
            }
        }
        for size in [100, 1024] {
            for &partitions in &self.partitions {
                for acks in ["1", "all"] {
                    let cell = Cell { size, partitions, acks };
                    for round in 0..self.rounds {
                        let disk = fdatasync(dir.path())?;
                        report.sample("disk/fdatasync", with_side(disk, "aqueduct durable"));
                        for side in &sides {
                            self.turn(report, side, &cell, round, false)?;
                            if side.name() == "aqueduct" {
                                self.turn(report, side, &cell, round, true)?;
                            }
                        }
                    }
                }
            }
        }
        for side in &sides {
            let usage = side.usage()?;
            sample(
                report,
                "after all of it",
                side,
                json!({"resident_mib": mib(usage.resident()?), "peak_mib": mib(usage.peak()?)}),
            );
        }
        Ok(())
    }

    /// One cell on one side: produce, fetch, end to end.
    fn turn(&self, report: &mut Report, side: &Side, cell: &Cell, round: u32, durable: bool) -> Result<()> {
        let name = if durable { "aqueduct durable" } else { side.name() };
        let topic = format!(
            "t-{}-{}-{}-{round}{}",
            cell.size,
            cell.partitions,
            cell.acks,
            if durable { "-durable" } else { "" }
        );
        let mut load = Load {
            size: cell.size,
            partitions: cell.partitions,
            acks: cell.acks.to_owned(),
            records: if cell.size > 100 { self.records / 5 } else { self.records },
            ..Load::new(&side.address(), &topic)
        };
        if side.name() == "aqueduct" {
            load.config.push(format!("durability={}", if durable { "durable" } else { "os" }));
        }
        Work::Create(load.clone()).spawn(report)?;
        let few = Load { records: self.latencies, ..load.clone() };
        let works = [
            ("produce", Work::Produce(load.clone())),
            ("fetch", Work::Fetch(load.clone())),
            ("end-to-end", Work::Latency(few)),
        ];
        for (what, work) in works {
            let mut figures = costed(report, side.usage()?, &work)?;
            figures["round"] = json!(round);
            // Once is enough: the same process serves all three.
            if what != "produce"
                && let Some(figures) = figures.as_object_mut()
            {
                figures.remove("resident_mib");
            }
            let bench = format!("{what}/{}B/{}p/acks={}", cell.size, cell.partitions, cell.acks);
            report.sample(&bench, with_side(figures, name));
        }
        Work::Delete(load).spawn(report)?;
        Ok(())
    }

    /// How long a log of `--gb` takes to be served again, after a clean stop and after a kill.
    fn recovery(&self, report: &mut Report, jars: &Jars) -> Result<()> {
        const PARTITIONS: i32 = 4;
        const SIZE: u64 = 10_000;
        for index in 0..2 {
            // One after the other: both logs at once may not fit.
            let dir = tempfile::tempdir()?;
            let mut side = both(dir.path(), jars, report)?.swap_remove(index);
            side.start(report)?;
            let mut load = Load {
                records: self.gb * 1_000_000_000 / SIZE,
                size: SIZE as usize,
                partitions: PARTITIONS,
                batch: 1_000_000,
                ..Load::new(&side.address(), "large")
            };
            if side.name() == "aqueduct" {
                load.config.push("durability=os".to_owned());
            }
            Work::Create(load.clone()).spawn(report)?;
            Work::Produce(load.clone()).spawn(report)?;
            let records = load.records as i64;
            for round in 0..self.rounds {
                for (what, signal) in [("killed", Signal::KILL), ("stopped", Signal::TERM)] {
                    if signal == Signal::KILL {
                        // The kill meets a log that is being written.
                        let more = Load { records: 20_000, ..load.clone() };
                        Work::Produce(more).spawn(report)?;
                    }
                    side.stop(signal)?;
                    let begun = Instant::now();
                    side.start(report)?;
                    let end = side.wait_served("large", PARTITIONS, RECOVERY_LIMIT)?;
                    let ms = begun.elapsed().as_secs_f64() * 1e3;
                    ensure!(end >= records, "{} lost records: {end} of {records}", side.name());
                    let bench = format!("recovery/{} GB/{what}", self.gb);
                    sample(report, &bench, &side, json!({"ms": ms, "round": round}));
                }
            }
            side.stop(Signal::KILL)?;
            drop(side);
        }
        Ok(())
    }
}

struct Cell {
    size: usize,
    partitions: i32,
    acks: &'static str,
}

fn both(dir: &Path, jars: &Jars, report: &Report) -> Result<Vec<Side>> {
    let ours = dir.join("aqueduct");
    std::fs::create_dir_all(&ours)?;
    Ok(vec![Side::aqueduct(&ours), Side::kafka(&dir.join("kafka"), jars, report)?])
}

fn memory_after_a_while(report: &mut Report, what: &str, side: &Side) -> Result<()> {
    std::thread::park_timeout(Duration::from_secs(3));
    sample(report, what, side, json!({"resident_mib": mib(side.usage()?.resident()?)}));
    Ok(())
}

fn sample(report: &mut Report, bench: &str, side: &Side, figures: Value) {
    report.sample(bench, with_side(figures, side.name()));
}

fn with_side(mut figures: Value, side: &str) -> Value {
    figures["side"] = json!(side);
    figures
}
