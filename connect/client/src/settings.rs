//! The settings of every client. The library's own defaults are for other uses: they give up, commit by themselves and
//! buffer without regard to memory.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

/// Room for a record of the largest allowed size and its framing.
const MESSAGE_MAX_BYTES: usize = (16 << 20) + (64 << 10);

/// What a consumer of the command line keeps of records that nobody has read yet.
const TOOL_QUEUE_BYTES: usize = 32 << 20;

/// Where the cluster is, and what is set for every client.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// `host:port`, comma-separated.
    pub bootstrap: String,
    /// Further settings of the library, such as `security.protocol`.
    pub common: BTreeMap<String, String>,
}

impl ClientSettings {
    /// For a cluster without security.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), common: BTreeMap::new() }
    }

    /// The largest record that is sent.
    pub fn message_max_bytes(&self) -> usize {
        let given = self.common.get("message.max.bytes").and_then(|given| given.parse().ok());
        given.unwrap_or(MESSAGE_MAX_BYTES)
    }

    /// Whether the library knows every one of the further settings.
    pub fn check(&self) -> aqueduct_core::Result<()> {
        let made = self.base("check").create_native_config();
        made.map(drop).map_err(|e| crate::error::error("checking the client's settings", &e))
    }

    fn base(&self, client_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", client_id)
            .set("allow.auto.create.topics", "false")
            .set("message.max.bytes", MESSAGE_MAX_BYTES.to_string())
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.fast.interval.ms", "50")
            .set_log_level(RDKafkaLogLevel::Warning);
        for (key, value) in &self.common {
            config.set(key, value);
        }
        config
    }

    /// A producer: idempotent, never giving up, with at most `buffer_bytes` of records in its queue.
    pub(crate) fn producer(
        &self,
        client_id: &str,
        buffer_bytes: usize,
        overrides: &BTreeMap<String, String>,
    ) -> ClientConfig {
        // The byte budget of the task is what blocks; the library's own limit only must not be met before.
        let queue_kib = (buffer_bytes.saturating_mul(2) >> 10).saturating_add(32 << 10).min(2_097_151);
        let mut config = self.base(client_id);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", queue_kib.to_string());
        apply(&mut config, overrides, PRODUCER_FIXED);
        config
    }

    /// A member of a group that commits only when told to, and starts only where told to.
    pub(crate) fn group_consumer(
        &self,
        client_id: &str,
        group: &str,
        instance: &str,
        buffer_bytes: usize,
        overrides: &BTreeMap<String, String>,
    ) -> ClientConfig {
        let queue_kib = (buffer_bytes >> 11).clamp(1 << 10, 2_097_151);
        let fetch = (buffer_bytes / 4).clamp(1 << 20, 16 << 20);
        let mut config = self.base(client_id);
        config
            .set("group.id", group)
            .set("group.instance.id", instance)
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "3000")
            .set("max.poll.interval.ms", "300000")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            // A larger record comes alone, whatever these say; the library would raise them to the former.
            .set("message.max.bytes", "1000000")
            .set("fetch.max.bytes", fetch.to_string())
            .set("max.partition.fetch.bytes", fetch.to_string())
            .set("queued.max.messages.kbytes", queue_kib.to_string())
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.error.backoff.ms", "100")
            .set("topic.metadata.refresh.interval.ms", "10000");
        // Where to go on after a hole is decided in `consumer::start`.
        let reset = |key: &str| key == "auto.offset.reset";
        let others = overrides.iter().filter(|(key, _)| !reset(key));
        let others = others.map(|(key, value)| (key.clone(), value.clone())).collect();
        apply(&mut config, &others, CONSUMER_FIXED);
        config
    }

    /// A reader of whole topics, without a group.
    pub(crate) fn reader(&self, client_id: &str) -> ClientConfig {
        let mut config = self.base(client_id);
        config
            // The library wants a group's name even where nothing is joined or committed.
            .set("group.id", client_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.error.backoff.ms", "50");
        config
    }

    /// A client for questions, without a group.
    pub(crate) fn admin(&self, client_id: &str) -> ClientConfig {
        self.base(client_id)
    }

    /// A producer of the command line: it gives up after `within`, and the user's settings go before all others.
    pub(crate) fn tool_producer(&self, client_id: &str, within: Duration) -> ClientConfig {
        let acks = self.common.iter().find(|(key, _)| canonical(key) == "request.required.acks");
        // The library refuses the one without the other.
        let idempotent = acks.is_none_or(|(_, acks)| matches!(acks.as_str(), "all" | "-1"));
        self.tool(
            client_id,
            &[
                ("enable.idempotence", &idempotent.to_string()),
                ("message.timeout.ms", &within.as_millis().max(1).to_string()),
                ("partitioner", "murmur2_random"),
                ("linger.ms", "5"),
                ("queue.buffering.max.messages", "0"),
                ("queue.buffering.max.kbytes", "131072"),
            ],
        )
    }

    /// A consumer of the command line; `from_end`, as a member of a group, where no offset was committed.
    /// Its memory is shared out to `queues` of partitions, where each has one of its own.
    pub(crate) fn tool_consumer(
        &self,
        client_id: &str,
        group: &str,
        from_end: Option<bool>,
        queues: usize,
    ) -> ClientConfig {
        let share = (TOOL_QUEUE_BYTES / queues.max(1)).clamp(64 << 10, 16 << 20);
        let reset = match from_end {
            Some(true) => "latest",
            Some(false) => "earliest",
            // Where a reader begins is decided before.
            None => "error",
        };
        self.tool(
            client_id,
            &[
                // The library wants a group's name even where nothing is joined or committed.
                ("group.id", group),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("auto.offset.reset", reset),
                ("enable.partition.eof", "true"),
                ("fetch.wait.max.ms", "100"),
                ("fetch.queue.backoff.ms", "5"),
                ("fetch.error.backoff.ms", "50"),
                // Bounds what waits in memory; a larger record comes alone.
                ("queued.max.messages.kbytes", &(share >> 10).to_string()),
                ("max.partition.fetch.bytes", &share.min(1 << 20).to_string()),
                // Small records take more memory for what the library keeps beside them.
                ("queued.min.messages", &(50_000 / queues.max(1)).max(500).to_string()),
                // The library raises it to the largest message otherwise.
                ("message.max.bytes", "1000000"),
                ("fetch.max.bytes", "16777216"),
                ("session.timeout.ms", "10000"),
            ],
        )
    }

    fn tool(&self, client_id: &str, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.base(client_id);
        for (key, value) in defaults {
            if !self.common.keys().any(|given| canonical(given) == canonical(key)) {
                config.set(*key, *value);
            }
        }
        config
    }

    /// Asks for the committed offsets of a group without joining it.
    pub(crate) fn group_reader(&self, client_id: &str, group: &str) -> ClientConfig {
        let mut config = self.base(client_id);
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false");
        config
    }
}

/// What no connector may set for its producer, by canonical name: delivery is what the runtime promises.
const PRODUCER_FIXED: &[&str] = &[
    "enable.idempotence",
    "request.required.acks",
    "message.timeout.ms",
    // Positions wait for the reports of what succeeded.
    "delivery.report.only.error",
    "transactional.id",
    "metadata.broker.list",
];

/// And for its consumer.
const CONSUMER_FIXED: &[&str] =
    &["enable.auto.commit", "enable.auto.offset.store", "metadata.broker.list", "group.id"];

/// Settings that run code or commands of the user's choice in this process.
const FOREIGN_CODE: &[&str] =
    &["plugin.library.paths", "interceptors", "ssl.engine.location", "sasl.kerberos.kinit.cmd"];

/// The library knows these settings by two names.
fn canonical(key: &str) -> &str {
    match key {
        "bootstrap.servers" => "metadata.broker.list",
        "acks" => "request.required.acks",
        "delivery.timeout.ms" => "message.timeout.ms",
        "auto.commit.enable" => "enable.auto.commit",
        other => other,
    }
}

/// Whether an override is refused, because it would run other code in this process.
pub fn is_foreign_code(key: &str) -> bool {
    FOREIGN_CODE.contains(&key)
}

/// Users' overrides, except those that would break what the runtime promises.
fn apply(config: &mut ClientConfig, overrides: &BTreeMap<String, String>, fixed: &[&str]) {
    for (key, value) in overrides {
        if fixed.contains(&canonical(key)) || is_foreign_code(key) {
            tracing::warn!("the client setting `{key}` cannot be overridden and stays as it is");
        } else {
            config.set(key, value);
        }
    }
}

/// Sends the library's log lines to `tracing`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

pub(crate) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "kafka client: {message}");
        }
        // Lost connections are retried by the library; what matters comes back as an error of a call.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning
            if matches!(facility, "FAIL" | "ERROR" | "REQTMOUT") =>
        {
            tracing::debug!(facility, "kafka client: {message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(facility, "kafka client: {message}")
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, "kafka client: {message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_never_give_up_and_cannot_be_told_to() {
        let overrides =
            BTreeMap::from([("acks".to_owned(), "1".to_owned()), ("linger.ms".to_owned(), "50".to_owned())]);
        let config = ClientSettings::new("localhost:1").producer("p", 1 << 20, &overrides);
        let expected = [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("message.timeout.ms", "0"),
            ("partitioner", "murmur2_random"),
            ("allow.auto.create.topics", "false"),
            ("linger.ms", "50"),
        ];
        for (key, value) in expected {
            assert_eq!(config.get(key), Some(value), "{key}");
        }
        config.create_native_config().expect("every setting is known to the library");
    }

    /// What the library itself makes of the settings.
    fn native(config: &ClientConfig, key: &str) -> String {
        config.create_native_config().expect("every setting is known to the library").get(key).expect("known")
    }

    #[test]
    fn no_second_name_of_a_setting_gets_round_what_is_fixed() {
        let settings = ClientSettings::new("localhost:1");
        let fixed = [
            ("acks", "1"),
            ("request.required.acks", "1"),
            ("delivery.timeout.ms", "5"),
            ("message.timeout.ms", "5"),
            ("enable.idempotence", "false"),
            ("delivery.report.only.error", "true"),
            ("transactional.id", "t"),
            ("bootstrap.servers", "elsewhere:1"),
            ("metadata.broker.list", "elsewhere:1"),
            ("plugin.library.paths", "any.so"),
            ("sasl.kerberos.kinit.cmd", "true"),
        ];
        for (key, value) in fixed {
            let overrides = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            let config = settings.producer("p", 1 << 20, &overrides);
            for (key, value) in [
                ("request.required.acks", "-1"),
                ("message.timeout.ms", "0"),
                ("enable.idempotence", "true"),
                ("delivery.report.only.error", "false"),
                ("metadata.broker.list", "localhost:1"),
            ] {
                assert_eq!(native(&config, key), value, "{key} with {overrides:?}");
            }
            assert!(config.get("transactional.id").is_none() && config.get("plugin.library.paths").is_none());
        }
        let fixed = [
            ("enable.auto.commit", "true"),
            ("auto.commit.enable", "true"),
            ("enable.auto.offset.store", "true"),
            ("auto.offset.reset", "latest"),
            ("group.id", "other"),
            ("metadata.broker.list", "elsewhere:1"),
        ];
        for (key, value) in fixed {
            let overrides = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            let config = settings.group_consumer("c", "g", "g-0", 8 << 20, &overrides);
            for (key, value) in [
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("group.id", "g"),
                ("metadata.broker.list", "localhost:1"),
            ] {
                assert_eq!(native(&config, key), value, "{key} with {overrides:?}");
            }
            assert_eq!(config.get("auto.offset.reset"), Some("error"));
        }
    }

    #[test]
    fn users_of_the_command_line_have_the_last_word() {
        let mut settings = ClientSettings::new("localhost:1");
        let within = Duration::from_secs(7);
        let config = settings.tool_producer("p", within);
        assert_eq!(native(&config, "message.timeout.ms"), "7000");
        assert_eq!(native(&config, "enable.idempotence"), "true");
        settings.common.insert("acks".into(), "1".into());
        settings.common.insert("delivery.timeout.ms".into(), "9".into());
        let config = settings.tool_producer("p", within);
        assert_eq!(native(&config, "enable.idempotence"), "false");
        assert_eq!(native(&config, "message.timeout.ms"), "9");
        let config = settings.tool_consumer("c", "g", Some(true), 1);
        assert_eq!((config.get("auto.offset.reset"), config.get("group.id")), (Some("latest"), Some("g")));
        assert_eq!(native(&config, "queued.max.messages.kbytes"), "16384");
        let config = settings.tool_consumer("c", "g", None, 256);
        assert_eq!(native(&config, "queued.max.messages.kbytes"), "128");
        assert_eq!(native(&config, "max.partition.fetch.bytes"), "131072");
    }

    #[test]
    fn group_members_commit_only_when_told_to_and_never_reset() {
        let config =
            ClientSettings::new("localhost:1").group_consumer("c", "g", "g-0", 8 << 20, &BTreeMap::new());
        let expected = [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("group.instance.id", "g-0"),
            ("session.timeout.ms", "10000"),
            ("allow.auto.create.topics", "false"),
            ("queued.max.messages.kbytes", "4096"),
        ];
        for (key, value) in expected {
            assert_eq!(config.get(key), Some(value), "{key}");
        }
        config.create_native_config().expect("every setting is known to the library");
    }
}
