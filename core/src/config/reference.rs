//! References inside values: `${env:NAME}`, `${file:PATH}`, `${file:PATH:KEY}`, `${dir:DIR:NAME}`.
//!
//! Resolving is a parameter ([`Resolver`]), because it reads the environment and files.

use super::{Config, Problem, Resolved, ResolvedConfig};

/// A reference found in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// `env`, `file` or `dir`.
    pub provider: &'a str,
    /// Name of the variable, or path.
    pub path: &'a str,
    /// Key within the file or directory.
    pub key: Option<&'a str>,
}

/// Looks references up.
pub trait Resolver {
    /// The text, or what is wrong and what to do; never with a secret in it.
    fn resolve(&self, reference: &Reference<'_>) -> Result<String, String>;
}

/// Resolves every reference of `config`. Every one that cannot be resolved is a problem.
pub fn resolve(config: &Config, resolver: &dyn Resolver) -> Result<ResolvedConfig, Vec<Problem>> {
    let mut resolved = ResolvedConfig::new();
    let mut problems = Vec::new();
    for (key, text) in config {
        match resolve_text(text, resolver) {
            Ok(value) => {
                resolved.insert(key.clone(), value);
            }
            Err(why) => problems.push(Problem::new(key, format!("`{key}`: {why}"))),
        }
    }
    if problems.is_empty() { Ok(resolved) } else { Err(problems) }
}

/// Resolves the references of one value. Text of another form, such as `${topic}`, is left as it is.
///
/// A JSON object or list is resolved on its string leaves, so that quotes in a secret cannot change its structure.
pub fn resolve_text(text: &str, resolver: &dyn Resolver) -> Result<Resolved, String> {
    if text.contains("${")
        && text.trim_start().starts_with(['{', '['])
        && let Ok(mut json) = serde_json::from_str::<serde_json::Value>(text)
    {
        let secret = resolve_leaves(&mut json, resolver)?;
        let text = if secret { json.to_string() } else { text.to_owned() };
        return Ok(Resolved { text, secret });
    }
    resolve_leaf(text, resolver)
}

fn resolve_leaves(json: &mut serde_json::Value, resolver: &dyn Resolver) -> Result<bool, String> {
    let mut secret = false;
    match json {
        serde_json::Value::String(leaf) => {
            let resolved = resolve_leaf(leaf, resolver)?;
            secret = resolved.secret;
            *leaf = resolved.text;
        }
        serde_json::Value::Array(items) => {
            for item in items {
                secret |= resolve_leaves(item, resolver)?;
            }
        }
        serde_json::Value::Object(fields) => {
            for (_, field) in fields.iter_mut() {
                secret |= resolve_leaves(field, resolver)?;
            }
        }
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
    Ok(secret)
}

fn resolve_leaf(text: &str, resolver: &dyn Resolver) -> Result<Resolved, String> {
    let mut out = String::with_capacity(text.len());
    let mut secret = false;
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else { break };
        let inner = &rest[start + 2..start + length];
        out.push_str(&rest[..start]);
        match parse(inner) {
            Some(reference) => {
                out.push_str(&resolver.resolve(&reference)?);
                secret = true;
            }
            None => out.push_str(&rest[start..=start + length]),
        }
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    Ok(Resolved { text: out, secret })
}

fn parse(inner: &str) -> Option<Reference<'_>> {
    let (provider, rest) = inner.split_once(':')?;
    if !matches!(provider, "env" | "file" | "dir") || rest.is_empty() {
        return None;
    }
    let (path, key) = match rest.split_once(':') {
        Some((path, key)) => (path, Some(key)),
        None => (rest, None),
    };
    Some(Reference { provider, path, key })
}
