//! `postgres://` URLs.

use crate::wire::{Endpoint, SslMode, TlsFiles};

/// Reads a URL. Errors never quote it: it may hold a password.
pub(crate) fn parse(url: &str) -> Result<Endpoint, String> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let rest = rest.ok_or("it must begin with `postgres://`")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (decode(user)?, Some(decode(password)?)),
        None => (decode(login)?, None),
    };
    let (host, port) = host_port(address)?;
    let mut endpoint = Endpoint {
        host,
        port,
        database: decode(database)?,
        user,
        password,
        ssl: SslMode::Prefer,
        tls: TlsFiles::default(),
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        parameter(&mut endpoint, key, decode(value)?)?;
    }
    if endpoint.user.is_empty() {
        return Err("it names no user".to_owned());
    }
    if endpoint.database.is_empty() {
        endpoint.database.clone_from(&endpoint.user);
    }
    Ok(endpoint)
}

fn host_port(address: &str) -> Result<(String, u16), String> {
    let bad_port = || "its port is not a number from 1 to 65535".to_owned();
    let (host, port) = match address.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']').ok_or("its `[` is not closed")?;
            (host, rest.strip_prefix(':').unwrap_or(""))
        }
        None => address.rsplit_once(':').unwrap_or((address, "")),
    };
    let port = if port.is_empty() { 5432 } else { port.parse().map_err(|_| bad_port())? };
    if port == 0 {
        return Err(bad_port());
    }
    let host = decode(host)?;
    Ok((if host.is_empty() { "localhost".to_owned() } else { host }, port))
}

fn parameter(endpoint: &mut Endpoint, key: &str, value: String) -> Result<(), String> {
    match key {
        "sslmode" => {
            let words = SslMode::WORDS.join("`, `");
            endpoint.ssl = SslMode::parse(&value).ok_or(format!("its `sslmode` is not one of `{words}`"))?;
        }
        "sslrootcert" => endpoint.tls.root = Some(value),
        "sslcert" => endpoint.tls.cert = Some(value),
        "sslkey" => endpoint.tls.key = Some(value),
        "host" => endpoint.host = value,
        "port" => endpoint.port = value.parse().map_err(|_| "its `port` is not a number")?,
        "user" => endpoint.user = value,
        "password" => endpoint.password = Some(value),
        "dbname" => endpoint.database = value,
        // Of no meaning here, and common.
        "application_name"
        | "connect_timeout"
        | "channel_binding"
        | "gssencmode"
        | "target_session_attrs" => {}
        other => {
            return Err(format!(
                "its parameter `{other}` is not known; `sslmode`, `sslrootcert`, `sslcert` and `sslkey` are"
            ));
        }
    }
    Ok(())
}

fn decode(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(
                "a `%` in it is not followed by two hexadecimal digits; write `%25` for `%`".to_owned()
            );
        };
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).map_err(|_| "it is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_found() {
        let url = "postgresql://me:p%40ss@[::1]:6000/shop?sslmode=verify-full&sslrootcert=/ca.pem";
        let endpoint = parse(url).expect("valid");
        assert_eq!(endpoint.shown(), "::1:6000/shop");
        assert_eq!((endpoint.user.as_str(), endpoint.password.as_deref()), ("me", Some("p@ss")));
        assert_eq!((endpoint.ssl, endpoint.tls.root.as_deref()), (SslMode::VerifyFull, Some("/ca.pem")));
    }

    #[test]
    fn defaults_are_those_of_libpq() {
        let endpoint = parse("postgres://me@/").expect("valid");
        assert_eq!(endpoint.shown(), "localhost:5432/me");
        assert_eq!(parse("postgres://me@h?host=/run/pg").expect("valid").host, "/run/pg");
    }

    #[test]
    fn errors_never_show_the_password() {
        for url in [
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@h:x/d",
            "postgres://u:hunter2%@h/d",
            "postgres://:hunter2@h/d",
        ] {
            let error = parse(url).err().expect("refused");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
