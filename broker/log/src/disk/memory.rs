//! A disk in memory that can lose power and fail, for tests and simulations.
//!
//! It keeps what is durable apart from what is merely written. [`MemDisk::crash`] is a power loss: of what was not synced any part
//! may be lost, see [`crash`]. [`MemDisk::restart`] is a killed process: everything that was written is still there, synced or
//! not. It is meant to be crueller than a real disk within what POSIX allows; after a failed sync it does what Linux does: the
//! pages count as clean, so that a later sync succeeds without writing them.

mod crash;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
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
    File(FileNode),
}

#[derive(Debug, Clone, Default)]
struct FileNode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<FileChange>,
    /// Where a sync failed: these bytes of `now` count as clean and are not on the disk. A new write makes them dirty again.
    stale: Vec<Range<usize>>,
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

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.inner.lock().off
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
        let Node::File(FileNode { now, durable, .. }) = &mut inner.nodes[id] else { return Err(not_found()) };
        let at = usize::try_from(position).map_err(io::Error::other)?;
        for data in [now, durable] {
            if let Some(byte) = data.get_mut(at) {
                *byte ^= mask;
            }
        }
        Ok(())
    }

    /// The power fails now. The old disk answers nothing any more; the new one holds what `seed` lets survive,
    /// and knows of no more faults.
    pub fn crash(&self, seed: u64) -> Self {
        let mut inner = self.inner.lock();
        inner.off = true;
        let nodes = crash::survivors(&inner.nodes, seed);
        inner.next(nodes, BTreeMap::new())
    }

    /// The process is killed now. The old disk answers nothing any more; the new one holds everything that was written,
    /// and faults that are still to come do come.
    pub fn restart(&self) -> Self {
        let mut inner = self.inner.lock();
        inner.off = true;
        let (nodes, faults) = (inner.nodes.clone(), inner.faults.clone());
        inner.next(nodes, faults)
    }
}

impl FileNode {
    fn rewritten(&mut self, range: Range<usize>) {
        self.stale = std::mem::take(&mut self.stale)
            .into_iter()
            .flat_map(|s| [s.start..s.end.min(range.start), s.start.max(range.end)..s.end])
            .filter(|s| s.start < s.end)
            .collect();
    }

    /// Everything but what an earlier failed sync left is on the disk now.
    fn synced(&mut self) {
        let old = std::mem::replace(&mut self.durable, self.now.clone());
        for range in &self.stale {
            for at in range.start..range.end.min(self.durable.len()) {
                self.durable[at] = old.get(at).copied().unwrap_or(0);
            }
        }
        self.pending.clear();
    }

    fn sync_failed(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            if let FileChange::Write(at, bytes) = change {
                self.stale.push(at..at + bytes.len());
            }
        }
        self.durable.resize(self.now.len(), 0);
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

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn power_off() -> io::Error {
    io::Error::other("the power is off")
}

impl Inner {
    /// The disk of the next process; operations count on.
    fn next(&self, nodes: Vec<Node>, faults: BTreeMap<u64, Fault>) -> MemDisk {
        let operations = self.operations;
        MemDisk { inner: Arc::new(Mutex::new(Self { nodes, operations, faults, ..Self::default() })) }
    }

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
        let Node::File(node) = &mut self.nodes[file] else { return Err(not_found()) };
        if let FileChange::Write(at, bytes) = &change {
            node.rewritten(*at..at + bytes.len());
        }
        apply_file(&mut node.now, &change);
        node.pending.push(change);
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
                inner.add(path, Node::File(FileNode::default()))?
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
                Node::File(file) => {
                    DirEntry { name: name.clone(), is_dir: false, len: file.now.len() as u64 }
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
            Node::File(file) => Ok(file.now.len() as u64),
            Node::Dir { .. } => Err(not_found()),
        }
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let inner = self.disk.inner.lock();
        inner.alive()?;
        let Node::File(FileNode { now, .. }) = &inner.nodes[self.id] else { return Err(not_found()) };
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
        inner.alive()?;
        let sync_broken = inner.sync_broken;
        let fault = inner.operation();
        let off = inner.off;
        let Node::File(file) = &mut inner.nodes[self.id] else { return Err(not_found()) };
        match fault {
            Err(e) => {
                if !off {
                    file.sync_failed();
                }
                Err(e)
            }
            Ok(_) if sync_broken => {
                file.sync_failed();
                Err(io::Error::other("sync fails"))
            }
            Ok(_) => {
                file.synced();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
