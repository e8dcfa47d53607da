//! Records as a guest's arguments: what must be encoded for it is made first, then everything is lent.

use aqueduct_core::Error;
use aqueduct_core::transform::Outcome;
use aqueduct_core::{Datum, Record, Result};
use bytes::Bytes;

use super::{Seen, Slot, View, finish};
use crate::bindings::aqueduct::transform::types::{FieldValue, InHeader, InRecord, Input, Needs, PluginInfo};
use crate::project;

impl View {
    /// What a guest said that it wants.
    pub(crate) fn parse(info: PluginInfo) -> Result<View> {
        let fields = match info.input {
            Input::Value => None,
            Input::Fields(paths) => {
                let path = |text: &String| {
                    aqueduct_core::FieldPath::parse(text).map_err(|why| {
                        Error::bad_config(format!("the plugin `{}` asks for a field: {why}", info.name))
                    })
                };
                Some(paths.iter().map(path).collect::<Result<_>>()?)
            }
        };
        Ok(View {
            fields,
            key: info.needs.contains(Needs::KEY),
            headers: info.needs.contains(Needs::HEADERS),
            timestamp: info.needs.contains(Needs::TIMESTAMP),
        })
    }
}

/// What had to be encoded for the waiting records.
pub(super) struct Prepared<'v> {
    view: &'v View,
    records: Vec<Encoded>,
}

#[derive(Default)]
struct Encoded {
    value: Option<Bytes>,
    key: Option<Bytes>,
    headers: Vec<Option<Bytes>>,
    /// JSON of fields without a shape of their own; empty when there are none.
    fields: Vec<Option<String>>,
}

impl<'v> Prepared<'v> {
    /// Encodes; a record that cannot be is settled as failed.
    pub(super) fn new(view: &'v View, slots: &mut [Slot]) -> Self {
        let mut records = Vec::with_capacity(slots.len());
        for slot in slots {
            let Slot::Waiting(record, seen) = slot else { continue };
            match encode(view, record, seen) {
                Ok(encoded) => records.push(encoded),
                Err(error) => finish(slot, |record, _| Outcome::Fail(record, error)),
            }
        }
        Self { view, records }
    }

    /// The projected fields of all records, one after the other.
    pub(super) fn fields<'a>(&'a self, slots: &'a [Slot]) -> Vec<FieldValue<'a>> {
        let width = self.view.fields.as_ref().map_or(0, Vec::len);
        let mut fields = Vec::with_capacity(self.records.len() * width);
        if width == 0 {
            return fields;
        }
        for ((record, seen), encoded) in waiting(slots).zip(&self.records) {
            for i in 0..seen.len() {
                let text = encoded.fields.get(i).and_then(Option::as_deref);
                fields.push(project::lower(&seen.get(i, &record.value), text));
            }
        }
        fields
    }

    /// The headers of all records, one after the other.
    pub(super) fn headers<'a>(&'a self, slots: &'a [Slot]) -> Vec<InHeader<'a>> {
        if !self.view.headers {
            return Vec::new();
        }
        let all = waiting(slots).zip(&self.records).flat_map(|((record, _), encoded)| {
            record
                .headers
                .iter()
                .zip(&encoded.headers)
                .map(|(header, value)| InHeader { name: &header.name, value: value.as_deref() })
        });
        all.collect()
    }

    /// The arguments.
    pub(super) fn records<'a>(
        &'a self,
        slots: &'a [Slot],
        fields: &'a [FieldValue<'a>],
        headers: &'a [InHeader<'a>],
    ) -> Vec<InRecord<'a>> {
        let width = self.view.fields.as_ref().map_or(0, Vec::len);
        let (mut fields, mut headers) = (fields, headers);
        let mut records = Vec::with_capacity(self.records.len());
        for ((record, _), encoded) in waiting(slots).zip(&self.records) {
            let (own_fields, other_fields) = fields.split_at(width);
            let (own_headers, other_headers) = headers.split_at(encoded.headers.len());
            (fields, headers) = (other_fields, other_headers);
            records.push(InRecord {
                value: encoded.value.as_deref(),
                fields: own_fields,
                key: encoded.key.as_deref(),
                headers: own_headers,
                timestamp: record.timestamp.filter(|_| self.view.timestamp),
            });
        }
        records
    }

    /// How many bytes all of it is, roughly.
    pub(super) fn bytes(&self, fields: &[FieldValue<'_>]) -> usize {
        let size = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let records = self.records.iter().map(|encoded| {
            128 + size(&encoded.value) + size(&encoded.key) + encoded.headers.iter().map(size).sum::<usize>()
        });
        records.sum::<usize>() + fields.iter().map(project::size).sum::<usize>()
    }
}

fn waiting(slots: &[Slot]) -> impl Iterator<Item = (&Record, &Seen)> {
    slots.iter().filter_map(|slot| match slot {
        Slot::Waiting(record, seen) => Some((record, seen)),
        Slot::Done(_) => None,
    })
}

fn encode(view: &View, record: &Record, seen: &Seen) -> Result<Encoded> {
    let mut encoded = Encoded::default();
    if view.fields.is_none() {
        encoded.value = json(&record.value)?;
    } else {
        for i in 0..seen.len() {
            if let Some(text) = project::json_text(&seen.get(i, &record.value), seen.schema(i))? {
                encoded.fields.resize(seen.len(), None);
                encoded.fields[i] = Some(text);
            }
        }
    }
    if view.key {
        encoded.key = json(&record.key)?;
    }
    if view.headers {
        encoded.headers = record.headers.iter().map(|header| json(&header.value)).collect::<Result<_>>()?;
    }
    Ok(encoded)
}

fn json(datum: &Datum) -> Result<Option<Bytes>> {
    if datum.is_null() { Ok(None) } else { datum.to_json().map(Some) }
}
