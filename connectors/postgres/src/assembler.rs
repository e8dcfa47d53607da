//! From the stream's bytes to records with positions: transactions, resuming inside of one, filters.
//!
//! **Invariant:** pure; the position moves forward only. Of a transaction that is sent again, exactly the changes that
//! its position counts as done are skipped, because changes are counted before any filter and the server repeats them
//! in the same order.

use std::collections::HashMap;
use std::sync::Arc;

use aqueduct_core::source::{JsonMap, SourcePosition, SourceRecord};
use aqueduct_core::{Error, Record, Result, failpoint};
use bytes::Bytes;

use crate::pgoutput::{Message, Old, Tuple, Wal};
use crate::position::Position;
use crate::table::{Event, RowValues, Table};
use crate::wire::CopyFrames;

/// Every so many records carry a position of their own; the last of a batch always does.
const POSITION_EVERY: usize = 16;

/// What the server said last when it had nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Idle {
    pub(crate) wal_end: u64,
    pub(crate) urgent: bool,
}

/// The state between two pieces of the stream.
pub(crate) struct Assembler {
    partition: Arc<JsonMap>,
    position: Position,
    truncates: bool,
    tables: HashMap<u32, Arc<Table>>,
    /// Changes seen of the open transaction, and how many of them were done before.
    open: Option<Open>,
    idle: Option<Idle>,
    wal_end: u64,
    unsealed: bool,
    scratch: Vec<Record>,
}

#[derive(Clone, Copy)]
struct Open {
    seen: u64,
    skip: u64,
    micros: i64,
    xid: u32,
}

impl Assembler {
    /// Continues from `position`. `truncates`: whether a TRUNCATE becomes a record.
    pub(crate) fn new(position: Position, partition: Arc<JsonMap>, truncates: bool) -> Self {
        Self {
            partition,
            wal_end: position.lsn_commit,
            position,
            truncates,
            tables: HashMap::new(),
            open: None,
            idle: None,
            unsealed: false,
            scratch: Vec::new(),
        }
    }

    /// Where everything given out so far ends; streaming may begin again here.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// The connection was lost: the open transaction will be sent again.
    pub(crate) fn interrupted(&mut self) {
        self.open = None;
        self.idle = None;
        self.tables.clear();
    }

    /// The server's last word, when no transaction is open after it.
    pub(crate) fn idle(&self) -> Option<Idle> {
        self.idle
    }

    /// How far the server has come, as far as known.
    pub(crate) fn wal_end(&self) -> u64 {
        self.wal_end
    }

    /// Moves an idle position forward.
    pub(crate) fn advance(&mut self, wal_end: u64) -> Option<SourceRecord> {
        if self.open.is_some() || wal_end <= self.position.lsn_commit {
            return None;
        }
        self.position.lsn_commit = wal_end;
        self.position.lsn_proc = wal_end;
        Some(SourceRecord::position_only(self.source_position()))
    }

    /// Decodes whole CopyData messages. `tables` has one entry for each Relation message in them, in order.
    pub(crate) fn decode(
        &mut self,
        chunk: &Bytes,
        tables: impl IntoIterator<Item = (u32, Arc<Table>)>,
        now: i64,
        out: &mut Vec<SourceRecord>,
    ) -> Result<()> {
        let mut tables = tables.into_iter();
        for range in CopyFrames::new(chunk) {
            match Wal::parse(&chunk[range])? {
                Wal::Keepalive { wal_end, reply } => {
                    self.wal_end = self.wal_end.max(wal_end);
                    if self.open.is_none() {
                        let urgent = reply || self.idle.is_some_and(|idle| idle.urgent);
                        self.idle = Some(Idle { wal_end, urgent });
                    }
                }
                Wal::Data { start, message } => {
                    self.idle = None;
                    self.wal_end = self.wal_end.max(start);
                    match Message::parse(message)? {
                        Message::Relation(relation) => {
                            let (oid, table) =
                                tables.next().filter(|(oid, _)| *oid == relation.oid).ok_or_else(|| {
                                    Error::fatal(format!("table `{}` was not looked up", relation.name))
                                })?;
                            self.tables.insert(oid, table);
                        }
                        message => self.message(message, start, chunk, now, out)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends a batch: its last record, or one without a record, carries the position reached.
    pub(crate) fn seal(&mut self, out: &mut Vec<SourceRecord>) {
        if !std::mem::take(&mut self.unsealed) {
            return;
        }
        let position = self.source_position();
        match out.last_mut() {
            Some(last) => last.position = Some(position),
            None => out.push(SourceRecord::position_only(position)),
        }
    }

    fn message(
        &mut self,
        message: Message<'_>,
        start: u64,
        chunk: &Bytes,
        now: i64,
        out: &mut Vec<SourceRecord>,
    ) -> Result<()> {
        match message {
            Message::Begin { final_lsn, commit_micros, xid } => self.begin(final_lsn, commit_micros, xid),
            Message::Commit { end_lsn } => self.commit(end_lsn),
            Message::Insert { oid, new } => {
                if let Some((table, event)) = self.change(oid, start, now)? {
                    let row = table.row(new, true, None, chunk)?;
                    self.scratch.push(table.created(row, &event));
                }
                self.emit(out);
            }
            Message::Update { oid, old, new } => {
                if let Some((table, event)) = self.change(oid, start, now)? {
                    self.update(&table, old, new, chunk, &event)?;
                }
                self.emit(out);
            }
            Message::Delete { oid, old } => {
                if let Some((table, event)) = self.change(oid, start, now)? {
                    let row = table.row(old.tuple, old.whole, None, chunk)?;
                    table.deleted(row, &event, &mut self.scratch);
                }
                self.emit(out);
            }
            Message::Truncate { oids } => {
                for oid in oids {
                    if let Some((table, event)) = self.change(oid, start, now)?
                        && self.truncates
                    {
                        self.scratch.push(table.truncated(&event));
                    }
                    self.emit(out);
                }
            }
            Message::Relation(_) | Message::Other => {}
        }
        Ok(())
    }

    fn begin(&mut self, final_lsn: u64, micros: i64, xid: u32) {
        let skip = match () {
            // The server was asked to begin later; whatever it sends from before is in the log.
            () if final_lsn < self.position.lsn_commit => u64::MAX,
            () if final_lsn == self.position.lsn => self.position.events,
            () => 0,
        };
        self.open = Some(Open { seen: 0, skip, micros, xid });
        if skip == 0 {
            self.position.lsn = final_lsn;
            self.position.events = 0;
            self.position.xid = Some(xid);
            self.position.micros = micros;
        }
    }

    fn commit(&mut self, end_lsn: u64) {
        self.open = None;
        if end_lsn > self.position.lsn_commit {
            self.position.lsn_commit = end_lsn;
            self.position.lsn_proc = self.position.lsn_proc.max(end_lsn);
            self.unsealed = true;
        }
    }

    /// Counts a change; gives the table and the event when it shall become records.
    fn change(&mut self, oid: u32, start: u64, now: i64) -> Result<Option<(Arc<Table>, Event)>> {
        let open = self
            .open
            .as_mut()
            .ok_or_else(|| Error::fatal("the server sent a change outside a transaction"))?;
        open.seen += 1;
        if open.seen <= open.skip {
            return Ok(None);
        }
        failpoint::hit("pg.stream.change");
        self.position.events = open.seen;
        self.position.lsn_proc = start;
        self.unsealed = true;
        let table = self.tables.get(&oid);
        let table = table
            .ok_or_else(|| Error::fatal(format!("the server sent a row of the unknown relation {oid}")))?;
        if !table.included {
            return Ok(None);
        }
        let event = Event {
            snapshot: false,
            lsn: start,
            last_commit: self.position.lsn_commit,
            xid: Some(open.xid),
            micros: open.micros,
            now,
        };
        Ok(Some((Arc::clone(table), event)))
    }

    fn update(
        &mut self,
        table: &Table,
        old: Option<Old<'_>>,
        new: Tuple<'_>,
        chunk: &Bytes,
        event: &Event,
    ) -> Result<()> {
        let decode = |old: Old<'_>| -> Result<(RowValues, bool)> {
            Ok((table.row(old.tuple, old.whole, None, chunk)?, old.whole))
        };
        let old = old.map(decode).transpose()?;
        // Only a whole old row knows the values that the new one leaves out.
        let known = old.as_ref().filter(|(_, whole)| *whole).map(|(row, _)| row);
        let new = table.row(new, true, known, chunk)?;
        table.updated(old, new, event, &mut self.scratch);
        Ok(())
    }

    /// Hands on the records of one change.
    fn emit(&mut self, out: &mut Vec<SourceRecord>) {
        if self.scratch.is_empty() {
            return;
        }
        out.extend(self.scratch.drain(..).map(SourceRecord::unplaced));
        if self.position.events.is_multiple_of(POSITION_EVERY as u64) {
            let position = self.source_position();
            if let Some(last) = out.last_mut() {
                last.position = Some(position);
            }
        }
    }

    fn source_position(&self) -> SourcePosition {
        self.position.source(&self.partition)
    }
}

#[cfg(test)]
mod tests;
