//! Requests to answers: one file per family, each decode → do → encode.
//! Invariant: what is advertised is what is served, and a request that cannot be decoded closes its connection.

mod cluster;
mod codes;
mod configs;
mod fetch;
mod group_offsets;
mod groups;
mod metadata;
mod offsets;
mod produce;
mod topics;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use aqueduct_wire::Reader;
use aqueduct_wire::frame::{RequestHeader, encode_response};
use aqueduct_wire::message::{Message, RequestMessage};
use aqueduct_wire::messages::ApiKey;

use crate::net::{Answer, Peer, Reply, Service};
use crate::node::Node;

/// The service behind the Kafka listener.
pub(crate) struct Api {
    node: Arc<Node>,
}

/// The circumstances of one request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: String,
    pub(crate) peer: Peer,
}

impl Ask {
    fn frame<M: Message>(&self, response: &M) -> Result<Vec<Bytes>, String> {
        match encode_response(self.api, self.version, self.correlation_id, response) {
            Ok(frame) => Ok(frame.into_chunks()),
            Err(error) => {
                Err(format!("the answer to {:?} v{} cannot be encoded: {error}", self.api, self.version))
            }
        }
    }

    /// The answer as it goes out.
    fn reply<M: Message>(&self, response: &M) -> Reply {
        match self.frame(response) {
            Ok(frame) => Reply::Frame(frame),
            Err(reason) => Reply::Close(reason),
        }
    }

    fn answer<M: Message>(&self, response: &M) -> Answer {
        match self.frame(response) {
            Ok(frame) => Answer::Now(frame),
            Err(reason) => Answer::Close(reason),
        }
    }
}

impl Api {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    fn now<R: RequestMessage>(
        &self,
        ask: &Ask,
        mut reader: Reader,
        handle: impl FnOnce(&Node, &Ask, R) -> R::Response,
    ) -> Answer {
        match R::decode(&mut reader, ask.version) {
            Ok(request) => ask.answer(&handle(&self.node, ask, request)),
            Err(error) => malformed(ask, &error),
        }
    }

    fn later<R, F>(&self, ask: Ask, mut reader: Reader, handle: impl FnOnce(Arc<Node>, Ask, R) -> F) -> Answer
    where
        R: RequestMessage,
        F: Future<Output = R::Response> + Send + 'static,
    {
        match R::decode(&mut reader, ask.version) {
            Ok(request) => {
                let response = handle(Arc::clone(&self.node), ask.clone(), request);
                Answer::Later(Box::pin(async move { ask.reply(&response.await) }))
            }
            Err(error) => malformed(&ask, &error),
        }
    }

    fn produce(&self, ask: Ask, mut reader: Reader) -> Answer {
        match Message::decode(&mut reader, ask.version) {
            Ok(request) => produce::produce(&self.node, ask, request),
            Err(error) => malformed(&ask, &error),
        }
    }

    fn dispatch(&self, ask: Ask, reader: Reader) -> Answer {
        match ask.api {
            ApiKey::Produce => self.produce(ask, reader),
            ApiKey::Fetch => self.later(ask, reader, fetch::fetch),
            ApiKey::ListOffsets => self.later(ask, reader, offsets::list_offsets),
            ApiKey::OffsetForLeaderEpoch => self.now(&ask, reader, offsets::offset_for_leader_epoch),
            ApiKey::DeleteRecords => self.later(ask, reader, offsets::delete_records),
            ApiKey::Metadata => self.later(ask, reader, metadata::metadata),
            ApiKey::ApiVersions => self.now(&ask, reader, cluster::api_versions),
            ApiKey::DescribeCluster => self.now(&ask, reader, cluster::describe_cluster),
            ApiKey::InitProducerId => self.later(ask, reader, cluster::init_producer_id),
            ApiKey::CreateTopics => self.later(ask, reader, topics::create_topics),
            ApiKey::DeleteTopics => self.later(ask, reader, topics::delete_topics),
            ApiKey::CreatePartitions => self.later(ask, reader, topics::create_partitions),
            ApiKey::DescribeConfigs => self.now(&ask, reader, configs::describe_configs),
            ApiKey::IncrementalAlterConfigs => self.later(ask, reader, configs::incremental_alter_configs),
            ApiKey::FindCoordinator => self.later(ask, reader, groups::find_coordinator),
            ApiKey::JoinGroup => self.later(ask, reader, groups::join_group),
            ApiKey::SyncGroup => self.later(ask, reader, groups::sync_group),
            ApiKey::Heartbeat => self.later(ask, reader, groups::heartbeat),
            ApiKey::LeaveGroup => self.later(ask, reader, groups::leave_group),
            ApiKey::DescribeGroups => self.later(ask, reader, groups::describe_groups),
            ApiKey::ListGroups => self.later(ask, reader, groups::list_groups),
            ApiKey::DeleteGroups => self.later(ask, reader, groups::delete_groups),
            ApiKey::OffsetCommit => self.later(ask, reader, group_offsets::offset_commit),
            ApiKey::OffsetFetch => self.later(ask, reader, group_offsets::offset_fetch),
        }
    }
}

impl Service for Api {
    fn call(&self, frame: Bytes, peer: &Peer) -> Answer {
        let size = frame.len();
        let mut reader = Reader::new(frame);
        let header = match RequestHeader::decode(&mut reader) {
            Ok(header) => header,
            Err(error) => return Answer::Close(format!("the request header cannot be read: {error}")),
        };
        let Some(api) = header.api() else {
            return Answer::Close(format!(
                "the client asks for API `{}`, which is not served",
                header.api_key
            ));
        };
        let ask = Ask {
            api,
            version: header.api_version,
            correlation_id: header.correlation_id,
            client_id: header.client_id.as_deref().unwrap_or_default().to_owned(),
            peer: peer.clone(),
        };
        self.node.metrics.request(api, size);
        if !api.versions().contains(&ask.version) {
            if api == ApiKey::ApiVersions {
                return cluster::unsupported_api_versions(&ask);
            }
            return Answer::Close(format!(
                "the client asks for {api:?} v{}, which is not served",
                ask.version
            ));
        }
        self.dispatch(ask, reader)
    }
}

fn malformed(ask: &Ask, error: &aqueduct_wire::WireError) -> Answer {
    Answer::Close(format!("a {:?} v{} request cannot be decoded: {error}", ask.api, ask.version))
}
