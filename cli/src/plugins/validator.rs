//! As much of JSON Schema as the schema of pipelines uses. A keyword that is not known here is an error, so that none
//! is passed over.

use regex::Regex;
use serde_json::Value;

/// What in `value` breaks `schema`: each with its path. `root` is where `$ref` starts.
pub(super) fn wrong(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let keywords = match schema {
        Value::Bool(true) => return Vec::new(),
        Value::Object(keywords) => keywords,
        other => panic!("{other} is no schema"),
    };
    let holds = |schema: &Value| wrong(root, schema, value, path).is_empty();
    let (mut found, mut below) = (Vec::new(), Vec::new());
    let mut check = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("{path}: {what}"));
        }
    };
    let list = |given: &Value| given.as_array().expect("a list").clone();
    for (keyword, given) in keywords {
        match keyword.as_str() {
            "description" | "default" | "examples" | "title" | "$schema" | "$defs" | "then" => {}
            "$ref" => {
                let pointer =
                    given.as_str().and_then(|text| text.strip_prefix('#')).expect("a local reference");
                let target = root.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere"));
                below.extend(wrong(root, target, value, path));
            }
            "type" => {
                let types = if given.is_array() { list(given) } else { vec![given.clone()] };
                check(
                    types.iter().any(|name| is(name.as_str().expect("a type"), value)),
                    &format!("not {given}"),
                );
            }
            "const" => check(value == given, &format!("not {given}")),
            "enum" => check(list(given).contains(value), &format!("not one of {given}")),
            "pattern" => {
                let regex = Regex::new(given.as_str().expect("a pattern")).expect("an expression");
                check(
                    value.as_str().is_none_or(|text| regex.is_match(text)),
                    &format!("does not match {given}"),
                );
            }
            "minimum" => check(value.as_i64().is_none_or(|n| Some(n) >= given.as_i64()), "too small"),
            "maximum" => check(value.as_i64().is_none_or(|n| Some(n) <= given.as_i64()), "too large"),
            "minItems" | "minProperties" => {
                let length = value.as_array().map(Vec::len).or(value.as_object().map(serde_json::Map::len));
                check(length.is_none_or(|n| Some(n as u64) >= given.as_u64()), "too few");
            }
            "required" => {
                for name in list(given) {
                    let there = |v: &serde_json::Map<_, _>| v.contains_key(name.as_str().expect("a name"));
                    check(value.as_object().is_none_or(there), &format!("{name} is missing"));
                }
            }
            "anyOf" => check(list(given).iter().any(holds), "none of the alternatives"),
            "oneOf" => {
                check(list(given).iter().filter(|one| holds(one)).count() == 1, "not one of the alternatives")
            }
            "allOf" => list(given).iter().for_each(|one| below.extend(wrong(root, one, value, path))),
            "if" if holds(given) => {
                below.extend(
                    keywords.get("then").map(|then| wrong(root, then, value, path)).unwrap_or_default(),
                );
            }
            "if" => {}
            "items" | "propertyNames" => {}
            "properties" | "patternProperties" | "additionalProperties" => {}
            other => panic!("the keyword `{other}` is not known"),
        }
    }
    found.append(&mut below);
    found.extend(fields(root, keywords, value, path));
    found.extend(parts(root, keywords, value, path));
    found
}

fn parts(root: &Value, keywords: &serde_json::Map<String, Value>, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(schema) = keywords.get("items") {
        for (at, item) in value.as_array().into_iter().flatten().enumerate() {
            found.extend(wrong(root, schema, item, &format!("{path}/{at}")));
        }
    }
    if let Some(schema) = keywords.get("propertyNames") {
        for name in value.as_object().into_iter().flat_map(|fields| fields.keys()) {
            found.extend(wrong(root, schema, &name.as_str().into(), path));
        }
    }
    found
}

fn fields(root: &Value, keywords: &serde_json::Map<String, Value>, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, field) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        let own = keywords.get("properties").and_then(|properties| properties.get(name));
        let patterns = keywords.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
        let patterns =
            patterns.filter(|(pattern, _)| Regex::new(pattern).expect("an expression").is_match(name));
        let schemas: Vec<&Value> = own.into_iter().chain(patterns.map(|(_, schema)| schema)).collect();
        match keywords.get("additionalProperties") {
            Some(Value::Bool(false)) if schemas.is_empty() => found.push(format!("{path}: unknown key")),
            Some(other) if schemas.is_empty() => found.extend(wrong(root, other, field, &path)),
            Some(_) | None => {
                schemas.iter().for_each(|schema| found.extend(wrong(root, schema, field, &path)))
            }
        }
    }
    found
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the type `{other}` is not known"),
    }
}
