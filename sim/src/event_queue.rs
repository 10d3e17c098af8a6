//! The queue of events in virtual time.
//!
//! Events at the same time are ordered by a tie-breaker drawn from the seed, so that no run depends on the order in
//! which the code pushes them, and every order occurs with some seed.
//!
//! Most events are messages. They arrive within milliseconds, hundreds at a time when a controller creates pods, so
//! their keys are on pages of half a millisecond. Payloads are in a slab and do not move.

use crate::calendar_queue::{CalendarQueue, Key, NEVER, key, moment, unowned, whose};

/// Messages are on pages of 2^19 ns; 64 pages cover 34 ms.
const PAGE: u32 = 19;

/// An event queue ordered by virtual time in nanoseconds.
#[derive(Debug)]
pub struct EventQueue<E> {
    keys: CalendarQueue,
    slab: Vec<Option<E>>,
    free: Vec<u32>,
    seed: u64,
    pushed: u64,
}

impl<E> EventQueue<E> {
    /// Creates an empty queue whose tie-breakers are drawn from `seed`.
    pub fn new(seed: u64) -> EventQueue<E> {
        EventQueue { keys: CalendarQueue::new(PAGE, 1), slab: Vec::new(), free: Vec::new(), seed, pushed: 0 }
    }

    /// Adds an event at a time.
    #[inline(never)]
    pub fn push(&mut self, at: u64, event: E) {
        self.pushed += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                let place = &mut self.slab[slot as usize];
                assert!(place.is_none(), "a free slot is empty");
                *place = Some(event);
                slot
            }
            None => {
                self.slab.push(Some(event));
                (self.slab.len() - 1) as u32
            }
        };
        self.keys.add(key(at, self.seed, self.pushed, slot));
    }

    /// Removes the key that `next` returned; returns the event's time and its slot, for `peek` and `take`.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<(u64, u32)> {
        self.keys.take_first().map(|first| (moment(first), whose(first)))
    }

    /// The event in a slot that `pop` returned.
    #[inline(always)]
    pub(crate) fn peek(&self, slot: u32) -> &E {
        self.slab[slot as usize].as_ref().expect("each key has its payload")
    }

    /// Removes and returns that event.
    #[inline(always)]
    pub(crate) fn take(&mut self, slot: u32) -> E {
        self.free.push(slot);
        self.slab[slot as usize].take().expect("each key has its payload")
    }

    /// The key of the earliest event, without its owner; for merging with other queues. May return `NEVER` if it is
    /// after `by`.
    #[inline(always)]
    pub(crate) fn next(&mut self, by: u64) -> Key {
        self.keys.first(by).map_or(NEVER, unowned)
    }
}

#[cfg(test)]
mod tests {
    use super::{EventQueue, NEVER, moment};
    use skeg_core::Rng;

    fn pop<E>(queue: &mut EventQueue<E>) -> Option<(u64, E)> {
        let next = queue.next(u64::MAX);
        let taken = queue.pop().map(|(at, slot)| (at, queue.take(slot)));
        assert_eq!(taken.as_ref().map(|(at, _)| *at), Some(moment(next)).filter(|_| next != NEVER));
        taken
    }

    fn order(seed: u64) -> Vec<u32> {
        let mut queue = EventQueue::new(seed);
        for n in 0..8 {
            queue.push(5, n);
        }
        queue.push(1, 99);
        std::iter::from_fn(|| pop(&mut queue).map(|(_, n)| n)).collect()
    }

    #[test]
    fn time_orders_and_the_seed_breaks_ties() {
        assert_eq!(order(1)[0], 99);
        assert_eq!(order(1), order(1));
        assert!((2..20).any(|seed| order(seed) != order(1)));
    }

    #[test]
    fn what_is_pushed_before_the_next_page_comes_first() {
        let mut queue = EventQueue::new(1);
        queue.push(5_000_000_000, 1);
        assert_eq!(queue.next(4_000_000_000), NEVER, "it comes later, and its page stays closed");
        queue.push(4_500_000_000, 2);
        queue.push(4_499_999_999, 3);
        let order = [pop(&mut queue), pop(&mut queue), pop(&mut queue), pop(&mut queue)];
        assert_eq!(order, [Some((4_499_999_999, 3)), Some((4_500_000_000, 2)), Some((5_000_000_000, 1)), None]);
    }

    #[test]
    fn whatever_comes_and_goes_the_earliest_is_next() {
        for spread in [500, 1 << 20, 1 << 24, 1 << 26, 1 << 40] {
            earliest_is_next(spread);
        }
    }

    /// Pushes events at most `spread` after the last one that was popped.
    fn earliest_is_next(spread: u64) {
        let (mut queue, mut rng, mut waiting) = (EventQueue::new(3), Rng::from_seed(3), Vec::new());
        let mut now = 0;
        for _ in 0..20_000 {
            if rng.chance(6, 11) {
                let at = now + rng.below(spread);
                waiting.push(at);
                queue.push(at, at);
            } else {
                let least = waiting.iter().enumerate().min_by_key(|(_, at)| **at).map(|(i, _)| i);
                let expect = least.map(|i| waiting.swap_remove(i));
                assert_eq!(pop(&mut queue), expect.map(|at| (at, at)));
                now = expect.unwrap_or(now);
            }
        }
    }
}
