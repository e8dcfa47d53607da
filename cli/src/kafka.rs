//! Commands for any cluster that speaks the Kafka protocol: ours, Apache Kafka, Redpanda.
//!
//! **Invariant:** what removes data asks first, and nothing is changed before all of it was checked that can be.

pub(crate) mod cluster;
pub(crate) mod configs;
pub(crate) mod consume;
pub(crate) mod escapes;
pub(crate) mod groups;
pub(crate) mod position;
pub(crate) mod produce;
mod progress;
mod record_json;
mod table;
pub(crate) mod topics;

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use aqueduct_client::{ClientSettings, Cluster, Refused, TopicInfo};
use aqueduct_core::ErrorKind;
use aqueduct_core::config::did_you_mean;
use aqueduct_core::sink::TopicPartition;
use aqueduct_wire::ErrorCode;
use serde_json::{Value, json};

use crate::args::kafka::{ClusterFlags, Sure};
use crate::failure::Failure;
pub(crate) use crate::output::print;

const CLIENT_ID: &str = "aqueduct";

/// A cluster that answered, and how to talk to the user.
pub(crate) struct Session {
    pub(crate) cluster: Cluster,
    pub(crate) settings: ClientSettings,
    pub(crate) timeout: Duration,
    pub(crate) json: bool,
}

impl Session {
    pub(crate) async fn connect(flags: &ClusterFlags) -> Result<Self, Failure> {
        let mut settings = ClientSettings::new(flags.brokers.join(","));
        let file = flags.client_config.as_deref().map(properties).transpose()?.unwrap_or_default();
        for (key, value) in file.iter().chain(&flags.property) {
            match key.as_str() {
                "bootstrap.servers" | "metadata.broker.list" => settings.bootstrap.clone_from(value),
                _ => drop(settings.common.insert(key.clone(), value.clone())),
            }
        }
        settings.check().map_err(|error| Failure::usage(error.full()))?;
        let connected = Cluster::connect(&settings, CLIENT_ID, flags.timeout).await;
        let cluster = connected.map_err(|error| {
            if matches!(error.kind(), ErrorKind::BadConfig) {
                return Failure::usage(error.full());
            }
            let hint = if error.is_retriable() {
                "; is a broker running there? name another with --brokers or AQUEDUCT_BROKERS"
            } else {
                ""
            };
            Failure::failed(format!("{}{hint}", error.full()))
        })?;
        Ok(Self { cluster, settings, timeout: flags.timeout, json: flags.json })
    }

    /// These topics, all of which must be there.
    pub(crate) async fn topics(&mut self, names: &[String]) -> Result<Vec<TopicInfo>, Failure> {
        let found = self.cluster.topics_named(names).await?;
        let mut topics = Vec::new();
        let mut missing = Vec::new();
        for (name, topic) in found {
            match topic {
                Ok(topic) => topics.push(topic),
                Err(refused) if refused.code == ErrorCode::UnknownTopicOrPartition => missing.push(name),
                Err(refused) => return Err(Failure::failed(format!("topic `{name}`: {refused}"))),
            }
        }
        if missing.is_empty() {
            return Ok(topics);
        }
        let known: Vec<String> = self.cluster.topics().await?.into_iter().map(|topic| topic.name).collect();
        let lines: Vec<String> = missing.iter().map(|name| unknown_topic(name, &known)).collect();
        Err(Failure::failed(lines.join("\nerror: ")))
    }

    pub(crate) async fn topic(&mut self, name: &str) -> Result<TopicInfo, Failure> {
        let topics = self.topics(std::slice::from_ref(&name.to_owned())).await?;
        topics.into_iter().next().ok_or_else(|| Failure::failed(format!("topic `{name}`: no answer")))
    }
}

/// The settings of a file, as librdkafka's tools and Kafka's have them.
fn properties(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let wrong = |line: usize, why: &str| Failure::usage(format!("{}:{line}: {why}", path.display()));
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let lines = text.lines().map(str::trim).enumerate();
    let settings = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    settings
        .map(|(at, line)| match line.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
            None => Err(wrong(at + 1, "write `KEY=VALUE`")),
        })
        .collect()
}

fn unknown_topic(name: &str, known: &[String]) -> String {
    match did_you_mean(name, known.iter().map(String::as_str)) {
        Some(near) => format!("there is no topic `{name}`; did you mean `{near}`?"),
        None => format!(
            "there is no topic `{name}`; `aqueduct topics ls` lists those that are, `aqueduct topics create {name}` makes it"
        ),
    }
}

/// Those of a topic that were chosen; without a choice all.
pub(crate) fn chosen(topic: &TopicInfo, numbers: &[i32]) -> Result<Vec<TopicPartition>, Failure> {
    let all: Vec<TopicPartition> = topic.each().collect();
    if let Some(number) = numbers.iter().find(|number| !all.iter().any(|tp| tp.partition == **number)) {
        let last = all.len().saturating_sub(1);
        return Err(Failure::failed(format!(
            "topic `{}` has no partition {number}; it has 0 to {last}",
            topic.name
        )));
    }
    Ok(all.into_iter().filter(|tp| numbers.is_empty() || numbers.contains(&tp.partition)).collect())
}

pub(crate) fn print_json(document: &Value) -> Result<(), Failure> {
    print(&format!("{document:#}\n"))
}

/// Asks before something is removed.
pub(crate) fn confirm(sure: Sure, what: &str) -> Result<(), Failure> {
    if sure.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(format!("this would {what}; say --yes to do it")));
    }
    eprint!("This will {what}. Go on? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| Failure::failed(error.to_string()))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::failed("nothing was done")),
    }
}

/// What became of each item: printed, and an error if one was refused.
pub(crate) fn report(
    json: bool,
    field: &str,
    done: &str,
    outcomes: Vec<(String, Result<Value, Refused>)>,
) -> Result<(), Failure> {
    let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
    if json {
        let items: Vec<Value> =
            outcomes.into_iter().map(|(name, outcome)| item(field, name, outcome)).collect();
        print_json(&Value::Array(items))?;
    } else {
        for (name, outcome) in outcomes {
            match outcome {
                Ok(_) => print(&format!("{done} {field} `{name}`\n"))?,
                Err(refused) => eprintln!("error: {field} `{name}`: {refused}"),
            }
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::failed("")) }
}

fn item(field: &str, name: String, outcome: Result<Value, Refused>) -> Value {
    let mut item = json!({ field: name });
    match outcome {
        Ok(Value::Object(more)) => more.into_iter().for_each(|(key, value)| item[key] = value),
        Ok(_) => {}
        Err(refused) => item["error"] = refusal(&refused),
    }
    item
}

pub(crate) fn refusal(refused: &Refused) -> Value {
    json!({ "code": refused.code.name(), "message": refused.to_string() })
}

impl From<aqueduct_core::Error> for Failure {
    fn from(error: aqueduct_core::Error) -> Self {
        Failure::failed(error.full())
    }
}
