//! What should run and what happened to it, as a pure state machine: [`Herd::step`] takes an event and answers what is
//! to be done. No clock, no IO.
//!
//! **Invariant:** every start of a task has a run number of its own; what an earlier run reports is ignored.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backoff::{RestartCount, RestartPolicy};
use crate::status::{State, TargetState};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A connector with a checked config starts, or starts anew because its config changed.
    Configured {
        name: String,
        tasks: usize,
        target: TargetState,
        restart: RestartPolicy,
    },
    /// It cannot start.
    Broken {
        name: String,
        trace: String,
    },
    Deleted {
        name: String,
    },
    Target {
        name: String,
        target: TargetState,
    },
    TaskStarted {
        name: String,
        task: usize,
        run: u64,
    },
    TaskEnded {
        name: String,
        task: usize,
        run: u64,
        failure: Option<Failed>,
    },
    RestartDue {
        name: String,
        task: usize,
        run: u64,
    },
    RestartTask {
        name: String,
        task: usize,
    },
    RestartTasks {
        name: String,
        only_failed: bool,
    },
}

/// Why a task ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) trace: String,
    /// Whether another try may help: not with a wrong config.
    pub(crate) restartable: bool,
    /// How long it ran.
    pub(crate) ran: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    StartTask {
        name: String,
        task: usize,
        run: u64,
        paused: bool,
    },
    /// Cancels the tasks and waits for their end.
    StopTasks {
        name: String,
        tasks: Vec<usize>,
    },
    Pause {
        name: String,
        paused: bool,
    },
    ScheduleRestart {
        name: String,
        task: usize,
        run: u64,
        after: Duration,
    },
    PublishConnector {
        name: String,
    },
    PublishTask {
        name: String,
        task: usize,
    },
    Forget {
        name: String,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct HerdTask {
    pub(crate) state: State,
    pub(crate) trace: Option<String>,
    run: u64,
    restarts: RestartCount,
}

#[derive(Clone, Debug)]
pub(crate) struct HerdConnector {
    pub(crate) state: State,
    pub(crate) trace: Option<String>,
    pub(crate) target: TargetState,
    pub(crate) tasks: Vec<HerdTask>,
    restart: RestartPolicy,
}

/// Every connector of the worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Herd {
    connectors: BTreeMap<String, HerdConnector>,
    next_run: u64,
}

impl Herd {
    pub(crate) fn get(&self, name: &str) -> Option<&HerdConnector> {
        self.connectors.get(name)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.connectors.keys().cloned().collect()
    }

    pub(crate) fn step(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Configured { name, tasks, target, restart } => {
                self.configured(name, tasks, target, restart)
            }
            Event::Broken { name, trace } => self.broken(name, trace),
            Event::Deleted { name } => {
                let effects = self.stop_all(&name);
                self.connectors.remove(&name);
                effects.into_iter().chain([Effect::Forget { name }]).collect()
            }
            Event::Target { name, target } => self.target(name, target),
            Event::TaskStarted { name, task, run } => self.started(name, task, run),
            Event::TaskEnded { name, task, run, failure } => self.ended(name, task, run, failure),
            Event::RestartDue { name, task, run } => match self.task(&name, task, run) {
                Some(due) if due.state == State::Restarting => {
                    self.start_task(&name, task).into_iter().collect()
                }
                _ => Vec::new(),
            },
            Event::RestartTask { name, task } => self.restart(name, |i, _| i == task),
            Event::RestartTasks { name, only_failed } => self.restart(name, |_, task| {
                !only_failed || matches!(task.state, State::Failed | State::Restarting)
            }),
        }
    }

    fn task(&mut self, name: &str, task: usize, run: u64) -> Option<&mut HerdTask> {
        self.connectors.get_mut(name)?.tasks.get_mut(task).filter(|task| task.run == run)
    }

    fn configured(
        &mut self,
        name: String,
        tasks: usize,
        target: TargetState,
        restart: RestartPolicy,
    ) -> Vec<Effect> {
        let mut effects = self.stop_all(&name);
        let state = connector_state(target);
        let task =
            HerdTask { state: State::Unassigned, trace: None, run: 0, restarts: RestartCount::default() };
        let count = if target == TargetState::Stopped { 0 } else { tasks };
        let connector = HerdConnector { state, trace: None, target, tasks: vec![task; count], restart };
        self.connectors.insert(name.clone(), connector);
        effects.push(Effect::PublishConnector { name: name.clone() });
        for task in 0..count {
            effects.extend(self.start_task(&name, task));
        }
        effects
    }

    fn broken(&mut self, name: String, trace: String) -> Vec<Effect> {
        let mut effects = self.stop_all(&name);
        let target = self.connectors.get(&name).map(|connector| connector.target).unwrap_or_default();
        let restart = RestartPolicy { enabled: false, first: Duration::ZERO, max: Duration::ZERO };
        let connector =
            HerdConnector { state: State::Failed, trace: Some(trace), target, tasks: Vec::new(), restart };
        self.connectors.insert(name.clone(), connector);
        effects.push(Effect::PublishConnector { name });
        effects
    }

    fn stop_all(&mut self, name: &str) -> Vec<Effect> {
        let Some(connector) = self.connectors.get(name).filter(|connector| !connector.tasks.is_empty())
        else {
            return Vec::new();
        };
        vec![Effect::StopTasks { name: name.to_owned(), tasks: (0..connector.tasks.len()).collect() }]
    }

    fn start_task(&mut self, name: &str, task: usize) -> Option<Effect> {
        let connector = self.connectors.get_mut(name)?;
        let paused = connector.target == TargetState::Paused;
        let slot = connector.tasks.get_mut(task)?;
        self.next_run += 1;
        slot.run = self.next_run;
        Some(Effect::StartTask { name: name.to_owned(), task, run: slot.run, paused })
    }

    fn target(&mut self, name: String, target: TargetState) -> Vec<Effect> {
        let Some(connector) = self.connectors.get_mut(&name) else { return Vec::new() };
        connector.target = target;
        if target == TargetState::Stopped {
            let effects = self.stop_all(&name);
            if let Some(connector) = self.connectors.get_mut(&name) {
                connector.tasks.clear();
                connector.state = State::Stopped;
                connector.trace = None;
            }
            return effects.into_iter().chain([Effect::PublishConnector { name }]).collect();
        }
        if connector.state == State::Failed {
            return Vec::new();
        }
        connector.state = connector_state(target);
        let paused = target == TargetState::Paused;
        let mut effects = vec![
            Effect::Pause { name: name.clone(), paused },
            Effect::PublishConnector { name: name.clone() },
        ];
        for (task, slot) in connector.tasks.iter_mut().enumerate() {
            if matches!(slot.state, State::Running | State::Paused) {
                slot.state = if paused { State::Paused } else { State::Running };
                effects.push(Effect::PublishTask { name: name.clone(), task });
            }
        }
        effects
    }

    fn started(&mut self, name: String, task: usize, run: u64) -> Vec<Effect> {
        let paused =
            self.connectors.get(&name).is_some_and(|connector| connector.target == TargetState::Paused);
        let Some(slot) = self.task(&name, task, run) else { return Vec::new() };
        slot.state = if paused { State::Paused } else { State::Running };
        slot.trace = None;
        vec![Effect::PublishTask { name, task }]
    }

    fn ended(&mut self, name: String, task: usize, run: u64, failure: Option<Failed>) -> Vec<Effect> {
        let Some(policy) = self.connectors.get(&name).map(|connector| connector.restart) else {
            return Vec::new();
        };
        let Some(slot) = self.task(&name, task, run) else { return Vec::new() };
        let Some(failed) = failure else {
            slot.state = State::Unassigned;
            return vec![Effect::PublishTask { name, task }];
        };
        let pause = if failed.restartable { slot.restarts.next(&policy, failed.ran) } else { None };
        let mut effects = vec![Effect::PublishTask { name: name.clone(), task }];
        match pause {
            Some(after) => {
                slot.state = State::Restarting;
                let number = slot.restarts.attempts();
                slot.trace = Some(format!("{}\nrestart {number} follows after {after:?}", failed.trace));
                effects.push(Effect::ScheduleRestart { name, task, run, after });
            }
            None => {
                slot.state = State::Failed;
                slot.trace = Some(failed.trace);
            }
        }
        effects
    }

    fn restart(&mut self, name: String, which: impl Fn(usize, &HerdTask) -> bool) -> Vec<Effect> {
        let Some(connector) = self.connectors.get_mut(&name) else { return Vec::new() };
        let mut tasks = Vec::new();
        for (i, task) in connector.tasks.iter_mut().enumerate() {
            if which(i, task) {
                task.state = State::Restarting;
                task.restarts = RestartCount::default();
                tasks.push(i);
            }
        }
        if tasks.is_empty() {
            return Vec::new();
        }
        let mut effects = vec![Effect::StopTasks { name: name.clone(), tasks: tasks.clone() }];
        for task in tasks {
            effects.push(Effect::PublishTask { name: name.clone(), task });
            effects.extend(self.start_task(&name, task));
        }
        effects
    }
}

fn connector_state(target: TargetState) -> State {
    match target {
        TargetState::Started => State::Running,
        TargetState::Paused => State::Paused,
        TargetState::Stopped => State::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RestartPolicy =
        RestartPolicy { enabled: true, first: Duration::from_secs(1), max: Duration::from_secs(60) };

    fn n() -> String {
        "orders".to_owned()
    }

    fn configured(tasks: usize, target: TargetState) -> Event {
        Event::Configured { name: n(), tasks, target, restart: POLICY }
    }

    fn failed(run: u64, restartable: bool) -> Event {
        let failure = Some(Failed { trace: "no".into(), restartable, ran: Duration::ZERO });
        Event::TaskEnded { name: n(), task: 0, run, failure }
    }

    fn state(herd: &Herd) -> State {
        herd.get("orders").expect("known").tasks[0].state
    }

    #[test]
    fn a_failed_task_restarts_after_a_pause_and_says_so() {
        let mut herd = Herd::default();
        herd.step(configured(1, TargetState::Started));
        herd.step(Event::TaskStarted { name: n(), task: 0, run: 1 });
        assert_eq!(state(&herd), State::Running);
        let effects = herd.step(failed(1, true));
        assert!(effects.contains(&Effect::ScheduleRestart {
            name: n(),
            task: 0,
            run: 1,
            after: POLICY.first
        }));
        assert_eq!(state(&herd), State::Restarting);
        let effects = herd.step(Event::RestartDue { name: n(), task: 0, run: 1 });
        assert_eq!(effects, [Effect::StartTask { name: n(), task: 0, run: 2, paused: false }]);
    }

    #[test]
    fn a_wrong_config_is_not_tried_again() {
        let mut herd = Herd::default();
        herd.step(configured(1, TargetState::Started));
        let effects = herd.step(failed(1, false));
        assert_eq!(effects, [Effect::PublishTask { name: n(), task: 0 }]);
        assert_eq!(state(&herd), State::Failed);
    }

    #[test]
    fn what_an_earlier_run_reports_is_ignored() {
        let mut herd = Herd::default();
        herd.step(configured(1, TargetState::Started));
        herd.step(configured(1, TargetState::Started));
        assert!(herd.step(failed(1, true)).is_empty());
        assert!(herd.step(Event::TaskStarted { name: n(), task: 0, run: 1 }).is_empty());
        herd.step(failed(2, true));
        herd.step(Event::RestartTask { name: n(), task: 0 });
        assert!(herd.step(Event::RestartDue { name: n(), task: 0, run: 2 }).is_empty(), "a user was faster");
    }

    #[test]
    fn pausing_keeps_tasks_and_stopping_removes_them() {
        let mut herd = Herd::default();
        herd.step(configured(1, TargetState::Started));
        herd.step(Event::TaskStarted { name: n(), task: 0, run: 1 });
        herd.step(Event::Target { name: n(), target: TargetState::Paused });
        assert_eq!(state(&herd), State::Paused);
        herd.step(Event::Target { name: n(), target: TargetState::Started });
        assert_eq!(state(&herd), State::Running);
        let effects = herd.step(Event::Target { name: n(), target: TargetState::Stopped });
        assert_eq!(effects[0], Effect::StopTasks { name: n(), tasks: vec![0] });
        let connector = herd.get("orders").expect("known");
        assert!(connector.tasks.is_empty() && connector.state == State::Stopped);
    }

    #[test]
    fn a_stopped_connector_starts_no_tasks_when_its_config_changes() {
        let mut herd = Herd::default();
        let effects = herd.step(configured(3, TargetState::Stopped));
        assert_eq!(effects, [Effect::PublishConnector { name: n() }]);
    }

    #[test]
    fn only_failed_tasks_restart_when_asked_so() {
        let mut herd = Herd::default();
        herd.step(configured(2, TargetState::Started));
        herd.step(Event::TaskStarted { name: n(), task: 1, run: 2 });
        herd.step(failed(1, false));
        let effects = herd.step(Event::RestartTasks { name: n(), only_failed: true });
        assert_eq!(effects[0], Effect::StopTasks { name: n(), tasks: vec![0] });
        assert_eq!(effects.len(), 3);
    }
}
