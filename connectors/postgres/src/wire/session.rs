//! One connection: start-up, queries, COPY.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::frame::{Chunk, Frame, missing, take_chunk, take_frame};
use super::tls::{SslMode, TlsFiles, client_config};
use super::{PgError, ServerError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What one read asks for. Chunks handed on are at most this large, unless one message is larger.
const READ: usize = 128 << 10;

/// Where the database is, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    pub(crate) database: String,
    pub(crate) ssl: SslMode,
    pub(crate) tls: TlsFiles,
}

impl Endpoint {
    /// `host:port/database`, for messages.
    pub(crate) fn shown(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Sql,
    /// `replication=database`: SQL and replication commands, simple protocol only.
    Replication,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A row in text form.
pub(crate) type Row = Vec<Option<String>>;

/// A connection that is ready for queries.
pub(crate) struct Session {
    socket: Box<dyn Socket>,
    inbox: BytesMut,
    outbox: BytesMut,
}

/// Text forms that do not depend on the server's settings, no time limits and no silent row filter by policies.
const OPTIONS: &str = "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 -c bytea_output=hex \
     -c timezone=UTC -c lc_monetary=C -c row_security=off -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 \
     -c default_transaction_read_only=off";

impl Session {
    /// Connects and authenticates. `options` are further `-c name=value` settings.
    pub(crate) async fn connect(to: &Endpoint, mode: Mode, options: &str) -> Result<Self, PgError> {
        let address = format!("{}:{}", to.host, to.port);
        match timeout(CONNECT_TIMEOUT, Self::connect_now(to, mode, options, &address)).await {
            Ok(session) => session,
            Err(_) => Err(PgError::ConnectTimeout { address }),
        }
    }

    async fn connect_now(to: &Endpoint, mode: Mode, options: &str, address: &str) -> Result<Self, PgError> {
        let socket: Box<dyn Socket> = if to.host.starts_with('/') {
            let path = format!("{}/.s.PGSQL.{}", to.host, to.port);
            let connect = tokio::net::UnixStream::connect(path).await;
            Box::new(connect.map_err(|source| PgError::Connect { address: address.to_owned(), source })?)
        } else {
            let connect = TcpStream::connect((to.host.as_str(), to.port)).await;
            let stream =
                connect.map_err(|source| PgError::Connect { address: address.to_owned(), source })?;
            stream.set_nodelay(true)?;
            secure(stream, to).await?
        };
        let mut session = Self { socket, inbox: BytesMut::new(), outbox: BytesMut::new() };
        let options = format!("{OPTIONS} {options}");
        let mut parameters = vec![
            ("user", to.user.as_str()),
            ("database", &to.database),
            ("client_encoding", "UTF8"),
            ("application_name", "aqueduct"),
            ("options", options.trim_end()),
        ];
        if mode == Mode::Replication {
            parameters.push(("replication", "database"));
        }
        frontend::startup_message(parameters, &mut session.outbox)?;
        session.flush().await?;
        session.authenticate(to).await?;
        session.until_ready().await?;
        Ok(session)
    }

    async fn authenticate(&mut self, to: &Endpoint) -> Result<(), PgError> {
        let no_password =
            || PgError::Auth("the server asks for a password, and none is configured".to_owned());
        let mut scram = None;
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'E' => return Err(ServerError::parse(&frame.body).into()),
                b'R' => {}
                // NoticeResponse, NegotiateProtocolVersion.
                b'N' | b'v' => continue,
                other => return Err(unexpected(other)),
            }
            let short = || PgError::Protocol("an authentication request that is cut short".to_owned());
            let method = i32::from_be_bytes(*frame.body.first_chunk::<4>().ok_or_else(short)?);
            let rest = &frame.body[4..];
            let password = to.password.as_deref().ok_or_else(no_password);
            match method {
                0 => return Ok(()),
                3 => frontend::password_message(password?.as_bytes(), &mut self.outbox)?,
                5 => {
                    let salt = *rest.first_chunk::<4>().ok_or_else(short)?;
                    let hash = md5_hash(to.user.as_bytes(), password?.as_bytes(), salt);
                    frontend::password_message(hash.as_bytes(), &mut self.outbox)?;
                }
                10 => {
                    let mechanism = sasl::SCRAM_SHA_256;
                    if !rest.split(|b| *b == 0).any(|name| name == mechanism.as_bytes()) {
                        return Err(PgError::AuthMethod(method));
                    }
                    let exchange =
                        sasl::ScramSha256::new(password?.as_bytes(), sasl::ChannelBinding::unsupported());
                    frontend::sasl_initial_response(mechanism, exchange.message(), &mut self.outbox)?;
                    scram = Some(exchange);
                }
                11 | 12 => {
                    let exchange = scram.as_mut().ok_or(PgError::AuthMethod(method))?;
                    let step = if method == 11 { exchange.update(rest) } else { exchange.finish(rest) };
                    step.map_err(|e| PgError::Auth(e.to_string()))?;
                    if method == 11 {
                        frontend::sasl_response(exchange.message(), &mut self.outbox)?;
                    }
                }
                other => return Err(PgError::AuthMethod(other)),
            }
            self.flush().await?;
        }
    }

    async fn until_ready(&mut self) -> Result<(), PgError> {
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'Z' => return Ok(()),
                b'E' => return Err(ServerError::parse(&frame.body).into()),
                _ => {}
            }
        }
    }

    /// Runs one or several statements and returns every row of them. For small answers.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<Row>, PgError> {
        frontend::query(sql, &mut self.outbox)?;
        self.flush().await?;
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'D' => rows.push(data_row(&frame.body)?),
                b'E' => error = Some(ServerError::parse(&frame.body)),
                b'Z' => break,
                _ => {}
            }
        }
        match error {
            Some(error) => Err(error.into()),
            None => Ok(rows),
        }
    }

    /// Starts a COPY … TO STDOUT or START_REPLICATION; [`Session::chunk`] reads what comes.
    pub(crate) async fn copy(&mut self, sql: &str) -> Result<(), PgError> {
        frontend::query(sql, &mut self.outbox)?;
        self.flush().await?;
        let mut error = None;
        loop {
            let frame = self.frame().await?;
            match (frame.tag, error.take()) {
                (b'H' | b'W', _) => return Ok(()),
                (b'E', _) => error = Some(ServerError::parse(&frame.body)),
                (b'Z', Some(e)) => return Err(PgError::from(e)),
                (b'Z', None) => return Err(unexpected(b'Z')),
                (_, kept) => error = kept,
            }
        }
    }

    /// Reads the next piece of a COPY stream. Cancel-safe.
    pub(crate) async fn chunk(&mut self) -> Result<Chunk, PgError> {
        loop {
            if let Some(chunk) = take_chunk(&mut self.inbox)? {
                return Ok(chunk);
            }
            self.fill().await?;
        }
    }

    /// Reads the next message. Cancel-safe.
    pub(crate) async fn frame(&mut self) -> Result<Frame, PgError> {
        loop {
            if let Some(frame) = take_frame(&mut self.inbox)? {
                // A server that shuts down may say so on a connection that asked nothing.
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), PgError> {
        // Asking for what is missing keeps a large message from growing its buffer step by step.
        let missing = missing(&self.inbox)?;
        if self.inbox.capacity() - self.inbox.len() < missing.max(4096) {
            self.inbox.reserve(missing.max(READ));
        }
        match self.socket.read_buf(&mut self.inbox).await? {
            0 => Err(PgError::Closed),
            _ => Ok(()),
        }
    }

    /// Sends one CopyData message.
    pub(crate) async fn send_copy_data(&mut self, body: &[u8]) -> Result<(), PgError> {
        self.outbox.put_u8(b'd');
        self.outbox.put_u32(body.len() as u32 + 4);
        self.outbox.put_slice(body);
        self.flush().await
    }

    /// Ends a replication stream and the connection, as far as the other side listens.
    pub(crate) async fn finish_copy(mut self) -> Result<(), PgError> {
        frontend::copy_done(&mut self.outbox);
        frontend::terminate(&mut self.outbox);
        self.flush().await?;
        self.socket.shutdown().await?;
        Ok(())
    }

    /// Says good-bye.
    pub(crate) async fn close(mut self) {
        frontend::terminate(&mut self.outbox);
        // Whether the server hears it or sees the end of the connection makes no difference.
        drop(timeout(Duration::from_secs(1), self.flush()).await);
    }

    async fn flush(&mut self) -> Result<(), PgError> {
        self.socket.write_all(&self.outbox).await?;
        self.outbox.clear();
        self.socket.flush().await?;
        Ok(())
    }
}

async fn secure(mut stream: TcpStream, to: &Endpoint) -> Result<Box<dyn Socket>, PgError> {
    if to.ssl == SslMode::Disable {
        return Ok(Box::new(stream));
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    match stream.read_u8().await? {
        b'S' => {}
        b'N' if to.ssl == SslMode::Prefer => return Ok(Box::new(stream)),
        b'N' => return Err(PgError::TlsRefused),
        other => return Err(unexpected(other)),
    }
    let config = client_config(to.ssl, &to.tls)?;
    let name = ServerName::try_from(to.host.clone()).map_err(|e| PgError::Tls(e.to_string()))?;
    let connect = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
    Ok(Box::new(connect.map_err(|e| PgError::Tls(format!("the handshake with `{}` failed: {e}", to.host)))?))
}

fn unexpected(tag: u8) -> PgError {
    PgError::Protocol(format!("message `{}`", char::from(tag).escape_default()))
}

fn data_row(body: &Bytes) -> Result<Row, PgError> {
    let short = || PgError::Protocol("a row that is cut short".to_owned());
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or_else(short)?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (len, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        rest = after;
        let Ok(len) = usize::try_from(i32::from_be_bytes(*len)) else {
            row.push(None);
            continue;
        };
        let (text, after) = rest.split_at_checked(len).ok_or_else(short)?;
        row.push(Some(String::from_utf8_lossy(text).into_owned()));
        rest = after;
    }
    Ok(row)
}

/// An identifier as SQL wants it.
pub(crate) fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text constant as SQL wants it, whatever `standard_conforming_strings` says.
pub(crate) fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}
