//! CreateTopics, DeleteTopics and CreatePartitions: answered after the change is committed and carried out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use aqueduct_wire::ByteString;
use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreatePartitionsRequest,
    CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult, CreateTopicsRequest,
    CreateTopicsResponse, DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::{Ask, codes, configs};
use crate::coord::OFFSETS_TOPIC;
use crate::meta::ChangeError;
use crate::meta::controller::{NewTopic, Refusal};
use crate::meta::image::Topic;
use crate::node::Node;
use crate::topic_config::InvalidConfig;

/// Topics of one request that are made at once: they share work of the disk.
const AT_ONCE: usize = 16;

pub(super) async fn create_topics(
    node: Arc<Node>,
    _ask: Ask,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut times: HashMap<ByteString, usize> = HashMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.clone()).or_default() += 1;
    }
    let validate_only = request.validate_only;
    let mut response = CreateTopicsResponse::default();
    for some in request.topics.chunks(AT_ONCE) {
        // Begun together and answered in order.
        let begun = some.iter().map(|topic| {
            if times.get(&topic.name).is_some_and(|times| *times > 1) {
                let message = format!("topic `{}` stands twice in the request", topic.name);
                return Err((ErrorCode::InvalidRequest, message));
            }
            let new = new_topic(topic).map_err(|error| described(&error))?;
            let node = Arc::clone(&node);
            Ok(tokio::spawn(async move { node.create_topic(new, validate_only).await }))
        });
        let begun: Vec<_> = begun.collect();
        for (topic, begun) in some.iter().zip(begun) {
            let outcome = match begun {
                Ok(creating) => match creating.await {
                    Ok(outcome) => outcome.map_err(|error| described(&error)),
                    Err(error) => Err((ErrorCode::KafkaStorageError, error.to_string())),
                },
                Err(refusal) => Err(refusal),
            };
            response.topics.push(match outcome {
                Ok(made) => created(&node, &made, validate_only),
                Err((code, message)) => refusal(topic.name.clone(), code, message),
            });
        }
    }
    response
}

fn new_topic(topic: &CreatableTopic) -> Result<NewTopic, ChangeError> {
    if *topic.name == *OFFSETS_TOPIC {
        // Made by the broker, on the first look for a coordinator, with the settings it needs.
        return Err(Refusal::Internal(topic.name.to_string()).into());
    }
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let (name, value) = (config.name.to_string(), "null".to_owned());
            let reason = "a value is needed".to_owned();
            return Err(Refusal::from(InvalidConfig::Value { name, value, reason }).into());
        };
        configs.insert(config.name.to_string(), value.to_string());
    }
    let assignments: BTreeMap<i32, Vec<i32>> = topic
        .assignments
        .iter()
        .map(|assignment| (assignment.partition_index, assignment.broker_ids.clone()))
        .collect();
    if assignments.len() != topic.assignments.len() {
        return Err(Refusal::InvalidAssignment("a partition stands twice".to_owned()).into());
    }
    Ok(NewTopic {
        name: topic.name.to_string(),
        id: Uuid::new_v4(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments,
        configs,
    })
}

fn created(node: &Node, topic: &Topic, validate_only: bool) -> CreatableTopicResult {
    let config = |config: configs::Entry| CreatableTopicConfigs {
        name: config.name.into(),
        value: Some(config.value.into()),
        read_only: false,
        config_source: config.source,
        is_sensitive: false,
    };
    let factor = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    CreatableTopicResult {
        name: topic.name.as_ref().into(),
        topic_id: if validate_only { Uuid::nil() } else { topic.id },
        num_partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(factor).unwrap_or(i16::MAX),
        configs: Some(configs::of_topic(node, topic).into_iter().map(config).collect()),
        ..CreatableTopicResult::default()
    }
}

fn refusal(name: ByteString, code: ErrorCode, message: String) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: code as i16,
        error_message: Some(message.into()),
        // Java's client does not take null here.
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}

pub(super) async fn delete_topics(
    node: Arc<Node>,
    ask: Ask,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let by_name = |name| DeleteTopicState { name: Some(name), topic_id: Uuid::nil() };
    let states = if ask.version >= 6 {
        request.topics
    } else {
        request.topic_names.into_iter().map(by_name).collect()
    };
    let mut response = DeleteTopicsResponse::default();
    for at in 0..states.len() {
        let outcome = match identify(&node, &states, at) {
            Ok(topic) => delete_one(&node, &topic).await.map(|()| topic),
            Err(refused) => Err(refused),
        };
        let DeleteTopicState { name, topic_id } = states[at].clone();
        let mut result = DeletableTopicResult { name, topic_id, ..Default::default() };
        match outcome {
            Ok(topic) => {
                result.name = Some(topic.name.as_ref().into());
                result.topic_id = topic.id;
            }
            Err((code, message)) => {
                result.error_code = code as i16;
                result.error_message = Some(message.into());
            }
        }
        response.responses.push(result);
    }
    response
}

/// The topic that one part of a request means, by its name or its id.
fn identify(node: &Node, states: &[DeleteTopicState], at: usize) -> Result<Arc<Topic>, (ErrorCode, String)> {
    let state = &states[at];
    if state.name.is_some() && !state.topic_id.is_nil() {
        let message = "give a topic's name or its id, not both".to_owned();
        return Err((ErrorCode::InvalidRequest, message));
    }
    if states.iter().filter(|other| *other == state).count() > 1 {
        return Err((ErrorCode::InvalidRequest, "the topic stands twice in the request".to_owned()));
    }
    let image = node.meta.image();
    let found = match &state.name {
        Some(name) => image.topic(name).ok_or_else(|| Refusal::UnknownTopic(name.to_string())),
        None => image.topic_by_id(state.topic_id).ok_or(Refusal::UnknownTopicId(state.topic_id)),
    };
    found.cloned().map_err(|refusal| described(&refusal.into()))
}

async fn delete_one(node: &Arc<Node>, topic: &Topic) -> Result<(), (ErrorCode, String)> {
    node.delete_topic(topic.id).await.map_err(|error| match error {
        // Somebody else was faster. Older clients know no ids.
        ChangeError::Refused(Refusal::UnknownTopicId(_)) => {
            described(&Refusal::UnknownTopic(topic.name.to_string()).into())
        }
        error => described(&error),
    })
}

fn described(error: &ChangeError) -> (ErrorCode, String) {
    (codes::change(error), error.to_string())
}

pub(super) async fn create_partitions(
    node: Arc<Node>,
    _ask: Ask,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut response = CreatePartitionsResponse::default();
    let names: Vec<ByteString> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    for topic in request.topics {
        let CreatePartitionsTopic { name, count, assignments } = topic;
        if names.iter().filter(|other| **other == name).count() > 1 {
            response.results.push(CreatePartitionsTopicResult {
                name,
                error_code: ErrorCode::InvalidRequest as i16,
                error_message: Some("the topic stands twice in the request".into()),
            });
            continue;
        }
        let assignments: Option<Vec<Vec<i32>>> =
            assignments.map(|list| list.into_iter().map(|assignment| assignment.broker_ids).collect());
        let outcome = node.create_partitions(&name, count, assignments, request.validate_only).await;
        let mut result = CreatePartitionsTopicResult { name, ..Default::default() };
        if let Err(error) = outcome {
            result.error_code = codes::change(&error) as i16;
            result.error_message = Some(error.to_string().into());
        }
        response.results.push(result);
    }
    response
}
