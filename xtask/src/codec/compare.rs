//! `cargo xtask codec --compare`: the notation beside the message definitions that Apache Kafka's client carries.
//!
//! Compared are keys, versions, and of every field its name, order, type, versions, tag, default and where it may be
//! null. Names of structures are ours, since they live in one namespace.
//!
//! **Invariant:** every difference is either an error or listed in [`DEVIATIONS`] with its reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value};

use super::notation::{Field, File, Kind, Message, Type, Versions};
use crate::machine;

/// What the notation is compared with.
const VERSION: &str = "4.3.0";

/// Where the notation differs on purpose.
const DEVIATIONS: &[(&str, &str)] = &[
    ("DescribeTopicPartitionsResponse.topics.partitions.eligible_leader_replicas", NO_NULL_LIST),
    ("DescribeTopicPartitionsResponse.topics.partitions.last_known_elr", NO_NULL_LIST),
    ("DescribeAclsResponse.error_message", NO_MESSAGE),
    ("ElectLeadersResponse.replica_election_results.partition_result.error_message", NO_MESSAGE),
    ("ListPartitionReassignmentsResponse.error_message", NO_MESSAGE),
];
const NO_NULL_LIST: &str = "a list that nobody set is empty: Java's client fails on null";
const NO_MESSAGE: &str = "a message that nobody set is null, not an empty text";

/// Fetches the definitions with Maven, once.
pub(crate) fn fetch() -> Result<PathBuf> {
    let dir = machine::target_dir().join(format!("kafka-messages-{VERSION}"));
    let messages = dir.join("common/message");
    if messages.join("ProduceRequest.json").exists() {
        return Ok(messages);
    }
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "dependency:unpack", "-Dmdep.unpack.includes=common/message/*.json"]);
    maven.arg(format!("-Dartifact=org.apache.kafka:kafka-clients:{VERSION}"));
    maven.arg(format!("-DoutputDirectory={}", dir.display()));
    // Not below the workspace: it is no Maven project.
    maven.current_dir(std::env::temp_dir());
    machine::run(&mut maven).context("Maven is needed to fetch Kafka's message definitions")?;
    Ok(messages)
}

/// Compares every message that Kafka defines for clients; returns how many.
pub(crate) fn compare(files: &[File], definitions: &Path) -> Result<usize> {
    let mut compared = 0;
    let mut found = Vec::new();
    for message in files.iter().flat_map(|file| &file.messages) {
        let path = definitions.join(format!("{}.json", message.name));
        if message.kind == Kind::Shared || (message.kind == Kind::Record && !path.exists()) {
            // Records of the coordinator are not in the client's jar.
            continue;
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("Kafka {VERSION} has no message `{}`", message.name))?;
        let definition = parse(&text).with_context(|| format!("in `{}`", path.display()))?;
        let file = files.iter().find(|f| f.messages.iter().any(|m| std::ptr::eq(m, message)));
        // Only a request says that its last version is not ready for use.
        let request = path.with_file_name(format!("{}.json", message.name.replace("Response", "Request")));
        let unstable = match std::fs::read_to_string(&request) {
            Ok(text) => parse(&text)?.get("latestVersionUnstable") == Some(&Value::Bool(true)),
            Err(_) => false,
        };
        found.extend(Comparison::new(message, file, &definition, unstable).run()?);
        compared += 1;
    }
    let known = |path: &str| DEVIATIONS.iter().any(|(deviation, _)| path == *deviation);
    let stale = DEVIATIONS.iter().filter(|(path, _)| !found.iter().any(|d| d.path == *path));
    let stale = stale.map(|(path, _)| format!("{path}: is listed as a deviation, but there is none"));
    let errors: Vec<String> = found
        .iter()
        .filter(|difference| !known(&difference.path))
        .map(|d| format!("{}: {}", d.path, d.what))
        .chain(stale)
        .collect();
    ensure!(errors.is_empty(), "the notation differs from Kafka {VERSION}:\n{}", errors.join("\n"));
    Ok(compared)
}

struct Difference {
    path: String,
    what: String,
}

struct Comparison<'a> {
    message: &'a Message,
    /// Structures that several fields of the notation have.
    shared: Vec<&'a Message>,
    definition: &'a Value,
    /// The last version is not ready for use.
    unstable: bool,
    found: Vec<Difference>,
}

impl<'a> Comparison<'a> {
    fn new(message: &'a Message, file: Option<&'a File>, definition: &'a Value, unstable: bool) -> Self {
        let messages = file.map(|file| file.messages.as_slice()).unwrap_or_default();
        let shared = messages.iter().filter(|m| m.kind == Kind::Shared).collect();
        Self { message, shared, definition, unstable, found: Vec::new() }
    }

    fn run(mut self) -> Result<Vec<Difference>> {
        let message = self.message;
        let theirs = self.definition.as_object().context("a definition is an object")?;
        let any = Versions { lo: 0, hi: i16::MAX };
        let mut valid = versions(theirs, "validVersions", any)?.context("no versions")?;
        valid.hi -= i16::from(self.unstable);
        let name = message.name.clone();
        self.same(&name, "versions", &valid, &message.versions);
        let flexible = versions(theirs, "flexibleVersions", any)?.map(|v| v.lo).filter(|lo| *lo <= valid.hi);
        self.same(&name, "the first flexible version", &flexible, &message.flexible_from);
        if let Kind::Request { api } = &message.kind {
            let key = theirs.get("apiKey").and_then(Value::as_i64);
            self.same(&name, "the key", &key, &Some(i64::from(api.key)));
        }
        self.fields(&name, theirs, &message.fields, valid)?;
        Ok(self.found)
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, path: &str, what: &str, theirs: &T, ours: &T) {
        if theirs != ours {
            self.differs(path, format!("{what} of Kafka: {theirs:?}, of the notation: {ours:?}"));
        }
    }

    fn differs(&mut self, path: &str, what: String) {
        self.found.push(Difference { path: path.to_owned(), what });
    }

    fn fields(
        &mut self,
        path: &str,
        theirs: &Map<String, Value>,
        ours: &[Field],
        scope: Versions,
    ) -> Result<()> {
        let theirs = theirs.get("fields").and_then(Value::as_array).context("no fields")?;
        let mut present = Vec::new();
        for field in theirs {
            let field = field.as_object().context("a field is an object")?;
            if let Some(versions) = versions(field, "versions", scope)? {
                present.push((snake(text(field, "name")?), field, versions));
            }
        }
        let names = |names: &mut dyn Iterator<Item = &str>| names.collect::<Vec<_>>().join(" ");
        let (kafka, notation) = (
            names(&mut present.iter().map(|(name, ..)| name.as_str())),
            names(&mut ours.iter().map(|field| field.name.as_str())),
        );
        if kafka != notation {
            self.differs(path, format!("fields of Kafka: {kafka}; of the notation: {notation}"));
            return Ok(());
        }
        for ((name, theirs, versions), ours) in present.into_iter().zip(ours) {
            self.field(&format!("{path}.{name}"), theirs, ours, versions)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        path: &str,
        theirs: &Map<String, Value>,
        ours: &Field,
        present: Versions,
    ) -> Result<()> {
        self.same(path, "versions", &present, &ours.versions);
        self.same(path, "null", &versions(theirs, "nullableVersions", present)?, &ours.nullable);
        let tag = theirs.get("tag").and_then(Value::as_u64);
        self.same(path, "the tag", &tag, &ours.tag.map(u64::from));
        if versions(theirs, "taggedVersions", present)?.is_some_and(|tagged| tagged != present) {
            self.differs(path, "is tagged in some of its versions, which the notation cannot say".into());
        }
        let (default, kind) = (theirs.get("default"), text(theirs, "type")?);
        self.same(path, "the default", &their_default(default), &ours.default);
        let (wraps, core) = match kind.strip_prefix("[]") {
            Some(core) => (true, core),
            None => (false, kind),
        };
        let (array, inner) = match &ours.ty {
            Type::Array(inner) => (true, &**inner),
            other => (false, other),
        };
        let structure = core.starts_with(char::is_uppercase);
        let same_type = match inner {
            Type::Struct(_) => structure,
            Type::Array(_) => false,
            Type::Plain(name) => their_type(core) == *name,
            Type::String => core == "string",
            Type::Bytes => core == "bytes",
            Type::Records => core == "records",
        };
        if wraps != array || !same_type {
            self.differs(path, format!("type of Kafka: {kind}, of the notation: {:?}", ours.ty));
        } else if structure {
            self.structure(path, theirs, core, ours, present)?;
        }
        Ok(())
    }

    /// A structure's fields stand in the field, or apart where several fields have it, on either side.
    fn structure(
        &mut self,
        path: &str,
        theirs: &Map<String, Value>,
        name: &str,
        ours: &Field,
        present: Versions,
    ) -> Result<()> {
        let apart = self.definition.get("commonStructs").and_then(Value::as_array);
        let apart = apart.into_iter().flatten().find(|s| s.get("name").and_then(Value::as_str) == Some(name));
        let theirs = match apart {
            Some(structure) => structure.as_object().context("a structure is an object")?,
            None => theirs,
        };
        let ours_apart = self.shared.iter().find(|m| ours.ty.structure() == Some(m.name.as_str()));
        match ours_apart {
            Some(structure) => {
                let structure = *structure;
                self.fields(path, theirs, &structure.fields, structure.versions)
            }
            None => self.fields(path, theirs, &ours.fields, present),
        }
    }
}

/// JSON with comments to the end of the line.
fn parse(text: &str) -> Result<Value> {
    let mut plain = String::with_capacity(text.len());
    for line in text.lines() {
        let mut quoted = false;
        let end = line.char_indices().find(|&(at, c)| {
            quoted ^= c == '"';
            !quoted && line[at..].starts_with("//")
        });
        plain.push_str(&line[..end.map_or(line.len(), |(at, _)| at)]);
        plain.push('\n');
    }
    Ok(serde_json::from_str(&plain)?)
}

fn text<'a>(of: &'a Map<String, Value>, name: &str) -> Result<&'a str> {
    of.get(name).and_then(Value::as_str).with_context(|| format!("`{name}` is missing"))
}

/// The part of `scope` that the field `name` says; `None` where nothing is left.
fn versions(of: &Map<String, Value>, name: &str, scope: Versions) -> Result<Option<Versions>> {
    let text = match of.get(name) {
        None => return Ok(None),
        Some(value) => value.as_str().with_context(|| format!("`{name}` is not a text"))?,
    };
    let (lo, hi) = match (text.strip_suffix('+'), text.split_once('-')) {
        _ if text == "none" => return Ok(None),
        (Some(lo), _) => (lo.parse()?, i16::MAX),
        (None, Some((lo, hi))) => (lo.parse()?, hi.parse()?),
        (None, None) => (text.parse()?, text.parse()?),
    };
    let part = Versions { lo: scope.lo.max(lo), hi: scope.hi.min(hi) };
    Ok((part.lo <= part.hi).then_some(part))
}

/// `MaxWaitMs` as `max_wait_ms`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut after_small = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_small {
            out.push('_');
        }
        after_small = !c.is_ascii_uppercase();
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn their_type(name: &str) -> &str {
    match name {
        "int8" => "i8",
        "int16" => "i16",
        "uint16" => "u16",
        "int32" => "i32",
        "uint32" => "u32",
        "int64" => "i64",
        "float64" => "f64",
        other => other,
    }
}

/// A default in one way of writing; what every type starts with is none.
fn their_default(value: Option<&Value>) -> Option<String> {
    let text = match value? {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.as_str() {
        "" | "0" | "false" => None,
        text => Some(match text.strip_prefix("0x").map(|hex| i64::from_str_radix(hex, 16)) {
            Some(Ok(number)) => number.to_string(),
            _ => text.to_owned(),
        }),
    }
}

/// The whole of `--compare`.
pub(crate) fn run(files: &[File]) -> Result<()> {
    let compared = compare(files, &fetch()?)?;
    if compared == 0 {
        bail!("nothing was compared");
    }
    println!("codec: {compared} messages are as in Kafka {VERSION}, but for {} deviations", DEVIATIONS.len());
    Ok(())
}

#[cfg(test)]
mod tests;
