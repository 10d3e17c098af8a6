//! Patches: RFC 7386 merge patch, RFC 6902 JSON patch and Kubernetes' strategic merge patch.
//!
//! Everything works on the JSON that clients see; what comes out is to be decoded, defaulted and validated like any
//! update.

mod json;
mod strategic;
mod table;

use serde_json::Value;

use crate::api::{Patch, Reason, Status};
use crate::object::{Kind, Object};

/// Applies a patch to an object as clients see it.
pub fn apply(object: &Object, patch: &Patch) -> Result<Value, Status> {
    apply_value(object.kind(), object.to_json(), patch)
}

/// Applies a patch to the JSON of an object of this kind.
pub fn apply_value(kind: Kind, mut value: Value, patch: &Patch) -> Result<Value, Status> {
    match patch {
        Patch::Merge(patch) => {
            if !patch.is_object() {
                return Err(Status::bad_request("Invalid JSON Patch"));
            }
            json_patch::merge(&mut value, patch);
            Ok(value)
        }
        Patch::Json(patch) => json::apply(value, patch),
        Patch::Strategic(patch) => strategic(kind, value, patch),
        Patch::Apply { .. } => Err(Status {
            reason: Reason::UnsupportedMediaType,
            message: "the body of the request was in an unknown format - accepted media types include: \
                      application/json-patch+json, application/merge-patch+json, \
                      application/strategic-merge-patch+json"
                .into(),
            details: None,
        }),
    }
}

fn strategic(kind: Kind, value: Value, patch: &Value) -> Result<Value, Status> {
    let (Value::Object(original), Value::Object(patch)) = (value, patch) else {
        let message = "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}";
        return Err(Status::bad_request(message));
    };
    let Some(row) = kind.built_in() else {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        return Err(Status { reason: Reason::UnsupportedMediaType, message: message.into(), details: None });
    };
    let of = table::Type::of_kind(&row.kind);
    strategic::merge(original, patch.clone(), of).map(Value::Object).map_err(|why| {
        // The library's "bad patch" errors are the client's; all are.
        Status::bad_request(why)
    })
}

#[cfg(test)]
mod tests;
