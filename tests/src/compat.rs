//! Other clients' own test suites, run against the binary and, for comparison, against Apache Kafka 4.3.
//!
//! What passes on Kafka passes on ours, or stands in `compat/known.txt` with the reason. A difference without a reason
//! is an error, and so is a reason without a difference.

mod brokers;
mod kafka_python;
mod known;
mod librdkafka;
mod table;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use brokers::Brokers;
use known::Known;

/// What is run.
#[derive(Args, Clone, Debug)]
pub struct Compat {
    /// One of the suites; both without it.
    #[arg(long)]
    suite: Option<Suite>,
    /// Without Apache Kafka: everything that fails and has no known reason counts as a difference.
    #[arg(long)]
    ours: bool,
    /// The table as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Tests that run at a time. Most of their time is waiting.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Only tests whose names contain one of these, such as `0081` or `test_group`.
    tests: Vec<String>,
}

/// Whose tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Suite {
    /// librdkafka's, from the sources that the `rdkafka-sys` crate carries.
    Librdkafka,
    /// kafka-python's integration tests, from its source distribution.
    KafkaPython,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Suite::Librdkafka => "librdkafka",
            Suite::KafkaPython => "kafka-python",
        }
    }
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Passed,
    /// With what it said.
    Failed(String),
    /// With the reason that the suite gives.
    Skipped(String),
}

/// The results of one broker.
type Outcomes = BTreeMap<(Suite, String), State>;

/// One line of the table.
struct Line {
    suite: Suite,
    test: String,
    ours: Option<State>,
    kafka: Option<State>,
    /// Why ours may differ.
    reason: Option<String>,
}

impl Line {
    /// Whether a client would meet something on ours that it does not meet on Kafka.
    fn differs(&self, compared: bool) -> bool {
        let ours = matches!(self.ours, Some(State::Passed));
        match (&self.kafka, compared) {
            (Some(State::Passed), true) => !ours,
            (_, true) => false,
            (_, false) => matches!(self.ours, Some(State::Failed(_))),
        }
    }
}

impl Compat {
    /// Runs the suites and prints the table; a difference that nobody has explained is an error.
    pub fn run(&self) -> Result<()> {
        let known = Known::parse(include_str!("compat/known.txt"))?;
        let expected = |test: &str| known.reason(Suite::Librdkafka.name(), test).is_some();
        let ours = self.outcomes(&Brokers::ours()?, expected)?;
        let kafka = if self.ours { Outcomes::new() } else { self.outcomes(&Brokers::kafka()?, |_| false)? };
        let keys: std::collections::BTreeSet<_> = ours.keys().chain(kafka.keys()).cloned().collect();
        let lines: Vec<Line> = keys
            .into_iter()
            .map(|key| Line {
                ours: ours.get(&key).cloned(),
                kafka: kafka.get(&key).cloned(),
                reason: known.reason(key.0.name(), &key.1).map(str::to_owned),
                suite: key.0,
                test: key.1,
            })
            .collect();
        let compared = !self.ours;
        if self.json {
            table::json(&lines, compared)?
        } else {
            table::text(&lines, compared)
        }
        let unexplained = lines.iter().filter(|line| line.differs(compared) && line.reason.is_none());
        let stale = lines.iter().filter(|line| line.reason.is_some() && line.ours == Some(State::Passed));
        let names = |lines: Vec<&Line>| lines.iter().map(|line| line.test.clone()).collect::<Vec<_>>();
        let (unexplained, stale) = (names(unexplained.collect()), names(stale.collect()));
        if !unexplained.is_empty() {
            bail!("tests that pass on Kafka and not on ours: {}", unexplained.join(", "));
        }
        if !stale.is_empty() {
            bail!("tests that pass, although compat/known.txt says why not: {}", stale.join(", "));
        }
        Ok(())
    }

    fn outcomes(&self, brokers: &Brokers, expected: impl Fn(&str) -> bool + Sync) -> Result<Outcomes> {
        let mut outcomes = Outcomes::new();
        for suite in [Suite::Librdkafka, Suite::KafkaPython] {
            if self.suite.is_some_and(|only| only != suite) {
                continue;
            }
            let done = match suite {
                Suite::Librdkafka => librdkafka::run(brokers, self.jobs, &self.tests, &expected)?,
                Suite::KafkaPython => kafka_python::run(brokers, &self.tests)?,
            };
            outcomes.extend(done.into_iter().map(|(test, state)| ((suite, test), state)));
        }
        Ok(outcomes)
    }
}

/// Whether a test was asked for.
fn wanted(tests: &[String], name: &str) -> bool {
    tests.is_empty() || tests.iter().any(|part| name.contains(part.as_str()))
}

/// Says what is going on.
#[expect(clippy::print_stderr, reason = "a run of many minutes shows where it is")]
fn say(line: &str) {
    eprintln!("{line}");
}
