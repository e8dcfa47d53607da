//! One connection to one broker, one request at a time, each in the highest version that both sides know.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use aqueduct_core::{Error, Result};
use aqueduct_wire::frame::{decode_response, encode_request, frame_size};
use aqueduct_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use aqueduct_wire::{ApiKey, ByteString, ErrorCode, RequestMessage};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::security::Security;

/// More than any answer to a question of administration has.
const ANSWER_MAX_BYTES: usize = 256 << 20;

/// What carries the bytes.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection whose versions are known.
pub(super) struct Connection {
    wire: Wire,
    api_versions: ApiVersionsResponse,
    versions: BTreeMap<i16, (i16, i16)>,
}

impl Connection {
    /// Connects, agrees on versions, and authenticates where that is set.
    pub(super) async fn open(
        address: &str,
        client_id: &str,
        security: &Security,
        deadline: Instant,
    ) -> Result<Self> {
        let (host, port) = host_and_port(address)?;
        let begun = Instant::now();
        let failed = |why: String| Error::retriable(format!("cannot connect to `{address}`: {why}"));
        let late = |what: &str| failed(format!("{what} took longer than {}", seconds(begun.elapsed())));
        let stream = timeout_at(deadline, TcpStream::connect((host, port))).await;
        let stream = stream.map_err(|_| late("connecting"))?.map_err(|error| failed(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        let stream = timeout_at(deadline, security.wrap(stream, host)).await;
        let stream = stream.map_err(|_| late("the TLS handshake"))?.map_err(failed)?;
        let wire = Wire {
            stream,
            address: address.to_owned(),
            client_id: client_id.into(),
            correlation: 0,
            usable: true,
        };
        let mut connection =
            Self { wire, api_versions: ApiVersionsResponse::default(), versions: BTreeMap::new() };
        connection.negotiate(deadline).await?;
        if let Some(sasl) = security.sasl() {
            sasl.authenticate(&mut connection, deadline).await?;
        }
        Ok(connection)
    }

    pub(super) fn address(&self) -> &str {
        &self.wire.address
    }

    pub(super) fn api_versions(&self) -> &ApiVersionsResponse {
        &self.api_versions
    }

    /// Whether the next answer would be the one to the next request.
    pub(super) fn is_usable(&self) -> bool {
        self.wire.usable
    }

    /// Whether the broker knows an API, in a version that we know, too.
    pub(super) fn serves(&self, api: ApiKey) -> bool {
        self.version(api, api.versions()).is_ok()
    }

    async fn negotiate(&mut self, deadline: Instant) -> Result<()> {
        let request = ApiVersionsRequest {
            client_software_name: "aqueduct".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        // Version 4 tells of every feature; 3 is answered by brokers since Apache Kafka 2.4, 0 by all.
        let frame = self.wire.exchange(4, &request, deadline).await?;
        // A broker that does not know the version answers in version 0, which begins the same way.
        let too_new = frame.get(4..6) == Some(&ErrorCode::UnsupportedVersion.code().to_be_bytes()[..]);
        let response = if too_new {
            let known = self.wire.decode::<ApiVersionsRequest>(0, frame)?;
            let known = known.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions.code());
            let version = if known.is_some_and(|api| api.max_version >= 3) { 3 } else { 0 };
            self.wire.call(version, &request, deadline).await?
        } else {
            self.wire.decode::<ApiVersionsRequest>(4, frame)?
        };
        let code = ErrorCode::from_code(response.error_code);
        code.ok().map_err(|code| {
            Error::fatal(format!("`{}` refused the first request: {code}", self.address()))
        })?;
        self.versions =
            response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        self.api_versions = response;
        Ok(())
    }

    /// The highest version of an API within `ours` that the broker knows, too.
    fn version(&self, api: ApiKey, ours: RangeInclusive<i16>) -> Result<i16> {
        let codec = api.versions();
        let low = *ours.start().max(codec.start());
        let high = *ours.end().min(codec.end());
        let Some((their_low, their_high)) = self.versions.get(&api.code()) else {
            return Err(Error::fatal(format!(
                "the broker at `{}` does not serve {}; it may be too old for this, or not Kafka's protocol in full",
                self.address(),
                api.name()
            )));
        };
        let version = high.min(*their_high);
        if version < low.max(*their_low) {
            return Err(Error::fatal(format!(
                "the broker at `{}` serves {} in the versions {their_low} to {their_high}, this needs one of {low} to {high}",
                self.address(),
                api.name()
            )));
        }
        Ok(version)
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn call<R: RequestMessage>(
        &mut self,
        request: &R,
        versions: RangeInclusive<i16>,
        deadline: Instant,
    ) -> Result<R::Response> {
        let version = self.version(R::KEY, versions)?;
        self.wire.call(version, request, deadline).await
    }
}

struct Wire {
    stream: Box<dyn Stream>,
    address: String,
    client_id: ByteString,
    correlation: i32,
    usable: bool,
}

impl Wire {
    async fn call<R: RequestMessage>(
        &mut self,
        version: i16,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response> {
        let frame = self.exchange(version, request, deadline).await?;
        self.decode::<R>(version, frame)
    }

    fn decode<R: RequestMessage>(&self, version: i16, frame: Bytes) -> Result<R::Response> {
        let decoded = decode_response::<R>(version, frame);
        let (_, response) = decoded.map_err(|error| {
            Error::fatal(format!(
                "the answer of `{}` to {} v{version} cannot be read",
                self.address,
                R::KEY.name()
            ))
            .with_source(error)
        })?;
        Ok(response)
    }

    /// The whole answer, with its correlation id checked.
    async fn exchange<R: RequestMessage>(
        &mut self,
        version: i16,
        request: &R,
        deadline: Instant,
    ) -> Result<Bytes> {
        if !self.usable {
            return Err(Error::retriable(format!("the connection to `{}` was lost", self.address)));
        }
        let name = R::KEY.name();
        self.correlation = self.correlation.wrapping_add(1);
        let frame =
            encode_request(version, self.correlation, Some(&self.client_id), request).map_err(|error| {
                Error::fatal(format!("{name} v{version} cannot be written")).with_source(error)
            })?;
        // Until the answer is complete, a later one could be taken for it.
        self.usable = false;
        let begun = Instant::now();
        let exchanged = timeout_at(deadline, self.send_and_read(&frame.to_bytes())).await;
        let answer = match exchanged {
            Err(_) => {
                let waited = seconds(begun.elapsed());
                return Err(Error::retriable(format!(
                    "`{}` did not answer {name} within {waited}; allow more with --timeout",
                    self.address
                )));
            }
            Ok(Err(error)) => {
                let hint = match error.kind() {
                    std::io::ErrorKind::UnexpectedEof if name == "ApiVersions" => {
                        " (it closed the connection: does it expect TLS, or is it no Kafka broker?)"
                    }
                    std::io::ErrorKind::InvalidData => " (does it expect TLS, or is it no Kafka broker?)",
                    _ => "",
                };
                return Err(
                    Error::retriable(format!("{name} to `{}`{hint}", self.address)).with_source(error)
                );
            }
            Ok(Ok(answer)) => answer,
        };
        if answer.get(..4) != Some(&self.correlation.to_be_bytes()[..]) {
            return Err(Error::fatal(format!("`{}` answered another request than {name}", self.address)));
        }
        self.usable = true;
        Ok(answer)
    }

    async fn send_and_read(&mut self, frame: &[u8]) -> std::io::Result<Bytes> {
        self.stream.write_all(frame).await?;
        self.stream.flush().await?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).await?;
        let size = frame_size(size, ANSWER_MAX_BYTES)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
        // As it comes: a size alone may not take memory.
        let mut body = Vec::with_capacity(size.min(1 << 20));
        let read = (&mut self.stream).take(size as u64).read_to_end(&mut body).await?;
        if read < size {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(body.into())
    }
}

/// `host:port`, an IPv6 address in brackets; without a port Kafka's own.
fn host_and_port(address: &str) -> Result<(&str, u16)> {
    let wrong = || Error::bad_config(format!("`{address}` is not `host:port`"));
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') || host.starts_with('[') => (host, port),
        _ => (address, "9092"),
    };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().map_err(|_| wrong())?;
    if bare.is_empty() { Err(wrong()) } else { Ok((bare, port)) }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_users_write_them() {
        let check = |text, expect| assert_eq!(host_and_port(text).ok(), expect, "{text}");
        check("localhost:9093", Some(("localhost", 9093)));
        check("localhost", Some(("localhost", 9092)));
        check("[::1]:9092", Some(("::1", 9092)));
        check(":9092", None);
        check("host:port", None);
        check("host:70000", None);
    }
}
