//! The thread that polls the library for a group member.
//!
//! **Invariant:** what was handed over and not yet dropped by the owner stays within the budget; the thread keeps
//! polling meanwhile, with the partitions paused once a stall lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aqueduct_core::sink::{Offsets, TopicPartition};
use aqueduct_core::{Error, Result};
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Batch;
use super::gather::Gather;
use super::start::{Reset, first_offset};
use crate::admin::{list_of, offsets_of, watermarks};
use crate::error::error;
use crate::settings::log_line;

const POLL: Duration = Duration::from_millis(100);
/// A stall up to this long keeps what the library has read ahead.
const STALL: Duration = Duration::from_millis(500);
/// How long an assignment may take, with a coordinator that is loading.
const ASSIGN_WITHIN: Duration = Duration::from_secs(60);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) enum Control {
    Assigned { start: Offsets, epoch: u64 },
    Revoked { partitions: Vec<TopicPartition>, lost: bool, done: oneshot::Sender<()> },
    Failed(Error),
}

/// Answers the library's callbacks, all on the thread that polls.
pub(crate) struct PumpContext {
    group: String,
    reset: Reset,
    control: mpsc::Sender<Control>,
    closing: Arc<AtomicBool>,
    epoch: AtomicU64,
}

impl PumpContext {
    pub(super) fn new(
        group: &str,
        reset: Reset,
        control: mpsc::Sender<Control>,
        closing: Arc<AtomicBool>,
    ) -> Self {
        Self { group: group.to_owned(), reset, control, closing, epoch: AtomicU64::new(0) }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire) || self.control.is_closed()
    }

    fn tell(&self, control: Control) {
        // A closed channel means that the owner is gone; the thread ends on its own then.
        drop(self.control.blocking_send(control));
    }

    fn assign(&self, native: &BaseConsumer<Self>, given: &TopicPartitionList) -> Result<()> {
        let partitions = partitions_of(given);
        let start = if partitions.is_empty() || self.is_closing() {
            Offsets::new()
        } else {
            self.start_offsets(native, &partitions)?
        };
        let list = list_of(&start)?;
        if !start.is_empty() {
            let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
            self.tell(Control::Assigned { start, epoch });
        }
        let assigned = match native.rebalance_protocol() {
            RebalanceProtocol::Cooperative => native.incremental_assign(&list),
            RebalanceProtocol::Eager | RebalanceProtocol::None => native.assign(&list),
        };
        assigned.map_err(|e| error(format_args!("taking over partitions of group `{}`", self.group), &e))
    }

    /// Tries until the coordinator and the leaders answer.
    fn start_offsets(&self, native: &BaseConsumer<Self>, partitions: &[TopicPartition]) -> Result<Offsets> {
        let deadline = Instant::now() + ASSIGN_WITHIN;
        loop {
            match self.try_start_offsets(native, partitions) {
                Err(error) if error.is_retriable() && Instant::now() < deadline && !self.is_closing() => {
                    tracing::debug!(group = self.group, "{}", error.full());
                    std::thread::park_timeout(Duration::from_millis(50));
                }
                result => return result,
            }
        }
    }

    fn try_start_offsets(
        &self,
        native: &BaseConsumer<Self>,
        partitions: &[TopicPartition],
    ) -> Result<Offsets> {
        let mut wanted = TopicPartitionList::with_capacity(partitions.len());
        for tp in partitions {
            wanted.add_partition(&tp.topic, tp.partition);
        }
        let committed = native.committed_offsets(wanted, CALL_TIMEOUT).map_err(|e| {
            error(format_args!("reading the committed offsets of group `{}`", self.group), &e)
        })?;
        for element in committed.elements() {
            element.error().map_err(|e| error("reading a committed offset", &e))?;
        }
        let committed = offsets_of(&committed);
        let mut start = Offsets::new();
        for tp in partitions {
            let (low, high) = watermarks(native, tp)?;
            let first = first_offset(&self.group, tp, committed.get(tp).copied(), low, high, self.reset)?;
            start.insert(tp.clone(), first);
        }
        Ok(start)
    }

    fn revoke(&self, native: &BaseConsumer<Self>, given: &TopicPartitionList) -> Result<()> {
        let partitions = partitions_of(given);
        if !partitions.is_empty() && !self.is_closing() {
            let (done, answer) = oneshot::channel();
            self.tell(Control::Revoked { partitions, lost: native.assignment_lost(), done });
            // Also ends when the owner drops the question.
            drop(answer.blocking_recv());
        }
        let revoked = match native.rebalance_protocol() {
            RebalanceProtocol::Cooperative => native.incremental_unassign(given),
            RebalanceProtocol::Eager | RebalanceProtocol::None => native.unassign(),
        };
        revoked.map_err(|e| error(format_args!("giving up partitions of group `{}`", self.group), &e))
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let each = list.elements().into_iter();
    each.map(|element| TopicPartition { topic: element.topic().into(), partition: element.partition() })
        .collect()
}

impl ClientContext for PumpContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, group = self.group, "kafka consumer");
    }
}

impl ConsumerContext for PumpContext {
    fn rebalance(&self, native: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let result = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(native, list),
            _ => self.revoke(native, list),
        };
        if let Err(error) = result {
            // The protocol wants an answer, or the member hangs.
            if native.incremental_assign(&TopicPartitionList::new()).is_err() {
                tracing::debug!(group = self.group, "the assignment could not be answered");
            }
            self.tell(Control::Failed(error));
        }
    }
}

pub(super) struct Pump {
    native: Arc<BaseConsumer<PumpContext>>,
    batches: mpsc::Sender<Batch>,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
    paused: Arc<AtomicBool>,
    closing: Arc<AtomicBool>,
    gather: Gather,
    stalled_since: Option<Instant>,
    holding: bool,
}

impl Pump {
    pub(super) fn new(
        native: Arc<BaseConsumer<PumpContext>>,
        batches: mpsc::Sender<Batch>,
        budget_bytes: usize,
        paused: Arc<AtomicBool>,
        closing: Arc<AtomicBool>,
    ) -> Self {
        let budget_bytes = budget_bytes.clamp(1 << 18, 1 << 30);
        Self {
            native,
            batches,
            budget: Arc::new(Semaphore::new(budget_bytes)),
            budget_bytes,
            paused,
            closing,
            gather: Gather::default(),
            stalled_since: None,
            holding: false,
        }
    }

    pub(super) fn run(mut self) {
        while !self.closing.load(Ordering::Acquire) && !self.batches.is_closed() {
            let handed_over = self.hand_over();
            self.hold_or_release(handed_over);
            self.poll();
        }
        // Dropping the last reference leaves the group; static members stay known to the coordinator for a while.
    }

    /// Whether everything gathered so far has been handed over.
    fn hand_over(&mut self) -> bool {
        if self.gather.is_empty() {
            return true;
        }
        let bytes = self.gather.bytes();
        let permits = u32::try_from(bytes.min(self.budget_bytes)).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.budget).try_acquire_many_owned(permits) else { return false };
        match self.batches.try_reserve() {
            Ok(slot) => {
                let (records, epochs) = self.gather.take();
                slot.send(Batch { records, bytes, epochs, permit: Some(permit) });
                true
            }
            Err(TrySendError::Full(())) => false,
            Err(TrySendError::Closed(())) => true,
        }
    }

    /// Pauses the partitions when the user paused the connector or a stall lasts, and resumes them after.
    fn hold_or_release(&mut self, handed_over: bool) {
        if handed_over {
            self.stalled_since = None;
        } else if self.stalled_since.is_none() {
            self.stalled_since = Some(Instant::now());
        }
        let stalled = self.stalled_since.is_some_and(|since| since.elapsed() >= STALL);
        let hold = stalled || self.paused.load(Ordering::Acquire);
        if hold == self.holding && !hold {
            return;
        }
        // Repeated while holding, for partitions that were assigned meanwhile.
        let Ok(assignment) = self.native.assignment() else { return };
        let done = if hold { self.native.pause(&assignment) } else { self.native.resume(&assignment) };
        if let Err(cause) = done {
            tracing::debug!(%cause, "pausing or resuming");
            return;
        }
        self.holding = hold;
    }

    fn poll(&mut self) {
        if self.stalled_since.is_some() && !self.holding {
            // Full, and not for long yet: leave the library's queue as it is.
            std::thread::park_timeout(Duration::from_millis(2));
            return;
        }
        let native = Arc::clone(&self.native);
        let mut wait = if self.holding { Duration::from_millis(20) } else { POLL };
        // At least once even with a full batch in hand, or a long stall would cost the membership. The partitions are
        // paused then, so that hardly anything comes.
        loop {
            match native.poll(wait) {
                Some(Ok(message)) => self.add(&message),
                Some(Err(cause)) => self.on_error(&cause),
                None => return,
            }
            if self.gather.is_full() {
                return;
            }
            // Take along what is there, and wait no longer.
            wait = Duration::ZERO;
        }
    }

    fn add(&mut self, message: &BorrowedMessage<'_>) {
        // A rebalance may come between two records of one batch, so the batch has no epoch of its own.
        let epoch = self.native.context().epoch.load(Ordering::Acquire);
        self.gather.add(message, epoch);
    }

    fn on_error(&mut self, cause: &KafkaError) {
        let context = self.native.context();
        let failed = match (cause, cause.rdkafka_error_code()) {
            (_, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) => {
                Error::fatal(format!(
                    "group `{}`: the next offset is no longer in the log; the restart names what is missing",
                    context.group
                ))
            }
            (KafkaError::MessageConsumptionFatal(_), _) => {
                let text =
                    self.native.client().fatal_error().map_or_else(|| cause.to_string(), |(_, text)| text);
                Error::fatal(format!("group `{}`: {text}", context.group))
            }
            (
                _,
                Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed),
            ) => error(format_args!("group `{}`", context.group), cause),
            // Everything else the library tries again.
            _ => {
                tracing::debug!(group = context.group, %cause, "kafka consumer");
                return;
            }
        };
        context.tell(Control::Failed(failed));
    }
}
