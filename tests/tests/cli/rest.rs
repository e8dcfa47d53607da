//! The REST API as Connect's clients use it, against the real binary.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::process::{Aqueduct, Start};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

struct Rest {
    client: Client,
    base: String,
}

impl Rest {
    fn new(process: &Aqueduct) -> Self {
        Self { client: Client::new(), base: process.rest.clone() }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    async fn get(&self, path: &str) -> Result<(u16, Value)> {
        self.call(Method::GET, path, None).await
    }

    /// Asks until the answer holds.
    async fn until(&self, path: &str, holds: impl Fn(u16, &Value) -> bool) -> Result<Value> {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let mut last = None;
        for _ in 0..1000 {
            ticks.tick().await;
            let (status, body) = self.get(path).await?;
            if holds(status, &body) {
                return Ok(body);
            }
            last = Some((status, body));
        }
        anyhow::bail!("{path} never became what was expected; last {last:?}")
    }
}

fn on_tokio(work: impl Future<Output = Result<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work).expect("all as expected");
}

#[test]
fn a_connector_lives_and_dies_over_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut process = Start::run(dir.path(), &[]).start().expect("starts");
    let rest = Rest::new(&process);
    on_tokio(async {
        rest.until("/health", |status, _| status == 200).await?;
        let (status, root) = rest.get("/").await?;
        ensure!(
            status == 200 && root["kafka_cluster_id"].is_string() && root["version"].is_string(),
            "{root}"
        );
        life(&rest).await?;
        refusals(&rest).await
    });
    assert!(process.terminate(Duration::from_secs(20)).expect("ends").success(), "{}", process.output());
}

async fn life(rest: &Rest) -> Result<()> {
    let config = json!({ "connector.class": "datagen", "topic": "made", "rate": "200" });
    let create = json!({ "name": "gen", "config": config });
    let (status, info) = rest.call(Method::POST, "/connectors", Some(create.clone())).await?;
    ensure!(status == 201 && info["type"] == "source" && info["config"]["name"] == "gen", "{status} {info}");
    let (status, body) = rest.call(Method::POST, "/connectors", Some(create)).await?;
    ensure!(
        status == 409 && body["error_code"] == 409 && body["message"] == "Connector gen already exists",
        "{body}"
    );
    let running = |_: u16, body: &Value| body["tasks"][0]["state"] == "RUNNING";
    rest.until("/connectors/gen/status", running).await?;
    let flowing = |_: u16, body: &Value| body["offsets"][0]["offset"].is_object();
    rest.until("/connectors/gen/offsets", flowing).await?;
    ensure!(rest.get("/connectors").await?.1 == json!(["gen"]));
    let (_, expanded) = rest.get("/connectors?expand=info&expand=status").await?;
    ensure!(
        expanded["gen"]["info"]["name"] == "gen" && expanded["gen"]["status"]["name"] == "gen",
        "{expanded}"
    );
    ensure!(rest.get("/connectors/gen/tasks").await?.1[0]["id"] == json!({"connector": "gen", "task": 0}));

    ensure!(rest.call(Method::PUT, "/connectors/gen/pause", None).await?.0 == 202);
    rest.until("/connectors/gen/status", |_, body| body["connector"]["state"] == "PAUSED").await?;
    ensure!(rest.call(Method::PUT, "/connectors/gen/resume", None).await?.0 == 202);
    rest.until("/connectors/gen/status", running).await?;
    ensure!(rest.call(Method::PUT, "/connectors/gen/stop", None).await?.0 == 204);
    rest.until("/connectors/gen/status", |_, body| {
        body["connector"]["state"] == "STOPPED" && body["tasks"] == json!([])
    })
    .await?;
    ensure!(rest.call(Method::PUT, "/connectors/gen/resume", None).await?.0 == 202);
    rest.until("/connectors/gen/status", running).await?;
    ensure!(rest.call(Method::POST, "/connectors/gen/restart", None).await?.0 == 204);
    let path = "/connectors/gen/restart?includeTasks=true&onlyFailed=false";
    ensure!(rest.call(Method::POST, path, None).await?.0 == 202);
    rest.until("/connectors/gen/status", running).await?;

    let changed = json!({ "connector.class": "datagen", "topic": "made", "rate": "100" });
    let (status, info) = rest.call(Method::PUT, "/connectors/gen/config", Some(changed)).await?;
    ensure!(status == 200 && info["config"]["rate"] == "100", "{status} {info}");
    ensure!(rest.get("/connectors/gen/config").await?.1["rate"] == "100");
    let page = rest.client.get(format!("{}/metrics", rest.base)).send().await?.text().await?;
    ensure!(page.contains("aqueduct_broker_") && page.contains("gen") && page.ends_with("# EOF\n"), "{page}");
    ensure!(rest.call(Method::DELETE, "/connectors/gen", None).await?.0 == 204);
    rest.until("/connectors/gen", |status, _| status == 404).await?;
    Ok(())
}

async fn refusals(rest: &Rest) -> Result<()> {
    let cases = [
        (Method::GET, "/connectors/none", None, 404, "Connector none not found"),
        (Method::GET, "/connectors/none/status", None, 404, "No status found for connector none"),
        (Method::PUT, "/connectors/none/pause", None, 404, "Unknown connector none"),
        (Method::DELETE, "/connectors/none", None, 404, "none"),
        (Method::GET, "/nowhere", None, 404, "HTTP 404"),
        (Method::DELETE, "/connectors", None, 405, "HTTP 405"),
        (Method::POST, "/connectors", Some(json!({ "name": "x", "config": {} })), 400, "connector.class"),
        (
            Method::PUT,
            "/connectors/x/config",
            Some(json!({ "connector.class": "datagen", "rate": "fast", "raet": "1" })),
            400,
            "contains the following 2 error(s)",
        ),
        (
            Method::PUT,
            "/connectors/x/config",
            Some(json!({ "name": "y", "connector.class": "datagen" })),
            400,
            "doesn't match",
        ),
        (
            Method::PUT,
            "/connectors/x/config",
            Some(json!({ "connector.class": "datagen", "topic": "${env:HOME}" })),
            400,
            "--allow-env",
        ),
        (Method::POST, "/connectors", Some(json!({ "nmae": "x" })), 500, "unknown field"),
    ];
    for (method, path, body, status, text) in cases {
        let (got, answer) = rest.call(method.clone(), path, body).await?;
        let message = answer["message"].as_str().unwrap_or_default();
        let same = got == status && answer["error_code"] == status && message.contains(text);
        ensure!(same, "{method} {path}: {got} {answer}, not {status} {text}");
    }
    let (status, infos) = rest
        .call(
            Method::PUT,
            "/connector-plugins/datagen/config/validate",
            Some(json!({ "connector.class": "datagen", "name": "x", "rate": "fast" })),
        )
        .await?;
    ensure!(status == 200 && infos["error_count"] == 1, "{infos}");
    let plugins = rest.get("/connector-plugins").await?.1;
    let known = plugins
        .as_array()
        .context("a list")?
        .iter()
        .any(|plugin| plugin["class"] == "s3" && plugin["type"] == "sink");
    ensure!(known, "{plugins}");
    strangers(rest).await
}

/// What a page in a browser could send.
async fn strangers(rest: &Rest) -> Result<()> {
    let url = format!("{}/connectors", rest.base);
    let host = rest.client.get(&url).header("host", "evil.example").send().await?.status();
    let origin = rest.client.get(&url).header("origin", "http://evil.example").send().await?.status();
    let form = rest.client.post(&url).header("content-type", "text/plain").body("{}").send().await?.status();
    let large =
        rest.client.post(&url).header("content-type", "application/json").body("x".repeat(3 << 20)).send();
    let large = large.await.map(|answer| answer.status());
    ensure!(host == StatusCode::FORBIDDEN && origin == StatusCode::FORBIDDEN, "{host} {origin}");
    ensure!(form == StatusCode::UNSUPPORTED_MEDIA_TYPE, "{form}");
    // The connection may be cut before the answer is read.
    ensure!(
        large.as_ref().is_err() || large.as_ref().is_ok_and(|s| *s == StatusCode::PAYLOAD_TOO_LARGE),
        "{large:?}"
    );
    Ok(())
}

#[test]
fn a_signal_drains_and_a_second_one_stops_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::run(dir.path(), &[]);
    let mut process = start.start().expect("starts");
    assert!(process.terminate(Duration::from_secs(20)).expect("ends").success(), "{}", process.output());
    let mut process = start.start().expect("starts again");
    let rest = Rest::new(&process);
    on_tokio(async {
        rest.until("/health", |status, _| status == 200).await?;
        Ok(())
    });
    process.signal(rustix::process::Signal::INT).expect("sent");
    process.signal(rustix::process::Signal::TERM).expect("sent");
    // Either the first was already through or the second cut it short; both end.
    process.wait(Duration::from_secs(20)).expect("ends");
}

#[test]
fn the_example_settings_of_the_broker_can_be_started() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut start = Start::broker(dir.path());
    let file = aqueduct_tests::process::root().join("configs/broker.yaml");
    start.args.extend(["--config".to_owned(), file.display().to_string()]);
    let mut process = start.start().expect("starts");
    assert!(process.terminate(Duration::from_secs(10)).expect("ends").success(), "{}", process.output());
}
