//! What users configure, under Debezium's names where it has one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, Problem, ResolvedConfig, Values};
use aqueduct_core::{Error, Result};
use bytes::Bytes;

use crate::kind::{BinaryText, DecimalMode, TimeMode, TypeModes};
use crate::name::Adjustment;
use crate::pattern::TablePattern;
use crate::table::Origin;
use crate::text;
use crate::url;
use crate::wire::{Endpoint, SslMode, TlsFiles};

/// `snapshot.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotMode {
    Initial,
    Never,
    WhenNeeded,
}

/// Everything a task needs to know.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) endpoint: Endpoint,
    pub(crate) tables: Vec<TablePattern>,
    pub(crate) slot: String,
    pub(crate) create_slot: bool,
    pub(crate) publication: String,
    pub(crate) create_publication: bool,
    /// Whether a publication made here sends the rows of partitions as those of their root.
    pub(crate) via_root: bool,
    /// Keys given by the user: the tables meant, and the columns.
    pub(crate) keys: Vec<(TablePattern, Vec<String>)>,
    pub(crate) snapshot: SnapshotMode,
    pub(crate) snapshot_threads: usize,
    pub(crate) lock_timeout: Duration,
    pub(crate) status_interval: Duration,
    pub(crate) truncates: bool,
    pub(crate) origin: Arc<Origin>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint.shown())
            .field("slot", &self.slot)
            .finish()
    }
}

pub(crate) fn spec() -> Spec {
    Spec {
        name: "postgres-cdc",
        aliases: &["io.debezium.connector.postgresql.PostgresConnector"],
        version: env!("CARGO_PKG_VERSION"),
        summary: "Streams the changes of PostgreSQL tables, after a snapshot of what they hold.",
        config: ConfigDef::new(
            connection_keys().into_iter().chain(what_keys()).chain(how_keys()).chain(type_keys()),
        ),
    }
}

fn connection_keys() -> Vec<ConfigKey> {
    use ConfigType::{Enum, Int, Password, String};
    let key = ConfigKey::new;
    vec![
        key(
            "url",
            Password,
            "Where the database is: `postgres://user:password@host:port/database?sslmode=prefer`.",
        )
        .importance(Importance::High),
        key(
            "database.hostname",
            String,
            "Host name, address or directory of the Unix socket, instead of `url`.",
        ),
        key("database.port", Int { min: 1, max: 65535 }, "Port.").default("5432"),
        key("database.user", String, "Role, with the REPLICATION attribute and SELECT on the tables."),
        key("database.password", Password, "Password of the role."),
        key("database.dbname", String, "Name of the database."),
        key(
            "database.sslmode",
            Enum(SslMode::WORDS),
            "As in libpq: `prefer` uses TLS where offered, `verify-full` checks certificate and host name. \
             Default `prefer`.",
        ),
        key("database.sslrootcert", String, "File with the root certificates; default the system's."),
        key("database.sslcert", String, "File with the client's certificate."),
        key("database.sslkey", String, "File with the client's key."),
    ]
}

fn what_keys() -> Vec<ConfigKey> {
    use ConfigType::{Boolean, Enum, Int, List, String};
    let key = ConfigKey::new;
    vec![
        key("tables", List, "Tables to capture, as `schema.table`; `*` and `?` match any characters and one.")
            .required()
            .aliases(&["table.include.list"])
            .check(|text| text.split(',').try_for_each(|item| TablePattern::parse(item.trim()).map(drop))),
        key("topic.prefix", String, "First part of every topic: `<prefix>.<schema>.<table>`. Default: the connector's name.")
            .importance(Importance::High),
        key("slot.name", String, "Replication slot, one per connector. Default `aqueduct_<prefix>`.")
            .importance(Importance::High)
            .check(slot_name),
        key("slot.create", Boolean, "Whether a missing slot is created.").default("true"),
        key("publication.name", String, "Publication. Default: the name of the slot."),
        key(
            "publication.autocreate.mode",
            Enum(&["filtered", "disabled"]),
            "`filtered` creates a missing publication for exactly the captured tables; one that exists is used as is.",
        )
        .default("filtered"),
        key(
            "publish.via.partition.root",
            Boolean,
            "Whether a publication made here sends the rows of all partitions as rows of the partitioned table, into one \
             topic. One that exists is used as it is.",
        )
        .default("true")
        .importance(Importance::Low),
        key(
            "message.key.columns",
            String,
            "Columns of the key in place of the primary key: `schema.table:column,column;schema.other:column`.",
        )
        .importance(Importance::Low)
        .check(|text| key_columns(text).map(drop)),
        key("plugin.name", Enum(&["pgoutput"]), "Output plug-in of the slot.").default("pgoutput").importance(Importance::Low),
        key(
            "snapshot.mode",
            Enum(&["initial", "never", "no_data", "when_needed"]),
            "`initial` reads every row first where no position is stored; `never` (or `no_data`) streams only what \
             comes; `when_needed` reads again also when the slot is gone or its WAL was removed.",
        )
        .default("initial")
        .importance(Importance::High),
        key(
            "snapshot.max.threads",
            Int { min: 1, max: 16 },
            "Connections that read a snapshot; with more than one, large tables are read in parts.",
        )
        .default("1"),
    ]
}

fn how_keys() -> Vec<ConfigKey> {
    use ConfigType::{Boolean, Duration, List};
    let key = |name, ty, doc| ConfigKey::new(name, ty, doc).importance(Importance::Low);
    vec![
        key("snapshot.lock.timeout.ms", Duration, "How long to wait for the share locks of a snapshot.")
            .default("10s"),
        key("status.update.interval.ms", Duration, "How often the server is told the confirmed position.")
            .default("10s")
            .check(|text| if text.trim() == "0" { Err("must be more than 0".to_owned()) } else { Ok(()) }),
        key("tombstones.on.delete", Boolean, "Whether a delete is followed by a tombstone.").default("true"),
        key("skipped.operations", List, "Operations that make no records: `t` for truncate, or `none`.")
            .default("t")
            .check(skipped_operations),
    ]
}

fn type_keys() -> Vec<ConfigKey> {
    use ConfigType::{Boolean, Enum, Int, String};
    let key = |name, ty, doc| ConfigKey::new(name, ty, doc).importance(Importance::Low);
    vec![
        key(
            "decimal.handling.mode",
            Enum(&["precise", "double", "string"]),
            "numeric as Connect's Decimal, as a double, or as text.",
        )
        .default("precise"),
        key(
            "time.precision.mode",
            Enum(&[
                "adaptive",
                "adaptive_time_microseconds",
                "connect",
                "isostring",
                "microseconds",
                "nanoseconds",
            ]),
            "Times by the column's precision, as Connect's types in milliseconds, as ISO 8601 text, or all in one unit. \
             Nanoseconds hold the years 1677 to 2262; others become null.",
        )
        .default("adaptive"),
        key(
            "interval.handling.mode",
            Enum(&["numeric", "string"]),
            "interval as microseconds, with 365.25 / 12 days a month, or as ISO 8601 text.",
        )
        .default("numeric"),
        key("hstore.handling.mode", Enum(&["json", "map"]), "hstore as JSON text, or as a map.").default("json"),
        key(
            "binary.handling.mode",
            Enum(&["bytes", "base64", "base64-url-safe", "hex"]),
            "bytea as bytes, or as text.",
        )
        .default("bytes"),
        key("money.fraction.digits", Int { min: 0, max: 16 }, "Digits after the point of money.").default("2"),
        key(
            "include.unknown.datatypes",
            Boolean,
            "Whether a type that Debezium does not know becomes bytes; without it, it becomes text.",
        )
        .default("false"),
        key(
            "schema.name.adjustment.mode",
            Enum(Adjustment::WORDS),
            "Names of schemas as they are, or legal in Avro: other characters become `_`, or `_uXXXX`.",
        )
        .default("none"),
        key(
            "field.name.adjustment.mode",
            Enum(Adjustment::WORDS),
            "The same for the names of fields.",
        )
        .default("none"),
        key(
            "unavailable.value.placeholder",
            String,
            "Stands for a TOASTed value that an update left unchanged; `hex:` before it gives bytes.",
        )
        .default("__debezium_unavailable_value")
        .check(|text| placeholder(text).map(drop)),
    ]
}

impl Settings {
    /// From a configuration; `connector` names it where the configuration does not.
    pub(crate) fn read(spec: &Spec, config: &ResolvedConfig, connector: Option<&str>) -> Result<Self> {
        let values = spec.parse(config)?;
        let endpoint = endpoint(&values).map_err(|problem| Problem::error(&[problem]))?;
        let prefix = prefix(&values, config, connector)?;
        let slot = match values.opt_text("slot.name")? {
            Some(slot) => slot.to_owned(),
            None => default_slot(&prefix),
        };
        let publication = values.opt_text("publication.name")?.unwrap_or(&slot).to_owned();
        let origin = Origin {
            prefix: prefix.into(),
            database: endpoint.database.as_str().into(),
            modes: type_modes(&values)?,
            tombstones: values.boolean("tombstones.on.delete")?,
            schema_names: Adjustment::parse(values.text("schema.name.adjustment.mode")?),
            field_names: Adjustment::parse(values.text("field.name.adjustment.mode")?),
        };
        Ok(Self {
            tables: patterns(&values)?,
            create_slot: values.boolean("slot.create")?,
            create_publication: values.text("publication.autocreate.mode")? == "filtered",
            via_root: values.boolean("publish.via.partition.root")?,
            keys: key_columns(values.opt_text("message.key.columns")?.unwrap_or_default())
                .map_err(Error::bad_config)?,
            snapshot: match values.text("snapshot.mode")? {
                "never" | "no_data" => SnapshotMode::Never,
                "when_needed" => SnapshotMode::WhenNeeded,
                _ => SnapshotMode::Initial,
            },
            snapshot_threads: usize::try_from(values.int("snapshot.max.threads")?).unwrap_or(1),
            lock_timeout: values.duration("snapshot.lock.timeout.ms")?,
            status_interval: values.duration("status.update.interval.ms")?,
            truncates: !values.list("skipped.operations")?.iter().any(|op| op == "t"),
            endpoint,
            slot,
            publication,
            origin: Arc::new(origin),
        })
    }

    /// The topics of the tables that are named without wildcards.
    pub(crate) fn topics(&self) -> Vec<String> {
        let literal = self.tables.iter().filter_map(TablePattern::literal);
        literal.map(|table| format!("{}.{table}", self.origin.prefix)).collect()
    }
}

/// Problems beyond the single keys.
pub(crate) fn validate(spec: &Spec, config: &ResolvedConfig) -> Vec<Problem> {
    // The problems of single keys are reported by whoever parses; here only what needs several.
    match spec.config.parse(config) {
        Ok(values) => endpoint(&values).err().into_iter().collect(),
        Err(_) => Vec::new(),
    }
}

fn type_modes(values: &Values) -> Result<TypeModes> {
    Ok(TypeModes {
        decimal: match values.text("decimal.handling.mode")? {
            "double" => DecimalMode::Double,
            "string" => DecimalMode::String,
            _ => DecimalMode::Precise,
        },
        time: match values.text("time.precision.mode")? {
            "connect" => TimeMode::Connect,
            "adaptive_time_microseconds" => TimeMode::AdaptiveTimeMicroseconds,
            "isostring" => TimeMode::IsoString,
            "microseconds" => TimeMode::Microseconds,
            "nanoseconds" => TimeMode::Nanoseconds,
            _ => TimeMode::Adaptive,
        },
        interval_text: values.text("interval.handling.mode")? == "string",
        hstore_map: values.text("hstore.handling.mode")? == "map",
        binary: match values.text("binary.handling.mode")? {
            "base64" => Some(BinaryText::Base64),
            "base64-url-safe" => Some(BinaryText::Base64UrlSafe),
            "hex" => Some(BinaryText::Hex),
            _ => None,
        },
        money_digits: i32::try_from(values.int("money.fraction.digits")?).unwrap_or(2),
        unknown_as_bytes: values.boolean("include.unknown.datatypes")?,
        placeholder: placeholder(values.text("unavailable.value.placeholder")?).map_err(Error::bad_config)?,
    })
}

fn placeholder(text: &str) -> Result<Bytes, String> {
    match text.strip_prefix("hex:") {
        None => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Some(digits) => text::hex(format!("\\x{digits}").as_bytes())
            .ok_or_else(|| format!("`{digits}` is not an even number of hexadecimal digits")),
    }
}

fn key_columns(text: &str) -> Result<Vec<(TablePattern, Vec<String>)>, String> {
    let entries = text.split(';').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let wrong = || format!("`{entry}` is not `schema.table:column,column`");
            let (table, columns) = entry.split_once(':').ok_or_else(wrong)?;
            let columns: Vec<String> = columns.split(',').map(|column| column.trim().to_owned()).collect();
            if columns.iter().any(String::is_empty) {
                return Err(wrong());
            }
            Ok((TablePattern::parse(table.trim())?, columns))
        })
        .collect()
}

fn patterns(values: &Values) -> Result<Vec<TablePattern>> {
    let patterns =
        values.list("tables")?.iter().map(|text| TablePattern::parse(text).map_err(Error::bad_config));
    patterns.collect()
}

fn prefix(values: &Values, config: &ResolvedConfig, connector: Option<&str>) -> Result<String> {
    let given = values.opt_text("topic.prefix")?.or(config.get("name").map(|name| name.text.as_str()));
    given.or(connector).map(str::to_owned).ok_or_else(|| Error::bad_config("missing key `topic.prefix`"))
}

fn endpoint(values: &Values) -> Result<Endpoint, Problem> {
    let wrong = |key: &str, message: String| Problem::new(key, message);
    let text = |key: &str| -> Option<String> { values.opt_text(key).ok().flatten().map(str::to_owned) };
    let mut endpoint = match values.opt_password("url").ok().flatten() {
        Some(url) => url::parse(url.expose()).map_err(|why| wrong("url", format!("`url`: {why}")))?,
        None => {
            let need = |key: &'static str| {
                text(key).ok_or_else(|| {
                    wrong(key, format!("missing key `{key}`; give `url`, or all of `database.*`"))
                })
            };
            Endpoint {
                host: need("database.hostname")?,
                port: values
                    .int("database.port")
                    .ok()
                    .and_then(|port| u16::try_from(port).ok())
                    .unwrap_or(5432),
                user: need("database.user")?,
                password: None,
                database: need("database.dbname")?,
                ssl: SslMode::Prefer,
                tls: TlsFiles::default(),
            }
        }
    };
    if let Some(password) = values.opt_password("database.password").ok().flatten() {
        endpoint.password = Some(password.expose().to_owned());
    }
    if let Some(mode) = text("database.sslmode").and_then(|word| SslMode::parse(&word)) {
        endpoint.ssl = mode;
    }
    endpoint.tls.root = text("database.sslrootcert").or(endpoint.tls.root);
    endpoint.tls.cert = text("database.sslcert").or(endpoint.tls.cert);
    endpoint.tls.key = text("database.sslkey").or(endpoint.tls.key);
    Ok(endpoint)
}

fn default_slot(prefix: &str) -> String {
    let clean = prefix.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    format!("aqueduct_{}", clean.take(54).collect::<String>())
}

fn slot_name(text: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !text.is_empty() && text.len() <= 63 && text.chars().all(fine) {
        return Ok(());
    }
    Err(format!("`{text}` is not a slot's name; use up to 63 of `a-z`, `0-9` and `_`"))
}

fn skipped_operations(text: &str) -> Result<(), String> {
    match text.split(',').map(str::trim).find(|op| !matches!(*op, "t" | "none" | "")) {
        None => Ok(()),
        Some(op) => Err(format!("`{op}` cannot be skipped; `t` and `none` are possible")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aqueduct_core::config::plain;

    use super::*;

    fn read(entries: &[(&str, &str)]) -> Result<Settings> {
        let config: BTreeMap<_, _> =
            entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::read(&spec(), &plain(&config), Some("orders"))
    }

    #[test]
    fn a_url_and_tables_are_enough() {
        let settings = read(&[("url", "postgres://u:p%40@db/shop"), ("tables", "public.orders, audit.*")])
            .expect("valid");
        assert_eq!(settings.endpoint.password.as_deref(), Some("p@"));
        assert_eq!(
            (settings.slot.as_str(), settings.publication.as_str()),
            ("aqueduct_orders", "aqueduct_orders")
        );
        assert_eq!(settings.topics(), ["orders.public.orders"]);
        assert!(!format!("{settings:?}").contains("p@"));
    }

    #[test]
    fn debezium_keys_are_understood() {
        let settings = read(&[
            ("database.hostname", "db"),
            ("database.port", "6432"),
            ("database.user", "u"),
            ("database.password", "secret"),
            ("database.dbname", "shop"),
            ("table.include.list", "public\\.orders"),
            ("topic.prefix", "shop"),
            ("slot.name", "s1"),
            ("snapshot.mode", "no_data"),
        ])
        .expect("valid");
        assert_eq!(settings.topics(), ["shop.public.orders"]);
        assert_eq!((settings.endpoint.port, settings.snapshot), (6432, SnapshotMode::Never));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = read(&[("tables", "public.a")]).expect_err("no endpoint");
        assert!(error.message().contains("`url`"), "{error}");
        let error =
            read(&[("url", "postgres://u@h/d"), ("tables", "a.b"), ("slot.name", "Bad")]).expect_err("slot");
        assert!(error.message().contains("`Bad`"), "{error}");
    }
}
