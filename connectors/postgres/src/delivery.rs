//! What the background task hands to `poll`, bounded in bytes by a semaphore whose permits travel along.

use std::sync::Arc;

use aqueduct_core::Error;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::position::Position;
use crate::table::Table;

/// Bytes per permit.
const UNIT: usize = 1 << 10;
/// Most that one budget holds.
const MAX_UNITS: usize = 64 << 10;
const MIN_UNITS: usize = 1 << 10;

/// Something for `poll`.
pub(crate) enum Delivery {
    /// Whole CopyData messages of the stream, with an entry for each Relation message among them.
    Wal { data: Bytes, tables: Vec<(u32, Arc<Table>)>, permit: OwnedSemaphorePermit },
    /// The snapshot begins; its rows belong to this position.
    SnapshotBegins { position: Position, total: u64 },
    /// Whole CopyData messages with a row each.
    Rows { table: Arc<Table>, data: Bytes, permit: OwnedSemaphorePermit },
    /// Every row of the table was handed on.
    TableEnds(Arc<Table>),
    /// Every row was handed on.
    SnapshotEnds,
    /// The background task ended.
    Failed(Error),
}

/// How many permits a budget of `bytes` has.
pub(crate) fn budget(bytes: usize) -> usize {
    (bytes / UNIT).clamp(MIN_UNITS, MAX_UNITS)
}

/// How many permits `len` bytes take. A piece larger than the budget takes the smallest budget, and so waits only for
/// that much.
pub(crate) fn permits(len: usize) -> u32 {
    (len.div_ceil(UNIT).clamp(1, MIN_UNITS)) as u32
}
