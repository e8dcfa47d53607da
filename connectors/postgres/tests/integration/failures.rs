//! Wrong set-ups: each has one clear message.

use std::sync::Arc;

use aqueduct_core::ErrorKind;
use aqueduct_core::source::SourcePosition;

use crate::driver::{Driver, config};
use crate::server::{Server, installed};

async fn refused(
    config: &std::collections::BTreeMap<String, String>,
    stored: Option<SourcePosition>,
) -> aqueduct_core::Error {
    match Driver::start(config, stored).await {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

fn with(position: &Option<SourcePosition>, key: &str, value: serde_json::Value) -> Option<SourcePosition> {
    let position = position.clone().expect("stored");
    let mut offset = (*position.offset).clone();
    offset.insert(key.to_owned(), value);
    Some(SourcePosition { offset: Arc::new(offset), ..position })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_does_not_fit_the_slot_is_refused() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let config = config(&server.url(), "public.t");
    let mut driver = Driver::start(&config, None).await.expect("starts");
    server.sql("INSERT INTO t VALUES (2)");
    driver.until_count(2).await;
    let stored = driver.stop().await;
    let confirmed = server.sql("SELECT confirmed_flush_lsn FROM pg_replication_slots");

    let error = refused(&config, with(&stored, "lsn_commit", 16.into())).await;
    assert!(error.message().contains(&confirmed) && error.message().contains("0/10"), "{error}");
    let error = refused(&config, with(&stored, "system_id", "5".into())).await;
    assert!(error.message().contains("database system"), "{error}");
    let error = refused(&config, with(&stored, "timeline", 7.into())).await;
    assert!(error.message().contains("timeline"), "{error}");
    // As after restoring an older copy of the server's disk: the same system, but not as far.
    let flushed = server.sql("SELECT pg_current_wal_flush_lsn()");
    let error = refused(&config, with(&stored, "lsn_commit", 0x7_0000_0000_u64.into())).await;
    assert!(error.message().contains(&flushed) && error.message().contains("7/0"), "{error}");

    server.sql("SELECT pg_drop_replication_slot('s')");
    let error = refused(&config, stored.clone()).await;
    assert!(error.message().contains("slot `s` does not exist"), "{error}");
    // With the user's word the snapshot is taken again.
    let mut config = config;
    config.insert("snapshot.mode".to_owned(), "when_needed".to_owned());
    let mut driver = Driver::start(&config, stored).await.expect("starts");
    driver.until_count(2).await;
    assert_eq!(driver.ops(), ["r", "r"]);
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_in_use_is_waited_for() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let config = config(&server.url(), "public.t");
    let mut driver = Driver::start(&config, None).await.expect("starts");
    server.sql("INSERT INTO t VALUES (1)");
    driver.until_count(1).await;
    let stored = driver.stop().await;
    let options =
        ["--slot", "s", "--start", "-f", "/dev/null", "-o", "proto_version=1", "-o", "publication_names=s"];
    let mut holder = server.client("pg_recvlogical").args(options).spawn().expect("pg_recvlogical runs");
    let active = || server.sql("SELECT active FROM pg_replication_slots") == "t";
    while !active() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut driver = Driver::start(&config, stored).await.expect("starts");
    for _ in 0..50 {
        driver.step().await.expect("waits");
    }
    holder.kill().expect("killed");
    holder.wait().expect("ended");
    server.sql("INSERT INTO t VALUES (2)");
    driver.until_count(1).await;
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_says_so_at_start() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE keyless (id int)");
    server.sql("CREATE ROLE weak LOGIN PASSWORD 'w'; CREATE ROLE blind LOGIN REPLICATION PASSWORD 'b'");
    let bad_config = |error: &aqueduct_core::Error| assert_eq!(error.kind(), ErrorKind::BadConfig, "{error}");
    let url = server.url();

    let error = refused(&config(&url.replace("correct", "wrong"), "public.t"), None).await;
    bad_config(&error);
    assert!(error.message().contains("password authentication failed"), "{error}");
    assert!(!error.full().contains("wrong"), "{error}");

    let error = refused(&config(&url, "public.nothing"), None).await;
    bad_config(&error);
    assert!(error.message().contains("`public.nothing`"), "{error}");

    let error = refused(&config(&url, "public.keyless"), None).await;
    bad_config(&error);
    assert!(error.message().contains("REPLICA IDENTITY FULL"), "{error}");

    let weak = url.replace("postgres:correct%20horse", "weak:w");
    let error = refused(&config(&weak, "public.t"), None).await;
    assert!(error.kind() == ErrorKind::Fatal && error.message().contains("REPLICATION"), "{error:?}");

    server.sql("CREATE PUBLICATION s FOR TABLE t");
    let blind = url.replace("postgres:correct%20horse", "blind:b");
    let mut driver = Driver::start(&config(&blind, "public.t"), None).await.expect("starts");
    let error = driver.until_error().await;
    assert!(error.message().contains("permission denied for table t"), "{error}");
    driver.stop().await;
    // The runtime starts it again by itself; a grant is all that is needed.
    assert_eq!(error.kind(), ErrorKind::Fatal, "{error}");
    server.sql("GRANT SELECT ON t TO blind; INSERT INTO t VALUES (1)");
    let mut driver = Driver::start(&config(&blind, "public.t"), None).await.expect("starts");
    driver.until_count(1).await;
    driver.stop().await;

    let error = refused(&config(&url, "public.t,public.keyless"), None).await;
    assert!(error.message().contains("ADD TABLE public.keyless"), "{error}");

    let error = refused(&config(&url.replace("/postgres", "/nowhere"), "public.t"), None).await;
    bad_config(&error);
    let error = refused(&config("postgres://a:b@127.0.0.1:1/d", "public.t"), None).await;
    assert!(error.is_retriable() && error.full().contains("127.0.0.1:1"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_logical_wal_is_refused() {
    if !installed() {
        return;
    }
    let server = Server::start(&["wal_level=replica"]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let error = refused(&config(&server.url(), "public.t"), None).await;
    assert!(error.message().contains("wal_level=logical"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_security_is_an_error_and_not_a_filter() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10)");
    server.sql("ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY half ON t USING (id < 6)");
    server.sql("CREATE ROLE reader LOGIN REPLICATION PASSWORD 'r'; GRANT SELECT ON t TO reader");
    server.sql("CREATE PUBLICATION s FOR TABLE t");
    let url = server.url().replace("postgres:correct%20horse", "reader:r");
    let mut driver = Driver::start(&config(&url, "public.t"), None).await.expect("starts");
    let error = driver.until_error().await;
    assert!(error.message().contains("row-level security"), "{error}");
    assert_eq!(driver.count, 0);
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_hears_of_us_while_the_log_pushes_back() {
    if !installed() {
        return;
    }
    let server = Server::start(&["wal_sender_timeout=2s"]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY, x text)");
    let mut config = config(&server.url(), "public.t");
    config.insert("status.update.interval.ms".to_owned(), "500ms".to_owned());
    let mut driver = Driver::start(&config, None).await.expect("starts");
    let pid = "SELECT active_pid FROM pg_replication_slots";
    driver.until("the stream", |_| !server.sql(pid).is_empty()).await;
    let before = server.sql(pid);
    server.sql("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 40000) g");
    driver.until_count(1).await;
    // Longer than the server waits for a sign of life.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    driver.until_count(40000).await;
    assert_eq!(server.sql(pid), before, "the connection was lost");
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_follows_the_modes_of_libpq() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    if !server.certificate() {
        println!("NOT RUN: postgres: TLS needs the program openssl");
        return;
    }
    server.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let with = |mode: &str, root: Option<&str>| {
        let mut config = config(&server.url(), "public.t");
        config.insert("database.sslmode".to_owned(), mode.to_owned());
        if let Some(root) = root {
            config.insert("database.sslrootcert".to_owned(), root.to_owned());
        }
        config
    };
    let error = refused(&with("require", None), None).await;
    assert!(error.message().contains("does not speak TLS"), "{error}");
    server.handle().down("fast");
    server.up(&["ssl=on", "ssl_cert_file=../server.crt", "ssl_key_file=../server.key"]);
    let root = server.dir().join("ca.crt").display().to_string();
    let encrypted =
        || server.sql("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)");

    let mut driver = Driver::start(&with("prefer", None), None).await.expect("starts");
    server.sql("INSERT INTO t VALUES (1)");
    driver.until_count(1).await;
    driver.until("the stream", |_| encrypted() == "t").await;
    let stored = driver.stop().await;

    let driver = Driver::start(&with("verify-ca", Some(&root)), stored.clone()).await.expect("starts");
    driver.stop().await;
    // The certificate is for another name.
    let error = refused(&with("verify-full", Some(&root)), stored.clone()).await;
    assert!(error.message().contains("TLS") && error.kind() == ErrorKind::BadConfig, "{error:?}");
    let error = refused(&with("verify-ca", None), stored).await;
    assert!(error.message().contains("TLS"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_whose_wal_was_removed_says_so() {
    if !installed() {
        return;
    }
    let server = Server::start(&["max_slot_wal_keep_size=1MB", "min_wal_size=32MB", "max_wal_size=32MB"]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (x text)");
    let config = config(&server.url(), "public.t");
    let mut driver = Driver::start(&config, None).await.expect("starts");
    server.sql("INSERT INTO t VALUES (1)");
    driver.until_count(1).await;
    let stored = driver.stop().await;
    let lost = || server.sql("SELECT wal_status = 'lost' FROM pg_replication_slots") == "t";
    for _ in 0..20 {
        if lost() {
            break;
        }
        server.sql("INSERT INTO other VALUES ('x')");
        server.sql("SELECT pg_switch_wal()");
        server.sql("CHECKPOINT");
    }
    assert!(lost(), "the server keeps WAL that it was told to remove");
    let error = refused(&config, stored.clone()).await;
    assert!(error.message().contains("max_slot_wal_keep_size"), "{error}");
    let mut config = config;
    config.insert("snapshot.mode".to_owned(), "when_needed".to_owned());
    let mut driver = Driver::start(&config, stored).await.expect("starts");
    server.sql("INSERT INTO t VALUES (2)");
    driver.until("both rows", |driver| driver.fold().len() == 2).await;
    driver.stop().await;
}
