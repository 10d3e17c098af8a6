//! The canonical form of a quantity. Kubernetes stores and shows this form, whatever the client wrote.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource.Quantity.CanonicalizeBytes`.

use std::borrow::Cow;

use crate::object::{Milli, QuantityError};

/// Converts a quantity to canonical form: keeps the family of its suffix (binary, decimal, exponent), uses no fraction
/// and the largest possible suffix. Borrows if the text is canonical already.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
    let milli = Milli::parse(text)?;
    let split = text.find(|c: char| !(c.is_ascii_digit() || ".+-".contains(c))).unwrap_or(text.len());
    let suffix = &text[split..];
    let exponent = suffix.len() > 1 && suffix.starts_with(['e', 'E']);
    let out = if suffix.ends_with('i') {
        binary(milli)
    } else if exponent {
        decimal(milli, |thousands| match thousands {
            0 => String::new(),
            n => format!("e{}", 3 * n),
        })
    } else if (suffix == "n" || suffix == "u") && milli.0 != 0 {
        // Finer than thousandths: kept as written, since rounding up would change the requested amount.
        return Ok(Cow::Borrowed(text));
    } else {
        plain(milli)
    };
    Ok(if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) })
}

/// Formats an amount in canonical form, with a suffix of the same family as `like`.
pub fn in_family_of(like: &str, amount: Milli) -> String {
    if like.ends_with('i') { binary(amount) } else { plain(amount) }
}

/// Rounds an amount that is finer than thousandths up (`2500u` becomes `3m`), as the API server does in every resource
/// list.
pub fn rounded_up(text: &str) -> Option<String> {
    let finer = text.ends_with(['n', 'u']);
    finer.then(|| Milli::parse(text).map(plain).ok()).flatten()
}

fn plain(milli: Milli) -> String {
    decimal(milli, |thousands| ["m", "", "k", "M", "G", "T", "P", "E"][(thousands + 1) as usize].to_owned())
}

/// Formats with a decimal suffix; `suffix` gives the one for a power of a thousand, from -1 to 6.
fn decimal(milli: Milli, suffix: impl Fn(i32) -> String) -> String {
    if milli.0 == 0 {
        return "0".to_owned();
    }
    let (mut n, mut thousands) = (milli.0, -1);
    while n % 1000 == 0 && thousands < 6 {
        n /= 1000;
        thousands += 1;
    }
    format!("{n}{}", suffix(thousands))
}

/// A binary quantity is formatted as decimal if it is below 1024 or has a fraction of a unit.
fn binary(milli: Milli) -> String {
    if milli.0.abs() < 1024 * 1000 || milli.0 % 1000 != 0 {
        return plain(milli);
    }
    let mut n = milli.0 / 1000;
    let mut suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].into_iter();
    let mut suffix = suffixes.next().unwrap_or("");
    while n % 1024 == 0
        && let Some(next) = suffixes.next()
    {
        n /= 1024;
        suffix = next;
    }
    format!("{n}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn forms_are_those_of_kubernetes() {
        for (given, want) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("100m", "100m"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("512Mi", "512Mi"),
            ("0.5Gi", "512Mi"),
            ("0.5Ki", "512"),
            ("500M", "500M"),
            ("2e3", "2e3"),
            ("-1500m", "-1500m"),
            ("+2", "2"),
            ("100u", "100u"),
            ("1E", "1E"),
        ] {
            assert_eq!(canonical(given).unwrap(), want, "{given}");
        }
        assert!(canonical("1gi").is_err());
    }
}
