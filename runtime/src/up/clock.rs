//! The time of a cluster: that of this machine, or a virtual one that runs faster (`--speed`).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use skeg_core::{Mono, Now, Wall};

/// The time of a cluster. A copy shows the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    /// The time of day when it was started.
    wall: Wall,
    /// How much faster than real time it runs.
    speed: u32,
}

fn time_of_day() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl Clock {
    /// Starts now, this much faster than real time.
    pub fn new(speed: u32) -> Clock {
        assert!(speed > 0, "a clock that stands still wakes nobody");
        Clock { started: Instant::now(), wall: time_of_day(), speed }
    }

    /// What it shows. At real speed the time of day is the system's, which may be set.
    pub fn now(&self) -> Now {
        let elapsed = self.started.elapsed() * self.speed;
        let wall = match self.speed {
            1 => time_of_day(),
            _ => Wall(self.wall.0.saturating_add(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))),
        };
        Now { mono: Mono(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)), wall }
    }

    /// How long a time of the cluster lasts in real time.
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
