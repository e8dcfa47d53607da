//! The generated files about all messages: the module index with the request and response enums, the table of API
//! keys, and the sample values of the tests.

use super::emit::{Scope, head, mentions, structures};
use super::emit_values::{condition, default_value};
use super::notation::{Api, Field, File, Kind, Message, Type};

fn apis(files: &[File]) -> Vec<(&Api, &Message)> {
    let mut apis: Vec<_> = files
        .iter()
        .flat_map(|f| &f.messages)
        .filter_map(|m| match &m.kind {
            Kind::Request { api } => Some((api, m)),
            _ => None,
        })
        .collect();
    apis.sort_by_key(|(api, _)| api.key);
    apis
}

/// `messages.rs`.
pub(crate) fn index(files: &[File]) -> String {
    let mut out = head("messages/*.txt", "All messages, and the enums of requests and responses");
    out.push_str("mod api_key;\n");
    for file in files {
        put!(out, "mod {};", file.name);
    }
    out.push_str("#[cfg(test)]\npub(crate) mod samples;\n\npub use api_key::ApiKey;\n");
    for file in files {
        put!(out, "pub use {}::*;", file.name);
    }
    out.push_str("\nuse crate::error::Result;\nuse crate::reader::Reader;\nuse crate::writer::Writer;\n\n");
    for kind in ["Request", "Response"] {
        any_message(&mut out, kind, &apis(files));
    }
    out
}

fn any_message(out: &mut String, kind: &str, apis: &[(&Api, &Message)]) {
    put!(out, "/// Any {}.\n#[derive(Debug, Clone, PartialEq)]\npub enum {kind} {{", kind.to_lowercase());
    for (api, _) in apis {
        put!(out, "{0}({0}{kind}),", api.name);
    }
    put!(
        out,
        "}}\n\nimpl {kind} {{\n/// The API it belongs to.\npub fn api_key(&self) -> ApiKey {{ match self {{"
    );
    for (api, _) in apis {
        put!(out, "Self::{0}(_) => ApiKey::{0},", api.name);
    }
    out.push_str("} }\n\n/// Reads the message of this API and version.\n");
    out.push_str(
        "pub fn decode(api: ApiKey, version: i16, r: &mut Reader) -> Result<Self> { Ok(match api {\n",
    );
    for (api, _) in apis {
        put!(out, "ApiKey::{0} => Self::{0}({0}{kind}::decode(r, version)?),", api.name);
    }
    out.push_str("}) }\n\n/// Writes the message in this version.\n");
    out.push_str("pub fn encode(&self, w: &mut Writer, version: i16) -> Result<()> { match self {\n");
    for (api, _) in apis {
        put!(out, "Self::{}(m) => m.encode(w, version),", api.name);
    }
    out.push_str("} }\n}\n\n");
    for (api, _) in apis {
        put!(
            out,
            "impl From<{0}{kind}> for {kind} {{ fn from(m: {0}{kind}) -> Self {{ Self::{0}(m) }} }}\n",
            api.name
        );
    }
}

/// `messages/api_key.rs`.
pub(crate) fn api_keys(files: &[File]) -> String {
    let apis = apis(files);
    let mut out =
        head("messages/*.txt", "The table of API keys: names, versions, where the flexible format starts");
    out.push_str("use std::ops::RangeInclusive;\n\n");
    out.push_str("/// An API that can be read and written.\n");
    out.push_str("#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]\n#[repr(i16)]\npub enum ApiKey {\n");
    for (api, _) in &apis {
        put!(out, "{} = {},", api.name, api.key);
    }
    out.push_str("}\n\nimpl ApiKey {\n/// All of them, by key.\npub const ALL: &[Self] = &[\n");
    for (api, _) in &apis {
        put!(out, "Self::{},", api.name);
    }
    out.push_str("];\n\n/// The key on the wire.\npub const fn code(self) -> i16 { self as i16 }\n\n");
    out.push_str(
        "/// The API with this key.\npub fn from_code(code: i16) -> Option<Self> { Some(match code {\n",
    );
    for (api, _) in &apis {
        put!(out, "{} => Self::{},", api.key, api.name);
    }
    out.push_str("_ => return None,\n}) }\n\n");
    let mut table = |doc: &str, signature: &str, value: &dyn Fn(&Api, &Message) -> String| {
        put!(out, "/// {doc}\npub fn {signature} {{ match self {{");
        for (api, message) in &apis {
            put!(out, "Self::{} => {},", api.name, value(api, message));
        }
        out.push_str("} }\n\n");
    };
    table("Kafka's name.", "name(self) -> &'static str", &|api, _| format!("{:?}", api.name));
    table("Versions that are read and written.", "versions(self) -> RangeInclusive<i16>", &|_, m| {
        format!("{}..={}", m.versions.lo, m.versions.hi)
    });
    table("First version in the flexible format.", "flexible_from(self) -> i16", &|_, m| {
        m.flexible_from.unwrap_or(i16::MAX).to_string()
    });
    out.push_str(
        "/// Versions to tell clients. Produce starts at 0, though served from 3: older librdkafka takes a\n",
    );
    out.push_str("/// higher minimum for a broker without compression.\n");
    out.push_str("pub fn advertised(self) -> RangeInclusive<i16> { match self {\n");
    for (api, _) in apis.iter().filter(|(api, m)| api.advertise != m.versions) {
        put!(out, "Self::{} => {}..={},", api.name, api.advertise.lo, api.advertise.hi);
    }
    out.push_str("_ => self.versions(),\n} }\n\n");
    out.push_str("/// Whether this version is in the flexible format.\n");
    out.push_str("pub fn is_flexible(self, version: i16) -> bool { version >= self.flexible_from() }\n}\n");
    out
}

/// `messages/samples.rs`: a value of every message for every version.
pub(crate) fn samples(files: &[File]) -> String {
    let mut out = head("messages/*.txt", "Sample values of all messages, for the tests");
    let mut impls = String::new();
    for message in files.iter().flat_map(|f| &f.messages) {
        for (name, scope, fields) in structures(message) {
            sample(&mut impls, name, scope, fields);
        }
    }
    for (word, path) in
        [("Bytes", "bytes::Bytes"), ("ByteString", "bytestring::ByteString"), ("Uuid", "uuid::Uuid")]
    {
        if mentions(&impls, word) {
            put!(out, "use {path};");
        }
    }
    out.push_str("\nuse super::*;\n");
    if mentions(&impls, "RecordSet") {
        out.push_str("use crate::record_set::RecordSet;\n");
    }
    out.push_str("use crate::sample::{Sample, Source};\n\n");
    out.push_str(&impls);
    let messages = files.iter().flat_map(|f| &f.messages).filter(|m| m.kind != Kind::Shared);
    let names: Vec<&str> = messages.map(|m| m.name.as_str()).collect();
    out.push_str("/// Runs a macro over the names of all messages.\nmacro_rules! for_all_messages { ($run:ident) => {\n");
    for name in names {
        put!(out, "$run!({name});");
    }
    out.push_str("}; }\npub(crate) use for_all_messages;\n\n");
    out.push_str("/// Runs a macro over the names of all requests and responses.\n");
    out.push_str("macro_rules! for_all_apis { ($run:ident) => {\n");
    for (api, _) in apis(files) {
        put!(out, "$run!({0}, {0}Request, {0}Response);", api.name);
    }
    out.push_str("}; }\npub(crate) use for_all_apis;\n");
    out
}

fn sample(out: &mut String, name: &str, scope: Scope, fields: &[Field]) {
    put!(out, "impl Sample for {name} {{");
    let mut body = String::from("Self {\n");
    for field in fields {
        let value = sample_value(field);
        let value = match condition(field.versions, scope.versions) {
            None => value,
            Some(present) => format!("if {present} {{ {value} }} else {{ {} }}", default_value(field)),
        };
        put!(body, "{}: {value},", field.name);
    }
    body.push('}');
    let version = if mentions(&body, "version") { "version" } else { "_version" };
    put!(out, "fn sample(s: &mut Source, {version}: i16) -> Self {{ {body} }} }}\n");
}

fn sample_value(field: &Field) -> String {
    let value = element(&field.ty);
    match field.nullable {
        None => value,
        Some(versions) => match condition(versions, field.versions) {
            None => format!("s.optional(true, |s| {value})"),
            Some(allowed) => format!("s.optional({allowed}, |s| {value})"),
        },
    }
}

fn element(ty: &Type) -> String {
    match ty {
        Type::Plain(plain) => format!("s.{plain}()"),
        Type::String => "s.string()".into(),
        Type::Bytes => "s.bytes()".into(),
        Type::Records => "s.records()".into(),
        Type::Struct(name) => format!("{name}::sample(s, version)"),
        Type::Array(inner) => format!("s.array(|s| {})", element(inner)),
    }
}
