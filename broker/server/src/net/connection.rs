//! One client connection: requests are read while earlier answers are still awaited, and answered in their order.
//! Invariant: the bytes and the number of requests under way are bounded, and so is the time without progress; when the client goes away, what it waited for
//! is dropped, and what was already handed to the log stays there.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::Service;
use super::frame::{FrameError, FrameReader};
use crate::config::Limits;

/// Bytes of further answers that are gathered into one write.
const GATHER: usize = 1 << 20;
/// Slices of one vectored write.
const SLICES: usize = 64;

/// Who is asking.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
}

/// What a request leads to.
pub(crate) enum Answer {
    /// Chunks that make up the whole frame, its length included.
    Now(Vec<Bytes>),
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
    /// The client cannot be talked to; the reason goes to the log.
    Close(String),
}

/// What an answer that had to be awaited turned out to be.
pub(crate) enum Reply {
    Frame(Vec<Bytes>),
    /// The request wants no answer (`acks=0`).
    None,
    Close(String),
}

struct Pending {
    answer: Answer,
    /// The request's share of the bytes under way, given back once it is answered.
    _share: OwnedSemaphorePermit,
}

/// Why the connection ends, if not because the client left.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Write(io::Error),
    #[error("the client has not taken its answer for {} s", .0.as_secs())]
    Stuck(Duration),
}

/// Serves until the client leaves, misbehaves, or `stop` is cancelled and the answers under way are sent.
pub(super) async fn serve(
    stream: TcpStream,
    peer: Peer,
    service: Arc<dyn Service>,
    limits: Arc<Limits>,
    stop: CancellationToken,
) {
    let (read, write) = stream.into_split();
    let (queue, answers) = mpsc::channel(limits.in_flight_requests);
    let reading = read_requests(read, queue, &peer, &*service, &limits, stop);
    let writing = write_answers(write, answers, Duration::from_millis(limits.idle_ms));
    tokio::pin!(reading, writing);
    let end = tokio::select! {
        // The client left: nobody reads the answers. At a stop the requests read so far are still answered.
        read = &mut reading => match read {
            Ok(Stop::Left) => Ok(()),
            Ok(Stop::Asked) => writing.await,
            Err(end) => Err(end),
        },
        written = &mut writing => written,
    };
    match end {
        Ok(()) => {}
        Err(End::Frame(FrameError::Idle)) => {
            tracing::debug!(peer = %peer.address, "closed an idle connection")
        }
        Err(End::Write(error)) => tracing::debug!(peer = %peer.address, %error, "the client went away"),
        Err(End::Frame(FrameError::Io(error))) => {
            tracing::debug!(peer = %peer.address, %error, "the client went away");
        }
        Err(error) => tracing::warn!(peer = %peer.address, %error, "closed a connection"),
    }
}

enum Stop {
    Left,
    Asked,
}

async fn read_requests(
    read: OwnedReadHalf,
    queue: mpsc::Sender<Pending>,
    peer: &Peer,
    service: &dyn Service,
    limits: &Limits,
    stop: CancellationToken,
) -> Result<Stop, End> {
    let mut frames = FrameReader::new(read, limits.max_frame_bytes);
    let under_way = Arc::new(Semaphore::new(limits.in_flight_bytes));
    loop {
        let frame = tokio::select! {
            () = stop.cancelled() => return Ok(Stop::Asked),
            frame = next_frame(&mut frames, limits) => frame?,
        };
        let Some(frame) = frame else { return Ok(Stop::Left) };
        let arrived = Instant::now();
        // One frame larger than the whole allowance waits until it is alone.
        let share = frame.len().clamp(1, limits.in_flight_bytes);
        let share = u32::try_from(share).expect("the allowance is checked to be at most 1 GiB");
        let share = Arc::clone(&under_way).acquire_many_owned(share).await;
        let share = share.expect("the semaphore is never closed");
        let Ok(slot) = queue.reserve().await else { return Ok(Stop::Left) };
        let answer = service.call(frame, peer, arrived);
        slot.send(Pending { answer, _share: share });
    }
}

async fn next_frame<R: tokio::io::AsyncRead + Unpin>(
    frames: &mut FrameReader<R>,
    limits: &Limits,
) -> Result<Option<Bytes>, FrameError> {
    if let Some(frame) = frames.take()? {
        return Ok(Some(frame));
    }
    if !frames.is_within_frame() {
        let idle = Duration::from_millis(limits.idle_ms);
        let filled = tokio::time::timeout(idle, frames.fill()).await.map_err(|_| FrameError::Idle)?;
        if !filled? {
            return Ok(None);
        }
    }
    let rest = async {
        loop {
            if let Some(frame) = frames.take()? {
                return Ok(Some(frame));
            }
            if !frames.fill().await? {
                return Ok(None);
            }
        }
    };
    let limit = Duration::from_millis(limits.frame_timeout_ms);
    tokio::time::timeout(limit, rest).await.map_err(|_| FrameError::Slow)?
}

async fn write_answers(
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Pending>,
    idle: Duration,
) -> Result<(), End> {
    let mut carried: Option<Pending> = None;
    loop {
        let next = match carried.take() {
            Some(pending) => Some(pending),
            None => queue.recv().await,
        };
        let Some(Pending { answer, _share: share }) = next else { return Ok(()) };
        let mut shares = vec![share];
        let mut chunks = VecDeque::new();
        let mut end = None;
        match settle(answer).await {
            Reply::Frame(frame) => chunks.extend(frame),
            Reply::None => {}
            Reply::Close(reason) => end = Some(reason),
        }
        // Answers that are ready by now go out with it.
        while end.is_none() && bytes(&chunks) < GATHER {
            let Ok(mut pending) = queue.try_recv() else { break };
            match ready(&mut pending.answer).await {
                Some(Reply::Frame(frame)) => chunks.extend(frame),
                Some(Reply::None) => {}
                Some(Reply::Close(reason)) => end = Some(reason),
                None => {
                    carried = Some(pending);
                    break;
                }
            }
            shares.push(pending._share);
        }
        write_all(&mut write, chunks, idle).await?;
        drop(shares);
        if let Some(reason) = end {
            return Err(End::Refused(reason));
        }
    }
}

fn bytes(chunks: &VecDeque<Bytes>) -> usize {
    chunks.iter().map(Bytes::len).sum()
}

async fn settle(answer: Answer) -> Reply {
    match answer {
        Answer::Now(frame) => Reply::Frame(frame),
        Answer::Later(future) => future.await,
        Answer::Close(reason) => Reply::Close(reason),
    }
}

/// The reply if it is there without waiting.
async fn ready(answer: &mut Answer) -> Option<Reply> {
    match answer {
        Answer::Now(frame) => Some(Reply::Frame(std::mem::take(frame))),
        Answer::Close(reason) => Some(Reply::Close(std::mem::take(reason))),
        Answer::Later(future) => {
            std::future::poll_fn(|context| match future.as_mut().poll(context) {
                Poll::Ready(reply) => Poll::Ready(Some(reply)),
                Poll::Pending => Poll::Ready(None),
            })
            .await
        }
    }
}

/// Writes the chunks without copying them together. A client that takes nothing for `idle` does not hold them longer.
async fn write_all<W: AsyncWrite + Unpin>(
    write: &mut W,
    mut chunks: VecDeque<Bytes>,
    idle: Duration,
) -> Result<(), End> {
    loop {
        while chunks.front().is_some_and(Bytes::is_empty) {
            chunks.pop_front();
        }
        if chunks.is_empty() {
            return Ok(());
        }
        let slices: Vec<IoSlice<'_>> = chunks.iter().take(SLICES).map(|chunk| IoSlice::new(chunk)).collect();
        let written = tokio::time::timeout(idle, write.write_vectored(&slices)).await;
        let mut written = written.map_err(|_| End::Stuck(idle))?.map_err(End::Write)?;
        if written == 0 {
            return Err(End::Write(io::ErrorKind::WriteZero.into()));
        }
        while let Some(front) = chunks.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_are_written_whole_through_a_narrow_pipe() {
        let (mut near, mut far) = tokio::io::duplex(3);
        let chunks = ["", "ab", "cdefgh", "", "i"].map(|text| Bytes::from_static(text.as_bytes()));
        let writing = tokio::spawn(async move {
            write_all(&mut near, chunks.into(), Duration::MAX).await.expect("the pipe takes everything");
        });
        let mut all = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut far, &mut all).await.expect("reads");
        writing.await.expect("ends");
        assert_eq!(all, b"abcdefghi");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (mut near, far) = tokio::io::duplex(3);
        let chunks = [Bytes::from_static(b"abcdef")];
        let limit = Duration::from_secs(600);
        let end = write_all(&mut near, chunks.into(), limit).await.expect_err("nobody reads");
        assert!(matches!(end, End::Stuck(after) if after == limit), "{end}");
        drop(far);
    }
}
