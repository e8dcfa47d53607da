//! The real binary: started, watched, killed and restarted.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::usage::Usage;

/// A port that nobody listens on right now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// The `aqueduct` binary: `AQUEDUCT_BIN`, or the one built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("AQUEDUCT_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a running test has a path");
    let target = test.ancestors().nth(2).expect("tests are built into target/PROFILE/deps");
    let binary = target.join("aqueduct");
    assert!(
        binary.exists(),
        "{} is missing: run `cargo build -p aqueduct` or `cargo xtask test`",
        binary.display()
    );
    binary
}

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// A running `aqueduct`; killed when dropped.
pub struct Aqueduct {
    child: Child,
    /// Kafka protocol, `127.0.0.1:PORT`.
    pub kafka: String,
    /// REST, `http://127.0.0.1:PORT`.
    pub rest: String,
    output: PathBuf,
}

/// How to start one. Ports stay the same over restarts, so that clients find it again.
#[derive(Clone, Debug)]
pub struct Start {
    /// `run` or `broker`, and files.
    pub args: Vec<String>,
    /// Data directory.
    pub data: PathBuf,
    /// Kafka port.
    pub kafka_port: u16,
    /// REST port, for `run`.
    pub rest_port: u16,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Where its output is appended.
    pub output: PathBuf,
    /// Address-space or memory limit wrapper, such as `systemd-run`; usually empty.
    pub wrapper: Vec<String>,
}

impl Start {
    /// `aqueduct broker` in `dir`.
    pub fn broker(dir: &Path) -> Self {
        Self::new(dir, ["broker"])
    }

    /// `aqueduct run FILES…` in `dir`.
    pub fn run(dir: &Path, files: &[&Path]) -> Self {
        let files = files.iter().map(|file| file.display().to_string());
        Self::new(dir, std::iter::once("run".to_owned()).chain(files))
    }

    fn new(dir: &Path, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            data: dir.join("data"),
            kafka_port: free_port(),
            rest_port: free_port(),
            env: Vec::new(),
            output: dir.join("output.log"),
            wrapper: Vec::new(),
        }
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.push((key.to_owned(), value.into()));
        self
    }

    /// The command as it will be run.
    pub fn command(&self) -> Command {
        let mut words = self.wrapper.clone();
        words.push(binary().display().to_string());
        words.extend(self.args.iter().cloned());
        words.extend(["--data-dir".into(), self.data.display().to_string()]);
        words.extend(["--listen".into(), format!("127.0.0.1:{}", self.kafka_port)]);
        if self.args[0] == "run" {
            words.extend(["--rest".into(), format!("127.0.0.1:{}", self.rest_port)]);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Starts it and waits until it answers on its ports.
    pub fn start(&self) -> Result<Aqueduct> {
        let mut process = self.spawn()?;
        process.wait_ready(Duration::from_secs(60))?;
        Ok(process)
    }

    /// Starts it without waiting.
    pub fn spawn(&self) -> Result<Aqueduct> {
        let log = File::options().create(true).append(true).open(&self.output)?;
        let child = self.command().stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Aqueduct {
            child,
            kafka: format!("127.0.0.1:{}", self.kafka_port),
            rest: format!("http://127.0.0.1:{}", self.rest_port),
            output: self.output.clone(),
        })
    }
}

impl Aqueduct {
    /// Waits until the Kafka port accepts; an early end is an error with the output.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while std::net::TcpStream::connect(&self.kafka).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("aqueduct ended while starting ({status}):\n{}", self.output());
            }
            if Instant::now() > until {
                bail!("aqueduct does not answer within {limit:?}:\n{}", self.output());
            }
            pause();
        }
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it printed so far, over all its starts.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// SIGKILL, and waits.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for an orderly end.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("a child has a pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("aqueduct has not ended within {limit:?}:\n{}", self.output());
            }
            pause();
        }
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// What it costs.
    pub fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> Result<u64> {
        self.usage().resident()
    }

    /// The most that was ever resident, in bytes.
    pub fn peak(&self) -> Result<u64> {
        self.usage().peak()
    }

    /// User and system CPU seconds so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        self.usage().cpu_seconds()
    }
}

impl Drop for Aqueduct {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A short wait between two looks at something that sends no event, such as another process.
pub fn pause() {
    std::thread::park_timeout(Duration::from_millis(5));
}

/// Looks at `condition` until it holds.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let until = Instant::now() + limit;
    while !condition() {
        if Instant::now() > until {
            bail!("not within {limit:?}: {what}");
        }
        pause();
    }
    Ok(())
}
