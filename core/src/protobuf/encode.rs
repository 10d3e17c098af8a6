//! Encodes JSON to protobuf. As in Go, fields are in order of their numbers, and entries of maps in order of their
//! keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::text::{parse_duration, parse_time};
use super::wire::{put_bytes, put_double, put_number};
use super::{Error, PREFIX, error, json_schema};
use crate::limits::PROTOBUF_DEPTH;
use crate::schema::{Message, Scalar, Shape, Type, WireAt, WireField};

/// The envelope: the prefix and a `runtime.Unknown`.
pub(super) fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut named = Vec::with_capacity(api_version.len() + kind.len() + 4);
    put_bytes(&mut named, 1, api_version.as_bytes());
    put_bytes(&mut named, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + named.len() + 16);
    out.extend(PREFIX);
    put_bytes(&mut out, 1, &named);
    put_bytes(&mut out, 2, raw);
    put_bytes(&mut out, 3, &[]);
    put_bytes(&mut out, 4, &[]);
    out
}

pub(super) fn watch_event(event: &str, object: &[u8]) -> Vec<u8> {
    let (mut raw, mut out) = (Vec::with_capacity(object.len() + 8), Vec::with_capacity(object.len() + 32));
    put_bytes(&mut raw, 1, object);
    put_bytes(&mut out, 1, event.as_bytes());
    put_bytes(&mut out, 2, &raw);
    out
}

pub(super) fn message(value: &Value, of: Type<'_>) -> Result<Vec<u8>, Error> {
    Encoder { depth: 0 }.message(value, of)
}

fn unfit<T>(value: &Value, name: &str) -> Result<T, Error> {
    let mut shown = value.to_string();
    if let Some((end, _)) = shown.char_indices().nth(64) {
        shown.truncate(end);
    }
    error(format!("{name}: {shown} does not fit the type of the field"))
}

struct Encoder {
    depth: usize,
}

impl Encoder {
    fn message(&mut self, value: &Value, of: Type<'_>) -> Result<Vec<u8>, Error> {
        let Some(message) = of.message() else { return error("the type is no message") };
        self.depth += 1;
        if self.depth > PROTOBUF_DEPTH {
            return error(format!("{}: nested more than {PROTOBUF_DEPTH} levels deep", message.name));
        }
        let mut out = Vec::new();
        match (value, message.fields.first()) {
            (Value::Object(fields), _) => self.wire(fields, of, message, &message.wire, &mut out)?,
            (Value::Array(_), Some(items)) if message.is_list => {
                self.field(value, 1, &items.name, of.type_of(items), &mut out)?;
            }
            (Value::Null, _) => {}
            _ => return unfit(value, &message.name),
        }
        self.depth -= 1;
        Ok(out)
    }

    fn wire(
        &mut self,
        fields: &Map<String, Value>,
        of: Type<'_>,
        message: &Message,
        wire: &[WireField],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        for slot in wire {
            match &slot.at {
                WireAt::Field(index) => {
                    let field = &message.fields[*index];
                    if let Some(value) = fields.get(&*field.name).filter(|v| !v.is_null()) {
                        self.field(value, slot.number, &field.name, of.type_of(field), out)?;
                    }
                }
                WireAt::Inline(inner) => {
                    let mut within = Vec::new();
                    self.wire(fields, of, message, inner, &mut within)?;
                    put_bytes(out, slot.number, &within);
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, value: &Value, number: u32, name: &str, of: Type<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        match (of.shape(), value) {
            (Shape::List(items, _), Value::Array(list)) => {
                list.iter().try_for_each(|item| self.value(item, number, name, items, out))
            }
            (Shape::Map(values), Value::Object(map)) => {
                let mut sorted: Vec<_> = map.iter().collect();
                sorted.sort_by_key(|(key, _)| *key);
                for (key, value) in sorted {
                    let mut entry = Vec::new();
                    put_bytes(&mut entry, 1, key.as_bytes());
                    self.value(value, 2, name, values, &mut entry)?;
                    put_bytes(out, number, &entry);
                }
                Ok(())
            }
            (Shape::List(..) | Shape::Map(_), _) => unfit(value, name),
            (Shape::Scalar(_) | Shape::Message(_), _) => self.value(value, number, name, of, out),
        }
    }

    fn value(&mut self, value: &Value, number: u32, name: &str, of: Type<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let scalar = match of.shape() {
            Shape::Scalar(scalar) => scalar,
            Shape::Message(_) => {
                let bytes = self.message(value, of)?;
                put_bytes(out, number, &bytes);
                return Ok(());
            }
            Shape::List(..) | Shape::Map(_) => return error(format!("{name}: nested too deep")),
        };
        match (scalar, value) {
            (Scalar::Bool, Value::Bool(b)) => put_number(out, number, i64::from(*b)),
            (Scalar::Int32, Value::Number(n)) => match n.as_i64().filter(|n| i32::try_from(*n).is_ok()) {
                Some(n) => put_number(out, number, n),
                None => return unfit(value, name),
            },
            (Scalar::Int64, Value::Number(n)) => match n.as_i64() {
                Some(n) => put_number(out, number, n),
                None => return unfit(value, name),
            },
            (Scalar::Double, Value::Number(n)) => put_double(out, number, n.as_f64().unwrap_or(0.0)),
            (Scalar::String, Value::String(s)) => put_bytes(out, number, s.as_bytes()),
            (Scalar::Bytes, Value::String(s)) => match BASE64.decode(s) {
                Ok(bytes) => put_bytes(out, number, &bytes),
                Err(e) => return error(format!("{name}: {e}")),
            },
            // A type that is a message in protobuf, or a value that does not fit.
            (_, _) => {
                let inner = self.wrapped(value, name, scalar)?;
                put_bytes(out, number, &inner);
            }
        }
        Ok(())
    }

    /// Encodes a value that is a scalar in JSON and a message in protobuf.
    fn wrapped(&mut self, value: &Value, name: &str, scalar: Scalar) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        match (scalar, value) {
            (Scalar::Time | Scalar::MicroTime, Value::Null) => {}
            (Scalar::Time | Scalar::MicroTime, Value::String(text)) => {
                let Some((seconds, nanos)) = parse_time(text) else { return unfit(value, name) };
                let nanos = if scalar == Scalar::Time { 0 } else { i64::from(nanos) / 1000 * 1000 };
                put_number(&mut out, 1, seconds);
                put_number(&mut out, 2, nanos);
            }
            (Scalar::Duration, Value::String(text)) => match parse_duration(text) {
                Some(nanos) => put_number(&mut out, 1, nanos),
                None => return unfit(value, name),
            },
            (Scalar::Quantity, Value::String(text)) => put_bytes(&mut out, 1, text.as_bytes()),
            (Scalar::Quantity, Value::Number(n)) => put_bytes(&mut out, 1, n.to_string().as_bytes()),
            (Scalar::IntOrString, Value::Number(n)) => {
                let Some(n) = n.as_i64().filter(|n| i32::try_from(*n).is_ok()) else { return unfit(value, name) };
                put_number(&mut out, 1, 0);
                put_number(&mut out, 2, n);
                put_bytes(&mut out, 3, &[]);
            }
            (Scalar::IntOrString, Value::String(text)) => {
                put_number(&mut out, 1, 1);
                put_number(&mut out, 2, 0);
                put_bytes(&mut out, 3, text.as_bytes());
            }
            (Scalar::Any, value) => put_bytes(&mut out, 1, value.to_string().as_bytes()),
            (Scalar::SchemaOrBool, Value::Bool(b)) => put_number(&mut out, 1, i64::from(*b)),
            (Scalar::SchemaOrBool, Value::Object(_)) => {
                put_number(&mut out, 1, 1);
                put_bytes(&mut out, 2, &self.message(value, json_schema())?);
            }
            (Scalar::SchemaOrArray | Scalar::SchemaOrStrings, Value::Object(_)) => {
                put_bytes(&mut out, 1, &self.message(value, json_schema())?);
            }
            (Scalar::SchemaOrArray, Value::Array(list)) => {
                for schema in list {
                    put_bytes(&mut out, 2, &self.message(schema, json_schema())?);
                }
            }
            (Scalar::SchemaOrStrings, Value::Array(list)) => {
                for text in list {
                    let Value::String(text) = text else { return unfit(value, name) };
                    put_bytes(&mut out, 2, text.as_bytes());
                }
            }
            (
                Scalar::String
                | Scalar::Bool
                | Scalar::Int32
                | Scalar::Int64
                | Scalar::Double
                | Scalar::Bytes
                | Scalar::Time
                | Scalar::MicroTime
                | Scalar::Duration
                | Scalar::Quantity
                | Scalar::IntOrString
                | Scalar::SchemaOrBool
                | Scalar::SchemaOrArray
                | Scalar::SchemaOrStrings,
                _,
            ) => return unfit(value, name),
        }
        Ok(out)
    }
}
