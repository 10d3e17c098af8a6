//! Durations as people write them: `90s`, `5m`, `2h30m`, `500ms`, `1d`.

use std::time::Duration;

const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("m", 60_000_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("s", 1_000_000_000),
];

/// The format of durations, for error messages.
pub const FORM: &str = "a duration is written like 90s, 5m or 2h30m";

/// Parses a duration as Go's `time.ParseDuration` does, with the additional unit `d` for days and without a sign. `0`
/// needs no unit. `None` if the text is not a duration.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanos: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        // `ms` must be tried before `m`, because one begins with the other.
        let (unit, scale) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        nanos = nanos.checked_add(scaled(number, *scale)?)?;
        rest = &tail[unit.len()..];
    }
    Some(Duration::from_nanos(nanos))
}

/// A decimal number times a scale, computed exactly; digits below a nanosecond are cut off.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = u128::from(part) * u128::from(scale) / 10u128.pow(fraction.len() as u32);
    whole.checked_mul(scale)?.checked_add(u64::try_from(part).ok()?)
}

/// Formats a duration in the same way: `2h30m`, `1m30s`, `12.5s`, `250ms`, `0s`.
pub fn format(duration: Duration) -> String {
    let total = duration.as_secs();
    if total == 0 {
        let millis = duration.as_secs_f64() * 1e3;
        return if duration.is_zero() { "0s".to_owned() } else { format!("{}ms", trim(millis)) };
    }
    if total < 60 {
        return format!("{}s", trim((duration.as_secs_f64() * 10.0).round() / 10.0));
    }
    let (days, hours, minutes, seconds) = (total / 86_400, total / 3600 % 24, total / 60 % 60, total % 60);
    let mut out = String::new();
    for (n, unit) in [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")] {
        if n > 0 {
            out += &format!("{n}{unit}");
        }
    }
    out
}

fn trim(x: f64) -> String {
    let s = format!("{x:.1}");
    s.strip_suffix(".0").map(str::to_owned).unwrap_or(s)
}

#[cfg(test)]
mod tests {
    use super::{format, parse};
    use std::time::Duration;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("0", 0),
            ("90s", 90_000),
            ("5m", 300_000),
            ("2h30m", 9_000_000),
            ("1.5s", 1500),
            ("250ms", 250),
            ("1d", 86_400_000),
            ("1m0.5s", 60_500),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "-5s", "s", "5x", "1.2.3s", "99999999999d", "5 m", "m5"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_written() {
        for (millis, text) in [(0, "0s"), (250, "250ms"), (12_500, "12.5s"), (90_000, "1m30s"), (9_000_000, "2h30m")] {
            assert_eq!(format(Duration::from_millis(millis)), text);
        }
    }
}
