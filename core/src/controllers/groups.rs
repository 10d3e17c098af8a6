//! Sets of values by key, kept up to date change by change: what a controller remembers of its views.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use crate::object::{ObjectKey, Pod};
use crate::volume::claims;

/// See the module's documentation. There is no empty set.
#[derive(Debug, PartialEq)]
pub(super) struct Groups<K, V>(BTreeMap<K, BTreeSet<V>>);

impl<K, V> Default for Groups<K, V> {
    fn default() -> Groups<K, V> {
        Groups(BTreeMap::new())
    }
}

impl<K: Ord, V: Ord> Groups<K, V> {
    /// Adds a value (`there`), or removes it.
    pub(super) fn put(&mut self, key: K, value: V, there: bool) {
        if there {
            self.0.entry(key).or_default().insert(value);
        } else if let Some(group) = self.0.get_mut(&key) {
            group.remove(&value);
            if group.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    /// The values of a key; `None` if there are none.
    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&BTreeSet<V>>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }
}

impl Groups<ObjectKey, ObjectKey> {
    /// Adds a pod to the users of its claims (`there`), or removes it.
    pub(super) fn put_user(&mut self, pod: &Pod, there: bool) {
        claims(pod).for_each(|(claim, _)| self.put(claim, pod.key(), there));
    }
}
