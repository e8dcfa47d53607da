//! The HTTP side: from a request to its answer.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::Error;
use aqueduct_core::config::Secret;
use aqueduct_core::source::{Receipt, Settle, SourceRecord};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hmac::{Hmac, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::config::WebhookConfig;
use super::records;

/// What a request costs besides its body.
const REQUEST_BYTES: usize = 4096;
/// How long answers may take once the task stops.
const DRAIN: Duration = Duration::from_secs(2);

/// What every request needs.
pub(super) struct Intake {
    config: WebhookConfig,
    /// Bytes that may be under way.
    budget: Arc<Semaphore>,
    bytes: usize,
    records: mpsc::Sender<Vec<SourceRecord>>,
}

impl Intake {
    pub(super) fn new(config: WebhookConfig, bytes: usize, records: mpsc::Sender<Vec<SourceRecord>>) -> Self {
        let bytes = bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { config, budget: Arc::new(Semaphore::new(bytes)), bytes, records }
    }
}

/// Serves until `stop`, and then no longer than the answers under way take.
pub(super) async fn serve(
    listener: TcpListener,
    intake: Arc<Intake>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let app = Router::new().fallback(handle).with_state(intake);
    let (begun, draining) = oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        stop.await;
        drop(begun);
    });
    tokio::select! {
        served = async { serving.await } => {
            if let Err(error) = served {
                tracing::error!("webhook: {error}");
            }
        }
        () = async { draining.await.ok(); tokio::time::sleep(DRAIN).await } => {}
    }
}

async fn handle(State(intake): State<Arc<Intake>>, request: Request) -> Response {
    match tokio::time::timeout(intake.config.timeout, take(&intake, request)).await {
        Ok(Ok(count)) => (StatusCode::OK, format!("{{\"records\":{count}}}\n")).into_response(),
        Ok(Err(answer)) => answer,
        Err(_) => late(),
    }
}

fn say(status: StatusCode, text: impl std::fmt::Display) -> Response {
    (status, format!("{text}\n")).into_response()
}

fn with(mut response: Response, name: axum::http::HeaderName, value: &'static str) -> Response {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

fn late() -> Response {
    let text = "the records were not acknowledged in time; they may be written later, send them again under the same name";
    with(say(StatusCode::SERVICE_UNAVAILABLE, text), RETRY_AFTER, "5")
}

fn busy() -> Response {
    with(say(StatusCode::TOO_MANY_REQUESTS, "too much is under way; come again"), RETRY_AFTER, "1")
}

/// The number of records that are durable, or the answer that says why not.
async fn take(intake: &Intake, request: Request) -> Result<usize, Response> {
    let config = &intake.config;
    let (head, body) = request.into_parts();
    if head.uri.path() != config.path {
        return Err(say(StatusCode::NOT_FOUND, format_args!("requests go to {}", config.path)));
    }
    if !matches!(head.method, Method::POST | Method::PUT) {
        return Err(with(say(StatusCode::METHOD_NOT_ALLOWED, "POST the records"), ALLOW, "POST, PUT"));
    }
    if let Some(token) = &config.token
        && !is_token(&head.headers, token)
    {
        return Err(say(StatusCode::UNAUTHORIZED, "the bearer token is missing or wrong"));
    }
    if head.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(say(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the body without Content-Encoding"));
    }
    let length =
        head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let too_large = || {
        let text = format!("the body is larger than {} bytes", config.max_body);
        with(say(StatusCode::PAYLOAD_TOO_LARGE, text), CONNECTION, "close")
    };
    if length.is_some_and(|length| length > config.max_body) {
        return Err(too_large());
    }
    // Reserved before reading, given back with the answer.
    let size = (length.unwrap_or(config.max_body) + REQUEST_BYTES).min(intake.bytes);
    let _permit = reserve(intake, size).ok_or_else(busy)?;
    let body = axum::body::to_bytes(Body::new(body), config.max_body).await.map_err(|_| too_large())?;
    if let Some(signature) = &config.signature {
        let now = jiff::Timestamp::now().as_second();
        let checked = signature.check(&head.headers, &body, now);
        checked.map_err(|why| say(StatusCode::UNAUTHORIZED, why))?;
    }
    let mut records = records::of(config, &head.headers, &body);
    let count = records.len();
    let Some(last) = records.last_mut() else { return Ok(0) };
    let (sender, answer) = oneshot::channel();
    last.receipt = Some(Receipt(Arc::new(Waiting(Mutex::new(Some(sender))))));
    intake.records.try_send(records).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => busy(),
        mpsc::error::TrySendError::Closed(_) => stopping(),
    })?;
    match answer.await {
        Ok(Ok(())) => Ok(count),
        Ok(Err(why)) => Err(say(StatusCode::UNPROCESSABLE_ENTITY, why)),
        Err(_) => Err(stopping()),
    }
}

fn stopping() -> Response {
    with(
        say(StatusCode::SERVICE_UNAVAILABLE, "the connector stops or restarts; send it again"),
        RETRY_AFTER,
        "1",
    )
}

fn reserve(intake: &Intake, size: usize) -> Option<OwnedSemaphorePermit> {
    Arc::clone(&intake.budget).try_acquire_many_owned(u32::try_from(size).unwrap_or(u32::MAX)).ok()
}

/// Compared by their digests under a fresh key: the time tells nothing of the token.
fn is_token(headers: &HeaderMap, token: &Secret) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(given) = given.and_then(|value| value.strip_prefix("Bearer ")) else { return false };
    let mut key = [0; 32];
    if getrandom::fill(&mut key).is_err() {
        return false;
    }
    let digest = |text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(text.as_bytes());
        Some(mac)
    };
    match (digest(given), digest(token.expose())) {
        (Some(given), Some(expected)) => expected.verify_slice(&given.finalize().into_bytes()).is_ok(),
        _ => false,
    }
}

/// A request that waits for its answer.
struct Waiting(Mutex<Option<oneshot::Sender<Result<(), String>>>>);

impl Waiting {
    fn answer(&self, answer: Result<(), String>) {
        if let Some(sender) = self.0.lock().take() {
            // Whoever has hung up needs no answer.
            sender.send(answer).ok();
        }
    }
}

impl Settle for Waiting {
    fn acknowledged(&self) {
        self.answer(Ok(()));
    }

    fn refused(&self, error: &Error) {
        self.answer(Err(error.full()));
    }
}
