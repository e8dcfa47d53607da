//! Whether what the steps made of the given records is what a test expects. Pure.

use serde_json::Value as Json;

use crate::cases::{Expect, ExpectedFailure, RecordMatcher, Records, TestCase};
use crate::matcher::Matcher;

/// What came of the given records, in their order; inputs count from 0.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What reaches the sink.
    pub records: Vec<Produced>,
    /// What failed, in the order of the inputs.
    pub failures: Vec<FailedInput>,
}

/// A record that reaches the sink.
#[derive(Clone, Debug)]
pub struct Produced {
    /// Which of the given records it came from.
    pub input: usize,
    /// As JSON: `topic`, `key`, `value`, `headers`, `timestamp`.
    pub record: Json,
}

/// A record that failed.
#[derive(Clone, Debug)]
pub struct FailedInput {
    /// Which of the given records.
    pub input: usize,
    /// Stage, in Connect's words.
    pub stage: String,
    /// Name of the step.
    pub step: Option<String>,
    /// What is wrong.
    pub error: String,
}

/// One way in which the outcome is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What differs: `exactly[0].email`, `dropped`, `dead_letters[1].step`.
    pub path: String,
    /// What was expected.
    pub expected: String,
    /// What came.
    pub got: String,
}

impl Difference {
    pub(crate) fn new(path: &str, expected: String, got: String) -> Self {
        Self { path: path.to_owned(), expected, got }
    }
}

/// Every difference; none when the test passes.
pub fn judge(case: &TestCase, outcome: &Outcome) -> Vec<Difference> {
    let mut differences = Vec::new();
    let expect = &case.expect;
    failures(expect, &outcome.failures, &mut differences);
    match &expect.records {
        Records::Any => {}
        Records::Exactly(wanted) => exactly(wanted, &outcome.records, &mut differences),
        Records::Contains(wanted) => contains(wanted, &outcome.records, &mut differences),
    }
    if let Some(wanted) = expect.dropped {
        let came = |input: usize| {
            outcome.records.iter().any(|record| record.input == input)
                || outcome.failures.iter().any(|failure| failure.input == input)
        };
        let dropped: Vec<usize> = (0..case.given.len()).filter(|input| !came(*input)).collect();
        if dropped.len() != wanted {
            let which: Vec<String> = dropped.iter().map(|input| (input + 1).to_string()).collect();
            let got = match which.as_slice() {
                [] => "0".to_owned(),
                which => format!("{} (given {})", which.len(), which.join(", ")),
            };
            differences.push(Difference::new("dropped", wanted.to_string(), got));
        }
    }
    differences
}

fn exactly(wanted: &[RecordMatcher], got: &[Produced], into: &mut Vec<Difference>) {
    for (at, wanted) in wanted.iter().enumerate() {
        wanted.compare(got.get(at).map(|produced| &produced.record), &format!("exactly[{at}]"), true, into);
    }
    for (at, produced) in got.iter().enumerate().skip(wanted.len()) {
        let what = format!("{} (from given {})", produced.record["value"], produced.input + 1);
        into.push(Difference::new(&format!("exactly[{at}]"), "no further record".into(), what));
    }
}

/// Each takes the first record that is left and matches; else it is shown beside the one that comes nearest.
fn contains(wanted: &[RecordMatcher], got: &[Produced], into: &mut Vec<Difference>) {
    let mut left: Vec<&Json> = got.iter().map(|produced| &produced.record).collect();
    for (at, wanted) in wanted.iter().enumerate() {
        let path = format!("contains[{at}]");
        let tried = left.iter().enumerate().map(|(at, record)| {
            let mut differences = Vec::new();
            wanted.compare(Some(record), &path, false, &mut differences);
            (differences, at)
        });
        match tried.min_by_key(|(differences, _)| differences.len()) {
            Some((differences, at)) if differences.is_empty() => drop(left.remove(at)),
            Some((differences, _)) => into.extend(differences),
            None => wanted.compare(None, &path, false, into),
        }
    }
}

fn failures(expect: &Expect, got: &[FailedInput], into: &mut Vec<Difference>) {
    if let Some(stops) = &expect.stops {
        return failure(stops, got.first(), "stops", into);
    }
    for (at, wanted) in expect.dead_letters.iter().enumerate() {
        failure(wanted, got.get(at), &format!("dead_letters[{at}]"), into);
    }
    for (at, failed) in got.iter().enumerate().skip(expect.dead_letters.len()) {
        let (path, expected) = match expect.tolerates {
            true => (format!("dead_letters[{at}]"), "no further dead letter"),
            false => ("stops".to_owned(), "a sink that goes on"),
        };
        into.push(Difference::new(&path, expected.into(), failed.to_string()));
        if !expect.tolerates {
            break;
        }
    }
}

fn failure(wanted: &ExpectedFailure, got: Option<&FailedInput>, path: &str, into: &mut Vec<Difference>) {
    let Some(got) = got else {
        into.push(Difference::new(path, wanted.to_string(), "nothing that failed".into()));
        return;
    };
    let mut check = |name: &str, wanted: Option<String>, right: bool, got: String| {
        if let Some(wanted) = wanted.filter(|_| !right) {
            into.push(Difference::new(&format!("{path}.{name}"), wanted, got));
        }
    };
    let record = wanted.record.map(|record| record + 1);
    check(
        "record",
        record.map(|r| r.to_string()),
        record == Some(got.input + 1),
        (got.input + 1).to_string(),
    );
    let stage = wanted.stage.clone();
    check("stage", stage.clone(), stage.as_deref() == Some(got.stage.as_str()), got.stage.clone());
    let step = wanted.step.clone();
    check("step", step.clone(), step == got.step, got.step.clone().unwrap_or_else(|| "none".into()));
    let right = match &wanted.error {
        Some(Matcher::Equals(Json::String(part))) => got.error.contains(part.as_str()),
        Some(Matcher::Matches(regex)) => regex.is_match(&got.error),
        Some(_) => false,
        None => true,
    };
    check("error", wanted.error.as_ref().map(Matcher::to_string), right, format!("{:?}", got.error));
}

impl std::fmt::Display for FailedInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let step = self.step.as_deref().map(|step| format!(" in step `{step}`")).unwrap_or_default();
        write!(f, "given {}: {}{step}: {}", self.input + 1, self.stage, self.error)
    }
}

#[cfg(test)]
mod tests;
