//! Consumer groups: listed, described, deleted. Both the classic protocol and that of KIP-848.

use aqueduct_core::sink::TopicPartition;
use aqueduct_core::{Error, Result, Topic};
use aqueduct_wire::message::VersionedRecord as _;
use aqueduct_wire::messages::{
    ConsumerGroupDescribeGroup, ConsumerGroupDescribeRequest, ConsumerProtocolAssignment,
    DeleteGroupsRequest, DescribeGroupsRequest, DescribedGroup, ListGroupsRequest,
};
use aqueduct_wire::{ApiKey, ErrorCode};

use super::{Cluster, Refused, To, is_moving};

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedGroup {
    /// Name.
    pub id: String,
    /// State, where the cluster tells (Apache Kafka 2.6 and later).
    pub state: Option<String>,
    /// `classic`, `consumer` or another, where the cluster tells (3.7 and later).
    pub kind: Option<String>,
    /// `consumer`, `connect` or another; empty where only offsets were committed.
    pub protocol_type: String,
    /// Its coordinator.
    pub coordinator: i32,
}

/// A group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Name.
    pub id: String,
    /// Such as `Stable` or `Empty`.
    pub state: String,
    /// `classic`, or `consumer` for KIP-848.
    pub kind: &'static str,
    /// `consumer`, `connect` or another; empty where only offsets were committed.
    pub protocol_type: String,
    /// How partitions are shared out.
    pub assignor: String,
    /// Broker that coordinates it.
    pub coordinator: i32,
    /// Members.
    pub members: Vec<GroupMember>,
}

/// A member.
#[derive(Clone, Debug)]
pub struct GroupMember {
    /// Id.
    pub id: String,
    /// Name of a static member.
    pub instance_id: Option<String>,
    /// Client id.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// Partitions it has.
    pub assignment: Vec<TopicPartition>,
}

impl Cluster {
    /// Groups of all brokers, by name.
    pub async fn groups(&mut self) -> Result<Vec<ListedGroup>> {
        let deadline = self.deadline();
        let nodes: Vec<i32> = self.description.nodes.keys().copied().collect();
        let mut groups = Vec::new();
        for node in nodes {
            let request = ListGroupsRequest::default();
            let response = loop {
                let response = self.call(To::Node(node), &request, 0..=5, deadline).await?;
                match Refused::check(response.error_code, None) {
                    Ok(()) => break response,
                    Err(refused) => {
                        let what = format_args!("listing the groups of broker {node}");
                        self.pause(&refused, deadline, what).await?;
                    }
                }
            };
            let told = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            groups.extend(response.groups.iter().map(|group| ListedGroup {
                id: group.group_id.to_string(),
                state: told(&group.group_state),
                kind: told(&group.group_type),
                protocol_type: group.protocol_type.to_string(),
                coordinator: node,
            }));
        }
        groups.sort();
        Ok(groups)
    }

    /// A group; `None` if there is none of that name.
    pub async fn group(&mut self, id: &str) -> Result<Option<Group>> {
        let deadline = self.deadline();
        let what = format!("describing group `{id}`");
        loop {
            let coordinator = self.coordinator(id, deadline).await?;
            let described = match self.group_of_kip_848(id, coordinator, deadline).await? {
                // Of another kind, or there is none.
                Err(refused) if refused.code == ErrorCode::GroupIdNotFound => {
                    self.classic_group(id, coordinator, deadline).await?
                }
                described => described,
            };
            match described {
                Ok(group) => return Ok(Some(group)),
                Err(refused) if refused.code == ErrorCode::GroupIdNotFound => return Ok(None),
                Err(refused) => self.pause(&refused, deadline, &what).await?,
            }
        }
    }

    async fn group_of_kip_848(
        &mut self,
        id: &str,
        coordinator: i32,
        deadline: tokio::time::Instant,
    ) -> Result<Result<Group, Refused>> {
        let none = Refused { code: ErrorCode::GroupIdNotFound, message: None };
        if !self.connection(To::Node(coordinator), deadline).await?.serves(ApiKey::ConsumerGroupDescribe) {
            return Ok(Err(none));
        }
        let request =
            ConsumerGroupDescribeRequest { group_ids: vec![id.into()], include_authorized_operations: false };
        let response = self.call(To::Node(coordinator), &request, 0..=1, deadline).await?;
        let Some(group) = response.groups.first() else { return Ok(Err(none)) };
        match Refused::check(group.error_code, group.error_message.as_deref()) {
            Ok(()) => Ok(Ok(of_kip_848(group, coordinator))),
            // The broker has the request and does not serve such groups.
            Err(refused) if refused.code == ErrorCode::UnsupportedVersion => Ok(Err(none)),
            Err(refused) => Ok(Err(refused)),
        }
    }

    async fn classic_group(
        &mut self,
        id: &str,
        coordinator: i32,
        deadline: tokio::time::Instant,
    ) -> Result<Result<Group, Refused>> {
        let request = DescribeGroupsRequest { groups: vec![id.into()], include_authorized_operations: false };
        let response = self.call(To::Node(coordinator), &request, 0..=6, deadline).await?;
        let group = response.groups.first();
        let group = group.ok_or_else(|| Error::fatal(format!("describing group `{id}`: no answer")))?;
        if let Err(refused) = Refused::check(group.error_code, group.error_message.as_deref()) {
            return Ok(Err(refused));
        }
        // Until version 6 one that does not exist is dead.
        if &*group.group_state == "Dead" {
            return Ok(Err(Refused { code: ErrorCode::GroupIdNotFound, message: None }));
        }
        Ok(classic(group, coordinator))
    }

    /// Deletes groups without members; each with its outcome.
    pub async fn delete_group(&mut self, id: &str) -> Result<Result<(), Refused>> {
        let deadline = self.deadline();
        let request = DeleteGroupsRequest { groups_names: vec![id.into()] };
        loop {
            let response = self.call(To::Coordinator(id), &request, 0..=2, deadline).await?;
            let result = response.results.first();
            let result = result.ok_or_else(|| Error::fatal(format!("deleting group `{id}`: no answer")))?;
            match Refused::check(result.error_code, None) {
                Err(refused) if is_moving(refused.code) => {
                    self.pause(&refused, deadline, format_args!("deleting group `{id}`")).await?;
                }
                outcome => return Ok(outcome),
            }
        }
    }
}

fn classic(group: &DescribedGroup, coordinator: i32) -> Result<Group, Refused> {
    let is_consumer = &*group.protocol_type == "consumer";
    let member = |member: &aqueduct_wire::messages::DescribedGroupMember| {
        let bytes = &member.member_assignment;
        // Other protocols have bytes of their own; those of a member that just came are empty.
        let assignment = (is_consumer && !bytes.is_empty())
            .then(|| ConsumerProtocolAssignment::from_versioned(bytes.clone()).ok())
            .flatten();
        let topics = assignment.map(|assignment| assignment.assigned_partitions).unwrap_or_default();
        GroupMember {
            id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
            client_id: member.client_id.to_string(),
            host: member.client_host.trim_start_matches('/').to_owned(),
            assignment: partitions(topics.iter().map(|topic| (&*topic.topic, topic.partitions.as_slice()))),
        }
    };
    Ok(Group {
        id: group.group_id.to_string(),
        state: group.group_state.to_string(),
        kind: "classic",
        protocol_type: group.protocol_type.to_string(),
        assignor: group.protocol_data.to_string(),
        coordinator,
        members: group.members.iter().map(member).collect(),
    })
}

fn of_kip_848(group: &ConsumerGroupDescribeGroup, coordinator: i32) -> Group {
    let member = |member: &aqueduct_wire::messages::ConsumerGroupDescribeMember| GroupMember {
        id: member.member_id.to_string(),
        instance_id: member.instance_id.as_ref().map(ToString::to_string),
        client_id: member.client_id.to_string(),
        host: member.client_host.trim_start_matches('/').to_owned(),
        assignment: partitions(
            member.assignment.topic_partitions.iter().map(|t| (&*t.topic_name, t.partitions.as_slice())),
        ),
    };
    Group {
        id: group.group_id.to_string(),
        state: group.group_state.to_string(),
        kind: "consumer",
        protocol_type: "consumer".to_owned(),
        assignor: group.assignor_name.to_string(),
        coordinator,
        members: group.members.iter().map(member).collect(),
    }
}

fn partitions<'a>(topics: impl Iterator<Item = (&'a str, &'a [i32])>) -> Vec<TopicPartition> {
    let mut all = Vec::new();
    for (name, partitions) in topics {
        let topic = Topic::from(name);
        all.extend(partitions.iter().map(|p| TopicPartition { topic: Topic::clone(&topic), partition: *p }));
    }
    all.sort();
    all
}
