//! The blocking half: temporary files, and the way from one to a complete file.
//!
//! Order: bytes, fsync of the file, rename that replaces nothing, fsync of the directory. Only then is a file done.
//!
//! **Invariant:** a file under its own name is complete and durable; what a failed write left behind is cut off before
//! the next.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use aqueduct_core::rolling::{FileId, is_name_of};
use aqueduct_core::sink::TopicPartition;
use aqueduct_core::{Error, Result, failpoint};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::config::EXTENSION;

/// The end of a temporary file's name.
const TEMPORARY: &str = ".inprogress";

/// How many files of one first offset may exist; each is a crash or a rebalance at the same place.
const MAX_ATTEMPTS: u32 = 1000;

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Temp {
    file: File,
    path: PathBuf,
    written: u64,
}

impl Temp {
    /// Removes it; it was given up.
    pub(crate) fn discard(self) {
        remove(&self.path);
    }
}

/// What is to be done with one file.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: FileId,
    /// Directory of the file.
    pub(crate) dir: PathBuf,
    /// Its name, without and with the number of an attempt.
    pub(crate) name: Name,
    pub(crate) temp: Option<Temp>,
    /// To be appended.
    pub(crate) bytes: Vec<u8>,
    /// Whether the file is complete with these bytes.
    pub(crate) complete: bool,
}

/// The names that a file may get.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    /// `<topic>+<partition>+<first offset>`.
    pub(crate) stem: String,
    /// Tells the temporary files of different tasks apart.
    pub(crate) token: u64,
}

impl Name {
    fn attempt(&self, number: u32) -> String {
        match number {
            0 => format!("{}.{EXTENSION}", self.stem),
            n => format!("{}.{n}.{EXTENSION}", self.stem),
        }
    }

    fn temporary(&self) -> String {
        format!(".{}.{EXTENSION}.{:016x}{TEMPORARY}", self.stem, self.token)
    }
}

/// Does the jobs one after another; each comes back with what became of it.
pub(crate) fn run(root: &Path, jobs: Vec<Job>) -> Vec<(Job, Result<()>)> {
    let mut done = Vec::with_capacity(jobs.len());
    for mut job in jobs {
        let result = job.run(root);
        done.push((job, result));
    }
    done
}

impl Job {
    fn run(&mut self, root: &Path) -> Result<()> {
        if !self.bytes.is_empty() {
            self.append(root)?;
        }
        let Some(temp) = &mut self.temp else { return Ok(()) };
        if !self.complete {
            return Ok(());
        }
        // A failed fsync is never tried again: the kernel may have dropped the bytes. The task starts over.
        temp.file.sync_all().map_err(|error| {
            Error::fatal(format!("cannot flush `{}` to disk", temp.path.display())).with_source(error)
        })?;
        failpoint::hit("file.before_complete");
        publish(temp, &self.dir, &self.name)?;
        sync_dir(&self.dir)?;
        failpoint::hit("file.after_complete");
        self.temp = None;
        Ok(())
    }

    fn append(&mut self, root: &Path) -> Result<()> {
        if self.temp.is_none() {
            create_dirs(root, &self.dir)?;
            let path = self.dir.join(self.name.temporary());
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
            let file = file.map_err(|error| failure("create", &path, error))?;
            self.temp = Some(Temp { file, path, written: 0 });
        }
        let temp = self.temp.as_mut().expect("it was just made");
        let written = temp
            .file
            .seek(SeekFrom::Start(temp.written))
            .and_then(|_| temp.file.write_all(&self.bytes))
            .map_err(|error| failure("write", &temp.path, error));
        if let Err(error) = written {
            // Best effort: a retry writes from the same place again.
            temp.file.set_len(temp.written).ok();
            return Err(error);
        }
        temp.written += self.bytes.len() as u64;
        self.bytes = Vec::new();
        Ok(())
    }
}

/// Gives a temporary file its own name, or finds that a file with the same content has it already.
fn publish(temp: &mut Temp, dir: &Path, name: &Name) -> Result<()> {
    for attempt in 0..MAX_ATTEMPTS {
        let target = dir.join(name.attempt(attempt));
        match rename_new(&temp.path, &target) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failure("complete", &target, error)),
        }
        // Records that were delivered before: the same again is the same file, other content a file of its own.
        if same_content(temp, &target).map_err(|error| failure("read", &target, error))? {
            remove(&temp.path);
            return Ok(());
        }
    }
    let stem = &name.stem;
    Err(Error::fatal(format!(
        "`{}` holds {MAX_ATTEMPTS} files named `{stem}`; move them away",
        dir.display()
    )))
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // File systems without the flag: a link never replaces anything either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}

fn same_content(temp: &mut Temp, other: &Path) -> io::Result<bool> {
    let mut other = File::open(other)?;
    if other.metadata()?.len() != temp.written {
        return Ok(false);
    }
    temp.file.seek(SeekFrom::Start(0))?;
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut left = temp.written;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(a.len());
        temp.file.read_exact(&mut a[..length])?;
        other.read_exact(&mut b[..length])?;
        if a[..length] != b[..length] {
            return Ok(false);
        }
        left -= length as u64;
    }
    Ok(true)
}

/// Makes `dir`, which is `root` or lies below it, durable with every directory on the way.
pub(crate) fn create_dirs(root: &Path, dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if dir != root || !parent.is_dir() {
        create_dirs(root, parent)?;
    }
    match std::fs::create_dir(dir) {
        Ok(()) => sync_dir(parent),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(failure("create", dir, error)),
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| {
        Error::fatal(format!("cannot flush directory `{}` to disk", dir.display())).with_source(error)
    })
}

/// Removes temporary files that an earlier run left behind for these partitions.
pub(crate) fn clean(dir: &Path, depth: usize, partitions: &[TopicPartition]) -> Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failure("list", dir, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| failure("list", dir, error))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth > 0 {
                clean(&entry.path(), depth - 1, partitions)?;
            }
        } else if entry.file_name().to_str().is_some_and(|name| is_leftover(name, partitions)) {
            tracing::info!(file = %entry.path().display(), "removing a file that was never completed");
            remove(&entry.path());
        }
    }
    Ok(())
}

fn is_leftover(name: &str, partitions: &[TopicPartition]) -> bool {
    let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(TEMPORARY));
    let Some((name, _token)) = name.and_then(|name| name.rsplit_once('.')) else { return false };
    partitions.iter().any(|origin| is_name_of(name, origin, EXTENSION))
}

/// A temporary file that stays is clutter, not harm.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(file = %path.display(), %error, "cannot remove a temporary file");
    }
}

fn failure(what: &str, path: &Path, error: io::Error) -> Error {
    let message = format!("cannot {what} `{}`", path.display());
    match error.kind() {
        // Passes once somebody makes room; until then the log keeps the records.
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::Interrupted => {
            Error::retriable(message).with_source(error)
        }
        _ => Error::fatal(message).with_source(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn job(dir: &Path, token: u64, bytes: &str, complete: bool) -> Job {
        let name = Name { stem: "t+0+00000000000000000005".to_owned(), token };
        Job { id: 0, dir: dir.join("a/b"), name, temp: None, bytes: bytes.as_bytes().to_vec(), complete }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir.join("a/b"))
            .expect("listed")
            .map(|entry| entry.expect("listed").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_under_its_name_only_when_it_is_complete() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut done = run(dir.path(), vec![job(dir.path(), 1, "one\n", false)]);
        assert_eq!(names(dir.path()), [".t+0+00000000000000000005.jsonl.0000000000000001.inprogress"]);
        let (mut job, _) = done.remove(0);
        job.bytes = b"two\n".to_vec();
        job.complete = true;
        run(dir.path(), vec![job]).remove(0).1.expect("complete");
        assert_eq!(names(dir.path()), ["t+0+00000000000000000005.jsonl"]);
        let content = std::fs::read(dir.path().join("a/b/t+0+00000000000000000005.jsonl")).expect("there");
        assert_eq!(content, b"one\ntwo\n");
    }

    #[test]
    fn the_same_content_again_is_the_same_file_and_other_content_another() {
        let dir = tempfile::tempdir().expect("a directory");
        for bytes in ["one\n", "one\n", "two\n", "one\n", "two\n"] {
            run(dir.path(), vec![job(dir.path(), 1, bytes, true)]).remove(0).1.expect("complete");
        }
        assert_eq!(names(dir.path()), ["t+0+00000000000000000005.1.jsonl", "t+0+00000000000000000005.jsonl"]);
    }

    #[test]
    fn leftovers_of_own_partitions_alone_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        run(dir.path(), vec![job(dir.path(), 9, "half", false)]);
        let origin = |partition| TopicPartition { topic: Arc::from("t"), partition };
        clean(dir.path(), 2, &[origin(1)]).expect("cleaned");
        assert_eq!(names(dir.path()).len(), 1);
        clean(dir.path(), 2, &[origin(1), origin(0)]).expect("cleaned");
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn a_full_disk_is_retried_and_a_missing_permission_ends_the_task() {
        let full = failure("write", Path::new("x"), ErrorKind::StorageFull.into());
        assert!(full.is_retriable());
        assert!(!failure("write", Path::new("x"), ErrorKind::PermissionDenied.into()).is_retriable());
    }
}
