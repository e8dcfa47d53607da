//! The host against guests that misbehave, written by hand, and against the prebuilt mask.

use std::path::{Path, PathBuf};

use aqueduct_core::config::{Config, plain};
use aqueduct_core::transform::TransformFactory;
use aqueduct_core::{Datum, ErrorKind, Field, Schema, SchemaRef, Type, Value};
use bytes::Bytes;
use sha2::Digest;

use super::*;
use crate::WasmFactory;

/// A guest that looks at the whole value. `on_record` sees the value's `$ptr` and `$len`, the place `$o` of its outcome,
/// and `$seen` records so far in this instance; `count` is how many outcomes it answers.
fn guest(on_record: &str, count: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
  (memory (export "memory") 2)
  (global $top (mut i32) (i32.const 1024))
  (global $seen (mut i32) (i32.const 0))
  (func $realloc (export "cabi_realloc") (param i32 i32 i32) (param $n i32) (result i32)
    (local $p i32)
    (local.set $p (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $p) (local.get $n)))
    (block $ok
      (br_if $ok (i32.le_u (global.get $top) (i32.shl (memory.size) (i32.const 16))))
      (br_if $ok (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))
      (unreachable))
    (local.get $p))
  ;; All zero: ok, no name, no needs, the whole value.
  (func (export "aqueduct:transform/transformer@0.1.0#configure") (param i32 i32) (result i32) (i32.const 64))
  (func (export "aqueduct:transform/transformer@0.1.0#transform")
    (param i32 i32 i32 i32) (param $list i32) (param $n i32) (result i32)
    (local $out i32) (local $i i32) (local $rec i32) (local $ptr i32) (local $len i32) (local $o i32)
    (local.set $out (call $realloc (i32.const 0) (i32.const 0) (i32.const 8)
      (i32.mul (i32.add (local.get $n) (i32.const 1)) (i32.const 20))))
    (i32.store8 (i32.add (local.get $out) (i32.mul (local.get $n) (i32.const 20))) (i32.const 0))
    (block $end (loop $next
      (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
      (local.set $rec (i32.add (local.get $list) (i32.mul (local.get $i) (i32.const 56))))
      (local.set $ptr (i32.load offset=4 (local.get $rec)))
      (local.set $len (i32.load offset=8 (local.get $rec)))
      (local.set $o (i32.add (local.get $out) (i32.mul (local.get $i) (i32.const 20))))
      (i32.store8 (local.get $o) (i32.const 0))
      (global.set $seen (i32.add (global.get $seen) (i32.const 1)))
      {on_record}
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (i32.store8 (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (local.get $out))
    (i32.store (i32.const 24) {count})
    (i32.const 16))
  (func (export "cabi_post_aqueduct:transform/transformer@0.1.0#transform") (param i32)
    (global.set $top (i32.const 1024))))"#
    );
    let mut module = wat::parse_str(text).expect("a module");
    let mut resolve = wit_parser::Resolve::default();
    let wit = include_str!("../../../wit/transform.wit");
    let package = resolve.push_str("transform.wit", wit).expect("a package");
    let world = resolve.select_world(&[package], Some("transform-plugin")).expect("the world");
    let utf8 = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, utf8).expect("embedded");
    module
}

const ALL: &str = "(local.get $n)";

/// Runs `action` for values longer than 12 bytes, such as [`POISON`].
fn on_poison(action: &str) -> String {
    format!("(if (i32.gt_u (local.get $len) (i32.const 12)) (then {action}))")
}

const GOOD: &str = r#"{"n":1}"#;
const POISON: &str = r#"{"poison":true}"#;

struct Fixture {
    dir: tempfile::TempDir,
    factory: WasmFactory,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), factory: WasmFactory::new() }
    }

    fn step(&self, module: &[u8], config: &[(&str, &str)]) -> Box<dyn Transform> {
        let path = self.dir.path().join("guest.wasm");
        std::fs::write(&path, module).expect("written");
        build(&self.factory, &path, config).expect("starts")
    }
}

fn build(factory: &WasmFactory, module: &Path, config: &[(&str, &str)]) -> Result<Box<dyn Transform>> {
    let mut all = Config::from([("module".to_owned(), module.display().to_string())]);
    all.extend(config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    factory.build(&plain(&all))
}

fn record(text: &str) -> Record {
    Record::new("t".into(), Datum::json(None, Bytes::copy_from_slice(text.as_bytes())))
}

/// `k` kept, `d` dropped, `e` emitted, `F` failed; and what failed.
fn run(step: &mut Box<dyn Transform>, batch: &[&str]) -> (String, Vec<Error>) {
    let outcomes = step.apply(batch.iter().map(|text| record(text)).collect()).expect("no batch error");
    let mut errors = Vec::new();
    let letters = outcomes.into_iter().zip(batch).map(|(outcome, text)| match outcome {
        Outcome::Keep(_) => 'k',
        Outcome::Drop => 'd',
        Outcome::Emit(_) => 'e',
        Outcome::Fail(record, error) => {
            assert_eq!(record.value.to_json().expect("encodes"), text.as_bytes(), "handed back as it was");
            assert_eq!(error.kind(), ErrorKind::BadRecord);
            errors.push(error);
            'F'
        }
    });
    (letters.collect(), errors)
}

#[test]
fn outcomes_come_in_order() {
    let drop_odd = "(i32.store8 (local.get $o) (i32.and (local.get $i) (i32.const 1)))";
    let mut step = Fixture::new().step(&guest(drop_odd, ALL), &[]);
    assert_eq!(run(&mut step, &[GOOD; 5]).0, "kdkdk");
}

#[test]
fn one_call_is_for_one_topic_and_partition() {
    let drop_odd = "(i32.store8 (local.get $o) (i32.and (local.get $i) (i32.const 1)))";
    let mut step = Fixture::new().step(&guest(drop_odd, ALL), &[]);
    let mut batch = vec![record(GOOD), record(GOOD), record(GOOD), record(GOOD)];
    batch[2].topic = "u".into();
    batch[3].topic = "u".into();
    batch[3].partition = Some(1);
    let outcomes = step.apply(batch).expect("no batch error");
    let kept: Vec<bool> = outcomes.iter().map(|outcome| matches!(outcome, Outcome::Keep(_))).collect();
    assert_eq!(kept, [true, false, true, true]);
}

#[test]
fn a_trap_fails_the_poison_record_alone() {
    let mut step = Fixture::new().step(&guest(&on_poison("(unreachable)"), ALL), &[]);
    let (letters, errors) = run(&mut step, &[GOOD, POISON, GOOD, POISON, GOOD]);
    assert_eq!(letters, "kFkFk");
    assert!(errors[0].message().contains("guest.wasm"), "{:?}", errors[0]);
    assert_eq!(run(&mut step, &[GOOD]).0, "k", "the next batch has a working instance");
}

#[test]
fn a_loop_ends_at_the_deadline() {
    let mut step =
        Fixture::new().step(&guest(&on_poison("(loop $ever (br $ever))"), ALL), &[("deadline", "50ms")]);
    let start = std::time::Instant::now();
    let (letters, errors) = run(&mut step, &[GOOD, POISON, GOOD]);
    assert_eq!(letters, "kFk");
    assert!(errors[0].message().contains("deadline of 50ms"), "{:?}", errors[0]);
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn memory_is_bounded() {
    let bomb = on_poison("(loop $ever (drop (memory.grow (i32.const 16))) (br $ever))");
    let mut step = Fixture::new().step(&guest(&bomb, ALL), &[("memory", "4MiB")]);
    let (letters, errors) = run(&mut step, &[POISON, GOOD]);
    assert_eq!(letters, "Fk");
    assert!(errors[0].message().contains("memory of 4194304 bytes"), "{:?}", errors[0]);
}

#[test]
fn an_answer_far_larger_than_the_question_is_refused() {
    // `set-value` with 100 KiB of the same memory, for each of 100 records.
    let amplify = "(memory.grow (i32.const 4)) (drop) (i32.store8 (local.get $o) (i32.const 2)) \
                   (i32.store offset=4 (local.get $o) (i32.const 1024)) \
                   (i32.store offset=8 (local.get $o) (i32.const 102400))";
    let mut step = Fixture::new().step(&guest(amplify, ALL), &[("traps", "1000")]);
    let (letters, _) = run(&mut step, &[GOOD; 100]);
    // Alone, an answer of this size passes, but it is not JSON.
    assert!(letters.chars().all(|letter| letter == 'F'), "{letters}");
}

#[test]
fn a_leak_costs_a_restart_and_no_record() {
    let leak = "(if (i32.gt_u (global.get $seen) (i32.const 3)) (then (unreachable)))";
    let mut step = Fixture::new().step(&guest(leak, ALL), &[]);
    assert_eq!(run(&mut step, &[GOOD, GOOD, GOOD]).0, "kkk");
    assert_eq!(run(&mut step, &[GOOD, GOOD, GOOD]).0, "kkk");
}

#[test]
fn many_traps_in_a_row_stop_the_task() {
    let mut step = Fixture::new().step(&guest(&on_poison("(unreachable)"), ALL), &[("traps", "3")]);
    assert_eq!(run(&mut step, &[POISON, POISON, GOOD, POISON, POISON]).0, "FFkFF");
    let error = step.apply(vec![record(POISON)]).expect_err("the third in a row");
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.message().contains("3 records in a row"), "{error}");
}

#[test]
fn a_wrong_number_of_outcomes_is_an_error_of_the_batch() {
    let mut step = Fixture::new().step(&guest("", "(i32.add (local.get $n) (i32.const 1))"), &[]);
    let error = step.apply(vec![record(GOOD)]).expect_err("two outcomes");
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.message().contains("2 outcomes for 1 records"), "{error}");
}

#[test]
fn tombstones_never_reach_the_guest() {
    let mut step = Fixture::new().step(&guest("(unreachable)", ALL), &[]);
    let outcomes = step.apply(vec![Record::new("t".into(), Datum::null())]).expect("no batch error");
    assert!(matches!(outcomes[..], [Outcome::Keep(_)]));
    let mut step = Fixture::new().step(&guest("(unreachable)", ALL), &[("nulls", "drop")]);
    let outcomes = step.apply(vec![Record::new("t".into(), Datum::null())]).expect("no batch error");
    assert!(matches!(outcomes[..], [Outcome::Drop]));
}

#[test]
fn compiled_code_is_kept_and_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = dir.path().join("code");
    for _ in 0..2 {
        let factory = WasmFactory::new().with_cache(cache.clone());
        let mut step = build(&factory, &mask(), MASK).expect("starts");
        assert_eq!(run(&mut step, &[r#"{"email":"a"}"#]).0, "k");
        assert_eq!(std::fs::read_dir(&cache).expect("made").count(), 1);
    }
}

/// The prebuilt guest, or the one that `cargo xtask guests --check` has built from source.
fn mask() -> PathBuf {
    let prebuilt = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../prebuilt");
    std::env::var_os("AQUEDUCT_GUESTS").map_or_else(prebuilt, PathBuf::from).join("mask.wasm")
}

const MASK: &[(&str, &str)] = &[("allow", "email"), ("config", r#"{"fields":["email"],"salt":"s"}"#)];

fn hash(text: &str) -> String {
    hex::encode(sha2::Sha256::digest(format!("s{text}")))
}

#[test]
fn the_mask_hashes_fields_through_the_projection() {
    let mut step = build(&WasmFactory::new(), &mask(), MASK).expect("starts");
    let batch =
        vec![record(r#"{"id":1,"email":"a@b.c"}"#), record(r#"{"id":2}"#), record(r#"{"email":null}"#)];
    let outcomes = step.apply(batch).expect("no batch error");
    let [Outcome::Keep(first), Outcome::Fail(second, error), Outcome::Keep(third)] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    let masked = format!(r#"{{"id":1,"email":"{}"}}"#, hash("a@b.c"));
    assert_eq!(first.value.to_json().expect("encodes"), masked.as_bytes());
    assert_eq!(second.value.to_json().expect("encodes"), r#"{"id":2}"#.as_bytes());
    assert!(error.message().contains("there is no field `email` (`missing`)"), "{error}");
    assert_eq!(third.value.to_json().expect("encodes"), r#"{"email":null}"#.as_bytes());
}

fn row(email: Type) -> SchemaRef {
    Schema::structure("row", vec![Field::new("email", Schema::new(email).optional().shared())]).shared()
}

#[test]
fn set_fields_keeps_the_schema_and_refuses_another_type() {
    let mut step = build(&WasmFactory::new(), &mask(), MASK).expect("starts");
    let text = row(Type::String);
    let batch = vec![
        Record::new("t".into(), Datum::new(Arc::clone(&text), Value::Struct(vec!["a".into()]))),
        Record::new("t".into(), Datum::new(row(Type::Int64), Value::Struct(vec![Value::Int64(7)]))),
        Record::new("t".into(), Datum::new(Arc::clone(&text), Value::Struct(vec![Value::Null]))),
    ];
    let given = batch[1].clone();
    let outcomes = step.apply(batch).expect("no batch error");
    let [Outcome::Keep(first), Outcome::Fail(second, error), Outcome::Keep(_)] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert!(Arc::ptr_eq(first.value.schema().expect("typed"), &text));
    assert_eq!(first.value.decoded(), Some(&Value::Struct(vec![hash("a").into()])));
    assert_eq!(*second, given);
    assert!(error.message().contains("text for a field of type int64"), "{error}");
}

#[test]
fn allow_limits_what_the_plugin_may_ask_for() {
    let factory = WasmFactory::new();
    let config = r#"{"fields":["after.email","phone"],"salt":"s"}"#;
    for (allow, denied) in [
        ("after,phone", None),
        ("$value", None),
        ("after.email", Some("`phone`")),
        ("", Some("`after.email`, `phone`")),
        ("$key,phone", Some("`after.email`")),
    ] {
        let built = build(&factory, &mask(), &[("allow", allow), ("config", config)]);
        match (built, denied) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) => assert!(error.message().contains(part), "{allow}: {error}"),
            (built, _) => panic!("{allow}: {:?}", built.err()),
        }
    }
}

#[test]
fn wrong_settings_are_refused_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let empty_module = wat::parse_str("(module)").expect("a module");
    let empty_component = wat::parse_str("(component)").expect("a component");
    for (path, config, part) in [
        (dir.path().join("none.wasm"), MASK, "there is no file"),
        (dir.path().to_owned(), MASK, "is not a file"),
        (file("text.wasm", b"hello"), MASK, "is not a WebAssembly module"),
        (file("cut.wasm", b"\0asm\x01\0\0\0\x01"), MASK, "does not follow the plugin interface"),
        (file("module.wasm", &empty_module), MASK, "aqueduct:transform"),
        (file("component.wasm", &empty_component), MASK, "does not fit `aqueduct:transform@0.1.0`"),
        (mask(), &[("config", r#"{"fields":["a"]}"#)][..], "missing field `salt`"),
        (mask(), &[("config", r#"{"fields":[],"salt":"s"}"#)][..], "`fields` is empty"),
        (mask(), &[("config", "{")][..], "not valid JSON"),
        (mask(), &[("memory", "1KiB")][..], "give between"),
    ] {
        let error = build(&WasmFactory::new(), &path, config).err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::BadConfig, "{error}");
        assert!(error.message().contains(part), "{}: {error}", path.display());
    }
}

#[test]
fn secrets_do_not_show_in_the_plugins_own_message() {
    let mut config = plain(&Config::from([
        ("module".to_owned(), mask().display().to_string()),
        ("config".to_owned(), r#"{"fields":"geheim","salt":"s"}"#.to_owned()),
    ]));
    let shown = WasmFactory::new().build(&config).err().expect("refused").full();
    assert!(shown.contains("geheim"), "{shown}");
    config.get_mut("config").expect("given").secret = true;
    let hidden = WasmFactory::new().build(&config).err().expect("refused").full();
    assert!(!hidden.contains("geheim") && hidden.contains("[hidden]"), "{hidden}");
}
