//! What is printed at the start: where everything is, and what flows from where to where.

use std::net::SocketAddr;
use std::path::Path;

use aqueduct_core::component::Registry;
use aqueduct_core::config::{ConfigType, Importance};
use aqueduct_pipeline::{ConnectorPlan, Kind, Plan};
use serde_json::json;

/// Where things are.
pub(crate) struct Places<'a> {
    pub(crate) kafka: SocketAddr,
    pub(crate) rest: SocketAddr,
    pub(crate) data: &'a Path,
}

/// For people.
pub(crate) fn text(places: &Places<'_>, plans: &[Plan], registry: &Registry) -> Vec<String> {
    let mut lines = vec![
        format!("aqueduct {}", env!("CARGO_PKG_VERSION")),
        format!("  kafka   {}", places.kafka),
        format!("  rest    http://{}", places.rest),
        format!("  data    {}", places.data.display()),
    ];
    if plans.is_empty() {
        lines.push(format!(
            "  no pipeline given; make connectors with POST http://{}/connectors",
            places.rest
        ));
    }
    for plan in plans {
        lines.push(format!("  pipeline {} ({})", plan.pipeline, plan.file.display()));
        for connector in &plan.connectors {
            let what = match connector.kind {
                Kind::Source => "source",
                Kind::Sink => "sink",
            };
            let class = connector.config.get("connector.class").map_or("", String::as_str);
            let class = class.strip_prefix("sink:").or(class.strip_prefix("source:")).unwrap_or(class);
            lines.push(format!("    {what:<7} {} ({class}) {}", connector.name, place(connector, registry)));
        }
    }
    lines
}

/// The keys that say where a sink writes: its paths, and whatever it requires. References stay references.
fn place(connector: &ConnectorPlan, registry: &Registry) -> String {
    let Ok(component) = registry.connector_of(&connector.config) else { return String::new() };
    let keys = component.spec().config.keys().iter();
    let telling = keys.filter(|key| {
        key.path
            || (key.importance == Importance::High && matches!(key.ty, ConfigType::String | ConfigType::List))
    });
    let shown =
        telling.filter_map(|key| connector.config.get(key.name).map(|text| format!("{}={text}", key.name)));
    shown.collect::<Vec<_>>().join(" ")
}

/// For programs.
pub(crate) fn event(places: &Places<'_>, plans: &[Plan]) -> serde_json::Value {
    let pipelines: Vec<_> = plans
        .iter()
        .map(|plan| {
            let names: Vec<&str> = plan.connectors.iter().map(|connector| connector.name.as_str()).collect();
            json!({ "pipeline": plan.pipeline, "file": plan.file, "connectors": names })
        })
        .collect();
    json!({
        "event": "started",
        "version": env!("CARGO_PKG_VERSION"),
        "kafka": places.kafka.to_string(),
        "rest": format!("http://{}", places.rest),
        "data_dir": places.data,
        "pipelines": pipelines,
    })
}
