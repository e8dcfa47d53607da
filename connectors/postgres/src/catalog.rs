//! What the server says about itself: system, slot, publication, tables.
//!
//! **Invariant:** a table's shape is read with domains resolved and generated columns left out, exactly as pgoutput
//! sends it, so that snapshot and stream make the same records.

use aqueduct_core::{Error, Result};
use serde_json::Value as Json;

use crate::column::ColumnType;
use crate::config::Settings;
use crate::kind::{Family, KNOWN, PgType};
use crate::pattern::TablePattern;
use crate::pgoutput::Relation;
use crate::position::{Lsn, Server, System};
use crate::table::TableShape;
use crate::wire::{PgError, Row, Session, quote_ident, quote_literal};

/// A replication slot.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) confirmed: u64,
    pub(crate) active_pid: Option<String>,
    pub(crate) lost: bool,
}

/// A table that the publication sends, as the snapshot reads it.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) oid: u32,
    pub(crate) shape: TableShape,
    pub(crate) filter: Option<String>,
    /// The tables that hold its rows: itself, or the leaves of its partition tree. Quoted.
    pub(crate) leaves: Vec<String>,
    /// Its own name, quoted.
    pub(crate) quoted: String,
}

fn text(row: &Row, i: usize) -> &str {
    row.get(i).and_then(Option::as_deref).unwrap_or("")
}

fn failed(doing: &str) -> impl FnOnce(PgError) -> Error + '_ {
    move |error| error.during(doing)
}

/// Refuses a server that cannot do what is needed, and returns its version.
pub(crate) async fn check_server(session: &mut Session) -> Result<u32> {
    let sql =
        "SELECT current_setting('server_version_num'), current_setting('wal_level'), pg_is_in_recovery()";
    let rows = session.query(sql).await.map_err(failed("reading the server's settings"))?;
    let row = rows.first().ok_or_else(|| Error::fatal("the server did not tell its settings"))?;
    let version: u32 = text(row, 0).parse().unwrap_or(0);
    if version < 140_000 {
        return Err(Error::bad_config(format!(
            "PostgreSQL 14 or later is needed, this is {}; update the server",
            version / 10_000
        )));
    }
    if text(row, 1) != "logical" {
        return Err(Error::bad_config(format!(
            "the server has `wal_level={}`; set `wal_level=logical` there and restart it",
            text(row, 1)
        )));
    }
    Ok(version)
}

/// Asks a replication session which system this is, and how far it has come.
pub(crate) async fn identify(replication: &mut Session) -> Result<Server> {
    let rows = replication.query("IDENTIFY_SYSTEM").await.map_err(failed("identifying the server"))?;
    let row = rows.first().ok_or_else(|| Error::fatal("the server did not identify itself"))?;
    let timeline = text(row, 1).parse().map_err(|_| Error::fatal("the server did not tell its timeline"))?;
    let flushed = Lsn::parse(text(row, 2));
    let flushed = flushed.ok_or_else(|| Error::fatal("the server did not tell where its WAL ends"))?.0;
    Ok(Server { system: System { id: text(row, 0).to_owned(), timeline }, flushed })
}

/// The slot, if it exists. One that is of no use here is an error.
pub(crate) async fn slot(session: &mut Session, settings: &Settings) -> Result<Option<Slot>> {
    let name = &settings.slot;
    let sql = format!(
        "SELECT plugin, slot_type, database, active_pid, confirmed_flush_lsn, wal_status, current_database() \
         FROM pg_replication_slots WHERE slot_name = {}",
        quote_literal(name)
    );
    let rows = session.query(&sql).await.map_err(failed("reading the replication slot"))?;
    let Some(row) = rows.first() else { return Ok(None) };
    if text(row, 1) != "logical" || text(row, 0) != "pgoutput" {
        return Err(Error::bad_config(format!(
            "the slot `{name}` is {} with plug-in `{}`; choose another `slot.name`, this needs a logical slot of \
             `pgoutput`",
            text(row, 1),
            text(row, 0)
        )));
    }
    if text(row, 2) != text(row, 6) {
        return Err(Error::bad_config(format!(
            "the slot `{name}` belongs to the database `{}`; choose another `slot.name`",
            text(row, 2)
        )));
    }
    let confirmed = Lsn::parse(text(row, 4)).map_or(0, |lsn| lsn.0);
    Ok(Some(Slot { confirmed, active_pid: row[3].clone(), lost: text(row, 5) == "lost" }))
}

/// Makes the publication when it is missing, and checks that it holds the tables named without wildcards.
pub(crate) async fn ensure_publication(session: &mut Session, settings: &Settings) -> Result<()> {
    let name = &settings.publication;
    let sql = format!("SELECT 1 FROM pg_publication WHERE pubname = {}", quote_literal(name));
    let exists = !session.query(&sql).await.map_err(failed("reading the publication"))?.is_empty();
    if !exists {
        if !settings.create_publication {
            return Err(Error::bad_config(format!(
                "the publication `{name}` does not exist; create it with `CREATE PUBLICATION {} FOR TABLE …`",
                quote_ident(name)
            )));
        }
        create_publication(session, settings).await?;
    }
    let published = published(session, settings).await?;
    let covers = |literal: &str| published.iter().any(|table| table.names.iter().any(|name| name == literal));
    for literal in settings.tables.iter().filter_map(TablePattern::literal) {
        if !covers(literal) {
            return Err(Error::bad_config(format!(
                "the publication `{name}` does not hold the table `{literal}`; \
                 run `ALTER PUBLICATION {} ADD TABLE {literal}`, or take it out of `tables`",
                quote_ident(name)
            )));
        }
    }
    if published.is_empty() {
        return Err(Error::bad_config(format!(
            "the publication `{name}` holds none of the tables in `tables`"
        )));
    }
    Ok(())
}

async fn create_publication(session: &mut Session, settings: &Settings) -> Result<()> {
    let candidates = candidates(session, settings).await?;
    for literal in settings.tables.iter().filter_map(TablePattern::literal) {
        if !candidates.iter().any(|table| table.name == literal) {
            return Err(Error::bad_config(format!(
                "there is no table `{literal}` in the database `{}` that can be published; check `tables`",
                settings.endpoint.database
            )));
        }
    }
    if candidates.is_empty() {
        let patterns: Vec<&str> = settings.tables.iter().map(TablePattern::text).collect();
        return Err(Error::bad_config(format!("no table matches `{}`", patterns.join("`, `"))));
    }
    let without: Vec<&str> = candidates.iter().filter(|t| !t.identity).map(|t| t.name.as_str()).collect();
    if !without.is_empty() {
        // Publishing such a table would make every UPDATE and DELETE of the application fail.
        return Err(Error::bad_config(format!(
            "no primary key and no replica identity: `{0}`; publishing would make the updates and deletes of your \
             application fail. Run `ALTER TABLE {1} REPLICA IDENTITY FULL`, or create the publication `{2}` yourself \
             with `publish = 'insert'`",
            without.join("`, `"),
            without[0],
            settings.publication
        )));
    }
    let tables: Vec<String> = candidates.iter().map(|table| format!("ONLY {}", table.quoted)).collect();
    let sql = format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = {})",
        quote_ident(&settings.publication),
        tables.join(", "),
        settings.via_root
    );
    tracing::info!("creating the publication `{}`", settings.publication);
    match session.query(&sql).await {
        // 42710: somebody else was faster.
        Err(error) if error.code() != "42710" => {
            Err(error.during(format!("creating the publication; let an owner of the tables run `{sql}`")))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

struct Candidate {
    name: String,
    quoted: String,
    identity: bool,
}

async fn candidates(session: &mut Session, settings: &Settings) -> Result<Vec<Candidate>> {
    let sql = format!(
        "SELECT n.nspname, c.relname, {NAMES}, \
                c.relreplident IN ('f', 'i') OR c.relreplident = 'd' AND EXISTS \
                  (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' \
           AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"
    );
    let rows = session.query(&sql).await.map_err(failed("listing the tables"))?;
    let mut candidates = Vec::new();
    for row in &rows {
        let own = format!("{}.{}", text(row, 0), text(row, 1));
        let matches = |name: &String| settings.tables.iter().any(|pattern| pattern.matches(name));
        let ancestors = names(text(row, 2));
        // A partition comes with its root.
        if matches(&own) && !ancestors.iter().any(|name| *name != own && matches(name)) {
            candidates.push(Candidate {
                quoted: format!("{}.{}", quote_ident(text(row, 0)), quote_ident(text(row, 1))),
                name: own,
                identity: text(row, 3) == "t",
            });
        }
    }
    Ok(candidates)
}

/// The table itself and what it is a partition of, as JSON.
const NAMES: &str = "to_jsonb(ARRAY(SELECT an.nspname || '.' || ac.relname FROM \
    (SELECT c.oid AS relid UNION SELECT relid::oid FROM pg_partition_ancestors(c.oid)) a \
    JOIN pg_class ac ON ac.oid = a.relid JOIN pg_namespace an ON an.oid = ac.relnamespace))::text";

fn names(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_default()
}

pub(crate) struct PublishedName {
    oid: u32,
    schema: String,
    name: String,
    filter: Option<String>,
    columns: Option<Vec<String>>,
    names: Vec<String>,
}

/// The captured tables of the publication.
async fn published(session: &mut Session, settings: &Settings) -> Result<Vec<PublishedName>> {
    // Row filters and column lists are there from PostgreSQL 15 on; through JSON the query runs on every version.
    let sql = format!(
        "SELECT c.oid, n.nspname, c.relname, to_jsonb(p)->>'rowfilter', to_jsonb(p)->>'attnames', {NAMES} \
         FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname \
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
         WHERE p.pubname = {} ORDER BY 2, 3",
        quote_literal(&settings.publication)
    );
    let rows = session.query(&sql).await.map_err(failed("listing the published tables"))?;
    let tables = rows.iter().map(|row| PublishedName {
        oid: text(row, 0).parse().unwrap_or(0),
        schema: text(row, 1).to_owned(),
        name: text(row, 2).to_owned(),
        filter: row[3].clone(),
        columns: row[4].as_deref().and_then(|json| serde_json::from_str(json).ok()),
        names: names(text(row, 5)),
    });
    Ok(tables.filter(|table| included(settings, &table.names)).collect())
}

fn included(settings: &Settings, names: &[String]) -> bool {
    settings.tables.iter().any(|pattern| names.iter().any(|name| pattern.matches(name)))
}

/// The captured tables of the publication with everything a snapshot needs.
pub(crate) async fn snapshot_tables(session: &mut Session, settings: &Settings) -> Result<Vec<Published>> {
    let mut tables = Vec::new();
    for table in published(session, settings).await? {
        let columns = columns(session, &table).await?;
        let key = match given_key(settings, &table.names) {
            Some(key) => key,
            None => key(session, table.oid).await.map_err(failed("reading the primary key"))?,
        };
        let quoted = format!("{}.{}", quote_ident(&table.schema), quote_ident(&table.name));
        let mut leaves = leaves(session, table.oid).await?;
        if leaves.is_empty() {
            leaves.push(quoted.clone());
        }
        let shape = TableShape { schema: table.schema, name: table.name, columns, key, included: true };
        tables.push(Published { oid: table.oid, shape, filter: table.filter, leaves, quoted });
    }
    Ok(tables)
}

/// The columns that the publication sends.
async fn columns(session: &mut Session, table: &PublishedName) -> Result<Vec<ColumnType>> {
    let reading = || failed("reading the columns");
    let mut columns = Vec::new();
    for attribute in attributes(session, table.oid).await.map_err(reading())? {
        let listed = table.columns.as_ref().is_none_or(|list| list.contains(&attribute.name));
        if !listed || attribute.generated {
            continue;
        }
        let ty = resolve(session, attribute.oid, attribute.typmod).await.map_err(reading())?;
        let Attribute { name, required, default, .. } = attribute;
        columns.push(ColumnType { name, ty, required, default });
    }
    Ok(columns)
}

struct Attribute {
    name: String,
    oid: u32,
    typmod: i32,
    required: bool,
    default: Option<String>,
    /// Not sent by the stream.
    generated: bool,
}

async fn attributes(session: &mut Session, table: u32) -> Result<Vec<Attribute>, PgError> {
    // PostgreSQL 18 sends generated columns of a publication that names them.
    let sql = format!(
        "SELECT a.attname, a.atttypid, a.atttypmod, a.attnotnull, pg_get_expr(d.adbin, d.adrelid), \
                a.attgenerated <> '' AND (a.attgenerated <> 's' OR current_setting('server_version_num')::int < 180000) \
         FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
           AND a.attgenerated = '' \
         WHERE a.attrelid = {table} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    );
    let rows = session.query(&sql).await?;
    let attribute = |row: &Row| Attribute {
        name: text(row, 0).to_owned(),
        oid: text(row, 1).parse().unwrap_or(0),
        typmod: text(row, 2).parse().unwrap_or(-1),
        required: text(row, 3) == "t",
        default: row[4].clone(),
        generated: text(row, 5) == "t",
    };
    Ok(rows.iter().map(attribute).collect())
}

/// What a type is below all domains, and what its elements are.
async fn resolve(session: &mut Session, mut oid: u32, mut typmod: i32) -> Result<PgType, PgError> {
    let mut arrays = Vec::new();
    let family = loop {
        if KNOWN.contains(&oid) {
            break Family::Known;
        }
        let sql = format!(
            "SELECT typtype, typname, typbasetype, typtypmod, \
                    CASE WHEN typinput = 'array_in'::regproc THEN typelem ELSE 0 END, \
                    to_jsonb(ARRAY(SELECT enumlabel FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder)) \
             FROM pg_type t WHERE oid = {oid}"
        );
        let rows = session.query(&sql).await?;
        let Some(row) = rows.first() else { break Family::Named(String::new()) };
        let element: u32 = text(row, 4).parse().unwrap_or(0);
        match text(row, 0) {
            "d" => {
                oid = text(row, 2).parse().unwrap_or(0);
                typmod = if typmod >= 0 { typmod } else { text(row, 3).parse().unwrap_or(-1) };
            }
            "e" => break Family::Enum(names(text(row, 5))),
            _ if element != 0 => {
                arrays.push((oid, typmod));
                oid = element;
            }
            _ => break Family::Named(text(row, 1).to_owned()),
        }
    };
    let mut ty = PgType { oid, typmod, family };
    while let Some((oid, typmod)) = arrays.pop() {
        ty = PgType { oid, typmod, family: Family::Array(Box::new(ty)) };
    }
    Ok(ty)
}

/// The key that the user gave to a table of these names.
fn given_key(settings: &Settings, names: &[String]) -> Option<Vec<String>> {
    let (_, key) =
        settings.keys.iter().find(|(pattern, _)| names.iter().any(|name| pattern.matches(name)))?;
    Some(key.clone())
}

/// The columns of a record's key: the primary key, as in Debezium. Where a replica identity index leaves a part of it
/// out of the old rows that the server sends, or there is none, the columns of that index; else those of a unique index
/// over columns that are never null.
async fn key(session: &mut Session, oid: u32) -> Result<Vec<String>, PgError> {
    let sql = format!(
        "SELECT a.attname FROM \
           (SELECT indkey, indnkeyatts FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
            WHERE indrelid = {oid} AND (indisreplident OR indisprimary OR indisunique AND indisvalid AND indpred IS NULL \
              AND indexprs IS NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = {oid} \
                AND a.attnum = ANY (i.indkey::int2[]) AND NOT a.attnotnull)) \
            ORDER BY indisprimary AND NOT EXISTS (SELECT FROM pg_index r WHERE r.indrelid = {oid} AND r.indisreplident \
              AND NOT r.indkey::int2[] @> i.indkey::int2[]) DESC, indisreplident DESC, indisprimary DESC, c.relname LIMIT 1) i, \
           unnest(i.indkey) WITH ORDINALITY k(attnum, ord) \
           JOIN pg_attribute a ON a.attrelid = {oid} AND a.attnum = k.attnum \
         WHERE k.ord <= i.indnkeyatts ORDER BY k.ord"
    );
    let rows = session.query(&sql).await?;
    Ok(rows.iter().map(|row| text(row, 0).to_owned()).collect())
}

async fn leaves(session: &mut Session, oid: u32) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT n.nspname, c.relname FROM pg_partition_tree({oid}) t JOIN pg_class c ON c.oid = t.relid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.isleaf AND c.relkind = 'r' ORDER BY 1, 2"
    );
    let rows = session.query(&sql).await.map_err(failed("reading the partitions"))?;
    Ok(rows
        .iter()
        .map(|row| format!("{}.{}", quote_ident(text(row, 0)), quote_ident(text(row, 1))))
        .collect())
}

/// How many pages a table has, given its quoted name.
pub(crate) async fn pages(session: &mut Session, table: &str) -> Result<u64> {
    let sql = format!(
        "SELECT pg_relation_size({}::regclass) / current_setting('block_size')::int",
        quote_literal(table)
    );
    let rows = session.query(&sql).await.map_err(failed("reading the size of a table"))?;
    Ok(rows.first().and_then(|row| text(row, 0).parse().ok()).unwrap_or(0))
}

/// The planner's estimate of how many rows a query returns.
pub(crate) async fn estimate(session: &mut Session, select: &str) -> Result<u64> {
    let sql = format!("EXPLAIN (FORMAT JSON) {select}");
    let rows = session.query(&sql).await.map_err(failed("estimating the snapshot"))?;
    let plan: Json = rows
        .first()
        .map(|row| text(row, 0))
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    Ok(plan.pointer("/0/Plan/Plan Rows").and_then(Json::as_f64).unwrap_or(0.0) as u64)
}

/// What the stream calls a relation, completed from the catalog.
pub(crate) async fn describe(
    session: &mut Session,
    settings: &Settings,
    relation: &Relation,
) -> Result<TableShape, PgError> {
    let oid = relation.oid;
    // A table dropped since still has its own name.
    let sql = format!("SELECT {NAMES} FROM pg_class c WHERE c.oid = {oid}");
    let mut all = session.query(&sql).await?.first().map(|row| names(text(row, 0))).unwrap_or_default();
    all.push(format!("{}.{}", relation.schema, relation.name));
    let included = included(settings, &all);
    let key = match given_key(settings, &all) {
        Some(key) => key,
        None => historic_key(relation, key(session, oid).await?),
    };
    let known = attributes(session, oid).await?;
    let mut columns = Vec::with_capacity(relation.columns.len());
    for column in &relation.columns {
        let ty = resolve(session, column.type_oid, column.typmod).await?;
        // A column dropped or renamed since has neither.
        let known = known.iter().find(|known| known.name == column.name);
        columns.push(ColumnType {
            name: column.name.clone(),
            ty,
            required: known.is_some_and(|known| known.required),
            default: known.and_then(|known| known.default.clone()),
        });
    }
    Ok(TableShape { schema: relation.schema.clone(), name: relation.name.clone(), columns, key, included })
}

/// The catalog tells the key as it is now, in its order; the relation tells the columns that identified a row then,
/// which may be more than the key, unless they are the whole row. A key that is no part of them has changed since.
fn historic_key(relation: &Relation, now: Vec<String>) -> Vec<String> {
    if relation.whole {
        return now;
    }
    let identity = relation.columns.iter().filter(|column| column.identity);
    let then: Vec<String> = identity.map(|column| column.name.clone()).collect();
    // Without an identity only inserts are sent, and any key will do.
    let part = now.iter().all(|name| then.contains(name));
    if then.is_empty() || part && !now.is_empty() { now } else { then }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::RelationColumn;

    #[test]
    fn a_renamed_key_column_is_still_the_key_of_older_changes() {
        let column = |name: &str, identity| RelationColumn {
            identity,
            name: name.to_owned(),
            type_oid: 23,
            typmod: -1,
        };
        let mut relation = Relation {
            oid: 1,
            schema: "s".to_owned(),
            name: "t".to_owned(),
            whole: false,
            columns: vec![column("a", true), column("b", true), column("c", false)],
        };
        let key = |relation: &Relation, now: &[&str]| {
            historic_key(relation, now.iter().map(|name| (*name).to_owned()).collect()).join(",")
        };
        assert_eq!(key(&relation, &["b", "a"]), "b,a");
        assert_eq!(key(&relation, &["b", "renamed"]), "a,b");
        // The primary key within a wider replica identity index.
        assert_eq!(key(&relation, &["b"]), "b");
        relation.whole = true;
        assert_eq!(key(&relation, &["b"]), "b");
    }
}
