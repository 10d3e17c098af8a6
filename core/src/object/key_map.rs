//! A map by object key: found by hash, walked in the order of the keys.
//!
//! A change of an entry costs the same however many others there are, and so does its coming and going as long as
//! nobody walks: the tree that gives the order takes in what has come since the last walk when the next one begins.
//! Nothing is ever walked in hash order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeBounds;

use super::table::Table;
use super::{Kind, ObjectKey};
use crate::read_ahead::{Step, touch};

/// Values by [`ObjectKey`]. Each has a slot, a small number that stays its own until it is taken out.
#[derive(Debug)]
pub struct KeyMap<V> {
    slots: Vec<Slot<V>>,
    free: Vec<u32>,
    table: Table,
    order: RefCell<Order>,
}

/// An entry, or none. One of 56 bytes, as those of objects are, would mostly stand across two lines of the processor's
/// cache; so aligned it stands in one wherever the allocator lets large blocks begin with a line.
#[derive(Debug)]
#[repr(align(32))]
struct Slot<V>(Option<(ObjectKey, V)>);

/// The order of the keys, as far as somebody has walked in it. To compare two keys reads both names, in memory that
/// nobody may have looked at for long, and many a pod comes and goes between two walks.
#[derive(Debug, Default)]
struct Order {
    tree: BTreeMap<ObjectKey, u32>,
    /// Slots that have been filled since the last walk; they may be empty again.
    fresh: Vec<u32>,
    /// Where each slot stands.
    places: Vec<Place>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Nowhere,
    Fresh,
    Tree,
}

impl Order {
    /// A slot has been filled.
    fn add(&mut self, slot: u32) {
        let index = slot as usize;
        self.places.resize(self.places.len().max(index + 1), Place::Nowhere);
        if self.places[index] == Place::Nowhere {
            self.places[index] = Place::Fresh;
            self.fresh.push(slot);
        }
    }

    /// A slot has been emptied.
    fn remove(&mut self, slot: u32, key: &ObjectKey) {
        if self.places[slot as usize] == Place::Tree {
            self.tree.remove(key);
            self.places[slot as usize] = Place::Nowhere;
        }
    }

    /// Takes the fresh slots into the tree; `key` tells what is in them.
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        self.slots[slot as usize].0.as_ref().expect("a slot that is found is taken")
    }

    /// What is in a slot, to be changed. Panics if nothing is.
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

    /// The value of a key, to be changed.
    #[inline]
    pub fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut V> {
        self.slot_of(key).map(|slot| self.at_mut(slot).1)
    }

    /// Reads what a look-up of this key will touch here; answers, after that, most likely its value.
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

    /// Removes a key; answers what was there.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<V> {
        self.slot_of(key).map(|slot| self.take(slot).1)
    }

    /// Empties a slot. Panics if nothing is in it.
    pub fn take(&mut self, slot: u32) -> (ObjectKey, V) {
        let (key, value) = self.slots[slot as usize].0.take().expect("a slot that is found is taken");
        self.table.remove(key.hash(), slot);
        self.order.get_mut().remove(slot, &key);
        self.free.push(slot);
        (key, value)
    }

    /// All entries in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &V)> {
        self.range(..)
    }

    /// All entries in order of their slots, which is that of their arrival where none has left.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&ObjectKey, &mut V)> {
        self.slots.iter_mut().filter_map(|slot| slot.0.as_mut()).map(|(key, value)| (&*key, value))
    }

    /// The entries of a range in order of their keys.
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
