//! SIGKILL while clients produce, read and commit: nothing that was acknowledged is missing, doubled or changed.
//!
//! The page cache survives, so this shows what a crash of the process does; [`crate::powerloss`] shows what the disk keeps.

use crate::powerloss::{Loss, lives};

#[test]
fn kills_under_load_lose_nothing_that_was_acknowledged() {
    let kills = std::env::var("AQUEDUCT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let wrong = lives(kills, Loss::Process, &[]).expect("the load runs");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
