//! librdkafka's own tests: built once from the sources that the `rdkafka-sys` crate carries, then one process for each
//! test, so that one that hangs or crashes takes no other with it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::brokers::Brokers;
use super::{State, say, wanted};
use crate::kafka::Jars;
use crate::postgres::{cache_dir, run as run_command};
use crate::process::{pause, root};

/// A test that hangs is ended after this.
const LIMIT: Duration = Duration::from_secs(300);

/// Tests that are judged part by part, by the parts' names: without this, one part that needs what is out of reach, such
/// as transactions, would hide all others.
const PARTS: &[(&str, &[&str])] = &[
    (
        "0055",
        &[
            "standard settings",
            "low linger.ms",
            "microsecond linger.ms",
            "high linger.ms",
            "linger.ms < 1000",
            "no acks",
            "idempotence",
            "transactions",
        ],
    ),
    ("0061", &["without transactions", "with transactions"]),
    (
        "0081",
        &[
            "do_test_CreateTopics:",
            "do_test_DeleteTopics:",
            "do_test_CreatePartitions:",
            "do_test_AlterConfigs:",
            "do_test_IncrementalAlterConfigs:",
            "do_test_DescribeConfigs:",
            "do_test_DescribeConfigs_groups:",
            "do_test_CreateAcls:",
            "do_test_DescribeAcls:",
            "do_test_DeleteAcls:",
            "do_test_unclean_destroy:",
            "do_test_DeleteRecords:",
            "do_test_DeleteGroups:",
            "do_test_ListConsumerGroups:",
            "do_test_DescribeConsumerGroups:",
            "do_test_DescribeTopics:",
            "do_test_DescribeCluster:",
            "do_test_DeleteConsumerGroupOffsets:",
            "do_test_AlterConsumerGroupOffsets:",
            "do_test_ListConsumerGroupOffsets:",
            "do_test_UserScramCredentials:",
            "do_test_ListOffsets:",
        ],
    ),
    (
        "0137",
        &[
            "do_test_consume_batch_with_seek:",
            "do_test_consume_batch_with_pause_and_resume_different_batch:",
            "do_test_consume_batch_with_pause_and_resume_same_batch:",
            "do_test_consume_batch_store_offset:",
            "do_test_consume_batch_control_msgs:",
        ],
    ),
];

/// One process: a test by its number, in one of the suite's scenarios, whole or one part of it.
#[derive(Clone, Debug)]
struct Job {
    number: String,
    scenario: &'static str,
    part: Option<&'static str>,
}

/// Every test that needs a broker, or those that are named.
pub(super) fn run(brokers: &Brokers, jobs: usize, tests: &[String]) -> Result<BTreeMap<String, State>> {
    let suite = Suite::build()?;
    let chosen: Vec<Job> = suite.jobs()?.into_iter().filter(|job| job.chosen(tests)).collect();
    let (queue, done) = (Mutex::new(chosen.into_iter()), Mutex::new(BTreeMap::new()));
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    std::thread::scope(|scope| {
        let worker = || {
            while let Some(job) = next() {
                let outcomes = suite.run(brokers, &job)?;
                done.lock().expect("no worker panics").extend(outcomes);
            }
            anyhow::Ok(())
        };
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })?;
    let mut done = done.into_inner().expect("no worker panics");
    done.retain(|test, _| wanted(tests, test));
    Ok(done)
}

/// The built tests.
struct Suite {
    /// Where the test program lies, and the files that it reads.
    tests: PathBuf,
    /// What Kafka's distribution would be: some tests call its scripts and Java classes.
    kafka: TempDir,
}

impl Suite {
    fn build() -> Result<Self> {
        let (source, version) = source()?;
        // What the compiler finds decides what is tested, so it is part of the name.
        let found = |header: &str| Path::new("/usr/include").join(header).exists();
        let with = format!("{}{}", u8::from(found("zstd.h")), u8::from(found("rapidjson/schema.h")));
        let dir = cache_dir().join(format!("librdkafka-tests-{version}-{with}"));
        let tests = dir.join("tests");
        if !dir.join("complete").exists() {
            say("building librdkafka and its tests, once; this takes minutes");
            if dir.exists() {
                std::fs::remove_dir_all(&dir)?;
            }
            std::fs::create_dir_all(cache_dir())?;
            run_command(Command::new("cp").arg("-r").arg(&source).arg(&dir))?;
            let features = ["--disable-ssl", "--disable-gssapi", "--disable-curl"];
            run_command(Command::new("./configure").args(features).current_dir(&dir))
                .context("librdkafka's `configure` needs gcc, g++, make and zlib's headers")?;
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let make = |target: &str, at: &Path| {
                run_command(Command::new("make").arg(format!("-j{cores}")).arg(target).current_dir(at))
            };
            make("libs", &dir)?;
            make("build", &tests)?;
            std::fs::write(dir.join("complete"), "")?;
        }
        Ok(Self { tests, kafka: distribution(&Jars::fetch()?)? })
    }

    /// Every test by number and scenario. The program lists its tests in the report of a run that runs none.
    fn jobs(&self) -> Result<Vec<Job>> {
        let dir = tempfile::tempdir()?;
        let report = dir.path().join("report.json");
        run_command(self.program("127.0.0.1:1", dir.path(), &report)?.env("TESTS", "none"))?;
        let mut numbers: Vec<String> = read_report(&report)?
            .into_keys()
            .filter_map(|name| name.get(..4).map(str::to_owned))
            .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()) && number.as_str() < "8000")
            .collect();
        numbers.dedup();
        let mut jobs = Vec::new();
        for scenario in ["default", "noautocreate"] {
            for number in &numbers {
                let job = |part| Job { number: number.clone(), scenario, part };
                match PARTS.iter().find(|(of, _)| of == number) {
                    Some((_, parts)) => jobs.extend(parts.iter().map(|part| job(Some(*part)))),
                    None => jobs.push(job(None)),
                }
            }
        }
        Ok(jobs)
    }

    fn program(&self, broker: &str, dir: &Path, report: &Path) -> Result<Command> {
        let settings = dir.join("test.conf");
        let lines =
            format!("bootstrap.servers={broker}\ntest.topic.random=true\ntest.timeout.multiplier=2\n");
        std::fs::write(&settings, lines)?;
        let mut command = Command::new("./test-runner");
        // One at a time, without the tests that need no broker, and without those that are known to fail.
        command.args(["-p1", "-L", "-K"]).current_dir(&self.tests).stdin(Stdio::null());
        command.env("RDKAFKA_TEST_CONF", settings).env("TEST_REPORT", report);
        command
            .env("TEST_KAFKA_VERSION", "4.3.0")
            .env("KAFKA_PATH", self.kafka.path())
            .env("BROKERS", broker);
        command.env("LD_LIBRARY_PATH", "../src:../src-cpp").env_remove("CI");
        Ok(command)
    }

    fn run(&self, brokers: &Brokers, job: &Job) -> Result<BTreeMap<String, State>> {
        let dir = tempfile::tempdir()?;
        let (report, log) = (dir.path().join("report.json"), dir.path().join("log"));
        let broker = if job.scenario == "default" { &brokers.creating } else { &brokers.strict };
        let mut command = self.program(broker, dir.path(), &report)?;
        command.env("TESTS", &job.number).env("TEST_SCENARIO", job.scenario);
        if let Some(part) = job.part {
            command.env("SUBTESTS", part);
        }
        let output = std::fs::File::create(&log)?;
        command.stdout(output.try_clone()?).stderr(output).process_group(0);
        let begun = Instant::now();
        let mut child = command.spawn()?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if begun.elapsed() > LIMIT {
                // With what it started, such as Java consumers.
                if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
                }
                child.wait()?;
                break None;
            }
            pause();
        };
        let log = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
        let outcomes = match (status, read_report(&report)) {
            (Some(_), Ok(states)) => judge(job, &states, &log),
            (None, _) => {
                BTreeMap::from([(job.name(&job.number), State::Failed(format!("still ran after {LIMIT:?}")))])
            }
            (Some(status), Err(_)) => {
                let why = failure(&log).unwrap_or_else(|| format!("ended with {status}"));
                BTreeMap::from([(job.name(&job.number), State::Failed(why))])
            }
        };
        for (test, state) in &outcomes {
            say(&format!("{}: {test}: {state:?} after {:.1} s", brokers.name, begun.elapsed().as_secs_f64()));
        }
        Ok(outcomes)
    }
}

impl Job {
    /// Whether one of the tests may come from it.
    fn chosen(&self, tests: &[String]) -> bool {
        let part = |test: &String| match (test.split_once('/'), self.part) {
            (Some(_), Some(_)) => test.ends_with(&self.name("")),
            (Some(_), None) => false,
            (None, _) => true,
        };
        tests.is_empty() || tests.iter().any(|test| test.contains(&self.number) && part(test))
    }

    fn name(&self, test: &str) -> String {
        match self.part {
            Some(part) => format!("{test}/{}", part.trim_end_matches(':').replace(' ', "-")),
            None => test.to_owned(),
        }
    }
}

/// What the report says of the tests with the job's number. What the program filters out for the sake of our own flags
/// is no result.
fn judge(job: &Job, states: &BTreeMap<String, String>, log: &str) -> BTreeMap<String, State> {
    let mut outcomes = BTreeMap::new();
    for (test, state) in states.iter().filter(|(test, _)| test.starts_with(&job.number)) {
        let state = match state.as_str() {
            // A part that is not there passes, too.
            "PASSED" if job.part.is_some_and(|part| !began(log, part)) => {
                State::Failed("the suite has no such part".to_owned())
            }
            "PASSED" => State::Passed,
            "SKIPPED" => match skipped(log, test) {
                Some(why) if !why.starts_with("Filtered due to") => State::Skipped(why),
                Some(_) | None => continue,
            },
            other => State::Failed(failure(log).unwrap_or_else(|| other.to_owned())),
        };
        outcomes.insert(job.name(test), state);
    }
    outcomes
}

/// Whether the log shows the heading of a part: `[ NAME… ]`.
fn began(log: &str, part: &str) -> bool {
    log.lines().any(|line| line.split_once("[ ").is_some_and(|(_, heading)| heading.contains(part)))
}

/// The first failure that the log tells.
fn failure(log: &str) -> Option<String> {
    let mut lines = log.lines().skip_while(|line| !line.contains("### Test \""));
    let (_, why) = (lines.next()?, lines.next()?);
    Some(why.chars().take(300).collect())
}

/// Why the log says that a test did not run. The name is padded: `[0092_mixed_msgver   /  0.0s] WARN: SKIPPING TEST: …`.
fn skipped(log: &str, test: &str) -> Option<String> {
    let of_test = |line: &&str| {
        ["", " "].iter().any(|pad| line.contains(&format!("[{test}{pad}/")))
            || line.contains(&format!("[{test}  "))
    };
    let (_, why) = log.lines().filter(of_test).find_map(|line| line.split_once("SKIPPING TEST: "))?;
    Some(plain(why))
}

/// Without what colours a terminal.
fn plain(text: &str) -> String {
    text.split('\u{1b}').next().unwrap_or_default().trim().to_owned()
}

/// `name → state` of a report. It is nearly JSON.
fn read_report(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path)?;
    let report: Value =
        serde_json::from_str(&text).with_context(|| format!("the report is no JSON: {text}"))?;
    let Some(tests) = report["tests"].as_object() else { bail!("the report has no tests: {text}") };
    Ok(tests
        .iter()
        .filter_map(|(name, test)| Some((name.clone(), test["state"].as_str()?.to_owned())))
        .collect())
}

/// The directory of librdkafka's sources, and the crate's version.
fn source() -> Result<(PathBuf, String)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = run_command(
        Command::new(cargo).args(["metadata", "--format-version", "1", "--locked"]).current_dir(root()),
    )?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let package = packages
        .iter()
        .find(|package| package["name"] == "rdkafka-sys")
        .context("rdkafka-sys is a dependency")?;
    let text = |key: &str| package[key].as_str().with_context(|| format!("rdkafka-sys has a {key}"));
    let manifest = Path::new(text("manifest_path")?);
    let dir = manifest.parent().context("a manifest lies in a directory")?.join("librdkafka");
    Ok((dir, text("version")?.to_owned()))
}

/// A directory that looks like Kafka's distribution as far as the tests see it.
fn distribution(jars: &Jars) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let bin = dir.path().join("bin");
    std::fs::create_dir_all(&bin)?;
    std::os::unix::fs::symlink(jars.dir(), dir.path().join("libs"))?;
    let jars = jars.class_path();
    let script = |name: &str, run: &str| {
        let path = bin.join(name);
        std::fs::write(
            &path,
            format!("#!/bin/sh\nexec java -Xmx256m -cp \"{jars}:$CLASSPATH\" {run} \"$@\"\n"),
        )?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
    };
    script("kafka-run-class.sh", "")?;
    script("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand")?;
    script("kafka-acls.sh", "org.apache.kafka.tools.AclCommand")?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\u{1b}[33m[0092_mixed_msgver           /  0.000s] WARN: SKIPPING TEST: MsgVersion 1 was removed\u{1b}[0m\n\
        \u{1b}[31m### Test \"0001_multiobj (part:3)\" failed at a.c:1:f() at Tue: ###\n\
        Test assertion failed: \"x\"\n";

    #[test]
    fn the_log_tells_why() {
        assert_eq!(skipped(LOG, "0092_mixed_msgver").as_deref(), Some("MsgVersion 1 was removed"));
        assert_eq!(skipped(LOG, "0001_multiobj"), None);
        assert_eq!(failure(LOG).as_deref(), Some("Test assertion failed: \"x\""));
    }

    #[test]
    fn only_the_tests_of_the_job_are_judged() {
        let job = Job { number: "0092".into(), scenario: "default", part: Some("do it:") };
        let states =
            [("0092_mixed_msgver", "SKIPPED"), ("0001_multiobj", "FAILED"), ("0092_other", "PASSED")];
        let states = states.map(|(test, state)| (test.to_owned(), state.to_owned())).into();
        let outcomes = judge(&job, &states, &format!("{LOG}[0092_other  / 0.1s] [ do it:17 ]"));
        let expected = [
            ("0092_mixed_msgver/do-it".to_owned(), State::Skipped("MsgVersion 1 was removed".into())),
            ("0092_other/do-it".to_owned(), State::Passed),
        ];
        assert_eq!(outcomes, expected.into());
        let without = judge(&job, &states, LOG);
        assert!(
            matches!(without["0092_other/do-it"], State::Failed(_)),
            "a part that never began is no pass"
        );
    }
}
