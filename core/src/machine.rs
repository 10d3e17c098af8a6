//! The contract that every state machine of Skeg keeps.
//!
//! What comes in: an input, and the time. What goes out: effects, pushed to `out`, in the order in which they are
//! to be carried out. What never happens: a clock is read, a socket or file is touched, randomness is drawn from
//! anywhere but a [`Rng`](crate::random::Rng) that was handed in, or a collection is walked in hash order.
//!
//! Call order: `handle` and `handle_timeout` may be called at any time with a `now` that never goes back in `mono`.
//! After either, the driver asks `poll_timeout` and calls `handle_timeout` at (or after) that deadline. A call of
//! `handle_timeout` that is early or late is harmless.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Monotone time: nanoseconds since the process that owns the machine could first tell. Never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// The origin of monotone time.
    pub const ZERO: Mono = Mono(0);

    /// Time from `earlier` to `self`, zero where `earlier` is later.
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

/// Wall-clock time: microseconds since the Unix epoch, as this process's clock shows it. May jump either way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Wall(pub i64);

impl Wall {
    /// As Kubernetes' `metav1.Time` (whole seconds on the wire).
    pub fn to_time(self) -> crate::object::Time {
        let whole = self.0.div_euclid(1_000_000);
        jiff::Timestamp::from_second(whole).expect("a simulated or real wall clock is within jiff's range").into()
    }

    /// As Kubernetes' `metav1.MicroTime`.
    pub fn to_micro_time(self) -> crate::object::MicroTime {
        let t = jiff::Timestamp::from_microsecond(self.0).expect("a wall clock is within jiff's range");
        k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(t)
    }

    /// From `metav1.Time`.
    pub fn from_time(t: &crate::object::Time) -> Wall {
        Wall(t.0.as_microsecond())
    }

    /// From `metav1.MicroTime`.
    pub fn from_micro_time(t: &crate::object::MicroTime) -> Wall {
        Wall(t.0.as_microsecond())
    }

    /// Time from `earlier` to `self`, zero where `earlier` is later.
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

/// The time as a process sees it: monotone for durations, wall for what is written into objects.
///
/// They are apart so that a clock jump can be simulated: a jump moves `wall` and not `mono`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
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

/// When a machine wants to be woken, and why; the reason shows up in traces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    /// The moment.
    pub at: Mono,
    /// What will be done then, for a reader of a trace: `"renew lease"`.
    pub why: &'static str,
}

impl Deadline {
    /// The earlier of two optional deadlines; the first wins a tie.
    pub fn earlier(a: Option<Deadline>, b: Option<Deadline>) -> Option<Deadline> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

/// A pure ("sans-IO") state machine. See the module's documentation for the contract.
pub trait Machine {
    /// What it can be told; one small enum per machine.
    type In;
    /// What it can ask for; one small enum per machine.
    type Out;

    /// Takes one input.
    fn handle(&mut self, now: Now, input: Self::In, out: &mut Vec<Self::Out>);

    /// Does whatever is due at `now`. A spurious call is a no-op.
    fn handle_timeout(&mut self, now: Now, out: &mut Vec<Self::Out>);

    /// When `handle_timeout` is next wanted, and why.
    fn poll_timeout(&self) -> Option<Deadline>;
}
