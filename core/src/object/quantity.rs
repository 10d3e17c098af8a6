//! Resource quantities as exact integers.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>. A quantity is held in
//! thousandths (`i128`), which is exact for everything that Kubernetes accepts down to `m`; finer parts are rounded
//! up, as `Quantity.MilliValue` does.

use std::fmt;

/// A parsed quantity, in thousandths of its unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Hash)]
pub struct Milli(pub i128);

/// Why a quantity could not be parsed; the text is Kubernetes' own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuantityError;

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    }
}

/// What a suffix multiplies by: `(numerator, denominator)` of thousandths.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    const K: i128 = 1000;
    const KI: i128 = 1024;
    Some(match suffix {
        "n" => (1, K * K),
        "u" => (1, K),
        "m" => (1, 1),
        "" => (K, 1),
        "k" => (K.pow(2), 1),
        "M" => (K.pow(3), 1),
        "G" => (K.pow(4), 1),
        "T" => (K.pow(5), 1),
        "P" => (K.pow(6), 1),
        "E" => (K.pow(7), 1),
        "Ki" => (K * KI, 1),
        "Mi" => (K * KI.pow(2), 1),
        "Gi" => (K * KI.pow(3), 1),
        "Ti" => (K * KI.pow(4), 1),
        "Pi" => (K * KI.pow(5), 1),
        "Ei" => (K * KI.pow(6), 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            match exponent {
                0..=18 => (K * 10i128.pow(exponent as u32), 1),
                -9..=-1 => (K, 10i128.pow(exponent.unsigned_abs())),
                _ => return None,
            }
        }
    })
}

impl Milli {
    /// Nothing.
    pub const ZERO: Milli = Milli(0);

    /// Whole units.
    pub fn units(n: i64) -> Milli {
        Milli(i128::from(n) * 1000)
    }

    /// Parses `100m`, `1.5Gi`, `2e3`, `-1`.
    pub fn parse(text: &str) -> Result<Milli, QuantityError> {
        let split = text.find(|c: char| !(c.is_ascii_digit() || ".+-".contains(c))).unwrap_or(text.len());
        let (number, suffix) = text.split_at(split);
        let (num, den) = scale(suffix).ok_or(QuantityError)?;
        let (negative, digits) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(QuantityError);
        }
        if whole.len() > 18 {
            return Ok(Milli(if negative { -i128::from(i64::MAX) } else { i128::from(i64::MAX) }));
        }
        let fraction = &fraction[..fraction.len().min(9)];
        // At most 27 digits.
        let digits = whole.bytes().chain(fraction.bytes()).fold(0, |n, digit| 10 * n + i128::from(digit - b'0'));
        let den = den * 10i128.pow(fraction.len() as u32);
        let scaled = digits.checked_mul(num).ok_or(QuantityError)?;
        let rounded_up = (scaled + den - 1).div_euclid(den);
        Ok(Milli(if negative { -rounded_up } else { rounded_up }))
    }

    /// Parses a k8s-openapi quantity; one that does not parse reads as nothing (validation refuses it at the API).
    pub fn of(q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Milli {
        Milli::parse(&q.0).unwrap_or_default()
    }

    /// Thousandths, saturating.
    pub fn milli(self) -> i64 {
        i64::try_from(self.0).unwrap_or(if self.0 < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whole units, rounded up, saturating.
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
