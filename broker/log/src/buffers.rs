//! Buffers for reading segments, used again: a fresh one of a megabyte is page faults and zeros before it is data.
//!
//! **Invariant:** what lies idle here is bounded in bytes, and a buffer is at most twice as large as what it was taken for.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller ones are cheap to make.
const SMALL: usize = 64 << 10;
/// What may lie idle.
const IDLE: usize = 8 << 20;

#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Buffers {
    /// A buffer of `size` bytes, with whatever was in it before.
    pub(crate) fn take(self: &Arc<Self>, size: usize) -> Buffer {
        let data = self.reuse(size).unwrap_or_else(|| vec![0; size].into_boxed_slice());
        Buffer { data, size, home: Arc::downgrade(self) }
    }

    fn reuse(&self, size: usize) -> Option<Box<[u8]>> {
        if size < SMALL {
            return None;
        }
        let mut free = self.free.lock();
        let fits = size..=size.saturating_mul(2);
        let at = free.buffers.iter().rposition(|buffer| fits.contains(&buffer.len()))?;
        let buffer = free.buffers.swap_remove(at);
        free.bytes -= buffer.len();
        Some(buffer)
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        let mut free = self.free.lock();
        if buffer.len() >= SMALL && free.bytes + buffer.len() <= IDLE {
            free.bytes += buffer.len();
            free.buffers.push(buffer);
        }
    }
}

/// A buffer that goes back when the last slice of it is gone.
#[derive(Debug)]
pub(crate) struct Buffer {
    data: Box<[u8]>,
    size: usize,
    home: Weak<Buffers>,
}

impl Buffer {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.data[..self.size]
    }

    /// The first `len` bytes.
    pub(crate) fn freeze(mut self, len: usize) -> Bytes {
        self.size = self.size.min(len);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.data[..self.size]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.give_back(std::mem::take(&mut self.data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_last_slice_is_gone() {
        let buffers = Arc::new(Buffers::default());
        let mut buffer = buffers.take(SMALL);
        buffer.as_mut().fill(7);
        let frozen = buffer.freeze(10);
        let slice = frozen.slice(2..4);
        drop(frozen);
        assert_eq!(buffers.free.lock().bytes, 0);
        assert_eq!(slice, [7, 7].as_slice());
        drop(slice);
        assert_eq!(buffers.free.lock().bytes, SMALL);
        assert_eq!(buffers.take(SMALL).as_ref().len(), SMALL);
        assert_eq!(buffers.free.lock().bytes, SMALL, "and went back again");
    }

    #[test]
    fn what_lies_idle_is_bounded_and_nothing_is_much_too_large() {
        let buffers = Arc::new(Buffers::default());
        let many: Vec<Buffer> = (0..20).map(|_| buffers.take(1 << 20)).collect();
        drop(many);
        assert_eq!(buffers.free.lock().bytes, IDLE);
        drop(buffers.take((1 << 20) / 2 - 1));
        assert_eq!(buffers.free.lock().buffers.iter().filter(|buffer| buffer.len() < 1 << 20).count(), 0);
        drop(buffers.take(1 << 19));
        assert_eq!(buffers.free.lock().buffers.len(), 8);
    }
}
