//! Unknown and duplicate fields, with the error texts of `sigs.k8s.io/json`.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::DecodeError;
use crate::limits::STRICT_ERRORS;
use crate::schema::{Shape, Type};

fn child(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// Every field that the schema table does not know, up to the limit on the number of reported errors. `at` is the path
/// of the value.
pub(super) fn unknown(value: &Value, of: Type<'_>, at: &str) -> Vec<DecodeError> {
    let mut found = Vec::new();
    look(value, of, at, &mut found);
    found
}

fn look(value: &Value, of: Type<'_>, at: &str, found: &mut Vec<DecodeError>) {
    match (value, of.shape()) {
        (Value::Object(fields), Shape::Message(_) | Shape::Map(_)) => {
            for (name, value) in fields {
                if found.len() == STRICT_ERRORS {
                    return;
                }
                let path = child(at, name);
                match of.field(name) {
                    Some(of) => look(value, of, &path, found),
                    None => {
                        let message = format!("unknown field {path:?}");
                        found.push(DecodeError { path, message, unknown_field: true });
                    }
                }
            }
        }
        (Value::Array(items), Shape::List(of, _)) => {
            for (i, item) in items.iter().enumerate() {
                look(item, of, &format!("{at}[{i}]"), found);
            }
        }
        _ => {}
    }
}

/// Parses JSON and reports duplicate fields. As in Go, the last occurrence counts.
pub(super) fn parse(text: &[u8]) -> Result<(Value, Vec<DecodeError>), serde_json::Error> {
    let mut twice = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Noting { at: String::new(), twice: &mut twice }.deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, twice))
}

struct Noting<'a> {
    at: String,
    twice: &'a mut Vec<DecodeError>,
}

impl<'de> DeserializeSeed<'de> for Noting<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Noting<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(n.into())
    }

    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(n).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(s.into())
    }

    fn visit_string<E>(self, s: String) -> Result<Value, E> {
        Ok(s.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let at = format!("{}[{}]", self.at, items.len());
            match seq.next_element_seed(Noting { at, twice: self.twice })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let at = child(&self.at, &name);
            if fields.contains_key(&name) && self.twice.len() < STRICT_ERRORS {
                let message = format!("duplicate field {at:?}");
                self.twice.push(DecodeError { path: at.clone(), message, unknown_field: true });
            }
            let value = map.next_value_seed(Noting { at, twice: self.twice })?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

/// The error text for a body that is not JSON.
pub(super) fn syntax(error: &serde_json::Error) -> String {
    format!("couldn't get version/kind; json parse error: {error}")
}
