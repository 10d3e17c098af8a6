//! Values of expressions. What comes from JSON is borrowed, and taken apart only as far as an expression looks.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use base64::Engine as _;
use core::net::IpAddr;
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::library::time;
use crate::library::url::Url;
use crate::types::{Identity, List, Type};

/// A value.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Cow<'a, str>),
    Bytes(Rc<[u8]>),
    List(Rc<Vec<Value<'a>>>),
    /// A list of JSON.
    Array(&'a [Json], Rc<List>),
    Map(Rc<BTreeMap<Key, Value<'a>>>),
    /// A map in which a key that it does not have leads to an empty map.
    Sparse(Rc<BTreeMap<Key, Value<'a>>>),
    /// An object of JSON and its type: a map's, an object's, or dynamic.
    Object(&'a serde_json::Map<String, Json>, Type),
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    /// The name of a type.
    Type(&'static str),
    Optional(Option<Rc<Value<'a>>>),
    /// Billionths of a unit.
    Quantity(i128),
    Url(Rc<Url>),
    Ip(IpAddr),
    /// An address and the length of its prefix.
    Cidr(IpAddr, u8),
    /// The name of a format.
    Format(&'static str),
    /// What has failed before. Whoever looks at it fails for the same reason.
    Failed(Rc<str>),
}

/// A key of a map. Integers are the same key whether they have a sign or not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(String),
}

/// Types that have a name in expressions.
pub(crate) const TYPE_NAMES: [&str; 11] =
    ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type"];

/// What comparing may look at. It costs a tenth of that, which no run may.
const MAX_LOOKED: u64 = 100_000_000;

/// Why an expression has no value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// It failed, in the words of cel-go.
    Failed(String),
    /// It costs more than is allowed.
    Cost,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Failed(why) => f.write_str(why),
            Error::Cost => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

pub(crate) fn fail<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Failed(why.into()))
}

pub(crate) fn no_overload<T>() -> Result<T, Error> {
    fail("no such overload")
}

impl<'a> Value<'a> {
    /// The value of JSON that has a type.
    pub fn of(json: &'a Json, type_: &Type) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(is) => Value::Bool(*is),
            Json::Number(number) => match (number.as_i64(), type_) {
                (Some(number), Type::Double) => Value::Double(number as f64),
                (Some(number), _) => Value::Int(number),
                (None, Type::Int) if number.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() < 9e15) => {
                    Value::Int(number.as_f64().unwrap_or_default() as i64)
                }
                (None, _) => Value::Double(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => typed_text(text, type_).unwrap_or(Value::String(Cow::Borrowed(text))),
            Json::Array(items) => {
                let list = match type_ {
                    Type::List(list) => Rc::clone(list),
                    _ => Rc::new(List { item: Type::Dyn, identity: Identity::Place }),
                };
                Value::Array(items, list)
            }
            Json::Object(map) => Value::Object(map, type_.clone()),
        }
    }

    /// A string of its own.
    pub fn text(text: impl Into<String>) -> Value<'a> {
        Value::String(Cow::Owned(text.into()))
    }

    /// It as JSON. An error says what JSON has no form for.
    pub fn to_json(&self) -> Result<Json, Error> {
        Ok(match self {
            Value::Null | Value::Optional(None) => Json::Null,
            Value::Bool(is) => Json::Bool(*is),
            Value::Int(n) => (*n).into(),
            Value::Uint(n) => (*n).into(),
            Value::Double(n) => match serde_json::Number::from_f64(*n) {
                Some(number) => Json::Number(number),
                None => return fail(format!("{n} is no number of JSON")),
            },
            Value::String(text) => Json::String(text.clone().into_owned()),
            Value::Bytes(bytes) => Json::String(base64::engine::general_purpose::STANDARD.encode(bytes)),
            Value::List(items) => Json::Array(items.iter().map(Value::to_json).collect::<Result<_, _>>()?),
            Value::Array(items, _) => Json::Array(items.to_vec()),
            Value::Map(map) | Value::Sparse(map) => {
                let entry = |(key, value): (&Key, &Value<'a>)| match key {
                    Key::String(name) => Ok((name.clone(), value.to_json()?)),
                    other => fail(format!("the key {other} of a map is no string")),
                };
                Json::Object(map.iter().map(entry).collect::<Result<_, _>>()?)
            }
            Value::Object(map, _) => Json::Object((*map).clone()),
            Value::Timestamp(at) => Json::String(at.to_string()),
            Value::Duration(nanoseconds) => Json::String(time::show(*nanoseconds)),
            Value::Optional(Some(value)) => value.to_json()?,
            Value::Failed(why) => return fail(&**why),
            Value::Type(_) | Value::Quantity(_) | Value::Url(_) | Value::Ip(_) | Value::Cidr(..) | Value::Format(_) => {
                return fail(format!("a value of type {} has no form in JSON", self.type_name()));
            }
        })
    }

    /// A map of strings to values.
    pub fn map(entries: impl IntoIterator<Item = (String, Value<'a>)>) -> Value<'a> {
        Value::Map(Rc::new(entries.into_iter().map(|(key, value)| (Key::String(key), value)).collect()))
    }

    fn empty() -> Value<'a> {
        Value::map([])
    }

    pub(crate) fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(Rc::new(items))
    }

    pub(crate) fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Rc::new(value)))
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> Option<Cow<'_, [Value<'a>]>> {
        match self {
            Value::List(items) => Some(Cow::Borrowed(items)),
            Value::Array(items, list) => Some(items.iter().map(|item| Value::of(item, &list.item)).collect()),
            _ => None,
        }
    }

    /// The entries of a map, in the order of their keys.
    pub(crate) fn entries(&self) -> Option<Vec<(Key, Value<'a>)>> {
        match self {
            Value::Map(map) | Value::Sparse(map) => {
                Some(map.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
            }
            Value::Object(map, type_) => {
                let value = |name: &String, json: &'a Json| match type_ {
                    Type::Map(both) => Some((name.clone(), Value::of(json, &both.1))),
                    Type::Object(object) => {
                        let (field, (_, type_)) = object.fields.iter().find(|(_, (known, _))| known == name)?;
                        Some((field.clone(), Value::of(json, type_)))
                    }
                    _ => Some((name.clone(), Value::of(json, &Type::Dyn))),
                };
                let mut entries: Vec<(Key, Value<'a>)> = map
                    .iter()
                    .filter_map(|(name, json)| value(name, json))
                    .map(|(name, value)| (Key::String(name), value))
                    .collect();
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                Some(entries)
            }
            _ => None,
        }
    }

    /// A field or an entry with this name; `None` if it is not there.
    pub(crate) fn field(&self, name: &str) -> Result<Option<Value<'a>>, Error> {
        Ok(match self {
            Value::Object(map, Type::Object(object)) => match object.fields.get(name) {
                Some((json, type_)) => map.get(json).map(|value| Value::of(value, type_)),
                None => None,
            },
            Value::Object(map, Type::Map(both)) => map.get(name).map(|value| Value::of(value, &both.1)),
            Value::Object(map, _) => map.get(name).map(|value| Value::of(value, &Type::Dyn)),
            Value::Map(map) => map.get(&Key::String(name.to_owned())).cloned(),
            Value::Sparse(map) => Some(map.get(&Key::String(name.to_owned())).cloned().unwrap_or_else(Value::empty)),
            _ => return no_overload(),
        })
    }

    /// The item at an index or under a key; `None` if it is not there.
    pub(crate) fn at(&self, index: &Value<'a>) -> Result<Option<Value<'a>>, Error> {
        let position = || match index {
            Value::Int(n) => Ok(usize::try_from(*n).ok()),
            Value::Uint(n) => Ok(usize::try_from(*n).ok()),
            Value::Double(n) if n.fract() == 0.0 => Ok((*n >= 0.0).then_some(*n as usize)),
            _ => no_overload(),
        };
        Ok(match self {
            Value::List(items) => position()?.and_then(|n| items.get(n)).cloned(),
            Value::Array(items, list) => position()?.and_then(|n| items.get(n)).map(|v| Value::of(v, &list.item)),
            Value::Object(..) => match index {
                Value::String(name) => self.field(name)?,
                _ => None,
            },
            Value::Map(map) => Key::of(index).and_then(|key| map.get(&key).cloned()),
            Value::Sparse(map) => Key::of(index).map(|key| map.get(&key).cloned().unwrap_or_else(Value::empty)),
            _ => return no_overload(),
        })
    }

    /// The number of characters, bytes, items or entries; `None` if it has none.
    pub(crate) fn size(&self) -> Option<usize> {
        Some(match self {
            Value::String(text) => text.chars().count(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(items) => items.len(),
            Value::Array(items, _) => items.len(),
            Value::Map(map) | Value::Sparse(map) => map.len(),
            Value::Object(map, _) => map.len(),
            _ => return None,
        })
    }

    /// Its size for the sake of cost: 1 for what has none.
    pub(crate) fn weight(&self) -> u64 {
        self.size().unwrap_or(1) as u64
    }

    /// Whether two values are equal; counts what is looked at. Numbers of different types may be equal.
    pub(crate) fn equals(&self, other: &Value<'a>, looked: &mut u64) -> bool {
        *looked += 1;
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => {
                *looked += a.len().min(b.len()) as u64;
                a == b
            }
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Type(a), Value::Type(b)) => a == b,
            (Value::Quantity(a), Value::Quantity(b)) => a == b,
            (Value::Url(a), Value::Url(b)) => a == b,
            (Value::Ip(a), Value::Ip(b)) => a == b,
            (Value::Cidr(a, n), Value::Cidr(b, m)) => a == b && n == m,
            (Value::Format(a), Value::Format(b)) => a == b,
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b, looked),
                (a, b) => a.is_none() && b.is_none(),
            },
            (Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
                numbers(self, other) == Some(Ordering::Equal)
            }
            (Value::List(_) | Value::Array(..), Value::List(_) | Value::Array(..)) => self.lists_equal(other, looked),
            (
                Value::Map(_) | Value::Sparse(_) | Value::Object(..),
                Value::Map(_) | Value::Sparse(_) | Value::Object(..),
            ) => {
                let (a, b) = (self.entries().unwrap_or_default(), other.entries().unwrap_or_default());
                let same = |(a, b): (&(Key, Value<'a>), &(Key, Value<'a>)), looked: &mut u64| {
                    a.0 == b.0 && a.1.equals(&b.1, looked)
                };
                a.len() == b.len() && a.iter().zip(&b).all(|both| same(both, looked))
            }
            _ => false,
        }
    }

    fn lists_equal(&self, other: &Value<'a>, looked: &mut u64) -> bool {
        let (a, b) = (self.items().unwrap_or_default(), other.items().unwrap_or_default());
        if a.len() != b.len() {
            return false;
        }
        let ordered = !matches!(self.identity(), Some(Identity::Value | Identity::Fields(_)));
        if ordered {
            return a.iter().zip(b.iter()).all(|(a, b)| a.equals(b, looked));
        }
        *looked = looked.saturating_add((a.len() as u64).saturating_mul(b.len() as u64));
        *looked <= MAX_LOOKED && a.iter().all(|a| b.iter().any(|b| a.equals(b, looked)))
    }

    /// What makes items of this list the same.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match self {
            Value::Array(_, list) => Some(&list.identity),
            _ => None,
        }
    }

    /// How two values are ordered; `None` if they are not.
    pub(crate) fn order(&self, other: &Value<'a>) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Value::Quantity(a), Value::Quantity(b)) => Some(a.cmp(b)),
            _ => numbers(self, other),
        }
    }

    /// The name of its type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) | Value::Array(..) => "list",
            Value::Map(_) | Value::Sparse(_) | Value::Object(..) => "map",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Type(_) => "type",
            Value::Optional(_) => "optional_type",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Url(_) => "kubernetes.URL",
            Value::Ip(_) => "net.IP",
            Value::Cidr(..) => "net.CIDR",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Failed(_) => "error",
        }
    }
}

/// Text that its schema gives another type. What cannot be read stays text.
fn typed_text<'a>(text: &str, type_: &Type) -> Option<Value<'a>> {
    match type_ {
        Type::Timestamp => time::timestamp(text).map(Value::Timestamp),
        Type::Duration => time::duration(text).map(Value::Duration),
        Type::Bytes => {
            base64::engine::general_purpose::STANDARD.decode(text).ok().map(|bytes| Value::Bytes(bytes.into()))
        }
        _ => None,
    }
}

fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    };
    let double = |value: &Value<'_>| match value {
        Value::Double(n) => Some(*n),
        other => whole(other).map(|n| n as f64),
    };
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => double(a)?.partial_cmp(&double(b)?),
    }
}

impl Key {
    /// The key that a value is; `None` if it cannot be one.
    pub(crate) fn of(value: &Value<'_>) -> Option<Key> {
        Some(match value {
            Value::Bool(is) => Key::Bool(*is),
            Value::Int(n) => Key::Int(*n),
            Value::Uint(n) => i64::try_from(*n).map_or(Key::Uint(*n), Key::Int),
            Value::String(text) => Key::String(text.clone().into_owned()),
            _ => return None,
        })
    }

    pub(crate) fn value<'a>(&self) -> Value<'a> {
        match self {
            Key::Bool(is) => Value::Bool(*is),
            Key::Int(n) => Value::Int(*n),
            Key::Uint(n) => Value::Uint(*n),
            Key::String(text) => Value::text(text.clone()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Bool(is) => write!(f, "{is}"),
            Key::Int(n) => write!(f, "{n}"),
            Key::Uint(n) => write!(f, "{n}"),
            Key::String(text) => f.write_str(text),
        }
    }
}
