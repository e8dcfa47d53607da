//! `tests`: records that are given to a sink, and what is expected to come of them.
//!
//! **Invariant:** a test that cannot be understood, or that expects nothing, is a finding with its place.

use aqueduct_core::SchemaRef;
use aqueduct_core::config::{Config, did_you_mean};
use aqueduct_core::json::schema_from_json;
use regex::Regex;
use serde_json::Value as Json;

use crate::document::{Fields, text};
use crate::finding::{Findings, Position};
use crate::judge::Difference;
use crate::matcher::Matcher;
use crate::yaml::{Node, Pair, Yaml};

/// Stages at which a record can fail on its way to a sink, in Connect's words.
pub(crate) const STAGES: &[&str] = &["KEY_CONVERTER", "VALUE_CONVERTER", "TRANSFORMATION"];

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestCase {
    /// Name, for people.
    pub name: String,
    /// Where it stands.
    pub at: Position,
    /// Name of the connector whose converters and steps are run.
    pub connector: String,
    /// The records, in order.
    pub given: Vec<Given>,
    /// What is to come of them.
    pub expect: Expect,
}

/// A record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Key, to be written by the key's converter.
    pub key: Json,
    /// Value.
    pub value: GivenValue,
    /// Headers in order.
    pub headers: Vec<(String, Option<String>)>,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
}

/// The value of a given record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenValue {
    /// To be written by the value's converter, with a schema or without.
    Value(Json, Option<SchemaKey>),
    /// The bytes of this text, as they are.
    Raw(String),
}

/// A schema, compared by what it says.
#[derive(Clone, Debug)]
pub struct SchemaKey(pub SchemaRef);

impl PartialEq for SchemaKey {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl Eq for SchemaKey {}

/// What is to come of the given records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// What reaches the sink.
    pub records: Records,
    /// How many records steps drop.
    pub dropped: Option<usize>,
    /// What becomes a dead letter, in order; without the key nothing may.
    pub dead_letters: Vec<ExpectedFailure>,
    /// What stops the sink.
    pub stops: Option<ExpectedFailure>,
    /// Whether the sink goes on after a bad record.
    pub tolerates: bool,
}

/// Which records are to reach the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// It was not said.
    Any,
    /// These, in this order, and no others.
    Exactly(Vec<RecordMatcher>),
    /// These among others.
    Contains(Vec<RecordMatcher>),
}

/// What is expected of a record: of its value alone, or of `{ record: { topic, key, value, headers, timestamp } }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordMatcher {
    /// Its value.
    Value(Matcher),
    /// Some of its parts.
    Parts(Vec<(String, Matcher)>),
}

/// A failure of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedFailure {
    /// Which of the given records, from 0.
    pub record: Option<usize>,
    /// Stage, in Connect's words.
    pub stage: Option<String>,
    /// Name of the step.
    pub step: Option<String>,
    /// Part of the error, or what it matches.
    pub error: Option<Matcher>,
}

impl std::fmt::Display for ExpectedFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let which =
            self.record.map_or_else(|| "a record that fails".into(), |at| format!("given {} fails", at + 1));
        f.write_str(&which)?;
        let parts = [
            self.stage.clone(),
            self.step.as_ref().map(|step| format!("in step `{step}`")),
            self.error.as_ref().map(|error| format!("with {error}")),
        ];
        parts.into_iter().flatten().try_for_each(|part| write!(f, " {part}"))
    }
}

impl RecordMatcher {
    fn read(node: &Node, findings: &mut Findings) -> Self {
        if let Yaml::Map(pairs) = &node.value
            && let [Pair { key, value, .. }] = pairs.as_slice()
            && key == "record"
        {
            let keys = ["topic", "key", "value", "headers", "timestamp"];
            let Some(fields) = Fields::read(value, "`record`", &keys, findings) else {
                return Self::Parts(Vec::new());
            };
            let parts = keys.iter().filter_map(|key| {
                Some(((*key).to_owned(), Matcher::read(&fields.get(key)?.value, findings)))
            });
            return Self::Parts(parts.collect());
        }
        Self::Value(Matcher::read(node, findings))
    }

    pub(crate) fn compare(&self, got: Option<&Json>, path: &str, exact: bool, into: &mut Vec<Difference>) {
        let Some(got) = got else {
            into.push(Difference::new(path, self.to_string(), "no further record".into()));
            return;
        };
        match self {
            Self::Value(value) => value.compare(Some(&got["value"]), path, exact, into),
            Self::Parts(parts) => {
                for (name, wanted) in parts {
                    // A null key and a missing one are the same to Kafka.
                    wanted.compare(Some(&got[name.as_str()]), &format!("{path}.record.{name}"), exact, into);
                }
            }
        }
    }
}

impl std::fmt::Display for RecordMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::Parts(parts) => write!(f, "{}", Matcher::Map(parts.clone())),
        }
    }
}

/// A sink as far as tests need to know it.
#[derive(Debug)]
pub(crate) struct Reads<'a> {
    sink: &'a str,
    connector: String,
    topics: Topics,
    tolerates: bool,
}

#[derive(Debug)]
enum Topics {
    These(Vec<String>),
    Pattern(String, Regex),
    Unknown,
}

impl<'a> Reads<'a> {
    pub(crate) fn new(sink: &'a str, connector: String, config: Option<&Config>) -> Self {
        let get = |key: &str| config.and_then(|config| config.get(key)).filter(|text| !text.contains("${"));
        let topics = match (get("topics"), get("topics.regex")) {
            (Some(list), _) => {
                let topics = list.split(',').map(str::trim).filter(|topic| !topic.is_empty());
                Topics::These(topics.map(str::to_owned).collect())
            }
            (None, Some(pattern)) => match Regex::new(&format!("^(?:{pattern})$")) {
                Ok(regex) => Topics::Pattern(pattern.clone(), regex),
                Err(_) => Topics::Unknown,
            },
            (None, None) => Topics::Unknown,
        };
        let tolerates = get("errors.tolerance").is_some_and(|text| text == "all");
        Self { sink, connector, topics, tolerates }
    }

    fn topic(&self, given: Option<&Pair>, at: Position, findings: &mut Findings) -> Option<String> {
        let Some(pair) = given else {
            return match &self.topics {
                Topics::These(topics) if topics.len() == 1 => topics.first().cloned(),
                _ => {
                    findings.add(at, "a given record needs its `topic`");
                    None
                }
            };
        };
        let topic = text(&pair.value, "topic", findings)?;
        let wrong = match &self.topics {
            Topics::These(topics) if !topics.iter().any(|known| known == topic.text) => {
                Some(match did_you_mean(topic.text, topics.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("it reads `{}`", topics.join("`, `")),
                })
            }
            Topics::Pattern(pattern, regex) if !regex.is_match(topic.text) => {
                Some(format!("it reads what matches `{pattern}`"))
            }
            Topics::These(_) | Topics::Pattern(..) | Topics::Unknown => None,
        };
        if let Some(hint) = wrong {
            findings.add(
                topic.at,
                format!("the sink `{}` does not read topic `{}`; {hint}", self.sink, topic.text),
            );
        }
        Some(topic.text.to_owned())
    }
}

/// Reads the tests.
pub(crate) fn read(node: &Node, sinks: &[Reads<'_>], findings: &mut Findings) -> Vec<TestCase> {
    let Yaml::List(items) = &node.value else {
        findings.add(node.at, format!("`tests` takes a list of tests, not {}", node.value.kind()));
        return Vec::new();
    };
    let mut cases: Vec<TestCase> = Vec::new();
    for item in items {
        let Some(case) = case(item, sinks, findings) else { continue };
        if cases.iter().any(|other| other.name == case.name) {
            findings.add(case.at, format!("two tests are named `{}`", case.name));
        }
        cases.push(case);
    }
    cases
}

fn case(node: &Node, sinks: &[Reads<'_>], findings: &mut Findings) -> Option<TestCase> {
    let fields = Fields::read(node, "a test", &["name", "given", "expect"], findings)?;
    let missing: Vec<&str> =
        ["name", "given", "expect"].into_iter().filter(|key| fields.get(key).is_none()).collect();
    if !missing.is_empty() {
        findings.add(node.at, format!("a test needs `{}`", missing.join("`, `")));
        return None;
    }
    let name = text(&fields.get("name")?.value, "name", findings)?;
    let (given, expect) = (&fields.get("given")?.value, &fields.get("expect")?.value);
    let keys = ["sink", "exactly", "contains", "dropped", "dead_letters", "stops"];
    let expected = Fields::read(expect, "`expect`", &keys, findings)?;
    let sink = sink(expected.get("sink"), expect.at, sinks, findings)?;
    let records = self::list(given, "given", findings)?;
    if records.is_empty() {
        findings.add(given.at, "`given` is empty; give it a record");
    }
    let given: Vec<Given> = records.iter().filter_map(|record| self::given(record, sink, findings)).collect();
    let complete = given.len() == records.len();
    let expect = self::expect(&expected, expect.at, sink, given.len(), findings)?;
    let (name, connector) = (name.text.to_owned(), sink.connector.clone());
    complete.then_some(TestCase { name, at: node.at, connector, given, expect })
}

fn sink<'a, 'b>(
    given: Option<&Pair>,
    at: Position,
    sinks: &'b [Reads<'a>],
    findings: &mut Findings,
) -> Option<&'b Reads<'a>> {
    let names = || sinks.iter().map(|sink| sink.sink);
    let Some(pair) = given else {
        if let [only] = sinks {
            return Some(only);
        }
        let message = match sinks {
            [] => "a test needs a sink whose steps it runs; the pipeline has none".to_owned(),
            _ => format!("`expect` names its `sink`: `{}`", names().collect::<Vec<_>>().join("`, `")),
        };
        findings.add(at, message);
        return None;
    };
    let name = text(&pair.value, "sink", findings)?;
    let found = sinks.iter().find(|sink| sink.sink == name.text);
    if found.is_none() {
        let hint = match did_you_mean(name.text, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there is `{}`", names().collect::<Vec<_>>().join("`, `")),
        };
        findings.add(name.at, format!("the pipeline has no sink `{}`; {hint}", name.text));
    }
    found
}

fn list<'a>(node: &'a Node, key: &str, findings: &mut Findings) -> Option<&'a [Node]> {
    match &node.value {
        Yaml::List(items) => Some(items),
        other => {
            findings.add(node.at, format!("`{key}` takes a list, not {}", other.kind()));
            None
        }
    }
}

fn given(node: &Node, sink: &Reads<'_>, findings: &mut Findings) -> Option<Given> {
    let keys = ["topic", "partition", "key", "value", "raw", "schema", "headers", "timestamp"];
    let fields = Fields::read(node, "a given record", &keys, findings)?;
    let topic = sink.topic(fields.get("topic"), node.at, findings)?;
    let partition = match fields.get("partition") {
        None => 0,
        Some(pair) => whole(&pair.value, "partition", findings).and_then(|n| i32::try_from(n).ok())?,
    };
    let schema = match fields.get("schema").map(|pair| (&pair.value, schema_from_json(&pair.value.to_json())))
    {
        None => None,
        Some((_, Ok(schema))) => Some(SchemaKey(schema.shared())),
        Some((node, Err(error))) => {
            findings.add(node.at, error.full());
            return None;
        }
    };
    let value = match (fields.get("value"), fields.get("raw")) {
        (Some(_), Some(raw)) => {
            findings.add(raw.at, "a given record has `value` or `raw`, not both");
            return None;
        }
        (None, Some(raw)) => match &raw.value.value {
            Yaml::Scalar { text, .. } => GivenValue::Raw(text.clone()),
            other => {
                findings.add(raw.value.at, format!("`raw` takes text, not {}", other.kind()));
                return None;
            }
        },
        (value, None) => GivenValue::Value(value.map_or(Json::Null, |pair| pair.value.to_json()), schema),
    };
    let key = fields.get("key").map_or(Json::Null, |pair| pair.value.to_json());
    let headers = fields.get("headers").map(|pair| headers(&pair.value, findings)).unwrap_or_default();
    let timestamp = fields.get("timestamp").and_then(|pair| timestamp(&pair.value, findings));
    Some(Given { topic, partition, key, value, headers, timestamp })
}

fn headers(node: &Node, findings: &mut Findings) -> Vec<(String, Option<String>)> {
    let Yaml::Map(pairs) = &node.value else {
        findings
            .add(node.at, format!("`headers` takes a mapping of names to text, not {}", node.value.kind()));
        return Vec::new();
    };
    let mut headers = Vec::new();
    for pair in pairs {
        match &pair.value.value {
            Yaml::Scalar { text, .. } => headers.push((pair.key.clone(), Some(text.clone()))),
            Yaml::Null => headers.push((pair.key.clone(), None)),
            other => findings.add(pair.value.at, format!("a header takes text, not {}", other.kind())),
        }
    }
    headers
}

fn timestamp(node: &Node, findings: &mut Findings) -> Option<i64> {
    let Yaml::Scalar { text, .. } = &node.value else {
        findings.add(node.at, format!("`timestamp` takes a time, not {}", node.value.kind()));
        return None;
    };
    let time =
        text.parse::<i64>().ok().or_else(|| Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()));
    if time.is_none() {
        let text = format!("`{text}` is no time; write milliseconds since 1970 or `2026-01-31T08:00:00Z`");
        findings.add(node.at, text);
    }
    time
}

fn expect(
    fields: &Fields<'_>,
    at: Position,
    sink: &Reads<'_>,
    given: usize,
    findings: &mut Findings,
) -> Option<Expect> {
    let mut matchers = |key: &str| -> Option<Vec<RecordMatcher>> {
        let items = list(&fields.get(key)?.value, key, findings)?;
        Some(items.iter().map(|item| RecordMatcher::read(item, findings)).collect())
    };
    let records = match (matchers("exactly"), matchers("contains")) {
        (Some(_), Some(_)) => {
            findings.add(at, "`expect` has `exactly` or `contains`, not both");
            return None;
        }
        (Some(records), None) => Records::Exactly(records),
        (None, Some(records)) => Records::Contains(records),
        (None, None) => Records::Any,
    };
    let dropped = match fields.get("dropped") {
        None => None,
        Some(pair) => Some(whole(&pair.value, "dropped", findings)?),
    };
    let letters = fields.get("dead_letters");
    let dead_letters = match letters {
        None => Vec::new(),
        Some(pair) => {
            let items = list(&pair.value, "dead_letters", findings)?;
            items.iter().filter_map(|item| failure(item, given, findings)).collect()
        }
    };
    let stops = fields.get("stops");
    match (letters, stops) {
        (Some(pair), _) if !sink.tolerates => findings.add(
            pair.at,
            "bad records stop this sink; set `on_error: { then: dlq }`, or expect `stops` instead of `dead_letters`",
        ),
        (_, Some(pair)) if sink.tolerates => {
            findings.add(pair.at, "this sink goes on after bad records; expect `dead_letters` instead of `stops`");
        }
        (_, Some(pair)) if records != Records::Any || dropped.is_some() => findings.add(
            pair.at,
            "of a sink that stops, a test knows only where; remove `exactly`, `contains` and `dropped`",
        ),
        _ => {}
    }
    let stops = match stops {
        None => None,
        Some(pair) => Some(failure(&pair.value, given, findings)?),
    };
    if records == Records::Any && dropped.is_none() && letters.is_none() && stops.is_none() {
        findings.add(at, "`expect` says nothing; give it `exactly`, `contains`, `dropped` or `dead_letters`");
    }
    Some(Expect { records, dropped, dead_letters, stops, tolerates: sink.tolerates })
}

fn failure(node: &Node, given: usize, findings: &mut Findings) -> Option<ExpectedFailure> {
    let fields = Fields::read(node, "a dead letter", &["record", "stage", "step", "error"], findings)?;
    let mut failure = ExpectedFailure::default();
    if let Some(pair) = fields.get("record") {
        let record = whole(&pair.value, "record", findings)?;
        if record == 0 || record > given {
            findings.add(
                pair.value.at,
                format!("`record`: there is no record {record}; they are numbered 1 to {given}"),
            );
        }
        failure.record = record.checked_sub(1);
    }
    if let Some(pair) = fields.get("stage") {
        let stage = text(&pair.value, "stage", findings)?;
        if !STAGES.contains(&stage.text) {
            let stages = STAGES.join("`, `");
            findings.add(stage.at, format!("`stage`: `{}` is not one of `{stages}`", stage.text));
        }
        failure.stage = Some(stage.text.to_owned());
    }
    failure.step =
        fields.get("step").and_then(|pair| text(&pair.value, "step", findings)).map(|t| t.text.to_owned());
    if let Some(pair) = fields.get("error") {
        let matcher = Matcher::read(&pair.value, findings);
        if !matches!(matcher, Matcher::Matches(_) | Matcher::Equals(Json::String(_))) {
            findings.add(pair.value.at, "`error` takes a part of the text, or `{ matches: REGEX }`");
            return None;
        }
        failure.error = Some(matcher);
    }
    Some(failure)
}

fn whole(node: &Node, key: &str, findings: &mut Findings) -> Option<usize> {
    let number = match &node.value {
        Yaml::Scalar { text, .. } => text.parse().ok().filter(|number| *number <= i32::MAX as usize),
        Yaml::Null | Yaml::List(_) | Yaml::Map(_) => None,
    };
    if number.is_none() {
        findings.add(node.at, format!("`{key}` takes a whole number, 0 or more"));
    }
    number
}
