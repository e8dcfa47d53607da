//! Records as Parquet files.
//!
//! A [`Layout`] says how the values of one schema become columns, [`Rows`] gathers values, [`FileWriter`] makes row
//! groups of them, and [`read_json`] reads a file back.
//!
//! | Connect | Parquet |
//! |---|---|
//! | int8, int16, int32, int64 | INT32 or INT64 with their width |
//! | float, double, boolean | FLOAT, DOUBLE, BOOLEAN |
//! | string, bytes | BYTE_ARRAY (STRING), BYTE_ARRAY |
//! | Decimal | DECIMAL: INT64 to 18 digits, else FIXED_LEN_BYTE_ARRAY; see [`Layout::new`] |
//! | Date of Connect and Debezium | DATE |
//! | Time of Connect; `Time`, `MicroTime`, `NanoTime` of Debezium | TIME; adjusted to UTC; not adjusted |
//! | Timestamp of Connect; `Timestamp`, `MicroTimestamp`, `NanoTimestamp` of Debezium | TIMESTAMP; adjusted to UTC; not adjusted |
//! | array, map, struct | LIST, MAP, group |
//!
//! Everything else is its physical type: `ZonedTimestamp`, `Json`, `Uuid` and `Enum` stay the text they are, which keeps
//! infinity and dates that no timestamp reaches. Optional is OPTIONAL, everything else is REQUIRED.
//!
//! **Invariant:** the same values cut into the same row groups make the same bytes: nothing of the clock, the machine or
//! this program's version is written.

mod column;
mod decimal;
mod file;
mod layout;
mod read;
mod rows;
#[cfg(test)]
mod tests;

pub use file::{Compression, FileWriter};
pub use layout::Layout;
pub use read::read_json;
pub use rows::Rows;
