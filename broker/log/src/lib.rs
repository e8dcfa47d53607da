//! The log on disk: segments, indexes, recovery, group commit, retention and compaction.
//!
//! Synchronous and without a clock: the disk ([`Disk`]) and the time (`now_ms`) are parameters. `docs/storage.md` lists
//! every byte this crate writes.

mod checked_file;
mod disk;
mod error;
mod metalog;

pub use checked_file::{CheckedFile, FileKind};
pub use disk::memory::{Fault, MemDisk};
pub use disk::real::RealDisk;
pub use disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};
pub use error::{LogError, Result};
pub use metalog::{MetaLog, MetaLogOptions};
