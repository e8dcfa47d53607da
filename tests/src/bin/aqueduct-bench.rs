//! The benchmarks; called by `cargo xtask bench`, which builds this and the binary with optimisation.

use anyhow::{Result, bail};
use aqueduct_tests::bench::{Report, capture, log, start};

fn main() -> Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let all = ["start", "log", "postgres", "s3"];
    if let Some(unknown) = names.iter().find(|name| !all.contains(&name.as_str())) {
        bail!("unknown benchmark `{unknown}`; known are {}", all.join(", "));
    }
    let mut report = Report::default();
    for name in all.into_iter().filter(|name| names.is_empty() || names.iter().any(|n| n == name)) {
        match name {
            "start" => start::run(&mut report)?,
            "log" => log::run(&mut report)?,
            "postgres" => capture::postgres(&mut report)?,
            _ => capture::s3(&mut report)?,
        }
    }
    report.summary();
    Ok(())
}
