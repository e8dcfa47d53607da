//! Other clients' own tests; called by `cargo xtask compat`, which builds this and the binary.

use anyhow::Result;
use aqueduct_tests::compat::Compat;
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    compat: Compat,
}

fn main() -> Result<()> {
    Cli::parse().compat.run()
}
