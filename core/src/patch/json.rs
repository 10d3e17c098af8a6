//! RFC 6902 JSON patch, with the API server's limits and the error messages of its library.

use json_patch::{PatchErrorKind, PatchOperation, patch_unsafe};
use serde_json::Value;

use crate::api::{Cause, Details, Reason, Status};
use crate::limits::{JSON_PATCH_COPIES, JSON_PATCH_OPERATIONS};

/// Why a patch does not apply.
pub(super) enum Failure {
    /// An operation `test` found another value.
    Test(Status),
    /// Anything else.
    Other(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Other(status)
    }
}

impl Failure {
    pub(super) fn into_status(self) -> Status {
        let (Failure::Test(status) | Failure::Other(status)) = self;
        status
    }
}

/// Applies the operations in order. On an error the partly changed document is dropped.
pub(super) fn apply(mut doc: Value, patch: &Value) -> Result<Value, Failure> {
    let Value::Array(steps) = patch else {
        let message = "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch";
        return Err(Status::bad_request(message).into());
    };
    if steps.len() > JSON_PATCH_OPERATIONS {
        let message =
            format!("The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS}, got {}", steps.len());
        return Err(Status { reason: Reason::RequestEntityTooLarge, message: message.into(), details: None }.into());
    }
    let mut copied = 0;
    for step in steps {
        let operation: PatchOperation = serde_json::from_value(step.clone()).map_err(|e| unreadable(step, &e))?;
        if let PatchOperation::Copy(copy) = &operation {
            copied += doc.pointer(copy.from.as_str()).map_or(0, weight);
            if copied > JSON_PATCH_COPIES {
                return Err(rejected(format!(
                    "Unable to copy, the accumulated size increase of copy is {copied}, exceeding the limit {JSON_PATCH_COPIES}"
                ))
                .into());
            }
        }
        if let PatchOperation::Test(test) = &operation
            && test.value.is_null()
            && lacks_field(&doc, &operation)
        {
            continue;
        }
        patch_unsafe(&mut doc, std::slice::from_ref(&operation)).map_err(|e| failed(&doc, &operation, &e.kind))?;
    }
    Ok(doc)
}

fn unreadable(step: &Value, error: &serde_json::Error) -> Status {
    match step.get("op").and_then(Value::as_str) {
        Some("add" | "remove" | "replace" | "move" | "copy" | "test") => {
            Status::bad_request(format!("error decoding patch: {error}"))
        }
        op => rejected(format!("Unexpected kind: {}", op.unwrap_or("unknown"))),
    }
}

/// Approximate size of a value as JSON.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(s) => s.len() + 2,
        Value::Array(items) => 2 + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => 2 + fields.iter().map(|(k, v)| k.len() + 4 + weight(v)).sum::<usize>(),
    }
}

/// Whether an operation is about a field that is not there, of an object that is. For a test its value is null.
fn lacks_field(doc: &Value, operation: &PatchOperation) -> bool {
    let path = operation.path().as_str();
    let holder = path.rsplit_once('/').and_then(|(at, _)| doc.pointer(at));
    holder.is_some_and(Value::is_object) && doc.pointer(path).is_none()
}

fn failed(doc: &Value, operation: &PatchOperation, kind: &PatchErrorKind) -> Failure {
    let path = operation.path().to_string();
    let op = match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    };
    let tests = matches!(operation, PatchOperation::Test(_));
    if matches!(kind, PatchErrorKind::TestFailed) || tests && lacks_field(doc, operation) {
        return Failure::Test(rejected(format!("testing value {path} failed: test failed")));
    }
    Failure::Other(rejected(match (kind, operation) {
        (_, PatchOperation::Remove(_)) => {
            let key = path.rsplit('/').next().unwrap_or("");
            format!("error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value")
        }
        (_, PatchOperation::Replace(_)) => {
            format!("replace operation does not apply: doc is missing key: {path}: missing value")
        }
        (PatchErrorKind::CannotMoveInsideItself, _) => format!("{op} operation does not apply: {kind}"),
        _ => format!("{op} operation does not apply: doc is missing path: {path:?}: missing value"),
    }))
}

/// 422 without an object, with the message of `NewGenericServerResponse`.
pub(super) fn rejected(why: String) -> Status {
    let cause = Cause { reason: "UnexpectedServerResponse".to_owned(), message: why, field: String::new() };
    Status {
        reason: Reason::Invalid,
        message: "the server rejected our request due to an error in our request".into(),
        details: Some(Box::new(Details { causes: vec![cause], ..Details::default() })),
    }
}
