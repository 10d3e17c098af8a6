//! Whole Kubernetes types of the kinds that controllers read seldom: read when a key is reconciled, written as a
//! status.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::object::Object;

/// The object as the whole type; `None` if it does not read as such, which validation refuses.
pub(super) fn read<T: DeserializeOwned>(object: &Object) -> Option<T> {
    serde_json::from_value(object.to_json()).ok()
}

/// The object with this status, or `None` if it has it already.
pub(super) fn with_status(object: &Object, status: &impl Serialize) -> Option<Object> {
    let mut value = object.to_json();
    value["status"] = serde_json::to_value(status).expect("k8s-openapi types serialise");
    let copy = Object::from_json(value).expect("an object with a status of its own type reads");
    (!copy.same_status(object)).then_some(copy)
}
