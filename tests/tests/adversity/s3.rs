//! An object store that cannot be used as it is.

use anyhow::{Result, ensure};
use aqueduct_tests::process::free_port;
use aqueduct_tests::rest::task_state;
use aqueduct_tests::s3::{ACCESS_KEY, REGION, S3, SECRET_KEY};
use aqueduct_tests::topic::{self, Write};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{LIMIT, end, named, start};

const TEST: &str = "what_is_wrong_with_the_object_store_stands_in_the_status";

#[test]
fn what_is_wrong_with_the_object_store_stands_in_the_status() {
    let Some(server) = S3::start(TEST) else { return };
    wrong(&server).expect("every mistake is named");
}

fn config(endpoint: &str, bucket: &str, secret: &str) -> Value {
    json!({
        "connector.class": "s3", "topics": "orders", "bucket": bucket, "endpoint": endpoint, "region": REGION,
        "access_key": ACCESS_KEY, "secret_key": secret, "path_style": "true", "timeout": "5s", "roll.age": "200ms",
        "errors.restart.delay": "200ms", "errors.restart.delay.max": "500ms",
    })
}

fn wrong(server: &S3) -> Result<()> {
    let runtime = Runtime::new()?;
    runtime.block_on(server.create_bucket("lake"))?;
    let dir = tempfile::tempdir()?;
    let (_, process, rest) = start(dir.path())?;
    topic::create(&process.kafka, "orders", 1, &[])?;
    let orders =
        (0..100).map(|id| Write { value: Some(format!(r#"{{"id":{id}}}"#).into()), ..Write::default() });
    topic::write(&process.kafka, "orders", &orders.collect::<Vec<_>>())?;
    let nobody = free_port();
    let away = format!("http://127.0.0.1:{nobody}");
    let endpoint = server.endpoint();
    let cases: [(&str, Value, &[&str]); 3] = [
        ("away", config(&away, "lake", SECRET_KEY), &[&away]),
        ("secret", config(&endpoint, "lake", "wrong-secret"), &["SignatureDoesNotMatch"]),
        ("bucket", config(&endpoint, "none", SECRET_KEY), &["bucket `none` does not exist", &endpoint]),
    ];
    for (name, config, parts) in &cases {
        rest.put_connector(name, config)?;
        let status = named(&rest, name, parts)?;
        ensure!(!status.to_string().contains("wrong-secret"), "{name}: {status}");
        ensure!(
            topic::committed(&process.kafka, &format!("connect-{name}"), "orders", 0)?.is_none(),
            "{name}"
        );
    }
    // Corrected over REST, everything arrives.
    rest.put_connector("secret", &config(&endpoint, "lake", SECRET_KEY))?;
    rest.until_status("secret", LIMIT, |status| task_state(status) == "RUNNING")?;
    let until = std::time::Instant::now() + LIMIT;
    while runtime.block_on(server.lines("lake", ""))?.len() < 100 {
        ensure!(std::time::Instant::now() < until, "{}", rest.get("/connectors/secret/status")?);
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    end(process, &["wrong-secret", SECRET_KEY])
}
