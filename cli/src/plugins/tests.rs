use std::path::{Path, PathBuf};

use super::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

fn pipelines() -> Vec<PathBuf> {
    let files =
        std::fs::read_dir(root().join("configs")).expect("configs").map(|entry| entry.expect("one").path());
    let is_pipeline = |path: &PathBuf| {
        std::fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.starts_with("pipeline:")))
    };
    files.filter(is_pipeline).collect()
}

fn wrong(schema: &Value, yaml: &str) -> Vec<String> {
    let document: Value = serde_yaml::from_str(yaml).expect("yaml");
    validator::wrong(schema, schema, &document, "")
}

#[test]
fn the_published_schema_is_this_one() {
    let path = root().join("docs/pipeline.schema.json");
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    let now = published(&schema(&crate::registry::registry()));
    let how = "aqueduct plugins schema > docs/pipeline.schema.json";
    let text: Value = serde_json::from_str(&now).expect("json");
    assert_eq!(text, schema(&crate::registry::registry()), "the form loses nothing");
    assert!(file == now, "docs/pipeline.schema.json is not up to date: {how}");
}

#[test]
fn the_examples_follow_the_schema_and_name_it() {
    let schema = schema(&crate::registry::registry());
    let files = pipelines();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("read");
        let found = wrong(&schema, &text);
        assert!(found.is_empty(), "{}: {found:#?}", file.display());
        let line = "# yaml-language-server: $schema=../docs/pipeline.schema.json";
        assert!(text.starts_with(line), "{}: the first line names the schema", file.display());
    }
}

#[test]
fn nested_dotted_and_mixed_keys_are_the_same() {
    let schema = schema(&crate::registry::registry());
    for with in [
        "{ bucket: b, roll: { size: 1MiB, age: 5s } }",
        "{ bucket: b, roll.size: 1048576, roll.age: 5000 }",
        "{ bucket: '${env:B}', errors: { deadletterqueue.topic: { name: x } }, tasks: { max: 2 } }",
        "{ bucket: b, value: { converter: JsonConverter, converter.schemas.enable: 'true' } }",
        "{ bucket: b, value.converter: { schemas: { enable: true } }, consumer: { override: { a.b: 1 } } }",
    ] {
        let text = format!("version: 1\npipeline: p\nsinks: {{ a: {{ use: s3, with: {with} }} }}");
        assert_eq!(wrong(&schema, &text), [""; 0], "{with}");
    }
}

#[test]
fn what_planning_refuses_the_schema_refuses() {
    let schema = schema(&crate::registry::registry());
    for text in [
        "{ version: 2, pipeline: p, source: { use: datagen } }",
        "{ version: 1, pipeline: p }",
        "{ version: 1, pipeline: 'a b', source: { use: datagen } }",
        "{ version: 1, pipeline: p, source: { use: datagem } }",
        "{ version: 1, pipeline: p, source: { use: datagen, with: { raet: 3 } } }",
        "{ version: 1, pipeline: p, source: { use: datagen, with: { rate: fast } } }",
        "{ version: 1, pipeline: p, source: { use: datagen, with: { tasks: { max: 0 } } } }",
        "{ version: 1, pipeline: p, source: { use: datagen, steps: [ { filter: x, use: filter } ] } }",
        "{ version: 1, pipeline: p, source: { use: datagen, steps: [ { use: wasm } ] } }",
        "{ version: 1, pipeline: p, source: { use: datagen }, topic: { partitions: 0 } }",
        "{ version: 1, pipeline: p, source: { use: datagen }, on_error: { then: dql } }",
        "{ version: 1, pipeline: p, sinks: { a: { use: s3, with: { bucket: b, roll: { size: big } } } } }",
        "{ version: 1, pipeline: p, source: { use: datagen }, tests: [ { name: x } ] }",
    ] {
        assert!(!wrong(&schema, text).is_empty(), "{text}");
    }
}

#[test]
fn every_component_is_described_and_found() {
    let registry = crate::registry::registry();
    let all = Plugin::all(&registry);
    for plugin in &all {
        assert!(!plugin.summary.is_empty(), "{} says nothing about itself", plugin.name);
        let text = plugin.text();
        for key in plugin.config.keys() {
            assert!(text.contains(key.name) && !key.doc.is_empty(), "{}: {}", plugin.name, key.name);
        }
        // Under `transforms.<name>.` these are the step itself, and when it runs.
        let taken = |key: &&ConfigKey| matches!(key.name, "type" | "predicate" | "negate");
        let taken = plugin.config.keys().iter().find(taken).filter(|_| plugin.kind == "step");
        assert!(taken.is_none(), "{} declares `{}`", plugin.name, taken.map_or("", |key| key.name));
        for name in std::iter::once(&plugin.name).chain(plugin.aliases) {
            assert!(find(&all, name).expect(name).iter().any(|found| found.kind == plugin.kind), "{name}");
        }
    }
    let error = format!("{:?}", find(&all, "postgres-cdb").err().expect("unknown"));
    assert!(error.contains("did you mean `postgres-cdc`?"), "{error}");
    assert_eq!(find(&all, "sink:file").expect("the sink").len(), 1);
}
