//! Patches.

use serde_json::Value;

use crate::api::{Patch, Status};
use crate::object::Object;

/// Applies a patch to an object as clients see it.
pub fn apply(object: &Object, patch: &Patch) -> Result<Value, Status> {
    let mut value = object.to_json();
    match patch {
        Patch::Merge(patch) => json_patch::merge(&mut value, patch),
        Patch::Json(patch) => {
            let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
            json_patch::patch(&mut value, &patch).map_err(|e| Status::bad_request(e.to_string()))?;
        }
        Patch::Strategic(patch) => json_patch::merge(&mut value, patch),
        Patch::Apply { .. } => return Err(Status::bad_request("server-side apply is not supported")),
    }
    Ok(value)
}
