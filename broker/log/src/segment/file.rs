//! The files of finished segments, open only while they are used.
//!
//! Invariant: no more than a fixed number of them are open at a time, however many segments there are. A file whose name now
//! means other content is never opened again.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{LogError, Result};

/// The segment files of a log directory that are open; the oldest is closed first.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    disk: Arc<dyn Disk>,
    limit: usize,
    open: Mutex<VecDeque<Weak<SegmentFile>>>,
}

impl OpenFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, limit: usize) -> Self {
        Self { disk, limit, open: Mutex::default() }
    }

    fn note(&self, file: &Arc<SegmentFile>) {
        let oldest = {
            let mut open = self.open.lock();
            open.push_back(Arc::downgrade(file));
            if open.len() > self.limit { open.pop_front() } else { None }
        };
        if let Some(oldest) = oldest.and_then(|oldest| oldest.upgrade()) {
            oldest.state.lock().file = None;
        }
    }
}

/// The file of one finished segment.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    path: PathBuf,
    /// `None`: it stays open.
    files: Option<Arc<OpenFiles>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<dyn DiskFile>>,
    /// The segment was replaced or removed.
    retired: bool,
}

impl SegmentFile {
    pub(crate) fn closed(files: &Arc<OpenFiles>, path: &Path) -> Arc<Self> {
        let files = Some(Arc::clone(files));
        Arc::new(Self { path: path.to_owned(), files, state: Mutex::default() })
    }

    pub(crate) fn open(files: &Arc<OpenFiles>, path: &Path, file: Arc<dyn DiskFile>) -> Arc<Self> {
        let opened = Self::closed(files, path);
        opened.state.lock().file = Some(file);
        files.note(&opened);
        opened
    }

    /// A file that is open anyhow.
    pub(crate) fn pinned(path: &Path, file: Arc<dyn DiskFile>) -> Arc<Self> {
        let state = Mutex::new(State { file: Some(file), retired: false });
        Arc::new(Self { path: path.to_owned(), files: None, state })
    }

    /// The open file. It stays what it is for as long as the caller holds it.
    pub(crate) fn get(self: &Arc<Self>) -> Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        if let Some(file) = &state.file {
            return Ok(Arc::clone(file));
        }
        let error = |e| LogError::io("open", &self.path, e);
        let files = self.files.as_ref().filter(|_| !state.retired);
        let files = files.ok_or_else(|| error(io::ErrorKind::NotFound.into()))?;
        let file = files.disk.open(&self.path, OpenMode::Write).map_err(error)?;
        state.file = Some(Arc::clone(&file));
        drop(state);
        files.note(self);
        Ok(file)
    }

    /// From now on the name means something else, or nothing.
    pub(crate) fn retire(&self) {
        self.state.lock().retired = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::MemDisk;
    use crate::disk::{read_full_at, write_all_at};

    #[test]
    fn few_files_are_open_and_a_replaced_one_is_not_opened_again() {
        let disk = Arc::new(MemDisk::with_dir("/d"));
        let files = Arc::new(OpenFiles::new(Arc::clone(&disk) as Arc<dyn Disk>, 3));
        let all: Vec<_> = (0..10u8)
            .map(|i| {
                let path = PathBuf::from(format!("/d/{i}"));
                let file = disk.open(&path, OpenMode::Create).unwrap();
                write_all_at(&*file, &[&[i]], 0).unwrap();
                SegmentFile::closed(&files, &path)
            })
            .collect();
        for round in 0..3 {
            for (i, file) in all.iter().enumerate() {
                let mut byte = [0];
                read_full_at(&*file.get().unwrap(), &mut byte, 0).unwrap();
                assert_eq!(usize::from(byte[0]), i, "round {round}");
                assert!(all.iter().filter(|f| f.state.lock().file.is_some()).count() <= 3);
            }
        }
        let held = all[9].get().unwrap();
        all.iter().for_each(|f| f.retire());
        assert!(all[0].get().is_err() && all[9].get().is_ok());
        assert_eq!(held.len().unwrap(), 1);
    }
}
