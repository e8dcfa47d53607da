//! The last appended batches of a partition, so that live consumers are served without file IO.
//!
//! Invariant: the cached batches are consecutive and end at the log end; what they hold is counted in a budget that all
//! partitions of a directory share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// The bytes all tail caches of a directory may hold together.
#[derive(Debug)]
pub(crate) struct TailBudget {
    used: AtomicUsize,
    total: usize,
    per_partition: usize,
}

impl TailBudget {
    pub(crate) fn new(total: usize, per_partition: usize) -> Self {
        Self { used: AtomicUsize::new(0), total, per_partition }
    }
}

/// What a batch costs beside its bytes.
const OVERHEAD: usize = 64;

#[derive(Debug)]
pub(crate) struct TailCache {
    budget: Arc<TailBudget>,
    batches: VecDeque<Cached>,
    bytes: usize,
    last_append: i64,
}

#[derive(Debug)]
struct Cached {
    base: i64,
    next: i64,
    data: Bytes,
}

impl TailCache {
    pub(crate) fn new(budget: Arc<TailBudget>) -> Self {
        Self { budget, batches: VecDeque::new(), bytes: 0, last_append: 0 }
    }

    pub(crate) fn push(&mut self, base: i64, next: i64, data: Bytes, now_ms: i64) {
        self.last_append = now_ms;
        let cost = data.len() + OVERHEAD;
        self.bytes += cost;
        self.budget.used.fetch_add(cost, Ordering::Relaxed);
        self.batches.push_back(Cached { base, next, data });
        while self.bytes > self.budget.per_partition
            || (self.bytes > 0 && self.budget.used.load(Ordering::Relaxed) > self.budget.total)
        {
            self.pop_front();
        }
    }

    /// Batches from the one that holds `offset` on, up to `max_bytes` (at least one) and below `up_to`;
    /// `None` when that one is not cached.
    pub(crate) fn read(&self, offset: i64, max_bytes: usize, up_to: i64) -> Option<(Vec<Bytes>, i64)> {
        let first = self.batches.partition_point(|b| b.next <= offset);
        if self.batches.get(first)?.base > offset {
            return None;
        }
        let (mut found, mut bytes, mut next) = (Vec::new(), 0, offset);
        for batch in self.batches.range(first..).take_while(|b| b.next <= up_to) {
            bytes += batch.data.len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(batch.data.clone());
            next = batch.next;
        }
        Some((found, next))
    }

    pub(crate) fn truncate_to(&mut self, end: i64) {
        while self.batches.back().is_some_and(|b| b.next > end) {
            let batch = self.batches.pop_back().expect("it was just looked at");
            self.release(&batch);
        }
    }

    /// Batches below `offset` were compacted.
    pub(crate) fn forget_below(&mut self, offset: i64) {
        while self.batches.front().is_some_and(|b| b.base < offset) {
            self.pop_front();
        }
    }

    /// Gives the memory back when nothing was appended since `before`.
    pub(crate) fn clear_idle(&mut self, before: i64) {
        if self.last_append < before {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        while !self.batches.is_empty() {
            self.pop_front();
        }
        self.batches = VecDeque::new();
    }

    fn pop_front(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.release(&batch);
        }
    }

    fn release(&mut self, batch: &Cached) {
        let cost = batch.data.len() + OVERHEAD;
        self.bytes -= cost;
        self.budget.used.fetch_sub(cost, Ordering::Relaxed);
    }
}

impl Drop for TailCache {
    fn drop(&mut self) {
        self.clear();
    }
}
