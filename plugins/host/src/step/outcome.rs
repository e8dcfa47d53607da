//! A guest's answer for one record, applied to it.

use std::sync::Arc;

use aqueduct_core::transform::Outcome;
use aqueduct_core::{Datum, Error, Record, Result, Slot, Value, json};

use super::Seen;
use crate::bindings::aqueduct::transform::types::{
    ChangedField, NewValue, OutDatum, OutRecord, Outcome as Answer, RecordError,
};
use crate::guest_log::clean;
use crate::project;

/// What the answer makes of the record. A wrong answer fails the record.
pub(super) fn of(answer: Answer, mut record: Record, seen: &Seen) -> Outcome {
    let result = match answer {
        Answer::Keep => Ok(()),
        Answer::Drop => return Outcome::Drop,
        Answer::SetValue(text) => datum(text).map(|value| record.value = value),
        Answer::SetFields(changed) => set_fields(&mut record, seen, changed),
        Answer::Emit(records) => match emit(&record, records) {
            Ok(records) if records.is_empty() => return Outcome::Drop,
            Ok(records) => return Outcome::Emit(records),
            Err(error) => Err(error),
        },
        Answer::Fail(RecordError { code, message }) => {
            let (code, message) = (clean(&code, 64), clean(&message, 1024));
            Err(Error::bad_record(format!("{message} (`{code}`)")))
        }
    };
    match result {
        Ok(()) => Outcome::Keep(record),
        Err(error) => Outcome::Fail(record, error),
    }
}

/// JSON text of a guest. It has no schema: read by the old one, fields that this lacks would be lost without a word.
fn datum(text: Vec<u8>) -> Result<Datum> {
    let text = json::validate(&text.into()).map_err(|error| error.context("the plugin's answer"))?;
    Ok(Datum::json(None, text))
}

fn set_fields(record: &mut Record, seen: &Seen, changed: Vec<ChangedField>) -> Result<()> {
    let mut lifted: Vec<(usize, Value)> = Vec::with_capacity(changed.len());
    for ChangedField { field, value: new } in changed {
        let i = field as usize;
        if i >= seen.len() {
            return Err(Error::bad_record(format!(
                "the plugin set field {field}, but asked for {} only",
                seen.len()
            )));
        }
        match seen.get(i, &record.value) {
            Slot::Found(_) => {}
            Slot::NullParent if matches!(new, NewValue::Null) => continue,
            Slot::NullParent | Slot::Missing => {
                let text = format!("the plugin set field {field}, which this record does not have");
                return Err(Error::bad_record(text));
            }
        }
        let new = project::lift(new, seen.schema(i))
            .map_err(|error| error.context(format!("the plugin set field {field}")))?;
        // Set twice, the last counts.
        lifted.retain(|(other, _)| *other != i);
        lifted.push((i, new));
    }
    // All fit, so all are put.
    seen.put(&mut record.value, lifted)
}

fn emit(input: &Record, records: Vec<OutRecord>) -> Result<Vec<Record>> {
    let one = |out: OutRecord| {
        let mut record = Record {
            topic: out.topic.as_deref().map_or_else(|| Arc::clone(&input.topic), Into::into),
            // The partition belongs to the topic.
            partition: if out.topic.is_some() { None } else { input.partition },
            key: out_datum(out.key, &input.key)?,
            value: out_datum(out.value, &input.value)?,
            headers: input.headers.clone(),
            timestamp: out.timestamp.or(input.timestamp),
        };
        for header in out.headers {
            record.headers.push(header.name, header.value.map_or_else(|| Ok(Datum::null()), datum)?);
        }
        Ok(record)
    };
    records.into_iter().map(one).collect()
}

fn out_datum(out: OutDatum, same: &Datum) -> Result<Datum> {
    match out {
        OutDatum::Same => Ok(same.clone()),
        OutDatum::Null => Ok(Datum::null()),
        OutDatum::Json(text) => datum(text),
    }
}
