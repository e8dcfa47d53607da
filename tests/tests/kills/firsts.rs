//! When the first records are through after each start of the process.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use aqueduct_tests::capture::Scene;
use aqueduct_tests::process::{Aqueduct, pause};
use aqueduct_tests::rest::Rest;

/// All lives of a test.
#[derive(Default)]
pub(crate) struct Firsts {
    lives: Vec<Life>,
}

/// What was seen in one life, from the start of the process.
pub(crate) struct Life {
    name: String,
    began: Instant,
    confirmed_before: Option<i64>,
    /// WAL that the server decodes again before it sends what is new.
    again: i64,
    /// The log has acknowledged a record of the source.
    source: Option<Duration>,
    /// A change was confirmed to the server.
    confirmed: Option<Duration>,
    /// The sink has taken a record.
    sink: Option<Duration>,
}

impl Firsts {
    /// Just before the process starts.
    pub(crate) fn begin(&self, scene: &Scene, name: &str) -> Result<Life> {
        Ok(Life {
            name: name.to_owned(),
            confirmed_before: scene.confirmed()?,
            again: scene.decoded_again()?.unwrap_or(0),
            began: Instant::now(),
            source: None,
            confirmed: None,
            sink: None,
        })
    }

    pub(crate) fn end(&mut self, life: Life) {
        self.lives.push(life);
    }

    /// Prints what was seen. A life that ended before its first record says nothing about it.
    pub(crate) fn report(&self) {
        let shown =
            |first: Option<Duration>| first.map_or("-".into(), |at| format!("{:.2}", at.as_secs_f64()));
        eprintln!("first record after each start, in s; `-`: killed before");
        eprintln!(
            "{:<40} {:>7} {:>10} {:>7} {:>14}",
            "killed at", "source", "confirmed", "sink", "re-read MiB"
        );
        for life in &self.lives {
            let (source, confirmed, sink) = (shown(life.source), shown(life.confirmed), shown(life.sink));
            let again = life.again as f64 / f64::from(1 << 20);
            eprintln!("{:<40} {source:>7} {confirmed:>10} {sink:>7} {again:>14.1}", life.name);
        }
        let figures: [(&str, fn(&Life) -> Option<Duration>); 3] = [
            ("source", |life| life.source),
            ("confirmed", |life| life.confirmed),
            ("sink", |life| life.sink),
        ];
        for (what, figure) in figures {
            let mut all: Vec<Duration> = self.lives.iter().filter_map(figure).collect();
            all.sort_unstable();
            let Some(max) = all.last() else { continue };
            eprintln!("{what}: median {:?}, max {max:?} of {}", all[all.len() / 2], all.len());
        }
    }
}

impl Life {
    fn look(&mut self, scene: &Scene, rest: &Rest) {
        let at = self.began.elapsed();
        let counted = |kind: &str| {
            rest.metric("aqueduct_connector_records_total", kind).is_ok_and(|records| records > 0.0)
        };
        if self.source.is_none() && counted("source") {
            self.source = Some(at);
        }
        if self.sink.is_none() && counted("lake") {
            self.sink = Some(at);
        }
        if self.confirmed.is_none() && scene.confirmed().is_ok_and(|now| now > self.confirmed_before) {
            self.confirmed = Some(at);
        }
    }

    /// Looks until the process ends by itself or the time is up.
    pub(crate) fn watch(&mut self, scene: &Scene, process: &mut Aqueduct, limit: Duration) -> Result<()> {
        let rest = Rest::new(process)?;
        while process.ended()?.is_none() && self.began.elapsed() < limit {
            self.look(scene, &rest);
            pause();
        }
        Ok(())
    }

    /// Looks until everything was seen.
    pub(crate) fn watch_until_complete(
        &mut self,
        scene: &Scene,
        process: &mut Aqueduct,
        limit: Duration,
    ) -> Result<()> {
        let rest = Rest::new(process)?;
        while self.source.is_none() || self.confirmed.is_none() || self.sink.is_none() {
            self.look(scene, &rest);
            if let Some(status) = process.ended()? {
                bail!("it ended with {status}");
            }
            if self.began.elapsed() > limit {
                bail!("not through within {limit:?}: {:?} {:?} {:?}", self.source, self.confirmed, self.sink);
            }
            pause();
        }
        Ok(())
    }
}
