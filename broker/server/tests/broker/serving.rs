//! A broker on port 0, spoken to in raw Kafka frames.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aqueduct_broker::{Broker, BrokerConfig, Handle};
use aqueduct_log::{Disk as _, Fault, MemDisk, OpenMode};
use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::*;
use aqueduct_wire::{BatchBuilder, Bytes};

use crate::client::Client;
use crate::support::*;

#[tokio::test]
async fn what_is_produced_is_fetched_even_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    assert_eq!(code(create(&mut client, "orders", &[]).await.error_code), ErrorCode::None);
    for (at, values) in [["a", "b"], ["c", "d"]].iter().enumerate() {
        let produced = produce(&mut client, "orders", batch(values, None), -1).await;
        assert_eq!((code(produced.error_code), produced.base_offset), (ErrorCode::None, 2 * at as i64));
    }
    let cluster = broker.cluster_id().to_owned();
    drop(client);
    broker.shutdown(DEADLINE).await.expect("stops");

    let broker = start(dir.path()).await;
    assert_eq!(broker.cluster_id(), cluster);
    let mut client = Client::connect(&broker).await;
    let data = fetch(&mut client, "orders", 1).await;
    let expected = [(0, "a"), (1, "b"), (2, "c"), (3, "d")].map(|(offset, text)| (offset, text.to_owned()));
    assert_eq!(values(&data), expected, "whole batches");
    assert_eq!(data.high_watermark, 4);
    let beyond = fetch(&mut client, "orders", 5).await;
    assert_eq!(code(beyond.error_code), ErrorCode::OffsetOutOfRange);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn a_replayed_batch_gets_its_first_offset_and_is_not_appended_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    let id = client.ask(4, &no_transactions()).await;
    assert_eq!((code(id.error_code), id.producer_epoch), (ErrorCode::None, 0));
    let first = batch(&["a", "b"], Some((id.producer_id, 0, 0)));
    let second = batch(&["c"], Some((id.producer_id, 0, 2)));
    for (records, offset) in [(&first, 0), (&second, 2), (&first, 0), (&second, 2)] {
        let produced = produce(&mut client, "orders", records.clone(), -1).await;
        assert_eq!((code(produced.error_code), produced.base_offset), (ErrorCode::None, offset));
    }
    let gap = produce(&mut client, "orders", batch(&["x"], Some((id.producer_id, 0, 9))), -1).await;
    assert_eq!(code(gap.error_code), ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(values(&fetch(&mut client, "orders", 0).await).len(), 3);
    let other = client.ask(4, &no_transactions()).await;
    assert_ne!(other.producer_id, id.producer_id);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_with_the_power_and_leader_epochs_rise() {
    let mut disk = MemDisk::with_dir("/d");
    let mut expected = Vec::new();
    for round in 0..6_u64 {
        let broker = start_on(&disk).await;
        let mut client = Client::connect(&broker).await;
        if round == 0 {
            create(&mut client, "orders", &[]).await;
        } else {
            let data = fetch(&mut client, "orders", 0).await;
            assert_eq!(values(&data), expected, "round {round}");
        }
        let metadata = client.ask(9, &metadata_request("orders")).await;
        assert_eq!(metadata.topics[0].partitions[0].leader_epoch, i32::try_from(round).expect("small"));
        let value = format!("value-{round}");
        let produced = produce(&mut client, "orders", batch(&[&value], None), -1).await;
        assert_eq!(code(produced.error_code), ErrorCode::None);
        expected.push((produced.base_offset, value));
        // Not acknowledged: may be there or not, but is never half there.
        let (next, _) = (broker, client);
        disk = disk.crash(round);
        drop(next);
    }
}

#[tokio::test]
async fn garbage_closes_its_connection_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut good = Client::connect(&broker).await;
    create(&mut good, "orders", &[]).await;
    let inputs: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[255; 64],
        &[0, 0, 0, 4, 0, 0, 0, 0],
        // An unknown API, a version that is not served, and a body that is no body.
        &[0, 0, 0, 10, 3, 231, 0, 0, 0, 0, 0, 1, 255, 255],
        &[0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 255, 255],
        &[0, 0, 0, 14, 0, 3, 0, 4, 0, 0, 0, 1, 255, 255, 127, 255, 255, 255],
    ];
    for input in inputs {
        let mut bad = Client::connect(&broker).await;
        bad.send_raw(input).await;
        assert!(bad.is_closed().await, "{input:?}");
    }
    let produced = produce(&mut good, "orders", batch(&["a"], None), 1).await;
    assert_eq!(code(produced.error_code), ErrorCode::None);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn a_broken_batch_is_refused_with_a_code_that_clients_understand() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[("max.message.bytes", "200")]).await;
    create(&mut client, "positions", &[("cleanup.policy", "compact")]).await;
    let good = batch(&["a"], None);
    let mut flipped = good.to_vec();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let mut old = good.to_vec();
    old[16] = 1;
    let large = batch(&["x".repeat(300).as_str()], None);
    let mut keyless = BatchBuilder::new();
    keyless.append(0, None, Some(b"v"), &[]);
    let keyless = keyless.build().expect("builds");
    let twice = [&good[..], &good[..]].concat();
    for (topic, records, expected) in [
        ("orders", flipped.into(), ErrorCode::CorruptMessage),
        ("orders", old.into(), ErrorCode::UnsupportedForMessageFormat),
        ("orders", large, ErrorCode::MessageTooLarge),
        ("orders", twice.into(), ErrorCode::InvalidRecord),
        ("orders", good.slice(..20), ErrorCode::CorruptMessage),
        ("orders", Bytes::new(), ErrorCode::CorruptMessage),
        ("positions", keyless, ErrorCode::InvalidRecord),
        ("nowhere", good.clone(), ErrorCode::UnknownTopicOrPartition),
    ] {
        let produced = produce(&mut client, topic, records, -1).await;
        assert_eq!(code(produced.error_code), expected, "{topic}");
    }
    let acks = produce(&mut client, "orders", good, 7).await;
    assert_eq!(code(acks.error_code), ErrorCode::InvalidRequiredAcks);
    assert_eq!(fetch(&mut client, "orders", 0).await.high_watermark, 0, "nothing was appended");
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn answers_come_in_order_and_a_waiting_fetch_does_not_stop_what_follows_from_being_appended() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    // The fetch waits for data that only the produce behind it on the same connection brings.
    let waiting = client.send(11, &fetch_request("orders", 0, 20_000)).await;
    let producing = client.send(9, &produce_request("orders", batch(&["a"], None), 1)).await;
    let fetched = client.receive::<FetchRequest>(11, waiting).await;
    assert_eq!(values(&fetched.responses[0].partitions[0]).len(), 1);
    let produced = client.receive::<ProduceRequest>(9, producing).await;
    assert_eq!(produced.responses[0].partition_responses[0].base_offset, 0);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn a_group_keeps_its_offsets_over_a_power_loss() {
    let disk = MemDisk::with_dir("/d");
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    let coordinator = client.ask(3, &FindCoordinatorRequest { key: "g".into(), ..Default::default() }).await;
    assert_eq!((code(coordinator.error_code), coordinator.node_id), (ErrorCode::None, 1));
    let joined = join(&mut client, "g", "connect").await;
    assert_eq!((code(joined.error_code), joined.generation_id), (ErrorCode::None, 1));
    let member = joined.member_id.clone();
    let assignment = SyncGroupRequestAssignment {
        member_id: member.clone(),
        assignment: Bytes::from_static(b"everything"),
    };
    let sync = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: member.clone(),
        assignments: vec![assignment],
        ..SyncGroupRequest::default()
    };
    assert_eq!(client.ask(3, &sync).await.assignment, "everything");
    assert_eq!(commit(&mut client, "g", &member, 1, 42).await, ErrorCode::None);
    assert_eq!(commit(&mut client, "g", &member, 9, 43).await, ErrorCode::IllegalGeneration);
    assert_eq!(committed(&mut client, "g").await, 42);

    let disk = disk.crash(3);
    drop((broker, client));
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    assert_eq!(committed(&mut client, "g").await, 42);
    assert_eq!(committed(&mut client, "never seen").await, -1);
    // The member is still in its generation.
    let heartbeat = HeartbeatRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: member.clone(),
        ..HeartbeatRequest::default()
    };
    assert_eq!(code(client.ask(3, &heartbeat).await.error_code), ErrorCode::None);
    assert_eq!(commit(&mut client, "g", &member, 1, 50).await, ErrorCode::None);
    assert_eq!(committed(&mut client, "g").await, 50);
}

#[tokio::test]
async fn topics_are_created_checked_and_deleted_with_everything_in_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    let made = create(&mut client, "orders", &[("retention.ms", "1000")]).await;
    let configs: BTreeMap<String, i8> = made
        .configs
        .expect("never null")
        .iter()
        .map(|one| (one.name.to_string(), one.config_source))
        .collect();
    assert_eq!((configs["retention.ms"], configs["segment.bytes"]), (1, 5));
    assert_eq!(code(create(&mut client, "orders", &[]).await.error_code), ErrorCode::TopicAlreadyExists);
    assert_eq!(code(create(&mut client, "a/b", &[]).await.error_code), ErrorCode::InvalidTopicException);
    assert_eq!(code(create(&mut client, "c", &[("x", "1")]).await.error_code), ErrorCode::InvalidConfig);

    produce(&mut client, "orders", batch(&["old"], None), -1).await;
    let delete = DeleteTopicsRequest { topic_names: vec!["orders".into()], ..DeleteTopicsRequest::default() };
    assert_eq!(code(client.ask(5, &delete).await.responses[0].error_code), ErrorCode::None);
    let gone = client.ask(9, &metadata_request("orders")).await;
    assert_eq!(code(gone.topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
    let again = create(&mut client, "orders", &[]).await;
    assert_ne!(again.topic_id, made.topic_id);
    assert_eq!(fetch(&mut client, "orders", 0).await.high_watermark, 0, "nothing of the old topic");
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn topics_come_into_being_on_demand_only_when_the_request_allows_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    let refused = client.ask(9, &metadata_request("orders")).await;
    assert_eq!(code(refused.topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
    let request = MetadataRequest { allow_auto_topic_creation: true, ..metadata_request("orders") };
    let made = client.ask(9, &request).await;
    assert_eq!((code(made.topics[0].error_code), made.topics[0].partitions.len()), (ErrorCode::None, 1));
    let wrong = MetadataRequest { allow_auto_topic_creation: true, ..metadata_request("or ders") };
    assert_eq!(code(client.ask(9, &wrong).await.topics[0].error_code), ErrorCode::InvalidTopicException);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn a_second_broker_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let refused = Broker::start(config(dir.path())).await.err().expect("refused");
    assert!(refused.to_string().contains("in use by process"), "{refused}");
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn a_client_from_the_future_gets_the_list_of_apis() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    client.send_raw(&[0, 0, 0, 11, 0, 18, 0, 99, 0, 0, 0, 77, 255, 255, 0]).await;
    let list = client.receive::<ApiVersionsRequest>(0, 77).await;
    assert_eq!(code(list.error_code), ErrorCode::UnsupportedVersion);
    let produce = list.api_keys.iter().find(|one| one.api_key == 0).expect("produce is there");
    assert_eq!(produce.min_version, 0);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn a_full_disk_refuses_producers_and_keeps_what_is_there() {
    let disk = MemDisk::with_dir("/d");
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    let produced = produce(&mut client, "orders", batch(&["a"], None), -1).await;
    assert_eq!(code(produced.error_code), ErrorCode::None);
    disk.fault_next(Fault::PartWriteThenFail(std::io::ErrorKind::StorageFull));
    let refused = produce(&mut client, "orders", batch(&["b"], None), -1).await;
    assert_eq!(code(refused.error_code), ErrorCode::KafkaStorageError);
    let after = produce(&mut client, "orders", batch(&["c"], None), -1).await;
    assert_eq!((code(after.error_code), after.base_offset), (ErrorCode::None, 1), "there is room again");
    let data = fetch(&mut client, "orders", 0).await;
    assert_eq!(values(&data), [(0, "a".to_owned()), (1, "c".to_owned())]);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn after_a_failed_fsync_nothing_is_acknowledged_until_the_restart() {
    let disk = MemDisk::with_dir("/d");
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    produce(&mut client, "orders", batch(&["first"], None), -1).await;
    disk.break_sync();
    for _ in 0..2 {
        let refused = produce(&mut client, "orders", batch(&["a"], None), -1).await;
        assert_eq!(code(refused.error_code), ErrorCode::KafkaStorageError);
    }
    assert!(broker.health().is_err());
    let data = fetch(&mut client, "orders", 0).await;
    assert_eq!(code(data.error_code), ErrorCode::KafkaStorageError);
    assert!(broker.shutdown(DEADLINE).await.is_err());
}

#[tokio::test]
async fn a_corrupt_partition_is_offline_and_the_others_serve() {
    let disk = MemDisk::with_dir("/d");
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    for topic in ["good", "bad"] {
        create(&mut client, topic, &[]).await;
        for value in ["a", "b"] {
            produce(&mut client, topic, batch(&[value], None), -1).await;
        }
    }
    drop(client);
    // Without a clean stop the whole log is looked at; what was flushed before the last second must not be cut.
    broker.shutdown(DEADLINE).await.expect("stops");
    let path = Path::new("/d/bad-0/00000000000000000000.log");
    disk.flip(path, 20, 1).expect("the segment is there");
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    let data = fetch(&mut client, "bad", 0).await;
    if code(data.error_code) == ErrorCode::None {
        // The file of a clean stop is believed; a client that checks the CRC, as all do, finds the damage.
        let mut batches = data.records.expect("records").batches();
        assert!(batches.any(|batch| batch.is_err()), "damage is never handed out as good");
    } else {
        assert_eq!(code(data.error_code), ErrorCode::KafkaStorageError);
    }
    assert_eq!(values(&fetch(&mut client, "good", 0).await).len(), 2);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn a_damaged_partition_is_repaired_on_the_operators_word() {
    let disk = MemDisk::with_dir("/d");
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "bad", &[]).await;
    for value in ["a", "b"] {
        produce(&mut client, "bad", batch(&[value], None), -1).await;
    }
    drop(client);
    broker.shutdown(DEADLINE).await.expect("stops");
    let segment = Path::new("/d/bad-0/00000000000000000000.log");
    let size = disk.open(segment, OpenMode::Read).and_then(|file| file.len()).expect("the segment is there");
    disk.flip(segment, size - 1, 1).expect("flips");
    // As after a crash: what the checkpoint covers is read again.
    disk.remove_file(Path::new("/d/clean-shutdown")).expect("it stopped cleanly");

    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    let offline = fetch(&mut client, "bad", 0).await;
    assert_eq!(code(offline.error_code), ErrorCode::KafkaStorageError);
    drop(client);
    broker.shutdown(DEADLINE).await.expect("stops");

    let repairing =
        |name: &str| BrokerConfig { repair_partitions: vec![name.to_owned()], ..config(Path::new("/d")) };
    for unknown in ["bad-1", "good-0", "bad"] {
        let refused = Broker::start_on(Arc::new(disk.clone()), repairing(unknown)).await.err();
        assert!(refused.expect("refused").to_string().contains(&format!("`{unknown}`")));
    }
    let broker = Broker::start_on(Arc::new(disk.clone()), repairing("bad-0")).await.expect("starts");
    let mut client = Client::connect(&broker).await;
    assert_eq!(values(&fetch(&mut client, "bad", 0).await), [(0, "a".to_owned())]);
    let produced = produce(&mut client, "bad", batch(&["c"], None), -1).await;
    assert_eq!((code(produced.error_code), produced.base_offset), (ErrorCode::None, 1));
    let kept = Path::new("/d/bad-0/00000000000000000000.cut");
    assert!(disk.exists(kept).expect("the disk answers"), "what was cut is kept");
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn with_durability_os_the_log_end_can_be_read_without_an_fsync() {
    let disk = MemDisk::with_dir("/d");
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "fast", &[("durability", "os")]).await;
    // The first append of a leader epoch writes it down.
    produce(&mut client, "fast", batch(&["first"], None), -1).await;
    disk.break_sync();
    let produced = produce(&mut client, "fast", batch(&["a"], None), -1).await;
    assert_eq!(code(produced.error_code), ErrorCode::None);
    assert_eq!(fetch(&mut client, "fast", 0).await.high_watermark, 2);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_clients_that_wait() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    let waiting = client.send(11, &fetch_request("orders", 0, 60_000)).await;
    let mut idle = Client::connect(&broker).await;
    // The request is on its way; only one that has arrived is owed an answer.
    while !metrics(&broker).contains("requests_total{api=\"Fetch\"} 1") {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(DEADLINE / 2, broker.shutdown(DEADLINE)).await.expect("in time").expect("stops");
    client.receive::<FetchRequest>(11, waiting).await;
    assert!(idle.is_closed().await);
}

fn metrics(broker: &Handle) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    broker.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
    text
}

#[tokio::test]
async fn metrics_say_what_was_done() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    produce(&mut client, "orders", batch(&["a"], None), -1).await;
    let text = metrics(&broker);
    for line in [
        "aqueduct_broker_requests_total{api=\"Produce\"} 1",
        "aqueduct_broker_appended_batches_total 1",
        "aqueduct_broker_partitions 1",
        "aqueduct_broker_log_bytes{topic=\"orders\"} ",
        "aqueduct_broker_fsync_seconds_bucket{le=\"+Inf\"} ",
    ] {
        assert!(text.contains(line), "`{line}` is missing in\n{text}");
    }
    broker.shutdown(DEADLINE).await.expect("stops");
}
