//! Pipeline files as a set: each planned, and no two under one name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aqueduct_core::component::Registry;
use aqueduct_pipeline::{Components, Finding, Mode, Plan};
use aqueduct_runtime::{ConnectorPlan, FrameworkConfig, PipelinePlan, ReferenceResolver, TopicPlan};

/// Largest `max.message.bytes` that pipeline topics get unless their file says otherwise.
const MAX_MESSAGE_BYTES: &str = "16777216";

/// Plans and findings of all files.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) plans: Vec<Plan>,
    pub(crate) findings: Vec<Finding>,
}

/// Plans every file. Blocking: it reads files and builds steps.
pub(crate) fn plan(files: &[PathBuf], registry: &Registry, mode: Mode) -> Outcome {
    let (source_keys, sink_keys) = (FrameworkConfig::source_keys(), FrameworkConfig::sink_keys());
    let resolver = ReferenceResolver::trusted();
    let components =
        Components { registry, source_keys: &source_keys, sink_keys: &sink_keys, resolver: &resolver };
    let mut outcome = Outcome { plans: Vec::new(), findings: Vec::new() };
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    for file in files {
        match aqueduct_pipeline::load(file, components, mode) {
            Err(findings) => outcome.findings.extend(findings),
            Ok(plan) => match names.insert(plan.pipeline.clone(), file.clone()) {
                Some(first) => {
                    let text =
                        format!("the pipeline `{}` stands in `{}`, too", plan.pipeline, first.display());
                    outcome.findings.push(Finding::of_file(file, text));
                }
                None => outcome.plans.push(plan),
            },
        }
    }
    outcome
}

/// As the runtime takes it.
pub(crate) fn for_runtime(plan: &Plan) -> PipelinePlan {
    let mut config = plan.topic_config.clone();
    config.entry("max.message.bytes".into()).or_insert_with(|| MAX_MESSAGE_BYTES.into());
    let topic = |name: &String| TopicPlan {
        name: name.clone(),
        partitions: plan.partitions.unwrap_or(-1),
        replication_factor: plan.replication.map_or(-1, i32::from),
        config: config.clone(),
    };
    let connectors = plan.connectors.iter();
    let connectors = connectors
        .map(|connector| ConnectorPlan { name: connector.name.clone(), config: connector.config.clone() });
    PipelinePlan {
        name: plan.pipeline.clone(),
        topics: plan.topics.iter().map(topic).collect(),
        connectors: connectors.collect(),
    }
}
