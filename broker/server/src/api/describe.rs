//! DescribeTopicPartitions: all that is known of topics, in pages (KIP-966).

use std::ops::Range;

use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic, NextCursor,
};

use super::{Ask, rights};
use crate::coord::OFFSETS_TOPIC;
use crate::meta::controller::check_name;
use crate::meta::image::Topic;
use crate::node::Node;

/// Kafka's `max.request.partition.size.limit`.
const MOST: i32 = 2_000;

/// What one page shows: topics, and which of their partitions.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    topics: Vec<(String, Range<usize>)>,
    next: Option<(String, usize)>,
}

/// The page that begins at the cursor. `count` gives a topic's number of partitions; an unknown one is shown without.
fn page(
    names: impl Iterator<Item = String>,
    count: impl Fn(&str) -> usize,
    cursor: Option<(&str, usize)>,
    limit: usize,
) -> Page {
    let mut page = Page { topics: Vec::new(), next: None };
    let mut left = limit;
    for name in names.skip_while(|name| cursor.is_some_and(|(first, _)| name.as_str() < first)) {
        let count = count(&name);
        let begin = cursor.filter(|(first, _)| *first == name).map_or(0, |(_, begin)| begin.min(count));
        if left == 0 {
            page.next = Some((name, begin));
            break;
        }
        let end = count.min(begin.saturating_add(left));
        left -= end - begin;
        page.topics.push((name.clone(), begin..end));
        if end < count {
            page.next = Some((name, end));
            break;
        }
    }
    page
}

pub(super) fn describe_topic_partitions(
    node: &Node,
    _ask: &Ask,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = node.meta.image();
    let mut names: Vec<String> = if request.topics.is_empty() {
        image.topics().map(|topic| topic.name.to_string()).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.to_string()).collect()
    };
    names.sort();
    names.dedup();
    let cursor = request.cursor.as_ref();
    let cursor = cursor.map(|at| (&*at.topic_name, usize::try_from(at.partition_index).unwrap_or(0)));
    let limit = usize::try_from(request.response_partition_limit.clamp(1, MOST)).unwrap_or(1);
    let count = |name: &str| image.topic(name).map_or(0, |topic| topic.partitions.len());
    let page = page(names.into_iter(), count, cursor, limit);
    let show = |(name, partitions): (String, Range<usize>)| match image.topic(&name) {
        Some(topic) => describe(node, topic, partitions),
        None => {
            let legal = check_name(&name).is_ok();
            let code =
                if legal { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException };
            DescribeTopicPartitionsResponseTopic {
                error_code: code as i16,
                name: Some(name.into()),
                ..DescribeTopicPartitionsResponseTopic::default()
            }
        }
    };
    let next = page.next.map(|(name, partition)| NextCursor {
        topic_name: name.into(),
        partition_index: i32::try_from(partition).unwrap_or(i32::MAX),
    });
    DescribeTopicPartitionsResponse {
        topics: page.topics.into_iter().map(show).collect(),
        next_cursor: next,
        ..DescribeTopicPartitionsResponse::default()
    }
}

fn describe(node: &Node, topic: &Topic, shown: Range<usize>) -> DescribeTopicPartitionsResponseTopic {
    let partition = |(index, partition): (i32, &crate::meta::image::Partition)| {
        let offline = node.partitions.is_offline(topic.id, index);
        DescribeTopicPartitionsResponsePartition {
            error_code: if offline { ErrorCode::KafkaStorageError } else { ErrorCode::None } as i16,
            partition_index: index,
            leader_id: partition.leader,
            leader_epoch: partition.leader_epoch,
            replica_nodes: partition.replicas.clone(),
            isr_nodes: partition.isr.clone(),
            // Java's client does not take null here.
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            offline_replicas: Vec::new(),
        }
    };
    let all = (0..).zip(&topic.partitions);
    DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.as_ref().into()),
        topic_id: topic.id,
        is_internal: topic.name.as_ref() == OFFSETS_TOPIC,
        partitions: all.skip(shown.start).take(shown.len()).map(partition).collect(),
        topic_authorized_operations: rights::TOPIC,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of topics `a` and `c` with three partitions each; `b` is unknown.
    fn take(cursor: Option<(&str, usize)>, limit: usize) -> Page {
        let names = ["a", "b", "c"].map(str::to_owned).into_iter();
        page(names, |name| if name == "b" { 0 } else { 3 }, cursor, limit)
    }

    fn shows(topics: &[(&str, Range<usize>)], next: Option<(&str, usize)>) -> Page {
        let owned = |(name, range): &(&str, Range<usize>)| ((*name).to_owned(), range.clone());
        Page {
            topics: topics.iter().map(owned).collect(),
            next: next.map(|(name, at)| (name.to_owned(), at)),
        }
    }

    #[test]
    fn pages_break_within_topics_and_between_them() {
        assert_eq!(take(None, 9), shows(&[("a", 0..3), ("b", 0..0), ("c", 0..3)], None));
        assert_eq!(take(None, 2), shows(&[("a", 0..2)], Some(("a", 2))));
        assert_eq!(take(Some(("a", 2)), 1), shows(&[("a", 2..3)], Some(("b", 0))));
        assert_eq!(take(Some(("b", 0)), 9), shows(&[("b", 0..0), ("c", 0..3)], None));
    }

    #[test]
    fn a_cursor_at_what_is_gone_goes_on_behind_it() {
        assert_eq!(take(Some(("bb", 2)), 9), shows(&[("c", 0..3)], None));
        assert_eq!(take(Some(("c", 99)), 9), shows(&[("c", 3..3)], None));
        assert_eq!(take(Some(("d", 0)), 9), shows(&[], None));
    }
}
