//! Small files that are replaced as a whole: magic, version, payload, CRC.
//!
//! Invariant: a reader sees the old content or the new, never a mixture. A file is written under a temporary name,
//! synced, renamed, and its directory synced; a format newer than this build is refused.

use std::io;
use std::path::Path;

use crate::disk::{Disk, OpenMode, read_full_at, write_all_at};
use crate::error::{LogError, Result};

/// What a file holds: its first eight bytes, and the versions this build writes and reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKind {
    pub magic: [u8; 8],
    pub version: u32,
}

/// Magic 8, version 4, payload length 8.
const HEADER: usize = 20;
const CRC: usize = 4;
/// Larger than anything that is kept in such a file; guards against a length made of garbage.
const MAX_LEN: u64 = 1 << 30;

/// Reads and replaces files of one kind.
#[derive(Debug, Clone, Copy)]
pub struct CheckedFile {
    kind: FileKind,
}

impl CheckedFile {
    pub const fn new(magic: [u8; 8], version: u32) -> Self {
        Self { kind: FileKind { magic, version } }
    }

    /// The file's bytes around `payload`.
    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + payload.len() + CRC);
        out.extend_from_slice(&self.kind.magic);
        out.extend_from_slice(&self.kind.version.to_be_bytes());
        out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        out.extend_from_slice(payload);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// Replaces `path`; durable when it returns.
    pub fn replace(&self, disk: &dyn Disk, path: &Path, payload: &[u8]) -> Result<()> {
        replace_bytes(disk, path, &self.encode(payload))
    }

    /// Replaces `path` and leaves the sync of its directory to the caller: until then the old content, or none, may come back.
    pub(crate) fn rename_over(&self, disk: &dyn Disk, path: &Path, payload: &[u8]) -> Result<()> {
        rename_over(disk, path, &self.encode(payload))
    }

    /// Writes a new file under its final name and syncs it, but not the directory: for files that are
    /// worthless when torn and are checked by the reader.
    pub(crate) fn write_new(&self, disk: &dyn Disk, path: &Path, payload: &[u8]) -> Result<()> {
        write_synced(disk, path, &self.encode(payload))
    }

    /// The version and payload, or `None` when there is no such file.
    pub fn read(&self, disk: &dyn Disk, path: &Path) -> Result<Option<(u32, Vec<u8>)>> {
        let Some(mut bytes) = read_bytes(disk, path)? else { return Ok(None) };
        let version = self.check(path, &bytes)?;
        bytes.truncate(bytes.len() - CRC);
        bytes.drain(..HEADER);
        Ok(Some((version, bytes)))
    }

    fn check(&self, path: &Path, bytes: &[u8]) -> Result<u32> {
        if bytes.len() < HEADER + CRC {
            return Err(LogError::corrupt(path, bytes.len() as u64, "the file is too short"));
        }
        if bytes[..8] != self.kind.magic {
            return Err(LogError::corrupt(path, 0, "the file does not begin with its magic bytes"));
        }
        // Before the CRC: a newer format may be checked in another way.
        let version = be_u32(&bytes[8..12]);
        if version > self.kind.version {
            return Err(LogError::NewerFormat {
                path: path.to_owned(),
                found: version,
                supported: self.kind.version,
            });
        }
        let (body, crc) = bytes.split_at(bytes.len() - CRC);
        if be_u64(&bytes[12..20]) != (body.len() - HEADER) as u64 {
            return Err(LogError::corrupt(path, 12, "the length does not fit the file"));
        }
        if crc32c::crc32c(body) != be_u32(crc) {
            return Err(LogError::corrupt(path, body.len() as u64, "the CRC does not match"));
        }
        Ok(version)
    }
}

/// Replaces a file by `bytes`; durable when it returns.
pub(crate) fn replace_bytes(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    rename_over(disk, path, bytes)?;
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    disk.sync_dir(dir).map_err(|e| LogError::io("sync directory", dir, e))
}

fn rename_over(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(".tmp");
    let tmp = path.with_file_name(name);
    write_synced(disk, &tmp, bytes)?;
    disk.rename(&tmp, path).map_err(|e| LogError::io("rename", &tmp, e))
}

pub(crate) fn write_synced(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = disk.open(path, OpenMode::Create).map_err(|e| LogError::io("create", path, e))?;
    write_all_at(&*file, &[bytes], 0).map_err(|e| LogError::io("write", path, e))?;
    file.sync_data().map_err(|e| LogError::io("sync", path, e))
}

/// The whole file, or `None` when there is none.
pub(crate) fn read_bytes(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(LogError::io("open", path, e)),
    };
    let len = file.len().map_err(|e| LogError::io("read", path, e))?;
    if len > MAX_LEN {
        return Err(LogError::corrupt(path, MAX_LEN, "the file is far too large"));
    }
    let mut bytes = vec![0; usize::try_from(len).expect("checked against the limit")];
    let n = read_full_at(&*file, &mut bytes, 0).map_err(|e| LogError::io("read", path, e))?;
    bytes.truncate(n);
    Ok(Some(bytes))
}

/// A big-endian number from exactly four bytes.
pub(crate) fn be_u32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("the caller gives four bytes"))
}

/// A big-endian number from exactly eight bytes.
pub(crate) fn be_u64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("the caller gives eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::{Fault, MemDisk};

    const KIND: CheckedFile = CheckedFile::new(*b"AQTESTxx", 2);

    #[test]
    fn a_replaced_file_is_old_or_new_after_a_power_loss_at_any_operation() {
        let path = Path::new("/d/f");
        for at in 0..12 {
            for seed in 0..8 {
                let disk = MemDisk::with_dir("/d");
                KIND.replace(&disk, path, b"old").unwrap();
                disk.fault_at(disk.operations() + at, Fault::PowerOff);
                let done = KIND.replace(&disk, path, b"new").is_ok();
                let (_, found) = KIND.read(&disk.crash(seed), path).unwrap().unwrap();
                assert!(found == b"new" || (!done && found == b"old"));
            }
        }
    }

    #[test]
    fn any_flipped_or_missing_byte_is_found() {
        let disk = MemDisk::with_dir("/d");
        let path = Path::new("/d/f");
        let whole = KIND.encode(b"payload");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            replace_bytes(&disk, path, &bytes).unwrap();
            assert!(KIND.read(&disk, path).is_err(), "byte {at}");
            replace_bytes(&disk, path, &whole[..at]).unwrap();
            assert!(KIND.read(&disk, path).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_both_versions() {
        let disk = MemDisk::with_dir("/d");
        let path = Path::new("/d/f");
        CheckedFile::new(*b"AQTESTxx", 9).replace(&disk, path, b"x").unwrap();
        let error = KIND.read(&disk, path).unwrap_err().to_string();
        assert!(error.contains("version 9") && error.contains("up to 2"), "{error}");
    }
}
