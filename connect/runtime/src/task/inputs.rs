//! The inputs of one batch of a source: their positions, and the requests they belong to. Pure.
//!
//! **Invariant:** a request is refused as a whole: once one of its records is, none of them is written.

use aqueduct_core::Error;
use aqueduct_core::source::{Receipt, SourcePosition};

#[derive(Default)]
pub(super) struct Inputs(Vec<Input>);

struct Input {
    position: Option<SourcePosition>,
    /// With the last record of a request.
    receipt: Option<Receipt>,
    /// Whether the request that ends here is refused.
    refused: bool,
}

impl Inputs {
    pub(super) fn push(&mut self, position: Option<SourcePosition>, receipt: Option<Receipt>) {
        self.0.push(Input { position, receipt, refused: false });
    }

    /// The position of an input: its own, or the next one behind it, since not every record carries one.
    pub(super) fn position_behind(&self, index: usize) -> Option<&SourcePosition> {
        self.0[index..].iter().find_map(|input| input.position.as_ref())
    }

    /// Refuses the request of an input; `false` when it belongs to none. Whoever waits hears of the first error.
    pub(super) fn refuse(&mut self, index: usize, error: &Error) -> bool {
        let Some(end) = self.end_of(index) else { return false };
        let end = &mut self.0[end];
        if let Some(receipt) = &end.receipt
            && !std::mem::replace(&mut end.refused, true)
        {
            receipt.0.refused(error);
        }
        true
    }

    pub(super) fn is_refused(&self, index: usize) -> bool {
        self.end_of(index).is_some_and(|end| self.0[end].refused)
    }

    /// The input that ends the request of this one.
    fn end_of(&self, index: usize) -> Option<usize> {
        self.0[index..].iter().position(|input| input.receipt.is_some()).map(|behind| index + behind)
    }

    /// Positions, and the receipts of requests that are not refused.
    pub(super) fn finish(self) -> impl Iterator<Item = (Option<SourcePosition>, Option<Receipt>)> {
        self.0.into_iter().map(|input| (input.position, input.receipt.filter(|_| !input.refused)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aqueduct_core::source::Settle;

    use super::*;

    #[derive(Default)]
    struct Waits(AtomicUsize);

    impl Settle for Waits {
        fn acknowledged(&self) {}

        fn refused(&self, _error: &Error) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_request_is_refused_as_a_whole_and_once() {
        let waits = Arc::new(Waits::default());
        let receipt = || Some(Receipt(Arc::clone(&waits) as _));
        let mut inputs = Inputs::default();
        for receipt in [None, receipt(), None, None, receipt(), None] {
            inputs.push(None, receipt);
        }
        assert!(inputs.refuse(2, &Error::bad_record("x")) && inputs.refuse(4, &Error::bad_record("y")));
        assert!(!inputs.refuse(5, &Error::bad_record("of no request")));
        let refused: Vec<bool> = (0..6).map(|index| inputs.is_refused(index)).collect();
        assert_eq!(refused, [false, false, true, true, true, false]);
        assert_eq!(waits.0.load(Ordering::Relaxed), 1);
        let receipts: Vec<bool> = inputs.finish().map(|(_, receipt)| receipt.is_some()).collect();
        assert_eq!(receipts, [false, true, false, false, false, false]);
    }
}
