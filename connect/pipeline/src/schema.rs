//! The JSON Schema of pipeline files, for editors: made of the same declarations that planning reads.
//!
//! **Invariant:** it refuses no file that planning takes, but for what Connect's keys say twice (`name`, `transforms`, …).
//! What needs more than one key to be judged is left to planning.

use std::collections::{BTreeMap, BTreeSet};

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType};
use serde_json::{Map, Value as Json, json};

use crate::components::{Components, OPEN_PREFIXES};
use crate::plan::{on_error_def, topic_def};

/// Keys of the runtime that the file says in other ways.
const SAID_ELSEWHERE: &[&str] = &["name", "connector.class", "transforms", "predicates", "aqueduct.pipeline"];
/// A reference instead of the value.
const REFERENCE: &str = r"\$\{";

/// The schema of a pipeline file (draft 2020-12).
pub fn schema(components: Components<'_>) -> Json {
    let registry = components.registry;
    let mut defs = Defs::default();
    let sources: Vec<&Spec> = registry.sources().iter().map(|source| source.spec()).collect();
    let sinks: Vec<&Spec> = registry.sinks().iter().map(|sink| sink.spec()).collect();
    let steps: Vec<&Spec> = registry.transforms().iter().map(|step| step.spec()).collect();
    let source = defs.connector("source", &sources, components.source_keys);
    let sink = defs.connector("sink", &sinks, components.sink_keys);
    let step = defs.step(&steps);
    let topic = defs.object("topic", &[&topic_def()], false);
    let on_error = defs.object("on_error", &[&on_error_def()], false);
    let mut all = defs.0;
    all.insert("source".into(), source);
    all.insert("sink".into(), sink);
    all.insert("step".into(), step);
    all.insert("test".into(), test());
    all.insert("given".into(), given());
    all.insert("failure".into(), failure());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Aqueduct pipeline",
        "type": "object",
        "properties": {
            "version": { "const": 1, "description": "Version of the format." },
            "pipeline": {
                "type": "string",
                "pattern": "^[A-Za-z0-9._-]{1,100}$",
                "description": "Name of the pipeline and of its source; a sink is `<pipeline>-<sink>`.",
            },
            "source": { "$ref": "#/$defs/source" },
            "topic": topic,
            "sinks": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": "^[A-Za-z0-9._-]{1,100}$" },
                "additionalProperties": { "$ref": "#/$defs/sink" },
                "description": "Sinks by name.",
            },
            "on_error": on_error,
            "tests": {
                "type": "array",
                "items": { "$ref": "#/$defs/test" },
                "description": "What `aqueduct test` runs through the converters and steps of the sinks.",
            },
        },
        "required": ["version", "pipeline"],
        "anyOf": [{ "required": ["source"] }, { "required": ["sinks"] }],
        "additionalProperties": false,
        "$defs": all,
    })
}

/// Definitions that are referred to by name.
#[derive(Default)]
struct Defs(Map<String, Json>);

/// A key as it stands below some mappings: what is left of its name, and the name of its definition.
type Placed<'a> = (&'a str, String);

impl Defs {
    fn connector(&mut self, kind: &str, specs: &[&Spec], runtime: &ConfigDef) -> Json {
        let said = |key: &&ConfigKey| !SAID_ELSEWHERE.contains(&key.name);
        let runtime = ConfigDef::new(runtime.keys().iter().filter(said).cloned());
        let branches = specs.iter().map(|spec| {
            let with = self.object(&format!("{kind}.{}", spec.name), &[&spec.config, &runtime], true);
            branch(spec, with)
        });
        let branches: Vec<Json> = branches.collect();
        json!({
            "type": "object",
            "properties": {
                "use": component(specs),
                "with": { "type": "object", "description": "Keys of the connector, nested or dotted." },
                "steps": { "type": "array", "items": { "$ref": "#/$defs/step" } },
            },
            "required": ["use"],
            "additionalProperties": false,
            "allOf": branches,
        })
    }

    fn step(&mut self, specs: &[&Spec]) -> Json {
        let branches = specs.iter().map(|spec| {
            let with = self.object(&format!("step.{}", spec.name), &[&spec.config], false);
            branch(spec, with)
        });
        let branches: Vec<Json> = branches.collect();
        json!({
            "type": "object",
            "properties": {
                "name": { "type": "string", "pattern": "^[A-Za-z0-9_-]+$" },
                "use": component(specs),
                "with": { "type": "object", "description": "Keys of the step, nested or dotted." },
                "filter": { "type": "string", "description": "A CEL expression; records for which it is false go no further." },
            },
            "oneOf": [{ "required": ["use"] }, { "required": ["filter"] }],
            "additionalProperties": false,
            "allOf": branches,
        })
    }

    /// A mapping of keys that may be nested, dotted, or both.
    fn object(&mut self, place: &str, defs: &[&ConfigDef], open: bool) -> Json {
        let mut placed: Vec<Placed<'_>> = Vec::new();
        let mut required = Vec::new();
        for (at, key) in
            defs.iter().enumerate().flat_map(|(at, def)| def.keys().iter().map(move |key| (at, key)))
        {
            // The keys of the runtime are the same for every connector.
            let kind = if at == 0 { place } else { place.split('.').next().unwrap_or(place) };
            let name = format!("{kind}/{}", key.name).replace('/', ":");
            self.0.insert(name.clone(), leaf(key));
            if at == 0 && key.required && key.aliases.is_empty() && !key.name.contains('.') {
                required.push(key.name);
            }
            placed.extend(
                std::iter::once(key.name).chain(key.aliases.iter().copied()).map(|n| (n, name.clone())),
            );
        }
        let prefixes: Vec<&str> = if open { OPEN_PREFIXES.to_vec() } else { Vec::new() };
        let mut object = mapping(&placed, &prefixes);
        if !required.is_empty() {
            object["required"] = json!(required);
        }
        if let [own, _] = defs {
            self.share(place, own, &mut object);
        }
        let name = format!("with:{place}");
        self.0.insert(name.clone(), object);
        json!({ "$ref": format!("#/$defs/{name}") })
    }

    /// Mappings of keys that are the runtime's alone stand once for all connectors of a kind.
    fn share(&mut self, place: &str, own: &ConfigDef, object: &mut Json) {
        fn head(name: &str) -> &str {
            name.split('.').next().unwrap_or(name)
        }
        let names =
            own.keys().iter().flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()));
        let heads: BTreeSet<&str> = names.map(head).collect();
        let Some(Json::Object(properties)) = object.get_mut("properties") else { return };
        for (name, schema) in properties {
            if schema.get("$ref").is_none() && !heads.contains(head(name)) {
                let shared = format!("{}:below:{name}", head(place));
                let reference = json!({ "$ref": format!("#/$defs/{shared}") });
                self.0.insert(shared, std::mem::replace(schema, reference));
            }
        }
    }
}

fn mapping(placed: &[Placed<'_>], open: &[&str]) -> Json {
    let mut leaves: BTreeMap<&str, &str> = BTreeMap::new();
    let mut below: BTreeMap<&str, Vec<Placed<'_>>> = BTreeMap::new();
    let mut open_below: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, def) in placed {
        leaves.insert(name, def);
        for (dot, _) in name.match_indices('.') {
            below.entry(&name[..dot]).or_default().push((&name[dot + 1..], def.clone()));
        }
    }
    for prefix in open {
        for (dot, _) in prefix.match_indices('.') {
            open_below.entry(&prefix[..dot]).or_default().push(&prefix[dot + 1..]);
        }
    }
    let heads: BTreeSet<&str> = below.keys().chain(open_below.keys()).copied().collect();
    let names: BTreeSet<&str> = leaves.keys().chain(&heads).copied().collect();
    let properties = names.into_iter().map(|name| {
        let leaf = leaves.get(name).map(|def| json!({ "$ref": format!("#/$defs/{def}") }));
        let nested = heads.contains(name).then(|| {
            let open = open_below.get(name).map(Vec::as_slice).unwrap_or_default();
            mapping(below.get(name).map(Vec::as_slice).unwrap_or_default(), open)
        });
        let either = match (leaf, nested) {
            (Some(leaf), Some(nested)) => json!({ "anyOf": [leaf, nested] }),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Json::Bool(true),
        };
        (name.to_owned(), either)
    });
    let mut object = json!({ "type": "object", "properties": properties.collect::<Map<_, _>>() });
    if open.contains(&"") {
        return object;
    }
    object["additionalProperties"] = false.into();
    if !open.is_empty() {
        let patterns =
            open.iter().map(|prefix| (format!("^{}", prefix.replace('.', r"\.")), Json::Bool(true)));
        object["patternProperties"] = patterns.collect::<Map<_, _>>().into();
    }
    object
}

fn component(specs: &[&Spec]) -> Json {
    let names: Vec<&str> = specs
        .iter()
        .flat_map(|spec| std::iter::once(spec.name).chain(spec.aliases.iter().copied()))
        .collect();
    json!({ "enum": names })
}

fn branch(spec: &Spec, with: Json) -> Json {
    let needs: Vec<&str> = spec
        .config
        .keys()
        .iter()
        .filter(|key| key.required && key.aliases.is_empty() && !key.name.contains('.'))
        .map(|_| "with")
        .take(1)
        .collect();
    let names: Vec<&str> = std::iter::once(spec.name).chain(spec.aliases.iter().copied()).collect();
    json!({
        "if": { "properties": { "use": { "enum": names } }, "required": ["use"] },
        "then": {
            "properties": { "use": { "description": spec.summary }, "with": with },
            "required": needs,
        },
    })
}

fn leaf(key: &ConfigKey) -> Json {
    let text = |pattern: &str| json!({ "type": "string", "pattern": format!("{REFERENCE}|{pattern}") });
    let mut schema = match key.ty {
        ConfigType::Boolean => {
            json!({ "anyOf": [{ "type": "boolean" }, text("^ *([Tt]rue|[Ff]alse|TRUE|FALSE) *$")] })
        }
        ConfigType::Int { min, max } => json!({
            "anyOf": [{ "type": "integer", "minimum": min, "maximum": max }, text("^ *[+-]?[0-9]+ *$")]
        }),
        ConfigType::Double => json!({ "type": ["number", "string"] }),
        ConfigType::String | ConfigType::Password => json!({ "type": ["string", "number", "boolean"] }),
        ConfigType::List => json!({
            "anyOf": [
                { "type": ["string", "number", "boolean"] },
                { "type": "array", "items": { "type": ["string", "number", "boolean"] } },
            ]
        }),
        ConfigType::Duration => json!({
            "anyOf": [{ "type": "integer", "minimum": 0 }, text("^ *[0-9.]+ *(us|ms|s|m|min|h|d|w)? *$")],
            "examples": ["100ms", "30s", "5m", "7d"],
        }),
        ConfigType::Size => json!({
            "anyOf": [{ "type": "integer", "minimum": 0 }, text("^ *[0-9.]+ *([KMGTkmgt]?[Bb]|[KMGTkmgt]([Ii][Bb])?)? *$")],
            "examples": ["512KiB", "256MiB"],
        }),
        ConfigType::Enum(words) => {
            let folded = words.iter().map(|word| either_case(word)).collect::<Vec<_>>().join("|");
            json!({ "anyOf": [{ "enum": words }, text(&format!("^ *({folded}) *$"))] })
        }
        ConfigType::Json => json!({}),
    };
    schema["description"] = key.doc.into();
    if let Some(default) = key.default.filter(|default| !default.is_empty()) {
        schema["default"] = default.into();
    }
    schema
}

/// Words are taken in either case; patterns of JSON Schema have no flag for that.
fn either_case(word: &str) -> String {
    let mut pattern = String::new();
    for c in word.chars() {
        match c {
            c if c.is_ascii_alphabetic() => {
                pattern.extend(['[', c.to_ascii_lowercase(), c.to_ascii_uppercase(), ']']);
            }
            c if c.is_ascii_alphanumeric() || matches!(c, '_' | ',' | '-' | '/' | ' ') => pattern.push(c),
            c => pattern.extend(['\\', c]),
        }
    }
    pattern
}

fn test() -> Json {
    let records = |description: &str| json!({ "type": "array", "description": description });
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "given": { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/given" } },
            "expect": {
                "type": "object",
                "properties": {
                    "sink": { "type": "string", "description": "Which sink; may be left out where there is one." },
                    "exactly": records("The values that reach the sink: these, in this order, and no others."),
                    "contains": records("Values among those that reach the sink; further fields and records may be there."),
                    "dropped": { "type": "integer", "minimum": 0, "description": "How many of the given records a step drops." },
                    "dead_letters": {
                        "type": "array",
                        "items": { "$ref": "#/$defs/failure" },
                        "description": "The records that become dead letters, in the order given. Without this key none may.",
                    },
                    "stops": { "$ref": "#/$defs/failure", "description": "The sink stops at a record; for pipelines without dead letters." },
                },
                "additionalProperties": false,
            },
        },
        "required": ["name", "given", "expect"],
        "additionalProperties": false,
    })
}

fn given() -> Json {
    json!({
        "type": "object",
        "properties": {
            "topic": { "type": "string", "description": "May be left out where the sink reads one topic." },
            "partition": { "type": "integer", "minimum": 0, "default": 0 },
            "key": { "description": "Written by the sink's `key.converter`." },
            "value": { "description": "Written by the sink's `value.converter`; left out or null, a tombstone." },
            "raw": { "type": "string", "description": "Instead of `value`: the bytes of this text, as they are." },
            "schema": { "type": "object", "description": "Schema of the value, as Connect's JsonConverter writes it." },
            "headers": { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean", "null"] } },
            "timestamp": { "type": ["integer", "string"], "description": "Milliseconds since 1970, or a time as `2026-01-31T08:00:00Z`." },
        },
        "additionalProperties": false,
    })
}

fn failure() -> Json {
    let part = json!({ "description": "Part of the text, or `{ matches: REGEX }`." });
    json!({
        "type": "object",
        "properties": {
            "record": { "type": "integer", "minimum": 1, "description": "Which of the given records, from 1." },
            "stage": { "enum": crate::cases::STAGES },
            "step": { "type": "string" },
            "error": part,
        },
        "additionalProperties": false,
    })
}
