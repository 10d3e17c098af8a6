//! One object's JSON to an object, as strictly as `kubectl apply --validate=strict` against an API server.

use serde_json::Value;
use skeg_core::Object;
use skeg_core::object::{decode, defaults, validation};

/// What is wrong with a field: its path and why.
pub type Wrong = (String, String);

/// Reads an object, and defaults and validates a copy of it. The object that comes back is as it was written: the API
/// server does the same to it once more.
pub fn object(value: Value) -> Result<Object, Vec<Wrong>> {
    let object = decode::strict(value).map_err(|errors| errors.into_iter().map(unreadable).collect::<Vec<_>>())?;
    if object.meta().name.as_deref().is_none_or(str::is_empty) {
        let why = "Required value: name is required; a run refers to objects by name, so generateName will not do";
        return Err(vec![("metadata.name".to_owned(), why.to_owned())]);
    }
    let mut defaulted = object.clone();
    defaults::apply(&mut defaulted);
    let invalid = validation::create(&defaulted);
    if invalid.is_empty() {
        Ok(object)
    } else {
        Err(invalid.into_iter().map(|e| (e.field.clone(), e.body())).collect())
    }
}

fn unreadable(error: decode::DecodeError) -> Wrong {
    let advice = if error.unknown_field { "; remove it or correct its name" } else { "" };
    (error.path, error.message + advice)
}
