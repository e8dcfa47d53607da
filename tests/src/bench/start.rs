//! Start time and idle memory.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::{Report, show};
use crate::process::{Start, pause};

/// Starts a broker and a whole `run`, five times each; the median, and memory after two idle seconds.
pub fn run(report: &mut Report) -> Result<()> {
    for what in ["broker", "run"] {
        let mut times = Vec::new();
        let mut idle = 0.0;
        for _ in 0..5 {
            let dir = tempfile::tempdir()?;
            let start =
                if what == "broker" { Start::broker(dir.path()) } else { Start::run(dir.path(), &[]) };
            report.ran(&show(&start.command()));
            let begun = Instant::now();
            let process = start.spawn()?;
            first_answer(&process.kafka, begun)?;
            times.push(begun.elapsed());
            std::thread::park_timeout(Duration::from_secs(2));
            idle = process.resident()? as f64 / 1048576.0;
        }
        times.sort();
        report.sample(
            &format!("start/{what}"),
            json!({
                "first_answer_ms": times[times.len() / 2].as_secs_f64() * 1e3,
                "idle_mib": idle,
                "raw": times.iter().map(|t| t.as_secs_f64() * 1e3).collect::<Vec<_>>(),
            }),
        );
    }
    Ok(())
}

/// Waits until ApiVersions is answered.
pub(super) fn first_answer(address: &str, begun: Instant) -> Result<()> {
    // Size, key 18, version 0, correlation id 1, client id null.
    let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    loop {
        if let Ok(mut stream) = TcpStream::connect(address) {
            stream.write_all(&request)?;
            let mut size = [0; 4];
            stream.read_exact(&mut size).context("the broker closed the connection")?;
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(20) {
            bail!("no answer within 20 s");
        }
        pause();
    }
}
