//! Batches: built, read back, stamped, broken.

use bytes::Bytes;
use bytestring::ByteString;
use proptest::prelude::*;

use super::*;
use crate::builder::BatchBuilder;
use crate::records::{Header, Record};

const LIMIT: usize = 1 << 20;

fn batch_of(codec: Compression, n: i64) -> Bytes {
    let mut builder =
        BatchBuilder::new().compression(codec).base_offset(100).leader_epoch(7).producer(9, 2, 40);
    for i in 0..n {
        let headers = [Header { key: "h".into(), value: Some(Bytes::from(vec![i as u8; 3])) }];
        let value = format!("value-{i}-{}", "x".repeat(40));
        builder.append(1_000 + i, Some(b"key"), (i % 5 != 4).then_some(value.as_bytes()), &headers);
    }
    builder.build().unwrap()
}

fn parse(bytes: &Bytes) -> RecordBatch {
    RecordBatch::parse(&mut bytes.clone()).unwrap()
}

fn records(batch: &RecordBatch) -> Vec<Record> {
    batch.records(LIMIT).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn built_batch_reads_back_with_every_codec() {
    for codec in Compression::ALL {
        let batch = parse(&batch_of(codec, 20));
        let h = batch.header();
        assert_eq!((h.base_offset, h.last_offset(), h.next_offset(), h.record_count), (100, 119, 120, 20));
        assert_eq!((h.producer_id, h.producer_epoch, h.base_sequence, h.last_sequence()), (9, 2, 40, 59));
        assert_eq!((h.base_timestamp, h.max_timestamp, h.partition_leader_epoch), (1_000, 1_019, 7));
        assert_eq!(h.compression().unwrap(), codec);
        batch.check_produced().unwrap();
        let records = records(&batch);
        assert_eq!(records.len(), 20);
        assert_eq!(records[3].offset, 103);
        assert_eq!(records[3].timestamp, 1_003);
        assert_eq!(records[3].key.as_deref(), Some(&b"key"[..]));
        assert_eq!(records[4].value, None);
        assert_eq!(records[3].header("h").unwrap().value.as_deref(), Some(&[3u8; 3][..]));
    }
}

#[test]
fn uncompressed_records_are_slices_of_the_batch() {
    let batch = parse(&batch_of(Compression::None, 2));
    let range = batch.bytes().as_ptr_range();
    for record in records(&batch) {
        assert!(range.contains(&record.value.unwrap().as_ptr()));
    }
}

#[test]
fn stamping_leaves_the_crc_valid() {
    let bytes = batch_of(Compression::None, 3);
    let batch = parse(&bytes);
    let mut joined = batch.stamped_prefix(5_000, 8).to_vec();
    joined.extend_from_slice(&bytes[STAMP_LEN..]);
    let stamped = batch.stamped(5_000, 8);
    assert_eq!(stamped.bytes(), &joined);
    assert_eq!(parse(stamped.bytes()), stamped);
    assert_eq!(records(&stamped)[2].offset, 5_002);
    assert_eq!(parse(&bytes).header().base_offset, 100, "shared bytes are left alone");
}

#[test]
fn log_append_time_replaces_all_timestamps() {
    let batch = parse(&batch_of(Compression::Lz4, 3)).with_log_append_time(77);
    assert_eq!(parse(batch.bytes()), batch);
    assert!(records(&batch).iter().all(|r| r.timestamp == 77));
}

#[test]
fn rewrite_keeps_offsets_of_what_is_left() {
    for codec in Compression::ALL {
        let original = parse(&batch_of(codec, 10));
        let mut builder = BatchBuilder::rewrite(original.header()).unwrap().delete_horizon(9_000);
        for record in records(&original).iter().filter(|r| r.offset % 3 == 0) {
            builder.push(record);
        }
        let kept = parse(&builder.build().unwrap());
        assert_eq!(kept.header().last_offset(), original.header().last_offset());
        assert_eq!(kept.header().last_sequence(), original.header().last_sequence());
        assert!(kept.header().has_delete_horizon());
        assert_eq!(kept.header().base_timestamp, 9_000);
        let expected: Vec<_> = records(&original).into_iter().filter(|r| r.offset % 3 == 0).collect();
        assert_eq!(records(&kept), expected);
        assert!(kept.check_produced().is_err());
    }
}

#[test]
fn rewrite_to_nothing_is_a_batch_without_records() {
    let original = parse(&batch_of(Compression::Zstd, 10));
    let empty = parse(&BatchBuilder::rewrite(original.header()).unwrap().build().unwrap());
    assert_eq!(empty.size(), HEADER_LEN);
    assert_eq!(empty.header().next_offset(), 110);
    assert!(records(&empty).is_empty());
}

#[test]
fn several_batches_are_iterated_until_the_cut() {
    let one = batch_of(Compression::None, 2);
    let all: Bytes = [&one[..], &one[..], &one[..one.len() - 1]].concat().into();
    let got: Vec<_> = Batches::new(all).collect();
    assert_eq!(got.len(), 3);
    assert!(got[0].is_ok() && got[1].is_ok());
    assert_eq!(got[2], Err(BatchError::Incomplete { needed: one.len(), have: one.len() - 1 }));
}

#[test]
fn every_flipped_byte_is_noticed() {
    let good = batch_of(Compression::None, 2);
    for at in 8..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 0x40;
        let parsed = RecordBatch::parse(&mut Bytes::from(bad));
        // The leader epoch is the broker's own and not covered by the CRC.
        assert_eq!(parsed.is_ok(), (12..16).contains(&at), "byte {at}: {parsed:?}");
    }
}

#[test]
fn every_cut_is_incomplete() {
    let good = batch_of(Compression::None, 2);
    for len in 0..good.len() {
        let cut = RecordBatch::parse(&mut good.slice(..len));
        assert!(matches!(cut, Err(BatchError::Incomplete { .. })), "{len}: {cut:?}");
    }
}

#[test]
fn old_formats_are_refused_by_name() {
    let mut old = batch_of(Compression::None, 1).to_vec();
    old[16] = 1;
    assert_eq!(RecordBatch::parse(&mut Bytes::from(old.clone())), Err(BatchError::Magic(1)));
    old.truncate(34);
    assert_eq!(RecordBatch::parse(&mut Bytes::from(old)), Err(BatchError::Magic(1)));
}

#[test]
fn decompression_stops_at_its_limit() {
    let input = Bytes::from(vec![0u8; 1 << 22]);
    for codec in Compression::ALL {
        let small = codec.compress(input.clone()).unwrap();
        assert_eq!(codec.decompress(&small, input.len()).unwrap(), input);
        assert_eq!(
            codec.decompress(&small, input.len() - 1),
            Err(BatchError::TooLarge { limit: input.len() - 1 }),
            "{codec:?}"
        );
    }
}

#[test]
fn plain_snappy_is_read_too() {
    let input = b"plain snappy without frames ".repeat(9);
    let plain = Bytes::from(snap::raw::Encoder::new().compress_vec(&input).unwrap());
    assert_eq!(Compression::Snappy.decompress(&plain, LIMIT).unwrap(), &input[..]);
}

type Content = Option<Vec<u8>>;
type Input = (i64, Content, Content, Vec<(String, Content)>);

fn arb_record() -> impl Strategy<Value = Input> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    (0..1_i64 << 42, bytes(), bytes(), proptest::collection::vec((".{0,6}", bytes()), 0..4))
}

/// The same records as another implementation has them.
fn oracle_records(records: &[Record]) -> Vec<kafka_protocol::records::Record> {
    use kafka_protocol::protocol::StrBytes;
    use kafka_protocol::records::TimestampType;
    let headers = |r: &Record| {
        r.headers.iter().map(|h| (StrBytes::from_string(h.key.to_string()), h.value.clone())).collect()
    };
    records
        .iter()
        .enumerate()
        .map(|(i, r)| kafka_protocol::records::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 7,
            producer_id: 9,
            producer_epoch: 2,
            timestamp_type: TimestampType::Creation,
            offset: r.offset,
            sequence: 40 + i as i32,
            timestamp: r.timestamp,
            key: r.key.clone(),
            value: r.value.clone(),
            headers: headers(r),
        })
        .collect()
}

#[test]
fn other_implementation_builds_the_same_batch() {
    use kafka_protocol::records as oracle;
    let ours = batch_of(Compression::None, 20);
    let records = oracle_records(&records(&parse(&ours)));
    let options = oracle::RecordEncodeOptions { version: 2, compression: oracle::Compression::None };
    let mut theirs = BytesMut::new();
    oracle::RecordBatchEncoder::encode(&mut theirs, &records, &options).unwrap();
    assert_eq!(theirs.freeze(), ours);
    let decoded = oracle::RecordBatchDecoder::decode(&mut ours.clone()).unwrap();
    assert_eq!(decoded.records, records);
}

proptest! {
    #[test]
    fn any_records_round_trip(
        codec in 0u8..5,
        base in 0..i64::MAX / 2,
        input in proptest::collection::vec(arb_record(), 1..20),
    ) {
        let mut builder =
            BatchBuilder::new().compression(Compression::from_id(codec).unwrap()).base_offset(base);
        let mut expected = Vec::new();
        for (i, (timestamp, key, value, headers)) in input.into_iter().enumerate() {
            let headers: Vec<_> = headers
                .into_iter()
                .map(|(k, v)| Header { key: ByteString::from(k), value: v.map(Bytes::from) })
                .collect();
            builder.append(timestamp, key.as_deref(), value.as_deref(), &headers);
            let (key, value) = (key.map(Bytes::from), value.map(Bytes::from));
            expected.push(Record { offset: base + i as i64, timestamp, key, value, headers });
        }
        let batch = parse(&builder.build().unwrap());
        prop_assert_eq!(records(&batch), expected);
    }

    #[test]
    fn any_bytes_are_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for codec in Compression::ALL {
            let out = codec.decompress(&Bytes::from(bytes.clone()), 4096);
            prop_assert!(out.map_or(0, |o| o.len()) <= 4096);
        }
        for batch in Batches::new(bytes.into()) {
            prop_assert!(batch.is_err());
        }
    }

    #[test]
    fn any_payload_behind_a_valid_header_is_no_panic(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        codec in 0u8..5,
        count in 1i32..50,
    ) {
        let mut bytes = batch_of(Compression::None, 1).to_vec();
        bytes.truncate(HEADER_LEN);
        bytes.extend_from_slice(&payload);
        let len = (bytes.len() - LENGTH_PREFIX) as i32;
        bytes[8..12].copy_from_slice(&len.to_be_bytes());
        bytes[21..23].copy_from_slice(&i16::from(codec).to_be_bytes());
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        write_crc(&mut bytes);
        let batch = parse(&bytes.into());
        if let Ok(records) = batch.records(4096) {
            let read: Vec<_> = records.collect();
            prop_assert!(read.len() <= count as usize);
        }
    }
}
