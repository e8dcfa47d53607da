//! The fixed keys of a pipeline document. What stands under `with:` stays a tree until its component is known.
//!
//! **Invariant:** every key that is not in the format is a finding, with the nearest one that is.

use aqueduct_core::config::did_you_mean;

use crate::finding::{Findings, Position};
use crate::yaml::{Node, Pair, Yaml};

/// A pipeline as it is written.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    pub(crate) name: Option<Text<'a>>,
    pub(crate) source: Option<Section<'a>>,
    pub(crate) topic: Option<&'a Node>,
    pub(crate) sinks: Vec<(Text<'a>, Section<'a>)>,
    pub(crate) on_error: Option<&'a Node>,
    pub(crate) tests: Option<&'a Node>,
    pub(crate) start: Position,
}

/// A connector: `use`, `with`, `steps`.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    pub(crate) component: Option<Text<'a>>,
    pub(crate) with: Option<&'a Node>,
    pub(crate) steps: Vec<Step<'a>>,
    /// Where the section's key stands.
    pub(crate) at: Position,
}

/// A step: `name`, and `use` and `with` or `filter`.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) name: Option<Text<'a>>,
    pub(crate) component: Text<'a>,
    pub(crate) with: Option<&'a Node>,
    /// The expression of the short form.
    pub(crate) filter: Option<Text<'a>>,
    pub(crate) at: Position,
}

/// A word with its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: Position,
}

/// Reads the fixed keys.
pub(crate) fn read<'a>(root: &'a Node, findings: &mut Findings) -> Option<Document<'a>> {
    if root.value == Yaml::Null {
        findings.add(root.at, "this file is empty; a pipeline starts with `version: 1` and `pipeline: NAME`");
        return None;
    }
    let keys = ["version", "pipeline", "source", "topic", "sinks", "on_error", "tests"];
    let fields = Fields::read(root, "a pipeline", &keys, findings)?;
    version(&fields, root.at, findings);
    let name = fields.get("pipeline").and_then(|pair| text(&pair.value, "pipeline", findings));
    if fields.get("pipeline").is_none() {
        findings.add(root.at, "missing key `pipeline`: the name of the pipeline");
    }
    let source = fields.get("source").and_then(|pair| section(pair, "`source`", findings));
    let sinks = fields.get("sinks").map(|pair| sinks(&pair.value, findings)).unwrap_or_default();
    let topic = fields.get("topic").map(|pair| &pair.value);
    let on_error = fields.get("on_error").map(|pair| &pair.value);
    let tests = fields.get("tests").map(|pair| &pair.value);
    if fields.get("source").is_none() && fields.get("sinks").is_none() {
        findings.add(root.at, "a pipeline needs a `source`, `sinks`, or both");
    }
    Some(Document { name, source, topic, sinks, on_error, tests, start: root.at })
}

fn version(fields: &Fields<'_>, start: Position, findings: &mut Findings) {
    let Some(pair) = fields.get("version") else {
        findings.add(start, "missing key `version`: write `version: 1`");
        return;
    };
    match &pair.value.value {
        Yaml::Scalar { text, .. } if text == "1" => {}
        Yaml::Scalar { text, .. } => {
            findings
                .add(pair.value.at, format!("version `{text}` is not known; this binary reads `version: 1`"));
        }
        other => findings.add(pair.value.at, format!("`version` is {}; write `version: 1`", other.kind())),
    }
}

fn sinks<'a>(node: &'a Node, findings: &mut Findings) -> Vec<(Text<'a>, Section<'a>)> {
    let Yaml::Map(pairs) = &node.value else {
        let kind = node.value.kind();
        findings.add(node.at, format!("`sinks` takes a mapping of names to sinks, not {kind}"));
        return Vec::new();
    };
    if pairs.is_empty() {
        findings.add(node.at, "`sinks` is empty; give it a sink or remove the key");
    }
    let mut sinks = Vec::new();
    for pair in pairs {
        let name = Text { text: &pair.key, at: pair.at };
        if let Some(section) = section(pair, &format!("sink `{}`", pair.key), findings) {
            sinks.push((name, section));
        }
    }
    sinks
}

fn section<'a>(pair: &'a Pair, what: &str, findings: &mut Findings) -> Option<Section<'a>> {
    let fields = Fields::read(&pair.value, what, &["use", "with", "steps"], findings)?;
    let component = match fields.get("use") {
        Some(used) => text(&used.value, "use", findings),
        None => {
            findings.add(pair.at, format!("{what} has no `use`: name the connector"));
            None
        }
    };
    let with = fields.get("with").map(|with| &with.value);
    let steps = fields.get("steps").map(|steps| self::steps(&steps.value, findings)).unwrap_or_default();
    Some(Section { component, with, steps, at: pair.at })
}

fn steps<'a>(node: &'a Node, findings: &mut Findings) -> Vec<Step<'a>> {
    let Yaml::List(items) = &node.value else {
        findings.add(node.at, format!("`steps` takes a list of steps, not {}", node.value.kind()));
        return Vec::new();
    };
    items.iter().filter_map(|item| step(item, findings)).collect()
}

fn step<'a>(node: &'a Node, findings: &mut Findings) -> Option<Step<'a>> {
    let fields = Fields::read(node, "a step", &["name", "use", "with", "filter"], findings)?;
    let name = fields.get("name").and_then(|pair| text(&pair.value, "name", findings));
    let with = fields.get("with").map(|pair| &pair.value);
    let filter = fields.get("filter");
    let component = match (fields.get("use"), filter) {
        (Some(used), None) => text(&used.value, "use", findings)?,
        (None, Some(filter)) => Text { text: "filter", at: filter.at },
        (Some(used), Some(_)) => {
            findings.add(used.at, "a step has `use` or `filter`, not both");
            return None;
        }
        (None, None) => {
            findings.add(node.at, "a step needs `use: NAME` or `filter: 'EXPRESSION'`");
            return None;
        }
    };
    let filter = match filter {
        Some(pair) => Some(text(&pair.value, "filter", findings)?),
        None => None,
    };
    Some(Step { name, component, with, filter, at: node.at })
}

/// Single text, or a finding.
pub(crate) fn text<'a>(node: &'a Node, key: &str, findings: &mut Findings) -> Option<Text<'a>> {
    match &node.value {
        Yaml::Scalar { text, .. } if !text.trim().is_empty() => Some(Text { text, at: node.at }),
        Yaml::Null | Yaml::Scalar { .. } => {
            findings.add(node.at, format!("`{key}` has no value"));
            None
        }
        other => {
            findings.add(node.at, format!("`{key}` takes text, not {}", other.kind()));
            None
        }
    }
}

/// A mapping whose keys were checked.
pub(crate) struct Fields<'a> {
    pairs: &'a [Pair],
}

impl<'a> Fields<'a> {
    /// Checks that `node` is a mapping of `allowed` keys.
    pub(crate) fn read(
        node: &'a Node,
        what: &str,
        allowed: &[&str],
        findings: &mut Findings,
    ) -> Option<Self> {
        let Yaml::Map(pairs) = &node.value else {
            let keys = allowed.join("`, `");
            findings.add(node.at, format!("{what} takes a mapping with `{keys}`, not {}", node.value.kind()));
            return None;
        };
        for pair in pairs.iter().filter(|pair| !allowed.contains(&pair.key.as_str())) {
            let hint = match did_you_mean(&pair.key, allowed.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{what} has `{}`", allowed.join("`, `")),
            };
            findings.add(pair.at, format!("unknown key `{}`; {hint}", pair.key));
        }
        Some(Self { pairs })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Pair> {
        self.pairs.iter().find(|pair| pair.key == key)
    }
}
