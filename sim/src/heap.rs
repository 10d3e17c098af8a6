//! The event heap: what happens next, in virtual time.
//!
//! Events of one moment are ordered by a tie drawn from the seed, so that no run depends on the order in which the
//! code happens to push, and every order is met by some seed. Payloads live in a slab; the heap moves small keys.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use skeg_core::random::mix;

/// A queue of events by virtual time in nanoseconds.
#[derive(Debug)]
pub struct Heap<E> {
    keys: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slab: Vec<Option<E>>,
    free: Vec<u32>,
    seed: u64,
    pushed: u64,
}

impl<E> Heap<E> {
    /// An empty heap whose ties are drawn from `seed`.
    pub fn new(seed: u64) -> Heap<E> {
        Heap { keys: BinaryHeap::new(), slab: Vec::new(), free: Vec::new(), seed, pushed: 0 }
    }

    /// Adds an event at a moment.
    pub fn push(&mut self, at: u64, event: E) {
        self.pushed += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slab[slot as usize] = Some(event);
                slot
            }
            None => {
                self.slab.push(Some(event));
                (self.slab.len() - 1) as u32
            }
        };
        self.keys.push(Reverse((at, mix(self.seed, self.pushed), slot)));
    }

    /// The earliest event and its moment.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at, _, slot)) = self.keys.pop()?;
        self.free.push(slot);
        let event = self.slab[slot as usize].take().expect("each key has its payload");
        Some((at, event))
    }

    /// The moment of the earliest event.
    pub fn next_at(&self) -> Option<u64> {
        self.keys.peek().map(|Reverse((at, _, _))| *at)
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Heap;

    fn order(seed: u64) -> Vec<u32> {
        let mut heap = Heap::new(seed);
        for n in 0..8 {
            heap.push(5, n);
        }
        heap.push(1, 99);
        std::iter::from_fn(|| heap.pop().map(|(_, n)| n)).collect()
    }

    #[test]
    fn time_orders_and_the_seed_breaks_ties() {
        assert_eq!(order(1)[0], 99);
        assert_eq!(order(1), order(1));
        assert!((2..20).any(|seed| order(seed) != order(1)));
    }
}
