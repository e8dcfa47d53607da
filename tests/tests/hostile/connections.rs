//! Connections that break off, stay half open, read nothing or do nothing.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::process::eventually;
use aqueduct_tests::raw::{self, Raw};
use aqueduct_tests::topic;
use aqueduct_wire::frame::encode_request;
use aqueduct_wire::messages::ApiVersionsRequest;

use super::bombs::reset;
use super::{LIMIT, MIB, Victim, batch, frames, number};

/// What `fetch.max.bytes` lets one answer have, and some room for what it is made of.
const ANSWER: u64 = 64 * MIB;

#[test]
fn lengths_out_of_bounds_close_their_connection() -> Result<()> {
    let victim = Victim::start()?;
    for length in [-1, i32::MIN, i32::MAX, 104_857_601] {
        let mut stream = victim.connect()?;
        stream.write_all(&length.to_be_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).or_else(reset).context("the connection is not closed")?;
        ensure!(answer.is_empty(), "length {length} was answered with {answer:?}");
    }
    victim.survives()
}

/// Every request, cut at every eighth byte: the client goes away, or says that it has sent everything.
#[test]
fn truncated_frames_disturb_nobody() -> Result<()> {
    let victim = Victim::start()?;
    topic::create(&victim.process.kafka, frames::TOPIC, 2, &[])?;
    for frame in frames::all(&victim.process.kafka)? {
        let whole = [&u32::try_from(frame.len())?.to_be_bytes()[..], &frame].concat();
        for cut in (1..whole.len()).step_by(8) {
            let mut stream = victim.connect()?;
            stream.write_all(&whole[..cut])?;
            if cut % 3 == 0 {
                stream.shutdown(Shutdown::Write)?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).or_else(reset).context("the connection is not closed")?;
                ensure!(answer.is_empty(), "a torn frame was answered with {answer:?}");
            }
        }
    }
    victim.survives()
}

/// Clients claim the largest frame, send a part of it and fall silent: they hold what they sent, not what they claim.
#[test]
fn half_sent_frames_hold_what_was_sent() -> Result<()> {
    const CLIENTS: usize = 100;
    let victim = Victim::start()?;
    let before = victim.process.resident()?;
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = victim.connect()?;
        stream.write_all(&104_857_600_u32.to_be_bytes())?;
        stream.write_all(&[0; 64 << 10])?;
        silent.push(stream);
    }
    let mut client = Raw::connect(&victim.process.kafka)?;
    client.call(3, &ApiVersionsRequest::default())?;
    let peak = victim.process.peak()?;
    println!("{CLIENTS} half frames of 100 MiB: {} MiB before, {} at most", before / MIB, peak / MIB);
    ensure!(peak < before + CLIENTS as u64 * 3 * MIB, "{} MiB were resident", peak / MIB);
    drop(silent);
    victim.survives()
}

/// Each asks for everything many times over and reads nothing: it holds one answer, not all that it asked for.
#[test]
fn slow_readers_hold_one_answer_each() -> Result<()> {
    const READERS: u64 = 3;
    const TOPIC: &str = "large";
    let victim = Victim::start()?;
    topic::create(&victim.process.kafka, TOPIC, 1, &[])?;
    let mut client = Raw::connect(&victim.process.kafka)?;
    client.wait_up_to(LIMIT)?;
    let value: Vec<u8> = (0..1_000_000_u32).map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()[3]).collect();
    for _ in 0..80 {
        let (code, _) = client.produce(TOPIC, 0, batch(&value))?;
        ensure!(code == 0, "the record was answered with error {code}");
    }
    let before = victim.process.resident()?;
    let request = encode_request(11, 1, None, &raw::fetch(TOPIC, 0, 0))?.to_bytes();
    let readers: Vec<TcpStream> = (0..READERS)
        .map(|_| {
            let mut stream = victim.connect()?;
            for _ in 0..100 {
                stream.write_all(&request)?;
            }
            Ok(stream)
        })
        .collect::<Result<_>>()?;
    // Each gets the beginning of an answer, so all are being served.
    for reader in &readers {
        let mut size = [0; 4];
        reader.peek(&mut size)?;
        (&*reader).read_exact(&mut size)?;
    }
    let mut served = 0;
    eventually("others are served meanwhile", LIMIT, || {
        served += u32::from(client.call(3, &ApiVersionsRequest::default()).is_ok());
        served >= 20
    })?;
    let peak = victim.process.peak()?;
    println!("{READERS} slow readers: {} MiB before, {} at most", before / MIB, peak / MIB);
    ensure!(peak < before + READERS * ANSWER + 32 * MIB, "{} MiB were resident", peak / MIB);
    drop(readers);
    victim.survives()
}

/// Each has asked something once, as real clients do, and then does nothing.
#[test]
fn idle_connections_are_cheap() -> Result<()> {
    let count: usize = number("AQUEDUCT_IDLE_CONNECTIONS", 1_000);
    raise_file_limit(count)?;
    let victim = Victim::start()?;
    let before = victim.process.resident()?;
    let request = encode_request(3, 1, None, &ApiVersionsRequest::default())?.to_bytes();
    let mut idle = Vec::new();
    for _ in 0..count {
        let mut stream = victim.connect()?;
        stream.write_all(&request)?;
        idle.push(stream);
    }
    for stream in &mut idle {
        let mut size = [0; 4];
        stream.read_exact(&mut size).context("an idle connection was not served")?;
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(size))?];
        stream.read_exact(&mut answer)?;
    }
    let after = victim.process.resident()?;
    let each = after.saturating_sub(before) / count as u64;
    println!(
        "{count} idle connections: {} MiB before, {} after: {each} bytes each",
        before / MIB,
        after / MIB
    );
    ensure!(after < before + 16 * MIB + count as u64 * (8 << 10), "{each} bytes each");
    drop(idle);
    victim.survives()
}

fn raise_file_limit(connections: usize) -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let most = limit.maximum.unwrap_or(u64::MAX);
    ensure!(
        most > connections as u64 + 200,
        "{connections} connections need a higher limit than {most} files"
    );
    Ok(())
}
