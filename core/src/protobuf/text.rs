//! Times and durations: text in JSON, numbers in protobuf.

use jiff::{SignedDuration, Timestamp};

/// Parses an RFC 3339 time into seconds and nanoseconds since the epoch.
pub(super) fn parse_time(text: &str) -> Option<(i64, i32)> {
    let time: Timestamp = text.parse().ok()?;
    Some((time.as_second(), time.subsec_nanosecond()))
}

/// Formats a time as RFC 3339 in UTC as Go's `Time` (0 fractional digits) and `MicroTime` (6 digits) do.
pub(super) fn show_time(seconds: i64, nanos: i32, digits: usize) -> Option<String> {
    let time = Timestamp::new(seconds, nanos).ok()?;
    let whole = Timestamp::new(seconds, 0).ok()?.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    // Finer parts are truncated, as in Go.
    let micros = time.subsec_nanosecond().rem_euclid(1_000_000_000) / 1000;
    Some(if digits == 0 { format!("{whole}Z") } else { format!("{whole}.{micros:06}Z") })
}

/// Parses a duration as Go writes it (`1h30m0s`) into nanoseconds.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let duration: SignedDuration = text.parse().ok()?;
    i64::try_from(duration.as_nanos()).ok()
}

/// Formats a duration as Go's `Duration.String` does.
pub(super) fn show_duration(nanos: i64) -> String {
    let (sign, all) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let fraction = |unit: u64| {
        let digits = unit.ilog10() as usize;
        let rest = format!("{:0digits$}", all % unit);
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { String::new() } else { format!(".{rest}") }
    };
    let seconds = all / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let tail = format!("{}{}s", seconds % 60, fraction(1_000_000_000));
    match (all, hours, minutes) {
        (0, ..) => "0s".to_owned(),
        (1..1_000, ..) => format!("{sign}{all}ns"),
        (1_000..1_000_000, ..) => format!("{sign}{}{}µs", all / 1_000, fraction(1_000)),
        (1_000_000..1_000_000_000, ..) => format!("{sign}{}{}ms", all / 1_000_000, fraction(1_000_000)),
        (_, 0, 0) => format!("{sign}{tail}"),
        (_, 0, minutes) => format!("{sign}{minutes}m{tail}"),
        (_, hours, minutes) => format!("{sign}{hours}h{minutes}m{tail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_duration, parse_time, show_duration, show_time};

    #[test]
    fn durations_are_gos() {
        for (nanos, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (-1_500_000_000, "-1.5s"),
        ] {
            assert_eq!(show_duration(nanos), want);
            assert_eq!(parse_duration(want), Some(nanos), "{want}");
        }
        assert_eq!(parse_duration("soon"), None);
    }

    #[test]
    fn times_are_gos() {
        assert_eq!(parse_time("2008-01-01T01:01:01Z"), Some((1_199_149_261, 0)));
        assert_eq!(parse_time("2008-01-01T03:01:01.5+02:00"), Some((1_199_149_261, 500_000_000)));
        assert_eq!(show_time(1_199_149_261, 999_999_999, 0).as_deref(), Some("2008-01-01T01:01:01Z"));
        assert_eq!(show_time(1_199_149_261, 1_500, 6).as_deref(), Some("2008-01-01T01:01:01.000001Z"));
        assert_eq!(show_time(-62_135_596_800, 0, 0).as_deref(), Some("0001-01-01T00:00:00Z"));
        assert_eq!(show_time(i64::MAX, 0, 0), None);
        assert_eq!(parse_time("yesterday"), None);
    }
}
