use std::path::Path;

use aqueduct_core::config::Config;
use serde_json::json;

use super::*;
use crate::cases::{self, Reads};
use crate::finding::{Findings, render};
use crate::yaml;

fn cases(text: &str, tolerates: bool) -> Result<Vec<TestCase>, String> {
    let tolerance = if tolerates { "all" } else { "none" };
    let config = Config::from([
        ("topics".to_owned(), "orders,items".to_owned()),
        ("errors.tolerance".to_owned(), tolerance.to_owned()),
    ]);
    let mut findings = Findings::new(Path::new("p"));
    let reads = [Reads::new("lake", "p-lake".into(), Some(&config))];
    let cases = cases::read(&yaml::parse(text).expect("yaml"), &reads, &mut findings);
    match findings.finish().as_slice() {
        [] => Ok(cases),
        found => Err(render(found)),
    }
}

fn produced(values: &[Json]) -> Vec<Produced> {
    let each = values.iter().enumerate();
    each.map(|(input, value)| Produced {
        input,
        record: json!({ "topic": "orders", "key": null, "value": value, "headers": {}, "timestamp": null }),
    })
    .collect()
}

fn differences(expect: &str, outcome: &Outcome) -> Vec<String> {
    let given = "[{ topic: orders }, { topic: orders }, { topic: items }]";
    let text = format!("[ {{ name: t, given: {given}, expect: {expect} }} ]");
    let cases = cases(&text, true).expect(expect);
    judge(&cases[0], outcome).iter().map(|d| format!("{}: {} / {}", d.path, d.expected, d.got)).collect()
}

#[test]
fn values_are_compared_field_by_field() {
    let got = produced(&[json!({ "id": 1, "email": "a", "tags": [1, 2] }), json!({ "id": 2.0 })]);
    let outcome = Outcome { records: got, failures: Vec::new() };
    let same = "{ exactly: [ { id: 1, email: { matches: '^[a-z]$' }, tags: [1, 2] }, { id: 2 } ] }";
    assert_eq!(differences(same, &outcome), [""; 0]);
    assert_eq!(
        differences("{ exactly: [ { id: 1, email: { matches: '^b' }, more: 1 } ], dropped: 0 }", &outcome),
        [
            "exactly[0].email: what matches `^b` / \"a\"",
            "exactly[0].more: 1 / nothing",
            "exactly[0].tags: nothing / [1,2]",
            "exactly[1]: no further record / {\"id\":2.0} (from given 2)",
            "dropped: 0 / 1 (given 3)",
        ]
    );
    assert_eq!(
        differences("{ contains: [ { id: 2 }, { tags: [1, 2], gone: { exists: false } } ] }", &outcome),
        [""; 0]
    );
    assert_eq!(
        differences("{ contains: [ { id: 2 }, { id: 2 } ] }", &outcome),
        ["contains[1].id: 2 / 1"],
        "a record counts once"
    );
    assert_eq!(
        differences("{ contains: [ { record: { topic: items, value: { id: 1 } } } ] }", &outcome),
        ["contains[0].record.topic: \"items\" / \"orders\""]
    );
    assert_eq!(differences("{ exactly: [ { equals: { matches: x } } ] }", &Outcome::default()).len(), 1);
}

#[test]
fn failures_are_never_passed_over() {
    let failed = FailedInput {
        input: 1,
        stage: "TRANSFORMATION".into(),
        step: Some("mask".into()),
        error: "no field `email`".into(),
    };
    let outcome = Outcome { records: produced(&[json!(1)]), failures: vec![failed] };
    let right =
        "{ dead_letters: [ { record: 2, stage: TRANSFORMATION, step: mask, error: email } ], dropped: 1 }";
    assert_eq!(differences(right, &outcome), [""; 0]);
    assert_eq!(
        differences("{ exactly: [ 1 ] }", &outcome),
        [
            "dead_letters[0]: no further dead letter / given 2: TRANSFORMATION in step `mask`: no field `email`"
        ]
    );
    assert_eq!(
        differences("{ dead_letters: [ { record: 1, step: other, error: { matches: ^x } }, {} ] }", &outcome),
        [
            "dead_letters[0].record: 1 / 2",
            "dead_letters[0].step: other / mask",
            "dead_letters[0].error: what matches `^x` / \"no field `email`\"",
            "dead_letters[1]: a record that fails / nothing that failed",
        ]
    );
}

#[test]
fn a_test_that_is_wrong_is_named_with_its_place() {
    let given = "given: [ { topic: orders } ]";
    for (text, tolerates, expect) in [
        ("{}", true, "`tests` takes a list of tests, not a mapping"),
        (
            "[ { nam: x } ]",
            true,
            "a test needs `name`, `given`, `expect`\nunknown key `nam`; did you mean `name`?",
        ),
        ("[ { name: x, given: [], expect: { dropped: 0 } } ]", true, "`given` is empty; give it a record"),
        (
            "[ { name: x, GIVEN, expect: {} } ]",
            true,
            "`expect` says nothing; give it `exactly`, `contains`, `dropped` or `dead_letters`",
        ),
        (
            "[ { name: x, given: [ { topic: ordres } ], expect: { dropped: 1 } } ]",
            true,
            "the sink `lake` does not read topic `ordres`; did you mean `orders`?",
        ),
        (
            "[ { name: x, given: [ {} ], expect: { sink: lak, dropped: 1 } } ]",
            true,
            "the pipeline has no sink `lak`; did you mean `lake`?",
        ),
        (
            "[ { name: x, GIVEN, expect: { exactly: [ { a: { matches: '(' } } ] } } ]",
            true,
            "`(` is no regular expression: unclosed group",
        ),
        (
            "[ { name: x, GIVEN, expect: { dead_letters: [] } } ]",
            false,
            "bad records stop this sink; set `on_error: { then: dlq }`, or expect `stops` instead of `dead_letters`",
        ),
        (
            "[ { name: x, GIVEN, expect: { dead_letters: [ { record: 2 } ] } } ]",
            true,
            "`record`: there is no record 2; they are numbered 1 to 1",
        ),
        (
            "[ { name: x, GIVEN, expect: { dropped: 1 } }, { name: x, GIVEN, expect: { dropped: 1 } } ]",
            true,
            "two tests are named `x`",
        ),
    ] {
        let text = text.replace("GIVEN", given);
        let found = cases(&text, tolerates).expect_err(&text);
        let messages: Vec<&str> =
            found.lines().filter_map(|line| Some(line.splitn(4, ':').nth(3)?.trim())).collect();
        assert_eq!(messages.join("\n"), expect, "{text}");
    }
    let text = "[ { name: x,\n given: [ { topic: ordres } ],\n expect: { dropped: x } } ]";
    let found = cases(text, true).expect_err(text);
    assert_eq!(found.lines().map(|line| &line[..7]).collect::<Vec<_>>(), ["p:2:20:", "p:3:21:"], "{found}");
}
