//! What a step does with records whose value is null.

use aqueduct_core::config::{ConfigKey, ConfigType, Values};
use aqueduct_core::{Record, Result};

/// The key `nulls`, the same in every step that looks into values.
pub(crate) const KEY: ConfigKey = ConfigKey::new(
    "nulls",
    ConfigType::Enum(&["pass", "drop"]),
    "What becomes of records whose value is null, such as tombstones: they pass unchanged, or are dropped.",
)
.default("pass");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nulls {
    Pass,
    Drop,
}

impl Nulls {
    pub(crate) fn from(values: &Values) -> Result<Self> {
        Ok(if values.text("nulls")? == "drop" { Nulls::Drop } else { Nulls::Pass })
    }

    /// The outcome for a null value; `None` when the record has one.
    pub(crate) fn of(self, record: Record) -> Result<aqueduct_core::transform::Outcome, Record> {
        match (record.value.is_null(), self) {
            (false, _) => Err(record),
            (true, Nulls::Pass) => Ok(aqueduct_core::transform::Outcome::Keep(record)),
            (true, Nulls::Drop) => Ok(aqueduct_core::transform::Outcome::Drop),
        }
    }
}
