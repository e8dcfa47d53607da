//! The files of a partition's directory: what belongs there, what is left over, what a crash left half done.

use std::io;
use std::path::Path;

use crate::checked_file::{be_u32, be_u64};
use crate::disk::Disk;
use crate::error::{LogError, Result};
use crate::log_config::PartitionId;
use crate::partition_log::{METADATA, METADATA_FILE};
use crate::segment::{base_of, segment_path};

/// Makes sure that the directory is there and belongs to this incarnation of the topic. `true` when it was made now: its
/// entries, and its name in the root, are still to be synced.
pub(super) fn prepare(disk: &dyn Disk, root: &Path, dir: &Path, id: &PartitionId) -> Result<bool> {
    let sync_root = || disk.sync_dir(root).map_err(|e| LogError::io("sync directory", root, e));
    if disk.exists(dir).map_err(|e| LogError::io("look for", dir, e))? {
        match read_owner(disk, dir)? {
            Some((topic_id, partition)) if topic_id == id.topic_id && partition == id.partition => {
                return Ok(false);
            }
            Some((topic_id, _)) => {
                let stale = format!("{}.{}-delete", id.dir_name(), topic_id.simple());
                disk.rename(dir, &root.join(stale)).map_err(|e| LogError::io("rename", dir, e))?;
                sync_root()?;
            }
            None => {
                // A crash while the directory was made leaves no data in it; a directory with data tells whose it is.
                if segments(disk, dir)?.iter().any(|(_, len)| *len > 0) {
                    return Err(LogError::corrupt(&dir.join(METADATA_FILE), 0, "the file is missing"));
                }
            }
        }
    }
    disk.create_dir(dir).map_err(|e| LogError::io("create", dir, e))?;
    let mut payload = id.topic_id.as_bytes().to_vec();
    payload.extend_from_slice(&id.partition.to_be_bytes());
    METADATA.rename_over(disk, &dir.join(METADATA_FILE), &payload)?;
    Ok(true)
}

/// Whose directory it is.
pub(crate) fn read_owner(disk: &dyn Disk, dir: &Path) -> Result<Option<(uuid::Uuid, i32)>> {
    let path = dir.join(METADATA_FILE);
    let Some((_, payload)) = METADATA.read(disk, &path)? else { return Ok(None) };
    if payload.len() != 20 {
        return Err(LogError::corrupt(&path, 0, "the payload is not a topic id and a partition"));
    }
    let topic_id = u128::from(be_u64(&payload[..8])) << 64 | u128::from(be_u64(&payload[8..16]));
    Ok(Some((uuid::Uuid::from_u128(topic_id), be_u32(&payload[16..]).cast_signed())))
}

/// Base offsets and sizes of the segments, in order.
pub(super) fn segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<(i64, u64)>> {
    let list = disk.list(dir).map_err(|e| LogError::io("list", dir, e))?;
    Ok(list.iter().filter_map(|e| base_of(&e.name, "log").map(|base| (base, e.len))).collect())
}

/// The name under which a compacted segment waits to take the place of those with a base in `base..end`.
pub(crate) fn swap_name(base: i64, end: i64) -> String {
    format!("{base:020}-{end:020}.swap")
}

/// Finishes the swaps a crash interrupted, and removes what was never finished.
pub(super) fn finish_swaps(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let list = disk.list(dir).map_err(|e| LogError::io("list", dir, e))?;
    for entry in &list {
        let path = dir.join(&entry.name);
        if entry.name.ends_with(".cleaned") || entry.name.ends_with(".tmp") {
            disk.remove_file(&path).map_err(|e| LogError::io("remove", &path, e))?;
        } else if let Some((base, end)) = parse_swap(&entry.name) {
            finish_swap(disk, dir, base, end)?;
        }
    }
    Ok(())
}

/// The segments in `base..end` go, the swap takes their place: durable when it returns.
pub(crate) fn finish_swap(disk: &dyn Disk, dir: &Path, base: i64, end: i64) -> Result<()> {
    let sync = || disk.sync_dir(dir).map_err(|e| LogError::io("sync directory", dir, e));
    for (old, _) in segments(disk, dir)?.into_iter().filter(|(old, _)| (base..end).contains(old)) {
        let path = segment_path(dir, old);
        remove_index(disk, &path)?;
        if old != base {
            remove(disk, &path)?;
        }
    }
    remove_snapshots(disk, dir, |at| base < at && at < end)?;
    // Before the swap loses its name, which alone says what it replaces.
    sync()?;
    let swap = dir.join(swap_name(base, end));
    disk.rename(&swap, &segment_path(dir, base)).map_err(|e| LogError::io("rename", &swap, e))?;
    sync()
}

fn parse_swap(name: &str) -> Option<(i64, i64)> {
    let (base, end) = name.strip_suffix(".swap")?.split_once('-')?;
    Some((base.parse().ok()?, end.parse().ok()?))
}

/// Removes a segment and its indexes.
pub(crate) fn remove_segment(disk: &dyn Disk, path: &Path) -> Result<()> {
    remove(disk, path)?;
    remove_index(disk, path)
}

/// Removes the index files of a segment.
pub(crate) fn remove_index(disk: &dyn Disk, path: &Path) -> Result<()> {
    remove(disk, &path.with_extension("index"))?;
    remove(disk, &path.with_extension("timeindex"))
}

/// Removes the producer snapshots at the offsets that `gone` names.
pub(crate) fn remove_snapshots(disk: &dyn Disk, dir: &Path, gone: impl Fn(i64) -> bool) -> Result<()> {
    for entry in disk.list(dir).map_err(|e| LogError::io("list", dir, e))? {
        if base_of(&entry.name, "snapshot").is_some_and(&gone) {
            remove(disk, &dir.join(&entry.name))?;
        }
    }
    Ok(())
}

/// Keeps the last producer snapshot at or below the log start, which is enough to begin from, and those above.
pub(crate) fn remove_old_snapshots(disk: &dyn Disk, dir: &Path, start: i64) -> Result<()> {
    let list = disk.list(dir).map_err(|e| LogError::io("list", dir, e))?;
    let last = list.iter().filter_map(|e| base_of(&e.name, "snapshot")).filter(|at| *at <= start).max();
    last.map_or(Ok(()), |last| remove_snapshots(disk, dir, |at| at < last))
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", path, e)),
        _ => Ok(()),
    }
}
