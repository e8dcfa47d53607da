//! The broker's settings: one documented struct, parsed by serde, checked before anything is opened.
//! Invariant: a `BrokerConfig` that passed [`BrokerConfig::check`] can be started on an empty directory.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::topic_config::TopicDefaults;

/// Settings of one broker, as they stand in the file given to `aqueduct broker --config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Directory that holds the log. One process at a time may use it.
    pub data_dir: PathBuf,
    /// Address the Kafka protocol is served on. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Host and port that clients are told to connect to. Required when `listen` is a wildcard address.
    pub advertise: Option<HostPort>,
    /// Kafka's broker id of this node.
    pub node_id: i32,
    /// Whether a metadata request for an unknown topic may create it. The request must allow it, too.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without saying how many.
    pub default_partitions: i32,
    /// Partitions of `__consumer_offsets` when it is first created; the count is kept in its metadata.
    pub offsets_partitions: i32,
    /// Topic settings, by Kafka's names, for topics that do not set them.
    pub topic_defaults: BTreeMap<String, String>,
    /// Requests that take longer are logged, at most one a second, with where their time went. 0 for none. Waiting that
    /// the client asked for (fetches, rebalances) does not count.
    pub slow_request_ms: u64,
    /// `log.retention.check.interval.ms`: how often segments are looked at that `retention.ms` and `retention.bytes` may remove.
    pub log_retention_check_interval_ms: u64,
    /// Damaged partitions (`orders-0`) that this start cuts where the damage begins, keeping what it cuts. A decision
    /// for one start, so no setting of the file.
    #[serde(skip)]
    pub repair_partitions: Vec<String>,
    /// Consumer groups.
    pub groups: GroupConfig,
    /// Ceilings on what clients can make the broker hold.
    pub limits: Limits,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./aqueduct-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 9092)),
            advertise: None,
            node_id: 1,
            auto_create_topics: true,
            default_partitions: 1,
            offsets_partitions: 8,
            topic_defaults: BTreeMap::new(),
            slow_request_ms: 1_000,
            log_retention_check_interval_ms: 300_000,
            repair_partitions: Vec::new(),
            groups: GroupConfig::default(),
            limits: Limits::default(),
        }
    }
}

/// Consumer group settings, with Kafka's meanings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`.
    pub max_size: usize,
    /// `offsets.retention.minutes`: how long the offsets of a group without members are kept.
    pub offsets_retention_minutes: i64,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 1_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 0,
            max_size: 10_000,
            offsets_retention_minutes: 10_080,
            offset_metadata_max_bytes: 4_096,
        }
    }
}

/// Ceilings on memory, connections and waiting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request frame that is read (`socket.request.max.bytes`).
    pub max_frame_bytes: usize,
    /// Connections served at a time; further ones are closed at once.
    pub max_connections: usize,
    /// Bytes of requests of one connection that may wait for their answers before it is no longer read.
    pub in_flight_bytes: usize,
    /// Requests of one connection that may wait for their answers before it is no longer read.
    pub in_flight_requests: usize,
    /// Bytes of one fetch answer (`fetch.max.bytes`).
    pub fetch_max_bytes: usize,
    /// A connection that sends no request, or takes nothing of an answer, for this long is closed
    /// (`connections.max.idle.ms`).
    pub idle_ms: u64,
    /// A request whose bytes do not arrive within this time closes its connection.
    pub frame_timeout_ms: u64,
    /// Partitions of one topic.
    pub max_partitions_per_topic: i32,
    /// Bytes of recently appended batches kept in memory for live consumers, over all partitions.
    pub tail_cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame_bytes: 104_857_600,
            max_connections: 10_000,
            in_flight_bytes: 16 << 20,
            in_flight_requests: 128,
            fetch_max_bytes: 57_671_680,
            idle_ms: 600_000,
            frame_timeout_ms: 30_000,
            max_partitions_per_topic: 10_000,
            tail_cache_bytes: 32 << 20,
        }
    }
}

/// What is wrong with a [`BrokerConfig`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("`{setting}` is `{value}`: {expected}")]
    OutOfRange { setting: &'static str, value: String, expected: &'static str },
    #[error(
        "`listen` is the wildcard address `{0}`: set `advertise` to the host and port that clients can reach"
    )]
    AdvertiseMissing(SocketAddr),
    #[error("`topic_defaults`: {0}")]
    TopicDefault(crate::topic_config::InvalidConfig),
}

impl BrokerConfig {
    /// Checks every setting and reports all that are wrong.
    pub fn check(&self) -> Result<(), Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut require = |ok: bool, setting, value: String, expected| {
            if !ok {
                errors.push(ConfigError::OutOfRange { setting, value, expected });
            }
        };
        require(self.node_id >= 0, "node_id", self.node_id.to_string(), "must not be negative");
        let most = self.limits.max_partitions_per_topic;
        let within = |count: i32| count >= 1 && count <= most;
        let few = "must lie between 1 and `limits.max_partitions_per_topic`";
        require(
            within(self.default_partitions),
            "default_partitions",
            self.default_partitions.to_string(),
            few,
        );
        require(
            within(self.offsets_partitions),
            "offsets_partitions",
            self.offsets_partitions.to_string(),
            few,
        );
        let every = self.log_retention_check_interval_ms;
        require(every >= 1, "log_retention_check_interval_ms", every.to_string(), "must be at least 1");
        let frame = self.limits.max_frame_bytes;
        let frame_ok = (1 << 10..=1 << 30).contains(&frame);
        require(frame_ok, "limits.max_frame_bytes", frame.to_string(), "must lie between 1 KiB and 1 GiB");
        let in_flight = self.limits.in_flight_requests;
        require(in_flight >= 1, "limits.in_flight_requests", in_flight.to_string(), "must be at least 1");
        let bytes = self.limits.in_flight_bytes;
        let bytes_ok = (1..=1 << 30).contains(&bytes);
        require(bytes_ok, "limits.in_flight_bytes", bytes.to_string(), "must lie between 1 byte and 1 GiB");
        let connections = self.limits.max_connections;
        require(connections >= 1, "limits.max_connections", connections.to_string(), "must be at least 1");
        let (low, high) = (self.groups.min_session_timeout_ms, self.groups.max_session_timeout_ms);
        let sessions_ok = low >= 1 && low <= high;
        require(
            sessions_ok,
            "groups.min_session_timeout_ms",
            low.to_string(),
            "must be positive and not above `groups.max_session_timeout_ms`",
        );
        if self.listen.ip().is_unspecified() && self.advertise.is_none() {
            errors.push(ConfigError::AdvertiseMissing(self.listen));
        }
        if let Err(error) = TopicDefaults::new(&self.topic_defaults) {
            errors.push(ConfigError::TopicDefault(error));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// A host name or address and a port, written `host:port` (`[::1]:9092` for IPv6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not `host:port`")]
pub struct NotHostPort(String);

impl FromStr for HostPort {
    type Err = NotHostPort;

    fn from_str(text: &str) -> Result<Self, NotHostPort> {
        let wrong = || NotHostPort(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match bare {
            Some(address) => address,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| wrong())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl TryFrom<String> for HostPort {
    type Error = NotHostPort;

    fn try_from(text: String) -> Result<Self, NotHostPort> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(value: HostPort) -> Self {
        value.to_string()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_started() {
        assert_eq!(BrokerConfig::default().check(), Ok(()));
    }

    #[test]
    fn a_wildcard_needs_an_advertised_address() {
        let mut config =
            BrokerConfig { listen: SocketAddr::from(([0, 0, 0, 0], 9092)), ..BrokerConfig::default() };
        assert_eq!(config.check(), Err(vec![ConfigError::AdvertiseMissing(config.listen)]));
        config.advertise = Some("broker.example:9092".parse().expect("a host and a port"));
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let config = BrokerConfig {
            node_id: -1,
            default_partitions: 0,
            topic_defaults: BTreeMap::from([("retention.ms".to_owned(), "soon".to_owned())]),
            ..BrokerConfig::default()
        };
        assert_eq!(config.check().expect_err("three mistakes").len(), 3);
    }

    #[test]
    fn host_and_port_round_trip() {
        for text in ["localhost:9092", "[::1]:1", "10.0.0.1:65535"] {
            let parsed: HostPort = text.parse().expect("valid");
            assert_eq!(parsed.to_string(), text);
        }
        for text in ["localhost", ":9092", "a b:1", "::1:9092", "host:70000"] {
            assert_eq!(text.parse::<HostPort>(), Err(NotHostPort(text.to_owned())));
        }
    }
}
