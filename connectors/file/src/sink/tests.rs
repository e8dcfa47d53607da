//! The task against a real directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aqueduct_core::config::{Config, plain};
use aqueduct_core::sink::SinkHandle;
use aqueduct_core::{Datum, Record, Topic};
use bytes::Bytes;

use super::*;

#[derive(Default)]
struct Handle {
    refused: Mutex<Vec<i64>>,
    commits: Mutex<usize>,
}

impl SinkHandle for Handle {
    fn refuse(&self, record: SinkRecord, _error: Error) {
        self.refused.lock().expect("unpoisoned").push(record.offset);
    }

    fn request_commit(&self) {
        *self.commits.lock().expect("unpoisoned") += 1;
    }
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from("orders"), partition }
}

fn record(offset: i64, json: &str) -> SinkRecord {
    let origin = tp(0);
    let topic: Topic = Arc::clone(&origin.topic);
    let value = Datum::json(None, Bytes::copy_from_slice(json.as_bytes()));
    SinkRecord { record: Record::new(topic, value), origin, offset, consumed: Arc::default() }
}

async fn task(path: &Path, more: &[(&str, &str)], from: i64) -> (Box<dyn SinkTask>, Arc<Handle>) {
    let mut config = Config::from([("path".to_owned(), path.display().to_string())]);
    config.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let handle = Arc::new(Handle::default());
    let context = SinkContext {
        connector: Arc::from("out"),
        task: 0,
        buffer_bytes: 1 << 20,
        handle: Arc::clone(&handle) as Arc<dyn SinkHandle>,
    };
    let mut task = FileSink.task(&plain(&config)).expect("a valid config");
    task.start(context).await.expect("it starts");
    task.open(&Offsets::from([(tp(0), from)])).await.expect("it opens");
    (task, handle)
}

fn tree(dir: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(dir).expect("listed") {
            let path = entry.expect("listed").path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).expect("below").display().to_string();
                found.insert(name, std::fs::read_to_string(&path).expect("text"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    found
}

async fn durable(task: &mut Box<dyn SinkTask>, taken: i64) -> i64 {
    task.pre_commit(&Offsets::from([(tp(0), taken)])).await.expect("offsets")[&tp(0)]
}

#[tokio::test]
async fn records_made_from_one_land_in_one_file_whatever_the_roll() {
    let dir = tempfile::tempdir().expect("a directory");
    for keys in [("roll.count", "2"), ("roll.size", "1B")] {
        let path = dir.path().join(keys.0);
        let (mut task, _) = task(&path, &[keys], 7).await;
        // As a step makes them that answers with three equal records for each.
        let batch = [7, 7, 7, 8, 8, 8].map(|offset| record(offset, "{}")).to_vec();
        task.put(batch).await.expect("written");
        task.flush().await.expect("flushed");
        assert_eq!(durable(&mut task, 9).await, 9);
        let named = |offset| (format!("orders+0+{offset:020}.jsonl"), "{}\n{}\n{}\n".to_owned());
        assert_eq!(tree(&path), [named(7), named(8)].into());
    }
}

#[tokio::test(start_paused = true)]
async fn records_are_visible_after_the_age_and_committed_after_that() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut task, handle) =
        task(&dir.path().join("{topic}/c={field.c}"), &[("fields.origin", "true")], 7).await;
    task.put(vec![record(7, r#"{"c":"a/b"}"#), record(8, r#"{"c":null}"#), record(9, "null")])
        .await
        .expect("put");
    assert_eq!(durable(&mut task, 10).await, 7);
    assert!(tree(dir.path()).keys().all(|name| name.ends_with(".inprogress")));
    tokio::time::advance(Duration::from_secs(10)).await;
    task.put(vec![]).await.expect("put");
    let expect = BTreeMap::from([
        (
            "orders/c=a%2Fb/orders+0+00000000000000000007.jsonl".to_owned(),
            "{\"c\":\"a/b\",\"_topic\":\"orders\",\"_partition\":0,\"_offset\":7}\n".to_owned(),
        ),
        (
            "orders/c=__null__/orders+0+00000000000000000008.jsonl".to_owned(),
            "{\"c\":null,\"_topic\":\"orders\",\"_partition\":0,\"_offset\":8}\n".to_owned(),
        ),
    ]);
    assert_eq!(tree(dir.path()), expect);
    assert_eq!(durable(&mut task, 10).await, 10);
    assert_eq!(
        *handle.refused.lock().expect("unpoisoned"),
        [9],
        "a null is refused unless the config says otherwise"
    );
    assert_eq!(*handle.commits.lock().expect("unpoisoned"), 1);
}

#[tokio::test]
async fn a_replay_after_a_crash_neither_loses_nor_doubles() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines: Vec<String> = (0..10).map(|n| format!(r#"{{"n":{n}}}"#)).collect();
    let batch = |from: usize| (from..10).map(|n| record(n as i64, &lines[n])).collect::<Vec<_>>();
    let roll = [("roll.count", "4")];
    let (mut crashed, _) = task(dir.path(), &roll, 0).await;
    crashed.put(batch(0)).await.expect("put");
    assert_eq!(tree(dir.path()).len(), 3, "two complete, one in progress");
    std::mem::forget(crashed);

    let (mut task, _) = task(dir.path(), &roll, 0).await;
    assert_eq!(tree(dir.path()).len(), 2, "what was never completed is removed");
    task.put(batch(0)).await.expect("put");
    task.put(batch(3)).await.expect("records seen before are skipped");
    task.flush().await.expect("flushed");
    assert_eq!(durable(&mut task, 10).await, 10);
    let found = tree(dir.path());
    let all: String = found.values().cloned().collect();
    assert_eq!(all.lines().collect::<Vec<_>>(), lines);
    assert_eq!(found.len(), 3);
}

#[tokio::test]
async fn closing_gives_up_what_is_not_complete() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut task, _) = task(dir.path(), &[], 0).await;
    task.put(vec![record(0, "{}")]).await.expect("put");
    task.close(&[tp(0)]).await.expect("closed");
    assert_eq!(tree(dir.path()), BTreeMap::new());
    task.stop().await.expect("stopped");
}

#[tokio::test]
async fn many_paths_do_not_use_up_the_file_handles() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut task, _) = task(&dir.path().join("{field.n}"), &[], 0).await;
    let records = (0..MAX_OPEN as i64 + 50).map(|n| record(n, &format!(r#"{{"n":{n}}}"#))).collect();
    task.put(records).await.expect("put");
    let complete = tree(dir.path()).keys().filter(|name| name.ends_with(".jsonl")).count();
    assert_eq!(complete, 50);
}

#[tokio::test]
async fn a_path_that_is_a_file_is_one_clear_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("occupied");
    std::fs::write(&path, "").expect("written");
    let config = Config::from([("path".to_owned(), path.display().to_string())]);
    let mut task = FileSink.task(&plain(&config)).expect("a valid config");
    let context = SinkContext {
        connector: Arc::from("out"),
        task: 0,
        buffer_bytes: 1 << 20,
        handle: Arc::new(Handle::default()),
    };
    let error = task.start(context).await.expect_err("refused");
    assert!(error.full().contains("occupied"), "{}", error.full());
}
