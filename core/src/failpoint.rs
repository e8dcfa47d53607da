//! Named places where a fault test ends the process, as a crash would.
//!
//! `AQUEDUCT_FAILPOINT=name@3` ends the process when `name` is passed the third time (`name` alone: the first).
//! Without the variable a failpoint is one relaxed load. Nothing is flushed: like SIGKILL, and unlike a panic.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Armed {
    name: String,
    left: AtomicU64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Passes the failpoint `name`.
pub fn hit(name: &str) {
    let Some(armed) = ARMED.get_or_init(arm) else { return };
    if armed.name == name && armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        eprintln!("failpoint {name}: ending the process");
        std::process::abort();
    }
}

fn arm() -> Option<Armed> {
    let text = std::env::var("AQUEDUCT_FAILPOINT").ok()?;
    let (name, count) = text.split_once('@').unwrap_or((&text, "1"));
    Some(Armed { name: name.to_owned(), left: AtomicU64::new(count.parse().unwrap_or(1)) })
}
