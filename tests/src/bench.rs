//! What the benchmarks share: samples that are printed as they are taken, and what they cost.
//!
//! Machines are shared and noisy: rates are only comparable within one run, CPU seconds per million records and
//! resident memory travel better. Every sample carries the load average.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::Aqueduct;

pub mod capture;
pub mod log;
pub mod start;

/// Prints one sample as a JSON line and keeps it for the summary.
#[derive(Debug, Default)]
pub struct Report {
    samples: Vec<Value>,
}

impl Report {
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
    begun: Instant,
    cpu: f64,
}

impl Meter {
    /// Starts.
    pub fn start(process: &Aqueduct) -> Self {
        Self { begun: Instant::now(), cpu: process.cpu_seconds().unwrap_or_default() }
    }

    /// Rate, CPU seconds per million records and resident memory since the start.
    pub fn stop(&self, process: &Aqueduct, records: u64) -> Value {
        let seconds = self.begun.elapsed().as_secs_f64();
        let cpu = process.cpu_seconds().unwrap_or_default() - self.cpu;
        let millions = records as f64 / 1e6;
        json!({
            "records": records,
            "records_per_s": (records as f64 / seconds) as u64,
            "cpu_s_per_million": cpu / millions,
            "seconds": seconds,
            "resident_mib": process.resident().unwrap_or_default() as f64 / 1048576.0,
            "peak_mib": process.peak().unwrap_or_default() as f64 / 1048576.0,
        })
    }
}

/// The value below which `share` of the sorted samples lie, in milliseconds.
pub fn percentile_ms(sorted: &[Duration], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |d| d.as_secs_f64() * 1e3)
}
