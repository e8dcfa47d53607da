//! Metadata: brokers, topics, leaders; creates topics on demand when both the broker and the request allow it.

use std::sync::Arc;

use uuid::Uuid;

use aqueduct_wire::ByteString;
use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};

use super::{Ask, codes, rights};
use crate::coord::OFFSETS_TOPIC;
use crate::meta::ChangeError;
use crate::meta::controller::{NewTopic, Refusal, check_name};
use crate::meta::image::{Image, Topic};
use crate::node::Node;

pub(super) async fn metadata(node: Arc<Node>, ask: Ask, request: MetadataRequest) -> MetadataResponse {
    let operations = rights::answer(request.include_topic_authorized_operations, rights::TOPIC);
    let mut topics = match request.topics {
        // In version 0 an empty list stands for all.
        Some(topics) if ask.version > 0 || !topics.is_empty() => {
            let create = request.allow_auto_topic_creation && node.config.auto_create_topics;
            asked(&node, topics, create).await
        }
        Some(_) | None => {
            let image = node.meta.image();
            image.topics().map(|topic| describe(&node, topic)).collect()
        }
    };
    for topic in topics.iter_mut().filter(|topic| topic.error_code == ErrorCode::None as i16) {
        topic.topic_authorized_operations = operations;
    }
    let image = node.meta.image();
    MetadataResponse {
        brokers: brokers(&image),
        cluster_id: Some(node.cluster_id.as_str().into()),
        controller_id: node.config.node_id,
        topics,
        cluster_authorized_operations: rights::answer(
            request.include_cluster_authorized_operations,
            rights::CLUSTER,
        ),
        ..MetadataResponse::default()
    }
}

fn brokers(image: &Image) -> Vec<MetadataResponseBroker> {
    let broker = |(id, broker): (&i32, &crate::meta::image::Broker)| MetadataResponseBroker {
        node_id: *id,
        host: broker.host.as_str().into(),
        port: i32::from(broker.port),
        rack: None,
    };
    image.brokers.iter().map(broker).collect()
}

async fn asked(
    node: &Arc<Node>,
    topics: Vec<MetadataRequestTopic>,
    create: bool,
) -> Vec<MetadataResponseTopic> {
    if create {
        create_missing(node, &topics).await;
    }
    let image = node.meta.image();
    let mut answers = Vec::with_capacity(topics.len());
    for topic in topics {
        let answer = match (&topic.name, topic.topic_id) {
            (Some(name), _) => match image.topic(name) {
                Some(found) => describe(node, found),
                None if check_name(name).is_err() => unknown(&topic, ErrorCode::InvalidTopicException),
                None => unknown(&topic, ErrorCode::UnknownTopicOrPartition),
            },
            (None, id) => match image.topic_by_id(id) {
                Some(found) => describe(node, found),
                None => unknown(&topic, ErrorCode::UnknownTopicId),
            },
        };
        answers.push(answer);
    }
    answers
}

/// Creates the topics that do not exist. What cannot be created is answered as unknown or invalid afterwards.
async fn create_missing(node: &Arc<Node>, topics: &[MetadataRequestTopic]) {
    let image = node.meta.image();
    let names = topics.iter().filter_map(|topic| topic.name.as_deref());
    let missing: Vec<&str> =
        names.filter(|name| image.topic(name).is_none() && check_name(name).is_ok()).collect();
    for name in missing {
        if name == OFFSETS_TOPIC {
            if let Err(error) = node.ensure_offsets_topic().await {
                tracing::warn!(%error, "could not create the offsets topic");
            }
            continue;
        }
        let topic = NewTopic {
            name: name.to_owned(),
            id: Uuid::new_v4(),
            partitions: -1,
            replication_factor: -1,
            ..NewTopic::default()
        };
        match node.create_topic(topic, false).await {
            Ok(_) => tracing::info!(topic = name, "created a topic that a client asked for"),
            Err(ChangeError::Refused(Refusal::TopicExists(_))) => {}
            Err(error) => {
                let code = codes::change(&error).name();
                tracing::warn!(topic = name, %error, code, "could not create a topic that a client asked for");
            }
        }
    }
}

fn unknown(topic: &MetadataRequestTopic, code: ErrorCode) -> MetadataResponseTopic {
    // Versions below 12 have no null name.
    let name = topic.name.clone().or_else(|| Some(ByteString::new()));
    MetadataResponseTopic { error_code: code as i16, name, topic_id: topic.topic_id, ..Default::default() }
}

fn describe(node: &Node, topic: &Topic) -> MetadataResponseTopic {
    let partition = |(index, partition): (i32, &crate::meta::image::Partition)| {
        let offline = node.partitions.is_offline(topic.id, index);
        MetadataResponsePartition {
            error_code: if offline { ErrorCode::KafkaStorageError } else { ErrorCode::None } as i16,
            partition_index: index,
            leader_id: partition.leader,
            leader_epoch: partition.leader_epoch,
            replica_nodes: partition.replicas.clone(),
            isr_nodes: partition.isr.clone(),
            offline_replicas: Vec::new(),
        }
    };
    MetadataResponseTopic {
        name: Some(topic.name.as_ref().into()),
        topic_id: topic.id,
        is_internal: topic.name.as_ref() == OFFSETS_TOPIC,
        partitions: (0..).zip(&topic.partitions).map(partition).collect(),
        ..MetadataResponseTopic::default()
    }
}
