//! The two brokers behind one face: started, asked and ended the same way.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aqueduct_wire::messages::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::start::first_answer;
use crate::bench::{Report, show};
use crate::kafka::{Jars, Kafka, Node};
use crate::process::{Aqueduct, Start, pause};
use crate::raw::Raw;
use crate::usage::Usage;

const STOP_WITHIN: Duration = Duration::from_secs(120);

/// A broker with its data, running or not.
pub(super) enum Side {
    Aqueduct(Start, Option<Aqueduct>),
    Kafka(Node, Option<Kafka>),
}

impl Side {
    /// Ours, with no data yet.
    pub(super) fn aqueduct(dir: &Path) -> Self {
        Side::Aqueduct(Start::broker(dir), None)
    }

    /// Kafka, with no data yet.
    pub(super) fn kafka(dir: &Path, jars: &Jars, report: &Report) -> Result<Self> {
        Ok(Side::Kafka(Node::format(jars, dir, "", |command| report.ran(&show(command)))?, None))
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Side::Aqueduct(..) => "aqueduct",
            Side::Kafka(..) => "kafka",
        }
    }

    pub(super) fn address(&self) -> String {
        match self {
            Side::Aqueduct(start, _) => format!("127.0.0.1:{}", start.kafka_port),
            Side::Kafka(node, _) => node.address(),
        }
    }

    fn pid(&self) -> Result<u32> {
        let pid = match self {
            Side::Aqueduct(_, process) => process.as_ref().map(Aqueduct::pid),
            Side::Kafka(_, process) => process.as_ref().map(Kafka::pid),
        };
        pid.context("it does not run")
    }

    pub(super) fn usage(&self) -> Result<Usage> {
        Ok(Usage::of(self.pid()?))
    }

    /// Starts it; the time until it answers its first request.
    pub(super) fn start(&mut self, report: &Report) -> Result<Duration> {
        let begun = Instant::now();
        match self {
            Side::Aqueduct(start, process) => {
                report.ran(&show(&start.command()));
                *process = Some(start.spawn()?);
            }
            Side::Kafka(node, process) => *process = Some(node.spawn(|command| report.ran(&show(command)))?),
        }
        first_answer(&self.address(), begun)?;
        Ok(begun.elapsed())
    }

    /// SIGTERM or SIGKILL, and waits for the end.
    pub(super) fn stop(&mut self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?).context("a child has a pid")?;
        kill_process(pid, signal)?;
        let until = Instant::now() + STOP_WITHIN;
        loop {
            let ended = match self {
                Side::Aqueduct(_, Some(process)) => process.ended()?.is_some(),
                Side::Kafka(_, Some(process)) => process.ended(),
                _ => true,
            };
            if ended {
                break;
            }
            if Instant::now() > until {
                bail!("{} has not ended within {STOP_WITHIN:?}", self.name());
            }
            pause();
        }
        match self {
            Side::Aqueduct(_, process) => *process = None,
            Side::Kafka(_, process) => *process = None,
        }
        Ok(())
    }

    /// Waits until every partition of the topic tells its end; the sum of the ends.
    pub(super) fn wait_served(&self, topic: &str, partitions: i32, limit: Duration) -> Result<i64> {
        let until = Instant::now() + limit;
        loop {
            match self.ends(topic, partitions) {
                Ok(Some(sum)) => return Ok(sum),
                Err(error) if Instant::now() > until => return Err(error),
                Ok(None) if Instant::now() > until => bail!("`{topic}` is not served within {limit:?}"),
                _ => pause(),
            }
        }
    }

    fn ends(&self, topic: &str, partitions: i32) -> Result<Option<i64>> {
        const LATEST: i64 = -1;
        let mut connection = Raw::connect(&self.address())?;
        let each = (0..partitions).map(|partition| ListOffsetsPartition {
            partition_index: partition,
            timestamp: LATEST,
            ..Default::default()
        });
        let topics = vec![ListOffsetsTopic { name: topic.into(), partitions: each.collect() }];
        let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        let answer = connection.call(5, &request)?;
        let mut sum = 0;
        for part in answer.topics.into_iter().flat_map(|topic| topic.partitions) {
            if part.error_code != 0 {
                return Ok(None);
            }
            sum += part.offset;
        }
        Ok(Some(sum))
    }
}
