//! `aqueduct test`: the `tests` of pipelines, run through the converters and steps of their sinks.
//!
//! No log and no other system is needed: a record is written by the sink's converter and read by it again, as it would
//! be from a topic, and goes through the steps that a running sink builds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aqueduct_core::component::Registry;
use aqueduct_core::sink::Consumed;
use aqueduct_core::{Datum, Error, Headers, Record, Result, Str, Topic};
use aqueduct_pipeline::{
    Difference, FailedInput, Given, GivenValue, Mode, Outcome, Plan, Produced, TestCase,
};
use aqueduct_runtime::{
    ConsumedRecord, MemorySchemaStore, ReferenceResolver, Rehearsal, Rehearsed, SchemaStore,
};
use serde_json::{Value, json};

use crate::args::pipelines::Test;
use crate::failure::Failure;
use crate::{check, output, pipelines};

/// A test that was run.
struct Ran<'a> {
    plan: &'a Plan,
    case: &'a TestCase,
    /// How the outcome differs, or why there is none.
    result: Result<Vec<Difference>>,
    took: Duration,
}

impl Ran<'_> {
    fn passed(&self) -> bool {
        self.result.as_ref().is_ok_and(Vec::is_empty)
    }
}

pub(crate) async fn test(args: Test) -> Result<(), Failure> {
    let registry = crate::registry::registry();
    let planned = {
        let (files, registry) = (args.files.clone(), registry.clone());
        tokio::task::spawn_blocking(move || pipelines::plan(&files, &registry, Mode::Check)).await
    };
    let outcome = planned.map_err(|error| Failure::failed(format!("planning ended early: {error}")))?;
    if !outcome.findings.is_empty() {
        check::show(&outcome, args.json);
        return Err(Failure::usage(""));
    }
    let chosen = |case: &TestCase| args.name.as_deref().is_none_or(|part| case.name.contains(part));
    let mut ran = Vec::new();
    for plan in &outcome.plans {
        for case in plan.tests.iter().filter(|case| chosen(case)) {
            let began = Instant::now();
            let result = run(&registry, plan, case).await;
            ran.push(Ran { plan, case, result, took: began.elapsed() });
        }
    }
    let text = if args.json { report(&outcome.plans, &ran) } else { shown(&outcome.plans, &ran) };
    output::print(&text)?;
    match ran.iter().all(Ran::passed) {
        _ if ran.is_empty() => {
            let what = match &args.name {
                Some(part) => format!("no test has `{part}` in its name"),
                None => "these files have no `tests`; docs/pipelines.md shows how to write one".to_owned(),
            };
            Err(Failure::failed(what))
        }
        true => Ok(()),
        // What was printed says it all.
        false => Err(Failure::failed("")),
    }
}

async fn run(registry: &Registry, plan: &Plan, case: &TestCase) -> Result<Vec<Difference>> {
    let sink = plan.connectors.iter().find(|connector| connector.name == case.connector);
    let sink = sink.ok_or_else(|| Error::fatal(format!("there is no connector `{}`", case.connector)))?;
    let schemas: Arc<dyn SchemaStore> = Arc::new(MemorySchemaStore::default());
    let mut rehearsal = Rehearsal::new(registry, &sink.config, &ReferenceResolver::trusted(), &schemas)?;
    let mut records = Vec::new();
    for (at, given) in case.given.iter().enumerate() {
        let consumed = encode(&rehearsal, given).await;
        let consumed = consumed.map_err(|error| error.context(format_args!("given record {}", at + 1)))?;
        records.push(ConsumedRecord {
            topic: Topic::from(given.topic.as_str()),
            partition: given.partition,
            offset: i64::try_from(at).unwrap_or(i64::MAX),
            timestamp: given.timestamp,
            consumed: Arc::new(consumed),
        });
    }
    let outcome = outcome(rehearsal.run(&records).await?)?;
    Ok(aqueduct_pipeline::judge(case, &outcome))
}

async fn encode(rehearsal: &Rehearsal, given: &Given) -> Result<Consumed> {
    let topic = Topic::from(given.topic.as_str());
    let (value, raw) = match &given.value {
        GivenValue::Raw(text) => (Datum::null(), Some(text.clone())),
        GivenValue::Value(value, schema) => (datum(value, schema.as_ref().map(|s| Arc::clone(&s.0)))?, None),
    };
    let mut record = Record::new(topic, value);
    record.key = datum(&given.key, None)?;
    let mut headers = Headers::new();
    for (name, text) in &given.headers {
        let text = text.as_deref().map_or(Datum::null(), Datum::schemaless);
        headers.push(Str::from(name.as_str()), text);
    }
    record.headers = headers;
    let mut consumed = rehearsal.encode(&record).await?;
    if let Some(raw) = raw {
        consumed.value = Some(raw.into_bytes().into());
    }
    Ok(consumed)
}

fn datum(value: &Value, schema: Option<aqueduct_core::SchemaRef>) -> Result<Datum> {
    if value.is_null() {
        return Ok(Datum::null());
    }
    let mut datum = Datum::json(schema, value.to_string().into_bytes().into());
    // A value that does not fit its schema is told here.
    datum.value()?;
    Ok(datum)
}

fn outcome(rehearsed: Rehearsed) -> Result<Outcome> {
    let records = rehearsed.records.into_iter().map(|(input, record)| {
        let part = |datum: &Datum| -> Result<Value> {
            serde_json::from_slice(&datum.to_json()?)
                .map_err(|error| Error::bad_record("a value is not JSON").with_source(error))
        };
        let headers = record.headers.iter().map(|header| Ok((header.name.to_string(), part(&header.value)?)));
        let record = json!({
            "topic": &*record.topic,
            "key": part(&record.key)?,
            "value": part(&record.value)?,
            "headers": headers.collect::<Result<serde_json::Map<_, _>>>()?,
            "timestamp": record.timestamp,
        });
        Ok(Produced { input, record })
    });
    let failures = rehearsed.failed.into_iter().map(|failed| FailedInput {
        input: failed.input,
        stage: failed.stage.to_owned(),
        step: failed.step,
        error: failed.error.full(),
    });
    Ok(Outcome { records: records.collect::<Result<_>>()?, failures: failures.collect() })
}

fn shown(plans: &[Plan], ran: &[Ran<'_>]) -> String {
    let mut text = String::new();
    for plan in plans {
        let own: Vec<&Ran<'_>> = ran.iter().filter(|ran| std::ptr::eq(ran.plan, plan)).collect();
        if own.is_empty() {
            text.push_str(&format!("{}: no tests\n", plan.file.display()));
            continue;
        }
        text.push_str(&format!("{}\n", plan.file.display()));
        for ran in own {
            let sign = if ran.passed() { "ok  " } else { "FAIL" };
            text.push_str(&format!("  {sign}  {} ({} ms)\n", ran.case.name, ran.took.as_millis()));
            let at = format!("{}:{}:{}", plan.file.display(), ran.case.at.line, ran.case.at.column);
            match &ran.result {
                Ok(differences) if differences.is_empty() => {}
                Err(error) => text.push_str(&format!("        {at}: {}\n", error.full())),
                Ok(differences) => {
                    text.push_str(&format!("        {at}\n"));
                    for Difference { path, expected, got } in differences {
                        text.push_str(&format!(
                            "        {path}\n          expected {expected}\n          got      {got}\n"
                        ));
                    }
                }
            }
        }
    }
    if !ran.is_empty() {
        let failed = ran.iter().filter(|ran| !ran.passed()).count();
        text.push_str(&format!("{} passed, {failed} failed\n", ran.len() - failed));
    }
    text
}

fn report(plans: &[Plan], ran: &[Ran<'_>]) -> String {
    let files = plans.iter().map(|plan| {
        let tests = ran.iter().filter(|ran| std::ptr::eq(ran.plan, plan)).map(|ran| {
            let differences = ran.result.as_ref().map(Vec::as_slice).unwrap_or_default();
            let differences = differences.iter().map(
                |Difference { path, expected, got }| json!({ "path": path, "expected": expected, "got": got }),
            );
            json!({
                "name": ran.case.name,
                "line": ran.case.at.line,
                "connector": ran.case.connector,
                "ok": ran.passed(),
                "milliseconds": u64::try_from(ran.took.as_millis()).unwrap_or(u64::MAX),
                "error": ran.result.as_ref().err().map(Error::full),
                "differences": differences.collect::<Vec<_>>(),
            })
        });
        json!({ "file": plan.file, "pipeline": plan.pipeline, "tests": tests.collect::<Vec<_>>() })
    });
    let files: Vec<Value> = files.collect();
    format!("{:#}\n", json!({ "ok": !ran.is_empty() && ran.iter().all(Ran::passed), "files": files }))
}
