//! Kubernetes' protobuf encoding, driven by the [schema table](crate::schema).
//!
//! What comes in: a body of media type [`MEDIA_TYPE`], or the JSON of a built-in kind. What goes out: the other
//! encoding. What never happens: a panic, or memory beyond a bounded multiple of the input; bad input is an [`Error`].
//!
//! The envelope is four bytes and a `runtime.Unknown`, which has `apiVersion`, `kind` and the object. Go encodes every
//! field that is not a pointer, even if its value is empty. So the decoder treats an empty value as an absent field, as
//! Go's JSON does. Source: apimachinery `pkg/runtime/serializer/protobuf`.

mod decode;
mod encode;
mod text;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

use crate::schema::{Type, builtin, builtin_kind};

/// The media type of a body with an envelope.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// The first bytes of an envelope.
pub const PREFIX: [u8; 4] = *b"k8s\0";

/// Why something cannot be decoded or encoded; Kubernetes' own message where it has one.
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

/// Whether the bytes start with an envelope.
pub fn has_prefix(bytes: &[u8]) -> bool {
    bytes.starts_with(&PREFIX)
}

/// Decodes a body to JSON. `default` is the `apiVersion` and `kind` of a body whose envelope has neither, which is
/// allowed for options.
pub fn decode(bytes: &[u8], default: Option<(&str, &str)>) -> Result<Value, Error> {
    let envelope = decode::Envelope::read(bytes)?;
    let (mut api_version, mut kind) = (envelope.api_version, envelope.kind);
    if let (Some((default_version, default_kind)), true, true) = (default, api_version.is_empty(), kind.is_empty()) {
        (api_version, kind) = (default_version.to_owned(), default_kind.to_owned());
    }
    let of = known(&api_version, &kind)?;
    let mut value = decode::message(envelope.raw, of)?;
    if let Value::Object(fields) = &mut value {
        // The `apiVersion` and `kind` of the outer object are in the envelope; those of nested objects are in their
        // messages.
        fields.insert("apiVersion".to_owned(), Value::String(api_version));
        fields.insert("kind".to_owned(), Value::String(kind));
    }
    Ok(value)
}

/// Encodes JSON, which must have `apiVersion` and `kind`, to a body.
pub fn encode(value: &Value) -> Result<Vec<u8>, Error> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("");
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let raw = encode::message(value, known(api_version, kind)?)?;
    Ok(encode::envelope(api_version, kind, &raw))
}

/// Opens an envelope: `apiVersion`, `kind` (either may be empty) and the message.
pub fn open_envelope(bytes: &[u8]) -> Result<(String, String, &[u8]), Error> {
    let envelope = decode::Envelope::read(bytes)?;
    Ok((envelope.api_version, envelope.kind, envelope.raw))
}

/// Decodes a message without an envelope to JSON.
pub fn decode_message(bytes: &[u8], of: Type<'_>) -> Result<Value, Error> {
    decode::message(bytes, of)
}

/// Encodes JSON to a message without an envelope.
pub fn encode_message(value: &Value, of: Type<'_>) -> Result<Vec<u8>, Error> {
    encode::message(value, of)
}

/// Encodes a watch event: its type, and `object`, which is a body with its own envelope. The event itself has no
/// envelope; in a stream its length precedes it, in four big-endian bytes.
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
