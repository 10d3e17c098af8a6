//! How pods affect each other: topology spread and inter-pod affinity, computed from counts that every bind updates.
//!
//! Pods with equal namespace, labels and terms are *kin*. A *counter* counts pods by slot: those that a selector
//! matches, or those that have a term. A *tally* sums up a counter by the domains of a topology key. A *class* has the
//! rules of all pods of one shape, kin and owner: its own tallies, and those of the terms of pods on nodes that concern
//! it. Placing a pod updates the few tallies that count its kin. A decision reads columns of numbers, never pods.

mod class;
pub mod domains;
mod owners;
mod spread;
pub mod terms;

use std::collections::BTreeMap;
use std::rc::Rc;

pub use class::{Asks, Class, Extra};
use domains::{Inclusion, Tally, Topology};
pub use owners::{OwnerId, Owners};
use terms::{Carried, Match};

use super::cache::{Nodes, Slot};
use super::dynamic_resources::DeviceClaims;
use super::shape::{Shape, ShapeId};
use super::volumes::PodClaims;
use crate::limits;
use crate::object::{Labels, ObjectKey};

/// Pods that other pods' rules cannot tell apart, as a number. Numbers are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KinId(pub u32);

/// Pods with the same rules, as a number. Numbers are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClassId(pub u32);

/// The pods that a counter counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Who {
    /// Pods that all of these select.
    All(Vec<Match>),
    /// Pods that this selects and that are not being deleted.
    Alive(Match),
    /// The terms of this kind that pods have. A pod may have the same term twice.
    Carriers(Carried),
}

#[derive(Debug)]
struct Counter {
    who: Who,
    by_slot: Vec<u32>,
    /// At least as many as on any slot.
    most: u32,
    tallies: Vec<usize>,
}

/// How much each pod of a kin adds to a counter.
#[derive(Clone, Copy, Debug)]
struct Share {
    counter: usize,
    times: i64,
    alive: bool,
}

#[derive(Debug)]
struct Kin {
    namespace: Rc<str>,
    labels: Labels,
    /// Their shape, if it has terms.
    terms: Option<ShapeId>,
    carried: Vec<Carried>,
    /// How many pods belong to it.
    pods: u32,
    shares: Vec<Share>,
    /// How many counters `shares` takes into account.
    counters_seen: usize,
    /// Whether its terms have counters.
    heard: bool,
}

/// A placed pod, for new counters.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Its kin.
    pub kin: KinId,
    /// The slot that it is on.
    pub slot: Slot,
    /// Whether it is not being deleted.
    pub alive: bool,
}

/// What pods of one class have in common.
type ClassKey = (ShapeId, KinId, Option<OwnerId>, (PodClaims, DeviceClaims), Option<ObjectKey>);

type ByNamespace = BTreeMap<Rc<str>, BTreeMap<Labels, KinId>>;

/// All kin, counters, tallies and classes.
#[derive(Debug, Default)]
pub struct Peers {
    kin: BTreeMap<KinId, Kin>,
    kin_ids: BTreeMap<Option<ShapeId>, ByNamespace>,
    kin_next: u32,
    counters: Vec<Counter>,
    counter_ids: BTreeMap<Who, usize>,
    /// The counters of pods' terms, in the order in which they were made.
    rules: Vec<usize>,
    topologies: Vec<Topology>,
    topology_ids: BTreeMap<String, usize>,
    tallies: Vec<Tally>,
    tally_ids: BTreeMap<(usize, usize, Inclusion), usize>,
    classes: BTreeMap<ClassId, Class>,
    class_ids: BTreeMap<ClassKey, ClassId>,
    class_next: u32,
    namespaces: BTreeMap<Rc<str>, Labels>,
    /// The owners and Services of pods, for default spreading.
    pub owners: Owners,
    /// The number of pods on nodes.
    placed: usize,
    scratch: class::Scratch,
}

impl Peers {
    /// Takes the class of a new pod.
    pub fn take(
        &mut self,
        shape: (ShapeId, &Rc<Shape>),
        namespace: &str,
        labels: Option<&Labels>,
        owner: Option<OwnerId>,
        (claims, group): ((PodClaims, DeviceClaims), Option<ObjectKey>),
    ) -> ClassId {
        let none = Labels::new();
        let labels = labels.unwrap_or(&none);
        let (shape_id, shape) = shape;
        let terms = shape.peers.carries().then_some(shape_id);
        let known = self.kin_ids.get(&terms).and_then(|k| k.get(namespace)).and_then(|k| k.get(labels)).copied();
        let kin = known.unwrap_or_else(|| self.new_kin(terms, shape, namespace, labels));
        self.kin.get_mut(&kin).expect("kin is kept while pods are of it").pods += 1;
        let key = (shape_id, kin, owner, claims.clone(), group.clone());
        let id = *self.class_ids.entry(key).or_insert(ClassId(self.class_next));
        if id.0 == self.class_next {
            self.class_next += 1;
            self.classes.insert(id, Class::new((shape_id, Rc::clone(shape)), kin, owner, claims, group));
        }
        self.class_mut(id).pods += 1;
        id
    }

    fn new_kin(&mut self, terms: Option<ShapeId>, shape: &Shape, namespace: &str, labels: &Labels) -> KinId {
        let id = KinId(self.kin_next);
        self.kin_next += 1;
        let namespace: Rc<str> = Rc::from(namespace);
        let by_namespace = self.kin_ids.entry(terms).or_default();
        by_namespace.entry(Rc::clone(&namespace)).or_default().insert(labels.clone(), id);
        let carried = if terms.is_some() { shape.peers.carried(&namespace, labels) } else { Vec::new() };
        let kin = Kin {
            namespace,
            labels: labels.clone(),
            terms,
            carried,
            pods: 0,
            shares: Vec::new(),
            counters_seen: 0,
            heard: false,
        };
        self.kin.insert(id, kin);
        id
    }

    /// Releases the class of a pod that is gone.
    pub fn release(&mut self, id: ClassId) {
        let class = self.class_mut(id);
        class.pods -= 1;
        let (pods, shape, kin_id, owner) = (class.pods, class.shape_id, class.kin, class.owner);
        if pods == 0 {
            let gone = self.classes.remove(&id);
            let gone = gone.map(|class| ((class.claims, class.devices), class.group));
            let (claims, group) = gone.expect("it was there above");
            self.class_ids.remove(&(shape, kin_id, owner, claims, group));
        }
        let kin = self.kin.get_mut(&kin_id).expect("kin is kept while pods are of it");
        kin.pods -= 1;
        if kin.pods > 0 {
            return;
        }
        let kin = self.kin.remove(&kin_id).expect("it was there above");
        let by_namespace = self.kin_ids.get_mut(&kin.terms).expect("kin is found by its terms");
        let by_labels = by_namespace.get_mut(&kin.namespace).expect("kin is found by its namespace");
        by_labels.remove(&kin.labels);
        if by_labels.is_empty() {
            by_namespace.remove(&kin.namespace);
        }
        if by_namespace.is_empty() {
            self.kin_ids.remove(&kin.terms);
        }
    }

    /// The class with this number.
    pub fn class(&self, id: ClassId) -> &Class {
        self.classes.get(&id).expect("a class is kept while pods are of it")
    }

    fn class_mut(&mut self, id: ClassId) -> &mut Class {
        self.classes.get_mut(&id).expect("a class is kept while pods are of it")
    }

    /// Adds pods of a class on a slot, or removes them if `pods` is negative.
    pub fn place(&mut self, class: ClassId, slot: Slot, alive: bool, pods: i64) {
        self.placed = self.placed.wrapping_add_signed(pods as isize);
        if self.counters.is_empty() && !self.class(class).shape.peers.carries() {
            return;
        }
        let kin = self.class(class).kin;
        self.hear(kin);
        self.learn(kin);
        let Peers { kin: all, counters, tallies, .. } = self;
        for share in all[&kin].shares.iter().filter(|s| alive || !s.alive) {
            add(&mut counters[share.counter], tallies, slot, share.times * pods);
        }
    }

    /// Handles that a placed pod is being deleted: some counters no longer count it.
    pub fn leaving(&mut self, class: ClassId, slot: Slot) {
        let kin = self.class(class).kin;
        self.learn(kin);
        let Peers { kin: all, counters, tallies, .. } = self;
        for share in all[&kin].shares.iter().filter(|s| s.alive) {
            add(&mut counters[share.counter], tallies, slot, -share.times);
        }
    }

    /// Makes counters for the terms of a kin that has a placed pod, or is about to.
    fn hear(&mut self, id: KinId) {
        let kin = self.kin.get_mut(&id).expect("kin is kept while pods are of it");
        if kin.heard || kin.carried.is_empty() {
            return;
        }
        kin.heard = true;
        for carried in kin.carried.clone() {
            // No other pod can have had the term so far, so there is nothing to count.
            let counters = self.counters.len();
            let id = self.counter(Who::Carriers(carried));
            if id == counters {
                self.rules.push(id);
            }
        }
    }

    /// Brings the shares of a kin in the counters up to date.
    fn learn(&mut self, id: KinId) {
        let Peers { kin, counters, namespaces, .. } = self;
        let kin = kin.get_mut(&id).expect("kin is kept while pods are of it");
        for (counter, counted) in counters.iter().enumerate().skip(kin.counters_seen) {
            let labels = namespaces.get(&kin.namespace);
            let means = |m: &Match| m.matches(&kin.namespace, labels, &kin.labels);
            let (times, alive) = match &counted.who {
                Who::All(all) => (i64::from(all.iter().all(means)), false),
                Who::Alive(one) => (i64::from(means(one)), true),
                Who::Carriers(carried) => (kin.carried.iter().filter(|c| *c == carried).count() as i64, false),
            };
            if times > 0 {
                kin.shares.push(Share { counter, times, alive });
            }
        }
        kin.counters_seen = counters.len();
    }

    fn counter(&mut self, who: Who) -> usize {
        if let Some(id) = self.counter_ids.get(&who) {
            return *id;
        }
        let id = self.counters.len();
        self.counters.push(Counter { who: who.clone(), by_slot: Vec::new(), most: 0, tallies: Vec::new() });
        self.counter_ids.insert(who, id);
        id
    }

    fn topology(&mut self, key: &str) -> usize {
        if let Some(id) = self.topology_ids.get(key) {
            return *id;
        }
        let id = self.topologies.len();
        self.topologies.push(Topology::new(key));
        self.topology_ids.insert(key.to_owned(), id);
        id
    }

    fn tally(&mut self, counter: usize, topology: usize, inclusion: Inclusion) -> usize {
        let key = (counter, topology, inclusion);
        if let Some(id) = self.tally_ids.get(&key) {
            return *id;
        }
        let id = self.tallies.len();
        self.tallies.push(Tally::new(counter, topology, key.2.clone()));
        self.counters[counter].tallies.push(id);
        self.tally_ids.insert(key, id);
        id
    }

    /// Brings the rules of a class up to date. `placed` are all pods on nodes; they are walked only if a new counter is
    /// needed.
    pub fn prepare<I: Iterator<Item = Placed>>(&mut self, id: ClassId, nodes: &Nodes, placed: impl Fn() -> I) {
        self.ask_all(&[id], placed);
        let Peers { classes, topologies, tallies, counters, .. } = self;
        let class = classes.get_mut(&id).expect("a class is kept while pods are of it");
        let Some(asks) = &class.asks else { return };
        for topology in asks.topologies() {
            topologies[topology].refresh(nodes);
        }
        for counter in asks.counters() {
            let by_slot = &mut counters[counter].by_slot;
            by_slot.resize(by_slot.len().max(nodes.slots() as usize), 0);
        }
        for tally in asks.tallies() {
            let tally = &mut tallies[tally];
            tally.refresh(&topologies[tally.topology], &counters[tally.counter].by_slot, nodes);
        }
    }

    /// Resolves the rules of classes. `placed` are all pods on nodes; they are walked at most once for all classes.
    pub fn ask_all<I: Iterator<Item = Placed>>(&mut self, ids: &[ClassId], placed: impl Fn() -> I) {
        let before = self.counters.len();
        ids.iter().for_each(|id| self.ask(*id));
        if self.counters.len() > before {
            self.count_placed(before, placed());
        }
    }

    /// Counts the pods for the counters from this one on.
    fn count_placed(&mut self, first: usize, placed: impl Iterator<Item = Placed>) {
        for pod in placed {
            self.learn(pod.kin);
            let Peers { kin, counters, tallies, .. } = self;
            let shares = kin[&pod.kin].shares.iter().rev().take_while(|s| s.counter >= first);
            for share in shares.filter(|s| pod.alive || !s.alive) {
                add(&mut counters[share.counter], tallies, pod.slot, share.times);
            }
        }
    }

    /// Discards all counters if there are too many. Those that are still needed are made again.
    pub fn sweep<I: Iterator<Item = Placed>>(&mut self, placed: impl Fn() -> I) {
        if self.counters.len() > limits::SCHEDULER_COUNTERS.max(self.placed / 4) {
            self.reset(placed());
        }
    }

    fn reset(&mut self, placed: impl Iterator<Item = Placed>) {
        self.counters.clear();
        self.counter_ids.clear();
        self.rules.clear();
        self.topologies.clear();
        self.topology_ids.clear();
        self.tallies.clear();
        self.tally_ids.clear();
        self.classes.values_mut().for_each(Class::forget);
        for kin in self.kin.values_mut() {
            kin.shares.clear();
            kin.counters_seen = 0;
            kin.heard = false;
        }
        for pod in placed {
            self.hear(pod.kin);
            self.learn(pod.kin);
            let Peers { kin, counters, tallies, .. } = self;
            for share in kin[&pod.kin].shares.iter().filter(|s| pod.alive || !s.alive) {
                add(&mut counters[share.counter], tallies, pod.slot, share.times);
            }
        }
    }

    /// Handles a namespace that was added, has other labels, or was deleted.
    pub fn namespace_changed<I: Iterator<Item = Placed>>(
        &mut self,
        name: &str,
        labels: Option<&Labels>,
        placed: impl Fn() -> I,
    ) -> bool {
        let before = self.namespaces.get(name);
        if before == labels || (before.is_none_or(Labels::is_empty) && labels.is_none_or(Labels::is_empty)) {
            return false;
        }
        match labels {
            Some(labels) => self.namespaces.insert(Rc::from(name), labels.clone()),
            None => self.namespaces.remove(name),
        };
        let asks = |who: &Who| match who {
            Who::All(all) => all.iter().any(Match::asks_namespaces),
            Who::Alive(one) => one.asks_namespaces(),
            Who::Carriers(carried) => carried.who.asks_namespaces(),
        };
        let asked = self.counters.iter().any(|c| asks(&c.who));
        if asked {
            self.reset(placed());
        }
        asked
    }

    /// Whether a pod of `kin` that comes or goes changes a count that a class depends on.
    pub fn concerns(&self, kin: KinId, class: ClassId) -> bool {
        let Some(asks) = &self.class(class).asks else { return false };
        let shares = &self.kin[&kin].shares;
        asks.tallies().any(|t| shares.iter().any(|s| s.counter == self.tallies[t].counter))
    }
}

fn add(counter: &mut Counter, tallies: &mut [Tally], slot: Slot, pods: i64) {
    if counter.by_slot.len() <= slot as usize {
        counter.by_slot.resize(slot as usize + 1, 0);
    }
    let count = &mut counter.by_slot[slot as usize];
    *count =
        i32::try_from(pods).ok().and_then(|pods| count.checked_add_signed(pods)).expect("pods leave where they are");
    counter.most = counter.most.max(*count);
    for tally in &counter.tallies {
        tallies[*tally].add(slot, pods);
    }
}
