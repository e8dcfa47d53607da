//! A whole request: header and message, of any API and version. What is read can be written, and reads back the same.

#![no_main]

use aqueduct_wire::frame::decode_request;
use aqueduct_wire::{Bytes, Reader, Request, WireError, Writer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok((header, request)) = decode_request(Bytes::copy_from_slice(data)) else { return };
    let mut writer = Writer::new();
    match request.encode(&mut writer, header.api_version) {
        Ok(()) => {}
        // Null may be read where the version forbids it.
        Err(WireError::UnexpectedNull(_)) => return,
        Err(error) => panic!("{error}: {request:?}"),
    }
    let bytes = writer.into_bytes();
    let mut reader = Reader::new(bytes.clone());
    let again = Request::decode(request.api_key(), header.api_version, &mut reader)
        .expect("what was written is read");
    assert_eq!(reader.remaining(), 0);
    let mut writer = Writer::new();
    again.encode(&mut writer, header.api_version).expect("what was written once is written again");
    assert_eq!(writer.into_bytes(), bytes);
});
