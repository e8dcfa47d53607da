//! The dependency direction of the workspace, checked against `cargo metadata`.
//!
//! `core` ← everything. Transforms and plugins see `core` only, connectors the formats too. `connect/*` never sees the broker, only its
//! wire format. Only the binary composes.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::machine::cargo;

/// What each crate of ours may depend on (tests included, but for `aqueduct-tests`, which is a test).
const ALLOWED: &[(&str, &[&str])] = &[
    ("aqueduct-core", &[]),
    ("aqueduct-wire", &[]),
    ("aqueduct-log", &["aqueduct-wire"]),
    ("aqueduct-broker", &["aqueduct-wire", "aqueduct-log"]),
    ("aqueduct-client", &["aqueduct-core", "aqueduct-wire"]),
    ("aqueduct-convert", &["aqueduct-core"]),
    ("aqueduct-runtime", &["aqueduct-core", "aqueduct-client", "aqueduct-convert"]),
    ("aqueduct-api", &["aqueduct-core", "aqueduct-runtime"]),
    ("aqueduct-pipeline", &["aqueduct-core"]),
    ("aqueduct-format-", &["aqueduct-core"]),
    ("aqueduct-connector-", &["aqueduct-core", "aqueduct-format-parquet"]),
    ("aqueduct-transforms", &["aqueduct-core"]),
    ("aqueduct-plugin-host", &["aqueduct-core"]),
    ("xtask", &[]),
];

/// Crates that may see everything.
const COMPOSERS: &[&str] = &["aqueduct", "aqueduct-tests"];

/// Every dependency that points the wrong way.
pub(crate) fn check() -> Result<Vec<String>> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    violations(&serde_json::from_slice(&output.stdout)?)
}

fn violations(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let ours: BTreeMap<&str, &Value> =
        packages.iter().filter_map(|package| Some((package["name"].as_str()?, package))).collect();
    let mut wrong = Vec::new();
    for (name, package) in &ours {
        if COMPOSERS.contains(name) {
            continue;
        }
        let rule =
            ALLOWED.iter().find(|(rule, _)| rule == name || (rule.ends_with('-') && name.starts_with(rule)));
        let Some((_, allowed)) = rule else {
            wrong.push(format!("{name}: not in the list of xtask/src/architecture.rs"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().context("a package lists dependencies")?;
        for dependency in dependencies {
            let to = dependency["name"].as_str().unwrap_or_default();
            let in_tests = to == "aqueduct-tests" && dependency["kind"] == "dev";
            if ours.contains_key(to) && !allowed.contains(&to) && !in_tests {
                wrong.push(format!("{name} depends on {to}, which it may not see"));
            }
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_point_one_way() {
        assert_eq!(check().expect("cargo metadata runs"), Vec::<String>::new());
    }

    #[test]
    fn a_connector_that_sees_the_runtime_is_refused() {
        let package = |name: &str, to: &str| serde_json::json!({"name": name, "dependencies": [{"name": to, "kind": null}]});
        let metadata = serde_json::json!({"packages": [
            package("aqueduct-connector-s3", "aqueduct-runtime"),
            package("aqueduct-runtime", "aqueduct-broker"),
            package("aqueduct-broker", "aqueduct-wire"),
            package("aqueduct-wire", "bytes"),
        ]});
        assert_eq!(violations(&metadata).expect("well-formed").len(), 2);
    }
}
