//! Where schemas are kept by fingerprint.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use aqueduct_core::{Result, SchemaRef};
use async_trait::async_trait;

/// Names a schema: the first 16 bytes of the SHA-256 of its JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Keeps schemas. Shared by the tasks of a worker.
#[async_trait]
pub trait SchemaStore: Send + Sync {
    /// The schema, where it is known here. Never waits.
    fn known(&self, fingerprint: &Fingerprint) -> Option<SchemaRef>;

    /// Returns once the schema is stored durably, at once where it is already.
    async fn put(&self, fingerprint: Fingerprint, schema: &SchemaRef) -> Result<()>;

    /// The schema, after everything stored up to now has been read.
    async fn find(&self, fingerprint: &Fingerprint) -> Result<Option<SchemaRef>>;
}

/// A store that forgets with the process, for tests.
#[derive(Debug, Default)]
pub struct MemorySchemaStore(Mutex<HashMap<Fingerprint, SchemaRef>>);

#[async_trait]
impl SchemaStore for MemorySchemaStore {
    fn known(&self, fingerprint: &Fingerprint) -> Option<SchemaRef> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(fingerprint).cloned()
    }

    async fn put(&self, fingerprint: Fingerprint, schema: &SchemaRef) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(fingerprint, SchemaRef::clone(schema));
        Ok(())
    }

    async fn find(&self, fingerprint: &Fingerprint) -> Result<Option<SchemaRef>> {
        Ok(self.known(fingerprint))
    }
}
