//! The way of rows: snapshot, stream, stop, crash, go on.

use serde_json::json;

use crate::driver::{Driver, config};
use crate::server::{Server, installed};

const TYPES: &str = "CREATE DOMAIN price AS numeric(10,2); CREATE TYPE mood AS ENUM ('sad', 'ok'); \
    CREATE TABLE t (id int PRIMARY KEY, b bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric(10,2), nv numeric, \
    pr price, tx text, u uuid, ts timestamp, tz timestamptz, ts3 timestamp(3), da date, ti time, j json, jb jsonb, \
    ba bytea, m mood, arr int[], ip inet, iv interval)";

const ROW: &str = "(1, true, -7, 9007199254740993, 1.5, 'NaN', 12.30, 1.250, 5, E'a\\tb\\\\\\n\"', \
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2024-02-29 12:30:45.5', '2024-02-29 12:30:45.5+02', \
    '2024-02-29 12:30:45.125', '1970-01-11', '00:00:01', '{\"a\": 1}', '{\"b\":  2}', '\\x00ff', 'ok', '{1,NULL}', \
    '10.0.0.1/8', '1 day 02:00:00')";

fn row(id: i64) -> serde_json::Value {
    json!({
        "id": id, "b": true, "i2": -7, "i8": 9007199254740993i64, "f4": 1.5, "f8": "NaN", "n": 12.30,
        "nv": {"scale": 2, "value": "fQ=="}, "pr": 5.00, "tx": "a\tb\\\n\"",
        "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "ts": 1709209845500000i64, "tz": "2024-02-29T10:30:45.500000Z",
        "ts3": 1709209845125i64, "da": 10, "ti": 1000000, "j": "{\"a\": 1}", "jb": "{\"b\": 2}", "ba": "AP8=",
        "m": "ok", "arr": [1, null], "ip": "10.0.0.1/8", "iv": 93600000000i64,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_the_same_in_snapshot_and_stream() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql(TYPES);
    server
        .sql(&format!("INSERT INTO t VALUES {ROW}; INSERT INTO t(id, n, nv) VALUES (2, 'NaN', 'Infinity')"));
    let mut driver = Driver::start(&config(&server.url(), "public.t"), None).await.expect("starts");
    driver.until_count(2).await;
    assert_eq!(driver.seen[0].after(), &row(1));
    assert_eq!(driver.seen[0].key, json!({"id": 1}));
    assert_eq!(driver.seen[0].topic, "p.public.t");
    assert!(driver.seen[1].after()["n"].is_null());
    let source = &driver.seen[0].value["source"];
    assert_eq!((source["snapshot"].as_str(), source["table"].as_str()), (Some("first"), Some("t")));
    assert_eq!(driver.seen[1].value["source"]["snapshot"], "last");
    server.sql(&format!("INSERT INTO t VALUES {}", ROW.replacen("(1", "(3", 1)));
    driver.until_count(3).await;
    assert_eq!(driver.seen[2].after(), &row(3));
    assert_eq!(driver.ops(), ["r", "r", "c"]);
    assert_eq!(driver.seen[0].schema, driver.seen[2].schema, "snapshot and stream must share one schema");
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_arrives_and_the_slot_follows_the_log() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY, v int, big text)");
    server.sql("ALTER TABLE t ALTER big SET STORAGE EXTERNAL");
    server.sql("INSERT INTO t VALUES (1, 1, repeat('x', 9000))");
    let mut driver = Driver::start(&config(&server.url(), "public.t"), None).await.expect("starts");
    driver.until_count(1).await;
    server.sql("UPDATE t SET v = 2 WHERE id = 1");
    server.sql("UPDATE t SET id = 5 WHERE id = 1");
    server.sql("ALTER TABLE t ADD extra text DEFAULT 'e'");
    server.sql("INSERT INTO t VALUES (2, 1, 'b', 'f'); DELETE FROM t WHERE id = 5");
    server.sql("TRUNCATE t");
    server.sql("INSERT INTO t VALUES (3, 1, 'b', 'g')");
    driver.until_count(9).await;
    assert_eq!(driver.ops(), ["r", "u", "d", "tombstone", "c", "c", "d", "tombstone", "c"]);
    assert_eq!(driver.seen[1].after()["big"], "__debezium_unavailable_value");
    assert_eq!(driver.seen[5].after()["extra"], "f");
    assert_eq!(driver.seen[6].value["before"]["id"], 5);
    let lsn = server.sql("SELECT pg_current_wal_lsn()");
    let follows = format!("SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots");
    driver.until("the slot follows", |_| server.sql(&follows) == "t").await;
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_where_the_log_ends() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let config = config(&server.url(), "public.t");
    let mut driver = Driver::start(&config, None).await.expect("starts");
    // An empty table has no rows, and still ends its snapshot.
    driver.until("the stream", |_| streams(&server)).await;
    server.sql("INSERT INTO t VALUES (0)");
    driver.until_count(1).await;
    let stored = driver.stop().await;
    server.sql("INSERT INTO t SELECT generate_series(1, 20000)");
    let mut driver = Driver::start(&config, stored).await.expect("starts");
    driver.until_count(5000).await;
    let cut = driver.count;
    assert!(cut < 20000, "the transaction must be cut to show anything");
    let stored = driver.crash();
    let mut driver = Driver::start(&config, stored).await.expect("starts");
    driver.until_count(20000 - cut).await;
    let ids: Vec<i64> = driver.seen.iter().filter_map(|seen| seen.after()["id"].as_i64()).collect();
    assert!(ids.iter().copied().eq(cut as i64 + 1..=20000), "cut at {cut}, went on with {:?}", ids.first());
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_the_snapshot_keeps_the_slot_and_sees_every_delete() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, 0 FROM generate_series(1, 100000) g");
    let config = config(&server.url(), "public.t");
    let mut driver = Driver::start(&config, None).await.expect("starts");
    driver.until_count(5000).await;
    assert!(driver.count < 100000, "the snapshot must be cut to show anything");
    let begun = server.sql("SELECT confirmed_flush_lsn FROM pg_replication_slots");
    server.sql("DELETE FROM t WHERE id <= 100; UPDATE t SET v = 1 WHERE id <= 200");
    let before = driver.fold();
    let stored = driver.crash();
    let mut driver = Driver::start(&config, stored).await.expect("starts");
    driver.until_count(99900).await;
    assert_eq!(server.sql("SELECT confirmed_flush_lsn FROM pg_replication_slots"), begun);
    server.sql("INSERT INTO t VALUES (500000, 1)");
    driver.until("the last change", |driver| driver.fold().contains_key("{\"id\":500000}")).await;
    let mut fold = before;
    for seen in &driver.seen {
        match seen.op() {
            "d" | "tombstone" => fold.remove(&seen.key.to_string()),
            _ => fold.insert(seen.key.to_string(), seen.after().clone()),
        };
    }
    assert_eq!(fold.len(), 99901);
    assert_eq!(fold.values().filter(|row| row["v"] == 1).count(), 101);
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wal_of_others_does_not_pile_up() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)");
    let mut driver = Driver::start(&config(&server.url(), "public.t"), None).await.expect("starts");
    driver.until("the stream", |_| streams(&server)).await;
    server.sql("INSERT INTO other SELECT generate_series(1, 50000)");
    let lsn = server.sql("SELECT pg_current_wal_lsn()");
    let follows = format!("SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots");
    driver.until("the slot follows", |_| server.sql(&follows) == "t").await;
    assert_eq!(driver.count, 0);
    // The position was stored first: a restart from it is accepted.
    let stored = driver.stop().await;
    Driver::start(&config(&server.url(), "public.t"), stored).await.expect("starts").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_is_survived() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let mut driver = Driver::start(&config(&server.url(), "public.t"), None).await.expect("starts");
    for (i, mode) in ["fast", "immediate"].into_iter().enumerate() {
        server.sql(&format!("INSERT INTO t SELECT generate_series({0}, {0} + 9)", i * 10));
        driver.until_count(i * 10 + 5).await;
        let stop = tokio::task::spawn_blocking({
            let server = server.handle();
            move || {
                let begun = std::time::Instant::now();
                server.down(mode);
                begun.elapsed()
            }
        });
        while !stop.is_finished() {
            drop(driver.step().await);
        }
        let took = stop.await.expect("stops");
        println!("{mode} took {took:?}");
        assert!(took < std::time::Duration::from_secs(5), "{mode} took {took:?}");
        server.up(&[]);
        driver.until_count((i + 1) * 10).await;
    }
    let ids: Vec<i64> = driver.seen.iter().filter_map(|seen| seen.after()["id"].as_i64()).collect();
    assert_eq!(ids, (0..20).collect::<Vec<_>>());
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stops_in_time_while_the_log_refuses_records() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY, x text)");
    let mut driver = Driver::start(&config(&server.url(), "public.t"), None).await.expect("starts");
    driver.until("the stream", |_| streams(&server)).await;
    driver.acknowledge = false;
    server.sql("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 60000) g");
    driver.until_count(1).await;
    // Nobody polls from here on: the stream is blocked half way.
    let begun = std::time::Instant::now();
    let handle = server.handle();
    tokio::task::spawn_blocking(move || handle.down("fast")).await.expect("stops");
    println!("fast took {:?}", begun.elapsed());
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "took {:?}", begun.elapsed());
    server.up(&[]);
    driver.acknowledge = true;
    driver.until_count(60000).await;
    let ids: Vec<i64> = driver.seen.iter().filter_map(|seen| seen.after()["id"].as_i64()).collect();
    assert!(ids.iter().copied().eq(1..=60000), "{} rows arrived", ids.len());
    driver.stop().await;
}

/// Whether the stream runs; that a slot is active says less, since it is while it is being made.
fn streams(server: &Server) -> bool {
    server.sql("SELECT count(*) FROM pg_stat_replication WHERE state IN ('catchup', 'streaming')") == "1"
}
