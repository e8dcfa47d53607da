//! Parquet and compressed lines, read back from the server.

use aqueduct_core::{Field, Schema, SchemaRef, Type, Value};
use aqueduct_tests::lake::bucket_lines;

use crate::harness::{BUCKET, Sink, large, numbers, record, server, typed};

fn schema(fields: &[(&str, Type)]) -> SchemaRef {
    let fields =
        fields.iter().map(|(name, ty)| Field::new(*name, Schema::new(ty.clone()).optional().shared()));
    Schema::new(Type::Struct(fields.collect())).shared()
}

#[tokio::test]
async fn each_schema_has_objects_of_its_own_and_a_replay_finds_them() {
    let Some(s3) = server("s3 parquet").await else { return };
    let keys = [("path", ""), ("format", "parquet"), ("fields.origin", "true"), ("nulls", "ignore")];
    let old = schema(&[("id", Type::Int64)]);
    let new = schema(&[("id", Type::Int64), ("name", Type::String)]);
    let records = [
        typed(0, &old, vec![Value::Int64(10)]),
        typed(1, &old, vec![Value::Null]),
        typed(2, &new, vec![Value::Int64(12), "x".into()]),
        record(0, 3, "null"),
        // A step made two of one, of which each begins an object.
        typed(4, &schema(&[("a", Type::Int8)]), vec![Value::Int8(1)]),
        typed(4, &schema(&[("b", Type::Int8)]), vec![Value::Int8(2)]),
        record(0, 5, r#"{"id":1}"#),
        typed(6, &new, vec!["no number".into(), Value::Null]),
    ];
    for run in ["the first", "a replay"] {
        let mut sink = Sink::start(&s3.endpoint(), &keys, 1, 0).await.unwrap();
        sink.put(&records).await.unwrap();
        sink.flush().await.unwrap();
        assert_eq!(*sink.handle.refused.lock().unwrap(), [5, 6], "no schema; not of its schema");
        assert_eq!(sink.durable(7).await, 7);
        let names = s3.keys(BUCKET, "").await.unwrap();
        let name = |offset, attempt| format!("t+0+{offset:020}{attempt}.parquet");
        assert_eq!(names, [name(0, ""), name(2, ""), name(4, ".1"), name(4, "")], "{run}");
        sink.task.stop().await.unwrap();
    }
    let (mut lines, objects) = bucket_lines(&s3.client(), BUCKET).await.unwrap();
    lines.sort_unstable();
    assert_eq!(objects, 4);
    let origin = |offset| format!(r#""_topic":"t","_partition":0,"_offset":{offset}"#);
    let mut expect = vec![
        format!(r#"{{"id":10,{}}}"#, origin(0)),
        format!(r#"{{"id":null,{}}}"#, origin(1)),
        format!(r#"{{"id":12,"name":"x",{}}}"#, origin(2)),
        format!(r#"{{"a":1,{}}}"#, origin(4)),
        format!(r#"{{"b":2,{}}}"#, origin(4)),
    ];
    expect.sort_unstable();
    assert_eq!(lines, expect);
}

#[tokio::test]
async fn records_without_a_schema_get_the_one_of_the_config() {
    let Some(s3) = server("s3 parquet by config").await else { return };
    let keys = [("path", ""), ("format", "parquet"), ("schema", r#"["id:int64","name:string?"]"#)];
    let mut sink = Sink::start(&s3.endpoint(), &keys, 1, 0).await.unwrap();
    let records =
        [r#"{"name":"a","id":1}"#, r#"{"id":2,"more":3}"#, r#"{"name":"b"}"#].map(|json| json.to_owned());
    let records: Vec<_> = (0..).zip(records).map(|(offset, json)| record(0, offset, json)).collect();
    sink.put(&records).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(*sink.handle.refused.lock().unwrap(), [2], "a required field is missing");
    let (lines, _) = bucket_lines(&s3.client(), BUCKET).await.unwrap();
    assert_eq!(lines, [r#"{"id":1,"name":"a"}"#, r#"{"id":2,"name":null}"#]);
}

#[tokio::test]
async fn large_objects_of_every_format_go_up_in_parts_and_a_replay_finds_them() {
    let Some(s3) = server("s3 formats in parts").await else { return };
    let schema = ("schema", r#"["n:int64","pad:string"]"#);
    let formats = [
        ("gzip", [("compression", "gzip"), ("roll.size", "1GiB")], ".jsonl.gz"),
        ("zstd", [("compression", "zstd"), ("roll.size", "1GiB")], ".jsonl.zst"),
        ("parquet", [("parquet.compression", "zstd"), schema], ".parquet"),
    ];
    // Text that no compression makes much smaller, so that there is more than one part.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{state:016x}")
    };
    let records: Vec<_> = (0..14_000)
        .map(|n| {
            let pad: String = (0..63).map(|_| noise()).collect();
            record(0, n, format!(r#"{{"n":{n},"pad":"{pad}"}}"#))
        })
        .collect();
    for (path, format, end) in formats {
        let keys = [("path", path), format[0], format[1]];
        for _ in 0..2 {
            let mut sink = Sink::start(&s3.endpoint(), &keys, 1, 0).await.unwrap();
            for batch in records.chunks(500) {
                sink.put(batch).await.unwrap();
            }
            sink.flush().await.unwrap();
            assert_eq!(sink.durable(14_000).await, 14_000);
            sink.task.stop().await.unwrap();
            let names = s3.keys(BUCKET, path).await.unwrap();
            assert_eq!(names, [format!("{path}/t+0+{:020}{end}", 0)]);
        }
    }
    let (lines, objects) = bucket_lines(&s3.client(), BUCKET).await.unwrap();
    assert_eq!((objects, lines.len()), (3, 3 * 14_000));
    for lines in lines.chunks(14_000) {
        assert_eq!(numbers(lines), (0..14_000).collect::<Vec<_>>());
    }
    assert!(s3.uploads(BUCKET).await.unwrap().is_empty());
}

#[tokio::test]
async fn at_the_memory_ceiling_row_groups_are_made_early() {
    let Some(s3) = server("s3 parquet ceiling").await else { return };
    let keys =
        [("path", ""), ("format", "parquet"), ("memory", "2MiB"), ("schema", r#"["n:int64","pad:string"]"#)];
    let mut sink = Sink::start(&s3.endpoint(), &keys, 1, 0).await.unwrap();
    for batch in large(0..8_000).chunks(500) {
        sink.put(batch).await.unwrap();
    }
    sink.flush().await.unwrap();
    let (lines, objects) = bucket_lines(&s3.client(), BUCKET).await.unwrap();
    let names = s3.keys(BUCKET, "").await.unwrap();
    assert_eq!(objects, 1, "8 MB went through 2 MiB without an object being completed: {names:?}");
    assert_eq!(numbers(&lines), (0..8_000).collect::<Vec<_>>());
}
