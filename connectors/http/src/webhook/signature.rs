//! Signatures of bodies: HMAC-SHA256 over the bytes as they came. No IO, no clock.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// What is demanded of a request.
pub(super) struct Signature {
    pub(super) scheme: Scheme,
    /// Any of them may have signed.
    pub(super) secrets: Vec<Vec<u8>>,
    /// How far the time of a signature may be from now.
    pub(super) tolerance: Duration,
}

/// Where the signature stands, and what it covers.
pub(super) enum Scheme {
    /// `X-Hub-Signature-256: sha256=<hex>` of the body.
    Github,
    /// `Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>]` of `<t>.<body>`.
    Stripe,
    /// `X-Slack-Signature: v0=<hex>` of `v0:<X-Slack-Request-Timestamp>:<body>`.
    Slack,
    /// The bare signature of the body.
    Hex(HeaderName),
    /// The same in base64.
    Base64(HeaderName),
}

impl Signature {
    /// Whether the body was signed with one of the secrets; the error is for the sender. `now` is in seconds since 1970.
    pub(super) fn check(&self, headers: &HeaderMap, body: &[u8], now: i64) -> Result<(), &'static str> {
        let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match &self.scheme {
            Scheme::Github => {
                let given = get("x-hub-signature-256").ok_or("there is no X-Hub-Signature-256")?;
                self.any(&[body], given.strip_prefix("sha256=").and_then(hex))
            }
            Scheme::Stripe => {
                let given = get("stripe-signature").ok_or("there is no Stripe-Signature")?;
                let parts = || given.split(',').filter_map(|part| part.trim().split_once('='));
                let time = parts().find(|(name, _)| *name == "t").ok_or("the signature has no time")?.1;
                self.fresh(time, now)?;
                let signed = [time.as_bytes(), b".", body];
                let mut given = parts().filter(|(name, _)| *name == "v1");
                given.any(|(_, text)| self.any(&signed, hex(text)).is_ok()).then_some(()).ok_or(WRONG)
            }
            Scheme::Slack => {
                let given = get("x-slack-signature").ok_or("there is no X-Slack-Signature")?;
                let time = get("x-slack-request-timestamp").ok_or("there is no X-Slack-Request-Timestamp")?;
                self.fresh(time, now)?;
                let signed: [&[u8]; 4] = [b"v0:", time.as_bytes(), b":", body];
                self.any(&signed, given.strip_prefix("v0=").and_then(hex))
            }
            Scheme::Hex(name) => {
                let given = get(name.as_str()).ok_or("there is no signature")?;
                self.any(&[body], hex(given.trim()))
            }
            Scheme::Base64(name) => {
                let given = get(name.as_str()).ok_or("there is no signature")?;
                self.any(&[body], base64::engine::general_purpose::STANDARD.decode(given.trim()).ok())
            }
        }
    }

    fn fresh(&self, time: &str, now: i64) -> Result<(), &'static str> {
        let time: i64 = time.parse().map_err(|_| "the time of the signature is not in seconds")?;
        let tolerance = i64::try_from(self.tolerance.as_secs()).unwrap_or(i64::MAX);
        if now.abs_diff(time) > tolerance.unsigned_abs() {
            return Err("the signature is too old");
        }
        Ok(())
    }

    /// Compared in constant time with what each secret gives.
    fn any(&self, signed: &[&[u8]], given: Option<Vec<u8>>) -> Result<(), &'static str> {
        let given = given.ok_or("the signature cannot be read")?;
        let fits = |secret: &Vec<u8>| {
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
            signed.iter().for_each(|part| mac.update(part));
            mac.verify_slice(&given).is_ok()
        };
        // Every secret is tried, so that the time does not tell which one it was.
        let fitting = self.secrets.iter().filter(|secret| fits(secret)).count();
        if fitting > 0 { Ok(()) } else { Err(WRONG) }
    }
}

const WRONG: &str = "the signature does not fit the body";

fn hex(text: &str) -> Option<Vec<u8>> {
    hex::decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(secret: &str, parts: &[&str]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
        parts.iter().for_each(|part| mac.update(part.as_bytes()));
        mac.finalize().into_bytes().to_vec()
    }

    fn check(
        scheme: Scheme,
        headers: &[(&'static str, String)],
        body: &str,
        now: i64,
    ) -> Result<(), &'static str> {
        let secrets = vec![b"old".to_vec(), b"new".to_vec()];
        let signature = Signature { scheme, secrets, tolerance: Duration::from_secs(300) };
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a header")));
        signature.check(&headers.collect(), body.as_bytes(), now)
    }

    #[test]
    fn each_scheme_takes_what_was_signed_and_nothing_else() {
        let github = |secret, body: &str| {
            let header = format!("sha256={}", hex::encode(sign(secret, &["body"])));
            check(Scheme::Github, &[("x-hub-signature-256", header)], body, 0)
        };
        assert_eq!(github("old", "body"), Ok(()));
        assert_eq!(github("new", "body"), Ok(()));
        assert_eq!(github("other", "body"), Err(WRONG));
        assert_eq!(github("new", "body "), Err(WRONG));
        let stripe = |now| {
            let signed = hex::encode(sign("new", &["1000", ".", "body"]));
            let header = format!("t=1000,v1={},v1={signed},v0=x", "00".repeat(32));
            check(Scheme::Stripe, &[("stripe-signature", header)], "body", now)
        };
        assert_eq!((stripe(1300), stripe(800)), (Ok(()), Ok(())));
        assert_eq!(
            (stripe(1301), stripe(600)),
            (Err("the signature is too old"), Err("the signature is too old"))
        );
        let slack = |time: &str| {
            let header = format!("v0={}", hex::encode(sign("new", &["v0:", "1000", ":", "body"])));
            let headers = [("x-slack-signature", header), ("x-slack-request-timestamp", time.to_owned())];
            check(Scheme::Slack, &headers, "body", 1000)
        };
        assert_eq!((slack("1000"), slack("1001")), (Ok(()), Err(WRONG)));
        let name = || HeaderName::from_static("x-signature");
        let bare = base64::engine::general_purpose::STANDARD.encode(sign("old", &["body"]));
        assert_eq!(check(Scheme::Base64(name()), &[("x-signature", bare)], "body", 0), Ok(()));
        let bare = hex::encode(sign("old", &["body"])).to_uppercase();
        assert_eq!(check(Scheme::Hex(name()), &[("x-signature", bare)], "body", 0), Ok(()));
    }

    #[test]
    fn what_is_not_there_or_unreadable_is_refused() {
        assert!(check(Scheme::Github, &[], "", 0).is_err());
        for header in ["", "sha256=", "sha256=zz", "sha1=00"] {
            assert!(
                check(Scheme::Github, &[("x-hub-signature-256", header.to_owned())], "", 0).is_err(),
                "{header}"
            );
        }
        for header in ["", "t=1", "v1=00", "t=x,v1=00", "t=-9223372036854775808,v1=00"] {
            assert!(
                check(Scheme::Stripe, &[("stripe-signature", header.to_owned())], "", 1).is_err(),
                "{header}"
            );
        }
    }
}
