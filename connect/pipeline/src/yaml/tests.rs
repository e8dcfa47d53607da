use super::*;

fn at(line: usize, column: usize) -> Position {
    Position { line, column }
}

fn get<'a>(node: &'a Node, key: &str) -> &'a Pair {
    let Yaml::Map(pairs) = &node.value else { panic!("a mapping") };
    pairs.iter().find(|pair| pair.key == key).expect("the key")
}

#[test]
fn keys_and_values_have_their_places() {
    let root = parse("a: 1\nb:\n  c: [x, 'y']   # ü\n  ü: { d: true }\n").expect("parses");
    assert_eq!(get(&root, "a").at, at(1, 1));
    assert_eq!(get(&root, "a").value.at, at(1, 4));
    let b = &get(&root, "b").value;
    assert_eq!(get(b, "c").at, at(3, 3));
    let Yaml::List(items) = &get(b, "c").value.value else { panic!("a list") };
    assert_eq!((items[0].at, items[1].at), (at(3, 7), at(3, 10)));
    let d = get(&get(b, "ü").value, "d");
    assert_eq!((d.at, d.value.at), (at(4, 8), at(4, 11)));
}

#[test]
fn json_follows_the_core_schema() {
    let root = parse("[1, -2.5, true, 'true', yes, 0x, ~, '', .inf, 1e3, 022, {k: \"1\"}]").expect("parses");
    let expect =
        serde_json::json!([1, -2.5, true, "true", "yes", "0x", null, "", ".inf", 1000.0, 22, {"k": "1"}]);
    assert_eq!(root.to_json(), expect);
}

#[test]
fn broken_yaml_names_its_place() {
    for (text, line) in [("a: [1, 2\nb: 3\n", 2), ("a: 1\n\tb: 2\n", 1), ("a: \"x\n", 1)] {
        let error = parse(text).expect_err("broken");
        assert!(error.at.line >= line, "{text:?}: {error:?}");
        assert!(error.message.starts_with("broken yaml: "), "{error:?}");
    }
    let twice = parse("a: 1\nb: 2\na: 3\n").expect_err("twice");
    assert_eq!((twice.at, twice.message.as_str()), (at(3, 1), "the key `a` is given twice, first in line 1"));
    assert!(parse("a: 1\n---\nb: 2\n").expect_err("two").message.contains("one document"));
    assert!(parse("a: !ruby x\n").expect_err("tag").message.contains("not supported"));
}

#[test]
fn nesting_and_aliases_are_bounded() {
    assert!(parse(&"[".repeat(100_000)).is_err());
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..20 {
        let aliases = vec![format!("*a{}", i - 1); 9].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    assert!(parse(&bomb).expect_err("too many").message.starts_with("more than"));
    let root = parse("a: &x {k: 1}\nb: *x\n").expect("parses");
    assert_eq!(root.to_json(), serde_json::json!({"a": {"k": 1}, "b": {"k": 1}}));
}

#[test]
fn an_empty_document_is_nothing() {
    for text in ["", "# only a comment\n", "---\n"] {
        assert_eq!(parse(text).expect("parses").value, Yaml::Null, "{text:?}");
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Shape {
    port: u16,
    nested: Nested,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Nested {
    size: u32,
}

#[test]
fn settings_files_name_the_place_of_a_mistake() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("broker.yaml");
    let check = |text: &str| {
        std::fs::write(&path, text).expect("writes");
        settings::<Shape>(&path)
    };
    assert_eq!(check("port: 9\nnested:\n  size: 3\n").map(|s| (s.port, s.nested.size)), Ok((9, 3)));
    assert!(check("# nothing\n").is_ok());
    let wrong = check("port: 9\nnested:\n  size: big\n").expect_err("wrong type");
    assert_eq!(wrong.at.map(|at| at.line), Some(3));
    let unknown = check("prot: 9\n").expect_err("unknown");
    assert!(unknown.message.contains("prot") && unknown.message.contains("port"), "{unknown}");
    assert!(
        settings::<Shape>(&dir.path().join("none")).expect_err("missing").to_string().contains("cannot read")
    );
}
