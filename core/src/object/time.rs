//! Wall-clock time as objects write it.

use k8s_openapi::jiff::Timestamp;

use super::{MicroTime, Time};
use crate::machine::Wall;

impl Wall {
    /// As Kubernetes' `metav1.Time` (whole seconds on the wire).
    pub fn to_time(self) -> Time {
        let whole = self.0.div_euclid(1_000_000);
        Time(Timestamp::from_second(whole).expect("a simulated or real wall clock is within jiff's range"))
    }

    /// As Kubernetes' `metav1.MicroTime`.
    pub fn to_micro_time(self) -> MicroTime {
        MicroTime(Timestamp::from_microsecond(self.0).expect("a wall clock is within jiff's range"))
    }

    /// From `metav1.Time`.
    pub fn from_time(t: &Time) -> Wall {
        Wall(t.0.as_microsecond())
    }

    /// From `metav1.MicroTime`.
    pub fn from_micro_time(t: &MicroTime) -> Wall {
        Wall(t.0.as_microsecond())
    }
}
