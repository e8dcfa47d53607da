//! Which records go into one request, and its body. No IO.

use aqueduct_core::sink::SinkRecord;
use aqueduct_core::{Error, Result, Value};
use bytes::Bytes;
use reqwest::Url;
use tokio::sync::OwnedSemaphorePermit;

use crate::config::{HttpConfig, Nulls};

/// A record that waits for its answer.
pub(super) struct Pending {
    pub(super) record: SinkRecord,
    /// How many records of the same offset came before it: a step may make several of one.
    pub(super) nth: u32,
    pub(super) prepared: Prepared,
    /// Its part of the budget.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// What a record is to the server.
pub(super) enum Prepared {
    /// Goes into a body, to this URL.
    Body(Url, Bytes),
    /// DELETE of this URL.
    Delete(Url),
    /// Left out.
    Nothing,
    /// Can never be sent.
    Bad(Error),
}

impl Prepared {
    pub(super) fn new(record: &mut SinkRecord, config: &HttpConfig) -> Self {
        match prepare(record, config) {
            Ok(prepared) => prepared,
            Err(error) => Prepared::Bad(error),
        }
    }
}

fn prepare(record: &mut SinkRecord, config: &HttpConfig) -> Result<Prepared> {
    let partition = record.origin.partition;
    let record = &mut record.record;
    if record.value.is_null() {
        match config.nulls {
            Nulls::Ignore => return Ok(Prepared::Nothing),
            Nulls::Delete => return Ok(Prepared::Delete(config.url.render(record, partition)?)),
            Nulls::Write => {}
            Nulls::Fail => {
                return Err(Error::bad_record(
                    "the value is null; set `nulls` to `ignore`, `delete` or `write`, or drop tombstones in a step",
                ));
            }
        }
    }
    let url = config.url.render(record, partition)?;
    let body = match (config.text, record.value.decoded()) {
        // Undecoded text is JSON; only decoding shows whether it is one string.
        (true, None) => match record.value.value()? {
            Value::String(text) => Bytes::copy_from_slice(text.as_bytes()),
            _ => record.value.to_json()?,
        },
        (true, Some(Value::String(text))) => Bytes::copy_from_slice(text.as_bytes()),
        _ => record.value.to_json()?,
    };
    Ok(Prepared::Body(url, body))
}

/// How many of the records at the front go into one request.
pub(super) fn fill<'p>(pending: impl Iterator<Item = &'p Pending>, config: &HttpConfig) -> usize {
    let (mut count, mut bytes) = (0, 0);
    let mut to = None;
    for next in pending.take(config.batch_records) {
        let Prepared::Body(url, body) = &next.prepared else { break };
        bytes += body.len() + 1;
        if to.is_some_and(|to| to != url) || (count > 0 && bytes > config.batch_bytes) {
            break;
        }
        to = Some(url);
        count += 1;
    }
    count
}

/// The body of a request.
pub(super) fn body(batch: &[Pending], config: &HttpConfig) -> Bytes {
    let bodies = || {
        batch.iter().filter_map(|pending| match &pending.prepared {
            Prepared::Body(_, body) => Some(body),
            _ => None,
        })
    };
    if config.batch_records == 1 {
        return bodies().next().cloned().unwrap_or_default();
    }
    let mut out = Vec::with_capacity(bodies().map(|body| body.len() + 1).sum::<usize>() + 2);
    if !config.lines {
        out.push(b'[');
    }
    for (i, body) in bodies().enumerate() {
        if i > 0 && !config.lines {
            out.push(b',');
        }
        out.extend_from_slice(body);
        if config.lines {
            out.push(b'\n');
        }
    }
    if !config.lines {
        out.push(b']');
    }
    out.into()
}

/// The name of a request that carries these records: the same whenever they are sent together.
pub(super) fn idempotency_key(batch: &[Pending]) -> String {
    let Some(first) = batch.first() else { return String::new() };
    let mut key = format!("{}-{}", first.record.origin, first.record.offset);
    if first.nth > 0 {
        key.push_str(&format!(".{}", first.nth));
    }
    if batch.len() > 1 {
        key.push_str(&format!("+{}", batch.len()));
    }
    key
}
