//! One connector with its steps: found, flattened, checked, its steps built.
//!
//! **Invariant:** the text behind a reference never reaches a finding: what a component says is searched for it.

use std::collections::BTreeSet;

use aqueduct_core::Error;
use aqueduct_core::component::Connector;
use aqueduct_core::config::reference::resolve_text;
use aqueduct_core::config::{ConfigDef, ConfigType, Problem, ResolvedConfig};

use super::{Kind, Mode, Planner};
use crate::document::{Section, Step};
use crate::finding::Position;
use crate::flatten::{Entries, Entry, flatten};

/// The key under which a source is told what its topics begin with.
pub(super) const TOPIC_PREFIX: &str = "topic.prefix";

/// A connector whose configuration was looked at.
pub(super) struct Checked<'a> {
    pub(super) connector: Connector,
    pub(super) entries: Entries,
    /// `None` when something is wrong or a reference is unresolved.
    pub(super) resolved: Option<ResolvedConfig>,
    pub(super) at: Position,
    _section: &'a Section<'a>,
}

impl Planner<'_> {
    pub(super) fn section<'s>(
        &mut self,
        section: &'s Section<'s>,
        kind: Kind,
        pipeline: &str,
    ) -> Option<Checked<'s>> {
        let step_entries = self.steps(&section.steps);
        let component = section.component?;
        let found = match kind {
            Kind::Source => self.components.registry.find_source(component.text).map(Connector::Source),
            Kind::Sink => self.components.registry.find_sink(component.text).map(Connector::Sink),
        };
        let connector = match found {
            Ok(connector) => connector,
            Err(error) => {
                self.findings
                    .add(component.at, self.other_kind(component.text, kind).unwrap_or(error.full()));
                return None;
            }
        };
        let runtime = match kind {
            Kind::Source => self.components.source_keys,
            Kind::Sink => self.components.sink_keys,
        };
        let own = &connector.spec().config;
        let mut entries = flatten(section.with, &[own, runtime], true, &self.dir, &mut self.findings);
        let prefixed = entries.0.iter().any(|entry| entry.key == TOPIC_PREFIX);
        if kind == Kind::Source && own.find(TOPIC_PREFIX).is_some() && !prefixed {
            let (key, text) = (TOPIC_PREFIX.to_owned(), pipeline.to_owned());
            entries.0.push(Entry { key, text, at: component.at });
        }
        let at = section.with.map_or(section.at, |with| with.at);
        let resolved = self.check(&entries, at, own, Some(runtime), |resolved| match &connector {
            Connector::Source(source) => source.validate(resolved),
            Connector::Sink(sink) => sink.validate(resolved),
        });
        entries.0.extend(step_entries);
        Some(Checked { connector, entries, resolved, at: component.at, _section: section })
    }

    fn other_kind(&self, name: &str, kind: Kind) -> Option<String> {
        let registry = self.components.registry;
        match kind {
            Kind::Source => {
                registry.find_sink(name).ok().map(|_| format!("`{name}` is a sink; it stands under `sinks`"))
            }
            Kind::Sink => registry
                .find_source(name)
                .ok()
                .map(|_| format!("`{name}` is a source; it stands under `source`")),
        }
    }

    /// The entries of all steps, in Connect's form: `transforms`, `transforms.<name>.type`, `transforms.<name>.<key>`.
    fn steps(&mut self, steps: &[Step<'_>]) -> Vec<Entry> {
        let mut names: Vec<String> = Vec::new();
        let mut all = Vec::new();
        for step in steps {
            let name = self.step_name(step, &names);
            let prefix = format!("transforms.{name}");
            all.push(Entry {
                key: format!("{prefix}.type"),
                text: step.component.text.to_owned(),
                at: step.at,
            });
            let entries = self.step(step);
            all.extend(
                entries.0.into_iter().map(|entry| Entry { key: format!("{prefix}.{}", entry.key), ..entry }),
            );
            names.push(name);
        }
        if let Some(first) = steps.first() {
            all.push(Entry { key: "transforms".into(), text: names.join(","), at: first.at });
        }
        all
    }

    fn step_name(&mut self, step: &Step<'_>, taken: &[String]) -> String {
        let Some(name) = step.name else {
            let base = step.component.text.replace('.', "-");
            let numbered = (2..).map(|n| format!("{base}-{n}"));
            let free = std::iter::once(base.clone()).chain(numbered).find(|name| !taken.contains(name));
            return free.expect("an endless list has a name that is free");
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if !name.text.chars().all(legal) {
            let message = format!("the step name `{}` may have letters, digits, `-` and `_`", name.text);
            self.findings.add(name.at, message);
        }
        if taken.iter().any(|taken| taken == name.text) {
            self.findings.add(name.at, format!("two steps are named `{}`", name.text));
        }
        name.text.to_owned()
    }

    fn step(&mut self, step: &Step<'_>) -> Entries {
        let factory = match self.components.registry.find_transform(step.component.text) {
            Ok(factory) => factory,
            Err(error) => {
                self.findings.add(step.component.at, error.full());
                return Entries::default();
            }
        };
        let def = &factory.spec().config;
        let mut entries = flatten(step.with, &[def], false, &self.dir, &mut self.findings);
        if let Some(filter) = step.filter {
            let text = |ty| matches!(ty, ConfigType::String);
            let key = def
                .keys()
                .iter()
                .find(|key| key.required && text(key.ty))
                .map_or("condition", |key| key.name);
            entries.0.push(Entry { key: key.to_owned(), text: filter.text.to_owned(), at: filter.at });
        }
        let at = step.with.map_or(step.component.at, |with| with.at);
        self.check(&entries, at, def, None, |resolved| {
            let problems = factory.validate(resolved);
            if !problems.is_empty() {
                return problems;
            }
            let built = factory.build(resolved).err();
            built.map(|error: Error| Problem::new("", error.full())).into_iter().collect()
        });
        entries
    }

    /// Resolves, parses and validates; the resolved configuration when all of it is right.
    fn check(
        &mut self,
        entries: &Entries,
        at: Position,
        own: &ConfigDef,
        runtime: Option<&ConfigDef>,
        validate: impl Fn(&ResolvedConfig) -> Vec<Problem>,
    ) -> Option<ResolvedConfig> {
        let before = self.findings.len();
        let mut resolved = ResolvedConfig::new();
        let mut unresolved = BTreeSet::new();
        for entry in &entries.0 {
            match resolve_text(&entry.text, self.components.resolver) {
                Ok(value) => {
                    resolved.insert(entry.key.clone(), value);
                }
                Err(why) => {
                    unresolved.insert(entry.key.clone());
                    let key = &entry.key;
                    match self.mode {
                        Mode::Run => self.findings.add(entry.at, format!("`{key}`: {why}")),
                        Mode::Check => self.warnings.add(entry.at, format!("`{key}` was not checked: {why}")),
                    }
                }
            }
        }
        let mut problems = own.parse(&resolved).err().unwrap_or_default();
        // What the runtime requires and the file does not give, the plan adds.
        let given = |problem: &Problem| resolved.contains_key(&problem.key);
        let runtime = runtime.and_then(|def| def.parse(&resolved).err()).unwrap_or_default();
        problems.extend(runtime.into_iter().filter(given));
        problems.retain(|problem| !unresolved.contains(&problem.key));
        if problems.is_empty() && unresolved.is_empty() {
            problems = validate(&resolved);
        }
        for problem in &mut problems {
            problem.message = hidden(&problem.message, entries, &resolved);
        }
        entries.report(&problems, at, &mut self.findings);
        (self.findings.len() == before && unresolved.is_empty()).then_some(resolved)
    }
}

/// The message with the text behind every reference replaced by the reference.
fn hidden(message: &str, entries: &Entries, resolved: &ResolvedConfig) -> String {
    let mut message = message.to_owned();
    for entry in &entries.0 {
        if let Some(value) = resolved.get(&entry.key)
            && value.secret
            && !value.text.is_empty()
        {
            message = message.replace(&value.text, &entry.text);
        }
    }
    message
}
