//! Pods as checkers read them: from what stands in the object, and by nothing that the core has made of it.

use std::rc::Rc;

use skeg_core::object::{Pod, Text};

/// Whether its condition says that it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    pod.status.conditions.iter().any(|c| c.type_ == Text::READY && c.status == Text::TRUE)
}

/// Its phase, `Pending` where unset.
pub fn phase(pod: &Pod) -> &str {
    pod.status.phase.get().unwrap_or("Pending")
}

/// Whether it has run to its end.
pub fn is_terminal(pod: &Pod) -> bool {
    pod.status.phase == Text::SUCCEEDED || pod.status.phase == Text::FAILED
}

/// Whether it counts for a controller: neither at its end nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.meta.deletion_timestamp.is_none()
}

/// The node on which it takes room.
pub fn place(pod: &Pod) -> Option<&Rc<str>> {
    pod.spec.node.as_ref().filter(|_| !is_terminal(pod))
}
