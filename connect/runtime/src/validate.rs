//! `validate`: a config against the declarations of its connector, converters and steps, every problem at once.

use aqueduct_core::component::{Connector, Registry, Spec};
use aqueduct_core::config::reference::resolve;
use aqueduct_core::config::{Config, ConfigKey, ConfigType, Importance, Problem, ResolvedConfig, plain};
use serde::Serialize;

use crate::error::RuntimeError;
use crate::framework;
use crate::secrets::ReferenceResolver;

/// `PUT /connector-plugins/{p}/config/validate`.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigInfos {
    /// `connector.class` as sent.
    pub name: String,
    /// How many values have errors.
    pub error_count: usize,
    /// Groups of keys.
    pub groups: Vec<String>,
    /// Unknown keys first, then the declared ones.
    pub configs: Vec<ConfigInfo>,
}

/// One key.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigInfo {
    /// Its declaration; none for an unknown key.
    pub definition: Option<ConfigKeyInfo>,
    /// Its value.
    pub value: Option<ConfigValueInfo>,
}

/// A declaration.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigKeyInfo {
    /// Name.
    pub name: String,
    /// Connect's name of the type.
    #[serde(rename = "type")]
    pub ty: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// Default.
    pub default_value: Option<String>,
    /// Importance.
    pub importance: &'static str,
    /// Documentation.
    pub documentation: String,
    /// Group.
    pub group: Option<String>,
    /// Order in its group.
    pub order: i32,
    /// Width of an input field.
    pub width: &'static str,
    /// Name for forms.
    pub display_name: String,
    /// Keys that depend on it.
    pub dependents: Vec<String>,
}

/// A value.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigValueInfo {
    /// Name.
    pub name: String,
    /// The text, hidden where secret.
    pub value: Option<String>,
    /// What may be chosen.
    pub recommended_values: Vec<String>,
    /// What is wrong.
    pub errors: Vec<String>,
    /// Whether forms show it.
    pub visible: bool,
}

impl ConfigKeyInfo {
    /// From a declaration; `order` is its place in the group.
    pub fn new(key: &ConfigKey, group: Option<&str>, order: usize) -> Self {
        Self {
            name: key.name.to_owned(),
            ty: type_name(key.ty),
            required: key.required,
            default_value: key.default.map(str::to_owned),
            importance: match key.importance {
                Importance::High => "HIGH",
                Importance::Medium => "MEDIUM",
                Importance::Low => "LOW",
            },
            documentation: key.doc.to_owned(),
            group: group.map(str::to_owned),
            order: i32::try_from(order).unwrap_or(i32::MAX),
            width: "MEDIUM",
            display_name: key.name.to_owned(),
            dependents: Vec::new(),
        }
    }
}

fn type_name(ty: ConfigType) -> &'static str {
    match ty {
        ConfigType::Boolean => "BOOLEAN",
        ConfigType::Int { max, .. } if max <= i64::from(i32::MAX) => "INT",
        ConfigType::Int { .. } => "LONG",
        ConfigType::Double => "DOUBLE",
        ConfigType::Password => "PASSWORD",
        ConfigType::List => "LIST",
        ConfigType::String
        | ConfigType::Duration
        | ConfigType::Size
        | ConfigType::Enum(_)
        | ConfigType::Json => "STRING",
    }
}

/// Everything wrong with a connector's config. Empty when it can be started.
pub(crate) fn problems(
    registry: &Registry,
    name: &str,
    config: &Config,
    resolver: &ReferenceResolver,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        problems.push(Problem::new("name", "`name` must not be empty or contain control characters"));
    }
    if let Some(given) = config.get("name")
        && given != name
    {
        let text = format!(
            "Connector name configuration ({given}) doesn't match connector name in the URL ({name})"
        );
        problems.push(Problem::new("name", text));
    }
    if !config.contains_key("connector.class") {
        problems.push(Problem::new(
            "connector.class",
            "missing required key `connector.class`: the connector to run",
        ));
        return problems;
    }
    let connector = match registry.connector_of(config) {
        Ok(connector) => connector,
        Err(error) => {
            problems.push(Problem::new("connector.class", format!("`connector.class`: {}", error.message())));
            return problems;
        }
    };
    let resolved = match resolve(config, resolver) {
        Ok(resolved) => resolved,
        Err(unresolved) => {
            problems.extend(unresolved);
            // What is declared can still be checked; the raw text stands in for what could not be looked up.
            plain(config)
        }
    };
    problems.extend(connector_problems(&connector, &resolved));
    problems.extend(framework::problems(registry, &connector, &resolved, resolver));
    let mut seen = std::collections::BTreeSet::new();
    problems.retain(|problem| seen.insert((problem.key.clone(), problem.message.clone())));
    problems
}

fn connector_problems(connector: &Connector, resolved: &ResolvedConfig) -> Vec<Problem> {
    let spec = connector.spec();
    let mut problems = match spec.config.parse(resolved) {
        Ok(_) => Vec::new(),
        Err(problems) => problems,
    };
    problems.extend(spec.config.unknown(resolved.keys(), framework::is_framework_key));
    if problems.is_empty() {
        problems.extend(match connector {
            Connector::Source(source) => source.validate(resolved),
            Connector::Sink(sink) => sink.validate(resolved),
        });
    }
    problems
}

/// The answer to `validate`.
pub(crate) fn infos(
    registry: &Registry,
    class: &str,
    config: &Config,
    resolver: &ReferenceResolver,
) -> Result<ConfigInfos, RuntimeError> {
    let Some(given) = config.get("connector.class") else {
        let text =
            format!("Connector config {:?} contains no connector type", config.keys().collect::<Vec<_>>());
        return Err(RuntimeError::BadRequest(text));
    };
    let connector = registry
        .connector_of(config)
        .or_else(|_| registry.find_connector(class))
        .map_err(|error| RuntimeError::NotFound(error.full()))?;
    let name = config.get("name").cloned();
    let mut found = problems(registry, name.as_deref().unwrap_or("connector"), config, resolver);
    if name.is_none() {
        found.push(Problem::new("name", "missing required key `name`: the name of the connector"));
    }
    Ok(describe(&connector, given, config, &found))
}

fn describe(connector: &Connector, class: &str, config: &Config, problems: &[Problem]) -> ConfigInfos {
    let spec: &Spec = connector.spec();
    let framework = framework::keys(connector);
    let declared = framework.keys().iter().map(|key| (key, Some("Common")));
    let declared: Vec<_> = declared.chain(spec.config.keys().iter().map(|key| (key, None))).collect();
    let errors = |name: &str| -> Vec<String> {
        problems.iter().filter(|p| p.key == name).map(|p| p.message.clone()).collect()
    };
    let value = |name: &str, text: Option<String>| ConfigValueInfo {
        name: name.to_owned(),
        value: text,
        recommended_values: Vec::new(),
        errors: errors(name),
        visible: true,
    };
    let is_declared =
        |name: &str| declared.iter().any(|(key, _)| key.name == name || key.aliases.contains(&name));
    let given = config.iter().filter(|(name, _)| !is_declared(name));
    let mut configs: Vec<ConfigInfo> = given
        .map(|(name, text)| ConfigInfo { definition: None, value: Some(value(name, Some(text.clone()))) })
        .collect();
    for (order, (key, group)) in declared.iter().enumerate() {
        let names = std::iter::once(key.name).chain(key.aliases.iter().copied());
        let text = names.filter_map(|name| config.get(name)).next().map(String::as_str).or(key.default);
        let hidden = matches!(key.ty, ConfigType::Password) && text.is_some();
        let text = if hidden { Some("[hidden]".to_owned()) } else { text.map(str::to_owned) };
        configs.push(ConfigInfo {
            definition: Some(ConfigKeyInfo::new(key, *group, order + 1)),
            value: Some(value(key.name, text)),
        });
    }
    let error_count =
        configs.iter().filter(|c| c.value.as_ref().is_some_and(|v| !v.errors.is_empty())).count();
    ConfigInfos { name: class.to_owned(), error_count, groups: vec!["Common".to_owned()], configs }
}
