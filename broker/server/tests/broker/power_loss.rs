//! The power goes at a random disk operation, under load, again and again.
//!
//! What must hold afterwards: everything acknowledged to `acks=all`, everything a consumer has read and every
//! acknowledged commit is there, unchanged, at its place, once; offsets are dense.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aqueduct_broker::{Broker, BrokerConfig, Handle};
use aqueduct_log::{Fault, MemDisk};
use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::*;
use aqueduct_wire::record_set::RecordSet;
use aqueduct_wire::{BatchBuilder, Bytes};

use crate::client::Client;

const SEEDS: u64 = 12;
const ROUNDS: u64 = 4;

/// What the outside world has been promised so far.
#[derive(Default)]
struct Promises {
    /// Offset → value, acknowledged or read.
    records: BTreeMap<i64, String>,
    /// The latest acknowledged commit.
    committed: i64,
}

impl Promises {
    fn record(&mut self, offset: i64, value: String) {
        if let Some(before) = self.records.insert(offset, value.clone()) {
            assert_eq!(before, value, "offset {offset} changed");
        }
    }
}

async fn start(disk: &MemDisk) -> Handle {
    let config = BrokerConfig {
        data_dir: Path::new("/d").to_owned(),
        listen: "127.0.0.1:0".parse().expect("an address"),
        ..BrokerConfig::default()
    };
    Broker::start_on(Arc::new(disk.clone()), config).await.expect("the broker starts")
}

fn batch(value: &str, producer: Option<(i64, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new();
    if let Some((id, sequence)) = producer {
        builder = builder.producer(id, 0, sequence);
    }
    builder.append(1, Some(b"key"), Some(value.as_bytes()), &[]);
    builder.build().expect("builds")
}

async fn produce(client: &mut Client, records: Bytes, acks: i16) -> Result<i64, ErrorCode> {
    let partition = PartitionProduceData { index: 0, records: Some(RecordSet::from(records)) };
    let topic = TopicProduceData {
        name: "orders".into(),
        partition_data: vec![partition],
        ..TopicProduceData::default()
    };
    let request = ProduceRequest { transactional_id: None, acks, timeout_ms: 5000, topic_data: vec![topic] };
    let answer = client.ask(9, &request).await.responses.remove(0).partition_responses.remove(0);
    ErrorCode::from_code(answer.error_code).ok().map(|()| answer.base_offset)
}

/// The records from `offset` on, and the high watermark.
async fn fetch(client: &mut Client, offset: i64) -> (Vec<(i64, String)>, i64) {
    let partition = FetchPartition {
        partition: 0,
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    let topic = FetchTopic { topic: "orders".into(), partitions: vec![partition], ..FetchTopic::default() };
    let request = FetchRequest { max_wait_ms: 20, min_bytes: 1, topics: vec![topic], ..Default::default() };
    let data = client.ask(11, &request).await.responses.remove(0).partitions.remove(0);
    let mut values = Vec::new();
    if data.error_code == 0 {
        for batch in data.records.as_ref().expect("records").batches() {
            for record in batch.expect("a whole batch").records(1 << 20).expect("reads") {
                let record = record.expect("a whole record");
                let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
                values.push((record.offset, value));
            }
        }
    }
    values.retain(|(at, _)| *at >= offset);
    (values, data.high_watermark)
}

async fn commit(client: &mut Client, offset: i64) -> bool {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: "orders".into(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request =
        OffsetCommitRequest { group_id: "g".into(), topics: vec![topic], ..OffsetCommitRequest::default() };
    client.ask(8, &request).await.topics[0].partitions[0].error_code == 0
}

async fn committed(client: &mut Client) -> i64 {
    let topic = OffsetFetchRequestTopic { name: "orders".into(), partition_indexes: vec![0] };
    let request = OffsetFetchRequest {
        group_id: "g".into(),
        topics: Some(vec![topic]),
        ..OffsetFetchRequest::default()
    };
    let fetched = client.ask(7, &request).await;
    assert_eq!(fetched.error_code, 0);
    fetched.topics[0].partitions[0].committed_offset
}

async fn prepare(broker: &Handle) {
    let mut client = Client::connect(broker).await;
    let config = CreatableTopicConfig {
        // The records carry old timestamps; they must not be retired for that.
        name: "retention.ms".into(),
        value: Some("-1".into()),
    };
    let topic = CreatableTopic {
        name: "orders".into(),
        num_partitions: 1,
        replication_factor: -1,
        configs: vec![config],
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    assert_eq!(client.ask(5, &request).await.topics[0].error_code, 0);
    assert_eq!(committed(&mut client).await, -1);
}

/// Load until the power is gone; what was promised meanwhile.
async fn load(broker: &Handle, tag: &str, promises: &mut Promises) {
    let over = AtomicBool::new(false);
    let (mut a, mut b) = (Client::connect(broker).await, Client::connect(broker).await);
    let (mut c, mut d) = (Client::connect(broker).await, Client::connect(broker).await);
    let careful = async {
        let request = InitProducerIdRequest { transactional_id: None, ..InitProducerIdRequest::default() };
        let id = a.ask(4, &request).await.producer_id;
        let mut acknowledged = Vec::new();
        for at in 0.. {
            let value = format!("careful-{tag}-{at}");
            match produce(&mut a, batch(&value, Some((id, at))), -1).await {
                Ok(offset) => acknowledged.push((offset, value)),
                Err(_) => break,
            }
        }
        over.store(true, Ordering::Release);
        acknowledged
    };
    let careless = async {
        for at in 0.. {
            if produce(&mut b, batch(&format!("careless-{tag}-{at}"), None), 1).await.is_err() {
                break;
            }
        }
    };
    let reader = async {
        let (mut read, mut next) = (Vec::new(), 0);
        while !over.load(Ordering::Acquire) {
            let (values, _) = fetch(&mut c, next).await;
            next = values.last().map_or(next, |(at, _)| at + 1);
            read.extend(values);
        }
        read
    };
    let start = promises.committed;
    let committer = async {
        let mut last = start;
        for offset in start + 1.. {
            if !commit(&mut d, offset).await {
                break;
            }
            last = offset;
        }
        last
    };
    let (acknowledged, (), read, last) = tokio::join!(careful, careless, reader, committer);
    promises.committed = last;
    for (offset, value) in acknowledged.into_iter().chain(read) {
        promises.record(offset, value);
    }
}

async fn check(broker: &Handle, promises: &mut Promises) {
    let mut client = Client::connect(broker).await;
    let (mut next, mut found) = (0, BTreeMap::new());
    loop {
        let (values, high_watermark) = fetch(&mut client, next).await;
        for (offset, value) in values {
            assert_eq!(offset, next, "offsets are dense");
            next += 1;
            found.insert(offset, value);
        }
        if next >= high_watermark {
            break;
        }
    }
    for (offset, value) in &promises.records {
        assert_eq!(found.get(offset), Some(value), "offset {offset}");
    }
    let mut seen = std::collections::HashSet::new();
    assert!(found.values().all(|value| seen.insert(value.clone())), "nothing is doubled");
    // What a commit that was not acknowledged left behind is legal, and binds from now on.
    let committed = committed(&mut client).await;
    assert!(committed >= promises.committed, "commit {} became {committed}", promises.committed);
    promises.committed = committed;
    promises.records = found;
}

#[tokio::test]
async fn promises_survive_the_power_going_at_any_moment() {
    for seed in 0..SEEDS {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % limit
        };
        let mut disk = MemDisk::with_dir("/d");
        let mut promises = Promises { committed: -1, ..Promises::default() };
        prepare(&start(&disk).await).await;
        for round in 0..ROUNDS {
            disk = disk.crash(seed * 31 + round);
            let broker = start(&disk).await;
            check(&broker, &mut promises).await;
            disk.fault_at(disk.operations() + 1 + below(300), Fault::PowerOff);
            load(&broker, &format!("{seed}-{round}"), &mut promises).await;
        }
        let broker = start(&disk.crash(seed)).await;
        check(&broker, &mut promises).await;
    }
}
