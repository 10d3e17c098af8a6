//! Decodes protobuf to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value};

use super::text::{show_duration, show_time};
use super::wire::{Raw, Reader};
use super::{Error, PREFIX, error, json_schema};
use crate::limits::{PROTOBUF_DEPTH, PROTOBUF_VALUES};
use crate::schema::{Field, Message, Scalar, Shape, Type, WireAt, WireField};

type Fields = Map<String, Value>;

/// The envelope: `runtime.Unknown`.
pub(super) struct Envelope<'a> {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Envelope<'a>, Error> {
        let Some(body) = bytes.strip_prefix(&PREFIX) else {
            return error(format!(
                "provided data does not appear to be a protobuf message, expected prefix [{}]",
                PREFIX.map(|b| b.to_string()).join(" ")
            ));
        };
        let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
        let mut reader = Reader::new(body);
        while let Some((number, raw)) = reader.next()? {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => envelope.read_type(bytes)?,
                (2, Raw::Bytes(bytes)) => envelope.raw = bytes,
                (3, Raw::Bytes(encoding)) if !encoding.is_empty() => {
                    let encoding = String::from_utf8_lossy(encoding);
                    return error(format!("unsupported content encoding {encoding:?}"));
                }
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn read_type(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.next()? {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => self.api_version = text(bytes)?,
                (2, Raw::Bytes(bytes)) => self.kind = text(bytes)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Decodes a message.
pub(super) fn message(bytes: &[u8], of: Type<'_>) -> Result<Value, Error> {
    let mut fields = Fields::new();
    Decoder { depth: 0, values: 0 }.fields(bytes, of, &mut fields)?;
    Ok(Value::Object(fields))
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error("proto: a string is not valid UTF-8".to_owned()))?;
    Ok(text.to_owned())
}

fn mismatch<T>(what: &str) -> Result<T, Error> {
    error(format!("proto: wrong wireType for field {what}"))
}

/// Counts nesting levels and decoded values: a few bytes of input may decode to many values, so both are limited.
struct Decoder {
    depth: usize,
    values: usize,
}

impl Decoder {
    fn fields(&mut self, bytes: &[u8], of: Type<'_>, into: &mut Fields) -> Result<(), Error> {
        let Some(message) = of.message() else { return error("proto: the type is no message") };
        self.depth += 1;
        if self.depth > PROTOBUF_DEPTH {
            return error("proto: exceeded max depth");
        }
        self.wire(bytes, of, message, &message.wire, into)?;
        self.depth -= 1;
        Ok(())
    }

    fn wire(
        &mut self,
        bytes: &[u8],
        of: Type<'_>,
        message: &Message,
        wire: &[WireField],
        into: &mut Fields,
    ) -> Result<(), Error> {
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.next()? {
            // Unknown fields are skipped; they may come from a newer version.
            let Ok(found) = wire.binary_search_by_key(&number, |w| w.number) else { continue };
            match &wire[found].at {
                WireAt::Field(index) => {
                    let field = &message.fields[*index];
                    self.field(raw, field, of.type_of(field), into)?;
                }
                WireAt::Inline(inner) => match raw {
                    Raw::Bytes(bytes) => self.wire(bytes, of, message, inner, into)?,
                    Raw::Varint(_) | Raw::Fixed64(_) | Raw::Fixed32 => return mismatch(&message.name),
                },
            }
        }
        Ok(())
    }

    fn field(&mut self, raw: Raw<'_>, field: &Field, of: Type<'_>, into: &mut Fields) -> Result<(), Error> {
        self.values += 1;
        if self.values > PROTOBUF_VALUES {
            return error(format!("proto: more than {PROTOBUF_VALUES} values"));
        }
        match of.shape() {
            Shape::List(items, _) => {
                let list = into.entry(&*field.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { return mismatch(&field.name) };
                self.item(raw, &field.name, items, list)
            }
            Shape::Map(values) => {
                let Raw::Bytes(bytes) = raw else { return mismatch(&field.name) };
                let map = into.entry(&*field.name).or_insert_with(|| Value::Object(Fields::new()));
                let Value::Object(map) = map else { return mismatch(&field.name) };
                let (key, value) = self.entry(bytes, &field.name, values)?;
                map.insert(key, value);
                Ok(())
            }
            Shape::Message(message) if !message.is_list => {
                let Raw::Bytes(bytes) = raw else { return mismatch(&field.name) };
                // If a message field occurs more than once, the occurrences are merged.
                let entry = into.entry(&*field.name).or_insert_with(|| Value::Object(Fields::new()));
                let Value::Object(inner) = entry else { return mismatch(&field.name) };
                self.fields(bytes, of, inner)
            }
            shape @ (Shape::Message(_) | Shape::Scalar(_)) => {
                let value = self.value(raw, &field.name, of)?;
                if !is_absent(&value, shape, field) {
                    into.insert(field.name.to_string(), value);
                } else {
                    into.remove(&*field.name);
                }
                Ok(())
            }
        }
    }

    fn item(&mut self, raw: Raw<'_>, name: &str, of: Type<'_>, list: &mut Vec<Value>) -> Result<(), Error> {
        let packs = matches!(of.shape(), Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Bool));
        match raw {
            Raw::Bytes(bytes) if packs => {
                let mut reader = Reader::new(bytes);
                while !reader.is_empty() {
                    self.values += 1;
                    let varint = Raw::Varint(reader.varint()?);
                    list.push(self.value(varint, name, of)?);
                }
                Ok(())
            }
            raw => {
                list.push(self.value(raw, name, of)?);
                Ok(())
            }
        }
    }

    fn entry(&mut self, bytes: &[u8], name: &str, of: Type<'_>) -> Result<(String, Value), Error> {
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader::new(bytes);
        while let Some((number, raw)) = reader.next()? {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => key = text(bytes)?,
                (2, raw) => value = Some(self.value(raw, name, of)?),
                _ => {}
            }
        }
        let value = match value {
            Some(value) => value,
            None => self.zero(name, of)?,
        };
        Ok((key, value))
    }

    /// The value of a map entry whose bytes leave it out.
    fn zero(&mut self, name: &str, of: Type<'_>) -> Result<Value, Error> {
        let raw = match of.shape() {
            Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Bool) => Raw::Varint(0),
            Shape::Scalar(Scalar::Double) => Raw::Fixed64(0),
            Shape::Scalar(_) | Shape::Message(_) | Shape::List(..) | Shape::Map(_) => Raw::Bytes(&[]),
        };
        self.value(raw, name, of)
    }

    /// A single value: a scalar, a message, or a list that protobuf wraps in a message.
    fn value(&mut self, raw: Raw<'_>, name: &str, of: Type<'_>) -> Result<Value, Error> {
        let scalar = match of.shape() {
            Shape::Scalar(scalar) => scalar,
            Shape::Message(message) => {
                let Raw::Bytes(bytes) = raw else { return mismatch(name) };
                let mut fields = Fields::new();
                self.fields(bytes, of, &mut fields)?;
                let items = message.fields.first().filter(|_| message.is_list);
                return Ok(match items {
                    Some(items) => fields.remove(&*items.name).unwrap_or_else(|| Value::Array(Vec::new())),
                    None => Value::Object(fields),
                });
            }
            Shape::List(..) | Shape::Map(_) => return error(format!("proto: {name} is nested too deep")),
        };
        match (scalar, raw) {
            (Scalar::Bool, Raw::Varint(n)) => Ok(Value::Bool(n != 0)),
            (Scalar::Int32, Raw::Varint(n)) => Ok(Value::from(n as i32)),
            (Scalar::Int64, Raw::Varint(n)) => Ok(Value::from(n as i64)),
            (Scalar::Double, Raw::Fixed64(bits)) => {
                let number = Number::from_f64(f64::from_bits(bits));
                number.map(Value::Number).ok_or_else(|| Error(format!("proto: {name} is no finite number")))
            }
            (Scalar::String, Raw::Bytes(bytes)) => text(bytes).map(Value::String),
            (Scalar::Bytes, Raw::Bytes(bytes)) => Ok(Value::String(BASE64.encode(bytes))),
            (Scalar::Quantity, Raw::Bytes(bytes)) => match Parts::read(bytes)?.text(1)? {
                text if text.is_empty() => Ok(Value::from("0")),
                text => Ok(Value::String(text)),
            },
            (Scalar::IntOrString, Raw::Bytes(bytes)) => {
                let parts = Parts::read(bytes)?;
                if parts.number(1) == 0 {
                    Ok(Value::from(parts.number(2) as i32))
                } else {
                    parts.text(3).map(Value::from)
                }
            }
            (Scalar::Time, Raw::Bytes(bytes)) => time(bytes, 0),
            (Scalar::MicroTime, Raw::Bytes(bytes)) => time(bytes, 6),
            (Scalar::Duration, Raw::Bytes(bytes)) => Ok(Value::String(show_duration(Parts::read(bytes)?.number(1)))),
            (Scalar::Any, Raw::Bytes(bytes)) => self.any(Parts::read(bytes)?.bytes(1), name),
            (Scalar::SchemaOrBool, Raw::Bytes(bytes)) => {
                let parts = Parts::read(bytes)?;
                self.schema(&parts, 2)?.map_or(Ok(Value::Bool(parts.number(1) != 0)), Ok)
            }
            (Scalar::SchemaOrArray, Raw::Bytes(bytes)) => {
                let parts = Parts::read(bytes)?;
                if let Some(schema) = self.schema(&parts, 1)? {
                    return Ok(schema);
                }
                let mut list = Vec::new();
                for bytes in parts.all(2) {
                    list.push(self.value(Raw::Bytes(bytes), name, json_schema())?);
                }
                Ok(Value::Array(list))
            }
            (Scalar::SchemaOrStrings, Raw::Bytes(bytes)) => {
                let parts = Parts::read(bytes)?;
                if let Some(schema) = self.schema(&parts, 1)? {
                    return Ok(schema);
                }
                parts.all(2).map(|bytes| text(bytes).map(Value::String)).collect::<Result<_, _>>().map(Value::Array)
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
                | Scalar::Any
                | Scalar::SchemaOrBool
                | Scalar::SchemaOrArray
                | Scalar::SchemaOrStrings,
                _,
            ) => mismatch(name),
        }
    }

    fn schema(&mut self, parts: &Parts<'_>, number: u32) -> Result<Option<Value>, Error> {
        let last = parts.all(number).last();
        last.map(|bytes| self.value(Raw::Bytes(bytes), "schema", json_schema())).transpose()
    }

    /// Raw JSON, or an object with its own envelope.
    fn any(&mut self, bytes: &[u8], name: &str) -> Result<Value, Error> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        if !super::has_prefix(bytes) {
            return serde_json::from_slice(bytes).map_err(|e| Error(format!("{name}: {e}")));
        }
        let envelope = Envelope::read(bytes)?;
        let of = super::known(&envelope.api_version, &envelope.kind)?;
        let mut fields = Fields::new();
        self.fields(envelope.raw, of, &mut fields)?;
        fields.insert("apiVersion".to_owned(), Value::String(envelope.api_version));
        fields.insert("kind".to_owned(), Value::String(envelope.kind));
        Ok(Value::Object(fields))
    }
}

/// Whether Go omits a value from JSON: null, or the zero value of a scalar field that is neither a pointer nor
/// required.
fn is_absent(value: &Value, shape: Shape<'_>, field: &Field) -> bool {
    use Scalar::{Bool, Bytes, Double, Int32, Int64, IntOrString, String};
    let has_zero = matches!(shape, Shape::Scalar(String | Bool | Int32 | Int64 | Double | Bytes | IntOrString));
    let is_zero = match value {
        Value::Null => return true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    };
    is_zero && has_zero && !field.pointer && !field.required
}

fn time(bytes: &[u8], digits: usize) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let parts = Parts::read(bytes)?;
    let nanos = i32::try_from(parts.number(2)).ok();
    let shown = nanos.and_then(|nanos| show_time(parts.number(1), nanos, digits));
    shown.map(Value::String).ok_or_else(|| Error("proto: a time is out of range".to_owned()))
}

/// The fields of a message that is a scalar in JSON.
struct Parts<'a>(Vec<(u32, Raw<'a>)>);

impl<'a> Parts<'a> {
    fn read(bytes: &'a [u8]) -> Result<Parts<'a>, Error> {
        let (mut parts, mut reader) = (Vec::new(), Reader::new(bytes));
        while let Some(part) = reader.next()? {
            parts.push(part);
        }
        Ok(Parts(parts))
    }

    fn number(&self, number: u32) -> i64 {
        let mut found = self.0.iter().rev().filter(|(n, _)| *n == number);
        found.find_map(|(_, raw)| if let Raw::Varint(n) = raw { Some(*n as i64) } else { None }).unwrap_or(0)
    }

    fn all(&self, number: u32) -> impl Iterator<Item = &'a [u8]> {
        let of = move |(n, raw): &(u32, Raw<'a>)| {
            if let (true, Raw::Bytes(b)) = (*n == number, raw) { Some(*b) } else { None }
        };
        self.0.iter().filter_map(of)
    }

    fn bytes(&self, number: u32) -> &'a [u8] {
        self.all(number).last().unwrap_or(&[])
    }

    fn text(&self, number: u32) -> Result<String, Error> {
        text(self.bytes(number))
    }
}
