//! The input of `produce`: read piece by piece, each piece within the largest size of a record.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read};
use std::path::PathBuf;

use aqueduct_client::ProducerRecord;
use aqueduct_core::{Str, Topic};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::record_json;
use crate::args::kafka::{Input, Produce};
use crate::failure::Failure;

/// Records that go to the producer together, at most.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 1 << 20;

/// Where a record stands in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    file: u16,
    line: u64,
}

impl Token {
    const LINE_BITS: u32 = 48;

    pub(super) fn to_bits(self) -> u64 {
        (u64::from(self.file) << Self::LINE_BITS) | self.line
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        let line = bits & ((1 << Self::LINE_BITS) - 1);
        Self { file: u16::try_from(bits >> Self::LINE_BITS).unwrap_or(u16::MAX), line }
    }

    /// For people.
    pub(super) fn place(self, args: &Produce) -> String {
        match (args.files.get(usize::from(self.file)), args.input) {
            (Some(file), Input::Files) => file.display().to_string(),
            (Some(file), _) => format!("{}:{}", file.display(), self.line),
            (None, Input::Files) => "standard input".to_owned(),
            (None, _) => format!("line {}", self.line),
        }
    }
}

/// What was read since the last one.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<(Token, ProducerRecord)>,
    pub(super) bad: Vec<(Token, String)>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.records.len() + self.bad.len() >= BATCH
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.bad.is_empty()
    }
}

/// Whether a person types the records.
pub(super) fn is_typed(args: &Produce) -> bool {
    args.files.is_empty() && io::stdin().is_terminal()
}

/// Makes records of bytes.
struct Shape {
    topic: Topic,
    input: Input,
    key: Option<Bytes>,
    key_separator: Option<Vec<u8>>,
    headers: Vec<(Str, Option<Bytes>)>,
    partition: Option<i32>,
    choose_partition: bool,
    empty_is_null: bool,
    max_bytes: usize,
}

impl Shape {
    fn record(&self, piece: &[u8]) -> Result<ProducerRecord, String> {
        let mut record = match (self.input, &self.key_separator) {
            (Input::Json, _) => record_json::read(&self.topic, piece)?,
            (_, None) => {
                ProducerRecord::new(Topic::clone(&self.topic), None, Some(Bytes::copy_from_slice(piece)))
            }
            (_, Some(separator)) => {
                let at = piece.windows(separator.len()).position(|window| window == separator);
                let at = at.ok_or("the key separator is not in it")?;
                let (key, value) = (&piece[..at], &piece[at + separator.len()..]);
                let copy = |bytes| Some(Bytes::copy_from_slice(bytes));
                ProducerRecord::new(Topic::clone(&self.topic), copy(key), copy(value))
            }
        };
        if self.key.is_some() {
            record.key.clone_from(&self.key);
        }
        if self.empty_is_null {
            record.key = record.key.filter(|key| !key.is_empty());
            record.value = record.value.filter(|value| !value.is_empty());
        }
        record.headers.extend(self.headers.iter().cloned());
        if self.partition.is_some() || self.choose_partition {
            record.partition = self.partition;
        }
        if record.size() > self.max_bytes {
            return Err(self.too_large());
        }
        Ok(record)
    }

    fn too_large(&self) -> String {
        format!("larger than {} bytes; allow more with `-X message.max.bytes=…`", self.max_bytes)
    }
}

/// Reads all of the input.
pub(super) struct Reader {
    shape: Shape,
    files: Vec<PathBuf>,
    delimiter: Vec<u8>,
}

impl Reader {
    pub(super) fn new(args: &Produce, topic: Topic, max_bytes: usize) -> Result<Self, Failure> {
        if args.files.len() > usize::from(u16::MAX) {
            return Err(Failure::usage(format!("at most {} files at once", u16::MAX)));
        }
        if args.input != Input::Lines && args.key_separator.is_some() {
            return Err(Failure::usage("--key-separator is for `--input lines`"));
        }
        // Before anything is sent.
        for file in &args.files {
            let opened = File::open(file).and_then(|file| file.metadata());
            let metadata = opened.map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
            if metadata.is_dir() {
                return Err(Failure::usage(format!("{} is a directory", file.display())));
            }
        }
        let header = |text: &String| match text.split_once('=') {
            Some((name, value)) => (Str::from(name), Some(Bytes::from(value.to_owned()))),
            None => (Str::from(text.as_str()), None),
        };
        let shape = Shape {
            topic,
            input: args.input,
            key: args.key.clone().map(Bytes::from),
            key_separator: args.key_separator.clone().map(|separator| separator.0),
            headers: args.header.iter().map(header).collect(),
            partition: args.partition.filter(|partition| *partition >= 0),
            choose_partition: args.partition == Some(-1),
            empty_is_null: args.empty_is_null,
            max_bytes,
        };
        let delimiter = if args.input == Input::Json { b"\n".to_vec() } else { args.delimiter.0.clone() };
        Ok(Self { shape, files: args.files.clone(), delimiter })
    }

    /// Until the input ends or nobody takes it any more.
    pub(super) fn run(self, batches: &mpsc::Sender<Batch>) {
        if self.files.is_empty() {
            self.source(0, &mut buffered(io::stdin().lock()), batches);
        }
        for (file, path) in (0..=u16::MAX).zip(&self.files) {
            match File::open(path) {
                Ok(opened) => {
                    if !self.source(file, &mut buffered(opened), batches) {
                        return;
                    }
                }
                Err(error) => {
                    let bad = vec![(Token { file, line: 0 }, error.to_string())];
                    if batches.blocking_send(Batch { bad, ..Batch::default() }).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// One source to its end; whether to go on with the next.
    fn source(&self, file: u16, source: &mut Source, batches: &mpsc::Sender<Batch>) -> bool {
        let mut batch = Batch::default();
        let mut line = 0;
        loop {
            line += 1;
            let token = Token { file, line };
            let piece = match self.shape.input {
                Input::Files if line > 1 => Ok(None),
                Input::Files => self.whole(source),
                _ => self.piece(source),
            };
            let ended = match piece {
                Ok(None) => true,
                Ok(Some(piece)) => {
                    // An empty line between objects is nothing.
                    if self.shape.input != Input::Json || !piece.trim_ascii().is_empty() {
                        match self.shape.record(&piece) {
                            Ok(record) => {
                                batch.bytes += record.size();
                                batch.records.push((token, record));
                            }
                            Err(why) => batch.bad.push((token, why)),
                        }
                    }
                    false
                }
                Err(Unread::TooLarge) => {
                    batch.bad.push((token, self.shape.too_large()));
                    false
                }
                Err(Unread::Io(error)) => {
                    batch.bad.push((token, format!("cannot be read: {error}")));
                    true
                }
            };
            // What is typed goes out at once.
            let wait = !ended && !batch.is_full() && !source.buffer().is_empty();
            if !wait && !batch.is_empty() && batches.blocking_send(std::mem::take(&mut batch)).is_err() {
                return false;
            }
            if ended {
                return true;
            }
        }
    }

    /// The next piece without its delimiter; `None` at the end.
    fn piece(&self, source: &mut Source) -> Result<Option<Vec<u8>>, Unread> {
        let Some(last) = self.delimiter.last() else { return Ok(None) };
        // Room for a key and a separator, or the syntax of JSON, around the record.
        let limit = self.shape.max_bytes.saturating_mul(2);
        let mut piece = Vec::new();
        let mut too_large = false;
        loop {
            let before = piece.len();
            let room = (limit + self.delimiter.len()).saturating_sub(before).max(1) as u64;
            let mut part = source.by_ref().take(room);
            let read = part.read_until(*last, &mut piece).map_err(Unread::Io)?;
            if read == 0 {
                return match (too_large, piece.is_empty()) {
                    (true, _) => Err(Unread::TooLarge),
                    (false, true) => Ok(None),
                    (false, false) => Ok(Some(piece)),
                };
            }
            if piece.ends_with(&self.delimiter) {
                piece.truncate(piece.len() - self.delimiter.len());
                return if too_large { Err(Unread::TooLarge) } else { Ok(Some(piece)) };
            }
            if piece.len() > limit {
                // Passed over up to the next delimiter, which may have begun.
                too_large = true;
                piece.drain(..piece.len() - self.delimiter.len().min(piece.len()));
            }
        }
    }

    fn whole(&self, source: &mut Source) -> Result<Option<Vec<u8>>, Unread> {
        let mut all = Vec::new();
        source.by_ref().take(self.shape.max_bytes as u64 + 1).read_to_end(&mut all).map_err(Unread::Io)?;
        if all.len() > self.shape.max_bytes { Err(Unread::TooLarge) } else { Ok(Some(all)) }
    }
}

type Source = BufReader<Box<dyn Read>>;

fn buffered(source: impl Read + 'static) -> Source {
    BufReader::with_capacity(64 << 10, Box::new(source))
}

enum Unread {
    TooLarge,
    Io(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(input: Input, delimiter: &[u8], key_separator: Option<&[u8]>, max_bytes: usize) -> Reader {
        let shape = Shape {
            topic: Topic::from("t"),
            input,
            key: None,
            key_separator: key_separator.map(<[u8]>::to_vec),
            headers: Vec::new(),
            partition: None,
            choose_partition: false,
            empty_is_null: false,
            max_bytes,
        };
        Reader { shape, files: Vec::new(), delimiter: delimiter.to_vec() }
    }

    /// Values by line, and the lines that are bad.
    fn check(reader: &Reader, text: &'static [u8]) -> (Vec<(u64, String)>, Vec<u64>) {
        let (batches_in, mut batches) = mpsc::channel(100);
        assert!(reader.source(0, &mut buffered(text), &batches_in));
        drop(batches_in);
        let (mut values, mut bad) = (Vec::new(), Vec::new());
        while let Some(batch) = batches.blocking_recv() {
            values.extend(batch.records.into_iter().map(|(token, record)| {
                (token.line, String::from_utf8(record.value.expect("a value").to_vec()).expect("text"))
            }));
            bad.extend(batch.bad.into_iter().map(|(token, _)| token.line));
        }
        (values, bad)
    }

    #[test]
    fn lines_are_cut_at_the_delimiter_alone() {
        let values = |delimiter, text| {
            let (values, bad) = check(&reader(Input::Lines, delimiter, None, 100), text);
            assert!(bad.is_empty());
            values.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(values(b"\n", b"a\n\nb"), ["a", "", "b"]);
        assert_eq!(values(b"\n", b"a\r\n"), ["a\r"]);
        assert_eq!(values(b"\n", b""), Vec::<String>::new());
        assert_eq!(values(b"--", b"a-b--c-----d"), ["a-b", "c", "", "-d"]);
    }

    #[test]
    fn what_is_too_large_is_passed_over_and_named() {
        let text = b"short\n0123456789012345678901234567890123456789\n01234567890\nlast\n";
        let (values, bad) = check(&reader(Input::Lines, b"\n", None, 10), text);
        assert_eq!(values, [(1, "short".into()), (4, "last".into())]);
        assert_eq!(bad, [2, 3]);
    }

    #[test]
    fn a_line_without_its_key_is_named() {
        let (values, bad) = check(&reader(Input::Lines, b"\n", Some(b"::"), 100), b"k::v::w\nno key\n");
        assert_eq!((values, bad), (vec![(1, "v::w".into())], vec![2]));
    }

    #[test]
    fn objects_may_have_empty_lines_between() {
        let text = b"{\"value\": 1}\n\n  \nx\n{\"value\": 2}";
        let (values, bad) = check(&reader(Input::Json, b"\n", None, 100), text);
        assert_eq!((values, bad), (vec![(1, "1".into()), (5, "2".into())], vec![4]));
    }

    #[test]
    fn places_survive_the_way_through_the_library() {
        for token in [Token { file: 0, line: 1 }, Token { file: u16::MAX, line: (1 << 48) - 1 }] {
            assert_eq!(Token::from_bits(token.to_bits()), token);
        }
    }
}
