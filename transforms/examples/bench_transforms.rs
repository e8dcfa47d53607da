//! Nanoseconds per record of the built-in steps: 1 KiB of JSON with 20 fields; `mask` hashes 2 of them.
//!
//! `cargo run --release -p aqueduct-transforms --example bench_transforms` prints a JSON line for each step, batch size
//! and form of the input: values already decoded, as between steps, or the bytes as consumed.

use std::hint::black_box;
use std::time::Instant;

use aqueduct_core::config::{Config, plain};
use aqueduct_core::transform::TransformFactory;
use aqueduct_core::{Datum, Record};
use aqueduct_transforms::{Filter, Mask, Unwrap};
use bytes::Bytes;

const ROUNDS: usize = 400;

fn row() -> String {
    let mut text = String::from("{");
    for i in 0..18 {
        let value = "x".repeat(38);
        text.push_str(&format!(r#""field_{i:02}":"{value}","#));
    }
    text.push_str(r#""email":"somebody.or.other@example.com","phone":"+49 30 1234567890"}"#);
    text
}

fn record(text: String) -> Record {
    Record::new("orders".into(), Datum::json(None, Bytes::from(text)))
}

fn main() {
    let envelope =
        format!(r#"{{"before":null,"after":{},"source":{{"table":"orders","lsn":1}},"op":"c"}}"#, row());
    let mask: &[(&str, &str)] = &[("fields", "email,phone"), ("salt", "s")];
    let filter: &[(&str, &str)] = &[("condition", "value.email.startsWith('some') && value.field_09 != ''")];
    let unwrap: &[(&str, &str)] = &[("deletes", "rewrite")];
    run("mask", &Mask::new(), mask, &record(row()));
    run("filter", &Filter::new(), filter, &record(row()));
    run("unwrap", &Unwrap::new(), unwrap, &record(envelope));
}

fn run(name: &str, factory: &dyn TransformFactory, config: &[(&str, &str)], record: &Record) {
    let config: Config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut step = factory.build(&plain(&config)).expect("a good config");
    for decoded in [true, false] {
        for size in [1, 100, 500] {
            let mut one = record.clone();
            if decoded {
                one.value.value().expect("valid JSON");
            }
            let mut samples = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                let batch = vec![one.clone(); size];
                let start = Instant::now();
                let outcomes = black_box(step.apply(batch).expect("no batch error"));
                samples.push(start.elapsed().as_nanos() as f64 / size as f64);
                drop(outcomes);
            }
            samples.sort_by(f64::total_cmp);
            let input = if decoded { "decoded" } else { "bytes" };
            println!(
                r#"{{"step":"{name}","input":"{input}","batch":{size},"ns_per_record":{:.0},"min":{:.0},"p90":{:.0}}}"#,
                samples[ROUNDS / 2],
                samples[0],
                samples[ROUNDS * 9 / 10],
            );
        }
    }
}
