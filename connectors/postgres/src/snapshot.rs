//! The rows that are there when the connector starts.
//!
//! **Invariant:** the rows are those of one instant, the slot's consistent point or later, and none is missing: share
//! locks are taken before that instant and kept until the last row, so that no rewritten table reads as empty; row
//! security is off, so that a policy is an error and not a filter. A slot that exists is kept, whatever happens.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// A table of more pages is read in parts where there are several connections: 8 MiB of pages of 8 KiB.
const PART_PAGES: u64 = 1024;
/// At most so many parts of one table for each connection.
const PARTS_EACH: u64 = 8;

/// One COPY.
struct Part {
    table: Arc<Table>,
    name: String,
    sql: String,
    /// Parts of the table that are not read yet.
    left: Arc<AtomicUsize>,
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

        let parts = parts(&mut control, &tables, settings).await?;
        let mut workers = Vec::new();
        for _ in 0..settings.snapshot_threads.min(parts.len()).max(1) {
            workers.push(import(settings, &snapshot, &tables).await?);
        }
        // Every importer has the snapshot; the session that exported it is not needed any more.
        replication.close().await;
        control.close().await;

        let from = Lsn(position.lsn_commit);
        tracing::info!("reading {} tables, then streaming from {from}", tables.len());
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

/// What is copied, in order. `control` sees the tables locked, so that none of their pages goes elsewhere.
async fn parts(control: &mut Session, tables: &[Published], settings: &Settings) -> Result<VecDeque<Part>> {
    let mut parts = VecDeque::new();
    for published in tables {
        let table = Arc::new(Table::new(&published.shape, &settings.origin));
        let mut copies = Vec::new();
        for leaf in &published.leaves {
            let pages = match settings.snapshot_threads {
                1 => 0,
                _ => catalog::pages(control, leaf).await?,
            };
            copies.extend(copies_of(published, leaf, pages, settings.snapshot_threads as u64));
        }
        let left = Arc::new(AtomicUsize::new(copies.len()));
        parts.extend(copies.into_iter().map(|sql| Part {
            table: Arc::clone(&table),
            name: table.qualified().to_owned(),
            sql,
            left: Arc::clone(&left),
        }));
    }
    Ok(parts)
}

/// The COPY commands that together read a table of so many pages.
fn copies_of(published: &Published, leaf: &str, pages: u64, threads: u64) -> Vec<String> {
    let whole = published.filter.is_none() && !published.shape.columns.is_empty();
    if pages <= PART_PAGES {
        let sql = if whole {
            // A plain table's COPY reads this table alone, never its children, and is the cheapest form.
            format!("COPY {leaf} ({}) TO STDOUT", columns(published))
        } else {
            format!("COPY ({}) TO STDOUT", select(published, leaf))
        };
        return vec![sql];
    }
    let each = pages.div_ceil(threads * PARTS_EACH).max(PART_PAGES);
    let part = |from: u64| {
        // Rows of the snapshot may stand on pages that came after the count; the last part has no end.
        let end =
            if from + each < pages { format!(" AND ctid < '({},0)'", from + each) } else { String::new() };
        let and = published.filter.as_ref().map(|filter| format!(" AND ({filter})")).unwrap_or_default();
        let columns = columns(published);
        format!("COPY (SELECT {columns} FROM ONLY {leaf} WHERE ctid >= '({from},0)'{end}{and}) TO STDOUT")
    };
    (0..pages).step_by(usize::try_from(each).unwrap_or(usize::MAX)).map(part).collect()
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
        if part.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let ends = Delivery::TableEnds(Arc::clone(&part.table));
            out.send(ends).await.map_err(|_| Error::cancelled())?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::ColumnType;
    use crate::kind::PgType;
    use crate::table::TableShape;

    #[test]
    fn the_parts_of_a_table_meet_and_the_last_has_no_end() {
        let shape = TableShape {
            schema: "s".to_owned(),
            name: "t".to_owned(),
            columns: vec![ColumnType::new("a", PgType::known(23, -1))],
            key: Vec::new(),
            included: true,
        };
        let (leaves, quoted) = (vec!["s.t".to_owned()], "s.t".to_owned());
        let mut table = Published { oid: 1, shape, filter: None, leaves, quoted };
        assert_eq!(copies_of(&table, "s.t", 1024, 4), ["COPY s.t (\"a\") TO STDOUT"]);
        table.filter = Some("a > 1 OR a < 0".to_owned());
        let copies = copies_of(&table, "s.t", 2500, 4);
        let select = "COPY (SELECT \"a\" FROM ONLY s.t WHERE ctid >=";
        assert_eq!(
            copies,
            [
                format!("{select} '(0,0)' AND ctid < '(1024,0)' AND (a > 1 OR a < 0)) TO STDOUT"),
                format!("{select} '(1024,0)' AND ctid < '(2048,0)' AND (a > 1 OR a < 0)) TO STDOUT"),
                format!("{select} '(2048,0)' AND (a > 1 OR a < 0)) TO STDOUT"),
            ]
        );
        assert_eq!(copies_of(&table, "s.t", 1 << 30, 2).len(), 16);
    }
}
