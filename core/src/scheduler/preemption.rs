//! DefaultPreemption: chooses a node, and the pods of lower priority to evict from it, for a pod that fits nowhere.
//!
//! Source: `framework/preemption` and `plugins/defaultpreemption`. All nodes are looked at, where kube-scheduler looks
//! at a tenth of them. The best one by kube-scheduler's criteria is chosen; one of several equal ones is drawn. The
//! result for a node is kept until the node changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::asked::Chosen;
use super::cache::{Nominee, Slot};
use super::explain;
use super::extenders::{Candidate, Opinion, Verb};
use super::framework::{Reason, Rejection};
use super::peers::ClassId;
use super::queue::PodId;
use super::table::Rejections;
use super::trial::Trial;
use super::{Scheduler, State};
use crate::machine::Now;
use crate::object::{Labels, ObjectKey, Selector};

/// The message for a pod that may not preempt others.
const NEVER: &str = "not eligible due to preemptionPolicy=Never.";
/// The message while the pods that were evicted for the pod are still terminating.
const TERMINATING: &str = "not eligible due to a terminating pod on the nominated node.";

/// The pods to evict for another pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preemption {
    /// The node that the other pod is nominated for.
    pub node: Rc<str>,
    /// The pods to evict, with their UIDs, most important first.
    pub victims: Vec<(ObjectKey, Rc<str>)>,
    /// Pods of lower priority that are no longer nominated for that node.
    pub displaced: Vec<(ObjectKey, Rc<str>)>,
}

/// What to do with a pod's `status.nominatedNodeName`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Nomination {
    /// Leave it as it is.
    Kept,
    /// Clear it, since not even evictions help.
    Cleared,
    /// Set it, and evict these pods.
    Preempts(Preemption),
}

/// What came of looking for pods to evict.
#[derive(Debug)]
pub(super) enum Evicted {
    /// Why no eviction helps, for the message, and what to do with the nomination.
    Settled(Option<String>, Nomination),
    /// Extenders are asked about these.
    Open(Vec<Candidate>),
}

/// What preemption needs of a PodDisruptionBudget.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Selects the pods that it protects.
    pub selector: Selector,
    /// How many of them may be evicted (`status.disruptionsAllowed`).
    pub allowed: i32,
    /// The names of those whose eviction is already counted (`status.disruptedPods`).
    pub disrupted: BTreeSet<String>,
}

/// The cost of evictions from a node; the least is best.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Cost {
    /// How many victims' budgets would be violated.
    violations: usize,
    /// The highest priority among the victims.
    highest: i32,
    /// The sum of their priorities, each shifted so that it is above zero.
    sum: i64,
    victims: usize,
    /// When the first of the victims of the highest priority started. Later is better.
    started: Reverse<i64>,
}

/// The result of evictions from a node for a pod.
#[derive(Clone, Debug)]
enum Outcome {
    /// The node does not exist, or is feasible without evictions.
    Absent,
    /// The node is not feasible for a reason that no eviction changes.
    NotHelpful,
    /// No pod there has a lower priority.
    NoVictims,
    /// The pod does not fit even without all pods of lower priority.
    Fails(Rejection),
    /// The pod fits after evictions of this cost.
    Fits(Cost),
}

#[derive(Clone, Debug)]
struct Row {
    /// The number of the first change of nodes that it does not include.
    seen: u64,
    outcome: Outcome,
}

/// The results of evictions from each node for pods of one shape and priority.
#[derive(Debug, Default)]
struct Preview {
    rows: Vec<Row>,
    /// The generation of the budgets that the results are based on.
    epoch: u64,
}

/// What preemption knows in addition to nodes and pods.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    budgets: BTreeMap<(Rc<str>, Rc<str>), Budget>,
    /// Counts changes of budgets and of pods' start times.
    epoch: u64,
    previews: BTreeMap<(super::shape::ShapeId, i32), Preview>,
}

impl Evictions {
    /// Records that a pod's start time has changed.
    pub(super) fn started(&mut self) {
        self.epoch += 1;
    }

    /// Whether evicting a pod would violate one of its budgets. `left` has the evictions that each budget still allows;
    /// this one is subtracted.
    fn violates(&self, key: &ObjectKey, labels: Option<&Labels>, left: &mut [i32]) -> bool {
        let Some(labels) = labels.filter(|l| !l.is_empty()) else { return false };
        let mut violated = false;
        for (((namespace, _), budget), left) in self.budgets.iter().zip(left) {
            let selects = || !budget.selector.is_everything() && budget.selector.matches(Some(labels));
            if **namespace == *key.namespace() && selects() && !budget.disrupted.contains(key.name()) {
                *left -= 1;
                violated |= *left < 0;
            }
        }
        violated
    }
}

impl Scheduler {
    /// Handles a PodDisruptionBudget that was added or has changed; `None` if it was deleted.
    pub fn budget_changed(&mut self, namespace: &str, name: &str, budget: Option<Budget>) {
        let key = (Rc::from(namespace), Rc::from(name));
        if self.evictions.budgets.get(&key) == budget.as_ref() {
            return;
        }
        self.evictions.epoch += 1;
        match budget {
            Some(budget) => self.evictions.budgets.insert(key, budget),
            None => self.evictions.budgets.remove(&key),
        };
    }

    /// Handles that a pod could not be evicted: the pods that wait for that eviction are retried.
    pub fn spared(&mut self, now: Now, key: &ObjectKey, uid: &str) {
        let Some(id) = self.index.get(key).copied().filter(|id| *self.tracked(*id).uid == *uid) else { return };
        self.tracked_mut(id).is_victim = false;
        if let State::Assumed(slot) | State::Bound(slot) = self.tracked(id).state {
            self.wake_nominees(now, slot);
        }
    }

    /// Retries the pods that are nominated for a node.
    pub(super) fn wake_nominees(&mut self, now: Now, slot: Slot) {
        let waiting: Vec<PodId> = self.nodes.nominees(slot).iter().map(|n| n.pod).collect();
        waiting.into_iter().for_each(|pod| self.queue.wake_pod(now.mono, pod));
    }

    /// Nominates a pod for a node.
    pub(super) fn nominate(&mut self, id: PodId, slot: Slot) {
        let (class, priority) = (self.tracked(id).class, self.tracked(id).priority);
        self.peers.announce(class);
        let shape = Rc::clone(&self.peers.class(class).shape);
        self.nodes.nominate(slot, Nominee { pod: id, priority, shape, class });
        self.tracked_mut(id).nominated = Some(slot);
    }

    /// Ends a pod's nomination. Returns the node that it was nominated for.
    pub(super) fn withdraw(&mut self, id: PodId) -> Option<Slot> {
        let slot = self.tracked_mut(id).nominated.take()?;
        self.nodes.withdraw(slot, id);
        Some(slot)
    }

    /// Chooses the pods to evict for a pod that fits nowhere, unless extenders are to be asked first. `before` is the
    /// node that it was nominated for so far, `opinion` what extenders say of nodes.
    pub(super) fn preempt(
        &mut self,
        now: Now,
        id: PodId,
        before: Option<Slot>,
        (rejections, opinion): (&Rejections, &Opinion),
    ) -> Evicted {
        if !self.peers.class(self.tracked(id).class).shape.rules.preempts {
            return Evicted::Settled(None, Nomination::Kept);
        }
        if !self.tracked(id).may_preempt {
            return Evicted::Settled(Some(NEVER.to_owned()), Nomination::Kept);
        }
        if before.is_some_and(|slot| self.waits_for_victims(id, slot)) {
            return Evicted::Settled(Some(TERMINATING.to_owned()), Nomination::Kept);
        }
        let mut said = Rejections::default();
        let helpless = Rejection::unresolvable("DefaultPreemption", explain::NOT_HELPFUL);
        if rejections.iter().all(|(rejection, _)| rejection.unresolvable) {
            rejections.iter().for_each(|(_, nodes)| said.add(helpless.clone(), nodes));
        } else {
            let asks = self.is_extended(id, &[Verb::Preempt]);
            let best = self.candidates(id, &mut said, &helpless, (opinion, asks));
            if !best.is_empty() && asks {
                return Evicted::Open(best.into_iter().map(|slot| self.candidate(id, slot)).collect());
            }
            if !best.is_empty() {
                let slot = best[self.draw(best.len() as u32) as usize];
                let (_, victims) = self.dry_run(id, slot);
                return Evicted::Settled(None, Nomination::Preempts(self.evict(now, id, slot, &victims)));
            }
        }
        let message = explain::reasons(self.nodes.len(), &said, &self.nodes.resources);
        Evicted::Settled(Some(message), if before.is_some() { Nomination::Cleared } else { Nomination::Kept })
    }

    /// What is evicted from a node that was found to be a candidate, for extenders.
    fn candidate(&mut self, id: PodId, slot: Slot) -> Candidate {
        let (outcome, victims) = self.dry_run(id, slot);
        let violations = if let Outcome::Fits(cost) = outcome { cost.violations as i64 } else { 0 };
        let victims = victims.iter().map(|pod| Rc::clone(&self.tracked(*pod).uid)).collect();
        Candidate { node: Rc::clone(self.nodes.name(slot)), victims, violations }
    }

    /// Evicts from the best of the nodes that extenders have left, or says why from none.
    pub(super) fn preempt_chosen(&mut self, now: Now, id: PodId, chosen: Chosen) -> (Option<String>, Nomination) {
        let candidates = match chosen {
            Ok(candidates) => candidates,
            Err(why) => return (Some(why), Nomination::Kept),
        };
        let mut costs: Vec<(Cost, Slot, Vec<PodId>)> = Vec::new();
        for candidate in candidates {
            // A node or a victim that has gone meanwhile is no candidate any more.
            let slot = self.nodes.slot(&candidate.node).filter(|slot| self.nodes.is_present(*slot));
            let Some(slot) = slot else { continue };
            let victims: Option<Vec<PodId>> = candidate.victims.iter().map(|uid| self.on_slot(slot, uid)).collect();
            let Some(mut victims) = victims.filter(|victims| !victims.is_empty()) else { continue };
            self.sort_by_importance(&mut victims);
            costs.push((self.cost(&victims, usize::try_from(candidate.violations).unwrap_or(0)), slot, victims));
        }
        let Some(least) = costs.iter().map(|(cost, _, _)| cost).min().cloned() else {
            return (Some("no candidate node for preemption".to_owned()), Nomination::Kept);
        };
        costs.retain(|(cost, _, _)| *cost == least);
        let n = self.draw(costs.len() as u32) as usize;
        let (_, slot, victims) = costs.swap_remove(n);
        (None, Nomination::Preempts(self.evict(now, id, slot, &victims)))
    }

    /// Whether victims on the node that a pod is nominated for are still terminating.
    fn waits_for_victims(&mut self, id: PodId, slot: Slot) -> bool {
        if !self.nodes.is_present(slot) || self.rejection(id, slot).is_some_and(|r| r.unresolvable) {
            return false;
        }
        let priority = self.tracked(id).priority;
        let going = |pod: &PodId| self.tracked(*pod).is_victim && self.tracked(*pod).priority < priority;
        self.there(slot).iter().any(going)
    }

    /// The slots where evictions cost least, or all where they help. The reasons of the other nodes are added to
    /// `said`.
    fn candidates(
        &mut self,
        id: PodId,
        said: &mut Rejections,
        helpless: &Rejection,
        (opinion, all): (&Opinion, bool),
    ) -> Vec<Slot> {
        let class = self.peers.class(self.tracked(id).class);
        let key = (class.shape_id, self.tracked(id).priority);
        let keeps = !class.is_particular() && class.shape.only.is_none();
        let mut preview =
            if keeps { self.evictions.previews.remove(&key).unwrap_or_default() } else { Preview::default() };
        if preview.epoch != self.evictions.epoch {
            preview = Preview { rows: Vec::new(), epoch: self.evictions.epoch };
        }
        preview.rows.resize(self.nodes.slots() as usize, Row { seen: 0, outcome: Outcome::Absent });
        let (mut best, mut least): (Vec<Slot>, Option<Cost>) = (Vec::new(), None);
        for slot in 0..self.nodes.slots() {
            if preview.rows[slot as usize].seen <= self.nodes.changed_at(slot) {
                let outcome = self.dry_run(id, slot).0;
                preview.rows[slot as usize] = Row { seen: self.nodes.now(), outcome };
            }
            match &preview.rows[slot as usize].outcome {
                Outcome::Absent => self.say_refused(id, slot, opinion, helpless, said),
                Outcome::NotHelpful => said.add(helpless.clone(), 1),
                Outcome::NoVictims => said.add(Rejection::unresolvable("DefaultPreemption", explain::NO_VICTIMS), 1),
                Outcome::Fails(rejection) => said.add(rejection.clone(), 1),
                Outcome::Fits(_) if all => best.push(slot),
                Outcome::Fits(cost) => match least.as_ref().map_or(std::cmp::Ordering::Less, |least| cost.cmp(least)) {
                    std::cmp::Ordering::Less => {
                        least = Some(cost.clone());
                        best.clear();
                        best.push(slot);
                    }
                    std::cmp::Ordering::Equal => best.push(slot),
                    std::cmp::Ordering::Greater => {}
                },
            }
        }
        if keeps {
            if self.evictions.previews.len() >= crate::limits::SCHEDULER_TABLES {
                self.evictions.previews.clear();
            }
            self.evictions.previews.insert(key, preview);
        }
        best
    }

    /// Says why evictions do not help on a node that only extenders refuse: none is needed for all that the scheduler
    /// knows.
    fn say_refused(&self, id: PodId, slot: Slot, opinion: &Opinion, helpless: &Rejection, said: &mut Rejections) {
        let refused = if self.nodes.is_present(slot) { self.refusal(slot, opinion) } else { None };
        let Some(refused) = refused else { return };
        let priority = self.tracked(id).priority;
        said.add(
            match self.there(slot).iter().any(|pod| self.tracked(*pod).priority < priority) {
                _ if refused.unresolvable => helpless.clone(),
                false => Rejection::unresolvable("DefaultPreemption", explain::NO_VICTIMS),
                true => {
                    let why = format!("expected at least one victim pod on node {:?}", self.nodes.name(slot));
                    let reasons = vec![Reason::Said(Rc::from(why))];
                    Rejection { plugin: "DefaultPreemption", reasons, unresolvable: true }
                }
            },
            1,
        );
    }

    /// The result of evictions from a node for a pod (`SelectVictimsOnNode`), and the victims, most important first.
    fn dry_run(&mut self, id: PodId, slot: Slot) -> (Outcome, Vec<PodId>) {
        if !self.nodes.is_present(slot) {
            return (Outcome::Absent, Vec::new());
        }
        match self.rejection(id, slot) {
            None => return (Outcome::Absent, Vec::new()),
            Some(rejection) if rejection.unresolvable => return (Outcome::NotHelpful, Vec::new()),
            Some(_) => {}
        }
        let priority = self.tracked(id).priority;
        let there = self.there(slot).iter().copied();
        let mut lower: Vec<PodId> = there.filter(|pod| self.tracked(*pod).priority < priority).collect();
        if lower.is_empty() {
            return (Outcome::NoVictims, Vec::new());
        }
        self.sort_by_importance(&mut lower);
        let mut room = Room::new(self, id, slot);
        lower.iter().for_each(|pod| room.evict(self, *pod));
        if let Some(rejection) = room.rejection(self) {
            return (Outcome::Fails(rejection), Vec::new());
        }
        let mut left: Vec<i32> = self.evictions.budgets.values().map(|b| b.allowed).collect();
        let violates = |pod: &PodId| {
            let t = self.tracked(*pod);
            self.evictions.violates(&t.key, t.meta.labels.as_ref(), &mut left)
        };
        let (violating, others): (Vec<PodId>, Vec<PodId>) = lower.into_iter().partition(violates);
        let (mut victims, mut violations) = (Vec::new(), 0);
        for (pods, violate) in [(violating, true), (others, false)] {
            for pod in pods {
                room.reprieve(self, pod);
                if room.rejection(self).is_some() {
                    room.evict(self, pod);
                    violations += usize::from(violate);
                    victims.push(pod);
                }
            }
        }
        self.sort_by_importance(&mut victims);
        if victims.is_empty() {
            return (Outcome::Absent, Vec::new());
        }
        (Outcome::Fits(self.cost(&victims, violations)), victims)
    }

    /// What it costs to evict pods, of which there is one, and which come most important first.
    fn cost(&self, victims: &[PodId], violations: usize) -> Cost {
        let highest = self.tracked(victims[0]).priority;
        let priorities = victims.iter().map(|pod| self.tracked(*pod).priority);
        let started = victims.iter().filter(|pod| self.tracked(**pod).priority == highest);
        Cost {
            violations,
            highest,
            sum: priorities.map(|p| i64::from(p) + (1 << 31)).sum(),
            victims: victims.len(),
            started: Reverse(started.map(|pod| self.tracked(*pod).started).min().expect("the first is among them")),
        }
    }

    /// Higher priority first, then earlier start (`MoreImportantPod`).
    fn sort_by_importance(&self, pods: &mut [PodId]) {
        pods.sort_by(|a, b| {
            let (a, b) = (self.tracked(*a), self.tracked(*b));
            (Reverse(a.priority), a.started, &a.key).cmp(&(Reverse(b.priority), b.started, &b.key))
        });
    }

    /// Nominates a pod for a node from which others are evicted.
    fn evict(&mut self, now: Now, id: PodId, slot: Slot, victims: &[PodId]) -> Preemption {
        let priority = self.tracked(id).priority;
        let lower: Vec<PodId> =
            self.nodes.nominees(slot).iter().filter(|n| n.priority < priority).map(|n| n.pod).collect();
        let name = |s: &Scheduler, pod: &PodId| (s.tracked(*pod).key.clone(), Rc::clone(&s.tracked(*pod).uid));
        let preemption = Preemption {
            node: Rc::clone(self.nodes.name(slot)),
            victims: victims.iter().map(|pod| name(self, pod)).collect(),
            displaced: lower.iter().map(|pod| name(self, pod)).collect(),
        };
        for pod in lower {
            self.withdraw(pod);
            self.queue.wake_pod(now.mono, pod);
        }
        victims.iter().for_each(|pod| self.tracked_mut(*pod).is_victim = true);
        self.nominate(id, slot);
        preemption
    }
}

/// A node without some of its pods, as another pod would find it.
struct Room {
    class: ClassId,
    slot: Slot,
    trial: Trial,
    /// The pods nominated for the node that go first, and the pods that are removed.
    first: Vec<(PodId, (ClassId, bool, i64))>,
    gone: Vec<(PodId, (ClassId, bool, i64))>,
}

impl Room {
    fn new(s: &Scheduler, id: PodId, slot: Slot) -> Room {
        let tracked = s.tracked(id);
        let mut trial = Trial::new(&s.peers.class(tracked.class).shape, slot);
        let nominees = s.nodes.nominees(slot).iter().filter(|n| n.priority >= tracked.priority);
        let mut first = Vec::new();
        for n in nominees {
            trial.add(&n.shape);
            first.push((n.pod, (n.class, true, 1)));
        }
        Room { class: tracked.class, slot, trial, first, gone: Vec::new() }
    }

    fn evict(&mut self, s: &Scheduler, pod: PodId) {
        let tracked = s.tracked(pod);
        self.trial.remove(&s.peers.class(tracked.class).shape, tracked.devices);
        self.gone.push((pod, (tracked.class, tracked.alive, -1)));
    }

    fn reprieve(&mut self, s: &Scheduler, pod: PodId) {
        let tracked = s.tracked(pod);
        self.trial.put_back(&s.peers.class(tracked.class).shape, tracked.devices);
        self.gone.retain(|(gone, _)| *gone != pod);
    }

    /// Why the pod does not fit, checked with and without the nominated pods that go first.
    fn rejection(&self, s: &mut Scheduler) -> Option<Rejection> {
        let refused = self.trial.rejection(&s.nodes);
        if refused.is_some() || !s.peers.class(self.class).is_particular() {
            return refused;
        }
        let refused = self.rejection_beside(s, &self.first);
        if refused.is_some() || self.first.is_empty() {
            return refused;
        }
        self.rejection_beside(s, &[])
    }

    /// Why volumes or other pods make the node none beside these.
    fn rejection_beside(&self, s: &mut Scheduler, first: &[(PodId, (ClassId, bool, i64))]) -> Option<Rejection> {
        let gone: BTreeSet<PodId> = self.gone.iter().map(|(pod, _)| *pod).collect();
        let nominees: Vec<PodId> = first.iter().map(|(pod, _)| *pod).collect();
        let with = s.peers.extra(self.slot, self.gone.iter().chain(first).map(|(_, pod)| *pod));
        let volumes = s.volume_rejection(self.class, self.slot, &gone, &nominees);
        let others = volumes.or_else(|| s.peers.rejection(self.class, self.slot, &with));
        others.or_else(|| s.device_rejection(self.class, self.slot))
    }
}
