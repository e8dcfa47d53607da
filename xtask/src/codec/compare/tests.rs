use std::io::Write as _;

use super::*;
use crate::codec::read_notation;

const PING: &str = r#"{ // a comment, and "more" of it
  "apiKey": 99, "type": "request", "name": "PingRequest", "validVersions": "0-4",
  "flexibleVersions": "2+",
  "fields": [
    { "name": "WaitMs", "type": "int32", "versions": "0+", "default": "0x10", "about": "not // a comment" },
    { "name": "Gone", "type": "bool", "versions": "4+" },
    { "name": "Names", "type": "[]Name", "versions": "1+", "nullableVersions": "2+", "fields": [
      { "name": "Name", "type": "string", "versions": "0+", "nullableVersions": "0+", "default": "null" }
    ]},
    { "name": "Rack", "type": "string", "versions": "2+", "tag": 0, "taggedVersions": "2+" },
    { "name": "Place", "type": "Place", "versions": "3+" }
  ],
  "commonStructs": [{ "name": "Place", "versions": "0+", "fields": [
    { "name": "Host", "type": "string", "versions": "0+" }
  ]}]
}"#;

const NOTATION: &str = "# Ping: an example\n\napi 99 Ping 0-3 flexible 2+\n\nstruct Spot\n  host: string\n\nrequest\n  wait_ms: i32 = 16\n  names: [Name]?2+ 1+\n    name: string? = null\n  rack: string 2+ tag 0\n  place: Spot 3+\n";

fn compare_texts(notation: &str) -> Result<Vec<String>> {
    let file = File::parse("ping", notation)?;
    let message = file.messages.iter().find(|m| m.kind != Kind::Shared).context("a request")?;
    let found = Comparison::new(message, Some(&file), &parse(PING)?, true).run()?;
    Ok(found.into_iter().map(|d| format!("{}: {}", d.path, d.what)).collect())
}

#[test]
fn equal_definitions_do_not_differ() {
    assert_eq!(compare_texts(NOTATION).unwrap(), Vec::<String>::new());
}

#[test]
fn every_kind_of_difference_is_found_and_named() {
    for (from, to, expect) in [
        ("api 99", "api 98", "PingRequest: the key"),
        ("0-3", "0-4", "PingRequest: versions"),
        ("flexible 2+", "flexible 1+", "PingRequest: the first flexible version"),
        ("= 16", "= 15", "PingRequest.wait_ms: the default"),
        ("wait_ms: i32", "wait_ms: i64", "PingRequest.wait_ms: type"),
        ("?2+ 1+", "?1+ 1+", "PingRequest.names: null"),
        ("?2+ 1+", "?2+ 2+", "PingRequest.names: versions"),
        ("string? = null", "string?", "PingRequest.names.name: the default"),
        ("tag 0", "tag 1", "PingRequest.rack: the tag"),
        ("  host: string\n", "  host: string\n  port: i32\n", "PingRequest.place: fields"),
        ("  rack: string 2+ tag 0\n", "", "PingRequest: fields"),
    ] {
        let found = compare_texts(&NOTATION.replacen(from, to, 1)).unwrap();
        assert!(found.iter().any(|text| text.starts_with(expect)), "{to}: {found:?}");
    }
}

/// Needs Maven.
#[test]
fn notation_is_as_in_kafka() {
    if !machine::has("mvn") {
        not_run("the notation beside Kafka's message definitions", "maven");
        return;
    }
    let files = read_notation(&machine::root().join("broker/wire/messages")).unwrap();
    let compared = compare(&files, &fetch().unwrap()).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(compared > 60, "{compared} messages were compared");
}

/// Says by name what could not run; `cargo xtask test` prints it at its end.
fn not_run(what: &str, needs: &str) {
    let line = format!("NOT RUN: {what}: needs {needs}");
    eprintln!("{line}");
    if let Some(list) = std::env::var_os("AQUEDUCT_NOT_RUN") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(list);
        writeln!(file.unwrap(), "{line}").unwrap();
    }
    let required = std::env::var("AQUEDUCT_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|item| item.trim() == needs), "{line}, and AQUEDUCT_REQUIRE lists it");
}
