//! The source task: decides between snapshot and stream, turns what arrives into records, and confirms the slot.
//!
//! **Invariant:** the slot is confirmed only up to a position that the runtime has stored; nothing is streamed before
//! every row of the snapshot is acknowledged; no connection is waited for inside `poll`, which may be dropped at any
//! point.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aqueduct_core::source::{
    JsonMap, Progress, SourceContext, SourcePosition, SourceRecord, SourceTask, partition_of,
};
use aqueduct_core::{Error, Result, failpoint};
use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::assembler::Assembler;
use crate::catalog;
use crate::clock;
use crate::config::{Settings, SnapshotMode};
use crate::copy;
use crate::delivery::{Delivery, budget};
use crate::marker::Marker;
use crate::position::{Position, Snapshot as Phase};
use crate::snapshot::{Snapshot, create_slot};
use crate::stream::{Stream, connect_control, lost_slot, missing_slot};
use crate::table::{Event, Table};
use crate::wire::{Mode, PgError, Session};

/// How often an idle position is moved forward.
const ADVANCE_EVERY: Duration = Duration::from_secs(10);
/// A batch is handed on when it has read this much, or made so many records.
const BATCH_BYTES: usize = 512 << 10;
const BATCH_RECORDS: usize = 2000;
/// How often `poll` looks again while it waits for an acknowledgement.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A task; without a start it does nothing.
pub(crate) struct PostgresTask {
    settings: Arc<Settings>,
    partition: Arc<JsonMap>,
    running: Option<Running>,
}

struct Running {
    settings: Arc<Settings>,
    partition: Arc<JsonMap>,
    context: SourceContext,
    state: State,
    background: Option<Background>,
    confirm: watch::Sender<u64>,
    marker: Marker,
    rows_done: u64,
    rows_total: u64,
    advanced: Option<Instant>,
    /// The last position that the runtime has stored.
    stored: Option<(u64, u64, u64)>,
}

enum State {
    /// Rows are read; the position is known once it has begun.
    Snapshot(Option<Position>),
    /// Every row is handed out and waits for its acknowledgement.
    Acknowledging(Position),
    Streaming(Box<Assembler>),
}

struct Background {
    out: mpsc::Receiver<Delivery>,
    cancel: CancellationToken,
    stopping: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Background {
    async fn stop(mut self) {
        self.cancel.cancel();
        self.out.close();
        if timeout(Duration::from_secs(3), &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl PostgresTask {
    pub(crate) fn new(settings: Settings) -> Self {
        let partition = partition_of("server", &settings.origin.prefix);
        Self { settings: Arc::new(settings), partition, running: None }
    }

    fn running(&mut self) -> Result<&mut Running> {
        self.running.as_mut().ok_or_else(|| Error::fatal("the task was not started"))
    }
}

#[async_trait]
impl SourceTask for PostgresTask {
    async fn start(&mut self, context: SourceContext) -> Result<()> {
        let stored =
            context.positions.get(&self.partition).map(|offset| Position::read(offset)).transpose()?;
        let position = begin(&self.settings, stored).await?;
        let confirmed = position.as_ref().map_or(0, |position| position.lsn_commit);
        let state = match position {
            Some(position) => streaming(&self.settings, &self.partition, position),
            None => State::Snapshot(None),
        };
        self.running = Some(Running {
            settings: Arc::clone(&self.settings),
            partition: Arc::clone(&self.partition),
            context,
            state,
            background: None,
            confirm: watch::Sender::new(confirmed),
            marker: Marker::default(),
            rows_done: 0,
            rows_total: 0,
            advanced: None,
            stored: None,
        });
        Ok(())
    }

    async fn poll(&mut self) -> Result<Vec<SourceRecord>> {
        self.running()?.poll().await
    }

    async fn commit(&mut self, positions: &[SourcePosition]) -> Result<()> {
        let partition = Arc::clone(&self.partition);
        if let Some(position) = positions.iter().rev().find(|position| position.partition == partition) {
            let position = Position::read(&position.offset)?;
            self.running()?.commit(&position);
        }
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running.context.reporter.progress(None);
            if let Some(background) = running.background.take() {
                background.stop().await;
            }
        }
        Ok(())
    }
}

fn streaming(settings: &Settings, partition: &Arc<JsonMap>, position: Position) -> State {
    let position = Position { snapshot: Phase::No, ..position };
    State::Streaming(Box::new(Assembler::new(position, Arc::clone(partition), settings.truncates)))
}

/// Looks at server, slot and stored position; gives where to stream from, or nothing when a snapshot comes first.
async fn begin(settings: &Settings, stored: Option<Position>) -> Result<Option<Position>> {
    let at = settings.endpoint.shown();
    let connecting = |error: PgError| error.during(format!("connecting to `{at}`"));
    let mut control = connect_control(settings).await.map_err(connecting)?;
    catalog::check_server(&mut control).await?;
    let mut replication = Session::connect(&settings.endpoint, Mode::Replication, "-c lock_timeout=60000")
        .await
        .map_err(connecting)?;
    let server = catalog::identify(&mut replication).await?;
    // Before the slot: a slot that is older than its publication cannot use it.
    catalog::ensure_publication(&mut control, settings).await?;
    let slot = catalog::slot(&mut control, settings).await?;
    let when_needed = settings.snapshot == SnapshotMode::WhenNeeded;

    let position = match (stored, slot) {
        (None, slot) if settings.snapshot == SnapshotMode::Never => {
            let lsn = match slot {
                Some(slot) => slot.confirmed,
                None => create_slot(&mut replication, settings).await?.1,
            };
            Some(Position::at(server.system, Phase::No, lsn, clock::micros()))
        }
        (None, None) if !settings.create_slot => {
            // Says what to do.
            create_slot(&mut replication, settings).await?;
            None
        }
        (None, _) => None,
        (Some(stored), slot) => {
            let slot = match slot {
                Some(slot) if !slot.lost => Some(slot),
                _ if when_needed => None,
                Some(_) => return Err(lost_slot(settings)),
                None => return Err(missing_slot(settings)),
            };
            stored.check(&server, &settings.slot, slot.as_ref().map_or(0, |slot| slot.confirmed))?;
            // A snapshot that was cut short is taken again, with the slot it began with.
            (slot.is_some() && stored.snapshot != Phase::Running).then_some(stored)
        }
    };
    control.close().await;
    replication.close().await;
    Ok(position)
}

impl Running {
    async fn poll(&mut self) -> Result<Vec<SourceRecord>> {
        if let State::Acknowledging(_) = self.state {
            // The commit that ends this state can only come between polls.
            tokio::time::sleep(LOOK_AGAIN).await;
            return Ok(Vec::new());
        }
        let until = Instant::now() + LOOK_AGAIN;
        // Most keepalives lead to nothing; the runtime need not hear of them.
        loop {
            let delivery = self.next(until).await;
            let silent = delivery.is_none();
            let out = self.batch(delivery)?;
            if silent || !out.is_empty() {
                return Ok(out);
            }
        }
    }

    fn batch(&mut self, delivery: Option<Delivery>) -> Result<Vec<SourceRecord>> {
        let mut out = Vec::new();
        let result = match delivery {
            Some(delivery) => self.take_all(delivery, &mut out),
            None => Ok(()),
        };
        self.seal(&mut out);
        self.advance(&mut out);
        self.report();
        let Err(error) = result else { return Ok(out) };
        self.background = None;
        if let State::Streaming(assembler) = &mut self.state {
            assembler.interrupted();
        }
        // What came before the error counts. The next poll connects again, and meets the error if it lasts.
        if !out.is_empty() && error.is_retriable() {
            tracing::warn!("{}", error.full());
            return Ok(out);
        }
        Err(error)
    }

    /// The next thing from the background task, which is started where there is none. `None` when the time is up.
    async fn next(&mut self, until: Instant) -> Option<Delivery> {
        if self.background.is_none() {
            self.background = Some(self.spawn());
        }
        let background = self.background.as_mut()?;
        match timeout_at(until, background.out.recv()).await {
            Ok(Some(delivery)) => Some(delivery),
            Ok(None) => Some(Delivery::Failed(Error::retriable("the connection task ended"))),
            Err(_) => None,
        }
    }

    fn spawn(&mut self) -> Background {
        let units = budget(self.context.buffer_bytes);
        let (sender, out) = mpsc::channel(units + 16);
        let budget = Arc::new(Semaphore::new(units));
        let cancel = CancellationToken::new();
        let stopping = Arc::new(AtomicBool::new(false));
        let settings = Arc::clone(&self.settings);
        let task = match &self.state {
            State::Streaming(assembler) => {
                let from = assembler.position().clone();
                let confirmed = self.confirm.subscribe();
                let (cancel, stopping) = (cancel.clone(), Arc::clone(&stopping));
                let stream = Stream { settings, from, confirmed, out: sender, budget, cancel, stopping };
                tokio::spawn(stream.run())
            }
            State::Snapshot(_) | State::Acknowledging(_) => {
                let snapshot = Snapshot { settings, out: sender, budget, cancel: cancel.clone() };
                tokio::spawn(snapshot.run())
            }
        };
        Background { out, cancel, stopping, task }
    }

    /// Takes a delivery and what else is there already.
    fn take_all(&mut self, first: Delivery, out: &mut Vec<SourceRecord>) -> Result<()> {
        let now = clock::micros();
        let (mut next, mut bytes) = (Some(first), 0);
        while let Some(delivery) = next {
            bytes += self.take(delivery, now, out)?;
            if bytes >= BATCH_BYTES
                || out.len() >= BATCH_RECORDS
                || matches!(self.state, State::Acknowledging(_))
            {
                break;
            }
            next = self.background.as_mut().and_then(|background| background.out.try_recv().ok());
        }
        Ok(())
    }

    fn take(&mut self, delivery: Delivery, now: i64, out: &mut Vec<SourceRecord>) -> Result<usize> {
        match delivery {
            Delivery::Failed(error) => Err(error),
            Delivery::Wal { data, tables, permit } => {
                let State::Streaming(assembler) = &mut self.state else {
                    return Err(Error::fatal("changes came before the snapshot ended"));
                };
                assembler.decode(&data, tables, now, out)?;
                drop(permit);
                Ok(data.len())
            }
            Delivery::SnapshotBegins { position, total } => {
                failpoint::hit("pg.snapshot.before_first_row");
                self.confirm.send_replace(position.lsn_commit);
                out.push(SourceRecord::position_only(position.source(&self.partition)));
                (self.rows_done, self.rows_total) = (0, total);
                self.marker = Marker::default();
                self.state = State::Snapshot(Some(position));
                Ok(0)
            }
            Delivery::Rows { table, data, permit } => {
                self.rows(&table, &data, now, out)?;
                drop(permit);
                Ok(data.len())
            }
            Delivery::TableEnds(table) => {
                self.marker.table_ends(&table, out);
                Ok(0)
            }
            Delivery::SnapshotEnds => {
                self.marker.end(out);
                let State::Snapshot(Some(position)) = &self.state else {
                    return Err(Error::fatal("the snapshot ended before it began"));
                };
                let position = Position { snapshot: Phase::Completed, ..position.clone() };
                out.push(SourceRecord::position_only(position.source(&self.partition)));
                self.state = State::Acknowledging(position);
                self.background = None;
                Ok(0)
            }
        }
    }

    /// Gives the last record of a batch the position reached.
    fn seal(&mut self, out: &mut Vec<SourceRecord>) {
        match &mut self.state {
            State::Streaming(assembler) => assembler.seal(out),
            State::Snapshot(Some(position)) => {
                if let Some(last) = out.last_mut() {
                    last.position = Some(position.source(&self.partition));
                }
            }
            State::Snapshot(None) | State::Acknowledging(_) => {}
        }
    }

    fn rows(
        &mut self,
        table: &Arc<Table>,
        data: &bytes::Bytes,
        now: i64,
        out: &mut Vec<SourceRecord>,
    ) -> Result<()> {
        let State::Snapshot(Some(position)) = &self.state else {
            return Err(Error::fatal("rows came outside a snapshot"));
        };
        let lsn = position.lsn_commit;
        let event = Event { snapshot: true, lsn, last_commit: 0, xid: None, micros: position.micros, now };
        let from = out.len();
        self.rows_done += copy::decode(table, data, &event, out)?;
        self.marker.rows(table, from, out);
        self.context.reporter.progress(Some(Progress {
            what: format!("snapshot of {}", table.qualified()),
            done: self.rows_done,
            total: (self.rows_total > 0).then_some(self.rows_total.max(self.rows_done)),
        }));
        Ok(())
    }

    /// Moves an idle position forward, so that the WAL of other tables and databases does not pile up.
    fn advance(&mut self, out: &mut Vec<SourceRecord>) {
        let State::Streaming(assembler) = &mut self.state else { return };
        let Some(idle) = assembler.idle() else { return };
        let at = place(assembler.position());
        let all_stored = self.stored == Some(at) || self.stored.is_none() && !self.given_out(at);
        let stopping = self.background.as_ref().is_some_and(|b| b.stopping.load(Ordering::Relaxed));
        let due = idle.urgent && stopping || self.advanced.is_none_or(|at| at.elapsed() >= ADVANCE_EVERY);
        if !out.is_empty() || !all_stored || !due {
            return;
        }
        let State::Streaming(assembler) = &mut self.state else { return };
        if let Some(record) = assembler.advance(idle.wal_end) {
            self.advanced = Some(Instant::now());
            out.push(record);
        }
    }

    /// Whether anything was given out since the start that is not stored yet.
    fn given_out(&self, at: (u64, u64, u64)) -> bool {
        at.0 != *self.confirm.borrow()
    }

    fn report(&self) {
        if let State::Streaming(assembler) = &self.state {
            self.context.reporter.lag(assembler.wal_end().saturating_sub(*self.confirm.borrow()), "bytes");
        }
    }

    fn commit(&mut self, position: &Position) {
        match &self.state {
            State::Snapshot(_) => {}
            State::Acknowledging(end) => {
                if position.snapshot == Phase::Completed && position.lsn_commit == end.lsn_commit {
                    self.context.reporter.progress(None);
                    failpoint::hit("pg.snapshot.done");
                    self.state = streaming(&self.settings, &self.partition, end.clone());
                }
            }
            State::Streaming(_) => {
                self.stored = Some(place(position));
                failpoint::hit("pg.before_slot_confirm");
                self.confirm.send_if_modified(|confirmed| {
                    let forward = position.lsn_commit > *confirmed;
                    *confirmed = position.lsn_commit.max(*confirmed);
                    forward
                });
                self.report();
            }
        }
    }
}

fn place(position: &Position) -> (u64, u64, u64) {
    (position.lsn_commit, position.lsn, position.events)
}
