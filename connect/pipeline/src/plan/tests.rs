use std::path::Path;

use aqueduct_core::component::{Registry, Spec};
use aqueduct_core::config::reference::{Reference, Resolver};
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Problem, ResolvedConfig};
use aqueduct_core::sink::{SinkConnector, SinkTask};
use aqueduct_core::source::{SourceConnector, SourceTask};
use aqueduct_core::transform::{Transform, TransformFactory};
use aqueduct_core::{Error, Result};

use super::*;
use crate::finding::render;

struct Source(Spec);

impl SourceConnector for Source {
    fn spec(&self) -> &Spec {
        &self.0
    }

    fn validate(&self, config: &ResolvedConfig) -> Vec<Problem> {
        let url = &config["url"].text;
        match url.starts_with("postgres://") {
            true => Vec::new(),
            false => vec![Problem::new("url", format!("`url`: `{url}` does not start with `postgres://`"))],
        }
    }

    fn topics(&self, config: &ResolvedConfig) -> Result<Vec<String>> {
        let prefix = &config["topic.prefix"].text;
        Ok(config["tables"].text.split(',').map(|table| format!("{prefix}.{table}")).collect())
    }

    fn task(&self, _config: &ResolvedConfig) -> Result<Box<dyn SourceTask>> {
        Err(Error::fatal("not in this test"))
    }
}

struct Sink(Spec);

impl SinkConnector for Sink {
    fn spec(&self) -> &Spec {
        &self.0
    }

    fn task(&self, _config: &ResolvedConfig) -> Result<Box<dyn SinkTask>> {
        Err(Error::fatal("not in this test"))
    }
}

struct Step(Spec);

impl TransformFactory for Step {
    fn spec(&self) -> &Spec {
        &self.0
    }

    fn build(&self, config: &ResolvedConfig) -> Result<Box<dyn Transform>> {
        match config.get("condition") {
            Some(text) if text.text.contains("==") => Ok(Box::new(Pass)),
            Some(_) => Err(Error::bad_config("`condition` is not an expression")),
            None => Ok(Box::new(Pass)),
        }
    }
}

struct Pass;

impl Transform for Pass {
    fn apply(&mut self, batch: Vec<aqueduct_core::Record>) -> Result<Vec<aqueduct_core::transform::Outcome>> {
        Ok(batch.into_iter().map(aqueduct_core::transform::Outcome::Keep).collect())
    }
}

fn spec(name: &'static str, keys: Vec<ConfigKey>) -> Spec {
    Spec { name, aliases: &[], version: "1", summary: "", config: ConfigDef::new(keys) }
}

fn registry() -> Registry {
    let text = |name| ConfigKey::new(name, ConfigType::String, "text");
    let source = spec(
        "postgres-cdc",
        vec![
            ConfigKey::new("url", ConfigType::Password, "where the database is").required(),
            ConfigKey::new("tables", ConfigType::List, "tables to read").required(),
            text("slot.name").default("aqueduct"),
            ConfigKey::new("slot.create", ConfigType::Boolean, "whether to create it").default("true"),
            text("topic.prefix"),
        ],
    );
    let sink = spec(
        "s3",
        vec![
            text("bucket").required(),
            text("path"),
            ConfigKey::new("roll.size", ConfigType::Size, "size").default("256MiB"),
            ConfigKey::new("nulls", ConfigType::Enum(&["fail", "ignore"]), "nulls").default("fail"),
            ConfigKey::new("format", ConfigType::Json, "format"),
        ],
    );
    let wasm = spec(
        "wasm",
        vec![
            text("module").required().path(),
            ConfigKey::new("config", ConfigType::Json, "config"),
            text("allow"),
        ],
    );
    let filter = spec("filter", vec![text("condition").required(), text("nulls")]);
    Registry::new().source(Source(source)).sink(Sink(sink)).transform(Step(wasm)).transform(Step(filter))
}

struct Env;

impl Resolver for Env {
    fn resolve(&self, reference: &Reference<'_>) -> std::result::Result<String, String> {
        match reference.path {
            "URL" => Ok("postgres://u:hunter2@h/db".into()),
            "WRONG" => Ok("mysql-hunter2".into()),
            name => Err(format!("the environment variable `{name}` is not set")),
        }
    }
}

fn plan_of(text: &str, mode: Mode) -> std::result::Result<Plan, Vec<Finding>> {
    let registry = registry();
    let runtime = ConfigDef::new([
        ConfigKey::new("tasks.max", ConfigType::Int { min: 1, max: 99 }, "tasks").default("1")
    ]);
    let components =
        Components { registry: &registry, source_keys: &runtime, sink_keys: &runtime, resolver: &Env };
    plan(Path::new("/etc/p.yaml"), text, components, mode)
}

const GOOD: &str = r#"
version: 1
pipeline: orders
source:
  use: postgres-cdc
  with:
    url: ${env:URL}
    tables: [public.orders, public.order_lines]
    slot: { name: orders, create: false }
topic: { partitions: 6, retention: 7d, config: { segment.bytes: 1048576 } }
sinks:
  lake:
    use: s3
    steps:
      - { name: mask, use: wasm, with: { module: plugins/../mask.wasm, config: { salt: "${env:SALTY}", n: 1 } } }
      - { filter: 'value.status == "paid"' }
    with:
      bucket: lake
      tasks.max: 2
      roll: { size: 16MiB }
on_error: { retry: { attempts: 5, backoff: 1s }, then: dlq }
"#;

#[test]
fn a_pipeline_becomes_plain_connectors() {
    let plan =
        plan_of(&GOOD.replace("${env:SALTY}", "s"), Mode::Run).map_err(|f| render(&f)).expect("a plan");
    assert_eq!(plan.pipeline, "orders");
    assert_eq!(plan.topics, ["orders.public.order_lines", "orders.public.orders"]);
    assert_eq!((plan.partitions, plan.topic_config["retention.ms"].as_str()), (Some(6), "604800000"));
    let source = &plan.connectors[0];
    assert_eq!((source.name.as_str(), source.kind), ("orders", Kind::Source));
    let expect = [
        ("aqueduct.pipeline", "orders"),
        ("connector.class", "postgres-cdc"),
        ("errors.deadletterqueue.topic.name", "orders-dlq"),
        ("errors.retry.delay.max.ms", "16000"),
        ("errors.retry.timeout", "31000"),
        ("errors.tolerance", "all"),
        ("name", "orders"),
        ("slot.create", "false"),
        ("slot.name", "orders"),
        ("tables", "public.orders,public.order_lines"),
        ("topic.creation.default.partitions", "6"),
        ("topic.creation.default.replication.factor", "-1"),
        ("topic.creation.default.retention.ms", "604800000"),
        ("topic.creation.default.segment.bytes", "1048576"),
        ("topic.prefix", "orders"),
        ("url", "${env:URL}"),
    ];
    let pairs: Vec<(&str, &str)> = source.config.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(pairs, expect);
    let sink = &plan.connectors[1];
    assert_eq!(sink.name, "orders-lake");
    let get = |key: &str| sink.config.get(key).map(String::as_str);
    assert_eq!(get("topics"), Some("orders.public.order_lines,orders.public.orders"));
    assert_eq!(get("transforms"), Some("mask,filter"));
    assert_eq!(get("transforms.mask.type"), Some("wasm"));
    assert_eq!(get("transforms.mask.module"), Some("/etc/mask.wasm"));
    assert_eq!(get("transforms.mask.config"), Some(r#"{"salt":"s","n":1}"#));
    assert_eq!(get("transforms.filter.condition"), Some(r#"value.status == "paid""#));
    assert_eq!((get("roll.size"), get("tasks.max")), (Some("16MiB"), Some("2")));
    assert_eq!(get("errors.deadletterqueue.topic.name"), Some("orders-lake-dlq"));
}

#[test]
fn an_unresolved_reference_stops_a_run_and_warns_a_check() {
    let findings = plan_of(GOOD, Mode::Run).expect_err("unset");
    let place = "/etc/p.yaml:15:80: `config`: the environment variable `SALTY` is not set";
    assert_eq!(render(&findings), place);
    let plan = plan_of(GOOD, Mode::Check).map_err(|f| render(&f)).expect("checked");
    assert_eq!(plan.warnings.len(), 1);
    assert!(plan.warnings[0].message.starts_with("`config` was not checked: "), "{:?}", plan.warnings);
}

/// Wrong text → every finding, in order.
const GOLDEN: &[(&str, &[&str])] = &[
    ("", &["1:1: this file is empty; a pipeline starts with `version: 1` and `pipeline: NAME`"]),
    (
        "[]",
        &[
            "1:1: a pipeline takes a mapping with `version`, `pipeline`, `source`, `topic`, `sinks`, `on_error`, `tests`, not a list",
        ],
    ),
    (
        "pipelin: x\n",
        &[
            "1:1: unknown key `pipelin`; did you mean `pipeline`?",
            "1:1: missing key `version`: write `version: 1`",
            "1:1: missing key `pipeline`: the name of the pipeline",
            "1:1: a pipeline needs a `source`, `sinks`, or both",
        ],
    ),
    (
        "version: 2\npipeline: a b\nsource: x\n",
        &[
            "1:10: version `2` is not known; this binary reads `version: 1`",
            "2:11: the pipeline name `a b` may have letters, digits, `-`, `_` and `.`, at most 100",
            "3:9: `source` takes a mapping with `use`, `with`, `steps`, not a single value",
        ],
    ),
    ("HEADsource:\n  use: postgres\n", &["4:8: unknown source `postgres`; known are `postgres-cdc`"]),
    ("HEADsource:\n  use: s3\n", &["4:8: `s3` is a sink; it stands under `sinks`"]),
    (
        "HEADsource:\n  use: postgres-cdc\n  with:\n    tabels: [a.b]\n    slot: { nmae: x, create: maybe }\n",
        &[
            "6:5: unknown key `tabels`; did you mean `tables`?",
            "6:5: missing required key `url`: where the database is",
            "6:5: missing required key `tables`: tables to read",
            "7:13: unknown key `slot.nmae`; did you mean `slot.name`?",
            "7:30: `slot.create`: `maybe` is not `true` or `false`",
        ],
    ),
    (
        "HEADsource:\n  use: postgres-cdc\n  with: { url: [x], tables: { a: b }, slot: x, slto: { name: y } }\n",
        &[
            "5:9: missing required key `url`: where the database is",
            "5:9: missing required key `tables`: tables to read",
            "5:16: `url` takes text, not a list",
            "5:29: `tables` takes a list, not a mapping",
            "5:45: `slot` takes a mapping (`slot.name`, `slot.create`), not a single value",
            "5:48: unknown key `slto`; did you mean `slot`?",
        ],
    ),
    (
        "HEADsource:\n  use: postgres-cdc\n  with:\n    url: ${env:WRONG}\n    tables: [a.b]\n",
        &["6:10: `url`: `${env:WRONG}` does not start with `postgres://`"],
    ),
    (
        "HEADSOURCEtopic: { partitions: 0, retention: soon }\non_error: { then: dql }\n",
        &[
            "8:22: `partitions`: 0 is not within 1 to 10000",
            "8:36: `retention`: `soon` is not a duration; write `100ms`, `30s`, `5m`, `2h` or `7d`, or `forever`",
            "9:19: `then`: `dql` is not one of `dlq`, `stop`; did you mean `dlq`?",
        ],
    ),
    (
        "HEADSOURCEsinks:\n  lake:\n    use: s3\n    with: { bucket: b, roll: { size: big }, nulls: fial, tasks: { max: 100 } }\n    steps:\n      - { use: wsam }\n      - { name: x, filter: 'value.a' }\n      - { name: x, filter: 'a == b', with: { nuls: drop } }\n      - { nam: y }\n",
        &[
            "11:38: `roll.size`: `big` is not a size; write `512KiB`, `256MiB`, `1GiB` or a number of bytes",
            "11:52: `nulls`: `fial` is not one of `fail`, `ignore`; did you mean `fail`?",
            "11:72: `tasks.max`: 100 is not within 1 to 99",
            "13:16: unknown transform `wsam`; did you mean `wasm`?",
            "14:20: `condition` is not an expression",
            "15:17: two steps are named `x`",
            "15:46: unknown key `nuls`; did you mean `nulls`?",
            "16:9: a step needs `use: NAME` or `filter: 'EXPRESSION'`",
            "16:11: unknown key `nam`; did you mean `name`?",
        ],
    ),
    (
        "HEADsinks:\n  lake: { use: s3, with: { bucket: b } }\n",
        &["4:3: without a `source`, a sink names its `topics` under `with`"],
    ),
    (
        "HEADSOURCEmetrics: []\n",
        &[
            "8:1: unknown key `metrics`; a pipeline has `version`, `pipeline`, `source`, `topic`, `sinks`, `on_error`, `tests`",
        ],
    ),
    ("HEADsource:\n  use: [\n", &["5:1: broken yaml"]),
];

#[test]
fn wrong_input_is_named_with_its_place() {
    let head = "version: 1\npipeline: p\n";
    let source = "source:\n  use: postgres-cdc\n  with:\n    url: ${env:URL}\n    tables: [a.b]\n";
    let mut wrong = Vec::new();
    for (text, expect) in GOLDEN {
        let text = text.replace("HEAD", head).replace("SOURCE", source);
        let findings = plan_of(&text, Mode::Run).map(|plan| plan.pipeline).expect_err(&text);
        let shown: Vec<String> =
            findings.iter().map(|f| f.to_string().trim_start_matches("/etc/p.yaml:").to_owned()).collect();
        let same =
            shown.len() == expect.len() && shown.iter().zip(*expect).all(|(got, want)| got.starts_with(want));
        if !same || shown.join("").contains("hunter2") {
            wrong.push(format!("{text}\n got {shown:#?}\nwant {expect:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn sinks_without_a_source_name_their_topics() {
    let text = "version: 1\npipeline: p\nsinks:\n  lake: { use: s3, with: { bucket: b, topics: 'x,y' } }\n";
    let findings = plan_of(text, Mode::Run).expect_err("`topics` is the runtime's key");
    assert!(render(&findings).contains("unknown key `topics`"), "{findings:?}");
}
