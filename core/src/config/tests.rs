use std::time::Duration;

use super::reference::{Reference, Resolver, resolve};
use super::*;

fn def() -> ConfigDef {
    ConfigDef::new([
        ConfigKey::new("bucket", ConfigType::String, "bucket to write to").required(),
        ConfigKey::new("roll.age", ConfigType::Duration, "age").default("5m"),
        ConfigKey::new("roll.size", ConfigType::Size, "size").default("256MiB"),
        ConfigKey::new("retries", ConfigType::Int { min: 0, max: 9 }, "retries").default("3"),
        ConfigKey::new("nulls", ConfigType::Enum(&["fail", "ignore", "write"]), "nulls").default("fail"),
        ConfigKey::new("secret", ConfigType::Password, "password"),
    ])
}

fn config(pairs: &[(&str, &str)]) -> Config {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

struct Fixed;

impl Resolver for Fixed {
    fn resolve(&self, reference: &Reference<'_>) -> Result<String, String> {
        match reference.path {
            "SET" => Ok("hunter2".into()),
            path => Err(format!("the environment variable `{path}` is not set")),
        }
    }
}

#[test]
fn typed_values_and_defaults() {
    let values = def().parse(&plain(&config(&[("bucket", "lake"), ("roll.age", "90s")]))).expect("parses");
    assert_eq!(values.text("bucket").expect("given"), "lake");
    assert_eq!(values.duration("roll.age").expect("given"), Duration::from_secs(90));
    assert_eq!(values.size("roll.size").expect("default"), ByteSize(256 << 20));
    assert!(values.opt_password("secret").expect("declared").is_none());
    assert!(values.text("retries").is_err(), "read as another type than declared");
}

#[test]
fn every_problem_at_once_with_its_key() {
    let problems = def()
        .parse(&plain(&config(&[("roll.age", "soon"), ("retries", "12"), ("nulls", "fial")])))
        .expect_err("refused");
    let text: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(
        text,
        [
            "missing required key `bucket`: bucket to write to",
            "`roll.age`: `soon` is not a duration; write `100ms`, `30s`, `5m`, `2h` or `7d`",
            "`retries`: 12 is not within 0 to 9",
            "`nulls`: `fial` is not one of `fail`, `ignore`, `write`; did you mean `fail`?",
        ]
    );
}

#[test]
fn unknown_keys_get_a_suggestion() {
    let unknown = def().unknown(config(&[("bukcet", "x"), ("name", "n")]).keys(), |key| key == "name");
    assert_eq!(unknown, [Problem::new("bukcet", "unknown key `bukcet`; did you mean `bucket`?")]);
}

#[test]
fn a_secret_is_never_shown() {
    let given = config(&[("bucket", "b-${env:SET}"), ("retries", "${env:SET}")]);
    let resolved = resolve(&given, &Fixed).expect("resolves");
    assert_eq!(resolved["bucket"].text, "b-hunter2");
    let problems = def().parse(&resolved).expect_err("not an integer");
    assert!(!format!("{resolved:?}{problems:?}").contains("hunter2"));
    let ok = resolve(&config(&[("bucket", "${env:SET}"), ("secret", "pw")]), &Fixed).expect("resolves");
    let values = def().parse(&ok).expect("parses");
    assert!(!format!("{values:?}").contains("hunter2") && !format!("{values:?}").contains("pw"));
}

#[test]
fn an_unresolved_reference_is_a_problem_of_its_key() {
    let problems = resolve(&config(&[("bucket", "${env:UNSET}")]), &Fixed).expect_err("unset");
    assert_eq!(problems[0].message, "`bucket`: the environment variable `UNSET` is not set");
}

struct Quoted;

impl Resolver for Quoted {
    fn resolve(&self, _reference: &Reference<'_>) -> Result<String, String> {
        Ok(r#"a","admin":"true"#.into())
    }
}

#[test]
fn a_secret_in_json_cannot_change_its_structure() {
    let given = config(&[("config", r#"{"salt":"${env:SALT}","depth":[1,"${topic}"]}"#)]);
    let resolved = resolve(&given, &Quoted).expect("resolves");
    assert!(resolved["config"].secret);
    let json: serde_json::Value = serde_json::from_str(&resolved["config"].text).expect("still JSON");
    assert_eq!(json, serde_json::json!({"salt": r#"a","admin":"true"#, "depth": [1, "${topic}"]}));
}
