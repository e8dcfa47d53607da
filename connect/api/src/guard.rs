//! Which requests are let in at all: the defence of a listener that has no authentication yet.
//!
//! A page in a browser can make the browser send requests to loopback. It cannot choose `Host` freely (it can rebind a
//! name of its own to loopback, which shows in `Host`), cannot leave `Origin` out, and cannot send
//! `application/json` to another origin without asking first. **Invariant:** no handler runs before these three checks.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};

use crate::error::ApiError;

/// Who may be addressed, and from where.
#[derive(Clone, Debug)]
pub struct Guard {
    local: SocketAddr,
    names: Vec<String>,
}

impl Guard {
    /// For a listener on `local`; `names` are further host names under which it is known.
    pub fn new(local: SocketAddr, names: Vec<String>) -> Self {
        Self { local, names }
    }

    /// Lets a request in or says why not.
    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if !self.knows(host) {
            let message = format!("host `{host}` is not this server; ask for `{}`", self.local);
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
        if let Some(origin) = headers.get(ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if !host.is_some_and(|host| self.knows(host)) {
                let message = format!("origin `{origin}` is not allowed");
                return Err(ApiError::new(StatusCode::FORBIDDEN, message));
            }
        }
        let has_body = headers.contains_key("content-length")
            && headers.get("content-length").is_none_or(|n| n != "0")
            || headers.contains_key("transfer-encoding");
        if has_body && method != Method::GET && !is_json(headers) {
            let message = "the body must be sent as `content-type: application/json`";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        Ok(())
    }

    /// Names are compared without their port only where the port is the default one a proxy would leave out.
    fn knows(&self, authority: &str) -> bool {
        let (host, port) = split(authority);
        if port.is_some_and(|port| port != self.local.port()) {
            return false;
        }
        if self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
            || host.eq_ignore_ascii_case("localhost")
        {
            return true;
        }
        match host.parse::<IpAddr>() {
            // A browser that was sent to an address by its number cannot have been rebound.
            Ok(address) => {
                address == self.local.ip() || address.is_loopback() || self.local.ip().is_unspecified()
            }
            Err(_) => false,
        }
    }
}

fn split(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
        Some(_) | None => (authority, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, port)
}

fn is_json(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, headers: &[(&'static str, &str)]) -> u16 {
        let guard = Guard::new("127.0.0.1:8083".parse().expect("an address"), vec!["connect.example".into()]);
        let headers = headers.iter().map(|(name, value)| {
            let name = axum::http::HeaderName::from_static(name);
            (name, value.parse().expect("a header value"))
        });
        match guard.check(&method, &headers.collect()) {
            Ok(()) => 200,
            Err(error) => error.status().as_u16(),
        }
    }

    #[test]
    fn known_hosts_are_let_in() {
        for host in ["127.0.0.1:8083", "localhost:8083", "LOCALHOST", "connect.example:8083", "[::1]:8083"] {
            assert_eq!(check(Method::GET, &[("host", host)]), 200, "{host}");
        }
    }

    #[test]
    fn a_rebound_name_is_kept_out() {
        for host in [
            "evil.example:8083",
            "evil.example",
            "127.0.0.1:80",
            "",
            "localhost.evil.example:8083",
            "10.0.0.1:8083",
        ] {
            assert_eq!(check(Method::GET, &[("host", host)]), 403, "{host}");
        }
    }

    #[test]
    fn a_foreign_origin_is_kept_out() {
        let host = ("host", "localhost:8083");
        assert_eq!(check(Method::GET, &[host, ("origin", "http://evil.example")]), 403);
        assert_eq!(check(Method::GET, &[host, ("origin", "null")]), 403);
        assert_eq!(check(Method::GET, &[host, ("origin", "http://localhost:8083")]), 200);
    }

    #[test]
    fn a_body_must_be_json() {
        let host = ("host", "localhost:8083");
        let length = ("content-length", "2");
        assert_eq!(check(Method::POST, &[host, length, ("content-type", "text/plain")]), 415);
        assert_eq!(check(Method::POST, &[host, length]), 415);
        assert_eq!(
            check(Method::POST, &[host, length, ("content-type", "application/json; charset=utf-8")]),
            200
        );
        assert_eq!(check(Method::PUT, &[host]), 200);
        assert_eq!(check(Method::PUT, &[host, ("content-length", "0")]), 200);
    }
}
