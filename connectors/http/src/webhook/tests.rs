use std::time::Duration;

use aqueduct_core::config::{Config, plain};
use aqueduct_core::source::{NoReport, StoredPositions};
use reqwest::StatusCode;

use super::*;

fn config(entries: &[(&str, &str)]) -> ResolvedConfig {
    let mut config: Config = [("listen", "127.0.0.1:0"), ("topic", "hooks"), ("path", "/in")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    config.extend(entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    plain(&config)
}

/// A task on a free port.
async fn started(entries: &[(&str, &str)]) -> (Box<dyn SourceTask>, String) {
    // The port is found out by taking and freeing one: tasks tell theirs to the log alone.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let listen = free.to_string();
    let mut task = Webhook.task(&config(&[entries, &[("listen", &listen)]].concat())).expect("a good config");
    let context = SourceContext {
        connector: "c".into(),
        task: 0,
        positions: StoredPositions::default(),
        buffer_bytes: 64 * 1024,
        reporter: Arc::new(NoReport),
    };
    task.start(context).await.expect("listens");
    (task, format!("http://{listen}/in"))
}

fn post(url: &str, body: &str) -> JoinHandle<(StatusCode, String)> {
    let request = reqwest::Client::new().post(url).body(body.to_owned()).header("idempotency-key", "k1");
    tokio::spawn(async move {
        let response = request.send().await.expect("an answer");
        (response.status(), response.text().await.expect("a body"))
    })
}

fn text(record: &SourceRecord) -> String {
    let value = record.record.as_ref().expect("a record").value.to_json().expect("encodes");
    String::from_utf8_lossy(&value).into_owned()
}

#[tokio::test]
async fn the_answer_comes_when_the_records_are_acknowledged_and_not_before() {
    let (mut task, url) = started(&[("split", "array"), ("key.field", "id")]).await;
    let answer = post(&url, r#"[{"id":1}, {"id":2}]"#);
    let batch = task.poll().await.expect("a batch");
    assert_eq!(batch.iter().map(text).collect::<Vec<_>>(), [r#"{"id":1}"#, r#"{"id":2}"#]);
    assert!(batch[0].receipt.is_none());
    let record = batch[1].record.as_ref().expect("a record");
    let idempotency = record.headers.last("idempotency-key").expect("passed on");
    assert_eq!(idempotency.value.to_json().expect("encodes"), "\"k1\"");
    assert_eq!(record.key.to_json().expect("encodes"), "2");
    tokio::time::timeout(Duration::from_millis(50), async {
        while !answer.is_finished() {
            tokio::task::yield_now().await
        }
    })
    .await
    .expect_err("nothing is acknowledged yet");
    batch[1].receipt.as_ref().expect("with the last").0.acknowledged();
    assert_eq!(answer.await.expect("answers"), (StatusCode::OK, "{\"records\":2}\n".to_owned()));
}

#[tokio::test]
async fn a_refused_request_is_told_why() {
    let (mut task, url) = started(&[]).await;
    let answer = post(&url, "no json");
    let batch = task.poll().await.expect("a batch");
    let error = batch[0].failure.as_ref().expect("unreadable");
    assert_eq!(text(&batch[0]), "\"bm8ganNvbg==\"");
    batch[0].receipt.as_ref().expect("there is one").0.refused(error);
    let (status, why) = answer.await.expect("answers");
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(why.contains("not valid JSON"), "{why}");
}

#[tokio::test]
async fn a_task_that_ends_answers_503() {
    let (mut task, url) = started(&[]).await;
    let (polled, waiting) = (post(&url, "1"), post(&url, "2"));
    let batch = task.poll().await.expect("a batch");
    drop(batch);
    task.stop().await.expect("stops");
    for answer in [polled, waiting] {
        assert_eq!(answer.await.expect("answers").0, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn what_is_not_acknowledged_in_time_is_answered_503() {
    let (mut task, url) = started(&[("timeout", "100ms")]).await;
    let answer = post(&url, "1");
    let _batch = task.poll().await.expect("a batch");
    assert_eq!(answer.await.expect("answers").0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn what_is_under_way_is_bounded() {
    let (mut task, url) = started(&[("max.body", "40KiB")]).await;
    let large = "1".repeat(40 * 1024);
    let first = post(&url, &large);
    let batch = task.poll().await.expect("a batch");
    assert_eq!(post(&url, &large).await.expect("answers").0, StatusCode::TOO_MANY_REQUESTS);
    batch[0].receipt.as_ref().expect("there is one").0.acknowledged();
    assert_eq!(first.await.expect("answers").0, StatusCode::OK);
    let again = post(&url, &large);
    task.poll().await.expect("a batch")[0].receipt.as_ref().expect("there is one").0.acknowledged();
    assert_eq!(again.await.expect("answers").0, StatusCode::OK);
    let (status, _) = post(&url, &"1".repeat(40 * 1024 + 1)).await.expect("answers");
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn who_may_not_write_is_told_before_anything_is_read() {
    let (_task, url) = started(&[("auth.token", "geheim")]).await;
    assert_eq!(post(&url, "1").await.expect("answers").0, StatusCode::UNAUTHORIZED);
    let (_task, url) = started(&[("signature", "github"), ("signature.secret", "s")]).await;
    assert_eq!(post(&url, "1").await.expect("answers").0, StatusCode::UNAUTHORIZED);
    assert_eq!(post(&url.replace("/in", "/out"), "1").await.expect("answers").0, StatusCode::NOT_FOUND);
    let get = reqwest::get(&url).await.expect("answers");
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn wrong_configs_say_what_to_do() {
    let refused = |entries: &[(&str, &str)]| {
        let problems = Webhook.validate(&config(entries));
        assert_eq!(problems.len(), 1, "{entries:?}");
        problems[0].message.clone()
    };
    assert!(refused(&[("listen", "0.0.0.0:80")]).contains("`insecure: true`"));
    assert!(refused(&[("listen", "8090")]).contains("such as `127.0.0.1:8090`"));
    assert!(refused(&[("signature", "stripe")]).contains("`signature.secret`"));
    assert!(refused(&[("split", "array"), ("format", "text")]).contains("`format: json`"));
    assert!(Webhook.validate(&config(&[("listen", "0.0.0.0:80"), ("auth.token", "t")])).is_empty());
}
