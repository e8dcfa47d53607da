//! The step: batches through a guest, and what happens when it fails.
//!
//! | the guest | what becomes of it |
//! |---|---|
//! | answers `fail` for a record | that record fails |
//! | answers an error for the call | the batch fails, retriable or not |
//! | traps or misses its deadline | a new instance gets the batch record by record; those that trap alone fail |
//! | traps on a batch, but on no record alone | a new instance and a warning: it leaks |
//! | traps on [`Settings::traps`] records in a row | the task stops |
//!
//! **Invariant:** one outcome for each record, in order; a record that fails is handed back as it was.

mod call;
mod outcome;
mod seen;

use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::json::Paths;
use aqueduct_core::transform::{Outcome, Transform};
use aqueduct_core::{Error, FieldPath, Locator, Record, Result, SchemaCache};

use crate::bindings::aqueduct::transform::types::{Context, Outcome as Answer, PluginError};
use crate::guest::{Called, Guest, Limits};
use crate::guest_log::GuestLog;
use crate::module::Module;
use call::Prepared;
use seen::Seen;

/// What the step was configured to do.
pub(crate) struct Settings {
    pub(crate) module: Arc<Module>,
    /// JSON for the guest's `configure`.
    pub(crate) config: String,
    pub(crate) limits: Limits,
    pub(crate) drop_nulls: bool,
    /// Trapping records in a row that stop the task.
    pub(crate) traps: u32,
}

/// What the guest wants to see of each record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    /// `None`: the whole value.
    pub(crate) fields: Option<Vec<FieldPath>>,
    pub(crate) key: bool,
    pub(crate) headers: bool,
    pub(crate) timestamp: bool,
}

/// Where the fields are in values of one schema; `None` for those that are not there.
pub(crate) type Located = Arc<[Option<Locator>]>;

pub(crate) struct WasmStep {
    settings: Settings,
    view: View,
    /// The fields of the view, to be found in text.
    paths: Option<Paths>,
    log: GuestLog,
    /// `None` after a trap, until the next call.
    guest: Option<Guest>,
    located: SchemaCache<Located>,
    /// Records that trapped since the last that did not.
    trapped: u32,
}

/// A record on its way through the step.
enum Slot {
    Waiting(Record, Seen),
    Done(Outcome),
}

impl Transform for WasmStep {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        let mut slots: Vec<Slot> = batch.into_iter().map(|record| self.look(record)).collect();
        let mut from = 0;
        while from < slots.len() {
            let run = same_partition(&slots, from);
            from = run.end.max(from + 1);
            if !run.is_empty() {
                self.transform(&mut slots[run])?;
            }
        }
        let done = slots.into_iter().map(|slot| match slot {
            Slot::Done(outcome) => Ok(outcome),
            Slot::Waiting(..) => Err(Error::fatal("a record was left out by the plugin host")),
        });
        done.collect()
    }

    fn may_block(&self) -> bool {
        true
    }
}

/// The waiting records from `from` on that can go in one call: of one topic and partition, as they follow each other.
fn same_partition(slots: &[Slot], from: usize) -> Range<usize> {
    let Slot::Waiting(first, _) = &slots[from] else { return from..from };
    let same = |slot: &Slot| match slot {
        Slot::Waiting(record, _) => {
            record.partition == first.partition
                && (Arc::ptr_eq(&record.topic, &first.topic) || record.topic == first.topic)
        }
        Slot::Done(_) => false,
    };
    let length = slots[from..].iter().take_while(|slot| same(slot)).count();
    from..from + length
}

impl WasmStep {
    /// A step with its first instance, whose view is `view`.
    pub(crate) fn new(settings: Settings, view: View, guest: Guest, log: GuestLog) -> Self {
        let paths = view.fields.as_deref().and_then(Paths::new);
        Self { settings, view, paths, log, guest: Some(guest), located: SchemaCache::new(), trapped: 0 }
    }

    /// Decides what needs no guest, and decodes for the rest.
    fn look(&mut self, mut record: Record) -> Slot {
        if record.value.is_null() {
            return Slot::Done(if self.settings.drop_nulls { Outcome::Drop } else { Outcome::Keep(record) });
        }
        let Some(fields) = &self.view.fields else { return Slot::Waiting(record, Seen::default()) };
        let schema = record.value.schema().cloned();
        let located = self
            .located
            .get(schema.as_ref(), |schema| Ok(fields.iter().map(|field| field.locate(schema)).collect()));
        let seen =
            located.cloned().and_then(|located| Seen::of(&mut record.value, located, self.paths.as_ref()));
        match seen {
            Ok(seen) => Slot::Waiting(record, seen),
            Err(error) => Slot::Done(Outcome::Fail(record, error)),
        }
    }

    /// Sends waiting records of one partition through the guest.
    fn transform(&mut self, slots: &mut [Slot]) -> Result<()> {
        let trap = match self.call(slots)? {
            Ok(()) => {
                self.trapped = 0;
                return Ok(());
            }
            Err(trap) => trap,
        };
        let mut poison = 0;
        for i in 0..slots.len() {
            let one = &mut slots[i..=i];
            // Preparing the batch may have settled some already.
            if matches!(one[0], Slot::Done(_)) {
                continue;
            }
            match self.call(one)? {
                Ok(()) => self.trapped = 0,
                Err(trap) => {
                    poison += 1;
                    self.poisoned(&mut one[0], &trap)?;
                }
            }
        }
        if poison == 0 {
            let module = &*self.settings.module.name;
            tracing::warn!(
                module,
                "the plugin failed on {} records together, but on none alone: {trap}; it was started again, and what it \
                 kept in memory is lost",
                slots.len()
            );
        }
        Ok(())
    }

    /// One call for these records. The outer error is about the whole batch, the inner one is a trap.
    fn call(&mut self, slots: &mut [Slot]) -> Result<Result<(), String>> {
        let prepared = Prepared::new(&self.view, slots);
        let Some(first) = slots.iter().find_map(|slot| match slot {
            Slot::Waiting(record, _) => Some(record),
            Slot::Done(_) => None,
        }) else {
            return Ok(Ok(()));
        };
        if self.guest.is_none() {
            self.guest = Some(self.restart()?);
        }
        let Some(guest) = &mut self.guest else { return Err(Error::fatal("the plugin has no instance")) };
        let fields = prepared.fields(slots);
        let headers = prepared.headers(slots);
        let records = prepared.records(slots, &fields, &headers);
        let bytes = prepared.bytes(&fields);
        let context = Context { topic: &first.topic, partition: first.partition };
        let called = guest.transform(context, &records, bytes);
        match called {
            Called::Answer(answers) => {
                settle(slots, answers);
                Ok(Ok(()))
            }
            Called::Refused(error) => Err(self.refused(&error)),
            Called::Trapped(why) => {
                self.guest = None;
                Ok(Err(why))
            }
        }
    }

    fn restart(&self) -> Result<Guest> {
        let Settings { module, config, limits, .. } = &self.settings;
        let (guest, info) = Guest::start(module, config, *limits, self.log.clone())?;
        if View::parse(info)? != self.view {
            return Err(Error::fatal(format!(
                "the plugin `{}` asks for other data after a restart than before; make its `configure` repeatable",
                module.name
            )));
        }
        Ok(guest)
    }

    fn refused(&self, error: &PluginError) -> Error {
        let text = format!("the plugin `{}` failed on a batch: {}", self.settings.module.name, error.message);
        if error.retriable { Error::retriable(text) } else { Error::fatal(text) }
    }

    fn poisoned(&mut self, slot: &mut Slot, trap: &str) -> Result<()> {
        self.trapped += 1;
        let module = &self.settings.module.name;
        if self.trapped >= self.settings.traps {
            return Err(Error::fatal(format!(
                "the plugin `{module}` failed on {} records in a row, the last time because {trap}; correct the plugin, \
                 or raise `traps`",
                self.trapped
            )));
        }
        let error = Error::bad_record(format!("the plugin `{module}` failed on this record: {trap}"));
        finish(slot, |record, _| Outcome::Fail(record, error));
        Ok(())
    }
}

fn settle(slots: &mut [Slot], answers: Vec<Answer>) {
    let waiting = slots.iter_mut().filter(|slot| matches!(slot, Slot::Waiting(..)));
    for (slot, answer) in waiting.zip(answers) {
        finish(slot, |record, seen| outcome::of(answer, record, seen));
    }
}

fn finish(slot: &mut Slot, f: impl FnOnce(Record, &Seen) -> Outcome) {
    *slot = match std::mem::replace(slot, Slot::Done(Outcome::Drop)) {
        Slot::Waiting(record, seen) => Slot::Done(f(record, &seen)),
        done @ Slot::Done(_) => done,
    };
}

#[cfg(test)]
mod tests;
