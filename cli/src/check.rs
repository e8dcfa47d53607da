//! `aqueduct check`: everything about pipeline files that can be known without connecting to anything.

use aqueduct_pipeline::{Finding, Mode, Plan};
use serde_json::json;

use crate::args;
use crate::failure::Failure;
use crate::pipelines::{self, Outcome};

pub(crate) fn check(args: &args::Check) -> Result<(), Failure> {
    let outcome = pipelines::plan(&args.files, &crate::registry::registry(), Mode::Check);
    show(&outcome, args.json);
    // The findings are the output; there is nothing to add on standard error.
    if outcome.findings.is_empty() { Ok(()) } else { Err(Failure::usage("")) }
}

/// Prints the findings.
pub(crate) fn show(outcome: &Outcome, json: bool) {
    if json {
        println!("{}", report(outcome));
    } else {
        print(outcome);
    }
}

fn print(outcome: &Outcome) {
    for finding in &outcome.findings {
        println!("{finding}");
    }
    for plan in &outcome.plans {
        for warning in &plan.warnings {
            println!("{warning} (warning)");
        }
        let count = plan.connectors.len();
        println!("{}: ok, pipeline `{}` with {count} connectors", plan.file.display(), plan.pipeline);
    }
}

fn report(outcome: &Outcome) -> serde_json::Value {
    let finding = |finding: &Finding| {
        json!({
            "file": finding.file,
            "line": finding.at.map(|at| at.line),
            "column": finding.at.map(|at| at.column),
            "message": finding.message,
        })
    };
    let findings: Vec<_> = outcome.findings.iter().map(finding).collect();
    let warnings: Vec<_> = outcome.plans.iter().flat_map(|plan| &plan.warnings).map(finding).collect();
    let pipeline = |plan: &Plan| {
        let names: Vec<&str> = plan.connectors.iter().map(|connector| connector.name.as_str()).collect();
        json!({
            "file": plan.file,
            "pipeline": plan.pipeline,
            "connectors": names,
            "topics": plan.topics,
            "tests": plan.tests.len(),
        })
    };
    let pipelines: Vec<_> = outcome.plans.iter().map(pipeline).collect();
    json!({ "ok": findings.is_empty(), "errors": findings, "warnings": warnings, "pipelines": pipelines })
}
