//! Helpers with which checkers read objects: they use only what the object says, never values that core has derived.

use std::rc::Rc;

use k8s_openapi::api::batch::v1::JobCondition;
use skeg_core::object::{Job, Pod, Text};

/// By how much a clock may drift, of one second a second.
pub const DRIFT: f64 = 0.1;
/// The scheduler, as a user.
pub const SCHEDULER: &str = "system:kube-scheduler";

/// A time in seconds as whole microseconds, which can be ordered.
pub fn micros(at: f64) -> u64 {
    (at * 1e6) as u64
}

/// Whether a Job has completed or failed.
pub fn is_finished(job: &Job) -> bool {
    let ends = |c: &JobCondition| matches!(&*c.type_, "Complete" | "Failed") && c.status == "True";
    job.status.conditions.iter().flatten().any(ends)
}

/// Whether its `Ready` condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    pod.status.conditions.iter().any(|c| c.type_ == Text::READY && c.status == Text::TRUE)
}

/// Its phase; `Pending` if unset.
pub fn phase(pod: &Pod) -> &str {
    pod.status.phase.get().unwrap_or("Pending")
}

/// Whether it has terminated (`Succeeded` or `Failed`).
pub fn is_terminal(pod: &Pod) -> bool {
    pod.status.phase == Text::SUCCEEDED || pod.status.phase == Text::FAILED
}

/// Whether controllers count it: it has neither terminated nor is it being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.meta.deletion_timestamp.is_none()
}

/// Whether a container of it takes a port of its node.
pub fn has_host_port(pod: &Pod) -> bool {
    pod.spec.containers.iter().flat_map(|c| c.ports.iter().flatten()).any(|port| port.host_port.is_some())
}

/// The node whose resources it occupies; `None` if it occupies none.
pub fn place(pod: &Pod) -> Option<&Rc<str>> {
    pod.spec.node.as_ref().filter(|_| !is_terminal(pod))
}
