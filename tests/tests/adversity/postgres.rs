//! PostgreSQL that cannot be used as it is.

use anyhow::{Result, ensure};
use aqueduct_tests::postgres::{Postgres, execute};
use aqueduct_tests::process::free_port;
use aqueduct_tests::rest::task_state;
use aqueduct_tests::topic;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{LIMIT, end, named, start};

const TEST: &str = "what_is_wrong_with_postgres_stands_in_the_status";
const SET_UP: &str = "
    CREATE TABLE t (id int PRIMARY KEY);
    INSERT INTO t SELECT generate_series(1, 10);
    CREATE ROLE locked LOGIN REPLICATION PASSWORD 'right-password';
    CREATE ROLE weak LOGIN;
    GRANT SELECT ON t TO weak;
    CREATE ROLE blind LOGIN REPLICATION;
    CREATE PUBLICATION blind FOR TABLE t;
";

#[test]
fn what_is_wrong_with_postgres_stands_in_the_status() {
    let Some(server) = Postgres::start(TEST) else { return };
    wrong(&server).expect("every mistake is named");
}

fn config(url: &str, name: &str) -> Value {
    json!({
        "connector.class": "postgres-cdc", "url": url, "tables": "public.t", "slot.name": name,
        "publication.name": name, "topic.prefix": name,
        "errors.restart.delay": "200ms", "errors.restart.delay.max": "500ms",
    })
}

/// Asks for a password where the user is `locked`.
async fn lock(pool: &sqlx::PgPool) -> Result<()> {
    let (file,): (String,) = sqlx::query_as("SHOW hba_file").fetch_one(pool).await?;
    let lines = "host all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust";
    let lines: Vec<String> = lines.lines().map(|line| format!("('{line}')")).collect();
    execute(pool, &format!("COPY (VALUES {}) TO '{file}'", lines.join(","))).await?;
    execute(pool, "SELECT pg_reload_conf()").await?;
    Ok(())
}

fn wrong(server: &Postgres) -> Result<()> {
    let runtime = Runtime::new()?;
    let pool = runtime.block_on(server.pool(2))?;
    runtime.block_on(async {
        execute(&pool, SET_UP).await?;
        lock(&pool).await
    })?;
    let dir = tempfile::tempdir()?;
    let (_, process, rest) = start(dir.path())?;
    let port = server.port();
    let url =
        |user: &str, database: &str| format!("postgres://{user}@127.0.0.1:{port}/{database}?sslmode=disable");
    let nobody = free_port();
    let cases: [(&str, String, &[&str]); 5] = [
        ("away", format!("postgres://a@127.0.0.1:{nobody}/d?sslmode=disable"), &["127.0.0.1", "refused"]),
        ("password", url("locked:wrong-password", "postgres"), &["password authentication failed", "locked"]),
        ("database", url("postgres", "nowhere"), &["nowhere"]),
        ("weak", url("weak", "postgres"), &["ALTER ROLE", "REPLICATION"]),
        ("blind", url("blind", "postgres"), &["permission denied", "table t"]),
    ];
    for (name, url, parts) in &cases {
        // By reference, as a secret should be.
        let file = dir.path().join(name);
        std::fs::write(&file, url)?;
        rest.put_connector(name, &config(&format!("${{file:{}}}", file.display()), name))?;
        let status = named(&rest, name, parts)?;
        ensure!(matches!(task_state(&status), "FAILED" | "RESTARTING"), "{name}: {status}");
        let shown = rest.get(&format!("/connectors/{name}"))?;
        ensure!(!format!("{status}{shown}").contains("wrong-password"), "{name}: {status} {shown}");
    }
    slot_gone(server, &rest, &runtime, &pool)?;

    // A right is given while the task waits for the user.
    runtime.block_on(execute(&pool, "GRANT SELECT ON t TO blind"))?;
    rest.call(Method::POST, "/connectors/blind/tasks/0/restart", None)?;
    rest.until_status("blind", LIMIT, |status| task_state(status) == "RUNNING")?;
    aqueduct_tests::process::eventually("the snapshot arrives", LIMIT, || {
        topic::ends(&process.kafka, "blind.public.t").is_ok_and(|ends| ends.iter().sum::<i64>() >= 10)
    })?;
    end(process, &["wrong-password"])
}

/// The slot is dropped while the connector is stopped.
fn slot_gone(
    server: &Postgres,
    rest: &aqueduct_tests::rest::Rest,
    runtime: &Runtime,
    pool: &sqlx::PgPool,
) -> Result<()> {
    rest.put_connector("gone", &config(&server.url(), "gone"))?;
    let stored = |offsets: &Value| offsets["offsets"][0]["offset"]["lsn_commit"].is_u64();
    let until = std::time::Instant::now() + LIMIT;
    while !stored(&rest.get("/connectors/gone/offsets")?) {
        ensure!(std::time::Instant::now() < until, "{}", rest.get("/connectors/gone/status")?);
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    rest.call(Method::PUT, "/connectors/gone/stop", None)?;
    rest.until_status("gone", LIMIT, |status| status["tasks"] == json!([]))?;
    runtime.block_on(async {
        // The server notices a little later that the connection is gone.
        let dropped = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'gone' AND NOT active";
        while execute(pool, dropped).await? == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    })?;
    rest.call(Method::PUT, "/connectors/gone/resume", None)?;
    let status = named(rest, "gone", &["slot `gone` does not exist"])?;
    ensure!(matches!(task_state(&status), "FAILED" | "RESTARTING"), "{status}");
    Ok(())
}
