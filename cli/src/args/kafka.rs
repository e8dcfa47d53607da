//! The command line of what works with any cluster that speaks the Kafka protocol.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::Logging;
use crate::kafka::position::Position;

pub(crate) const TOPICS_EXAMPLES: &str = "\
Examples:
  aqueduct topics create orders -p 6 -c retention.ms=604800000
  aqueduct topics alter orders --set cleanup.policy=compact --unset retention.ms
  aqueduct topics trim orders --before '7d ago'
  aqueduct topics offsets orders --at 2026-01-31T08:00Z --json";

pub(crate) const GROUPS_EXAMPLES: &str = "\
Examples:
  aqueduct groups describe billing
  aqueduct groups reset-offsets billing --topic orders --to '2h ago'          shows what would change
  aqueduct groups reset-offsets billing --topic orders:0,3 --to earliest --yes";

pub(crate) const PRODUCE_EXAMPLES: &str = "\
Examples:
  echo 'alice:hello' | aqueduct produce orders -K : -H source=shop
  aqueduct produce orders --input json -z zstd records.jsonl
  aqueduct consume orders -e --json | aqueduct produce copy --input json -p -1";

pub(crate) const CONSUME_EXAMPLES: &str = "\
Examples:
  aqueduct consume orders -o -10 -e                          the last ten records of each partition
  aqueduct consume orders -o '2h ago' -f '%D %k=%s\\n'       from two hours ago on, with time and key
  aqueduct consume 'shop\\..*' --regex --json | jq .value    several topics, one object a line
  aqueduct consume orders -g audit -c 1000                   as a member of a group that commits";

/// Where the cluster is. Flags of every command for clusters.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterFlags {
    /// Brokers to begin with, comma-separated
    #[arg(short, long, value_name = "HOST:PORT", env = "AQUEDUCT_BROKERS", global = true)]
    #[arg(default_value = "127.0.0.1:9092", value_delimiter = ',')]
    pub(crate) brokers: Vec<String>,
    /// A setting of the client, by librdkafka's name (repeatable): `security.protocol=sasl_ssl`, `linger.ms=50`
    #[arg(short = 'X', value_name = "KEY=VALUE", global = true, value_parser = pair)]
    pub(crate) property: Vec<(String, String)>,
    /// File of such settings, one a line; `#` begins a comment, `-X` goes before
    #[arg(short = 'F', long, value_name = "FILE", global = true)]
    pub(crate) client_config: Option<PathBuf>,
    /// How long a request may take; for `produce`, how long a record may wait for its acknowledgement
    #[arg(long, value_name = "DURATION", default_value = "15s", global = true, value_parser = super::duration)]
    pub(crate) timeout: Duration,
    /// Print JSON: one document, or for `consume` one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: Logging,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Topics {
    #[command(flatten)]
    pub(crate) cluster: ClusterFlags,
    #[command(subcommand)]
    pub(crate) command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// List topics with their partitions and replicas
    #[command(visible_alias = "list")]
    Ls {
        /// Only topics whose name matches this regular expression as a whole
        #[arg(value_name = "REGEX")]
        pattern: Option<String>,
        /// The cluster's own topics, too
        #[arg(short, long)]
        internal: bool,
    },
    /// Show partitions, leaders, replicas, offsets, and the settings made for topics
    Describe {
        #[arg(value_name = "TOPIC", required = true)]
        topics: Vec<String>,
    },
    /// Create topics
    Create(CreateTopics),
    /// Add partitions to a topic, or change its settings
    Alter(AlterTopic),
    /// Delete topics and everything in them
    Delete {
        #[arg(value_name = "TOPIC", required = true)]
        topics: Vec<String>,
        #[command(flatten)]
        sure: Sure,
    },
    /// Delete the records of a topic up to an offset or a time
    Trim(TrimTopic),
    /// Show the first and the last offset of each partition
    Offsets {
        #[arg(value_name = "TOPIC", required = true)]
        topics: Vec<String>,
        /// The offset at a time, too: `2h ago`, `2026-01-31T08:00Z` or `@` and milliseconds since 1970
        #[arg(long, value_name = "TIME", value_parser = Position::parse_time)]
        at: Option<Position>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateTopics {
    #[arg(value_name = "TOPIC", required = true)]
    pub(crate) topics: Vec<String>,
    /// Number of partitions [default: the cluster's `num.partitions`]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: Option<i32>,
    /// Replicas of each partition [default: the cluster's `default.replication.factor`]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    pub(crate) replicas: Option<i16>,
    /// A setting of the topics (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) config: Vec<(String, String)>,
    /// A topic that exists already is no error, whatever its settings
    #[arg(long)]
    pub(crate) if_not_exists: bool,
    /// Only say whether it would work
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct AlterTopic {
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: String,
    /// New number of partitions, more than there are. Keys go to other partitions afterwards
    #[arg(short, long, value_name = "N", group = "change", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: Option<i32>,
    /// Change a setting (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE", group = "change", value_parser = pair)]
    pub(crate) set: Vec<(String, String)>,
    /// Return a setting to the cluster's default (repeatable)
    #[arg(short, long, value_name = "KEY", group = "change")]
    pub(crate) unset: Vec<String>,
    /// Only say whether it would work
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TrimTopic {
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: String,
    /// Delete what lies before: an offset, `end` (everything), a time as `2h ago`, `2026-01-31T08:00Z` or `@` and
    /// milliseconds since 1970, or `-N` to keep the last N of each partition
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub(crate) before: Position,
    /// Only of these partitions, comma-separated
    #[arg(short, long, value_name = "N", value_delimiter = ',')]
    pub(crate) partition: Vec<i32>,
    #[command(flatten)]
    pub(crate) sure: Sure,
}

/// What removes data asks first.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Sure {
    /// Do it without asking; needed where there is no terminal
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Groups {
    #[command(flatten)]
    pub(crate) cluster: ClusterFlags,
    #[command(subcommand)]
    pub(crate) command: GroupsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupsCommand {
    /// List groups with their state
    #[command(visible_alias = "list")]
    Ls,
    /// Show members, committed offsets and lag of each partition
    Describe {
        #[arg(value_name = "GROUP", required = true)]
        groups: Vec<String>,
    },
    /// Delete groups without members, and their committed offsets
    Delete {
        #[arg(value_name = "GROUP", required = true)]
        groups: Vec<String>,
        #[command(flatten)]
        sure: Sure,
    },
    /// Set committed offsets of a group without members; shows what would change until `--yes`
    ResetOffsets(ResetOffsets),
    /// Delete committed offsets of a group for topics that it does not read
    DeleteOffsets {
        #[arg(value_name = "GROUP")]
        group: String,
        /// Topic, with all its partitions or some (repeatable): `orders`, `orders:0,3`
        #[arg(short, long, value_name = "TOPIC[:N,…]", required = true)]
        topic: Vec<TopicChoice>,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResetOffsets {
    #[arg(value_name = "GROUP")]
    pub(crate) group: String,
    /// Topic, with all its partitions or some (repeatable): `orders`, `orders:0,3`
    #[arg(short, long, value_name = "TOPIC[:N,…]", required_unless_present = "all_topics")]
    pub(crate) topic: Vec<TopicChoice>,
    /// Every partition that the group has committed
    #[arg(long, conflicts_with = "topic")]
    pub(crate) all_topics: bool,
    /// `earliest`, `latest`, an offset, `-N` from the end, or a time: `2h ago`, `2026-01-31T08:00Z`, `@` and
    /// milliseconds since 1970
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub(crate) to: Position,
    /// Only show what would change; so it is without `--yes`
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    /// Do it
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// A topic with all or some of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicChoice {
    pub(crate) topic: String,
    pub(crate) partitions: Option<Vec<i32>>,
}

impl std::str::FromStr for TopicChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((topic, list)) = text.split_once(':') else {
            return Ok(Self { topic: text.to_owned(), partitions: None });
        };
        let number = |part: &str| {
            let number = part.trim().parse::<i32>().ok().filter(|number| *number >= 0);
            number.ok_or_else(|| format!("`{part}` is no partition; write `{topic}:0,3`"))
        };
        let partitions: Vec<i32> = list.split(',').map(number).collect::<Result<_, _>>()?;
        Ok(Self { topic: topic.to_owned(), partitions: Some(partitions) })
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Produce {
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: String,
    /// Files to read, one after the other; without one, standard input
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// What the input is made of
    #[arg(short, long, value_enum, default_value_t = Input::Lines, value_name = "FORM")]
    pub(crate) input: Input,
    /// What ends a record of `lines`; `\n`, `\t`, `\0` and `\xHH` are understood
    #[arg(short = 'D', long, default_value = "\\n", value_name = "TEXT", value_parser = escaped)]
    pub(crate) delimiter: Bytes,
    /// What stands between key and value of a line; a line without it is an error
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = escaped, conflicts_with = "key")]
    pub(crate) key_separator: Option<Bytes>,
    /// The key of every record
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) key: Option<String>,
    /// A header of every record (repeatable); without `=` its value is null
    #[arg(short = 'H', long, value_name = "NAME=VALUE")]
    pub(crate) header: Vec<String>,
    /// The partition of every record; −1: by the key, as the Java client does
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i32).range(-1..))]
    pub(crate) partition: Option<i32>,
    /// Compression of the batches
    #[arg(short = 'z', long, value_enum, value_name = "CODEC")]
    pub(crate) compression: Option<Codec>,
    /// Empty values become tombstones, empty keys null
    #[arg(short = 'Z', long)]
    pub(crate) empty_is_null: bool,
    /// Report nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Input {
    /// A record a line
    Lines,
    /// A JSON object a line, as `consume --json` prints them
    Json,
    /// A record a file
    Files,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Consume {
    /// Topics, comma-separated, or with `--regex` expressions for their whole names
    #[arg(value_name = "TOPIC", required = true, value_delimiter = ',')]
    pub(crate) topics: Vec<String>,
    /// The topics are regular expressions
    #[arg(short, long)]
    pub(crate) regex: bool,
    /// Where to begin in each partition: `beginning`, `end`, an offset, `-N` for the last N, or a time: `2h ago`,
    /// `2026-01-31T08:00Z`, `@` and milliseconds since 1970. For a new group `beginning` or `end`
    #[arg(short, long, value_name = "POSITION", default_value = "beginning", allow_hyphen_values = true)]
    pub(crate) offset: Position,
    /// Stop before the first record of this time or a later one, or at the present end
    #[arg(long, value_name = "TIME", value_parser = Position::parse_time, conflicts_with = "group")]
    pub(crate) until: Option<Position>,
    /// Stop at what is the end now
    #[arg(short, long)]
    pub(crate) exit_at_end: bool,
    /// Stop after so many records
    #[arg(short, long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Only these partitions, comma-separated
    #[arg(short, long, value_name = "N", value_delimiter = ',', conflicts_with = "group")]
    pub(crate) partition: Vec<i32>,
    /// Read as a member of this group, and commit what was printed
    #[arg(short, long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// What is printed of a record, as kcat has it: `%k` key, `%s` or `%v` value, `%h` headers, `%t` topic,
    /// `%p` partition, `%o` offset, `%T` timestamp in milliseconds, `%D` the same as a date, `%K` and `%S` length of
    /// key and value (−1: null), `%R` the length of the value in four bytes, `%%`, `\n`, `\t`, `\xHH`
    #[arg(short, long, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) format: Option<String>,
    /// How bytes of keys, values and headers are printed [default: `escape` on a terminal, else `raw`]
    #[arg(long, value_enum, value_name = "FORM", conflicts_with = "json")]
    pub(crate) encode: Option<Encode>,
    /// What stands for a null key or value
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with = "json")]
    pub(crate) null: String,
    /// No progress and no summary
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encode {
    /// As they are
    Raw,
    /// `\xHH` for what is no printable UTF-8
    Escape,
    /// Base64
    Base64,
    /// Hexadecimal
    Hex,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Configs {
    #[command(flatten)]
    pub(crate) cluster: ClusterFlags,
    #[command(subcommand)]
    pub(crate) command: ConfigsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigsCommand {
    /// Show settings, their values and where these come from
    Describe {
        #[command(flatten)]
        of: Resource,
        /// Only these keys
        #[arg(value_name = "KEY")]
        keys: Vec<String>,
        /// Only what was set on it
        #[arg(long)]
        changed: bool,
        /// What each setting is for, and what it would fall back to
        #[arg(long)]
        docs: bool,
    },
    /// Change settings, all or none
    Set {
        #[command(flatten)]
        of: Resource,
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = pair)]
        changes: Vec<(String, String)>,
        /// Only say whether it would work
        #[arg(long)]
        dry_run: bool,
    },
    /// Return settings to their defaults
    Unset {
        #[command(flatten)]
        of: Resource,
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
        /// Only say whether it would work
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Resource {
    /// Kind of thing
    #[arg(value_enum, value_name = "KIND")]
    pub(crate) kind: Kind,
    /// Name of a topic or group, id of a broker, or `default` for all brokers
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    #[value(alias = "topics")]
    Topic,
    #[value(alias = "brokers")]
    Broker,
    #[value(alias = "groups")]
    Group,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ClusterInfo {
    #[command(flatten)]
    pub(crate) cluster: ClusterFlags,
    #[command(subcommand)]
    pub(crate) command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show brokers, controller, cluster id and features
    Describe {
        /// The requests that a broker serves, and in which versions
        #[arg(long)]
        api_versions: bool,
        /// Whose versions and features [default: the first that answers]
        #[arg(long, value_name = "ID")]
        broker: Option<i32>,
    },
}

/// Bytes that were written with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

fn escaped(text: &str) -> Result<Bytes, String> {
    let bytes = crate::kafka::escapes::parse(text)?;
    if bytes.is_empty() { Err("it is empty".into()) } else { Ok(Bytes(bytes)) }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not `KEY=VALUE`"))?;
    if key.trim().is_empty() {
        return Err(format!("`{text}` has no key before `=`"));
    }
    Ok((key.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_chosen_whole_or_by_partition() {
        let choice = |text: &str| text.parse::<TopicChoice>();
        assert_eq!(choice("a"), Ok(TopicChoice { topic: "a".into(), partitions: None }));
        assert_eq!(choice("a:0,3"), Ok(TopicChoice { topic: "a".into(), partitions: Some(vec![0, 3]) }));
        assert!(choice("a:x").is_err() && choice("a:-1").is_err());
    }

    #[test]
    fn settings_keep_what_stands_behind_the_first_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}
