//! Patches: RFC 7386 merge patch, RFC 6902 JSON patch and Kubernetes' strategic merge patch.
//!
//! All patches apply to the JSON that clients see. Like an update, the result must still be decoded, defaulted and
//! validated by the caller.

mod json;
mod strategic;
mod three_way;

use serde_json::Value;

use crate::api::{Patch, Reason, Status};
use crate::object::{Kind, Object};
use crate::schema::{Type, builtin_kind};

/// Applies a patch to the JSON of an object.
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
        Patch::Json(patch) => json::apply(value, patch).map_err(json::Failure::into_status),
        Patch::Strategic(patch) => strategic(kind, value, patch),
        Patch::Apply { .. } => {
            Err(unknown_format(&["json-patch+json", "merge-patch+json", "strategic-merge-patch+json"]))
        }
    }
}

/// Applies a JSON patch to a value; one with an operation `test` that finds another value changes nothing.
pub fn apply_if_tests_hold(value: &Value, patch: &Value) -> Result<Value, Status> {
    match json::apply(value.clone(), patch) {
        Err(json::Failure::Test(_)) => Ok(value.clone()),
        made => made.map_err(json::Failure::into_status),
    }
}

/// The strategic merge patch that `kubectl apply` sends: `original` is the last applied file, `modified` the new file,
/// `current` the live object. `None` if nothing has to change.
///
/// # Errors
/// kubectl's error message, if an item of a list lacks its merge key.
pub fn three_way(
    kind: Kind,
    original: Option<&Value>,
    modified: &Value,
    current: &Value,
) -> Result<Option<Value>, String> {
    let none = serde_json::Map::new();
    let original = original.and_then(Value::as_object).unwrap_or(&none);
    let [modified, current] = [modified, current].map(|v| v.as_object().unwrap_or(&none));
    let patch = three_way::patch(original, modified, current, go_type(kind).unwrap_or(Type::any()))?;
    Ok((!patch.is_empty()).then_some(Value::Object(patch)))
}

/// The Go type of a kind, which declares how its fields merge. `None` for custom resources.
fn go_type(kind: Kind) -> Option<Type<'static>> {
    let row = kind.built_in()?;
    builtin_kind(&row.api_version(), &row.kind)
}

/// 415, with the media types of patches that the resource accepts.
fn unknown_format(accepted: &[&str]) -> Status {
    let types: Vec<String> = accepted.iter().map(|t| format!("application/{t}")).collect();
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        types.join(", ")
    );
    Status { reason: Reason::UnsupportedMediaType, message: message.into(), details: None }
}

fn strategic(kind: Kind, value: Value, patch: &Value) -> Result<Value, Status> {
    let (Value::Object(original), Value::Object(patch)) = (value, patch) else {
        let message = "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}";
        return Err(Status::bad_request(message));
    };
    let Some(of) = go_type(kind) else {
        return Err(unknown_format(&["json-patch+json", "merge-patch+json", "apply-patch+yaml"]));
    };
    strategic::merge(original, patch.clone(), of).map(Value::Object).map_err(|why| {
        // All errors of the strategic merge library are errors of the client.
        Status::bad_request(why)
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod three_way_tests;
