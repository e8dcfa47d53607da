//! The Rust expressions for single fields: types, defaults, conditions, reading and writing.

use super::emit::Scope;
use super::notation::{Field, Type, Versions};

/// The test that a version lies in `versions`, given that it lies in `scope`; `None` when it always does.
pub(crate) fn condition(versions: Versions, scope: Versions) -> Option<String> {
    let Versions { lo, hi } = versions;
    match (lo > scope.lo, hi < scope.hi) {
        (false, false) => None,
        (true, false) => Some(format!("version >= {lo}")),
        (false, true) => Some(format!("version <= {hi}")),
        (true, true) if lo == hi => Some(format!("version == {lo}")),
        (true, true) => Some(format!("({lo}..={hi}).contains(&version)")),
    }
}

pub(crate) fn rust_type(field: &Field) -> String {
    let name = type_name(&field.ty);
    if field.nullable.is_some() { format!("Option<{name}>") } else { name }
}

fn type_name(ty: &Type) -> String {
    match ty {
        Type::Plain("uuid") => "Uuid".into(),
        Type::Plain(name) => (*name).into(),
        Type::String => "ByteString".into(),
        Type::Bytes => "Bytes".into(),
        Type::Records => "RecordSet".into(),
        Type::Struct(name) => name.clone(),
        Type::Array(inner) => format!("Vec<{}>", type_name(inner)),
    }
}

/// Whether `#[derive(Default)]` gives the right values.
pub(crate) fn derives_default(fields: &[Field]) -> bool {
    fields.iter().all(|f| match f.nullable {
        Some(_) => f.default.as_deref() == Some("null"),
        None => f.default.is_none(),
    })
}

/// Kafka's default: what an absent field reads as.
pub(crate) fn default_value(field: &Field) -> String {
    let value = match (&field.ty, field.default.as_deref()) {
        (_, Some("null")) => return "None".into(),
        (Type::Plain("i32"), Some("2147483647")) => "i32::MAX".into(),
        (Type::Plain("i32"), Some("-2147483648")) => "i32::MIN".into(),
        (Type::Plain("i64"), Some("9223372036854775807")) => "i64::MAX".into(),
        (Type::Plain(_), Some(literal)) => literal.to_owned(),
        (Type::String, Some(text)) => format!("ByteString::from_static({text:?})"),
        (Type::Plain("uuid"), None) => "Uuid::nil()".into(),
        (Type::Plain("bool"), None) => "false".into(),
        (Type::Plain("f64"), None) => "0.0".into(),
        (Type::Plain(_), None) => "0".into(),
        (Type::Array(_), _) => "Vec::new()".into(),
        (Type::String, None) => "ByteString::new()".into(),
        (Type::Bytes, _) => "Bytes::new()".into(),
        (Type::Records, _) => "RecordSet::EMPTY".into(),
        (Type::Struct(name), _) => format!("{name}::default()"),
    };
    if field.nullable.is_some() { format!("Some({value})") } else { value }
}

/// The test that a tagged field has to be written.
pub(crate) fn differs_from_default(field: &Field) -> String {
    let name = &field.name;
    match (&field.ty, field.nullable, field.default.as_deref()) {
        (_, Some(_), Some("null")) => format!("self.{name}.is_some()"),
        (Type::Plain("bool"), None, None) => format!("self.{name}"),
        (Type::Plain("uuid"), None, None) => format!("!self.{name}.is_nil()"),
        (Type::String | Type::Bytes | Type::Records | Type::Array(_), None, None) => {
            format!("!self.{name}.is_empty()")
        }
        _ => format!("self.{name} != {}", default_value(field)),
    }
}

/// The expression that reads the field.
pub(crate) fn decode_value(field: &Field, flexible: &str) -> String {
    let name = &field.name;
    match (&field.ty, field.nullable) {
        (Type::String, Some(_)) => format!("r.nullable_string({flexible})?"),
        (Type::Bytes, Some(_)) => format!("r.nullable_bytes({flexible})?"),
        (Type::Records, Some(_)) => format!("r.nullable_bytes({flexible})?.map(RecordSet::from)"),
        (Type::Array(inner), Some(_)) => {
            format!("r.nullable_array({flexible}, |r| {})?", decode_element(inner, name, flexible))
        }
        (Type::Array(inner), None) => {
            format!("r.array({flexible}, {name:?}, |r| {})?", decode_element(inner, name, flexible))
        }
        (Type::Struct(structure), Some(_)) => {
            format!("r.nullable_struct(|r| {structure}::decode(r, version))?")
        }
        (Type::Records, None) => format!("RecordSet::from(r.bytes({flexible}, {name:?})?)"),
        (ty, _) => format!("{}?", decode_element(ty, name, flexible)),
    }
}

/// A `Result` of one value that is not null.
fn decode_element(ty: &Type, name: &str, flexible: &str) -> String {
    match ty {
        Type::Plain(plain) => format!("r.{plain}()"),
        Type::String => format!("r.string({flexible}, {name:?})"),
        Type::Bytes => format!("r.bytes({flexible}, {name:?})"),
        Type::Records => format!("r.bytes({flexible}, {name:?}).map(RecordSet::from)"),
        Type::Struct(structure) => format!("{structure}::decode(r, version)"),
        Type::Array(inner) => {
            format!("r.array({flexible}, {name:?}, |r| {})", decode_element(inner, name, flexible))
        }
    }
}

/// The statement that writes the field.
pub(crate) fn encode_value(field: &Field, scope: Scope) -> String {
    let (name, flexible) = (&field.name, scope.flexible());
    let Some(nullable) = field.nullable else {
        let place = match &field.ty {
            Type::Plain(_) | Type::Struct(_) => format!("self.{name}"),
            _ => format!("&self.{name}"),
        };
        return format!("{};", encode_place(&field.ty, &place, flexible));
    };
    let null = match field.ty {
        Type::String => format!("w.null_string({flexible})"),
        Type::Struct(_) => "w.null_struct()".to_owned(),
        _ => format!("w.null({flexible})"),
    };
    let none = match condition(nullable, field.versions) {
        None => format!("None => {null},"),
        Some(allowed) => {
            format!("None if {allowed} => {null}, None => return Err(WireError::UnexpectedNull({name:?})),")
        }
    };
    let place = if matches!(field.ty, Type::Plain(_)) { "*value" } else { "value" };
    let some = encode_place(&field.ty, place, flexible);
    let some = match field.ty {
        Type::Struct(_) => format!("{{ w.some_struct(); {some} }}"),
        _ => some,
    };
    format!("match &self.{name} {{ Some(value) => {some}, {none} }}")
}

/// An expression of type `()` that writes what stands at `place`.
fn encode_place(ty: &Type, place: &str, flexible: &str) -> String {
    match ty {
        Type::Plain(plain) => format!("w.{plain}({place})"),
        Type::String => format!("w.string({place}, {flexible})?"),
        Type::Bytes => format!("w.bytes({place}, {flexible})?"),
        Type::Records => format!("w.records({place}, {flexible})?"),
        Type::Struct(_) => format!("{place}.encode(w, version)?"),
        Type::Array(inner) => {
            let element = match &**inner {
                Type::Plain(plain) => format!("{{ w.{plain}(*e); Ok(()) }}"),
                other => encode_place(other, "e", flexible).trim_end_matches('?').to_owned(),
            };
            format!("w.array({place}, {flexible}, |w, e| {element})?")
        }
    }
}
