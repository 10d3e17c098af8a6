//! Names of objects: a kind and a path, shared by every index that mentions the object.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::Kind;

/// The name of an object: its kind and `namespace/name` (or `name` for cluster-scoped kinds).
///
/// The path is shared, so that the store, every cache and every queue hold one copy of it. Keys of one namespace
/// are adjacent in order, so that a namespace is a range.
#[derive(Clone, Eq)]
pub struct ObjectKey {
    /// Kind of the object.
    pub kind: Kind,
    path: Arc<str>,
    /// Length of the namespace; zero for cluster-scoped kinds.
    namespace: u32,
}

impl Ord for ObjectKey {
    fn cmp(&self, other: &ObjectKey) -> Ordering {
        self.kind.cmp(&other.kind).then_with(|| self.path.cmp(&other.path))
    }
}

impl PartialOrd for ObjectKey {
    fn partial_cmp(&self, other: &ObjectKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ObjectKey {
    fn eq(&self, other: &ObjectKey) -> bool {
        // Most keys that are equal are copies of one; to see that, the path need not be read.
        self.kind == other.kind && (Arc::ptr_eq(&self.path, &other.path) || self.path == other.path)
    }
}

impl ObjectKey {
    /// The key of a namespaced object, or of a cluster-scoped one where `namespace` is empty.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> ObjectKey {
        if namespace.is_empty() {
            ObjectKey { kind, path: Arc::from(name), namespace: 0 }
        } else {
            let length = namespace.len() + 1 + name.len();
            // Keys are built for every request: on the stack, so that the shared path is the only allocation.
            let mut buffer = [b'/'; 128];
            if length > buffer.len() {
                return ObjectKey::from_path(kind, &format!("{namespace}/{name}"));
            }
            buffer[..namespace.len()].copy_from_slice(namespace.as_bytes());
            buffer[namespace.len() + 1..length].copy_from_slice(name.as_bytes());
            let path = std::str::from_utf8(&buffer[..length]).expect("two strings and a slash are a string");
            ObjectKey { kind, path: Arc::from(path), namespace: namespace.len() as u32 }
        }
    }

    /// From a whole path, as [`path`](Self::path) gives it.
    pub fn from_path(kind: Kind, path: &str) -> ObjectKey {
        ObjectKey { kind, path: Arc::from(path), namespace: path.find('/').unwrap_or(0) as u32 }
    }

    /// `namespace/name`, or `name`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The namespace; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        &self.path[..self.namespace as usize]
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        match self.namespace {
            0 => &self.path,
            n => &self.path[n as usize + 1..],
        }
    }

    /// Whether it is the key of these parts.
    pub fn is(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        let path = self.path.as_bytes();
        self.kind == kind
            && path.ends_with(name.as_bytes())
            && match namespace.len() {
                0 => path.len() == name.len(),
                n => path.len() == n + 1 + name.len() && path[n] == b'/' && path.starts_with(namespace.as_bytes()),
            }
    }

    /// Smallest possible key of `kind` within `namespace` (all namespaces where it is empty); start of a range.
    pub fn range_start(kind: Kind, namespace: &str) -> ObjectKey {
        if namespace.is_empty() {
            ObjectKey::from_path(kind, "")
        } else {
            ObjectKey::from_path(kind, &format!("{namespace}/"))
        }
    }

    /// First key after all keys of `kind` within `namespace`; end (exclusive) of a range.
    pub fn range_end(kind: Kind, namespace: &str) -> ObjectKey {
        if namespace.is_empty() {
            ObjectKey::from_path(Kind(kind.0 + 1), "")
        } else {
            // '0' is the character after '/'.
            ObjectKey::from_path(kind, &format!("{namespace}0"))
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
