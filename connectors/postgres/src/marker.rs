//! `source.snapshot` of the rows of a snapshot: the first and the last of all, and of each table.
//!
//! **Invariant:** of each table under way one row is held back, because only what comes next tells whether it is the
//! last; every row is handed out exactly once.

use std::collections::HashMap;
use std::sync::Arc;

use aqueduct_core::Record;
use aqueduct_core::source::SourceRecord;

use crate::table::Table;

/// Marks rows on their way.
#[derive(Default)]
pub(crate) struct Marker {
    begun: bool,
    /// The newest row of each table under way.
    held: HashMap<String, Held>,
    /// The last row of the table that ended last.
    last: Option<Held>,
}

struct Held {
    record: SourceRecord,
    /// The very first row keeps its word, unless it is the very last too.
    first: bool,
}

impl Marker {
    /// Takes the rows of `out` from `from` on, which are of this table, and gives back all but the newest.
    pub(crate) fn rows(&mut self, table: &Arc<Table>, from: usize, out: &mut Vec<SourceRecord>) {
        let Some(newest) = (out.len() > from).then(|| out.pop()).flatten() else { return };
        let mut newest = Held { record: newest, first: false };
        match self.held.remove(table.qualified()) {
            Some(before) => out.insert(from, before.record),
            None => {
                let word = if self.begun { "first_in_data_collection" } else { "first" };
                match out.get_mut(from) {
                    Some(row) => mark(row, word),
                    None => {
                        newest.first = !self.begun;
                        mark(&mut newest.record, word);
                    }
                }
                self.begun = true;
            }
        }
        self.held.insert(table.qualified().to_owned(), newest);
    }

    /// The table has no more rows.
    pub(crate) fn table_ends(&mut self, table: &Arc<Table>, out: &mut Vec<SourceRecord>) {
        // Where the first table is empty, no row is the first.
        self.begun = true;
        let Some(ended) = self.held.remove(table.qualified()) else { return };
        if let Some(mut before) = self.last.replace(ended) {
            if !before.first {
                mark(&mut before.record, "last_in_data_collection");
            }
            out.push(before.record);
        }
    }

    /// No table has.
    pub(crate) fn end(&mut self, out: &mut Vec<SourceRecord>) {
        if let Some(mut last) = self.last.take() {
            mark(&mut last.record, "last");
            out.push(last.record);
        }
    }
}

fn mark(row: &mut SourceRecord, word: &'static str) {
    if let Some(record) = &mut row.record {
        let record: &mut Record = record;
        Table::mark(record, word);
    }
}
