//! A work queue of keys. A key is in the queue at most once, is retried with back-off, and is handed to one worker at a
//! time.
//!
//! As in client-go's `workqueue`, a key that is added while it is being processed is queued again afterwards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::limits;
use crate::machine::Mono;
use crate::object::ObjectKey;

#[derive(Debug, Default)]
struct KeyState {
    /// Is in `ready`.
    queued: bool,
    /// Was returned by `pop` and is not yet `done`.
    active: bool,
    /// Was added while active.
    dirty: bool,
    failures: u32,
    delayed: Option<Mono>,
}

impl KeyState {
    fn is_idle(&self) -> bool {
        !self.queued && !self.active && self.failures == 0 && self.delayed.is_none()
    }
}

/// A work queue. Call order for a key: `add` (or `add_after`, `retry`), `pop`, `done`.
#[derive(Debug, Default)]
pub struct Queue {
    ready: VecDeque<ObjectKey>,
    delayed: BTreeSet<(Mono, ObjectKey)>,
    keys: BTreeMap<ObjectKey, KeyState>,
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Queue {
        Queue::default()
    }

    /// Adds a key unless it is already queued.
    pub fn add(&mut self, key: ObjectKey) {
        let state = self.keys.entry(key.clone()).or_default();
        if state.active {
            state.dirty = true;
        } else if !state.queued {
            state.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Adds a key after a delay. If called several times, the earliest time counts.
    pub fn add_after(&mut self, now: Mono, key: ObjectKey, after: Duration) {
        let at = now + after;
        let state = self.keys.entry(key.clone()).or_default();
        match state.delayed {
            Some(known) if known <= at => return,
            Some(known) => {
                self.delayed.remove(&(known, key.clone()));
            }
            None => {}
        }
        state.delayed = Some(at);
        self.delayed.insert((at, key));
    }

    /// Adds a failed key again after its back-off, which is at least `least`; returns the delay.
    pub fn retry(&mut self, now: Mono, key: ObjectKey, least: Duration) -> Duration {
        let state = self.keys.entry(key.clone()).or_default();
        let doubled = limits::QUEUE_BACKOFF_BASE.saturating_mul(1 << state.failures.min(24));
        let backoff = doubled.min(limits::QUEUE_BACKOFF_MAX).max(least);
        state.failures = state.failures.saturating_add(1);
        self.add_after(now, key, backoff);
        backoff
    }

    /// Resets the failure count of a key, so that its next back-off is the first one again.
    pub fn forget(&mut self, key: &ObjectKey) {
        if let Some(state) = self.keys.get_mut(key) {
            state.failures = 0;
            if state.is_idle() {
                self.keys.remove(key);
            }
        }
    }

    /// How many times in a row a key has failed.
    pub fn failures(&self, key: &ObjectKey) -> u32 {
        self.keys.get(key).map_or(0, |s| s.failures)
    }

    /// Returns the next key to process. It is not returned again before `done`.
    pub fn pop(&mut self) -> Option<ObjectKey> {
        let key = self.ready.pop_front()?;
        let state = self.keys.get_mut(&key).expect("a key in the queue has a state");
        assert!(state.queued && !state.active, "a key is worked on by one worker at a time");
        state.queued = false;
        state.active = true;
        Some(key)
    }

    /// Ends the processing of a key; queues it again if it was added in the meantime.
    pub fn done(&mut self, key: &ObjectKey) {
        let state = self.keys.get_mut(key).expect("done follows pop");
        assert!(state.active, "done follows pop");
        state.active = false;
        if std::mem::take(&mut state.dirty) {
            state.queued = true;
            self.ready.push_back(key.clone());
        } else if state.is_idle() {
            self.keys.remove(key);
        }
    }

    /// Moves the keys whose delay has passed to the ready queue.
    pub fn advance(&mut self, now: Mono) {
        while self.delayed.first().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.delayed.pop_first().expect("it was there in the line above");
            self.keys.get_mut(&key).expect("a delayed key has a state").delayed = None;
            self.add(key);
        }
    }

    /// Every key with when it is due: now (`None`), or after its delay; and how often it has failed in a row.
    pub fn keys(&self) -> impl Iterator<Item = (&ObjectKey, Option<Mono>, u32)> {
        self.keys.iter().map(|(key, state)| (key, state.delayed.filter(|_| !state.queued), state.failures))
    }

    /// When `advance` next has something to do.
    pub fn next_at(&self) -> Option<Mono> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// How many keys are ready to be processed.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether no key is ready to be processed.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Queue;
    use crate::limits;
    use crate::machine::Mono;
    use crate::object::{Kind, ObjectKey};

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::POD, "d", name)
    }

    fn drain(q: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| q.pop()).map(|k| k.name().to_owned()).collect()
    }

    #[test]
    fn a_key_is_in_it_once_and_comes_again_if_added_meanwhile() {
        let mut q = Queue::new();
        ["a", "b", "a"].into_iter().for_each(|n| q.add(key(n)));
        assert_eq!(drain(&mut q), ["a", "b"]);
        q.add(key("a"));
        assert!(q.is_empty());
        q.done(&key("a"));
        q.done(&key("b"));
        assert_eq!(drain(&mut q), ["a"]);
        q.done(&key("a"));
        assert!(q.keys.is_empty(), "nothing is kept of idle keys");
    }

    #[test]
    fn back_off_doubles_up_to_a_bound_and_is_forgotten() {
        let mut q = Queue::new();
        let mut now = Mono::ZERO;
        let mut last = Duration::ZERO;
        for i in 0..40 {
            let backoff = q.retry(now, key("a"), Duration::ZERO);
            assert!(backoff == limits::QUEUE_BACKOFF_BASE * (1 << i.min(20)) || backoff == limits::QUEUE_BACKOFF_MAX);
            assert!(backoff >= last);
            last = backoff;
            assert!(q.is_empty());
            now = q.next_at().unwrap();
            q.advance(now);
            assert_eq!(drain(&mut q), ["a"]);
            q.done(&key("a"));
        }
        assert_eq!(last, limits::QUEUE_BACKOFF_MAX);
        q.forget(&key("a"));
        assert!(q.keys.is_empty());
        assert_eq!(q.retry(now, key("a"), Duration::ZERO), limits::QUEUE_BACKOFF_BASE);
    }

    #[test]
    fn the_earliest_delay_counts() {
        let mut q = Queue::new();
        for seconds in [9, 3, 5] {
            q.add_after(Mono::ZERO, key("a"), Duration::from_secs(seconds));
        }
        assert_eq!(q.next_at(), Some(Mono(3_000_000_000)));
        q.advance(Mono(3_000_000_000));
        assert_eq!((q.len(), q.next_at()), (1, None));
    }
}
