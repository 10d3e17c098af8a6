//! The cluster's time: the system clock, or a virtual clock that runs faster (`--speed`).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use skeg_core::{Mono, Now, Wall};

/// The cluster's clock. Clones show the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    /// The time of day at the start.
    wall: Wall,
    /// How many times faster than real time the clock runs.
    speed: u32,
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
        Clock { started: Instant::now(), wall: time_of_day(), speed }
    }

    /// The current time. At real speed the time of day is the system's, which an administrator may change.
    pub fn now(&self) -> Now {
        let elapsed = self.started.elapsed() * self.speed;
        let wall = match self.speed {
            1 => time_of_day(),
            _ => Wall(self.wall.0.saturating_add(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))),
        };
        Now { mono: Mono(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)), wall }
    }

    /// The time of day, whatever the speed: certificates and tokens are on it.
    pub fn real_time(&self) -> Wall {
        time_of_day()
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
