//! Messages of the server, found in the read buffer without copying them.

use bytes::{Buf as _, Bytes, BytesMut};

use super::PgError;

/// Tag and length in front of every message.
const HEADER: usize = 5;

/// PostgreSQL itself never makes a larger one.
const MAX_BODY: usize = 1 << 30;

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) body: Bytes,
}

/// What a COPY stream yields.
#[derive(Clone, Debug)]
pub(crate) enum Chunk {
    /// Whole CopyData messages, back to back, headers included.
    Data(Bytes),
    /// Any other message.
    Other(Frame),
}

/// Length of the message at the start of `buf` with its header, once the header is there.
fn frame_len(buf: &[u8]) -> Result<Option<usize>, PgError> {
    let Some(header) = buf.first_chunk::<HEADER>() else { return Ok(None) };
    let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if !(4..=MAX_BODY).contains(&len) {
        return Err(PgError::Protocol(format!("a message of {len} bytes")));
    }
    Ok(Some(len + 1))
}

/// Bytes that the message at the start of `buf` still lacks; at least 1 when it is not complete.
pub(super) fn missing(buf: &[u8]) -> Result<usize, PgError> {
    Ok(match frame_len(buf)? {
        None => HEADER - buf.len(),
        Some(len) => len.saturating_sub(buf.len()),
    })
}

/// Takes the next message, when it is complete.
pub(super) fn take_frame(buf: &mut BytesMut) -> Result<Option<Frame>, PgError> {
    match frame_len(buf)? {
        Some(len) if buf.len() >= len => {
            let mut frame = buf.split_to(len).freeze();
            let tag = frame[0];
            frame.advance(HEADER);
            Ok(Some(Frame { tag, body: frame }))
        }
        _ => Ok(None),
    }
}

/// Takes as many complete CopyData messages as lie in front, or one other message.
pub(super) fn take_chunk(buf: &mut BytesMut) -> Result<Option<Chunk>, PgError> {
    let mut end = 0;
    while buf.get(end) == Some(&b'd') {
        match frame_len(&buf[end..])? {
            Some(len) if buf.len() - end >= len => end += len,
            _ => break,
        }
    }
    if end > 0 {
        return Ok(Some(Chunk::Data(buf.split_to(end).freeze())));
    }
    Ok(take_frame(buf)?.map(Chunk::Other))
}

/// Walks the CopyData messages of a chunk, giving where each body lies.
pub(crate) struct CopyFrames<'a> {
    chunk: &'a [u8],
    at: usize,
}

impl<'a> CopyFrames<'a> {
    pub(crate) fn new(chunk: &'a [u8]) -> Self {
        Self { chunk, at: 0 }
    }
}

impl Iterator for CopyFrames<'_> {
    type Item = std::ops::Range<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.chunk.get(self.at..)?.first_chunk::<HEADER>()?;
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let body = self.at + HEADER..self.at + 1 + len;
        self.at = body.end;
        (body.end <= self.chunk.len()).then_some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn a_chunk_is_all_copy_data_up_to_the_first_other_or_incomplete_message() {
        let mut buf = BytesMut::new();
        buf.extend_from_slice(&frame(b'd', b"one"));
        buf.extend_from_slice(&frame(b'd', b""));
        buf.extend_from_slice(&frame(b'c', b""));
        buf.extend_from_slice(&frame(b'd', b"later")[..7]);
        let Some(Chunk::Data(data)) = take_chunk(&mut buf).expect("valid") else { panic!("no data") };
        let bodies: Vec<&[u8]> = CopyFrames::new(&data).map(|range| &data[range]).collect();
        assert_eq!(bodies, [b"one".as_slice(), b""]);
        let Some(Chunk::Other(other)) = take_chunk(&mut buf).expect("valid") else { panic!("no other") };
        assert_eq!(other.tag, b'c');
        assert!(take_chunk(&mut buf).expect("valid").is_none());
        assert_eq!(missing(&buf).expect("valid"), 3);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        let mut buf = BytesMut::from(&[b'd', 0, 0, 0, 3][..]);
        assert!(take_chunk(&mut buf).is_err());
        let mut buf = BytesMut::from(&[b'd', 0xff, 0xff, 0xff, 0xff][..]);
        assert!(take_frame(&mut buf).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes: Vec<u8>) {
            let mut buf = BytesMut::from(&bytes[..]);
            while let Ok(Some(chunk)) = take_chunk(&mut buf) {
                if let Chunk::Data(data) = chunk {
                    proptest::prop_assert!(CopyFrames::new(&data).all(|range| range.end <= data.len()));
                }
            }
        }
    }
}
