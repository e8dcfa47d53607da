//! What a test expects of a value: the value itself, or `{ matches: REGEX }`, `{ equals: … }`, `{ exists: … }` anywhere
//! in it. Pure.

use regex::Regex;
use serde_json::Value as Json;

use crate::finding::Findings;
use crate::judge::Difference;
use crate::yaml::{Node, Yaml};

/// An expectation.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// The same value; numbers by what they are worth.
    Equals(Json),
    /// Text, or a number or boolean as text, in which the expression matches.
    Matches(Regex),
    /// Whether there is anything, null included.
    Exists(bool),
    /// A mapping of these.
    Map(Vec<(String, Matcher)>),
    /// A list of these.
    List(Vec<Matcher>),
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Equals(a), Self::Equals(b)) => a == b,
            (Self::Matches(a), Self::Matches(b)) => a.as_str() == b.as_str(),
            (Self::Exists(a), Self::Exists(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Matcher {}

impl Matcher {
    pub(crate) fn read(node: &Node, findings: &mut Findings) -> Self {
        match &node.value {
            Yaml::Map(pairs) => {
                if let [only] = pairs.as_slice() {
                    match only.key.as_str() {
                        "matches" => return matches(&only.value, findings),
                        "equals" => return Self::Equals(only.value.to_json()),
                        "exists" => return exists(&only.value, findings),
                        _ => {}
                    }
                }
                Self::Map(
                    pairs.iter().map(|pair| (pair.key.clone(), Self::read(&pair.value, findings))).collect(),
                )
            }
            Yaml::List(items) => Self::List(items.iter().map(|item| Self::read(item, findings)).collect()),
            Yaml::Null | Yaml::Scalar { .. } => Self::Equals(node.to_json()),
        }
    }

    /// Adds how `got` differs. With `exact`, a mapping may have no other fields.
    pub(crate) fn compare(&self, got: Option<&Json>, path: &str, exact: bool, into: &mut Vec<Difference>) {
        let mut differs = |path: &str, expected: String, got: Option<&Json>| {
            into.push(Difference::new(path, expected, got.map_or_else(|| "nothing".into(), Json::to_string)));
        };
        match (self, got) {
            (Self::Exists(wanted), got) if *wanted == got.is_some() => {}
            (Self::Exists(wanted), got) => {
                differs(path, if *wanted { "something".into() } else { "nothing".into() }, got);
            }
            (Self::Equals(wanted), Some(got)) if same(wanted, got) => {}
            (Self::Matches(regex), Some(got)) if text(got).is_some_and(|text| regex.is_match(&text)) => {}
            (Self::Map(wanted), Some(Json::Object(got))) => {
                for (name, wanted) in wanted {
                    wanted.compare(got.get(name), &join(path, name), exact, into);
                }
                if exact {
                    let more =
                        got.iter().filter(|(name, _)| !wanted.iter().any(|(wanted, _)| wanted == *name));
                    more.for_each(|(name, got)| {
                        into.push(Difference::new(&join(path, name), "nothing".into(), got.to_string()));
                    });
                }
            }
            (Self::List(wanted), Some(Json::Array(got))) => {
                for (at, wanted) in wanted.iter().enumerate() {
                    wanted.compare(got.get(at), &format!("{path}[{at}]"), exact, into);
                }
                for (at, got) in got.iter().enumerate().skip(wanted.len()) {
                    into.push(Difference::new(&format!("{path}[{at}]"), "nothing".into(), got.to_string()));
                }
            }
            (wanted, got) => differs(path, wanted.to_string(), got),
        }
    }
}

impl std::fmt::Display for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Equals(value) => write!(f, "{value}"),
            Self::Matches(regex) => write!(f, "what matches `{}`", regex.as_str()),
            Self::Exists(true) => f.write_str("something"),
            Self::Exists(false) => f.write_str("nothing"),
            Self::Map(fields) => {
                f.write_str("{")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{}:{value}", if at > 0 { "," } else { "" }, Json::from(name.as_str()))?;
                }
                f.write_str("}")
            }
            Self::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}

fn matches(node: &Node, findings: &mut Findings) -> Matcher {
    let Yaml::Scalar { text, .. } = &node.value else {
        findings.add(node.at, format!("`matches` takes a regular expression, not {}", node.value.kind()));
        return Matcher::Exists(true);
    };
    match Regex::new(text) {
        Ok(regex) => Matcher::Matches(regex),
        Err(error) => {
            // Its last line says what is wrong; those before draw it.
            let error = error.to_string();
            let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            findings.add(node.at, format!("`{text}` is no regular expression: {why}"));
            Matcher::Exists(true)
        }
    }
}

fn exists(node: &Node, findings: &mut Findings) -> Matcher {
    match node.to_json() {
        Json::Bool(wanted) => Matcher::Exists(wanted),
        _ => {
            findings.add(node.at, "`exists` is `true` or `false`");
            Matcher::Exists(true)
        }
    }
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(_) | Json::Bool(_) => Some(value.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

fn same(wanted: &Json, got: &Json) -> bool {
    match (wanted, got) {
        (Json::Number(a), Json::Number(b)) => {
            a == b || (a.as_i64().is_none() || b.as_i64().is_none()) && a.as_f64() == b.as_f64()
        }
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn join(path: &str, name: &str) -> String {
    let plain = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) && !name.is_empty();
    if plain { format!("{path}.{name}") } else { format!("{path}[{}]", Json::from(name)) }
}
