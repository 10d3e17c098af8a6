//! The Events that controllers record when they create or delete pods.
//!
//! Source: upstream's `RealPodControl` (`pkg/controller/controller_utils.go`).

use super::Write;
use crate::api::Status;
use crate::object::{Kind, Object};

/// What a write does to a pod.
enum Act<'a> {
    Create,
    Delete(&'a str),
}

/// `None` for writes that neither create nor delete a pod.
fn act(write: &Write) -> Option<Act<'_>> {
    match write {
        Write::Create(object) => (object.kind() == Kind::POD).then_some(Act::Create),
        Write::Delete { key, .. } => (key.kind == Kind::POD).then(|| Act::Delete(key.name())),
        Write::Update(..)
        | Write::Patch { .. }
        | Write::SetScale { .. }
        | Write::DeleteCollection { .. }
        | Write::ExpectEmpty { .. }
        | Write::ExpectUnused { .. }
        | Write::ExpectMissing { .. } => None,
    }
}

/// Reason and message of the Event for a write that succeeded; `object` is the object in the server's reply. `None` if
/// the write neither creates nor deletes a pod.
pub(super) fn succeeded(write: &Write, object: Option<&Object>) -> Option<(&'static str, String)> {
    Some(match act(write)? {
        Act::Create => ("SuccessfulCreate", format!("Created pod: {}", object?.name())),
        Act::Delete(name) => ("SuccessfulDelete", format!("Deleted pod: {name}")),
    })
}

/// Reason and message of the Event for a write that failed. `None` if the write neither creates nor deletes a pod.
pub(super) fn failed(write: &Write, error: &Status) -> Option<(&'static str, String)> {
    Some(match act(write)? {
        Act::Create => ("FailedCreate", format!("Error creating: {error}")),
        Act::Delete(_) => ("FailedDelete", format!("Error deleting: {error}")),
    })
}
