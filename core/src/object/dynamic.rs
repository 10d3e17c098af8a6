//! Objects of kinds without a typed form inside Skeg: held as JSON, checked against the k8s-openapi type if there is
//! one.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::structural::at_path;
use super::{Kind, KindRef, Meta, ObjectMeta, Revision, put_revision, shrink, take_revision};

/// An object of a kind without a typed form inside Skeg. Cloning it only increments one reference count.
#[derive(Clone, Debug, PartialEq)]
#[repr(C)]
pub struct Dynamic {
    /// Revision of the last change; zero if the object is not stored.
    pub rv: Revision,
    parts: Rc<DynamicParts>,
}

/// The parts of a dynamic object; metadata first, as in the typed kinds.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct DynamicParts {
    /// Metadata, without the resource version.
    pub meta: Rc<Meta>,
    /// Its kind.
    pub kind: Kind,
    /// The description of the kind at the time when the object was decoded. For a custom kind it also tells the version
    /// in which the object is written.
    pub of: KindRef,
    /// Every other field; without `apiVersion`, `kind`, `metadata` and `status`.
    pub body: Rc<Map<String, Value>>,
    /// The `status` field; `None` if there is none.
    pub status: Option<Rc<Value>>,
}

impl PartialEq for DynamicParts {
    fn eq(&self, other: &DynamicParts) -> bool {
        self.kind == other.kind
            && self.meta == other.meta
            && self.status == other.status
            && (Rc::ptr_eq(&self.body, &other.body) || self.body == other.body)
    }
}

impl Deref for Dynamic {
    type Target = DynamicParts;
    fn deref(&self) -> &DynamicParts {
        &self.parts
    }
}

impl DerefMut for Dynamic {
    fn deref_mut(&mut self) -> &mut DynamicParts {
        Rc::make_mut(&mut self.parts)
    }
}

impl Dynamic {
    /// Converts JSON of the given kind, whose description is `of`.
    pub fn from_json(kind: Kind, of: KindRef, value: Value) -> Result<Dynamic, String> {
        let Value::Object(mut body) = value else { return Err("expected an object".to_owned()) };
        body.remove("apiVersion");
        body.remove("kind");
        let meta = body.remove("metadata").unwrap_or_else(|| Value::Object(Map::new()));
        let mut meta: ObjectMeta =
            serde_path_to_error::deserialize(meta).map_err(|e| format!("metadata.{}: {}", e.path(), e.inner()))?;
        shrink(&mut meta);
        let rv = take_revision(&mut meta).map_err(|e| e.to_string())?;
        let status = body.remove("status").map(Rc::new);
        let parts = DynamicParts { kind, of, meta: Rc::new(meta.into()), body: Rc::new(body), status };
        Ok(Dynamic { rv, parts: Rc::new(parts) })
    }

    /// Decodes the bytes that a store keeps.
    pub(super) fn from_stored(kind: Kind, of: KindRef, bytes: &[u8]) -> Result<Dynamic, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let text = |field: &str| value[field].as_str().unwrap_or("");
        let of = of.written_as(text("apiVersion"), text("kind"));
        for (field, want) in [("apiVersion", &*of.api_version()), ("kind", &*of.kind)] {
            let found = &value[field];
            if found != want {
                return Err(format!("{field} is {found} and not {want:?}"));
            }
        }
        Dynamic::from_json(kind, of, value)
    }

    /// Replaces every part that equals the same part of `other` (another version of this object) by a shared pointer to
    /// it.
    pub(super) fn share(&mut self, other: &Dynamic) {
        if Rc::ptr_eq(&self.parts, &other.parts) {
            return;
        }
        // An object that is stored anew in another version may be equal otherwise.
        if self.parts == other.parts && self.of.version == other.of.version {
            self.parts = Rc::clone(&other.parts);
            return;
        }
        if self.meta == other.meta {
            self.meta = Rc::clone(&other.meta);
        }
        if self.same_spec(other) {
            self.take_spec(other);
        }
        if self.same_status(other) {
            self.take_status(other);
        }
    }

    /// Converts to complete JSON, as a client sees it.
    pub fn to_json(&self) -> Value {
        let mut meta = ObjectMeta::clone(&self.meta);
        put_revision(&mut meta, self.rv);
        let mut all = Map::new();
        all.insert("apiVersion".to_owned(), Value::String(self.of.api_version()));
        all.insert("kind".to_owned(), Value::String(self.of.kind.to_string()));
        all.insert("metadata".to_owned(), serde_json::to_value(meta).expect("metadata serialises"));
        for (k, v) in self.body.iter() {
            all.insert(k.clone(), v.clone());
        }
        if let Some(status) = &self.status {
            all.insert("status".to_owned(), (**status).clone());
        }
        Value::Object(all)
    }

    /// The value of a selectable field, by its path, as text; `None` if it is no string, boolean or number.
    pub(super) fn field(&self, path: &str) -> Option<Cow<'_, str>> {
        match at_path(&self.body, self.status.as_deref(), path)? {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => Some(Cow::Owned(number.to_string())),
            Value::Bool(flag) => Some(Cow::Owned(flag.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The number at a simple JSON path.
    pub fn count(&self, path: &str) -> Option<i32> {
        let found = at_path(&self.body, self.status.as_deref(), path)?;
        found.as_i64().and_then(|n| i32::try_from(n).ok())
    }

    /// Sets a number at a simple JSON path of the body, creating missing parents.
    pub fn set_count(&mut self, path: &str, count: i32) {
        let mut steps: Vec<&str> = path.trim_start_matches('.').split('.').collect();
        let last = steps.pop().expect("a split has a part");
        let mut at = Rc::make_mut(&mut self.body);
        for step in steps {
            let next = at.entry(step).or_insert_with(|| json!({}));
            let Value::Object(next) = next else { return };
            at = next;
        }
        at.insert(last.to_owned(), json!(count));
    }

    /// Whether the bodies are equal.
    pub fn same_spec(&self, other: &Dynamic) -> bool {
        Rc::ptr_eq(&self.body, &other.body) || self.body == other.body
    }

    /// Whether the statuses are equal.
    pub fn same_status(&self, other: &Dynamic) -> bool {
        self.status == other.status
    }

    /// Shares another object's status.
    pub fn take_status(&mut self, from: &Dynamic) {
        self.status.clone_from(&from.status);
    }

    /// Shares another object's body.
    pub fn take_spec(&mut self, from: &Dynamic) {
        self.body = Rc::clone(&from.body);
    }
}
