//! SCRAM (RFC 5802) from the client's side: who knows the password proves it, the broker too. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256, Sha512};

/// More would be a broker that wants to keep us busy.
const ITERATIONS_MAX: u32 = 1_000_000;

/// The hash that a mechanism is named after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    pub(super) fn name(self) -> &'static str {
        match self {
            Hash::Sha256 => "SCRAM-SHA-256",
            Hash::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn of(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha256 => Sha256::digest(bytes).to_vec(),
            Hash::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    fn keyed(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Hash::Sha256 => {
                let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is one");
                parts.iter().for_each(|part| mac.update(part));
                mac.finalize().into_bytes().to_vec()
            }
            Hash::Sha512 => {
                let mut mac = Hmac::<Sha512>::new_from_slice(key).expect("a key of any length is one");
                parts.iter().for_each(|part| mac.update(part));
                mac.finalize().into_bytes().to_vec()
            }
        }
    }

    /// PBKDF2 with one block.
    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        let mut block = self.keyed(password, &[salt, &1_u32.to_be_bytes()]);
        let mut result = block.clone();
        for _ in 1..iterations {
            block = self.keyed(password, &[&block]);
            result.iter_mut().zip(&block).for_each(|(into, byte)| *into ^= byte);
        }
        result
    }
}

/// A conversation.
pub(super) struct Scram {
    hash: Hash,
    nonce: String,
    /// The first message without its header, as both sides sign it.
    bare: String,
}

/// What the broker has to answer.
pub(super) struct Signature(String);

impl Signature {
    /// Whether the last message carries it.
    pub(super) fn is_in(&self, last: &[u8]) -> bool {
        std::str::from_utf8(last).is_ok_and(|last| field(last, "v=") == Some(&self.0))
    }
}

impl Scram {
    pub(super) fn new(hash: Hash, username: &str, nonce: &[u8]) -> Self {
        let nonce = STANDARD.encode(nonce);
        let name = username.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={name},r={nonce}");
        Self { hash, nonce, bare }
    }

    /// The first message.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The second message, after the broker's first, and what must come back.
    pub(super) fn proof(&self, password: &str, answer: &[u8]) -> Result<(String, Signature), String> {
        let wrong = || "the broker's answer is none".to_owned();
        let answer = std::str::from_utf8(answer).map_err(|_| wrong())?;
        let nonce = field(answer, "r=").ok_or_else(wrong)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the broker answered somebody else".into());
        }
        let salt = STANDARD.decode(field(answer, "s=").ok_or_else(wrong)?).map_err(|_| wrong())?;
        let iterations: u32 = field(answer, "i=").and_then(|count| count.parse().ok()).ok_or_else(wrong)?;
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err(format!("the broker asks for {iterations} iterations, more than {ITERATIONS_MAX}"));
        }
        let salted = self.hash.salted(password.as_bytes(), &salt, iterations);
        let without = format!("c=biws,r={nonce}");
        let signed = format!("{},{answer},{without}", self.bare);
        let client = self.hash.keyed(&salted, &[b"Client Key"]);
        let mut proof = self.hash.keyed(&self.hash.of(&client), &[signed.as_bytes()]);
        proof.iter_mut().zip(&client).for_each(|(into, byte)| *into ^= byte);
        let server = self.hash.keyed(&salted, &[b"Server Key"]);
        let signature = STANDARD.encode(self.hash.keyed(&server, &[signed.as_bytes()]));
        Ok((format!("{without},p={}", STANDARD.encode(proof)), Signature(signature)))
    }
}

fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|field| field.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677.
    #[test]
    fn the_standards_own_conversation_is_held() {
        let nonce = "rOprNGfwEbeRWgbNEkqO";
        let scram = Scram { hash: Hash::Sha256, nonce: nonce.into(), bare: format!("n=user,r={nonce}") };
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let answer = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (proof, signature) = scram.proof("pencil", answer.as_bytes()).expect("an answer");
        assert_eq!(
            proof,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(signature.is_in(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert!(!signature.is_in(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="));
        assert!(!signature.is_in(b"e=other-error") && !signature.is_in(b"\xff"));
    }

    #[test]
    fn names_cannot_add_fields() {
        assert_eq!(Scram::new(Hash::Sha512, "a=b,r=x", b"").first(), "n,,n=a=3Db=2Cr=3Dx,r=");
    }

    #[test]
    fn answers_that_are_none_are_refused() {
        let scram = Scram::new(Hash::Sha512, "a", b"123456");
        let own = &scram.nonce;
        for answer in [
            String::new(),
            "r=other,s=AA==,i=1".into(),
            format!("r={own},s=AA==,i=1"),
            format!("r={own}x,i=1"),
            format!("r={own}x,s=?,i=1"),
            format!("r={own}x,s=AA==,i=0"),
            format!("r={own}x,s=AA==,i=2000000000"),
        ] {
            assert!(scram.proof("p", answer.as_bytes()).is_err(), "{answer}");
        }
        assert!(scram.proof("p", format!("r={own}x,s=AA==,i=1").as_bytes()).is_ok());
    }
}
