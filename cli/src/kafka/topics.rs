//! `aqueduct topics`.

use std::collections::BTreeMap;

use aqueduct_client::{
    ConfigChange, ConfigEntry, ConfigResource, NewTopic, OffsetQuery, Refused, ResourceKind, TopicInfo,
};
use aqueduct_core::sink::{Offsets, TopicPartition};
use aqueduct_wire::ErrorCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::position::{Place, Position, date};
use super::table::{Table, list, or_dash};
use super::{Session, chosen, confirm, print, print_json, report};
use crate::args::kafka::{AlterTopic, CreateTopics, Sure, Topics, TopicsCommand, TrimTopic};
use crate::failure::Failure;

pub(crate) async fn topics(args: Topics) -> Result<(), Failure> {
    let mut session = Session::connect(&args.cluster).await?;
    match args.command {
        TopicsCommand::Ls { pattern, internal } => ls(&mut session, pattern.as_deref(), internal).await,
        TopicsCommand::Describe { topics } => describe(&mut session, &topics).await,
        TopicsCommand::Create(create_topics) => create(&mut session, &create_topics).await,
        TopicsCommand::Alter(change) => alter(&mut session, &change).await,
        TopicsCommand::Delete { topics, sure } => delete(&mut session, &topics, sure).await,
        TopicsCommand::Trim(what) => trim(&mut session, &what).await,
        TopicsCommand::Offsets { topics, at } => offsets(&mut session, &topics, at).await,
    }
}

/// An expression for whole names.
pub(super) fn whole(pattern: &str) -> Result<regex::Regex, Failure> {
    regex::Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|error| Failure::usage(format!("`{pattern}` is no regular expression: {error}")))
}

async fn ls(session: &mut Session, pattern: Option<&str>, internal: bool) -> Result<(), Failure> {
    let pattern = pattern.map(whole).transpose()?;
    let mut topics = session.cluster.topics().await?;
    topics.retain(|topic| {
        (internal || !topic.internal) && pattern.as_ref().is_none_or(|pattern| pattern.is_match(&topic.name))
    });
    if session.json {
        let each = topics.iter().map(|topic| {
            json!({
                "topic": topic.name,
                "id": topic.id.map(|id| URL_SAFE_NO_PAD.encode(id.as_bytes())),
                "partitions": topic.partitions.len(),
                "replicas": topic.replication_factor(),
                "internal": topic.internal,
            })
        });
        return print_json(&each.collect());
    }
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "REPLICAS"]);
    for topic in &topics {
        let numbers = [topic.partitions.len(), topic.replication_factor()];
        table.row(std::iter::once(topic.name.clone()).chain(numbers.map(|number| number.to_string())));
    }
    print(&table.text())
}

async fn describe(session: &mut Session, names: &[String]) -> Result<(), Failure> {
    let mut documents = Vec::new();
    for (at, topic) in session.topics(names).await?.iter().enumerate() {
        let resource = ConfigResource { kind: ResourceKind::Topic, name: topic.name.clone() };
        let configs = session.cluster.configs(&resource, false).await?;
        let configs =
            configs.map_err(|refused| Failure::failed(format!("settings of {resource}: {refused}")))?;
        let own: Vec<ConfigEntry> =
            configs.into_iter().filter(|entry| entry.source.is_own(ResourceKind::Topic)).collect();
        let led: Vec<TopicPartition> = topic
            .each()
            .zip(&topic.partitions)
            .filter(|(_, p)| p.leader.is_some())
            .map(|(tp, _)| tp)
            .collect();
        // One that is offline has no offsets, and is shown all the same.
        let first = session.cluster.offsets(&led, OffsetQuery::First).await?;
        let end = session.cluster.offsets(&led, OffsetQuery::End).await?;
        let known = |tp: &TopicPartition| {
            let offset = |of: &BTreeMap<TopicPartition, _>| match of.get(tp) {
                Some(Ok(aqueduct_client::Found { offset, .. })) => *offset,
                _ => None,
            };
            (offset(&first), offset(&end))
        };
        if session.json {
            documents.push(document(topic, &own, known));
        } else {
            let gap = if at > 0 { "\n" } else { "" };
            print(&format!("{gap}{}", page(topic, &own, known)))?;
        }
    }
    if session.json { print_json(&Value::Array(documents)) } else { Ok(()) }
}

type Ends = (Option<i64>, Option<i64>);

fn document(topic: &TopicInfo, own: &[ConfigEntry], ends: impl Fn(&TopicPartition) -> Ends) -> Value {
    let partition = |(tp, p): (TopicPartition, &aqueduct_client::PartitionInfo)| {
        let (first, end) = ends(&tp);
        json!({
            "partition": p.partition,
            "leader": p.leader,
            "leader_epoch": p.leader_epoch,
            "replicas": p.replicas,
            "isr": p.isr,
            "offline": p.offline,
            "error": p.error.as_ref().map(super::refusal),
            "first_offset": first,
            "end_offset": end,
        })
    };
    let partitions: Vec<Value> = topic.each().zip(&topic.partitions).map(partition).collect();
    let configs = own.iter().map(|entry| (entry.name.clone(), json!(entry.value)));
    json!({
        "topic": topic.name,
        "id": topic.id.map(|id| URL_SAFE_NO_PAD.encode(id.as_bytes())),
        "internal": topic.internal,
        "replicas": topic.replication_factor(),
        "configs": configs.collect::<serde_json::Map<_, _>>(),
        "partitions": partitions,
    })
}

fn page(topic: &TopicInfo, own: &[ConfigEntry], ends: impl Fn(&TopicPartition) -> Ends) -> String {
    let mut text = format!("topic       {}\n", topic.name);
    if let Some(id) = topic.id {
        text.push_str(&format!("id          {}\n", URL_SAFE_NO_PAD.encode(id.as_bytes())));
    }
    text.push_str(&format!("partitions  {}\n", topic.partitions.len()));
    text.push_str(&format!("replicas    {}\n", topic.replication_factor()));
    for (at, entry) in own.iter().enumerate() {
        let title = if at == 0 { "settings" } else { "" };
        text.push_str(&format!(
            "{title:<10}  {}={}\n",
            entry.name,
            entry.value.as_deref().unwrap_or("[hidden]")
        ));
    }
    let mut table = Table::new(&[
        "PARTITION",
        "LEADER",
        "EPOCH",
        "REPLICAS",
        "IN-SYNC",
        "FIRST",
        "END",
        "OFFSETS",
        "ERROR",
    ]);
    for (tp, p) in topic.each().zip(&topic.partitions) {
        let (first, end) = ends(&tp);
        table.row([
            p.partition.to_string(),
            or_dash(p.leader),
            or_dash(p.leader_epoch),
            list(&p.replicas),
            list(&p.isr),
            or_dash(first),
            or_dash(end),
            or_dash(first.zip(end).map(|(first, end)| end - first)),
            p.error.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    text.push('\n');
    text.push_str(&table.text());
    text
}

async fn create(session: &mut Session, args: &CreateTopics) -> Result<(), Failure> {
    let config: BTreeMap<String, String> = args.config.iter().cloned().collect();
    let new = |name: &String| NewTopic {
        name: name.clone(),
        partitions: args.partitions.unwrap_or(-1),
        replication_factor: args.replicas.map_or(-1, i32::from),
        config: config.clone(),
    };
    let topics: Vec<NewTopic> = args.topics.iter().map(new).collect();
    let made = session.cluster.create(&topics, args.dry_run).await?;
    let outcomes = made.into_iter().map(|(name, made)| {
        let outcome = match made {
            Ok(made) => Ok(json!({
                "created": !args.dry_run,
                "id": made.id.map(|id| URL_SAFE_NO_PAD.encode(id.as_bytes())),
                "partitions": made.partitions,
                "replicas": made.replication_factor,
            })),
            Err(refused) if args.if_not_exists && refused.code == ErrorCode::TopicAlreadyExists => {
                Ok(json!({ "created": false }))
            }
            Err(refused) => Err(refused),
        };
        (name, outcome)
    });
    let done = match (args.dry_run, args.if_not_exists) {
        (true, _) => "would create",
        (false, true) => "there is",
        (false, false) => "created",
    };
    report(session.json, "topic", done, outcomes.collect())
}

async fn alter(session: &mut Session, args: &AlterTopic) -> Result<(), Failure> {
    let topic = session.topic(&args.topic).await?;
    let resource = ConfigResource { kind: ResourceKind::Topic, name: topic.name.clone() };
    let set = args.set.iter().map(|(key, value)| ConfigChange::Set(key.clone(), value.clone()));
    let changes: Vec<ConfigChange> = set.chain(args.unset.iter().cloned().map(ConfigChange::Unset)).collect();
    // Both parts are tried first, so that not the one is done and the other refused.
    let tries = if args.dry_run { &[true][..] } else { &[true, false][..] };
    for validate_only in tries {
        if !changes.is_empty() {
            super::configs::apply(&mut session.cluster, &resource, &changes, *validate_only).await?;
        }
        if let Some(partitions) = args.partitions {
            session.cluster.grow(&topic.name, partitions, *validate_only).await?;
        }
    }
    let done = if args.dry_run { "would change" } else { "changed" };
    let outcome = json!({
        "changed": !args.dry_run,
        "partitions": args.partitions.map_or(topic.partitions.len() as i64, i64::from),
    });
    report(session.json, "topic", done, vec![(topic.name, Ok(outcome))])
}

async fn delete(session: &mut Session, names: &[String], sure: Sure) -> Result<(), Failure> {
    let topics = session.topics(names).await?;
    let quoted: Vec<String> = topics.iter().map(|topic| format!("`{}`", topic.name)).collect();
    confirm(sure, &format!("delete {} and everything in it", quoted.join(", ")))?;
    let deleted = session.cluster.delete(names).await?;
    let outcomes =
        deleted.into_iter().map(|(name, outcome)| (name, outcome.map(|()| json!({ "deleted": true }))));
    report(session.json, "topic", "deleted", outcomes.collect())
}

async fn trim(session: &mut Session, args: &TrimTopic) -> Result<(), Failure> {
    let topic = session.topic(&args.topic).await?;
    let partitions = chosen(&topic, &args.partition)?;
    let places = args.before.resolve(&mut session.cluster, &partitions, OffsetQuery::End).await?;
    let mut before = Offsets::new();
    let mut count = 0;
    for (tp, place) in &places {
        if place.wish > place.end {
            return Err(Failure::failed(format!(
                "partition `{tp}` ends at offset {}, before {}",
                place.end, place.wish
            )));
        }
        if place.offset > place.first {
            count += place.offset - place.first;
            before.insert(tp.clone(), place.offset);
        }
    }
    if !before.is_empty() {
        confirm(
            args.sure,
            &format!("delete {count} offsets of `{}` in {} partitions", topic.name, before.len()),
        )?;
    }
    let mut done = session.cluster.delete_records(&before).await?;
    let firsts = places.into_iter().map(|(tp, place)| {
        let first = done.remove(&tp).unwrap_or(Ok(place.first));
        (tp, place, first)
    });
    trimmed(session.json, firsts.collect())
}

type Trimmed = Vec<(TopicPartition, Place, Result<i64, Refused>)>;

fn trimmed(json: bool, partitions: Trimmed) -> Result<(), Failure> {
    let mut failed = Vec::new();
    let mut documents = Vec::new();
    let mut table = Table::new(&["PARTITION", "FIRST BEFORE", "FIRST", "END"]);
    for (tp, place, first) in partitions {
        if let Err(refused) = &first {
            failed.push(format!("partition `{tp}`: {refused}"));
        }
        let now = first.as_ref().ok();
        table.row([tp.partition.to_string(), place.first.to_string(), or_dash(now), place.end.to_string()]);
        documents.push(json!({
            "topic": &*tp.topic,
            "partition": tp.partition,
            "first_offset_before": place.first,
            "first_offset": now,
            "end_offset": place.end,
            "error": first.as_ref().err().map(super::refusal),
        }));
    }
    if json {
        print_json(&Value::Array(documents))?
    } else {
        print(&table.text())?
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::failed(failed.join("\nerror: "))) }
}

async fn offsets(session: &mut Session, names: &[String], at: Option<Position>) -> Result<(), Failure> {
    let topics = session.topics(names).await?;
    let partitions: Vec<TopicPartition> = topics.iter().flat_map(TopicInfo::each).collect();
    let places = Position::End.resolve(&mut session.cluster, &partitions, OffsetQuery::End).await?;
    let at_time = match at {
        Some(Position::Time(time)) => {
            Some(session.cluster.all_offsets(&partitions, OffsetQuery::At(time)).await?)
        }
        _ => None,
    };
    let mut table = match at_time {
        Some(_) => Table::new(&["TOPIC", "PARTITION", "FIRST", "END", "OFFSETS", "AT TIME", "TIME"]),
        None => Table::new(&["TOPIC", "PARTITION", "FIRST", "END", "OFFSETS"]),
    };
    let mut documents = Vec::new();
    for (tp, place) in &places {
        let numbers = [i64::from(tp.partition), place.first, place.end, place.end - place.first];
        let mut row = vec![tp.topic.to_string()];
        row.extend(numbers.map(|number| number.to_string()));
        let mut document = json!({
            "topic": &*tp.topic,
            "partition": tp.partition,
            "first_offset": place.first,
            "end_offset": place.end,
        });
        if let Some(found) = at_time.as_ref().and_then(|found| found.get(tp)) {
            row.extend([or_dash(found.offset), or_dash(found.timestamp.map(date))]);
            document["offset_at_time"] = json!(found.offset);
            document["timestamp"] = json!(found.timestamp);
        }
        table.row(row);
        documents.push(document);
    }
    if session.json { print_json(&Value::Array(documents)) } else { print(&table.text()) }
}
