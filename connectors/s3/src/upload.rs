//! One object's way into the bucket: pieces, bytes, parts, complete.
//!
//! What fits in one piece is put; the rest goes up in parts as it comes. An [`Upload`] remembers how far it is, so after
//! an outage [`Upload::advance`] is simply called again.
//!
//! **Invariant:** done means that an object with exactly these bytes is in the bucket, under a name that only records
//! from this offset on have. Parts are freed once they are up, so an object whose name is taken at the very end, by
//! other content, cannot be written again from here: the task starts over from its committed offsets, finds the name
//! taken from the beginning, and takes the next.

use std::collections::VecDeque;

use aqueduct_core::rolling::Buffer as _;
use aqueduct_core::{Error, Result, failpoint};
use aws_sdk_s3::types::CompletedPart;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::config::MIN_PART;
use crate::format::{Encoder, Format, Piece};
use crate::store::{Content, Failure, Found, Store};

/// How many objects of one first offset may exist; each is a crash or a rebalance at the same place.
const MAX_ATTEMPTS: u32 = 1000;

/// Bytes on their way, and the memory they hold.
#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    held: usize,
}

impl Chunk {
    fn new(buffer: Vec<u8>) -> Self {
        Self { held: buffer.capacity(), bytes: Bytes::from(buffer) }
    }

    /// Memory held.
    fn held(&self) -> usize {
        self.held
    }
}

/// The names that an object may get.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Path and name up to the first offset.
    stem: String,
    extension: &'static str,
    /// Stands in the name where the server cannot keep names unique.
    random: Option<String>,
}

impl Names {
    pub(crate) fn new(stem: String, extension: &'static str, conditional: bool) -> Self {
        let random = (!conditional).then(|| uuid::Uuid::new_v4().simple().to_string()[..16].to_owned());
        Self { stem, extension, random }
    }

    fn key(&self, attempt: u32) -> String {
        let (stem, extension) = (&self.stem, self.extension);
        match (&self.random, attempt) {
            (Some(random), _) => format!("{stem}.{random}.{extension}"),
            (None, 0) => format!("{stem}.{extension}"),
            (None, n) => format!("{stem}.{n}.{extension}"),
        }
    }
}

/// An object that is not in the bucket yet.
#[derive(Debug)]
pub(crate) struct Upload {
    names: Names,
    /// Size of parts.
    part: usize,
    /// `None` when everything is encoded.
    encoder: Option<Encoder>,
    /// Not encoded yet.
    pieces: VecDeque<Piece>,
    /// Encoded, but not enough for a part.
    encoded: Vec<u8>,
    waiting: VecDeque<Chunk>,
    multipart: Option<Multipart>,
    /// No more pieces come.
    sealed: bool,
}

#[derive(Debug)]
struct Multipart {
    key: String,
    id: String,
    parts: Vec<CompletedPart>,
    size: u64,
    crc: u32,
    /// CRC-32C over the parts' CRC-32Cs.
    crc_of_parts: u32,
    /// Objects that had the names before this one when it began.
    rivals: Vec<Found>,
    /// Whether completing was tried before; its outcome may be unknown.
    tried: bool,
}

impl Upload {
    pub(crate) fn new(names: Names, format: Format, part: usize) -> Self {
        Self {
            names,
            part,
            encoder: Some(Encoder::new(format)),
            pieces: VecDeque::new(),
            encoded: Vec::new(),
            waiting: VecDeque::new(),
            multipart: None,
            sealed: false,
        }
    }

    /// Adds a piece. Those that need no encoding are parts, so all but the last are large enough for one.
    pub(crate) fn push(&mut self, piece: Piece) {
        let piece = match &self.encoder {
            Some(encoder) => encoder.plain(piece),
            None => Err(piece),
        };
        match piece {
            Ok(bytes) => self.waiting.push_back(Chunk::new(bytes)),
            Err(piece) => self.pieces.push_back(piece),
        }
    }

    /// Makes a part of what is encoded, if it is large enough for any server; answers whether it was.
    pub(crate) fn cut(&mut self) -> bool {
        let enough = self.encoded.len() >= MIN_PART;
        if enough {
            self.waiting.push_back(Chunk::new(std::mem::take(&mut self.encoded)));
        }
        enough
    }

    /// No more bytes come.
    pub(crate) fn seal(&mut self) {
        self.sealed = true;
    }

    /// Memory held.
    pub(crate) fn held(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(Piece::held).sum();
        pieces + self.encoded.capacity() + self.waiting.iter().map(Chunk::held).sum::<usize>()
    }

    /// Whether there is anything to do now.
    pub(crate) fn has_work(&self) -> bool {
        self.sealed || !self.waiting.is_empty() || !self.pieces.is_empty()
    }

    /// Key and id of the multipart upload, if there is one.
    pub(crate) fn into_multipart(self) -> Option<(String, String)> {
        self.multipart.map(|multipart| (multipart.key, multipart.id))
    }

    /// Goes on as far as the pieces at hand allow; `true` when the object is in the bucket. `encoders` bounds how many
    /// uploads encode at once.
    pub(crate) async fn advance(&mut self, store: &Store, encoders: &Semaphore) -> Result<bool> {
        while !self.pieces.is_empty() || (self.sealed && self.encoder.is_some()) {
            let permit = encoders.acquire().await;
            self.encode().await?;
            drop(permit);
        }
        if self.sealed && self.multipart.is_none() && self.waiting.len() == 1 {
            self.put(store).await?;
            self.waiting.clear();
            return Ok(true);
        }
        while let Some(chunk) = self.waiting.front() {
            let (bytes, number) =
                (chunk.bytes.clone(), self.multipart.as_ref().map_or(0, |m| m.parts.len()) + 1);
            let multipart = match &mut self.multipart {
                Some(multipart) => multipart,
                None => self.multipart.insert(Multipart::begin(&self.names, store).await?),
            };
            multipart.part(store, number, bytes).await?;
            self.waiting.pop_front();
        }
        match &mut self.multipart {
            Some(multipart) if self.sealed => multipart.complete(store).await.map(|()| true),
            _ => Ok(false),
        }
    }

    /// Encodes the next piece or, behind the last, what ends the object.
    async fn encode(&mut self) -> Result<()> {
        let broken = || Error::fatal(format!("the encoding of `{}` broke off", self.names.stem));
        let mut encoder = self.encoder.take().ok_or_else(broken)?;
        let made = match self.pieces.pop_front() {
            None => encoder.finish()?,
            Some(piece) => {
                let work = move || encoder.encode(piece).map(|bytes| (encoder, bytes));
                let done = spawn_blocking(work).await.map_err(|error| broken().with_source(error))?;
                let (encoder, bytes) = done?;
                self.encoder = Some(encoder);
                bytes
            }
        };
        if self.encoded.is_empty() {
            self.encoded = made;
        } else {
            self.encoded.extend_from_slice(&made);
        }
        let last = self.encoder.is_none() && !self.encoded.is_empty();
        if last || self.encoded.len() >= self.part {
            self.encoded.shrink_to_fit();
            self.waiting.push_back(Chunk::new(std::mem::take(&mut self.encoded)));
        }
        Ok(())
    }

    /// Puts the only chunk under the first name that is free, or finds it under one that is not.
    async fn put(&self, store: &Store) -> Result<()> {
        let Some(chunk) = self.waiting.front() else { return Ok(()) };
        let crc = crc32c::crc32c(&chunk.bytes);
        let content = Content { size: chunk.bytes.len() as u64, crc, parts: None };
        for attempt in 0..MAX_ATTEMPTS {
            let key = self.names.key(attempt);
            failpoint::hit("s3.before_complete");
            match store.put(&key, chunk.bytes.clone(), crc).await {
                Ok(()) => {
                    failpoint::hit("s3.after_complete");
                    return Ok(());
                }
                Err(Failure::Exists) => match store.head(&key).await? {
                    Some(found) if found.is(&content) => return Ok(()),
                    Some(_) => {}
                    None => return Err(Failure::Exists.into_error("write", &key)),
                },
                Err(failure) => return Err(failure.into_error("write", &key)),
            }
        }
        Err(too_many(&self.names))
    }
}

impl Multipart {
    /// Begins under the first name that is free now.
    async fn begin(names: &Names, store: &Store) -> Result<Self> {
        let mut rivals = Vec::new();
        for attempt in 0..MAX_ATTEMPTS {
            let key = names.key(attempt);
            if store.conditional()
                && let Some(found) = store.head(&key).await?
            {
                rivals.push(found);
                continue;
            }
            let id = store.create(&key).await?;
            return Ok(Self {
                key,
                id,
                parts: Vec::new(),
                size: 0,
                crc: 0,
                crc_of_parts: 0,
                rivals,
                tried: false,
            });
        }
        Err(too_many(names))
    }

    async fn part(&mut self, store: &Store, number: usize, bytes: Bytes) -> Result<()> {
        let number = i32::try_from(number).map_err(|_| Error::fatal("an object has too many parts"))?;
        let (crc, size) = (crc32c::crc32c(&bytes), bytes.len());
        failpoint::hit("s3.part");
        let part = store.part(&self.key, &self.id, number, bytes, crc).await;
        self.parts.push(part.map_err(|failure| failure.into_error("upload a part of", &self.key))?);
        self.crc = crc32c::crc32c_combine(self.crc, crc, size);
        self.crc_of_parts = crc32c::crc32c_append(self.crc_of_parts, &crc.to_be_bytes());
        self.size += size as u64;
        Ok(())
    }

    async fn complete(&mut self, store: &Store) -> Result<()> {
        let parts = Some((self.crc_of_parts, self.parts.len()));
        let content = Content { size: self.size, crc: self.crc, parts };
        if self.rivals.iter().any(|rival| rival.is(&content)) {
            // The very same was written before a crash.
            self.abort(store).await;
            return Ok(());
        }
        failpoint::hit("s3.before_complete");
        let repeated = std::mem::replace(&mut self.tried, true);
        let failure = match store.complete(&self.key, &self.id, &self.parts, &content).await {
            Ok(()) if !repeated => None,
            // Some servers say yes to a repetition although the first try made no object.
            Ok(()) => Some(Failure::Gone),
            Err(failure @ (Failure::Exists | Failure::Gone)) => Some(failure),
            Err(Failure::Other(error)) => return Err(error),
        };
        if let Some(failure) = failure {
            let found = store.head(&self.key).await?;
            let own = |found: &Found| !store.conditional() && found.size() == content.size;
            if !found.is_some_and(|found| found.is(&content) || own(&found)) {
                let key = &self.key;
                self.abort(store).await;
                return Err(Error::fatal(match failure {
                    Failure::Exists => {
                        format!("`{key}` was written by somebody else meanwhile; reading its records again")
                    }
                    _ => format!("the upload of `{key}` is gone; reading its records again"),
                }));
            }
            if matches!(failure, Failure::Exists) {
                self.abort(store).await;
            }
        }
        failpoint::hit("s3.after_complete");
        Ok(())
    }

    /// What stays is found and aborted when the partition is opened the next time.
    async fn abort(&self, store: &Store) {
        if let Err(error) = store.abort(&self.key, &self.id).await {
            tracing::warn!(key = %self.key, error = %error.full(), "cannot abort a multipart upload");
        }
    }
}

fn too_many(names: &Names) -> Error {
    Error::fatal(format!("the bucket holds {MAX_ATTEMPTS} objects named `{}`; move them away", names.stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_attempts_or_are_random() {
        let names = Names::new("p/t+0+00000000000000000007".to_owned(), "jsonl", true);
        assert_eq!(names.key(0), "p/t+0+00000000000000000007.jsonl");
        assert_eq!(names.key(2), "p/t+0+00000000000000000007.2.jsonl");
        let random = Names::new("p/t+0+00000000000000000007".to_owned(), "jsonl", false);
        assert_eq!(random.key(0), random.key(1));
        assert_ne!(random.key(0), Names::new("p/t+0+00000000000000000007".to_owned(), "jsonl", false).key(0));
    }

    #[test]
    fn checksums_of_parts_combine_to_that_of_the_whole() {
        let (a, b) = (vec![1u8; 70_000], vec![2u8; 33]);
        let whole = crc32c::crc32c(&[&a[..], &b[..]].concat());
        let first = crc32c::crc32c_combine(0, crc32c::crc32c(&a), a.len());
        assert_eq!(crc32c::crc32c_combine(first, crc32c::crc32c(&b), b.len()), whole);
    }
}
