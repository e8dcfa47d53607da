//! Configuration of components: one [`ConfigDef`] each, the only source for parsing, validation, docs and schemas.
//!
//! A raw [`Config`] is Connect's: a map of dotted keys to text. YAML pipelines flatten to the same keys, guided by the
//! types declared here. References such as `${env:NAME}` stay in the raw form, which is what REST shows; they are
//! resolved (see [`reference`]) just before [`ConfigDef::parse`].
//!
//! **Invariant:** the text of a secret never appears in a problem, a `Debug` output or the raw form.

mod definition;
pub mod reference;
mod units;
mod values;

use std::collections::BTreeMap;

pub use definition::{Check, ConfigDef, ConfigKey, ConfigType, Importance};
pub use units::{ByteSize, parse_duration, parse_size};
pub use values::{Problem, Secret, Values};

/// A raw configuration: dotted keys to text, as REST takes and shows it.
pub type Config = BTreeMap<String, String>;

/// A value after its references were resolved.
#[derive(Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The text.
    pub text: String,
    /// Whether any part of it came from a reference; such text is never shown.
    pub secret: bool,
}

/// A configuration after its references were resolved.
pub type ResolvedConfig = BTreeMap<String, Resolved>;

/// A configuration that holds no references, for tests and defaults.
pub fn plain(config: &Config) -> ResolvedConfig {
    let resolved = |text: &String| Resolved { text: text.clone(), secret: false };
    config.iter().map(|(key, text)| (key.clone(), resolved(text))).collect()
}

impl std::fmt::Debug for Resolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.secret { f.write_str("[hidden]") } else { write!(f, "{:?}", self.text) }
    }
}

/// The candidate nearest to `given`, when it is near enough to be a slip of the keyboard.
pub fn did_you_mean<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(given, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(given.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;
