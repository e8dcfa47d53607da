//! The REST port: whatever is sent there, it still answers.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use anyhow::{Result, ensure};

use super::{LIMIT, MIB, Victim};

#[test]
fn anything_sent_to_the_rest_port_is_survived() -> Result<()> {
    let victim = Victim::start()?;
    let address = victim.process.rest.trim_start_matches("http://").to_owned();
    let before = victim.process.resident()?;
    let mut rng = fastrand::Rng::with_seed(7);
    let noise: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(100_000).collect();
    let nested = format!("{{\"name\":\"n\",\"config\":{}", "[".repeat(100_000));
    let post = |body: &str, length: usize| {
        format!("POST /connectors HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
            .into_bytes()
    };
    let attacks: [Vec<u8>; 8] = [
        noise,
        b"GET / HTTP/1.1\r\n".to_vec(),
        format!("GET /{} HTTP/1.1\r\nHost: {address}\r\n\r\n", "a".repeat(1 << 20)).into_bytes(),
        format!("GET / HTTP/1.1\r\n{}\r\n", "X-Header: value\r\n".repeat(100_000)).into_bytes(),
        post(&nested, nested.len()),
        post("{}", usize::MAX),
        post(&"x".repeat(8 << 20), 8 << 20),
        format!("POST /connectors HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n")
            .into_bytes(),
    ];
    for attack in &attacks {
        let mut stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        // It may be refused before all of it is sent.
        if stream.write_all(attack).and_then(|()| stream.shutdown(Shutdown::Write)).is_ok() {
            stream.read_to_end(&mut Vec::new()).ok();
        }
    }
    let mut stream = TcpStream::connect(&address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(
        format!("GET /connectors HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "GET /connectors was answered with {answer}");
    let peak = victim.process.peak()?;
    ensure!(peak < before + 100 * MIB, "{} MiB were resident, {} before", peak / MIB, before / MIB);
    victim.survives()
}
