//! A plain connection that speaks the Kafka protocol, one request at a time: it ends when the broker ends, and never
//! tries again behind the test's back, as a client library does.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aqueduct_wire::frame::{decode_response, encode_request};
use aqueduct_wire::messages::{
    FetchPartition, FetchRequest, FetchTopic, OffsetCommitRequest, OffsetCommitRequestPartition,
    OffsetCommitRequestTopic, PartitionProduceData, ProduceRequest, TopicProduceData,
};
use aqueduct_wire::{RecordSet, RequestMessage};
use bytes::Bytes;

/// A connection.
pub struct Raw {
    stream: TcpStream,
    correlation: i32,
}

impl Raw {
    /// Connects.
    pub fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream, correlation: 0 })
    }

    /// How long an answer may take from now on.
    pub fn wait_up_to(&self, limit: Duration) -> Result<()> {
        Ok(self.stream.set_read_timeout(Some(limit))?)
    }

    /// Sends a request and waits for its answer.
    pub fn call<R: RequestMessage>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        self.correlation += 1;
        let frame = encode_request(version, self.correlation, None, request)?;
        self.stream.write_all(&frame.to_bytes())?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).context("the broker closed the connection")?;
        let mut body = vec![0; usize::try_from(i32::from_be_bytes(size))?];
        self.stream.read_exact(&mut body)?;
        let (correlation, response) = decode_response::<R>(version, Bytes::from(body))?;
        ensure!(correlation == self.correlation, "answer {correlation} to request {}", self.correlation);
        Ok(response)
    }

    /// Commits an offset of a group without members; `Ok` means acknowledged.
    pub fn commit(&mut self, group: &str, topic: &str, partition: i32, offset: i64) -> Result<()> {
        self.commit_many(group, topic, partition..partition + 1, offset)
    }

    /// Commits the same offset of several partitions in one request.
    pub fn commit_many(
        &mut self,
        group: &str,
        topic: &str,
        partitions: std::ops::Range<i32>,
        offset: i64,
    ) -> Result<()> {
        let partitions = partitions.map(|partition_index| OffsetCommitRequestPartition {
            partition_index,
            committed_offset: offset,
            committed_leader_epoch: -1,
            ..Default::default()
        });
        let partitions = partitions.collect();
        let topics = vec![OffsetCommitRequestTopic { name: topic.into(), partitions, ..Default::default() }];
        let request = OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: -1,
            topics,
            ..Default::default()
        };
        let answer = self.call(8, &request)?;
        let answers = &answer.topics.first().context("no answer")?.partitions;
        ensure!(!answers.is_empty(), "no answer");
        for answer in answers {
            let code = answer.error_code;
            ensure!(
                code == 0,
                "the commit of partition {} was answered with error {code}",
                answer.partition_index
            );
        }
        Ok(())
    }

    /// Appends a batch with `acks=all`; returns its error code and offset.
    pub fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> Result<(i16, i64)> {
        let answer = self.call(9, &produce(topic, partition, batch))?;
        let topic = answer.responses.first().context("no topic in the answer")?;
        let partition = topic.partition_responses.first().context("no partition in the answer")?;
        Ok((partition.error_code, partition.base_offset))
    }

    /// The batches from `offset` on that are there now.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> Result<Bytes> {
        let answer = self.call(11, &fetch(topic, partition, offset))?;
        let topic = answer.responses.first().context("no topic in the answer")?;
        let partition = topic.partitions.first().context("no partition in the answer")?;
        ensure!(partition.error_code == 0, "the fetch was answered with error {}", partition.error_code);
        Ok(partition.records.as_ref().map(RecordSet::to_bytes).unwrap_or_default())
    }
}

/// A request that appends a batch with `acks=all`.
pub fn produce(topic: &str, partition: i32, batch: Bytes) -> ProduceRequest {
    let data = PartitionProduceData { index: partition, records: Some(batch.into()) };
    let topic =
        TopicProduceData { name: topic.into(), partition_data: vec![data], ..TopicProduceData::default() };
    ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data: vec![topic], ..ProduceRequest::default() }
}

/// A request for all there is from `offset` on, without waiting for more.
pub fn fetch(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    let partition = FetchPartition {
        partition,
        fetch_offset: offset,
        partition_max_bytes: i32::MAX,
        ..FetchPartition::default()
    };
    let topic = FetchTopic { topic: topic.into(), partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest { topics: vec![topic], ..FetchRequest::default() }
}
