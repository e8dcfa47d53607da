//! A real PostgreSQL with logical replication on, in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use tempfile::TempDir;

use crate::process::free_port;

/// How to stop the server, as `pg_ctl -m` names it.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// Waits for nobody; the next start recovers.
    Immediate,
    /// Ends sessions and waits for the WAL senders' receivers.
    Fast,
}

/// A server; stopped when dropped.
pub struct Postgres {
    bin: PathBuf,
    dir: TempDir,
    port: u16,
}

/// Where the server's programs are: the newest of Debian's versions, else the PATH.
pub fn find() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    versions.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    versions.extend(std::env::split_paths(&path));
    versions.into_iter().find(|bin| bin.join("initdb").exists() && bin.join("pg_ctl").exists())
}

impl Postgres {
    /// Makes and starts one; `None`, said by name, where PostgreSQL is not installed.
    pub fn start(test: &str) -> Option<Self> {
        Self::start_with(test, "")
    }

    /// The same with more server options, such as `-c wal_sender_timeout=5s`.
    pub fn start_with(test: &str, options: &str) -> Option<Self> {
        let Some(bin) = find() else {
            crate::require::not_run("postgres", test, "no initdb; `apt-get install postgresql` brings it");
            return None;
        };
        let server = Self::create(bin).and_then(|server| server.up(options).map(|()| server));
        Some(server.expect("PostgreSQL is installed and starts"))
    }

    fn create(bin: PathBuf) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("aqueduct-pg-").tempdir()?;
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("postgres:").arg(dir.path()))?;
        }
        let server = Self { bin, dir, port: free_port() };
        let data = server.data();
        run(server.command("initdb").arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        ]))?;
        Ok(server)
    }

    /// Starts it, again after [`Self::stop`].
    pub fn up(&self, options: &str) -> Result<()> {
        let dir = self.dir.path().display();
        let options = format!(
            "-p {} -h 127.0.0.1 -k {dir} -c wal_level=logical -c max_replication_slots=20 -c max_wal_senders=20 {options}",
            self.port
        );
        let log = self.dir.path().join("server.log");
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.data()).arg("-l").arg(&log).args(["-w", "-o", &options, "start"]);
        // The server inherits the pipes, so they must not be waited for.
        let status =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status()?;
        if !status.success() {
            bail!("PostgreSQL did not start: {}", std::fs::read_to_string(&log).unwrap_or_default());
        }
        Ok(())
    }

    /// Stops it and waits; how long that took.
    pub fn stop(&self, how: Stop) -> Result<std::time::Duration> {
        let mode = match how {
            Stop::Immediate => "immediate",
            Stop::Fast => "fast",
        };
        let begun = std::time::Instant::now();
        run(self.command("pg_ctl").arg("-D").arg(self.data()).args(["-m", mode, "-w", "-t", "60", "stop"]))?;
        Ok(begun.elapsed())
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// URL for the superuser.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// A pool of ordinary connections.
    pub async fn pool(&self, connections: u32) -> Result<PgPool> {
        let options = PgConnectOptions::new()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .database("postgres")
            .ssl_mode(PgSslMode::Disable);
        Ok(PgPoolOptions::new().max_connections(connections).connect_with(options).await?)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// PostgreSQL refuses to run as root; as root its programs run as the user `postgres`.
    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.dir.path());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nothing to do about a server that is down already.
        self.stop(Stop::Immediate).ok();
    }
}

pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{:?} failed: {text}{}", command, String::from_utf8_lossy(&output.stdout));
    }
    Ok(output)
}

/// Sends a statement, for set-up code that has no pool.
pub async fn execute(pool: &PgPool, sql: &str) -> Result<u64> {
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(pool)
        .await
        .with_context(|| sql.to_owned())?;
    Ok(done.rows_affected())
}

/// The directory that outlives a test run, for what was built or fetched once.
pub fn cache_dir() -> PathBuf {
    let base = std::env::var_os("AQUEDUCT_CACHE").map(PathBuf::from);
    let base =
        base.or_else(|| std::env::var_os("XDG_CACHE_HOME").map(|dir| Path::new(&dir).join("aqueduct")));
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/aqueduct")));
    base.unwrap_or_else(|| std::env::temp_dir().join("aqueduct-cache"))
}
