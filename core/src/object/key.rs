//! Names of objects: a kind and a path, shared by every index that mentions the object.

use std::fmt;
use std::sync::Arc;

use super::Kind;

/// The name of an object: its kind and `namespace/name` (or `name` for cluster-scoped kinds).
///
/// The path is shared, so that the store, every cache and every queue hold one copy of it. Keys of one namespace
/// are adjacent in order, so that a namespace is a range.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind of the object.
    pub kind: Kind,
    path: Arc<str>,
}

impl ObjectKey {
    /// The key of a namespaced object, or of a cluster-scoped one where `namespace` is empty.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> ObjectKey {
        if namespace.is_empty() {
            ObjectKey { kind, path: Arc::from(name) }
        } else {
            let length = namespace.len() + 1 + name.len();
            // Keys are built for every request: on the stack, so that the shared path is the only allocation.
            let mut buffer = [b'/'; 128];
            if length > buffer.len() {
                return ObjectKey { kind, path: Arc::from(format!("{namespace}/{name}")) };
            }
            buffer[..namespace.len()].copy_from_slice(namespace.as_bytes());
            buffer[namespace.len() + 1..length].copy_from_slice(name.as_bytes());
            let path = std::str::from_utf8(&buffer[..length]).expect("two strings and a slash are a string");
            ObjectKey { kind, path: Arc::from(path) }
        }
    }

    /// From a whole path, as [`path`](Self::path) gives it.
    pub fn from_path(kind: Kind, path: &str) -> ObjectKey {
        ObjectKey { kind, path: Arc::from(path) }
    }

    /// `namespace/name`, or `name`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The namespace; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.path.split_once('/').map_or("", |(ns, _)| ns)
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        self.path.split_once('/').map_or(&*self.path, |(_, name)| name)
    }

    /// Smallest possible key of `kind` within `namespace` (all namespaces where it is empty); start of a range.
    pub fn range_start(kind: Kind, namespace: &str) -> ObjectKey {
        if namespace.is_empty() {
            ObjectKey { kind, path: Arc::from("") }
        } else {
            ObjectKey { kind, path: Arc::from(format!("{namespace}/")) }
        }
    }

    /// First key after all keys of `kind` within `namespace`; end (exclusive) of a range.
    pub fn range_end(kind: Kind, namespace: &str) -> ObjectKey {
        if namespace.is_empty() {
            ObjectKey { kind: Kind(kind.0 + 1), path: Arc::from("") }
        } else {
            // '0' is the character after '/'.
            ObjectKey { kind, path: Arc::from(format!("{namespace}0")) }
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.path)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
