use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aqueduct_core::config::{Config, plain};
use aqueduct_core::sink::{Consumed, SinkHandle};
use aqueduct_core::{Datum, Record};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;

use super::*;

/// A server that answers by a script and remembers what it took.
#[derive(Default)]
struct Server {
    /// Every request: path, idempotency key, body and what was answered.
    seen: Mutex<Vec<(String, String, String, u16)>>,
    /// Numbers of bodies that are refused.
    poison: Vec<i64>,
    /// Answers to the first requests, by path.
    first: Mutex<BTreeMap<String, Vec<(u16, &'static str)>>>,
    /// Paths that never work.
    down: Vec<&'static str>,
}

impl Server {
    async fn start(self) -> (SocketAddr, Arc<Self>) {
        let server = Arc::new(self);
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&server));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, app).await.expect("serves") });
        (address, server)
    }

    /// The numbers in the bodies that were taken, in order, by path.
    fn taken(&self, path: &str) -> Vec<i64> {
        let seen = self.seen.lock();
        let taken = seen.iter().filter(|(at, _, _, status)| at == path && *status == 200);
        taken.flat_map(|(_, _, body, _)| numbers(body)).collect()
    }
}

fn numbers(body: &str) -> Vec<i64> {
    let digits = |text: &str| text.parse().ok();
    body.split(|c: char| !c.is_ascii_digit()).filter_map(digits).collect()
}

async fn answer(
    State(server): State<Arc<Server>>,
    method: axum::http::Method,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = format!("{}{}", if method == "POST" { "" } else { method.as_str() }, uri.path());
    let body = String::from_utf8_lossy(&body).into_owned();
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scripted = {
        let mut first = server.first.lock();
        first.get_mut(uri.path()).filter(|answers| !answers.is_empty()).map(|answers| answers.remove(0))
    };
    let (status, header) = match scripted {
        Some(answer) => answer,
        None if server.down.contains(&uri.path()) => (503, ""),
        None if numbers(&body).iter().any(|n| server.poison.contains(n)) => (422, ""),
        None => (200, ""),
    };
    server.seen.lock().push((path, key.to_owned(), body, status));
    let mut response = (StatusCode::from_u16(status).expect("a status"), "because").into_response();
    if let Some((name, value)) = header.split_once(": ") {
        let name = axum::http::HeaderName::from_static(name);
        response.headers_mut().insert(name, value.parse().expect("a header"));
    }
    response
}

#[derive(Default)]
struct Handle {
    refused: Mutex<Vec<(i64, String)>>,
    commit: tokio::sync::Notify,
}

impl SinkHandle for Handle {
    fn refuse(&self, record: SinkRecord, error: Error) {
        self.refused.lock().push((record.offset, error.full()));
    }

    fn request_commit(&self) {
        self.commit.notify_one();
    }
}

fn origin(partition: i32) -> TopicPartition {
    TopicPartition { topic: "orders".into(), partition }
}

fn record(partition: i32, offset: i64) -> SinkRecord {
    let value = Datum::json(None, Bytes::from(offset.to_string()));
    let record = Record::new("orders".into(), value);
    SinkRecord { record, origin: origin(partition), offset, consumed: Arc::new(Consumed::default()) }
}

async fn started(address: SocketAddr, entries: &[(&str, &str)]) -> (Box<dyn SinkTask>, Arc<Handle>) {
    started_with(1 << 20, address, entries).await
}

async fn started_with(
    buffer_bytes: usize,
    address: SocketAddr,
    entries: &[(&str, &str)],
) -> (Box<dyn SinkTask>, Arc<Handle>) {
    let mut config: Config = [
        ("url".to_owned(), format!("http://{address}/{{partition}}")),
        ("retry.backoff".to_owned(), "5ms".to_owned()),
        ("retry.backoff.max".to_owned(), "20ms".to_owned()),
    ]
    .into();
    config.extend(entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let mut task = HttpSink.task(&plain(&config)).expect("a good config");
    let handle = Arc::new(Handle::default());
    let context = SinkContext {
        connector: "c".into(),
        task: 0,
        buffer_bytes,
        handle: Arc::clone(&handle) as Arc<dyn SinkHandle>,
    };
    task.start(context).await.expect("starts");
    task.open(&[(origin(0), 0), (origin(1), 0)].into()).await.expect("opens");
    (task, handle)
}

async fn durable(task: &mut Box<dyn SinkTask>, taken: i64) -> Vec<i64> {
    let taken = [(origin(0), taken), (origin(1), taken)].into();
    task.pre_commit(&taken).await.expect("answers").into_values().collect()
}

#[tokio::test]
async fn what_fails_is_sent_again_in_order_and_under_the_same_name() {
    let first = Mutex::new([("/0".to_owned(), vec![(503, ""), (429, ""), (200, ""), (500, "")])].into());
    let (address, server) = Server { first, ..Server::default() }.start().await;
    let (mut task, handle) = started(address, &[]).await;
    task.put((0..20).map(|i| record(0, i)).collect()).await.expect("taken over");
    task.flush().await.expect("sent");
    assert_eq!(server.taken("/0"), (0..20).collect::<Vec<_>>());
    assert_eq!(durable(&mut task, 20).await, [20, 20]);
    assert!(handle.refused.lock().is_empty());
    let seen = server.seen.lock();
    let keys: Vec<&str> = seen.iter().take(3).map(|(_, key, ..)| key.as_str()).collect();
    assert_eq!(keys, ["orders-0-0"; 3]);
}

#[tokio::test]
async fn a_refused_batch_is_split_until_the_poison_stands_alone() {
    let (address, server) = Server { poison: vec![7, 8, 63], ..Server::default() }.start().await;
    let (mut task, handle) = started(address, &[("batch.records", "64")]).await;
    task.put((0..100).map(|i| record(0, i)).collect()).await.expect("taken over");
    task.flush().await.expect("sent");
    let expected: Vec<i64> = (0..100).filter(|i| ![7, 8, 63].contains(i)).collect();
    assert_eq!(server.taken("/0"), expected);
    let refused = std::mem::take(&mut *handle.refused.lock());
    assert_eq!(refused.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [7, 8, 63]);
    assert!(refused[0].1.contains("answered 422: because"), "{}", refused[0].1);
    assert_eq!(durable(&mut task, 100).await, [100, 100]);
}

#[tokio::test]
async fn a_partition_that_is_stuck_holds_up_no_other_and_commits_nothing() {
    let (address, server) = Server { down: vec!["/0"], ..Server::default() }.start().await;
    let (mut task, handle) = started(address, &[]).await;
    task.put([record(0, 5)].into_iter().chain((0..50).map(|i| record(1, i))).collect())
        .await
        .expect("taken over");
    while server.taken("/1").len() < 50 || durable(&mut task, 50).await[1] < 50 {
        handle.commit.notified().await;
    }
    assert_eq!(durable(&mut task, 50).await, [0, 50]);
    task.stop().await.expect("stops with a request under way");
}

#[tokio::test]
async fn a_wrong_request_ends_the_task_and_commits_nothing() {
    for (status, header) in [(401, ""), (404, ""), (302, "location: http://elsewhere.test/")] {
        let first = Mutex::new([("/0".to_owned(), vec![(status, header)])].into());
        let (address, server) = Server { first, ..Server::default() }.start().await;
        let (mut task, handle) = started(address, &[]).await;
        task.put(vec![record(0, 0), record(0, 1)]).await.ok();
        let error = task.flush().await.expect_err("must fail");
        assert!(error.message().contains(&format!("answered {status}")), "{error}");
        assert_eq!(durable(&mut task, 2).await, [0, 2], "{status}");
        assert!(handle.refused.lock().is_empty());
        assert_eq!(server.seen.lock().len(), 1, "nothing is sent after it");
        assert!(task.put(Vec::new()).await.is_err());
    }
}

#[tokio::test]
async fn a_put_that_waits_for_the_budget_hears_of_a_failure() {
    let first = Mutex::new([("/0".to_owned(), vec![(401, "")])].into());
    let (address, _) = Server { first, ..Server::default() }.start().await;
    // Room for a single record.
    let (mut task, _) = started_with(1, address, &[]).await;
    let put = task.put((0..10).map(|i| record(0, i)).collect());
    let error = tokio::time::timeout(Duration::from_secs(10), put).await.expect("no hang");
    assert!(error.expect_err("must fail").message().contains("answered 401"));
    assert_eq!(durable(&mut task, 0).await, [0, 0]);
}

#[tokio::test]
async fn an_offset_is_not_done_while_a_record_of_it_waited_for_the_budget() {
    let first = Mutex::new([("/0".to_owned(), vec![(200, "")])].into());
    let (address, _) = Server { first, down: vec!["/0"], ..Server::default() }.start().await;
    let (mut task, _) = started_with(1, address, &[]).await;
    // Two that a step made of one: the second is taken over once the first is answered.
    task.put(vec![record(0, 4), record(0, 4)]).await.expect("taken over");
    assert_eq!(durable(&mut task, 5).await, [4, 5]);
}

#[tokio::test]
async fn retry_after_is_followed() {
    let first = Mutex::new([("/0".to_owned(), vec![(429, "retry-after: 1")])].into());
    let (address, server) = Server { first, ..Server::default() }.start().await;
    let (mut task, _) = started(address, &[]).await;
    let begun = Instant::now();
    task.put(vec![record(0, 0)]).await.expect("taken over");
    task.flush().await.expect("sent");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.taken("/0"), [0]);
}

#[tokio::test]
async fn records_made_of_one_have_names_of_their_own_and_are_committed_together() {
    let (address, server) = Server { poison: vec![1], ..Server::default() }.start().await;
    let (mut task, _) = started(address, &[]).await;
    let same = |n: i64| {
        let mut made = record(0, 4);
        made.record.value = Datum::json(None, Bytes::from(n.to_string()));
        made
    };
    task.put(vec![same(2), same(2), same(3)]).await.expect("taken over");
    task.flush().await.expect("sent");
    assert_eq!(server.taken("/0"), [2, 2, 3]);
    let keys: Vec<String> = server.seen.lock().iter().map(|(_, key, ..)| key.clone()).collect();
    assert_eq!(keys, ["orders-0-4", "orders-0-4.1", "orders-0-4.2"]);
}

#[tokio::test]
async fn batches_have_the_form_that_was_asked_for() {
    for (form, expected) in [("array", "[0,1,2]"), ("lines", "0\n1\n2\n")] {
        let first = Mutex::new([("/0".to_owned(), vec![(500, "")])].into());
        let (address, server) = Server { first, ..Server::default() }.start().await;
        let (mut task, _) = started(address, &[("batch.records", "10"), ("batch.as", form)]).await;
        task.put((0..3).map(|i| record(0, i)).collect()).await.expect("taken over");
        task.flush().await.expect("sent");
        let seen = server.seen.lock();
        let last = seen.last().expect("a request");
        assert_eq!((last.2.as_str(), last.1.as_str()), (expected, "orders-0-0+3"));
    }
}

#[tokio::test]
async fn nulls_become_what_was_asked_for() {
    let tombstone = || {
        let mut tombstone = record(0, 3);
        tombstone.record.value = Datum::null();
        tombstone
    };
    for (nulls, requests, refused) in [("delete", 1, 0), ("ignore", 0, 0), ("write", 1, 0), ("fail", 0, 1)] {
        let (address, server) = Server::default().start().await;
        let (mut task, handle) = started(address, &[("nulls", nulls)]).await;
        task.put(vec![tombstone()]).await.expect("taken over");
        task.flush().await.expect("sent");
        let seen = server.seen.lock();
        assert_eq!((seen.len(), handle.refused.lock().len()), (requests, refused), "{nulls}");
        if nulls == "delete" {
            assert_eq!(seen[0].0, "DELETE/0");
        }
    }
}

#[tokio::test]
async fn a_server_that_comes_late_gets_everything() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let (mut task, _) = started(address, &[]).await;
    task.put(vec![record(0, 0)]).await.expect("taken over");
    let late = tokio::net::TcpListener::bind(address).await.expect("the same port");
    let server = Arc::new(Server::default());
    let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&server));
    tokio::spawn(async move { axum::serve(late, app).await.expect("serves") });
    task.flush().await.expect("sent");
    assert_eq!(server.taken("/0"), [0]);
}
