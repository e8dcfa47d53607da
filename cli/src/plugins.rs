//! `aqueduct plugins`: what this binary can run, from the declarations that also check every config.

use std::collections::BTreeMap;

use aqueduct_core::component::{Registry, Spec};
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, did_you_mean};
use aqueduct_pipeline::Components;
use aqueduct_runtime::{FrameworkConfig, ReferenceResolver};
use serde_json::{Value, json};

use crate::args::pipelines::PluginsCommand;
use crate::failure::Failure;

/// Width of the text of a key.
const WIDTH: usize = 100;

pub(crate) fn plugins(command: &PluginsCommand) -> Result<(), Failure> {
    let registry = crate::registry::registry();
    let all = Plugin::all(&registry);
    let text = match command {
        PluginsCommand::Ls { json: true } => {
            let all: Vec<Value> =
                all.iter().filter(|plugin| plugin.kind != "runtime").map(Plugin::head).collect();
            format!("{:#}\n", Value::from(all))
        }
        PluginsCommand::Ls { json: false } => list(&all),
        PluginsCommand::Describe { names, json } => {
            let mut found = Vec::new();
            for name in names {
                found.extend(find(&all, name)?);
            }
            if *json {
                let described: Vec<Value> = found.iter().map(|plugin| plugin.json()).collect();
                format!("{:#}\n", Value::from(described))
            } else {
                found.iter().map(|plugin| plugin.text()).collect::<Vec<_>>().join("\n")
            }
        }
        PluginsCommand::Schema => published(&schema(&registry)),
    };
    crate::output::print(&text)
}

/// The JSON Schema of pipeline files.
pub(crate) fn schema(registry: &Registry) -> Value {
    let (source_keys, sink_keys) = (FrameworkConfig::source_keys(), FrameworkConfig::sink_keys());
    let resolver = ReferenceResolver::trusted();
    aqueduct_pipeline::schema(Components {
        registry,
        source_keys: &source_keys,
        sink_keys: &sink_keys,
        resolver: &resolver,
    })
}

/// As it is published: a line for each definition and keys in order, so that changes can be read.
fn published(schema: &Value) -> String {
    let schema = sorted(schema);
    let mut lines = Vec::new();
    for (name, part) in schema.as_object().into_iter().flatten() {
        let name = Value::from(name.as_str());
        match part.as_object().filter(|_| name == "$defs" || name == "properties") {
            Some(parts) => {
                let parts =
                    parts.iter().map(|(name, part)| format!("    {}: {part}", Value::from(name.as_str())));
                lines.push(format!("  {name}: {{\n{}\n  }}", parts.collect::<Vec<_>>().join(",\n")));
            }
            None => lines.push(format!("  {name}: {part}")),
        }
    }
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

/// The order of keys may not hang on how the JSON library was built.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            Value::Object(fields.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// A component as it is shown.
struct Plugin {
    kind: &'static str,
    name: &'static str,
    aliases: &'static [&'static str],
    version: &'static str,
    summary: &'static str,
    config: ConfigDef,
}

impl Plugin {
    fn new(kind: &'static str, spec: &Spec) -> Self {
        let Spec { name, aliases, version, summary, config } = spec;
        Self { kind, name, aliases, version, summary, config: config.clone() }
    }

    fn all(registry: &Registry) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        all.extend(registry.sources().iter().map(|source| Self::new("source", source.spec())));
        all.extend(registry.sinks().iter().map(|sink| Self::new("sink", sink.spec())));
        all.extend(registry.transforms().iter().map(|step| Self::new("step", step.spec())));
        all.extend(aqueduct_runtime::converters().iter().map(|spec| Self::new("converter", spec)));
        let runtime = |name, summary, config| Self {
            kind: "runtime",
            name,
            aliases: &[],
            version: env!("CARGO_PKG_VERSION"),
            summary,
            config,
        };
        all.push(runtime("source", "The keys that every source has.", FrameworkConfig::source_keys()));
        all.push(runtime("sink", "The keys that every sink has.", FrameworkConfig::sink_keys()));
        all
    }

    fn head(&self) -> Value {
        json!({
            "kind": self.kind,
            "name": self.name,
            "aliases": self.aliases,
            "version": self.version,
            "summary": self.summary,
        })
    }

    fn json(&self) -> Value {
        let mut described = self.head();
        described["keys"] = self.config.keys().iter().map(key_json).collect();
        described
    }

    fn text(&self) -> String {
        let mut text = format!("{} `{}`: {}\n", self.kind, self.name, self.summary);
        if !self.aliases.is_empty() {
            text.push_str(&format!("stands in for {}\n", self.aliases.join(", ")));
        }
        for key in self.config.keys() {
            text.push_str(&format!("\n  {}  {}\n", key.name, facts(key)));
            if !key.aliases.is_empty() {
                text.push_str(&format!("      also {}\n", key.aliases.join(", ")));
            }
            for line in wrapped(key.doc, WIDTH - 6) {
                text.push_str(&format!("      {line}\n"));
            }
        }
        match self.kind {
            "source" | "sink" => text.push_str(&format!(
                "\nKeys of every {}: `aqueduct plugins describe {}`\n",
                self.kind, self.kind
            )),
            "converter" if !self.config.keys().is_empty() => {
                text.push_str("\nThe keys stand behind `key.converter.` and `value.converter.`\n");
            }
            _ => {}
        }
        text
    }
}

fn list(all: &[Plugin]) -> String {
    let short = all.iter().map(|plugin| plugin.name.len()).filter(|length| *length <= 20);
    let width = short.max().unwrap_or(0);
    let mut text = String::new();
    for (kind, title) in
        [("source", "SOURCES"), ("sink", "SINKS"), ("step", "STEPS"), ("converter", "CONVERTERS")]
    {
        text.push_str(&format!("{}{title}\n", if text.is_empty() { "" } else { "\n" }));
        for plugin in all.iter().filter(|plugin| plugin.kind == kind) {
            text.push_str(&format!("  {:<width$}  {}\n", plugin.name, plugin.summary));
        }
    }
    text
}

/// Every component of that name or class, or the one of the kind in front of the colon.
fn find<'a>(all: &'a [Plugin], name: &str) -> Result<Vec<&'a Plugin>, Failure> {
    let (kind, bare) = match name.split_once(':') {
        Some((kind, bare)) => (Some(kind), bare),
        None => (None, name),
    };
    let is = |plugin: &&Plugin| {
        kind.is_none_or(|kind| kind == plugin.kind) && (plugin.name == bare || plugin.aliases.contains(&bare))
    };
    let found: Vec<&Plugin> = all.iter().filter(is).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let hint = match did_you_mean(bare, all.iter().map(|plugin| plugin.name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`aqueduct plugins ls` lists them".to_owned(),
    };
    Err(Failure::usage(format!("there is no component `{name}`; {hint}")))
}

fn key_json(key: &ConfigKey) -> Value {
    json!({
        "name": key.name,
        "aliases": key.aliases,
        "type": type_name(key.ty),
        "values": if let ConfigType::Enum(words) = key.ty { Some(words) } else { None },
        "min": if let ConfigType::Int { min, .. } = key.ty { Some(min) } else { None },
        "max": if let ConfigType::Int { max, .. } = key.ty { Some(max) } else { None },
        "default": key.default,
        "required": key.required,
        "importance": importance(key),
        "path": key.path,
        "doc": key.doc,
    })
}

fn facts(key: &ConfigKey) -> String {
    let mut facts = vec![match key.ty {
        ConfigType::Enum(words) => words.join(" | "),
        ConfigType::Int { min, max } if (min, max) != (i64::MIN, i64::MAX) => match max {
            i64::MAX => format!("integer from {min}"),
            _ => format!("integer, {min} to {max}"),
        },
        other => type_name(other).to_owned(),
    }];
    match (key.required, key.default) {
        (true, _) => facts.push("required".into()),
        (false, Some(default)) if !default.is_empty() => facts.push(format!("default {default}")),
        (false, _) => {}
    }
    facts.push(format!("importance {}", importance(key)));
    format!("({})", facts.join("; "))
}

fn importance(key: &ConfigKey) -> &'static str {
    match key.importance {
        Importance::High => "high",
        Importance::Medium => "medium",
        Importance::Low => "low",
    }
}

fn type_name(ty: ConfigType) -> &'static str {
    match ty {
        ConfigType::Boolean => "boolean",
        ConfigType::Int { .. } => "integer",
        ConfigType::Double => "number",
        ConfigType::String => "text",
        ConfigType::Password => "password",
        ConfigType::List => "list",
        ConfigType::Duration => "duration",
        ConfigType::Size => "size",
        ConfigType::Enum(_) => "enum",
        ConfigType::Json => "json",
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines.last().is_some_and(|line| !line.is_empty() && line.len() + 1 + word.len() > width);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod validator;
