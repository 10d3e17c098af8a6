//! When a ready pod counts as available.

use std::time::Duration;

use crate::machine::Now;
use crate::object::Pod;

/// How long until a ready pod has been ready for `min_ready_seconds`; `None` if it already has been.
pub(super) fn until_available(pod: &Pod, min_ready_seconds: Option<i32>, now: Now) -> Option<Duration> {
    let min = Duration::from_secs(u64::try_from(min_ready_seconds.unwrap_or(0)).unwrap_or(0));
    if min.is_zero() {
        return None;
    }
    let ready_for = pod.status.summary().since().map_or(Duration::ZERO, |since| now.wall.since(since));
    // Timestamps in objects are whole seconds, so one second is added to make sure that the time has passed.
    (ready_for < min).then(|| min - ready_for + Duration::from_secs(1))
}
