//! Groups of at least three members that join, leave and are killed under load, over a kill of the broker. Every record
//! that was produced is processed, and no commit ever passes a record that nobody processed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::process::{Aqueduct, Start, eventually, root};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process};

use super::{CODECS, read_values, restart};

const PARTITIONS: i32 = 6;
/// A member that is killed holds its partitions for this long.
const SESSION_MS: &str = "3000";
/// A static member must be back within this.
const STATIC_SESSION_MS: &str = "15000";
/// Between the records of one codec.
const PAUSE: Duration = Duration::from_millis(8);
/// For whatever a client may take its time for: a JVM's start on a busy machine, a rebalance, a session.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn confluent_kafka_groups_lose_nothing() {
    python("confluent");
}

#[test]
fn kafka_python_groups_lose_nothing() {
    python("kafka-python");
}

#[test]
fn java_groups_lose_nothing() {
    let Some(classes) = aqueduct_tests::clients::java("java_groups_lose_nothing") else { return };
    check(&Client {
        name: "java",
        how: How::Words(vec![
            "java".into(),
            "-Xmx128m".into(),
            "-XX:+UseSerialGC".into(),
            "-cp".into(),
            classes,
            "Member".into(),
        ]),
    })
    .expect("every record is processed");
}

/// Debian's kcat brings an old librdkafka (2.0.2): the client in which a wrong answer shows first.
#[test]
fn kcat_groups_lose_nothing() {
    let Some(kcat) = aqueduct_tests::clients::kcat("kcat_groups_lose_nothing") else { return };
    check(&Client { name: "kcat", how: How::Kcat(kcat) }).expect("every record is processed");
}

fn python(client: &'static str) {
    let Some(python) = aqueduct_tests::clients::python(&format!("{client}_groups_lose_nothing")) else {
        return;
    };
    let script = root().join("tests/tests/clients/member.py").display().to_string();
    let words = vec![python.display().to_string(), script, client.to_owned()];
    check(&Client { name: client, how: How::Words(words) }).expect("every record is processed");
}

/// Records in each codec.
fn count() -> usize {
    std::env::var("AQUEDUCT_CLIENT_RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

fn check(client: &Client) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let settings = dir.path().join("broker.yaml");
    std::fs::write(&settings, format!("default_partitions: {PARTITIONS}\n"))?;
    let mut start = Start::broker(dir.path());
    start.args.extend(["--config".to_owned(), settings.display().to_string()]);
    let mut broker = Some(start.start()?);
    let kafka = format!("127.0.0.1:{}", start.kafka_port);
    let scene = Scene { client, kafka: &kafka, seen: Arc::default() };
    let done = scene.churn(&start, &mut broker);
    let done = done.and_then(|()| scene.seek()).and_then(|()| scene.static_members());
    done.with_context(|| {
        format!("{}; the broker said:\n{}", client.name, broker.map_or(String::new(), |b| b.output()))
    })
}

/// A client, and how it is called.
struct Client {
    name: &'static str,
    how: How,
}

enum How {
    /// `member.py` or `Member.java`: these words, then what `member.py` describes.
    Words(Vec<String>),
    Kcat(PathBuf),
}

impl Client {
    fn words(&self, args: &[&str]) -> Option<Command> {
        let How::Words(words) = &self.how else { return None };
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(args);
        Some(command)
    }

    /// Records that may be committed and not processed. kcat commits in the background what it is about to print, so
    /// that a SIGKILL between the two takes one.
    fn forgiven(&self) -> usize {
        usize::from(matches!(self.how, How::Kcat(_)))
    }

    fn kcat(&self, kafka: &str) -> Command {
        let How::Kcat(path) = &self.how else { unreachable!("the other clients are called by words") };
        let mut command = Command::new(path);
        // -E: the end of a connection does not end it.
        command.args(["-E", "-b", kafka, "-f", "R %p %o %s\\n"]);
        command
    }

    fn member(&self, kafka: &str, group: &str, session: &str, instance: Option<&str>) -> Command {
        let args = ["consume", kafka, TOPIC, group, session].into_iter().chain(instance).collect::<Vec<_>>();
        if let Some(command) = self.words(&args) {
            return command;
        }
        let mut command = self.kcat(kafka);
        // It commits in the background what it has handed out, so a line must be out before the next record is taken.
        command.arg("-u");
        for (key, value) in [
            ("auto.offset.reset", "earliest"),
            ("session.timeout.ms", session),
            ("heartbeat.interval.ms", "500"),
            ("auto.commit.interval.ms", "1000"),
            ("fetch.wait.max.ms", "100"),
        ] {
            command.args(["-X", &format!("{key}={value}")]);
        }
        if let Some(instance) = instance {
            command.args(["-X", &format!("group.instance.id={instance}")]);
        }
        command.args(["-G", group, TOPIC]);
        command
    }
}

const TOPIC: &str = "load";

/// What members processed: the value at each offset of each partition.
type Seen = Arc<Mutex<BTreeMap<i32, BTreeMap<i64, String>>>>;

struct Scene<'a> {
    client: &'a Client,
    kafka: &'a str,
    seen: Seen,
}

impl Scene<'_> {
    fn churn(&self, start: &Start, broker: &mut Option<Aqueduct>) -> Result<()> {
        let total = count() * CODECS.len();
        let join = || self.join("churn", SESSION_MS, None);
        let (killed, left, bereaved) = (join()?, join()?, join()?);
        let producers = self.produce()?;
        let reached = |tenths: usize| {
            let what = format!("{tenths} tenths of the records are processed");
            eventually(&what, PATIENCE, || self.processed() >= total * tenths / 10)
        };
        reached(1)?;
        eventually("the first member has records", PATIENCE, || killed.records() > 0)?;
        killed.kill()?;
        self.commits_are_behind("churn")?;
        let second = join()?;
        reached(3)?;
        eventually("the second member has records", PATIENCE, || left.records() > 0)?;
        left.leave()?;
        self.commits_are_behind("churn")?;
        let third = join()?;
        reached(5)?;
        restart(start, broker, true)?;
        eventually("the third member has records", PATIENCE, || bereaved.records() > 0)?;
        reached(6)?;
        bereaved.kill()?;
        let last = join()?;
        for producer in producers {
            producer.finish()?;
        }
        reached(10)?;
        eventually("the last member has partitions", PATIENCE, || {
            last.assigned().is_some_and(|p| !p.is_empty())
        })?;
        self.commits_are_behind("churn")?;
        for member in [second, third, last] {
            member.leave()?;
        }
        self.commits_are_behind("churn")?;
        self.everything_once()
    }

    /// The topic holds each value once, and all its records were processed.
    fn everything_once(&self) -> Result<()> {
        let values = read_values(self.kafka, TOPIC)?;
        for codec in CODECS {
            let wrong: Vec<_> =
                (0..count()).filter(|i| values.get(&format!("{codec}-{i}")) != Some(&1)).collect();
            ensure!(wrong.is_empty(), "{codec}: not in the topic exactly once: {wrong:?}");
        }
        ensure!(values.len() == count() * CODECS.len(), "{} different values in the topic", values.len());
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let processed: BTreeSet<&String> = seen.values().flat_map(BTreeMap::values).collect();
        let missing: Vec<_> = values.keys().filter(|value| !processed.contains(value)).collect();
        ensure!(missing.len() <= self.client.forgiven(), "never processed: {missing:?}");
        Ok(())
    }

    fn seek(&self) -> Result<()> {
        let partition = 0;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).cloned();
        let seen = seen.context("partition 0 has records")?;
        let middle = seen.len() as i64 / 2;
        let targets = [middle, 0, middle];
        let output = match self.client.words(&["seek", self.kafka, TOPIC, "0", &middle.to_string()]) {
            Some(command) => lines_of(command)?,
            None => targets
                .iter()
                .map(|target| {
                    let mut command = self.client.kcat(self.kafka);
                    command.args(["-C", "-t", TOPIC, "-p", "0", "-c", "1", "-o", &target.to_string()]);
                    lines_of(command)
                })
                .collect::<Result<Vec<_>>>()?
                .concat(),
        };
        let expected: Vec<String> =
            targets.iter().map(|target| format!("R {partition} {target} {}", seen[target])).collect();
        let records: Vec<String> = output.into_iter().filter(|line| line.starts_with("R ")).collect();
        ensure!(records == expected, "after seeking came {records:?} instead of {expected:?}");
        Ok(())
    }

    /// A static member that is killed and comes back within its session has the same partitions, and the others notice
    /// nothing.
    fn static_members(&self) -> Result<()> {
        let join = |instance| self.join("static", STATIC_SESSION_MS, Some(instance));
        let members = [join("one")?, join("two")?, join("three")?];
        let all = || {
            let parts: Vec<Vec<i32>> = members.iter().filter_map(Member::assigned).collect();
            let mut flat = parts.concat();
            flat.sort_unstable();
            (parts.len() == 3
                && parts.iter().all(|part| part.len() == 2)
                && flat == (0..PARTITIONS).collect::<Vec<_>>())
            .then_some(parts)
        };
        eventually("three static members share the partitions", PATIENCE, || all().is_some())?;
        let before = all().context("they still do")?;
        let [one, two, three] = members;
        let (one_was, two_was) = (one.assignments(), two.assignments());
        three.kill()?;
        let three = join("three")?;
        eventually("the static member is back", PATIENCE, || three.assigned().is_some())?;
        ensure!(
            three.assigned().as_ref() == before.get(2),
            "back with {:?} instead of {before:?}",
            three.assigned()
        );
        ensure!(
            (one.assignments(), two.assignments()) == (one_was, two_was),
            "the others were assigned anew when a static member came back"
        );
        for member in [one, two, three] {
            member.leave()?;
        }
        Ok(())
    }

    fn join(&self, group: &str, session: &str, instance: Option<&str>) -> Result<Member> {
        Member::start(self.client.member(self.kafka, group, session, instance), &self.seen)
    }

    fn produce(&self) -> Result<Vec<Producer>> {
        let (count, pause) = (count(), PAUSE.as_millis().to_string());
        if let Some(command) = self.client.words(&["produce", self.kafka, TOPIC, &count.to_string(), &pause])
        {
            return Ok(vec![Producer::start(command, None)?]);
        }
        CODECS
            .iter()
            .map(|codec| {
                let mut command = self.client.kcat(self.kafka);
                command.args(["-P", "-t", TOPIC, "-z", codec, "-K", ":"]);
                for setting in ["enable.idempotence=true", "message.timeout.ms=120000", "linger.ms=20"] {
                    command.args(["-X", setting]);
                }
                Producer::start(command, Some(codec))
            })
            .collect()
    }

    /// Different records that were processed.
    fn processed(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).values().map(BTreeMap::len).sum()
    }

    /// What is committed now was processed before; its line may still be on its way here.
    fn commits_are_behind(&self, group: &str) -> Result<()> {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.kafka).set("group.id", group).create()?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(TOPIC, 0, PARTITIONS - 1);
        for element in consumer.committed_offsets(partitions, PATIENCE)?.elements() {
            let Offset::Offset(committed) = element.offset() else { continue };
            let partition = element.partition();
            let missing = || {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                let processed = seen.get(&partition);
                let missing = |offset: &i64| !processed.is_some_and(|records| records.contains_key(offset));
                (0..committed).filter(missing).nth(self.client.forgiven())
            };
            let done = eventually("committed records are processed", Duration::from_secs(10), || {
                missing().is_none()
            });
            let detail = || {
                format!(
                    "partition {partition}: `{committed}` is committed, `{:?}` was never processed",
                    missing()
                )
            };
            done.with_context(detail)?;
        }
        Ok(())
    }
}

/// One member of a group, as a process.
struct Member {
    child: Child,
    own: Arc<Mutex<Own>>,
    readers: Vec<JoinHandle<()>>,
}

/// What one member said.
#[derive(Default)]
struct Own {
    records: usize,
    assigned: Vec<Vec<i32>>,
    /// A record at an offset at which another member saw another one.
    wrong: Option<String>,
    lines: Vec<String>,
}

impl Member {
    fn start(mut command: Command, seen: &Seen) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let own = Arc::<Mutex<Own>>::default();
        let output = child.stdout.take().context("its output is a pipe")?;
        let errors = child.stderr.take().context("its errors are a pipe")?;
        let readers = vec![read(output, &own, seen), read(errors, &own, seen)];
        Ok(Self { child, own, readers })
    }

    fn records(&self) -> usize {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).records
    }

    fn assigned(&self) -> Option<Vec<i32>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).assigned.last().cloned()
    }

    fn assignments(&self) -> usize {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).assigned.len()
    }

    fn kill(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "a member ended by itself: {}", self.said());
        self.child.kill()?;
        self.end().map(|_| ())
    }

    /// Ends it in order, so that it leaves the group.
    fn leave(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "a member ended by itself: {}", self.said());
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("a child has a pid")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.end()?;
        ensure!(status.success(), "a member that was told to stop ended with {status}: {}", self.said());
        Ok(())
    }

    fn end(&mut self) -> Result<ExitStatus> {
        let mut status = None;
        eventually("a member ends", PATIENCE, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        for reader in self.readers.drain(..) {
            reader.join().ok().context("its lines were read")?;
        }
        let wrong = self.own.lock().unwrap_or_else(PoisonError::into_inner).wrong.take();
        ensure!(wrong.is_none(), "two records at one offset: {wrong:?}");
        status.context("it ended")
    }

    fn said(&self) -> String {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Takes in the lines of one member.
fn read(stream: impl Read + Send + 'static, own: &Arc<Mutex<Own>>, seen: &Seen) -> JoinHandle<()> {
    let (own, seen) = (Arc::clone(own), Arc::clone(seen));
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        // A line that a kill cut short says nothing: its value would be wrong.
        while stream.read_line(&mut line).is_ok() && line.ends_with('\n') {
            let line = std::mem::take(&mut line).trim_end().to_owned();
            let record = record(&line);
            let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((partition, offset, value)) = record {
                own.records += 1;
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                let known =
                    seen.entry(partition).or_default().entry(offset).or_insert_with(|| value.to_owned());
                if known != value {
                    own.wrong = Some(format!("{line}, before: {known}"));
                }
            } else if let Some(partitions) = assignment(&line) {
                own.assigned.push(partitions);
            } else if own.lines.len() < 100 {
                own.lines.push(line);
            }
        }
    })
}

/// `R partition offset value`.
fn record(line: &str) -> Option<(i32, i64, &str)> {
    let mut words = line.strip_prefix("R ")?.splitn(3, ' ');
    let (partition, offset, value) =
        (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
    Some((partition, offset, value))
}

/// `A 0,1` of our own members, or kcat's `% Group g rebalanced (memberid m): assigned: load [0], load [1]`.
fn assignment(line: &str) -> Option<Vec<i32>> {
    let numbers = |text: &str, of: fn(char) -> bool| -> Vec<i32> {
        let mut numbers: Vec<i32> = text.split(of).filter_map(|word| word.trim().parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    };
    if let Some(list) = line.strip_prefix("A ") {
        return Some(numbers(list, |c| c == ','));
    }
    let (_, list) = line.split_once(": assigned: ")?;
    Some(numbers(list, |c| c == '[' || c == ']'))
}

/// A producer, as a process.
struct Producer {
    child: Child,
    feeder: Option<JoinHandle<std::io::Result<()>>>,
}

impl Producer {
    /// With a codec, its records are written to the process as lines `key:value`.
    fn start(mut command: Command, codec: Option<&'static str>) -> Result<Self> {
        command.stdin(if codec.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let feeder = child.stdin.take().zip(codec).map(|(mut input, codec)| {
            std::thread::spawn(move || {
                for i in 0..count() {
                    writeln!(input, "{}:{codec}-{i}", i % 50)?;
                    std::thread::park_timeout(PAUSE);
                }
                Ok(())
            })
        });
        Ok(Self { child, feeder })
    }

    /// Waits until all is acknowledged.
    fn finish(mut self) -> Result<()> {
        if let Some(feeder) = self.feeder.take() {
            feeder.join().ok().context("it was fed")??;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "a producer ended with {status}");
        Ok(())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn lines_of(mut command: Command) -> Result<Vec<String>> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}
