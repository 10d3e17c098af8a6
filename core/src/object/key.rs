//! Object keys: a kind and a path, shared by every index that holds the object.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use super::Kind;
use crate::random::{mix, mix_bytes, name_key};
use crate::read_ahead::touch_shared;

/// The key of an object: its kind and `namespace/name` (only `name` for cluster-scoped kinds).
///
/// The path is reference-counted: the store, every cache and every queue share one copy. Keys of the same kind and
/// namespace are adjacent in the order, so a namespace is a range. The hash is stored in the key, so that look-ups and
/// most comparisons need not read the path.
#[derive(Clone, Eq)]
pub struct ObjectKey {
    path: Rc<str>,
    hash: u32,
    /// Kind of the object.
    pub kind: Kind,
    /// Length of the namespace; zero for cluster-scoped kinds. [`LONG`] means that the namespace ends at the first
    /// slash.
    namespace: u16,
}

/// Stands for a length that does not fit into a `u16`. No valid namespace is that long, but keys are made before names
/// are validated.
const LONG: u16 = u16::MAX;

/// Calls `f` with the concatenation of `parts`. It is built on the stack if it fits, since every look-up by name needs
/// one.
pub(crate) fn joined<T>(parts: &[&str], f: impl FnOnce(&str) -> T) -> T {
    joined_bytes(parts, |bytes| f(std::str::from_utf8(bytes).expect("strings in a row are a string")))
}

fn joined_bytes<T>(parts: &[&str], f: impl FnOnce(&[u8]) -> T) -> T {
    let mut buffer = [0; 192];
    let mut length = 0;
    for part in parts {
        let Some(room) = buffer.get_mut(length..length + part.len()) else { return f(parts.concat().as_bytes()) };
        room.copy_from_slice(part.as_bytes());
        length += part.len();
    }
    f(&buffer[..length])
}

fn with_path<T>(namespace: &str, name: &str, f: impl FnOnce(&str) -> T) -> T {
    if namespace.is_empty() { f(name) } else { joined(&[namespace, "/", name], f) }
}

fn hash_of(kind: Kind, path: &[u8]) -> u32 {
    mix_bytes(mix(name_key(), u64::from(kind.0)), path) as u32
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
        // Most equal keys share one path, so compare the pointers first.
        self.hash == other.hash
            && self.kind == other.kind
            && (Rc::ptr_eq(&self.path, &other.path) || self.path == other.path)
    }
}

impl ObjectKey {
    /// The key of a namespaced object, or of a cluster-scoped one if `namespace` is empty.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> ObjectKey {
        with_path(namespace, name, |path| ObjectKey::build(kind, path, namespace.len()))
    }

    /// The key with a whole path, in the form of [`path`](Self::path).
    pub fn from_path(kind: Kind, path: &str) -> ObjectKey {
        ObjectKey::build(kind, path, path.find('/').unwrap_or(0))
    }

    fn build(kind: Kind, path: &str, namespace: usize) -> ObjectKey {
        let namespace = u16::try_from(namespace).unwrap_or(LONG);
        ObjectKey { kind, hash: hash_of(kind, path.as_bytes()), path: Rc::from(path), namespace }
    }

    /// The hash of the key with these parts. Keys of different kinds with equal paths have different hashes.
    pub(super) fn hash_of_parts(kind: Kind, namespace: &str, name: &str) -> u32 {
        match namespace {
            "" => hash_of(kind, name.as_bytes()),
            _ => joined_bytes(&[namespace, "/", name], |path| hash_of(kind, path)),
        }
    }

    /// The hash, for look-ups only: never order by it.
    pub(super) fn hash(&self) -> u32 {
        self.hash
    }

    /// Kind and hash in one number, for digests. Equal in every run.
    pub(crate) fn digest(&self) -> u64 {
        u64::from(self.kind.0) << 32 | u64::from(self.hash)
    }

    /// Prefetches the memory that cloning it will touch.
    pub fn read_ahead(&self) {
        touch_shared(&self.path);
    }

    /// `namespace/name`, or `name`.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn namespace_len(&self) -> usize {
        match self.namespace {
            LONG => self.path.find('/').unwrap_or(0),
            n => usize::from(n),
        }
    }

    /// The namespace; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        &self.path[..self.namespace_len()]
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        match self.namespace_len() {
            0 => &self.path,
            n => &self.path[n + 1..],
        }
    }

    /// Whether this is the key with these parts.
    pub fn is(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        let path = self.path.as_bytes();
        self.kind == kind
            && path.ends_with(name.as_bytes())
            && match namespace.len() {
                0 => path.len() == name.len(),
                n => path.len() == n + 1 + name.len() && path[n] == b'/' && path.starts_with(namespace.as_bytes()),
            }
    }

    /// The smallest possible key of `kind` in `namespace` (in all namespaces if it is empty): the start of a range.
    pub fn range_start(kind: Kind, namespace: &str) -> ObjectKey {
        if namespace.is_empty() {
            ObjectKey::from_path(kind, "")
        } else {
            ObjectKey::from_path(kind, &format!("{namespace}/"))
        }
    }

    /// The first key after all keys of `kind` in `namespace`: the exclusive end of a range.
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

#[cfg(test)]
mod tests {
    use super::ObjectKey;
    use crate::object::Kind;

    #[test]
    fn parts_and_path_are_one_key() {
        let long = "n".repeat(70_000);
        for (namespace, name) in [("", "a"), ("a", "b"), ("", ""), (&*long, "b"), ("a", &*long), ("ä", "ö")] {
            let key = ObjectKey::new(Kind::POD, namespace, name);
            assert_eq!((key.namespace(), key.name()), (namespace, name));
            assert!(key.is(Kind::POD, namespace, name) && !key.is(Kind::NODE, namespace, name));
            assert_eq!(key, ObjectKey::from_path(Kind::POD, key.path()));
            assert_eq!(key.hash(), ObjectKey::hash_of_parts(Kind::POD, namespace, name));
            assert_ne!(key, ObjectKey::new(Kind::NODE, namespace, name));
        }
        assert_eq!(size_of::<ObjectKey>(), 24);
    }
}
