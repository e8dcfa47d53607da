//! A limit on the memory of a process, by the kernel: a memory cgroup, of either version.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A cgroup of its own; removed when dropped.
pub struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// Makes one; fails where the test may not make cgroups, which takes root.
    pub fn new(bytes: u64) -> Result<Self> {
        let name = format!("aqueduct-{}", std::process::id());
        let (root, file) = match Path::new("/sys/fs/cgroup/memory").is_dir() {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false => ("/sys/fs/cgroup", "memory.max"),
        };
        let dir = Path::new(root).join(name);
        std::fs::create_dir(&dir).with_context(|| format!("cannot make the cgroup {}", dir.display()))?;
        let limit = Self(dir);
        std::fs::write(limit.0.join(file), bytes.to_string()).context("the cgroup takes no memory limit")?;
        Ok(limit)
    }

    /// Words to put before a command, so that it runs within the limit.
    pub fn wrapper(&self) -> Vec<String> {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        vec!["sh".into(), "-c".into(), script, "sh".into()]
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Busy while a process is in it; the next boot removes it then.
        std::fs::remove_dir(&self.0).ok();
    }
}
