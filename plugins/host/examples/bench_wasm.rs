//! Nanoseconds per record of the mask as a WASM guest: 1 KiB of JSON with 20 fields, 2 of them masked.
//!
//! `cargo run --release -p aqueduct-plugin-host --example bench_wasm` prints a JSON line for each batch size and
//! form of the input. The built-in steps are measured by `bench_transforms` in `transforms/`.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use aqueduct_core::config::{Config, plain};
use aqueduct_core::transform::TransformFactory;
use aqueduct_core::{Datum, Record};
use aqueduct_plugin_host::WasmFactory;
use bytes::Bytes;

const ROUNDS: usize = 400;

fn record() -> Record {
    let mut text = String::from("{");
    for i in 0..18 {
        let value = "x".repeat(38);
        text.push_str(&format!(r#""field_{i:02}":"{value}","#));
    }
    text.push_str(r#""email":"somebody.or.other@example.com","phone":"+49 30 1234567890"}"#);
    Record::new("orders".into(), Datum::json(None, Bytes::from(text)))
}

fn main() {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../prebuilt/mask.wasm");
    let config = Config::from([
        ("module".to_owned(), module.display().to_string()),
        ("config".to_owned(), r#"{"fields":["email","phone"],"salt":"s"}"#.to_owned()),
    ]);
    let mut step = WasmFactory::new().build(&plain(&config)).expect("the prebuilt guest starts");
    for decoded in [true, false] {
        for size in [1, 100, 500] {
            let mut one = record();
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
                r#"{{"step":"mask-wasm","input":"{input}","batch":{size},"ns_per_record":{:.0},"min":{:.0},"p90":{:.0}}}"#,
                samples[ROUNDS / 2],
                samples[0],
                samples[ROUNDS * 9 / 10],
            );
        }
    }
}
