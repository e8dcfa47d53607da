//! From consumed bytes to records: the converters of a sink.

use std::sync::Arc;

use aqueduct_client::ConsumedRecord;
use aqueduct_convert::decode_header;
use aqueduct_core::converter::{Converter, Part};
use aqueduct_core::{Header, Record, Result};

use crate::task::steps::{Failure, Stage};

/// The converters of keys and values.
pub(crate) struct Decoder {
    key: Arc<dyn Converter>,
    value: Arc<dyn Converter>,
}

/// Records and failures, each with the index of what was consumed.
pub(crate) type Decoded = (Vec<(usize, Record)>, Vec<(usize, Failure)>);

impl Decoder {
    pub(crate) fn new(key: Arc<dyn Converter>, value: Arc<dyn Converter>) -> Self {
        Self { key, value }
    }

    pub(crate) async fn decode(&self, records: &[ConsumedRecord]) -> Result<Decoded> {
        let consumed: Vec<_> = records.iter().map(|record| &*record.consumed).collect();
        self.key.prepare_decode(&consumed).await?;
        self.value.prepare_decode(&consumed).await?;
        let mut decoded = Vec::with_capacity(records.len());
        let mut failed = Vec::new();
        for (index, record) in records.iter().enumerate() {
            match self.one(record) {
                Ok(record) => decoded.push((index, record)),
                Err(failure) => failed.push((index, failure)),
            }
        }
        Ok((decoded, failed))
    }

    fn one(&self, consumed: &ConsumedRecord) -> Result<Record, Failure> {
        let bytes = &consumed.consumed;
        let mut headers = bytes
            .headers
            .iter()
            .map(|(name, value)| Header { name: name.clone(), value: decode_header(value.as_ref()) })
            .collect();
        let failed = |stage, class: &str| {
            let class = class.to_owned();
            move |error| Failure { stage, step: None, class, error }
        };
        let key = self.key.decode(&consumed.topic, Part::Key, bytes, &mut headers);
        let key = key.map_err(failed(Stage::KeyConverter, "key.converter"))?;
        let value = self.value.decode(&consumed.topic, Part::Value, bytes, &mut headers);
        let value = value.map_err(failed(Stage::ValueConverter, "value.converter"))?;
        Ok(Record {
            topic: Arc::clone(&consumed.topic),
            partition: Some(consumed.partition),
            key,
            value,
            headers,
            timestamp: consumed.timestamp,
        })
    }
}
