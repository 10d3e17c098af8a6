//! When each process is to be woken, and what the next few wake-ups will touch.
//!
//! Most of what happens in a large cluster at rest is that agents wake and beat, thousands of them in turn. Each
//! process has one wake-up, which moves when its deadline does. The next few are taken from the heap together, so that
//! what they will touch can be read together.

use std::collections::VecDeque;

use skeg_core::object::ObjectKey;
use skeg_core::read_ahead::touch;

use super::World;
use crate::heap::{Key, Keys, NEVER, key, moment, unowned, whose};
use crate::process::Running;

/// How many wake-ups are taken from the heap together.
const AHEAD: usize = 32;
/// Clusters of fewer nodes stay in the processor's cache by themselves.
const LARGE: usize = 400;

/// Where the wake-up of a process is: at a place of the heap, or one of these.
const NOWHERE: u32 = u32::MAX;
const SOON: u32 = u32::MAX - 1;

/// Wake-ups by virtual time in nanoseconds, one a process.
#[derive(Debug)]
pub(super) struct Wakes {
    keys: Keys,
    places: Vec<u32>,
    /// The next few, in order, as they were when they were taken out. What is set meanwhile may come before.
    soon: VecDeque<Key>,
    seed: u64,
    drawn: u64,
}

/// Keeps track of where keys are put.
fn track(places: &mut [u32]) -> impl FnMut(usize, Key) {
    |place, key| places[whose(key) as usize] = place as u32
}

impl Wakes {
    pub(super) fn new(seed: u64, processes: usize) -> Wakes {
        Wakes { keys: Keys::default(), places: vec![NOWHERE; processes], soon: VecDeque::new(), seed, drawn: 0 }
    }

    /// Sets the moment of a process's wake-up, whether it had one or not.
    pub(super) fn set(&mut self, at: u64, process: u32) {
        self.drawn += 1;
        let key = key(at, self.seed, self.drawn, process);
        let place = self.places[process as usize];
        if place == SOON {
            self.soon.retain(|k| whose(*k) != process);
        }
        let put = track(&mut self.places);
        match place {
            NOWHERE | SOON => self.keys.add(key, put),
            place => self.keys.change(place as usize, key, put),
        }
    }

    /// Takes a process's wake-up away, if it has one.
    pub(super) fn clear(&mut self, process: u32) {
        match self.places[process as usize] {
            NOWHERE => return,
            SOON => self.soon.retain(|k| whose(*k) != process),
            place => self.keys.remove(place as usize, track(&mut self.places)),
        }
        self.places[process as usize] = NOWHERE;
    }

    /// The key of the next, but for whose it is.
    pub(super) fn next(&self) -> Key {
        let soon = self.soon.front().copied().unwrap_or(NEVER);
        unowned(self.keys.first().unwrap_or(NEVER).min(soon))
    }

    /// The next process to be woken, and when.
    pub(super) fn pop(&mut self) -> Option<(u64, u32)> {
        let from_heap = match (self.soon.front(), self.keys.first()) {
            (Some(soon), Some(first)) => first < *soon,
            (soon, _) => soon.is_none(),
        };
        let key = if from_heap { self.keys.take_first(track(&mut self.places)) } else { self.soon.pop_front() }?;
        self.places[whose(key) as usize] = NOWHERE;
        Some((moment(key), whose(key)))
    }

    /// Takes out the next few.
    fn take_ahead(&mut self) {
        while self.soon.len() < AHEAD
            && let Some(key) = self.keys.take_first(track(&mut self.places))
        {
            self.places[whose(key) as usize] = SOON;
            self.soon.push_back(key);
        }
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
        let soon = || self.wakes.soon.iter().map(|key| &self.processes[whose(*key) as usize]);
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
    use super::{Wakes, moment};
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
                    assert_eq!(moment(wakes.next()), least.unwrap_or(u64::MAX));
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
