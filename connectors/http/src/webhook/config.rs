//! What the source can be told.

use std::net::SocketAddr;
use std::time::Duration;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, Secret, Values};
use aqueduct_core::{Error, FieldPath, Result, Topic};
use axum::http::HeaderName;

use super::signature::{Scheme, Signature};

#[expect(clippy::too_many_lines, reason = "one declaration after the other")]
pub(super) fn spec() -> Spec {
    Spec {
        name: "webhook",
        aliases: &[],
        version: env!("CARGO_PKG_VERSION"),
        summary: "Takes records by HTTP requests and answers when they are durable.",
        config: ConfigDef::new([
            ConfigKey::new(
                "listen",
                ConfigType::String,
                "Address and port to listen on, such as `127.0.0.1:8090`; port 0 takes a free one. Beyond loopback it \
                 needs `signature` or `auth.token`, or `insecure`.",
            )
            .required(),
            ConfigKey::new("path", ConfigType::String, "Path of the requests.").default("/"),
            ConfigKey::new("topic", ConfigType::String, "Topic of the records.")
                .required()
                .check(aqueduct_core::check_topic),
            ConfigKey::new(
                "format",
                ConfigType::Enum(&["json", "text", "bytes"]),
                "What a record is. A body that is not JSON becomes a dead letter, or is refused with 422.",
            )
            .default("json"),
            ConfigKey::new(
                "split",
                ConfigType::Enum(&["none", "array", "lines"]),
                "Whether a body is one record, a JSON array of records, or one record a line.",
            )
            .default("none"),
            ConfigKey::new("key.field", ConfigType::String, "Field of a JSON record that becomes its key; a path has dots."),
            ConfigKey::new("max.body", ConfigType::Size, "Largest body; a larger one is answered 413 unread.")
                .default("1MiB"),
            ConfigKey::new(
                "timeout",
                ConfigType::Duration,
                "How long a request may take, from its head to the acknowledgement of its records; then it is answered \
                 503, and may have been written all the same.",
            )
            .default("30s"),
            ConfigKey::new(
                "signature",
                ConfigType::Enum(&["none", "github", "stripe", "slack", "hex", "base64"]),
                "How the body is signed, by HMAC-SHA256: as GitHub (`X-Hub-Signature-256: sha256=…`), Stripe \
                 (`Stripe-Signature: t=…,v1=…`), Slack (`X-Slack-Signature`), or the bare signature in \
                 `signature.header`.",
            )
            .default("none"),
            ConfigKey::new(
                "signature.secret",
                ConfigType::Password,
                "The shared secret; several, separated by commas, while one is replaced by the next.",
            ),
            ConfigKey::new("signature.header", ConfigType::String, "Header of the signature, for `hex` and `base64`.")
                .default("X-Signature"),
            ConfigKey::new(
                "signature.tolerance",
                ConfigType::Duration,
                "How old a signature may be, where it has a time (`stripe`, `slack`).",
            )
            .default("5m"),
            ConfigKey::new("auth.token", ConfigType::Password, "Demands `Authorization: Bearer` with this token."),
            ConfigKey::new("insecure", ConfigType::Boolean, "Allows anybody who reaches the address to write records.")
                .default("false"),
            ConfigKey::new("headers", ConfigType::List, "Headers of the request that records carry on.").default(""),
            ConfigKey::new(
                "idempotency.header",
                ConfigType::String,
                "Header that names a request; records carry it on as `idempotency-key`.",
            )
            .default("Idempotency-Key")
            .importance(Importance::Low),
        ]),
    }
}

/// What a record is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Text,
    Bytes,
}

/// How a body becomes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    None,
    Array,
    Lines,
}

/// The parsed config.
pub(super) struct WebhookConfig {
    pub(super) listen: SocketAddr,
    pub(super) path: String,
    pub(super) topic: Topic,
    pub(super) format: Format,
    pub(super) split: Split,
    pub(super) key: Option<FieldPath>,
    pub(super) max_body: usize,
    pub(super) timeout: Duration,
    pub(super) signature: Option<Signature>,
    pub(super) token: Option<Secret>,
    pub(super) headers: Vec<HeaderName>,
    pub(super) idempotency: Option<HeaderName>,
}

fn wrong(key: &str, why: impl std::fmt::Display) -> Error {
    Error::bad_config(format!("`{key}`: {why}"))
}

fn header(key: &str, name: &str) -> Result<HeaderName> {
    name.parse().map_err(|_| wrong(key, format_args!("`{name}` is not a name of a header")))
}

impl WebhookConfig {
    pub(super) fn new(values: &Values) -> Result<Self> {
        let listen = values.text("listen")?;
        let listen: SocketAddr = listen.parse().map_err(|_| {
            wrong("listen", format_args!("`{listen}` is not an address and a port, such as `127.0.0.1:8090`"))
        })?;
        let token = values.opt_password("auth.token")?.cloned();
        let signature = signature(values)?;
        if !listen.ip().is_loopback()
            && token.is_none()
            && signature.is_none()
            && !values.boolean("insecure")?
        {
            return Err(wrong(
                "listen",
                format_args!(
                    "`{listen}` can be reached by others, and nothing is demanded of them; set `signature` or \
                     `auth.token`, or `insecure: true` where something before it does"
                ),
            ));
        }
        let path = values.text("path")?;
        if !path.starts_with('/') {
            return Err(wrong("path", format_args!("`{path}` does not begin with `/`")));
        }
        let format = match values.text("format")? {
            "text" => Format::Text,
            "bytes" => Format::Bytes,
            _ => Format::Json,
        };
        let split = match values.text("split")? {
            "array" if format != Format::Json => return Err(wrong("split", "`array` needs `format: json`")),
            "array" => Split::Array,
            "lines" => Split::Lines,
            _ => Split::None,
        };
        let key = match values.opt_text("key.field")? {
            Some(_) if format != Format::Json => return Err(wrong("key.field", "it needs `format: json`")),
            Some(path) => Some(FieldPath::parse(path).map_err(|why| wrong("key.field", why))?),
            None => None,
        };
        let idempotency = match values.text("idempotency.header")? {
            "" => None,
            name => Some(header("idempotency.header", name)?),
        };
        Ok(Self {
            listen,
            path: path.to_owned(),
            topic: values.text("topic")?.into(),
            format,
            split,
            key,
            max_body: values.size("max.body")?.as_usize(),
            timeout: values.duration("timeout")?,
            signature,
            token,
            headers: values
                .list("headers")?
                .iter()
                .map(|name| header("headers", name))
                .collect::<Result<_>>()?,
            idempotency,
        })
    }
}

fn signature(values: &Values) -> Result<Option<Signature>> {
    let scheme = match values.text("signature")? {
        "github" => Scheme::Github,
        "stripe" => Scheme::Stripe,
        "slack" => Scheme::Slack,
        "hex" => Scheme::Hex(header("signature.header", values.text("signature.header")?)?),
        "base64" => Scheme::Base64(header("signature.header", values.text("signature.header")?)?),
        _ => return Ok(None),
    };
    let secret = values.opt_password("signature.secret")?;
    let secret = secret.ok_or_else(|| wrong("signature.secret", "a signature needs the shared secret"))?;
    let secrets: Vec<Vec<u8>> =
        secret.expose().split(',').map(|one| one.trim().as_bytes().to_vec()).collect();
    if secrets.iter().any(Vec::is_empty) {
        return Err(wrong("signature.secret", "a secret is empty"));
    }
    Ok(Some(Signature { scheme, secrets, tolerance: values.duration("signature.tolerance")? }))
}
