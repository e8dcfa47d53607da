//! PostgreSQL's ISO text of dates, times and intervals into numbers, and into ISO 8601 as Java writes it.
//!
//! **Invariant:** every text that `DateStyle=ISO`, `IntervalStyle=postgres` and `TimeZone=UTC` can produce is read:
//! years beyond 9999, `BC`, `24:00:00`, offsets with seconds and the infinities.

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// A year has 365.25 days, a month the twelfth part of it.
const MONTH: i64 = 2_629_800 * SECOND;

/// A moment without a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamp {
    Infinity,
    NegativeInfinity,
    /// Days since 1970-01-01 and microseconds since midnight.
    At {
        days: i64,
        micros: i64,
    },
}

impl Stamp {
    /// Milliseconds since 1970; the infinities are Debezium's.
    pub(crate) fn millis(self) -> i64 {
        match self {
            Stamp::Infinity => 9_223_372_036_825_200,
            Stamp::NegativeInfinity => -9_223_372_036_832_400,
            Stamp::At { days, micros } => days * (DAY / 1000) + micros.div_euclid(1000),
        }
    }

    /// Microseconds since 1970. The last few years of PostgreSQL's range do not fit, and are the infinity.
    pub(crate) fn micros(self) -> i64 {
        const INFINITY: i64 = 9_223_372_036_825_200_000;
        match self {
            Stamp::Infinity => INFINITY,
            Stamp::NegativeInfinity => -9_223_372_036_832_400_000,
            Stamp::At { days, micros } => {
                days.checked_mul(DAY).and_then(|day| day.checked_add(micros)).unwrap_or(INFINITY)
            }
        }
    }

    /// Nanoseconds since 1970: the years 1677 to 2262 fit, and others do not.
    pub(crate) fn nanos(self) -> Option<i64> {
        match self {
            Stamp::Infinity => Some(i64::MAX),
            Stamp::NegativeInfinity => Some(i64::MIN),
            at @ Stamp::At { .. } => at.micros().checked_mul(1000),
        }
    }
}

/// Days since 1970-01-01 of `2024-02-29` or `0044-03-15 BC`; the infinities are the ends of the range.
pub(crate) fn date(text: &[u8]) -> Option<i32> {
    match text {
        b"infinity" => Some(i32::MAX),
        b"-infinity" => Some(i32::MIN),
        _ => {
            let (text, bc) = strip_bc(text);
            let (days, rest) = days(text, bc)?;
            if rest.is_empty() { i32::try_from(days).ok() } else { None }
        }
    }
}

/// Microseconds since midnight of `23:59:59.123`.
pub(crate) fn time(text: &[u8]) -> Option<i64> {
    let (micros, rest) = clock(text)?;
    rest.is_empty().then_some(micros)
}

/// A moment of `2024-02-29 23:59:59.123`.
pub(crate) fn timestamp(text: &[u8]) -> Option<Stamp> {
    match text {
        b"infinity" => Some(Stamp::Infinity),
        b"-infinity" => Some(Stamp::NegativeInfinity),
        _ => {
            let (text, bc) = strip_bc(text);
            let (days, rest) = days(text, bc)?;
            let (micros, rest) = clock(rest.strip_prefix(b" ")?)?;
            rest.is_empty().then_some(Stamp::At { days, micros })
        }
    }
}

/// Microseconds of `-1 years +2 mons 3 days -04:05:06.789`, at the ends of the range where they do not fit.
pub(crate) fn interval(text: &[u8]) -> Option<i64> {
    let Interval { months, days, micros } = Interval::read(text)?;
    let sum =
        i128::from(months) * i128::from(MONTH) + i128::from(days) * i128::from(DAY) + i128::from(micros);
    Some(sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

/// `P1Y2M3DT4H5M6.789S` of an interval, every part with its own sign.
pub(crate) fn interval_iso(text: &[u8]) -> Option<String> {
    let Interval { months, days, micros } = Interval::read(text)?;
    let (years, months) = (months / 12, months % 12);
    let (hours, minutes) = (micros / (3600 * SECOND), micros / (60 * SECOND) % 60);
    let rest = micros % (60 * SECOND);
    let sign = if rest < 0 { "-" } else { "" };
    let seconds = rest.unsigned_abs() / SECOND.unsigned_abs();
    let fraction = fraction(rest.unsigned_abs() % SECOND.unsigned_abs());
    Some(format!("P{years}Y{months}M{days}DT{hours}H{minutes}M{sign}{seconds}{fraction}S"))
}

struct Interval {
    months: i64,
    days: i64,
    micros: i64,
}

impl Interval {
    fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (mut months, mut days, mut micros) = (0i64, 0i64, 0i64);
        let mut words = text.split(' ');
        while let Some(word) = words.next() {
            if word.contains(':') {
                let (negative, plain) = match word.strip_prefix(['-', '+']) {
                    Some(plain) => (word.starts_with('-'), plain),
                    None => (false, word),
                };
                let clock = time(plain.as_bytes())?;
                micros = if negative { -clock } else { clock };
                continue;
            }
            let number: i64 = word.parse().ok()?;
            match words.next()? {
                "year" | "years" => months = months.checked_add(number.checked_mul(12)?)?,
                "mon" | "mons" => months = months.checked_add(number)?,
                "day" | "days" => days = number,
                _ => return None,
            }
        }
        Some(Self { months, days, micros })
    }
}

/// ISO 8601 in UTC of `2024-02-29 23:59:59.123+00`, with `digits` of the second's fraction.
pub(crate) fn zoned(text: &[u8], digits: usize) -> Option<String> {
    let (body, bc) = strip_bc(text);
    let (day, clock) = split_day(body.strip_suffix(b"+00")?)?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut out = iso_day(day, bc)?;
    out.push('T');
    out.push_str(whole);
    if digits > 0 {
        out.push('.');
        out.push_str(fraction);
        out.extend(std::iter::repeat_n('0', digits.saturating_sub(fraction.len())));
    }
    out.push('Z');
    Some(out)
}

/// `12:30:45.5-05:30` in UTC: `18:00:45.5Z`.
pub(crate) fn zoned_time(text: &[u8]) -> Option<String> {
    let at = text.iter().rposition(|b| matches!(b, b'+' | b'-'))?;
    let micros = time(&text[..at])?;
    let mut parts = text[at + 1..].split(|b| *b == b':');
    let mut offset = 0;
    for unit in [3600, 60, 1] {
        if let Some(part) = parts.next() {
            let (n, rest) = number(part)?;
            if !rest.is_empty() {
                return None;
            }
            offset += n * unit * SECOND;
        }
    }
    let utc = if text[at] == b'-' { micros + offset } else { micros - offset };
    Some(iso_clock(utc))
}

/// `2024-02-29Z`; the infinities are the words.
pub(crate) fn iso_date(text: &[u8]) -> Option<String> {
    if let b"infinity" | b"-infinity" = text {
        return Some(String::from_utf8_lossy(text).into_owned());
    }
    let (day, bc) = strip_bc(text);
    Some(iso_day(std::str::from_utf8(day).ok()?, bc)? + "Z")
}

/// `12:30:45.123456Z`, without zeros at the end of the fraction.
pub(crate) fn iso_time(text: &[u8]) -> Option<String> {
    time(text).map(iso_clock)
}

/// `2024-02-29T12:30:45.123456Z`; the infinities are Debezium's.
pub(crate) fn iso_timestamp(text: &[u8]) -> Option<String> {
    match text {
        b"infinity" => Some("+294247-01-10T04:00:25.2Z".to_owned()),
        b"-infinity" => Some("-290308-12-21T19:59:27.6Z".to_owned()),
        _ => {
            let (text, bc) = strip_bc(text);
            let (day, clock) = split_day(text)?;
            Some(format!("{}T{}", iso_day(day, bc)?, iso_clock(time(clock.as_bytes())?)))
        }
    }
}

fn split_day(text: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(text).ok()?.split_once(' ')
}

/// The day as Java writes it: years beyond 9999 have a sign, those before 1 count from 0 down.
fn iso_day(day: &str, bc: bool) -> Option<String> {
    let (year, rest) = day.split_once('-')?;
    if !bc {
        return Some(if year.len() > 4 { format!("+{day}") } else { day.to_owned() });
    }
    let year: i64 = year.parse().ok()?;
    let sign = if year > 1 { "-" } else { "" };
    Some(format!("{sign}{:04}-{rest}", year - 1))
}

fn iso_clock(micros: i64) -> String {
    let micros = micros.rem_euclid(DAY);
    let seconds = micros / SECOND;
    let fraction = fraction((micros % SECOND).unsigned_abs());
    format!("{:02}:{:02}:{:02}{fraction}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn fraction(micros: u64) -> String {
    if micros == 0 {
        return String::new();
    }
    format!(".{micros:06}").trim_end_matches('0').to_owned()
}

fn strip_bc(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

fn days(text: &[u8], bc: bool) -> Option<(i64, &[u8])> {
    let (year, text) = number(text)?;
    let (month, text) = number(text.strip_prefix(b"-")?)?;
    let (day, rest) = number(text.strip_prefix(b"-")?)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if bc { 1 - year } else { year };
    // Counted in eras of 400 years that begin in March, so that leap days come last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era - 719_468, rest))
}

fn clock(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hour, text) = number(text)?;
    let (minute, text) = number(text.strip_prefix(b":")?)?;
    let (second, rest) = number(text.strip_prefix(b":")?)?;
    let (mut micros, mut rest) = ((hour * 60 + minute) * 60 * SECOND + second * SECOND, rest);
    if let Some(fraction) = rest.strip_prefix(b".") {
        let mut unit = SECOND / 10;
        rest = fraction;
        while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
            micros += i64::from(digit - b'0') * unit;
            unit /= 10;
            rest = after;
        }
    }
    Some((micros, rest))
}

fn number(text: &[u8]) -> Option<(i64, &[u8])> {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    // The hours of an interval have more digits than any other number.
    if end == 0 || end > 10 {
        return None;
    }
    let number = text[..end].iter().fold(0i64, |n, digit| n * 10 + i64::from(digit - b'0'));
    Some((number, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_from_1970_in_both_directions() {
        assert_eq!(date(b"1970-01-01"), Some(0));
        assert_eq!(date(b"2000-03-01"), Some(11017));
        assert_eq!(date(b"1969-12-31"), Some(-1));
        assert_eq!(date(b"0001-01-01"), Some(-719_162));
        assert_eq!(date(b"0001-12-31 BC"), Some(-719_163));
        assert_eq!(date(b"5874897-12-31"), Some(2_145_042_905));
        assert_eq!(date(b"infinity"), Some(i32::MAX));
        assert_eq!(date(b"2024-13-01"), None);
    }

    #[test]
    fn timestamps_keep_their_microseconds() {
        let micros = |text: &str| timestamp(text.as_bytes()).map(Stamp::micros);
        assert_eq!(micros("1970-01-02 00:00:00.000001"), Some(DAY + 1));
        assert_eq!(micros("2024-02-29 12:30:45.5"), Some(1_709_209_845_500_000));
        assert_eq!(micros("-infinity"), Some(-9_223_372_036_832_400_000));
        assert_eq!(micros("294276-12-31 23:59:59.999999"), micros("infinity"));
        assert_eq!(micros("4713-01-01 00:00:00 BC").map(|t| t < 0), Some(true));
        let millis = |text: &str| timestamp(text.as_bytes()).map(Stamp::millis);
        assert_eq!(millis("294276-12-31 23:59:59.999999"), Some(9_224_318_015_999_999));
        assert_eq!(millis("1969-12-31 23:59:59.9999"), Some(-1));
        let nanos = |text: &str| timestamp(text.as_bytes()).and_then(Stamp::nanos);
        assert_eq!(nanos("1970-01-01 00:00:00.000001"), Some(1000));
        assert_eq!(nanos("9999-12-31 00:00:00"), None);
        assert_eq!(time(b"24:00:00"), Some(DAY));
        assert_eq!(time(b"01:02:03.25"), Some(3_723_250_000));
    }

    #[test]
    fn zoned_text_is_iso_8601_in_utc_with_the_digits_of_the_column() {
        assert_eq!(zoned(b"2024-02-29 12:30:45.5+00", 6).as_deref(), Some("2024-02-29T12:30:45.500000Z"));
        assert_eq!(zoned(b"2024-02-29 12:30:45+00", 0).as_deref(), Some("2024-02-29T12:30:45Z"));
        assert_eq!(zoned(b"12024-02-29 12:30:45+00", 3).as_deref(), Some("+12024-02-29T12:30:45.000Z"));
        assert_eq!(zoned(b"0044-03-15 12:00:00+00 BC", 0).as_deref(), Some("-0043-03-15T12:00:00Z"));
        assert_eq!(zoned(b"0001-03-15 12:00:00+00 BC", 0).as_deref(), Some("0000-03-15T12:00:00Z"));
        assert_eq!(zoned(b"infinity", 6), None);
        assert_eq!(zoned_time(b"01:02:03+01:02:03").as_deref(), Some("00:00:00Z"));
        assert_eq!(zoned_time(b"12:30:45.120-05:30").as_deref(), Some("18:00:45.12Z"));
        assert_eq!(zoned_time(b"00:00:00+14").as_deref(), Some("10:00:00Z"));
        assert_eq!(zoned_time(b"24:00:00-05").as_deref(), Some("05:00:00Z"));
    }

    #[test]
    fn iso_text_has_no_zeros_at_its_end() {
        assert_eq!(iso_timestamp(b"2024-02-29 12:30:45.120").as_deref(), Some("2024-02-29T12:30:45.12Z"));
        assert_eq!(iso_time(b"24:00:00").as_deref(), Some("00:00:00Z"));
        assert_eq!(iso_date(b"12024-02-29").as_deref(), Some("+12024-02-29Z"));
        assert_eq!(iso_date(b"-infinity").as_deref(), Some("-infinity"));
    }

    #[test]
    fn intervals_are_microseconds_or_parts_with_signs() {
        assert_eq!(interval(b"1 year 2 mons 3 days 04:05:06.789"), Some(37_091_106_789_000));
        assert_eq!(interval(b"-1 years -2 mons +3 days -04:05:06.789"), Some(-36_572_706_789_000));
        assert_eq!(interval(b"00:00:00"), Some(0));
        assert_eq!(interval(b"178000000 years"), Some(i64::MAX));
        assert_eq!(interval(b"2562047788:00:54.775807"), Some(i64::MAX));
        assert_eq!(interval(b"1 fortnight"), None);
        let iso = |text: &str| interval_iso(text.as_bytes()).expect("valid");
        assert_eq!(iso("-1 years -2 mons +3 days -04:05:06.789"), "P-1Y-2M3DT-4H-5M-6.789S");
        assert_eq!(iso("-00:00:00.001"), "P0Y0M0DT0H0M-0.001S");
        assert_eq!(iso("1 mon"), "P0Y1M0DT0H0M0S");
    }
}
