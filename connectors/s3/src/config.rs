//! What the sink can be told.

use std::time::Duration;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{
    ConfigDef, ConfigKey, ConfigType, Importance, Problem, ResolvedConfig, Secret, Values,
};
use aqueduct_core::lines::Nulls;
use aqueduct_core::rolling::RollSettings;
use aqueduct_core::template::{PathTemplate, check_path};
use aqueduct_core::{Error, Result, SchemaRef};
use aqueduct_format_parquet::Compression;

use crate::format::{Codec, Format};
use crate::schema;

/// The smallest part S3 takes, but for an upload's last.
pub(crate) const MIN_PART: usize = 5 << 20;

/// Row groups, where the config does not say.
const ROW_GROUP: usize = 8 << 20;

/// The most parts S3 takes in one object.
const MAX_PARTS: u64 = 10_000;

pub(crate) fn spec() -> Spec {
    Spec {
        name: "s3",
        aliases: &[],
        version: env!("CARGO_PKG_VERSION"),
        summary: "Writes JSON lines or Parquet as objects of an S3 bucket.",
        config: ConfigDef::new(server_keys().into_iter().chain(object_keys()).chain(format_keys())),
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

fn object_keys() -> [ConfigKey; 8] {
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
        ConfigKey::new("roll.size", ConfigType::Size, "An object of this size, before compression, is completed.")
            .default("128MiB"),
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
             `null`, which only JSON lines can.",
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

fn format_keys() -> [ConfigKey; 5] {
    [
        ConfigKey::new(
            "format",
            ConfigType::Enum(&["json", "parquet"]),
            "Format of the objects: JSON lines, or Parquet, for which records need a schema. Default: `json`, and \
             `parquet` where a key of it is given.",
        ),
        ConfigKey::new(
            "compression",
            ConfigType::Enum(&["none", "gzip", "zstd"]),
            "How JSON lines are compressed; objects are then named `.jsonl.gz` or `.jsonl.zst`. Default: `none`.",
        )
        .aliases(&["format.json.compression", "s3.compression.type", "file.compression.type"]),
        ConfigKey::new(
            "parquet.compression",
            ConfigType::Enum(&["none", "snappy", "zstd"]),
            "How the pages of Parquet are compressed. Default: `zstd`.",
        )
        .aliases(&["format.parquet.compression", "parquet.codec"]),
        ConfigKey::new(
            "parquet.row_group",
            ConfigType::Size,
            "Size of Parquet's row groups before encoding. Every open object holds as much in memory, so raise \
             `memory` with it. Default: `8MiB`.",
        )
        .aliases(&["format.parquet.row_group"])
        .importance(Importance::Low)
        .check(|text| at_least(text, 64 << 10)),
        ConfigKey::new(
            "schema",
            ConfigType::Json,
            "For Parquet of records that have no schema: their fields as a list of `name:type`, with `?` behind the type \
             where null is allowed (`[id:int64, name:string?]`; boolean, int8 to int64, float, double, string, bytes, \
             date, time, timestamp, `decimal(10,2)`), or Connect's JSON of the schema. Fields that it does not name are \
             left out.",
        )
        .check(schema::check),
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
    pub(crate) format: Format,
    /// Schema of records that have none.
    pub(crate) schema: Option<SchemaRef>,
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
            format: format(values)?,
            schema: values.opt_json("schema")?.map(schema::parse).transpose().map_err(Error::bad_config)?,
        })
    }
}

fn format(values: &Values) -> Result<Format> {
    if !is_parquet(values)? {
        return Ok(Format::Lines(match values.opt_text("compression")? {
            Some("gzip") => Codec::Gzip,
            Some("zstd") => Codec::Zstd,
            _ => Codec::None,
        }));
    }
    let compression = match values.opt_text("parquet.compression")? {
        Some("none") => Compression::None,
        Some("snappy") => Compression::Snappy,
        _ => Compression::Zstd,
    };
    let row_group = values.opt_size("parquet.row_group")?.map_or(ROW_GROUP, |size| size.as_usize());
    Ok(Format::Parquet(compression, row_group))
}

fn is_parquet(values: &Values) -> Result<bool> {
    Ok(match values.opt_text("format")? {
        Some(word) => word == "parquet",
        None => {
            values.opt_text("parquet.compression")?.is_some()
                || values.opt_size("parquet.row_group")?.is_some()
        }
    })
}

/// Keys that the format has no use for.
fn format_problems(values: &Values) -> Result<Vec<Problem>> {
    let parquet = is_parquet(values)?;
    let given = [
        ("compression", values.opt_text("compression")?.is_some(), false),
        ("parquet.compression", values.opt_text("parquet.compression")?.is_some(), true),
        ("parquet.row_group", values.opt_size("parquet.row_group")?.is_some(), true),
        ("schema", values.opt_json("schema")?.is_some(), true),
    ];
    let useless = given.into_iter().filter(|(_, given, of_parquet)| *given && *of_parquet != parquet);
    let mut problems: Vec<Problem> = useless
        .map(|(key, _, of_parquet)| match of_parquet {
            true => {
                Problem::new(key, format!("`{key}` is for `format: parquet`; set that, or remove the key"))
            }
            false => {
                Problem::new(key, format!("`{key}` is for `format: json`; Parquet has `parquet.compression`"))
            }
        })
        .collect();
    if parquet && values.text("nulls")? == "write" {
        let message = "`nulls`: Parquet has no row that is null; set it to `fail` or `ignore`";
        problems.push(Problem::new("nulls", message));
    }
    Ok(problems)
}

/// Problems that no key has alone.
pub(crate) fn validate(config: &ResolvedConfig, spec: &Spec) -> Vec<Problem> {
    let Ok(values) = spec.config.parse(config) else { return Vec::new() };
    let mut problems = format_problems(&values).unwrap_or_default();
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

    #[test]
    fn the_format_follows_from_its_keys_and_refuses_those_of_another() {
        let format = |keys: &[(&str, &str)]| {
            let keys = keys.iter().chain(&[("bucket", "lake")]);
            let config: Config = keys.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            format(&spec().config.parse(&plain(&config)).expect("valid")).expect("valid")
        };
        assert_eq!(format(&[]), Format::Lines(Codec::None));
        assert_eq!(format(&[("compression", "gzip")]), Format::Lines(Codec::Gzip));
        assert_eq!(format(&[("format", "parquet")]), Format::Parquet(Compression::Zstd, ROW_GROUP));
        let snappy = Format::Parquet(Compression::Snappy, ROW_GROUP);
        assert_eq!(format(&[("format.parquet.compression", "snappy")]), snappy, "as pipelines nest it");
        let wrong = |keys: &[(&str, &str)]| problems(&[&[("bucket", "lake")], keys].concat());
        assert_eq!(wrong(&[("format", "json"), ("parquet.compression", "zstd")]), ["parquet.compression"]);
        assert_eq!(wrong(&[("format", "parquet"), ("compression", "zstd")]), ["compression"]);
        assert_eq!(wrong(&[("format", "parquet"), ("nulls", "write")]), ["nulls"]);
        assert_eq!(wrong(&[("schema", r#"["id:int64"]"#)]), ["schema"]);
        assert_eq!(wrong(&[("format", "parquet"), ("schema", r#"["id:number"]"#)]), ["schema"]);
    }
}
