//! Points in time, dates and times of day, out of values of every kind and into text.

use aqueduct_core::{Error, Result, Schema, Value};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;

const DAY: i128 = 86_400 * 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Nanoseconds since 1970, UTC.
    Instant(i128),
    /// Days since 1970.
    Date(i64),
    /// Nanoseconds since midnight; a number of a record may be anything.
    Time(i128),
}

/// A moment of that many units.
type Count = fn(i128) -> Moment;

/// What the number of a schema counts, and in nanoseconds of what unit.
fn counted(schema: &Schema) -> Option<(Count, i64)> {
    const INSTANT: Count = Moment::Instant;
    const TIME: Count = Moment::Time;
    const DATE: Count = |days| Moment::Date(days as i64);
    Some(match schema.name.as_deref()? {
        "org.apache.kafka.connect.data.Timestamp" | "io.debezium.time.Timestamp" => (INSTANT, 1_000_000),
        "io.debezium.time.MicroTimestamp" => (INSTANT, 1_000),
        "io.debezium.time.NanoTimestamp" => (INSTANT, 1),
        "org.apache.kafka.connect.data.Time" | "io.debezium.time.Time" => (TIME, 1_000_000),
        "io.debezium.time.MicroTime" => (TIME, 1_000),
        "io.debezium.time.NanoTime" => (TIME, 1),
        "org.apache.kafka.connect.data.Date" | "io.debezium.time.Date" => (DATE, 1),
        _ => return None,
    })
}

/// A date or time of a logical type in ISO 8601; `None` for every other schema, and for text.
pub(crate) fn iso(value: &Value, schema: &Schema) -> Option<Result<String>> {
    let (of, unit) = counted(schema)?;
    let number = value.as_i64()?;
    Some(of(i128::from(number) * i128::from(unit)).text(None))
}

/// Whether text can be written in a format.
pub(super) fn check_format(format: &str) -> Result<(), String> {
    match strtime::format(format, &Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC)) {
        Ok(text) if !text.is_empty() => Ok(()),
        Ok(_) => Err("the format is empty; write one such as `%Y-%m-%d`".to_owned()),
        Err(error) => Err(format!("`{format}` is not a time format such as `%Y-%m-%dT%H:%M:%S`: {error}")),
    }
}

fn unreadable(text: &str, format: Option<&str>) -> Error {
    let text: String = text.chars().take(60).collect();
    Error::bad_record(match format {
        Some(format) => format!("`{text}` is not a time in the format `{format}`"),
        None => format!("`{text}` is not a time in ISO 8601; name its form in `format`"),
    })
}

impl Moment {
    /// `unit` is in nanoseconds, for numbers that no schema explains.
    pub(super) fn read(
        value: &Value,
        schema: Option<&Schema>,
        unit: i64,
        format: Option<&str>,
    ) -> Result<Self> {
        if let Value::String(text) = value {
            return Self::parse(text, format).ok_or_else(|| unreadable(text, format));
        }
        if let Value::Float64(number) = value
            && number.is_finite()
        {
            return Ok(Moment::Instant((number * unit as f64) as i128));
        }
        let number = value.as_i64().ok_or_else(|| {
            Error::bad_record(format!("{} is no time; a number or text was expected", value.kind()))
        })?;
        let (of, unit) = schema.and_then(counted).unwrap_or((Moment::Instant, unit));
        Ok(of(i128::from(number) * i128::from(unit)))
    }

    fn parse(text: &str, format: Option<&str>) -> Option<Self> {
        let text = text.trim();
        if let Some(format) = format {
            let parsed = BrokenDownTime::parse(format, text).ok()?;
            if let Ok(instant) = parsed.to_timestamp() {
                return Some(Moment::Instant(instant.as_nanosecond()));
            }
            return match (parsed.to_date(), parsed.to_time()) {
                (Ok(date), Ok(time)) => Some(utc(date.to_datetime(time))),
                (Ok(date), Err(_)) => Some(days_of(date)),
                (Err(_), Ok(time)) => Some(nanos_of(time)),
                (Err(_), Err(_)) => None,
            };
        }
        if let Ok(instant) = text.parse::<Timestamp>() {
            return Some(Moment::Instant(instant.as_nanosecond()));
        }
        // A bare date is a date, not its midnight.
        if text.len() <= 13
            && let Ok(date) = text.parse::<Date>()
        {
            return Some(days_of(date));
        }
        if let Ok(at) = text.parse::<DateTime>() {
            return Some(utc(at));
        }
        text.trim_end_matches('Z').parse::<Time>().ok().map(nanos_of)
    }

    /// In units of that many nanoseconds since 1970, rounded down; a time of day counts on the first day of 1970.
    pub(super) fn units(self, unit: i64) -> Result<i64> {
        let nanos = match self {
            Moment::Instant(nanos) => nanos,
            Moment::Date(days) => i128::from(days) * DAY,
            Moment::Time(_) => self.of_day()?.into(),
        };
        i64::try_from(nanos.div_euclid(unit.into()))
            .map_err(|_| Error::bad_record("the time is out of the range of an int64 in that precision"))
    }

    /// Days since 1970.
    pub(super) fn days(self) -> Result<i64> {
        match self {
            Moment::Instant(nanos) => i64::try_from(nanos.div_euclid(DAY))
                .map_err(|_| Error::bad_record("the time is out of the range of a date")),
            Moment::Date(days) => Ok(days),
            Moment::Time(_) => Err(Error::bad_record("a time of day has no date")),
        }
    }

    /// Nanoseconds since midnight.
    pub(super) fn of_day(self) -> Result<i64> {
        match self {
            Moment::Instant(nanos) => Ok(nanos.rem_euclid(DAY) as i64),
            // Midnight at the end of a day is a time of PostgreSQL.
            Moment::Time(nanos @ 0..=DAY) => Ok(nanos as i64),
            Moment::Time(_) => Err(Error::bad_record("the number is no time of day")),
            Moment::Date(_) => Err(Error::bad_record("a date has no time of day")),
        }
    }

    /// By `format`, or in ISO 8601.
    pub(super) fn text(self, format: Option<&str>) -> Result<String> {
        let beyond =
            |error: jiff::Error| Error::bad_record("the time cannot be written as text").with_source(error);
        let nanos = match self {
            Moment::Instant(nanos) => nanos,
            Moment::Date(days) => i128::from(days) * DAY,
            Moment::Time(_) => self.of_day()?.into(),
        };
        let at = Timestamp::from_nanosecond(nanos).map_err(beyond)?;
        let at_utc = at.to_zoned(TimeZone::UTC);
        match (format, self) {
            (Some(format), _) => strtime::format(format, &at_utc).map_err(beyond),
            (None, Moment::Instant(_)) => Ok(at.to_string()),
            (None, Moment::Date(_)) => Ok(at_utc.date().to_string()),
            (None, Moment::Time(_)) => Ok(at_utc.time().to_string()),
        }
    }
}

fn utc(at: DateTime) -> Moment {
    // A civil time in UTC always is an instant; the range of both ends is the same.
    match TimeZone::UTC.to_timestamp(at) {
        Ok(instant) => Moment::Instant(instant.as_nanosecond()),
        Err(_) => days_of(at.date()),
    }
}

fn days_of(date: Date) -> Moment {
    let epoch = jiff::civil::date(1970, 1, 1);
    Moment::Date(date.since(epoch).map_or(0, |span| span.get_days().into()))
}

fn nanos_of(time: Time) -> Moment {
    let seconds = (i64::from(time.hour()) * 60 + i64::from(time.minute())) * 60 + i64::from(time.second());
    Moment::Time((seconds * 1_000_000_000 + i64::from(time.subsec_nanosecond())).into())
}
