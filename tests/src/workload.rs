//! The workload that the checker judges: inserts, updates and deletes on a real PostgreSQL at a given rate.
//!
//! Each change of a key raises its `version` by one, deletes included, so that the checker sees every gap. The replica
//! identity is a unique index over `(id, version)`: a delete shows the version that it removed. Half of the updates
//! leave the TOASTed column `note` unchanged.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Row as _};

use crate::checker::{Row, Table};
use crate::postgres::execute;

/// Keys with their new version and whether the row is there.
type Changed = Vec<(i64, (i64, bool))>;

/// What the workload does to `public.orders`.
pub struct Workload {
    pool: PgPool,
    rng: Rng,
    /// Version and whether the row is there.
    keys: HashMap<i64, (i64, bool)>,
    next: i64,
}

impl Workload {
    /// Makes the table with `rows` rows.
    pub async fn create(pool: PgPool, rows: i64, seed: u64) -> Result<Self> {
        execute(
            &pool,
            "CREATE TABLE orders (
                id bigint PRIMARY KEY, version bigint NOT NULL, status text NOT NULL, email text,
                amount numeric(12,2), paid boolean, note text, updated_at timestamptz NOT NULL DEFAULT now());
             ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL;
             CREATE UNIQUE INDEX orders_id_version ON orders (id, version);
             ALTER TABLE orders REPLICA IDENTITY USING INDEX orders_id_version",
        )
        .await?;
        let mut workload = Self { pool, rng: Rng::with_seed(seed), keys: HashMap::new(), next: 1 };
        workload.insert_many(rows, 300).await?;
        Ok(workload)
    }

    /// Inserts `rows` new rows in one transaction; `note` has `width` characters.
    pub async fn insert_many(&mut self, rows: i64, width: usize) -> Result<()> {
        let (from, to) = (self.next, self.next + rows - 1);
        let sql = format!(
            "INSERT INTO orders (id, version, status, email, amount, paid, note)
             SELECT i, 1, 'new', 'user' || i || '@example.org', i % 100000 / 100.0, i % 3 = 0,
                    CASE WHEN i % 10 = 0 THEN repeat(md5(i::text), 80) ELSE left(repeat(md5(i::text), {width} / 32 + 1), {width}) END
             FROM generate_series({from}, {to}) i"
        );
        execute(&self.pool, &sql).await?;
        self.keys.extend((from..=to).map(|id| (id, (1, true))));
        self.next = to + 1;
        Ok(())
    }

    /// Changes the table at about `rate` transactions a second until `stop` says so. Gives the number done.
    pub async fn change(&mut self, rate: u32, mut stop: impl FnMut() -> bool) -> Result<u64> {
        let begun = Instant::now();
        let mut done = 0u64;
        while !stop() {
            self.one().await?;
            done += 1;
            let due = Duration::from_secs_f64(done as f64 / f64::from(rate));
            if let Some(ahead) = due.checked_sub(begun.elapsed()) {
                tokio::time::sleep(ahead).await;
            }
        }
        Ok(done)
    }

    /// One transaction of one to three changes. Waits and goes on where the server restarts.
    async fn one(&mut self) -> Result<()> {
        let (sql, changed) = self.plan();
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match execute(&self.pool, &sql).await {
                Ok(_) => break,
                // The outcome is unknown: look whether it happened. One writer, so the first key tells.
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let (id, (version, there)) = changed[0];
                    let Ok(found) = self.version(id).await else { continue };
                    if (there && found == Some(version)) || (!there && found.is_none()) {
                        break;
                    }
                }
            }
        }
        self.keys.extend(changed);
        Ok(())
    }

    fn plan(&mut self) -> (String, Changed) {
        let mut sql = String::from("BEGIN;");
        let mut changed = Changed::new();
        for _ in 0..self.rng.usize(1..=3) {
            let new = self.rng.u8(0..10) < 2;
            let id = if new { self.next } else { self.rng.i64(1..self.next) };
            if changed.iter().any(|(other, _)| *other == id) {
                continue;
            }
            let (version, there) = self.keys.get(&id).copied().unwrap_or((0, false));
            let v = version + 1;
            let wide = if self.rng.bool() { 80 } else { 1 };
            if !there {
                self.next = self.next.max(id + 1);
                sql += &format!(
                    "INSERT INTO orders (id, version, status, email, amount, paid, note)
                     VALUES ({id}, {v}, 'new', 'user{id}@example.org', {id} % 100000 / 100.0, {v} % 2 = 0, repeat(md5('{id}-{v}'), {wide}));"
                );
            } else if self.rng.u8(0..10) < 1 {
                sql += &format!("DELETE FROM orders WHERE id = {id};");
            } else if self.rng.bool() {
                sql += &format!(
                    "UPDATE orders SET version = {v}, status = 'paid', updated_at = now() WHERE id = {id};"
                );
            } else {
                sql += &format!(
                    "UPDATE orders SET version = {v}, note = repeat(md5('{id}-{v}'), {wide}) WHERE id = {id};"
                );
            }
            let there_after = !sql.ends_with(&format!("DELETE FROM orders WHERE id = {id};"));
            changed.push((id, (v, there_after)));
        }
        sql += "COMMIT";
        (sql, changed)
    }

    async fn version(&self, id: i64) -> Result<Option<i64>> {
        let sql = format!("SELECT version FROM orders WHERE id = {id}");
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Pool of the workload.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The table as the checker compares it.
    pub async fn table(&self) -> Result<Table> {
        let rows = sqlx::query(
            "SELECT id, version, status, email, amount::text, paid::text, note,
                    to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') FROM orders",
        )
        .fetch_all(&self.pool)
        .await?;
        let names = ["status", "email", "amount", "paid", "note", "updated_at"];
        let mut table = Table::with_capacity(rows.len());
        for row in rows {
            let mut columns = BTreeMap::new();
            for (i, name) in names.into_iter().enumerate() {
                let text: Option<String> = row.get(i + 2);
                let text = text.unwrap_or_else(|| "null".into());
                columns.insert(name.to_owned(), normal(name, &text));
            }
            table.insert(row.get(0), Row { version: row.get(1), columns });
        }
        Ok(table)
    }
}

/// Both sides in one form: numbers shortest, times without trailing zeros and zone.
pub fn normal(name: &str, text: &str) -> String {
    match name {
        "amount" => text.parse::<f64>().map_or_else(|_| text.to_owned(), |v| v.to_string()),
        "updated_at" => {
            let text = text.trim_end_matches('Z');
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text.to_owned()
            }
        }
        _ => text.to_owned(),
    }
}
