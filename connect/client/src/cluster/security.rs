//! TLS and SASL, by the names that the client library has for them.
//!
//! **Invariant:** what is asked for and not to be had is an error, never a connection with less protection.

use std::collections::BTreeMap;
use std::sync::Arc;

use aqueduct_core::{Error, Result};
use aqueduct_wire::ErrorCode;
use aqueduct_wire::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use bytes::Bytes;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Stream};
use super::scram::{Hash, Scram};

/// How connections are protected.
pub(super) struct Security {
    tls: Option<TlsConnector>,
    sasl: Option<Sasl>,
}

/// How this client says who it is.
pub(super) struct Sasl {
    mechanism: Mechanism,
    username: String,
    password: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Scram(Hash),
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Scram(Hash::Sha256) => "SCRAM-SHA-256",
            Mechanism::Scram(Hash::Sha512) => "SCRAM-SHA-512",
        }
    }
}

/// Settings of TLS that have no equal here.
const UNKNOWN_TLS: &[&str] = &[
    "ssl.keystore.location",
    "ssl.ca.pem",
    "ssl.key.pem",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.curves.list",
    "ssl.sigalgs.list",
    "ssl.crl.location",
    "ssl.key.password",
    "ssl.engine.location",
    "ssl.ca.certificate.stores",
];

type Settings = BTreeMap<String, String>;

impl Security {
    /// From the library's settings.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let protocol = settings.get("security.protocol").map_or("plaintext", String::as_str);
        let (tls, sasl) = match protocol.to_ascii_lowercase().as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            _ => {
                return Err(Error::bad_config(format!(
                    "`security.protocol={protocol}`: write `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`"
                )));
            }
        };
        Ok(Self {
            tls: if tls { Some(connector(settings)?) } else { None },
            sasl: if sasl { Some(Sasl::new(settings)?) } else { None },
        })
    }

    pub(super) fn sasl(&self) -> Option<&Sasl> {
        self.sasl.as_ref()
    }

    /// The stream, protected.
    pub(super) async fn wrap(&self, stream: TcpStream, host: &str) -> Result<Box<dyn Stream>, String> {
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("tls: {error}"))?;
        let stream = tls.connect(name, stream).await.map_err(|error| {
            let unknown = error.to_string().contains("UnknownIssuer");
            let hint = if unknown { "; name its authority with `ssl.ca.location`" } else { "" };
            format!("tls: {error}{hint}")
        })?;
        Ok(Box::new(stream))
    }
}

fn connector(settings: &Settings) -> Result<TlsConnector> {
    let off =
        |key: &str, value: &str| settings.get(key).is_some_and(|given| given.eq_ignore_ascii_case(value));
    if off("enable.ssl.certificate.verification", "false")
        || off("ssl.endpoint.identification.algorithm", "none")
    {
        return Err(Error::bad_config(
            "certificates are always verified, and host names too; name your authority with `ssl.ca.location`",
        ));
    }
    if let Some(key) = UNKNOWN_TLS.iter().find(|key| settings.contains_key(**key)) {
        return Err(Error::bad_config(format!(
            "`{key}` is not supported; there are `ssl.ca.location`, `ssl.certificate.location` and `ssl.key.location`, files in the format PEM"
        )));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::fatal("setting up tls").with_source(error))?
        .with_root_certificates(roots(settings)?);
    let pair = (settings.get("ssl.certificate.location"), settings.get("ssl.key.location"));
    let config = match pair {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates("ssl.certificate.location", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| Error::bad_config(format!("`ssl.key.location`: `{key}`: {error}")))?;
            let own = builder.with_client_auth_cert(chain, key);
            own.map_err(|error| Error::bad_config(format!("`ssl.certificate.location`: {error}")))?
        }
        _ => {
            return Err(Error::bad_config("`ssl.certificate.location` and `ssl.key.location` go together"));
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(settings: &Settings) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match settings.get("ssl.ca.location") {
        Some(path) => {
            for certificate in certificates("ssl.ca.location", path)? {
                roots.add(certificate).map_err(|error| {
                    Error::bad_config(format!("`ssl.ca.location`: `{path}`")).with_source(error)
                })?;
            }
        }
        None => {
            // One of many that is broken is no reason to trust none.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(Error::bad_config(
                    "this system has no certificate authorities; name yours with `ssl.ca.location`",
                ));
            }
        }
    }
    Ok(roots)
}

fn certificates(key: &str, path: &str) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |error: &dyn std::fmt::Display| Error::bad_config(format!("`{key}`: `{path}`: {error}"));
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"no certificate in it")) } else { Ok(found) }
}

impl Sasl {
    fn new(settings: &Settings) -> Result<Self> {
        let given = settings.get("sasl.mechanism").or_else(|| settings.get("sasl.mechanisms"));
        let mechanism = match given.map(String::as_str) {
            Some("PLAIN") => Mechanism::Plain,
            Some("SCRAM-SHA-256") => Mechanism::Scram(Hash::Sha256),
            Some("SCRAM-SHA-512") => Mechanism::Scram(Hash::Sha512),
            other => {
                let other = other.unwrap_or_default();
                return Err(Error::bad_config(format!(
                    "`sasl.mechanism={other}`: write `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; others are not supported"
                )));
            }
        };
        let wanted = |key: &str| {
            let missing =
                || Error::bad_config(format!("`{key}` is missing, `security.protocol` asks for it"));
            settings.get(key).cloned().ok_or_else(missing)
        };
        Ok(Self { mechanism, username: wanted("sasl.username")?, password: wanted("sasl.password")? })
    }

    /// Says who this is; where the broker proves itself too, that is checked.
    pub(super) async fn authenticate(&self, connection: &mut Connection, deadline: Instant) -> Result<()> {
        let request = SaslHandshakeRequest { mechanism: self.mechanism.name().into() };
        let response = connection.call(&request, 1..=1, deadline).await?;
        if ErrorCode::from_code(response.error_code) != ErrorCode::None {
            let offered: Vec<&str> = response.mechanisms.iter().map(|name| &**name).collect();
            return Err(Error::bad_config(format!(
                "`{}` does not take `sasl.mechanism={}`; it takes {}",
                connection.address(),
                self.mechanism.name(),
                offered.join(", ")
            )));
        }
        match self.mechanism {
            Mechanism::Plain => {
                let text = format!("\0{}\0{}", self.username, self.password);
                step(connection, text.into(), deadline).await.map(drop)
            }
            Mechanism::Scram(hash) => {
                let scram = Scram::new(hash, &self.username, &nonce()?);
                let first = step(connection, scram.first().into(), deadline).await?;
                let wrong = |why: &str| Error::fatal(format!("{}: {why}", hash.name()));
                let (proof, signature) = scram.proof(&self.password, &first).map_err(|why| wrong(&why))?;
                let last = step(connection, proof.into(), deadline).await?;
                if !signature.is_in(&last) {
                    return Err(wrong("the broker does not know the password: it is not the one it says"));
                }
                Ok(())
            }
        }
    }
}

fn nonce() -> Result<[u8; 24]> {
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce).map_err(|error| Error::fatal(format!("no random numbers: {error}")))?;
    Ok(nonce)
}

async fn step(connection: &mut Connection, auth_bytes: Bytes, deadline: Instant) -> Result<Bytes> {
    let request = SaslAuthenticateRequest { auth_bytes };
    let response = connection.call(&request, 0..=2, deadline).await?;
    if ErrorCode::from_code(response.error_code) != ErrorCode::None {
        let message = response.error_message.as_deref().unwrap_or("wrong user or password");
        return Err(Error::fatal(format!(
            "`{}` refused to authenticate: {message}; check `sasl.username` and `sasl.password`",
            connection.address()
        )));
    }
    Ok(response.auth_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settings: &[(&str, &str)], expect: &str) {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let error = Security::new(&settings).err().map(|error| error.full()).unwrap_or_default();
        assert!(error.contains(expect) && !error.contains("hunter2"), "{settings:?}: {error}");
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        check(&[("security.protocol", "tls")], "sasl_ssl");
        check(&[("security.protocol", "SASL_PLAINTEXT")], "SCRAM-SHA-256");
        check(&[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "GSSAPI")], "not supported");
        let plain = [("security.protocol", "sasl_plaintext"), ("sasl.mechanisms", "PLAIN")];
        check(&plain, "`sasl.username` is missing");
        check(&[plain[0], plain[1], ("sasl.username", "a")], "`sasl.password` is missing");
        let ssl = ("security.protocol", "ssl");
        check(&[ssl, ("enable.ssl.certificate.verification", "false")], "always verified");
        check(&[ssl, ("ssl.keystore.location", "x")], "`ssl.keystore.location` is not supported");
        check(&[ssl, ("ssl.ca.location", "/none")], "`ssl.ca.location`: `/none`");
    }

    #[test]
    fn what_can_be_had_is() {
        let settings = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "a"),
            ("sasl.password", "hunter2"),
        ];
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let security = Security::new(&settings).expect("known");
        assert!(security.tls.is_none());
        assert_eq!(security.sasl().expect("asked for").mechanism, Mechanism::Scram(Hash::Sha512));
    }
}
