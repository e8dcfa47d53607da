//! The partitions of a data directory: opening many at once, creating, deleting, and housekeeping.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::LogDir;
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

/// What became of a partition at start. One that is offline does not stop the others.
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
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(specs.len()));
        let threads = self.options.open_threads.clamp(1, specs.len().max(1));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(spec) = specs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let opened = PartitionLog::open(
                            Arc::clone(&self.context),
                            spec.id.clone(),
                            spec.config.clone(),
                            now_ms,
                        );
                        done.lock().push(OpenedPartition { id: spec.id.clone(), log: opened });
                    }
                });
            }
        });
        // What recovery cut must not be looked for again.
        self.context.checkpoints().store()?;
        let opened = done.into_inner();
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

    /// Opens one partition, creating it when it is new. One that is open already is given back.
    pub fn create(&self, spec: PartitionSpec, now_ms: i64) -> Result<Arc<PartitionLog>> {
        self.context.health().check()?;
        let _one = self.creating.lock();
        let key = (spec.id.topic.clone(), spec.id.partition);
        if let Some(log) =
            self.partitions.lock().get(&key).filter(|log| log.id().topic_id == spec.id.topic_id)
        {
            return Ok(Arc::clone(log));
        }
        let log = PartitionLog::open(Arc::clone(&self.context), spec.id, spec.config, now_ms)?;
        self.partitions.lock().insert(key, Arc::clone(&log));
        Ok(log)
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

    /// Everything that is due: retention, compaction, rolling by age, expiry, files of deleted partitions. May take long
    /// when there is much to compact; called every second or so from a thread that may block. Errors of one
    /// partition are logged and do not stop the others.
    pub fn housekeep(&self, now_ms: i64) {
        self.remove_doomed();
        if self.context.health().check().is_err() {
            return;
        }
        let partitions: Vec<_> = self.partitions.lock().values().cloned().collect();
        for log in &partitions {
            match log.housekeep(now_ms) {
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
            match specs.iter().find(|s| s.id.dir_name() == entry.name) {
                Some(spec) if spec.id.topic_id == topic_id => {}
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
