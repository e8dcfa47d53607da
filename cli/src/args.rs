//! The command line.

pub(crate) mod kafka;
pub(crate) mod pipelines;

use std::path::PathBuf;
use std::time::Duration;

use aqueduct_broker::HostPort;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Moves data without losing it: a log that speaks the Kafka protocol, and connectors on top of it.
#[derive(Debug, Parser)]
#[command(name = "aqueduct", version, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run pipelines: the log and the connectors in one process
    Run(Run),
    /// Check pipeline files, without starting anything
    Check(Check),
    /// Run the tests of pipeline files, without a log and without the systems that they connect
    Test(pipelines::Test),
    /// What this binary can run: sources, sinks, steps, converters, and their keys
    Plugins(pipelines::Plugins),
    /// Run the log alone
    Broker(Broker),
    /// List, describe, create, change, trim and delete topics
    #[command(after_long_help = kafka::TOPICS_EXAMPLES)]
    Topics(kafka::Topics),
    /// List, describe and delete consumer groups, see their lag, set their offsets
    #[command(after_long_help = kafka::GROUPS_EXAMPLES)]
    Groups(kafka::Groups),
    /// Write records from standard input or files to a topic
    #[command(after_long_help = kafka::PRODUCE_EXAMPLES)]
    Produce(kafka::Produce),
    /// Print the records of topics
    #[command(after_long_help = kafka::CONSUME_EXAMPLES)]
    Consume(kafka::Consume),
    /// Show and change settings of topics, brokers and groups
    Configs(kafka::Configs),
    /// Show the brokers of a cluster and what they can do
    Cluster(kafka::ClusterInfo),
    /// Print completions for a shell
    Completions(Completions),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Pipeline files. Without one it starts empty, to be filled over REST
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) broker: BrokerFlags,
    /// Address of the REST API; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8083")]
    pub(crate) rest: HostPort,
    /// How long a stop may take to drain
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) shutdown_timeout: Duration,
    /// Listen beyond loopback although nothing is authenticated
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Let connectors made over REST read environment variables with this prefix (repeatable)
    #[arg(long, value_name = "PREFIX")]
    pub(crate) allow_env: Vec<String>,
    /// Let connectors made over REST read files below this directory (repeatable)
    #[arg(long, value_name = "DIR")]
    pub(crate) allow_path: Vec<PathBuf>,
    /// Print events as JSON, one a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: Logging,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Broker {
    /// File with the broker's settings; the flags below win
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) broker: BrokerFlags,
    /// Address of `/metrics` and `/health` over HTTP; port 0 picks a free one [default: 127.0.0.1:9404, or a free port
    /// where that is taken]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) metrics: Option<HostPort>,
    /// Cut a damaged partition where its damage begins, keeping what is cut beside it (repeatable). Records behind the
    /// damage are lost to readers
    #[arg(long, value_name = "TOPIC-N")]
    pub(crate) repair_partition: Vec<String>,
    /// How long a stop may take to drain
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) shutdown_timeout: Duration,
    /// Listen beyond loopback although nothing is authenticated
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Print where it listens as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: Logging,
}

/// Where the log lies and listens.
#[derive(Debug, clap::Args)]
pub(crate) struct BrokerFlags {
    /// Directory of the log [default: ./aqueduct-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of the Kafka protocol; port 0 picks a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<HostPort>,
    /// What clients are told to connect to; required when listening on a wildcard address
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<HostPort>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// Pipeline files
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: Logging,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// Shell
    pub(crate) shell: clap_complete::Shell,
}

impl Completions {
    /// The text to be read by the shell.
    pub(crate) fn text(&self) -> String {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Args::command(), "aqueduct", &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Log")]
pub(crate) struct Logging {
    /// Form of the log on standard error
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Least level that is logged, or a filter such as `info,aqueduct_broker=debug` [default: `info` for `broker`, else
    /// `warn`]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    aqueduct_core::config::parse_duration(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn several_partitions_can_be_repaired() {
        let args = ["aqueduct", "broker", "--repair-partition", "a-0", "--repair-partition", "b-1"];
        let Command::Broker(broker) = Args::try_parse_from(args).expect("parses").command else {
            panic!("broker")
        };
        assert_eq!(broker.repair_partition, ["a-0", "b-1"]);
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let args = Args::try_parse_from(["aqueduct", "run", "a.yaml", "b.yaml"]).expect("parses");
        let Command::Run(run) = args.command else { panic!("run") };
        assert_eq!(run.files.len(), 2);
        assert_eq!(
            (run.rest.to_string().as_str(), run.shutdown_timeout),
            ("127.0.0.1:8083", Duration::from_secs(30))
        );
        assert!(Args::try_parse_from(["aqueduct", "run", "--listen", "9092"]).is_err());
        assert!(Args::try_parse_from(["aqueduct", "check"]).is_err());
    }
}
