//! lz4: no input makes more than the limit.

#![no_main]

use aqueduct_wire::{Bytes, Compression};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let input = Bytes::copy_from_slice(data);
    if let Ok(output) = Compression::Lz4.decompress(&input, LIMIT) {
        assert!(output.len() <= LIMIT);
    }
    // The other way round: what is compressed is read back.
    let packed = Compression::Lz4.compress(input.clone()).expect("everything can be compressed");
    assert_eq!(Compression::Lz4.decompress(&packed, input.len()), Ok(input));
});
