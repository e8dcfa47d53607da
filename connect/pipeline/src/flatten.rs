//! From the tree under `with:` to dotted keys, guided by the declarations of the component.
//!
//! `slot: { name: a }` and `slot.name: a` are the same. Lists join with commas for list keys; keys of type JSON keep the
//! whole subtree. **Invariant:** every entry has the place it came from, and a password is never quoted in a finding.

use std::path::Path;

use aqueduct_core::config::{Config, ConfigDef, ConfigKey, ConfigType, Problem, did_you_mean};

use crate::components::OPEN_PREFIXES;
use crate::finding::{Findings, Position};
use crate::yaml::{Node, Pair, Yaml};

/// One dotted key.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) text: String,
    pub(crate) at: Position,
}

/// The entries of one component.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entries(pub(crate) Vec<Entry>);

impl Entries {
    /// As a raw configuration.
    pub(crate) fn config(&self) -> Config {
        self.0.iter().map(|entry| (entry.key.clone(), entry.text.clone())).collect()
    }

    /// Adds the problems, each at the entry of its key or, where there is none, at `fallback`.
    pub(crate) fn report(&self, problems: &[Problem], fallback: Position, findings: &mut Findings) {
        for problem in problems {
            let at = self.0.iter().find(|entry| entry.key == problem.key).map_or(fallback, |entry| entry.at);
            findings.add(at, problem.message.clone());
        }
    }
}

/// Flattens `with`. `dir` is where relative paths start.
pub(crate) fn flatten(
    with: Option<&Node>,
    defs: &[&ConfigDef],
    open: bool,
    dir: &Path,
    findings: &mut Findings,
) -> Entries {
    let mut flattener = Flattener { defs, open, dir, entries: Vec::new(), findings };
    match with.map(|node| (&node.value, node)) {
        None | Some((Yaml::Null, _)) => {}
        Some((Yaml::Map(pairs), _)) => flattener.map("", pairs),
        Some((other, node)) => {
            flattener.findings.add(node.at, format!("`with` takes a mapping of keys, not {}", other.kind()));
        }
    }
    Entries(flattener.entries)
}

struct Flattener<'a> {
    defs: &'a [&'a ConfigDef],
    open: bool,
    dir: &'a Path,
    entries: Vec<Entry>,
    findings: &'a mut Findings,
}

impl Flattener<'_> {
    fn map(&mut self, prefix: &str, pairs: &[Pair]) {
        for pair in pairs {
            let key = if prefix.is_empty() { pair.key.clone() } else { format!("{prefix}.{}", pair.key) };
            self.value(key, pair.at, &pair.value);
        }
    }

    fn value(&mut self, key: String, key_at: Position, node: &Node) {
        let declared = self.defs.iter().find_map(|def| def.find(&key)).cloned();
        let below = format!("{key}.");
        let deeper = self.names().any(|name| name.starts_with(&below)) || (self.open && opens(&below));
        match (&declared, &node.value) {
            (Some(declared), Yaml::Map(_) | Yaml::List(_)) if declared.ty == ConfigType::Json => {
                self.push(key, node.to_json().to_string(), node.at);
            }
            (_, Yaml::Map(pairs)) if deeper && !pairs.is_empty() => self.map(&key, pairs),
            (Some(declared), value) => match text_of(declared, value) {
                Ok(text) => {
                    let text = if declared.path { self.anchored(text) } else { text };
                    self.push(declared.name.to_owned(), text, node.at);
                }
                Err(message) => self.findings.add(node.at, message),
            },
            (None, Yaml::Scalar { text, .. }) if self.open && opens(&key) => {
                self.push(key, text.clone(), node.at)
            }
            (None, value) if deeper => {
                let keys: Vec<&str> = self.names().filter(|name| name.starts_with(&below)).collect();
                let message =
                    format!("`{key}` takes a mapping (`{}`), not {}", keys.join("`, `"), value.kind());
                self.findings.add(node.at, message);
            }
            (None, _) => self.unknown(&key, key_at),
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let keys = self.defs.iter().flat_map(|def| def.keys());
        keys.flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()))
    }

    fn push(&mut self, key: String, text: String, at: Position) {
        match self.entries.iter().find(|entry| entry.key == key) {
            Some(first) => {
                let line = first.at.line;
                self.findings.add(at, format!("`{key}` is given twice, first in line {line}"));
            }
            None => self.entries.push(Entry { key, text, at }),
        }
    }

    /// Names of keys and of the mappings above them are both what a user may have meant.
    fn unknown(&mut self, key: &str, at: Position) {
        let mut near: Vec<&str> = self.names().collect();
        let above: Vec<&str> =
            near.iter().flat_map(|name| name.match_indices('.').map(|(end, _)| &name[..end])).collect();
        near.extend(above);
        let message = match did_you_mean(key, near) {
            Some(near) => format!("unknown key `{key}`; did you mean `{near}`?"),
            None => format!("unknown key `{key}`"),
        };
        self.findings.add(at, message);
    }

    fn anchored(&self, text: String) -> String {
        if text.starts_with('/') || text.starts_with("${") || text.is_empty() {
            return text;
        }
        let mut path = self.dir.to_owned();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    path.pop();
                }
                part => path.push(part),
            }
        }
        let slash = if text.ends_with('/') { "/" } else { "" };
        format!("{}{slash}", path.display())
    }
}

fn opens(key: &str) -> bool {
    OPEN_PREFIXES
        .iter()
        .any(|prefix| key.starts_with(prefix) || (key.ends_with('.') && prefix.starts_with(key)))
}

fn text_of(key: &ConfigKey, value: &Yaml) -> Result<String, String> {
    let name = key.name;
    match value {
        Yaml::Scalar { text, .. } if key.ty == ConfigType::Json && !is_json(text) => {
            Ok(serde_json::Value::from(text.as_str()).to_string())
        }
        Yaml::Scalar { text, .. } => Ok(text.clone()),
        Yaml::Null => Err(format!("`{name}` has no value; give it one or remove the key")),
        Yaml::List(items) if key.ty == ConfigType::List => {
            let mut words = Vec::new();
            for item in items {
                match &item.value {
                    Yaml::Scalar { text, .. } if !text.contains(',') => words.push(text.as_str()),
                    Yaml::Scalar { .. } => {
                        return Err(format!("`{name}`: an item of this list may not have a comma in it"));
                    }
                    other => {
                        return Err(format!(
                            "`{name}` takes a list of single values, not of {}s",
                            bare(other.kind())
                        ));
                    }
                }
            }
            Ok(words.join(","))
        }
        other => Err(format!("`{name}` takes {}, not {}", takes(key.ty), other.kind())),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok()
}

fn bare(kind: &str) -> &str {
    kind.strip_prefix("a ").unwrap_or(kind)
}

fn takes(ty: ConfigType) -> &'static str {
    match ty {
        ConfigType::Boolean => "`true` or `false`",
        ConfigType::Int { .. } => "an integer",
        ConfigType::Double => "a number",
        ConfigType::String | ConfigType::Password => "text",
        ConfigType::List => "a list",
        ConfigType::Duration => "a duration such as `30s`",
        ConfigType::Size => "a size such as `256MiB`",
        ConfigType::Enum(_) => "one word",
        ConfigType::Json => "JSON",
    }
}
