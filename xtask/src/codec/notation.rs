//! The notation of Kafka messages: its model and its parser.
//!
//! **Invariant:** what parses is consistent: field versions lie within those of their structure, tagged fields only
//! in flexible versions, structure names are defined once per file.

use anyhow::{Context, Result, bail, ensure};

/// One file: an API, or several records.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    /// The first line, without its `#`.
    pub(crate) title: String,
    pub(crate) messages: Vec<Message>,
}

/// One top-level structure.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) versions: Versions,
    pub(crate) flexible_from: Option<i16>,
    pub(crate) kind: Kind,
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Request {
        api: Api,
    },
    Response,
    Record,
    /// A structure that several fields of the file have.
    Shared,
}

/// What the line `api` says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Api {
    pub(crate) key: i16,
    pub(crate) name: String,
    /// What ApiVersions tells, where it differs from what is served.
    pub(crate) advertise: Versions,
}

/// An inclusive range of versions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Versions {
    pub(crate) lo: i16,
    pub(crate) hi: i16,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) versions: Versions,
    /// The versions in which it may be null.
    pub(crate) nullable: Option<Versions>,
    pub(crate) tag: Option<u32>,
    pub(crate) default: Option<String>,
    pub(crate) doc: String,
    /// The fields of the structure that this field defines.
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Type {
    /// A number, `bool` or `uuid`.
    Plain(&'static str),
    String,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

const PLAIN: [&str; 9] = ["bool", "i8", "i16", "u16", "i32", "u32", "i64", "f64", "uuid"];

impl Versions {
    /// `4`, `4-7` or `4+`, within `scope`.
    fn parse(text: &str, scope: Self) -> Result<Self> {
        let (lo, hi) = match (text.strip_suffix('+'), text.split_once('-')) {
            (Some(lo), _) => (lo.parse()?, scope.hi),
            (None, Some((lo, hi))) => (lo.parse()?, hi.parse()?),
            (None, None) => (text.parse()?, text.parse()?),
        };
        ensure!(scope.lo <= lo && lo <= hi && hi <= scope.hi, "versions `{text}` lie outside of `{scope:?}`");
        Ok(Self { lo, hi })
    }
}

impl Type {
    fn parse(text: &str) -> Result<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').with_context(|| format!("`{text}` lacks its `]`"))?;
            return Ok(Self::Array(Box::new(Self::parse(inner)?)));
        }
        Ok(match text {
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "records" => Self::Records,
            _ => match PLAIN.iter().find(|p| **p == text) {
                Some(plain) => Self::Plain(plain),
                None if text.starts_with(char::is_uppercase) => Self::Struct(text.to_owned()),
                None => bail!("unknown type `{text}`"),
            },
        })
    }

    /// The structure at its core, if it has one.
    pub(crate) fn structure(&self) -> Option<&str> {
        match self {
            Self::Struct(name) => Some(name),
            Self::Array(inner) => inner.structure(),
            _ => None,
        }
    }
}

const ANY: Versions = Versions { lo: 0, hi: i16::MAX };

impl File {
    /// Parses the text of one file.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self> {
        let lines: Vec<Line<'_>> = text.lines().enumerate().filter_map(Line::new).collect();
        let title = text
            .lines()
            .next()
            .and_then(|l| l.strip_prefix("# "))
            .context("first line must be a `# title`")?;
        let mut file = Self { name: name.to_owned(), title: title.to_owned(), messages: Vec::new() };
        let mut at = 0;
        let mut api: Option<(Api, Versions, Option<i16>)> = None;
        while let Some(line) = lines.get(at) {
            at += 1;
            let words: Vec<&str> = line.code.split_whitespace().collect();
            let head = || format!("line {}: `{}`", line.number, line.code);
            ensure!(line.indent == 0, "{}: is indented too far", head());
            let (name, versions, flexible_from, kind) = match words[..] {
                ["api", key, name, versions, ref options @ ..] => {
                    let versions = Versions::parse(versions, ANY).with_context(head)?;
                    let (flexible, advertise) = options_of(options, versions).with_context(head)?;
                    let key = key.parse().with_context(head)?;
                    api = Some((Api { key, name: name.to_owned(), advertise }, versions, flexible));
                    continue;
                }
                ["request"] | ["response"] => {
                    let (api, versions, flexible) =
                        api.clone().with_context(|| format!("{}: no `api` yet", head()))?;
                    let response = words[0] == "response";
                    let name = format!("{}{}", api.name, if response { "Response" } else { "Request" });
                    (name, versions, flexible, if response { Kind::Response } else { Kind::Request { api } })
                }
                ["record", name, versions, ref options @ ..] => {
                    let versions = Versions::parse(versions, ANY).with_context(head)?;
                    let (flexible, _) = options_of(options, versions).with_context(head)?;
                    (name.to_owned(), versions, flexible, Kind::Record)
                }
                ["struct", name] => {
                    let (_, versions, flexible) =
                        api.clone().with_context(|| format!("{}: no `api` yet", head()))?;
                    (name.to_owned(), versions, flexible, Kind::Shared)
                }
                _ => bail!("{}: expected `api`, `request`, `response`, `struct` or `record`", head()),
            };
            let fields = parse_fields(&lines, &mut at, 1, versions)?;
            let doc = line.doc.clone();
            file.messages.push(Message { name, doc, versions, flexible_from, kind, fields });
        }
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<()> {
        let shared = self.messages.iter().filter(|m| m.kind == Kind::Shared);
        let shared: Vec<&str> = shared.map(|m| m.name.as_str()).collect();
        let mut names = Vec::new();
        for message in &self.messages {
            check_fields(&message.fields, message.flexible_from, &shared, &mut names)
                .with_context(|| format!("in `{}`", message.name))?;
        }
        Ok(())
    }
}

fn options_of(options: &[&str], versions: Versions) -> Result<(Option<i16>, Versions)> {
    let (mut flexible, mut advertise) = (None, versions);
    for pair in options.chunks(2) {
        match pair {
            ["flexible", from] => {
                flexible = Some(from.strip_suffix('+').context("`flexible` takes `N+`")?.parse()?);
            }
            ["advertise", range] => advertise = Versions::parse(range, ANY)?,
            other => bail!("unknown option `{}`", other.join(" ")),
        }
    }
    Ok((flexible, advertise))
}

fn check_fields(
    fields: &[Field],
    flexible_from: Option<i16>,
    shared: &[&str],
    names: &mut Vec<String>,
) -> Result<()> {
    for field in fields {
        let what = || format!("field `{}`", field.name);
        if field.tag.is_some() {
            ensure!(
                flexible_from.is_some_and(|f| f <= field.versions.lo),
                "{}: tagged before flexible",
                what()
            );
        }
        if let Type::Struct(_) = field.ty {
            let null =
                field.nullable.is_none() || (field.tag.is_none() && field.default.as_deref() == Some("null"));
            ensure!(null, "{}: a structure that may be null is untagged and has the default null", what());
        }
        match field.ty.structure() {
            Some(name) if !field.fields.is_empty() => {
                let twice = shared.contains(&name) || names.iter().any(|n| n == name);
                ensure!(!twice, "{}: `{name}` is defined twice", what());
                names.push(name.to_owned());
            }
            Some(name) => ensure!(shared.contains(&name), "{}: `{name}` has no fields", what()),
            None => ensure!(field.fields.is_empty(), "{}: is not a structure but has fields", what()),
        }
        check_fields(&field.fields, flexible_from, shared, names)?;
    }
    Ok(())
}

/// One line that is not blank, cut into its parts.
struct Line<'a> {
    number: usize,
    indent: usize,
    code: &'a str,
    doc: String,
}

impl<'a> Line<'a> {
    fn new((index, text): (usize, &'a str)) -> Option<Self> {
        let (code, doc) = text.split_once('#').unwrap_or((text, ""));
        let indent = (code.len() - code.trim_start().len()) / 2;
        let code = code.trim();
        let line = Self { number: index + 1, indent, code, doc: doc.trim().to_owned() };
        (!code.is_empty()).then_some(line)
    }
}

fn parse_fields(lines: &[Line<'_>], at: &mut usize, indent: usize, scope: Versions) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    while let Some(line) = lines.get(*at).filter(|l| l.indent == indent) {
        *at += 1;
        let mut field =
            parse_field(line, scope).with_context(|| format!("line {}: `{}`", line.number, line.code))?;
        field.fields = parse_fields(lines, at, indent + 1, field.versions)?;
        fields.push(field);
    }
    Ok(fields)
}

/// `name: type[?[versions]] [versions] [tag N] [= default]`
fn parse_field(line: &Line<'_>, scope: Versions) -> Result<Field> {
    let (name, rest) = line.code.split_once(": ").context("expected `name: type`")?;
    let (rest, default) = match rest.split_once(" = ") {
        Some((rest, default)) => (rest, Some(default.trim().to_owned())),
        None => (rest, None),
    };
    let mut words = rest.split_whitespace();
    let ty = words.next().context("type is missing")?;
    let (mut versions, mut tag) = (scope, None);
    while let Some(word) = words.next() {
        match word {
            "tag" => tag = Some(words.next().context("`tag` needs a number")?.parse()?),
            range => versions = Versions::parse(range, scope)?,
        }
    }
    let (ty, nullable) = match ty.split_once('?') {
        None => (ty, None),
        Some((ty, "")) => (ty, Some(versions)),
        Some((ty, range)) => (ty, Some(Versions::parse(range, versions)?)),
    };
    let (name, ty, doc) = (name.to_owned(), Type::parse(ty)?, line.doc.clone());
    Ok(Field { name, ty, versions, nullable, tag, default, doc, fields: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "# Ping: an example\n\napi 999 Ping 0-3 flexible 2+ advertise 0-2\n\nrequest\n  id: i32 = -1  # Who\n  names: [Name]?1+\n    name: string? 1+ = null\n  extra: bytes 2+ tag 0\n";

    #[test]
    fn example_parses_into_its_parts() {
        let file = File::parse("ping", EXAMPLE).unwrap();
        let message = &file.messages[0];
        assert_eq!(message.name, "PingRequest");
        assert_eq!(message.flexible_from, Some(2));
        assert_eq!(message.fields[0].doc, "Who");
        assert_eq!(message.fields[0].default.as_deref(), Some("-1"));
        assert_eq!(message.fields[1].nullable, Some(Versions { lo: 1, hi: 3 }));
        assert_eq!(message.fields[1].fields[0].versions, Versions { lo: 1, hi: 3 });
        assert_eq!(message.fields[2].tag, Some(0));
    }

    #[test]
    fn mistakes_name_their_line() {
        for (from, to, expect) in [
            ("i32", "int", "line 6"),
            ("2+ tag 0", "1+ tag 0", "tagged before flexible"),
            ("2+ tag", "2-9 tag", "line 9"),
            ("[Name]", "[Name", "line 7"),
            ("[Name]", "[i32]", "not a structure"),
        ] {
            let text = EXAMPLE.replacen(from, to, 1);
            let error = format!("{:#}", File::parse("ping", &text).unwrap_err());
            assert!(error.contains(expect), "{to}: {error}");
        }
    }
}
