//! Valid frames of every advertised API and version with something changed: most of them pass the codec and reach
//! what is behind it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::topic;
use bytes::Bytes;
use fastrand::Rng;

use super::{MIB, Victim, frames, number};

/// Connections that attack at a time.
const ATTACKERS: u64 = 2;
/// Frames that are sent before an answer is waited for.
const PIPELINE: usize = 4;
/// An answer may be put off by the request itself, as a fetch that waits; the connection is given up then.
const PATIENCE: Duration = Duration::from_millis(200);

/// What the mutator starts from reaches its handlers: each frame as it is gets an answer.
#[test]
fn every_advertised_api_and_version_answers() -> Result<()> {
    let victim = Victim::start()?;
    topic::create(&victim.process.kafka, frames::TOPIC, 2, &[])?;
    let mut asked = Vec::new();
    for frame in frames::all(&victim.process.kafka)? {
        let mut stream = victim.connect()?;
        stream.write_all(&u32::try_from(frame.len())?.to_be_bytes())?;
        stream.write_all(&frame)?;
        asked.push((stream, frame));
    }
    for (mut stream, frame) in asked {
        let mut head = [0; 8];
        stream.read_exact(&mut head).with_context(|| format!("no answer to {frame:?}"))?;
        ensure!(head[4..] == frame[4..8], "{head:?} is the answer to another request than {frame:?}");
    }
    victim.survives()
}

#[test]
fn changed_frames_of_every_api_and_version_are_survived() -> Result<()> {
    let seconds = number("AQUEDUCT_MUTATE_SECONDS", 10);
    let seed = number("AQUEDUCT_MUTATE_SEED", fastrand::u64(..));
    println!("AQUEDUCT_MUTATE_SEED={seed} AQUEDUCT_MUTATE_SECONDS={seconds}");
    let victim = Victim::start()?;
    topic::create(&victim.process.kafka, frames::TOPIC, 2, &[])?;
    let valid = frames::all(&victim.process.kafka)?;
    let before = victim.process.resident()?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let totals = std::thread::scope(|scope| -> Result<Vec<Totals>> {
        let attackers: Vec<_> = (0..ATTACKERS)
            .map(|n| {
                let (victim, valid) = (&victim, &valid);
                scope.spawn(move || Attacker::new(Rng::with_seed(seed ^ n), valid).attack(victim, until))
            })
            .collect();
        attackers.into_iter().map(|attacker| attacker.join().expect("an attacker does not panic")).collect()
    })?;
    let (sent, answered) = totals.iter().fold((0, 0), |(s, a), t| (s + t.sent, a + t.answered));
    let (after, peak) = (victim.process.resident()?, victim.process.peak()?);
    println!(
        "{} valid frames; {sent} changed ones sent, {answered} answered; resident {} MiB before, {} after, {} at most",
        valid.len(),
        before / MIB,
        after / MIB,
        peak / MIB
    );
    ensure!(answered > 0 && sent > answered, "{sent} sent, {answered} answered: this attacks nothing");
    // The frames themselves are small: what they claim must cost nothing.
    ensure!(peak < before + 200 * MIB, "{} MiB were resident", peak / MIB);
    victim.survives()
}

#[derive(Debug, Default)]
struct Totals {
    sent: u64,
    answered: u64,
}

struct Attacker<'a> {
    rng: Rng,
    valid: &'a [Bytes],
    totals: Totals,
}

impl<'a> Attacker<'a> {
    fn new(rng: Rng, valid: &'a [Bytes]) -> Self {
        Self { rng, valid, totals: Totals::default() }
    }

    fn attack(mut self, victim: &Victim, until: Instant) -> Result<Totals> {
        let mut stream = victim.connect()?;
        while Instant::now() < until {
            stream.set_read_timeout(Some(PATIENCE))?;
            if self.round(&mut stream).is_err() {
                stream = victim.connect().context("the broker accepts no more")?;
            }
        }
        Ok(self.totals)
    }

    /// Some frames in one write, then their answers; an error is the end of the connection.
    fn round(&mut self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let count = self.rng.usize(1..=PIPELINE);
        for _ in 0..count {
            let frame = self.frame();
            bytes.extend_from_slice(&u32::try_from(frame.len()).expect("small").to_be_bytes());
            bytes.extend_from_slice(&frame);
        }
        self.totals.sent += count as u64;
        stream.write_all(&bytes)?;
        for _ in 0..count {
            let mut size = [0; 4];
            stream.read_exact(&mut size)?;
            let size = usize::try_from(i32::from_be_bytes(size)).map_err(|_| ErrorKind::InvalidData)?;
            let mut answer = vec![0; size];
            stream.read_exact(&mut answer)?;
            self.totals.answered += 1;
        }
        Ok(())
    }

    fn pick(&mut self) -> &'a Bytes {
        &self.valid[self.rng.usize(..self.valid.len())]
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut frame = self.pick().to_vec();
        for _ in 0..self.rng.usize(0..3) {
            self.change(&mut frame);
        }
        frame
    }

    /// Key and version stay most of the time, or little would reach its handler.
    fn change(&mut self, frame: &mut Vec<u8>) {
        const NUMBERS: [i64; 12] =
            [0, 1, -1, -2, 127, 128, 255, 32_767, -32_768, i32::MAX as i64, i32::MIN as i64, i64::MAX];
        if frame.len() < 9 {
            return;
        }
        let from = if self.rng.u8(..) < 8 { 0 } else { 8 };
        let at = self.rng.usize(from..frame.len());
        // Lengths that do not fit end in the codec: most changes leave them alone.
        match self.rng.u8(0..16) {
            0..3 => frame[at] ^= 1 << self.rng.u8(0..8),
            3..5 => frame[at] = self.rng.u8(..),
            5..12 => {
                let number = NUMBERS[self.rng.usize(..NUMBERS.len())].to_be_bytes();
                let width = [1, 2, 4, 8][self.rng.usize(..4)].min(frame.len() - at);
                frame[at..at + width].copy_from_slice(&number[8 - width..]);
            }
            12 => frame.truncate(at),
            13 => {
                let more = self.rng.usize(1..64);
                let filler = std::iter::repeat_with(|| self.rng.u8(..)).take(more).collect::<Vec<u8>>();
                frame.splice(at..at, filler);
            }
            14 => {
                let other = self.pick();
                let start = self.rng.usize(..other.len());
                let piece = &other[start..self.rng.usize(start..=other.len())];
                frame.splice(at..at, piece.iter().copied());
            }
            _ => {
                let end = self.rng.usize(at..=frame.len());
                frame.drain(at..end);
            }
        }
    }
}
