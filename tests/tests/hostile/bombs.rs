//! Bytes that claim to be, or become, much more than they are.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::raw::Raw;
use aqueduct_tests::topic;
use aqueduct_wire::{BatchBuilder, Compression, ErrorCode};

use super::{LIMIT, MIB, Victim};

/// What a bomb becomes; more than a record may have, and more than the tests grant the broker.
const INFLATED: usize = 256 << 20;

/// The topic that compresses anew is the one where the broker has to look inside.
#[test]
fn decompression_bombs_are_refused_where_they_would_have_to_be_opened() -> Result<()> {
    let victim = Victim::start()?;
    topic::create(&victim.process.kafka, "as-sent", 1, &[])?;
    topic::create(&victim.process.kafka, "compacted", 1, &[("cleanup.policy", "compact")])?;
    topic::create(&victim.process.kafka, "anew", 1, &[("compression.type", "lz4")])?;
    let before = victim.process.resident()?;
    let zeros = vec![0; INFLATED];
    for codec in [Compression::Gzip, Compression::Zstd] {
        let mut bomb = BatchBuilder::new().compression(codec);
        bomb.append(0, Some(b"key"), Some(&zeros), &[]);
        let bomb = bomb.build()?;
        ensure!(bomb.len() < INFLATED / 500, "{} bytes are no bomb", bomb.len());
        let mut client = Raw::connect(&victim.process.kafka)?;
        client.wait_up_to(LIMIT)?;
        // Never opened: it is stored as it came, within `max.message.bytes`.
        client.produce("as-sent", 0, bomb.clone())?;
        for topic in ["compacted", "anew"] {
            let (code, _) = client.produce(topic, 0, bomb.clone())?;
            ensure!(code != ErrorCode::None as i16, "{topic} took a bomb of {codec:?}");
        }
    }
    let peak = victim.process.peak()?;
    println!("resident {} MiB before, {} at most", before / MIB, peak / MIB);
    ensure!(peak < before + 150 * MIB, "{} MiB were resident", peak / MIB);
    victim.survives()
}

/// Frames of a few bytes whose arrays, strings and records claim to be huge.
#[test]
fn claimed_lengths_cost_nothing() -> Result<()> {
    let victim = Victim::start()?;
    let before = victim.process.resident()?;
    let metadata = |version: i16, claim: &[u8]| {
        [&[0, 3][..], &version.to_be_bytes(), &[0, 0, 0, 1, 0, 1, b'x'], claim].concat()
    };
    let huge = [0x7f, 0xff, 0xff, 0xff];
    let compact = [0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let produce = [&[0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 9][..], &huge].concat();
    let tags = [&[0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff][..], &[0xff; 4], &[0x0f]].concat();
    for frame in [metadata(1, &huge), metadata(8, &huge), metadata(12, &compact), produce, tags] {
        for _ in 0..50 {
            let mut stream = victim.connect()?;
            stream.write_all(&u32::try_from(frame.len())?.to_be_bytes())?;
            stream.write_all(&frame)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).or_else(reset).context("the connection is not closed")?;
            ensure!(answer.is_empty(), "answered with {answer:?}");
        }
    }
    let peak = victim.process.peak()?;
    ensure!(peak < before + 50 * MIB, "{} MiB were resident, {} before", peak / MIB, before / MIB);
    victim.survives()
}

/// A connection that is closed with bytes unread is reset.
pub(super) fn reset(error: std::io::Error) -> std::io::Result<usize> {
    if error.kind() == std::io::ErrorKind::ConnectionReset { Ok(0) } else { Err(error) }
}
