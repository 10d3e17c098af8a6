//! Ages in human-readable form.
//!
//! Source: apimachinery `pkg/util/duration`.

use std::time::Duration;

use crate::machine::Wall;

/// The time at which ages are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Time(pub Wall);

/// A timestamp in microseconds since the epoch; `None` if it cannot be parsed.
fn micros(timestamp: &str) -> Option<i64> {
    timestamp.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
}

impl Time {
    /// The time since a timestamp (RFC 3339); `<unknown>` if it is empty or invalid.
    pub fn since(self, timestamp: &str) -> String {
        micros(timestamp).map_or("<unknown>".to_owned(), |then| human_micros(self.0.0 - then))
    }

    /// The time between two timestamps: up to now if the second is missing, empty if the first is missing.
    pub fn between(self, from: &str, to: &str) -> String {
        let Some(from) = micros(from) else { return String::new() };
        human_micros(micros(to).unwrap_or(self.0.0) - from)
    }
}

/// The later of two timestamps; an empty one is the earliest.
pub(super) fn later<'a>(a: &'a str, b: &'a str) -> &'a str {
    if micros(b) > micros(a) { b } else { a }
}

fn human_micros(micros: i64) -> String {
    match u64::try_from(micros) {
        Ok(micros) => human_duration(Duration::from_micros(micros)),
        // A clock difference below two seconds is tolerated.
        Err(_) if micros > -2_000_000 => "0s".to_owned(),
        Err(_) => "<invalid>".to_owned(),
    }
}

/// A duration with at most three digits in the largest suitable units (`HumanDuration`).
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match (seconds, minutes, hours) {
        (..120, ..) => format!("{seconds}s"),
        (_, ..10, _) => two(minutes, "m", seconds % 60, "s"),
        (_, ..180, _) => format!("{minutes}m"),
        (_, _, ..8) => two(hours, "h", minutes % 60, "m"),
        (_, _, ..48) => format!("{hours}h"),
        (_, _, ..192) => two(hours / 24, "d", hours % 24, "h"),
        (_, _, ..17520) => format!("{}d", hours / 24),
        (_, _, ..70080) => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::{Time, human_duration, later};
    use crate::machine::Wall;
    use std::time::Duration;

    #[test]
    fn durations_read_as_kubectl_shows_them() {
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (179 * 60, "179m"),
            (180 * 60, "3h"),
            (3 * 3600 + 300, "3h5m"),
            (8 * 3600 + 300, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (50 * 3600, "2d2h"),
            (8 * 86400, "8d"),
            (729 * 86400, "729d"),
            (731 * 86400, "2y1d"),
            (8 * 365 * 86400, "8y"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), want, "{seconds}");
        }
    }

    #[test]
    fn ages_are_counted_from_timestamps() {
        let now = Time(Wall(100_000_000));
        assert_eq!(now.since("1970-01-01T00:00:10Z"), "90s");
        assert_eq!(now.since("1970-01-01T00:01:41Z"), "0s");
        assert_eq!(now.since("1970-01-01T01:00:00Z"), "<invalid>");
        assert_eq!(now.since(""), "<unknown>");
        assert_eq!(now.between("1970-01-01T00:00:10Z", "1970-01-01T00:00:15.5Z"), "5s");
        assert_eq!(now.between("", ""), "");
        assert_eq!(later("", "1970-01-01T00:00:10Z"), "1970-01-01T00:00:10Z");
    }
}
