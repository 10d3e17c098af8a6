//! A map by object key: look-ups use a hash table, iteration is in key order.
//!
//! Changing a value costs the same however many entries there are. So do insertion and removal while nobody iterates:
//! new entries are put into the ordered tree only when the next iteration begins. Iteration never uses hash order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeBounds;

use super::table::Table;
use super::{Kind, ObjectKey};
use crate::read_ahead::{Step, touch};

/// Values by [`ObjectKey`]. Each entry has a slot, a small number that does not change until the entry is removed.
#[derive(Debug)]
pub struct KeyMap<V> {
    slots: Vec<Slot<V>>,
    free: Vec<u32>,
    table: Table,
    order: RefCell<Order>,
}

/// An entry; `None` if the slot is empty. A map of objects has entries of 56 bytes, most of which would straddle two
/// cache lines. With this alignment an entry is in a single line, if the allocator aligns large blocks to lines.
#[derive(Debug)]
#[repr(align(32))]
struct Slot<V>(Option<(ObjectKey, V)>);

/// The order of the keys, kept up to date only as of the last iteration. Comparing two keys reads both paths, which are
/// usually not in the cache, and many pods are created and deleted between two iterations.
#[derive(Debug, Default)]
struct Order {
    tree: BTreeMap<ObjectKey, u32>,
    /// Slots that have been filled since the last iteration. Some may be empty again.
    fresh: Vec<u32>,
    /// For each slot, whether it is in `fresh`, in `tree` or in neither.
    places: Vec<Place>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Nowhere,
    Fresh,
    Tree,
}

impl Order {
    /// Records that a slot has been filled.
    fn add(&mut self, slot: u32) {
        let index = slot as usize;
        self.places.resize(self.places.len().max(index + 1), Place::Nowhere);
        if self.places[index] == Place::Nowhere {
            self.places[index] = Place::Fresh;
            self.fresh.push(slot);
        }
    }

    /// Records that a slot has been emptied.
    fn remove(&mut self, slot: u32, key: &ObjectKey) {
        if self.places[slot as usize] == Place::Tree {
            self.tree.remove(key);
            self.places[slot as usize] = Place::Nowhere;
        }
    }

    /// Moves the fresh slots into the tree; `key` gives the key in a slot.
    fn settle<'a>(&mut self, key: impl Fn(u32) -> Option<&'a ObjectKey>) {
        for slot in self.fresh.drain(..) {
            let key = key(slot);
            self.places[slot as usize] = if key.is_some() { Place::Tree } else { Place::Nowhere };
            let known = key.and_then(|key| self.tree.insert(key.clone(), slot));
            assert!(known.is_none(), "a key stands in one slot");
        }
    }
}

impl<V> Default for KeyMap<V> {
    fn default() -> KeyMap<V> {
        KeyMap { slots: Vec::new(), free: Vec::new(), table: Table::default(), order: RefCell::default() }
    }
}

impl<V> KeyMap<V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slot of the key with these parts.
    pub fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<u32> {
        self.table
            .find(ObjectKey::hash_of_parts(kind, namespace, name), |slot| self.at(slot).0.is(kind, namespace, name))
    }

    /// The slot of a key.
    #[inline(always)]
    pub fn slot_of(&self, key: &ObjectKey) -> Option<u32> {
        self.table.find(key.hash(), |slot| self.at(slot).0 == *key)
    }

    /// The entry in a slot. Panics if the slot is empty.
    #[inline(always)]
    pub fn at(&self, slot: u32) -> &(ObjectKey, V) {
        self.slots[slot as usize].0.as_ref().expect("a slot that is found is taken")
    }

    /// The entry in a slot, mutably. Panics if the slot is empty.
    #[inline(always)]
    pub fn at_mut(&mut self, slot: u32) -> (&ObjectKey, &mut V) {
        let (key, value) = self.slots[slot as usize].0.as_mut().expect("a slot that is found is taken");
        (key, value)
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &ObjectKey) -> Option<&V> {
        self.slot_of(key).map(|slot| &self.at(slot).1)
    }

    /// The value of a key, mutably.
    #[inline]
    pub fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut V> {
        self.slot_of(key).map(|slot| self.at_mut(slot).1)
    }

    /// Prefetches what a look-up of this key will read in this map. In a later step it may return a value, most likely
    /// the key's.
    #[inline]
    pub fn read_ahead(&self, key: &ObjectKey, step: Step) -> Option<&V> {
        if step == Step::Cell {
            self.table.read_ahead(key.hash());
            return None;
        }
        let entry = &self.slots[self.table.first(key.hash())? as usize].0;
        if step == Step::Entry {
            touch(&entry.is_some());
            return None;
        }
        entry.as_ref().map(|(_, value)| value)
    }

    /// The map's own copy of a key, and its value.
    pub fn get_key_value(&self, key: &ObjectKey) -> Option<(&ObjectKey, &V)> {
        self.slot_of(key).map(|slot| {
            let (key, value) = self.at(slot);
            (key, value)
        })
    }

    /// Inserts a value and returns the previous one. A key that is already in the map is kept.
    #[inline]
    pub fn insert(&mut self, key: ObjectKey, value: V) -> Option<V> {
        self.put(&key, value)
    }

    /// As [`insert`](Self::insert); clones the key only if it is new.
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

    /// Adds a key, which must not be in the map, and returns its slot.
    pub fn insert_new(&mut self, key: ObjectKey, value: V) -> u32 {
        assert!(self.slot_of(&key).is_none(), "{key} is there already");
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot(None));
            self.slots.len() as u32 - 1
        });
        self.table.insert(key.hash(), slot);
        self.order.get_mut().add(slot);
        self.slots[slot as usize].0 = Some((key, value));
        slot
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<V> {
        self.slot_of(key).map(|slot| self.take(slot).1)
    }

    /// Empties a slot and returns its entry. Panics if the slot is empty.
    pub fn take(&mut self, slot: u32) -> (ObjectKey, V) {
        let (key, value) = self.slots[slot as usize].0.take().expect("a slot that is found is taken");
        self.table.remove(key.hash(), slot);
        self.order.get_mut().remove(slot, &key);
        self.free.push(slot);
        (key, value)
    }

    /// All entries in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &V)> {
        self.range(..)
    }

    /// All entries in slot order, which is the order of insertion if nothing has been removed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&ObjectKey, &mut V)> {
        self.slots.iter_mut().filter_map(|slot| slot.0.as_mut()).map(|(key, value)| (&*key, value))
    }

    /// The entries of a range in key order.
    pub fn range<R: RangeBounds<ObjectKey>>(
        &self,
        range: R,
    ) -> impl DoubleEndedIterator<Item = (&ObjectKey, &V)> + use<'_, R, V> {
        let mut order = self.order.borrow_mut();
        order.settle(|slot| self.slots[slot as usize].0.as_ref().map(|(key, _)| key));
        let slots: Vec<u32> = order.tree.range(range).map(|(_, slot)| *slot).collect();
        slots.into_iter().map(|slot| {
            let (key, value) = self.at(slot);
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
            assert_eq!((map.len(), map.is_empty()), (tree.len(), tree.is_empty()));
            if rng.chance(1, 20) {
                assert!(map.iter().eq(tree.iter()));
            }
        }
        assert!(map.iter().eq(tree.iter()));
        let (from, to) = (ObjectKey::range_start(Kind::POD, "a"), ObjectKey::range_end(Kind::POD, "a"));
        assert!(map.range(&from..&to).eq(tree.range(&from..&to)));
    }
}
