//! One object's JSON to an object, as strictly as `kubectl apply --validate=strict` against an API server.

use serde_json::Value;
use skeg_core::Object;

/// What is wrong with a field: its path and why.
pub type Wrong = (String, String);

/// Reads, defaults (a copy) and validates. The object that comes back is as it was written.
pub fn object(value: Value) -> Result<Object, Vec<Wrong>> {
    Object::from_json(value).map_err(|e| vec![e.split_once(": ").map_or((String::new(), e.clone()), |(f, m)| (f.to_owned(), m.to_owned()))])
}
