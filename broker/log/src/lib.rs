//! The log on disk: segments, indexes, recovery, group commit, retention and compaction.
//!
//! Synchronous and without a clock: the disk ([`Disk`]) and the time (`now_ms`) are parameters; only the flusher thread
//! reads a monotonic clock. `docs/storage.md` lists every byte this crate writes.
//!
//! - [`LogDir`]: a data directory, its identity and its partitions
//! - [`PartitionLog`]: append, read, truncate
//! - [`FlushSink`]: hears from the group commit
//! - [`MetaLog`], [`CheckedFile`]: for the metadata quorum's log, vote and snapshots

mod batch_scan;
mod buffers;
mod checked_file;
mod checkpoints;
mod compaction;
mod disk;
mod epochs;
mod error;
mod flusher;
mod index;
#[cfg(test)]
mod judge;
mod log_config;
mod log_dir;
mod metalog;
mod partition_log;
mod producer_state;
mod recovery;
mod segment;
mod tail_cache;

pub use checked_file::{CheckedFile, FileKind};
pub use disk::memory::{Fault, MemDisk};
pub use disk::real::RealDisk;
pub use disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};
pub use error::{LogError, Result};
pub use flusher::{FlushMode, FlushSink, Urgency};
pub use log_config::{FSYNC_BUCKETS_US, LogConfig, LogCounters, PartitionId};
pub use log_dir::{DirectoryIdentity, LogDir, LogDirOptions, OpenedPartition, PartitionSpec};
pub use metalog::{MetaLog, MetaLogOptions};
pub use partition_log::{AppendError, AppendInfo, Fetched, PartitionLog};
pub use producer_state::SequenceError;
