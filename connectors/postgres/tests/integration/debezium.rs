//! Every type, every mode: byte for byte what the real Debezium wrote for the same SQL.
//!
//! `tests/debezium/` has the SQL, the modes, what Debezium made of them, and the script that asked it. What differs on
//! purpose stands in [`DIFFERENT`], and in `docs/postgres.md` in words.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Datum, Schema, Type, Value, json, logical};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use crate::driver::Driver;
use crate::server::{Server, installed};

/// A difference on purpose: mode (or `*`), table, column, and rows by key (empty for all, and for the schema too).
type Difference = (&'static str, &'static str, &'static str, &'static [i64]);

#[rustfmt::skip]
const DIFFERENT: &[Difference] = &[
    // Debezium says that elements are never null, and a null one makes null of the whole array.
    ("*", "arrays", "t", &[0, 1, 4]),
    ("*", "arrays", "e", &[0, 1]),
    ("*", "arrays", "lt", &[1]),
    ("*", "rare_arrays", "tv", &[0]),
    ("*", "required", "ta", &[0]),
    ("*", "toasted", "ta", &[0]),
    ("*", "toasted_whole", "ta", &[0]),
    // It takes an array of bits for a single one.
    ("*", "rare_arrays", "b1", &[0, 1]),
    ("*", "rare_arrays", "b8", &[0, 1]),
    // It cuts fractions of a second in arrays of times.
    ("*", "arrays", "tm", &[1]),
    ("*", "arrays", "tt", &[1]),
    // Of more than one dimension it makes a list of nulls, or of names of Java objects; here the whole is null.
    ("*", "arrays", "i4", &[4]),
    ("*", "arrays", "n", &[4]),
    ("*", "arrays", "ts", &[4]),
    ("*", "arrays", "u", &[4]),
    // A NaN in a list makes null of the whole there, in every mode.
    ("double", "odd_numbers", "na", &[4]),
    ("string", "odd_numbers", "na", &[4]),
    // Its words for what PostgreSQL, Java and JSON call NaN, Infinity and -Infinity.
    ("string", "odd_numbers", "n", &[1, 2, 3]),
    ("string", "odd_numbers", "n52", &[1]),
    // A name is null in its stream.
    ("*", "text", "nm", &[1, 3, 4]),
    // Dates before Christ lose their sign in its snapshot, infinite ones are a day far in the past.
    ("*", "times", "d", &[8, 9, 10, 13]),
    // Microseconds that do not fit wrap around.
    ("*", "times", "ts", &[12]),
    ("*", "times", "ts0", &[12]),
    ("*", "times", "ts3", &[12]),
    ("*", "times", "ts4", &[12]),
    // The same single, in other digits.
    ("*", "numbers", "f4", &[7]),
    // Its key of a table whose old rows lack the primary key is zero; here the replica identity is the key.
    ("*", "by_index", "", &[]),
    ("*", "by_index", "*", &[0]),
    // Its snapshot has generated columns, its stream has not; here neither has.
    ("*", "generated", "*", &[0]),
    ("*", "generated", "g", &[1]),
    // Null stands for what was not sent; here the placeholder does.
    ("binary-base64", "toasted", "ba", &[1, 2]),
    ("binary-url", "toasted", "ba", &[1, 2]),
    ("binary-base64", "toasted", "ba2", &[1, 2]),
    ("binary-url", "toasted", "ba2", &[1, 2]),
    ("binary-hex", "toasted", "ba2", &[1, 2]),
    ("string", "toasted", "na", &[1, 2]),
    // Arrays of what it does not know are null.
    ("unknown", "rare_arrays", "co", &[0, 1]),
    ("unknown", "rare_arrays", "pr", &[0, 1]),
    // Partitions in another order.
    ("via-root", "parted", "", &[1, 2]),
    ("via-root", "parted", "id", &[1, 2]),
    ("via-root", "parted", "d", &[1, 2]),
    ("via-root", "parted", "v", &[1, 2]),
];

/// Columns that Debezium leaves out and that are text here.
const LEFT_OUT: &[(&str, &[&str])] = &[
    ("unknown", &["co", "cu", "tq", "xi", "lsn", "jp", "mr", "rc", "sn", "lq"]),
    ("shapes", &["l", "ls", "bx", "pa", "po", "ci"]),
    ("made", &["ean13", "issn", "upc"]),
    ("rare_arrays", &["mon", "nm", "iv", "vb", "x", "p", "rc", "co", "pr"]),
    ("required", &["po", "ci2"]),
    ("toasted", &["po"]),
    ("toasted_whole", &["po"]),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/debezium")
}

fn text(file: &str) -> String {
    let path = folder().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// One record, as both sides are compared.
#[derive(Clone, Debug)]
struct Line {
    key_schema: Json,
    key: Json,
    value_schema: Json,
    /// Null for a tombstone.
    value: Json,
    headers: Json,
}

/// What Debezium wrote, by topic.
fn expected(mode: &str) -> BTreeMap<String, Vec<Line>> {
    let mut schemas = Vec::new();
    let mut topics: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for line in text(&format!("expected/{mode}.jsonl")).lines() {
        let mut line: Json = serde_json::from_str(line).expect("JSON");
        if let Some(schema) = line.get_mut("schema") {
            schemas.push(schema.take());
            continue;
        }
        let part = |part: &Json| match part[0].as_u64() {
            Some(number) => (schemas[number as usize].clone(), part[1].clone()),
            None => (Json::Null, part[1].clone()),
        };
        let ((key_schema, key), (value_schema, value)) = (part(&line["key"]), part(&line["value"]));
        let headers = line.get("headers").and_then(Json::as_object).cloned().unwrap_or_default();
        let headers = headers.iter().map(|(name, value)| (name.clone(), part(value).1)).collect();
        let topic = line["topic"].as_str().expect("topic").to_owned();
        topics.entry(topic).or_default().push(Line { key_schema, key, value_schema, value, headers });
    }
    topics
}

/// What Connect's JsonConverter writes for a value with its default settings.
fn payload(value: &Value, schema: Option<&Schema>) -> Json {
    match value {
        Value::Null => schema.and_then(|s| s.default.as_ref()).map_or(Json::Null, |d| payload(d, None)),
        Value::Bytes(bytes) => Json::String(STANDARD.encode(bytes)),
        Value::Array(items) => {
            let element = match schema.map(|s| &s.ty) {
                Some(Type::Array(element)) => Some(&**element),
                _ => None,
            };
            items.iter().map(|item| payload(item, element)).collect()
        }
        Value::Map(entries) => {
            let entry = |(k, v): &(Value, Value)| (k.as_str().expect("text").to_owned(), payload(v, None));
            Json::Object(entries.iter().map(entry).collect())
        }
        Value::Struct(values) => {
            let fields = schema.expect("a struct has a schema").fields();
            assert_eq!(fields.len(), values.len());
            let fields = fields.iter().zip(values);
            Json::Object(fields.map(|(f, v)| (f.name.to_string(), payload(v, Some(&f.schema)))).collect())
        }
        plain => {
            let mut out = Vec::new();
            json::encode(&mut out, plain, None).expect("encodes");
            serde_json::from_slice(&out).expect("JSON")
        }
    }
}

fn schema(datum: &Datum) -> Json {
    let mut schema = datum.schema().map_or(Json::Null, |schema| json::schema_to_json(schema));
    decimal_defaults(&mut schema);
    schema
}

/// Defaults of Decimals are numbers in ours and base64 in Debezium's, as the converters are set.
fn decimal_defaults(schema: &mut Json) {
    if schema["name"] == logical::DECIMAL
        && let Some(default) = schema.get("default").filter(|default| default.is_number())
    {
        let scale = schema["parameters"]["scale"].as_str().and_then(|s| s.parse().ok()).expect("scale");
        let bytes = logical::decimal_bytes(&default.to_string(), scale).expect("decimal");
        schema["default"] = STANDARD.encode(bytes).into();
    }
    if let Some(fields) = schema.get_mut("fields").and_then(Json::as_array_mut) {
        fields.iter_mut().for_each(decimal_defaults);
    }
}

fn line(record: &aqueduct_core::Record) -> Line {
    let part = |datum: &Datum| {
        let value = datum.decoded().expect("decoded");
        short(payload(value, datum.schema().map(|s| &**s)))
    };
    let headers = record.headers.iter().map(|header| (header.name.to_string(), part(&header.value)));
    let headers = Json::Object(headers.collect());
    let mut value = part(&record.value);
    mask(&mut value);
    Line {
        key_schema: schema(&record.key),
        key: part(&record.key),
        value_schema: schema(&record.value),
        value,
        headers,
    }
}

/// Hides what varies from run to run, after a look at its shape.
fn mask(event: &mut Json) {
    if event.get("source").is_none() {
        return;
    }
    for at in ["/ts_ms", "/ts_us", "/ts_ns", "/source/ts_ms", "/source/ts_us", "/source/ts_ns"] {
        let time = event.pointer_mut(at).expect("a time");
        assert!(time.as_i64().is_some_and(|t| t > 1_600_000_000_000), "{at}: {time}");
        *time = "*".into();
    }
    let sequence = event["source"]["sequence"].as_str().expect("a sequence").to_owned();
    let parts: Vec<Option<String>> = serde_json::from_str(&sequence).expect("two LSNs");
    let lsn = event["source"]["lsn"].as_u64().expect("an LSN").to_string();
    assert!(parts.len() == 2 && parts[1] == Some(lsn), "{sequence}");
    for key in ["version", "sequence", "txId", "lsn"] {
        event["source"][key] = "*".into();
    }
}

/// As the script shortens long text.
fn short(value: Json) -> Json {
    match value {
        Json::String(text) if text.len() > 256 => {
            let digest = Md5::digest(text.as_bytes());
            let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
            format!("{} bytes, md5 {hex}", text.len()).into()
        }
        Json::Array(items) => items.into_iter().map(short).collect(),
        Json::Object(fields) => Json::Object(fields.into_iter().map(|(k, v)| (k, short(v))).collect()),
        other => other,
    }
}

struct Comparison {
    mode: String,
    problems: BTreeSet<String>,
    /// Differences of the table that were met.
    met: BTreeSet<usize>,
}

impl Comparison {
    fn topic(&mut self, topic: &str, theirs: &[Line], ours: &[Line]) {
        let table = topic.rsplit('.').next().unwrap_or_default().to_owned();
        // A tombstone without a key tombs nothing, and a compacted topic refuses it.
        let theirs: Vec<Line> =
            theirs.iter().filter(|line| !(line.key.is_null() && line.value.is_null())).cloned().collect();
        if theirs.len() != ours.len() {
            let ops =
                |lines: &[Line]| lines.iter().map(|l| l.value["op"].to_string()).collect::<Vec<_>>().join("");
            self.problem(format!(
                "{topic}: {} records, want {}: {} and {}",
                ours.len(),
                theirs.len(),
                ops(ours),
                ops(&theirs)
            ));
            return;
        }
        for (theirs, ours) in theirs.iter().zip(ours) {
            let row =
                if ours.value["after"].is_null() { &ours.value["before"] } else { &ours.value["after"] };
            let id = row["id"].as_i64().unwrap_or(0) % 1000;
            let at = format!("{topic} {} {}", ours.value["op"], ours.key);
            self.equal(&table, id, &format!("{at} key"), "", &theirs.key, &ours.key);
            self.equal(&table, id, &format!("{at} headers"), "", &theirs.headers, &ours.headers);
            self.schemas(&table, &format!("{at} key schema"), &theirs.key_schema, &ours.key_schema);
            self.schemas(&table, &format!("{at} schema"), &theirs.value_schema, &ours.value_schema);
            self.values(&table, id, &at, &theirs.value, &ours.value);
        }
    }

    fn values(&mut self, table: &str, id: i64, at: &str, theirs: &Json, ours: &Json) {
        let (Some(theirs), Some(ours)) = (theirs.as_object(), ours.as_object()) else {
            self.equal(table, id, at, "", theirs, ours);
            return;
        };
        for name in keys(theirs, ours) {
            let (theirs, ours) = (&theirs[&*name], &ours[&*name]);
            match (theirs.as_object(), ours.as_object()) {
                (Some(theirs), Some(ours)) if name == "before" || name == "after" => {
                    for column in keys(theirs, ours) {
                        let get = |row: &serde_json::Map<String, Json>| {
                            row.get(&column).cloned().unwrap_or(json!("absent"))
                        };
                        self.equal(table, id, &format!("{at} {name}"), &column, &get(theirs), &get(ours));
                    }
                }
                _ => self.equal(table, id, &format!("{at} {name}"), "", theirs, ours),
            }
        }
    }

    fn schemas(&mut self, table: &str, at: &str, theirs: &Json, ours: &Json) {
        let (Some(theirs), Some(ours)) = (theirs["fields"].as_array(), ours["fields"].as_array()) else {
            self.equal(table, 0, at, "", theirs, ours);
            return;
        };
        let mut ours = ours.clone();
        if let Some(left_out) = self.left_out(table) {
            ours.retain(|field| !left_out.contains(&field["field"].as_str().unwrap_or_default()));
        }
        let names = |fields: &[Json]| fields.iter().map(|f| f["field"].clone()).collect::<Vec<_>>();
        if names(theirs) != names(&ours) && !self.on_purpose(table, 0, "*") {
            self.problem(format!("{at}: fields {:?}, want {:?}", names(&ours), names(theirs)));
            return;
        }
        for ours in &ours {
            let name = ours["field"].as_str().unwrap_or_default();
            let Some(theirs) = theirs.iter().find(|field| field["field"] == name) else { continue };
            if name == "before" || name == "after" {
                self.schemas(table, &format!("{at} {name}"), theirs, ours);
                let head = |schema: &Json| {
                    let mut head = schema.clone();
                    head.as_object_mut().expect("a schema").remove("fields");
                    head
                };
                self.equal(table, 0, at, name, &head(theirs), &head(ours));
            } else {
                self.equal(table, 0, at, name, theirs, ours);
            }
        }
    }

    fn left_out(&self, table: &str) -> Option<&'static [&'static str]> {
        match (&*self.mode, table) {
            ("unknown", "rare_arrays") => return Some(&["mon", "nm", "iv", "vb", "x", "p", "rc"]),
            ("unknown", _) => return None,
            _ => {}
        }
        LEFT_OUT.iter().find(|(left, _)| *left == table).map(|(_, columns)| *columns)
    }

    fn equal(&mut self, table: &str, id: i64, at: &str, column: &str, theirs: &Json, ours: &Json) {
        if theirs == ours || self.on_purpose(table, id, column) {
            return;
        }
        if *theirs == "absent" && self.left_out(table).is_some_and(|left_out| left_out.contains(&column)) {
            return;
        }
        self.problem(format!("{at} {column}: {ours}, want {theirs}"));
    }

    fn on_purpose(&mut self, table: &str, id: i64, column: &str) -> bool {
        let found = DIFFERENT.iter().position(|(mode, t, c, rows)| {
            (*mode == "*" || *mode == self.mode)
                && *t == table
                && *c == column
                && (rows.is_empty() || rows.contains(&id))
        });
        self.met.extend(found);
        found.is_some()
    }

    fn problem(&mut self, text: String) {
        let text: String = text.chars().take(600).collect();
        self.problems.insert(text);
    }
}

fn keys(a: &serde_json::Map<String, Json>, b: &serde_json::Map<String, Json>) -> BTreeSet<String> {
    a.keys().chain(b.keys()).cloned().collect()
}

/// The connector's configuration for a mode, and the tables of its publication.
fn configuration(
    name: &str,
    mode: &Json,
    server: &Server,
    all: &[String],
) -> (BTreeMap<String, String>, Vec<String>) {
    let globs: Vec<&str> =
        mode["tables"].as_array().expect("tables").iter().filter_map(Json::as_str).collect();
    let chosen = |table: &&String| {
        let matches = |glob: &&str| match glob.strip_suffix('*') {
            Some("") => *table != "parted",
            Some(start) => table.starts_with(start),
            None => *table == glob,
        };
        *table == "done" || globs.iter().any(matches)
    };
    let tables: Vec<String> = all.iter().filter(chosen).cloned().collect();
    let mut config: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in [
        ("url", server.url()),
        ("tables", "m.*".to_owned()),
        ("topic.prefix", name.to_owned()),
        ("slot.name", name.replace('-', "_")),
        ("publication.name", name.to_owned()),
        ("publication.autocreate.mode", "disabled".to_owned()),
    ] {
        config.insert(key.to_owned(), value);
    }
    let own = mode.as_object().expect("an object").iter().filter(|(key, _)| *key != "tables");
    config.extend(own.map(|(key, value)| (key.clone(), value.as_str().expect("text").to_owned())));
    (config, tables)
}

/// A connector of that mode, with its snapshot behind it.
async fn started(name: String, mode: Json, server: Arc<Server>, all: Vec<String>) -> (String, Driver) {
    let (config, tables) = configuration(&name, &mode, &server, &all);
    let listed: Vec<String> = tables.iter().map(|t| format!("m.\"{}\"", t.replace('"', "\"\""))).collect();
    let root = config.get("publish.via.partition.root").map_or("false", String::as_str);
    server.sql(&format!(
        "CREATE PUBLICATION \"{name}\" FOR TABLE {} WITH (publish_via_partition_root = {root})",
        listed.join(", ")
    ));
    let mut driver = Driver::start(&config, None).await.expect("starts");
    driver.keep_records = true;
    let streaming = format!(
        "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' \
         AND pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}')",
        config["slot.name"]
    );
    driver.until("the stream", |driver| driver.count > 0 && server.sql(&streaming) == "1").await;
    (name, driver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_in_every_mode_is_what_debezium_writes() {
    if !installed() {
        return;
    }
    let server = Server::start(&["max_replication_slots=64", "max_wal_senders=64", "max_connections=300"]);
    for file in ["schema.sql", "rows.sql"] {
        server.file(&folder().join("matrix").join(file));
    }
    let all = server.sql("SELECT relname FROM pg_class WHERE relnamespace = 'm'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1");
    let all: Vec<String> = all.lines().map(str::to_owned).collect();
    let modes: BTreeMap<String, Json> = serde_json::from_str(&text("modes.json")).expect("JSON");
    let only = std::env::var("AQUEDUCT_MODES").unwrap_or_default();
    let server = Arc::new(server);
    let mut starting = JoinSet::new();
    for (name, mode) in
        modes.into_iter().filter(|(name, _)| only.is_empty() || only.split(',').any(|m| m == name))
    {
        starting.spawn(started(name, mode, Arc::clone(&server), all.clone()));
    }
    let drivers = starting.join_all().await;
    server.file(&folder().join("matrix/changes.sql"));

    let (mut problems, mut met) = (BTreeSet::new(), BTreeSet::new());
    for (name, mut driver) in drivers {
        let done = format!("{name}.m.done");
        driver.until("the end", |driver| driver.records.iter().any(|record| *record.topic == *done)).await;
        let mut ours: BTreeMap<String, Vec<Line>> = BTreeMap::new();
        for record in &driver.records {
            ours.entry(record.topic.to_string()).or_default().push(line(record));
        }
        let theirs = expected(&name);
        let mut comparison =
            Comparison { mode: name.clone(), problems: BTreeSet::new(), met: BTreeSet::new() };
        let topics: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
        for topic in topics {
            let get = |side: &BTreeMap<String, Vec<Line>>| side.get(topic).cloned().unwrap_or_default();
            comparison.topic(topic, &get(&theirs), &get(&ours));
        }
        problems.extend(comparison.problems);
        met.extend(comparison.met);
        driver.stop().await;
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    assert!(problems.is_empty(), "{} differences that nobody decided", problems.len());
    if only.is_empty() {
        let unmet: Vec<_> = (0..DIFFERENT.len()).filter(|i| !met.contains(i)).map(|i| DIFFERENT[i]).collect();
        assert!(unmet.is_empty(), "these differences are none any more: {unmet:?}");
    }
}
