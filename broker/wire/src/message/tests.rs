//! All messages at all versions: round trips, broken input, and the same bytes as another implementation.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Message as OracleMessage};
use proptest::prelude::*;

use super::*;
use crate::messages::samples::{for_all_apis, for_all_messages};
use crate::messages::*;
use crate::sample::{Sample, Source};

fn encode<M: Message>(message: &M, version: i16) -> Bytes {
    let mut w = Writer::new();
    message.encode(&mut w, version).unwrap_or_else(|e| panic!("{} v{version}: {e}: {message:?}", M::NAME));
    w.into_bytes()
}

fn round_trip<M: Message + Sample>(seed: u64) {
    for version in M::VERSIONS {
        for message in [M::sample(&mut Source::new(seed), version), M::default()] {
            let bytes = encode(&message, version);
            let mut r = Reader::new(bytes.clone());
            let got = M::decode(&mut r, version).unwrap();
            assert_eq!(r.remaining(), 0, "{} v{version} leaves bytes unread", M::NAME);
            assert_eq!(encode(&got, version), bytes, "{} v{version} is written as it was read", M::NAME);
            // A default may hold values that this version does not carry; a sample holds none.
            if message != M::default() {
                assert_eq!(got, message, "{} v{version}", M::NAME);
            }
        }
    }
}

/// Whatever the bytes are: an error or a message that can be written again, and no panic.
fn survives<M: Message>(bytes: &Bytes) {
    for version in M::VERSIONS {
        let mut r = Reader::new(bytes.clone());
        if let Ok(message) = M::decode(&mut r, version) {
            let mut w = Writer::new();
            // Null may be read where the version forbids it, and is refused when written.
            let written = message.encode(&mut w, version);
            assert!(matches!(written, Ok(()) | Err(WireError::UnexpectedNull(_))), "{written:?}");
        }
    }
}

/// Every cut is an error, and so is nothing but an error.
fn cuts_are_errors<M: Message + Sample>(seed: u64) {
    for version in M::VERSIONS {
        let bytes = encode(&M::sample(&mut Source::new(seed), version), version);
        for len in 0..bytes.len() {
            let cut = M::decode(&mut Reader::new(bytes.slice(..len)), version);
            assert!(cut.is_err(), "{} v{version} cut to {len} of {}", M::NAME, bytes.len());
        }
    }
}

/// The other implementation reads our bytes to their end and writes the same.
fn agrees<M, O>(seed: u64)
where
    M: Message + Sample,
    O: OracleMessage + Decodable + Encodable,
{
    let mut compared = 0;
    for version in M::VERSIONS {
        if version < O::VERSIONS.min || version > O::VERSIONS.max {
            continue;
        }
        let bytes = encode(&M::sample(&mut Source::new(seed), version), version);
        let mut left = bytes.clone();
        let theirs = O::decode(&mut left, version)
            .unwrap_or_else(|e| panic!("{} v{version}: {e}: {bytes:?}", M::NAME));
        assert!(left.is_empty(), "{} v{version}: the oracle leaves bytes unread", M::NAME);
        let mut again = BytesMut::new();
        theirs.encode(&mut again, version).unwrap_or_else(|e| panic!("{} v{version}: {e}", M::NAME));
        assert_eq!(again.freeze(), bytes, "{} v{version}", M::NAME);
        compared += 1;
    }
    assert!(compared > 0, "{} has no version in common with the oracle", M::NAME);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_message_round_trips_at_every_version(seed: u64) {
        macro_rules! run { ($message:ident) => { round_trip::<$message>(seed) } }
        for_all_messages!(run);
    }

    #[test]
    fn other_implementation_reads_and_writes_the_same_bytes(seed: u64) {
        macro_rules! run {
            ($api:ident, $request:ident, $response:ident) => {
                agrees::<$request, kafka_protocol::messages::$request>(seed);
                agrees::<$response, kafka_protocol::messages::$response>(seed);
            }
        }
        for_all_apis!(run);
        agrees::<ConsumerProtocolSubscription, kafka_protocol::messages::ConsumerProtocolSubscription>(seed);
        agrees::<ConsumerProtocolAssignment, kafka_protocol::messages::ConsumerProtocolAssignment>(seed);
    }

    #[test]
    fn any_bytes_are_survived_by_every_message(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        macro_rules! run { ($message:ident) => { survives::<$message>(&bytes) } }
        for_all_messages!(run);
    }

    #[test]
    fn any_changed_byte_is_survived_by_every_message(seed: u64, at: proptest::sample::Index, to: u8) {
        macro_rules! run {
            ($message:ident) => {
                for version in $message::VERSIONS {
                    let mut bytes = encode(&$message::sample(&mut Source::new(seed), version), version).to_vec();
                    if !bytes.is_empty() {
                        let at = at.index(bytes.len());
                        bytes[at] = to;
                    }
                    let _survived = $message::decode(&mut Reader::new(bytes.into()), version);
                }
            }
        }
        for_all_messages!(run);
    }
}

#[test]
fn every_cut_of_every_message_is_an_error() {
    for seed in 0..4 {
        macro_rules! run {
            ($message:ident) => {
                cuts_are_errors::<$message>(seed)
            };
        }
        for_all_messages!(run);
    }
}

#[test]
fn huge_array_in_a_tiny_frame_is_refused_before_it_is_reserved() {
    let body = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0]);
    let got = MetadataRequest::decode(&mut Reader::new(body), 8);
    assert_eq!(got, Err(WireError::ArrayTooLong { len: 0x7fff_ffff, left: 3 }));
}

#[test]
fn versions_outside_the_range_are_refused_both_ways() {
    let unsupported = WireError::UnsupportedVersion { api: "FetchRequest", version: 3 };
    assert_eq!(FetchRequest::decode(&mut Reader::new(Bytes::new()), 3), Err(unsupported.clone()));
    assert_eq!(FetchRequest::default().encode(&mut Writer::new(), 3), Err(unsupported));
}

#[test]
fn null_in_a_version_without_null_is_refused_by_name() {
    let request = MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(request.encode(&mut Writer::new(), 0), Err(WireError::UnexpectedNull("topics")));
    assert_eq!(request.encode(&mut Writer::new(), 1), Ok(()));
}

#[test]
fn unknown_tagged_fields_are_passed_over() {
    let mut bytes = encode(&HeartbeatResponse { error_code: 27, ..Default::default() }, 4).to_vec();
    assert_eq!(bytes.pop(), Some(0));
    bytes.extend_from_slice(&[2, 9, 1, 0xaa, 200, 1, 3, 1, 2, 3]);
    let mut r = Reader::new(bytes.into());
    assert_eq!(HeartbeatResponse::decode(&mut r, 4).unwrap().error_code, 27);
    assert_eq!(r.remaining(), 0);
}

#[test]
fn fetched_records_are_chunks_and_produced_records_are_slices() {
    let chunks = [Bytes::from_static(b"one"), Bytes::from_static(b"second")];
    let partition = PartitionData { records: Some(chunks.to_vec().into()), ..Default::default() };
    let topic =
        FetchableTopicResponse { partitions: vec![partition.clone(), partition], ..Default::default() };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    for version in FetchResponse::VERSIONS {
        let frame = crate::frame::encode_response(ApiKey::Fetch, version, 1, &response).unwrap();
        let whole = frame.to_bytes();
        assert_eq!(whole.len(), frame.len());
        let shared =
            frame.chunks().iter().filter(|c| chunks.iter().any(|s| s.as_ptr() == c.as_ptr())).count();
        assert_eq!(shared, 4, "record bytes are not copied");
        let (_, got) = crate::frame::decode_response::<FetchRequest>(version, whole.slice(4..)).unwrap();
        let records = got.responses[0].partitions[1].records.clone().unwrap().to_bytes();
        assert_eq!(&records[..], b"onesecond");
        assert!(whole.as_ptr_range().contains(&records.as_ptr()), "record bytes are slices of the frame");
    }
}

#[test]
fn group_records_have_kafkas_bytes() {
    let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 3 };
    assert_eq!(&key.to_versioned(1).unwrap()[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
    assert_eq!(OffsetCommitKey::from_versioned(key.to_versioned(0).unwrap()).unwrap(), key);
    let value = OffsetCommitValue { offset: 5, leader_epoch: 2, commit_timestamp: 9, ..Default::default() };
    assert_eq!(
        &value.to_versioned(3).unwrap()[..],
        b"\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x02\0\0\0\0\0\0\0\0\0\x09"
    );
    let group = GroupMetadataKey { group: "g".into() };
    assert_eq!(&group.to_versioned(2).unwrap()[..], b"\0\x02\0\x01g");
    assert!(OffsetCommitKey::from_versioned(group.to_versioned(2).unwrap()).is_err());
}

#[test]
fn produce_is_advertised_from_zero_and_everything_else_as_served() {
    for &api in ApiKey::ALL {
        assert_eq!(ApiKey::from_code(api.code()), Some(api));
        assert_eq!(api.advertised() == api.versions(), api != ApiKey::Produce);
    }
    assert_eq!((ApiKey::Produce.advertised(), ApiKey::Produce.versions()), (0..=13, 3..=13));
    assert_eq!(ApiKey::from_code(7), None);
}
