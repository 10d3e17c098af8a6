//! Back-offs of crashing containers and failing image pulls (client-go `flowcontrol.Backoff`), and of requests.

use std::time::Duration;

use crate::limits::{AGENT_RETRY_MAX, CONTAINER_BACKOFF_BASE, CONTAINER_BACKOFF_MAX};
use crate::machine::Mono;
use crate::random::Rng;

/// Back-off of a container's restarts or image pulls: 10 s, doubled up to 300 s, and reset when there was no failure
/// for twice the longest back-off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    entry: Option<(Duration, Mono)>,
}

impl Backoff {
    /// The time until which to wait after `event`; `None` if it has passed or there was no failure.
    pub(super) fn wait_until(self, now: Mono, event: Mono) -> Option<Mono> {
        let (delay, updated) = self.entry?;
        let until = event + delay;
        (!is_expired(event, updated) && until > now).then_some(until)
    }

    /// Counts another failure, which happened at `event`; returns the new delay.
    pub(super) fn next(&mut self, now: Mono, event: Mono) -> Duration {
        let delay = match self.entry {
            Some((delay, updated)) if !is_expired(event, updated) => (delay * 2).min(CONTAINER_BACKOFF_MAX),
            _ => CONTAINER_BACKOFF_BASE,
        };
        self.entry = Some((delay, now));
        delay
    }

    /// The current delay; zero if there was no failure.
    pub(super) fn delay(self) -> Duration {
        self.entry.map_or(Duration::ZERO, |(delay, _)| delay)
    }

    /// When the last failure was counted.
    pub(super) fn updated(self) -> Option<Mono> {
        self.entry.map(|(_, at)| at)
    }

    /// Resets the failure count.
    pub(super) fn reset(&mut self) {
        self.entry = None;
    }
}

fn is_expired(event: Mono, updated: Mono) -> bool {
    event.since(updated) > CONTAINER_BACKOFF_MAX * 2
}

/// A delay in Go's format: `10s`, `1m20s`, `5m0s`.
pub(super) fn go_duration(d: Duration) -> String {
    let seconds = d.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) if d.subsec_nanos() == 0 => format!("{s}s"),
        (0, 0, 0) => format!("{}ms", d.subsec_millis()),
        (0, 0, s) => format!("{s}.{:03}s", d.subsec_millis()),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// Delay between attempts of a failing request: 100 ms, doubled up to 7 s (kubelet's node registration), with 50%
/// jitter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Retry {
    attempts: u8,
}

impl Retry {
    /// How long to wait before the next attempt.
    pub(super) fn next(&mut self, rng: &mut Rng) -> Duration {
        let base = Duration::from_millis(100) * (1 << self.attempts.min(7));
        self.attempts = self.attempts.saturating_add(1);
        rng.jitter(base.min(AGENT_RETRY_MAX), 50)
    }

    /// Resets the delay after a success.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, Retry, go_duration};
    use crate::machine::Mono;
    use crate::random::Rng;
    use std::time::Duration;

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    #[test]
    fn doubles_to_five_minutes_and_forgets_after_ten() {
        let mut b = Backoff::default();
        assert_eq!(b.wait_until(at(5), at(5)), None, "the first crash restarts at once");
        let mut now = 5;
        for expect in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(b.next(at(now), at(now)), Duration::from_secs(expect));
            assert_eq!(b.wait_until(at(now + 1), at(now + 1)), Some(at(now + 1 + expect)));
            assert_eq!(b.wait_until(at(now + 1 + expect), at(now + 1)), None);
            now += 1 + expect;
        }
        assert_eq!(b.wait_until(at(now + 601), at(now + 601)), None, "a long run clears it");
        assert_eq!(b.next(at(now + 601), at(now + 601)), Duration::from_secs(10));
    }

    #[test]
    fn prints_as_go() {
        for (seconds, text) in [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3661, "1h1m1s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(go_duration(Duration::from_millis(1234)), "1.234s");
        assert_eq!(go_duration(Duration::from_millis(200)), "200ms");
    }

    #[test]
    fn requests_never_wait_longer_than_the_bound() {
        let (mut r, mut rng) = (Retry::default(), Rng::from_seed(1));
        for _ in 0..300 {
            assert!(r.next(&mut rng) <= Duration::from_millis(10_500));
        }
    }
}
