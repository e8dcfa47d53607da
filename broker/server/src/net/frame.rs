//! Cuts a byte stream into Kafka's length-prefixed frames.
//! Invariant: never more than one frame of the permitted size is buffered, and memory grows with the bytes that have
//! arrived, not with the length that a client claims.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Room that is made at a time while little has arrived.
const CHUNK: usize = 16 << 10;
/// A claimed length up to this is believed at once.
const BELIEVED: usize = 1 << 20;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the frame's length `{length}` is not between 0 and `{limit}`")]
    Length { length: i32, limit: usize },
    #[error("the connection ended in the middle of a frame")]
    Torn,
    #[error("the rest of a frame did not arrive in time")]
    Slow,
    #[error("no request for a long time")]
    Idle,
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub(super) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    limit: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(stream: R, limit: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), limit }
    }

    /// Whether part of a frame has arrived.
    pub(super) fn is_within_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next frame if all of it has arrived.
    pub(super) fn take(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = i32::from_be_bytes(*prefix);
        let size = usize::try_from(length).ok().filter(|size| *size <= self.limit);
        let size = size.ok_or(FrameError::Length { length, limit: self.limit })?;
        if self.buffer.len() < 4 + size {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(size).freeze()))
    }

    /// Reads what there is. `false` at the end of the stream. Cancel safe.
    pub(super) async fn fill(&mut self) -> Result<bool, FrameError> {
        let arrived = self.buffer.len();
        let claimed = self.buffer.first_chunk::<4>().map_or(0, |prefix| i32::from_be_bytes(*prefix));
        let wanted = (4 + usize::try_from(claimed).unwrap_or(0)).saturating_sub(arrived);
        let room = wanted.min(BELIEVED.max(arrived)).max(CHUNK);
        let read = poll_fn(|context| {
            self.buffer.reserve(room);
            let polled = pin!(self.stream.read_buf(&mut self.buffer)).poll(context);
            // A connection that waits between two requests holds no room: there may be thousands of them.
            if polled.is_pending() && self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            polled
        });
        if read.await? > 0 {
            return Ok(true);
        }
        if self.buffer.is_empty() { Ok(false) } else { Err(FrameError::Torn) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn frames(input: &[u8]) -> Result<Vec<Bytes>, FrameError> {
        let mut reader = FrameReader::new(input, 100);
        let mut frames = Vec::new();
        loop {
            while let Some(frame) = reader.take()? {
                frames.push(frame);
            }
            if !reader.fill().await? {
                return Ok(frames);
            }
        }
    }

    #[tokio::test]
    async fn frames_come_out_as_they_went_in() {
        let input = [0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 3];
        let expected: Vec<Bytes> = [&[1, 2][..], &[], &[3]].into_iter().map(Bytes::copy_from_slice).collect();
        assert_eq!(frames(&input).await.expect("whole frames"), expected);
    }

    #[tokio::test]
    async fn lengths_outside_the_limit_are_refused_before_anything_is_read() {
        assert!(matches!(frames(&[0, 0, 0, 101]).await, Err(FrameError::Length { length: 101, .. })));
        assert!(matches!(frames(&[255; 4]).await, Err(FrameError::Length { length: -1, .. })));
        assert!(matches!(frames(b"GET / HTTP/1.1\r\n").await, Err(FrameError::Length { .. })));
    }

    #[tokio::test]
    async fn a_connection_that_waits_between_requests_holds_no_room() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(far, 100);
        for frame in [&[0, 0, 0, 1, 7][..], &[0, 0, 0, 2, 8, 9]] {
            tokio::io::AsyncWriteExt::write_all(&mut near, frame).await.expect("fits");
            assert!(reader.fill().await.expect("a frame has arrived"));
            assert_eq!(reader.take().expect("a whole frame").expect("a whole frame"), frame[4..]);
            let waits =
                poll_fn(|context| std::task::Poll::Ready(pin!(reader.fill()).poll(context).is_pending()));
            assert!(waits.await);
            assert_eq!(reader.buffer.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn a_frame_that_breaks_off_is_torn() {
        assert!(matches!(frames(&[0, 0, 0, 9, 1]).await, Err(FrameError::Torn)));
        assert!(matches!(frames(&[0, 0]).await, Err(FrameError::Torn)));
    }
}
