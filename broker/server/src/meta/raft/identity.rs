//! This node's id in the raft group, which is not Kafka's broker id.
//! Invariant: an id is drawn once per directory, so a wiped directory never votes under an id that has voted before; a
//! directory that was a voter is not started without its log.

use std::path::Path;

use uuid::Uuid;

use aqueduct_log::{CheckedFile, Disk};

use super::MetaError;
use crate::meta::encoding::{DecodeError, Decoder, Encoder};

const FILE: CheckedFile = CheckedFile::new(*b"AQRAFTID", 1);
const NAME: &str = "raft-id";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    id: u64,
    /// Set once the first membership is on disk.
    voter: bool,
}

impl Identity {
    /// The stored identity, or a new one that has been stored.
    pub(super) fn load_or_draw(disk: &dyn Disk, dir: &Path, log_is_empty: bool) -> Result<Self, MetaError> {
        let path = dir.join(NAME);
        match FILE.read(disk, &path)? {
            Some((_, payload)) => {
                let identity = Self::decode(&payload)?;
                if identity.voter && log_is_empty {
                    return Err(MetaError::VoterWithoutLog(dir.to_owned()));
                }
                Ok(identity)
            }
            None => {
                // 63 bits, never 0.
                let (_, low) = Uuid::new_v4().as_u64_pair();
                let identity = Self { id: (low >> 1).max(1), voter: false };
                FILE.replace(disk, &path, &identity.encode())?;
                Ok(identity)
            }
        }
    }

    pub(super) fn raft_id(self) -> u64 {
        self.id
    }

    /// The log has begun: from now on the directory must not come without it.
    pub(super) fn confirm(self, disk: &dyn Disk, dir: &Path) -> Result<(), MetaError> {
        let confirmed = Self { voter: true, ..self };
        FILE.replace(disk, &dir.join(NAME), &confirmed.encode())?;
        Ok(())
    }

    fn encode(self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u64(self.id);
        out.u8(u8::from(self.voter));
        out.0
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder(bytes);
        let identity = Self { id: input.u64()?, voter: input.u8()? != 0 };
        input.finish()?;
        Ok(identity)
    }
}
