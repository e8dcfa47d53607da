//! Work on many partitions at once: each waits for the disk, and the disk serves many that wait with one flush of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Does `work` on all items, up to `threads` of them at the same time; the results in the items' order. With one thread, or
/// one item, it is done on this one.
pub(super) fn on_all<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if threads <= 1 || items.len() <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(item);
                    done.lock().push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_and_results_keep_their_order() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [0, 1, 7] {
            let worked = AtomicUsize::new(0);
            let doubled = on_all(threads, &items, |item| {
                worked.fetch_add(1, Ordering::Relaxed);
                item * 2
            });
            assert_eq!(worked.into_inner(), items.len());
            assert!(doubled.iter().zip(&items).all(|(doubled, item)| *doubled == item * 2));
        }
    }
}
