//! `aqueduct groups reset-offsets`: what would change, and with `--yes` the change.

use std::collections::BTreeSet;

use aqueduct_client::OffsetQuery;
use aqueduct_core::sink::{Offsets, TopicPartition};
use serde_json::json;

use super::super::table::{Table, or_dash};
use super::super::{Session, print, print_json, refusal};
use super::chosen_partitions;
use crate::args::kafka::ResetOffsets;
use crate::failure::Failure;

pub(super) async fn reset(session: &mut Session, args: &ResetOffsets) -> Result<(), Failure> {
    let name = &args.group;
    // A group that does not exist yet may be given offsets, to begin from.
    if let Some(group) = session.cluster.group(name).await?
        && !group.members.is_empty()
    {
        return Err(Failure::failed(format!(
            "group `{name}` is {} with {} members, which would go on from where they are; stop them first",
            group.state,
            group.members.len()
        )));
    }
    let committed = session.cluster.committed(name).await?;
    let partitions = partitions(session, args, &committed).await?;
    let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
    let places = args.to.resolve(&mut session.cluster, &partitions, OffsetQuery::End).await?;
    let offsets: Offsets = places.iter().map(|(tp, place)| (tp.clone(), place.offset)).collect();
    let done = match args.yes {
        true => session.cluster.commit(name, &offsets).await?,
        false => Default::default(),
    };
    let mut failed = Vec::new();
    let mut table = Table::new(&["TOPIC", "PARTITION", "COMMITTED", "NEW", "FIRST", "END"]);
    let mut documents = Vec::new();
    for (tp, place) in &places {
        if place.wish != place.offset {
            let (first, end) = (place.first, place.end);
            eprintln!(
                "warning: `{tp}` has the offsets {first} to {end}, not {}: {} it is",
                place.wish, place.offset
            );
        }
        let refused = done.get(tp).and_then(|outcome| outcome.as_ref().err());
        failed.extend(refused.map(|refused| format!("`{tp}`: {refused}")));
        let old = committed.get(tp);
        let numbers = [place.offset, place.first, place.end].map(|number| number.to_string());
        table.row([tp.topic.to_string(), tp.partition.to_string(), or_dash(old)].into_iter().chain(numbers));
        documents.push(json!({
            "topic": &*tp.topic,
            "partition": tp.partition,
            "committed_offset": old,
            "new_offset": place.offset,
            "first_offset": place.first,
            "end_offset": place.end,
            "error": refused.map(refusal),
        }));
    }
    if session.json {
        print_json(&json!({ "group": name, "changed": args.yes, "partitions": documents }))?;
    } else {
        print(&table.text())?;
        if !args.yes {
            eprintln!("nothing was changed; say --yes to do it");
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::failed(failed.join("\nerror: "))) }
}

async fn partitions(
    session: &mut Session,
    args: &ResetOffsets,
    committed: &Offsets,
) -> Result<BTreeSet<TopicPartition>, Failure> {
    if !args.all_topics {
        return chosen_partitions(session, &args.topic).await;
    }
    if committed.is_empty() {
        return Err(Failure::failed(format!(
            "group `{}` has committed nothing; name the topics with --topic",
            args.group
        )));
    }
    let names: BTreeSet<String> = committed.keys().map(|tp| tp.topic.to_string()).collect();
    let names: Vec<String> = names.into_iter().collect();
    let mut there = BTreeSet::new();
    for (name, topic) in session.cluster.topics_named(&names).await? {
        match topic {
            Ok(topic) => there.extend(topic.each().filter(|tp| committed.contains_key(tp))),
            Err(refused) => eprintln!("warning: topic `{name}` is left out: {refused}"),
        }
    }
    Ok(there)
}
