//! Lines out of a stream of bytes, bounded in length.

use std::io::{self, Read};

use bytes::Bytes;

/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// What is kept of a line that is too long.
const KEPT: usize = 64 << 10;

/// A line, and the bytes that it took with its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Bytes, u64),
    /// The beginning of one that is longer than allowed.
    Long(Bytes, u64),
}

/// Splits what `from` gives.
pub(super) struct Lines<R> {
    from: R,
    max: usize,
    buffer: Vec<u8>,
    /// Where the next line begins in the buffer.
    start: usize,
    /// Bytes of the line at hand that were let go, because it is too long; its beginning is kept.
    skipped: Option<(Bytes, u64)>,
    ended: bool,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(from: R, max: usize) -> Self {
        Self { from, max, buffer: Vec::new(), start: 0, skipped: None, ended: false }
    }

    /// The next line; `None` when there is no more line end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut looked = 0;
        loop {
            if let Some(at) = self.buffer[self.start + looked..].iter().position(|byte| *byte == b'\n') {
                let end = self.start + looked + at;
                let bytes = self.buffer[self.start..end].to_vec();
                let taken = (end + 1 - self.start) as u64;
                self.start = end + 1;
                return Ok(Some(self.line(bytes, taken)));
            }
            looked = self.buffer.len() - self.start;
            if looked > self.max {
                let (_, skipped) = self.skipped.get_or_insert_with(|| {
                    let kept = &self.buffer[self.start..self.start + KEPT.min(looked)];
                    (Bytes::copy_from_slice(kept), 0)
                });
                *skipped += looked as u64;
                self.start = self.buffer.len();
                looked = 0;
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    /// What stands behind the last line end, taken as a line.
    pub(super) fn rest(&mut self) -> Option<Line> {
        let bytes = self.buffer[self.start..].to_vec();
        self.start = self.buffer.len();
        let taken = bytes.len() as u64;
        (taken > 0 || self.skipped.is_some()).then(|| self.line(bytes, taken))
    }

    fn line(&mut self, mut bytes: Vec<u8>, taken: u64) -> Line {
        if let Some((kept, skipped)) = self.skipped.take() {
            return Line::Long(kept, skipped + taken);
        }
        if bytes.len() > self.max {
            bytes.truncate(KEPT);
            return Line::Long(bytes.into(), taken);
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Line::Whole(bytes.into(), taken)
    }

    fn more(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let had = self.buffer.len();
        self.buffer.resize(had + CHUNK, 0);
        let read = loop {
            match self.from.read(&mut self.buffer[had..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(had + *read.as_ref().unwrap_or(&0));
        self.ended = read? == 0;
        Ok(!self.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], max: usize) -> (Vec<Line>, Option<Line>) {
        let mut lines = Lines::new(text, max);
        let mut whole = Vec::new();
        while let Some(line) = lines.next().expect("reads from memory") {
            whole.push(line);
        }
        (whole, lines.rest())
    }

    fn whole(text: &'static str, taken: u64) -> Line {
        Line::Whole(Bytes::from_static(text.as_bytes()), taken)
    }

    #[test]
    fn a_line_counts_with_its_end() {
        let (lines, rest) = all(b"a\r\n\nbc\nd", 10);
        assert_eq!(lines, [whole("a", 3), whole("", 1), whole("bc", 3)]);
        assert_eq!(rest, Some(whole("d", 1)));
        assert_eq!(all(b"", 10), (vec![], None));
    }

    #[test]
    fn a_line_that_is_too_long_costs_no_memory_and_its_bytes_count() {
        let mut text = vec![b'x'; 1 << 20];
        text.extend_from_slice(b"\nshort\n");
        let (lines, rest) = all(&text, 1000);
        assert!(
            matches!(&lines[0], Line::Long(kept, taken) if kept.len() <= KEPT && *taken == (1 << 20) + 1)
        );
        assert_eq!((&lines[1], rest), (&whole("short", 6), None));
        let (lines, rest) = all(&text[..5000], 1000);
        assert!(lines.is_empty());
        assert!(matches!(rest, Some(Line::Long(_, 5000))));
    }
}
