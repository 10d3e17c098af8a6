//! A deserializer over JSON that behaves as Go's `encoding/json`: `null` gives the zero value, a number is accepted as
//! a quantity, and errors name the Go struct, field and type.

use std::any::type_name;
use std::fmt;

use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Map, Number, Value};

use super::DecodeError;
use super::quantity::canonical;
use super::type_name::{go_type, json_kind};

/// Decodes `value`; ignores fields that the type does not have.
pub(in crate::object) fn read<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, DecodeError> {
    let result = T::deserialize(Reader { value, at: &Path::Root, go_struct: "" });
    result.map_err(|e| DecodeError { path: e.path.unwrap_or_default(), message: e.message, unknown_field: false })
}

/// The position of a value in the document.
enum Path<'a> {
    Root,
    /// A struct field (which Go's errors name) or a map key (which they don't).
    Key {
        parent: &'a Path<'a>,
        key: &'a str,
        of_struct: bool,
    },
    Index {
        parent: &'a Path<'a>,
        index: usize,
    },
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key { parent: Path::Root, key, .. } => f.write_str(key),
            Path::Key { parent, key, .. } => write!(f, "{parent}.{key}"),
            Path::Index { parent, index } => write!(f, "{parent}[{index}]"),
        }
    }
}

impl Path<'_> {
    /// The struct fields of the path only, joined by dots.
    fn go_field(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Index { parent, .. } | Path::Key { parent, of_struct: false, .. } => parent.go_field(),
            Path::Key { parent, key, of_struct: true } => match parent.go_field() {
                p if p.is_empty() => (*key).to_owned(),
                p => format!("{p}.{key}"),
            },
        }
    }
}

/// An error that is being passed up. The innermost deserializer that knows its path sets it.
#[derive(Debug)]
struct Fail {
    path: Option<String>,
    message: String,
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fail {}

impl serde::de::Error for Fail {
    fn custom<T: fmt::Display>(message: T) -> Fail {
        Fail { path: None, message: message.to_string() }
    }
}

struct Reader<'a> {
    value: Value,
    at: &'a Path<'a>,
    /// The Go struct that contains this field, directly or inside a map or list.
    go_struct: &'static str,
}

impl Reader<'_> {
    fn mismatch<T>(&self) -> Fail {
        let what = match &self.value {
            Value::Number(n) if matches!(type_name::<T>(), "i32" | "i64") => format!("number {n}"),
            other => json_kind(other).to_owned(),
        };
        let go = go_type(type_name::<T>());
        let message = if self.go_struct.is_empty() {
            format!("json: cannot unmarshal {what} into Go value of type {go}")
        } else {
            let field = self.at.go_field();
            format!("json: cannot unmarshal {what} into Go struct field {}.{field} of type {go}", self.go_struct)
        };
        Fail { path: Some(self.at.to_string()), message }
    }

    fn map<'de, V: Visitor<'de>>(
        self,
        map: Map<String, Value>,
        visitor: V,
        of: Option<&'static str>,
    ) -> Result<V::Value, Fail> {
        let access = Entries {
            entries: map.into_iter(),
            pending: None,
            parent: self.at,
            of_struct: of.is_some(),
            go_struct: of.unwrap_or(self.go_struct),
        };
        located(self.at, visitor.visit_map(access))
    }

    fn seq<'de, V: Visitor<'de>>(self, items: Vec<Value>, visitor: V) -> Result<V::Value, Fail> {
        let access = Items { items: items.into_iter(), index: 0, parent: self.at, go_struct: self.go_struct };
        located(self.at, visitor.visit_seq(access))
    }

    fn number<'de, V: Visitor<'de>>(n: &Number, visitor: V) -> Result<V::Value, Fail> {
        match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), _, _) => visitor.visit_i64(i),
            (_, Some(u), _) => visitor.visit_u64(u),
            (_, _, f) => visitor.visit_f64(f.unwrap_or(f64::NAN)),
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        match self.value {
            Value::String(s) => located(self.at, visitor.visit_string(s)),
            Value::Null => located(self.at, visitor.visit_str("")),
            _ => Err(self.mismatch::<V::Value>()),
        }
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V, fits: fn(i64) -> bool) -> Result<V::Value, Fail> {
        match &self.value {
            Value::Number(n) => match n.as_i64().filter(|i| fits(*i)) {
                Some(i) => located(self.at, visitor.visit_i64(i)),
                None => Err(self.mismatch::<V::Value>()),
            },
            Value::Null => located(self.at, visitor.visit_i64(0)),
            _ => Err(self.mismatch::<V::Value>()),
        }
    }

    /// The canonical text of a quantity; a JSON number is accepted too.
    fn quantity(&self) -> Result<String, Fail> {
        let text = match &self.value {
            Value::String(s) => s.trim().to_owned(),
            Value::Number(n) => n.to_string(),
            Value::Null => "0".to_owned(),
            _ => return Err(self.mismatch::<String>()),
        };
        let text = if text.is_empty() { "0".to_owned() } else { text };
        match canonical(&text) {
            Ok(text) => Ok(text.into_owned()),
            Err(e) => Err(Fail { path: Some(self.at.to_string()), message: e.to_string() }),
        }
    }
}

fn located<T>(at: &Path<'_>, result: Result<T, Fail>) -> Result<T, Fail> {
    result.map_err(|e| Fail { path: Some(e.path.unwrap_or_else(|| at.to_string())), message: e.message })
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fail;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        let at = self.at;
        match self.value {
            Value::Null => located(at, visitor.visit_unit()),
            Value::Bool(b) => located(at, visitor.visit_bool(b)),
            Value::Number(n) => located(at, Self::number(&n, visitor)),
            Value::String(s) => located(at, visitor.visit_string(s)),
            Value::Array(items) => Reader { value: Value::Null, ..self }.seq(items, visitor),
            Value::Object(map) => Reader { value: Value::Null, ..self }.map(map, visitor, None),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        match self.value {
            Value::Bool(b) => located(self.at, visitor.visit_bool(b)),
            Value::Null => located(self.at, visitor.visit_bool(false)),
            _ => Err(self.mismatch::<V::Value>()),
        }
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.integer(visitor, |i| i32::try_from(i).is_ok())
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.integer(visitor, |_| true)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        match &self.value {
            Value::Number(n) => located(self.at, Self::number(n, visitor)),
            Value::Null => located(self.at, visitor.visit_f64(0.0)),
            _ => Err(self.mismatch::<V::Value>()),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fail> {
        if matches!(name, "Time" | "MicroTime") && self.value.is_null() {
            // Go's zero time, for a field that is not optional.
            let zero = "0001-01-01T00:00:00Z".to_owned();
            return visitor.visit_newtype_struct::<StringDeserializer<Fail>>(zero.into_deserializer());
        }
        if name != "Quantity" {
            return visitor.visit_newtype_struct(self);
        }
        let text = self.quantity()?;
        visitor.visit_newtype_struct::<StringDeserializer<Fail>>(text.into_deserializer())
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        match self.value {
            Value::Array(items) => Reader { value: Value::Null, ..self }.seq(items, visitor),
            Value::Null => self.seq(Vec::new(), visitor),
            _ => Err(self.mismatch::<V::Value>()),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        match self.value {
            Value::Object(map) => Reader { value: Value::Null, ..self }.map(map, visitor, None),
            Value::Null => self.map(Map::new(), visitor, None),
            _ => Err(self.mismatch::<V::Value>()),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fail> {
        match self.value {
            Value::Object(map) => Reader { value: Value::Null, ..self }.map(map, visitor, Some(name)),
            Value::Null => self.map(Map::new(), visitor, Some(name)),
            _ => Err(self.mismatch::<V::Value>()),
        }
    }

    /// Called only for unknown fields of a struct.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fail> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 u8 u16 u32 u64 f32 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

struct Entries<'a> {
    entries: serde_json::map::IntoIter,
    pending: Option<(String, Value)>,
    parent: &'a Path<'a>,
    of_struct: bool,
    go_struct: &'static str,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fail;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fail> {
        self.pending = self.entries.next();
        let Some((key, _)) = &self.pending else { return Ok(None) };
        seed.deserialize(StrDeserializer::<Fail>::new(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fail> {
        let (key, value) = self.pending.take().expect("serde asks for a value only after its key");
        let at = Path::Key { parent: self.parent, key: &key, of_struct: self.of_struct };
        seed.deserialize(Reader { value, at: &at, go_struct: self.go_struct })
    }
}

struct Items<'a> {
    items: std::vec::IntoIter<Value>,
    index: usize,
    parent: &'a Path<'a>,
    go_struct: &'static str,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fail;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fail> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let at = Path::Index { parent: self.parent, index: self.index };
        self.index += 1;
        seed.deserialize(Reader { value, at: &at, go_struct: self.go_struct }).map(Some)
    }
}
