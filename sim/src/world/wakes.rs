//! When each process is to be woken, and what the next few wake-ups will touch.
//!
//! Most of what happens in a large cluster at rest is that agents wake and beat, thousands of them in turn. Each
//! process has one wake-up, which moves when its deadline does. The next few are taken from the heap together, so that
//! what they will touch can be read together.

use std::collections::VecDeque;

use skeg_core::object::ObjectKey;
use skeg_core::random::mix;
use skeg_core::read_ahead::touch;

use super::World;
use crate::process::Running;

/// How many wake-ups are taken from the heap together.
const AHEAD: usize = 32;
/// Clusters of fewer nodes stay in the processor's cache by themselves.
const LARGE: usize = 400;

/// The moment, then a tie drawn from the seed, then the process: one number, so that one comparison orders two.
type Key = u128;

const ARITY: usize = 4;

/// Where the wake-up of a process is: at a place of the heap, or one of these.
const NOWHERE: u32 = u32::MAX;
const SOON: u32 = u32::MAX - 1;

/// Wake-ups by virtual time in nanoseconds, one a process.
#[derive(Debug)]
pub(super) struct Wakes {
    /// A heap of four children a node, as [`Heap`](crate::heap::Heap) has, that knows where each process is in it.
    keys: Vec<Key>,
    places: Vec<u32>,
    /// The next few, in order, as they were when they were taken out. What is set meanwhile may come before.
    soon: VecDeque<Key>,
    seed: u64,
    drawn: u64,
}

fn process_of(key: Key) -> u32 {
    key as u32
}

impl Wakes {
    pub(super) fn new(seed: u64, processes: usize) -> Wakes {
        Wakes { keys: Vec::new(), places: vec![NOWHERE; processes], soon: VecDeque::new(), seed, drawn: 0 }
    }

    /// Sets the moment of a process's wake-up, whether it had one or not.
    pub(super) fn set(&mut self, at: u64, process: u32) {
        self.drawn += 1;
        let tie = mix(self.seed, self.drawn) as u32;
        let key = u128::from(at) << 64 | u128::from(tie) << 32 | u128::from(process);
        match self.places[process as usize] {
            NOWHERE => self.add(key),
            SOON => {
                self.soon.retain(|k| process_of(*k) != process);
                self.add(key);
            }
            place if key < self.keys[place as usize] => self.rise(place as usize, key),
            place => self.sink(place as usize, key),
        }
    }

    /// Takes a process's wake-up away, if it has one.
    pub(super) fn clear(&mut self, process: u32) {
        match self.places[process as usize] {
            NOWHERE => return,
            SOON => self.soon.retain(|k| process_of(*k) != process),
            place => self.remove(place as usize),
        }
        self.places[process as usize] = NOWHERE;
    }

    /// The moment of the next, with its tie.
    pub(super) fn next(&self) -> Option<u128> {
        let first = match (self.soon.front(), self.keys.first()) {
            (Some(soon), Some(first)) => Some(soon.min(first)),
            (soon, first) => soon.or(first),
        };
        first.map(|key| key >> 32)
    }

    /// The next process to be woken, and when.
    pub(super) fn pop(&mut self) -> Option<(u64, u32)> {
        let from_heap = match (self.soon.front(), self.keys.first()) {
            (Some(soon), Some(first)) => first < soon,
            (soon, _) => soon.is_none(),
        };
        let key = if from_heap { self.take_first() } else { self.soon.pop_front() }?;
        self.places[process_of(key) as usize] = NOWHERE;
        Some(((key >> 64) as u64, process_of(key)))
    }

    /// Takes out the next few.
    fn take_ahead(&mut self) {
        while self.soon.len() < AHEAD
            && let Some(key) = self.take_first()
        {
            self.places[process_of(key) as usize] = SOON;
            self.soon.push_back(key);
        }
    }

    fn take_first(&mut self) -> Option<Key> {
        let first = *self.keys.first()?;
        self.remove(0);
        Some(first)
    }

    fn add(&mut self, key: Key) {
        self.keys.push(key);
        self.rise(self.keys.len() - 1, key);
    }

    fn remove(&mut self, place: usize) {
        let last = self.keys.pop().expect("what is removed is there");
        if place < self.keys.len() {
            // The hole goes down to the bottom, where the last key comes from, and the key rises from it.
            let mut hole = place;
            while let Some((least, child)) = self.least_child(hole) {
                self.put(hole, child);
                hole = least;
            }
            self.rise(hole, last);
        }
    }

    /// Moves a key up from the hole at `place` to where it belongs.
    fn rise(&mut self, mut place: usize, key: Key) {
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.keys[parent] <= key {
                break;
            }
            self.put(place, self.keys[parent]);
            place = parent;
        }
        self.put(place, key);
    }

    /// Moves a key down from the hole at `place` to where it belongs.
    fn sink(&mut self, mut place: usize, key: Key) {
        while let Some((least, child)) = self.least_child(place).filter(|(_, child)| *child < key) {
            self.put(place, child);
            place = least;
        }
        self.put(place, key);
    }

    fn least_child(&self, place: usize) -> Option<(usize, Key)> {
        let first = place * ARITY + 1;
        if let Some(&[a, b, c, d]) = self.keys.get(first..first + ARITY) {
            let (ab, cd) = (if a < b { (0, a) } else { (1, b) }, if c < d { (2, c) } else { (3, d) });
            let (least, key) = if ab.1 < cd.1 { ab } else { cd };
            return Some((first + least, key));
        }
        let last = self.keys.get(first..)?;
        last.iter().enumerate().min_by_key(|(_, key)| **key).map(|(i, key)| (first + i, *key))
    }

    fn put(&mut self, place: usize, key: Key) {
        self.keys[place] = key;
        self.places[process_of(key) as usize] = place as u32;
    }
}

impl World {
    /// Once the last few wake-ups have come, reads what the next few will touch.
    pub(super) fn read_ahead(&mut self) {
        if !self.wakes.soon.is_empty() || self.nodes.len() < LARGE {
            return;
        }
        self.wakes.take_ahead();
        // Step by step and each for all, since each step's addresses come from the one before.
        let soon = || self.wakes.soon.iter().map(|key| &self.processes[process_of(*key) as usize]);
        soon().for_each(|process| touch(&process.life));
        let mut leases: [Option<&ObjectKey>; AHEAD] = [None; AHEAD];
        for (process, lease) in soon().zip(&mut leases) {
            if let Some(Running::Agent(agent)) = &process.running {
                *lease = agent.read_ahead();
            }
        }
        for key in leases.into_iter().flatten() {
            key.read_ahead();
            self.store.read_ahead(key);
        }
        for process in &self.processes[..self.control] {
            match &process.running {
                Some(Running::Api(api)) => leases.into_iter().flatten().for_each(|key| api.read_ahead(key)),
                Some(Running::Manager(manager)) => leases.into_iter().flatten().for_each(|key| manager.read_ahead(key)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Wakes;
    use skeg_core::Rng;

    #[test]
    fn whatever_is_set_cleared_and_taken_ahead_the_earliest_is_next() {
        let (mut wakes, mut rng) = (Wakes::new(3, 60), Rng::from_seed(3));
        let mut waiting = [None; 60];
        for _ in 0..30_000 {
            let process = rng.below(60) as u32;
            match rng.below(8) {
                0..5 => {
                    let at = rng.below(500);
                    waiting[process as usize] = Some(at);
                    wakes.set(at, process);
                }
                5 => {
                    waiting[process as usize] = None;
                    wakes.clear(process);
                }
                _ => {
                    let least = waiting.iter().flatten().min().copied();
                    assert_eq!(wakes.next().map(|key| (key >> 32) as u64), least);
                    let woken = wakes.pop();
                    assert_eq!(woken.map(|(at, _)| at), least);
                    if let Some((at, process)) = woken {
                        assert_eq!(waiting[process as usize].take(), Some(at));
                    }
                }
            }
            if wakes.soon.is_empty() && rng.chance(1, 4) {
                wakes.take_ahead();
            }
        }
    }

    #[test]
    fn the_seed_breaks_ties() {
        let order = |seed| {
            let mut wakes = Wakes::new(seed, 8);
            (0..8).for_each(|process| wakes.set(5, process));
            std::iter::from_fn(|| wakes.pop().map(|(_, process)| process)).collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert!((2..20).any(|seed| order(seed) != order(1)));
    }
}
