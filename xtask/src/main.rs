//! `cargo xtask …`: the project's own commands, the same locally and in CI.

mod architecture;
mod bench;
mod chaos;
mod codec;
mod compat;
mod guests;
mod machine;
mod tests;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask COMMAND

  ci              everything a change must pass: fmt, clippy, tidy, codec drift, guests, test
  test [FILTER]   every test, with real servers; installs what it needs, and lists at the end what could not run
  bench [NAME]    benchmarks: log, postgres, s3, files, transforms, start; prints commands, raw samples and a summary
  bench peers     side by side with Apache Kafka 4.3 (needs Java 17 and Maven); `--help` tells the flags
  chaos [SEEDS]   the fault tests with more seeds: power loss and kills at random moments
  compat [TEST…]  other clients' own tests, against the binary and Apache Kafka; --help lists the flags
  codec [--check] generates the protocol codec from its notation; --compare compares that with Kafka's definitions
  guests [--check] builds the example WASM guests from source
  tidy            the rules that a machine can check: dependency direction, file sizes, unsafe code
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let (command, rest) =
        args.split_first().map_or(("help", &[][..]), |(first, rest)| (first.as_str(), rest));
    match command {
        "ci" => tests::ci(),
        "test" => tests::test(rest),
        "bench" => bench::run_named(rest),
        "chaos" => chaos::run(rest),
        "codec" => codec::run(rest),
        "compat" => compat::compat(rest),
        "guests" => guests::run(rest),
        "tidy" => tidy::run(),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("unknown command `{other}`\n\n{HELP}"),
    }
}
