//! The listener and the routes.
//!
//! **Invariant:** a request waits at most [`REQUEST_LIMIT`] and its body is at most [`BODY_LIMIT`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_runtime::RuntimeHandle;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::guard::Guard;
use crate::metrics::MetricsSource;
use crate::{connectors, plugins};

/// Connect's own deadline of a request.
const REQUEST_LIMIT: Duration = Duration::from_secs(90);
const BODY_LIMIT: usize = 1 << 20;

/// What the API serves.
#[derive(Clone)]
pub struct ApiConfig {
    /// The runtime, once it has started; until then requests are answered with 503.
    pub runtime: Arc<OnceCell<RuntimeHandle>>,
    /// Further metrics, such as the broker's.
    pub metrics: Vec<MetricsSource>,
    /// Whether the log takes writes; an error is shown by `/health`.
    pub log_health: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Host names, beside loopback, under which the server may be addressed.
    pub host_names: Vec<String>,
    /// Version shown at `/`.
    pub version: &'static str,
}

/// What handlers share.
pub(crate) type Shared = State<Arc<ApiConfig>>;

impl ApiConfig {
    /// The runtime, or 503 while it starts.
    pub(crate) fn runtime(&self) -> Result<&RuntimeHandle, ApiError> {
        self.runtime
            .get()
            .ok_or_else(|| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the worker is still starting up"))
    }
}

/// Binds the listener. Beyond loopback it needs `insecure`, because there is no authentication.
pub async fn bind(address: SocketAddr, insecure: bool) -> std::io::Result<TcpListener> {
    if !address.ip().is_loopback() && !insecure {
        let text = "beyond loopback the rest api has no authentication; start with `--insecure` to allow it";
        return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, text));
    }
    TcpListener::bind(address).await
}

/// Serves until `stop` is cancelled; requests under way are finished.
pub async fn serve(listener: TcpListener, config: ApiConfig, stop: CancellationToken) -> std::io::Result<()> {
    let guard = Guard::new(listener.local_addr()?, config.host_names.clone());
    let routes = routes(Arc::new(config), guard);
    axum::serve(listener, routes).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

/// What a log without a runtime shows.
#[derive(Clone)]
pub struct LogConfig {
    pub metrics: MetricsSource,
    /// Whether the log takes writes; an error is shown by `/health`.
    pub log_health: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Host names, beside loopback, under which the server may be addressed.
    pub host_names: Vec<String>,
}

/// Serves `/metrics` and `/health` of a log alone until `stop` is cancelled.
pub async fn serve_log(
    listener: TcpListener,
    config: LogConfig,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let guard = Guard::new(listener.local_addr()?, config.host_names.clone());
    let routes = Router::new()
        .route("/health", get(log_health))
        .route("/metrics", get(log_metrics))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "HTTP 404 Not Found") })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(guard, guarded))
        .with_state(Arc::new(config));
    axum::serve(listener, routes).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

async fn log_health(State(config): State<Arc<LogConfig>>) -> Response {
    match (config.log_health)() {
        Ok(()) => health_answer(StatusCode::OK, "healthy", "The log takes writes."),
        Err(why) => health_answer(StatusCode::INTERNAL_SERVER_ERROR, "unhealthy", &why),
    }
}

async fn log_metrics(State(config): State<Arc<LogConfig>>) -> Result<Response, ApiError> {
    Ok(page(crate::metrics::render([&config.metrics])?))
}

fn health_answer(status: StatusCode, word: &str, message: &str) -> Response {
    (status, Json(serde_json::json!({ "status": word, "message": message }))).into_response()
}

fn page(text: String) -> Response {
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, media)], text).into_response()
}

fn routes(config: Arc<ApiConfig>, guard: Guard) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/connectors", get(connectors::list).post(connectors::create))
        .route("/connectors/{name}", get(connectors::info).delete(connectors::delete))
        .route(
            "/connectors/{name}/config",
            get(connectors::config).put(connectors::put_config).patch(connectors::patch_config),
        )
        .route("/connectors/{name}/status", get(connectors::status))
        .route("/connectors/{name}/tasks", get(connectors::tasks))
        .route("/connectors/{name}/tasks/{task}/status", get(connectors::task_status))
        .route("/connectors/{name}/tasks/{task}/restart", post(connectors::restart_task))
        .route("/connectors/{name}/topics", get(connectors::topics))
        .route("/connectors/{name}/offsets", get(connectors::offsets))
        .route("/connectors/{name}/pause", put(connectors::pause))
        .route("/connectors/{name}/resume", put(connectors::resume))
        .route("/connectors/{name}/stop", put(connectors::stop))
        .route("/connectors/{name}/restart", post(connectors::restart))
        .route("/connector-plugins", get(plugins::list))
        .route("/connector-plugins/{plugin}/config", get(plugins::config))
        .route("/connector-plugins/{plugin}/config/validate", put(plugins::validate))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "HTTP 404 Not Found") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "HTTP 405 Method Not Allowed")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(guard, guarded))
        .with_state(config)
}

async fn guarded(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if let Err(refused) = guard.check(request.method(), request.headers()) {
        return refused.into_response();
    }
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => shaped(response),
        Err(_) => {
            ApiError::internal("Request timed out. The worker did not answer within 90 s").into_response()
        }
    }
}

/// The framework refuses bodies and queries with plain text; clients expect the error body.
fn shaped(response: Response) -> Response {
    let status = response.status();
    let json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|media| media.as_bytes().starts_with(b"application/json"));
    if json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    ApiError::new(status, format!("HTTP {status}")).into_response()
}

async fn root(State(config): Shared) -> Json<serde_json::Value> {
    let cluster = config.runtime.get().map(|runtime| runtime.cluster_id().to_owned());
    Json(serde_json::json!({ "version": config.version, "commit": "unknown", "kafka_cluster_id": cluster }))
}

async fn health(State(config): Shared) -> Response {
    if let Err(why) = (config.log_health)() {
        return health_answer(StatusCode::INTERNAL_SERVER_ERROR, "unhealthy", &why);
    }
    match config.runtime.get() {
        Some(runtime) if runtime.is_ready() => {
            let message = "Worker has completed startup and is ready to handle requests.";
            health_answer(StatusCode::OK, "healthy", message)
        }
        Some(_) | None => {
            health_answer(StatusCode::SERVICE_UNAVAILABLE, "starting", "Worker is still starting up.")
        }
    }
}

async fn metrics(State(config): Shared) -> Result<Response, ApiError> {
    let runtime = config.runtime.get().map(|runtime| MetricsSource::Shared(runtime.metrics()));
    let text = crate::metrics::render(config.metrics.iter().chain(&runtime))?;
    Ok(page(text))
}
