//! Fingerprints of schemas by address: hashing a schema for every record would cost more than encoding it.
//!
//! **Invariant:** an address in the cache cannot be reused, because the cache holds the schema.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::{SchemaRef, json};

use crate::store::Fingerprint;

const MAX_SCHEMAS: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct FingerprintCache(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: Option<(SchemaRef, Fingerprint)>,
    all: HashMap<usize, (SchemaRef, Fingerprint)>,
}

impl FingerprintCache {
    pub(crate) fn of(&self, schema: &SchemaRef) -> Fingerprint {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, fingerprint)) = &inner.last
            && Arc::ptr_eq(last, schema)
        {
            return *fingerprint;
        }
        let address = Arc::as_ptr(schema) as usize;
        let fingerprint = match inner.all.get(&address) {
            Some((_, known)) => *known,
            None => {
                let fingerprint = Fingerprint(json::fingerprint(schema));
                if inner.all.len() >= MAX_SCHEMAS {
                    inner.all.clear();
                }
                inner.all.insert(address, (Arc::clone(schema), fingerprint));
                fingerprint
            }
        };
        inner.last = Some((Arc::clone(schema), fingerprint));
        fingerprint
    }
}
