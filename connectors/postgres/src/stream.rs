//! The replication connection: a task that reads, looks tables up, and keeps the server informed.
//!
//! **Invariant:** the server is told the confirmed position, never the received one, and on time even while nobody
//! takes what was read: reading stops at the byte budget, status updates do not. A server that shuts down is not kept
//! waiting longer than [`SHUTDOWN_PATIENCE`].
//!
//! When streaming begins, PostgreSQL decodes again from the slot's `restart_lsn`, which lies at or before what is
//! confirmed, and sends only what is new. It moves `restart_lsn` past a transaction when it has decoded the list of
//! running transactions that it writes every 15 s or at a checkpoint, and a position behind that list is confirmed; the
//! latter is at most 10 s late where nothing changes. So a restart within these seconds after
//! a large transaction waits for its decoding: about 2 s for 125 MiB of WAL, with any client.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aqueduct_core::{Error, Result};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::catalog;
use crate::config::Settings;
use crate::delivery::{Delivery, permits};
use crate::pgoutput::{Message, Relation, Wal};
use crate::position::{Lsn, Position};
use crate::table::Table;
use crate::wire::{Chunk, CopyFrames, Mode, PgError, ServerError, Session, quote_ident};

/// A fast shutdown waits until walsenders are done; past this the connection is closed instead.
const SHUTDOWN_PATIENCE: Duration = Duration::from_millis(2000);
/// After a lost connection the server may hold the slot until `wal_sender_timeout`, 60 s by default.
const SLOT_PATIENCE: Duration = Duration::from_secs(100);
/// Confirmations are sent at once, but not more often than this.
const CONFIRM_PAUSE: Duration = Duration::from_millis(50);
/// How long an answer waits for the confirmation that the server would like to hear.
const REPLY_PAUSE: Duration = Duration::from_millis(100);
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// What the task is started with.
pub(crate) struct Stream {
    pub(crate) settings: Arc<Settings>,
    /// Where to begin.
    pub(crate) from: Position,
    pub(crate) confirmed: watch::Receiver<u64>,
    pub(crate) out: mpsc::Sender<Delivery>,
    pub(crate) budget: Arc<Semaphore>,
    pub(crate) cancel: CancellationToken,
    /// Set when the server shuts down, or may: then a position is worth moving forward at once.
    pub(crate) stopping: Arc<AtomicBool>,
}

impl Stream {
    /// Runs until cancelled, or until an error that is handed on.
    pub(crate) async fn run(self) {
        let out = self.out.clone();
        let cancel = self.cancel.clone();
        let result = tokio::select! {
            result = self.connect() => result,
            () = cancel.cancelled() => return,
        };
        let result = match result {
            Ok(connected) => connected.run().await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tokio::select! {
                // Nobody listens any more when this fails.
                sent = out.send(Delivery::Failed(error)) => drop(sent),
                () = cancel.cancelled() => {}
            }
        }
    }

    async fn connect(self) -> Result<Connected> {
        let settings = Arc::clone(&self.settings);
        let at = settings.endpoint.shown();
        let connecting = |error: PgError| error.during(format!("connecting to `{at}`"));
        let mut control = connect_control(&settings).await.map_err(connecting)?;
        let mut replication =
            Session::connect(&settings.endpoint, Mode::Replication, "").await.map_err(connecting)?;
        let server = catalog::identify(&mut replication).await?;
        let slot = catalog::slot(&mut control, &settings).await?;
        let slot = slot.ok_or_else(|| missing_slot(&settings))?;
        if slot.lost {
            return Err(lost_slot(&settings));
        }
        self.from.check(&server, &settings.slot, slot.confirmed)?;
        let sql = format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names '{}')",
            quote_ident(&settings.slot),
            Lsn(self.from.lsn_commit),
            quote_ident(&settings.publication).replace('\'', "''")
        );
        start(&mut replication, &mut control, &settings, &sql).await?;
        tracing::info!("streaming from the slot `{}` at {}", settings.slot, Lsn(self.from.lsn_commit));
        let now = Instant::now();
        let sent = *self.confirmed.borrow();
        Ok(Connected {
            replication,
            control: Some(control),
            tables: HashMap::new(),
            sent,
            sent_at: now,
            due: now,
            received_at: now,
            deadline: None,
            blocked: None,
            stream: self,
        })
    }
}

pub(crate) async fn connect_control(settings: &Settings) -> Result<Session, PgError> {
    let lock_timeout = settings.lock_timeout.as_millis();
    Session::connect(&settings.endpoint, Mode::Sql, &format!("-c lock_timeout={lock_timeout}")).await
}

pub(crate) fn missing_slot(settings: &Settings) -> Error {
    Error::fatal(format!(
        "the replication slot `{0}` does not exist any more, and with it the changes since the stored position; reset \
         the offsets of this connector for a new snapshot, or set `snapshot.mode` to `when_needed`",
        settings.slot
    ))
}

pub(crate) fn lost_slot(settings: &Settings) -> Error {
    Error::fatal(format!(
        "the server removed WAL that the replication slot `{0}` needs (`max_slot_wal_keep_size`): changes are lost; \
         drop the slot with `SELECT pg_drop_replication_slot('{0}')` and reset the offsets of this connector for a new \
         snapshot, or set `snapshot.mode` to `when_needed`",
        settings.slot
    ))
}

async fn start(
    replication: &mut Session,
    control: &mut Session,
    settings: &Settings,
    sql: &str,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        let error = match replication.copy(sql).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error.code() {
            "55006" if begun.elapsed() < SLOT_PATIENCE => {
                // Soon after our own crash the server frees it within moments.
                let pause = if begun.elapsed() < Duration::from_secs(5) { 100 } else { 1000 };
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            "55006" => {
                let slot = catalog::slot(control, settings).await.ok().flatten();
                let pid = slot.and_then(|slot| slot.active_pid).unwrap_or_else(|| "unknown".to_owned());
                return Err(Error::fatal(format!(
                    "the replication slot `{}` is in use by another connection (server process {pid}) for more than \
                     {} s; each connector needs a slot of its own: stop the other one, or set `slot.name`",
                    settings.slot,
                    SLOT_PATIENCE.as_secs()
                )));
            }
            _ => return Err(stream_error(error, settings)),
        }
    }
}

fn stream_error(error: PgError, settings: &Settings) -> Error {
    let (slot, publication) = (&settings.slot, &settings.publication);
    match &error {
        PgError::Server(server) if server.code == "42704" && server.message.contains("publication") => {
            Error::fatal(format!(
                "the publication `{publication}` did not exist when the changes to read were made: it was dropped, or \
                 the slot `{slot}` is older than it; drop the slot and reset the offsets of this connector for a new \
                 snapshot"
            ))
        }
        PgError::Server(server) if server.code == "42704" => missing_slot(settings),
        PgError::Server(server) if server.code == "55000" && server.message.contains("can no longer") => {
            lost_slot(settings)
        }
        PgError::Server(server) if server.code == "55000" && server.message.contains("exceeded") => {
            lost_slot(settings)
        }
        _ => error.during(format!("streaming from the slot `{slot}`")),
    }
}

struct Connected {
    stream: Stream,
    replication: Session,
    /// For lookups; and the first to hear of a shutdown.
    control: Option<Session>,
    tables: HashMap<u32, (Relation, Arc<Table>)>,
    sent: u64,
    sent_at: Instant,
    /// When the next status update goes out.
    due: Instant,
    received_at: Instant,
    /// The server shuts down: when to close the connection.
    deadline: Option<Instant>,
    /// What was read and not yet taken.
    blocked: Option<Piece>,
}

struct Piece {
    data: Bytes,
    tables: Vec<(u32, Arc<Table>)>,
}

enum Step {
    Cancelled,
    Confirmed,
    Due,
    Permit(OwnedSemaphorePermit),
    Read(Result<Chunk, PgError>),
    Control(Result<crate::wire::Frame, PgError>),
    Deadline,
}

impl Connected {
    async fn run(mut self) -> Result<()> {
        self.status(false).await?;
        loop {
            match self.step().await {
                Step::Cancelled => return self.finish().await,
                Step::Confirmed => {
                    self.due = self.due.min((self.sent_at + CONFIRM_PAUSE).max(Instant::now()))
                }
                Step::Due => self.tick().await?,
                Step::Permit(permit) => self.hand_on(permit).await,
                Step::Read(chunk) => self.read(chunk).await?,
                Step::Control(said) => self.control(said),
                Step::Deadline => {
                    return Err(Error::retriable(
                        "the server shuts down; the connection was closed before everything was confirmed",
                    ));
                }
            }
        }
    }

    async fn step(&mut self) -> Step {
        let blocked = self.blocked.is_some();
        let need = self.blocked.as_ref().map_or(0, |piece| permits(piece.data.len()));
        let budget = Arc::clone(&self.stream.budget);
        let control = async {
            match &mut self.control {
                Some(control) => control.frame().await,
                None => std::future::pending().await,
            }
        };
        let deadline = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stream.cancel.cancelled() => Step::Cancelled,
            () = deadline => Step::Deadline,
            changed = self.stream.confirmed.changed() => match changed {
                Ok(()) => Step::Confirmed,
                Err(_) => Step::Cancelled,
            },
            () = sleep_until(self.due) => Step::Due,
            said = control => Step::Control(said),
            permit = budget.acquire_many_owned(need), if blocked => match permit {
                Ok(permit) => Step::Permit(permit),
                Err(_) => Step::Cancelled,
            },
            chunk = self.replication.chunk(), if !blocked => Step::Read(chunk),
        }
    }

    async fn tick(&mut self) -> Result<()> {
        let silent = self.received_at.elapsed();
        if self.blocked.is_none() && silent > self.stream.settings.status_interval * 6 {
            return Err(Error::retriable(format!("the server has been silent for {} s", silent.as_secs())));
        }
        if self.control.is_none() && self.deadline.is_none() {
            // Without it a shutdown would go unheard while reading is blocked.
            if let Ok(control) = timeout(RECONNECT_TIMEOUT, connect_control(&self.stream.settings)).await {
                self.control = control.ok();
            }
        }
        // A server that is asked answers at once, which shows that the connection lives.
        self.status(silent > self.stream.settings.status_interval).await
    }

    async fn status(&mut self, ask: bool) -> Result<()> {
        let confirmed = *self.stream.confirmed.borrow_and_update();
        let micros = crate::clock::micros() - 946_684_800_000_000;
        let mut body = Vec::with_capacity(34);
        body.push(b'r');
        // Written, flushed and applied are all the same here: in the log.
        for number in [confirmed, confirmed, confirmed, micros as u64] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.push(u8::from(ask));
        let settings = &self.stream.settings;
        match timeout(LOOKUP_TIMEOUT, self.replication.send_copy_data(&body)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(stream_error(error, settings)),
            Err(_) => return Err(Error::retriable("the server takes no status update")),
        }
        self.sent = confirmed;
        self.sent_at = Instant::now();
        self.due = self.sent_at + settings.status_interval;
        Ok(())
    }

    async fn read(&mut self, chunk: Result<Chunk, PgError>) -> Result<()> {
        self.received_at = Instant::now();
        let chunk = chunk.map_err(|error| stream_error(error, &self.stream.settings))?;
        match chunk {
            Chunk::Data(data) => self.accept(data).await,
            Chunk::Other(frame) => match frame.tag {
                b'E' => Err(stream_error(ServerError::parse(&frame.body).into(), &self.stream.settings)),
                b'c' | b'C' | b'Z' => Err(Error::retriable("the server ended the stream")),
                _ => Ok(()),
            },
        }
    }

    /// Looks up the tables that the data announces, and puts it up for handing on.
    async fn accept(&mut self, data: Bytes) -> Result<()> {
        let mut tables = Vec::new();
        for range in CopyFrames::new(&data) {
            let body = &data[range];
            // Only keepalives and Relation messages matter here; the rest is decoded where it is taken.
            if body.first() == Some(&b'k') {
                if let Wal::Keepalive { wal_end, reply: true } = Wal::parse(body)? {
                    self.asked(wal_end);
                }
            } else if body.get(25) == Some(&b'R')
                && let Message::Relation(relation) = Message::parse(&body[25..])?
            {
                let oid = relation.oid;
                tables.push((oid, self.table(relation).await?));
            }
        }
        self.blocked = Some(Piece { data, tables });
        Ok(())
    }

    /// The server wants an answer. If it wants to hear of more than is confirmed, it is about to stop, and the
    /// confirmation is worth a moment.
    fn asked(&mut self, wal_end: u64) {
        let now = Instant::now();
        if self.deadline.is_some() || self.control.is_none() {
            self.stream.stopping.store(true, Ordering::Relaxed);
        }
        let due = if *self.stream.confirmed.borrow() >= wal_end { now } else { now + REPLY_PAUSE };
        self.due = self.due.min(due);
    }

    async fn hand_on(&mut self, permit: OwnedSemaphorePermit) {
        let Some(piece) = self.blocked.take() else { return };
        let delivery = Delivery::Wal { data: piece.data, tables: piece.tables, permit };
        // There is room for as many as there are permits; a closed channel is noticed as cancellation.
        drop(self.stream.out.send(delivery).await);
    }

    async fn table(&mut self, relation: Relation) -> Result<Arc<Table>> {
        if let Some((known, table)) = self.tables.get(&relation.oid)
            && *known == relation
        {
            return Ok(Arc::clone(table));
        }
        let shape = match timeout(LOOKUP_TIMEOUT, self.look_up(&relation)).await {
            Ok(shape) => shape?,
            Err(_) => {
                return Err(Error::retriable(format!(
                    "looking up the table `{}` takes too long",
                    relation.name
                )));
            }
        };
        let table = Arc::new(Table::new(&shape, &self.stream.settings.origin));
        self.tables.insert(relation.oid, (relation, Arc::clone(&table)));
        Ok(table)
    }

    async fn look_up(&mut self, relation: &Relation) -> Result<crate::table::TableShape> {
        let settings = &self.stream.settings;
        let failed = |error: PgError| error.during(format!("looking up the table `{}`", relation.name));
        if let Some(control) = &mut self.control {
            match catalog::describe(control, settings, relation).await {
                Ok(shape) => return Ok(shape),
                // The connection may have been cut while it was idle.
                Err(PgError::Io(_) | PgError::Closed) => self.control = None,
                Err(error) => return Err(failed(error)),
            }
        }
        let mut control = connect_control(settings).await.map_err(failed)?;
        let shape = catalog::describe(&mut control, settings, relation).await.map_err(failed)?;
        self.control = Some(control);
        Ok(shape)
    }

    fn control(&mut self, said: Result<crate::wire::Frame, PgError>) {
        match said {
            Ok(frame) if frame.tag == b'E' => {
                let error = ServerError::parse(&frame.body);
                if error.code.starts_with("57P0") && error.code != "57P05" {
                    tracing::info!("the server shuts down: {}", error.message);
                    self.stream.stopping.store(true, Ordering::Relaxed);
                    self.deadline.get_or_insert_with(|| Instant::now() + SHUTDOWN_PATIENCE);
                }
                self.control = None;
            }
            Ok(_) => {}
            Err(_) => self.control = None,
        }
    }

    /// Tells the last confirmed position and says good-bye.
    async fn finish(mut self) -> Result<()> {
        let goodbye = async {
            if *self.stream.confirmed.borrow() != self.sent {
                self.status(false).await?;
            }
            if let Some(control) = self.control.take() {
                control.close().await;
            }
            self.replication.finish_copy().await.map_err(|error| error.during("ending the stream"))
        };
        // The position is stored; a server that does not listen hears of it at the next start.
        drop(timeout(Duration::from_secs(2), goodbye).await);
        Ok(())
    }
}
