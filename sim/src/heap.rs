//! The event heap: what happens next, in virtual time.
//!
//! Events of one moment are ordered by a tie drawn from the seed, so that no run depends on the order in which the
//! code happens to push, and every order is met by some seed.
//!
//! Most events are messages, which arrive within milliseconds, hundreds at a time when a controller makes its pods.
//! They stand on pages, one a quarter of a millisecond, and only the page whose time has come is sorted (a calendar
//! queue: Brown, CACM 1988). What comes later waits in a heap: four-ary, with keys of 16 bytes, so that the children
//! that a step down compares share a cache line, and there are half as many steps as in a binary heap. Payloads live in
//! a slab and do not move.

use skeg_core::random::mix;

/// The moment, then the tie, then whose it is: one number, so that one comparison orders two.
pub(crate) type Key = u128;

/// A key whose tie is the `drawn`th of the seed.
pub(crate) fn key(at: u64, seed: u64, drawn: u64, whose: u32) -> Key {
    u128::from(at) << 64 | u128::from(mix(seed, drawn) as u32) << 32 | u128::from(whose)
}

/// The moment of a key.
pub(crate) fn moment(key: Key) -> u64 {
    (key >> 64) as u64
}

/// Whose a key is.
pub(crate) fn whose(key: Key) -> u32 {
    key as u32
}

/// After every key.
pub(crate) const NEVER: Key = Key::MAX;

/// A key without whose it is.
pub(crate) fn unowned(key: Key) -> Key {
    key >> 32 << 32
}

const ARITY: usize = 4;

/// A four-ary heap of keys. Each change tells of every key that it puts in a place, for whoever keeps track.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Key>);

impl Keys {
    /// The earliest.
    pub(crate) fn first(&self) -> Option<Key> {
        self.0.first().copied()
    }

    /// Adds a key.
    pub(crate) fn add(&mut self, key: Key, mut put: impl FnMut(usize, Key)) {
        self.0.push(key);
        self.rise(self.0.len() - 1, key, &mut put);
    }

    /// Puts another key in a place, from where it goes to where it belongs.
    pub(crate) fn change(&mut self, place: usize, key: Key, mut put: impl FnMut(usize, Key)) {
        if key < self.0[place] { self.rise(place, key, &mut put) } else { self.sink(place, key, &mut put) }
    }

    /// Takes out the earliest.
    pub(crate) fn take_first(&mut self, put: impl FnMut(usize, Key)) -> Option<Key> {
        let first = self.first()?;
        self.remove(0, put);
        Some(first)
    }

    /// Takes out the key in a place. The hole goes down to the bottom, where most keys belong that come from there, and
    /// the last key rises from it.
    pub(crate) fn remove(&mut self, place: usize, mut put: impl FnMut(usize, Key)) {
        let last = self.0.pop().expect("what is taken out is there");
        if place == self.0.len() {
            return;
        }
        let mut hole = place;
        while let Some((least, child)) = self.least_child(hole) {
            self.put(hole, child, &mut put);
            hole = least;
        }
        self.rise(hole, last, &mut put);
    }

    /// Moves a key up from the hole at `place` to where it belongs.
    fn rise(&mut self, mut place: usize, key: Key, put: &mut impl FnMut(usize, Key)) {
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.0[parent] <= key {
                break;
            }
            self.put(place, self.0[parent], put);
            place = parent;
        }
        self.put(place, key, put);
    }

    /// Moves a key down from the hole at `place` to where it belongs.
    fn sink(&mut self, mut place: usize, key: Key, put: &mut impl FnMut(usize, Key)) {
        while let Some((least, child)) = self.least_child(place).filter(|(_, child)| *child < key) {
            self.put(place, child, put);
            place = least;
        }
        self.put(place, key, put);
    }

    fn least_child(&self, place: usize) -> Option<(usize, Key)> {
        let first = place * ARITY + 1;
        if let Some(&[a, b, c, d]) = self.0.get(first..first + ARITY) {
            let (ab, cd) = (if a < b { (0, a) } else { (1, b) }, if c < d { (2, c) } else { (3, d) });
            let (least, key) = if ab.1 < cd.1 { ab } else { cd };
            return Some((first + least, key));
        }
        let last = self.0.get(first..)?;
        last.iter().enumerate().min_by_key(|(_, key)| **key).map(|(i, key)| (first + i, *key))
    }

    fn put(&mut self, place: usize, key: Key, put: &mut impl FnMut(usize, Key)) {
        self.0[place] = key;
        put(place, key);
    }
}

/// A page is of 2^18 ns.
const PAGE: u32 = 18;
/// How many pages there are, the open one and those that follow it.
const PAGES: u64 = 64;

/// The keys of the next few milliseconds.
#[derive(Debug)]
struct Pages {
    /// The keys up to the end of the open page in order, and how many of them have been taken. What is added is mostly
    /// later than what is there.
    open: Vec<Key>,
    taken: usize,
    /// Number of the open page.
    number: u64,
    /// The keys of the pages that follow, each at its number modulo `PAGES`, and which of them have any.
    closed: Vec<Vec<Key>>,
    used: u64,
}

impl Pages {
    fn new() -> Pages {
        Pages { open: Vec::new(), taken: 0, number: 0, closed: vec![Vec::new(); PAGES as usize], used: 0 }
    }

    /// Adds a key, unless it is for later than the last page.
    fn add(&mut self, key: Key) -> bool {
        let page = moment(key) >> PAGE;
        if page <= self.number {
            let place = self.open[self.taken..].partition_point(|open| *open < key);
            self.open.insert(self.taken + place, key);
        } else if page < self.number + PAGES {
            let place = page % PAGES;
            self.closed[place as usize].push(key);
            self.used |= 1 << place;
        } else {
            return false;
        }
        true
    }

    fn first(&self) -> Option<Key> {
        self.open.get(self.taken).copied()
    }

    fn take_first(&mut self) -> Option<Key> {
        let first = self.first()?;
        self.taken += 1;
        if self.taken == self.open.len() {
            self.open.clear();
            self.taken = 0;
        }
        Some(first)
    }

    /// The number of the next page that has keys.
    fn next(&self) -> Option<u64> {
        let after = self.used.rotate_right((self.number % PAGES) as u32);
        (after != 0).then(|| self.number + u64::from(after.trailing_zeros()))
    }

    /// Opens the page of this number, which is the next that has keys or one before it, with what `later` has for it.
    fn open(&mut self, number: u64, later: &mut Keys) {
        self.number = number;
        let place = number % PAGES;
        self.used &= !(1 << place);
        // The two change places, so that both keep their room.
        std::mem::swap(&mut self.open, &mut self.closed[place as usize]);
        while let Some(key) = later.first().filter(|key| moment(*key) >> PAGE == number) {
            later.take_first(|_, _| {});
            self.open.push(key);
        }
        if self.open.len() > 1 {
            self.open.sort_unstable();
        }
    }
}

/// A queue of events by virtual time in nanoseconds.
#[derive(Debug)]
pub struct Heap<E> {
    soon: Pages,
    later: Keys,
    slab: Vec<Option<E>>,
    free: Vec<u32>,
    seed: u64,
    pushed: u64,
}

impl<E> Heap<E> {
    /// An empty heap whose ties are drawn from `seed`.
    pub fn new(seed: u64) -> Heap<E> {
        Heap { soon: Pages::new(), later: Keys::default(), slab: Vec::new(), free: Vec::new(), seed, pushed: 0 }
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
        let key = key(at, self.seed, self.pushed, slot);
        if !self.soon.add(key) {
            self.later.add(key, |_, _| {});
        }
    }

    /// The earliest event and its moment.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        self.turn(u64::MAX);
        let first = self.soon.take_first()?;
        let slot = whose(first);
        self.free.push(slot);
        let event = self.slab[slot as usize].take().expect("each key has its payload");
        Some((moment(first), event))
    }

    /// The key of the earliest event, but for whose it is; for merging with what waits elsewhere. Need not be told if
    /// it comes after `by`.
    pub(crate) fn next(&mut self, by: u64) -> Key {
        self.turn(by);
        self.soon.first().map_or(NEVER, unowned)
    }

    /// Opens the next page that has keys, once the open one has none, unless it begins after `by`: what is pushed
    /// meanwhile belongs on pages before it.
    fn turn(&mut self, by: u64) {
        if self.soon.open.is_empty() {
            let later = self.later.first().map_or(u64::MAX, |key| moment(key) >> PAGE);
            let number = self.soon.next().map_or(later, |soon| soon.min(later));
            if number <= by >> PAGE {
                self.soon.open(number, &mut self.later);
            }
        }
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{Heap, moment};
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
        for spread in [500, 1 << 20, 1 << 24, 1 << 26, 1 << 40] {
            earliest_is_next(spread);
        }
    }

    /// Pushes at moments that are at most `spread` after the last that was popped.
    fn earliest_is_next(spread: u64) {
        let (mut heap, mut rng, mut waiting) = (Heap::new(3), Rng::from_seed(3), Vec::new());
        let mut now = 0;
        for _ in 0..20_000 {
            if rng.chance(6, 11) {
                let at = now + rng.below(spread);
                waiting.push(at);
                heap.push(at, at);
            } else {
                let least = waiting.iter().enumerate().min_by_key(|(_, at)| **at).map(|(i, _)| i);
                let expect = least.map(|i| waiting.swap_remove(i));
                assert_eq!(Some(moment(heap.next(u64::MAX))).filter(|_| !heap.is_empty()), expect);
                assert_eq!(heap.pop(), expect.map(|at| (at, at)));
                now = expect.unwrap_or(now);
            }
            assert_eq!((heap.len(), heap.is_empty()), (waiting.len(), waiting.is_empty()));
        }
    }
}
