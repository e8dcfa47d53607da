//! The generated files about all messages: the module index with the table of APIs, and the samples of the tests.

use super::emit::{Scope, head, structures};
use super::notation::{Api, Field, File, Kind, Message, Versions};

/// The longest line of a macro call, which rustfmt leaves as it is.
const WIDTH: usize = 110;

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
    let mut out = head("messages/*.txt", "All messages, and the table of APIs");
    for file in files {
        put!(out, "mod {};", file.name);
    }
    out.push_str("#[cfg(test)]\npub(crate) mod samples;\n\n");
    for file in files {
        put!(out, "pub use {}::*;", file.name);
    }
    out.push_str("use crate::message::apis::apis;\n\napis! {\n");
    for (api, message) in apis(files) {
        let range = |v: Versions| format!("{}..={}", v.lo, v.hi);
        put!(
            out,
            "    {name} = {}: {}, flexible {}, tell {}, {name}Request, {name}Response;",
            api.key,
            range(message.versions),
            message.flexible_from.map_or("i16::MAX".to_owned(), |from| from.to_string()),
            range(api.advertise),
            name = api.name,
        );
    }
    out.push_str("}\n");
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
    out.push_str("use super::*;\nuse crate::sample::{Sample, Source, sample};\n\n");
    out.push_str(&impls);
    out.push('\n');
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

/// One call of the macro `sample!`, in lines of the usual width.
fn sample(out: &mut String, name: &str, scope: Scope, fields: &[Field]) {
    let range = |v: Versions| format!("{}..={}", v.lo, v.hi);
    let mut line = format!("sample! {{ {name} {{");
    for (i, field) in fields.iter().enumerate() {
        let mut text = format!(" {}", field.name);
        if field.versions != scope.versions {
            text.push_str(&format!(" in {}", range(field.versions)));
        }
        if let Some(null) = field.nullable.filter(|null| *null != field.versions) {
            text.push_str(&format!("; null in {}", range(null)));
        }
        let last = i + 1 == fields.len();
        text.push_str(if last { " } }" } else { "," });
        if line.len() + text.len() > WIDTH {
            put!(out, "{line}");
            line = "   ".to_owned();
        }
        line.push_str(&text);
    }
    put!(out, "{line}");
}
