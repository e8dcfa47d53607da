use super::*;
use crate::testing::*;

fn routed(entries: &[(&str, &str)], record: Record) -> String {
    kept(&mut build(&route(), entries), record).topic.to_string()
}

#[test]
fn a_regex_must_match_the_whole_name() {
    assert_eq!(routed(&[("regex", "ord(.*)"), ("replacement", "lake.$1x")], json("1")), "lake.ersx");
    assert_eq!(routed(&[("regex", "(?<all>.*)"), ("replacement", "${all}-2")], json("1")), "orders-2");
    assert_eq!(routed(&[("regex", "order"), ("replacement", "x")], json("1")), "orders");
}

#[test]
fn an_expression_looks_into_the_record() {
    let by_country = [("expression", r#"topic + "." + value.country"#)];
    assert_eq!(routed(&by_country, json(r#"{"country":"de"}"#)), "orders.de");
    let error = failed(&mut build(&route(), &by_country), json(r#"{"country":"../x"}"#));
    assert!(error.message().contains("cannot be the name of a topic"), "{error}");
    failed(&mut build(&route(), &[("expression", "1")]), json("1"));
}

#[test]
fn wrong_configs_say_what_to_do() {
    assert!(problem(&route(), &[("regex", "("), ("replacement", "x")]).contains("not a regular expression"));
    assert!(problem(&route(), &[("regex", "a")]).contains("needs a `replacement`"));
    assert!(problem(&route(), &[]).contains("write `regex` and `replacement`, or `expression`"));
    assert!(problem(&route(), &[("expression", "topik")]).contains("did you mean `topic`?"));
}
