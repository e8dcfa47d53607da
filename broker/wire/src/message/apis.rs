//! What the table of APIs in `messages.rs` stands for: [`ApiKey`], [`Request`] and [`Response`].
//!
//! [`ApiKey`]: crate::ApiKey
//! [`Request`]: crate::Request
//! [`Response`]: crate::Response

/// One line an API: name and key, versions that are read and written, the first one in the flexible format, what clients
/// are told, request and response.
macro_rules! apis {
    ($($api:ident = $key:literal: $versions:expr, flexible $flexible:expr, tell $told:expr, $request:ident, $response:ident;)*) => {
        /// An API that can be read and written.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($api = $key,)*
        }

        impl ApiKey {
            /// All of them, by key.
            pub const ALL: &[Self] = &[$(Self::$api),*];

            /// The key on the wire.
            pub const fn code(self) -> i16 {
                self as i16
            }

            /// The API with this key.
            pub fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($key => Some(Self::$api),)*
                    _ => None,
                }
            }

            /// Kafka's name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$api => stringify!($api),)*
                }
            }

            /// Versions that are read and written.
            pub fn versions(self) -> std::ops::RangeInclusive<i16> {
                match self {
                    $(Self::$api => $versions,)*
                }
            }

            /// First version in the flexible format; `i16::MAX` where none is.
            pub fn flexible_from(self) -> i16 {
                match self {
                    $(Self::$api => $flexible,)*
                }
            }

            /// Versions to tell clients. Produce starts at 0, though served from 3: older librdkafka takes a higher
            /// minimum for a broker without compression.
            pub fn advertised(self) -> std::ops::RangeInclusive<i16> {
                match self {
                    $(Self::$api => $told,)*
                }
            }

            /// Whether this version is in the flexible format.
            pub fn is_flexible(self, version: i16) -> bool {
                version >= self.flexible_from()
            }
        }

        crate::message::apis::any_message!(Request, $($api $request),*);
        crate::message::apis::any_message!(Response, $($api $response),*);
    };
}
pub(crate) use apis;

/// The enum of all requests or of all responses.
macro_rules! any_message {
    ($any:ident, $($api:ident $message:ident),*) => {
        #[doc = concat!("Any ", stringify!($any), ".")]
        #[derive(Debug, Clone, PartialEq)]
        pub enum $any {
            $($api($message),)*
        }

        impl $any {
            /// The API it belongs to.
            pub fn api_key(&self) -> ApiKey {
                match self {
                    $(Self::$api(_) => ApiKey::$api,)*
                }
            }

            /// Reads the message of this API and version.
            pub fn decode(api: ApiKey, version: i16, r: &mut crate::Reader) -> crate::Result<Self> {
                Ok(match api {
                    $(ApiKey::$api => Self::$api($message::decode(r, version)?),)*
                })
            }

            /// Writes the message in this version.
            pub fn encode(&self, w: &mut crate::Writer, version: i16) -> crate::Result<()> {
                match self {
                    $(Self::$api(message) => message.encode(w, version),)*
                }
            }
        }

        $(impl From<$message> for $any {
            fn from(message: $message) -> Self {
                Self::$api(message)
            }
        })*
    };
}
pub(crate) use any_message;
