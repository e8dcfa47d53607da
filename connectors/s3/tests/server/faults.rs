//! Crashes, outages, lost replies, wrong settings.

use aqueduct_core::ErrorKind;

use crate::harness::{BUCKET, Sink, large, numbers, record, server, tp};
use crate::proxy::Proxy;

#[tokio::test]
async fn orphaned_uploads_are_aborted_but_only_own_ones() {
    let Some(s3) = server("s3 orphans").await else { return };
    let begin = |key: &'static str| s3.client().create_multipart_upload().bucket(BUCKET).key(key).send();
    let others = [
        "t/t+1+00000000000000000000.jsonl",
        "t/t+0+00000000000000000000.parquet",
        "x/y/t+0+00000000000000000000.jsonl",
    ];
    for other in others {
        begin(other).await.unwrap();
    }
    let mut crashed = Sink::start(&s3.endpoint(), &[], 1, 0).await.unwrap();
    crashed.put(&large(0..12_000)).await.unwrap();
    // Both full parts are up: a request still under way could outlive the abort.
    let own = "t/t+0+00000000000000000000.jsonl";
    while s3.parts(BUCKET, own).await.unwrap() < 2 {
        crashed.put(&[]).await.unwrap();
    }
    drop(crashed);
    let mut sink = Sink::start(&s3.endpoint(), &[], 1, 0).await.unwrap();
    sink.put(&[]).await.unwrap();
    let mut left = s3.uploads(BUCKET).await.unwrap();
    left.sort();
    let mut expect = others.to_vec();
    expect.sort_unstable();
    assert_eq!(left, expect);
}

#[tokio::test]
async fn closing_a_partition_gives_its_uploads_up() {
    let Some(s3) = server("s3 close").await else { return };
    let mut sink = Sink::start(&s3.endpoint(), &[], 1, 0).await.unwrap();
    sink.put(&large(0..12_000)).await.unwrap();
    sink.task.close(&[tp(0)]).await.unwrap();
    sink.task.stop().await.unwrap();
    assert_eq!(s3.keys(BUCKET, "").await.unwrap(), [""; 0]);
    assert_eq!(s3.uploads(BUCKET).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn during_an_outage_nothing_is_taken_and_afterwards_everything_arrives_once() {
    let Some(mut s3) = server("s3 outage").await else { return };
    let mut sink = Sink::start(&s3.endpoint(), &[("roll.count", "4000")], 1, 0).await.unwrap();
    sink.put(&large(0..7_000)).await.unwrap();
    s3.kill();
    let mut refused = 0;
    let mut offset = 7_000;
    while refused < 3 {
        match sink.task.put(large(offset..offset + 1_000)).await {
            Ok(()) => offset += 1_000,
            Err(error) => {
                assert!(error.is_retriable(), "{}", error.full());
                refused += 1;
            }
        }
        assert!(offset < 70_000, "the ceiling of 64 MiB holds");
    }
    assert!(sink.durable(offset).await <= 4_000);
    s3.up(&[]).unwrap();
    sink.put(&large(offset - 500..offset + 1_000)).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(sink.durable(offset + 1_000).await, offset + 1_000);
    assert_eq!(numbers(&s3.lines(BUCKET, "").await.unwrap()), (0..offset + 1_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lost_reply_neither_loses_nor_doubles() {
    let Some(s3) = server("s3 lost reply").await else { return };
    let proxy = Proxy::start(s3.port()).await;
    let mut sink = Sink::start(&proxy.endpoint(), &[("path", "")], 1, 0).await.unwrap();

    sink.put(&[record(0, 0, r#"{"n":0}"#)]).await.unwrap();
    proxy.lose(|head| head.starts_with(b"PUT "));
    assert!(sink.task.flush().await.unwrap_err().is_retriable());
    assert!(proxy.lost());
    assert_eq!(s3.keys(BUCKET, "").await.unwrap().len(), 1, "it was written all the same");
    assert_eq!(sink.durable(1).await, 0, "but nobody knows");
    sink.flush().await.unwrap();
    assert_eq!(sink.durable(1).await, 1);

    sink.put(&large(1..12_000)).await.unwrap();
    proxy.lose(|head| head.starts_with(b"POST ") && head.windows(9).any(|w| w == b"uploadId="));
    assert!(sink.task.flush().await.unwrap_err().is_retriable());
    assert!(proxy.lost());
    assert_eq!(sink.durable(12_000).await, 1);
    sink.flush().await.unwrap();
    assert_eq!(sink.durable(12_000).await, 12_000);
    assert_eq!(s3.keys(BUCKET, "").await.unwrap().len(), 2);
    assert_eq!(numbers(&s3.lines(BUCKET, "").await.unwrap()), (0..12_000).collect::<Vec<_>>());
    assert_eq!(s3.uploads(BUCKET).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_name_taken_during_the_upload_makes_the_task_start_over() {
    let Some(s3) = server("s3 race").await else { return };
    let key = "t+0+00000000000000000000.jsonl";
    let mut sink = Sink::start(&s3.endpoint(), &[("path", "")], 1, 0).await.unwrap();
    sink.put(&large(0..12_000)).await.unwrap();
    while s3.uploads(BUCKET).await.unwrap().is_empty() {
        sink.put(&[]).await.unwrap();
    }
    s3.client().put_object().bucket(BUCKET).key(key).body(b"other\n".to_vec().into()).send().await.unwrap();
    let error = sink.task.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal, "{}", error.full());
    assert_eq!(sink.durable(12_000).await, 0);
    sink.task.stop().await.unwrap();

    let mut sink = Sink::start(&s3.endpoint(), &[("path", "")], 1, 0).await.unwrap();
    sink.put(&large(0..12_000)).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(s3.keys(BUCKET, "").await.unwrap(), ["t+0+00000000000000000000.1.jsonl", key]);
    assert_eq!(s3.text(BUCKET, key).await.unwrap(), "other\n", "nothing is overwritten");
}

#[tokio::test]
async fn wrong_settings_are_said_in_one_clear_error() {
    let Some(s3) = server("s3 settings").await else { return };
    for (keys, expect) in [
        (("bucket", "elsewhere"), "bucket `elsewhere` does not exist"),
        (("access_key", "nobody"), "check `access_key`"),
        (("secret_key", "wrong"), "check `access_key`"),
    ] {
        let error = Sink::start(&s3.endpoint(), &[keys], 1, 0).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::BadConfig, "{keys:?}: {}", error.full());
        assert!(error.full().contains(expect), "{keys:?}: {}", error.full());
    }
    // A server that is away is no wrong setting: the task starts, and `put` says what is the matter.
    let mut sink = Sink::start("http://127.0.0.1:1", &[], 1, 0).await.unwrap();
    let error = sink.task.put(vec![]).await.unwrap_err();
    assert!(error.is_retriable() && error.full().contains("refused"), "{}", error.full());
}
