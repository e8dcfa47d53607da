//! ApiVersions, DescribeCluster and InitProducerId.

use std::sync::Arc;

use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::frame::encode_response;
use aqueduct_wire::messages::{
    ApiKey, ApiVersion, ApiVersionsRequest, ApiVersionsResponse, DescribeClusterBroker,
    DescribeClusterRequest, DescribeClusterResponse, InitProducerIdRequest, InitProducerIdResponse,
};

use super::{Ask, codes, rights};
use crate::net::Answer;
use crate::node::Node;

fn versions() -> Vec<ApiVersion> {
    let version = |api: &ApiKey| {
        let served = api.advertised();
        ApiVersion { api_key: api.code(), min_version: *served.start(), max_version: *served.end() }
    };
    ApiKey::ALL.iter().filter(|api| super::handler(**api).is_some()).map(version).collect()
}

pub(super) fn api_versions(_node: &Node, _ask: &Ask, _request: ApiVersionsRequest) -> ApiVersionsResponse {
    ApiVersionsResponse { api_keys: versions(), ..ApiVersionsResponse::default() }
}

/// A client newer than this build gets the list in version 0, so that it can go on with what both know (KIP-511).
pub(super) fn unsupported_api_versions(ask: &Ask) -> Answer {
    let error_code = ErrorCode::UnsupportedVersion as i16;
    let response = ApiVersionsResponse { error_code, api_keys: versions(), ..ApiVersionsResponse::default() };
    match encode_response(ApiKey::ApiVersions, 0, ask.correlation_id, &response) {
        Ok(frame) => Answer::Now(frame.into_chunks()),
        Err(error) => Answer::Close(format!("the list of APIs cannot be encoded: {error}")),
    }
}

pub(super) fn describe_cluster(
    node: &Node,
    _ask: &Ask,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if request.endpoint_type != 1 {
        return DescribeClusterResponse {
            error_code: ErrorCode::UnsupportedEndpointType as i16,
            error_message: Some("this is a broker endpoint".into()),
            ..DescribeClusterResponse::default()
        };
    }
    let image = node.meta.image();
    let broker = |(id, broker): (&i32, &crate::meta::image::Broker)| DescribeClusterBroker {
        broker_id: *id,
        host: broker.host.as_str().into(),
        port: i32::from(broker.port),
        rack: None,
        is_fenced: false,
    };
    DescribeClusterResponse {
        endpoint_type: 1,
        cluster_id: node.cluster_id.as_str().into(),
        controller_id: node.config.node_id,
        brokers: image.brokers.iter().map(broker).collect(),
        cluster_authorized_operations: rights::answer(
            request.include_cluster_authorized_operations,
            rights::CLUSTER,
        ),
        ..DescribeClusterResponse::default()
    }
}

pub(super) async fn init_producer_id(
    node: Arc<Node>,
    _ask: Ask,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |code: ErrorCode| InitProducerIdResponse {
        error_code: code as i16,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    if request.transactional_id.is_some() {
        // Transactions are not served yet; not a retriable code, so that the client says so.
        return refused(ErrorCode::InvalidRequest);
    }
    // Like Kafka, a producer without transactions gets a new id whatever it says about an old one.
    match node.next_producer_id().await {
        Ok(producer_id) => InitProducerIdResponse { producer_id, ..InitProducerIdResponse::default() },
        Err(error) => {
            tracing::warn!(%error, "could not hand out a producer id");
            // Whatever it was, the producer tries again.
            tracing::debug!(code = codes::change(&error).name(), "producer id refused");
            refused(ErrorCode::CoordinatorNotAvailable)
        }
    }
}
