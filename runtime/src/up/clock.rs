//! The cluster's time: the system clock, a virtual clock that runs faster (`--speed`), or in a test one that jumps to
//! whatever comes next.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skeg_core::{Mono, Now, Wall};
use tokio::time::Instant;

/// The cluster's clock. Clones show the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    /// The time of day at the start.
    wall: Wall,
    /// How many times faster than real time the clock runs.
    speed: u32,
    /// Whether the time of day is the system's, which an administrator may change.
    follows_system: bool,
}

/// The time of day, as the system has it.
pub fn time_of_day() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl Clock {
    /// Starts a clock that runs `speed` times faster than real time.
    pub fn new(speed: u32) -> Clock {
        assert!(speed > 0, "a clock that stands still wakes nobody");
        Clock { started: Instant::now(), wall: time_of_day(), speed, follows_system: speed == 1 }
    }

    /// Starts a clock of the time of tokio's runtime, in which a test may pause it, at this time of day.
    pub fn of_test(wall: Wall) -> Clock {
        Clock { started: Instant::now(), wall, speed: 1, follows_system: false }
    }

    /// The current time.
    pub fn now(&self) -> Now {
        let elapsed = self.started.elapsed() * self.speed;
        let wall = match self.follows_system {
            true => time_of_day(),
            false => Wall(self.wall.0.saturating_add(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))),
        };
        Now { mono: Mono(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)), wall }
    }

    /// The time of day, whatever the speed: certificates and tokens are on it.
    pub fn real_time(&self) -> Wall {
        match self.speed {
            1 => self.now().wall,
            _ => time_of_day(),
        }
    }

    /// Converts a duration of the cluster's time into real time.
    pub fn real(&self, time: Duration) -> Duration {
        time / self.speed
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;
    use std::time::Duration;

    #[test]
    fn a_fast_clock_runs_ahead_of_the_day() {
        let (real, fast) = (Clock::new(1), Clock::new(1000));
        std::thread::sleep(Duration::from_millis(10));
        let (now, ahead) = (real.now(), fast.now());
        assert!(ahead.wall.0 - now.wall.0 >= 9_000_000, "{ahead:?}, {now:?}");
        assert!(ahead.mono.0 >= 10_000_000_000);
        assert_eq!(fast.real(Duration::from_secs(60)), Duration::from_millis(60));
    }
}
