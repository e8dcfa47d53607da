//! The live lines: one per connector, redrawn on a terminal, printed now and then elsewhere, or as JSON events.

mod row;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_runtime::RuntimeHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::screen::Screen;

const LOOK: Duration = Duration::from_millis(200);
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// One JSON object per connector and look.
    Json,
}

/// Shows the connectors until `stop`; then once more, so that the last counts are seen.
pub(crate) async fn show(runtime: RuntimeHandle, screen: Arc<Screen>, form: Form, stop: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut due = Due::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let views = runtime.views();
        if form == Form::Text && screen.is_terminal() {
            screen.draw(row::lines(&views));
        } else {
            let now = Instant::now();
            let width = row::width(&views);
            views
                .iter()
                .filter(|view| due.is_due(view, now))
                .for_each(|view| screen.line(&plain(view, width, form)));
        }
    }
    let views = runtime.views();
    if form == Form::Text && screen.is_terminal() {
        screen.draw(row::lines(&views));
    } else {
        views.iter().for_each(|view| screen.line(&plain(view, row::width(&views), form)));
    }
}

fn plain(view: &aqueduct_runtime::ConnectorView, width: usize, form: Form) -> String {
    match form {
        Form::Text => row::line(view, width),
        Form::Json => row::json(view).to_string(),
    }
}

/// When a connector gets its next plain line: at its first record, when its state or error changes, and every few seconds.
#[derive(Default)]
struct Due {
    last: BTreeMap<String, (Instant, &'static str, bool, Option<String>)>,
}

impl Due {
    fn is_due(&mut self, view: &aqueduct_runtime::ConnectorView, now: Instant) -> bool {
        let seen = (view.state.name(), view.records > 0, &view.last_error);
        let due = match self.last.get(&view.name) {
            None => true,
            Some((at, state, flowing, error)) => {
                now.duration_since(*at) >= PLAIN_EVERY || (*state, *flowing, error) != seen
            }
        };
        if due {
            self.last.insert(view.name.clone(), (now, seen.0, seen.1, seen.2.clone()));
        }
        due
    }
}
