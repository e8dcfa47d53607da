//! The memory ceiling with a thousand open objects. A process of its own, since its resident memory is the measure.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking, in their harness too")]

#[expect(dead_code, reason = "the other tests use all of it")]
#[path = "server/harness.rs"]
mod harness;

use aqueduct_core::{Field, Schema, Type, Value};

use crate::harness::{BUCKET, Sink, server, typed};

const PATHS: i64 = 1_000;
const CEILING: usize = 16 << 20;

/// Peak resident memory of this process, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn a_thousand_paths_stay_below_the_ceiling() {
    let Some(s3) = server("s3 memory of a thousand paths").await else { return };
    let fields = [("path", Type::Int64), ("pad", Type::String)];
    let fields = fields.map(|(name, ty)| Field::new(name, Schema::new(ty).shared()));
    let schema = Schema::new(Type::Struct(fields.to_vec())).shared();
    let keys = [("path", "{field.path}"), ("format", "parquet"), ("memory", "16MiB")];
    let mut sink = Sink::start(&s3.endpoint(), &keys, 1, 0).await.unwrap();
    let pad = "x".repeat(4_000);
    let batch = |round: i64| -> Vec<_> {
        let record = |path| {
            let fields = vec![Value::Int64(path), Value::from(pad.clone())];
            typed(round * PATHS + path, &schema, fields)
        };
        (0..PATHS).map(record).collect()
    };
    sink.put(&batch(0)).await.unwrap();
    let before = peak();
    // 64 MB, of which none is completed by size or age.
    for round in 1..16 {
        sink.put(&batch(round)).await.unwrap();
    }
    let grown = peak() - before;
    assert!(grown < CEILING * 2, "{} MiB more than at the beginning", grown >> 20);
    sink.flush().await.unwrap();
    assert_eq!(sink.durable(16 * PATHS).await, 16 * PATHS);
    assert!(s3.keys(BUCKET, "").await.unwrap().len() >= 1_000);
}
