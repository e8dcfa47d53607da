//! The list of components that a binary offers. There is no global registry: the binary makes one and hands it on.

use std::sync::Arc;

use crate::config::{Config, ConfigDef, ResolvedConfig, did_you_mean};
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use crate::transform::TransformFactory;
use crate::{Error, Result};

/// What every component says about itself.
#[derive(Debug)]
pub struct Spec {
    /// Name used in pipelines and as `connector.class`, such as `postgres-cdc`.
    pub name: &'static str,
    /// Class names of other products for which it stands in.
    pub aliases: &'static [&'static str],
    /// Version.
    pub version: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Every key it understands.
    pub config: ConfigDef,
}

impl Spec {
    /// Parses `config` by this component's declaration; one error with every problem.
    pub fn parse(&self, config: &ResolvedConfig) -> Result<crate::config::Values> {
        self.config.parse(config).map_err(|problems| crate::config::Problem::error(&problems))
    }

    fn is(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// A connector of either kind.
#[derive(Clone)]
pub enum Connector {
    /// A source.
    Source(Arc<dyn SourceConnector>),
    /// A sink.
    Sink(Arc<dyn SinkConnector>),
}

impl Connector {
    /// What it says about itself.
    pub fn spec(&self) -> &Spec {
        match self {
            Connector::Source(source) => source.spec(),
            Connector::Sink(sink) => sink.spec(),
        }
    }
}

/// Every component of a binary.
#[derive(Clone, Default)]
pub struct Registry {
    sources: Vec<Arc<dyn SourceConnector>>,
    sinks: Vec<Arc<dyn SinkConnector>>,
    transforms: Vec<Arc<dyn TransformFactory>>,
}

impl Registry {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source.
    #[must_use]
    pub fn source(mut self, source: impl SourceConnector + 'static) -> Self {
        self.sources.push(Arc::new(source));
        self
    }

    /// Adds a sink.
    #[must_use]
    pub fn sink(mut self, sink: impl SinkConnector + 'static) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }

    /// Adds a transform.
    #[must_use]
    pub fn transform(mut self, transform: impl TransformFactory + 'static) -> Self {
        self.transforms.push(Arc::new(transform));
        self
    }

    /// Adds transforms of one kind of factory.
    #[must_use]
    pub fn transforms_of<T: TransformFactory + 'static>(mut self, all: impl IntoIterator<Item = T>) -> Self {
        self.transforms
            .extend(all.into_iter().map(|transform| Arc::new(transform) as Arc<dyn TransformFactory>));
        self
    }

    /// The sources.
    pub fn sources(&self) -> &[Arc<dyn SourceConnector>] {
        &self.sources
    }

    /// The sinks.
    pub fn sinks(&self) -> &[Arc<dyn SinkConnector>] {
        &self.sinks
    }

    /// The transforms.
    pub fn transforms(&self) -> &[Arc<dyn TransformFactory>] {
        &self.transforms
    }

    /// The source of that name, or an error with the nearest one.
    pub fn find_source(&self, name: &str) -> Result<Arc<dyn SourceConnector>> {
        let found = self.sources.iter().find(|source| source.spec().is(name)).cloned();
        found.ok_or_else(|| unknown("source", name, self.sources.iter().map(|s| s.spec().name)))
    }

    /// The sink of that name, or an error with the nearest one.
    pub fn find_sink(&self, name: &str) -> Result<Arc<dyn SinkConnector>> {
        let found = self.sinks.iter().find(|sink| sink.spec().is(name)).cloned();
        found.ok_or_else(|| unknown("sink", name, self.sinks.iter().map(|s| s.spec().name)))
    }

    /// The transform of that name, or an error with the nearest one.
    pub fn find_transform(&self, name: &str) -> Result<Arc<dyn TransformFactory>> {
        let found = self.transforms.iter().find(|transform| transform.spec().is(name)).cloned();
        found.ok_or_else(|| unknown("transform", name, self.transforms.iter().map(|t| t.spec().name)))
    }

    /// The connector that a config names in `connector.class`. Where a source and a sink share the name, the config
    /// tells: sinks read `topics` or `topics.regex`.
    pub fn connector_of(&self, config: &Config) -> Result<Connector> {
        let class = config.get("connector.class").map_or("", String::as_str);
        let reads = config.contains_key("topics") || config.contains_key("topics.regex");
        match self.find_sink(class) {
            Ok(sink) if reads => Ok(Connector::Sink(sink)),
            _ => self.find_connector(class),
        }
    }

    /// The connector that `connector.class` names: sources first. `file` names both kinds, so a class may be
    /// written `source:file` or `sink:file`.
    pub fn find_connector(&self, class: &str) -> Result<Connector> {
        if let Some(name) = class.strip_prefix("source:") {
            return self.find_source(name).map(Connector::Source);
        }
        if let Some(name) = class.strip_prefix("sink:") {
            return self.find_sink(name).map(Connector::Sink);
        }
        if let Ok(source) = self.find_source(class) {
            return Ok(Connector::Source(source));
        }
        if let Ok(sink) = self.find_sink(class) {
            return Ok(Connector::Sink(sink));
        }
        let names =
            self.sources.iter().map(|s| s.spec().name).chain(self.sinks.iter().map(|s| s.spec().name));
        Err(unknown("connector", class, names))
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
    let hint = match did_you_mean(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are `{}`", known.collect::<Vec<_>>().join("`, `")),
    };
    Error::bad_config(format!("unknown {what} `{name}`; {hint}"))
}
