//! Starting and stopping a runtime.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_client::{Admin, ClientSettings};
use aqueduct_core::Result;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::RuntimeConfig;
use crate::handle::RuntimeHandle;
use crate::herder::{Command, Herder, Shared};
use crate::store::Stores;

const CLUSTER_WITHIN: Duration = Duration::from_secs(30);

/// A running runtime. End it with [`Runtime::shutdown`].
pub struct Runtime {
    handle: RuntimeHandle,
    herder: JoinHandle<()>,
}

impl Runtime {
    /// Reaches the cluster, opens the stores and starts the connectors they hold; those of pipelines wait for
    /// [`RuntimeHandle::apply`].
    pub async fn start(config: RuntimeConfig) -> Result<Self> {
        let mut settings = ClientSettings::new(&config.bootstrap);
        settings.common.clone_from(&config.client);
        let admin = Admin::new(&settings, &format!("{}-admin", config.group_id))?;
        let cluster_id = admin.cluster_id(CLUSTER_WITHIN).await?;
        let stores = Stores::open(&config, &settings, &admin).await?;
        let shared = Arc::new(Shared::new(config, cluster_id, settings, admin, stores));
        let (commands, queue) = mpsc::channel(64);
        let mut herder = Herder::new(Arc::clone(&shared));
        let herder = tokio::spawn(async move {
            herder.start_stored().await;
            herder.run(queue).await;
        });
        Ok(Self { handle: RuntimeHandle { commands, shared }, herder })
    }

    /// A handle for others.
    pub fn handle(&self) -> RuntimeHandle {
        self.handle.clone()
    }

    /// Stops sources, flushes producers, completes or gives up what sinks hold, commits and leaves the groups. Takes
    /// at most about `deadline`, even with the other systems gone.
    pub async fn shutdown(self, deadline: Duration) {
        let (reply, done) = oneshot::channel();
        let asked = self.handle.commands.send(Command::Shutdown { deadline, reply }).await;
        let patience = deadline + Duration::from_secs(10);
        if asked.is_err() || tokio::time::timeout(patience, done).await.is_err() {
            self.herder.abort();
        }
        drop(self.herder.await);
    }
}
