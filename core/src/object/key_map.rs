//! A map by object key: found by hash, walked in the order of the keys.
//!
//! A change of an entry costs the same however many others there are: only comings and goings touch the tree that
//! gives the order. Nothing is ever walked in hash order.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use super::table::Table;
use super::{Kind, ObjectKey};

/// Values by [`ObjectKey`]. Each has a slot, a small number that stays its own until it is taken out.
#[derive(Debug)]
pub struct KeyMap<V> {
    slots: Vec<Option<(ObjectKey, V)>>,
    free: Vec<u32>,
    table: Table,
    order: BTreeMap<ObjectKey, u32>,
}

impl<V> Default for KeyMap<V> {
    fn default() -> KeyMap<V> {
        KeyMap { slots: Vec::new(), free: Vec::new(), table: Table::default(), order: BTreeMap::new() }
    }
}

impl<V> KeyMap<V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The slot of a key, by its parts.
    pub fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<u32> {
        self.table
            .find(ObjectKey::hash_of_parts(kind, namespace, name), |slot| self.at(slot).0.is(kind, namespace, name))
    }

    /// The slot of a key.
    #[inline(always)]
    pub fn slot_of(&self, key: &ObjectKey) -> Option<u32> {
        self.table.find(key.hash(), |slot| self.at(slot).0 == *key)
    }

    /// What is in a slot. Panics if nothing is.
    #[inline(always)]
    pub fn at(&self, slot: u32) -> &(ObjectKey, V) {
        self.slots[slot as usize].as_ref().expect("a slot that is found is taken")
    }

    /// What is in a slot, to be changed. Panics if nothing is.
    #[inline(always)]
    pub fn at_mut(&mut self, slot: u32) -> (&ObjectKey, &mut V) {
        let (key, value) = self.slots[slot as usize].as_mut().expect("a slot that is found is taken");
        (key, value)
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &ObjectKey) -> Option<&V> {
        self.slot_of(key).map(|slot| &self.at(slot).1)
    }

    /// The value of a key, to be changed.
    #[inline]
    pub fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut V> {
        self.slot_of(key).map(|slot| self.at_mut(slot).1)
    }

    /// Most likely the value of a key: for a look ahead, which may as well see another.
    #[inline]
    pub fn peek(&self, key: &ObjectKey) -> Option<&V> {
        self.table.first(key.hash()).and_then(|slot| self.slots[slot as usize].as_ref()).map(|(_, value)| value)
    }

    /// The map's own copy of a key, and its value.
    pub fn get_key_value(&self, key: &ObjectKey) -> Option<(&ObjectKey, &V)> {
        self.slot_of(key).map(|slot| {
            let (key, value) = self.at(slot);
            (key, value)
        })
    }

    /// Puts a value; answers what was there. The key that was there first stays.
    #[inline]
    pub fn insert(&mut self, key: ObjectKey, value: V) -> Option<V> {
        self.put(&key, value)
    }

    /// As [`insert`](Self::insert), with a copy of the key where it is new.
    #[inline(always)]
    pub fn put(&mut self, key: &ObjectKey, value: V) -> Option<V> {
        match self.slot_of(key) {
            Some(slot) => Some(std::mem::replace(self.at_mut(slot).1, value)),
            None => {
                self.insert_new(key.clone(), value);
                None
            }
        }
    }

    /// Adds a key that is not there; answers its slot.
    pub fn insert_new(&mut self, key: ObjectKey, value: V) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.table.insert(key.hash(), slot);
        let known = self.order.insert(key.clone(), slot);
        assert!(known.is_none(), "{key} is there already");
        self.slots[slot as usize] = Some((key, value));
        slot
    }

    /// Removes a key; answers what was there.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<V> {
        self.slot_of(key).map(|slot| self.take(slot).1)
    }

    /// Empties a slot. Panics if nothing is in it.
    pub fn take(&mut self, slot: u32) -> (ObjectKey, V) {
        let (key, value) = self.slots[slot as usize].take().expect("a slot that is found is taken");
        self.table.remove(key.hash(), slot);
        self.order.remove(&key);
        self.free.push(slot);
        (key, value)
    }

    /// All entries in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &V)> {
        self.order.values().map(|slot| {
            let (key, value) = self.at(*slot);
            (key, value)
        })
    }

    /// All entries in order of their slots, which is that of their arrival where none has left.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&ObjectKey, &mut V)> {
        self.slots.iter_mut().flatten().map(|(key, value)| (&*key, value))
    }

    /// The entries of a range in order of their keys.
    pub fn range<R: RangeBounds<ObjectKey>>(
        &self,
        range: R,
    ) -> impl DoubleEndedIterator<Item = (&ObjectKey, &V)> + use<'_, R, V> {
        self.order.range(range).map(|(_, slot)| {
            let (key, value) = self.at(*slot);
            (key, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::KeyMap;
    use crate::object::{Kind, ObjectKey};
    use crate::random::Rng;

    #[test]
    fn agrees_with_a_tree() {
        let mut rng = Rng::from_seed(1);
        let (mut map, mut tree) = (KeyMap::default(), BTreeMap::new());
        for n in 0..20_000u32 {
            let namespace = ["", "a", "b"][rng.below(3) as usize];
            let key = ObjectKey::new(Kind::POD, namespace, &rng.below(50).to_string());
            match rng.below(3) {
                0 => assert_eq!(map.remove(&key), tree.remove(&key)),
                1 => assert_eq!(map.insert(key.clone(), n), tree.insert(key, n)),
                _ => {
                    assert_eq!(map.get(&key), tree.get(&key));
                    let slot = map.find(key.kind, key.namespace(), key.name());
                    assert_eq!(slot.map(|s| map.at(s).1), tree.get(&key).copied());
                }
            }
            assert_eq!(map.len(), tree.len());
        }
        assert!(map.iter().eq(tree.iter()));
        let (from, to) = (ObjectKey::range_start(Kind::POD, "a"), ObjectKey::range_end(Kind::POD, "a"));
        assert!(map.range(&from..&to).eq(tree.range(&from..&to)));
    }
}
