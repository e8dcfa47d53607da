//! What can be wrong with bytes that claim to be a Kafka message.

use thiserror::Error;

/// The result of decoding or encoding.
pub type Result<T, E = WireError> = std::result::Result<T, E>;

/// Why a message could not be decoded or encoded. Cheap: nothing in it is allocated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// A field reaches past the end of the frame.
    #[error("message ends early: `{needed}` bytes needed, `{left}` left")]
    Truncated { needed: usize, left: usize },
    /// A varint has more bytes than its type can hold.
    #[error("varint is longer than its type allows")]
    VarintTooLong,
    /// A length below the one that means null, or null where a value must stand.
    #[error("invalid length `{0}`")]
    InvalidLength(i64),
    /// An array announces more elements than there are bytes left.
    #[error("array of `{len}` elements in `{left}` bytes")]
    ArrayTooLong { len: usize, left: usize },
    /// Its elements are small on the wire and large in memory.
    #[error("the elements of its arrays would take more than {limit} bytes")]
    TooManyElements { limit: usize },
    /// A string is not UTF-8.
    #[error("string is not valid UTF-8")]
    NotUtf8,
    /// A value too long for its length field.
    #[error("value of `{0}` bytes is too long for its length field")]
    TooLong(usize),
    /// A null where this version of the message does not allow one.
    #[error("`{0}` must not be null in this version")]
    UnexpectedNull(&'static str),
    /// A version outside of what this build knows.
    #[error("version `{version}` of `{api}` is not supported")]
    UnsupportedVersion { api: &'static str, version: i16 },
    /// An API key outside of what this build knows.
    #[error("api key `{0}` is not supported")]
    UnsupportedApiKey(i16),
    /// A frame larger than the limit of the connection, or negative.
    #[error("frame of `{size}` bytes is outside the limit of `{limit}`")]
    FrameSize { size: i64, limit: usize },
    /// Bytes are left over after the last field.
    #[error("`{0}` bytes left over after the message")]
    Trailing(usize),
}
