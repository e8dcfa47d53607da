//! Requests to answers: one file per family, each decode → do → encode.
//! Invariant: what is advertised is what is served, and a request that cannot be decoded closes its connection.

mod cluster;
mod codes;
mod configs;
mod describe;
mod error_codes;
mod fetch;
mod group_offsets;
mod groups;
mod log_dirs;
mod metadata;
mod offsets;
mod produce;
mod rights;
mod single;
mod topics;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use aqueduct_wire::frame::{RequestHeader, encode_response};
use aqueduct_wire::message::{Message, RequestMessage};
use aqueduct_wire::messages::ApiKey;
use aqueduct_wire::{ByteString, Reader};

use crate::metrics::{Held, Metrics, Trace};
use crate::net::{Answer, Peer, Reply, Service};
use crate::node::Node;
use error_codes::ErrorCodes;

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
    pub(crate) client_id: ByteString,
    pub(crate) peer: Peer,
    metrics: Arc<Metrics>,
}

impl Ask {
    fn frame<M: Message + ErrorCodes>(&self, response: &M) -> Result<Vec<Bytes>, String> {
        response.each_code(&mut |code| {
            if code != 0 {
                self.metrics.error(self.api, code);
            }
        });
        match encode_response(self.api, self.version, self.correlation_id, response) {
            Ok(frame) => {
                let chunks = frame.into_chunks();
                self.metrics.response_bytes(chunks.iter().map(Bytes::len).sum());
                Ok(chunks)
            }
            Err(error) => {
                Err(format!("the answer to {:?} v{} cannot be encoded: {error}", self.api, self.version))
            }
        }
    }

    /// The answer as it goes out.
    fn reply<M: Message + ErrorCodes>(&self, response: &M) -> Reply {
        match self.frame(response) {
            Ok(frame) => Reply::Frame(frame),
            Err(reason) => Reply::Close(reason),
        }
    }

    fn answer<M: Message + ErrorCodes>(&self, response: &M) -> Answer {
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

    fn now<R>(
        &self,
        ask: &Ask,
        mut reader: Reader,
        handle: impl FnOnce(&Node, &Ask, R) -> R::Response,
    ) -> Answer
    where
        R: RequestMessage<Response: ErrorCodes>,
    {
        match R::decode(&mut reader, ask.version) {
            Ok(request) => ask.answer(&handle(&self.node, ask, request)),
            Err(error) => malformed(ask, &error),
        }
    }

    fn later<R, F>(&self, ask: Ask, mut reader: Reader, handle: impl FnOnce(Arc<Node>, Ask, R) -> F) -> Answer
    where
        R: RequestMessage<Response: ErrorCodes>,
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
}

type Handler = fn(&Api, Ask, Reader) -> Answer;

/// What answers the requests of an API; the codec knows more of them than are served.
pub(crate) fn handler(api: ApiKey) -> Option<Handler> {
    Some(match api {
        ApiKey::Produce => |api, ask, reader| api.produce(ask, reader),
        ApiKey::Fetch => |api, ask, reader| api.later(ask, reader, fetch::fetch),
        ApiKey::ListOffsets => |api, ask, reader| api.later(ask, reader, offsets::list_offsets),
        ApiKey::OffsetForLeaderEpoch => {
            |api, ask, reader| api.now(&ask, reader, offsets::offset_for_leader_epoch)
        }
        ApiKey::DeleteRecords => |api, ask, reader| api.later(ask, reader, offsets::delete_records),
        ApiKey::Metadata => |api, ask, reader| api.later(ask, reader, metadata::metadata),
        ApiKey::ApiVersions => |api, ask, reader| api.now(&ask, reader, cluster::api_versions),
        ApiKey::DescribeCluster => |api, ask, reader| api.now(&ask, reader, cluster::describe_cluster),
        ApiKey::InitProducerId => |api, ask, reader| api.later(ask, reader, cluster::init_producer_id),
        ApiKey::CreateTopics => |api, ask, reader| api.later(ask, reader, topics::create_topics),
        ApiKey::DeleteTopics => |api, ask, reader| api.later(ask, reader, topics::delete_topics),
        ApiKey::CreatePartitions => |api, ask, reader| api.later(ask, reader, topics::create_partitions),
        ApiKey::DescribeConfigs => |api, ask, reader| api.now(&ask, reader, configs::describe_configs),
        ApiKey::IncrementalAlterConfigs => {
            |api, ask, reader| api.later(ask, reader, configs::incremental_alter_configs)
        }
        ApiKey::FindCoordinator => |api, ask, reader| api.later(ask, reader, groups::find_coordinator),
        ApiKey::JoinGroup => |api, ask, reader| api.later(ask, reader, groups::join_group),
        ApiKey::SyncGroup => |api, ask, reader| api.later(ask, reader, groups::sync_group),
        ApiKey::Heartbeat => |api, ask, reader| api.later(ask, reader, groups::heartbeat),
        ApiKey::LeaveGroup => |api, ask, reader| api.later(ask, reader, groups::leave_group),
        ApiKey::DescribeGroups => |api, ask, reader| api.later(ask, reader, groups::describe_groups),
        ApiKey::ListGroups => |api, ask, reader| api.later(ask, reader, groups::list_groups),
        ApiKey::DeleteGroups => |api, ask, reader| api.later(ask, reader, groups::delete_groups),
        ApiKey::OffsetCommit => |api, ask, reader| api.later(ask, reader, group_offsets::offset_commit),
        ApiKey::OffsetFetch => |api, ask, reader| api.later(ask, reader, group_offsets::offset_fetch),
        ApiKey::OffsetDelete => |api, ask, reader| api.later(ask, reader, group_offsets::offset_delete),
        ApiKey::DescribeTopicPartitions => {
            |api, ask, reader| api.now(&ask, reader, describe::describe_topic_partitions)
        }
        ApiKey::DescribeLogDirs => |api, ask, reader| api.later(ask, reader, log_dirs::describe_log_dirs),
        ApiKey::ListPartitionReassignments => {
            |api, ask, reader| api.now(&ask, reader, single::list_partition_reassignments)
        }
        ApiKey::ElectLeaders => |api, ask, reader| api.now(&ask, reader, single::elect_leaders),
        ApiKey::DescribeAcls => |api, ask, reader| api.now(&ask, reader, single::describe_acls),
        _ => return None,
    })
}

impl Service for Api {
    fn call(&self, frame: Bytes, peer: &Peer, arrived: Instant) -> Answer {
        let size = frame.len();
        let mut reader = Reader::new(frame);
        let header = match RequestHeader::decode(&mut reader) {
            Ok(header) => header,
            Err(error) => return Answer::Close(format!("the request header cannot be read: {error}")),
        };
        let Some((api, handler)) = header.api().and_then(|api| Some((api, handler(api)?))) else {
            return Answer::Close(format!(
                "the client asks for API `{}`, which is not served",
                header.api_key
            ));
        };
        let metrics = &self.node.metrics;
        let ask = Ask {
            api,
            version: header.api_version,
            correlation_id: header.correlation_id,
            client_id: header.client_id.unwrap_or_default(),
            peer: peer.clone(),
            metrics: Arc::clone(metrics),
        };
        metrics.request(api, size);
        if !api.versions().contains(&ask.version) {
            if api == ApiKey::ApiVersions {
                return cluster::unsupported_api_versions(&ask);
            }
            return Answer::Close(format!(
                "the client asks for {api:?} v{}, which is not served",
                ask.version
            ));
        }
        let mut trace = Trace::new(ask.clone(), arrived);
        let answer = trace.work(|| handler(self, ask, reader));
        match answer {
            Answer::Later(answer) => {
                Answer::Later(Box::pin(Traced { answer, trace, metrics: Arc::clone(metrics) }))
            }
            Answer::Now(_) | Answer::Close(_) => {
                metrics.answered(&trace);
                answer
            }
        }
    }

    fn connected(&self) -> Held {
        self.node.metrics.connection_opened()
    }

    fn refused(&self) {
        self.node.metrics.connection_refused();
    }
}

/// An answer that is awaited, and the time it takes.
struct Traced {
    answer: Pin<Box<dyn Future<Output = Reply> + Send>>,
    trace: Trace,
    metrics: Arc<Metrics>,
}

impl Future for Traced {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let Self { answer, trace, metrics } = &mut *self;
        let polled = trace.work(|| answer.as_mut().poll(context));
        if polled.is_ready() {
            metrics.answered(trace);
        }
        polled
    }
}

fn malformed(ask: &Ask, error: &aqueduct_wire::WireError) -> Answer {
    Answer::Close(format!("a {:?} v{} request cannot be decoded: {error}", ask.api, ask.version))
}
