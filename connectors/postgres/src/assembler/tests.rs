//! Streams made by hand, cut at every place.

use aqueduct_core::Value;

use super::*;
use crate::column::ColumnType;
use crate::kind::PgType;
use crate::pgoutput::tests::tuple;
use crate::position::{Snapshot, System};
use crate::table::{Origin, TableShape};

const OID: u32 = 16_400;

fn table(included: bool) -> Arc<Table> {
    let column = |name: &str, oid| ColumnType::new(name, PgType::known(oid, -1));
    let shape = TableShape {
        schema: "s".to_owned(),
        name: "t".to_owned(),
        columns: vec![column("id", 23), column("note", 25)],
        key: vec!["id".to_owned()],
        included,
    };
    Arc::new(Table::new(&shape, &Arc::new(Origin::plain())))
}

fn start(lsn: u64) -> Position {
    Position::at(System { id: "1".to_owned(), timeline: 1 }, Snapshot::No, lsn, 0)
}

fn assembler(position: Position) -> Assembler {
    let partition = aqueduct_core::source::partition_of("server", "p");
    Assembler::new(position, partition, true)
}

fn copy_data(body: &[u8]) -> Vec<u8> {
    let mut out = vec![b'd'];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn wal(start: u64, message: &[u8]) -> Vec<u8> {
    let mut body = vec![b'w'];
    for number in [start, start, 0] {
        body.extend_from_slice(&number.to_be_bytes());
    }
    body.extend_from_slice(message);
    copy_data(&body)
}

fn keepalive(wal_end: u64, reply: bool) -> Vec<u8> {
    let mut body = vec![b'k'];
    body.extend_from_slice(&wal_end.to_be_bytes());
    body.extend_from_slice(&0u64.to_be_bytes());
    body.push(u8::from(reply));
    copy_data(&body)
}

fn begin(final_lsn: u64, xid: u32) -> Vec<u8> {
    let mut message = b"B".to_vec();
    message.extend_from_slice(&final_lsn.to_be_bytes());
    message.extend_from_slice(&0u64.to_be_bytes());
    message.extend_from_slice(&xid.to_be_bytes());
    wal(final_lsn, &message)
}

fn commit(lsn: u64, end: u64) -> Vec<u8> {
    let mut message = b"C\0".to_vec();
    for number in [lsn, end, 0] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    wal(end, &message)
}

fn relation() -> Vec<u8> {
    let mut message = b"R".to_vec();
    message.extend_from_slice(&OID.to_be_bytes());
    message.extend_from_slice(b"s\0t\0d\0\0");
    wal(0, &message)
}

fn change(lsn: u64, tag: u8, parts: &[(u8, &[Option<&str>])]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend_from_slice(&OID.to_be_bytes());
    for (kind, cells) in parts {
        message.push(*kind);
        message.extend_from_slice(&tuple(cells));
    }
    wal(lsn, &message)
}

fn insert(lsn: u64, id: &str) -> Vec<u8> {
    change(lsn, b'I', &[(b'N', &[Some(id), Some("x")])])
}

fn truncate(lsn: u64) -> Vec<u8> {
    let mut message = b"T\0\0\0\x02\0".to_vec();
    message.extend_from_slice(&OID.to_be_bytes());
    message.extend_from_slice(&OID.to_be_bytes());
    wal(lsn, &message)
}

fn feed(assembler: &mut Assembler, stream: &[Vec<u8>], included: bool) -> Vec<SourceRecord> {
    let tables = stream.iter().filter(|m| m.get(5 + 25) == Some(&b'R')).map(|_| (OID, table(included)));
    let tables: Vec<_> = tables.collect();
    let mut out = Vec::new();
    assembler.decode(&Bytes::from(stream.concat()), tables, 5, &mut out).expect("valid stream");
    assembler.seal(&mut out);
    out
}

fn stored(record: &SourceRecord) -> Position {
    Position::read(&record.position.as_ref().expect("a position").offset).expect("readable")
}

fn op(record: &SourceRecord) -> String {
    let mut value = record.record.clone().expect("a record").value;
    match value.value().expect("decoded") {
        Value::Null => "tombstone".to_owned(),
        Value::Struct(fields) => fields[4].as_str().expect("op").to_owned(),
        other => panic!("{other:?}"),
    }
}

fn ids(records: &[SourceRecord]) -> Vec<i64> {
    let records = records.iter().filter_map(|r| r.record.clone());
    let id = |mut record: Record| match record.key.value().expect("a key") {
        Value::Struct(fields) => fields[0].as_i64().expect("an id"),
        _ => -1,
    };
    records.map(id).collect()
}

#[test]
fn the_last_record_of_a_transaction_carries_its_end() {
    let mut assembler = assembler(start(100));
    let out = feed(
        &mut assembler,
        &[begin(200, 7), relation(), insert(150, "1"), insert(150, "2"), commit(200, 248)],
        true,
    );
    assert_eq!(ids(&out), [1, 2]);
    assert!(out[0].position.is_none());
    let position = stored(&out[1]);
    assert_eq!((position.lsn_commit, position.lsn, position.events, position.xid), (248, 200, 2, Some(7)));
}

#[test]
fn a_transaction_under_way_counts_its_changes_and_begins_before_itself() {
    let mut assembler = assembler(start(100));
    let out = feed(&mut assembler, &[begin(200, 7), relation(), insert(150, "1"), insert(150, "2")], true);
    let position = stored(&out[1]);
    assert_eq!((position.lsn_commit, position.lsn, position.events), (100, 200, 2));
}

#[test]
fn wherever_a_stream_is_cut_nothing_is_lost_or_doubled() {
    let stream = [
        begin(200, 7),
        relation(),
        insert(150, "1"),
        truncate(155),
        insert(150, "2"),
        change(160, b'U', &[(b'K', &[Some("2"), None]), (b'N', &[Some("3"), Some("x")])]),
        commit(200, 248),
        begin(300, 8),
        insert(250, "4"),
        insert(250, "5"),
        commit(300, 348),
    ];
    let whole = ids(&feed(&mut assembler(start(100)), &stream, true));
    for cut in 0..=stream.len() {
        let mut first = assembler(start(100));
        let mut out = feed(&mut first, &stream[..cut], true);
        // A new process knows only what was stored, and the server sends what ends after `lsn_commit`.
        let position =
            out.iter().rev().find_map(|r| r.position.is_some().then(|| stored(r))).unwrap_or(start(100));
        let resume = if position.lsn_commit >= 248 { vec![relation()] } else { Vec::new() };
        let from = match position.lsn_commit {
            348.. => stream.len(),
            248.. => 7,
            _ => 0,
        };
        let rest: Vec<_> = resume.into_iter().chain(stream[from..].iter().cloned()).collect();
        out.extend(feed(&mut assembler(position), &rest, true));
        assert_eq!(ids(&out), whole, "cut at {cut}");
        // The same over a lost connection, within one process.
        let mut out = feed(&mut assembler(start(100)), &[], true);
        let mut same = assembler(start(100));
        out.extend(feed(&mut same, &stream[..cut], true));
        same.interrupted();
        let from = match same.position().lsn_commit {
            348.. => stream.len(),
            248.. => 7,
            _ => 0,
        };
        let rest: Vec<_> = std::iter::once(relation()).chain(stream[from..].iter().cloned()).collect();
        out.extend(feed(&mut same, &rest, true));
        assert_eq!(ids(&out), whole, "interrupted at {cut}");
    }
}

#[test]
fn a_changed_key_is_a_delete_a_tombstone_and_an_insert() {
    let mut assembler = assembler(start(100));
    let update = change(150, b'U', &[(b'K', &[Some("1"), None]), (b'N', &[Some("2"), Some("x")])]);
    let out = feed(&mut assembler, &[begin(200, 7), relation(), update, commit(200, 248)], true);
    assert_eq!(out.iter().map(op).collect::<Vec<_>>(), ["d", "tombstone", "c"]);
    assert_eq!(ids(&out), [1, 1, 2]);
    assert!(out[0].record.as_ref().is_some_and(|r| r.headers.last("__debezium.newkey").is_some()));
    assert!(out[2].record.as_ref().is_some_and(|r| r.headers.last("__debezium.oldkey").is_some()));
    assert!(out[0].position.is_none() && out[1].position.is_none() && out[2].position.is_some());
}

#[test]
fn an_unchanged_toast_value_comes_from_the_old_row_or_is_the_placeholder() {
    let after = |out: &[SourceRecord]| {
        let mut record = out[0].record.clone().expect("a record");
        match record.value.value().expect("decoded") {
            Value::Struct(fields) => match &fields[1] {
                Value::Struct(row) => row[1].clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    let new: (u8, &[Option<&str>]) = (b'N', &[Some("1"), Some("\0")]);
    let stream = |parts: &[(u8, &[Option<&str>])]| [begin(200, 7), relation(), change(150, b'U', parts)];
    let out = feed(&mut assembler(start(100)), &stream(&[new]), true);
    assert_eq!(after(&out), Value::from("missing"));
    let out = feed(&mut assembler(start(100)), &stream(&[(b'O', &[Some("1"), Some("long")]), new]), true);
    assert_eq!(after(&out), Value::from("long"));
}

#[test]
fn filtered_changes_are_counted_and_move_the_position_alone() {
    let mut assembler = assembler(start(100));
    let out = feed(&mut assembler, &[begin(200, 7), relation(), insert(150, "1"), truncate(160)], false);
    assert!(out.len() == 1 && out[0].record.is_none());
    assert_eq!(stored(&out[0]).events, 3);
    let out = feed(&mut assembler, &[commit(200, 248)], false);
    assert!(out.len() == 1 && out[0].record.is_none());
    assert_eq!(stored(&out[0]).lsn_commit, 248);
}

#[test]
fn only_an_idle_stream_is_moved_forward() {
    let mut assembler = assembler(start(100));
    feed(&mut assembler, &[begin(200, 7), keepalive(190, false)], true);
    assert_eq!(assembler.idle(), None);
    assert!(assembler.advance(190).is_none());
    feed(&mut assembler, &[commit(200, 248), keepalive(300, false)], true);
    assert_eq!(assembler.idle(), Some(Idle { wal_end: 300, urgent: false }));
    let record = assembler.advance(300).expect("moves");
    assert_eq!(stored(&record).lsn_commit, 300);
    assert!(assembler.advance(300).is_none());
    feed(&mut assembler, &[keepalive(300, true)], true);
    assert_eq!(assembler.idle(), Some(Idle { wal_end: 300, urgent: true }));
}
