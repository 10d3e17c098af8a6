//! Which scheduled time is due, and how many have been missed.
//!
//! Source: `mostRecentScheduleTime`, `nextScheduleTime`, `nextScheduleTimeDuration` of
//! `pkg/controller/cronjob/utils.go`.

use jiff::tz::TimeZone;

use crate::cron::Schedule;
use crate::machine::Wall;

/// If more scheduled times than this were missed, a warning Event is recorded.
const MANY: i64 = 100;
/// The message for a schedule whose times never come or coincide.
const NEVER: &str = "time difference between two schedules is less than 1 second";

/// A schedule, and the time after which its scheduled times count.
pub(super) struct Missed<'a> {
    pub(super) schedule: &'a Schedule,
    pub(super) zone: &'a TimeZone,
    pub(super) now: Wall,
    /// The last scheduled time for which a Job was created, or the creation of the CronJob, in Unix seconds.
    pub(super) earliest: i64,
}

/// The scheduled times between a given time and now.
struct Recent {
    /// The latest scheduled time that has passed; `None` if there is none.
    at: Option<i64>,
    /// The approximate number of scheduled times that passed before it.
    missed: i64,
}

impl Missed<'_> {
    /// The latest scheduled time that has passed and has no Job yet, and whether many before it were missed. Times that
    /// are further back than `deadline` seconds are ignored.
    pub(super) fn due(&self, deadline: Option<i64>) -> Result<(Option<i64>, bool), &'static str> {
        let latest = deadline.map(|s| self.seconds().saturating_sub(s));
        let from = latest.map_or(self.earliest, |at| at.max(self.earliest));
        let recent = self.since(from)?;
        Ok((recent.at, recent.missed > MANY))
    }

    /// The next scheduled time, in Unix seconds.
    pub(super) fn next(&self) -> Option<i64> {
        let from = match self.since(self.earliest) {
            Ok(Recent { at: Some(at), .. }) => at,
            Ok(Recent { missed: 0, .. }) => self.earliest,
            Ok(_) | Err(_) => self.seconds(),
        };
        self.schedule.next(from, self.zone)
    }

    /// The current time in whole Unix seconds.
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
        // Start close enough to now that, for a regular schedule, only a few steps are left.
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

    /// `earliest` and `now` are in minutes; half a second is added to `now`. Checks what is due, whether many times
    /// were missed, and what is next.
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
        // If several were missed, only the latest is due.
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
