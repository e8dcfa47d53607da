//! PostgreSQL's ISO text of dates and times into numbers.
//!
//! **Invariant:** every text that `DateStyle=ISO` and `TimeZone=UTC` can produce is read: years beyond 9999, `BC`,
//! `24:00:00` and the infinities.

const DAY_MICROS: i64 = 86_400_000_000;

/// Debezium's microseconds for `infinity` and `-infinity`.
pub(crate) const INFINITY_MICROS: i64 = 9_223_372_036_825_200_000;
pub(crate) const NEGATIVE_INFINITY_MICROS: i64 = -9_223_372_036_832_400_000;

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

/// Microseconds since 1970 of `2024-02-29 23:59:59.123`.
pub(crate) fn timestamp(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => Some(INFINITY_MICROS),
        b"-infinity" => Some(NEGATIVE_INFINITY_MICROS),
        _ => {
            let (text, bc) = strip_bc(text);
            let (days, rest) = days(text, bc)?;
            let (micros, rest) = clock(rest.strip_prefix(b" ")?)?;
            if !rest.is_empty() {
                return None;
            }
            let sum = days.checked_mul(DAY_MICROS).and_then(|day| day.checked_add(micros));
            // The last few years of PostgreSQL's range do not fit when counted from 1970.
            Some(sum.unwrap_or(INFINITY_MICROS))
        }
    }
}

/// ISO 8601 in UTC of `2024-02-29 23:59:59.123+00`. What has no such form (the infinities, BC) is left as it is.
pub(crate) fn zoned(text: &[u8]) -> Option<String> {
    let body = text.strip_suffix(b"+00")?;
    let (day, clock) = body.split_at_checked(body.iter().position(|b| *b == b' ')?)?;
    let mut out = String::with_capacity(text.len());
    out.push_str(std::str::from_utf8(day).ok()?);
    out.push('T');
    out.push_str(std::str::from_utf8(clock.get(1..)?).ok()?);
    out.push('Z');
    Some(out)
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
    let (mut micros, mut rest) = ((hour * 60 + minute) * 60_000_000 + second * 1_000_000, rest);
    if let Some(fraction) = rest.strip_prefix(b".") {
        let mut unit = 100_000;
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
    if end == 0 || end > 9 {
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
        assert_eq!(timestamp(b"1970-01-02 00:00:00.000001"), Some(DAY_MICROS + 1));
        assert_eq!(timestamp(b"2024-02-29 12:30:45.5"), Some(1_709_209_845_500_000));
        assert_eq!(timestamp(b"-infinity"), Some(NEGATIVE_INFINITY_MICROS));
        assert_eq!(timestamp(b"294276-12-31 23:59:59.999999"), Some(INFINITY_MICROS));
        assert_eq!(timestamp(b"4713-01-01 00:00:00 BC").map(|t| t < 0), Some(true));
        assert_eq!(time(b"24:00:00"), Some(DAY_MICROS));
        assert_eq!(time(b"01:02:03.25"), Some(3_723_250_000));
    }

    #[test]
    fn zoned_text_is_iso_8601_in_utc() {
        assert_eq!(zoned(b"2024-02-29 12:30:45.5+00").as_deref(), Some("2024-02-29T12:30:45.5Z"));
        assert_eq!(zoned(b"infinity"), None);
        assert_eq!(zoned(b"0044-03-15 12:00:00+00 BC"), None);
    }
}
