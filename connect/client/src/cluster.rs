//! A cluster as its administrator sees it: topics, offsets, groups, settings, brokers.
//!
//! Every request goes over a connection of its own making, in a version that both sides know, so that brokers since
//! Apache Kafka 2.1 are served. Requests are sent to whoever answers for them (controller, leader, coordinator); when
//! that moved meanwhile, it is asked for again until the time is up.
//!
//! **Invariant:** no call takes longer than the time given to [`Cluster::connect`].

mod configs;
mod connection;
mod group_offsets;
mod groups;
mod offsets;
mod scram;
mod security;
mod topics;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use aqueduct_core::{Error, Result};
use aqueduct_wire::messages::{
    ApiVersionsResponse, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataResponse,
};
use aqueduct_wire::{ErrorCode, RequestMessage};
use tokio::time::Instant;

pub use self::configs::{
    ConfigChange, ConfigEntry, ConfigResource, ConfigSource, ConfigSynonym, ResourceKind,
};
use self::connection::Connection;
pub use self::groups::{Group, GroupMember, ListedGroup};
pub use self::offsets::{Found, OffsetQuery};
use self::security::Security;
pub use self::topics::{Created, PartitionInfo, TopicInfo};
use crate::settings::ClientSettings;

const PAUSE: Duration = Duration::from_millis(50);

/// Why an item of a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The broker's code.
    pub code: ErrorCode,
    /// The broker's words, if it had any.
    pub message: Option<String>,
}

impl Refused {
    fn check(code: i16, message: Option<&str>) -> Result<(), Self> {
        let code = ErrorCode::from_code(code);
        let message = message.filter(|text| !text.is_empty()).map(str::to_owned);
        if code.is_ok() { Ok(()) } else { Err(Self { code, message }) }
    }

    fn into_error(self, what: impl std::fmt::Display) -> Error {
        let text = format!("{what}: {self}");
        if self.code.is_retriable() { Error::retriable(text) } else { Error::fatal(text) }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.message, in_words(self.code)) {
            (Some(message), _) => write!(f, "{message} ({})", self.code),
            (None, Some(words)) => write!(f, "{words} ({})", self.code),
            (None, None) => write!(f, "the broker answered {}", self.code),
        }
    }
}

fn in_words(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::UnknownTopicOrPartition => "there is no such topic or partition",
        ErrorCode::OffsetOutOfRange => "the offset is not in the log",
        ErrorCode::TopicAlreadyExists => "the topic exists already",
        ErrorCode::NonEmptyGroup => "the group has members; stop them first",
        ErrorCode::GroupIdNotFound => "there is no such group",
        ErrorCode::GroupSubscribedToTopic => "the group reads this topic; stop its members first",
        ErrorCode::UnknownMemberId => "the group has members; stop them first",
        ErrorCode::PolicyViolation => "a policy of the cluster forbids it",
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed => "this user is not allowed to",
        ErrorCode::KafkaStorageError => {
            "the partition is offline or its disk cannot be written; the broker's log says why"
        }
        ErrorCode::TopicDeletionDisabled => "the cluster has `delete.topic.enable=false`",
        ErrorCode::LeaderNotAvailable => "the partition has no leader; check the brokers",
        ErrorCode::UnsupportedVersion => "the broker is too old for this request",
        _ => return None,
    })
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Id.
    pub id: i32,
    /// Where it wants to be reached.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Rack, if it has one.
    pub rack: Option<String>,
}

/// Brokers of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Id of the cluster.
    pub cluster_id: Option<String>,
    /// The broker that answers for changes of metadata, if there is one now.
    pub controller: Option<i32>,
    /// All that are up, by id.
    pub nodes: BTreeMap<i32, Node>,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To<'a> {
    Any,
    Controller,
    Node(i32),
    Coordinator(&'a str),
}

/// A cluster.
pub struct Cluster {
    client_id: String,
    security: Security,
    timeout: Duration,
    any: Connection,
    connections: BTreeMap<i32, Connection>,
    description: Description,
}

impl Cluster {
    /// Connects to the first of the given brokers that answers; each call may take `timeout`.
    pub async fn connect(settings: &ClientSettings, client_id: &str, timeout: Duration) -> Result<Self> {
        let security = Security::new(&settings.common)?;
        let deadline = Instant::now() + timeout;
        let mut causes = Vec::new();
        for address in settings.bootstrap.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            match Connection::open(address, client_id, &security, deadline).await {
                Ok(any) => {
                    let mut cluster = Self {
                        client_id: client_id.to_owned(),
                        security,
                        timeout,
                        any,
                        connections: BTreeMap::new(),
                        description: Description::default(),
                    };
                    cluster.refresh(deadline).await?;
                    return Ok(cluster);
                }
                // Another broker would refuse it, too.
                Err(error) if !error.is_retriable() => return Err(error),
                Err(error) => causes.push(error.full()),
            }
        }
        if causes.is_empty() {
            return Err(Error::bad_config("no broker is named; write `host:port`"));
        }
        Err(Error::retriable(causes.join("; ")))
    }

    /// Brokers, as they were last heard of.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The broker that was connected to first, and what it serves.
    pub fn api_versions(&self) -> (&str, &ApiVersionsResponse) {
        (self.any.address(), self.any.api_versions())
    }

    /// What a broker serves.
    pub async fn api_versions_of(&mut self, node: i32) -> Result<&ApiVersionsResponse> {
        let deadline = self.deadline();
        Ok(self.connection(To::Node(node), deadline).await?.api_versions())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    async fn refresh(&mut self, deadline: Instant) -> Result<()> {
        // No topics: version 1 and later tell an empty list from null.
        let request = MetadataRequest { allow_auto_topic_creation: false, ..Default::default() };
        let response = self.any.call(&request, METADATA, deadline).await?;
        self.describe(&response);
        Ok(())
    }

    fn describe(&mut self, response: &MetadataResponse) {
        let nodes = response.brokers.iter().map(|broker| {
            let node = Node {
                id: broker.node_id,
                host: broker.host.to_string(),
                port: u16::try_from(broker.port).unwrap_or(0),
                rack: broker.rack.as_ref().map(ToString::to_string),
            };
            (node.id, node)
        });
        self.description = Description {
            cluster_id: response.cluster_id.as_ref().map(ToString::to_string),
            controller: Some(response.controller_id).filter(|id| *id >= 0),
            nodes: nodes.collect(),
        };
    }

    /// Sends a request to whom it is for; the answer may still refuse it.
    async fn call<R: RequestMessage>(
        &mut self,
        to: To<'_>,
        request: &R,
        versions: RangeInclusive<i16>,
        deadline: Instant,
    ) -> Result<R::Response> {
        let result = self.connection(to, deadline).await?.call(request, versions, deadline).await;
        if result.is_err() {
            // An answer that comes late would be taken for the next one.
            self.connections.retain(|_, connection| connection.is_usable());
        }
        result
    }

    async fn connection(&mut self, to: To<'_>, deadline: Instant) -> Result<&mut Connection> {
        let node = match to {
            To::Any => return Ok(&mut self.any),
            To::Controller => match self.description.controller {
                Some(controller) => controller,
                None => {
                    return Err(Error::retriable("the cluster has no controller; check the brokers"));
                }
            },
            To::Coordinator(group) => self.coordinator(group, deadline).await?,
            To::Node(node) => node,
        };
        if !self.connections.contains_key(&node) {
            let known: Vec<String> = self.description.nodes.keys().map(ToString::to_string).collect();
            let broker = self.description.nodes.get(&node).ok_or_else(|| {
                Error::retriable(format!("broker {node} is not up; these are: {}", known.join(", ")))
            })?;
            let address = match broker.host.contains(':') {
                true => format!("[{}]:{}", broker.host, broker.port),
                false => format!("{}:{}", broker.host, broker.port),
            };
            let opened = Connection::open(&address, &self.client_id, &self.security, deadline).await;
            let opened = opened.map_err(|error| {
                error.context(format_args!(
                    "broker {node} advertises `{address}`, which must be reachable from here"
                ))
            })?;
            self.connections.insert(node, opened);
        }
        self.connections.get_mut(&node).ok_or_else(Error::cancelled)
    }

    async fn coordinator(&mut self, group: &str, deadline: Instant) -> Result<i32> {
        loop {
            let request = FindCoordinatorRequest {
                key: group.into(),
                coordinator_keys: vec![group.into()],
                ..Default::default()
            };
            let response = self.any.call(&request, 0..=6, deadline).await?;
            match coordinator_of(&response) {
                Ok(node) => {
                    if !self.description.nodes.contains_key(&node) {
                        self.refresh(deadline).await?;
                    }
                    return Ok(node);
                }
                Err(refused) => {
                    self.pause(&refused, deadline, format_args!("coordinator of group `{group}`")).await?;
                }
            }
        }
    }

    /// Waits a moment where the same request may succeed later, and asks again who is who; else it is an error.
    async fn pause(
        &mut self,
        refused: &Refused,
        deadline: Instant,
        what: impl std::fmt::Display,
    ) -> Result<()> {
        if !is_moving(refused.code) || Instant::now() + PAUSE >= deadline {
            return Err(refused.clone().into_error(what));
        }
        tokio::time::sleep(PAUSE).await;
        self.refresh(deadline).await
    }
}

/// Names of topics are asked for by name up to here, too.
const METADATA: RangeInclusive<i16> = 1..=13;

/// Somebody else answers for it now, or will in a moment.
fn is_moving(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotController
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::OffsetNotAvailable
            | ErrorCode::UnstableOffsetCommit
    )
}

fn coordinator_of(response: &FindCoordinatorResponse) -> Result<i32, Refused> {
    match response.coordinators.first() {
        Some(found) => {
            Refused::check(found.error_code, found.error_message.as_deref()).map(|()| found.node_id)
        }
        None => {
            Refused::check(response.error_code, response.error_message.as_deref()).map(|()| response.node_id)
        }
    }
}

/// The first refusal that a moment's wait may mend.
fn moving<'a>(refusals: impl IntoIterator<Item = &'a Refused>) -> Option<Refused> {
    refusals.into_iter().find(|refused| is_moving(refused.code)).cloned()
}
