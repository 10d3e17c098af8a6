//! The clocks of the hosts: they can jump, and run fast or slow.

use skeg_core::{Mono, Now, Wall};

use crate::fault::{FaultId, Layered};

/// Wall-clock time at virtual time zero: 2026-01-01T00:00:00Z, in microseconds.
pub const EPOCH: i64 = 1_767_225_600_000_000;

/// One host's clock as a function of virtual time in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Virtual time at which its rate was last set, and the time that it showed then.
    since: u64,
    shown: u64,
    /// Drift in parts per million: positive is fast, negative is slow.
    ppm: i64,
    /// Additional offset of its wall clock in microseconds.
    offset: i64,
    /// Changes by faults: drift rates, and jumps in seconds.
    drifts: Layered<i64>,
    jumps: Layered<i64>,
}

impl Clock {
    /// The time on a clock that no fault has changed.
    pub fn steady(now: u64) -> Now {
        Now { mono: Mono(now), wall: Wall(EPOCH + (now / 1000) as i64) }
    }

    /// The time on this clock at a virtual time.
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

    /// The virtual time at which it shows, or has shown, a monotonic time.
    pub fn when(&self, mono: Mono) -> u64 {
        if self.ppm == 0 || mono.0 == u64::MAX {
            return mono.0.saturating_sub(self.shown).saturating_add(self.since);
        }
        let left = i128::from(mono.0.saturating_sub(self.shown));
        // Rounded up, so that whatever is due at the shown time is due then.
        let elapsed = (left * 1_000_000 + 999_999 + i128::from(self.ppm)) / (1_000_000 + i128::from(self.ppm));
        self.since.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX)).saturating_add(1)
    }

    /// Applies a fault's jump of the wall clock.
    pub fn jump(&mut self, by: FaultId, seconds: i64) {
        self.jumps.set(by, seconds);
        self.offset += seconds * 1_000_000;
    }

    /// Applies a fault's drift from now on.
    pub fn drift(&mut self, now: u64, by: FaultId, ppm: i64) {
        self.drifts.set(by, ppm);
        self.run_at(now, ppm);
    }

    fn run_at(&mut self, now: u64, ppm: i64) {
        assert!(ppm.abs() < 1_000_000, "a clock neither stands nor runs twice as fast");
        (self.shown, self.since, self.ppm) = (self.mono(now), now, ppm);
    }

    /// Undoes a fault's changes. When no drift is left, the wall clock is correct again apart from the jumps of other
    /// faults. What the monotonic clock has gained or lost is kept.
    pub fn mend(&mut self, now: u64, by: FaultId) {
        let (drifted, jumped) = (self.drifts.remove(by), self.jumps.remove(by));
        if drifted {
            self.run_at(now, self.drifts.get().unwrap_or(0));
        }
        if (drifted || jumped) && self.drifts.get().is_none() {
            let mono = self.mono(now);
            self.offset = (now as i64 - mono as i64) / 1000 + self.jumps.all().sum::<i64>() * 1_000_000;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, EPOCH};
    use crate::fault::FaultId;
    use skeg_core::Mono;

    #[test]
    fn what_is_due_is_shown_when_it_is_due() {
        let mut clock = Clock::default();
        for (step, ppm) in [0, 50_000, -50_000, 0, 1, -1].into_iter().enumerate() {
            let now = step as u64 * 1_000_000_007;
            clock.drift(now, FaultId(step as u32), ppm);
            let shown = clock.at(now).mono.0;
            for after in [1, 999, 1_000_003, 77_777_777_777] {
                let due = Mono(shown + after);
                let when = clock.when(due);
                assert!(clock.at(when).mono >= due, "{ppm} ppm, {after} ns");
                assert!(when < now + 3 || clock.at(when - 3).mono <= due, "{ppm} ppm, {after} ns: not much too late");
            }
        }
        let wrong_by = |clock: &Clock| clock.at(10_000_000_000).wall.0 - EPOCH - 10_000_000;
        clock.jump(FaultId(6), 30);
        clock.jump(FaultId(7), -5);
        assert_ne!(wrong_by(&clock), 0);
        (0..6).for_each(|id| clock.mend(10_000_000_000, FaultId(id)));
        assert!((wrong_by(&clock) - 25_000_000).abs() <= 1, "the jumps are left");
        clock.mend(10_000_000_000, FaultId(6));
        assert!((wrong_by(&clock) + 5_000_000).abs() <= 1);
        clock.mend(10_000_000_000, FaultId(7));
        assert!(wrong_by(&clock).abs() <= 1);
    }
}
