//! Reads the fields of bodies that are held as JSON, by path or as a k8s-openapi type.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::object::validation::meta;
use crate::object::validation::path::{Go, Path};
use crate::object::{Dynamic, FieldError, LabelSelector};

/// The errors found so far.
pub(super) type Errors = Vec<FieldError>;

/// Validates a field as its type. An absent field is an error.
pub(super) fn typed<T: for<'de> Deserialize<'de>>(
    d: &Dynamic,
    field: &str,
    errors: &mut Errors,
    check: impl FnOnce(&T, &mut Errors),
) {
    match d.body.get(field) {
        None | Some(Value::Null) => errors.push(FieldError::required(field, "")),
        Some(value) => match T::deserialize(value) {
            Ok(spec) => check(&spec, errors),
            Err(e) => errors.push(FieldError::invalid(field, Go(value.to_string()), e.to_string())),
        },
    }
}

/// As [`typed`] for the spec, which may be absent; an absent one is validated as an empty one.
pub(super) fn typed_or_none<T: for<'de> Deserialize<'de> + Default>(
    d: &Dynamic,
    errors: &mut Errors,
    check: impl FnOnce(&T, &mut Errors),
) {
    match d.body.get("spec") {
        None | Some(Value::Null) => check(&T::default(), errors),
        Some(_) => typed(d, "spec", errors, check),
    }
}

/// Decodes both specs as their type. One that cannot be decoded has already been reported by [`typed`].
pub(super) fn both<T: for<'de> Deserialize<'de>>(
    new: &Dynamic,
    old: &Dynamic,
    errors: &mut Errors,
    check: impl FnOnce(&T, &T, &mut Errors),
) {
    let read = |d: &Dynamic| d.body.get("spec").and_then(|s| T::deserialize(s).ok());
    if let (Some(n), Some(o)) = (read(new), read(old)) {
        check(&n, &o, errors);
    }
}

/// The value at a path of keys.
pub(super) fn at<'a>(body: &'a Map<String, Value>, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(body.get(*first)?, |v, key| v.get(*key))
}

/// The text at a path; empty if there is none.
pub(super) fn text<'a>(body: &'a Map<String, Value>, path: &[&str]) -> &'a str {
    at(body, path).and_then(Value::as_str).unwrap_or("")
}

/// The whole number at a path.
pub(super) fn number(body: &Map<String, Value>, path: &[&str]) -> Option<i64> {
    at(body, path).and_then(Value::as_i64)
}

/// The list at a path; empty if there is none.
pub(super) fn list<'a>(body: &'a Map<String, Value>, path: &[&str]) -> &'a [Value] {
    at(body, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Validates a label selector; one that is absent selects everything or nothing, and is well.
pub(super) fn selector(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    match Option::<LabelSelector>::deserialize(value) {
        Ok(selector) => selector.iter().for_each(|selector| meta::selector(selector, path, errors)),
        Err(e) => errors.push(FieldError::invalid(path, Go(value.to_string()), e.to_string())),
    }
}

/// Checks that there is text at a path.
pub(super) fn required(body: &Map<String, Value>, path: &[&str], errors: &mut Errors) {
    if text(body, path).is_empty() {
        errors.push(FieldError::required(path.join("."), ""));
    }
}

/// The entries of a map from text to text.
pub(super) fn entries<'a>(body: &'a Map<String, Value>, field: &str) -> impl Iterator<Item = (&'a String, &'a str)> {
    let map = body.get(field).and_then(Value::as_object);
    map.into_iter().flatten().map(|(k, v)| (k, v.as_str().unwrap_or("")))
}

/// The maximum size of a ConfigMap's or Secret's data in bytes.
pub(super) const DATA_LIMIT: usize = 1024 * 1024;

/// The number of bytes that a base64 text encodes.
pub(super) fn decoded_len(base64: &str) -> usize {
    base64.len() / 4 * 3 - base64.bytes().rev().take_while(|b| *b == b'=').count().min(2)
}

/// Checks that the data of a ConfigMap or Secret does not change once it is marked as immutable.
pub(super) fn immutable_data(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if old.body.get("immutable") == Some(&Value::Bool(true)) {
        if new.body.get("immutable") != Some(&Value::Bool(true)) {
            errors.push(FieldError::forbidden("immutable", DETAIL));
        }
        for field in ["data", "binaryData"] {
            if new.body.get(field) != old.body.get(field) {
                errors.push(FieldError::forbidden(field, DETAIL));
            }
        }
    }
}
