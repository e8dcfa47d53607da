//! Tables of every shape: partitions, filters, column lists, odd names, no key.

use serde_json::json;

use crate::driver::{Driver, config};
use crate::server::{Server, installed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partitioned_table_is_one_topic() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE m (id int, d int, PRIMARY KEY (id, d)) PARTITION BY RANGE (d)");
    server.sql("CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10)");
    server.sql("CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20)");
    server.sql("INSERT INTO m VALUES (1, 1), (2, 11)");
    let mut driver = Driver::start(&config(&server.url(), "public.m"), None).await.expect("starts");
    driver.until_count(2).await;
    server.sql("INSERT INTO m VALUES (3, 12)");
    driver.until_count(3).await;
    assert!(driver.seen.iter().all(|seen| seen.topic == "p.public.m"), "{:?}", driver.seen);
    assert_eq!(driver.seen[2].key, json!({"id": 3, "d": 12}));
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filter_and_column_list_of_the_publication_hold_for_the_snapshot_too() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    if server.sql("SELECT current_setting('server_version_num')::int < 150000") == "t" {
        println!("NOT RUN: postgres: row filters need PostgreSQL 15");
        return;
    }
    server.sql("CREATE TABLE t (id int PRIMARY KEY, secret text, shown text, g int GENERATED ALWAYS AS (id + 1) STORED)");
    server.sql("CREATE PUBLICATION s FOR TABLE t (id, shown) WHERE (id > 1)");
    server.sql("INSERT INTO t VALUES (1, 'a', 'b'), (2, 'c', 'd')");
    let mut driver = Driver::start(&config(&server.url(), "public.*"), None).await.expect("starts");
    driver.until_count(1).await;
    server.sql("INSERT INTO t VALUES (0, 'a', 'b'), (3, 'e', 'f')");
    driver.until_count(2).await;
    assert_eq!(driver.seen[0].after(), &json!({"id": 2, "shown": "d"}));
    assert_eq!(driver.seen[1].after(), &json!({"id": 3, "shown": "f"}));
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_and_whole_old_rows() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE SCHEMA \"Odd\"; CREATE TABLE \"Odd\".\"a \"\"b\" (\"Id\" int, \"x'y\" text)");
    server.sql("ALTER TABLE \"Odd\".\"a \"\"b\" REPLICA IDENTITY FULL; INSERT INTO \"Odd\".\"a \"\"b\" VALUES (1, 'x')");
    let mut config = config(&server.url(), "Odd.*");
    config.insert("publication.name".to_owned(), "My 'Pub".to_owned());
    let mut driver = Driver::start(&config, None).await.expect("starts");
    driver.until_count(1).await;
    server.sql("UPDATE \"Odd\".\"a \"\"b\" SET \"x'y\" = 'z'; DELETE FROM \"Odd\".\"a \"\"b\"");
    driver.until_count(3).await;
    assert_eq!(driver.ops(), ["r", "u", "d"]);
    assert_eq!(driver.seen[1].value["before"], json!({"Id": 1, "x'y": "x"}));
    assert_eq!(driver.seen[1].after(), &json!({"Id": 1, "x'y": "z"}));
    assert!(driver.seen.iter().all(|seen| seen.key.is_null() && seen.topic == "p.Odd.a__b"));
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_made_beforehand_is_never_streamed_from_without_a_snapshot() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION s FOR TABLE t",
    );
    server.sql("SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    server.sql("INSERT INTO t VALUES (2)");
    let mut driver = Driver::start(&config(&server.url(), "t"), None).await.expect("starts");
    driver.until_count(3).await;
    assert_eq!(driver.ops(), ["r", "r", "c"]);
    driver.stop().await;

    server.sql("CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)");
    let mut never = config(&server.url(), "u");
    never.insert("snapshot.mode".to_owned(), "never".to_owned());
    never.insert("slot.name".to_owned(), "s2".to_owned());
    let mut driver = Driver::start(&never, None).await.expect("starts");
    server.sql("INSERT INTO u VALUES (2)");
    driver.until_count(1).await;
    assert_eq!(driver.seen[0].key, json!({"id": 2}));
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_tables_are_read_by_several_threads() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    for table in ["a", "b", "c"] {
        server.sql(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY); INSERT INTO {table} SELECT generate_series(1, 5000)"
        ));
    }
    let mut config = config(&server.url(), "public.a, public.b, public.c");
    config.insert("snapshot.max.threads".to_owned(), "3".to_owned());
    let mut driver = Driver::start(&config, None).await.expect("starts");
    driver.until_count(15000).await;
    for table in ["a", "b", "c"] {
        let topic = format!("p.public.{table}");
        assert_eq!(driver.seen.iter().filter(|seen| seen.topic == topic).count(), 5000);
    }
    driver.stop().await;
}

/// The statements of `docs/postgres.md`: all that the role may do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_privileges_are_enough_with_what_a_dba_made() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, v text, mood text); CREATE TABLE shop.secret (id int)");
    server.sql("INSERT INTO shop.orders VALUES (1, 'a', 'x')");
    server.sql(
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE CREATE, TEMPORARY ON DATABASE postgres FROM PUBLIC",
    );
    server.sql("CREATE ROLE aqueduct LOGIN REPLICATION PASSWORD 'a'; GRANT USAGE ON SCHEMA shop TO aqueduct");
    server.sql("GRANT SELECT ON shop.orders TO aqueduct; CREATE PUBLICATION orders FOR TABLE shop.orders");
    server.sql("SELECT pg_create_logical_replication_slot('orders', 'pgoutput')");
    let url = server.url().replace("postgres:correct%20horse", "aqueduct:a");
    let mut config = config(&url, "shop.orders");
    for (key, value) in [
        ("slot.name", "orders"),
        ("slot.create", "false"),
        ("publication.name", "orders"),
        ("publication.autocreate.mode", "disabled"),
        ("snapshot.max.threads", "2"),
    ] {
        config.insert(key.to_owned(), value.to_owned());
    }
    let mut driver = Driver::start(&config, None).await.expect("starts");
    driver.until_count(1).await;
    server.sql("INSERT INTO shop.orders VALUES (2, 'b', 'y'); UPDATE shop.orders SET v = 'c' WHERE id = 1; DELETE FROM shop.orders WHERE id = 2");
    driver.until_count(5).await;
    assert_eq!(driver.ops(), ["r", "c", "u", "d", "tombstone"]);
    let stored = driver.stop().await;
    server.sql("ALTER TABLE shop.orders ADD extra int; INSERT INTO shop.orders VALUES (3, 'd', 'z', 7)");
    let mut driver = Driver::start(&config, stored).await.expect("starts");
    driver.until_count(1).await;
    assert_eq!(driver.seen[0].after(), &json!({"id": 3, "v": "d", "mood": "z", "extra": 7}));
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_topics_of_their_own_without_the_root() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE m (id int, d int, PRIMARY KEY (id, d)) PARTITION BY RANGE (d)");
    server.sql("CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10)");
    server.sql("CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20)");
    server.sql("INSERT INTO m VALUES (1, 1)");
    let mut config = config(&server.url(), "public.m");
    config.insert("publish.via.partition.root".to_owned(), "false".to_owned());
    let mut driver = Driver::start(&config, None).await.expect("starts");
    driver.until_count(1).await;
    server.sql("UPDATE m SET d = 11 WHERE id = 1");
    driver.until_count(4).await;
    assert_eq!(driver.ops(), ["r", "d", "tombstone", "c"]);
    let topics: Vec<&str> = driver.seen.iter().map(|seen| seen.topic.as_str()).collect();
    assert_eq!(topics, ["p.public.m1", "p.public.m1", "p.public.m1", "p.public.m2"]);
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_table_is_read_in_parts_and_each_row_once() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY, x text); INSERT INTO t SELECT g, repeat('x', 900) FROM generate_series(1, 30000) g");
    server.sql("DELETE FROM t WHERE id % 10 = 0; CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (-1), (-2)");
    let mut config = config(&server.url(), "public.*");
    config.insert("snapshot.max.threads".to_owned(), "3".to_owned());
    let mut driver = Driver::start(&config, None).await.expect("starts");
    driver.until_count(27002).await;
    driver
        .until("the stream", |_| {
            server.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1"
        })
        .await;
    assert_eq!((driver.count, driver.fold().len()), (27002, 27002));
    let words =
        |word: &str| driver.seen.iter().filter(|seen| seen.value["source"]["snapshot"] == word).count();
    assert_eq!((words("first"), words("last"), words("true")), (1, 1, 26998));
    assert_eq!((words("first_in_data_collection"), words("last_in_data_collection")), (1, 1));
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_null_from_before_not_null_stops_nothing() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)");
    let config = config(&server.url(), "public.t");
    let mut driver = Driver::start(&config, None).await.expect("starts");
    driver.until_count(1).await;
    server.sql("INSERT INTO t VALUES (2, 2)");
    driver.until_count(2).await;
    let stored = driver.stop().await;
    server.sql("INSERT INTO t VALUES (3, NULL)");
    server.sql("UPDATE t SET v = 5 WHERE id = 3; ALTER TABLE t ALTER v SET NOT NULL");
    let mut driver = Driver::start(&config, stored).await.expect("starts");
    driver.until_count(2).await;
    assert_eq!((driver.ops(), &driver.seen[0].after()["v"]), (vec!["c", "u"], &json!(0)));
    assert_eq!(driver.seen[1].after()["v"], 5);
    driver.stop().await;
}
