//! The rows that are there when the connector starts.
//!
//! **Invariant:** the rows are those of one instant, the slot's consistent point or later, and none is missing: share
//! locks are taken before that instant and kept until the last row, so that no rewritten table reads as empty; row
//! security is off, so that a policy is an error and not a filter. A slot that exists is kept, whatever happens.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::{Error, Result};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::catalog::{self, Published};
use crate::clock;
use crate::config::{Settings, SnapshotMode};
use crate::delivery::{Delivery, permits};
use crate::position::{Lsn, Position, Snapshot as Phase, System};
use crate::stream::{connect_control, lost_slot};
use crate::table::Table;
use crate::wire::{Chunk, Mode, PgError, ServerError, Session, quote_ident, quote_literal};

/// Making a slot waits for every running transaction; past this it is tried again, so that no one waits for us.
const SLOT_LOCK_TIMEOUT: &str = "-c lock_timeout=60000";

/// What the task is started with.
pub(crate) struct Snapshot {
    pub(crate) settings: Arc<Settings>,
    pub(crate) out: mpsc::Sender<Delivery>,
    pub(crate) budget: Arc<Semaphore>,
    pub(crate) cancel: CancellationToken,
}

/// One COPY.
struct Part {
    table: Arc<Table>,
    name: String,
    sql: String,
}

impl Snapshot {
    /// Runs until every row is handed on, cancelled, or until an error that is handed on.
    pub(crate) async fn run(self) {
        let (out, cancel) = (self.out.clone(), self.cancel.clone());
        let work = async move {
            let last = match self.take().await {
                Ok(()) => Delivery::SnapshotEnds,
                Err(error) => Delivery::Failed(error),
            };
            // Nobody listens any more when this fails.
            drop(out.send(last).await);
        };
        tokio::select! {
            () = work => {}
            () = cancel.cancelled() => {}
        }
    }

    async fn take(self) -> Result<()> {
        let settings = &self.settings;
        let at = settings.endpoint.shown();
        let connecting = |error: PgError| error.during(format!("connecting to `{at}`"));
        let mut control = connect_control(settings).await.map_err(connecting)?;
        catalog::ensure_publication(&mut control, settings).await?;

        let mut holder = connect_control(settings).await.map_err(connecting)?;
        let tables = lock(&mut control, &mut holder, settings).await?;

        let mut replication = Session::connect(&settings.endpoint, Mode::Replication, SLOT_LOCK_TIMEOUT)
            .await
            .map_err(connecting)?;
        let system = catalog::identify(&mut replication).await?.system;
        let (snapshot, position) = self.instant(&mut control, &mut holder, &mut replication, system).await?;

        let mut workers = Vec::new();
        let threads = settings.snapshot_threads.min(tables.iter().map(|t| t.leaves.len()).sum()).max(1);
        for _ in 0..threads {
            workers.push(import(settings, &snapshot, &tables).await?);
        }
        // Every importer has the snapshot; the session that exported it is not needed any more.
        replication.close().await;
        control.close().await;

        let from = Lsn(position.lsn_commit);
        tracing::info!("reading {} tables, then streaming from {from}", tables.len());
        let parts = parts(&tables, settings);
        let mut total = 0;
        for table in &tables {
            for leaf in &table.leaves {
                total += catalog::estimate(&mut workers[0], &select(table, leaf)).await?;
            }
        }
        self.send(Delivery::SnapshotBegins { position, total }).await?;
        self.copy_all(parts, workers).await?;
        holder.close().await;
        Ok(())
    }

    /// Fixes the instant: with a new slot, or with a fresh snapshot where the slot exists already.
    async fn instant(
        &self,
        control: &mut Session,
        holder: &mut Session,
        replication: &mut Session,
        system: System,
    ) -> Result<(String, Position)> {
        let settings = &self.settings;
        let mut slot = catalog::slot(control, settings).await?;
        if slot.as_ref().is_some_and(|slot| slot.lost) {
            if settings.snapshot != SnapshotMode::WhenNeeded {
                return Err(lost_slot(settings));
            }
            let sql = format!("SELECT pg_drop_replication_slot({})", quote_literal(&settings.slot));
            control.query(&sql).await.map_err(|e| e.during("dropping the invalidated slot"))?;
            slot = None;
        }
        let (snapshot, lsn) = match slot {
            Some(slot) => {
                let rows = holder.query("SELECT pg_export_snapshot()").await;
                let rows = rows.map_err(|e| e.during("exporting a snapshot"))?;
                (first(&rows, 0), slot.confirmed)
            }
            None => create_slot(replication, settings).await?,
        };
        Ok((snapshot, Position::at(system, Phase::Running, lsn, clock::micros())))
    }

    async fn copy_all(&self, parts: VecDeque<Part>, workers: Vec<Session>) -> Result<()> {
        let parts = Arc::new(Mutex::new(parts));
        let mut running = JoinSet::new();
        for session in workers {
            let (parts, out, budget) = (Arc::clone(&parts), self.out.clone(), Arc::clone(&self.budget));
            running.spawn(copy_parts(session, parts, out, budget));
        }
        // The first error ends the others when the set is dropped.
        while let Some(ended) = running.join_next().await {
            ended.map_err(|e| Error::fatal("a snapshot worker ended unexpectedly").with_source(e))??;
        }
        Ok(())
    }

    async fn send(&self, delivery: Delivery) -> Result<()> {
        self.out.send(delivery).await.map_err(|_| Error::cancelled())
    }
}

/// Locks the tables and reads their shape, which cannot change from then on.
async fn lock(control: &mut Session, holder: &mut Session, settings: &Settings) -> Result<Vec<Published>> {
    let before = catalog::snapshot_tables(control, settings).await?;
    // LOCK takes no snapshot by itself, so that what is exported later sees what came before the locks.
    let sql = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {}", lock_sql(&before, ""));
    holder
        .query(&sql)
        .await
        .map_err(|e| e.during("locking the tables against changes of their structure"))?;
    let tables = catalog::snapshot_tables(control, settings).await?;
    if tables.iter().map(|t| t.oid).ne(before.iter().map(|t| t.oid)) {
        return Err(Error::retriable("tables came or went while the snapshot began"));
    }
    Ok(tables)
}

fn lock_sql(tables: &[Published], nowait: &str) -> String {
    let mut names: Vec<String> = Vec::new();
    for table in tables {
        names.push(format!("ONLY {}", table.quoted));
        names.extend(
            table.leaves.iter().filter(|leaf| **leaf != table.quoted).map(|leaf| format!("ONLY {leaf}")),
        );
    }
    format!("LOCK TABLE {} IN ACCESS SHARE MODE {nowait}", names.join(", "))
}

pub(crate) async fn create_slot(replication: &mut Session, settings: &Settings) -> Result<(String, u64)> {
    let name = &settings.slot;
    if !settings.create_slot {
        return Err(Error::bad_config(format!(
            "the slot `{name}` does not exist and `slot.create` is false; create it with \
             `SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')`"
        )));
    }
    let sql = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput EXPORT_SNAPSHOT", quote_ident(name));
    let rows = match replication.query(&sql).await {
        Ok(rows) => rows,
        Err(error) if error.code() == "55P03" => {
            return Err(Error::retriable(format!(
                "the slot `{name}` cannot be made while older transactions run; see `pg_stat_activity` for the oldest \
                 `xact_start`"
            )));
        }
        Err(error) => return Err(error.during(format!("creating the slot `{name}`"))),
    };
    let lsn = Lsn::parse(&first(&rows, 1))
        .ok_or_else(|| Error::fatal("the server did not tell where the slot begins"))?;
    Ok((first(&rows, 2), lsn.0))
}

fn first(rows: &[crate::wire::Row], column: usize) -> String {
    rows.first().and_then(|row| row.get(column).cloned().flatten()).unwrap_or_default()
}

/// A session that sees exactly the snapshot.
async fn import(settings: &Settings, snapshot: &str, tables: &[Published]) -> Result<Session> {
    let importing = |error: PgError| error.during("importing the snapshot");
    let mut session = connect_control(settings).await.map_err(importing)?;
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT {}; {}",
        quote_literal(snapshot),
        lock_sql(tables, "NOWAIT")
    );
    session.query(&begin).await.map_err(importing)?;
    Ok(session)
}

fn parts(tables: &[Published], settings: &Settings) -> VecDeque<Part> {
    let mut parts = VecDeque::new();
    for published in tables {
        let table = Arc::new(Table::new(&published.shape, &settings.origin));
        for leaf in &published.leaves {
            let plain = published.filter.is_none() && !published.shape.columns.is_empty();
            let sql = if plain {
                // A plain table's COPY reads this table alone, never its children, and is the cheapest form.
                format!("COPY {leaf} ({}) TO STDOUT", columns(published))
            } else {
                format!("COPY ({}) TO STDOUT", select(published, leaf))
            };
            parts.push_back(Part { table: Arc::clone(&table), name: table.qualified().to_owned(), sql });
        }
    }
    parts
}

fn columns(table: &Published) -> String {
    let names: Vec<String> = table.shape.columns.iter().map(|column| quote_ident(&column.name)).collect();
    names.join(", ")
}

fn select(table: &Published, leaf: &str) -> String {
    let filter = table.filter.as_ref().map(|filter| format!(" WHERE {filter}")).unwrap_or_default();
    format!("SELECT {} FROM ONLY {leaf}{filter}", columns(table))
}

async fn copy_parts(
    mut session: Session,
    parts: Arc<Mutex<VecDeque<Part>>>,
    out: mpsc::Sender<Delivery>,
    budget: Arc<Semaphore>,
) -> Result<()> {
    loop {
        let next = parts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(part) = next else { break };
        copy_part(&mut session, &part, &out, &budget).await?;
    }
    session.close().await;
    Ok(())
}

async fn copy_part(
    session: &mut Session,
    part: &Part,
    out: &mpsc::Sender<Delivery>,
    budget: &Arc<Semaphore>,
) -> Result<()> {
    let reading = |error: PgError| error.during(format!("reading the table `{}`", part.name));
    session.copy(&part.sql).await.map_err(reading)?;
    loop {
        match session.chunk().await.map_err(reading)? {
            Chunk::Data(data) => {
                let permit = Arc::clone(budget).acquire_many_owned(permits(data.len())).await;
                let permit = permit.map_err(|_| Error::cancelled())?;
                let rows = Delivery::Rows { table: Arc::clone(&part.table), data, permit };
                out.send(rows).await.map_err(|_| Error::cancelled())?;
            }
            Chunk::Other(frame) => match frame.tag {
                b'E' => return Err(reading(ServerError::parse(&frame.body).into())),
                b'Z' => return Ok(()),
                _ => {}
            },
        }
    }
}
