//! The metadata records: what the metadata log holds and all that the image is made of.
//! Invariant: kinds and versions are stored and never change meaning; a new field means a new version.

use uuid::Uuid;

use crate::meta::encoding::{DecodeError, Decoder, Encoder};

/// Version of the framing around a set of records.
const FORMAT: u8 = 1;

/// One change of the cluster's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A broker came up. Its epoch is the index of the log entry that carries this record.
    Broker(BrokerRecord),
    /// A topic without partitions or settings yet.
    Topic { id: Uuid, name: String },
    /// A partition, new or changed as a whole.
    Partition(PartitionRecord),
    /// A topic and everything in it is gone.
    RemoveTopic { id: Uuid },
    /// A topic setting; `None` returns to the default.
    TopicConfig { id: Uuid, name: String, value: Option<String> },
    /// Producer ids below this one have been handed out.
    ProducerIds { next: i64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRecord {
    pub node_id: i32,
    /// Differs at each start of the process.
    pub incarnation: Uuid,
    pub directory: Uuid,
    pub host: String,
    pub port: u16,
    /// Set when the record restores a registration from a snapshot.
    pub epoch: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRecord {
    pub topic: Uuid,
    pub index: i32,
    pub leader: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

// Stored. A removed kind is never used again.
const BROKER: u8 = 1;
const TOPIC: u8 = 2;
const PARTITION: u8 = 3;
const REMOVE_TOPIC: u8 = 4;
const TOPIC_CONFIG: u8 = 5;
const PRODUCER_IDS: u8 = 6;

const VERSION: u8 = 0;

impl Record {
    fn encode(&self, out: &mut Encoder) {
        let (kind, body) = self.kind_and_body();
        out.u8(kind);
        out.u8(VERSION);
        out.bytes(&body.0);
    }

    fn kind_and_body(&self) -> (u8, Encoder) {
        let mut body = Encoder::default();
        let kind = match self {
            Self::Broker(broker) => {
                body.i32(broker.node_id);
                body.uuid(broker.incarnation);
                body.uuid(broker.directory);
                body.string(&broker.host);
                body.u32(u32::from(broker.port));
                body.option(broker.epoch, Encoder::u64);
                BROKER
            }
            Self::Topic { id, name } => {
                body.uuid(*id);
                body.string(name);
                TOPIC
            }
            Self::Partition(partition) => {
                body.uuid(partition.topic);
                body.i32(partition.index);
                body.i32(partition.leader);
                body.i32(partition.leader_epoch);
                body.i32(partition.partition_epoch);
                body.ids(&partition.replicas);
                body.ids(&partition.isr);
                PARTITION
            }
            Self::RemoveTopic { id } => {
                body.uuid(*id);
                REMOVE_TOPIC
            }
            Self::TopicConfig { id, name, value } => {
                body.uuid(*id);
                body.string(name);
                body.option(value.as_deref(), Encoder::string);
                TOPIC_CONFIG
            }
            Self::ProducerIds { next } => {
                body.i64(*next);
                PRODUCER_IDS
            }
        };
        (kind, body)
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let kind = input.u8()?;
        let version = input.u8()?;
        let mut body = Decoder(input.bytes()?);
        if version != VERSION {
            return Err(DecodeError::Unknown { kind, version });
        }
        let record = match kind {
            BROKER => Self::Broker(BrokerRecord {
                node_id: body.i32()?,
                incarnation: body.uuid()?,
                directory: body.uuid()?,
                host: body.string()?.to_owned(),
                port: u16::try_from(body.u32()?).map_err(|_| DecodeError::Short)?,
                epoch: body.option(Decoder::u64)?,
            }),
            TOPIC => Self::Topic { id: body.uuid()?, name: body.string()?.to_owned() },
            PARTITION => Self::Partition(PartitionRecord {
                topic: body.uuid()?,
                index: body.i32()?,
                leader: body.i32()?,
                leader_epoch: body.i32()?,
                partition_epoch: body.i32()?,
                replicas: body.ids()?,
                isr: body.ids()?,
            }),
            REMOVE_TOPIC => Self::RemoveTopic { id: body.uuid()? },
            TOPIC_CONFIG => Self::TopicConfig {
                id: body.uuid()?,
                name: body.string()?.to_owned(),
                value: body.option(|body| body.string().map(str::to_owned))?,
            },
            PRODUCER_IDS => Self::ProducerIds { next: body.i64()? },
            _ => return Err(DecodeError::Unknown { kind, version }),
        };
        body.finish()?;
        Ok(record)
    }
}

/// Encodes records that take effect together.
pub fn encode_all(records: &[Record]) -> Vec<u8> {
    let mut out = Encoder::default();
    out.u8(FORMAT);
    for record in records {
        record.encode(&mut out);
    }
    out.0
}

/// Decodes what [`encode_all`] wrote.
pub fn decode_all(bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut input = Decoder(bytes);
    let format = input.u8()?;
    if format > FORMAT {
        return Err(DecodeError::Newer { found: format, supported: FORMAT });
    }
    let mut records = Vec::new();
    while !input.0.is_empty() {
        records.push(Record::decode(&mut input)?);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = Uuid> {
        any::<u128>().prop_map(Uuid::from_u128)
    }

    fn broker() -> impl Strategy<Value = Record> {
        (any::<i32>(), id(), id(), ".*", any::<u16>(), any::<Option<u64>>()).prop_map(
            |(node_id, incarnation, directory, host, port, epoch)| {
                Record::Broker(BrokerRecord { node_id, incarnation, directory, host, port, epoch })
            },
        )
    }

    fn partition() -> impl Strategy<Value = Record> {
        let ids = || prop::collection::vec(any::<i32>(), 0..4);
        (id(), any::<(i32, i32, i32, i32)>(), ids(), ids()).prop_map(|(topic, numbers, replicas, isr)| {
            let (index, leader, leader_epoch, partition_epoch) = numbers;
            Record::Partition(PartitionRecord {
                topic,
                index,
                leader,
                leader_epoch,
                partition_epoch,
                replicas,
                isr,
            })
        })
    }

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            broker(),
            partition(),
            (id(), ".*").prop_map(|(id, name)| Record::Topic { id, name }),
            id().prop_map(|id| Record::RemoveTopic { id }),
            (id(), ".*", any::<Option<String>>()).prop_map(|(id, name, value)| Record::TopicConfig {
                id,
                name,
                value
            }),
            any::<i64>().prop_map(|next| Record::ProducerIds { next }),
        ]
    }

    proptest! {
        #[test]
        fn records_round_trip(records in prop::collection::vec(record(), 0..8)) {
            prop_assert_eq!(decode_all(&encode_all(&records)), Ok(records));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = decode_all(&bytes);
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_both_versions() {
        let error = decode_all(&[FORMAT + 1]).expect_err("newer");
        assert_eq!(error, DecodeError::Newer { found: FORMAT + 1, supported: FORMAT });
    }
}
