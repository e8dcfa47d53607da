//! The bucket: one method per request, and the meaning of what the server answers.
//!
//! Requests whose repetition is harmless are tried three times by the SDK. Those that make an object are sent once: a
//! reply that was lost is an unknown outcome, and [`upload`](crate::upload) finds out.

use std::error::Error as StdError;

use aqueduct_core::{Error, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::config::S3Config;

/// Why a request did not do what it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The name is taken.
    Exists,
    /// The server knows nothing of this upload (any more).
    Gone,
    /// Everything else.
    Other(Error),
}

/// What an object holds: size, CRC-32C of the whole, and (as some servers keep it) of its parts' CRC-32Cs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) size: u64,
    pub(crate) crc: u32,
    pub(crate) parts: Option<(u32, usize)>,
}

/// What the server says about an object.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    size: u64,
    checksum: Option<String>,
}

impl Found {
    /// Whether it is certainly the same. Without a checksum nothing is certain.
    pub(crate) fn is(&self, content: &Content) -> bool {
        let Some(checksum) = &self.checksum else { return false };
        let of_parts = content.parts.map(|(crc, count)| format!("{}-{count}", encode(crc)));
        self.size == content.size && (*checksum == encode(content.crc) || Some(checksum) == of_parts.as_ref())
    }

    /// Its size, which is enough where nobody else can have used the name.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

/// A multipart upload that was never completed.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) key: String,
    pub(crate) id: String,
}

/// Where a listing goes on.
pub(crate) type Marker = (Option<String>, Option<String>);

/// A bucket on a server.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    client: Client,
    /// The same without retries.
    once: Client,
    bucket: String,
    /// For messages: empty, or where the server is.
    server: String,
    conditional: bool,
    content_type: &'static str,
}

impl Store {
    pub(crate) fn new(config: &S3Config) -> Self {
        let token = config.session_token.as_ref().map(|token| token.expose().to_owned());
        let (access, secret) = (config.access_key.expose(), config.secret_key.expose());
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(config.timeout.min(std::time::Duration::from_secs(5)))
            .operation_attempt_timeout(config.timeout)
            .build();
        let mut builder = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .credentials_provider(Credentials::new(access, secret, token, None, "config"))
            .force_path_style(config.path_style)
            // Every body carries the CRC-32C that is computed here anyway.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .timeout_config(timeouts);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        let with = |retry| Client::from_conf(builder.clone().retry_config(retry).build());
        Self {
            client: with(RetryConfig::standard().with_max_attempts(3)),
            once: with(RetryConfig::disabled()),
            bucket: config.bucket.clone(),
            server: config.endpoint.as_ref().map(|at| format!(" at `{at}`")).unwrap_or_default(),
            conditional: config.conditional,
            content_type: config.format.content_type(),
        }
    }

    /// Whether names are kept unique by the server.
    pub(crate) fn conditional(&self) -> bool {
        self.conditional
    }

    /// Whether the bucket answers.
    pub(crate) async fn check(&self) -> Result<()> {
        let answer = self.once.list_objects_v2().bucket(&self.bucket).max_keys(1).send().await;
        answer.map(drop).map_err(|error| self.error("reach", "", error))
    }

    /// Writes a whole object, unless its name is taken.
    pub(crate) async fn put(&self, key: &str, body: Bytes, crc: u32) -> Result<(), Failure> {
        let request = self.once.put_object().bucket(&self.bucket).key(key).checksum_crc32_c(encode(crc));
        let request = request.content_type(self.content_type).body(ByteStream::from(body));
        let request = if self.conditional { request.if_none_match("*") } else { request };
        request.send().await.map(drop).map_err(|error| self.failure("write", key, error))
    }

    /// Begins a multipart upload.
    pub(crate) async fn create(&self, key: &str) -> Result<String> {
        let request = self.client.create_multipart_upload().bucket(&self.bucket).key(key);
        let request = request.content_type(self.content_type).checksum_algorithm(ChecksumAlgorithm::Crc32C);
        let answer = request.checksum_type(ChecksumType::FullObject).send().await;
        let answer = answer.map_err(|error| self.error("begin", key, error))?;
        let id = answer.upload_id().filter(|id| !id.is_empty());
        id.map(str::to_owned)
            .ok_or_else(|| Error::retriable(format!("S3 began `{key}` without saying which upload it is")))
    }

    /// Uploads a part; numbers begin with 1.
    pub(crate) async fn part(
        &self,
        key: &str,
        id: &str,
        number: i32,
        body: Bytes,
        crc: u32,
    ) -> Result<CompletedPart, Failure> {
        let request =
            self.client.upload_part().bucket(&self.bucket).key(key).upload_id(id).part_number(number);
        let request = request.checksum_crc32_c(encode(crc)).body(ByteStream::from(body));
        let answer = request.send().await.map_err(|error| self.failure("upload a part of", key, error))?;
        let part = CompletedPart::builder().part_number(number).checksum_crc32_c(encode(crc));
        Ok(part.set_e_tag(answer.e_tag).build())
    }

    /// Makes an object of the parts, unless its name is taken.
    pub(crate) async fn complete(
        &self,
        key: &str,
        id: &str,
        parts: &[CompletedPart],
        content: &Content,
    ) -> Result<(), Failure> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build();
        let request = self.once.complete_multipart_upload().bucket(&self.bucket).key(key).upload_id(id);
        let request = request.multipart_upload(parts).checksum_crc32_c(encode(content.crc));
        let request = request.checksum_type(ChecksumType::FullObject);
        let request = if self.conditional { request.if_none_match("*") } else { request };
        request.send().await.map(drop).map_err(|error| self.failure("complete", key, error))
    }

    /// Gives a multipart upload up. One that is not there is given up already.
    pub(crate) async fn abort(&self, key: &str, id: &str) -> Result<()> {
        let answer =
            self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(id).send().await;
        match answer.map_err(|error| self.failure("abort", key, error)) {
            Ok(_) | Err(Failure::Gone) => Ok(()),
            Err(failure) => Err(failure.into_error("abort", key)),
        }
    }

    /// What is there under a name.
    pub(crate) async fn head(&self, key: &str) -> Result<Option<Found>> {
        let request =
            self.client.head_object().bucket(&self.bucket).key(key).checksum_mode(ChecksumMode::Enabled);
        match request.send().await {
            Ok(answer) => Ok(Some(Found {
                size: answer.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                checksum: answer.checksum_crc32_c().map(str::to_owned),
            })),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => Ok(None),
            Err(error) => Err(self.error("look up", key, error)),
        }
    }

    /// A page of the uploads that were never completed, and where the next one begins.
    pub(crate) async fn pending(
        &self,
        prefix: &str,
        marker: Marker,
    ) -> Result<(Vec<Pending>, Option<Marker>)> {
        let request = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(prefix);
        let request = request.set_key_marker(marker.0).set_upload_id_marker(marker.1);
        let answer = request.send().await.map_err(|error| self.error("list uploads of", prefix, error))?;
        let uploads = answer.uploads().iter().filter_map(|upload| {
            Some(Pending { key: upload.key()?.to_owned(), id: upload.upload_id()?.to_owned() })
        });
        let uploads = uploads.collect();
        let more = answer.is_truncated() == Some(true);
        Ok((uploads, more.then_some((answer.next_key_marker, answer.next_upload_id_marker))))
    }

    fn error<E>(&self, what: &str, key: &str, error: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        self.failure(what, key, error).into_error(what, key)
    }

    /// The one place that says what an answer means.
    fn failure<E>(&self, what: &str, key: &str, error: SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let status = error.raw_response().map_or(0, |answer| answer.status().as_u16());
        let code = error.code().unwrap_or_default().to_owned();
        let said = error.message().unwrap_or_default().to_owned();
        let (bucket, server) = (&self.bucket, &self.server);
        let message = match key {
            "" => format!("cannot {what} bucket `{bucket}`{server}"),
            _ => format!("cannot {what} `{key}` in bucket `{bucket}`{server}"),
        };
        let answered = format!("{message}: {status} {code} {said}").trim_end().to_owned();
        let kind: fn(String) -> Error = match (code.as_str(), status) {
            ("PreconditionFailed" | "ConditionalRequestConflict", _) | (_, 412) => return Failure::Exists,
            ("NoSuchUpload", _) => return Failure::Gone,
            ("NoSuchBucket", _) => {
                return Failure::Other(Error::bad_config(format!(
                    "bucket `{bucket}` does not exist{server}; create it first"
                )));
            }
            (
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidToken"
                | "AuthorizationHeaderMalformed",
                _,
            )
            | ("PermanentRedirect" | "IllegalLocationConstraintException" | "InvalidBucketName", _) => {
                return Failure::Other(Error::bad_config(format!(
                    "{answered}; check `access_key`, `secret_key`, `region` and `endpoint`"
                )));
            }
            ("NotImplemented", _) => {
                return Failure::Other(Error::bad_config(format!(
                    "{answered}; if the server has no conditional writes, set `conditional_writes: false`"
                )));
            }
            ("RequestTimeout" | "SlowDown" | "Throttling" | "RequestTimeTooSkewed", _)
            | (_, 408 | 429 | 500..) => Error::retriable,
            // No answer: the server is away, slow, or talks something else.
            (_, 0) if !matches!(error, SdkError::ConstructionFailure(_)) => {
                return Failure::Other(Error::retriable(message).with_source(error));
            }
            (_, 0) => return Failure::Other(Error::fatal(message).with_source(error)),
            // Such as a permission, which may be given while the task restarts.
            _ => Error::fatal,
        };
        Failure::Other(kind(answered))
    }
}

impl Failure {
    /// As an error, where the special cases are nothing special.
    pub(crate) fn into_error(self, what: &str, key: &str) -> Error {
        match self {
            Failure::Other(error) => error,
            Failure::Exists => Error::retriable(format!("cannot {what} `{key}`: a write to it is under way")),
            Failure::Gone => Error::fatal(format!("cannot {what} `{key}`: its upload is gone")),
        }
    }
}

fn encode(crc: u32) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_size_and_checksum_together_make_it_the_same() {
        let content = Content { size: 9, crc: crc32c::crc32c(b"123456789"), parts: Some((7, 2)) };
        let found = |size, checksum: Option<&str>| Found { size, checksum: checksum.map(str::to_owned) };
        assert!(found(9, Some("4waSgw==")).is(&content), "the check value of CRC-32C");
        assert!(found(9, Some("AAAABw==-2")).is(&content), "the checksum of the parts' checksums");
        assert!(!found(8, Some("4waSgw==")).is(&content));
        assert!(!found(9, Some("4waSgg==")).is(&content));
        assert!(!found(9, None).is(&content));
    }
}
