//! Other clients' own test suites, run against the binary and, for comparison, against Apache Kafka 4.3.
//!
//! What passes on Kafka passes on ours, or stands in `compat/known.txt` with the reason. A difference without a reason
//! is an error, and so is a reason without a difference.

mod brokers;
mod kafka_python;
mod known;
mod librdkafka;
mod table;

use std::collections::{BTreeMap, BTreeSet};

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

/// Many tests measure time: what differs is run again alone, so often.
const AGAIN: usize = 2;

impl Compat {
    /// Runs the suites and prints the table; a difference that nobody has explained is an error.
    pub fn run(&self) -> Result<()> {
        let known = Known::parse(include_str!("compat/known.txt"))?;
        let compared = !self.ours;
        let mut ours = self.outcomes(&Brokers::ours()?, self.jobs, &self.tests)?;
        let kafka = if compared {
            self.outcomes(&Brokers::kafka()?, self.jobs, &self.tests)?
        } else {
            Outcomes::new()
        };
        for _ in 0..AGAIN {
            let lines = lines(&ours, &kafka, &known);
            let surprises = lines.iter().filter(|line| line.differs(compared) && line.reason.is_none());
            let tests: Vec<String> = surprises.map(|line| line.test.clone()).collect();
            if tests.is_empty() {
                break;
            }
            say(&format!("again, alone: {}", tests.join(", ")));
            ours.extend(self.outcomes(&Brokers::ours()?, 1, &tests)?);
        }
        let lines = lines(&ours, &kafka, &known);
        if self.json {
            table::json(&lines, compared)?
        } else {
            table::text(&lines, compared)
        }
        let named = |which: &dyn Fn(&Line) -> bool| {
            lines
                .iter()
                .filter(|line| which(line))
                .map(|line| line.test.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let unexplained = named(&|line| line.differs(compared) && line.reason.is_none());
        if !unexplained.is_empty() {
            bail!("tests that pass on Kafka and not on ours: {unexplained}");
        }
        let stale = named(&|line| line.reason.is_some() && line.ours == Some(State::Passed));
        if !stale.is_empty() {
            bail!("tests that pass, although compat/known.txt says why not: {stale}");
        }
        Ok(())
    }

    fn outcomes(&self, brokers: &Brokers, jobs: usize, tests: &[String]) -> Result<Outcomes> {
        let mut outcomes = Outcomes::new();
        for suite in [Suite::Librdkafka, Suite::KafkaPython] {
            if self.suite.is_some_and(|only| only != suite) {
                continue;
            }
            let done = match suite {
                Suite::Librdkafka => librdkafka::run(brokers, jobs, tests)?,
                Suite::KafkaPython => kafka_python::run(brokers, tests)?,
            };
            outcomes.extend(done.into_iter().map(|(test, state)| ((suite, test), state)));
        }
        Ok(outcomes)
    }
}

fn lines(ours: &Outcomes, kafka: &Outcomes, known: &Known) -> Vec<Line> {
    let keys: BTreeSet<_> = ours.keys().chain(kafka.keys()).collect();
    let line = |key: &(Suite, String)| Line {
        suite: key.0,
        test: key.1.clone(),
        ours: ours.get(key).cloned(),
        kafka: kafka.get(key).cloned(),
        reason: known.reason(key.0.name(), &key.1).map(str::to_owned),
    };
    keys.into_iter().map(line).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_on_kafka_and_not_on_ours_differs() {
        let line =
            |ours, kafka| Line { suite: Suite::Librdkafka, test: String::new(), ours, kafka, reason: None };
        let failed = || Some(State::Failed(String::new()));
        let skipped = || Some(State::Skipped(String::new()));
        let passed = || Some(State::Passed);
        assert!(line(failed(), passed()).differs(true));
        assert!(line(skipped(), passed()).differs(true));
        assert!(line(None, passed()).differs(true), "what did not run is no pass");
        assert!(!line(failed(), failed()).differs(true));
        assert!(!line(passed(), failed()).differs(true));
        assert!(line(failed(), None).differs(false));
        assert!(!line(skipped(), None).differs(false));
    }
}
