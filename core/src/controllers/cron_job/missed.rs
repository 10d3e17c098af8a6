//! Which time of a schedule is due, and how many have been missed.
//!
//! Source: `mostRecentScheduleTime`, `nextScheduleTime`, `nextScheduleTimeDuration` of
//! `pkg/controller/cronjob/utils.go`.

use jiff::tz::TimeZone;

use crate::cron::Schedule;
use crate::machine::Wall;

/// More missed times than this are worth a warning.
const MANY: i64 = 100;
/// Why a schedule whose times never come, or all at once, is refused.
const NEVER: &str = "time difference between two schedules is less than 1 second";

/// A schedule and since when its times count.
pub(super) struct Missed<'a> {
    pub(super) schedule: &'a Schedule,
    pub(super) zone: &'a TimeZone,
    pub(super) now: Wall,
    /// In seconds: the last time that was kept, or when the CronJob was made.
    pub(super) earliest: i64,
}

/// What there was between a moment and now.
struct Recent {
    /// The latest time that has come.
    at: Option<i64>,
    /// How many had come before it, roughly.
    missed: i64,
}

impl Missed<'_> {
    /// The latest time that has come and has not been kept, and whether many before it were missed. Times longer ago
    /// than the deadline do not count.
    pub(super) fn due(&self, deadline: Option<i64>) -> Result<(Option<i64>, bool), &'static str> {
        let latest = deadline.map(|s| self.seconds().saturating_sub(s));
        let from = latest.map_or(self.earliest, |at| at.max(self.earliest));
        let recent = self.since(from)?;
        Ok((recent.at, recent.missed > MANY))
    }

    /// The next time of the schedule, in seconds.
    pub(super) fn next(&self) -> Option<i64> {
        let from = match self.since(self.earliest) {
            Ok(Recent { at: Some(at), .. }) => at,
            Ok(Recent { missed: 0, .. }) => self.earliest,
            Ok(_) | Err(_) => self.seconds(),
        };
        self.schedule.next(from, self.zone)
    }

    /// Whole seconds that have passed.
    fn seconds(&self) -> i64 {
        self.now.0.div_euclid(1_000_000)
    }

    fn since(&self, from: i64) -> Result<Recent, &'static str> {
        let next = |after| self.schedule.next(after, self.zone);
        let now = self.seconds();
        let first = next(from).ok_or(NEVER)?;
        if now < first {
            return Ok(Recent { at: None, missed: 0 });
        }
        let second = next(first).ok_or(NEVER)?;
        if now < second {
            return Ok(Recent { at: Some(first), missed: 0 });
        }
        let between = second - first;
        let missed = (now - first) / between + 1;
        // Near enough to now that only a few steps are left, for a regular schedule.
        let mut at = None;
        let mut time = next(first + (missed - 2) * between);
        while let Some(t) = time.filter(|t| *t <= now) {
            at = Some(t);
            time = next(t);
        }
        Ok(Recent { at, missed })
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::{Missed, NEVER};
    use crate::cron::Schedule;
    use crate::machine::Wall;

    /// Times in minutes, and half a second after it for now: what is due, whether many were missed, what is next.
    fn check(schedule: &str, earliest: i64, now: i64, deadline: Option<i64>, expect: (Option<i64>, bool, i64)) {
        let parsed = Schedule::parse(schedule).unwrap();
        let now = Wall(now * 60_000_000 + 500_000);
        let missed = Missed { schedule: &parsed, zone: &TimeZone::UTC, now, earliest: earliest * 60 };
        let (due, many) = missed.due(deadline).unwrap();
        let got = (due.map(|s| s / 60), many, missed.next().unwrap() / 60);
        assert_eq!(got, expect, "{schedule} since {earliest} at {now:?} within {deadline:?}");
    }

    #[test]
    fn what_is_due() {
        check("*/10 * * * *", 5, 9, None, (None, false, 10));
        check("*/10 * * * *", 5, 10, None, (Some(10), false, 20));
        check("*/10 * * * *", 10, 15, None, (None, false, 20));
        // Of several that were missed the latest.
        check("*/10 * * * *", 0, 35, None, (Some(30), false, 40));
        check("*/10 * * * *", 0, 35, Some(60), (None, false, 40));
        check("*/10 * * * *", 0, 35, Some(400), (Some(30), false, 40));
        check("*/10 * * * *", 0, 1015, None, (Some(1010), true, 1020));
        check("*/10 * * * *", 0, 1015, Some(600), (Some(1010), false, 1020));
        check("@every 7m", 3, 30, None, (Some(24), false, 31));
    }

    #[test]
    fn what_never_is() {
        let parsed = Schedule::parse("59 23 31 2 *").unwrap();
        let missed = Missed { schedule: &parsed, zone: &TimeZone::UTC, now: Wall(0), earliest: 0 };
        assert_eq!((missed.due(None), missed.next()), (Err(NEVER), None));
    }
}
