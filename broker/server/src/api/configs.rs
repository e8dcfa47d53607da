//! DescribeConfigs and IncrementalAlterConfigs, for topics and, read-only, for the broker.
//! Invariant: lists are never null and sources never below 1; Java's client fails on either.

use std::sync::Arc;

use aqueduct_wire::ByteString;
use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{
    AlterConfigsResource, AlterConfigsResourceResponse, DescribeConfigsRequest, DescribeConfigsResource,
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};

use super::{Ask, codes};
use crate::meta::ChangeError;
use crate::meta::controller::{ConfigChange, Refusal};
use crate::meta::image::Topic;
use crate::node::Node;
use crate::topic_config::DEFINITIONS;

// Kafka's resource types.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

// Kafka's ConfigSource.
const DYNAMIC_TOPIC: i8 = 1;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// One setting in force.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) source: i8,
    synonyms: Vec<(String, i8)>,
    kind: i8,
    doc: &'static str,
    read_only: bool,
}

/// All settings of a topic.
pub(super) fn of_topic(node: &Node, topic: &Topic) -> Vec<Entry> {
    let entry = |definition: &crate::topic_config::Definition| {
        let (default, configured) = node.defaults.get(definition);
        let default_source = if configured { STATIC_BROKER } else { DEFAULT };
        let mut synonyms = vec![(default.to_owned(), default_source)];
        if let Some(value) = topic.configs.get(definition.name) {
            synonyms.insert(0, (value.clone(), DYNAMIC_TOPIC));
        }
        let (value, source) = synonyms[0].clone();
        Entry {
            name: definition.name.to_owned(),
            value,
            source,
            synonyms,
            kind: definition.kind.code(),
            doc: definition.doc,
            read_only: false,
        }
    };
    DEFINITIONS.iter().map(entry).collect()
}

/// What admin tools ask a broker for.
fn of_broker(node: &Node) -> Vec<Entry> {
    let config = &node.config;
    // Kafka's type numbers.
    let (boolean, string, int, long) = (1, 2, 3, 5);
    let listener = format!("PLAINTEXT://{}", node.advertised);
    let values = [
        ("advertised.listeners", listener, string, "Where clients connect to."),
        (
            "auto.create.topics.enable",
            config.auto_create_topics.to_string(),
            boolean,
            "Topics made on demand.",
        ),
        ("broker.id", config.node_id.to_string(), int, "The id of this broker."),
        ("default.replication.factor", "1".to_owned(), int, "Replicas of a new topic."),
        (
            "group.initial.rebalance.delay.ms",
            config.groups.initial_rebalance_delay_ms.to_string(),
            int,
            "How long a new group waits for members.",
        ),
        (
            "group.max.session.timeout.ms",
            config.groups.max_session_timeout_ms.to_string(),
            int,
            "The longest session.",
        ),
        (
            "group.min.session.timeout.ms",
            config.groups.min_session_timeout_ms.to_string(),
            int,
            "The shortest session.",
        ),
        ("log.dirs", config.data_dir.display().to_string(), string, "The data directory."),
        (
            "log.retention.check.interval.ms",
            config.log_retention_check_interval_ms.to_string(),
            long,
            "How often retention looks for segments to remove.",
        ),
        ("node.id", config.node_id.to_string(), int, "The id of this node."),
        ("num.partitions", config.default_partitions.to_string(), int, "Partitions of a new topic."),
        (
            "offsets.retention.minutes",
            config.groups.offsets_retention_minutes.to_string(),
            int,
            "How long unused offsets stay.",
        ),
        (
            "offsets.topic.num.partitions",
            config.offsets_partitions.to_string(),
            int,
            "Partitions of the offsets topic.",
        ),
        ("socket.request.max.bytes", config.limits.max_frame_bytes.to_string(), int, "The largest request."),
        (
            "connections.max.idle.ms",
            config.limits.idle_ms.to_string(),
            long,
            "When an idle connection is closed.",
        ),
    ];
    let entry = |(name, value, kind, doc): (&str, String, i8, &'static str)| Entry {
        name: name.to_owned(),
        synonyms: vec![(value.clone(), STATIC_BROKER)],
        value,
        source: STATIC_BROKER,
        kind,
        doc,
        read_only: true,
    };
    values.into_iter().map(entry).collect()
}

pub(super) fn describe_configs(
    node: &Node,
    _ask: &Ask,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let with = (request.include_synonyms, request.include_documentation);
    let results = request.resources.iter().map(|resource| describe_one(node, resource, with)).collect();
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

fn describe_one(
    node: &Node,
    resource: &DescribeConfigsResource,
    (synonyms, documentation): (bool, bool),
) -> DescribeConfigsResult {
    let mut result = DescribeConfigsResult {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        ..DescribeConfigsResult::default()
    };
    let entries = match entries(node, resource) {
        Ok(entries) => entries,
        Err((code, message)) => {
            result.error_code = code as i16;
            result.error_message = Some(message.into());
            return result;
        }
    };
    let wanted = |entry: &Entry| match &resource.configuration_keys {
        Some(keys) => keys.iter().any(|key| **key == *entry.name),
        None => true,
    };
    let shown = |entry: Entry| DescribeConfigsResourceResult {
        synonyms: if synonyms {
            entry
                .synonyms
                .into_iter()
                .map(|(value, source)| DescribeConfigsSynonym {
                    name: entry.name.as_str().into(),
                    value: Some(value.into()),
                    source,
                })
                .collect()
        } else {
            Vec::new()
        },
        name: entry.name.into(),
        value: Some(entry.value.into()),
        read_only: entry.read_only,
        config_source: entry.source,
        is_sensitive: false,
        config_type: entry.kind,
        documentation: documentation.then(|| ByteString::from_static(entry.doc)),
    };
    result.configs = entries.into_iter().filter(wanted).map(shown).collect();
    result
}

fn entries(node: &Node, resource: &DescribeConfigsResource) -> Result<Vec<Entry>, (ErrorCode, String)> {
    let name = &resource.resource_name;
    match resource.resource_type {
        TOPIC => {
            let unknown = || (ErrorCode::UnknownTopicOrPartition, format!("topic `{name}` does not exist"));
            let image = node.meta.image();
            Ok(of_topic(node, image.topic(name).ok_or_else(unknown)?))
        }
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER if name.parse() == Ok(node.config.node_id) => Ok(of_broker(node)),
        BROKER => Err((
            ErrorCode::InvalidRequest,
            format!("this is broker `{}`, not `{name}`", node.config.node_id),
        )),
        other => {
            Err((ErrorCode::InvalidRequest, format!("resources of type `{other}` have no settings here")))
        }
    }
}

pub(super) async fn incremental_alter_configs(
    node: Arc<Node>,
    _ask: Ask,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut response = IncrementalAlterConfigsResponse::default();
    let named: Vec<(i8, ByteString)> =
        request.resources.iter().map(|one| (one.resource_type, one.resource_name.clone())).collect();
    for resource in request.resources {
        let itself = |(kind, name): &&(i8, ByteString)| {
            *kind == resource.resource_type && *name == resource.resource_name
        };
        let outcome = if named.iter().filter(itself).count() > 1 {
            Err((ErrorCode::InvalidRequest, "the resource stands twice in the request".to_owned()))
        } else {
            alter_one(&node, &resource, request.validate_only).await
        };
        let mut result = AlterConfigsResourceResponse {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            ..AlterConfigsResourceResponse::default()
        };
        if let Err((code, message)) = outcome {
            result.error_code = code as i16;
            result.error_message = Some(message.into());
        }
        response.responses.push(result);
    }
    response
}

async fn alter_one(
    node: &Arc<Node>,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), (ErrorCode, String)> {
    if resource.resource_type != TOPIC {
        let message = "only the settings of topics can be changed; a broker's stand in its file".to_owned();
        return Err((ErrorCode::InvalidRequest, message));
    }
    let mut changes = Vec::with_capacity(resource.configs.len());
    for config in &resource.configs {
        let value = config.value.as_deref().map(str::to_owned);
        let change = match (config.config_operation, value) {
            (0, Some(value)) => ConfigChange::Set(value),
            (1, _) => ConfigChange::Delete,
            (2, Some(value)) => ConfigChange::Append(value),
            (3, Some(value)) => ConfigChange::Subtract(value),
            (operation, _) => {
                let message = format!("operation `{operation}` on `{}` is not possible", config.name);
                return Err((ErrorCode::InvalidRequest, message));
            }
        };
        if changes.iter().any(|(name, _)| *name == *config.name) {
            return Err((
                ErrorCode::InvalidRequest,
                format!("`{}` stands twice in the request", config.name),
            ));
        }
        changes.push((config.name.to_string(), change));
    }
    let outcome = node.alter_topic(&resource.resource_name, changes, validate_only).await;
    outcome.map_err(|error: ChangeError| {
        let code = match &error {
            ChangeError::Refused(Refusal::UnknownTopic(_)) => ErrorCode::UnknownTopicOrPartition,
            other => codes::change(other),
        };
        (code, error.to_string())
    })
}
