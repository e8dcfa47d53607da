//! `wasm`: the step as users configure it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, Problem, ResolvedConfig};
use aqueduct_core::transform::{Transform, TransformFactory};
use aqueduct_core::{Error, FieldPath, Result};

use crate::guest::{Guest, Limits};
use crate::guest_log::GuestLog;
use crate::module::Modules;
use crate::step::{Settings, View, WasmStep};

/// The factory of `wasm`.
pub struct WasmFactory {
    spec: Spec,
    modules: Modules,
}

impl Default for WasmFactory {
    fn default() -> Self {
        Self::new()
    }
}

impl WasmFactory {
    /// Makes it. Each start of the process compiles the plugins anew; see [`WasmFactory::with_cache`].
    pub fn new() -> Self {
        let spec = Spec {
            name: "wasm",
            aliases: &[],
            version: env!("CARGO_PKG_VERSION"),
            summary: "Runs a transform compiled to WebAssembly, in a sandbox.",
            config: ConfigDef::new(keys()),
        };
        Self { spec, modules: Modules::new(None) }
    }

    /// Keeps compiled code in this directory, which is made where it is missing, and must be private to this user.
    #[must_use]
    pub fn with_cache(mut self, dir: PathBuf) -> Self {
        self.modules = Modules::new(Some(dir));
        self
    }

    fn step(&self, config: &ResolvedConfig) -> Result<WasmStep> {
        let values = self.spec.parse(config)?;
        let module = self.modules.load(Path::new(values.text("module")?))?;
        let settings = Settings {
            module,
            config: values.json("config")?.to_string(),
            limits: Limits {
                memory: values.size("memory")?.as_usize(),
                deadline: values.duration("deadline")?,
            },
            drop_nulls: values.text("nulls")? == "drop",
            traps: u32::try_from(values.int("traps")?).expect("declared as 1 to 1000000"),
        };
        let log = GuestLog::new(Arc::clone(&settings.module.name));
        let started = Guest::start(&settings.module, &settings.config, settings.limits, log.clone());
        let secret = config.get("config").is_some_and(|config| config.secret);
        let (guest, info) =
            started.map_err(|error| if secret { hide(&error, values.json("config")) } else { error })?;
        let name = info.name.clone();
        let view = View::parse(info)?;
        if let Some(allow) = values.opt_list("allow")? {
            permit(&view, allow).map_err(|why| Error::bad_config(format!("the plugin `{name}` {why}")))?;
        }
        Ok(WasmStep::new(settings, view, guest, log))
    }
}

fn keys() -> [ConfigKey; 7] {
    [
        ConfigKey::new(
            "module",
            ConfigType::String,
            "Path of the `.wasm` file: a component, or a core module built with the plugin SDK.",
        )
        .required()
        .path(),
        ConfigKey::new(
            "allow",
            ConfigType::List,
            "What the plugin may see: fields by path, which include what lies below them, and `$value`, `$key`, \
             `$headers` and `$timestamp` for the parts of the record. Without the key, whatever it asks for.",
        )
        .importance(Importance::High),
        ConfigKey::new("config", ConfigType::Json, "Configuration of the plugin itself, handed to it as JSON.")
            .default("{}"),
        ConfigKey::new("memory", ConfigType::Size, "Memory that one instance may use.")
            .default("64MiB")
            .check(|text| match aqueduct_core::config::parse_size(text) {
                Ok(size) if size.0 < 1 << 16 || size.0 > 4 << 30 => Err("give between `64KiB` and `4GiB`".into()),
                _ => Ok(()),
            }),
        ConfigKey::new("deadline", ConfigType::Duration, "Time that the plugin may take for one batch.")
            .default("1s"),
        ConfigKey::new(
            "traps",
            ConfigType::Int { min: 1, max: 1_000_000 },
            "How many records in a row may crash the plugin before the task stops. Fewer become dead letters.",
        )
        .default("10")
        .importance(Importance::Low),
        ConfigKey::new(
            "nulls",
            ConfigType::Enum(&["pass", "drop"]),
            "What becomes of records whose value is null, such as tombstones. The plugin never sees them.",
        )
        .default("pass")
        .importance(Importance::Low),
    ]
}

impl TransformFactory for WasmFactory {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn validate(&self, config: &ResolvedConfig) -> Vec<Problem> {
        match self.spec.config.parse(config) {
            // The caller reports what the declared types show.
            Err(_) => Vec::new(),
            Ok(_) => self
                .step(config)
                .err()
                .map(|error| Problem::new("module", error.full()))
                .into_iter()
                .collect(),
        }
    }

    fn build(&self, config: &ResolvedConfig) -> Result<Box<dyn Transform>> {
        Ok(Box::new(self.step(config)?))
    }
}

/// Whether everything that the plugin asks for is allowed.
fn permit(view: &View, allow: &[String]) -> Result<(), String> {
    let has = |part: &str| allow.iter().any(|allowed| allowed == part);
    let mut fields = Vec::new();
    for text in allow.iter().filter(|text| !text.starts_with('$')) {
        fields.push(FieldPath::parse(text).map_err(|why| format!("cannot start: `allow`: {why}"))?);
    }
    let parts = [("$key", view.key), ("$headers", view.headers), ("$timestamp", view.timestamp)];
    let parts = parts.into_iter().chain([("$value", view.fields.is_none())]);
    let denied = parts.filter(|(part, asked)| *asked && !has(part)).map(|(part, _)| part.to_owned());
    let mut denied: Vec<String> = denied.collect();
    for field in view.fields.iter().flatten() {
        if !has("$value") && !fields.iter().any(|allowed| field.starts_with(allowed)) {
            denied.push(field.to_string());
        }
    }
    if denied.is_empty() {
        return Ok(());
    }
    Err(format!(
        "asks for `{}`, which `allow` does not list; add it if the plugin may see it",
        denied.join("`, `")
    ))
}

/// The error without what stands in the configuration, which holds secrets.
fn hide(error: &Error, config: Result<&serde_json::Value>) -> Error {
    let mut text = error.full();
    let mut rest: Vec<&serde_json::Value> = config.into_iter().collect();
    while let Some(value) = rest.pop() {
        match value {
            serde_json::Value::String(leaf) if !leaf.is_empty() => text = text.replace(leaf, "[hidden]"),
            serde_json::Value::Array(items) => rest.extend(items),
            serde_json::Value::Object(entries) => rest.extend(entries.values()),
            _ => {}
        }
    }
    Error::new(error.kind(), text)
}
