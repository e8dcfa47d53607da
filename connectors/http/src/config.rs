//! What the sink can be told.

use std::path::PathBuf;
use std::time::Duration;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, Values};
use aqueduct_core::{Error, Result};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::sink::template::UrlTemplate;

#[expect(clippy::too_many_lines, reason = "one declaration after the other")]
pub(crate) fn spec() -> Spec {
    Spec {
        name: "http",
        aliases: &["io.confluent.connect.http.HttpSinkConnector", "io.aiven.kafka.connect.http.HttpSinkConnector"],
        version: env!("CARGO_PKG_VERSION"),
        summary: "Sends records to an HTTP server.",
        config: ConfigDef::new([
            ConfigKey::new(
                "url",
                ConfigType::Password,
                "Where records are sent. It may have the placeholders `{topic}`, `{partition}`, `{key}` and \
                 `{field.NAME}`, which are percent-encoded; records of different URLs never share a request.",
            )
            .aliases(&["http.api.url", "http.url"])
            .required(),
            ConfigKey::new("method", ConfigType::Enum(&["POST", "PUT", "PATCH"]), "Method of the requests.")
                .aliases(&["request.method"])
                .default("POST"),
            ConfigKey::new(
                "headers",
                ConfigType::Password,
                "Further headers, as `Name: value`, separated by `|` or newlines.",
            )
            .aliases(&["http.headers.additional"])
            .default(""),
            ConfigKey::new("content.type", ConfigType::String, "`Content-Type`; by default that of `format`.")
                .aliases(&["http.headers.content.type"]),
            ConfigKey::new(
                "format",
                ConfigType::Enum(&["json", "text"]),
                "`json` sends values as JSON; `text` sends text as it is, and everything else as JSON.",
            )
            .aliases(&["request.body.format"])
            .default("json"),
            ConfigKey::new(
                "batch.records",
                ConfigType::Int { min: 1, max: 100_000 },
                "Most records of a request. With 1, the body is the value alone.",
            )
            .aliases(&["batch.max.size"])
            .default("1"),
            ConfigKey::new("batch.size", ConfigType::Size, "Most bytes of a body of several records.").default("1MiB"),
            ConfigKey::new(
                "batch.as",
                ConfigType::Enum(&["array", "lines"]),
                "Whether the records of a batch are a JSON array or lines.",
            )
            .default("array"),
            ConfigKey::new(
                "nulls",
                ConfigType::Enum(&["fail", "ignore", "delete", "write"]),
                "What to do about null values: `fail` makes them bad records, `ignore` leaves them out, `delete` sends \
                 DELETE to the record's URL, `write` sends `null`.",
            )
            .aliases(&["behavior.on.null.values"])
            .default("fail"),
            ConfigKey::new("auth.type", ConfigType::Enum(&["none", "basic", "bearer"]), "How requests are authorized.")
                .default("none"),
            ConfigKey::new("auth.user", ConfigType::String, "User of `basic`.").aliases(&["connection.user"]),
            ConfigKey::new("auth.password", ConfigType::Password, "Password of `basic`.")
                .aliases(&["connection.password"]),
            ConfigKey::new("auth.token", ConfigType::Password, "Token of `bearer`.").aliases(&["bearer.token"]),
            ConfigKey::new(
                "tls.ca",
                ConfigType::String,
                "PEM file of a certificate authority to trust besides the system's.",
            )
            .path(),
            ConfigKey::new("timeout", ConfigType::Duration, "How long a request may take.")
                .aliases(&["http.request.timeout.ms"])
                .default("30s"),
            ConfigKey::new("connect.timeout", ConfigType::Duration, "How long a connection may take.")
                .aliases(&["http.connect.timeout.ms"])
                .default("10s"),
            ConfigKey::new("retry.backoff", ConfigType::Duration, "Shortest pause before a request is sent again.")
                .aliases(&["retry.backoff.ms"])
                .default("200ms"),
            ConfigKey::new(
                "retry.backoff.max",
                ConfigType::Duration,
                "Longest pause; a longer `Retry-After` is followed up to an hour.",
            )
            .default("30s"),
            ConfigKey::new(
                "refused.statuses",
                ConfigType::List,
                "Statuses by which the server refuses what is in a body; the batch is split and the record at fault \
                 becomes a dead letter. Other statuses of 4xx stop the task: they are about the request.",
            )
            .default("400,409,413,422"),
            ConfigKey::new(
                "max.in.flight",
                ConfigType::Int { min: 1, max: 1000 },
                "Most requests at once; never two of one partition.",
            )
            .default("8"),
            ConfigKey::new(
                "idempotency.header",
                ConfigType::String,
                "Header that names the records of a request, `topic-partition-offset` of the first, the same when it is \
                 sent again; empty for none.",
            )
            .default("Idempotency-Key")
            .importance(Importance::Low),
        ]),
    }
}

/// What becomes of null values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nulls {
    Fail,
    Ignore,
    Delete,
    Write,
}

/// The parsed config.
#[derive(Debug)]
pub(crate) struct HttpConfig {
    pub(crate) url: UrlTemplate,
    pub(crate) method: Method,
    /// Sent with every request.
    pub(crate) headers: HeaderMap,
    pub(crate) text: bool,
    pub(crate) batch_records: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) lines: bool,
    pub(crate) nulls: Nulls,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) refused: Vec<u16>,
    pub(crate) in_flight: usize,
    pub(crate) idempotency: Option<HeaderName>,
}

fn wrong(key: &str, why: impl std::fmt::Display) -> Error {
    Error::bad_config(format!("`{key}`: {why}"))
}

impl HttpConfig {
    pub(crate) fn new(values: &Values) -> Result<Self> {
        let lines = values.text("batch.as")? == "lines";
        let text = values.text("format")? == "text";
        let batch_records = usize::try_from(values.int("batch.records")?).unwrap_or(usize::MAX);
        if text && batch_records > 1 && !lines {
            return Err(wrong(
                "batch.as",
                "text cannot stand in a JSON array; write `lines`, or `batch.records: 1`",
            ));
        }
        let status = |text: &String| match text.parse() {
            Ok(status) if (400..=499).contains(&status) => Ok(status),
            _ => Err(wrong("refused.statuses", format_args!("`{text}` is not a status of 4xx"))),
        };
        let (shortest, longest) = (values.duration("retry.backoff")?, values.duration("retry.backoff.max")?);
        let shortest = shortest.max(Duration::from_millis(1));
        let header = values.text("idempotency.header")?;
        let idempotency = match header {
            "" => None,
            name => Some(name.parse().map_err(|_| {
                wrong("idempotency.header", format_args!("`{name}` is not a name of a header"))
            })?),
        };
        Ok(Self {
            url: UrlTemplate::parse(values.password("url")?.expose()).map_err(|why| wrong("url", why))?,
            method: match values.text("method")? {
                "PUT" => Method::PUT,
                "PATCH" => Method::PATCH,
                _ => Method::POST,
            },
            headers: headers(values, default_type(text, batch_records > 1 && lines))?,
            text,
            batch_records,
            batch_bytes: values.size("batch.size")?.as_usize(),
            lines,
            nulls: match values.text("nulls")? {
                "ignore" => Nulls::Ignore,
                "delete" => Nulls::Delete,
                "write" => Nulls::Write,
                _ => Nulls::Fail,
            },
            ca: values.opt_text("tls.ca")?.map(PathBuf::from),
            timeout: values.duration("timeout")?,
            connect_timeout: values.duration("connect.timeout")?,
            backoff: (shortest, longest.max(shortest)),
            refused: values.list("refused.statuses")?.iter().map(status).collect::<Result<_>>()?,
            in_flight: usize::try_from(values.int("max.in.flight")?).unwrap_or(1),
            idempotency,
        })
    }
}

fn default_type(text: bool, lines: bool) -> &'static str {
    match (text, lines) {
        (true, _) => "text/plain; charset=utf-8",
        (false, true) => "application/x-ndjson",
        (false, false) => "application/json",
    }
}

fn headers(values: &Values, default_type: &'static str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(default_type));
    for line in values.password("headers")?.expose().split(['|', '\n']).filter(|line| !line.trim().is_empty())
    {
        // The value may be a secret; only the name is quoted.
        let (name, value) =
            line.split_once(':').ok_or_else(|| wrong("headers", "a header is written `Name: value`"))?;
        let name = name.trim();
        let parsed: HeaderName =
            name.parse().map_err(|_| wrong("headers", format_args!("`{name}` is not a name of a header")))?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| {
            wrong("headers", format_args!("the value of `{name}` has characters that no header takes"))
        })?;
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    if let Some(content_type) = values.opt_text("content.type")? {
        let value = HeaderValue::from_str(content_type)
            .map_err(|_| wrong("content.type", "it has characters that no header takes"))?;
        headers.insert(CONTENT_TYPE, value);
    }
    if let Some(authorization) = authorization(values)? {
        let mut value = HeaderValue::from_str(&authorization)
            .map_err(|_| wrong("auth.token", "it has characters that no header takes"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn authorization(values: &Values) -> Result<Option<String>> {
    Ok(match values.text("auth.type")? {
        "basic" => {
            let user =
                values.opt_text("auth.user")?.ok_or_else(|| wrong("auth.user", "`basic` needs a user"))?;
            let password = values.opt_password("auth.password")?.map_or("", |password| password.expose());
            Some(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
        }
        "bearer" => {
            let token = values.opt_password("auth.token")?;
            let token = token.ok_or_else(|| wrong("auth.token", "`bearer` needs a token"))?;
            Some(format!("Bearer {}", token.expose()))
        }
        _ => None,
    })
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use aqueduct_core::config::{Config, plain};

    use super::*;

    fn parse(entries: &[(&str, &str)]) -> Result<HttpConfig> {
        let mut config: Config = [("url".to_owned(), "http://localhost/x".to_owned())].into();
        config.extend(entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        HttpConfig::new(&spec().parse(&plain(&config))?)
    }

    fn refused(entries: &[(&str, &str)]) -> String {
        parse(entries).expect_err("a wrong config").message().to_owned()
    }

    #[test]
    fn headers_are_those_of_the_config() {
        let config = parse(&[
            ("headers", "X-A: 1| X-B: two"),
            ("auth.type", "basic"),
            ("auth.user", "u"),
            ("auth.password", "p"),
            ("batch.records", "10"),
            ("batch.as", "lines"),
        ]);
        let headers = config.expect("valid").headers;
        let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!((get("x-a"), get("x-b")), (Some("1"), Some("two")));
        assert_eq!(get("authorization"), Some("Basic dTpw"));
        assert_eq!(get("content-type"), Some("application/x-ndjson"));
    }

    #[test]
    fn wrong_configs_name_the_key_and_no_secret() {
        assert!(refused(&[("url", "localhost")]).starts_with("`url`: "));
        assert!(refused(&[("auth.type", "bearer")]).contains("needs a token"));
        assert!(refused(&[("auth.type", "basic")]).contains("needs a user"));
        assert!(refused(&[("format", "text"), ("batch.records", "2")]).contains("write `lines`"));
        assert!(refused(&[("refused.statuses", "500")]).contains("`500`"));
        let secret = refused(&[("headers", "X-Key: geheim\u{1}")]);
        assert!(secret.contains("`X-Key`") && !secret.contains("geheim"), "{secret}");
    }
}
