//! The requests of classic groups, and FindCoordinator.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use aqueduct_wire::ByteString;
use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{
    Coordinator, DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, DescribedGroup, DescribedGroupMember, FindCoordinatorRequest,
    FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    JoinGroupResponseMember, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse,
    ListedGroup, MemberIdentity, MemberResponse, SyncGroupRequest, SyncGroupResponse,
};

use super::{Ask, codes, rights};
use crate::coord::CoordError;
use crate::coord::group::{GroupError, JoinRequest, Leaving, Peer, State, SyncRequest};
use crate::coord::shard::Slot;
use crate::node::Node;

/// FindCoordinator's key type for groups.
const GROUP: i8 = 0;

pub(super) async fn find_coordinator(
    node: Arc<Node>,
    ask: Ask,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let outcome = if request.key_type == GROUP {
        node.ensure_offsets_topic().await.map_err(|error| (codes::change(&error), error.to_string()))
    } else {
        // Not a retriable code: the client shall say so instead of waiting.
        Err((ErrorCode::InvalidRequest, "transactions and share groups are not supported".to_owned()))
    };
    let coordinator = |key: ByteString| match &outcome {
        Ok(()) => Coordinator {
            key,
            node_id: node.config.node_id,
            host: node.advertised.host.as_str().into(),
            port: i32::from(node.advertised.port),
            error_code: 0,
            error_message: None,
        },
        Err((code, message)) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: *code as i16,
            error_message: Some(message.as_str().into()),
            ..Coordinator::default()
        },
    };
    if ask.version >= 4 {
        let coordinators = request.coordinator_keys.into_iter().map(coordinator).collect();
        return FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() };
    }
    let one = coordinator(request.key);
    FindCoordinatorResponse {
        error_code: one.error_code,
        error_message: one.error_message,
        node_id: one.node_id,
        host: one.host,
        port: one.port,
        ..FindCoordinatorResponse::default()
    }
}

fn owned(text: Option<&ByteString>) -> Option<String> {
    text.map(ByteString::to_string)
}

pub(super) async fn join_group(node: Arc<Node>, ask: Ask, request: JoinGroupRequest) -> JoinGroupResponse {
    let protocols = request.protocols.into_iter().map(|one| (one.name.to_string(), one.metadata)).collect();
    // Kafka's form: whoever reads the log sees which client it is.
    let name = match &request.group_instance_id {
        Some(instance) => instance.to_string(),
        None => ask.client_id.to_string(),
    };
    // Version 0 has one timeout for both.
    let rebalance = if ask.version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
    let make = |reply| JoinRequest {
        reply,
        member_id: request.member_id.to_string(),
        instance_id: owned(request.group_instance_id.as_ref()),
        client_id: ask.client_id.to_string(),
        client_host: format!("/{}", ask.peer.address.ip()),
        rebalance_timeout_ms: rebalance,
        session_timeout_ms: request.session_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols,
        fresh_id: format!("{name}-{}", Uuid::new_v4()),
        known_id_required: ask.version >= 4,
        can_skip_assignment: ask.version >= 9,
    };
    let member = |peer: Peer| JoinGroupResponseMember {
        member_id: peer.member_id.into(),
        group_instance_id: peer.instance_id.map(Into::into),
        metadata: peer.metadata,
    };
    match node.coordinator.join(&request.group_id, make).await {
        Ok(joined) => JoinGroupResponse {
            generation_id: joined.generation,
            protocol_type: Some(joined.protocol_type.into()),
            protocol_name: Some(joined.protocol.into()),
            leader: joined.leader.into(),
            skip_assignment: joined.skip_assignment,
            member_id: joined.member_id.into(),
            members: joined.members.into_iter().map(member).collect(),
            ..JoinGroupResponse::default()
        },
        Err((error, member_id)) => JoinGroupResponse {
            error_code: codes::coord(error) as i16,
            // Below version 7 the name cannot be null.
            protocol_name: (ask.version < 7).then(ByteString::new),
            member_id: member_id.into(),
            ..JoinGroupResponse::default()
        },
    }
}

pub(super) async fn sync_group(node: Arc<Node>, _ask: Ask, request: SyncGroupRequest) -> SyncGroupResponse {
    let assignments: BTreeMap<_, _> =
        request.assignments.into_iter().map(|one| (one.member_id.to_string(), one.assignment)).collect();
    let make = |reply| SyncRequest {
        reply,
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance_id: owned(request.group_instance_id.as_ref()),
        protocol_type: owned(request.protocol_type.as_ref()),
        protocol: owned(request.protocol_name.as_ref()),
        assignments,
    };
    match node.coordinator.sync(&request.group_id, make).await {
        Ok(synced) => SyncGroupResponse {
            protocol_type: Some(synced.protocol_type.into()),
            protocol_name: Some(synced.protocol.into()),
            assignment: synced.assignment,
            ..SyncGroupResponse::default()
        },
        Err(error) => {
            SyncGroupResponse { error_code: codes::coord(error) as i16, ..SyncGroupResponse::default() }
        }
    }
}

pub(super) async fn heartbeat(node: Arc<Node>, _ask: Ask, request: HeartbeatRequest) -> HeartbeatResponse {
    let instance = request.group_instance_id.as_deref();
    let outcome =
        node.coordinator.heartbeat(&request.group_id, &request.member_id, instance, request.generation_id);
    let error_code = outcome.await.map_or_else(codes::coord, |()| ErrorCode::None) as i16;
    HeartbeatResponse { error_code, ..HeartbeatResponse::default() }
}

pub(super) async fn leave_group(node: Arc<Node>, ask: Ask, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let batch = ask.version >= 3;
    let identities = if batch {
        request.members
    } else {
        vec![MemberIdentity { member_id: request.member_id, ..MemberIdentity::default() }]
    };
    let leaving = |one: &MemberIdentity| Leaving {
        member_id: one.member_id.to_string(),
        instance_id: owned(one.group_instance_id.as_ref()),
    };
    let leaving: Vec<Leaving> = identities.iter().map(leaving).collect();
    let outcomes = match node.coordinator.leave(&request.group_id, &leaving).await {
        Ok(outcomes) => outcomes,
        // Nobody is a member of a group that does not exist.
        Err(CoordError::Group(error @ GroupError::UnknownMemberId)) => vec![Err(error); leaving.len()],
        Err(error) => {
            let error_code = codes::coord(error) as i16;
            return LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() };
        }
    };
    let code = |outcome: &Result<(), _>| outcome.map_or_else(codes::group, |()| ErrorCode::None) as i16;
    if !batch {
        let error_code = outcomes.first().map_or(0, code);
        return LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() };
    }
    let member = |(one, outcome): (MemberIdentity, &Result<(), _>)| MemberResponse {
        member_id: one.member_id,
        group_instance_id: one.group_instance_id,
        error_code: code(outcome),
    };
    let members = identities.into_iter().zip(&outcomes).map(member).collect();
    LeaveGroupResponse { members, ..LeaveGroupResponse::default() }
}

pub(super) async fn describe_groups(
    node: Arc<Node>,
    ask: Ask,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut response = DescribeGroupsResponse::default();
    for group_id in request.groups {
        let looked = node.coordinator.look(&group_id, |slot| slot.map(describe)).await;
        let mut group = match looked {
            Ok(Some(group)) => DescribedGroup {
                authorized_operations: rights::answer(request.include_authorized_operations, rights::GROUP),
                ..group
            },
            // Up to version 5 a group that does not exist is described as dead.
            Ok(None) => DescribedGroup {
                error_code: if ask.version >= 6 { ErrorCode::GroupIdNotFound } else { ErrorCode::None }
                    as i16,
                error_message: (ask.version >= 6)
                    .then(|| format!("group `{group_id}` does not exist").into()),
                group_state: State::Dead.name().into(),
                ..DescribedGroup::default()
            },
            Err(error) => DescribedGroup { error_code: codes::coord(error) as i16, ..Default::default() },
        };
        group.group_id = group_id;
        response.groups.push(group);
    }
    response
}

fn describe(slot: &Slot) -> DescribedGroup {
    let group = &slot.group;
    let stable = group.state() == State::Stable;
    let protocol = group.protocol().unwrap_or_default();
    let member = |member: &crate::coord::group::Member| DescribedGroupMember {
        member_id: member.id.as_str().into(),
        group_instance_id: member.instance_id.as_deref().map(Into::into),
        client_id: member.client_id.as_str().into(),
        client_host: member.client_host.as_str().into(),
        member_metadata: if stable { member.metadata(protocol) } else { Default::default() },
        member_assignment: if stable { member.assignment.clone() } else { Default::default() },
    };
    DescribedGroup {
        group_state: group.state().name().into(),
        protocol_type: group.protocol_type().into(),
        protocol_data: if stable { protocol.into() } else { ByteString::new() },
        members: group.members().iter().map(member).collect(),
        ..DescribedGroup::default()
    }
}

pub(super) async fn list_groups(
    node: Arc<Node>,
    _ask: Ask,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let same = |one: &ByteString, other: &str| one.eq_ignore_ascii_case(other);
    let state_wanted = |state: &str| {
        request.states_filter.is_empty() || request.states_filter.iter().any(|wanted| same(wanted, state))
    };
    // Every group here is a classic one.
    if !request.types_filter.is_empty() && !request.types_filter.iter().any(|wanted| same(wanted, "classic"))
    {
        return ListGroupsResponse::default();
    }
    let mut response = ListGroupsResponse::default();
    let listed = node.coordinator.look_at_all(|slot| {
        let group = &slot.group;
        if state_wanted(group.state().name()) {
            response.groups.push(ListedGroup {
                group_id: group.id.as_str().into(),
                protocol_type: group.protocol_type().into(),
                group_state: group.state().name().into(),
                group_type: "classic".into(),
            });
        }
    });
    if let Err(error) = listed.await {
        response.error_code = codes::coord(error) as i16;
    }
    response
}

pub(super) async fn delete_groups(
    node: Arc<Node>,
    _ask: Ask,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut response = DeleteGroupsResponse::default();
    for group_id in request.groups_names {
        let outcome = node.coordinator.delete_group(&group_id).await;
        let error_code = outcome.map_or_else(codes::coord, |()| ErrorCode::None) as i16;
        response.results.push(DeletableGroupResult { group_id, error_code });
    }
    response
}
