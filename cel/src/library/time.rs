//! Timestamps and durations. Only UTC is known.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::value::{Error, Value, fail};

/// Reads a timestamp of RFC 3339, or a date.
pub(crate) fn timestamp(text: &str) -> Option<Timestamp> {
    match text.len() {
        10 => Some(text.parse::<jiff::civil::Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp()),
        _ => text.parse().ok(),
    }
}

/// Reads a duration as Go does, `1h30m`, in nanoseconds.
pub fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let unit: i128 = match &after[..unit_end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty())
            || whole.len() > 20
            || !fraction.bytes().all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let mut part = whole.checked_mul(unit)?;
        let mut of = unit;
        for digit in fraction.bytes() {
            of /= 10;
            part += i128::from(digit - b'0') * of;
        }
        total = total.checked_add(part)?;
        rest = &after[unit_end..];
    }
    i64::try_from(sign * total).ok()
}

/// Writes a duration as CEL's `string` does.
pub(crate) fn show(duration: i64) -> String {
    let (whole, part) = (duration / 1_000_000_000, (duration % 1_000_000_000).unsigned_abs());
    let sign = if duration < 0 && whole == 0 { "-" } else { "" };
    if part == 0 {
        return format!("{sign}{whole}s");
    }
    format!("{sign}{whole}.{}s", format!("{part:09}").trim_end_matches('0'))
}

/// Calls a function of this file.
pub(super) fn call<'a>(name: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Error>> {
    let moved = |time: &Timestamp, by: i128| {
        let nanos = time.as_nanosecond().checked_add(by);
        let time = nanos.and_then(|n| Timestamp::from_nanosecond(n).ok());
        time.map_or_else(|| fail("timestamp overflow"), |time| Ok(Value::Timestamp(time)))
    };
    let span = |nanos: Option<i64>| nanos.map_or_else(|| fail("duration overflow"), |n| Ok(Value::Duration(n)));
    Some(match (name, args) {
        ("_+_", [Value::Timestamp(t), Value::Duration(d)] | [Value::Duration(d), Value::Timestamp(t)]) => {
            moved(t, i128::from(*d))
        }
        ("_-_", [Value::Timestamp(t), Value::Duration(d)]) => moved(t, -i128::from(*d)),
        ("_-_", [Value::Timestamp(a), Value::Timestamp(b)]) => {
            span(i64::try_from(a.as_nanosecond() - b.as_nanosecond()).ok())
        }
        ("_+_", [Value::Duration(a), Value::Duration(b)]) => span(a.checked_add(*b)),
        ("_-_", [Value::Duration(a), Value::Duration(b)]) => span(a.checked_sub(*b)),
        ("timestamp", [Value::Timestamp(t)]) => Ok(Value::Timestamp(*t)),
        ("timestamp", [Value::Int(n)]) => match Timestamp::from_second(*n) {
            Ok(time) => Ok(Value::Timestamp(time)),
            Err(_) => fail("timestamp overflow"),
        },
        ("timestamp", [Value::String(text)]) => match text.parse() {
            Ok(time) => Ok(Value::Timestamp(time)),
            Err(_) => fail(format!("parsing time {text:?}: cannot parse it")),
        },
        ("duration", [Value::Duration(d)]) => Ok(Value::Duration(*d)),
        ("duration", [Value::String(text)]) => match duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => fail(format!("time: invalid duration {text:?}")),
        },
        (name, [Value::Timestamp(t)]) => Ok(Value::Int(part(name, *t)?)),
        (name, [Value::Duration(d)]) => Ok(Value::Int(match name {
            "getHours" => d / 3_600_000_000_000,
            "getMinutes" => d / 60_000_000_000,
            "getSeconds" => d / 1_000_000_000,
            "getMilliseconds" => d / 1_000_000 % 1000,
            _ => return None,
        })),
        _ => return None,
    })
}

fn part(name: &str, time: Timestamp) -> Option<i64> {
    let at = time.to_zoned(TimeZone::UTC);
    Some(match name {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_as_go_reads_them() {
        for (text, nanos) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("-2ms", Some(-2_000_000)),
            ("0", Some(0)),
            ("", None),
            ("-", None),
            ("1", None),
            ("1d", None),
            (".s", None),
            ("1.2.3s", None),
            (".5h", Some(1_800_000_000_000)),
            ("9000000h", None),
        ] {
            assert_eq!(duration(text), nanos, "{text}");
        }
    }
}
