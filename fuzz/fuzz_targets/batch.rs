//! Record batches and the records in them. The CRC is not checked, or little would come through it; a batch whose
//! records can all be read is written again with the same records.

#![no_main]

use aqueduct_wire::{BatchBuilder, Bytes, Record, RecordBatch};
use libfuzzer_sys::fuzz_target;

/// Records of more than this are not worth the time.
const LIMIT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut rest = Bytes::copy_from_slice(data);
    while let Ok(batch) = RecordBatch::parse_trusted(&mut rest) {
        let _ = batch.check_produced();
        let Ok(records) = batch.records(LIMIT) else { continue };
        let Ok(records) = records.collect::<Result<Vec<Record>, _>>() else { continue };
        let ordered = records.windows(2).all(|pair| pair[0].offset < pair[1].offset);
        // A time further away than a varint reaches wraps around.
        let header = batch.header();
        let near = |time: i64| time.checked_sub(header.base_timestamp).is_some();
        if !ordered || header.has_delete_horizon() || !records.iter().all(|record| near(record.timestamp)) {
            continue;
        }
        let mut builder = BatchBuilder::rewrite(header).expect("its codec is known");
        records.iter().for_each(|record| builder.push(record));
        let mut bytes = builder.build().expect("it was no larger before");
        let again = RecordBatch::parse(&mut bytes).expect("what was written is read");
        let again: Vec<Record> =
            again.records(2 * LIMIT).expect("opens").map(|r| r.expect("reads")).collect();
        assert_eq!(again, records);
    }
});
