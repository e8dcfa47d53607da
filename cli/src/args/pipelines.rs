//! The command line of what is about pipelines: components, tests, what flows, dead letters.

use std::path::PathBuf;

use clap::Subcommand;

use super::Logging;

#[derive(Debug, clap::Args)]
pub(crate) struct Plugins {
    #[command(subcommand)]
    pub(crate) command: PluginsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginsCommand {
    /// List sources, sinks, steps and converters
    #[command(visible_alias = "list")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show every key of components: type, default, importance, meaning
    Describe {
        /// Components by name, as `s3` or `sink:file`; `source` and `sink` for the keys that all of a kind have
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of pipeline files, for editors
    Schema,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// Pipeline files
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Only tests with this text in their name
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: Logging,
}
