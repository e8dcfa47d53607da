//! `file`: a source that reads lines of files ([`FileSource`]), and a sink that writes JSON lines into files of a directory.
//!
//! The sink: files are named `<path><topic>+<partition>+<first offset>.jsonl`. They are written under a hidden name that ends
//! with `.inprogress` and get their own name once they are complete and on disk, so whoever reads `*.jsonl` never sees
//! half of one. Offsets are committed after that.
//!
//! **Invariant:** a file is never overwritten, and never written outside the root directory.

mod config;
mod disk;
mod sink;
mod source;

pub use sink::FileSink;
pub use source::FileSource;
