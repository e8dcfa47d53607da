//! What the sink can be told.

use std::path::{Path, PathBuf};

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, Values};
use aqueduct_core::lines::Nulls;
use aqueduct_core::rolling::RollSettings;
use aqueduct_core::template::PathTemplate;
use aqueduct_core::{Error, Result};

/// The end of every file's name.
pub(crate) const EXTENSION: &str = "jsonl";

pub(crate) fn spec() -> Spec {
    Spec {
        name: "file",
        aliases: &[],
        version: env!("CARGO_PKG_VERSION"),
        summary: "Writes JSON lines into files of a directory.",
        config: ConfigDef::new([
            ConfigKey::new(
                "path",
                ConfigType::String,
                "Directory of the files, which may go on as a template: `out/{topic}/dt={timestamp:%Y-%m-%d}/`. \
                 Placeholders are `{topic}`, `{partition}`, `{timestamp:FORMAT}` (UTC), `{key}` and `{field.NAME}`.",
            )
            .required()
            .path()
            .check(|path| split(path).map(drop)),
            ConfigKey::new("format", ConfigType::Enum(&["json"]), "Format of the files: JSON lines.").default("json"),
            ConfigKey::new("roll.size", ConfigType::Size, "A file of this size is completed and a new one begun.")
                .default("128MiB"),
            ConfigKey::new(
                "roll.count",
                ConfigType::Int { min: 0, max: i64::MAX },
                "A file of this many records is completed and a new one begun; 0 is any number.",
            )
            .default("0"),
            ConfigKey::new(
                "roll.age",
                ConfigType::Duration,
                "When the oldest record that is not yet in a complete file is so old, the files of its partition are \
                 completed. It is also how late a record can be seen.",
            )
            .default("10s"),
            ConfigKey::new(
                "nulls",
                ConfigType::Enum(Nulls::WORDS),
                "What to do about null values: `fail` makes them bad records, `ignore` leaves them out, `write` \
                 writes `null`.",
            )
            .default("fail"),
            ConfigKey::new(
                "fields.origin",
                ConfigType::Boolean,
                "Whether `_topic`, `_partition` and `_offset` are added to every line.",
            )
            .default("false")
            .importance(Importance::Low),
        ]),
    }
}

/// The parsed config.
#[derive(Clone, Debug)]
pub(crate) struct FileConfig {
    /// Everything is written below it.
    pub(crate) root: PathBuf,
    pub(crate) rolls: RollSettings,
}

impl FileConfig {
    pub(crate) fn new(values: &Values) -> Result<Self> {
        let (root, path) = split(values.text("path")?).map_err(Error::bad_config)?;
        Ok(Self { root, rolls: RollSettings::new(path, values)? })
    }
}

/// The root is every directory before the first placeholder.
fn split(path: &str) -> Result<(PathBuf, PathTemplate), String> {
    if path.trim().is_empty() {
        return Err("`path` is empty; name the directory of the files".to_owned());
    }
    let root = match path.find('{') {
        Some(placeholder) => path[..placeholder].rfind('/').map_or(0, |slash| slash + 1),
        None => path.len(),
    };
    let template = PathTemplate::parse(&path[root..])?;
    let root = if root == 0 { Path::new(".") } else { Path::new(&path[..root]) };
    Ok((root.to_owned(), template))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_ends_before_the_first_placeholder() {
        let root = |path| split(path).expect("valid").0;
        assert_eq!(root("out"), Path::new("out"));
        assert_eq!(root("/var/out/"), Path::new("/var/out"));
        assert_eq!(root("../out/a-{topic}/x"), Path::new("../out"));
        assert_eq!(root("{topic}"), Path::new("."));
        assert!(split("out/{topic}/../../etc").is_err());
        assert!(split(" ").is_err());
    }
}
