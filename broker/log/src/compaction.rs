//! Compaction: of the records with the same key only the last one stays.

use crate::error::Result;
use crate::partition_log::PartitionLog;

impl PartitionLog {
    /// Compacts what is due.
    pub(crate) fn compact(&self, _now_ms: i64, _map_bytes: usize) -> Result<()> {
        Ok(())
    }
}
