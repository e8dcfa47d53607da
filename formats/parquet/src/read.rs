//! Reading a file back.

use aqueduct_core::{Error, Result, logical};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Value as Json};

/// The records of a file, each as the JSON that the `json` format writes for it: dates and times are the numbers they
/// are stored as, decimals are numbers, bytes are base64, maps with text keys are objects. Decimals have the precision
/// that JSON numbers have in `serde_json`.
pub fn read_json(file: Bytes) -> Result<Vec<Json>> {
    let failed = |error: ParquetError| Error::bad_record("this is not a Parquet file").with_source(error);
    let reader = SerializedFileReader::new(file).map_err(failed)?;
    let rows = reader.get_row_iter(None).map_err(failed)?;
    rows.map(|row| Ok(object(&row.map_err(failed)?))).collect()
}

fn object(row: &Row) -> Json {
    Json::Object(
        row.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect::<Map<_, _>>(),
    )
}

fn json(field: &Field) -> Json {
    match field {
        Field::Null => Json::Null,
        Field::Bool(v) => (*v).into(),
        Field::Byte(v) => (*v).into(),
        Field::Short(v) => (*v).into(),
        Field::Int(v) | Field::Date(v) | Field::TimeMillis(v) => (*v).into(),
        Field::Long(v) | Field::TimeMicros(v) | Field::TimestampMillis(v) | Field::TimestampMicros(v) => {
            (*v).into()
        }
        Field::UByte(v) => (*v).into(),
        Field::UShort(v) => (*v).into(),
        Field::UInt(v) => (*v).into(),
        Field::ULong(v) => (*v).into(),
        Field::Float16(v) => number(v.to_f64()),
        Field::Float(v) => number(f64::from(*v)),
        Field::Double(v) => number(*v),
        Field::Decimal(v) => {
            serde_json::from_str(&logical::decimal_text(v.data(), v.scale())).unwrap_or(Json::Null)
        }
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => STANDARD.encode(bytes.data()).into(),
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        Field::MapInternal(map) => match map.entries().iter().map(entry).collect::<Option<Map<_, _>>>() {
            Some(entries) => Json::Object(entries),
            None => {
                map.entries().iter().map(|(key, value)| Json::from(vec![json(key), json(value)])).collect()
            }
        },
    }
}

fn entry((key, value): &(Field, Field)) -> Option<(String, Json)> {
    match key {
        Field::Str(key) => Some((key.clone(), json(value))),
        _ => None,
    }
}

/// NaN and the infinities are text, as JsonConverter writes them.
fn number(v: f64) -> Json {
    let text = || {
        if v.is_nan() {
            "NaN"
        } else if v > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
    };
    serde_json::Number::from_f64(v).map_or_else(|| text().into(), Json::Number)
}
