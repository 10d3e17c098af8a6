//! The event heap: what happens next, in virtual time.
//!
//! Events of one moment are ordered by a tie drawn from the seed, so that no run depends on the order in which the
//! code happens to push, and every order is met by some seed.
//!
//! The heap is four-ary, with keys of 16 bytes: the children that a step down compares share a cache line, and there
//! are half as many steps as in a binary heap. Payloads live in a slab and do not move.

use skeg_core::random::mix;

/// The moment, then the tie, then the slot of the payload: one number, so that one comparison orders two events.
type Key = u128;

fn key(at: u64, tie: u32, slot: u32) -> Key {
    u128::from(at) << 64 | u128::from(tie) << 32 | u128::from(slot)
}

fn moment(key: Key) -> u64 {
    (key >> 64) as u64
}

const ARITY: usize = 4;

/// A queue of events by virtual time in nanoseconds.
#[derive(Debug)]
pub struct Heap<E> {
    keys: Vec<Key>,
    slab: Vec<Option<E>>,
    free: Vec<u32>,
    seed: u64,
    pushed: u64,
}

impl<E> Heap<E> {
    /// An empty heap whose ties are drawn from `seed`.
    pub fn new(seed: u64) -> Heap<E> {
        Heap { keys: Vec::new(), slab: Vec::new(), free: Vec::new(), seed, pushed: 0 }
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
        let key = key(at, mix(self.seed, self.pushed) as u32, slot);
        self.keys.push(key);
        self.rise(self.keys.len() - 1, key);
    }

    /// The earliest event and its moment.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        let last = self.keys.pop()?;
        let first = match self.keys.first() {
            Some(first) => {
                let first = *first;
                self.sink(last);
                first
            }
            None => last,
        };
        let slot = first as u32;
        self.free.push(slot);
        let event = self.slab[slot as usize].take().expect("each key has its payload");
        Some((moment(first), event))
    }

    /// Moves a key up from the hole at `at` to its place.
    fn rise(&mut self, mut at: usize, key: Key) {
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.keys[parent] <= key {
                break;
            }
            self.keys[at] = self.keys[parent];
            at = parent;
        }
        self.keys[at] = key;
    }

    /// Puts a key into the hole at the top: the hole goes down to the bottom, where most keys belong that come from
    /// there, and the key rises from it.
    fn sink(&mut self, key: Key) {
        let mut hole = 0;
        loop {
            let first = hole * ARITY + 1;
            let (least, child) = match self.keys.get(first..first + ARITY) {
                Some(&[a, b, c, d]) => {
                    let (ab, cd) = (if a < b { (0, a) } else { (1, b) }, if c < d { (2, c) } else { (3, d) });
                    if ab.1 < cd.1 { ab } else { cd }
                }
                Some(_) | None => match self.keys.get(first..).into_iter().flatten().enumerate().min_by_key(|c| c.1) {
                    Some((least, child)) => (least, *child),
                    None => break,
                },
            };
            self.keys[hole] = child;
            hole = first + least;
        }
        self.rise(hole, key);
    }

    /// The moment of the earliest event, with its tie; for merging with what waits elsewhere.
    pub fn next(&self) -> Option<u128> {
        self.keys.first().map(|key| key >> 32)
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
    use skeg_core::Rng;

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

    #[test]
    fn whatever_comes_and_goes_the_earliest_is_next() {
        let (mut heap, mut rng, mut waiting) = (Heap::new(3), Rng::from_seed(3), Vec::new());
        for _ in 0..20_000 {
            if rng.chance(6, 11) {
                let at = rng.below(500);
                waiting.push(at);
                heap.push(at, at);
            } else {
                let least = waiting.iter().enumerate().min_by_key(|(_, at)| **at).map(|(i, _)| i);
                let expect = least.map(|i| waiting.swap_remove(i));
                assert_eq!(heap.next().map(|key| (key >> 32) as u64), expect);
                assert_eq!(heap.pop(), expect.map(|at| (at, at)));
            }
            assert_eq!((heap.len(), heap.is_empty()), (waiting.len(), waiting.is_empty()));
        }
    }
}
