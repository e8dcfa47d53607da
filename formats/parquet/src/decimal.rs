//! Decimals: Connect's unscaled big-endian bytes of any length to numbers of a fixed width.

use aqueduct_core::{Schema, logical};
use num_bigint::BigInt;

/// The most digits that common readers take (a 256-bit decimal).
const MAX_PRECISION: u32 = 76;
/// The most digits of a 128-bit decimal, which every reader takes.
const DEFAULT_PRECISION: u32 = 38;
/// The most digits that fit 64 bits.
const MAX_INT64_PRECISION: u32 = 18;

/// Precision and scale of a column, and how its values are stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decimal {
    pub(crate) precision: u32,
    pub(crate) scale: u32,
    /// Zeros to append: Parquet has no negative scale.
    zeros: u32,
    /// Width in bytes, where it is not an INT64.
    width: Option<usize>,
    /// The first magnitude that has a digit too many.
    limit: BigInt,
}

/// A stored value.
pub(crate) enum Stored {
    Int64(i64),
    /// The last bytes of this one, as many as the width.
    Wide([u8; 32]),
}

impl Decimal {
    /// Of a schema that is a Decimal. The precision is Debezium's `connect.decimal.precision`, else 38, and 76 where the
    /// scale leaves no room for whole digits. More than 76 digits are not to be had.
    pub(crate) fn new(schema: &Schema) -> Result<Self, String> {
        let scale = logical::decimal_scale(schema).ok_or("the Decimal has no scale")?;
        let zeros = scale.min(0).unsigned_abs();
        let scale = u32::try_from(scale).unwrap_or(0);
        if scale.max(zeros) > MAX_PRECISION {
            return Err(format!("a Decimal of scale {scale} has more than {MAX_PRECISION} digits"));
        }
        let declared = schema.parameters.get("connect.decimal.precision").and_then(|text| text.parse().ok());
        let precision = match declared {
            Some(precision) => u32::saturating_add(precision, zeros).max(scale).clamp(1, MAX_PRECISION),
            None if scale.max(zeros) >= DEFAULT_PRECISION => MAX_PRECISION,
            None => DEFAULT_PRECISION,
        };
        let limit = BigInt::from(10).pow(precision);
        let width = (precision > MAX_INT64_PRECISION).then(|| {
            // As many bytes as hold the limit less one and a sign.
            usize::try_from((&limit - 1_i32).bits() / 8 + 1).unwrap_or(32)
        });
        Ok(Self { precision, scale, zeros, width, limit })
    }

    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// The value of unscaled bytes; an error when it has too many digits.
    pub(crate) fn store(&self, unscaled: &[u8]) -> Result<Stored, String> {
        if self.zeros == 0
            && let Some(number) = small(unscaled)
            // 18 digits are always few enough for more than 64 bits.
            && (self.precision > MAX_INT64_PRECISION || number.unsigned_abs() < 10_u64.pow(self.precision))
        {
            return Ok(match self.width {
                None => Stored::Int64(number),
                Some(_) => Stored::Wide(extended(&number.to_be_bytes())),
            });
        }
        let number = BigInt::from_signed_bytes_be(unscaled) * BigInt::from(10).pow(self.zeros);
        if number.magnitude() >= self.limit.magnitude() {
            let digits = number.magnitude().to_string().len();
            return Err(format!(
                "a Decimal of {digits} digits in a column of {}; have the source write decimals as strings, or \
                 declare their precision",
                self.precision
            ));
        }
        match self.width {
            None => Ok(Stored::Int64(i64::try_from(number).map_err(|error| error.to_string())?)),
            Some(_) => Ok(Stored::Wide(extended(&number.to_signed_bytes_be()))),
        }
    }
}

/// The number, when it has at most 18 digits.
fn small(unscaled: &[u8]) -> Option<i64> {
    let first = *unscaled.first()?;
    let mut wide = [sign(first); 8];
    wide.get_mut(8usize.checked_sub(unscaled.len())?..)?.copy_from_slice(unscaled);
    let number = i64::from_be_bytes(wide);
    (number.unsigned_abs() < 10_u64.pow(MAX_INT64_PRECISION)).then_some(number)
}

/// The same number in 32 bytes, which it fits.
fn extended(bytes: &[u8]) -> [u8; 32] {
    let mut wide = [sign(bytes.first().copied().unwrap_or(0)); 32];
    let at = wide.len().saturating_sub(bytes.len());
    wide[at..].copy_from_slice(bytes);
    wide
}

fn sign(first: u8) -> u8 {
    if first & 0x80 == 0 { 0 } else { 0xff }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(precision: Option<&str>, scale: i32) -> Decimal {
        let schema = logical::decimal_schema(scale);
        let schema = match precision {
            Some(precision) => schema.parameter("connect.decimal.precision", precision),
            None => schema,
        };
        Decimal::new(&schema).expect("it has a scale")
    }

    #[test]
    fn precision_comes_from_the_parameter_or_is_as_wide_as_readers_take() {
        let check = |precision, scale, expect| {
            let decimal = decimal(precision, scale);
            assert_eq!((decimal.precision, decimal.scale, decimal.width), expect);
        };
        check(Some("10"), 2, (10, 2, None));
        check(Some("18"), 2, (18, 2, None));
        check(Some("19"), 2, (19, 2, Some(9)));
        check(Some("38"), 2, (38, 2, Some(16)));
        check(Some("39"), 2, (39, 2, Some(17)));
        check(Some("1000"), 2, (76, 2, Some(32)));
        check(Some("3"), 5, (5, 5, None));
        check(Some("3"), -2, (5, 0, None));
        check(None, 2, (38, 2, Some(16)));
        check(None, 40, (76, 40, Some(32)));
    }

    #[test]
    fn digits_too_many_are_refused_never_cut() {
        let store = |decimal: &Decimal, text: &str, scale| {
            decimal.store(&logical::decimal_bytes(text, scale).expect("a number")).is_ok()
        };
        let narrow = decimal(Some("4"), 2);
        assert!(store(&narrow, "99.99", 2) && store(&narrow, "-99.99", 2));
        assert!(!store(&narrow, "100.00", 2) && !store(&narrow, "-100.00", 2));
        let wide = decimal(None, 0);
        assert!(store(&wide, &"9".repeat(38), 0) && !store(&wide, &format!("1{}", "0".repeat(38)), 0));
        let zeros = decimal(Some("3"), -2);
        assert!(matches!(zeros.store(&[5]), Ok(Stored::Int64(500))));
    }
}
