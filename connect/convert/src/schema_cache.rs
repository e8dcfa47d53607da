//! Fingerprints of schemas by address: hashing a schema for every record would cost more than encoding it.
//!
//! **Invariant:** an address in the cache cannot be reused, because the cache holds the schema.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::{SchemaRef, json};
use bytes::Bytes;

use crate::store::Fingerprint;

const MAX_SCHEMAS: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct FingerprintCache(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: Option<(SchemaRef, Named)>,
    all: HashMap<usize, (SchemaRef, Named)>,
}

#[derive(Clone, Debug)]
struct Named {
    fingerprint: Fingerprint,
    /// The same, shared by the headers of all records.
    bytes: Bytes,
}

impl FingerprintCache {
    pub(crate) fn of(&self, schema: &SchemaRef) -> Fingerprint {
        self.named(schema, |named| named.fingerprint)
    }

    /// The fingerprint as the value of a header.
    pub(crate) fn bytes_of(&self, schema: &SchemaRef) -> Bytes {
        self.named(schema, |named| named.bytes.clone())
    }

    fn named<T>(&self, schema: &SchemaRef, read: impl FnOnce(&Named) -> T) -> T {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, named)) = &inner.last
            && Arc::ptr_eq(last, schema)
        {
            return read(named);
        }
        let address = Arc::as_ptr(schema) as usize;
        let named = match inner.all.get(&address) {
            Some((_, known)) => known.clone(),
            None => {
                let fingerprint = Fingerprint(json::fingerprint(schema));
                let named = Named { fingerprint, bytes: Bytes::copy_from_slice(&fingerprint.0) };
                if inner.all.len() >= MAX_SCHEMAS {
                    inner.all.clear();
                }
                inner.all.insert(address, (Arc::clone(schema), named.clone()));
                named
            }
        };
        let answer = read(&named);
        inner.last = Some((Arc::clone(schema), named));
        answer
    }
}
