//! Apache Kafka from its published jars: one node, broker and controller in one, with its own defaults.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::postgres::{cache_dir, run};
use crate::process::{free_port, pause};

/// What Kafka's own start script sets.
const JVM: &[&str] = &[
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// The jars, fetched once.
#[derive(Clone, Debug)]
pub struct Jars(PathBuf);

impl Jars {
    /// Fetches them with Maven where they are not there yet.
    pub fn fetch() -> Result<Self> {
        run(Command::new("java").arg("-version").stderr(Stdio::null()))
            .context("Java 17 or newer is needed")?;
        let dir = cache_dir().join("kafka-4.3.0-2");
        let libs = dir.join("libs");
        if !dir.join("complete").exists() {
            std::fs::create_dir_all(&libs)?;
            let pom = crate::process::root().join("tests/src/kafka/pom.xml");
            run(Command::new("mvn")
                .args(["-q", "-B", "-f"])
                .arg(pom)
                .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
                .arg(format!("-DoutputDirectory={}", libs.display())))
            .context("Maven is needed to fetch Apache Kafka")?;
            std::fs::write(dir.join("complete"), "")?;
        }
        Ok(Self(libs))
    }

    /// The class path of every jar.
    pub fn class_path(&self) -> String {
        format!("{}/*", self.0.display())
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    fn java(&self, options: &[&str], class: &str) -> Command {
        let mut command = Command::new("java");
        command.args(options).arg("-cp").arg(self.class_path()).arg(class);
        command
    }
}

/// A node whose data outlives it.
#[derive(Clone, Debug)]
pub struct Node {
    jars: Jars,
    dir: PathBuf,
    port: u16,
}

impl Node {
    /// Formats a new data directory below `dir`. `settings` are more lines of `server.properties`; `ran` is told the
    /// command.
    pub fn format(jars: &Jars, dir: &Path, settings: &str, ran: impl Fn(&Command)) -> Result<Self> {
        let (port, controller) = (free_port(), free_port());
        std::fs::create_dir_all(dir)?;
        let data = dir.join("data");
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id=0\n\
             controller.quorum.voters=0@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             {settings}\n",
            data.display()
        );
        std::fs::write(dir.join("server.properties"), properties)?;
        let log4j = format!(
            "rootLogger.level = INFO\n\
             rootLogger.appenderRefs = f\n\
             rootLogger.appenderRef.f.ref = F\n\
             appender.f.type = File\n\
             appender.f.name = F\n\
             appender.f.fileName = {}\n\
             appender.f.layout.type = PatternLayout\n\
             appender.f.layout.pattern = %d %p %c{{1}} %m%n\n",
            dir.join("out.log").display()
        );
        std::fs::write(dir.join("log4j2.properties"), log4j)?;
        let node = Self { jars: jars.clone(), dir: dir.to_owned(), port };
        let mut format = jars.java(&[], "kafka.tools.StorageTool");
        // Any 16 bytes make a cluster id.
        format.args(["format", "-t", "AqueductBenchPeer00000A", "-c"]).arg(dir.join("server.properties"));
        ran(&format);
        run(format.stdout(Stdio::null()).stderr(Stdio::null())).context("formatting Kafka's storage")?;
        Ok(node)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it, without waiting.
    pub fn spawn(&self, ran: impl Fn(&Command)) -> Result<Kafka> {
        let mut command = self.jars.java(JVM, "kafka.Kafka");
        command.arg(self.dir.join("server.properties"));
        let log4j = format!("-Dlog4j2.configurationFile={}", self.dir.join("log4j2.properties").display());
        let mut with_log = Command::new("java");
        with_log.arg(log4j).args(command.get_args());
        ran(&with_log);
        let log = File::options().create(true).append(true).open(self.dir.join("stdout.log"))?;
        let child = with_log.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Kafka { child })
    }

    /// Starts it and waits until it serves.
    pub fn start(&self, limit: Duration) -> Result<Kafka> {
        let mut kafka = self.spawn(|_| ())?;
        let log = self.dir.join("out.log");
        let begun = Instant::now();
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("Kafka Server started") {
            ensure!(!kafka.ended() && begun.elapsed() < limit, "Kafka did not start, see {}", log.display());
            pause();
        }
        Ok(kafka)
    }
}

/// A running node; killed when dropped.
pub struct Kafka {
    child: Child,
}

impl Kafka {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
