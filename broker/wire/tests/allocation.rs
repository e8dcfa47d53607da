//! How much memory input can claim: an allocator counts what decoding holds at most, whatever the bytes are.
//!
//! zstd's own window is allocated in C and not counted; [`Compression::decompress`] limits it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use aqueduct_wire::reader::MAX_ELEMENT_BYTES;
use aqueduct_wire::{
    ApiKey, BatchBuilder, BatchError, Bytes, Compression, Reader, RecordBatch, Request, Response, WireError,
};

/// What a decoded message may hold for each byte of its input: an empty string takes one byte on the wire and 32 here.
const FACTOR: usize = 64;
/// Buffers of the decompressors, and what holds an error.
const FIXED: usize = 512 << 10;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count(freed: usize, allocated: usize) {
    let live = LIVE.get().saturating_sub(freed) + allocated;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its contract; each call is handed on to the system's"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), 0);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new are there at once while it is copied.
        count(0, size);
        count(layout.size(), 0);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was held beyond what there was before.
fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = LIVE.get();
    PEAK.set(before);
    let done = work();
    (PEAK.get() - before, done)
}

/// Splitmix64, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A filler under which arrays of small elements decode, with lengths strewn in that claim what is left.
    fn hostile(&mut self, len: usize) -> Bytes {
        let filler = [0, 1, 2, 0xff][self.below(4)];
        let mut bytes = vec![filler; len];
        for _ in 0..self.below(8) {
            let claim: &[u8] = match self.below(4) {
                0 => &[0, 0, 0x0f, 0xff],
                1 => &[0xff, 0x7f],
                2 => &[0x7f, 0xff, 0xff, 0xff],
                _ => &[0xff, 0xff, 0xff, 0xff, 0x0f],
            };
            let near = self.below(2) == 0;
            let at = self.below(if near { 40 } else { len - claim.len() });
            bytes[at..at + claim.len()].copy_from_slice(claim);
        }
        bytes.into()
    }
}

#[test]
fn decoding_a_message_holds_no_more_than_a_multiple_of_its_bytes() {
    let mut random = Random(1);
    let (mut worst, mut decoded) = (0, 0);
    for api in ApiKey::ALL {
        for version in api.versions() {
            for _ in 0..30 {
                let bytes = random.hostile(8192);
                let mut check = |what: &str, held: usize, read: bool| {
                    assert!(
                        held <= FACTOR * bytes.len(),
                        "{what} {api:?} v{version} holds {held}: {bytes:?}"
                    );
                    worst = worst.max(held / bytes.len());
                    decoded += u32::from(read);
                };
                let (held, read) = peak(|| Request::decode(*api, version, &mut Reader::new(bytes.clone())));
                check("request", held, read.is_ok());
                let (held, read) = peak(|| Response::decode(*api, version, &mut Reader::new(bytes.clone())));
                check("response", held, read.is_ok());
            }
        }
    }
    // Inputs that are all refused at once would show nothing.
    assert!(decoded > 1000 && worst > 8, "{decoded} were decoded, the worst held {worst} times its bytes");
}

/// Names of one byte, which take many times that once they are read.
#[test]
fn a_large_frame_of_small_elements_is_refused() {
    const ELEMENTS: usize = 8 << 20;
    let mut bytes = vec![1; 2 * ELEMENTS];
    // A compact length: one more than there are.
    bytes[..4].copy_from_slice(&[0x81, 0x80, 0x80, 0x04]);
    bytes.extend([0; 8]);
    let bytes = Bytes::from(bytes);
    let (held, read) = peak(|| Request::decode(ApiKey::Metadata, 9, &mut Reader::new(bytes)));
    assert_eq!(read, Err(WireError::TooManyElements { limit: MAX_ELEMENT_BYTES }));
    assert!(held < FIXED, "{held} held");
}

#[test]
fn records_are_held_one_at_a_time() {
    let mut random = Random(2);
    for _ in 0..300 {
        let mut batch = BatchBuilder::new();
        let value = random.hostile(4096);
        (0..8).for_each(|n| batch.append(n, None, Some(&value), &[]));
        let mut batch = batch.build().expect("a batch").to_vec();
        let at = 61 + random.below(batch.len() - 66);
        let noise = random.hostile(64);
        let len = noise.len().min(batch.len() - at);
        batch[at..at + len].copy_from_slice(&noise[..len]);
        let batch = RecordBatch::parse_trusted(&mut batch.into()).expect("the header is whole");
        let (held, _) = peak(|| batch.records(1 << 20).map(|records| records.filter(Result::is_ok).count()));
        assert!(held <= FACTOR * batch.size(), "{held} held for {}", batch.size());
    }
}

#[test]
fn bombs_hold_no_more_than_their_limit() {
    const LIMIT: usize = 1 << 20;
    let zeros = Bytes::from(vec![0; 64 << 20]);
    for codec in Compression::ALL {
        let bomb = codec.compress(zeros.clone()).expect("zeros compress");
        let (held, opened) = peak(|| codec.decompress(&bomb, LIMIT));
        assert_eq!(opened, Err(BatchError::TooLarge { limit: LIMIT }), "{codec:?}");
        // A vector that grows is there twice for a moment.
        assert!(held <= 3 * LIMIT + bomb.len() + FIXED, "{codec:?} held {held}");
    }
}

#[test]
fn damaged_payloads_hold_no_more_than_their_limit() {
    const LIMIT: usize = 1 << 20;
    let mut random = Random(3);
    let text: Bytes = (0..20_000).map(|_| b"abcdefgh"[random.below(8)]).collect();
    for codec in Compression::ALL {
        let whole = codec.compress(text.clone()).expect("text compresses");
        for _ in 0..500 {
            let mut bytes = whole.to_vec();
            for _ in 0..=random.below(4) {
                // Mostly in the header, where the claims stand.
                let near = random.below(2) == 0;
                let at = random.below(if near { 32 } else { bytes.len() });
                bytes[at] = random.next() as u8;
            }
            bytes.truncate(random.below(2 * bytes.len()));
            let bytes = Bytes::from(bytes);
            let (held, _) = peak(|| codec.decompress(&bytes, LIMIT));
            // lz4 frames name a block size of up to 4 MiB.
            assert!(held <= 3 * LIMIT + (9 << 20) + FIXED, "{codec:?} held {held}: {bytes:?}");
        }
    }
}
