//! `docs/metrics.md` names every metric there is, and no other.

use std::collections::BTreeSet;

use aqueduct_wire::error_code::ErrorCode;
use prometheus_client::registry::Registry;

use crate::client::Client;
use crate::support::*;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_exists() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    let find = aqueduct_wire::messages::FindCoordinatorRequest { key: "g".into(), ..Default::default() };
    client.ask(3, &find).await;
    produce(&mut client, "orders", batch(&["a", "b", "c"], None), -1).await;
    assert_eq!(commit(&mut client, "g", "", -1, 1).await, ErrorCode::None);
    let beyond = fetch(&mut client, "orders", 9).await;
    assert_eq!(code(beyond.error_code), ErrorCode::OffsetOutOfRange);
    let mut registry = Registry::default();
    broker.register_metrics(&mut registry);
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).expect("renders");

    let typed = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let exposed: BTreeSet<(String, String)> = typed
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    let document = std::fs::read_to_string(DOCUMENT).expect("the document");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `aqueduct_broker_"));
    let documented: BTreeSet<(String, String)> = rows
        .map(|row| {
            let (name, rest) = row.split_once('`').expect("a name");
            let kind = rest.split('|').nth(1).expect("a type").trim();
            (format!("aqueduct_broker_{name}"), kind.to_owned())
        })
        .collect();
    assert_eq!(exposed, documented);
    for series in [
        r#"aqueduct_broker_group_lag{group="g",topic="orders",partition="0"} 2"#,
        r#"aqueduct_broker_log_end_offset{topic="orders",partition="0"} 3"#,
        r#"aqueduct_broker_errors_total{api="Fetch",code="OFFSET_OUT_OF_RANGE"} 1"#,
        r#"aqueduct_broker_request_seconds_count{api="Produce"} 1"#,
        "aqueduct_broker_connections 1",
        "aqueduct_broker_offline_partitions 0",
    ] {
        assert!(page.lines().any(|line| line == series), "{series} is missing in:\n{page}");
    }
    broker.shutdown(DEADLINE).await.expect("stops");
}
