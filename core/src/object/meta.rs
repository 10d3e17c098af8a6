//! Metadata as it is held inside: with the object's key, made once.

use std::ops::Deref;
use std::sync::OnceLock;

use super::{Kind, ObjectKey, ObjectMeta};

/// Metadata without the resource version, and the key that follows from it. All versions of an object whose metadata
/// stays share one, and so one copy of the key: stores, caches and views then know each other's keys by address.
#[derive(Debug, Default)]
pub struct Meta {
    meta: ObjectMeta,
    key: OnceLock<ObjectKey>,
}

impl Meta {
    /// The key of the object of this kind that has this metadata.
    pub fn key(&self, kind: Kind) -> &ObjectKey {
        let make = || {
            ObjectKey::new(kind, self.meta.namespace.as_deref().unwrap_or(""), self.meta.name.as_deref().unwrap_or(""))
        };
        let key = self.key.get_or_init(make);
        assert!(key.kind == kind, "metadata of a {} is held as that of a {kind}", key.kind);
        key
    }

    /// Takes a copy of the key that others hold already, unless it has made one: that is slower, and no less right.
    pub(crate) fn share_key(&self, key: &ObjectKey) {
        self.key.get_or_init(|| {
            let (namespace, name) = (self.meta.namespace.as_deref(), self.meta.name.as_deref());
            let fits = key.is(key.kind, namespace.unwrap_or(""), name.unwrap_or(""));
            assert!(fits, "{key} is not the key of {namespace:?} {name:?}");
            key.clone()
        });
    }

    /// For writing; the key is made anew afterwards, since the name may change.
    pub fn edit(&mut self) -> &mut ObjectMeta {
        self.key.take();
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
        Meta { meta, key: OnceLock::new() }
    }
}

impl PartialEq for Meta {
    fn eq(&self, other: &Meta) -> bool {
        self.meta == other.meta
    }
}

impl Deref for Meta {
    type Target = ObjectMeta;

    fn deref(&self) -> &ObjectMeta {
        &self.meta
    }
}
