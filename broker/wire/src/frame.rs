//! Requests and responses as a whole: size, header, message.
//!
//! **Invariant:** a frame's size is checked against the connection's limit before anything is read or reserved. The
//! header of an ApiVersions response is always version 0, so that a client of any age can read it (KIP-511).

use bytes::Bytes;
use bytestring::ByteString;

use crate::error::{Result, WireError};
use crate::message::{Message, RequestMessage};
use crate::messages::{ApiKey, Request, Response};
use crate::reader::Reader;
use crate::writer::Writer;

/// Bytes of the size in front of each frame.
pub const SIZE_LEN: usize = 4;

/// The bytes of one frame, its size included, as chunks for a vectored write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    chunks: Vec<Bytes>,
}

impl Frame {
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    pub fn into_chunks(self) -> Vec<Bytes> {
        self.chunks
    }

    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// One contiguous piece, for tests and small messages.
    pub fn to_bytes(&self) -> Bytes {
        crate::record_set::RecordSet::Many(self.chunks.clone()).to_bytes()
    }

    fn finish(mut w: Writer) -> Result<Self> {
        let size = w.len() - SIZE_LEN;
        w.patch_i32(0, i32::try_from(size).map_err(|_| WireError::TooLong(size))?);
        Ok(Self { chunks: w.into_chunks() })
    }
}

/// The size of the frame that follows, if it is within `limit`.
pub fn frame_size(size: [u8; SIZE_LEN], limit: usize) -> Result<usize> {
    let size = i32::from_be_bytes(size);
    match usize::try_from(size) {
        Ok(n) if n <= limit => Ok(n),
        _ => Err(WireError::FrameSize { size: size.into(), limit }),
    }
}

/// The header of a request. The key and the version are what the client sent, served or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestHeader {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<ByteString>,
}

impl RequestHeader {
    /// Reads the header and leaves the reader at the message.
    pub fn decode(r: &mut Reader) -> Result<Self> {
        let header = Self {
            api_key: r.i16()?,
            api_version: r.i16()?,
            correlation_id: r.i32()?,
            // Never compact, not even in the flexible header.
            client_id: r.nullable_string(false)?,
        };
        if header.api().is_some_and(|api| api.is_flexible(header.api_version)) {
            r.skip_tagged_fields()?;
        }
        Ok(header)
    }

    /// The API, if this build knows it.
    pub fn api(&self) -> Option<ApiKey> {
        ApiKey::from_code(self.api_key)
    }

    fn encode(&self, w: &mut Writer, flexible: bool) -> Result<()> {
        w.i16(self.api_key);
        w.i16(self.api_version);
        w.i32(self.correlation_id);
        match &self.client_id {
            Some(id) => w.string(id, false)?,
            None => w.null_string(false),
        }
        if flexible {
            w.uvarint(0);
        }
        Ok(())
    }
}

/// Reads a whole request, without its size.
pub fn decode_request(frame: Bytes) -> Result<(RequestHeader, Request)> {
    let mut r = Reader::new(frame);
    let header = RequestHeader::decode(&mut r)?;
    let api = header.api().ok_or(WireError::UnsupportedApiKey(header.api_key))?;
    let request = Request::decode(api, header.api_version, &mut r)?;
    Ok((header, request))
}

/// Writes a whole response to a request of this API and version.
pub fn encode_response<M: Message>(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &M,
) -> Result<Frame> {
    let mut w = response_header(api, version, correlation_id);
    response.encode(&mut w, version)?;
    Frame::finish(w)
}

/// Like [`encode_response`], for any response.
pub fn encode_any_response(version: i16, correlation_id: i32, response: &Response) -> Result<Frame> {
    let mut w = response_header(response.api_key(), version, correlation_id);
    response.encode(&mut w, version)?;
    Frame::finish(w)
}

fn response_header(api: ApiKey, version: i16, correlation_id: i32) -> Writer {
    let mut w = Writer::new();
    w.i32(0);
    w.i32(correlation_id);
    if response_header_is_flexible(api, version) {
        w.uvarint(0);
    }
    w
}

fn response_header_is_flexible(api: ApiKey, version: i16) -> bool {
    api != ApiKey::ApiVersions && api.is_flexible(version)
}

/// Writes a whole request.
pub fn encode_request<R: RequestMessage>(
    version: i16,
    correlation_id: i32,
    client_id: Option<&ByteString>,
    request: &R,
) -> Result<Frame> {
    let mut w = Writer::new();
    w.i32(0);
    let header = RequestHeader {
        api_key: R::KEY.code(),
        api_version: version,
        correlation_id,
        client_id: client_id.cloned(),
    };
    header.encode(&mut w, R::KEY.is_flexible(version))?;
    request.encode(&mut w, version)?;
    Frame::finish(w)
}

/// The correlation id in front of a response, to find the request it answers.
pub fn correlation_id(frame: &Bytes) -> Result<i32> {
    Reader::new(frame.clone()).i32()
}

/// Reads a whole response to a request `R` of this version, without its size.
pub fn decode_response<R: RequestMessage>(version: i16, frame: Bytes) -> Result<(i32, R::Response)> {
    let mut r = Reader::new(frame);
    let correlation_id = r.i32()?;
    if response_header_is_flexible(R::KEY, version) {
        r.skip_tagged_fields()?;
    }
    Ok((correlation_id, R::Response::decode(&mut r, version)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse};

    #[test]
    fn request_frame_reads_back() {
        let id = ByteString::from("c");
        for version in [0, 8, 9, 13] {
            let request = MetadataRequest { topics: Some(vec![]), ..Default::default() };
            let frame = encode_request(version, 7, Some(&id), &request).unwrap().to_bytes();
            let size = frame_size(frame[..4].try_into().unwrap(), 1000).unwrap();
            assert_eq!(size, frame.len() - SIZE_LEN);
            let (header, got) = decode_request(frame.slice(SIZE_LEN..)).unwrap();
            assert_eq!((header.api_key, header.api_version, header.correlation_id), (3, version, 7));
            assert_eq!(header.client_id.as_deref(), Some("c"));
            assert!(matches!(got, Request::Metadata(_)));
        }
    }

    #[test]
    fn api_versions_response_keeps_the_oldest_header() {
        let frame =
            encode_response(ApiKey::ApiVersions, 3, 5, &ApiVersionsResponse::default()).unwrap().to_bytes();
        assert_eq!(
            &frame[4..10],
            &[0, 0, 0, 5, 0, 0],
            "no tagged fields between correlation id and error code"
        );
        let (id, _) = decode_response::<ApiVersionsRequest>(3, frame.slice(4..)).unwrap();
        assert_eq!(id, 5);
        let frame = encode_response(ApiKey::Metadata, 9, 5, &MetadataResponse::default()).unwrap().to_bytes();
        assert_eq!(&frame[4..9], &[0, 0, 0, 5, 0]);
    }

    #[test]
    fn frame_sizes_outside_the_limit_are_refused() {
        assert_eq!(frame_size([0, 0, 0, 9], 9), Ok(9));
        for size in [[0, 0, 0, 10], [255; 4], [127, 255, 255, 255]] {
            assert!(matches!(frame_size(size, 9), Err(WireError::FrameSize { limit: 9, .. })));
        }
    }

    #[test]
    fn unknown_keys_and_versions_are_named() {
        let frame = Bytes::from_static(&[3, 231, 0, 0, 0, 0, 0, 1, 255, 255]);
        assert_eq!(decode_request(frame), Err(WireError::UnsupportedApiKey(999)));
        let frame = Bytes::from_static(&[0, 3, 0, 99, 0, 0, 0, 1, 255, 255, 0]);
        assert_eq!(
            decode_request(frame),
            Err(WireError::UnsupportedVersion { api: "MetadataRequest", version: 99 })
        );
    }
}
