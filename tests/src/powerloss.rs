//! The judge of durability: what is left of a data directory when the power goes.
//!
//! The process runs under an `LD_PRELOAD` shim (`powerloss/shim.c`, built with the system's C compiler) that records,
//! at each fsync, how much of a file and which entries of a directory are durable. [`PowerLoss::cut`] is called after
//! SIGKILL: each file is cut (or its tail zeroed, as file systems with delayed allocation leave it) at a random point
//! between its durable and its real size, entries that were never synced are removed, and names that were removed or
//! replaced without a sync of their directory come back, each by the toss of a seeded coin.
//!
//! Overwriting within the durable part of a file is not modelled; Aqueduct's files only grow, are cut, or are replaced.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use fastrand::Rng;
use tempfile::TempDir;

/// Watches one data directory over any number of power losses.
pub struct PowerLoss {
    work: TempDir,
    shim: PathBuf,
    data: PathBuf,
    /// The state that is durable at the start of the process.
    base: Base,
}

#[derive(Default)]
struct Base {
    sizes: HashMap<u64, u64>,
    entries: BTreeMap<PathBuf, BTreeMap<String, u64>>,
}

/// What one power loss took, for messages.
#[derive(Debug, Default)]
pub struct Lost {
    /// Files cut, and bytes lost in all.
    pub cut_files: usize,
    /// Bytes lost.
    pub bytes: u64,
    /// Names that vanished.
    pub vanished: Vec<PathBuf>,
    /// Names that came back.
    pub returned: Vec<PathBuf>,
}

impl PowerLoss {
    /// Builds the shim for the data directory `data`, which need not exist yet.
    pub fn new(data: &Path) -> Result<Self> {
        // Hard links must be possible between the two.
        let parent = data.parent().context("the data directory has a parent")?;
        let work = tempfile::Builder::new().prefix("powerloss-").tempdir_in(parent)?;
        let shim = work.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/powerloss/shim.c");
        crate::postgres::run(
            Command::new("gcc")
                .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
                .arg(&shim)
                .arg(source)
                .arg("-ldl"),
        )?;
        fs::create_dir(work.path().join("limbo"))?;
        let mut judge = Self { work, shim, data: data.to_owned(), base: Base::default() };
        judge.arm()?;
        Ok(judge)
    }

    /// The variables under which the process must run.
    pub fn env(&self) -> Vec<(String, String)> {
        let path = |path: PathBuf| path.display().to_string();
        vec![
            ("LD_PRELOAD".into(), path(self.shim.clone())),
            ("AQUEDUCT_SHIM_LOG".into(), path(self.log())),
            ("AQUEDUCT_SHIM_LIMBO".into(), path(self.limbo())),
        ]
    }

    /// How many syncs were recorded since the last loss; zero means that the shim saw nothing, and proves nothing.
    pub fn syncs(&self) -> usize {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("F ") || line.starts_with("D ")).count()
    }

    fn log(&self) -> PathBuf {
        self.work.path().join("log")
    }

    fn limbo(&self) -> PathBuf {
        self.work.path().join("limbo")
    }

    /// Takes what is there now as durable.
    fn arm(&mut self) -> Result<()> {
        self.base = Base::default();
        fs::write(self.log(), "")?;
        for entry in fs::read_dir(self.limbo())? {
            fs::remove_file(entry?.path())?;
        }
        if self.data.exists() {
            scan(&self.data, &mut self.base)?;
        }
        Ok(())
    }

    /// The power is gone and back: leaves on disk only what was durable, and some of the rest by chance.
    pub fn cut(&mut self, rng: &mut Rng) -> Result<Lost> {
        let mut durable = std::mem::take(&mut self.base);
        replay(&fs::read_to_string(self.log())?, &mut durable);
        let mut now = Base::default();
        scan(&self.data, &mut now)?;
        let mut lost = Lost::default();
        // From the root down: a directory that vanishes takes its content along.
        for (dir, entries) in &now.entries {
            if dir.exists() {
                let synced = durable.entries.get(dir).cloned().unwrap_or_default();
                self.cut_directory(dir, entries, &synced, rng, &mut lost)?;
            }
        }
        cut_files(&self.data, &durable.sizes, rng, &mut lost)?;
        self.arm()?;
        Ok(lost)
    }

    /// One directory: `entries` are its names now, `synced` the durable ones.
    fn cut_directory(
        &self,
        dir: &Path,
        entries: &BTreeMap<String, u64>,
        synced: &BTreeMap<String, u64>,
        rng: &mut Rng,
        lost: &mut Lost,
    ) -> Result<()> {
        for (name, inode) in entries {
            let path = dir.join(name);
            if synced.get(name) == Some(inode) || rng.bool() {
                continue;
            }
            // A rename that was not synced is undone; everything else that was not synced is gone.
            let before =
                synced.iter().find(|(old, i)| *i == inode && !entries.contains_key(*old)).map(|(old, _)| old);
            match before {
                Some(old) => fs::rename(&path, dir.join(old))?,
                None if path.is_dir() => fs::remove_dir_all(&path)?,
                None => fs::remove_file(&path)?,
            }
            lost.vanished.push(path);
        }
        for (name, inode) in synced {
            let path = dir.join(name);
            let kept = self.limbo().join(inode.to_string());
            // Replaced or removed without a sync. If the new file vanished above, the old one must show.
            let replaced = entries.get(name).is_some_and(|now| now != inode);
            if entries.get(name) != Some(inode) && kept.exists() && !path.exists() && (replaced || rng.bool())
            {
                fs::hard_link(&kept, &path)?;
                lost.returned.push(path);
            }
        }
        Ok(())
    }
}

fn scan(dir: &Path, into: &mut Base) -> Result<()> {
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        names.insert(entry.file_name().to_string_lossy().into_owned(), meta.ino());
        if meta.is_dir() {
            scan(&entry.path(), into)?;
        } else {
            into.sizes.insert(meta.ino(), meta.len());
        }
    }
    into.entries.insert(dir.to_owned(), names);
    Ok(())
}

/// Takes the records of the shim over. SIGKILL may tear the last one, whose sync then returned to nobody: it counts for
/// nothing, least of all half a list of entries for a whole one.
fn replay(log: &str, durable: &mut Base) {
    let mut lines = log[..log.rfind('\n').map_or(0, |at| at + 1)].lines();
    let mut tickets: HashMap<&str, u64> = HashMap::new();
    while let Some(line) = lines.next() {
        let mut words = line.splitn(2, ' ');
        let (kind, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match kind {
            "F" => {
                if let Some((inode, size)) = pair(rest) {
                    // Syncs that run at the same time end in any order.
                    let known = durable.sizes.entry(inode).or_default();
                    *known = size.max(*known);
                }
            }
            "T" => {
                if let Some((inode, size)) = pair(rest)
                    && let Some(known) = durable.sizes.get_mut(&inode)
                {
                    *known = size.min(*known);
                }
            }
            "D" => {
                let mut whole = false;
                let listed = lines.by_ref().take_while(|line| {
                    whole = *line == ".";
                    !whole
                });
                let entries = listed.filter_map(|line| {
                    let (inode, name) = line.strip_prefix("E ")?.split_once(' ')?;
                    Some((name.to_owned(), inode.parse().ok()?))
                });
                let entries = entries.collect();
                if !whole {
                    break;
                }
                let (ticket, path) = rest.split_once(' ').unwrap_or_default();
                let ticket = ticket.parse().unwrap_or(0);
                if tickets.get(path).is_none_or(|known| *known < ticket) {
                    tickets.insert(path, ticket);
                    durable.entries.insert(PathBuf::from(path), entries);
                }
            }
            _ => {}
        }
    }
}

fn pair(text: &str) -> Option<(u64, u64)> {
    let (a, b) = text.split_once(' ')?;
    Some((a.parse().ok()?, b.parse().ok()?))
}

fn cut_files(dir: &Path, durable: &HashMap<u64, u64>, rng: &mut Rng, lost: &mut Lost) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let meta = entry.metadata()?;
        if meta.is_dir() {
            cut_files(&entry.path(), durable, rng, lost)?;
            continue;
        }
        let keep = durable.get(&meta.ino()).copied().unwrap_or(0).min(meta.len());
        if keep == meta.len() {
            continue;
        }
        let end = rng.u64(keep..=meta.len());
        let mut file = fs::OpenOptions::new().write(true).open(entry.path())?;
        if rng.bool() {
            file.set_len(end)?;
        } else {
            file.seek(SeekFrom::Start(end))?;
            file.write_all(&vec![0; usize::try_from(meta.len() - end)?])?;
        }
        lost.cut_files += 1;
        lost.bytes += meta.len() - end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_the_kill_tore_counts_for_nothing() {
        let before = "F 7 100\nD 1 /d\nE 7 a.log\nE 8 b.log\n.\n";
        let torn = "D 2 /d\nE 8 b.log\nE 9 c.log\n.\nT 7 42\n";
        let state = |log: &str| {
            let mut durable = Base::default();
            replay(log, &mut durable);
            (durable.sizes[&7], durable.entries[Path::new("/d")].keys().cloned().collect::<Vec<_>>())
        };
        let old = (100, vec!["a.log".to_owned(), "b.log".to_owned()]);
        let new = vec!["b.log".to_owned(), "c.log".to_owned()];
        let listed = torn.find(".\n").expect("the list ends") + 2;
        for cut in 0..torn.len() {
            let found = state(&format!("{before}{}", &torn[..cut]));
            let expected = if cut < listed { old.clone() } else { (100, new.clone()) };
            assert_eq!(found, expected, "torn at byte {cut}");
        }
        assert_eq!(state(&format!("{before}{torn}")), (42, new));
    }
}
