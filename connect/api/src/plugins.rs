//! `/connector-plugins…`: what this binary can run, and whether a config would do.

use aqueduct_core::component::{Connector, Spec};
use aqueduct_runtime::{ConfigKeyInfo, Origin};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::connectors::{body, flat};
use crate::error::ApiError;
use crate::server::Shared;

#[derive(Deserialize)]
pub(crate) struct Which {
    #[serde(default = "yes", rename = "connectorsOnly")]
    connectors_only: bool,
}

fn yes() -> bool {
    true
}

#[derive(Serialize)]
struct Plugin {
    class: String,
    #[serde(rename = "type")]
    kind: &'static str,
    version: &'static str,
}

pub(crate) async fn list(State(api): Shared, which: Query<Which>) -> Result<Response, ApiError> {
    let registry = api.runtime()?.registry();
    let plugin = |spec: &Spec, kind| Plugin { class: spec.name.to_owned(), kind, version: spec.version };
    let mut plugins: Vec<Plugin> = registry.sinks().iter().map(|sink| plugin(sink.spec(), "sink")).collect();
    plugins.extend(registry.sources().iter().map(|source| plugin(source.spec(), "source")));
    if !which.connectors_only {
        plugins.extend(registry.transforms().iter().map(|step| plugin(step.spec(), "transformation")));
    }
    Ok(Json(plugins).into_response())
}

pub(crate) async fn config(State(api): Shared, Path(name): Path<String>) -> Result<Response, ApiError> {
    let registry = api.runtime()?.registry();
    let infos = |spec: &Spec| -> Vec<ConfigKeyInfo> {
        spec.config.keys().iter().enumerate().map(|(at, key)| ConfigKeyInfo::new(key, None, at + 1)).collect()
    };
    let found = match registry.find_connector(&name) {
        Ok(Connector::Source(source)) => infos(source.spec()),
        Ok(Connector::Sink(sink)) => infos(sink.spec()),
        Err(_) => match registry.find_transform(&name) {
            Ok(step) => infos(step.spec()),
            Err(_) => return Err(ApiError::not_found(format!("Unknown plugin {name}."))),
        },
    };
    Ok(Json(found).into_response())
}

pub(crate) async fn validate(
    State(api): Shared,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let config = flat(body(&bytes)?)?;
    Ok(Json(api.runtime()?.validate(&name, &config, Origin::Rest)?).into_response())
}
