//! The contract of every state machine in Skeg.
//!
//! What comes in: an input and the time. What goes out: effects, pushed to `out` in the order in which they must be
//! carried out.
//!
//! A machine never reads a clock, never touches a socket or file, never draws randomness from anything but a
//! [`Rng`](crate::random::Rng) that was passed in, and never iterates in hash order.
//!
//! Call order: `handle` and `handle_timeout` may be called at any time; `now.mono` must never go back. After either
//! call, the driver asks `poll_timeout` and calls `handle_timeout` at or after that deadline. An early or late call of
//! `handle_timeout` is harmless.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Monotonic time in nanoseconds, counted from a start chosen by the process that owns the machine. Never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
pub struct Mono(pub u64);

impl Mono {
    /// The origin of monotonic time.
    pub const ZERO: Mono = Mono(0);

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Seconds since the origin.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, rhs: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Mono> for Mono {
    type Output = Duration;
    fn sub(self, rhs: Mono) -> Duration {
        self.since(rhs)
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.as_secs_f64())
    }
}

/// Wall-clock time in microseconds since the Unix epoch, as this process's clock shows it. May jump forward or back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
pub struct Wall(pub i64);

impl Wall {
    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Wall {
    type Output = Wall;
    fn add(self, rhs: Duration) -> Wall {
        Wall(self.0.saturating_add(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "wall({})", self.0),
        }
    }
}

/// The time as a process sees it: monotonic time for durations, wall time for timestamps in objects.
///
/// They are separate so that clock jumps can be simulated: a jump changes `wall` and not `mono`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Now {
    /// For time-outs and intervals.
    pub mono: Mono,
    /// For timestamps in objects.
    pub wall: Wall,
}

impl Add<Duration> for Now {
    type Output = Now;
    fn add(self, rhs: Duration) -> Now {
        Now { mono: self.mono + rhs, wall: self.wall + rhs }
    }
}

/// When a machine must be woken, and why; the reason is shown in traces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    /// The time.
    pub at: Mono,
    /// What will be done then, for a reader of a trace, such as `"renew lease"`.
    pub why: &'static str,
}

impl Deadline {
    /// The earlier of two optional deadlines; `a` if they are equal.
    pub fn earlier(a: Option<Deadline>, b: Option<Deadline>) -> Option<Deadline> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

/// A pure ("sans-IO") state machine. The module's documentation states the contract.
pub trait Machine {
    /// Input; one small enum per machine.
    type In;
    /// Effect; one small enum per machine.
    type Out;

    /// Handles one input.
    fn handle(&mut self, now: Now, input: Self::In, out: &mut Vec<Self::Out>);

    /// Does whatever is due at `now`. A spurious call does nothing.
    fn handle_timeout(&mut self, now: Now, out: &mut Vec<Self::Out>);

    /// When `handle_timeout` must next be called, and why; `None` if never.
    fn poll_timeout(&self) -> Option<Deadline>;
}
