//! Metadata inside Skeg: with the object's key, which is made only once.

use std::cell::OnceCell;
use std::ops::Deref;

use super::{Kind, ObjectKey, ObjectMeta};

/// Metadata without the resource version, and facts derived from it. Versions of an object with unchanged metadata
/// share one `Meta`, and with it one copy of the key. Stores, caches and views can then compare keys by address.
///
/// The facts that most readers need come first, beside the reference count, so that they are in the same cache line.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Meta {
    facts: OnceCell<Facts>,
    meta: ObjectMeta,
}

/// Facts derived from the metadata.
#[derive(Debug)]
struct Facts {
    key: ObjectKey,
    is_deleting: bool,
    has_finalizers: bool,
}

impl Facts {
    fn of(meta: &ObjectMeta, key: ObjectKey) -> Facts {
        Facts { key, is_deleting: is_deleting(meta), has_finalizers: has_finalizers(meta) }
    }
}

fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

fn has_finalizers(meta: &ObjectMeta) -> bool {
    meta.finalizers.as_ref().is_some_and(|f| !f.is_empty())
}

impl Meta {
    /// The key of the object with this metadata, which must be of the given kind.
    pub fn key(&self, kind: Kind) -> &ObjectKey {
        let make = || {
            let (namespace, name) = (self.meta.namespace.as_deref(), self.meta.name.as_deref());
            Facts::of(&self.meta, ObjectKey::new(kind, namespace.unwrap_or(""), name.unwrap_or("")))
        };
        let key = &self.facts.get_or_init(make).key;
        assert!(key.kind == kind, "metadata of a {} is held as that of a {kind}", key.kind);
        key
    }

    /// Uses a clone of a key that others hold already. Does nothing if the key has been made before: comparing it is
    /// slower then, but still correct.
    pub(crate) fn share_key(&self, key: &ObjectKey) {
        self.facts.get_or_init(|| {
            let (namespace, name) = (self.meta.namespace.as_deref(), self.meta.name.as_deref());
            let fits = key.is(key.kind, namespace.unwrap_or(""), name.unwrap_or(""));
            assert!(fits, "{key} is not the key of {namespace:?} {name:?}");
            Facts::of(&self.meta, key.clone())
        });
    }

    /// Whether `deletionTimestamp` is set.
    pub fn is_deleting(&self) -> bool {
        self.facts.get().map_or_else(|| is_deleting(&self.meta), |facts| facts.is_deleting)
    }

    /// Whether there is at least one finalizer.
    pub fn has_finalizers(&self) -> bool {
        self.facts.get().map_or_else(|| has_finalizers(&self.meta), |facts| facts.has_finalizers)
    }

    /// Metadata for writing. Discards the derived facts; they are computed again when they are next read.
    pub fn edit(&mut self) -> &mut ObjectMeta {
        self.facts.take();
        &mut self.meta
    }
}

impl Clone for Meta {
    fn clone(&self) -> Meta {
        Meta::from(self.meta.clone())
    }
}

impl From<ObjectMeta> for Meta {
    fn from(meta: ObjectMeta) -> Meta {
        Meta { facts: OnceCell::new(), meta }
    }
}

impl PartialEq for Meta {
    fn eq(&self, other: &Meta) -> bool {
        std::ptr::eq(self, other) || self.meta == other.meta
    }
}

impl Deref for Meta {
    type Target = ObjectMeta;

    fn deref(&self) -> &ObjectMeta {
        &self.meta
    }
}
