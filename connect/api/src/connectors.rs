//! `/connectors…`: each handler is one call of the runtime, its answer in Connect's shape.
//!
//! A body that is not JSON of the right shape is answered with 500, as Connect does.

use std::collections::BTreeMap;

use aqueduct_core::config::Config;
use aqueduct_runtime::{Origin, RuntimeError, RuntimeHandle, TargetState};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::ApiError;
use crate::server::Shared;

type Answer = Result<Response, ApiError>;

impl From<RuntimeError> for ApiError {
    fn from(error: RuntimeError) -> Self {
        let status = match &error {
            RuntimeError::NotFound(_) => StatusCode::NOT_FOUND,
            RuntimeError::AlreadyExists(_) => StatusCode::CONFLICT,
            RuntimeError::Invalid(_) | RuntimeError::BadRequest(_) => StatusCode::BAD_REQUEST,
            RuntimeError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            RuntimeError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError::new(status, error.to_string())
    }
}

/// Reads a body; the guard has seen to its media type.
pub(crate) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::internal(format!("the body cannot be read: {error}")))
}

/// A flat map as clients send it: numbers and booleans are taken as their text, null is refused.
pub(crate) fn flat(map: serde_json::Map<String, serde_json::Value>) -> Result<Config, ApiError> {
    map.into_iter().map(|(key, value)| scalar(&key, value).map(|text| (key, text))).collect()
}

fn scalar(key: &str, value: serde_json::Value) -> Result<String, ApiError> {
    match value {
        serde_json::Value::String(text) => Ok(text),
        serde_json::Value::Number(number) => Ok(number.to_string()),
        serde_json::Value::Bool(flag) => Ok(flag.to_string()),
        serde_json::Value::Null => Err(ApiError::bad_request(format!(
            "`{key}`: Null value can not be supplied as the configuration value."
        ))),
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => Err(ApiError::internal(format!(
            "Cannot deserialize value of `{key}`: a configuration is a flat map of keys to text"
        ))),
    }
}

pub(crate) async fn list(State(api): Shared, RawQuery(query): RawQuery) -> Answer {
    let runtime = api.runtime()?;
    let query = query.unwrap_or_default();
    let expand: Vec<&str> = query.split('&').filter_map(|pair| pair.strip_prefix("expand=")).collect();
    if expand.is_empty() {
        return Ok(Json(runtime.connectors()).into_response());
    }
    let mut all = BTreeMap::new();
    for name in runtime.connectors() {
        let mut parts = serde_json::Map::new();
        // A connector that was deleted meanwhile is left out.
        let Ok(info) = runtime.get(&name) else { continue };
        if expand.contains(&"info") {
            parts.insert("info".into(), json!(info));
        }
        if expand.contains(&"status")
            && let Ok(status) = runtime.status(&name)
        {
            parts.insert("status".into(), json!(status));
        }
        all.insert(name, parts);
    }
    Ok(Json(all).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    #[serde(default)]
    name: String,
    #[serde(default)]
    config: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    initial_state: Option<String>,
}

pub(crate) async fn create(State(api): Shared, headers: HeaderMap, bytes: Bytes) -> Answer {
    let request: Create = body(&bytes)?;
    let name = request.name.trim().to_owned();
    let target = match request.initial_state.as_deref().map(str::to_ascii_uppercase).as_deref() {
        None | Some("RUNNING") => TargetState::Started,
        Some("PAUSED") => TargetState::Paused,
        Some("STOPPED") => TargetState::Stopped,
        Some(other) => {
            let text = format!("Unknown initial_state `{other}`; write `RUNNING`, `PAUSED` or `STOPPED`");
            return Err(ApiError::bad_request(text));
        }
    };
    let config = named(&name, flat(request.config)?)?;
    let info = api.runtime()?.create(&name, config, target, Origin::Rest).await?;
    Ok((StatusCode::CREATED, [(LOCATION, location(&headers, &name))], Json(info)).into_response())
}

pub(crate) async fn put_config(
    State(api): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Answer {
    let config = named(&name, flat(body(&bytes)?)?)?;
    let (created, info) = api.runtime()?.put_config(&name, config, Origin::Rest).await?;
    if created {
        return Ok((StatusCode::CREATED, [(LOCATION, location(&headers, &name))], Json(info)).into_response());
    }
    Ok(Json(info).into_response())
}

pub(crate) async fn patch_config(State(api): Shared, Path(name): Path<String>, bytes: Bytes) -> Answer {
    let map: serde_json::Map<String, serde_json::Value> = body(&bytes)?;
    let mut patch = Vec::new();
    for (key, value) in map {
        let value = match value {
            serde_json::Value::Null => None,
            value => Some(scalar(&key, value)?),
        };
        patch.push((key, value));
    }
    let info = api.runtime()?.patch_config(&name, patch, Origin::Rest).await?;
    Ok(Json(info).into_response())
}

/// The config with its name, which may not be another one than the request's.
fn named(name: &str, mut config: Config) -> Result<Config, ApiError> {
    let given = config.entry("name".into()).or_insert_with(|| name.to_owned());
    if given.trim() == name {
        return Ok(config);
    }
    let text =
        format!("Connector name configuration ({given}) doesn't match connector name in the URL ({name})");
    Err(ApiError::bad_request(text))
}

fn location(headers: &HeaderMap, name: &str) -> String {
    let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let escaped: String = name.bytes().map(escape).collect();
    format!("http://{host}/connectors/{escaped}")
}

fn escape(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    }
}

pub(crate) async fn info(State(api): Shared, Path(name): Path<String>) -> Answer {
    Ok(Json(api.runtime()?.get(&name)?).into_response())
}

pub(crate) async fn delete(State(api): Shared, Path(name): Path<String>) -> Answer {
    api.runtime()?.delete(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn config(State(api): Shared, Path(name): Path<String>) -> Answer {
    Ok(Json(api.runtime()?.config(&name)?).into_response())
}

pub(crate) async fn status(State(api): Shared, Path(name): Path<String>) -> Answer {
    Ok(Json(api.runtime()?.status(&name)?).into_response())
}

pub(crate) async fn tasks(State(api): Shared, Path(name): Path<String>) -> Answer {
    Ok(Json(api.runtime()?.tasks(&name)?).into_response())
}

pub(crate) async fn task_status(State(api): Shared, Path((name, task)): Path<(String, String)>) -> Answer {
    let runtime = api.runtime()?;
    let none = || ApiError::not_found(format!("No status found for task {name}-{task}"));
    let status = runtime.status(&name).map_err(|_| none())?;
    let found = status.tasks.into_iter().find(|found| found.id.to_string() == task);
    Ok(Json(found.ok_or_else(none)?).into_response())
}

pub(crate) async fn restart_task(State(api): Shared, Path((name, task)): Path<(String, String)>) -> Answer {
    let number = task.parse().map_err(|_| ApiError::not_found("HTTP 404 Not Found"))?;
    api.runtime()?.restart_task(&name, number).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn topics(State(api): Shared, Path(name): Path<String>) -> Answer {
    let topics = api.runtime()?.topics(&name);
    Ok(Json(json!({ name: { "topics": topics } })).into_response())
}

pub(crate) async fn offsets(State(api): Shared, Path(name): Path<String>) -> Answer {
    Ok(Json(api.runtime()?.offsets(&name).await?).into_response())
}

pub(crate) async fn pause(State(api): Shared, Path(name): Path<String>) -> Answer {
    let runtime = known(api.runtime()?, &name)?;
    runtime.pause(&name).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub(crate) async fn resume(State(api): Shared, Path(name): Path<String>) -> Answer {
    let runtime = known(api.runtime()?, &name)?;
    runtime.resume(&name).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub(crate) async fn stop(State(api): Shared, Path(name): Path<String>) -> Answer {
    let runtime = known(api.runtime()?, &name)?;
    runtime.stop(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn known<'a>(runtime: &'a RuntimeHandle, name: &str) -> Result<&'a RuntimeHandle, ApiError> {
    match runtime.get(name) {
        Ok(_) => Ok(runtime),
        Err(_) => Err(ApiError::not_found(format!("Unknown connector {name}"))),
    }
}

#[derive(Default, Deserialize)]
pub(crate) struct Restart {
    #[serde(default, rename = "includeTasks")]
    include_tasks: bool,
    #[serde(default, rename = "onlyFailed")]
    only_failed: bool,
}

pub(crate) async fn restart(State(api): Shared, Path(name): Path<String>, query: Query<Restart>) -> Answer {
    let runtime = known(api.runtime()?, &name)?;
    let status = runtime.restart(&name, query.include_tasks, query.only_failed).await?;
    if query.include_tasks || query.only_failed {
        return Ok((StatusCode::ACCEPTED, Json(status)).into_response());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_flat_text() {
        let map = |json: serde_json::Value| json.as_object().cloned().expect("an object");
        let config = flat(map(json!({"a": "x", "b": 2, "c": true}))).expect("flat");
        assert_eq!(config.into_values().collect::<Vec<_>>(), ["x", "2", "true"]);
        assert_eq!(flat(map(json!({"a": null}))).expect_err("null").status(), 400);
        assert_eq!(flat(map(json!({"a": {"b": 1}}))).expect_err("nested").status(), 500);
    }

    #[test]
    fn the_name_in_the_config_must_be_the_same() {
        assert_eq!(named("n", Config::new()).expect("filled in")["name"], "n");
        let other = Config::from([("name".to_owned(), "m".to_owned())]);
        assert_eq!(named("n", other).expect_err("another").status(), 400);
    }

    #[test]
    fn every_error_of_the_runtime_has_its_status() {
        let cases = [
            (RuntimeError::NotFound("x".into()), 404),
            (RuntimeError::AlreadyExists("x".into()), 409),
            (RuntimeError::BadRequest("x".into()), 400),
            (RuntimeError::Stopping, 503),
            (RuntimeError::Failed(aqueduct_core::Error::fatal("x")), 500),
        ];
        for (error, status) in cases {
            assert_eq!(ApiError::from(error).status().as_u16(), status);
        }
    }
}
