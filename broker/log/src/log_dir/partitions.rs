//! The partitions of a data directory: opening many at once, creating, deleting, and housekeeping.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use super::LogDir;
use super::parallel::on_all;
use crate::disk::{DirEntry, Disk};
use crate::error::{LogError, Result};
use crate::log_config::{LogConfig, PartitionId};
use crate::partition_log::PartitionLog;
use crate::recovery;

/// A partition that ought to be in the directory.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionSpec {
    pub id: PartitionId,
    pub config: LogConfig,
}

/// What became of a partition. One that is offline, or cannot be made, does not stop the others.
#[derive(Debug)]
pub struct OpenedPartition {
    pub id: PartitionId,
    pub log: Result<Arc<PartitionLog>>,
}

impl LogDir {
    /// Opens all partitions the metadata names, recovering and creating them as needed. Directories that belong to
    /// nobody any more are set aside or removed.
    pub fn load(&self, specs: Vec<PartitionSpec>, now_ms: i64) -> Result<Vec<OpenedPartition>> {
        self.sort_directories(&specs)?;
        let opened = on_all(self.options.open_threads, &specs, |spec| OpenedPartition {
            id: spec.id.clone(),
            log: self.open_one(spec, now_ms),
        });
        // What recovery cut must not be looked for again. Syncs the names of new partitions, too, and of those that a
        // process that was killed made.
        self.context.checkpoints().store()?;
        let mut partitions = self.partitions.lock();
        for one in &opened {
            match &one.log {
                Ok(log) => {
                    partitions.insert((one.id.topic.clone(), one.id.partition), Arc::clone(log));
                }
                Err(error) => tracing::error!(partition = %one.id, %error, "the partition stays offline"),
            }
        }
        Ok(opened)
    }

    fn open_one(&self, spec: &PartitionSpec, now_ms: i64) -> Result<Arc<PartitionLog>> {
        PartitionLog::open(Arc::clone(&self.context), spec.id.clone(), spec.config.clone(), now_ms)
    }

    /// As [`Self::create_all`], for one.
    pub fn create(&self, spec: PartitionSpec, now_ms: i64) -> Result<Arc<PartitionLog>> {
        self.create_all(&[spec], now_ms).remove(0).log
    }

    /// Opens partitions, creating those that are new. One that is open already is given back. The answers come in the
    /// order of `specs`. Once the disk is full no more are tried.
    pub fn create_all(&self, specs: &[PartitionSpec], now_ms: i64) -> Vec<OpenedPartition> {
        let all = |log: Result<Arc<PartitionLog>>| {
            specs.iter().map(|spec| OpenedPartition { id: spec.id.clone(), log: log.clone() }).collect()
        };
        if let Err(error) = self.context.health().check() {
            return all(Err(error));
        }
        let _one = self.creating.lock();
        let full: OnceLock<LogError> = OnceLock::new();
        let mut opened = on_all(self.options.open_threads, specs, |spec| {
            let known = self.get(&spec.id.topic, spec.id.partition);
            let log = match (known.filter(|log| log.id().topic_id == spec.id.topic_id), full.get()) {
                (Some(log), _) => Ok(log),
                (None, Some(full)) => Err(full.clone()),
                (None, None) => self.open_one(spec, now_ms),
            };
            if let Err(error) = &log
                && error.is_disk_full()
            {
                full.get_or_init(|| error.clone());
            }
            OpenedPartition { id: spec.id.clone(), log }
        });
        // One sync for all their names. A directory that stands is not synced again, so a failure cannot be tried again.
        let (disk, root) = (&self.context.disk, &self.context.root);
        if let Err(error) = disk.sync_dir(root).map_err(|e| LogError::io("sync directory", root, e)) {
            return all(Err(self.context.flusher.fail(&error)));
        }
        let mut partitions = self.partitions.lock();
        for one in &mut opened {
            if let Ok(log) = &one.log {
                partitions.insert((one.id.topic.clone(), one.id.partition), Arc::clone(log));
            }
        }
        opened
    }

    pub fn get(&self, topic: &str, partition: i32) -> Option<Arc<PartitionLog>> {
        self.partitions.lock().get(&(topic.to_owned(), partition)).cloned()
    }

    /// Takes a partition out of the directory; its files go with the next housekeeping.
    pub fn delete(&self, id: &PartitionId) -> Result<()> {
        let _one = self.creating.lock();
        let key = (id.topic.clone(), id.partition);
        let log = self.partitions.lock().remove(&key);
        if let Some(log) = log {
            log.close();
        }
        let (disk, root) = (&*self.context.disk, &self.context.root);
        let dir = root.join(id.dir_name());
        let owner = match disk.exists(&dir) {
            Ok(true) => recovery::read_owner(disk, &dir)?,
            Ok(false) => None,
            Err(e) => return Err(LogError::io("look for", &dir, e)),
        };
        if owner.is_some_and(|(topic_id, _)| topic_id == id.topic_id) {
            self.doom(&dir, id.topic_id)?;
        }
        self.context.checkpoints().remove(id.topic_id, id.partition);
        Ok(())
    }

    /// Everything that is due: retention by time and size, and what [`Self::maintain`] does.
    pub fn housekeep(&self, now_ms: i64) {
        self.look_after(now_ms, true);
    }

    /// Compaction, rolling by age, expiry of producers, files of deleted records and partitions. May take long when there
    /// is much to compact; called every second or so from a thread that may block. Errors of one partition are
    /// logged and do not stop the others.
    pub fn maintain(&self, now_ms: i64) {
        self.look_after(now_ms, false);
    }

    fn look_after(&self, now_ms: i64, retention: bool) {
        self.remove_doomed();
        if self.context.health().check().is_err() {
            return;
        }
        let partitions: Vec<_> = self.partitions.lock().values().cloned().collect();
        for log in &partitions {
            match log.housekeep(now_ms, retention) {
                Ok(Some(segments)) => self.expired.lock().push((Arc::clone(log), segments)),
                Ok(None) => {}
                Err(error) => tracing::warn!(partition = %log.id(), %error, "housekeeping failed"),
            }
        }
        self.remove_expired();
        for log in &partitions {
            if self.context.stopping.load(Ordering::Acquire) {
                return;
            }
            if let Err(error) = log.compact(now_ms, self.options.compaction_map_bytes) {
                tracing::warn!(partition = %log.id(), %error, "compaction failed");
            }
        }
    }

    /// Files go only after the checkpoint says that they are no longer needed.
    fn remove_expired(&self) {
        let mut expired = self.expired.lock();
        if expired.is_empty() {
            return;
        }
        if let Err(error) = self.context.checkpoints().store() {
            tracing::warn!(%error, "could not store the log starts, keeping expired segments for now");
            return;
        }
        for (log, segments) in expired.drain(..) {
            if let Err(error) = log.remove(segments) {
                tracing::warn!(partition = %log.id(), %error, "could not remove expired segments");
            }
        }
    }

    /// Sets directories aside that no partition of the metadata owns.
    fn sort_directories(&self, specs: &[PartitionSpec]) -> Result<()> {
        let (disk, root) = (&*self.context.disk, &self.context.root);
        let list = disk.list(root).map_err(|e| LogError::io("list", root, e))?;
        let owners: HashMap<String, _> = specs.iter().map(|s| (s.id.dir_name(), s.id.topic_id)).collect();
        for entry in list.iter().filter(|e| e.is_dir) {
            let dir = root.join(&entry.name);
            if entry.name.ends_with("-delete") {
                self.doomed.lock().push(dir);
                continue;
            }
            if !is_partition(entry) {
                continue;
            }
            let Ok(Some((topic_id, _))) = recovery::read_owner(disk, &dir) else { continue };
            match owners.get(&entry.name) {
                Some(owner) if *owner == topic_id => {}
                // The topic was deleted and made again.
                Some(_) => self.doom(&dir, topic_id)?,
                None => {
                    let aside = root.join(format!("{}.{}-stray", entry.name, topic_id.simple()));
                    disk.rename(&dir, &aside).map_err(|e| LogError::io("rename", &dir, e))?;
                    disk.sync_dir(root).map_err(|e| LogError::io("sync directory", root, e))?;
                    tracing::warn!(dir = %aside.display(), "the metadata knows no such partition; remove the directory if you do not need it");
                }
            }
        }
        Ok(())
    }

    /// Renames a directory so that nothing opens it again.
    fn doom(&self, dir: &Path, topic_id: uuid::Uuid) -> Result<()> {
        let (disk, root) = (&*self.context.disk, &self.context.root);
        let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or("partition");
        let doomed = root.join(format!("{name}.{}-delete", topic_id.simple()));
        disk.rename(dir, &doomed).map_err(|e| LogError::io("rename", dir, e))?;
        disk.sync_dir(root).map_err(|e| LogError::io("sync directory", root, e))?;
        self.doomed.lock().push(doomed);
        Ok(())
    }

    fn remove_doomed(&self) {
        let doomed = std::mem::take(&mut *self.doomed.lock());
        for dir in doomed {
            if let Err(error) = remove_tree(&*self.context.disk, &dir) {
                tracing::warn!(%error, "could not remove the directory of a deleted partition");
            }
        }
    }
}

/// `<topic>-<number>`
pub(super) fn is_partition(entry: &DirEntry) -> bool {
    let number = entry.name.rsplit_once('-').map(|(_, number)| number);
    entry.is_dir && number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn remove_tree(disk: &dyn Disk, dir: &Path) -> Result<()> {
    for entry in disk.list(dir).map_err(|e| LogError::io("list", dir, e))? {
        let path = dir.join(&entry.name);
        disk.remove_file(&path).map_err(|e| LogError::io("remove", &path, e))?;
    }
    disk.remove_dir(dir).map_err(|e| LogError::io("remove", dir, e))
}
