//! What the sink can be told.

use std::time::Duration;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{
    ConfigDef, ConfigKey, ConfigType, Importance, Problem, ResolvedConfig, Secret, Values,
};
use aqueduct_core::lines::Nulls;
use aqueduct_core::rolling::RollSettings;
use aqueduct_core::template::{PathTemplate, check_path};
use aqueduct_core::{Error, Result};

/// The end of every object's name.
pub(crate) const EXTENSION: &str = "jsonl";

/// The smallest part S3 takes, but for an upload's last.
pub(crate) const MIN_PART: usize = 5 << 20;

/// The most parts S3 takes in one object.
const MAX_PARTS: u64 = 10_000;

pub(crate) fn spec() -> Spec {
    Spec {
        name: "s3",
        aliases: &[],
        version: env!("CARGO_PKG_VERSION"),
        summary: "Writes JSON lines as objects of an S3 bucket.",
        config: ConfigDef::new(server_keys().into_iter().chain(object_keys())),
    }
}

fn server_keys() -> [ConfigKey; 8] {
    [
        ConfigKey::new("bucket", ConfigType::String, "Bucket to write to; it must exist.")
            .aliases(&["s3.bucket.name"])
            .required()
            .check(check_bucket),
        ConfigKey::new(
            "region",
            ConfigType::String,
            "Region of the bucket. Default: `AWS_REGION` of the environment, else `us-east-1`.",
        )
        .aliases(&["s3.region"]),
        ConfigKey::new(
            "endpoint",
            ConfigType::String,
            "URL of an S3-compatible server. Default: `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` of the environment, \
             else Amazon's.",
        )
        .aliases(&["store.url"])
        .check(check_endpoint),
        ConfigKey::new(
            "access_key",
            ConfigType::Password,
            "Access key. Default: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` of the environment.",
        )
        .aliases(&["aws.access.key.id"])
        .importance(Importance::High),
        ConfigKey::new("secret_key", ConfigType::Password, "Secret of the access key.")
            .aliases(&["aws.secret.access.key"])
            .importance(Importance::High),
        ConfigKey::new(
            "path_style",
            ConfigType::Boolean,
            "Whether the bucket stands in the path rather than in the host name. Default: only with an endpoint.",
        )
        .aliases(&["s3.path.style.access.enabled"])
        .importance(Importance::Low),
        ConfigKey::new(
            "conditional_writes",
            ConfigType::Boolean,
            "Whether the server supports `If-None-Match`. Without it, names get a random part, and what is written \
             again after a crash is a duplicate.",
        )
        .default("true")
        .importance(Importance::Low),
        ConfigKey::new("timeout", ConfigType::Duration, "How long one request may take.")
            .default("30s")
            .importance(Importance::Low),
    ]
}

fn object_keys() -> [ConfigKey; 9] {
    [
        ConfigKey::new(
            "path",
            ConfigType::String,
            "Path of the objects: `{topic}/dt={timestamp:%Y-%m-%d}/`. Placeholders are `{topic}`, `{partition}`, \
             `{timestamp:FORMAT}` (UTC), `{key}` and `{field.NAME}`, evaluated for every record.",
        )
        .default("{topic}/")
        .importance(Importance::High)
        .check(check_path),
        ConfigKey::new("format", ConfigType::Enum(&["json"]), "Format of the objects: JSON lines.").default("json"),
        ConfigKey::new("roll.size", ConfigType::Size, "An object of this size is completed.").default("128MiB"),
        ConfigKey::new(
            "roll.count",
            ConfigType::Int { min: 0, max: i64::MAX },
            "An object of this many records is completed; 0 is any number.",
        )
        .aliases(&["flush.size"])
        .default("0"),
        ConfigKey::new(
            "roll.age",
            ConfigType::Duration,
            "When a partition's oldest record that is not in the bucket is so old, all open objects of the partition \
             are completed and its offset is committed.",
        )
        .default("5m"),
        ConfigKey::new(
            "nulls",
            ConfigType::Enum(Nulls::WORDS),
            "What to do about null values: `fail` makes them bad records, `ignore` leaves them out, `write` writes \
             `null`.",
        )
        .default("fail"),
        ConfigKey::new(
            "fields.origin",
            ConfigType::Boolean,
            "Whether `_topic`, `_partition` and `_offset` are added to every line.",
        )
        .default("false")
        .importance(Importance::Low),
        ConfigKey::new(
            "memory",
            ConfigType::Size,
            "What all open objects of a task may hold in memory; at the ceiling the largest is completed early. \
             Default: the task's share.",
        )
        .importance(Importance::Low)
        .check(|text| at_least(text, 1 << 20)),
        ConfigKey::new("part_size", ConfigType::Size, "Size of the parts in which larger objects are uploaded.")
            .aliases(&["s3.part.size"])
            .default("8MiB")
            .importance(Importance::Low)
            .check(|text| at_least(text, MIN_PART as u64)),
    ]
}

fn check_bucket(bucket: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !(3..=255).contains(&bucket.len()) || !bucket.chars().all(legal) {
        return Err(format!("`{bucket}` is not the name of a bucket"));
    }
    Ok(())
}

fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => Ok(()),
        _ => Err(format!("`{endpoint}` is not a URL; write `http://HOST:PORT` or `https://HOST`")),
    }
}

fn at_least(text: &str, bytes: u64) -> Result<(), String> {
    let size = aqueduct_core::config::parse_size(text)?;
    let least = aqueduct_core::config::ByteSize(bytes);
    if size < least { Err(format!("{size} is less than the smallest allowed, {least}")) } else { Ok(()) }
}

/// The parsed config.
#[derive(Clone, Debug)]
pub(crate) struct S3Config {
    pub(crate) bucket: String,
    pub(crate) region: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) access_key: Secret,
    pub(crate) secret_key: Secret,
    pub(crate) session_token: Option<Secret>,
    pub(crate) path_style: bool,
    pub(crate) conditional: bool,
    pub(crate) timeout: Duration,
    pub(crate) memory: Option<usize>,
    /// A buffer of this size is uploaded as a part.
    pub(crate) part: usize,
    pub(crate) rolls: RollSettings,
}

impl S3Config {
    /// What the config leaves open is taken from the variables that AWS's own tools use.
    pub(crate) fn new(values: &Values) -> Result<Self> {
        let path = PathTemplate::parse(values.text("path")?).map_err(Error::bad_config)?;
        let env = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let text = |key: &str| values.opt_text(key).map(|text| text.map(str::to_owned));
        let endpoint =
            text("endpoint")?.or_else(|| env("AWS_ENDPOINT_URL_S3")).or_else(|| env("AWS_ENDPOINT_URL"));
        let given = (values.opt_password("access_key")?, values.opt_password("secret_key")?);
        let (access_key, secret_key, session_token) = match given {
            (Some(access), Some(secret)) => (access.clone(), secret.clone(), None),
            _ => match (env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY")) {
                (Some(access), Some(secret)) => {
                    (Secret::new(access), Secret::new(secret), env("AWS_SESSION_TOKEN").map(Secret::new))
                }
                _ => {
                    return Err(Error::bad_config(
                        "no credentials for S3: set `access_key` and `secret_key`, or `AWS_ACCESS_KEY_ID` and \
                         `AWS_SECRET_ACCESS_KEY` in the environment",
                    ));
                }
            },
        };
        let region = text("region")?.or_else(|| env("AWS_REGION")).or_else(|| env("AWS_DEFAULT_REGION"));
        let part_size = values.size("part_size")?.as_usize();
        Ok(Self {
            bucket: values.text("bucket")?.to_owned(),
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
            path_style: values.opt_boolean("path_style")?.unwrap_or(endpoint.is_some()),
            endpoint,
            access_key,
            secret_key,
            session_token,
            conditional: values.boolean("conditional_writes")?,
            timeout: values.duration("timeout")?,
            memory: values.opt_size("memory")?.map(|size| size.as_usize()),
            // A little less, so that a buffer that grows by doubling does not double once more for the last line.
            part: (part_size - part_size / 64).max(MIN_PART),
            rolls: RollSettings::new(path, values)?,
        })
    }
}

/// Problems that no key has alone.
pub(crate) fn validate(config: &ResolvedConfig, spec: &Spec) -> Vec<Problem> {
    let Ok(values) = spec.config.parse(config) else { return Vec::new() };
    let mut problems = Vec::new();
    let has = |key| matches!(values.opt_password(key), Ok(Some(_)));
    if has("access_key") != has("secret_key") {
        let missing = if has("access_key") { "secret_key" } else { "access_key" };
        problems.push(Problem::new(missing, format!("`{missing}` is missing; give both keys or neither")));
    }
    if let (Ok(size), Ok(part)) = (values.size("roll.size"), values.size("part_size"))
        && size.0 / MAX_PARTS > part.0 / 2
    {
        let message = format!("`roll.size` of {size} needs more than {MAX_PARTS} parts; raise `part_size`");
        problems.push(Problem::new("roll.size", message));
    }
    problems
}

#[cfg(test)]
mod tests {
    use aqueduct_core::config::{Config, plain};

    use super::*;

    fn problems(keys: &[(&str, &str)]) -> Vec<String> {
        let config: Config = keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (config, spec) = (plain(&config), spec());
        let parsed = spec.config.parse(&config).err().unwrap_or_default();
        parsed.into_iter().chain(validate(&config, &spec)).map(|problem| problem.key).collect()
    }

    #[test]
    fn wrong_keys_are_named() {
        assert_eq!(problems(&[("bucket", "lake"), ("endpoint", "http://127.0.0.1:9000")]), [""; 0]);
        assert_eq!(problems(&[]), ["bucket"]);
        assert_eq!(
            problems(&[
                ("bucket", "a/b"),
                ("endpoint", "localhost"),
                ("path", "../x"),
                ("part_size", "1MiB")
            ]),
            ["bucket", "endpoint", "path", "part_size"]
        );
        assert_eq!(problems(&[("bucket", "lake"), ("access_key", "a")]), ["secret_key"]);
        assert_eq!(problems(&[("bucket", "lake"), ("roll.size", "1TiB")]), ["roll.size"]);
    }
}
