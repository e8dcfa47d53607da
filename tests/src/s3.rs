//! A real S3-compatible server in a directory of its own: versitygw, or MinIO for tests that kill the server.
//!
//! Killed inside CompleteMultipartUpload and asked again, versitygw answers 200 without an object behind it; MinIO does
//! not. On the other hand MinIO lists uploads only by their exact key, so orphans cannot be looked for on it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::postgres::{cache_dir, run};
use crate::process::{free_port, pause};

/// Access key of every server started here.
pub const ACCESS_KEY: &str = "testaccess";
/// Its secret.
pub const SECRET_KEY: &str = "testsecret123";
/// Region that clients sign for.
pub const REGION: &str = "us-east-1";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// versitygw over a directory.
    Versity,
    /// MinIO, one drive.
    Minio,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Server::Versity => "versitygw",
            Server::Minio => "minio",
        }
    }

    fn package(self) -> (&'static str, &'static str) {
        match self {
            Server::Versity => ("github.com/versity/versitygw/cmd/versitygw", "v1.8.0"),
            Server::Minio => ("github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c"),
        }
    }

    fn health(self) -> &'static str {
        match self {
            Server::Versity => "/-/health",
            Server::Minio => "/minio/health/ready",
        }
    }
}

static INSTALLING: Mutex<()> = Mutex::new(());

/// Where the server's program is; built once with Go, which may take minutes. `None` without Go.
pub fn install(server: Server) -> Result<Option<PathBuf>> {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (package, version) = server.package();
    let home = cache_dir().join(format!("{}-{version}", server.name()));
    let program = home.join(server.name());
    if program.exists() {
        return Ok(Some(program));
    }
    let Some(go) = go() else { return Ok(None) };
    std::fs::create_dir_all(&home)?;
    let build = tempfile::Builder::new().prefix("build-").tempdir_in(&home)?;
    let mut command = Command::new(go);
    command.env("GOBIN", build.path()).env("CGO_ENABLED", "0").current_dir(build.path());
    run(command.args(["install", "-trimpath", "-ldflags", "-s -w"]).arg(format!("{package}@{version}")))?;
    std::fs::rename(build.path().join(server.name()), &program)?;
    Ok(Some(program))
}

fn go() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/local/go/bin")]);
    dirs.map(|dir| dir.join("go")).find(|go| go.exists())
}

/// A server; killed when dropped.
pub struct S3 {
    server: Server,
    program: PathBuf,
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl S3 {
    /// Starts versitygw; `None`, said by name, where it is not to be had.
    pub fn start(test: &str) -> Option<Self> {
        Self::start_with(test, Server::Versity, &[])
    }

    /// Starts the given server with more options, such as `--max-requests 2`.
    pub fn start_with(test: &str, server: Server, options: &[&str]) -> Option<Self> {
        let program = match install(server) {
            Ok(Some(program)) => program,
            Ok(None) => {
                crate::require::not_run("s3", test, "no Go (1.25 or newer), which builds the server");
                return None;
            }
            Err(error) => {
                crate::require::not_run("s3", test, &format!("the server cannot be built: {error:#}"));
                return None;
            }
        };
        let started = Self::create(server, program).and_then(|mut s3| s3.up(options).map(|()| s3));
        Some(started.expect("the S3 server is installed and starts"))
    }

    fn create(server: Server, program: PathBuf) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("aqueduct-s3-").tempdir()?;
        for name in ["data", "iam", "meta"] {
            std::fs::create_dir(dir.path().join(name))?;
        }
        Ok(Self { server, program, dir, port: free_port(), child: None })
    }

    /// Starts it, again after [`Self::kill`], on the same port and directory.
    pub fn up(&mut self, options: &[&str]) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let mut command = self.command(options);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?);
        let until = Instant::now() + Duration::from_secs(30);
        while !self.healthy() {
            let ended =
                self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|end| end.is_some()));
            if ended || Instant::now() > until {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                bail!("the S3 server does not answer:\n{log}");
            }
            pause();
        }
        Ok(())
    }

    fn command(&self, options: &[&str]) -> Command {
        let address = format!("127.0.0.1:{}", self.port);
        let data = self.dir.path().join("data");
        let mut command = Command::new(&self.program);
        match self.server {
            Server::Versity => {
                command.env("ROOT_ACCESS_KEY", ACCESS_KEY).env("ROOT_SECRET_KEY", SECRET_KEY);
                command.args(["--port", &address, "--region", REGION, "--health", self.server.health()]);
                command.args(["--keep-alive", "--quiet", "--iam-dir"]).arg(self.dir.path().join("iam"));
                command.args(options).arg("posix");
                if !has_xattrs(&data) {
                    command.arg("--sidecar").arg(self.dir.path().join("meta"));
                }
            }
            Server::Minio => {
                command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
                command.env("MINIO_REGION", REGION).env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off");
                command.args(["server", "--quiet", "--anonymous", "--address", &address]).args(options);
            }
        }
        command.arg(data);
        command
    }

    fn healthy(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let request =
            format!("GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", self.server.health());
        let mut answer = [0; 64];
        let sent = stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .and_then(|()| stream.write_all(request.as_bytes()));
        let read = sent.and_then(|()| stream.read(&mut answer)).unwrap_or(0);
        String::from_utf8_lossy(&answer[..read]).contains(" 200")
    }

    /// SIGKILL, and waits.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Sends a signal; `STOP` and `CONT` make a stall.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("the server is down")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a child has a pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// URL for clients.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client for looking at what is there.
    pub fn client(&self) -> Client {
        let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(credentials)
            .endpoint_url(self.endpoint())
            .force_path_style(true);
        Client::from_conf(config.build())
    }

    /// Makes a bucket.
    pub async fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.client().create_bucket().bucket(bucket).send().await?;
        Ok(())
    }

    /// Every key that begins with `prefix`, in order.
    pub async fn keys(&self, bucket: &str, prefix: &str) -> Result<Vec<String>> {
        let client = self.client();
        let mut keys = Vec::new();
        let mut token = None;
        loop {
            let request =
                client.list_objects_v2().bucket(bucket).prefix(prefix).set_continuation_token(token);
            let page = request.send().await?;
            keys.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
            token = page.next_continuation_token;
            if page.is_truncated != Some(true) || token.is_none() {
                return Ok(keys);
            }
        }
    }

    /// The text of an object.
    pub async fn text(&self, bucket: &str, key: &str) -> Result<String> {
        let object = self.client().get_object().bucket(bucket).key(key).send().await?;
        Ok(String::from_utf8(object.body.collect().await?.to_vec())?)
    }

    /// The lines of every object that begins with `prefix`, objects in the order of their keys.
    pub async fn lines(&self, bucket: &str, prefix: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for key in self.keys(bucket, prefix).await? {
            lines.extend(self.text(bucket, &key).await?.lines().map(str::to_owned));
        }
        Ok(lines)
    }

    /// How many parts the incomplete upload of this key has; 0 when there is none.
    pub async fn parts(&self, bucket: &str, key: &str) -> Result<usize> {
        let client = self.client();
        let page = client.list_multipart_uploads().bucket(bucket).prefix(key).send().await?;
        let Some(id) = page.uploads().iter().find_map(|upload| upload.upload_id()) else { return Ok(0) };
        Ok(client.list_parts().bucket(bucket).key(key).upload_id(id).send().await?.parts().len())
    }

    /// Keys of the multipart uploads that are not complete.
    pub async fn uploads(&self, bucket: &str) -> Result<Vec<String>> {
        let page = self.client().list_multipart_uploads().bucket(bucket).send().await?;
        Ok(page.uploads().iter().filter_map(|upload| upload.key().map(str::to_owned)).collect())
    }
}

/// Metadata lives in extended attributes; where there are none, beside the data.
fn has_xattrs(dir: &Path) -> bool {
    rustix::fs::setxattr(dir, "user.aqueduct", b"1", rustix::fs::XattrFlags::empty()).is_ok()
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.kill();
    }
}
