//! One wasmtime engine per process, and the thread that moves its epoch while guests run.
//!
//! **Invariant:** while a [`Running`] lives, the epoch rises about every [`TICK`], so that a guest's deadline comes; while
//! none does, the thread sleeps.

use std::sync::OnceLock;
use std::time::Duration;

use aqueduct_core::{Error, Result};
use parking_lot::{Condvar, Mutex};
use wasmtime::{Config, Engine};

/// How often a running guest is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Ticks without a guest before the thread sleeps: batches follow each other, and waking it costs more than ticking.
const IDLE_TICKS: u32 = 100;

/// The engine and its clock.
pub(crate) struct Shared {
    engine: Engine,
    clock: Mutex<Clock>,
    wake: Condvar,
    /// Never signalled: a pause that leaves the lock free.
    pause: Condvar,
}

struct Clock {
    running: usize,
    asleep: bool,
}

/// The process's engine, made on first use.
pub(crate) fn shared() -> Result<&'static Shared> {
    static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();
    static THREAD: OnceLock<Result<(), String>> = OnceLock::new();
    let failed = |why: &String| Error::fatal(format!("cannot start the WebAssembly engine: {why}"));
    let shared = SHARED.get_or_init(make).as_ref().map_err(failed)?;
    let start = || {
        let thread = std::thread::Builder::new().name("wasm-epoch".into());
        // Lives as long as the process, as the engine does.
        thread.spawn(|| shared.tick()).map(drop).map_err(|error| error.to_string())
    };
    THREAD.get_or_init(start).as_ref().map_err(failed)?;
    Ok(shared)
}

fn make() -> Result<Shared, String> {
    let mut config = Config::new();
    config.wasm_component_model(true).epoch_interruption(true);
    let engine = Engine::new(&config).map_err(|error| error.to_string())?;
    let clock = Mutex::new(Clock { running: 0, asleep: true });
    Ok(Shared { engine, clock, wake: Condvar::new(), pause: Condvar::new() })
}

impl Shared {
    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Says that a guest runs until the answer is dropped.
    pub(crate) fn run(&self) -> Running<'_> {
        let mut clock = self.clock.lock();
        clock.running += 1;
        if clock.asleep {
            clock.asleep = false;
            self.wake.notify_one();
        }
        Running(self)
    }

    fn tick(&self) {
        let mut idle = 0;
        let mut clock = self.clock.lock();
        loop {
            while clock.asleep {
                self.wake.wait(&mut clock);
            }
            self.pause.wait_for(&mut clock, TICK);
            self.engine.increment_epoch();
            idle = if clock.running == 0 { idle + 1 } else { 0 };
            if idle >= IDLE_TICKS {
                clock.asleep = true;
                idle = 0;
            }
        }
    }
}

/// A guest is running.
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.clock.lock().running -= 1;
    }
}

/// The number of ticks after which `deadline` has passed for sure.
pub(crate) fn ticks(deadline: Duration) -> u64 {
    let ticks = deadline.as_nanos().div_ceil(TICK.as_nanos());
    // The tick under way may end at once.
    u64::try_from(ticks).unwrap_or(u64::MAX - 1).saturating_add(1)
}
