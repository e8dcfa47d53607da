//! A real PostgreSQL of its own for each test: a copy of one initialised directory, a free port, stopped on drop.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "correct horse";

/// A running server with the superuser `postgres`.
pub(crate) struct Server {
    dir: TempDir,
    _template: Arc<TempDir>,
    pub(crate) port: u16,
}

/// Stops a server from another thread.
pub(crate) struct Handle(PathBuf);

impl Handle {
    /// Stops it, in `smart`, `fast` or `immediate` mode.
    pub(crate) fn down(&self, mode: &str) {
        run(pg_ctl(&self.0).args(["-w", "-m", mode, "stop"]));
    }
}

fn pg_ctl(dir: &Path) -> Command {
    let mut command = command(&programs().expect("installed").join("pg_ctl"));
    command.current_dir(dir).args(["-D", "data"]);
    command
}

/// Where the server's programs are: `AQUEDUCT_POSTGRES` names a directory, for other versions than the installed one.
fn programs() -> Option<PathBuf> {
    std::env::var_os("AQUEDUCT_POSTGRES").map(PathBuf::from).or_else(newest)
}

/// The newest installed version.
fn newest() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| entry.ok())
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

/// Whether PostgreSQL is installed; says so when it is not.
pub(crate) fn installed() -> bool {
    if programs().is_some() {
        return true;
    }
    println!("NOT RUN: postgres: no server programs under /usr/lib/postgresql");
    let required = std::env::var("AQUEDUCT_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|what| what == "postgres"), "postgres is required and not installed");
    false
}

/// The server refuses to run as root.
fn command(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]).arg(program);
    command
}

fn is_root() -> bool {
    run(Command::new("id").arg("-u")) == "0"
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn give_to_postgres(path: &Path) {
    if is_root() {
        run(Command::new("chown").args(["-R", "postgres:"]).arg(path));
    }
}

/// One initialised directory, copied for each server, and gone with the last of them.
fn template() -> Arc<TempDir> {
    static TEMPLATE: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut template = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(dir) = template.upgrade() {
        return dir;
    }
    let dir = TempDir::with_prefix("aqueduct-initdb-").expect("temporary directory");
    std::fs::write(dir.path().join("password"), PASSWORD).expect("written");
    give_to_postgres(dir.path());
    let initdb = programs().expect("installed").join("initdb");
    let mut command = command(&initdb);
    command.current_dir(dir.path()).args(["-D", "data", "-U", "postgres", "-A", "scram-sha-256", "-N"]);
    run(command.args(["--pwfile", "password", "-E", "UTF8", "--locale=C.UTF-8"]));
    let dir = Arc::new(dir);
    *template = Arc::downgrade(&dir);
    dir
}

impl Server {
    /// Starts one with further `-c` settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let template = template();
        let dir = TempDir::with_prefix("aqueduct-pg-").expect("temporary directory");
        run(Command::new("cp").arg("-a").arg(template.path().join("data")).arg(dir.path()));
        give_to_postgres(dir.path());
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let server = Self { dir, _template: template, port };
        server.up(settings);
        server
    }

    /// Starts it again after [`Handle::down`].
    pub(crate) fn up(&self, settings: &[&str]) {
        let dir = self.dir.path().display();
        let mut options = format!("-p {} -h 127.0.0.1 -k {dir} -c wal_level=logical -c fsync=off", self.port);
        for setting in settings {
            options.push_str(&format!(" -c {setting}"));
        }
        run(pg_ctl(self.dir.path())
            .args(["-w", "-l", "server.log", "-o", &options, "start"])
            .stdout(std::process::Stdio::null()));
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle(self.dir.path().to_owned())
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/postgres", PASSWORD.replace(' ', "%20"), self.port)
    }

    /// A client program, such as `psql` or `pg_recvlogical`.
    pub(crate) fn client(&self, program: &str) -> Command {
        let with_server = programs().expect("installed").join(program);
        let program = match with_server.exists() {
            true => with_server,
            false => newest().expect("client programs are installed").join(program),
        };
        let mut command = Command::new(program);
        command.env("PGPASSWORD", PASSWORD).args(["-h", "127.0.0.1", "-U", "postgres", "-d", "postgres"]);
        command.args(["-p", &self.port.to_string()]);
        command
    }

    /// Runs SQL in one transaction and returns the answer as text.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let Output { status, stdout, stderr } = self
            .client("psql")
            .args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .output()
            .expect("psql runs");
        assert!(status.success(), "{sql}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).trim().to_owned()
    }

    /// Runs a file of SQL, every statement for itself.
    pub(crate) fn file(&self, path: &Path) {
        run(self.client("psql").args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-f"]).arg(path));
    }

    /// Makes a root certificate and one of the server for the name `db.test`; false where openssl is not installed.
    pub(crate) fn certificate(&self) -> bool {
        let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt \
            && openssl req -newkey rsa:2048 -nodes -subj /CN=db.test -keyout server.key -out server.csr \
            && printf 'subjectAltName=DNS:db.test\nbasicConstraints=CA:FALSE' > ext \
            && openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt \
            && chmod 600 server.key";
        let made = Command::new("sh").current_dir(self.dir.path()).args(["-c", script]).output();
        give_to_postgres(self.dir.path());
        made.is_ok_and(|output| output.status.success())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(2000);
            eprintln!("server log: {}", log.get(tail..).unwrap_or_default());
        }
        // It may be down already.
        drop(pg_ctl(self.dir.path()).args(["-m", "immediate", "stop"]).output());
    }
}
