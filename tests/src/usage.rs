//! What a process costs: CPU seconds and memory, as Linux counts them.

use anyhow::{Context as _, Result};

/// Of one process. It need not be a child.
#[derive(Clone, Copy, Debug)]
pub struct Usage(u32);

impl Usage {
    /// Of the process with this id.
    pub fn of(pid: u32) -> Self {
        Self(pid)
    }

    /// User and system CPU seconds so far.
    pub fn cpu_seconds(self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        let mut ticks = || fields.next().context("the line is short")?.parse::<u64>().context("ticks");
        // Linux reports hundredths of a second here, whatever its own tick.
        Ok((ticks()? + ticks()?) as f64 / 100.0)
    }

    /// Resident memory in bytes.
    pub fn resident(self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most that was ever resident, in bytes.
    pub fn peak(self) -> Result<u64> {
        self.status("VmHWM:")
    }

    fn status(self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find(|line| line.starts_with(name)).context("the process is gone")?;
        let kib: u64 = line.split_whitespace().nth(1).context("the line has a number")?.parse()?;
        Ok(kib * 1024)
    }
}
