//! `s3`: a sink that writes JSON lines or Parquet as objects of an S3 bucket.
//!
//! Objects are named `<path><topic>+<partition>+<first offset>.jsonl` (`.jsonl.gz`, `.jsonl.zst`, `.parquet`). Offsets are committed once the objects are
//! there. What was written before a crash is found again by name, size and checksum; where the content differs, the
//! records are written once more as `….<n>.jsonl`: a duplicate, never a loss.
//!
//! **Invariant:** an object is never overwritten: every write demands that its name is free, or (with
//! `conditional_writes: false`) has a random part in its name.

mod config;
mod format;
mod orphans;
mod schema;
mod sink;
mod store;
mod upload;

pub use sink::S3Sink;
