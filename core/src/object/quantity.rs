//! Resource quantities as exact integers.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>. Kubernetes rounds a
//! quantity up to billionths, and so does [`Nano`], which is for sums. [`Milli`] is in thousandths, rounded up as
//! `Quantity.MilliValue` does.

use std::fmt;

/// A parsed quantity, in thousandths of its unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Hash)]
pub struct Milli(pub i128);

/// The error for a quantity that could not be parsed; its text is Kubernetes' own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuantityError;

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    }
}

/// A parsed quantity, in billionths of its unit. Kubernetes adds in this precision before it rounds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Hash)]
pub struct Nano(pub i128);

/// The largest quantity, in billionths: 2^63 - 1 units. Anything above is clamped to it.
const MOST: i128 = i64::MAX as i128 * 1_000_000_000;
/// A number with more digits than this before the point exceeds [`MOST`], whatever the suffix (`n` divides by 10^9).
const WHOLE_DIGITS: usize = 28;

/// The number of billionths in one unit with this suffix, as exponents of ten and of two. `None` if the suffix is
/// invalid.
fn scale(suffix: &str) -> Option<(i32, u32)> {
    Some(match suffix {
        "n" => (0, 0),
        "u" => (3, 0),
        "m" => (6, 0),
        "" => (9, 0),
        "k" => (12, 0),
        "M" => (15, 0),
        "G" => (18, 0),
        "T" => (21, 0),
        "P" => (24, 0),
        "E" => (27, 0),
        "Ki" => (9, 10),
        "Mi" => (9, 20),
        "Gi" => (9, 30),
        "Ti" => (9, 40),
        "Pi" => (9, 50),
        "Ei" => (9, 60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            if !(-27..=18).contains(&exponent) {
                return None;
            }
            (9 + exponent, 0)
        }
    })
}

/// Multiplies a decimal number by a scale, and rounds up; the result is at most [`MOST`].
fn scaled(whole: &str, fraction: &str, (ten, two): (i32, u32)) -> i128 {
    let whole = whole.trim_start_matches('0');
    // Keep only as many digits as cannot overflow. Whether a digit other than zero was cut off matters only for
    // rounding.
    let room = if two == 0 { WHOLE_DIGITS } else { 20 };
    if whole.len() > room {
        return MOST;
    }
    let kept = fraction.len().min(room - whole.len());
    let rest = fraction.as_bytes()[kept..].iter().any(|d| *d != b'0');
    let digits = whole.bytes().chain(fraction.bytes().take(kept));
    let digits = digits.fold(0i128, |n, digit| 10 * n + i128::from(digit - b'0')) << two;
    let power = ten - kept as i32;
    let amount = if digits == 0 {
        Some(i128::from(rest))
    } else if power >= 0 {
        let exact = 10i128.checked_pow(power.unsigned_abs()).and_then(|p| digits.checked_mul(p));
        exact.map(|n| n + i128::from(rest))
    } else {
        let den = 10i128.checked_pow(power.unsigned_abs());
        Some(den.map_or(1, |den| digits / den + i128::from(digits % den != 0 || rest)))
    };
    amount.map_or(MOST, |n| n.min(MOST))
}

impl Nano {
    /// Parses `100m`, `1.5Gi`, `2e3`, `-1`.
    pub fn parse(text: &str) -> Result<Nano, QuantityError> {
        let split = text.find(|c: char| !(c.is_ascii_digit() || ".+-".contains(c))).unwrap_or(text.len());
        let (number, suffix) = text.split_at(split);
        let scale = scale(suffix).ok_or(QuantityError)?;
        let (negative, digits) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(QuantityError);
        }
        let amount = scaled(whole, fraction, scale);
        Ok(Nano(if negative { -amount } else { amount }))
    }

    /// Parses a k8s-openapi quantity. One that does not parse gives zero (the API's validation refuses it).
    pub fn of(q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Nano {
        Nano::parse(&q.0).unwrap_or_default()
    }

    /// From whole units.
    pub fn units(n: i64) -> Nano {
        Nano(i128::from(n) * 1_000_000_000)
    }

    /// Converts to thousandths, rounded up (away from zero).
    pub fn to_milli(self) -> Milli {
        let up = |n: i128| (n + 999_999) / 1_000_000;
        Milli(if self.0 < 0 { -up(-self.0) } else { up(self.0) })
    }
}

impl Milli {
    /// Zero.
    pub const ZERO: Milli = Milli(0);

    /// From whole units.
    pub fn units(n: i64) -> Milli {
        Milli(i128::from(n) * 1000)
    }

    /// Parses `100m`, `1.5Gi`, `2e3`, `-1`.
    pub fn parse(text: &str) -> Result<Milli, QuantityError> {
        Nano::parse(text).map(Nano::to_milli)
    }

    /// Parses a k8s-openapi quantity. One that does not parse gives zero (the API's validation refuses it).
    pub fn of(q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Milli {
        Milli::parse(&q.0).unwrap_or_default()
    }

    /// The amount in thousandths, saturating.
    pub fn milli(self) -> i64 {
        i64::try_from(self.0).unwrap_or(if self.0 < 0 { i64::MIN } else { i64::MAX })
    }

    /// The amount in whole units, rounded up, saturating.
    pub fn value(self) -> i64 {
        Milli((self.0 + 999).div_euclid(1000)).milli()
    }

    /// In canonical form for a decimal quantity (CPU, counts): `100m`, `2`, `4k` stays `4k`.
    pub fn to_decimal(self) -> String {
        if self.0 % 1000 != 0 { format!("{}m", self.0) } else { format!("{}", self.0 / 1000) }
    }

    /// In canonical form for a binary quantity (memory): `512Mi`, `32Gi`, `1000`.
    pub fn to_binary(self) -> String {
        let n = (self.0 + 999).div_euclid(1000);
        for (shift, suffix) in [(60, "Ei"), (50, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
            if n != 0 && n % (1i128 << shift) == 0 {
                return format!("{}{suffix}", n >> shift);
            }
        }
        n.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::Milli;

    #[test]
    fn parses_what_kubernetes_accepts() {
        for (text, milli) in [
            ("0", 0),
            ("100m", 100),
            ("1", 1000),
            ("1.5", 1500),
            (".5", 500),
            ("-1", -1000),
            ("+2", 2000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("2e3", 2_000_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("100u", 1),
            ("1e-3", 1),
            ("500M", 500_000_000_000),
            ("1.0000000001", 1001),
            ("0.00000000000001E", 10_000_000),
            ("1234567890123456789n", 1_234_567_890_124),
            ("1234567890123456789u", 1_234_567_890_123_457),
            ("00000000000000000000000000000001", 1000),
            ("1e-20", 1),
            ("99999999999999999999999E", i128::from(i64::MAX) * 1000),
            ("-9999999999999999999999999999999999", -i128::from(i64::MAX) * 1000),
            ("1.00000000000000000000000000000000000001E", 1_000_000_000_000_000_000_001),
        ] {
            assert_eq!(Milli::parse(text), Ok(Milli(milli)), "{text}");
        }
        for text in ["", "m", "1.2.3", "1 Gi", "1gi", "--1", "1-2", "abc", "1K"] {
            assert!(Milli::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_canonically() {
        assert_eq!(Milli(100).to_decimal(), "100m");
        assert_eq!(Milli(2000).to_decimal(), "2");
        assert_eq!(Milli::parse("32Gi").unwrap().to_binary(), "32Gi");
        assert_eq!(Milli::parse("1000").unwrap().to_binary(), "1000");
    }
}
