//! Logical types: Connect's and Debezium's names, and decimals as unscaled big-endian bytes.

use bytes::Bytes;
use num_bigint::BigInt;

use crate::{Error, Result, Schema, Type};

/// Connect's Decimal: bytes holding the big-endian two's complement unscaled value; parameter `scale`.
pub const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
/// Connect's Date: int32 days since 1970-01-01.
pub const DATE: &str = "org.apache.kafka.connect.data.Date";
/// Connect's Time: int32 milliseconds since midnight.
pub const TIME: &str = "org.apache.kafka.connect.data.Time";
/// Connect's Timestamp: int64 milliseconds since 1970.
pub const TIMESTAMP: &str = "org.apache.kafka.connect.data.Timestamp";
/// Debezium's date: int32 days since 1970-01-01.
pub const DEBEZIUM_DATE: &str = "io.debezium.time.Date";
/// Debezium's timestamp: int64 milliseconds since 1970, without zone.
pub const DEBEZIUM_TIMESTAMP: &str = "io.debezium.time.Timestamp";
/// Debezium's timestamp: int64 microseconds since 1970, without zone.
pub const DEBEZIUM_MICRO_TIMESTAMP: &str = "io.debezium.time.MicroTimestamp";
/// Debezium's time: int64 microseconds since midnight.
pub const DEBEZIUM_MICRO_TIME: &str = "io.debezium.time.MicroTime";
/// Debezium's timestamp with zone: ISO 8601 text in UTC.
pub const DEBEZIUM_ZONED_TIMESTAMP: &str = "io.debezium.time.ZonedTimestamp";
/// Debezium's JSON: text.
pub const DEBEZIUM_JSON: &str = "io.debezium.data.Json";
/// Debezium's UUID: text.
pub const DEBEZIUM_UUID: &str = "io.debezium.data.Uuid";

/// Schema of a Decimal with the given scale.
pub fn decimal_schema(scale: i32) -> Schema {
    Schema::new(Type::Bytes).named(DECIMAL).versioned(1).parameter("scale", scale.to_string())
}

/// The scale, when the schema is a Decimal.
pub fn decimal_scale(schema: &Schema) -> Option<i32> {
    if schema.name.as_deref() != Some(DECIMAL) {
        return None;
    }
    schema.parameters.get("scale").and_then(|scale| scale.parse().ok())
}

/// Plain decimal text (`-12.30`) of an unscaled value.
pub fn decimal_text(unscaled: &[u8], scale: i32) -> String {
    let (negative, mut digits) = digits(unscaled);
    if scale < 0 {
        if digits != "0" {
            digits.extend(std::iter::repeat_n('0', scale.unsigned_abs() as usize));
        }
    } else if scale > 0 {
        let scale = scale as usize;
        if digits.len() <= scale {
            digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
        }
        digits.insert(digits.len() - scale, '.');
    }
    if negative {
        digits.insert(0, '-');
    }
    digits
}

/// Sign and digits of an unscaled value; nearly all fit 64 bits.
fn digits(unscaled: &[u8]) -> (bool, String) {
    if let Some(number) = small(unscaled) {
        return (number < 0, number.unsigned_abs().to_string());
    }
    let number = BigInt::from_signed_bytes_be(unscaled);
    (number.sign() == num_bigint::Sign::Minus, number.magnitude().to_string())
}

fn small(unscaled: &[u8]) -> Option<i64> {
    let first = *unscaled.first()?;
    let mut wide = [if first & 0x80 == 0 { 0 } else { 0xff }; 8];
    wide.get_mut(8usize.checked_sub(unscaled.len())?..)?.copy_from_slice(unscaled);
    Some(i64::from_be_bytes(wide))
}

/// Unscaled bytes of decimal text (`-12.3`, `1e3`), at exactly the given scale; refuses to round.
pub fn decimal_bytes(text: &str, scale: i32) -> Result<Bytes> {
    if let Some(bytes) = small_bytes(text, scale) {
        return Ok(bytes);
    }
    let (unscaled, found) = parse_decimal(text)?;
    rescale(unscaled, found, scale, text)
}

/// The same for plain text of few digits that need not be cut; `None` leaves it to the general way.
fn small_bytes(text: &str, scale: i32) -> Option<Bytes> {
    let (negative, plain) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    if whole.is_empty() || whole.len() + fraction.len() > 18 {
        return None;
    }
    let mut unscaled = 0_i64;
    for digit in whole.bytes().chain(fraction.bytes()) {
        unscaled = unscaled * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    let more = u32::try_from(scale.checked_sub(i32::try_from(fraction.len()).ok()?)?).ok()?;
    let unscaled = unscaled.checked_mul(10_i64.checked_pow(more)?)?;
    let bytes = if negative { -unscaled } else { unscaled }.to_be_bytes();
    // As few bytes as keep the sign.
    let spare = bytes.windows(2).take_while(|pair| match pair[0] {
        0 => pair[1] & 0x80 == 0,
        0xff => pair[1] & 0x80 != 0,
        _ => false,
    });
    Some(Bytes::copy_from_slice(&bytes[spare.count()..]))
}

/// Unscaled bytes and the text's own scale.
pub fn decimal_parts(text: &str) -> Result<(Bytes, i32)> {
    let (unscaled, scale) = parse_decimal(text)?;
    Ok((unscaled.to_signed_bytes_be().into(), scale))
}

/// Digits beyond this are refused: an exponent must not make a small text a large number.
const MAX_DIGITS: i64 = 150_000;

fn parse_decimal(text: &str) -> Result<(BigInt, i32)> {
    let bad = || {
        Error::bad_record(format!("`{}` is not a decimal number", text.chars().take(40).collect::<String>()))
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.strip_prefix('+').unwrap_or(e).parse::<i64>().map_err(|_| bad())?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if fraction.contains(['+', '-']) || digits.len() as i64 > MAX_DIGITS || exponent.abs() > MAX_DIGITS {
        return Err(bad());
    }
    let unscaled = digits.parse::<BigInt>().map_err(|_| bad())?;
    let scale = i32::try_from(fraction.len() as i64 - exponent).map_err(|_| bad())?;
    Ok((unscaled, scale))
}

fn rescale(unscaled: BigInt, from: i32, to: i32, text: &str) -> Result<Bytes> {
    let shift = i64::from(to) - i64::from(from);
    if shift.abs() > MAX_DIGITS {
        return Err(Error::bad_record(format!("`{text}` does not fit scale {to}")));
    }
    let factor = BigInt::from(10).pow(shift.unsigned_abs() as u32);
    let scaled = if shift >= 0 {
        unscaled * factor
    } else {
        let quotient = &unscaled / &factor;
        if &quotient * &factor != unscaled {
            return Err(Error::bad_record(format!("`{text}` has more than {to} digits after the point")));
        }
        quotient
    };
    Ok(scaled.to_signed_bytes_be().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(text: &str, scale: i32) -> String {
        decimal_text(&decimal_bytes(text, scale).expect("valid"), scale)
    }

    #[test]
    fn decimals_keep_every_digit() {
        assert_eq!(round("0", 2), "0.00");
        assert_eq!(round("-0.05", 2), "-0.05");
        assert_eq!(round("123456789012345678901234567890.123", 3), "123456789012345678901234567890.123");
        assert_eq!(round("1.5e3", 0), "1500");
        assert_eq!(round("12300", -2), "12300");
    }

    #[test]
    fn decimals_never_round_silently() {
        assert!(decimal_bytes("0.125", 2).is_err());
        assert!(decimal_bytes("NaN", 2).is_err());
        assert!(decimal_bytes("1e999999999", 2).is_err());
    }

    proptest! {
        #[test]
        fn few_digits_give_what_the_general_way_gives(text in "-?[0-9]{1,12}([.][0-9]{0,9})?", scale in -3..12_i32) {
            let (unscaled, found) = parse_decimal(&text).expect("a decimal");
            let general = rescale(unscaled, found, scale, &text).ok();
            prop_assert_eq!(decimal_bytes(&text, scale).ok(), general);
        }

        #[test]
        fn any_bytes_have_the_digits_of_their_number(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            prop_assert_eq!(decimal_text(&bytes, 0), BigInt::from_signed_bytes_be(&bytes).to_string());
        }
    }
}
