//! Topics, groups, settings and records from the command line, against a running broker.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use aqueduct_tests::process::{Aqueduct, Start, binary, free_port};
use aqueduct_tests::topic;
use serde_json::{Value, json};

/// A broker and its command line.
struct Cli {
    broker: Aqueduct,
    _dir: tempfile::TempDir,
}

impl Cli {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let broker = Start::broker(dir.path()).start().expect("starts");
        Self { broker, _dir: dir }
    }

    /// Runs a command with this input.
    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        run(&self.broker.kafka, args, input)
    }

    /// What a command that works prints.
    fn text(&self, args: &[&str], input: &[u8]) -> String {
        let output = self.run(args, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {}\n{errors}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let text = self.text(&args, b"");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}"))
    }

    /// What a command that fails with this code says.
    fn refused(&self, args: &[&str], input: &[u8], code: i32) -> String {
        let output = self.run(args, input);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(!errors.contains("panicked"), "{args:?}: {errors}");
        errors
    }

    /// Records of a topic as JSON, sorted by partition and offset.
    fn records(&self, args: &[&str]) -> Vec<Value> {
        let args: Vec<&str> = ["consume"].iter().chain(args).copied().chain(["--json", "-e"]).collect();
        let text = self.text(&args, b"");
        let mut records: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
        records.sort_by_key(|record| (record["partition"].as_i64(), record["offset"].as_i64()));
        records
    }

    /// A topic of three partitions with ten records each; record N of a partition has the time 1,000,000 + N.
    fn numbers(&self) {
        // The times are old.
        self.text(&["topics", "create", "numbers", "-p", "3", "-c", "retention.ms=-1"], b"");
        let mut lines = String::new();
        for partition in 0..3 {
            for n in 0..10 {
                let value = format!("{partition}.{n}");
                let record =
                    json!({ "key": "k", "value": value, "partition": partition, "timestamp": 1_000_000 + n });
                lines.push_str(&format!("{record}\n"));
            }
        }
        self.text(&["produce", "numbers", "--input", "json"], lines.as_bytes());
    }
}

fn run(kafka: &str, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(binary());
    command.args(args).env("AQUEDUCT_BROKERS", kafka);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("runs");
    let mut stdin = child.stdin.take().expect("piped");
    // One that ends before it has read everything is seen by its exit code.
    stdin.write_all(input).ok();
    drop(stdin);
    child.wait_with_output().expect("ends")
}

fn values(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["value"].as_str().expect("text")).collect()
}

#[test]
fn binary_keys_headers_and_tombstones_come_back_as_they_were() {
    let cli = Cli::start();
    cli.text(&["topics", "create", "bytes"], b"");
    let lines = [
        json!({ "key_base64": "//4A", "value_base64": "AAEC/w==", "headers": [
            { "name": "h", "value": "1" }, { "name": "h", "value_base64": "/w==" }, { "name": "n", "value": null },
        ] }),
        json!({ "key": "gone", "value": null }),
        json!({ "key": null, "value": "" }),
        json!({ "key": "", "value": "größe\n\t\u{0}" }),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    cli.text(&["produce", "bytes", "--input", "json"], text.as_bytes());
    let seen = topic::read(&cli.broker.kafka, "bytes").expect("reads");
    assert_eq!(seen[0].key.as_deref(), Some(&b"\xff\xfe\0"[..]));
    assert_eq!(seen[0].value.as_deref(), Some(&b"\0\x01\x02\xff"[..]));
    assert_eq!((seen[1].value.as_deref(), seen[2].key.as_deref()), (None, None));
    assert_eq!((seen[2].value.as_deref(), seen[3].key.as_deref()), (Some(&b""[..]), Some(&b""[..])));
    // Written from what was read, it is the same again.
    cli.text(&["topics", "create", "copy"], b"");
    let printed = cli.text(&["consume", "bytes", "-e", "--json"], b"");
    cli.text(&["produce", "copy", "--input", "json"], printed.as_bytes());
    assert_eq!(topic::read(&cli.broker.kafka, "copy").expect("reads"), seen);
    let strip = |mut records: Vec<Value>| {
        records.iter_mut().for_each(|record| record["topic"] = Value::Null);
        records
    };
    assert_eq!(strip(cli.records(&["copy"])), strip(cli.records(&["bytes"])));
}

#[test]
fn lines_become_records_and_each_failure_names_its_line() {
    let cli = Cli::start();
    cli.text(&["topics", "create", "lines", "-p", "2", "-c", "max.message.bytes=2000"], b"");
    let flags = ["produce", "lines", "-K", ":", "-H", "from=test", "-p", "1", "-Z", "-z", "lz4", "--json"];
    let large = vec![b'x'; 5000];
    let input = [&b"a:1\nno key\nb:\nc:"[..], &large, b"\nd:4"].concat();
    // Compression would make the large one small.
    let args: Vec<&str> = flags.iter().map(|flag| if *flag == "lz4" { "none" } else { flag }).collect();
    let output = cli.run(&args, &input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("line 2: the key separator is not in it"), "{errors}");
    assert!(errors.contains("line 4: ") && errors.contains("max.message.bytes"), "{errors}");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!((&summary["delivered"], &summary["failed"]), (&json!(3), &json!(2)), "{summary}");
    assert_eq!(summary["partitions"][0]["partition"], json!(1), "{summary}");
    let shown = cli.text(&["consume", "lines", "-e", "-f", "%p|%k|%s|%S|%h\\n"], b"");
    assert_eq!(shown, "1|a|1|1|from=test\n1|b||-1|from=test\n1|d|4|1|from=test\n");
    let output = cli.run(&["produce", "lines", "-k", "k", "-D", ";", "-z", "zstd"], b"x;y;");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.contains("2 records delivered to `lines`"), "{errors}");
    let wrong =
        cli.refused(&["produce", "lines", "--input", "json"], b"{\"value\": 1}\n\n{\"valeu\": 2}\n", 1);
    assert!(wrong.contains("line 3: unknown field `valeu`; did you mean `value`?"), "{wrong}");
    assert!(wrong.contains("1 record not delivered"), "{wrong}");
}

#[test]
fn files_are_read_one_after_the_other_or_each_as_a_record() {
    let cli = Cli::start();
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(dir.path().join("a"), "1\n2\n").expect("written");
    std::fs::write(dir.path().join("b"), "3").expect("written");
    cli.text(&["topics", "create", "files"], b"");
    cli.text(&["produce", "files", &path("a"), &path("b")], b"");
    cli.text(&["produce", "files", &path("a"), "--input", "files"], b"");
    assert_eq!(values(&cli.records(&["files"])), ["1", "2", "3", "1\n2\n"]);
    let wrong = cli.refused(&["produce", "files", &path("a"), &path("none")], b"", 2);
    assert!(wrong.contains("none: No such file"), "{wrong}");
    assert_eq!(cli.records(&["files"]).len(), 4, "nothing was sent");
}

#[test]
fn reading_begins_and_ends_where_it_is_told_to() {
    let cli = Cli::start();
    cli.numbers();
    let shown = |args: &[&str]| {
        let args: Vec<&str> = ["numbers"].iter().chain(args).copied().collect();
        values(&cli.records(&args)).join(" ")
    };
    assert_eq!(cli.records(&["numbers"]).len(), 30);
    assert_eq!(shown(&["-o", "-2"]), "0.8 0.9 1.8 1.9 2.8 2.9");
    assert_eq!(shown(&["-o", "-50", "-p", "1", "--until", "@1000001"]), "1.0");
    assert_eq!(shown(&["-o", "8"]), "0.8 0.9 1.8 1.9 2.8 2.9");
    assert_eq!(shown(&["-o", "@1000009"]), "0.9 1.9 2.9");
    assert_eq!(shown(&["-o", "1970-01-01T00:16:40.009Z", "-p", "0,2"]), "0.9 2.9");
    assert_eq!(shown(&["-o", "@1000002", "--until", "@1000003"]), "0.2 1.2 2.2");
    assert_eq!(shown(&["-o", "1h ago"]), "");
    assert_eq!(shown(&["-o", "end"]), "");
    let counted = cli.text(&["consume", "numbers", "-c", "7"], b"");
    assert_eq!(counted.lines().count(), 7);
    assert_eq!(cli.records(&["num.*", "--regex"]).len(), 30);
    let beyond = cli.run(&["consume", "numbers", "-o", "99", "-e"], b"");
    assert!(String::from_utf8_lossy(&beyond.stderr).contains("not 99"));
    for (args, expect) in [
        (&["consume", "nubmers", "-e"][..], "did you mean `numbers`?"),
        (&["consume", "x.*", "--regex", "-e"], "no topic matches `x.*`"),
        (&["consume", "numbers", "-p", "3", "-e"], "has no partition 3; it has 0 to 2"),
    ] {
        let wrong = cli.refused(args, b"", 1);
        assert!(wrong.contains(expect), "{wrong}");
    }
}

#[test]
fn what_is_written_later_is_seen_by_who_waits() {
    let cli = Cli::start();
    cli.text(&["topics", "create", "live"], b"");
    let mut command = Command::new(binary());
    command.args(["consume", "live", "-o", "beginning", "-c", "3", "-b", &cli.broker.kafka]);
    let waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    cli.text(&["produce", "live"], b"1\n");
    cli.text(&["produce", "live"], b"2\n3\n");
    let output = waiting.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n2\n3\n");
}

#[test]
fn a_group_commits_what_was_printed_and_its_offsets_can_be_set() {
    let cli = Cli::start();
    cli.numbers();
    let read = cli.text(&["consume", "numbers", "-g", "readers", "-c", "30"], b"");
    assert_eq!(read.lines().count(), 30);
    let described = cli.json(&["groups", "describe", "readers"]);
    assert_eq!((&described[0]["state"], &described[0]["lag"]), (&json!("Empty"), &json!(0)), "{described}");
    cli.text(&["produce", "numbers", "-p", "0"], b"late\n");
    assert_eq!(cli.json(&["groups", "describe", "readers"])[0]["lag"], json!(1));
    assert_eq!(cli.text(&["consume", "numbers", "-g", "readers", "-e"], b""), "late\n");
    let reset = ["groups", "reset-offsets", "readers", "--topic", "numbers:0,1", "--to", "-3"];
    let plan = cli.json(&reset);
    assert_eq!(
        (&plan["changed"], &plan["partitions"][0]["new_offset"]),
        (&json!(false), &json!(8)),
        "{plan}"
    );
    assert_eq!(cli.json(&["groups", "describe", "readers"])[0]["lag"], json!(0), "nothing was changed");
    cli.text(&[&reset[..], &["--yes"]].concat(), b"");
    let described = cli.json(&["groups", "describe", "readers"]);
    assert_eq!(described[0]["lag"], json!(6), "{described}");
    let by_time =
        ["groups", "reset-offsets", "readers", "--all-topics", "--to", "@1000004", "--yes", "--json"];
    let done: Value = serde_json::from_str(&cli.text(&by_time, b"")).expect("json");
    let offsets: Vec<_> = (0..3).map(|at| done["partitions"][at]["new_offset"].as_i64()).collect();
    assert_eq!(offsets, [Some(4), Some(4), Some(4)], "{done}");
    cli.text(&["groups", "delete-offsets", "readers", "-t", "numbers:2", "--yes"], b"");
    let described = cli.json(&["groups", "describe", "readers"]);
    assert_eq!(described[0]["partitions"].as_array().map(Vec::len), Some(2), "{described}");
    let listed = cli.json(&["groups", "ls"]);
    assert_eq!((&listed[0]["group"], &listed[0]["state"]), (&json!("readers"), &json!("Empty")), "{listed}");
    assert!(cli.refused(&["groups", "describe", "raeders"], b"", 1).contains("did you mean `readers`?"));
    assert!(cli.refused(&["groups", "delete", "readers"], b"", 2).contains("say --yes"));
    cli.text(&["groups", "delete", "readers", "--yes"], b"");
    assert_eq!(cli.json(&["groups", "ls"]), json!([]));
}

#[test]
fn a_group_with_members_is_shown_with_them_and_not_reset() {
    let cli = Cli::start();
    cli.numbers();
    let mut command = Command::new(binary());
    command.args(["consume", "numbers", "-g", "busy", "-b", &cli.broker.kafka, "-X", "client.id=me"]);
    let mut member = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
    let mut described = Value::Null;
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while described[0]["lag"] != json!(0) || described[0]["state"] != json!("Stable") {
        assert!(std::time::Instant::now() < until, "{described}");
        let output = cli.run(&["groups", "describe", "busy", "--json"], b"");
        described = serde_json::from_slice(&output.stdout).unwrap_or_default();
    }
    assert_eq!(described[0]["members"][0]["client_id"], json!("me"), "{described}");
    assert_eq!(described[0]["members"][0]["partitions"].as_array().map(Vec::len), Some(3), "{described}");
    let wrong = ["groups", "reset-offsets", "busy", "--all-topics", "--to", "earliest", "--yes"];
    assert!(cli.refused(&wrong, b"", 1).contains("stop them first"));
    assert!(cli.refused(&["groups", "delete", "busy", "--yes"], b"", 1).contains("stop them first"));
    let pid = rustix::process::Pid::from_raw(i32::try_from(member.id()).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
    assert!(member.wait().expect("ends").success(), "an interrupted reader has done what it was asked to");
    assert_eq!(cli.json(&["groups", "describe", "busy"])[0]["state"], json!("Empty"), "it has left");
}

#[test]
fn topics_are_made_changed_trimmed_and_deleted() {
    let cli = Cli::start();
    let made = cli.json(&["topics", "create", "a", "b", "-p", "2", "-c", "retention.ms=1000000"]);
    assert_eq!((&made[0]["topic"], &made[0]["partitions"]), (&json!("a"), &json!(2)), "{made}");
    assert!(cli.refused(&["topics", "create", "a"], b"", 1).contains("exist"));
    cli.text(&["topics", "create", "a", "--if-not-exists"], b"");
    cli.text(&["topics", "create", "c", "--dry-run"], b"");
    assert!(cli.refused(&["topics", "create", "d", "-c", "retention.sm=1"], b"", 1).contains("retention.sm"));
    cli.text(
        &["topics", "alter", "a", "-p", "3", "--set", "cleanup.policy=compact", "--unset", "retention.ms"],
        b"",
    );
    // The second half is refused, so the first is not done.
    cli.refused(&["topics", "alter", "a", "--set", "retention.ms=5", "-p", "1"], b"", 1);
    let described = cli.json(&["topics", "describe", "a"]);
    assert_eq!(described[0]["configs"], json!({ "cleanup.policy": "compact" }), "{described}");
    assert_eq!(described[0]["partitions"].as_array().map(Vec::len), Some(3), "{described}");
    let listed = cli.json(&["topics", "ls"]);
    let names: Vec<_> = listed.as_array().expect("a list").iter().map(|topic| &topic["topic"]).collect();
    assert_eq!(names, ["a", "b"], "{listed}");
    assert_eq!(
        cli.text(&["topics", "ls", "b"], b""),
        "TOPIC  PARTITIONS  REPLICAS\nb               2         1\n"
    );
    cli.text(&["produce", "b", "-p", "1"], b"1\n2\n3\n");
    assert!(cli.refused(&["topics", "trim", "b", "--before", "2", "-p", "1"], b"", 2).contains("say --yes"));
    cli.text(&["topics", "trim", "b", "--before", "2", "-p", "1", "--yes"], b"");
    let offsets = cli.json(&["topics", "offsets", "b"]);
    assert_eq!((&offsets[1]["first_offset"], &offsets[1]["end_offset"]), (&json!(2), &json!(3)), "{offsets}");
    assert_eq!(values(&cli.records(&["b"])), ["3"]);
    cli.text(&["topics", "trim", "b", "--before", "end", "--yes"], b"");
    assert!(cli.records(&["b"]).is_empty());
    let wrong = cli.refused(&["topics", "trim", "b", "--before", "9", "-p", "1", "--yes"], b"", 1);
    assert!(wrong.contains("ends at offset 3"), "{wrong}");
    assert!(cli.refused(&["topics", "delete", "a", "x", "--yes"], b"", 1).contains("there is no topic `x`"));
    cli.text(&["topics", "delete", "a", "b", "--yes"], b"");
    assert_eq!(cli.json(&["topics", "ls"]), json!([]));
}

#[test]
fn settings_are_shown_with_their_source_and_changed() {
    let cli = Cli::start();
    cli.text(&["topics", "create", "a"], b"");
    let one = |key: &str| cli.json(&["configs", "describe", "topic", "a", key])[0].clone();
    assert_eq!(one("retention.ms")["source"], json!("DEFAULT_CONFIG"));
    cli.text(&["configs", "set", "topic", "a", "retention.ms=7", "--dry-run"], b"");
    assert_eq!(one("retention.ms")["source"], json!("DEFAULT_CONFIG"));
    cli.text(&["configs", "set", "topic", "a", "retention.ms=7", "cleanup.policy=compact"], b"");
    let set = one("retention.ms");
    assert_eq!((&set["value"], &set["source"]), (&json!("7"), &json!("DYNAMIC_TOPIC_CONFIG")), "{set}");
    let changed = cli.json(&["configs", "describe", "topic", "a", "--changed"]);
    assert_eq!(changed.as_array().map(Vec::len), Some(2), "{changed}");
    cli.text(&["configs", "unset", "topic", "a", "retention.ms"], b"");
    assert_eq!(one("retention.ms")["source"], json!("DEFAULT_CONFIG"));
    let wrong = cli.refused(&["configs", "set", "topic", "a", "retentoin.ms=7"], b"", 1);
    assert!(wrong.contains("did you mean `retention.ms`?"), "{wrong}");
    assert!(cli.refused(&["configs", "describe", "broker", "x"], b"", 2).contains("broker id"));
    let id = cli.json(&["cluster", "describe"])["brokers"][0]["id"].to_string();
    assert!(!cli.json(&["configs", "describe", "broker", &id]).as_array().expect("a list").is_empty());
}

#[test]
fn the_cluster_says_who_it_is() {
    let cli = Cli::start();
    let about = cli.json(&["cluster", "describe", "--api-versions"]);
    assert_eq!(about["brokers"].as_array().map(Vec::len), Some(1), "{about}");
    assert_eq!(about["controller"], about["brokers"][0]["id"], "{about}");
    let apis = about["api_versions"].as_array().expect("a list");
    assert!(apis.iter().any(|api| api["request"] == json!("Produce")), "{about}");
    assert!(cli.text(&["cluster", "describe"], b"").contains("cluster     "));
}

#[test]
fn a_cluster_that_cannot_be_reached_is_named_with_the_reason() {
    let address = format!("127.0.0.1:{}", free_port());
    for args in [&["topics", "ls"][..], &["consume", "t"], &["produce", "t"], &["groups", "ls"]] {
        let output = run(&address, args, b"x\n");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(
            errors.contains(&address) && errors.contains("refused") && errors.contains("--brokers"),
            "{errors}"
        );
    }
    // Somebody listens and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let output = run(&address, &["topics", "ls", "--timeout", "300ms"], b"");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("did not answer") && errors.contains(&address), "{errors}");
}

#[test]
fn wrong_flags_are_refused_before_anything_is_asked() {
    let address = "127.0.0.1:1";
    let cases: [(&[&str], &str); 9] = [
        (&["topics", "lst"], "unrecognized subcommand"),
        (&["topics", "alter", "t"], "required"),
        (&["consume", "t", "-f", "%q"], "`%q` is not known"),
        (&["consume", "t", "-o", "soon"], "is no position"),
        (&["consume", "t", "-g", "g", "-o", "5"], "reset-offsets"),
        (&["consume", "a,b", "-g", "g", "-e"], "one topic"),
        (&["topics", "ls", "-X", "no.such=1"], "no.such"),
        (&["topics", "ls", "-X", "security.protocol=SASL_PLAINTEXT"], "SCRAM-SHA-256"),
        (&["groups", "reset-offsets", "g", "--to", "earliest"], "--topic"),
    ];
    for (args, expect) in cases {
        let output = run(address, args, b"");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
        assert!(errors.contains(expect), "{args:?}: {errors}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let cli = Cli::start();
    cli.text(&["topics", "create", "many"], b"");
    let lines: String = (0..50_000).map(|n| format!("{n}\n")).collect();
    cli.text(&["produce", "many"], lines.as_bytes());
    for args in [&["consume", "many", "-e"][..], &["completions", "bash"], &["cluster", "describe"]] {
        let mut command = Command::new(binary());
        command.args(args).env("AQUEDUCT_BROKERS", &cli.broker.kafka);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{args:?}: {} {errors}", output.status);
    }
}

#[test]
fn every_command_that_answers_has_json() {
    let commands: [&[&str]; 20] = [
        &["check"],
        &["run"],
        &["broker"],
        &["topics", "ls"],
        &["topics", "describe"],
        &["topics", "create"],
        &["topics", "alter"],
        &["topics", "delete"],
        &["topics", "trim"],
        &["topics", "offsets"],
        &["groups", "ls"],
        &["groups", "describe"],
        &["groups", "delete"],
        &["groups", "reset-offsets"],
        &["groups", "delete-offsets"],
        &["produce"],
        &["consume"],
        &["configs", "describe"],
        &["configs", "set"],
        &["cluster", "describe"],
    ];
    for command in commands {
        let args: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let help = run("127.0.0.1:1", &args, b"");
        assert!(String::from_utf8_lossy(&help.stdout).contains("--json"), "{command:?}");
    }
}
