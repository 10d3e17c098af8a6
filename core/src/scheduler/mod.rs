//! The scheduler machine.
//!
//! [`Scheduler`] is pure: nodes, pods and the outcomes of binds come in; decisions go out. It knows no API and no
//! election; [`SchedulerProcess`] is the machine around it that does.
//!
//! Call order of [`Scheduler`]: tell it of every change (`node_changed`, `pod_changed`, …), call `handle_timeout` at
//! `poll_timeout`, and after either take decisions with `next` until there is none. For each `Bind` say how it went
//! with `forget`, or show the bound pod by `pod_changed`.
//!
//! What never happens: a node is given more than it has, as far as anything that was told or decided tells; an
//! assumed pod is taken off its node because a view is behind; a decision differs from the one that filtering and
//! scoring every node from scratch would give (among equally good nodes one is drawn).
//!
//! The plug-ins and their weights are kube-scheduler's; see [`framework`] for the profile and what is not in it yet.

pub mod cache;
pub mod explain;
pub mod filters;
pub mod framework;
mod process;
mod queue;
pub mod scores;
pub mod shape;
pub mod table;

use std::collections::BTreeMap;
use std::rc::Rc;

use cache::{Nodes, Slot};
use filters::{NAMES_CONFLICT, NOT_AMONG_NAMES};
use framework::{Events, QueueingHint, Rejection, queueing_hint};
pub use process::{SchedulerConfig, SchedulerProcess};
pub use queue::QueueCounts;
use queue::{PodId, Queue};
use shape::{Shape, ShapeId, Shapes};
use table::{Rejections, Table, scan};

use crate::limits;
use crate::machine::{Deadline, Now};
use crate::object::{KeyMap, Node, ObjectKey, Pod, is_pod_terminal};
use crate::random::Rng;

/// Name of the default scheduler (`spec.schedulerName`).
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// What the scheduler has decided about a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Bind it. It is counted on the node from now on.
    Bind {
        /// The pod.
        pod: ObjectKey,
        /// Its UID.
        uid: Rc<str>,
        /// The node.
        node: Rc<str>,
    },
    /// It fits no node.
    Unschedulable {
        /// The pod.
        pod: ObjectKey,
        /// Its UID.
        uid: Rc<str>,
        /// Why, in kube-scheduler's words.
        message: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Has scheduling gates.
    Gated,
    /// In the queue.
    Queued,
    /// Decided, but not yet shown to be bound.
    Assumed(Slot),
    /// Bound.
    Bound(Slot),
}

#[derive(Debug)]
struct Tracked {
    key: ObjectKey,
    uid: Rc<str>,
    shape: ShapeId,
    priority: i32,
    /// `preemptionPolicy` is not `Never`.
    may_preempt: bool,
    state: State,
}

/// Decides which pod runs where.
#[derive(Debug)]
pub struct Scheduler {
    name: Rc<str>,
    rng: Rng,
    nodes: Nodes,
    shapes: Shapes,
    pods: Vec<Option<Tracked>>,
    vacant: Vec<PodId>,
    index: KeyMap<PodId>,
    queue: Queue,
    tables: BTreeMap<ShapeId, Table>,
    uses: u64,
    assumed: usize,
}

impl Scheduler {
    /// For pods whose `spec.schedulerName` is `name`.
    pub fn new(name: Rc<str>, rng: Rng) -> Scheduler {
        Scheduler {
            name,
            rng,
            nodes: Nodes::default(),
            shapes: Shapes::default(),
            pods: Vec::new(),
            vacant: Vec::new(),
            index: KeyMap::default(),
            queue: Queue::default(),
            tables: BTreeMap::new(),
            uses: 0,
            assumed: 0,
        }
    }

    /// A node is there, or has changed.
    pub fn node_changed(&mut self, now: Now, node: &Node) {
        let (slot, events) = self.nodes.put(node);
        if !events.is_empty() {
            self.happened(now, events, slot);
        }
    }

    /// A node is gone. Pods on it are counted until they are gone too.
    pub fn node_removed(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// A pod is there, or has changed.
    pub fn pod_changed(&mut self, now: Now, pod: &Pod) {
        let key = pod.key();
        let known = self.index.get(&key).copied();
        if let Some(id) = known.filter(|id| *self.tracked(*id).uid != *pod.uid()) {
            self.drop_pod(now, id);
        }
        if is_pod_terminal(pod) {
            self.pod_removed(now, &key);
            return;
        }
        match (self.index.get(&key).copied(), &pod.spec.node) {
            (None, None) => self.add_unbound(now, key, pod),
            (None, Some(node)) => {
                let id = self.track(key, pod, State::Gated);
                self.count(id, node);
            }
            (Some(id), None) => self.update_unbound(now, id, pod),
            (Some(id), Some(node)) => self.update_bound(now, id, pod, node),
        }
    }

    /// A pod is gone.
    pub fn pod_removed(&mut self, now: Now, key: &ObjectKey) {
        if let Some(id) = self.index.get(key).copied() {
            self.drop_pod(now, id);
        }
    }

    /// It is certain that an assumed pod has not been bound and will not be: it is taken off its node and queued
    /// again. Does nothing if the pod is not assumed, or is another one by now.
    pub fn forget(&mut self, now: Now, key: &ObjectKey, uid: &str) {
        let Some(id) = self.index.get(key).copied() else { return };
        let tracked = self.tracked(id);
        if let State::Assumed(slot) = tracked.state
            && *tracked.uid == *uid
        {
            self.uncount(id, slot);
            self.tracked_mut(id).state = State::Queued;
            self.queue.retry(now.mono, id);
            self.happened(now, Events::ASSIGNED_POD_DELETE, slot);
        }
    }

    /// Forgets every assumed pod: binds that have not been shown by now were not carried out and will not be.
    pub fn forget_all(&mut self, now: Now) {
        let assumed = self.pods.iter().flatten().filter(|t| matches!(t.state, State::Assumed(_)));
        let assumed: Vec<_> = assumed.map(|t| (t.key.clone(), Rc::clone(&t.uid))).collect();
        assumed.iter().for_each(|(key, uid)| self.forget(now, key, uid));
    }

    /// Moves pods within the queue as time goes on.
    pub fn handle_timeout(&mut self, now: Now) {
        self.queue.handle_timeout(now.mono);
    }

    /// When `handle_timeout` is next wanted.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.queue.poll_timeout()
    }

    /// Decides about the pod whose turn it is.
    pub fn next(&mut self, now: Now) -> Option<Decision> {
        let id = self.queue.pop()?;
        let tracked = self.tracked(id);
        let (pod, uid, shape_id) = (tracked.key.clone(), Rc::clone(&tracked.uid), tracked.shape);
        let may_preempt = tracked.may_preempt;
        match self.find(shape_id, may_preempt) {
            Ok(slot) => {
                let node = Rc::clone(self.nodes.name(slot));
                self.count(id, &node);
                self.tracked_mut(id).state = State::Assumed(slot);
                self.assumed += 1;
                if self.queue.found(id) {
                    self.wake_if_feasible(now, shape_id);
                }
                Some(Decision::Bind { pod, uid, node })
            }
            Err(message) => {
                self.queue.unschedulable(now.mono, id, !self.nodes.is_empty());
                Some(Decision::Unschedulable { pod, uid, message })
            }
        }
    }

    /// Whether a pod of this key is assumed on a node.
    pub fn is_assumed(&self, key: &ObjectKey) -> bool {
        self.index.get(key).is_some_and(|id| matches!(self.tracked(*id).state, State::Assumed(_)))
    }

    /// How many pods are assumed.
    pub fn assumed(&self) -> usize {
        self.assumed
    }

    /// Whether a node of this name is there.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.slot(name).is_some_and(|slot| self.nodes.is_present(slot))
    }

    /// How many pods wait, and where.
    pub fn waiting(&self) -> QueueCounts {
        self.queue.counts()
    }

    /// The nodes and what runs on them, as the scheduler counts it.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    fn tracked(&self, id: PodId) -> &Tracked {
        self.pods[id as usize].as_ref().expect("an id is used only while its pod is tracked")
    }

    fn tracked_mut(&mut self, id: PodId) -> &mut Tracked {
        self.pods[id as usize].as_mut().expect("an id is used only while its pod is tracked")
    }

    fn is_mine(&self, pod: &Pod) -> bool {
        pod.spec.scheduler_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(DEFAULT_SCHEDULER) == &*self.name
    }

    fn track(&mut self, key: ObjectKey, pod: &Pod, state: State) -> PodId {
        let shape = self.shapes.take(pod, &mut self.nodes.resources);
        let tracked = Tracked {
            key: key.clone(),
            uid: Rc::from(pod.uid()),
            shape,
            priority: pod.spec.priority.unwrap_or(0),
            may_preempt: pod.spec.preemption_policy.as_deref() != Some("Never"),
            state,
        };
        let id = self.vacant.pop().unwrap_or(self.pods.len() as PodId);
        if id as usize == self.pods.len() {
            self.pods.push(Some(tracked));
        } else {
            self.pods[id as usize] = Some(tracked);
        }
        self.index.insert(key, id);
        id
    }

    fn add_unbound(&mut self, now: Now, key: ObjectKey, pod: &Pod) {
        if !self.is_mine(pod) || pod.meta.deletion_timestamp.is_some() {
            return;
        }
        if is_gated(pod) {
            self.track(key, pod, State::Gated);
            return;
        }
        let id = self.track(key, pod, State::Queued);
        let tracked = self.tracked(id);
        let (shape, priority) = (tracked.shape, tracked.priority);
        self.queue.add(now.mono, id, shape, priority);
    }

    /// A tracked pod is shown without a node.
    fn update_unbound(&mut self, now: Now, id: PodId, pod: &Pod) {
        match self.tracked(id).state {
            // A pod never loses its node: the view is behind.
            State::Assumed(_) | State::Bound(_) => {}
            State::Gated | State::Queued if pod.meta.deletion_timestamp.is_some() => self.drop_pod(now, id),
            State::Gated if is_gated(pod) => self.reshape(id, pod),
            State::Gated => {
                self.reshape(id, pod);
                self.tracked_mut(id).state = State::Queued;
                let tracked = self.tracked(id);
                let (shape, priority) = (tracked.shape, tracked.priority);
                self.queue.add(now.mono, id, shape, priority);
            }
            State::Queued => {
                let tracked = self.tracked(id);
                let (shape, priority) = (tracked.shape, tracked.priority);
                // The old shape is looked at once more below: it must not be let go of before.
                let held = Rc::clone(self.shapes.get(shape));
                self.reshape(id, pod);
                let tracked = self.tracked(id);
                let (new_shape, new_priority) = (tracked.shape, tracked.priority);
                if (shape, priority) != (new_shape, new_priority)
                    && self.queue.update(now.mono, id, new_shape, new_priority)
                {
                    self.wake_shape(now, shape, &held);
                }
            }
        }
    }

    /// A tracked pod is shown on a node.
    fn update_bound(&mut self, now: Now, id: PodId, pod: &Pod, node: &Rc<str>) {
        let before = self.tracked(id).state;
        let old_shape = self.tracked(id).shape;
        match before {
            State::Assumed(slot) | State::Bound(slot) => {
                let assumed = matches!(before, State::Assumed(_));
                if assumed {
                    self.queue.remove(id);
                }
                let shape = self.shapes.take(pod, &mut self.nodes.resources);
                if shape == old_shape && self.nodes.name(slot) == node {
                    // The usual news of a pod that runs: nothing about its node changes.
                    self.shapes.release(shape);
                    self.assumed -= usize::from(assumed);
                    self.tracked_mut(id).state = State::Bound(slot);
                    return;
                }
                self.uncount(id, slot);
                self.tracked_mut(id).shape = shape;
                self.shapes.release(old_shape);
                self.count(id, node);
                self.happened(now, Events::ASSIGNED_POD_DELETE.and(Events::ASSIGNED_POD_SCALE_DOWN), slot);
            }
            State::Queued => {
                let wake = self.queue.remove(id);
                let held = Rc::clone(self.shapes.get(old_shape));
                self.reshape(id, pod);
                self.count(id, node);
                if wake {
                    self.wake_shape(now, old_shape, &held);
                }
            }
            State::Gated => {
                self.reshape(id, pod);
                self.count(id, node);
            }
        }
    }

    /// Takes in what may have changed about a pod.
    fn reshape(&mut self, id: PodId, pod: &Pod) {
        let shape = self.shapes.take(pod, &mut self.nodes.resources);
        let tracked = self.pods[id as usize].as_mut().expect("an id is used only while its pod is tracked");
        self.shapes.release(std::mem::replace(&mut tracked.shape, shape));
        tracked.priority = pod.spec.priority.unwrap_or(0);
    }

    fn drop_pod(&mut self, now: Now, id: PodId) {
        let (state, shape_id) = (self.tracked(id).state, self.tracked(id).shape);
        let shape = Rc::clone(self.shapes.get(shape_id));
        let mut freed = None;
        let mut wake = false;
        match state {
            State::Gated => {}
            State::Queued => wake = self.queue.remove(id),
            State::Assumed(slot) => {
                self.queue.remove(id);
                self.uncount(id, slot);
                freed = Some(slot);
            }
            State::Bound(slot) => {
                self.uncount(id, slot);
                freed = Some(slot);
            }
        }
        let gone = self.pods[id as usize].take().expect("it was there above");
        self.index.remove(&gone.key);
        self.vacant.push(id);
        self.shapes.release(gone.shape);
        if wake {
            self.wake_shape(now, shape_id, &shape);
        }
        if let Some(slot) = freed {
            self.happened(now, Events::ASSIGNED_POD_DELETE, slot);
        }
    }

    /// Counts a pod on a node.
    fn count(&mut self, id: PodId, node: &str) {
        let shape = self.shapes.get(self.tracked(id).shape);
        let slot = self.nodes.add_pod(node, shape);
        self.tracked_mut(id).state = State::Bound(slot);
    }

    /// Counts a pod on its node no longer.
    fn uncount(&mut self, id: PodId, slot: Slot) {
        let tracked = self.tracked(id);
        let assumed = matches!(tracked.state, State::Assumed(_));
        let shape = self.shapes.get(tracked.shape);
        self.nodes.remove_pod(slot, shape);
        self.assumed -= usize::from(assumed);
    }

    /// A node changed in a way that may help: lets waiting pods try that it does help.
    fn happened(&mut self, now: Now, events: Events, slot: Slot) {
        let (shapes, nodes) = (&self.shapes, &self.nodes);
        let helps = |id: &ShapeId| queueing_hint(events, shapes.get(*id), nodes, slot) == QueueingHint::Queue;
        let woken: Vec<ShapeId> = self.queue.idle().filter(helps).collect();
        woken.into_iter().for_each(|shape| self.queue.wake(now.mono, shape));
        self.queue.wake_unrejected(now.mono);
    }

    /// A scout is gone: the next pod of its shape tries, if there is still anything to be found.
    fn wake_shape(&mut self, now: Now, id: ShapeId, shape: &Shape) {
        let fits = |slot: Slot| {
            let events = framework::FILTERS.iter().fold(Events::NONE, |all, f| all.and(f.events()));
            queueing_hint(events, shape, &self.nodes, slot) == QueueingHint::Queue
        };
        if (0..self.nodes.slots()).any(fits) {
            self.queue.wake(now.mono, id);
        }
    }

    /// A scout has found a node: the next pod of its shape tries, if there is still anything to be found.
    fn wake_if_feasible(&mut self, now: Now, id: ShapeId) {
        let shape = Rc::clone(self.shapes.get(id));
        if shape.only.is_some() {
            self.wake_shape(now, id, &shape);
        } else if self.table(id).top().count > 0 {
            self.queue.wake(now.mono, id);
        }
    }

    /// The table of a shape, up to date.
    fn table(&mut self, id: ShapeId) -> &Table {
        self.uses += 1;
        if self.tables.len() >= limits::SCHEDULER_TABLES && !self.tables.contains_key(&id) {
            let oldest = self.tables.iter().min_by_key(|(_, t)| t.used).map(|(id, _)| *id);
            self.tables.remove(&oldest.expect("there are as many tables as there may be"));
        }
        let table = self.tables.entry(id).or_default();
        table.used = self.uses;
        table.refresh(self.shapes.get(id), &self.nodes);
        table
    }

    /// The best node for a pod of a shape, drawn among equally good ones; or why there is none.
    fn find(&mut self, id: ShapeId, may_preempt: bool) -> Result<Slot, String> {
        let shape = Rc::clone(self.shapes.get(id));
        if let Some(names) = &shape.only {
            return self.find_among(&shape, names, may_preempt);
        }
        let top = self.table(id).top();
        if top.count > 0 {
            let n = self.draw(top.count);
            return Ok(self.tables[&id].nth(n));
        }
        let rejections = self.tables[&id].rejections();
        Err(explain::message(self.nodes.len(), None, rejections, &self.nodes.resources, may_preempt))
    }

    /// As [`find`](Self::find), for a shape whose affinity names its nodes: only those are looked at.
    fn find_among(&mut self, shape: &Shape, names: &[String], may_preempt: bool) -> Result<Slot, String> {
        let slots = names.iter().filter_map(|name| self.nodes.slot(name)).filter(|s| self.nodes.is_present(*s));
        let mut slots: Vec<Slot> = slots.collect();
        slots.sort_unstable();
        let (best, mut rejections) = scan(shape, &self.nodes, slots.iter().copied());
        if !best.is_empty() {
            let n = self.draw(best.len() as u32);
            return Ok(best[n as usize]);
        }
        let others = (self.nodes.len() - slots.len()) as u32;
        let before = names.is_empty().then_some(NAMES_CONFLICT);
        rejections.add(Rejection::unresolvable("NodeAffinity", NOT_AMONG_NAMES), others);
        Err(self.explain(before, &rejections, may_preempt))
    }

    fn explain(&self, before: Option<&str>, rejections: &Rejections, may_preempt: bool) -> String {
        explain::message(self.nodes.len(), before, rejections, &self.nodes.resources, may_preempt)
    }

    /// One of `n`, all equally likely.
    fn draw(&mut self, n: u32) -> u32 {
        if n == 1 { 0 } else { self.rng.below(u64::from(n)) as u32 }
    }
}

fn is_gated(pod: &Pod) -> bool {
    pod.spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty())
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
