//! The codecs of record batches, with the formats Kafka's own clients write.
//!
//! **Invariant:** decompression stops with an error before its output passes the caller's limit, whatever the input
//! claims about its size.

use std::io::{Read, Write};

use bytes::Bytes;

use crate::batch::BatchError;

/// The most that a batch may become when it is opened: as much as a request frame carries by default, so that a
/// compressed batch holds no more memory than one that is not.
pub const MAX_DECOMPRESSED: usize = 100 << 20;

/// What xerial's snappy-java, and so every Kafka client, puts before its blocks: magic, version 1, compatible from 1.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_BLOCK: usize = 32 * 1024;

/// The codec in the lowest three bits of a batch's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[repr(u8)]
pub enum Compression {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Compression {
    /// All codecs, in the order of their ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this id.
    pub fn from_id(id: u8) -> Result<Self, BatchError> {
        Self::ALL.get(usize::from(id)).copied().ok_or(BatchError::Codec(id))
    }

    /// Kafka's name, as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Decompresses `input`; more than `limit` bytes of output are an error. Uncompressed input is passed through.
    pub fn decompress(self, input: &Bytes, limit: usize) -> Result<Bytes, BatchError> {
        match self {
            Self::None if input.len() > limit => Err(BatchError::TooLarge { limit }),
            Self::None => Ok(input.clone()),
            Self::Gzip => self.drain(flate2::read::MultiGzDecoder::new(&input[..]), input.len(), limit),
            Self::Lz4 => self.drain(lz4_flex::frame::FrameDecoder::new(&input[..]), input.len(), limit),
            Self::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(&input[..]).map_err(|e| self.bad(e))?;
                // The window is allocated before the first byte of output: never more than the output may have,
                // but at least what every encoder may ask of a decoder (8 MiB).
                decoder.window_log_max(limit.max(1).ilog2().clamp(23, 27)).map_err(|e| self.bad(e))?;
                self.drain(decoder, input.len(), limit)
            }
            Self::Snappy => self.unsnap(input, limit),
        }
    }

    /// Compresses `input` as Kafka's clients expect it.
    pub fn compress(self, input: Bytes) -> Result<Bytes, BatchError> {
        let out = match self {
            Self::None => return Ok(input),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&input).and_then(|()| encoder.finish()).map_err(|e| self.bad(e))?
            }
            Self::Lz4 => {
                // Java's decoder knows independent blocks only.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(&input).map_err(|e| self.bad(e))?;
                encoder.finish().map_err(|e| self.bad(e))?
            }
            Self::Zstd => zstd::stream::encode_all(&input[..], 3).map_err(|e| self.bad(e))?,
            Self::Snappy => {
                let mut out = XERIAL_HEADER.to_vec();
                let mut encoder = snap::raw::Encoder::new();
                for block in input.chunks(XERIAL_BLOCK) {
                    let block = encoder.compress_vec(block).map_err(|e| self.bad(e))?;
                    out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                    out.extend_from_slice(&block);
                }
                out
            }
        };
        Ok(out.into())
    }

    fn drain(self, decoder: impl Read, compressed: usize, limit: usize) -> Result<Bytes, BatchError> {
        let mut out = Vec::with_capacity(compressed.min(limit));
        // One byte more than allowed tells "exactly the limit" from "too much".
        let cap = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        decoder.take(cap).read_to_end(&mut out).map_err(|e| self.bad(e))?;
        if out.len() > limit {
            return Err(BatchError::TooLarge { limit });
        }
        Ok(out.into())
    }

    fn unsnap(self, input: &[u8], limit: usize) -> Result<Bytes, BatchError> {
        let mut out = Vec::new();
        let Some(framed) = input.strip_prefix(XERIAL_MAGIC) else {
            // Plain snappy, as some older clients write it.
            self.unsnap_block(input, limit, &mut out)?;
            return Ok(out.into());
        };
        // Version and compatible version: nothing but 1 was ever written.
        let mut rest = framed.get(8..).ok_or_else(|| self.bad("header ends early"))?;
        while !rest.is_empty() {
            let (len, tail) = rest.split_first_chunk().ok_or_else(|| self.bad("block length ends early"))?;
            let len = u32::from_be_bytes(*len) as usize;
            let block = tail.get(..len).ok_or_else(|| self.bad("block ends early"))?;
            self.unsnap_block(block, limit, &mut out)?;
            rest = &tail[len..];
        }
        Ok(out.into())
    }

    fn unsnap_block(self, block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
        let len = snap::raw::decompress_len(block).map_err(|e| self.bad(e))?;
        if len > limit - out.len() {
            return Err(BatchError::TooLarge { limit });
        }
        // Snappy expands at most by 64 to 3: a larger claim is a lie, and must not cost its memory.
        if len / 32 > block.len() {
            return Err(self.bad("claims more output than its input can hold"));
        }
        let start = out.len();
        out.resize(start + len, 0);
        snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|e| self.bad(e))?;
        Ok(())
    }

    fn bad(self, error: impl std::fmt::Display) -> BatchError {
        BatchError::Decompression { codec: self.name(), reason: error.to_string() }
    }
}
