//! `aqueduct`: the one binary, and the only crate that sees every other.
//!
//! **Invariant:** exit codes are stable: 0 all is well, 1 it failed, 2 the command line or a file is wrong. Standard output
//! carries what was asked for; the log goes to standard error.

mod args;
mod banner;
mod broker;
mod check;
mod failure;
mod kafka;
mod listen;
mod live;
mod logging;
mod output;
mod pipelines;
mod plugins;
mod registry;
mod run;
mod screen;
mod signals;
mod test;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;

use args::{Args, Command};
use failure::Failure;
use screen::Screen;

/// Threads that are still busy when everything is done may not keep the process.
const LAST_WAIT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let args = Args::parse();
    let screen = Arc::new(Screen::new());
    match start(args, &screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.clear();
            failure.print();
            failure.code()
        }
    }
}

fn start(args: Args, screen: &Arc<Screen>) -> Result<(), Failure> {
    match args.command {
        Command::Completions(completions) => kafka::print(&completions.text()),
        Command::Check(check) => {
            logging::init(&check.log, "warn", screen)?;
            check::check(&check)
        }
        Command::Test(test) => {
            logging::init(&test.log, "warn", screen)?;
            on_runtime(test::test(test))
        }
        Command::Plugins(args) => plugins::plugins(&args.command),
        Command::Run(run) => {
            logging::init(&run.log, "warn", screen)?;
            on_runtime(run::run(run, Arc::clone(screen)))
        }
        Command::Topics(topics) => {
            logging::init(&topics.cluster.log, "warn", screen)?;
            on_runtime(kafka::topics::topics(topics))
        }
        Command::Groups(groups) => {
            logging::init(&groups.cluster.log, "warn", screen)?;
            on_runtime(kafka::groups::groups(groups))
        }
        Command::Produce(produce) => {
            logging::init(&produce.cluster.log, "warn", screen)?;
            on_runtime(kafka::produce::produce(produce))
        }
        Command::Consume(consume) => {
            logging::init(&consume.cluster.log, "warn", screen)?;
            on_runtime(kafka::consume::consume(consume))
        }
        Command::Configs(configs) => {
            logging::init(&configs.cluster.log, "warn", screen)?;
            on_runtime(kafka::configs::configs(configs))
        }
        Command::Cluster(cluster) => {
            logging::init(&cluster.cluster.log, "warn", screen)?;
            on_runtime(kafka::cluster::cluster(cluster))
        }
        Command::Broker(broker) => {
            logging::init(&broker.log, "info", screen)?;
            on_runtime(broker::broker(broker))
        }
    }
}

fn on_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    // The first provider installed wins; there is only one in this build.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("aqueduct").build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_WAIT);
    outcome
}
