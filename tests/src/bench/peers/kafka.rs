//! Apache Kafka from its published jars: one node, broker and controller in one, with its own defaults.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::bench::{Report, show};
use crate::postgres::{cache_dir, run};
use crate::process::free_port;

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
pub(super) struct Jars(PathBuf);

impl Jars {
    /// Fetches them with Maven where they are not there yet.
    pub(super) fn fetch() -> Result<Self> {
        run(Command::new("java").arg("-version").stderr(Stdio::null()))
            .context("Java 17 or newer is needed")?;
        let dir = cache_dir().join("kafka-4.3.0-1");
        let libs = dir.join("libs");
        if !dir.join("complete").exists() {
            std::fs::create_dir_all(&libs)?;
            let pom = crate::process::root().join("tests/src/bench/peers/pom.xml");
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

    fn java(&self, options: &[&str], class: &str) -> Command {
        let mut command = Command::new("java");
        command.args(options).arg("-cp").arg(format!("{}/*", self.0.display())).arg(class);
        command
    }
}

/// A node whose data outlives it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    jars: Jars,
    dir: PathBuf,
    port: u16,
}

impl Node {
    /// Formats a new data directory below `dir`.
    pub(super) fn format(jars: &Jars, dir: &Path, report: &Report) -> Result<Self> {
        let (port, controller) = (free_port(), free_port());
        std::fs::create_dir_all(dir)?;
        let data = dir.join("data");
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n",
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
        report.ran(&show(&format));
        run(format.stdout(Stdio::null()).stderr(Stdio::null())).context("formatting Kafka's storage")?;
        Ok(node)
    }

    /// `127.0.0.1:PORT`.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it, without waiting.
    pub(super) fn spawn(&self, report: &Report) -> Result<Kafka> {
        let mut command = self.jars.java(JVM, "kafka.Kafka");
        command.arg(self.dir.join("server.properties"));
        let log4j = format!("-Dlog4j2.configurationFile={}", self.dir.join("log4j2.properties").display());
        let mut with_log = Command::new("java");
        with_log.arg(log4j).args(command.get_args());
        report.ran(&show(&with_log));
        let log = File::options().create(true).append(true).open(self.dir.join("stdout.log"))?;
        let child = with_log.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Kafka { child })
    }
}

/// A running node; killed when dropped.
pub(super) struct Kafka {
    child: Child,
}

impl Kafka {
    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub(super) fn ended(&mut self) -> bool {
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
