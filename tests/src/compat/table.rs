//! The table test × (ours, Kafka), for people and for programs.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Line, State};

/// As text, and the differences below.
#[expect(clippy::print_stdout, reason = "the table is the output")]
pub(super) fn text(lines: &[Line], compared: bool) {
    for line in lines {
        let (ours, kafka) = (word(line.ours.as_ref()), word(line.kafka.as_ref()));
        println!("{:<13}{:<62}{ours:<9}{kafka}", line.suite.name(), line.test);
    }
    println!("\n{}", counts(lines));
    for line in lines.iter().filter(|line| line.differs(compared)) {
        let why = match &line.ours {
            Some(State::Failed(why) | State::Skipped(why)) => why.as_str(),
            Some(State::Passed) | None => "it did not run",
        };
        let reason = line.reason.as_deref().unwrap_or("UNEXPLAINED");
        println!("differs: {} {}: {reason}\n         {why}", line.suite.name(), line.test);
    }
}

/// As one JSON document.
#[expect(clippy::print_stdout, reason = "the table is the output")]
pub(super) fn json(lines: &[Line], compared: bool) -> Result<()> {
    let state = |state: Option<&State>| match state {
        None => Value::Null,
        Some(State::Passed) => json!({"state": "passed"}),
        Some(State::Failed(why)) => json!({"state": "failed", "why": why}),
        Some(State::Skipped(why)) => json!({"state": "skipped", "why": why}),
    };
    let tests: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "suite": line.suite.name(),
                "test": line.test,
                "ours": state(line.ours.as_ref()),
                "kafka": state(line.kafka.as_ref()),
                "differs": line.differs(compared),
                "reason": line.reason,
            })
        })
        .collect();
    println!("{}", serde_json::to_string_pretty(&json!({"kafka": "4.3.0", "tests": tests}))?);
    Ok(())
}

fn word(state: Option<&State>) -> &'static str {
    match state {
        None => "-",
        Some(State::Passed) => "passed",
        Some(State::Failed(_)) => "FAILED",
        Some(State::Skipped(_)) => "skipped",
    }
}

fn counts(lines: &[Line]) -> String {
    let count = |which: fn(&Line) -> Option<&State>| {
        let of = |state: &str| lines.iter().filter(|line| word(which(line)) == state).count();
        format!("{} passed, {} failed, {} skipped", of("passed"), of("FAILED"), of("skipped"))
    };
    format!("ours: {}\nKafka: {}", count(|line| line.ours.as_ref()), count(|line| line.kafka.as_ref()))
}
