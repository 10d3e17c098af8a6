//! Helpers with which checkers read pods: they use only what the object says, never values that core has derived.

use std::rc::Rc;

use skeg_core::object::{Pod, Text};

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

/// The node whose resources it occupies; `None` if it occupies none.
pub fn place(pod: &Pod) -> Option<&Rc<str>> {
    pod.spec.node.as_ref().filter(|_| !is_terminal(pod))
}
