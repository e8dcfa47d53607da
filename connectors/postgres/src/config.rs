//! What users configure, under Debezium's names where it has one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, Problem, ResolvedConfig, Values};
use aqueduct_core::{Error, Result};

use crate::column::{DecimalMode, TimeMode, TypeModes};
use crate::pattern::TablePattern;
use crate::table::Origin;
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
        config: ConfigDef::new(connection_keys().into_iter().chain(what_keys()).chain(how_keys())),
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
        key("plugin.name", Enum(&["pgoutput"]), "Output plug-in of the slot.").default("pgoutput").importance(Importance::Low),
        key(
            "snapshot.mode",
            Enum(&["initial", "never", "no_data", "when_needed"]),
            "`initial` reads every row first where no position is stored; `never` (or `no_data`) streams only what \
             comes; `when_needed` reads again also when the slot is gone or its WAL was removed.",
        )
        .default("initial")
        .importance(Importance::High),
        key("snapshot.max.threads", Int { min: 1, max: 16 }, "Tables that a snapshot reads at the same time.")
            .default("1"),
    ]
}

fn how_keys() -> Vec<ConfigKey> {
    use ConfigType::{Boolean, Duration, Enum, List, String};
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
        key(
            "decimal.handling.mode",
            Enum(&["precise", "double", "string"]),
            "numeric as Connect's Decimal, as a double, or as text.",
        )
        .default("precise"),
        key(
            "time.precision.mode",
            Enum(&["adaptive", "adaptive_time_microseconds", "connect"]),
            "Times by the column's precision, or as Connect's types in milliseconds.",
        )
        .default("adaptive"),
        key(
            "unavailable.value.placeholder",
            String,
            "Stands for a TOASTed value that an update left unchanged.",
        )
        .default("__debezium_unavailable_value"),
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
        let modes = TypeModes {
            decimal: match values.text("decimal.handling.mode")? {
                "double" => DecimalMode::Double,
                "string" => DecimalMode::String,
                _ => DecimalMode::Precise,
            },
            time: match values.text("time.precision.mode")? {
                "connect" => TimeMode::Connect,
                "adaptive_time_microseconds" => TimeMode::AdaptiveTimeMicroseconds,
                _ => TimeMode::Adaptive,
            },
            placeholder: values.text("unavailable.value.placeholder")?.into(),
        };
        let origin = Origin {
            prefix: prefix.into(),
            database: endpoint.database.as_str().into(),
            modes,
            tombstones: values.boolean("tombstones.on.delete")?,
        };
        Ok(Self {
            tables: patterns(&values)?,
            create_slot: values.boolean("slot.create")?,
            create_publication: values.text("publication.autocreate.mode")? == "filtered",
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
