//! Metadata as it is held inside: with the object's key, made once.

use std::cell::OnceCell;
use std::ops::Deref;

use super::{Kind, ObjectKey, ObjectMeta};

/// Metadata without the resource version, and what follows from it. All versions of an object whose metadata stays
/// share one, and so one copy of the key: stores, caches and views then know each other's keys by address.
///
/// What most readers ask comes first, beside the counter of the `Rc`: they touch one line of the processor's cache.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Meta {
    facts: OnceCell<Facts>,
    meta: ObjectMeta,
}

/// What follows from metadata.
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
    /// The key of the object of this kind that has this metadata.
    pub fn key(&self, kind: Kind) -> &ObjectKey {
        let make = || {
            let (namespace, name) = (self.meta.namespace.as_deref(), self.meta.name.as_deref());
            Facts::of(&self.meta, ObjectKey::new(kind, namespace.unwrap_or(""), name.unwrap_or("")))
        };
        let key = &self.facts.get_or_init(make).key;
        assert!(key.kind == kind, "metadata of a {} is held as that of a {kind}", key.kind);
        key
    }

    /// Takes a copy of the key that others hold already, unless it has made one: that is slower, and no less right.
    pub(crate) fn share_key(&self, key: &ObjectKey) {
        self.facts.get_or_init(|| {
            let (namespace, name) = (self.meta.namespace.as_deref(), self.meta.name.as_deref());
            let fits = key.is(key.kind, namespace.unwrap_or(""), name.unwrap_or(""));
            assert!(fits, "{key} is not the key of {namespace:?} {name:?}");
            Facts::of(&self.meta, key.clone())
        });
    }

    /// Whether deletion has been asked for.
    pub fn is_deleting(&self) -> bool {
        self.facts.get().map_or_else(|| is_deleting(&self.meta), |facts| facts.is_deleting)
    }

    /// Whether a finalizer holds the object.
    pub fn has_finalizers(&self) -> bool {
        self.facts.get().map_or_else(|| has_finalizers(&self.meta), |facts| facts.has_finalizers)
    }

    /// For writing; what follows from it is found anew afterwards.
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
