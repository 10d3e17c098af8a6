//! Kubernetes' protobuf, to JSON and back, driven by the [schema table](crate::schema).
//!
//! What comes in: a body of media type [`MEDIA_TYPE`], or the JSON of a built-in kind. What goes out: the other. What
//! never happens: a panic, or more memory than a bounded multiple of the input; bad input is an [`Error`].
//!
//! The envelope is four bytes and a `runtime.Unknown`, which carries `apiVersion`, `kind` and the object. Go writes
//! every field that is no pointer, empty or not, so an empty one is an absence here as it is in Go's JSON.
//! Source: apimachinery `pkg/runtime/serializer/protobuf`.

mod decode;
mod encode;
mod text;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

use crate::schema::{Type, builtin, builtin_kind};

/// The media type of bodies with an envelope.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every body begins with.
pub const PREFIX: [u8; 4] = *b"k8s\0";

/// Why something cannot be read or written, worded as Kubernetes does where it has words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

fn error<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error(why.into()))
}

/// Whether these bytes have the envelope.
pub fn has_prefix(bytes: &[u8]) -> bool {
    bytes.starts_with(&PREFIX)
}

/// The JSON of a body. Where its envelope names no kind, as those of options may, it is read as `default`, an
/// `apiVersion` and a `kind`.
pub fn decode(bytes: &[u8], default: Option<(&str, &str)>) -> Result<Value, Error> {
    let envelope = decode::Envelope::read(bytes)?;
    let (mut api_version, mut kind) = (envelope.api_version, envelope.kind);
    if let (Some((default_version, default_kind)), true, true) = (default, api_version.is_empty(), kind.is_empty()) {
        (api_version, kind) = (default_version.to_owned(), default_kind.to_owned());
    }
    let of = known(&api_version, &kind)?;
    let mut value = decode::message(envelope.raw, of)?;
    if let Value::Object(fields) = &mut value {
        // Only the object's own; those within it stand in their messages.
        fields.insert("apiVersion".to_owned(), Value::String(api_version));
        fields.insert("kind".to_owned(), Value::String(kind));
    }
    Ok(value)
}

/// A body from JSON with `apiVersion` and `kind`.
pub fn encode(value: &Value) -> Result<Vec<u8>, Error> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("");
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let raw = encode::message(value, known(api_version, kind)?)?;
    Ok(encode::envelope(api_version, kind, &raw))
}

/// What is in an envelope: `apiVersion`, `kind` (either may be empty) and the bare message.
pub fn open_envelope(bytes: &[u8]) -> Result<(String, String, &[u8]), Error> {
    let envelope = decode::Envelope::read(bytes)?;
    Ok((envelope.api_version, envelope.kind, envelope.raw))
}

/// The JSON of a bare message of a type, without an envelope.
pub fn decode_message(bytes: &[u8], of: Type<'_>) -> Result<Value, Error> {
    decode::message(bytes, of)
}

/// A bare message of a type from JSON, without an envelope.
pub fn encode_message(value: &Value, of: Type<'_>) -> Result<Vec<u8>, Error> {
    encode::message(value, of)
}

/// An event of a watch: its type, and its object as a body of its own. Frames of a stream carry it without an envelope,
/// after its length in four bytes, highest first.
pub fn watch_event(event: &str, object: &[u8]) -> Vec<u8> {
    encode::watch_event(event, object)
}

fn known(api_version: &str, kind: &str) -> Result<Type<'static>, Error> {
    builtin_kind(api_version, kind)
        .ok_or_else(|| Error(format!("no kind {kind:?} is registered for version {api_version:?}")))
}

fn json_schema() -> Type<'static> {
    builtin().message("apiextensions.v1", "JSONSchemaProps").expect("the table has JSON schemas")
}
