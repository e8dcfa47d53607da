//! The brokers that the suites expect: node 0, four partitions by default, once with and once without auto-creation.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use super::say;
use crate::kafka::{Jars, Kafka, Node};
use crate::process::{Aqueduct, Start};

/// One kind of broker, running twice.
pub(super) struct Brokers {
    /// For people.
    pub name: &'static str,
    /// Creates topics on demand.
    pub creating: String,
    /// Does not.
    pub strict: String,
    _running: Running,
    _dir: TempDir,
}

/// Killed when dropped.
enum Running {
    Ours { _pair: [Aqueduct; 2] },
    Kafka { _pair: [Kafka; 2] },
}

impl Brokers {
    pub(super) fn ours() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let creating = ours(&dir.path().join("creating"), true)?;
        let strict = ours(&dir.path().join("strict"), false)?;
        Ok(Self {
            name: "ours",
            creating: creating.kafka.clone(),
            strict: strict.kafka.clone(),
            _running: Running::Ours { _pair: [creating, strict] },
            _dir: dir,
        })
    }

    pub(super) fn kafka() -> Result<Self> {
        say("fetching and starting Apache Kafka");
        let (jars, dir) = (Jars::fetch()?, tempfile::tempdir()?);
        let node = |name: &str, creates: bool| {
            // The authorizer lets everyone do what nobody is denied, as the tests of access rules need it.
            let settings = format!(
                "num.partitions=4\n\
                 auto.create.topics.enable={creates}\n\
                 group.min.session.timeout.ms=1000\n\
                 authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                 allow.everyone.if.no.acl.found=true"
            );
            Node::format(&jars, &dir.path().join(name), &settings, |_| ())
        };
        let (creating, strict) = (node("creating", true)?, node("strict", false)?);
        let limit = Duration::from_secs(120);
        Ok(Self {
            name: "Kafka",
            creating: creating.address(),
            strict: strict.address(),
            _running: Running::Kafka { _pair: [creating.start(limit)?, strict.start(limit)?] },
            _dir: dir,
        })
    }
}

fn ours(dir: &Path, creates: bool) -> Result<Aqueduct> {
    std::fs::create_dir_all(dir)?;
    let settings = dir.join("broker.yaml");
    std::fs::write(&settings, format!("node_id: 0\ndefault_partitions: 4\nauto_create_topics: {creates}\n"))?;
    let mut start = Start::broker(dir);
    start.args.extend(["--config".to_owned(), settings.display().to_string()]);
    start.start()
}
