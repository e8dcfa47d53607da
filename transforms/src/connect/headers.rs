//! `InsertHeader`, `DropHeaders` and `HeaderFrom`.

use aqueduct_core::config::{ConfigKey, ConfigType, Values};
use aqueduct_core::transform::{Outcome, Transform, each};
use aqueduct_core::{Datum, Error, FieldPath, Record, Result, Slot, Value};

use super::NULL_DEFAULT;
use crate::kind::{Kind, Missing, Side, wrong};
use crate::reshape::{self, Rules, paths};

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        insert(),
        drop(),
        from("org.apache.kafka.connect.transforms.HeaderFrom$Value", Side::Value),
        from("org.apache.kafka.connect.transforms.HeaderFrom$Key", Side::Key),
    ]
}

fn insert() -> Kind {
    let keys = [
        ConfigKey::new("header", ConfigType::String, "The name of the header.").required(),
        ConfigKey::new("value.literal", ConfigType::String, "Its value: JSON, or else text.").required(),
    ];
    let name = "org.apache.kafka.connect.transforms.InsertHeader";
    Kind::new(name, "Adds a header.", keys, |values: &Values| {
        let literal = values.text("value.literal")?;
        let json = bytes::Bytes::copy_from_slice(literal.as_bytes());
        let value = match aqueduct_core::json::validate(&json) {
            Ok(text) => Datum::json(None, text),
            Err(_) => Datum::schemaless(literal),
        };
        let name = values.text("header")?.to_owned();
        Ok(Box::new(Each(move |record: &mut Record| {
            record.headers.push(name.as_str(), value.clone());
            Ok(())
        })))
    })
}

fn drop() -> Kind {
    let headers = ConfigKey::new("headers", ConfigType::List, "Names of headers to take out.").required();
    let name = "org.apache.kafka.connect.transforms.DropHeaders";
    Kind::new(name, "Takes out headers.", [headers], |values: &Values| {
        let names = values.list("headers")?.to_vec();
        if names.is_empty() {
            return Err(wrong("headers", "the list is empty; name the headers to take out"));
        }
        Ok(Box::new(Each(move |record: &mut Record| {
            names.iter().for_each(|name| record.headers.remove(name));
            Ok(())
        })))
    })
}

fn from(name: &'static str, side: Side) -> Kind {
    let keys = [
        ConfigKey::new("fields", ConfigType::List, "Fields to take.").required(),
        ConfigKey::new("headers", ConfigType::List, "The header of each field.").required(),
        ConfigKey::new("operation", ConfigType::Enum(&["move", "copy"]), "Whether the fields go or stay.")
            .required(),
        NULL_DEFAULT,
    ];
    Kind::new(name, "Makes headers of fields.", keys, move |values| {
        let fields = paths(values.list("fields")?, "fields", FieldPath::field)?;
        let headers = values.list("headers")?.to_vec();
        if fields.is_empty() || fields.len() != headers.len() {
            return Err(wrong("headers", "give as many `headers` as `fields`, at least one"));
        }
        let removal = match values.text("operation")? {
            "move" => {
                let rules = Rules::new(&fields, &[], &[]).map_err(|why| wrong("fields", why))?;
                Some(reshape::step(rules, side, Missing::Ignore))
            }
            _ => None,
        };
        Ok(Box::new(HeaderFrom { side, fields, headers, removal }))
    })
}

struct HeaderFrom {
    side: Side,
    fields: Vec<FieldPath>,
    headers: Vec<String>,
    /// Takes the fields out.
    removal: Option<Box<dyn Transform>>,
}

impl Transform for HeaderFrom {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for mut record in batch {
            outcomes.push(match self.found(&mut record) {
                Err(error) => Outcome::Fail(record, error),
                Ok(found) => {
                    let outcome = match &mut self.removal {
                        Some(removal) => removal.apply(vec![record])?.pop(),
                        None => Some(Outcome::Keep(record)),
                    };
                    match outcome {
                        Some(Outcome::Keep(mut record)) => {
                            for (name, value) in self.headers.iter().zip(found) {
                                record.headers.push(name.as_str(), value);
                            }
                            Outcome::Keep(record)
                        }
                        Some(other) => other,
                        None => return Err(Error::fatal("a step gave no outcome")),
                    }
                }
            });
        }
        Ok(outcomes)
    }
}

impl HeaderFrom {
    fn found(&self, record: &mut Record) -> Result<Vec<Datum>> {
        let datum = self.side.of_mut(record);
        if datum.is_null() {
            return Err(Error::bad_record("there are no fields to make headers of: it is null"));
        }
        let schema = datum.schema().cloned();
        let root = datum.value()?;
        let find = |path: &FieldPath| {
            let locator = path.locate(schema.as_ref());
            let found = locator.as_ref().map_or(Slot::Missing, |locator| locator.get(root));
            let of = locator.as_ref().and_then(|locator| locator.schema()).cloned();
            let mut datum = Datum::null();
            match found {
                Slot::Missing if schema.is_some() => {
                    return Err(Error::bad_record(format!("there is no field `{path}` to make a header of")));
                }
                Slot::Found(value) => datum.set(of, value.clone()),
                _ => datum.set(of, Value::Null),
            }
            Ok(datum)
        };
        self.fields.iter().map(find).collect()
    }
}

/// A step that changes records in place, one by one.
pub(super) struct Each<F>(pub(super) F);

impl<F: FnMut(&mut Record) -> Result<()> + Send> Transform for Each<F> {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        each(batch, |mut record| match (self.0)(&mut record) {
            Ok(()) => Outcome::Keep(record),
            Err(error) => Outcome::Fail(record, error),
        })
    }
}
