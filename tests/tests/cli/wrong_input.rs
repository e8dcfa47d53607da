//! Wrong input of every kind: one clear message, a non-zero exit, and nothing left behind.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use aqueduct_tests::process::{Start, binary, root};

fn aqueduct(dir: &Path, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary());
    command.args(args).current_dir(dir).stdin(Stdio::null());
    Ok(command.env_remove("DATABASE_URL").output()?)
}

/// Runs it, expects that exit code, and returns what it printed.
fn refused(dir: &Path, args: &[&str], code: i32) -> Result<String> {
    let output = aqueduct(dir, args)?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(code), "{args:?}: {} instead of {code}\n{text}", output.status);
    for word in ["panicked", "backtrace", "RUST_BACKTRACE"] {
        ensure!(!text.contains(word), "{args:?}: {text}");
    }
    Ok(text)
}

const RUN: [&str; 5] = ["run", "--listen", "127.0.0.1:0", "--rest", "127.0.0.1:0"];

#[test]
fn a_wrong_file_is_named_with_its_place_and_starts_nothing() {
    let cases = [
        ("", "p.yaml:1:1: this file is empty"),
        ("version: 1\npipeline: [\n", "broken yaml"),
        ("version: 1\npipelin: x\n", "p.yaml:2:1: unknown key `pipelin`; did you mean `pipeline`?"),
        (
            "version: 1\npipeline: x\nsource: { use: datagem }\n",
            "p.yaml:3:16: unknown source `datagem`; did you mean `datagen`?",
        ),
        (
            "version: 1\npipeline: x\nsource: { use: datagen, with: { raet: 3 } }\n",
            "p.yaml:3:33: unknown key `raet`; did you mean `rate`?",
        ),
        (
            "version: 1\npipeline: x\nsource: { use: datagen, with: { rate: fast } }\n",
            "p.yaml:3:39: `rate`: `fast` is not an integer",
        ),
        (
            "version: 1\npipeline: x\nsource: { use: postgres-cdc, with: { tables: [a.b], url: '${env:DATABASE_URL}' } }\n",
            "the environment variable `DATABASE_URL` is not set",
        ),
        (
            "version: 1\npipeline: x\nsource: { use: datagen, steps: [ { filter: 'value.status = 1' } ] }\n",
            "p.yaml:3:44: ",
        ),
        (
            "version: 1\npipeline: x\nsource: { use: datagen, steps: [ { use: wasm, with: { module: none.wasm } } ] }\n",
            "none.wasm",
        ),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    for (text, expect) in cases {
        std::fs::write(dir.path().join("p.yaml"), text).expect("written");
        let args: Vec<&str> = RUN.into_iter().chain(["p.yaml"]).collect();
        let shown = refused(dir.path(), &args, 2).expect("refused");
        assert!(shown.contains(expect), "{text}\nshows {shown}\ninstead of {expect}");
        assert!(!dir.path().join("aqueduct-data").exists(), "{text}: something was started");
    }
}

#[test]
fn check_reports_every_mistake_and_knows_the_examples() {
    let dir = tempfile::tempdir().expect("a directory");
    super::examples(dir.path()).expect("copied");
    let good = aqueduct(dir.path(), &["check", "configs/quickstart.yaml", "configs/postgres-to-s3.yaml"])
        .expect("runs");
    let shown = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(good.status.success(), "{shown}");
    assert!(shown.contains("`DATABASE_URL` is not set"), "{shown}");
    let bad = "version: 1\npipeline: x\nsource: { use: datagen, with: { rate: x, count: y } }\nsinks: { s: { use: s3 } }\n";
    std::fs::write(dir.path().join("bad.yaml"), bad).expect("written");
    let shown = refused(dir.path(), &["check", "bad.yaml", "none.yaml"], 2).expect("refused");
    for expect in
        ["`rate`: `x`", "`count`: `y`", "missing required key `bucket`", "none.yaml: cannot read this file"]
    {
        assert!(shown.contains(expect), "{shown}");
    }
    let json = refused(dir.path(), &["check", "--json", "bad.yaml"], 2).expect("refused");
    let report: serde_json::Value = serde_json::from_str(&json).expect("json");
    assert_eq!((&report["ok"], &report["errors"][0]["line"]), (&false.into(), &3.into()), "{json}");
}

#[test]
fn the_command_line_is_checked() {
    let dir = tempfile::tempdir().expect("a directory");
    let cases: [(&[&str], &str); 7] = [
        (&["run", "--listen", "9092"], "is not `host:port`"),
        (&["run", "--listen", "0.0.0.0:0"], "--advertise"),
        (&["broker", "--listen", "0.0.0.0:0", "--advertise", "a:1"], "--insecure"),
        (&["run", "--rest", "0.0.0.0:0"], "--insecure"),
        (&["run", "--shutdown-timeout", "soon"], "is not a duration"),
        (&["broker", "--config", "none.yaml"], "none.yaml: cannot read this file"),
        (&["rnu"], "unrecognized subcommand"),
    ];
    for (args, expect) in cases {
        let shown = refused(dir.path(), args, 2).expect("refused");
        assert!(shown.contains(expect), "{args:?} shows {shown}");
    }
    std::fs::write(dir.path().join("b.yaml"), "listen: 127.0.0.1:0\nnode: 1\n").expect("written");
    let shown = refused(dir.path(), &["broker", "--config", "b.yaml"], 2).expect("refused");
    assert!(shown.contains("b.yaml:2:1: ") && shown.contains("node"), "{shown}");
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let kafka =
        refused(dir.path(), &["run", "--listen", &address, "--rest", "127.0.0.1:0"], 1).expect("refused");
    assert!(kafka.contains(&address) && kafka.contains("--listen"), "{kafka}");
    let rest =
        refused(dir.path(), &["run", "--listen", "127.0.0.1:0", "--rest", &address], 1).expect("refused");
    assert!(rest.contains(&address) && rest.contains("--rest"), "{rest}");
}

#[test]
fn a_second_process_on_a_data_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut first = Start::broker(dir.path()).start().expect("starts");
    let shown = refused(dir.path(), &["broker", "--data-dir", "data", "--listen", "127.0.0.1:0"], 1)
        .expect("refused");
    assert!(shown.contains("data") && shown.contains("process"), "{shown}");
    assert!(first.terminate(Duration::from_secs(10)).expect("ends").success());
}

#[test]
fn random_bytes_on_every_port_disturb_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut process = Start::run(dir.path(), &[]).start().expect("starts");
    let rest = process.rest.trim_start_matches("http://").to_owned();
    fastrand::seed(7);
    for port in [process.kafka.clone(), rest.clone()] {
        for length in [1, 4, 5, 64, 4096, 100_000] {
            let bytes: Vec<u8> = (0..length).map(|_| fastrand::u8(..)).collect();
            let mut stream = TcpStream::connect(&port).expect("accepts");
            stream.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
            // It may be closed in the middle, which is an answer, too.
            stream.write_all(&bytes).and_then(|()| stream.read(&mut [0; 64])).ok();
        }
    }
    let mut stream = TcpStream::connect(&rest).expect("accepts");
    write!(stream, "GET / HTTP/1.1\r\nhost: {rest}\r\nconnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(process.terminate(Duration::from_secs(20)).expect("ends").success(), "{}", process.output());
    assert!(!process.output().contains("panicked"), "{}", process.output());
}

#[test]
fn completions_are_printed() {
    let shown = aqueduct(root(), &["completions", "bash"]).expect("runs");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("aqueduct"));
}
