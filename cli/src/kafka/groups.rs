//! `aqueduct groups`.

mod reset;

use std::collections::{BTreeMap, BTreeSet};

use aqueduct_client::{Found, Group, GroupMember, OffsetQuery, Refused};
use aqueduct_core::config::did_you_mean;
use aqueduct_core::sink::{Offsets, TopicPartition};
use serde_json::{Value, json};

use super::table::{Table, or_dash};
use super::{Session, chosen, confirm, print, print_json, report};
use crate::args::kafka::{Groups, GroupsCommand, Sure, TopicChoice};
use crate::failure::Failure;

pub(crate) async fn groups(args: Groups) -> Result<(), Failure> {
    let mut session = Session::connect(&args.cluster).await?;
    match args.command {
        GroupsCommand::Ls => ls(&mut session).await,
        GroupsCommand::Describe { groups } => describe(&mut session, &groups).await,
        GroupsCommand::Delete { groups, sure } => delete(&mut session, &groups, sure).await,
        GroupsCommand::ResetOffsets(args) => reset::reset(&mut session, &args).await,
        GroupsCommand::DeleteOffsets { group, topic, sure } => {
            delete_offsets(&mut session, &group, &topic, sure).await
        }
    }
}

async fn ls(session: &mut Session) -> Result<(), Failure> {
    let groups = session.cluster.groups().await?;
    if session.json {
        let each = groups.iter().map(|group| {
            json!({
                "group": group.id,
                "state": group.state,
                "type": group.kind,
                "protocol_type": group.protocol_type,
                "coordinator": group.coordinator,
            })
        });
        return print_json(&each.collect());
    }
    let mut table = Table::new(&["GROUP", "STATE", "TYPE", "PROTOCOL", "COORDINATOR"]);
    for group in groups {
        let protocol = Some(group.protocol_type).filter(|protocol| !protocol.is_empty());
        table.row([
            group.id,
            or_dash(group.state),
            or_dash(group.kind),
            or_dash(protocol),
            group.coordinator.to_string(),
        ]);
    }
    print(&table.text())
}

/// A group that is there.
async fn existing(session: &mut Session, name: &str) -> Result<Group, Failure> {
    if let Some(group) = session.cluster.group(name).await? {
        return Ok(group);
    }
    Err(Failure::failed(unknown_group(session, name).await?))
}

async fn unknown_group(session: &mut Session, name: &str) -> Result<String, Failure> {
    let known: Vec<String> = session.cluster.groups().await?.into_iter().map(|group| group.id).collect();
    Ok(match did_you_mean(name, known.iter().map(String::as_str)) {
        Some(near) => format!("there is no group `{name}`; did you mean `{near}`?"),
        None => format!("there is no group `{name}`; `aqueduct groups ls` lists those that are"),
    })
}

/// One line of a group's description.
struct Line<'a> {
    tp: TopicPartition,
    committed: Option<i64>,
    end: Result<i64, String>,
    member: Option<&'a GroupMember>,
}

impl Line<'_> {
    fn lag(&self) -> Option<i64> {
        // A commit beyond the end is none.
        Some((*self.end.as_ref().ok()? - self.committed?).max(0))
    }
}

async fn describe(session: &mut Session, names: &[String]) -> Result<(), Failure> {
    let mut documents = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let group = existing(session, name).await?;
        let committed = session.cluster.committed(name).await?;
        let lines = lines(session, &group, &committed).await?;
        if session.json {
            documents.push(document(&group, &lines));
        } else {
            let gap = if at > 0 { "\n" } else { "" };
            print(&format!("{gap}{}", page(&group, &lines)))?;
        }
    }
    if session.json { print_json(&Value::Array(documents)) } else { Ok(()) }
}

async fn lines<'a>(
    session: &mut Session,
    group: &'a Group,
    committed: &Offsets,
) -> Result<Vec<Line<'a>>, Failure> {
    let mut members: BTreeMap<&TopicPartition, &GroupMember> = BTreeMap::new();
    for member in &group.members {
        members.extend(member.assignment.iter().map(|tp| (tp, member)));
    }
    let partitions: BTreeSet<TopicPartition> =
        committed.keys().chain(members.keys().copied()).cloned().collect();
    let mut ends = ends(session, &partitions).await?;
    let each = partitions.into_iter().map(|tp| Line {
        committed: committed.get(&tp).copied(),
        end: ends.remove(&tp).unwrap_or_else(|| Err("the topic is not there".into())),
        member: members.get(&tp).copied(),
        tp,
    });
    Ok(each.collect())
}

/// The ends of those partitions that are still there.
async fn ends(
    session: &mut Session,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Result<i64, String>>, Failure> {
    let names: BTreeSet<String> = partitions.iter().map(|tp| tp.topic.to_string()).collect();
    let names: Vec<String> = names.into_iter().collect();
    let mut ends = BTreeMap::new();
    let mut led = Vec::new();
    for (_, topic) in session.cluster.topics_named(&names).await? {
        let Ok(topic) = topic else { continue };
        for (tp, partition) in topic.each().zip(&topic.partitions) {
            match partition.leader {
                _ if !partitions.contains(&tp) => {}
                Some(_) => led.push(tp),
                None => drop(ends.insert(tp, Err("the partition has no leader".into()))),
            }
        }
    }
    let found = session.cluster.offsets(&led, OffsetQuery::End).await?;
    let end = |found: Result<Found, Refused>| {
        found.map_err(|refused| refused.to_string()).map(|found| found.offset.unwrap_or(0))
    };
    ends.extend(found.into_iter().map(|(tp, found)| (tp, end(found))));
    Ok(ends)
}

fn total_lag(lines: &[Line<'_>]) -> i64 {
    lines.iter().filter_map(Line::lag).sum()
}

fn page(group: &Group, lines: &[Line<'_>]) -> String {
    let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut text = format!("group        {}\n", group.id);
    text.push_str(&format!("state        {}\n", group.state));
    text.push_str(&format!("type         {}\n", group.kind));
    text.push_str(&format!("protocol     {}\n", shown(&group.protocol_type)));
    text.push_str(&format!("assignor     {}\n", shown(&group.assignor)));
    text.push_str(&format!("coordinator  {}\n", group.coordinator));
    text.push_str(&format!("members      {}\n", group.members.len()));
    text.push_str(&format!("lag          {}\n", total_lag(lines)));
    if !lines.is_empty() {
        let header = ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER", "CLIENT", "HOST"];
        let mut table = Table::new(&header);
        for line in lines {
            let member = |of: fn(&GroupMember) -> &str| line.member.map_or("-", of).to_owned();
            table.row([
                line.tp.topic.to_string(),
                line.tp.partition.to_string(),
                or_dash(line.committed),
                or_dash(line.end.as_ref().ok()),
                or_dash(line.lag()),
                member(|member| member.instance_id.as_deref().unwrap_or(&member.id)),
                member(|member| &member.client_id),
                member(|member| &member.host),
            ]);
        }
        text.push_str(&format!("\n{}", table.text()));
    }
    let idle: Vec<&GroupMember> =
        group.members.iter().filter(|member| member.assignment.is_empty()).collect();
    if !idle.is_empty() {
        let mut table = Table::new(&["MEMBER WITHOUT PARTITIONS", "CLIENT", "HOST"]);
        for member in idle {
            table.row([member.id.clone(), member.client_id.clone(), member.host.clone()]);
        }
        text.push_str(&format!("\n{}", table.text()));
    }
    for line in lines {
        if let Err(why) = &line.end {
            text.push_str(&format!("\n`{}`: {why}\n", line.tp));
        }
    }
    text
}

fn document(group: &Group, lines: &[Line<'_>]) -> Value {
    let partition = |tp: &TopicPartition| json!({ "topic": &*tp.topic, "partition": tp.partition });
    let member = |member: &GroupMember| {
        json!({
            "member": member.id,
            "instance": member.instance_id,
            "client_id": member.client_id,
            "host": member.host,
            "partitions": member.assignment.iter().map(partition).collect::<Vec<_>>(),
        })
    };
    let line = |line: &Line<'_>| {
        json!({
            "topic": &*line.tp.topic,
            "partition": line.tp.partition,
            "committed_offset": line.committed,
            "end_offset": line.end.as_ref().ok(),
            "lag": line.lag(),
            "member": line.member.map(|member| &member.id),
            "error": line.end.as_ref().err(),
        })
    };
    json!({
        "group": group.id,
        "state": group.state,
        "type": group.kind,
        "protocol_type": group.protocol_type,
        "assignor": group.assignor,
        "coordinator": group.coordinator,
        "lag": total_lag(lines),
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
        "partitions": lines.iter().map(line).collect::<Vec<_>>(),
    })
}

async fn delete(session: &mut Session, names: &[String], sure: Sure) -> Result<(), Failure> {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    for name in names {
        existing(session, name).await?;
    }
    confirm(sure, &format!("delete {} with all committed offsets", quoted.join(", ")))?;
    let mut outcomes = Vec::new();
    for name in names {
        let deleted = session.cluster.delete_group(name).await?;
        outcomes.push((name.clone(), deleted.map(|()| json!({ "deleted": true }))));
    }
    report(session.json, "group", "deleted", outcomes)
}

/// The partitions that were chosen of topics that are there.
async fn chosen_partitions(
    session: &mut Session,
    choices: &[TopicChoice],
) -> Result<BTreeSet<TopicPartition>, Failure> {
    let mut all = BTreeSet::new();
    for choice in choices {
        let topic = session.topic(&choice.topic).await?;
        all.extend(chosen(&topic, choice.partitions.as_deref().unwrap_or_default())?);
    }
    Ok(all)
}

async fn delete_offsets(
    session: &mut Session,
    name: &str,
    choices: &[TopicChoice],
    sure: Sure,
) -> Result<(), Failure> {
    existing(session, name).await?;
    let committed = session.cluster.committed(name).await?;
    // Also of topics that are gone: their offsets are what one wants to be rid of.
    let is_chosen = |tp: &TopicPartition| {
        choices.iter().any(|choice| {
            choice.topic == *tp.topic
                && choice.partitions.as_ref().is_none_or(|numbers| numbers.contains(&tp.partition))
        })
    };
    let partitions: Vec<TopicPartition> = committed.into_keys().filter(is_chosen).collect();
    if partitions.is_empty() {
        return Err(Failure::failed(format!(
            "group `{name}` has committed nothing for these; `aqueduct groups describe {name}` lists its offsets"
        )));
    }
    confirm(sure, &format!("delete {} committed offsets of `{name}`", partitions.len()))?;
    let deleted = session.cluster.delete_committed(name, &partitions).await?;
    let deleted = deleted.map_err(|refused| Failure::failed(format!("group `{name}`: {refused}")))?;
    let outcomes = deleted
        .into_iter()
        .map(|(tp, outcome)| (tp.to_string(), outcome.map(|()| json!({ "deleted": true }))))
        .collect();
    report(session.json, "partition", "deleted the offset of", outcomes)
}
