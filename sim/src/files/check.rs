//! Turns the JSON of one object into an object, as strictly as `kubectl apply --validate=strict` with an API server.

use serde_json::Value;
use skeg_core::Object;
use skeg_core::object::{decode, defaults, validation};

/// A problem with a field: its path and the message.
pub type Wrong = (String, String);

/// Reads an object, and checks it by defaulting and validating a copy. The returned object has no defaults, because the
/// API server sets them when the object is applied.
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
