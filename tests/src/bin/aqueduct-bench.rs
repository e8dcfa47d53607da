//! The benchmarks; called by `cargo xtask bench`, which builds this and the binary with optimisation.

use anyhow::{Result, bail};
use aqueduct_tests::bench::client::Work;
use aqueduct_tests::bench::{Report, log, partitions, peers, pipeline, start};
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The product alone: `start`, `log`, `partitions`, `postgres`, `s3`, `files`; all without a name.
    Run { names: Vec<String> },
    /// Side by side with Apache Kafka, which is fetched with Maven.
    Peers(peers::Peers),
    /// One measured client, as the others call it.
    #[command(subcommand)]
    Client(Work),
}

fn main() -> Result<()> {
    match Cli::parse().what {
        What::Run { names } => run(&names),
        What::Peers(peers) => peers.run(),
        What::Client(work) => client(&work),
    }
}

#[expect(clippy::print_stdout, reason = "the figures are the output of a client")]
fn client(work: &Work) -> Result<()> {
    println!("{}", work.run()?);
    Ok(())
}

fn run(names: &[String]) -> Result<()> {
    let all = ["start", "log", "partitions", "postgres", "s3", "files"];
    if let Some(unknown) = names.iter().find(|name| !all.contains(&name.as_str())) {
        bail!("unknown benchmark `{unknown}`; known are {}, peers and transforms", all.join(", "));
    }
    let mut report = Report::default();
    for name in all.into_iter().filter(|name| names.is_empty() || names.iter().any(|n| n == name)) {
        match name {
            "start" => start::run(&mut report)?,
            "log" => log::run(&mut report)?,
            "partitions" => partitions::run(&mut report)?,
            "postgres" => pipeline::postgres(&mut report)?,
            "s3" => pipeline::s3(&mut report)?,
            _ => pipeline::files(&mut report)?,
        }
    }
    report.summary();
    Ok(())
}
