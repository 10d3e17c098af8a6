//! The scheduling queue: active, back-off and unschedulable pods, as kube-scheduler's `PriorityQueue`.
//!
//! Unschedulable pods wait in groups, one per class. An event that helps a pod helps every earlier pod of its group at
//! least as much, so it wakes only the first pod of a group, the *scout*. When the scout has found a node, the next pod
//! becomes the scout. So a thousand pods that wait for room cost one attempt per free place, and no pod overtakes
//! another.
//!
//! A pod that found no nodes at all was rejected by no plug-in, and what an extender has refused it for nobody knows.
//! Such a pod is retried after any event, as in kube-scheduler.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::peers::ClassId;
use crate::limits;
use crate::machine::{Deadline, Mono};

/// A pod, as its number in the scheduler.
pub type PodId = u32;

/// A pod's place in the order: higher priority first, then longer wait (`PrioritySort`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Turn {
    priority: Reverse<i32>,
    since: Mono,
    sequence: u64,
    pod: PodId,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Not in the queue: it is being scheduled, or is assumed on a node.
    Out,
    Active,
    Backoff(Mono),
    Unschedulable,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    place: Place,
    turn: Turn,
    class: ClassId,
    attempts: u32,
}

#[derive(Debug, Default)]
struct Group {
    waiting: BTreeSet<Turn>,
    scout: Option<PodId>,
}

/// How many pods are in each part of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueCounts {
    /// Can be tried now.
    pub active: usize,
    /// Wait for the end of their back-off.
    pub backoff: usize,
    /// Wait for an event that helps.
    pub unschedulable: usize,
}

/// The pods that need a node.
#[derive(Debug, Default)]
pub struct Queue {
    items: BTreeMap<PodId, Item>,
    active: BTreeSet<Turn>,
    backoff: BTreeSet<(Mono, Turn)>,
    groups: BTreeMap<ClassId, Group>,
    /// The unschedulable pods, by the time since when they are unschedulable.
    stale: BTreeSet<(Mono, Turn)>,
    /// Those of them that no plug-in rejected.
    unrejected: BTreeSet<Turn>,
    sequence: u64,
}

/// 1 s, doubled with each failed attempt, at most 10 s (`podInitialBackoffSeconds`, `podMaxBackoffSeconds`).
fn backoff(attempts: u32) -> Duration {
    let doubled = limits::SCHEDULER_BACKOFF_BASE.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    doubled.min(limits::SCHEDULER_BACKOFF_MAX)
}

impl Queue {
    /// Adds a pod that has not been tried yet.
    pub fn add(&mut self, now: Mono, pod: PodId, class: ClassId, priority: i32) {
        let turn = self.turn(now, pod, priority);
        let before = self.items.insert(pod, Item { place: Place::Active, turn, class, attempts: 0 });
        assert!(before.is_none(), "a pod is added to the queue once");
        self.active.insert(turn);
    }

    /// Takes the next pod out of the active queue.
    pub fn pop(&mut self) -> Option<PodId> {
        let turn = self.active.pop_first()?;
        let item = self.item(turn.pod);
        item.place = Place::Out;
        item.attempts += 1;
        Some(turn.pod)
    }

    /// Takes a pod out, wherever it waits: it is tried beside one that was popped.
    pub fn take(&mut self, pod: PodId) {
        assert_ne!(self.unlink(pod), Place::Out, "a pod is tried once at a time");
        self.item(pod).attempts += 1;
    }

    /// Records that a popped pod has found no node. `rejected` says whether only plug-ins rejected it; otherwise there
    /// were no nodes, or an extender did. Returns whether it was its group's scout.
    pub fn unschedulable(&mut self, now: Mono, pod: PodId, rejected: bool) -> bool {
        let turn = self.turn(now, pod, self.items[&pod].turn.priority.0);
        let item = self.item(pod);
        assert_eq!(item.place, Place::Out, "only a pod that was popped is found unschedulable");
        item.place = Place::Unschedulable;
        item.turn = turn;
        let group = self.groups.entry(self.items[&pod].class).or_default();
        group.waiting.insert(turn);
        self.stale.insert((turn.since, turn));
        if !rejected {
            self.unrejected.insert(turn);
        }
        let was_scout = group.scout == Some(pod);
        if was_scout {
            group.scout = None;
        }
        was_scout
    }

    /// Records that a popped pod has found a node. Its bind may still fail. Returns whether the pod was its group's
    /// scout and others of the group wait.
    pub fn found(&mut self, pod: PodId) -> bool {
        assert_eq!(self.items[&pod].place, Place::Out, "only a pod that was popped finds a node");
        self.end_scout(pod)
    }

    /// Queues a pod again that had found a node and needs another one.
    pub fn retry(&mut self, now: Mono, pod: PodId) {
        let turn = self.turn(now, pod, self.items[&pod].turn.priority.0);
        let item = self.item(pod);
        assert_eq!(item.place, Place::Out, "only a pod that had found a node needs another");
        item.turn = turn;
        self.enqueue(now, pod);
    }

    /// Removes a pod that is gone or no longer needs a node. Returns whether it was its group's scout and others wait.
    pub fn remove(&mut self, pod: PodId) -> bool {
        self.unlink(pod);
        let was_scout = self.end_scout(pod);
        self.items.remove(&pod);
        was_scout
    }

    /// Queues a pod anew because its class or priority changed. Returns whether it was its group's scout and others
    /// wait.
    pub fn update(&mut self, now: Mono, pod: PodId, class: ClassId, priority: i32) -> bool {
        let place = self.unlink(pod);
        let was_scout = self.end_scout(pod);
        let item = self.item(pod);
        item.class = class;
        item.turn.priority = Reverse(priority);
        match place {
            Place::Out => panic!("only a queued pod is updated"),
            Place::Active | Place::Backoff(_) | Place::Unschedulable => self.enqueue(now, pod),
        }
        was_scout
    }

    /// The classes that have waiting pods and no scout.
    pub fn idle(&self) -> impl Iterator<Item = ClassId> + use<'_> {
        self.groups.iter().filter(|(_, g)| g.scout.is_none() && !g.waiting.is_empty()).map(|(class, _)| *class)
    }

    /// The first waiting pod of a class.
    pub fn head(&self, class: ClassId) -> Option<PodId> {
        self.groups.get(&class)?.waiting.first().map(|turn| turn.pod)
    }

    /// Retries a pod if it waits for an event.
    pub fn wake_pod(&mut self, now: Mono, pod: PodId) {
        if self.items.get(&pod).is_some_and(|item| item.place == Place::Unschedulable) {
            self.unlink(pod);
            self.enqueue(now, pod);
        }
    }

    /// Makes the first waiting pod of a class its scout, unless the class has one.
    pub fn wake(&mut self, now: Mono, class: ClassId) {
        let Some(group) = self.groups.get_mut(&class).filter(|g| g.scout.is_none()) else { return };
        let Some(turn) = group.waiting.first().copied() else { return };
        group.scout = Some(turn.pod);
        self.unlink(turn.pod);
        self.enqueue(now, turn.pod);
    }

    /// Retries, after any event, the pods that no plug-in rejected.
    pub fn wake_unrejected(&mut self, now: Mono) {
        while let Some(turn) = self.unrejected.first().copied() {
            self.unlink(turn.pod);
            self.enqueue(now, turn.pod);
        }
    }

    /// Activates the pods whose back-off is over, and those that have waited too long for an event.
    pub fn handle_timeout(&mut self, now: Mono) {
        while let Some((_, turn)) = self.stale.first().copied().filter(|(since, _)| flush_at(*since) <= now) {
            self.unlink(turn.pod);
            self.enqueue(now, turn.pod);
        }
        while let Some((_, turn)) = self.backoff.first().copied().filter(|(until, _)| *until <= now) {
            self.unlink(turn.pod);
            self.enqueue(now, turn.pod);
        }
    }

    /// When `handle_timeout` must be called next.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let backoff = self.backoff.first().map(|(at, _)| Deadline { at: *at, why: "pod's back-off is over" });
        let stale = self.stale.first();
        let stale = stale.map(|(since, _)| Deadline { at: flush_at(*since), why: "flush unschedulable pods" });
        Deadline::earlier(backoff, stale)
    }

    /// How many pods are in each part of the queue.
    pub fn counts(&self) -> QueueCounts {
        QueueCounts { active: self.active.len(), backoff: self.backoff.len(), unschedulable: self.stale.len() }
    }

    fn turn(&mut self, since: Mono, pod: PodId, priority: i32) -> Turn {
        self.sequence += 1;
        Turn { priority: Reverse(priority), since, sequence: self.sequence, pod }
    }

    fn item(&mut self, pod: PodId) -> &mut Item {
        self.items.get_mut(&pod).expect("the scheduler asks only for pods that it has added")
    }

    /// Puts a pod that is in no queue into the active queue, or into the back-off queue while its back-off lasts.
    fn enqueue(&mut self, now: Mono, pod: PodId) {
        let item = self.item(pod);
        let turn = item.turn;
        let until = if item.attempts == 0 { now } else { turn.since + backoff(item.attempts) };
        if until <= now {
            item.place = Place::Active;
            self.active.insert(turn);
        } else {
            item.place = Place::Backoff(until);
            self.backoff.insert((until, turn));
        }
    }

    /// Takes a pod out of the part of the queue that it is in. Returns which that was.
    fn unlink(&mut self, pod: PodId) -> Place {
        let item = self.item(pod);
        let (place, turn, class) = (item.place, item.turn, item.class);
        item.place = Place::Out;
        let was_there = match place {
            Place::Out => true,
            Place::Active => self.active.remove(&turn),
            Place::Backoff(until) => self.backoff.remove(&(until, turn)),
            Place::Unschedulable => {
                self.unrejected.remove(&turn);
                let group = self.groups.get_mut(&class).expect("an unschedulable pod is in its group");
                group.waiting.remove(&turn) && self.stale.remove(&(turn.since, turn))
            }
        };
        assert!(was_there, "a pod is where its item says");
        self.drop_empty(class);
        place
    }

    /// Ends a pod's role as its group's scout. Returns whether it had that role and others of the group wait.
    fn end_scout(&mut self, pod: PodId) -> bool {
        let class = self.items[&pod].class;
        let Some(group) = self.groups.get_mut(&class).filter(|g| g.scout == Some(pod)) else { return false };
        group.scout = None;
        let others = !group.waiting.is_empty();
        self.drop_empty(class);
        others
    }

    fn drop_empty(&mut self, class: ClassId) {
        if self.groups.get(&class).is_some_and(|g| g.scout.is_none() && g.waiting.is_empty()) {
            self.groups.remove(&class);
        }
    }
}

fn flush_at(since: Mono) -> Mono {
    since + limits::SCHEDULER_UNSCHEDULABLE_MAX
}

#[cfg(test)]
mod tests {
    use super::{ClassId, Queue, QueueCounts};
    use crate::machine::Mono;

    const A: ClassId = ClassId(0);
    const B: ClassId = ClassId(1);

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    fn pops(queue: &mut Queue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    fn counts(active: usize, backoff: usize, unschedulable: usize) -> QueueCounts {
        QueueCounts { active, backoff, unschedulable }
    }

    /// Tries a pod and records that it is unschedulable at this time.
    fn failed(queue: &mut Queue, now: Mono, pod: u32, class: ClassId) {
        queue.add(now, pod, class, 0);
        assert_eq!(pops(queue), [pod]);
        queue.unschedulable(now, pod, true);
    }

    #[test]
    fn priority_goes_before_age() {
        let mut q = Queue::default();
        for (pod, second, priority) in [(1, 0, 0), (2, 1, 5), (3, 1, 0), (4, 2, 5), (5, 2, -1)] {
            q.add(at(second), pod, A, priority);
        }
        assert_eq!(pops(&mut q), [2, 4, 1, 3, 5]);
    }

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let mut q = Queue::default();
        q.add(at(0), 1, A, 0);
        let mut now = 0;
        for expect in [1, 2, 4, 8, 10, 10] {
            assert_eq!(pops(&mut q), [1]);
            q.unschedulable(at(now), 1, true);
            q.wake(at(now), A);
            assert_eq!(q.poll_timeout().unwrap().at, at(now + expect));
            q.handle_timeout(Mono(at(now + expect).0 - 1));
            assert_eq!(q.counts(), counts(0, 1, 0));
            now += expect;
            q.handle_timeout(at(now));
        }
        assert_eq!(q.counts(), counts(1, 0, 0));
    }

    #[test]
    fn an_event_after_the_back_off_makes_active_at_once() {
        let mut q = Queue::default();
        failed(&mut q, at(0), 1, A);
        q.wake(at(1), A);
        assert_eq!(q.counts(), counts(1, 0, 0));
    }

    #[test]
    fn one_scout_at_a_time_and_the_first_of_its_group() {
        let mut q = Queue::default();
        (1..=3).for_each(|pod| failed(&mut q, at(0), pod, A));
        failed(&mut q, at(0), 9, B);
        assert_eq!(q.idle().collect::<Vec<_>>(), [A, B]);
        q.wake(at(20), A);
        q.wake(at(20), A);
        assert_eq!(q.idle().collect::<Vec<_>>(), [B]);
        assert_eq!(pops(&mut q), [1]);
        assert!(q.found(1), "the others wait for their turn");
        q.wake(at(20), A);
        assert_eq!(pops(&mut q), [2]);
        assert!(q.unschedulable(at(20), 2, true));
        assert_eq!(q.idle().collect::<Vec<_>>(), [A, B]);
        q.wake(at(20), A);
        assert!(q.remove(3), "a scout that goes leaves its place to the next");
        assert_eq!(q.counts(), counts(0, 0, 2));
    }

    #[test]
    fn whom_nobody_has_rejected_tries_at_any_event() {
        let mut q = Queue::default();
        for pod in 1..=3 {
            q.add(at(0), pod, A, 0);
            assert_eq!(pops(&mut q), [pod]);
            q.unschedulable(at(0), pod, pod == 2);
        }
        q.wake_unrejected(at(20));
        assert_eq!((pops(&mut q), q.counts()), (vec![1, 3], counts(0, 0, 1)));
        q.unschedulable(at(20), 1, true);
        q.wake_unrejected(at(40));
        assert_eq!(q.counts(), counts(0, 0, 2), "both are rejected by now");
        q.unschedulable(at(40), 3, false);
        q.remove(3);
        q.wake_unrejected(at(60));
        assert_eq!(q.counts(), counts(0, 0, 2));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut q = Queue::default();
        failed(&mut q, at(0), 1, A);
        failed(&mut q, at(7), 2, A);
        assert_eq!(q.poll_timeout().unwrap().at, at(300));
        q.handle_timeout(at(300));
        assert_eq!(q.counts(), counts(1, 0, 1));
    }

    #[test]
    fn a_change_of_the_pod_itself_is_an_event() {
        let mut q = Queue::default();
        failed(&mut q, at(0), 1, A);
        q.update(at(5), 1, B, 3);
        assert_eq!(pops(&mut q), [1]);
        q.found(1);
        q.retry(at(6), 1);
        assert_eq!(q.counts(), counts(0, 1, 0));
        q.remove(1);
        assert_eq!(q.counts(), QueueCounts::default());
        assert!(q.groups.is_empty() && q.items.is_empty());
    }
}
