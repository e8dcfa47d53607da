//! Declarations of keys, and the parse they drive.

use std::time::Duration;

use super::values::{Parsed, Problem, Secret, Values};
use super::{ResolvedConfig, did_you_mean, parse_duration, parse_size};

/// How much a key matters, as Connect shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// Needed by nearly everybody.
    High,
    /// Worth knowing.
    Medium,
    /// For special cases.
    Low,
}

/// The type of a key's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// An integer within the bounds.
    Int {
        /// Smallest allowed.
        min: i64,
        /// Largest allowed.
        max: i64,
    },
    /// A floating-point number.
    Double,
    /// Text.
    String,
    /// Text that is never shown.
    Password,
    /// Comma-separated text; in YAML, a list.
    List,
    /// `100ms`, `30s`, `5m`, `7d`; a bare number is milliseconds, as in Connect.
    Duration,
    /// `512KiB`, `256MiB`, `1GB`; a bare number is bytes.
    Size,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// JSON text; in YAML, any subtree.
    Json,
}

/// A check of a value beyond its type; the error says what to do.
pub type Check = fn(&str) -> Result<(), String>;

/// One declared key.
#[derive(Clone, Debug)]
pub struct ConfigKey {
    /// Name, dotted.
    pub name: &'static str,
    /// Other names under which it is accepted.
    pub aliases: &'static [&'static str],
    /// Type.
    pub ty: ConfigType,
    /// Default; `None` with `required` unset means absent.
    pub default: Option<&'static str>,
    /// Whether it must be given.
    pub required: bool,
    /// Importance.
    pub importance: Importance,
    /// One or two sentences for the reference documentation, with units and effect.
    pub doc: &'static str,
    /// A further check; the error says what to do.
    pub check: Option<Check>,
    /// Whether it is a path, which a pipeline file gives relative to itself.
    pub path: bool,
}

impl ConfigKey {
    /// An optional key without default.
    pub const fn new(name: &'static str, ty: ConfigType, doc: &'static str) -> Self {
        let importance = Importance::Medium;
        Self {
            name,
            aliases: &[],
            ty,
            default: None,
            required: false,
            importance,
            doc,
            check: None,
            path: false,
        }
    }

    /// Must be given; high importance.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self.importance = Importance::High;
        self
    }

    /// Sets the default.
    #[must_use]
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    /// Sets the importance.
    #[must_use]
    pub const fn importance(mut self, importance: Importance) -> Self {
        self.importance = importance;
        self
    }

    /// Sets other accepted names.
    #[must_use]
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// It is a path: relative ones in a pipeline file start at the directory of that file.
    #[must_use]
    pub const fn path(mut self) -> Self {
        self.path = true;
        self
    }

    /// Sets a further check.
    #[must_use]
    pub const fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }
}

/// Every key of a component.
#[derive(Clone, Debug, Default)]
pub struct ConfigDef {
    keys: Vec<ConfigKey>,
}

impl ConfigDef {
    /// From its keys, in the order of the documentation.
    pub fn new(keys: impl IntoIterator<Item = ConfigKey>) -> Self {
        Self { keys: keys.into_iter().collect() }
    }

    /// The keys, in order.
    pub fn keys(&self) -> &[ConfigKey] {
        &self.keys
    }

    /// The key of that name or alias.
    pub fn find(&self, name: &str) -> Option<&ConfigKey> {
        self.keys.iter().find(|key| key.name == name || key.aliases.contains(&name))
    }

    /// The declared name nearest to an unknown one.
    pub fn suggest(&self, unknown: &str) -> Option<&'static str> {
        did_you_mean(unknown, self.keys.iter().map(|key| key.name))
    }

    /// Parses every declared key. All problems at once; unknown keys are not among them (see [`Self::unknown`]).
    pub fn parse(&self, config: &ResolvedConfig) -> Result<Values, Vec<Problem>> {
        let mut values = Values::default();
        let mut problems = Vec::new();
        for key in &self.keys {
            let names = std::iter::once(key.name).chain(key.aliases.iter().copied());
            let given = names.filter_map(|name| config.get(name)).next();
            let (text, secret) = match (given, key.default) {
                (Some(resolved), _) => (resolved.text.as_str(), resolved.secret),
                (None, Some(default)) => (default, false),
                (None, None) if key.required => {
                    problems.push(Problem::new(
                        key.name,
                        format!("missing required key `{}`: {}", key.name, key.doc),
                    ));
                    continue;
                }
                (None, None) => continue,
            };
            match parse_one(key, text) {
                Ok(parsed) => values.insert(key.name, parsed, secret),
                Err(why) if secret || matches!(key.ty, ConfigType::Password) => {
                    // `why` may quote the text.
                    drop(why);
                    let what = expected(key.ty);
                    problems.push(Problem::new(
                        key.name,
                        format!("`{}`: the referenced value is not {what}", key.name),
                    ));
                }
                Err(why) => problems.push(Problem::new(key.name, format!("`{}`: {why}", key.name))),
            }
        }
        if problems.is_empty() { Ok(values) } else { Err(problems) }
    }

    /// The keys of `config` that are neither declared here nor accepted by `known`, with a suggestion each.
    pub fn unknown<'a>(
        &self,
        config: impl IntoIterator<Item = &'a String>,
        known: impl Fn(&str) -> bool,
    ) -> Vec<Problem> {
        let unknown = config.into_iter().filter(|key| self.find(key).is_none() && !known(key));
        unknown
            .map(|key| match self.suggest(key) {
                Some(near) => Problem::new(key, format!("unknown key `{key}`; did you mean `{near}`?")),
                None => Problem::new(key, format!("unknown key `{key}`")),
            })
            .collect()
    }
}

fn expected(ty: ConfigType) -> &'static str {
    match ty {
        ConfigType::Boolean => "`true` or `false`",
        ConfigType::Int { .. } => "an integer in range",
        ConfigType::Double => "a number",
        ConfigType::String | ConfigType::Password => "acceptable text",
        ConfigType::List => "a comma-separated list",
        ConfigType::Duration => "a duration such as `30s`",
        ConfigType::Size => "a size such as `256MiB`",
        ConfigType::Enum(_) => "one of the allowed words",
        ConfigType::Json => "valid JSON",
    }
}

fn parse_one(key: &ConfigKey, text: &str) -> Result<Parsed, String> {
    let text = if matches!(key.ty, ConfigType::Password | ConfigType::String) { text } else { text.trim() };
    let wrong = || format!("`{text}` is not {}", expected(key.ty));
    let parsed = match key.ty {
        ConfigType::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" => Parsed::Boolean(true),
            "false" => Parsed::Boolean(false),
            _ => return Err(wrong()),
        },
        ConfigType::Int { min, max } => match text.parse::<i64>() {
            Ok(v) if (min..=max).contains(&v) => Parsed::Int(v),
            Ok(v) => return Err(format!("{v} is not within {min} to {max}")),
            Err(_) => return Err(format!("`{text}` is not an integer")),
        },
        ConfigType::Double => Parsed::Double(text.parse().map_err(|_| wrong())?),
        ConfigType::String => Parsed::Text(text.to_owned()),
        ConfigType::Password => Parsed::Password(Secret::new(text)),
        ConfigType::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Parsed::List(items.map(str::to_owned).collect())
        }
        ConfigType::Duration => Parsed::Duration(match text.parse::<u64>() {
            Ok(ms) => Duration::from_millis(ms),
            Err(_) => parse_duration(text)?,
        }),
        ConfigType::Size => Parsed::Size(parse_size(text)?),
        ConfigType::Enum(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
            Some(word) => Parsed::Text((*word).to_owned()),
            None => {
                let near = did_you_mean(text, words.iter().copied());
                let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                return Err(format!("`{text}` is not one of `{}`{hint}", words.join("`, `")));
            }
        },
        ConfigType::Json => {
            Parsed::Json(serde_json::from_str(text).map_err(|e| format!("this is not valid JSON: {e}"))?)
        }
    };
    if let Some(check) = key.check {
        check(text)?;
    }
    Ok(parsed)
}
