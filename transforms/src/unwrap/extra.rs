//! Metadata of the envelope that is added to the row or its headers.

use std::sync::Arc;

use aqueduct_core::{Error, FieldPath, Locator, Result, Slot, Value};

/// One added field.
pub(super) struct Extra {
    /// Where it is in the envelope.
    pub(super) path: FieldPath,
    /// What it is called in the row.
    pub(super) name: Arc<str>,
}

impl Extra {
    /// Parses `op`, `source.lsn`, `lsn` or `lsn:position`.
    pub(super) fn parse(text: &str, prefix: &str) -> Result<Self, String> {
        let (field, alias) = match text.split_once(':') {
            Some((field, alias)) => (field.trim(), Some(alias.trim())),
            None => (text.trim(), None),
        };
        let name = match alias {
            Some("") => return Err(format!("`{text}` has no name after the colon")),
            Some(alias) => format!("{prefix}{alias}"),
            None => format!("{prefix}{}", field.replace('.', "_")),
        };
        // Debezium's rule for a name without a struct.
        let path = match field {
            "op" | "ts_ms" | "ts_us" | "ts_ns" => field.to_owned(),
            "id" | "total_order" | "data_collection_order" => format!("transaction.{field}"),
            field if field.contains('.') => field.to_owned(),
            field => format!("source.{field}"),
        };
        Ok(Self { path: FieldPath::parse(&path)?, name: name.into() })
    }

    /// Whether it stands in the row before or after the change.
    pub(super) fn is_of_a_row(&self) -> bool {
        self.path.as_str().starts_with("before.") || self.path.as_str().starts_with("after.")
    }

    /// Its value in this envelope.
    pub(super) fn read(&self, locator: Option<&Locator>, envelope: &Value) -> Result<Value> {
        match locator.map_or(Slot::Missing, |locator| locator.get(envelope)) {
            Slot::Found(value) => Ok(value.clone()),
            Slot::NullParent => Ok(Value::Null),
            Slot::Missing => Err(Error::bad_record(format!(
                "the change event has no `{}` to add; correct `add.fields` or `add.headers`",
                self.path
            ))),
        }
    }
}
