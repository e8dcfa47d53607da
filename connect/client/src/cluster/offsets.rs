//! First and last offsets of partitions, and the one at a time.

use std::collections::BTreeMap;

use aqueduct_core::sink::TopicPartition;
use aqueduct_core::{Error, Result, Topic};
use aqueduct_wire::messages::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};

use super::{Cluster, Refused, To, is_moving};

/// Which offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The first one that is there.
    First,
    /// The one after the last.
    End,
    /// The one after the last that is not part of an open transaction.
    CommittedEnd,
    /// The first with this timestamp or a later one, in milliseconds since 1970.
    At(i64),
}

impl OffsetQuery {
    fn timestamp(self) -> i64 {
        match self {
            OffsetQuery::First => -2,
            OffsetQuery::End | OffsetQuery::CommittedEnd => -1,
            // The smaller ones have meanings of their own.
            OffsetQuery::At(timestamp) => timestamp.max(0),
        }
    }
}

/// An offset that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The offset; `None`: no record has this time or a later one.
    pub offset: Option<i64>,
    /// Timestamp of the record at it, where one was asked for by time.
    pub timestamp: Option<i64>,
}

impl Cluster {
    /// One offset of each partition.
    pub async fn offsets(
        &mut self,
        partitions: &[TopicPartition],
        query: OffsetQuery,
    ) -> Result<BTreeMap<TopicPartition, Result<Found, Refused>>> {
        let deadline = self.deadline();
        let mut done: BTreeMap<TopicPartition, Result<Found, Refused>> = BTreeMap::new();
        loop {
            let is_open = |tp: &&TopicPartition| match done.get(tp) {
                Some(Err(refused)) => is_moving(refused.code),
                Some(Ok(_)) => false,
                None => true,
            };
            let open: Vec<TopicPartition> = partitions.iter().filter(is_open).cloned().collect();
            for (leader, partitions) in self.by_leader(&open).await? {
                let request = request(&partitions, query);
                // Version 1 and later answer with one offset.
                let response = self.call(To::Node(leader), &request, 1..=10, deadline).await?;
                for topic in &response.topics {
                    let name = Topic::from(&*topic.name);
                    for p in &topic.partitions {
                        let tp = TopicPartition { topic: Topic::clone(&name), partition: p.partition_index };
                        let known = |number: i64| Some(number).filter(|number| *number >= 0);
                        let found = Found { offset: known(p.offset), timestamp: known(p.timestamp) };
                        done.insert(tp, Refused::check(p.error_code, None).map(|()| found));
                    }
                }
            }
            let moving = done
                .values()
                .find_map(|result| result.as_ref().err().filter(|refused| is_moving(refused.code)).cloned());
            match moving {
                Some(refused) => self.pause(&refused, deadline, "reading offsets").await?,
                None => return Ok(done),
            }
        }
    }

    /// One offset of each partition, all of which must answer.
    pub async fn all_offsets(
        &mut self,
        partitions: &[TopicPartition],
        query: OffsetQuery,
    ) -> Result<BTreeMap<TopicPartition, Found>> {
        let found = self.offsets(partitions, query).await?;
        let each = found.into_iter().map(|(tp, found)| match found {
            Ok(found) => Ok((tp, found)),
            Err(refused) => Err(refused.into_error(format_args!("reading an offset of `{tp}`"))),
        });
        each.collect()
    }

    /// Partitions by the broker that leads them, in order.
    pub(super) async fn by_leader(
        &mut self,
        partitions: impl IntoIterator<Item = &TopicPartition>,
    ) -> Result<BTreeMap<i32, Vec<TopicPartition>>> {
        let mut wanted: Vec<TopicPartition> = partitions.into_iter().cloned().collect();
        wanted.sort();
        let mut names: Vec<String> = wanted.iter().map(|tp| tp.topic.to_string()).collect();
        names.dedup();
        let mut leaders = BTreeMap::new();
        for (name, topic) in self.topics_named(&names).await? {
            let topic = topic.map_err(|refused| refused.into_error(format_args!("topic `{name}`")))?;
            for (tp, partition) in topic.each().zip(&topic.partitions) {
                leaders.insert(tp, partition.leader);
            }
        }
        let mut grouped: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
        for tp in wanted {
            match leaders.get(&tp) {
                Some(Some(leader)) => grouped.entry(*leader).or_default().push(tp),
                Some(None) => {
                    return Err(Error::retriable(format!(
                        "partition `{tp}` has no leader; check the brokers"
                    )));
                }
                None => {
                    let count = leaders.keys().filter(|other| other.topic == tp.topic).count();
                    return Err(Error::fatal(format!(
                        "topic `{}` has no partition {}; it has 0 to {}",
                        tp.topic,
                        tp.partition,
                        count.saturating_sub(1)
                    )));
                }
            }
        }
        Ok(grouped)
    }
}

fn request(partitions: &[TopicPartition], query: OffsetQuery) -> ListOffsetsRequest {
    let mut topics: Vec<ListOffsetsTopic> = Vec::new();
    for tp in partitions {
        let partition = ListOffsetsPartition {
            partition_index: tp.partition,
            timestamp: query.timestamp(),
            ..Default::default()
        };
        match topics.last_mut() {
            Some(topic) if *topic.name == *tp.topic => topic.partitions.push(partition),
            _ => topics.push(ListOffsetsTopic { name: (&*tp.topic).into(), partitions: vec![partition] }),
        }
    }
    ListOffsetsRequest {
        replica_id: -1,
        isolation_level: i8::from(query == OffsetQuery::CommittedEnd),
        topics,
        ..Default::default()
    }
}
