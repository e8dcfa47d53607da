//! Places in a partition as users write them, and the offsets they stand for.

use std::collections::BTreeMap;
use std::str::FromStr;

use aqueduct_client::{Cluster, Found, OffsetQuery};
use aqueduct_core::Result;
use aqueduct_core::sink::TopicPartition;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A place in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    Beginning,
    End,
    Offset(i64),
    /// So many before the end.
    Last(i64),
    /// The first record of this time or a later one, in milliseconds since 1970.
    Time(i64),
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, Timestamp::now().as_millisecond())
    }
}

impl Position {
    /// Times only.
    pub(crate) fn parse_time(text: &str) -> Result<Self, String> {
        match text.parse()? {
            time @ Position::Time(_) => Ok(time),
            _ => Err(format!("`{text}` is no time; write `2h ago`, `2026-01-31T08:00Z` or `@1769846400000`")),
        }
    }

    fn parse(text: &str, now: i64) -> Result<Self, String> {
        let text = text.trim();
        match text {
            "beginning" | "earliest" | "start" => return Ok(Position::Beginning),
            "end" | "latest" => return Ok(Position::End),
            _ => {}
        }
        if let Ok(number) = text.parse::<i64>() {
            return Ok(if text.starts_with('-') {
                Position::Last(number.saturating_neg())
            } else {
                Position::Offset(number)
            });
        }
        // kcat writes `s@`.
        let time = text.strip_prefix("s@").or_else(|| text.strip_prefix('@')).unwrap_or(text);
        let wrong = || {
            format!(
                "`{text}` is no position; write `beginning`, `end`, an offset, `-N`, `2h ago`, `2026-01-31T08:00Z` or `@` and milliseconds since 1970"
            )
        };
        let ago = time.strip_suffix("ago").map(str::trim_end);
        if let Some(span) = ago {
            let span = aqueduct_core::config::parse_duration(span)?;
            return Ok(Position::Time(
                now.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)),
            ));
        }
        if time != text
            && let Ok(number) = time.parse::<i64>()
        {
            return if number < 0 { Err(wrong()) } else { Ok(Position::Time(number)) };
        }
        instant(time).map(Position::Time).ok_or_else(wrong)
    }

    /// The offset in each partition, within what is there, and whether the wish lay beyond that.
    pub(crate) async fn resolve(
        self,
        cluster: &mut Cluster,
        partitions: &[TopicPartition],
        end: OffsetQuery,
    ) -> Result<BTreeMap<TopicPartition, Place>> {
        let first = cluster.all_offsets(partitions, OffsetQuery::First).await?;
        let last = cluster.all_offsets(partitions, end).await?;
        let at = match self {
            Position::Time(time) => cluster.all_offsets(partitions, OffsetQuery::At(time)).await?,
            _ => BTreeMap::new(),
        };
        let offset = |found: Option<&Found>| found.and_then(|found| found.offset);
        let each = partitions.iter().map(|tp| {
            let first = offset(first.get(tp)).unwrap_or(0);
            let end = offset(last.get(tp)).unwrap_or(first).max(first);
            (tp.clone(), self.place(first, end, offset(at.get(tp))))
        });
        Ok(each.collect())
    }

    fn place(self, first: i64, end: i64, at: Option<i64>) -> Place {
        let wish = match self {
            Position::Beginning => first,
            Position::End => end,
            Position::Offset(offset) => offset,
            Position::Last(count) => end.saturating_sub(count).max(first),
            Position::Time(_) => at.unwrap_or(end).clamp(first, end),
        };
        Place { offset: wish.clamp(first, end), wish, first, end }
    }
}

/// A position in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Within `first..=end`.
    pub(crate) offset: i64,
    /// What was asked for.
    pub(crate) wish: i64,
    pub(crate) first: i64,
    pub(crate) end: i64,
}

/// A date and time of UTC where it names no other zone.
fn instant(text: &str) -> Option<i64> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(instant.as_millisecond()).filter(|time| *time >= 0);
    }
    let civil: DateTime = text.parse().ok()?;
    let instant = civil.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some(instant.as_millisecond()).filter(|time| *time >= 0)
}

/// As a date and time of UTC.
pub(crate) fn date(milliseconds: i64) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => milliseconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn check(text: &str, expect: Position) {
        assert_eq!(Position::parse(text, NOW), Ok(expect), "{text}");
    }

    #[test]
    fn positions_are_read_as_users_write_them() {
        check("beginning", Position::Beginning);
        check("earliest", Position::Beginning);
        check("end", Position::End);
        check("17", Position::Offset(17));
        check("-5", Position::Last(5));
        check("@1769846400000", Position::Time(1_769_846_400_000));
        check("s@1769846400000", Position::Time(1_769_846_400_000));
        check("2026-01-31T08:00Z", Position::Time(1_769_846_400_000));
        check("2026-01-31T08:00:00+00:00", Position::Time(1_769_846_400_000));
        check("@2026-01-31T09:00+01:00", Position::Time(1_769_846_400_000));
        check("2026-01-31 08:00", Position::Time(1_769_846_400_000));
        check("2026-01-31", Position::Time(1_769_817_600_000));
        check("2h ago", Position::Time(NOW - 7_200_000));
        check("@90s ago", Position::Time(NOW - 90_000));
    }

    #[test]
    fn what_is_no_position_is_refused_with_what_would_be() {
        for text in ["", "soon", "@-5", "2x ago", "2026-13-01", "1.5"] {
            let error = Position::parse(text, NOW).expect_err(text);
            assert!(error.contains("ago") || error.contains("duration"), "{text}: {error}");
        }
        assert!(Position::parse_time("17").is_err());
    }

    #[test]
    fn places_stay_within_what_is_there() {
        let offset = |position: Position, at| position.place(10, 20, at).offset;
        assert_eq!(offset(Position::Beginning, None), 10);
        assert_eq!(offset(Position::End, None), 20);
        assert_eq!(offset(Position::Last(3), None), 17);
        assert_eq!(offset(Position::Last(30), None), 10);
        assert_eq!(offset(Position::Offset(5), None), 10);
        assert_eq!(Position::Offset(5).place(10, 20, None).wish, 5);
        assert_eq!(offset(Position::Offset(50), None), 20);
        assert_eq!(offset(Position::Time(1), Some(12)), 12);
        // No record has this time or a later one.
        assert_eq!(offset(Position::Time(1), None), 20);
    }
}
