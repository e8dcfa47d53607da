//! The judge of change data capture: sees every lost and every doubled change.
//!
//! Input are the JSON lines that a sink wrote, each with `_topic`, `_partition`, `_offset`, the fields of the row,
//! `version` (raised by one by each change of the key, deletes included), and `__deleted`. The checker orders them by
//! partition and offset and demands per key:
//!
//! * after dropping repeats, versions rise by exactly 1 from the first to the last, deletes included; only a row of a
//!   snapshot (`__op` is `r`) may be ahead, when a second snapshot overlaps with the stream that follows;
//! * a repeat (going back after a kill) has the same content as the first time;
//! * the fold, with unchanged TOAST values filled in from the change before, equals the table.
//!
//! A delete carries the version of the row it removed, and counts as that version plus one.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// What stands where a TOASTed value did not change.
pub const UNCHANGED: &str = "__debezium_unavailable_value";

/// One row of the workload's table, as both sides show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Version.
    pub version: i64,
    /// Every other column as text; numbers in their shortest form.
    pub columns: BTreeMap<String, String>,
}

/// The table's content by key.
pub type Table = HashMap<i64, Row>;

/// What the checker found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Lines read.
    pub lines: usize,
    /// Lines with a place in the log that was seen before: the sink's repeats.
    pub sink_repeats: usize,
    /// Changes that came again later in the log: the source's repeats.
    pub source_repeats: usize,
    /// Everything wrong.
    pub wrong: Vec<String>,
}

struct Change {
    id: i64,
    /// Version after the change.
    version: i64,
    deleted: bool,
    snapshot: bool,
    row: Row,
}

/// Judges `lines` against `table`. `dense` demands that every offset from 0 of every partition is there,
/// but for tombstones.
pub fn check(lines: impl IntoIterator<Item = String>, table: &Table, dense: bool) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut by_place: BTreeMap<(i64, i64), String> = BTreeMap::new();
    for line in lines {
        verdict.lines += 1;
        let json: Value =
            serde_json::from_str(&line).with_context(|| format!("a line is not JSON: {line}"))?;
        let place = (int(&json, "_partition")?, int(&json, "_offset")?);
        match by_place.get(&place) {
            Some(first) if *first == line => verdict.sink_repeats += 1,
            Some(first) => {
                verdict.wrong.push(format!("{place:?} was written twice, differently: {first} | {line}"))
            }
            None => {
                by_place.insert(place, line);
            }
        }
    }
    if dense {
        check_dense(&by_place, &mut verdict.wrong)?;
    }
    let mut keys: HashMap<i64, Vec<Change>> = HashMap::new();
    for line in by_place.values() {
        let change = change(&serde_json::from_str(line)?)?;
        keys.entry(change.id).or_default().push(change);
    }
    for (id, changes) in &keys {
        fold(*id, changes, table.get(id), &mut verdict);
    }
    for id in table.keys().filter(|id| !keys.contains_key(id)) {
        verdict.wrong.push(format!("key {id} is in the table and was never delivered"));
    }
    Ok(verdict)
}

/// Every offset is there, but for the tombstone behind a delete, which sinks may leave out.
fn check_dense(by_place: &BTreeMap<(i64, i64), String>, wrong: &mut Vec<String>) -> Result<()> {
    let mut last: Option<((i64, i64), &str)> = None;
    for ((partition, offset), line) in by_place {
        let expected = match last {
            Some(((of, at), _)) if of == *partition => at + 1,
            _ => 0,
        };
        let tombstone = match last {
            Some((_, before)) if *offset == expected + 1 => change(&serde_json::from_str(before)?)?.deleted,
            _ => false,
        };
        if *offset != expected && !tombstone {
            wrong.push(format!("partition {partition}: offsets {expected} to {} are missing", offset - 1));
        }
        last = Some(((*partition, *offset), line));
    }
    Ok(())
}

fn change(json: &Value) -> Result<Change> {
    let deleted = match json.get("__deleted") {
        Some(Value::String(text)) => text == "true",
        Some(Value::Bool(deleted)) => *deleted,
        _ => false,
    };
    let snapshot = json.get("__op").and_then(Value::as_str) == Some("r");
    let version = int(json, "version")?;
    let object = json.as_object().context("a line is not an object")?;
    let columns = object
        .iter()
        .filter(|(name, _)| !name.starts_with('_') && !matches!(name.as_str(), "id" | "version"))
        .map(|(name, value)| (name.clone(), crate::workload::normal(name, &text(value))));
    let row = Row { version, columns: columns.collect() };
    Ok(Change { id: int(json, "id")?, version: version + i64::from(deleted), deleted, snapshot, row })
}

/// A value as text, numbers in their shortest form.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |v| v.to_string()),
        other => other.to_string(),
    }
}

fn int(json: &Value, field: &str) -> Result<i64> {
    json.get(field).and_then(Value::as_i64).with_context(|| format!("no integer `{field}` in {json}"))
}

fn fold(id: i64, changes: &[Change], expected: Option<&Row>, verdict: &mut Verdict) {
    // By version, as complete as it is known.
    let mut history: BTreeMap<i64, (bool, Row)> = BTreeMap::new();
    let mut at: Option<i64> = None;
    for change in changes {
        let v = change.version;
        let last = history.last_key_value().map(|(v, _)| *v);
        // The next one, a repeat, or a row of a snapshot, behind which the stream fills in what came before.
        if at.is_some_and(|at| v != at + 1) && last.is_some_and(|last| v > last) && !change.snapshot {
            verdict.wrong.push(format!(
                "key {id}: version {v} follows {at:?}, and nothing above {last:?} was seen before"
            ));
        }
        at = Some(v);
        let mut row = change.row.clone();
        fill(&mut row, history.get(&(v - 1)).map(|(_, row)| row));
        if let Some((deleted, known)) = history.get_mut(&v) {
            verdict.source_repeats += 1;
            fill(known, Some(&row));
            fill(&mut row, Some(known));
            if *deleted != change.deleted || (!change.deleted && *known != row) {
                verdict
                    .wrong
                    .push(format!("key {id}: version {v} came again, differently: {known:?} | {row:?}"));
            }
        } else {
            history.insert(v, (change.deleted, row));
        }
    }
    for (a, b) in history.keys().zip(history.keys().skip(1)).filter(|(a, b)| **a + 1 != **b) {
        verdict.wrong.push(format!("key {id}: no version between {a} and {b} was delivered"));
    }
    match (history.last_key_value(), expected) {
        (Some((_, (true, _))), None) => {}
        (Some((_, (false, row))), Some(expected)) if row == expected => {}
        (last, expected) => {
            verdict.wrong.push(format!("key {id}: the last is {last:?}, the table has {expected:?}"))
        }
    }
    let highest = history.last_key_value().map(|(v, _)| *v);
    if highest != at {
        verdict.wrong.push(format!("key {id}: went back to {at:?} and never came to {highest:?} again"));
    }
}

/// Takes unchanged values from the version before; what is not known stays the placeholder, and fails the fold.
fn fill(row: &mut Row, before: Option<&Row>) {
    let Some(before) = before else { return };
    for (name, value) in row.columns.iter_mut().filter(|(_, value)| *value == UNCHANGED) {
        if let Some(known) = before.columns.get(name) {
            known.clone_into(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(offset: i64, version: i64, note: &str, deleted: bool) -> String {
        format!(
            r#"{{"id":1,"version":{version},"note":"{note}","__deleted":"{deleted}","_topic":"t","_partition":0,"_offset":{offset}}}"#
        )
    }

    fn table(version: i64, note: &str) -> Table {
        let columns = BTreeMap::from([("note".to_owned(), note.to_owned())]);
        Table::from([(1, Row { version, columns })])
    }

    fn wrong(lines: &[(i64, &str, bool)], table: &Table) -> Vec<String> {
        let lines =
            lines.iter().enumerate().map(|(i, (v, note, deleted))| line(i as i64, *v, note, *deleted));
        check(lines, table, true).expect("well-formed").wrong
    }

    #[test]
    fn repeats_after_a_kill_pass() {
        let lines = [
            (1, "a", false),
            (2, UNCHANGED, false),
            (3, "b", false),
            (2, UNCHANGED, false),
            (3, "b", false),
            (4, "c", false),
        ];
        assert_eq!(wrong(&lines, &table(4, "c")), Vec::<String>::new());
    }

    #[test]
    fn deletes_count_as_a_version() {
        let lines = [(1, "a", false), (1, "a", true), (3, "b", false), (1, "a", true), (3, "b", false)];
        assert_eq!(wrong(&lines, &table(3, "b")), Vec::<String>::new());
        assert_eq!(wrong(&lines[..2], &Table::new()), Vec::<String>::new());
    }

    #[test]
    fn a_second_snapshot_may_be_ahead_of_the_stream() {
        let row =
            |offset, v, op: &str| line(offset, v, "a", false).replace('{', &format!("{{\"__op\":\"{op}\","));
        let ops = [(2, "r"), (5, "r"), (3, "u"), (4, "u"), (5, "u"), (6, "u")];
        let lines = |ops: &[(i64, &str)]| {
            ops.iter().enumerate().map(|(i, (v, op))| row(i as i64, *v, op)).collect::<Vec<_>>()
        };
        assert_eq!(
            check(lines(&ops), &table(6, "a"), true).expect("well-formed").wrong,
            Vec::<String>::new()
        );
        assert!(
            !check(lines(&[(2, "r"), (5, "r"), (6, "u")]), &table(6, "a"), true)
                .expect("well-formed")
                .wrong
                .is_empty()
        );
    }

    #[test]
    fn every_loss_and_every_change_is_seen() {
        type Lines<'a> = &'a [(i64, &'a str, bool)];
        let bad: [(Lines<'_>, Table); 6] = [
            (&[(1, "a", false), (3, "b", false)], table(3, "b")),
            (&[(1, "a", false), (2, "b", false)], table(3, "b")),
            (&[(1, "a", false)], Table::new()),
            (&[(2, UNCHANGED, false)], table(2, "a")),
            (&[(1, "a", false), (2, "b", false), (1, "a", false)], table(2, "b")),
            (&[(1, "a", false), (1, "x", false)], table(1, "a")),
        ];
        for (lines, table) in bad {
            assert!(!wrong(lines, &table).is_empty(), "{lines:?}");
        }
        let gap = [line(0, 1, "a", false), line(2, 2, "b", false)];
        assert!(!check(gap, &table(2, "b"), true).expect("well-formed").wrong.is_empty());
    }
}
