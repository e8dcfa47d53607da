//! Settings of topics, brokers and groups: read with their sources, and changed one by one (KIP-339).

use aqueduct_core::{Error, Result};
use aqueduct_wire::messages::{
    AlterConfigsResource, AlterableConfig, DescribeConfigsRequest, DescribeConfigsResource,
    DescribeConfigsResourceResult, IncrementalAlterConfigsRequest,
};

use super::{Cluster, Refused, To};

/// Kind of thing that has settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// A topic, by name.
    Topic,
    /// A broker, by id; the empty name is the default of all brokers.
    Broker,
    /// A consumer group (KIP-848), by name.
    Group,
}

impl ResourceKind {
    fn code(self) -> i8 {
        match self {
            ResourceKind::Topic => 2,
            ResourceKind::Broker => 4,
            ResourceKind::Group => 32,
        }
    }

    /// As in messages and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ResourceKind::Topic => "topic",
            ResourceKind::Broker => "broker",
            ResourceKind::Group => "group",
        }
    }
}

/// What has settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigResource {
    /// Kind.
    pub kind: ResourceKind,
    /// Name or id.
    pub name: String,
}

impl std::fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.as_str() {
            "" => f.write_str("the brokers' default"),
            name => write!(f, "{} `{name}`", self.kind.name()),
        }
    }
}

/// Where a value comes from, by Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigSource(i8);

impl ConfigSource {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self.0 {
            1 => "DYNAMIC_TOPIC_CONFIG",
            2 => "DYNAMIC_BROKER_CONFIG",
            3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            4 => "STATIC_BROKER_CONFIG",
            5 => "DEFAULT_CONFIG",
            6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
            7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
            8 => "DYNAMIC_GROUP_CONFIG",
            _ => "UNKNOWN",
        }
    }

    /// Whether it was set on the resource itself.
    pub fn is_own(self, kind: ResourceKind) -> bool {
        match kind {
            ResourceKind::Topic => self.0 == 1,
            ResourceKind::Broker => matches!(self.0, 2 | 3),
            ResourceKind::Group => self.0 == 8,
        }
    }

    /// Whether nobody set it.
    pub fn is_default(self) -> bool {
        self.0 == 5
    }
}

/// A value and where it would come from.
#[derive(Clone, Debug)]
pub struct ConfigSynonym {
    /// Key, which may be another one than that of the entry.
    pub name: String,
    /// Value; `None` where it is secret.
    pub value: Option<String>,
    /// Source.
    pub source: ConfigSource,
}

/// A setting.
#[derive(Clone, Debug)]
pub struct ConfigEntry {
    /// Key.
    pub name: String,
    /// Value; `None` where it is secret or has none.
    pub value: Option<String>,
    /// Source of the value.
    pub source: ConfigSource,
    /// Whether it is secret.
    pub sensitive: bool,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// What it would fall back to, the present value first.
    pub synonyms: Vec<ConfigSynonym>,
    /// What it is for, where asked for and told.
    pub documentation: Option<String>,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// To this value.
    Set(String, String),
    /// Back to what it is without.
    Unset(String),
}

impl Cluster {
    /// All settings of a resource, by key.
    pub async fn configs(
        &mut self,
        resource: &ConfigResource,
        documentation: bool,
    ) -> Result<Result<Vec<ConfigEntry>, Refused>> {
        let to = target(resource)?;
        let wanted = DescribeConfigsResource {
            resource_type: resource.kind.code(),
            resource_name: resource.name.as_str().into(),
            configuration_keys: None,
        };
        let request = DescribeConfigsRequest {
            resources: vec![wanted],
            include_synonyms: true,
            include_documentation: documentation,
        };
        let deadline = self.deadline();
        let response = self.call(to, &request, 1..=4, deadline).await?;
        let Some(result) = response.results.first() else {
            return Err(Error::fatal(format!("settings of {resource}: no answer")));
        };
        if let Err(refused) = Refused::check(result.error_code, result.error_message.as_deref()) {
            return Ok(Err(refused));
        }
        let mut entries: Vec<_> = result.configs.iter().map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Ok(entries))
    }

    /// Changes settings of a resource, all or none, or only says whether that would work.
    pub async fn alter_configs(
        &mut self,
        resource: &ConfigResource,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<Result<(), Refused>> {
        let to = target(resource)?;
        let change = |change: &ConfigChange| {
            let (name, config_operation, value) = match change {
                ConfigChange::Set(name, value) => (name, 0, Some(value.as_str().into())),
                ConfigChange::Unset(name) => (name, 1, None),
            };
            AlterableConfig { name: name.as_str().into(), config_operation, value }
        };
        let resource_changes = AlterConfigsResource {
            resource_type: resource.kind.code(),
            resource_name: resource.name.as_str().into(),
            configs: changes.iter().map(change).collect(),
        };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource_changes], validate_only };
        let deadline = self.deadline();
        loop {
            let response = self.call(to, &request, 0..=1, deadline).await?;
            let Some(result) = response.responses.first() else {
                return Err(Error::fatal(format!("settings of {resource}: no answer")));
            };
            match Refused::check(result.error_code, result.error_message.as_deref()) {
                Err(refused) if super::is_moving(refused.code) => {
                    self.pause(&refused, deadline, format_args!("settings of {resource}")).await?;
                }
                outcome => return Ok(outcome),
            }
        }
    }
}

/// A broker answers for its own settings, any broker for everything else.
fn target(resource: &ConfigResource) -> Result<To<'static>> {
    match (resource.kind, resource.name.as_str()) {
        (ResourceKind::Broker, "") | (ResourceKind::Topic | ResourceKind::Group, _) => Ok(To::Any),
        (ResourceKind::Broker, id) => {
            let id = id.parse().map_err(|_| {
                Error::bad_config(format!(
                    "`{id}` is no broker id; write a number, or `default` for all brokers"
                ))
            })?;
            Ok(To::Node(id))
        }
    }
}

fn entry(config: &DescribeConfigsResourceResult) -> ConfigEntry {
    let text = |value: &Option<aqueduct_wire::ByteString>| value.as_ref().map(ToString::to_string);
    let synonyms = config.synonyms.iter().map(|synonym| ConfigSynonym {
        name: synonym.name.to_string(),
        value: text(&synonym.value),
        source: ConfigSource(synonym.source),
    });
    ConfigEntry {
        name: config.name.to_string(),
        value: text(&config.value),
        source: ConfigSource(config.config_source),
        sensitive: config.is_sensitive,
        read_only: config.read_only,
        synonyms: synonyms.collect(),
        documentation: text(&config.documentation).filter(|text| !text.is_empty()),
    }
}
