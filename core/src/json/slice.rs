//! Fields of JSON text, found without decoding the rest.
//!
//! **Invariant:** only for text that was checked to be valid. No bytes make it panic; whatever is not plain (a key that
//! stands twice on a way, a key with escapes) is left to decoding, which says what is wrong or decides.

use std::ops::Range;

use bytes::Bytes;

use crate::{FieldPath, Slot, Str};

/// Paths that are looked for together, in one pass.
#[derive(Clone, Debug)]
pub struct Paths {
    roots: Vec<Node>,
    count: usize,
}

#[derive(Clone, Debug)]
struct Node {
    name: Str,
    /// Index of the path that ends here.
    leaf: Option<usize>,
    inner: Vec<Node>,
}

/// Most fields that are looked for in one object.
const MAX_FIELDS: usize = 64;

impl Paths {
    /// `None` where a path is empty, stands twice or leads through the end of another: then decode.
    pub fn new(paths: &[FieldPath]) -> Option<Self> {
        let mut roots = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            insert(&mut roots, path.parts(), index)?;
        }
        Some(Self { roots, count: paths.len() })
    }

    /// Where the value at the end of each path stands in `text`, an object, in the order of the paths. `false` where
    /// the text is not plain; what is in `places` means nothing then.
    pub fn find(&self, text: &[u8], places: &mut Vec<Slot<Range<usize>>>) -> bool {
        places.clear();
        places.resize_with(self.count, || Slot::Missing);
        object(&self.roots, text, 0, places).is_some()
    }
}

fn insert(nodes: &mut Vec<Node>, parts: &[Str], index: usize) -> Option<()> {
    let (name, rest) = parts.split_first()?;
    let at = match nodes.iter().position(|node| node.name == *name) {
        Some(at) => at,
        None if nodes.len() == MAX_FIELDS => return None,
        None => {
            nodes.push(Node { name: name.clone(), leaf: None, inner: Vec::new() });
            nodes.len() - 1
        }
    };
    let node = &mut nodes[at];
    if rest.is_empty() {
        if node.leaf.is_some() || !node.inner.is_empty() {
            return None;
        }
        node.leaf = Some(index);
        return Some(());
    }
    if node.leaf.is_some() {
        return None;
    }
    insert(&mut node.inner, rest, index)
}

/// Looks for `nodes` in the object that begins at `start`.
fn object(nodes: &[Node], text: &[u8], start: usize, places: &mut [Slot<Range<usize>>]) -> Option<()> {
    let mut members = Members::at(text, start)?;
    let mut seen = 0u64;
    while let Some(member) = members.read()? {
        let key = text.get(member.key)?;
        let Some(i) = nodes.iter().position(|node| node.name.as_bytes() == key) else { continue };
        if seen & (1 << i) != 0 {
            return None;
        }
        seen |= 1 << i;
        let node = &nodes[i];
        match (node.leaf, text.get(member.value.start)?) {
            (Some(leaf), _) => places[leaf] = Slot::Found(member.value),
            (None, b'{') => object(&node.inner, text, member.value.start, places)?,
            (None, b'n') => null_parents(&node.inner, places),
            // A field of what has no fields.
            (None, _) => {}
        }
    }
    Some(())
}

fn null_parents(nodes: &[Node], places: &mut [Slot<Range<usize>>]) {
    for node in nodes {
        if let Some(leaf) = node.leaf {
            places[leaf] = Slot::NullParent;
        }
        null_parents(&node.inner, places);
    }
}

/// Copies text and replaces values in it, from the first to the last.
pub struct Splicer<'t> {
    text: &'t [u8],
    out: Vec<u8>,
    copied: usize,
}

impl<'t> Splicer<'t> {
    /// With room for `more` bytes beyond the text's own.
    pub fn new(text: &'t [u8], more: usize) -> Self {
        Self { text, out: Vec::with_capacity(text.len() + more), copied: 0 }
    }

    /// Where to write what stands for `range`, which lies behind the one before.
    pub fn replace(&mut self, range: &Range<usize>) -> &mut Vec<u8> {
        self.out.extend_from_slice(self.text.get(self.copied..range.start).unwrap_or_default());
        self.copied = range.end;
        &mut self.out
    }

    /// The text with everything replaced.
    pub fn finish(mut self) -> Bytes {
        self.out.extend_from_slice(self.text.get(self.copied..).unwrap_or_default());
        self.out.into()
    }
}

/// A key between its quotes, and a value, as places in the text.
struct Member {
    key: Range<usize>,
    value: Range<usize>,
}

/// The members of one object, in order.
struct Members<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Members<'t> {
    fn at(text: &'t [u8], start: usize) -> Option<Self> {
        (text.get(start) == Some(&b'{')).then_some(Self { text, at: start + 1 })
    }

    /// The next member; `Some(None)` after the last. `None` where the text is not plain.
    fn read(&mut self) -> Option<Option<Member>> {
        let mut at = skip_blanks(self.text, self.at)?;
        match self.text[at] {
            b'}' => return Some(None),
            b',' => at = skip_blanks(self.text, at + 1)?,
            _ => {}
        }
        if self.text[at] != b'"' {
            return None;
        }
        let key = at + 1..quote_or_escape(self.text, at + 1)?;
        if self.text[key.end] != b'"' {
            return None;
        }
        let colon = skip_blanks(self.text, key.end + 1)?;
        if self.text[colon] != b':' {
            return None;
        }
        let start = skip_blanks(self.text, colon + 1)?;
        let end = value_end(self.text, start)?;
        self.at = end;
        Some(Some(Member { key, value: start..end }))
    }
}

/// The first byte at or after `at` that is no blank.
fn skip_blanks(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            _ => return Some(at),
        }
    }
}

fn value_end(text: &[u8], start: usize) -> Option<usize> {
    match text.get(start)? {
        b'"' => string_end(text, start),
        b'{' | b'[' => {
            let (mut at, mut depth) = (start, 0usize);
            loop {
                match text.get(at)? {
                    b'"' => at = string_end(text, at)? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth == 1 => return Some(at + 1),
                    b'}' | b']' => depth = depth.checked_sub(1)?,
                    _ => {}
                }
                at += 1;
            }
        }
        _ => {
            let after = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            Some(start + text[start..].iter().position(after)?)
        }
    }
}

/// Behind the closing quote of the string whose opening quote stands at `start`.
fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at = quote_or_escape(text, at)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The first quote or backslash at or after `at`, eight bytes at a time: strings are most of the text.
fn quote_or_escape(text: &[u8], mut at: usize) -> Option<usize> {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    const ESCAPES: u64 = u64::from_ne_bytes([b'\\'; 8]);
    // The lowest bit set belongs to the first byte that is zero.
    let zeroes = |word: u64| word.wrapping_sub(LOW) & !word & HIGH;
    let mut rest = text.get(at..)?;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let hits = zeroes(word ^ QUOTES) | zeroes(word ^ ESCAPES);
        if hits != 0 {
            return Some(at + (hits.trailing_zeros() / 8) as usize);
        }
        at += 8;
        rest = after;
    }
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).map(|i| at + i)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Value, json};

    fn paths(texts: &[&str]) -> Vec<FieldPath> {
        texts.iter().map(|text| FieldPath::parse(text).expect("a path")).collect()
    }

    fn found(wanted: &[&str], text: &str) -> Option<Vec<String>> {
        let mut places = Vec::new();
        let plain =
            Paths::new(&paths(wanted)).expect("no path through another").find(text.as_bytes(), &mut places);
        let each = places.into_iter().map(|place| match place {
            Slot::Found(range) => text[range].to_owned(),
            Slot::NullParent => "null parent".to_owned(),
            Slot::Missing => "missing".to_owned(),
        });
        plain.then(|| each.collect())
    }

    #[test]
    fn values_of_every_kind_are_found_as_they_stand() {
        let text =
            "{ \"a\" : \"x\\\"}\" ,\"b\":{\"c\": [1,{\"d\":\"]\"}] , \"e\":-1.5e3},\"f\":null,\"g\":true}";
        assert_eq!(
            found(&["g", "b.c", "b.e", "a", "f", "f.x", "b.z"][..5], text).expect("plain"),
            ["true", "[1,{\"d\":\"]\"}]", "-1.5e3", "\"x\\\"}\"", "null"]
        );
        assert_eq!(
            found(&["f.x", "b.z", "a.x"], text).expect("plain"),
            ["null parent", "missing", "missing"]
        );
        assert_eq!(found(&["a"], "{}").expect("plain"), ["missing"]);
    }

    #[test]
    fn what_is_not_plain_is_left_to_decoding() {
        assert_eq!(found(&["a"], r#"{"a":1,"a":2}"#), None, "a key twice");
        assert_eq!(found(&["ab"], r#"{"a\u0062":1}"#), None, "an escape in a key");
        assert_eq!(found(&["a"], "[1]"), None, "no object");
        assert!(Paths::new(&paths(&["a", "a.b"])).is_none());
        assert!(Paths::new(&paths(&["a.b", "a"])).is_none());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let entries = proptest::collection::btree_map("[a-c]", inner.clone(), 0..4);
            prop_oneof![
                proptest::collection::vec(inner, 0..4).prop_map(Value::Array),
                entries.prop_map(|map| Value::Map(map.into_iter().map(|(k, v)| (k.into(), v)).collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn finds_what_decoding_finds(value in any_json(), wanted in "[a-c](\\.[a-c]){0,2}") {
            let mut text = Vec::new();
            json::encode(&mut text, &value, None).expect("encodes");
            let path = FieldPath::parse(&wanted).expect("a path");
            let mut places = Vec::new();
            if !Paths::new(std::slice::from_ref(&path)).expect("one path").find(&text, &mut places) {
                prop_assert!(!matches!(value, Value::Map(_)), "only what is no object is not plain here");
                return Ok(());
            }
            let decode = |range: &Range<usize>| json::decode(&Bytes::copy_from_slice(&text[range.clone()]), None);
            match (path.locate(None).expect("without a schema").get(&value), &places[0]) {
                (Slot::Found(expect), Slot::Found(range)) => {
                    prop_assert_eq!(&decode(range).expect("valid"), expect);
                }
                (Slot::NullParent, Slot::NullParent) | (Slot::Missing, Slot::Missing) => {}
                (expect, got) => prop_assert!(false, "{expect:?} and {got:?}"),
            }
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, cut in 0usize..80) {
            let mut places = Vec::new();
            let paths = Paths::new(&paths(&["a.b", "c"])).expect("apart");
            paths.find(&bytes, &mut places);
            let text = br#"{"a":{"b":"x\"y","z":[1,{"q":"\\"}]},"c":null,"d":"abcdefghijklmnop"}"#;
            paths.find(&text[..cut.min(text.len())], &mut places);
        }
    }
}
