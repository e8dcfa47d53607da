//! A disk in memory that can lose power and fail, for tests and simulations.
//!
//! It keeps what is durable apart from what is merely written: after [`MemDisk::crash`] each directory has its synced entries
//! plus a prefix of the later changes, and each file its synced bytes plus a prefix of the later writes, the last of
//! them torn and perhaps with sectors of zeros. It is meant to be crueller than a real disk within what POSIX allows.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Component, Path};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

/// What happens at a chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// That operation fails, later ones work.
    Fail(io::ErrorKind),
    /// A write takes half of its bytes and says so; any other operation works.
    ShortWrite,
    /// A write takes half of its bytes and then fails.
    PartWriteThenFail(io::ErrorKind),
    /// The power goes: that operation and all later ones fail.
    PowerOff,
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    nodes: Vec<Node>,
    /// Operations that change something, so far.
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    /// Every sync fails from now on.
    sync_broken: bool,
    off: bool,
    locked: bool,
}

/// Index into `nodes`; 0 is the root directory.
type NodeId = usize;
const ROOT: NodeId = 0;

#[derive(Debug, Clone)]
enum Node {
    Dir { now: BTreeMap<String, NodeId>, durable: BTreeMap<String, NodeId>, pending: Vec<DirChange> },
    File { now: Vec<u8>, durable: Vec<u8>, pending: Vec<FileChange> },
}

#[derive(Debug, Clone)]
enum DirChange {
    Add(String, NodeId),
    Remove(String),
    Rename(String, String),
}

#[derive(Debug, Clone)]
enum FileChange {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            nodes: vec![empty_dir()],
            operations: 0,
            faults: BTreeMap::new(),
            sync_broken: false,
            off: false,
            locked: false,
        }
    }
}

fn empty_dir() -> Node {
    Node::Dir { now: BTreeMap::new(), durable: BTreeMap::new(), pending: Vec::new() }
}

impl MemDisk {
    /// An empty disk with the directory `dir`, which is durable.
    pub fn with_dir(dir: &str) -> Self {
        let disk = Self::default();
        {
            let mut inner = disk.inner.lock();
            inner.nodes.push(empty_dir());
            let Node::Dir { now, durable, .. } = &mut inner.nodes[ROOT] else { return disk.clone() };
            now.insert(dir.trim_matches('/').to_owned(), 1);
            durable.insert(dir.trim_matches('/').to_owned(), 1);
        }
        disk
    }

    /// Operations that changed something, so far.
    pub fn operations(&self) -> u64 {
        self.inner.lock().operations
    }

    /// Lets `fault` happen at the `n`-th changing operation, counted from the first one of all.
    pub fn fault_at(&self, n: u64, fault: Fault) {
        self.inner.lock().faults.insert(n, fault);
    }

    /// Lets `fault` happen at the next changing operation.
    pub fn fault_next(&self, fault: Fault) {
        let mut inner = self.inner.lock();
        let next = inner.operations;
        inner.faults.insert(next, fault);
    }

    /// From now on every sync of a file or directory fails.
    pub fn break_sync(&self) {
        self.inner.lock().sync_broken = true;
    }

    /// Flips the bits of `mask` in one byte of a file, durably.
    pub fn flip(&self, path: &Path, position: u64, mask: u8) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let id = inner.find(path)?;
        let Node::File { now, durable, .. } = &mut inner.nodes[id] else { return Err(not_found()) };
        let at = usize::try_from(position).map_err(io::Error::other)?;
        for data in [now, durable] {
            if let Some(byte) = data.get_mut(at) {
                *byte ^= mask;
            }
        }
        Ok(())
    }

    /// The power fails now. The old disk answers nothing any more; the new one holds what `seed` lets survive.
    pub fn crash(&self, seed: u64) -> Self {
        let mut inner = self.inner.lock();
        inner.off = true;
        let mut dice = Dice(seed);
        let nodes = inner.nodes.iter().map(|n| survive(n, &mut dice)).collect();
        Self { inner: Arc::new(Mutex::new(Inner { nodes, ..Inner::default() })) }
    }
}

/// What is left of a node, as the dice fall.
fn survive(node: &Node, dice: &mut Dice) -> Node {
    match node {
        Node::Dir { durable, pending, .. } => {
            let mut now = durable.clone();
            let keep = dice.below(pending.len() + 1);
            pending[..keep].iter().for_each(|change| apply_dir(&mut now, change));
            Node::Dir { durable: now.clone(), now, pending: Vec::new() }
        }
        Node::File { durable, pending, .. } => {
            let mut now = durable.clone();
            let keep = dice.below(pending.len() + 1);
            pending[..keep].iter().for_each(|change| apply_file(&mut now, change));
            if let Some(FileChange::Write(at, bytes)) = pending.get(keep) {
                let torn = dice.below(bytes.len() + 1);
                apply_file(&mut now, &FileChange::Write(*at, bytes[..torn].to_vec()));
            }
            // Length on disk, data not: a hole of zeros somewhere in what was never synced.
            if now.len() > durable.len() && dice.below(4) == 0 {
                let from = durable.len() + dice.below(now.len() - durable.len());
                let to = (from + 512).min(now.len());
                now[from..to].fill(0);
            }
            Node::File { durable: now.clone(), now, pending: Vec::new() }
        }
    }
}

fn apply_dir(entries: &mut BTreeMap<String, NodeId>, change: &DirChange) {
    match change {
        DirChange::Add(name, id) => {
            entries.insert(name.clone(), *id);
        }
        DirChange::Remove(name) => {
            entries.remove(name);
        }
        DirChange::Rename(from, to) => {
            if let Some(id) = entries.remove(from) {
                entries.insert(to.clone(), id);
            }
        }
    }
}

fn apply_file(data: &mut Vec<u8>, change: &FileChange) {
    match change {
        FileChange::Write(at, bytes) => {
            let end = at + bytes.len();
            if data.len() < end {
                data.resize(end, 0);
            }
            data[*at..end].copy_from_slice(bytes);
        }
        FileChange::Truncate(len) => data.resize(*len, 0),
    }
}

/// SplitMix64: a seed gives the same run again.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn power_off() -> io::Error {
    io::Error::other("the power is off")
}

impl Inner {
    /// Counts a changing operation and lets its fault happen; `Some` is a fault that concerns writes.
    fn operation(&mut self) -> io::Result<Option<Fault>> {
        self.alive()?;
        let fault = self.faults.remove(&self.operations);
        self.operations += 1;
        match fault {
            Some(Fault::Fail(kind)) => Err(kind.into()),
            Some(Fault::PowerOff) => {
                self.off = true;
                Err(power_off())
            }
            other => Ok(other),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.off { Err(power_off()) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut at = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let Node::Dir { now, .. } = &self.nodes[at] else { return Err(not_found()) };
            at = *now.get(name.to_str().ok_or_else(not_found)?).ok_or_else(not_found)?;
        }
        Ok(at)
    }

    fn parent(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(not_found)?;
        Ok((self.find(path.parent().ok_or_else(not_found)?)?, name.to_owned()))
    }

    fn change_dir(&mut self, dir: NodeId, change: DirChange) -> io::Result<()> {
        let Node::Dir { now, pending, .. } = &mut self.nodes[dir] else { return Err(not_found()) };
        apply_dir(now, &change);
        pending.push(change);
        Ok(())
    }

    fn change_file(&mut self, file: NodeId, change: FileChange) -> io::Result<()> {
        let Node::File { now, pending, .. } = &mut self.nodes[file] else { return Err(not_found()) };
        apply_file(now, &change);
        pending.push(change);
        Ok(())
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<NodeId> {
        let (dir, name) = self.parent(path)?;
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.change_dir(dir, DirChange::Add(name, id))?;
        Ok(id)
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner.lock();
        inner.alive()?;
        let id = match (inner.find(path), mode) {
            (Ok(id), OpenMode::Create) => {
                inner.operation()?;
                inner.change_file(id, FileChange::Truncate(0))?;
                id
            }
            (Ok(id), _) => id,
            (Err(_), OpenMode::Create) => {
                inner.operation()?;
                inner.add(path, Node::File { now: Vec::new(), durable: Vec::new(), pending: Vec::new() })?
            }
            (Err(e), _) => return Err(e),
        };
        if matches!(inner.nodes[id], Node::Dir { .. }) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        drop(inner);
        Ok(Arc::new(MemFile { disk: self.clone(), id }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let inner = self.inner.lock();
        inner.alive()?;
        let Node::Dir { now, .. } = &inner.nodes[inner.find(dir)?] else { return Err(not_found()) };
        Ok(now
            .iter()
            .map(|(name, id)| match &inner.nodes[*id] {
                Node::Dir { .. } => DirEntry { name: name.clone(), is_dir: true, len: 0 },
                Node::File { now, .. } => {
                    DirEntry { name: name.clone(), is_dir: false, len: now.len() as u64 }
                }
            })
            .collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let inner = self.inner.lock();
        inner.alive()?;
        Ok(inner.find(path).is_ok())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.alive()?;
        if inner.find(dir).is_ok() {
            return Ok(());
        }
        inner.operation()?;
        inner.add(dir, empty_dir()).map(|_| ())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.operation()?;
        inner.find(from)?;
        let (dir, from) = inner.parent(from)?;
        let (to_dir, to) = inner.parent(to)?;
        if dir != to_dir {
            return Err(io::Error::new(
                io::ErrorKind::CrossesDevices,
                "the log renames within a directory only",
            ));
        }
        inner.change_dir(dir, DirChange::Rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.operation()?;
        inner.find(path)?;
        let (dir, name) = inner.parent(path)?;
        inner.change_dir(dir, DirChange::Remove(name))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.operation()?;
        let id = inner.find(dir)?;
        if matches!(&inner.nodes[id], Node::Dir { now, .. } if !now.is_empty()) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (parent, name) = inner.parent(dir)?;
        inner.change_dir(parent, DirChange::Remove(name))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.operation()?;
        if inner.sync_broken {
            return Err(io::Error::other("sync fails"));
        }
        let id = inner.find(dir)?;
        let Node::Dir { now, durable, pending } = &mut inner.nodes[id] else { return Err(not_found()) };
        durable.clone_from(now);
        pending.clear();
        Ok(())
    }

    fn lock(&self, _path: &Path, owner: &str) -> io::Result<Result<Box<dyn DiskLock>, String>> {
        let mut inner = self.inner.lock();
        inner.alive()?;
        if std::mem::replace(&mut inner.locked, true) {
            return Ok(Err(owner.to_owned()));
        }
        Ok(Ok(Box::new(MemLock(self.clone()))))
    }
}

#[derive(Debug)]
struct MemLock(MemDisk);

impl DiskLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.0.inner.lock().locked = false;
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    id: NodeId,
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        let inner = self.disk.inner.lock();
        inner.alive()?;
        match &inner.nodes[self.id] {
            Node::File { now, .. } => Ok(now.len() as u64),
            Node::Dir { .. } => Err(not_found()),
        }
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let inner = self.disk.inner.lock();
        inner.alive()?;
        let Node::File { now, .. } = &inner.nodes[self.id] else { return Err(not_found()) };
        let from = usize::try_from(position).unwrap_or(usize::MAX).min(now.len());
        let n = buf.len().min(now.len() - from);
        buf[..n].copy_from_slice(&now[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        let at = usize::try_from(position).map_err(io::Error::other)?;
        let mut inner = self.disk.inner.lock();
        let was_on = !inner.off;
        let fault = match inner.operation() {
            Err(e) if was_on && inner.off => {
                // The power went during this write: some of it may have reached the file.
                inner.change_file(self.id, FileChange::Write(at, bytes))?;
                return Err(e);
            }
            other => other?,
        };
        if fault.is_some() {
            bytes.truncate(bytes.len().div_ceil(2));
        }
        let len = bytes.len();
        inner.change_file(self.id, FileChange::Write(at, bytes))?;
        match fault {
            Some(Fault::PartWriteThenFail(kind)) => Err(kind.into()),
            _ => Ok(len),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut inner = self.disk.inner.lock();
        inner.operation()?;
        inner.change_file(self.id, FileChange::Truncate(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        inner.operation()?;
        if inner.sync_broken {
            return Err(io::Error::other("sync fails"));
        }
        let Node::File { now, durable, pending } = &mut inner.nodes[self.id] else { return Err(not_found()) };
        durable.clone_from(now);
        pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{read_full_at, write_all_at};

    #[test]
    fn what_was_synced_survives_and_what_was_not_may_go() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..50 {
            let disk = MemDisk::with_dir("/d");
            let file = disk.open(Path::new("/d/a"), OpenMode::Create).unwrap();
            write_all_at(&*file, &[b"synced"], 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            write_all_at(&*file, &[b" not"], 6).unwrap();
            disk.open(Path::new("/d/b"), OpenMode::Create).unwrap();
            let after = disk.crash(seed);
            let mut data = [0; 16];
            let n =
                read_full_at(&*after.open(Path::new("/d/a"), OpenMode::Read).unwrap(), &mut data, 0).unwrap();
            assert!(n >= 6 && &data[..6] == b"synced");
            if after.exists(Path::new("/d/b")).unwrap() {
                kept += 1
            } else {
                lost += 1
            }
            assert!(disk.list(Path::new("/d")).is_err());
        }
        assert!(kept > 0 && lost > 0);
    }

    #[test]
    fn short_writes_are_completed() {
        let disk = MemDisk::with_dir("/d");
        let file = disk.open(Path::new("/d/a"), OpenMode::Create).unwrap();
        disk.fault_next(Fault::ShortWrite);
        write_all_at(&*file, &[b"abc", b"", b"defgh"], 0).unwrap();
        let mut data = [0; 16];
        assert_eq!(read_full_at(&*file, &mut data, 0).unwrap(), 8);
        assert_eq!(&data[..8], b"abcdefgh");
    }
}
