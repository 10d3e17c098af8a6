//! The clocks of the hosts: they may jump, and run fast or slow.

use skeg_core::{Mono, Now, Wall};

/// Wall-clock time at virtual time zero: 2026-01-01T00:00:00Z, in microseconds.
pub const EPOCH: i64 = 1_767_225_600_000_000;

/// One host's clock, by virtual time in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Virtual time at which its rate was last set, and what it showed then.
    since: u64,
    shown: u64,
    /// Parts per million by which it is fast; below zero: slow.
    ppm: i64,
    /// By how much its wall clock is wrong beside that, in microseconds.
    offset: i64,
}

impl Clock {
    /// What a clock shows that has never been tampered with.
    pub fn steady(now: u64) -> Now {
        Now { mono: Mono(now), wall: Wall(EPOCH + (now / 1000) as i64) }
    }

    /// What it shows at a moment.
    pub fn at(&self, now: u64) -> Now {
        let Now { mono, wall } = Clock::steady(self.mono(now));
        Now { mono, wall: Wall(wall.0 + self.offset) }
    }

    fn mono(&self, now: u64) -> u64 {
        if self.ppm == 0 {
            return self.shown + (now - self.since);
        }
        let elapsed = i128::from(now - self.since);
        self.shown + (elapsed + elapsed * i128::from(self.ppm) / 1_000_000) as u64
    }

    /// The virtual time at which it will show a moment, or has shown it.
    pub fn when(&self, mono: Mono) -> u64 {
        if self.ppm == 0 || mono.0 == u64::MAX {
            return mono.0.saturating_sub(self.shown).saturating_add(self.since);
        }
        let left = i128::from(mono.0.saturating_sub(self.shown));
        // Rounded up, so that what is due by then is due.
        let elapsed = (left * 1_000_000 + 999_999 + i128::from(self.ppm)) / (1_000_000 + i128::from(self.ppm));
        self.since.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX)).saturating_add(1)
    }

    /// Moves the wall clock.
    pub fn jump(&mut self, seconds: i64) {
        self.offset += seconds * 1_000_000;
    }

    /// Makes it run fast or slow from now on.
    pub fn drift(&mut self, now: u64, ppm: i64) {
        assert!(ppm.abs() < 1_000_000, "a clock neither stands nor runs twice as fast");
        (self.shown, self.since, self.ppm) = (self.mono(now), now, ppm);
    }

    /// Sets the wall clock right, and its rate. What its monotone part has gained or lost stays.
    pub fn mend(&mut self, now: u64) {
        self.drift(now, 0);
        self.offset = (now as i64 - self.shown as i64) / 1000;
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, EPOCH};
    use skeg_core::Mono;

    #[test]
    fn what_is_due_is_shown_when_it_is_due() {
        let mut clock = Clock::default();
        for (step, ppm) in [0, 50_000, -50_000, 0, 1, -1].into_iter().enumerate() {
            let now = step as u64 * 1_000_000_007;
            clock.drift(now, ppm);
            let shown = clock.at(now).mono.0;
            for after in [1, 999, 1_000_003, 77_777_777_777] {
                let due = Mono(shown + after);
                let when = clock.when(due);
                assert!(clock.at(when).mono >= due, "{ppm} ppm, {after} ns");
                assert!(when < now + 3 || clock.at(when - 3).mono <= due, "{ppm} ppm, {after} ns: not much too late");
            }
        }
        clock.jump(30);
        assert_ne!(clock.at(10_000_000_000).wall.0, EPOCH + 10_000_000);
        clock.mend(10_000_000_000);
        assert!((clock.at(10_000_000_000).wall.0 - EPOCH - 10_000_000).abs() <= 1);
    }
}
