//! `aqueduct-client`: the runtime's view of a Kafka cluster, behind narrow traits.
//!
//! * [`LogProducer`]: ordered, idempotent, bounded in bytes; every record's fate is reported.
//! * [`LogConsumer`]: a group member that hands out batches within a byte budget and tells its owner of every change of
//!   the assignment before it takes effect.
//! * [`TopicTail`]: a compacted topic, read to its end and then followed.
//! * [`RecordReader`]: records one by one, for the command line.
//! * [`Admin`]: topics, offsets, ids.
//! * [`Cluster`]: everything an administrator asks and orders, for the command line.
//!
//! **Invariant:** only this crate names the client library; keys, values and headers leave it as [`bytes::Bytes`].

mod admin;
mod cluster;
mod consumer;
mod error;
mod producer;
mod reader;
mod settings;
mod tail;

pub use admin::{Admin, NewTopic, TopicConfig};
pub use cluster::{
    Cluster, ConfigChange, ConfigEntry, ConfigResource, ConfigSource, ConfigSynonym, Created, Description,
    Found, Group, GroupMember, ListedGroup, Node, OffsetQuery, PartitionInfo, Refused, ResourceKind,
    TopicInfo,
};
pub use consumer::{
    Batch, ConsumedRecord, ConsumerEvent, GroupConsumer, GroupConsumerConfig, LogConsumer, Subscription,
};
pub use producer::{Delivered, DeliveryListener, KafkaProducer, LogProducer, ProducerRecord};
pub use reader::{Polled, ReadRecord, RecordReader};
pub use settings::{ClientSettings, is_foreign_code};
pub use tail::{TailRecord, TopicTail};
