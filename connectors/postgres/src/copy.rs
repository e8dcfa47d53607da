//! Rows of `COPY … TO STDOUT` in text form.
//!
//! **Invariant:** a field without a backslash is a slice of what was read.

use aqueduct_core::source::SourceRecord;
use aqueduct_core::{Result, failpoint};
use bytes::Bytes;

use crate::table::{Event, RowValues, Table};
use crate::wire::CopyFrames;

/// Decodes whole CopyData messages, one row each, and returns how many.
pub(crate) fn decode(
    table: &Table,
    chunk: &Bytes,
    event: &Event,
    out: &mut Vec<SourceRecord>,
) -> Result<u64> {
    let before = out.len();
    for range in CopyFrames::new(chunk) {
        let line = &chunk[range];
        let row = row(table, line.strip_suffix(b"\n").unwrap_or(line), chunk)?;
        failpoint::hit("pg.snapshot.row");
        out.push(SourceRecord::unplaced(table.created(row, event)));
    }
    Ok((out.len() - before) as u64)
}

fn row(table: &Table, line: &[u8], chunk: &Bytes) -> Result<RowValues> {
    let columns = table.columns();
    let mut row = Vec::with_capacity(columns.len());
    if columns.is_empty() {
        return Ok(row);
    }
    let mut rest = Some(line);
    while let Some(line) = rest {
        // Escaped fields are rare; the first of the two bytes tells which way to go.
        let (field, escaped, after) = match memchr::memchr2(b'\t', b'\\', line) {
            None => (line, false, None),
            Some(at) if line[at] == b'\t' => (&line[..at], false, Some(&line[at + 1..])),
            // A tab inside a field is written as `\t`, so that the next tab byte ends it.
            Some(at) => match memchr::memchr(b'\t', &line[at..]) {
                None => (line, true, None),
                Some(tab) => (&line[..at + tab], true, Some(&line[at + tab + 1..])),
            },
        };
        rest = after;
        let column = columns.get(row.len()).ok_or_else(|| table.wrong_width(row.len() + 1))?;
        row.push(match (escaped, field) {
            (false, _) => column.value(field, chunk),
            (true, b"\\N") => column.absent().clone(),
            (true, _) => {
                let plain = Bytes::from(unescape(field));
                column.value(&plain, &plain)
            }
        });
    }
    if row.len() == columns.len() { Ok(row) } else { Err(table.wrong_width(row.len())) }
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'b') => 8,
                Some(b'f') => 12,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 11,
                Some(other) => *other,
                None => b'\\',
            },
            other => *other,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aqueduct_core::Value;

    use super::*;
    use crate::column::ColumnType;
    use crate::kind::PgType;
    use crate::table::{Origin, TableShape};

    fn table(types: &[u32]) -> Table {
        let columns = types.iter().enumerate();
        let columns = columns.map(|(i, oid)| ColumnType::new(format!("c{i}"), PgType::known(*oid, -1)));
        let shape = TableShape {
            schema: "s".to_owned(),
            name: "t".to_owned(),
            columns: columns.collect(),
            key: vec!["c0".to_owned()],
            included: true,
        };
        Table::new(&shape, &Arc::new(Origin::plain()))
    }

    fn read(types: &[u32], line: &'static str) -> Result<RowValues> {
        let chunk = Bytes::from_static(line.as_bytes());
        row(&table(types), &chunk, &chunk)
    }

    #[test]
    fn fields_are_split_at_tabs_and_unescaped() {
        let row = read(&[23, 25, 25, 25, 17], "1\ta\\tb\\\\\t\\N\t\t\\\\xff").expect("valid");
        let want = vec![
            Value::Int32(1),
            "a\tb\\".into(),
            Value::Null,
            "".into(),
            Value::Bytes(Bytes::from_static(&[0xff])),
        ];
        assert_eq!(row, want);
    }

    #[test]
    fn a_text_that_looks_like_null_is_text() {
        assert_eq!(read(&[25], "\\\\N").expect("valid"), vec!["\\N".into()]);
    }

    #[test]
    fn a_row_of_another_width_is_refused() {
        assert!(read(&[23, 23], "1").is_err());
        assert!(read(&[23], "1\t2").is_err());
    }
}
