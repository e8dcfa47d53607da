//! From a document to connectors and topics: every component found, its configuration checked, its steps built.
//!
//! **Invariant:** a [`Plan`] is only handed out when nothing is wrong; the raw configurations in it hold references
//! unresolved, and relative paths were made absolute.

mod section;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aqueduct_core::component::Connector;
use aqueduct_core::config::Config;

use crate::Components;
use crate::cases::{self, Reads, TestCase};
use crate::document::{self, Document, Text};
use crate::finding::{Finding, Findings, Position};
use crate::yaml;
use section::Checked;
pub(crate) use settings::{on_error_def, topic_def};

/// How strict planning is about references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// About to run: every reference must resolve.
    Run,
    /// Offline, perhaps without the secrets: a reference that does not resolve is a warning.
    Check,
}

/// Direction of a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Into topics.
    Source,
    /// Out of topics.
    Sink,
}

/// One connector of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorPlan {
    /// Name: the pipeline's for its source, `<pipeline>-<sink>` for a sink.
    pub name: String,
    /// Direction.
    pub kind: Kind,
    /// Its configuration, as REST takes and shows it.
    pub config: Config,
}

/// What a pipeline file amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The file.
    pub file: PathBuf,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Topics of the source that are known before it starts; they exist before the sinks subscribe.
    pub topics: Vec<String>,
    /// Partitions of the topics; `None` leaves it to the cluster.
    pub partitions: Option<i32>,
    /// Replication factor of the topics; `None` leaves it to the cluster.
    pub replication: Option<i16>,
    /// Further settings of the topics, by Kafka's names.
    pub topic_config: BTreeMap<String, String>,
    /// The source, then the sinks in the order of the file.
    pub connectors: Vec<ConnectorPlan>,
    /// What `aqueduct test` runs.
    pub tests: Vec<TestCase>,
    /// What could not be checked.
    pub warnings: Vec<Finding>,
}

/// Reads a file and plans it.
pub fn load(path: &Path, components: Components<'_>, mode: Mode) -> Result<Plan, Vec<Finding>> {
    let text = yaml::read(path).map_err(|finding| vec![finding])?;
    plan(path, &text, components, mode)
}

/// Plans the text of a file. Relative paths in it start at the directory of `path`.
pub fn plan(path: &Path, text: &str, components: Components<'_>, mode: Mode) -> Result<Plan, Vec<Finding>> {
    let mut findings = Findings::new(path);
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(error) => {
            findings.add(error.at, error.message);
            return Err(findings.finish());
        }
    };
    let document = document::read(&root, &mut findings);
    let warnings = Findings::new(path);
    let mut planner = Planner { components, mode, dir: directory(path), findings, warnings };
    let plan = document.and_then(|document| planner.document(path, &document));
    match plan {
        Some(plan) if planner.findings.len() == 0 => Ok(Plan { warnings: planner.warnings.finish(), ..plan }),
        Some(_) | None => Err(planner.findings.finish()),
    }
}

/// The directory of a file, without links, so that `..` in a path below it means what it says.
fn directory(path: &Path) -> PathBuf {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    dir.canonicalize().or_else(|_| std::path::absolute(dir)).unwrap_or_else(|_| dir.to_owned())
}

struct Planner<'a> {
    components: Components<'a>,
    mode: Mode,
    dir: PathBuf,
    findings: Findings,
    warnings: Findings,
}

/// What the sinks need to know of the source.
enum Feed {
    /// There is none; sinks name their topics themselves.
    None,
    /// These topics.
    Topics(Vec<String>),
    /// Every topic under this prefix.
    Prefix(String),
    /// The source is wrong or could not be asked.
    Unknown,
}

impl Planner<'_> {
    fn document(&mut self, path: &Path, document: &Document<'_>) -> Option<Plan> {
        let settings = settings::read(document, &self.dir, &mut self.findings);
        let name = document.name.and_then(|name| self.name(name, "pipeline"));
        let shown = name.unwrap_or("pipeline");
        let mut connectors = Vec::new();
        let mut feed = Feed::None;
        if let Some(section) = &document.source {
            feed = Feed::Unknown;
            if let Some(checked) = self.section(section, Kind::Source, shown) {
                feed = self.feed(&checked, shown);
                let mut config = self.finish(&checked, shown);
                config.extend(settings.for_source());
                connectors.push(ConnectorPlan { name: shown.to_owned(), kind: Kind::Source, config });
            }
        }
        for (sink, section) in &document.sinks {
            let name = self.name(*sink, "sink").map(|sink| format!("{shown}-{sink}"));
            let name = name.unwrap_or_else(|| format!("{shown}-sink"));
            if let Some(checked) = self.section(section, Kind::Sink, shown) {
                let mut config = self.finish(&checked, &name);
                self.subscribe(&mut config, &feed, section.at);
                connectors.push(ConnectorPlan { name, kind: Kind::Sink, config });
            }
        }
        for connector in &mut connectors {
            let errors = settings.errors(&connector.name);
            errors.into_iter().for_each(|(key, text)| {
                connector.config.entry(key).or_insert(text);
            });
            connector.config.insert("name".into(), connector.name.clone());
            connector.config.insert("aqueduct.pipeline".into(), shown.to_owned());
        }
        let tests = self.tests(document, shown, &connectors);
        let topics = match feed {
            Feed::Topics(topics) => topics,
            Feed::None | Feed::Prefix(_) | Feed::Unknown => Vec::new(),
        };
        Some(Plan {
            file: path.to_owned(),
            pipeline: name?.to_owned(),
            topics,
            partitions: settings.partitions,
            replication: settings.replication,
            topic_config: settings.topic_config,
            connectors,
            tests,
            warnings: Vec::new(),
        })
    }

    fn tests(
        &mut self,
        document: &Document<'_>,
        pipeline: &str,
        connectors: &[ConnectorPlan],
    ) -> Vec<TestCase> {
        let Some(node) = document.tests else { return Vec::new() };
        let reads = document.sinks.iter().map(|(sink, _)| {
            let connector = format!("{pipeline}-{}", sink.text);
            let config = connectors.iter().find(|plan| plan.name == connector).map(|plan| &plan.config);
            Reads::new(sink.text, connector, config)
        });
        cases::read(node, &reads.collect::<Vec<_>>(), &mut self.findings)
    }

    /// Names become parts of topic and group names, so they have Kafka's alphabet.
    fn name<'t>(&mut self, name: Text<'t>, what: &str) -> Option<&'t str> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.text.chars().all(legal) && name.text.len() <= 100 && !matches!(name.text, "." | "..") {
            return Some(name.text);
        }
        let message = format!(
            "the {what} name `{}` may have letters, digits, `-`, `_` and `.`, at most 100",
            name.text
        );
        self.findings.add(name.at, message);
        None
    }

    fn feed(&mut self, checked: &Checked<'_>, pipeline: &str) -> Feed {
        let Connector::Source(source) = &checked.connector else { return Feed::Unknown };
        let Some(resolved) = &checked.resolved else { return Feed::Unknown };
        let known: BTreeSet<String> = match source.topics(resolved) {
            Ok(topics) => topics.into_iter().collect(),
            Err(error) => {
                self.findings.add(checked.at, error.full());
                return Feed::Unknown;
            }
        };
        if !known.is_empty() {
            return Feed::Topics(known.into_iter().collect());
        }
        match resolved.get(section::TOPIC_PREFIX) {
            Some(prefix) => Feed::Prefix(prefix.text.clone()),
            None if source.spec().config.find(section::TOPIC_PREFIX).is_some() => {
                Feed::Prefix(pipeline.to_owned())
            }
            None => Feed::Unknown,
        }
    }

    fn subscribe(&mut self, config: &mut Config, feed: &Feed, at: Position) {
        if config.contains_key("topics") || config.contains_key("topics.regex") {
            return;
        }
        match feed {
            Feed::Topics(topics) => {
                config.insert("topics".into(), topics.join(","));
            }
            Feed::Prefix(prefix) => {
                config.insert("topics.regex".into(), format!("{}\\..*", prefix.replace('.', "\\.")));
            }
            Feed::None => {
                self.findings.add(at, "without a `source`, a sink names its `topics` under `with`");
            }
            // The source has findings of its own, or could not be asked because a reference is unresolved.
            Feed::Unknown if self.findings.len() > 0 || self.mode == Mode::Check => {}
            Feed::Unknown => {
                self.findings.add(at, "the source does not tell its topics; name `topics` under `with`")
            }
        }
    }

    fn finish(&mut self, checked: &Checked<'_>, name: &str) -> Config {
        let mut config = checked.entries.config();
        config.insert("connector.class".into(), self.class(&checked.connector));
        config.insert("name".into(), name.to_owned());
        config
    }

    /// A name that both a source and a sink have is written with its kind.
    fn class(&self, connector: &Connector) -> String {
        let registry = self.components.registry;
        let name = connector.spec().name;
        let both = registry.find_source(name).is_ok() && registry.find_sink(name).is_ok();
        match connector {
            Connector::Source(_) if both => format!("source:{name}"),
            Connector::Sink(_) if both => format!("sink:{name}"),
            Connector::Source(_) | Connector::Sink(_) => name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
