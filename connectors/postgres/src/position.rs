//! Positions: how far the log has what the database had, in Debezium's keys.
//!
//! **Invariant:** `lsn_commit` is the end of the last transaction of which everything is acknowledged, and streaming
//! starts there. Of the transaction that ends at `lsn` the first `events` changes are acknowledged too. A stored
//! position is never behind the slot, because it is stored before the slot is confirmed.

use std::sync::Arc;

use aqueduct_core::source::{JsonMap, SourcePosition};
use aqueduct_core::{Error, Result};
use serde_json::Value as Json;

/// A log sequence number as PostgreSQL writes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lsn(pub(crate) u64);

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

impl Lsn {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let part = |part| u32::from_str_radix(part, 16).ok().map(u64::from);
        Some(Self(part(high)? << 32 | part(low)?))
    }
}

/// Which database cluster, and which of its histories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) id: String,
    pub(crate) timeline: u32,
}

/// What a server says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) system: System,
    /// Up to where its WAL is flushed.
    pub(crate) flushed: u64,
}

/// Whether a snapshot belongs to the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Snapshot {
    /// Streaming.
    No,
    /// Rows are being read; after a crash they are read again.
    Running,
    /// Every row is in the log; streaming comes next.
    Completed,
}

/// A position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) system: System,
    pub(crate) snapshot: Snapshot,
    pub(crate) lsn_commit: u64,
    /// Final LSN of the transaction under way, or of the last one.
    pub(crate) lsn: u64,
    /// Changes of that transaction that are done.
    pub(crate) events: u64,
    pub(crate) xid: Option<u32>,
    /// Where the last change stands in the WAL.
    pub(crate) lsn_proc: u64,
    pub(crate) micros: i64,
}

impl Position {
    /// Where streaming begins with nothing done.
    pub(crate) fn at(system: System, snapshot: Snapshot, lsn: u64, micros: i64) -> Self {
        Self { system, snapshot, lsn_commit: lsn, lsn, events: 0, xid: None, lsn_proc: lsn, micros }
    }

    /// As it is stored.
    pub(crate) fn offset(&self) -> Arc<JsonMap> {
        let mut map = JsonMap::with_capacity(10);
        let mut put = |key: &str, value: Json| {
            map.insert(key.to_owned(), value);
        };
        put("lsn_proc", self.lsn_proc.into());
        put("lsn_commit", self.lsn_commit.into());
        put("lsn", self.lsn.into());
        put("txId", self.xid.map_or(Json::Null, Json::from));
        put("lsn_events_processed", self.events.into());
        put("ts_usec", self.micros.into());
        if self.snapshot != Snapshot::No {
            put("snapshot", "INITIAL".into());
            put("snapshot_completed", (self.snapshot == Snapshot::Completed).into());
        }
        put("system_id", self.system.id.as_str().into());
        put("timeline", self.system.timeline.into());
        Arc::new(map)
    }

    /// From what is stored.
    pub(crate) fn read(offset: &JsonMap) -> Result<Self> {
        let wrong = |key: &str| {
            Error::fatal(format!(
                "the stored position lacks a usable `{key}`; reset the offsets of this connector"
            ))
        };
        let number = |key: &str| offset.get(key).and_then(Json::as_u64);
        let id = match offset.get("system_id") {
            Some(Json::String(id)) => id.clone(),
            Some(Json::Number(id)) => id.to_string(),
            _ => return Err(wrong("system_id")),
        };
        let timeline =
            number("timeline").and_then(|t| u32::try_from(t).ok()).ok_or_else(|| wrong("timeline"))?;
        let snapshot =
            match (offset.get("snapshot"), offset.get("snapshot_completed").and_then(Json::as_bool)) {
                (None | Some(Json::Null | Json::Bool(false)), _) => Snapshot::No,
                (Some(_), Some(true)) => Snapshot::Completed,
                (Some(_), _) => Snapshot::Running,
            };
        let lsn_commit = number("lsn_commit").ok_or_else(|| wrong("lsn_commit"))?;
        Ok(Self {
            system: System { id, timeline },
            snapshot,
            lsn_commit,
            lsn: number("lsn").unwrap_or(lsn_commit),
            events: number("lsn_events_processed").unwrap_or(0),
            xid: number("txId").and_then(|xid| u32::try_from(xid).ok()),
            lsn_proc: number("lsn_proc").unwrap_or(lsn_commit),
            micros: offset.get("ts_usec").and_then(Json::as_i64).unwrap_or(0),
        })
    }

    /// For the runtime.
    pub(crate) fn source(&self, partition: &Arc<JsonMap>) -> SourcePosition {
        SourcePosition { partition: Arc::clone(partition), offset: self.offset() }
    }

    /// Refuses to continue where LSNs mean something else, where the slot has gone past this position, or where the
    /// server has not come as far. A server that was set back and has written as much again is not told apart.
    pub(crate) fn check(&self, server: &Server, slot: &str, confirmed: u64) -> Result<()> {
        let system = &server.system;
        if self.system.id != system.id {
            return Err(Error::fatal(format!(
                "the stored position belongs to the database system {}, this is {}: positions mean nothing here; \
                 point the connector to the old one, or reset its offsets and drop the slot `{slot}` for a new snapshot",
                self.system.id, system.id
            )));
        }
        if self.system.timeline != system.timeline {
            return Err(Error::fatal(format!(
                "the stored position belongs to timeline {}, the server is on {} (restored or promoted): changes may \
                 be missing; reset the offsets of this connector and drop the slot `{slot}` for a new snapshot",
                self.system.timeline, system.timeline
            )));
        }
        if self.lsn_commit < confirmed {
            return Err(Error::fatal(format!(
                "the slot `{slot}` is confirmed up to {}, past the stored position {}: changes between them were given \
                 to somebody else and are lost here; reset the offsets of this connector for a new snapshot",
                Lsn(confirmed),
                Lsn(self.lsn_commit)
            )));
        }
        // Only flushed WAL is ever sent.
        if self.lsn_commit > server.flushed {
            return Err(Error::fatal(format!(
                "the stored position {} lies ahead of the server's WAL, which ends at {}: the server was set back, \
                 such as by restoring a copy of its disk, and its changes up to there would be skipped; reset the offsets of \
                 this connector and drop the slot `{slot}` for a new snapshot",
                Lsn(self.lsn_commit),
                Lsn(server.flushed)
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        let system = System { id: "7300000000000000001".to_owned(), timeline: 1 };
        Position {
            system,
            snapshot: Snapshot::No,
            lsn_commit: 0x16_b374_d848,
            lsn: 0x16_b374_ff00,
            events: 17,
            xid: Some(771),
            lsn_proc: 0x16_b374_e000,
            micros: 1_700_000_000_000_000,
        }
    }

    #[test]
    fn what_is_stored_is_read_back() {
        for snapshot in [Snapshot::No, Snapshot::Running, Snapshot::Completed] {
            let position = Position { snapshot, ..position() };
            assert_eq!(Position::read(&position.offset()).expect("valid"), position);
        }
    }

    #[test]
    fn lsns_are_written_as_postgres_does() {
        assert_eq!(Lsn(0x16_b374_d848).to_string(), "16/B374D848");
        assert!(Lsn::parse("16/B374D848") == Some(Lsn(0x16_b374_d848)));
        assert!(Lsn::parse("x").is_none());
    }

    #[test]
    fn a_position_behind_the_slot_names_both_lsns() {
        let position = position();
        let server = Server { system: position.system.clone(), flushed: u64::MAX };
        assert!(position.check(&server, "s", position.lsn_commit).is_ok());
        let error = position.check(&server, "s", 0x16_b374_d849).expect_err("behind");
        assert!(
            error.message().contains("16/B374D849") && error.message().contains("16/B374D848"),
            "{error}"
        );
    }

    #[test]
    fn a_position_ahead_of_the_server_names_both_lsns() {
        let position = position();
        let server = |flushed| Server { system: position.system.clone(), flushed };
        assert!(position.check(&server(position.lsn_commit), "s", 0).is_ok());
        let error = position.check(&server(0x16_b374_d847), "s", 0).expect_err("ahead");
        assert!(
            error.message().contains("16/B374D847") && error.message().contains("16/B374D848"),
            "{error}"
        );
    }

    #[test]
    fn another_system_or_timeline_is_refused() {
        let position = position();
        let server = |system| Server { system, flushed: u64::MAX };
        let other = server(System { id: "1".to_owned(), timeline: 1 });
        assert!(position.check(&other, "s", 0).expect_err("refused").message().contains("database system"));
        let other = server(System { timeline: 2, ..position.system.clone() });
        assert!(position.check(&other, "s", 0).expect_err("refused").message().contains("timeline"));
    }

    #[test]
    fn a_position_without_its_keys_is_refused() {
        let mut offset = (*position().offset()).clone();
        offset.remove("system_id");
        assert!(Position::read(&offset).is_err());
    }
}
