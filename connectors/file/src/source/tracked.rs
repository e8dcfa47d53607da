//! What is known of a file: who it is, and how far it was read.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::source::{JsonMap, SourcePosition};
use serde_json::Value as Json;

/// How much of a file's beginning tells it from another.
const HEAD: usize = 256;

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileKey {
    device: u64,
    inode: u64,
}

impl FileKey {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    fn partition(self) -> JsonMap {
        JsonMap::from_iter([
            ("device".to_owned(), self.device.into()),
            ("inode".to_owned(), self.inode.into()),
        ])
    }

    fn parse(partition: &JsonMap) -> Option<Self> {
        let get = |name: &str| partition.get(name).and_then(Json::as_u64);
        Some(Self { device: get("device")?, inode: get("inode")? })
    }
}

/// How far a file was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tracked {
    pub(super) path: PathBuf,
    /// Bytes of whole lines; of a compressed file, decompressed ones.
    pub(super) position: u64,
    /// Whether a compressed file was read to its end.
    pub(super) done: bool,
    /// CRC-32C of the first bytes, and how many.
    head: (u32, usize),
}

impl Tracked {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), position: 0, done: false, head: (0, 0) }
    }

    /// From what was stored; `None` when it is not of this form.
    pub(super) fn parse(position: &SourcePosition) -> Option<(FileKey, Self)> {
        let get = |name: &str| position.offset.get(name);
        let head = u32::try_from(get("head")?.as_u64()?).ok()?;
        let tracked = Self {
            path: PathBuf::from(get("path")?.as_str()?),
            position: get("position")?.as_u64()?,
            done: get("done").and_then(Json::as_bool).unwrap_or(false),
            head: (head, usize::try_from(get("head_bytes")?.as_u64()?).ok()?.min(HEAD)),
        };
        Some((FileKey::parse(&position.partition)?, tracked))
    }

    pub(super) fn stored(&self, key: FileKey) -> SourcePosition {
        let mut offset = JsonMap::from_iter([
            ("position".to_owned(), self.position.into()),
            ("head".to_owned(), self.head.0.into()),
            ("head_bytes".to_owned(), self.head.1.into()),
            ("path".to_owned(), self.path.to_string_lossy().into_owned().into()),
        ]);
        if self.done {
            offset.insert("done".to_owned(), true.into());
        }
        SourcePosition { partition: Arc::new(key.partition()), offset: Arc::new(offset) }
    }

    /// Whether the file still begins as it did.
    pub(super) fn is_same(&self, file: &File) -> io::Result<bool> {
        Ok(head_of(file, self.head.1)? == self.head)
    }

    /// Takes more of the beginning into account, once more of it was read.
    pub(super) fn know(&mut self, file: &File) -> io::Result<()> {
        if self.head.1 < HEAD {
            // Never more than what was read: a beginning that is not written yet may still change.
            let known = usize::try_from(self.position).unwrap_or(HEAD).min(HEAD);
            self.head = head_of(file, known)?;
        }
        Ok(())
    }
}

fn head_of(file: &File, bytes: usize) -> io::Result<(u32, usize)> {
    let mut head = [0; HEAD];
    let mut done = 0;
    while done < bytes {
        match file.read_at(&mut head[done..bytes], done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((crc32c::crc32c(&head[..done]), done))
}
