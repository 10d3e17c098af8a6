//! Complete Kubernetes types of kinds that controllers read rarely: deserialized when a key is reconciled; their status
//! is serialized when it is written.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::object::Object;

/// The object as its complete type; `None` if it cannot be deserialized, which validation prevents.
pub(super) fn read<T: DeserializeOwned>(object: &Object) -> Option<T> {
    serde_json::from_value(object.to_json()).ok()
}

/// The object with this status; `None` if it already has it.
pub(super) fn with_status(object: &Object, status: &impl Serialize) -> Option<Object> {
    let mut value = object.to_json();
    value["status"] = serde_json::to_value(status).expect("k8s-openapi types serialise");
    let copy = Object::from_json(value).expect("an object with a status of its own type reads");
    (!copy.same_status(object)).then_some(copy)
}
