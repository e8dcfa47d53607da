//! The judge of the log: a load with every kind of work, and a fault at every operation of the disk in turn.
//!
//! The load runs once to count its operations, then once per operation and kind of fault: the power goes (and perhaps once
//! more during recovery), the process is killed, a write stays short, the disk is full, a sync fails. A model of what clients
//! were told ([`book`]) is compared with the log after every start and at the end. The load runs without threads, so that a
//! number gives the same run again. `AQUEDUCT_SEEDS` sets how many different loads are judged.

mod book;
mod metadata;
mod world;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::memory::Fault;
use crate::flusher::FlushMode;
use world::World;

/// A violation, in words.
type Verdict<T = ()> = Result<T, String>;

/// `Err` with what is wrong, unless the condition holds.
macro_rules! demand {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(format!($($what)+));
        }
    };
}
pub(crate) use demand;

/// What goes wrong at an operation.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// Also the operation of the recovery at which the power goes again.
    PowerLoss(Option<u64>),
    Kill,
    Io(Fault),
}

const IO_FAULTS: [Fault; 4] = [
    Fault::ShortWrite,
    Fault::PartWriteThenFail(io::ErrorKind::StorageFull),
    Fault::Fail(io::ErrorKind::StorageFull),
    Fault::Fail(io::ErrorKind::Other),
];
const STEPS: u64 = 110;
const STEPS_AFTER: u64 = 25;

/// The load of `seed` with `trouble` at operation `at`; how many operations it took.
fn run(seed: u64, mode: FlushMode, trouble: Option<(u64, Trouble)>) -> Verdict<u64> {
    let mut world = World::new(seed, mode);
    match trouble {
        Some((at, Trouble::PowerLoss(_) | Trouble::Kill)) => world.disk().fault_at(at, Fault::PowerOff),
        Some((at, Trouble::Io(fault))) => world.disk().fault_at(at, fault),
        None => {}
    }
    world.start()?;
    for step in 0..STEPS {
        if world.is_off() {
            break;
        }
        world.step(step)?;
    }
    let operations = world.disk().operations();
    match trouble {
        Some((at, Trouble::PowerLoss(again))) => {
            world.lose_power(at)?;
            if let Some(again) = again {
                world.disk().fault_at(world.disk().operations() + again, Fault::PowerOff);
                world.start()?;
                // If the recovery took fewer operations the power goes right after it.
                world.lose_power(at + 1)?;
            }
        }
        Some((_, Trouble::Kill | Trouble::Io(_))) => world.kill()?,
        None => {}
    }
    if trouble.is_some() {
        world.start()?;
        for step in 0..STEPS_AFTER {
            world.step(step)?;
        }
        world.lose_power(operations)?;
        world.start()?;
    }
    world.finish()?;
    Ok(operations)
}

fn seeds() -> u64 {
    std::env::var("AQUEDUCT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Runs the load with each of `troubles` at each operation; everything wrong.
fn judge(seed: u64, mode: FlushMode, troubles: impl Fn(u64) -> Vec<Trouble> + Sync) -> Vec<String> {
    let operations = run(seed, mode, None).unwrap_or_else(|e| panic!("seed {seed}, without any fault: {e}"));
    let next = AtomicU64::new(0);
    let wrong = parking_lot::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= operations {
                        return;
                    }
                    for trouble in troubles(at) {
                        if let Err(e) = run(seed, mode, Some((at, trouble))) {
                            wrong.lock().push(format!("seed {seed}, operation {at}, {trouble:?}: {e}"));
                        }
                    }
                }
            });
        }
    });
    wrong.into_inner()
}

fn expect_nothing_wrong(troubles: impl Fn(u64) -> Vec<Trouble> + Sync) {
    for seed in 0..seeds() {
        let wrong = judge(seed, FlushMode::Durable, &troubles);
        let first: Vec<_> = wrong.iter().take(5).collect();
        assert!(wrong.is_empty(), "{} wrong, such as {first:#?}", wrong.len());
    }
}

#[test]
fn a_power_loss_at_any_operation_takes_nothing_that_was_acknowledged() {
    expect_nothing_wrong(|_| vec![Trouble::PowerLoss(None)]);
}

#[test]
fn a_second_power_loss_during_recovery_takes_nothing_either() {
    // Every operation of the recovery at some of the operations of the load, and one of them at the others.
    expect_nothing_wrong(|at| match at % 50 {
        0 => (0..40).map(|again| Trouble::PowerLoss(Some(again))).collect(),
        _ => vec![Trouble::PowerLoss(Some(at % 29))],
    });
}

#[test]
fn a_kill_at_any_operation_takes_nothing_even_if_the_power_goes_later() {
    expect_nothing_wrong(|_| vec![Trouble::Kill]);
}

#[test]
fn a_failure_of_any_operation_takes_nothing_that_was_acknowledged() {
    expect_nothing_wrong(|_| IO_FAULTS.map(Trouble::Io).into());
}

#[test]
fn the_judge_sees_a_log_that_does_not_flush() {
    // A judge that cannot fail proves nothing.
    let wrong = judge(0, FlushMode::UnsafeNoFlush, |_| vec![Trouble::PowerLoss(None)]);
    let first: Vec<_> = wrong.iter().take(5).collect();
    assert!(
        wrong.len() > 300,
        "losing unflushed data went unnoticed: {} wrong, such as {first:#?}",
        wrong.len()
    );
    assert!(wrong.iter().any(|e| e.contains("acknowledged up to")), "{first:#?}");
}
