//! What the converters say about themselves, for the lists of what a binary has.

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType};

/// Every converter that `key.converter` and `value.converter` may name. Its keys stand behind that prefix.
pub fn specs() -> Vec<Spec> {
    let spec = |name, aliases, summary, keys: Vec<ConfigKey>| Spec {
        name,
        aliases,
        version: env!("CARGO_PKG_VERSION"),
        summary,
        config: ConfigDef::new(keys),
    };
    let schemas = ConfigKey::new(
        "schemas.enable",
        ConfigType::Boolean,
        "Whether each record carries its schema, as `{\"schema\":…,\"payload\":…}`.",
    )
    .default("true");
    let decimals = ConfigKey::new(
        "decimal.format",
        ConfigType::Enum(&["BASE64", "NUMERIC"]),
        "Whether Decimals are written as base64 or as numbers.",
    )
    .default("BASE64");
    let defaults = ConfigKey::new(
        "replace.null.with.default",
        ConfigType::Boolean,
        "Whether a null whose schema has a default is written as that default.",
    )
    .default("true");
    vec![
        spec(
            "json",
            &[],
            "Plain JSON; the schema stands in a topic, and a header names it. The default.",
            vec![],
        ),
        spec(
            "JsonConverter",
            &["org.apache.kafka.connect.json.JsonConverter"],
            "Connect's JSON, with the schema in each record or without one.",
            vec![schemas, decimals, defaults],
        ),
        spec("string", &["org.apache.kafka.connect.storage.StringConverter"], "Text as UTF-8.", vec![]),
        spec(
            "bytes",
            &["org.apache.kafka.connect.converters.ByteArrayConverter"],
            "Bytes as they are.",
            vec![],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConverterKind;

    #[test]
    fn each_is_found_by_its_name_and_aliases() {
        for spec in specs() {
            let names = std::iter::once(spec.name).chain(spec.aliases.iter().copied());
            let kinds = names.map(|name| {
                let config = [("value.converter".to_owned(), name.to_owned())].into();
                ConverterKind::from_config("value.converter", &config).expect(name)
            });
            let kinds: Vec<_> = kinds.collect();
            assert!(kinds.iter().all(|kind| *kind == kinds[0]), "{}", spec.name);
        }
    }
}
