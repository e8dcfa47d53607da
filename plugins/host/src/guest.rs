//! One instance of a guest, its limits, and what goes wrong when it is called.
//!
//! **Invariant:** every call has a deadline, and a bound on what it makes the host allocate. After a trap the instance is
//! never entered again.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{Error, Result};
use wasmtime::{Store, StoreLimits, StoreLimitsBuilder, Trap};

use crate::bindings::TransformPlugin;
use crate::bindings::aqueduct::transform::types::{Context, InRecord, Outcome, PluginError, PluginInfo};
use crate::bindings::aqueduct::transform::{logging, types};
use crate::engine::{self, Shared};
use crate::guest_log::{GuestLog, clean};
use crate::module::Module;

/// `configure` may prepare tables.
const CONFIGURE_DEADLINE: Duration = Duration::from_secs(10);

/// A guest's own message is cut to this.
const MESSAGE: usize = 1024;

/// What a guest may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of linear memory.
    pub(crate) memory: usize,
    /// Time for one call.
    pub(crate) deadline: Duration,
}

/// What the host keeps with an instance.
pub(crate) struct State {
    limits: StoreLimits,
    log: GuestLog,
}

impl types::Host for State {}

impl logging::Host for State {
    fn log(&mut self, level: logging::Level, message: String) {
        self.log.line(level, &message);
    }
}

/// What came of a call.
#[derive(Debug)]
pub(crate) enum Called<T> {
    /// The guest answered.
    Answer(T),
    /// The guest reported an error of the whole call.
    Refused(PluginError),
    /// The guest trapped, ran out of something, or answered what cannot be read. The instance is spent.
    Trapped(String),
}

/// A live instance.
pub(crate) struct Guest {
    store: Store<State>,
    plugin: TransformPlugin,
    limits: Limits,
    shared: &'static Shared,
}

impl Guest {
    /// Makes and configures an instance. Errors are of the configuration.
    pub(crate) fn start(
        module: &Arc<Module>,
        config: &str,
        limits: Limits,
        log: GuestLog,
    ) -> Result<(Self, PluginInfo)> {
        let shared = engine::shared()?;
        let wrong = |what: String| Error::bad_config(format!("the plugin `{}` {what}", module.name));
        let store_limits = StoreLimitsBuilder::new()
            .memory_size(limits.memory)
            .memories(32)
            .tables(200)
            .table_elements(1 << 20)
            .instances(200)
            .trap_on_grow_failure(true)
            .build();
        let mut store = Store::new(shared.engine(), State { limits: store_limits, log });
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(engine::ticks(CONFIGURE_DEADLINE));
        store.set_hostcall_fuel(1 << 20);
        let running = shared.run();
        let plugin = module.pre.instantiate(&mut store).map_err(|error| {
            wrong(format!("cannot start: {}", explain(&error, limits, CONFIGURE_DEADLINE)))
        })?;
        let answer = plugin.aqueduct_transform_transformer().call_configure(&mut store, config);
        drop(running);
        let info = match answer {
            Ok(Ok(info)) => info,
            Ok(Err(error)) => {
                return Err(wrong(format!("refuses its configuration: {}", clean(&error.message, MESSAGE))));
            }
            Err(error) => {
                let why = explain(&error, limits, CONFIGURE_DEADLINE);
                return Err(wrong(format!("fails in `configure`: {why}")));
            }
        };
        Ok((Self { store, plugin, limits, shared }, info))
    }

    /// Transforms a batch of that many bytes.
    pub(crate) fn transform(
        &mut self,
        context: Context<'_>,
        batch: &[InRecord<'_>],
        bytes: usize,
    ) -> Called<Vec<Outcome>> {
        self.store.set_epoch_deadline(engine::ticks(self.limits.deadline));
        self.store.set_hostcall_fuel(bytes.saturating_mul(4).saturating_add(1 << 20));
        let running = self.shared.run();
        let answer =
            self.plugin.aqueduct_transform_transformer().call_transform(&mut self.store, context, batch);
        drop(running);
        match answer {
            Ok(Ok(outcomes)) if outcomes.len() == batch.len() => Called::Answer(outcomes),
            Ok(Ok(outcomes)) => Called::Refused(PluginError {
                message: format!("it answered {} outcomes for {} records", outcomes.len(), batch.len()),
                retriable: false,
            }),
            Ok(Err(error)) => Called::Refused(PluginError {
                message: clean(&error.message, MESSAGE),
                retriable: error.retriable,
            }),
            Err(error) => Called::Trapped(explain(&error, self.limits, self.limits.deadline)),
        }
    }
}

/// Why a call failed, in the words of the settings.
fn explain(error: &wasmtime::Error, limits: Limits, deadline: Duration) -> String {
    if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
        return format!("it ran longer than its deadline of {deadline:?}");
    }
    let cause = clean(&error.root_cause().to_string(), MESSAGE);
    if cause.contains("growing memory") {
        return format!("it needs more than its memory of {} bytes", limits.memory);
    }
    if cause.contains("fuel") {
        return "it answered with far more data than it was given".into();
    }
    cause
}
