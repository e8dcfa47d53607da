//! Names, content, rolls and memory.

use crate::harness::{BUCKET, Sink, large, numbers, record, server};

#[tokio::test]
async fn objects_have_their_names_and_every_line_once() {
    let Some(s3) = server("s3 objects").await else { return };
    let keys = [
        ("path", "raw/{topic}/dt={timestamp:%Y-%m-%d}/c={field.c}"),
        ("fields.origin", "true"),
        ("roll.count", "2"),
    ];
    let mut sink = Sink::start(&s3.endpoint(), &keys, 2, 5).await.unwrap();
    let records = [
        record(0, 5, r#"{"c":"a/b"}"#),
        record(0, 6, r#"{"c":null}"#),
        record(1, 5, r#"{"c":"a/b"}"#),
        record(0, 7, "null"),
        record(0, 8, r#"{"c":"a/b"}"#),
    ];
    sink.put(&records).await.unwrap();
    assert_eq!(sink.durable(9).await, 5, "nothing is durable before it is in the bucket");
    sink.flush().await.unwrap();
    assert_eq!(sink.durable(9).await, 9);
    assert_eq!(*sink.handle.refused.lock().unwrap(), [7]);
    let keys = s3.keys(BUCKET, "").await.unwrap();
    assert_eq!(
        keys,
        [
            "raw/t/dt=2026-01-01/c=__null__/t+0+00000000000000000006.jsonl",
            "raw/t/dt=2026-01-01/c=a%2Fb/t+0+00000000000000000005.jsonl",
            "raw/t/dt=2026-01-01/c=a%2Fb/t+1+00000000000000000005.jsonl",
        ]
    );
    let origin = |offset| format!(r#"{{"c":"a/b","_topic":"t","_partition":0,"_offset":{offset}}}"#);
    let text = s3.text(BUCKET, &keys[1]).await.unwrap();
    assert_eq!(text, format!("{}\n{}\n", origin(5), origin(8)));
    sink.task.stop().await.unwrap();
}

#[tokio::test]
async fn records_made_from_one_land_in_one_object_whatever_the_roll() {
    let Some(s3) = server("s3 rolls between equal offsets").await else { return };
    for keys in [("roll.count", "2"), ("roll.size", "1B")] {
        let mut sink = Sink::start(&s3.endpoint(), &[("path", keys.0), keys], 1, 7).await.unwrap();
        // As a step makes them that answers with three equal records for each.
        sink.put(&[7, 7, 7, 8, 8, 8].map(|offset| record(0, offset, "{}"))).await.unwrap();
        sink.flush().await.unwrap();
        assert_eq!(sink.durable(9).await, 9);
        let names = s3.keys(BUCKET, keys.0).await.unwrap();
        assert_eq!(names, [7, 8].map(|offset| format!("{}/t+0+{offset:020}.jsonl", keys.0)));
        for name in names {
            assert_eq!(s3.text(BUCKET, &name).await.unwrap(), "{}\n{}\n{}\n");
        }
        sink.task.stop().await.unwrap();
    }
}

#[tokio::test]
async fn large_objects_go_up_in_parts_and_a_replay_finds_them() {
    let Some(s3) = server("s3 parts").await else { return };
    let records = large(0..30_000);
    for _replay in 0..2 {
        let mut sink = Sink::start(&s3.endpoint(), &[("roll.size", "12MiB")], 1, 0).await.unwrap();
        for batch in records.chunks(500) {
            sink.put(batch).await.unwrap();
        }
        sink.flush().await.unwrap();
        assert_eq!(sink.durable(30_000).await, 30_000);
        let keys = s3.keys(BUCKET, "").await.unwrap();
        assert_eq!(keys.len(), 3, "{keys:?}");
        assert_eq!(numbers(&s3.lines(BUCKET, "").await.unwrap()), (0..30_000).collect::<Vec<_>>());
        assert_eq!(s3.uploads(BUCKET).await.unwrap(), [""; 0]);
    }
}

#[tokio::test]
async fn other_content_under_the_same_name_is_written_beside_it() {
    let Some(s3) = server("s3 numbered").await else { return };
    for (to, expect) in [(3, 1), (5, 2), (3, 2), (5, 2), (7_000, 3), (7_000, 3), (8_000, 4)] {
        let mut sink = Sink::start(&s3.endpoint(), &[("path", "")], 1, 0).await.unwrap();
        sink.put(&large(0..to)).await.unwrap();
        sink.flush().await.unwrap();
        let keys = s3.keys(BUCKET, "").await.unwrap();
        assert_eq!(keys.len(), expect, "records 0..{to}: {keys:?}");
        assert_eq!(s3.uploads(BUCKET).await.unwrap(), [""; 0]);
    }
    let keys = s3.keys(BUCKET, "").await.unwrap();
    let last = "t+0+00000000000000000000.3.jsonl".to_owned();
    assert!(keys.contains(&last), "{keys:?}");
    assert_eq!(s3.text(BUCKET, &last).await.unwrap().lines().count(), 8_000);
}

#[tokio::test]
async fn the_age_of_the_oldest_record_completes_everything_of_its_partition() {
    let Some(s3) = server("s3 age").await else { return };
    let keys = [("path", "{field.n}"), ("roll.age", "300ms")];
    let mut sink = Sink::start(&s3.endpoint(), &keys, 1, 0).await.unwrap();
    let records: Vec<_> = (0..20).map(|n| record(0, n, format!(r#"{{"n":{n}}}"#))).collect();
    sink.put(&records).await.unwrap();
    assert_eq!(sink.durable(20).await, 0);
    let arrived = async {
        while sink.durable(20).await < 20 {
            sink.put(&[]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), arrived).await.expect("the age passes");
    assert_eq!(s3.keys(BUCKET, "").await.unwrap().len(), 20);
}

#[tokio::test]
async fn at_the_memory_ceiling_the_largest_is_completed_early() {
    let Some(s3) = server("s3 memory").await else { return };
    let keys = [("path", "{field.k}"), ("memory", "1MiB")];
    let mut sink = Sink::start(&s3.endpoint(), &keys, 1, 0).await.unwrap();
    let pad = "x".repeat(1000);
    let records: Vec<_> =
        (0..8_000).map(|n| record(0, n, format!(r#"{{"n":{n},"k":{},"pad":"{pad}"}}"#, n % 7))).collect();
    for batch in records.chunks(500) {
        sink.put(batch).await.unwrap();
    }
    let early = s3.keys(BUCKET, "").await.unwrap().len();
    assert!(early >= 7, "8 MB went through 1 MiB, so at least so many were completed: {early}");
    sink.flush().await.unwrap();
    let mut seen = numbers(&s3.lines(BUCKET, "").await.unwrap());
    seen.sort_unstable();
    assert_eq!(seen, (0..8_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn without_conditional_writes_names_are_random() {
    let Some(s3) = server("s3 random names").await else { return };
    for count in 1..=2 {
        let keys = [("path", ""), ("conditional_writes", "false")];
        let mut sink = Sink::start(&s3.endpoint(), &keys, 1, 0).await.unwrap();
        sink.put(&large(0..6_000)).await.unwrap();
        sink.flush().await.unwrap();
        let keys = s3.keys(BUCKET, "").await.unwrap();
        assert_eq!(keys.len(), count);
        assert!(keys.iter().all(|key| key.len() == "t+0+00000000000000000000.0123456789abcdef.jsonl".len()));
    }
}
