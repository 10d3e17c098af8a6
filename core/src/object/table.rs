//! A hash table from names to slots, for look-ups only: it has no iteration, so hash order can never leak.
//!
//! Hash and slot are side by side in one array with eight bytes per cell, so that a look-up among a hundred thousand
//! entries has one or two cache misses, where a tree has one per level. Linear probing; deletion shifts entries back.

use crate::read_ahead::touch;

/// The slot number that means "no slot".
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Cell {
    hash: u32,
    slot: u32,
}

const EMPTY: Cell = Cell { hash: 0, slot: NONE };

/// Slots by hash. The owner keeps the entries of the slots, and decides whether a slot has the entry that is looked up.
#[derive(Debug, Default)]
pub(crate) struct Table {
    cells: Vec<Cell>,
    len: usize,
}

impl Table {
    fn mask(&self) -> usize {
        self.cells.len() - 1
    }

    /// Whether the table is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot with this hash for which `is` returns `true`.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let mut at = hash as usize & self.mask();
        loop {
            let cell = self.cells[at];
            if cell.slot == NONE {
                return None;
            }
            if cell.hash == hash && is(cell.slot) {
                return Some(cell.slot);
            }
            at = (at + 1) & self.mask();
        }
    }

    /// The first slot with this hash, most likely the right one; for prefetching.
    pub(crate) fn first(&self, hash: u32) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Prefetches the first cell that a look-up with this hash will read.
    #[inline]
    pub(crate) fn read_ahead(&self, hash: u32) {
        if !self.is_empty() {
            touch(&self.cells[hash as usize & self.mask()].slot);
        }
    }

    /// Adds a slot, which must not be in the table.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        assert!(slot != NONE, "a map holds fewer than four milliards of objects");
        // At most five eighths full, so that probe sequences stay short.
        if (self.len + 1) * 8 > self.cells.len() * 5 {
            self.grow();
        }
        self.len += 1;
        self.place(Cell { hash, slot });
    }

    /// Removes a slot, which must be in the table.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) {
        let mask = self.mask();
        let mut hole = hash as usize & mask;
        while self.cells[hole].slot != slot {
            assert!(self.cells[hole].slot != NONE, "what is removed is there");
            hole = (hole + 1) & mask;
        }
        self.len -= 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let cell = self.cells[at];
            if cell.slot == NONE {
                break;
            }
            // The cell can move back unless its home position is between the hole and itself.
            let home = cell.hash as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.cells[hole] = cell;
                hole = at;
            }
        }
        self.cells[hole] = EMPTY;
    }

    fn place(&mut self, cell: Cell) {
        let mask = self.mask();
        let mut at = cell.hash as usize & mask;
        while self.cells[at].slot != NONE {
            at = (at + 1) & mask;
        }
        self.cells[at] = cell;
    }

    fn grow(&mut self) {
        let wider = vec![EMPTY; (self.cells.len() * 2).max(8)];
        let old = std::mem::replace(&mut self.cells, wider);
        old.into_iter().filter(|c| c.slot != NONE).for_each(|cell| self.place(cell));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Table;
    use crate::random::Rng;

    #[test]
    fn agrees_with_a_tree() {
        let mut rng = Rng::from_seed(1);
        let (mut table, mut tree) = (Table::default(), BTreeMap::new());
        // Few distinct hashes, so that probe sequences collide and wrap around the end.
        let hash = |key: u32| (key % 37).wrapping_mul(0x9E37_79B1);
        for _ in 0..20_000 {
            let key = rng.below(200) as u32;
            if rng.chance(1, 2) && tree.remove(&key).is_some() {
                table.remove(hash(key), key);
            } else if tree.insert(key, ()).is_none() {
                table.insert(hash(key), key);
            }
            let asked = rng.below(200) as u32;
            assert_eq!(table.find(hash(asked), |s| s == asked).is_some(), tree.contains_key(&asked));
        }
        assert_eq!(table.len, tree.len());
    }
}
