//! What the benchmarks share: samples that are printed as they are taken, with the commands that were measured, and
//! what they cost.
//!
//! Machines are shared and noisy: rates are only comparable within one run, CPU seconds per million records and
//! resident memory travel better. Every sample carries the load average.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::usage::Usage;

pub mod client;
pub mod log;
pub mod partitions;
pub mod peers;
pub mod pipeline;
pub mod start;

/// Prints one sample as a JSON line and keeps it for the summary.
#[derive(Debug, Default)]
pub struct Report {
    samples: Vec<Value>,
}

impl Report {
    /// Prints a command that is measured, or that one needs, so that it can be run again.
    #[expect(clippy::print_stdout, reason = "commands are the output of a benchmark")]
    pub fn ran(&self, line: &str) {
        println!("$ {line}");
    }

    /// What was measured so far.
    pub fn samples(&self) -> &[Value] {
        &self.samples
    }

    /// One sample: what was measured, and its figures.
    #[expect(clippy::print_stdout, reason = "samples are the output of a benchmark")]
    pub fn sample(&mut self, name: &str, figures: Value) {
        let mut sample = json!({"bench": name, "load": load_average()});
        if let (Some(into), Some(from)) = (sample.as_object_mut(), figures.as_object()) {
            into.extend(from.clone());
        }
        println!("{sample}");
        self.samples.push(sample);
    }

    /// A table of everything, for people.
    #[expect(clippy::print_stdout, reason = "the summary is the output of a benchmark")]
    pub fn summary(&self) {
        println!();
        for sample in &self.samples {
            let Some(object) = sample.as_object() else { continue };
            let figures = object.iter().filter(|(key, _)| !matches!(key.as_str(), "bench" | "load" | "raw"));
            let figures: Vec<String> =
                figures.map(|(key, value)| format!("{key} {}", short(value))).collect();
            println!("{:<34} {}", object["bench"].as_str().unwrap_or_default(), figures.join("  "));
        }
    }
}

fn short(value: &Value) -> String {
    match value.as_f64() {
        Some(v) if value.is_f64() => format!("{v:.2}"),
        _ => value.to_string(),
    }
}

/// The load average of the last minute.
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(-1.0)
}

/// Time and CPU of a process over a piece of work.
pub struct Meter {
    process: Usage,
    begun: Instant,
    cpu: f64,
}

impl Meter {
    /// Starts.
    pub fn start(process: Usage) -> Self {
        Self { process, begun: Instant::now(), cpu: process.cpu_seconds().unwrap_or_default() }
    }

    /// Rate, CPU seconds per million records and resident memory since the start.
    pub fn stop(&self, records: u64) -> Value {
        let seconds = self.begun.elapsed().as_secs_f64();
        let mut figures = self.cost(records);
        figures["records"] = json!(records);
        figures["records_per_s"] = json!((records as f64 / seconds) as u64);
        figures["seconds"] = json!(seconds);
        figures
    }

    /// CPU seconds per million records and resident memory since the start.
    pub fn cost(&self, records: u64) -> Value {
        let cpu = self.process.cpu_seconds().unwrap_or_default() - self.cpu;
        json!({
            "cpu_s_per_million": cpu / (records as f64 / 1e6),
            "resident_mib": mib(self.process.resident().unwrap_or_default()),
            "peak_mib": mib(self.process.peak().unwrap_or_default()),
        })
    }
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1048576.0
}

/// A command as it can be pasted into a shell.
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// A word for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The value below which `share` of the sorted samples lie, in milliseconds.
pub fn percentile_ms(sorted: &[Duration], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |d| d.as_secs_f64() * 1e3)
}
