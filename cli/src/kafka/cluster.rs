//! `aqueduct cluster`.

use aqueduct_wire::ApiKey;
use aqueduct_wire::messages::ApiVersionsResponse;
use serde_json::{Value, json};

use super::table::{Table, or_dash};
use super::{Session, print, print_json};
use crate::args::kafka::{ClusterCommand, ClusterInfo};
use crate::failure::Failure;

pub(crate) async fn cluster(args: ClusterInfo) -> Result<(), Failure> {
    let mut session = Session::connect(&args.cluster).await?;
    let ClusterCommand::Describe { api_versions, broker } = args.command;
    let serves = match broker {
        Some(broker) => session.cluster.api_versions_of(broker).await?.clone(),
        None => session.cluster.api_versions().1.clone(),
    };
    if session.json {
        return print_json(&document(&session, &serves, api_versions));
    }
    let about = session.cluster.description();
    let mut text = format!("cluster     {}\n", about.cluster_id.as_deref().unwrap_or("-"));
    text.push_str(&format!("controller  {}\n", or_dash(about.controller)));
    text.push_str(&format!("brokers     {}\n\n", about.nodes.len()));
    let mut brokers = Table::new(&["BROKER", "HOST", "PORT", "RACK"]);
    for node in about.nodes.values() {
        brokers.row([
            node.id.to_string(),
            node.host.clone(),
            node.port.to_string(),
            or_dash(node.rack.as_ref()),
        ]);
    }
    text.push_str(&brokers.text());
    let mut features = Table::new(&["FEATURE", "LEVEL", "SUPPORTED"]);
    for feature in &serves.supported_features {
        let level = serves.finalized_features.iter().find(|other| other.name == feature.name);
        features.row([
            feature.name.to_string(),
            or_dash(level.map(|level| level.max_version_level)),
            format!("{} to {}", feature.min_version, feature.max_version),
        ]);
    }
    if !features.is_empty() {
        text.push_str(&format!("\n{}", features.text()));
    }
    if api_versions {
        let mut table = Table::new(&["KEY", "REQUEST", "MIN", "MAX"]);
        for api in &serves.api_keys {
            let versions = [api.min_version, api.max_version].map(|version| version.to_string());
            table.row([api.api_key.to_string(), name(api.api_key).to_owned()].into_iter().chain(versions));
        }
        text.push_str(&format!("\n{}", table.text()));
    }
    print(&text)
}

fn document(session: &Session, serves: &ApiVersionsResponse, api_versions: bool) -> Value {
    let about = session.cluster.description();
    let brokers: Vec<Value> = about
        .nodes
        .values()
        .map(|node| json!({ "id": node.id, "host": node.host, "port": node.port, "rack": node.rack }))
        .collect();
    let features: Vec<Value> = serves
        .supported_features
        .iter()
        .map(|feature| {
            let level = serves.finalized_features.iter().find(|other| other.name == feature.name);
            json!({
                "feature": &*feature.name,
                "level": level.map(|level| level.max_version_level),
                "min": feature.min_version,
                "max": feature.max_version,
            })
        })
        .collect();
    let mut document = json!({
        "cluster_id": about.cluster_id,
        "controller": about.controller,
        "brokers": brokers,
        "features": features,
    });
    if api_versions {
        let apis = serves.api_keys.iter().map(|api| {
            json!({ "key": api.api_key, "request": name(api.api_key), "min": api.min_version, "max": api.max_version })
        });
        document["api_versions"] = apis.collect();
    }
    document
}

/// Kafka's name of a request. Those that we speak name themselves.
fn name(key: i16) -> &'static str {
    if let Some(api) = ApiKey::from_code(key) {
        return api.name();
    }
    match key {
        30 => "CreateAcls",
        31 => "DeleteAcls",
        33 => "AlterConfigs",
        34 => "AlterReplicaLogDirs",
        38 => "CreateDelegationToken",
        39 => "RenewDelegationToken",
        40 => "ExpireDelegationToken",
        41 => "DescribeDelegationToken",
        45 => "AlterPartitionReassignments",
        48 => "DescribeClientQuotas",
        49 => "AlterClientQuotas",
        50 => "DescribeUserScramCredentials",
        51 => "AlterUserScramCredentials",
        55 => "DescribeQuorum",
        57 => "UpdateFeatures",
        61 => "DescribeProducers",
        64 => "UnregisterBroker",
        65 => "DescribeTransactions",
        66 => "ListTransactions",
        71 => "GetTelemetrySubscriptions",
        72 => "PushTelemetry",
        74 => "ListConfigResources",
        76 => "ShareGroupHeartbeat",
        77 => "ShareGroupDescribe",
        78 => "ShareFetch",
        79 => "ShareAcknowledge",
        80 => "AddRaftVoter",
        81 => "RemoveRaftVoter",
        83 => "InitializeShareGroupState",
        84 => "ReadShareGroupState",
        85 => "WriteShareGroupState",
        86 => "DeleteShareGroupState",
        87 => "ReadShareGroupStateSummary",
        88 => "StreamsGroupHeartbeat",
        89 => "StreamsGroupDescribe",
        90 => "DescribeShareGroupOffsets",
        91 => "AlterShareGroupOffsets",
        92 => "DeleteShareGroupOffsets",
        _ => "-",
    }
}
