//! `aqueduct configs`.

use aqueduct_client::{Cluster, ConfigChange, ConfigEntry, ConfigResource, ResourceKind};
use aqueduct_core::config::did_you_mean;
use aqueduct_wire::ErrorCode;
use serde_json::{Value, json};

use super::table::Table;
use super::{Session, print, print_json};
use crate::args::kafka::{Configs, ConfigsCommand, Kind, Resource};
use crate::failure::Failure;

pub(crate) async fn configs(args: Configs) -> Result<(), Failure> {
    let mut session = Session::connect(&args.cluster).await?;
    match args.command {
        ConfigsCommand::Describe { of, keys, changed, docs } => {
            let resource = resource(&mut session, &of).await?;
            describe(&mut session, &resource, &keys, changed, docs).await
        }
        ConfigsCommand::Set { of, changes, dry_run } => {
            let changes: Vec<_> =
                changes.into_iter().map(|(key, value)| ConfigChange::Set(key, value)).collect();
            change(&mut session, &of, &changes, dry_run).await
        }
        ConfigsCommand::Unset { of, keys, dry_run } => {
            let changes: Vec<_> = keys.into_iter().map(ConfigChange::Unset).collect();
            change(&mut session, &of, &changes, dry_run).await
        }
    }
}

async fn resource(session: &mut Session, of: &Resource) -> Result<ConfigResource, Failure> {
    let kind = match of.kind {
        Kind::Topic => ResourceKind::Topic,
        Kind::Broker => ResourceKind::Broker,
        Kind::Group => ResourceKind::Group,
    };
    let name = match (kind, of.name.as_str()) {
        (ResourceKind::Broker, "default") => String::new(),
        (ResourceKind::Broker, id) if id.parse::<i32>().is_err() => {
            return Err(Failure::usage(format!(
                "`{id}` is no broker id; write a number, or `default` for all brokers"
            )));
        }
        (ResourceKind::Topic, name) => session.topic(name).await?.name,
        (_, name) => name.to_owned(),
    };
    Ok(ConfigResource { kind, name })
}

async fn describe(
    session: &mut Session,
    resource: &ConfigResource,
    keys: &[String],
    changed: bool,
    docs: bool,
) -> Result<(), Failure> {
    let entries = session.cluster.configs(resource, docs).await?;
    let mut entries =
        entries.map_err(|refused| Failure::failed(format!("settings of {resource}: {refused}")))?;
    for key in keys {
        if !entries.iter().any(|entry| entry.name == *key) {
            return Err(Failure::failed(unknown_key(resource, key, &entries)));
        }
    }
    entries.retain(|entry| {
        (keys.is_empty() || keys.contains(&entry.name)) && (!changed || entry.source.is_own(resource.kind))
    });
    if session.json {
        return print_json(&entries.iter().map(document).collect());
    }
    let mut table = Table::new(&["KEY", "VALUE", "SOURCE", "READ-ONLY"]);
    for entry in &entries {
        table.row([
            entry.name.clone(),
            shown(entry),
            entry.source.name().to_owned(),
            if entry.read_only { "yes".to_owned() } else { String::new() },
        ]);
    }
    if !docs {
        return print(&table.text());
    }
    let mut text = String::new();
    for entry in &entries {
        text.push_str(&format!("{}={} ({})\n", entry.name, shown(entry), entry.source.name()));
        for synonym in entry.synonyms.iter().skip(1) {
            let value = synonym.value.as_deref().unwrap_or("[hidden]");
            text.push_str(&format!("    else {}={value} ({})\n", synonym.name, synonym.source.name()));
        }
        if let Some(documentation) = &entry.documentation {
            text.push_str(&format!("    {documentation}\n"));
        }
    }
    print(&text)
}

fn shown(entry: &ConfigEntry) -> String {
    match (&entry.value, entry.sensitive) {
        (Some(value), _) => value.clone(),
        (None, true) => "[hidden]".to_owned(),
        (None, false) => "-".to_owned(),
    }
}

fn document(entry: &ConfigEntry) -> Value {
    let synonym = |synonym: &aqueduct_client::ConfigSynonym| json!({ "key": synonym.name, "value": synonym.value, "source": synonym.source.name() });
    let mut document = json!({
        "key": entry.name,
        "value": entry.value,
        "source": entry.source.name(),
        "default": entry.source.is_default(),
        "sensitive": entry.sensitive,
        "read_only": entry.read_only,
        "synonyms": entry.synonyms.iter().map(synonym).collect::<Vec<_>>(),
    });
    if let Some(documentation) = &entry.documentation {
        document["documentation"] = json!(documentation);
    }
    document
}

fn unknown_key(resource: &ConfigResource, key: &str, entries: &[ConfigEntry]) -> String {
    match did_you_mean(key, entries.iter().map(|entry| entry.name.as_str())) {
        Some(near) => format!("{resource} has no setting `{key}`; did you mean `{near}`?"),
        None => format!("{resource} has no setting `{key}`; `aqueduct configs describe` lists them"),
    }
}

async fn change(
    session: &mut Session,
    of: &Resource,
    changes: &[ConfigChange],
    dry_run: bool,
) -> Result<(), Failure> {
    let resource = resource(session, of).await?;
    apply(&mut session.cluster, &resource, changes, dry_run).await?;
    if session.json {
        return print_json(&json!({
            "kind": resource.kind.name(),
            "name": of.name,
            "changed": !dry_run,
        }));
    }
    let done = if dry_run { "would change" } else { "changed" };
    let keys: Vec<&str> = changes
        .iter()
        .map(|change| match change {
            ConfigChange::Set(key, _) | ConfigChange::Unset(key) => key.as_str(),
        })
        .collect();
    print(&format!("{done} `{}` of {resource}\n", keys.join("`, `")))
}

/// Makes the changes; an error names the nearest key where one is not known.
pub(super) async fn apply(
    cluster: &mut Cluster,
    resource: &ConfigResource,
    changes: &[ConfigChange],
    validate_only: bool,
) -> Result<(), Failure> {
    let Err(refused) = cluster.alter_configs(resource, changes, validate_only).await? else { return Ok(()) };
    let mut text = format!("settings of {resource}: {refused}");
    if refused.code == ErrorCode::InvalidConfig
        && let Ok(entries) = cluster.configs(resource, false).await?
    {
        for change in changes {
            let (ConfigChange::Set(key, _) | ConfigChange::Unset(key)) = change;
            if !entries.iter().any(|entry| entry.name == *key) {
                text = unknown_key(resource, key, &entries);
            }
        }
    }
    Err(Failure::failed(text))
}
