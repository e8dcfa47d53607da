//! What an answer means, and how long to wait before the next try. No IO.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A server that asks for more than this is asked again earlier.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything in the request was taken.
    Done,
    /// The same request may succeed later.
    Again,
    /// Something in the body is refused.
    Refused,
    /// The request itself is wrong, whatever it carries.
    Wrong,
}

pub(super) fn judge(status: u16, refused: &[u16]) -> Verdict {
    match status {
        200..=299 => Verdict::Done,
        408 | 425 | 429 | 500..=599 => Verdict::Again,
        _ if refused.contains(&status) => Verdict::Refused,
        _ => Verdict::Wrong,
    }
}

/// `Retry-After`: seconds, or an HTTP date.
pub(super) fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            at.duration_since(now).max(SignedDuration::ZERO).unsigned_abs()
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// Pauses between tries: each anywhere between the shortest and three times the one before, so that many clients do not
/// come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    shortest: Duration,
    longest: Duration,
    last: Duration,
}

impl Backoff {
    pub(super) fn new((shortest, longest): (Duration, Duration)) -> Self {
        Self { shortest, longest, last: shortest }
    }

    /// `at` lies in 0 to 1 and chooses within the range.
    pub(super) fn next(&mut self, asked: Option<Duration>, at: f64) -> Duration {
        let top = (self.last * 3).clamp(self.shortest, self.longest);
        self.last = self.shortest + (top - self.shortest).mul_f64(at.clamp(0.0, 1.0));
        // Jitter comes on top of what the server asked for: never earlier.
        asked.map_or(self.last, |asked| asked + self.last.min(Duration::from_secs(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart() {
        let refused = [400, 422];
        for (status, verdict) in [
            (204, Verdict::Done),
            (429, Verdict::Again),
            (503, Verdict::Again),
            (422, Verdict::Refused),
            (401, Verdict::Wrong),
            (302, Verdict::Wrong),
        ] {
            assert_eq!(judge(status, &refused), verdict, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let wait = |text| retry_after(text, now);
        assert_eq!(wait(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(wait("Thu, 01 Jan 2026 00:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait("Wed, 31 Dec 2025 23:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("99999999"), Some(LONGEST_WAIT));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn pauses_grow_within_their_bounds_and_never_undercut_the_server() {
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new((shortest, longest));
        let pauses: Vec<Duration> = (0..10).map(|_| backoff.next(None, 1.0)).collect();
        assert_eq!(pauses[..3], [300, 900, 2700].map(Duration::from_millis));
        assert!(pauses.iter().all(|pause| (shortest..=longest).contains(pause)));
        assert_eq!(backoff.next(None, 0.0), shortest);
        assert!(backoff.next(Some(Duration::from_secs(9)), 0.5) >= Duration::from_secs(9));
    }
}
