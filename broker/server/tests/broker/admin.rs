//! What admin tools ask for: topics, settings, records, groups.

use aqueduct_log::{Fault, MemDisk};
use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::*;

use crate::client::Client;
use crate::support::*;

fn new_topic(name: &str) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions: 1, replication_factor: -1, ..Default::default() }
}

async fn create_with(
    client: &mut Client,
    topics: Vec<CreatableTopic>,
    validate_only: bool,
) -> Vec<ErrorCode> {
    let request = CreateTopicsRequest { topics, validate_only, ..CreateTopicsRequest::default() };
    client.ask(7, &request).await.topics.iter().map(|topic| code(topic.error_code)).collect()
}

#[tokio::test]
async fn topics_are_refused_with_kafkas_codes() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    assert_eq!(create_with(&mut client, vec![new_topic("orders")], true).await, [ErrorCode::None]);
    let metadata = client.ask(9, &metadata_request("orders")).await;
    assert_eq!(code(metadata.topics[0].error_code), ErrorCode::UnknownTopicOrPartition, "only validated");
    let assignment = CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![1] };
    let assigned =
        CreatableTopic { num_partitions: -1, assignments: vec![assignment], ..new_topic("assigned") };
    let config =
        |name: &str, value: &str| CreatableTopicConfig { name: name.into(), value: Some(value.into()) };
    let with_config = |topic: &str, name: &str, value: &str| CreatableTopic {
        configs: vec![config(name, value)],
        ..new_topic(topic)
    };
    let topics = vec![
        assigned.clone(),
        CreatableTopic { num_partitions: 1, ..CreatableTopic { name: "both".into(), ..assigned } },
        CreatableTopic { num_partitions: 0, ..new_topic("none") },
        CreatableTopic { replication_factor: 3, ..new_topic("three") },
        new_topic("a b"),
        new_topic("__consumer_offsets"),
        with_config("unknown", "no.such.setting", "1"),
        with_config("wrong", "retention.ms", "soon"),
    ];
    let expected = [
        ErrorCode::None,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidPartitions,
        ErrorCode::InvalidReplicationFactor,
        ErrorCode::InvalidTopicException,
        ErrorCode::InvalidTopicException,
        ErrorCode::InvalidConfig,
        ErrorCode::InvalidConfig,
    ];
    assert_eq!(create_with(&mut client, topics, false).await, expected);
    let again = create_with(&mut client, vec![new_topic("assigned")], false).await;
    assert_eq!(again, [ErrorCode::TopicAlreadyExists]);
    let twice = create_with(&mut client, vec![new_topic("twice"), new_topic("twice")], false).await;
    assert_eq!(twice, [ErrorCode::InvalidRequest; 2]);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn partitions_can_be_added_and_only_added() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    let add = |name: &str, count| CreatePartitionsTopic { name: name.into(), count, assignments: None };
    for (topics, validate_only, expected) in [
        (vec![add("orders", 3)], true, vec![ErrorCode::None]),
        (vec![add("orders", 1)], false, vec![ErrorCode::InvalidPartitions]),
        (vec![add("orders", 3)], false, vec![ErrorCode::None]),
        (vec![add("orders", 2)], false, vec![ErrorCode::InvalidPartitions]),
        (vec![add("orders", 4), add("orders", 5)], false, vec![ErrorCode::InvalidRequest; 2]),
        (vec![add("nowhere", 4)], false, vec![ErrorCode::UnknownTopicOrPartition]),
    ] {
        let request = CreatePartitionsRequest { topics, validate_only, ..Default::default() };
        let results = client.ask(3, &request).await.results;
        let codes: Vec<ErrorCode> = results.iter().map(|result| code(result.error_code)).collect();
        assert_eq!(codes, expected);
    }
    let metadata = client.ask(9, &metadata_request("orders")).await;
    assert_eq!(metadata.topics[0].partitions.len(), 3);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn topics_are_deleted_by_name_or_by_id_but_not_by_both() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    let id = create(&mut client, "orders", &[]).await.topic_id;
    let by_name = |name: &str| DeleteTopicState { name: Some(name.into()), ..Default::default() };
    let by_id = DeleteTopicState { name: None, topic_id: id };
    let both = DeleteTopicState { name: Some("orders".into()), topic_id: id };
    for (topics, expected) in [
        (vec![both], vec![ErrorCode::InvalidRequest]),
        (vec![by_name("orders"), by_name("orders")], vec![ErrorCode::InvalidRequest; 2]),
        (vec![by_id.clone()], vec![ErrorCode::None]),
        (vec![by_id], vec![ErrorCode::UnknownTopicId]),
        (vec![by_name("orders")], vec![ErrorCode::UnknownTopicOrPartition]),
    ] {
        let request = DeleteTopicsRequest { topics, ..DeleteTopicsRequest::default() };
        let responses = client.ask(6, &request).await.responses;
        let codes: Vec<ErrorCode> = responses.iter().map(|one| code(one.error_code)).collect();
        assert_eq!(codes, expected);
    }
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn settings_change_by_kafkas_four_operations() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[("retention.ms", "5")]).await;
    let change = |name: &str, config_operation, value: Option<&str>| AlterableConfig {
        name: name.into(),
        config_operation,
        value: value.map(Into::into),
    };
    let resource =
        |name: &str, configs| AlterConfigsResource { resource_type: 2, resource_name: name.into(), configs };
    let append = |item| change("cleanup.policy", 2, Some(item));
    for (resources, validate_only, expected) in [
        (vec![resource("orders", vec![append("compact")])], true, vec![ErrorCode::None]),
        (
            vec![resource("orders", vec![append("compact"), change("retention.ms", 1, None)])],
            false,
            vec![ErrorCode::None],
        ),
        (
            vec![resource("orders", vec![change("cleanup.policy", 3, Some("delete"))])],
            false,
            vec![ErrorCode::None],
        ),
        (
            vec![resource("orders", vec![change("retention.ms", 2, Some("1"))])],
            false,
            vec![ErrorCode::InvalidRequest],
        ),
        (
            vec![resource("orders", vec![change("retention.ms", 0, None)])],
            false,
            vec![ErrorCode::InvalidRequest],
        ),
        (
            vec![resource("orders", vec![change("retention.ms", 9, Some("1"))])],
            false,
            vec![ErrorCode::InvalidRequest],
        ),
        (
            vec![resource("orders", vec![change("no.such", 0, Some("1"))])],
            false,
            vec![ErrorCode::InvalidConfig],
        ),
        (
            vec![resource("orders", Vec::new()), resource("orders", Vec::new())],
            false,
            vec![ErrorCode::InvalidRequest; 2],
        ),
        (vec![resource("nowhere", Vec::new())], false, vec![ErrorCode::UnknownTopicOrPartition]),
    ] {
        let request = IncrementalAlterConfigsRequest { resources, validate_only };
        let responses = client.ask(1, &request).await.responses;
        let codes: Vec<ErrorCode> = responses.iter().map(|one| code(one.error_code)).collect();
        assert_eq!(codes, expected);
    }
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: "orders".into(),
        configuration_keys: Some(vec!["cleanup.policy".into(), "retention.ms".into()]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let configs = client.ask(4, &request).await.results.remove(0).configs;
    let values: Vec<_> = configs.iter().map(|one| one.value.as_deref().unwrap_or_default()).collect();
    assert_eq!(values, ["compact", "604800000"]);
    broker.shutdown(DEADLINE).await.expect("stops");
}

async fn delete_records(client: &mut Client, topic: &str, offset: i64) -> DeleteRecordsPartitionResult {
    let partition = DeleteRecordsPartition { partition_index: 0, offset };
    let topic = DeleteRecordsTopic { name: topic.into(), partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 5_000 };
    client.ask(2, &request).await.topics.remove(0).partitions.remove(0)
}

#[tokio::test]
async fn records_are_deleted_for_good_up_to_what_is_flushed() {
    let disk = MemDisk::with_dir("/d");
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "fast", &[("durability", "os")]).await;
    create(&mut client, "positions", &[("cleanup.policy", "compact")]).await;
    for round in 0..20_i64 {
        // Nothing waits for the flush, so that it lags.
        produce(&mut client, "fast", batch(&["a", "b"], None), 1).await;
        let deleted = delete_records(&mut client, "fast", -1).await;
        let expected = 2 * (round + 1);
        assert_eq!((code(deleted.error_code), deleted.low_watermark), (ErrorCode::None, expected));
    }
    produce(&mut client, "fast", batch(&["c", "d"], None), -1).await;
    assert_eq!(delete_records(&mut client, "fast", 41).await.low_watermark, 41);
    for (topic, offset, expected) in [
        ("fast", 43, ErrorCode::OffsetOutOfRange),
        ("fast", -2, ErrorCode::OffsetOutOfRange),
        ("positions", 0, ErrorCode::PolicyViolation),
        ("nowhere", 0, ErrorCode::UnknownTopicOrPartition),
    ] {
        assert_eq!(
            code(delete_records(&mut client, topic, offset).await.error_code),
            expected,
            "{topic} {offset}"
        );
    }
    let disk = disk.crash(1);
    drop((broker, client));
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    let data = fetch(&mut client, "fast", 40).await;
    assert_eq!((code(data.error_code), data.log_start_offset), (ErrorCode::OffsetOutOfRange, 41));
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn offsets_are_listed_by_every_timestamp_that_means_something() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    produce(&mut client, "orders", batch(&["a", "b"], None), -1).await;
    for (version, timestamp, expected, offset) in [
        (1, -1, ErrorCode::None, 2),
        (1, -2, ErrorCode::None, 0),
        (1, 0, ErrorCode::None, 0),
        (1, i64::MAX, ErrorCode::None, -1),
        (6, -3, ErrorCode::UnsupportedVersion, -1),
        (7, -3, ErrorCode::None, 0),
        (8, -4, ErrorCode::None, 0),
        (9, -5, ErrorCode::None, -1),
        (10, -6, ErrorCode::UnsupportedVersion, -1),
        (11, -6, ErrorCode::None, -1),
        (11, -9, ErrorCode::UnsupportedVersion, -1),
    ] {
        let partition = ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() };
        let topic = ListOffsetsTopic { name: "orders".into(), partitions: vec![partition] };
        let request = ListOffsetsRequest { topics: vec![topic], replica_id: -1, ..Default::default() };
        let found = client.ask(version, &request).await.topics.remove(0).partitions.remove(0);
        assert_eq!((code(found.error_code), found.offset), (expected, offset), "v{version} {timestamp}");
    }
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn a_topic_made_again_has_no_offsets_of_the_old_one_even_if_a_crash_cut_its_deletion_short() {
    let mut disk = MemDisk::with_dir("/d");
    // Power is lost at each write of the deletion in turn, until one ends before the fault.
    for at in 1.. {
        let broker = start_on(&disk).await;
        let mut client = Client::connect(&broker).await;
        client.ask(3, &FindCoordinatorRequest { key: "g".into(), ..Default::default() }).await;
        assert_eq!(code(create(&mut client, "orders", &[]).await.error_code), ErrorCode::None, "{at}");
        assert_eq!(committed(&mut client, "g").await, -1, "{at}");
        assert_eq!(commit(&mut client, "g", "", -1, 7).await, ErrorCode::None);
        let last = disk.operations() + at;
        disk.fault_at(last, Fault::PowerOff);
        delete(&mut client, "orders").await;
        let done = !disk.is_off();
        disk = disk.crash(at);
        drop((broker, client));
        let broker = start_on(&disk).await;
        let mut client = Client::connect(&broker).await;
        // A deletion whose record was lost has not happened.
        delete(&mut client, "orders").await;
        assert_eq!(code(create(&mut client, "orders", &[]).await.error_code), ErrorCode::None);
        assert_eq!(committed(&mut client, "g").await, -1, "{at}");
        delete(&mut client, "orders").await;
        broker.shutdown(DEADLINE).await.expect("stops");
        if done {
            return;
        }
    }
}

#[tokio::test]
async fn a_partition_that_a_full_disk_refused_is_made_once_there_is_room() {
    let mut refused = 0;
    for ahead in 1..12 {
        let disk = MemDisk::with_dir("/d");
        let broker = start_on(&disk).await;
        let mut client = Client::connect(&broker).await;
        disk.fault_at(disk.operations() + ahead, Fault::Fail(std::io::ErrorKind::StorageFull));
        let created = create(&mut client, "orders", &[]).await;
        if broker.health().is_err() || code(created.error_code) == ErrorCode::None {
            // A sync that failed takes everything offline; or nothing failed that mattered.
            continue;
        }
        refused += 1;
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            let produced = produce(&mut client, "orders", batch(&["a"], None), -1).await;
            match code(produced.error_code) {
                ErrorCode::None => break,
                code => assert_eq!(code, ErrorCode::KafkaStorageError, "{ahead}: the topic is known"),
            }
            assert!(std::time::Instant::now() < deadline, "{ahead}: {created:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        broker.shutdown(DEADLINE).await.expect("stops");
    }
    assert!(refused > 0, "no operation belonged to the partition");
}

#[tokio::test]
async fn topics_are_described_page_by_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    let topic = |name: &str| CreatableTopic { num_partitions: 3, ..new_topic(name) };
    create_with(&mut client, vec![topic("a"), topic("b")], false).await;
    let mut request = DescribeTopicPartitionsRequest { response_partition_limit: 2, ..Default::default() };
    let mut pages = Vec::new();
    loop {
        let page = client.ask(0, &request).await;
        for topic in &page.topics {
            let partitions: Vec<i32> = topic.partitions.iter().map(|one| one.partition_index).collect();
            pages.push((topic.name.as_deref().unwrap_or_default().to_owned(), partitions));
            assert!(topic.partitions.iter().all(|one| one.eligible_leader_replicas.is_some()));
            assert!(topic.partitions.iter().all(|one| one.last_known_elr.is_some()));
        }
        let Some(next) = page.next_cursor else { break };
        request.cursor =
            Some(PartitionCursor { topic_name: next.topic_name, partition_index: next.partition_index });
    }
    let expected = [("a", vec![0, 1]), ("a", vec![2]), ("b", vec![0]), ("b", vec![1, 2])];
    assert_eq!(pages, expected.map(|(name, partitions)| (name.to_owned(), partitions)));
    let request = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest { name: "nowhere".into() }, TopicRequest { name: "a b".into() }],
        ..DescribeTopicPartitionsRequest::default()
    };
    let codes: Vec<ErrorCode> =
        client.ask(0, &request).await.topics.iter().map(|topic| code(topic.error_code)).collect();
    assert_eq!(codes, [ErrorCode::InvalidTopicException, ErrorCode::UnknownTopicOrPartition]);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn log_directories_show_what_lies_in_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    create(&mut client, "other", &[]).await;
    let records = batch(&["a"], None);
    produce(&mut client, "orders", records.clone(), -1).await;
    let some = DescribableLogDirTopic { topic: "orders".into(), partitions: vec![0, 9] };
    for (topics, count) in [(None, 2), (Some(vec![some]), 1)] {
        let request = DescribeLogDirsRequest { topics };
        let result = client.ask(4, &request).await.results.remove(0);
        assert_eq!(code(result.error_code), ErrorCode::None);
        assert!(result.total_bytes > result.usable_bytes && result.usable_bytes > 0);
        assert_eq!(result.topics.len(), count);
        let orders = result.topics.iter().find(|topic| topic.name == "orders").expect("is there");
        assert_eq!(orders.partitions.len(), 1);
        let partition = &orders.partitions[0];
        assert_eq!((partition.partition_size, partition.offset_lag), (records.len() as i64, 0));
    }
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn committed_offsets_are_deleted_for_good() {
    let disk = MemDisk::with_dir("/d");
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    client.ask(3, &FindCoordinatorRequest { key: "g".into(), ..Default::default() }).await;
    create(&mut client, "orders", &[]).await;
    assert_eq!(commit(&mut client, "g", "", -1, 7).await, ErrorCode::None);
    let partition = |index| OffsetDeleteRequestPartition { partition_index: index };
    let topic =
        OffsetDeleteRequestTopic { name: "orders".into(), partitions: vec![partition(0), partition(5)] };
    let request = OffsetDeleteRequest { group_id: "g".into(), topics: vec![topic] };
    let deleted = client.ask(0, &request).await;
    let codes: Vec<ErrorCode> = deleted.topics[0].partitions.iter().map(|one| code(one.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownTopicOrPartition]);
    assert_eq!(committed(&mut client, "g").await, -1);
    let unknown = client.ask(0, &OffsetDeleteRequest { group_id: "h".into(), ..request }).await;
    assert_eq!(code(unknown.error_code), ErrorCode::GroupIdNotFound);
    let disk = disk.crash(1);
    drop((broker, client));
    let broker = start_on(&disk).await;
    let mut client = Client::connect(&broker).await;
    assert_eq!(committed(&mut client, "g").await, -1);
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn what_one_node_has_none_of_is_said_honestly() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    create(&mut client, "orders", &[]).await;
    let moving = client.ask(0, &ListPartitionReassignmentsRequest::default()).await;
    assert_eq!((code(moving.error_code), moving.topics.len()), (ErrorCode::None, 0));
    let acls = client.ask(3, &DescribeAclsRequest::default()).await;
    assert_eq!(code(acls.error_code), ErrorCode::SecurityDisabled);
    let named = |topic: &str| ElectLeadersTopicPartitions { topic: topic.into(), partitions: vec![0] };
    let topic_partitions = Some(vec![named("orders"), named("nowhere")]);
    let request = ElectLeadersRequest { topic_partitions, ..ElectLeadersRequest::default() };
    let elected = client.ask(2, &request).await;
    let results = elected.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
    let codes: Vec<ErrorCode> = results.map(|one| code(one.error_code)).collect();
    assert_eq!(codes, [ErrorCode::ElectionNotNeeded, ErrorCode::UnknownTopicOrPartition]);
    broker.shutdown(DEADLINE).await.expect("stops");
}
