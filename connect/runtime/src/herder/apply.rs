//! Applying pipelines: their connectors become what the files say; those of pipelines not given are stopped.

use std::collections::BTreeMap;

use aqueduct_client::NewTopic;
use aqueduct_core::component::Connector;
use aqueduct_core::config::Problem;

use super::Herder;
use crate::config::{Applied, ConnectorPlan, Origin, PipelinePlan};
use crate::error::RuntimeError;
use crate::framework::MAX_RECORD_BYTES;
use crate::status::TargetState;
use crate::store::{StoredConnector, StoredTarget};
use crate::topics::TopicSettings;

impl Herder {
    pub(super) async fn apply(&mut self, pipelines: Vec<PipelinePlan>) -> Result<Applied, RuntimeError> {
        let planned = self.check_all(&pipelines)?;
        self.create_topics(&pipelines, &planned).await?;
        let mut applied = Applied::default();
        self.stop_absent(&planned, &mut applied).await?;
        // Sources first: their topics exist, and the first records are under way while sinks join.
        let (sources, sinks): (Vec<_>, Vec<_>) = planned.into_iter().partition(|(_, stored)| {
            matches!(self.shared.registry.connector_of(&stored.config), Ok(Connector::Source(_)))
        });
        for (name, stored) in sources.into_iter().chain(sinks) {
            self.apply_one(name, stored, &mut applied).await?;
        }
        Ok(applied)
    }

    /// Everything wrong in all files, before the first change.
    fn check_all(
        &self,
        pipelines: &[PipelinePlan],
    ) -> Result<BTreeMap<String, StoredConnector>, RuntimeError> {
        let mut planned = BTreeMap::new();
        let mut problems = Vec::new();
        for ConnectorPlan { name, config } in pipelines.iter().flat_map(|pipeline| &pipeline.connectors) {
            match self.check(name, config.clone(), Origin::File) {
                Ok(stored) => {
                    if planned.insert(name.clone(), stored).is_some() {
                        problems.push(Problem::new(name, format!("two pipelines make a connector `{name}`")));
                    }
                }
                Err(RuntimeError::Invalid(found)) => {
                    let named =
                        |p: Problem| Problem::new(p.key, format!("connector `{name}`: {}", p.message));
                    problems.extend(found.into_iter().map(named));
                }
                Err(other) => return Err(other),
            }
        }
        if problems.is_empty() { Ok(planned) } else { Err(RuntimeError::Invalid(problems)) }
    }

    async fn create_topics(
        &self,
        pipelines: &[PipelinePlan],
        planned: &BTreeMap<String, StoredConnector>,
    ) -> Result<(), RuntimeError> {
        let mut topics: BTreeMap<String, NewTopic> = BTreeMap::new();
        for plan in pipelines.iter().flat_map(|pipeline| &pipeline.topics) {
            let mut config = plan.config.clone();
            config.entry("max.message.bytes".into()).or_insert_with(|| MAX_RECORD_BYTES.to_string());
            let topic = NewTopic {
                name: plan.name.clone(),
                partitions: plan.partitions,
                replication_factor: plan.replication_factor,
                config,
            };
            topics.insert(plan.name.clone(), topic);
        }
        for stored in planned.values() {
            let (connector, resolved) = self.shared.resolve(stored).map_err(RuntimeError::Invalid)?;
            let Connector::Source(source) = connector else { continue };
            let settings = TopicSettings::from_config(&resolved);
            for name in source.topics(&resolved)? {
                topics.entry(name.clone()).or_insert_with(|| settings.topic(&name));
            }
        }
        let topics: Vec<NewTopic> = topics.into_values().collect();
        Ok(self.shared.topics.ensure_all(&topics).await?)
    }

    async fn stop_absent(
        &mut self,
        planned: &BTreeMap<String, StoredConnector>,
        applied: &mut Applied,
    ) -> Result<(), RuntimeError> {
        for (name, stored) in self.shared.stores.configs.connectors() {
            if planned.contains_key(&name) || !stored.config.contains_key("aqueduct.pipeline") {
                continue;
            }
            let target = self.shared.stores.configs.target(&name);
            if target.state != TargetState::Stopped {
                let target = StoredTarget { state: TargetState::Stopped, by_pipeline: true };
                self.shared.stores.configs.put_target(&name, target).await?;
            }
            // Also shows one that was stopped before.
            self.configure(&name).await;
            applied.stopped.push(name);
        }
        Ok(())
    }

    async fn apply_one(
        &mut self,
        name: String,
        stored: StoredConnector,
        applied: &mut Applied,
    ) -> Result<(), RuntimeError> {
        let before = self.shared.stores.configs.connectors().remove(&name);
        if self.shared.stores.configs.target(&name).by_pipeline {
            self.shared.stores.configs.put_target(&name, StoredTarget::default()).await?;
        }
        let list = match &before {
            None => &mut applied.created,
            Some(before) if before.config == stored.config && before.origin == stored.origin => {
                &mut applied.unchanged
            }
            Some(before) if before.origin == Origin::Rest => &mut applied.overwritten,
            Some(_) => &mut applied.updated,
        };
        list.push(name.clone());
        let unchanged = before.as_ref() == Some(&stored);
        if !unchanged {
            self.store(&name, stored).await?;
        } else if self.herd.get(&name).is_none_or(|connector| connector.tasks.is_empty()) {
            self.configure(&name).await;
        }
        Ok(())
    }
}
