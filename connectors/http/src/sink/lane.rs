//! The way of one partition: one request after the other, in the order of the log.
//!
//! **Invariant:** `done` never passes a record that was neither answered with 2xx, nor handed back, nor left out; and it
//! passes an offset only with the last of the records that bear it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::sink::{SinkContext, SinkRecord, TopicPartition};
use aqueduct_core::{Error, Result};
use parking_lot::Mutex;
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, Response, Url};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::answer::{Backoff, Verdict, judge, retry_after};
use super::batch::{Pending, Prepared, body, fill, idempotency_key};
use crate::config::HttpConfig;

/// How much of an answer is quoted.
const QUOTED: usize = 300;
/// How much of an answer is read to keep the connection.
const READ: usize = 64 * 1024;

/// What the lanes of a task share.
pub(super) struct Shared {
    pub(super) client: reqwest::Client,
    pub(super) config: HttpConfig,
    pub(super) context: SinkContext,
    pub(super) in_flight: Semaphore,
    /// Bytes that may be buffered.
    pub(super) budget: u32,
    pub(super) buffered: Arc<Semaphore>,
}

/// The task's side.
pub(super) struct Lane {
    queue: Arc<Queue>,
    worker: JoinHandle<()>,
}

struct Queue {
    state: Mutex<State>,
    /// Something was pushed.
    pushed: Notify,
    /// The lane became idle or failed.
    settled: Notify,
}

struct State {
    waiting: VecDeque<Pending>,
    /// Records that are being sent.
    sending: usize,
    /// The next offset that is not done.
    done: i64,
    failure: Option<String>,
    /// Offset of the last record pushed, and how many of it.
    last: Option<(i64, u32)>,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, origin: TopicPartition, offset: i64) -> Self {
        let state = State { waiting: VecDeque::new(), sending: 0, done: offset, failure: None, last: None };
        let queue =
            Arc::new(Queue { state: Mutex::new(state), pushed: Notify::new(), settled: Notify::new() });
        let worker = Worker { shared, origin, queue: Arc::clone(&queue) };
        Self { queue, worker: tokio::spawn(worker.run()) }
    }

    pub(super) fn push(&self, record: SinkRecord, permit: OwnedSemaphorePermit) {
        let mut state = self.queue.state.lock();
        if state.failure.is_some() {
            // The task ends, and the record is read again.
            return;
        }
        let nth = match state.last {
            Some((offset, nth)) if offset == record.offset => nth + 1,
            _ => 0,
        };
        // Those of the same offset that came before it may have been sent while this one waited for the budget.
        state.done = state.done.min(record.offset);
        state.last = Some((record.offset, nth));
        // Prepared by the worker: making bodies is not the caller's business.
        state.waiting.push_back(Pending { record, nth, prepared: Prepared::Nothing, _permit: permit });
        drop(state);
        self.queue.pushed.notify_one();
    }

    /// Up to where everything is done, at most `taken`.
    pub(super) fn durable(&self, taken: i64) -> i64 {
        let state = self.queue.state.lock();
        if state.waiting.is_empty() && state.sending == 0 && state.failure.is_none() {
            // Steps may have dropped what came after the last record.
            return taken;
        }
        state.done.min(taken)
    }

    pub(super) fn failure(&self) -> Option<Error> {
        self.queue.state.lock().failure.clone().map(Error::fatal)
    }

    /// Waits until nothing is left to send, or the lane has failed.
    pub(super) async fn idle(&self) {
        loop {
            let settled = self.queue.settled.notified();
            {
                let state = self.queue.state.lock();
                if state.failure.is_some() || (state.waiting.is_empty() && state.sending == 0) {
                    return;
                }
            }
            settled.await;
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

struct Worker {
    shared: Arc<Shared>,
    origin: TopicPartition,
    queue: Arc<Queue>,
}

impl Worker {
    async fn run(self) {
        loop {
            let batch = self.next().await;
            let count = batch.len();
            if let Err(error) = self.settle(batch).await {
                let mut state = self.queue.state.lock();
                state.failure = Some(error.full());
                // Their part of the budget is free again: a `put` that waits for it has to hear of the failure.
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                drop(waiting);
                self.queue.settled.notify_waiters();
                return;
            }
            let mut state = self.queue.state.lock();
            state.sending -= count;
            if state.waiting.is_empty() {
                drop(state);
                self.queue.settled.notify_waiters();
                self.shared.context.request_commit();
            }
        }
    }

    /// The records of the next request; waits for the first.
    async fn next(&self) -> Vec<Pending> {
        loop {
            let taken: Vec<Pending> = {
                let mut state = self.queue.state.lock();
                let count = state.waiting.len().min(self.shared.config.batch_records);
                let taken: Vec<Pending> = state.waiting.drain(..count).collect();
                state.sending += taken.len();
                taken
            };
            if taken.is_empty() {
                self.queue.pushed.notified().await;
                continue;
            }
            let mut taken = taken;
            for pending in &mut taken {
                pending.prepared = Prepared::new(&mut pending.record, &self.shared.config);
            }
            return taken;
        }
    }

    /// Sends the records, in requests of records that go together.
    async fn settle(&self, batch: Vec<Pending>) -> Result<()> {
        let mut rest: VecDeque<Pending> = batch.into();
        while let Some(first) = rest.front() {
            if !matches!(first.prepared, Prepared::Body(..)) {
                let Some(first) = rest.pop_front() else { break };
                self.single(first, rest.front()).await?;
                continue;
            }
            let count = fill(rest.iter(), &self.shared.config).max(1);
            let together: Vec<Pending> = rest.drain(..count).collect();
            self.together(together, rest.front()).await?;
        }
        Ok(())
    }

    /// A record that goes into no body.
    async fn single(&self, pending: Pending, next: Option<&Pending>) -> Result<()> {
        let offset = pending.record.offset;
        match pending.prepared {
            Prepared::Delete(ref url) => {
                let batch = std::slice::from_ref(&pending);
                match self.request(Method::DELETE, url.clone(), batch).await? {
                    None => {}
                    Some(refusal) => self.shared.context.refuse(pending.record, Error::bad_record(refusal)),
                }
            }
            Prepared::Bad(error) => self.shared.context.refuse(pending.record, error),
            Prepared::Nothing | Prepared::Body(..) => {}
        }
        self.passed(offset, next);
        Ok(())
    }

    /// One request, or, where the server refuses it, smaller ones until the record at fault stands alone.
    async fn together(&self, batch: Vec<Pending>, after: Option<&Pending>) -> Result<()> {
        // The parts still to send, the first on top; never deeper than the batch has halves.
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            let Prepared::Body(url, _) = &first.prepared else { continue };
            let (url, offset) = (url.clone(), last.record.offset);
            let refusal = self.request(self.shared.config.method.clone(), url, &part).await?;
            match refusal {
                Some(_) if part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.push(second);
                    parts.push(part);
                    continue;
                }
                Some(refusal) => {
                    if let Some(pending) = part.pop() {
                        self.shared.context.refuse(pending.record, Error::bad_record(refusal));
                    }
                }
                None => {}
            }
            let next = parts.last().and_then(|part| part.first()).or(after);
            self.passed(offset, next);
        }
        Ok(())
    }

    fn passed(&self, offset: i64, next: Option<&Pending>) {
        let mut state = self.queue.state.lock();
        let next = next.or(state.waiting.front()).map(|pending| pending.record.offset);
        state.done = if next == Some(offset) { offset } else { offset + 1 };
    }

    /// Sends until there is an answer that counts: `None` is a yes, text the server's refusal.
    async fn request(&self, method: Method, url: Url, batch: &[Pending]) -> Result<Option<String>> {
        let config = &self.shared.config;
        let sent = body(batch, config);
        let mut backoff = Backoff::new(config.backoff);
        let mut tries = 0_u32;
        loop {
            tries += 1;
            let mut request =
                self.shared.client.request(method.clone(), url.clone()).headers(config.headers.clone());
            if method != Method::DELETE {
                request = request.body(sent.clone());
            }
            if let Some(name) = &config.idempotency {
                request = request.header(name, idempotency_key(batch));
            }
            let answer = {
                let _turn = self.shared.in_flight.acquire().await;
                match request.send().await {
                    Ok(response) => Ok(read(response).await),
                    Err(error) => Err(error.without_url()),
                }
            };
            let (why, asked) = match answer {
                Ok((status, asked, text)) => {
                    if tries > 1 && judge(status, &config.refused) != Verdict::Again {
                        self.shared.context.retrying(None);
                    }
                    let said = format!("{} answered {status}{text}", config.url.shown());
                    match judge(status, &config.refused) {
                        Verdict::Done => return Ok(None),
                        Verdict::Refused => return Ok(Some(said)),
                        Verdict::Wrong => {
                            return Err(Error::fatal(format!(
                                "{said}; correct the connector's configuration, or name the status in `refused.statuses` \
                                 if it is about a record"
                            )));
                        }
                        Verdict::Again => (said, asked),
                    }
                }
                Err(error) if error.is_builder() => {
                    return Err(Error::fatal("the request cannot be made").with_source(error));
                }
                Err(error) => {
                    let error =
                        Error::retriable(format!("{} gave no answer", config.url.shown())).with_source(error);
                    (error.full(), None)
                }
            };
            let pause = backoff.next(asked, fastrand::f64());
            self.report(&why, pause);
            tokio::time::sleep(pause).await;
        }
    }

    fn report(&self, why: &str, pause: Duration) {
        let (connector, task) = (&self.shared.context.connector, self.shared.context.task);
        tracing::warn!(%connector, task, partition = %self.origin, "{why}; trying again in {pause:.1?}");
        self.shared.context.retrying(Some(&Error::retriable(why)));
    }
}

/// Status, `Retry-After` and the beginning of the answer.
async fn read(mut response: Response) -> (u16, Option<Duration>, String) {
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let asked = header(RETRY_AFTER).and_then(|text| retry_after(text, jiff::Timestamp::now()));
    let location = header(reqwest::header::LOCATION).filter(|_| (300..400).contains(&status));
    let mut said =
        location.map(|to| format!(" (redirect to {}, not followed)", clean(to))).unwrap_or_default();
    let mut bytes = Vec::new();
    // An answer that breaks off has been given all the same: its status counts.
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk[..chunk.len().min(READ - bytes.len())]);
        if bytes.len() >= READ {
            break;
        }
    }
    if !(200..300).contains(&status) && !bytes.is_empty() {
        said.push_str(&format!(": {}", clean(&String::from_utf8_lossy(&bytes))));
    }
    (status, asked, said)
}

fn clean(text: &str) -> String {
    let mut out: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTED).collect();
    if text.trim().chars().nth(QUOTED).is_some() {
        out.push('…');
    }
    out
}
