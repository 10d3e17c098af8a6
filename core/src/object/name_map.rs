//! A map by name, for look-ups only: it has no iteration, so hash order can never leak.
//!
//! In a tree, a look-up among thousands of node names would compare a dozen strings, each in memory of its own. Here it
//! compares one.

use std::rc::Rc;

use super::table::Table;
use crate::random::{mix_bytes, name_key};

/// Values by name.
#[derive(Debug)]
pub struct NameMap<V> {
    slots: Vec<Option<(Rc<str>, V)>>,
    free: Vec<u32>,
    table: Table,
}

impl<V> Default for NameMap<V> {
    fn default() -> NameMap<V> {
        NameMap { slots: Vec::new(), free: Vec::new(), table: Table::default() }
    }
}

fn hash(name: &str) -> u32 {
    mix_bytes(name_key(), name.as_bytes()) as u32
}

impl<V> NameMap<V> {
    /// Whether the map is empty.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    #[inline(always)]
    fn find(&self, name: &str) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let is = |slot: u32| self.slots[slot as usize].as_ref().is_some_and(|(known, _)| **known == *name);
        self.table.find(hash(name), is).map(|slot| slot as usize)
    }

    /// The value of a name.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&V> {
        self.find(name).and_then(|slot| self.slots[slot].as_ref()).map(|(_, value)| value)
    }

    /// The value of a name, mutably.
    #[inline]
    pub fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        self.find(name).and_then(|slot| self.slots[slot].as_mut()).map(|(_, value)| value)
    }

    /// The value of a name, mutably; inserts the default if there is none.
    pub fn entry(&mut self, name: &str) -> &mut V
    where
        V: Default,
    {
        let slot = self.find(name).unwrap_or_else(|| self.add(Rc::from(name), V::default()));
        self.at_mut(slot)
    }

    /// As [`entry`](Self::entry); a new name is shared instead of copied.
    pub fn entry_of(&mut self, name: &Rc<str>) -> &mut V
    where
        V: Default,
    {
        let slot = self.find(name).unwrap_or_else(|| self.add(Rc::clone(name), V::default()));
        self.at_mut(slot)
    }

    fn at_mut(&mut self, slot: usize) -> &mut V {
        let (_, value) = self.slots[slot].as_mut().expect("a slot that is found is taken");
        value
    }

    /// Sets the value of a name and returns the previous one.
    pub fn insert(&mut self, name: Rc<str>, value: V) -> Option<V> {
        match self.get_mut(&name) {
            Some(known) => Some(std::mem::replace(known, value)),
            None => {
                self.add(name, value);
                None
            }
        }
    }

    fn add(&mut self, name: Rc<str>, value: V) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.table.insert(hash(&name), slot);
        self.slots[slot as usize] = Some((name, value));
        slot as usize
    }

    /// Removes a name and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        let slot = self.find(name)?;
        self.table.remove(hash(name), slot as u32);
        self.free.push(slot as u32);
        self.slots[slot].take().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use super::NameMap;
    use crate::random::Rng;

    #[test]
    fn agrees_with_a_tree() {
        let mut rng = Rng::from_seed(1);
        let (mut map, mut tree) = (NameMap::default(), BTreeMap::new());
        for n in 0..20_000u32 {
            let name: Rc<str> = Rc::from(rng.below(70).to_string());
            match rng.below(4) {
                0 => assert_eq!(map.remove(&name), tree.remove(&name)),
                1 => assert_eq!(map.insert(Rc::clone(&name), n), tree.insert(name, n)),
                2 => {
                    *map.entry(&name) += 1;
                    *tree.entry(name).or_default() += 1;
                }
                _ => assert_eq!(map.get(&name), tree.get(&name)),
            }
            assert_eq!(map.is_empty(), tree.is_empty());
        }
    }
}
