//! Pods that wait for extenders.
//!
//! A pod whose nodes an extender has a say in is not decided at once: the scheduler says which nodes it has found
//! ([`Decision::AskNodes`]), and decides once it is told what extenders think of them. Other pods are decided
//! meanwhile, so that a slow extender stops nobody else; therefore the nodes are filtered again when the answer is
//! there. Whom everybody has refused may evict others, about which extenders may be asked too
//! ([`Decision::AskVictims`]).

use std::rc::Rc;

use super::cache::Slot;
use super::events::Events;
use super::extenders::{Candidate, Extender, Opinion, Verb};
use super::framework::{Reason, Rejection};
use super::queue::PodId;
use super::table::Rejections;
use super::{Decision, Scheduler, State};
use crate::machine::Now;
use crate::object::ObjectKey;

/// The plug-in that rejections by extenders are said to come from (`ExtenderName`).
const EXTENDER: &str = "Extender";

/// What is known of the victims that extenders were asked about: their choice, or why there is none.
pub(super) type Chosen = Result<Vec<Candidate>, String>;

impl Scheduler {
    /// Has extenders asked about pods. They are told apart by their place.
    pub fn with_extenders(mut self, extenders: &Rc<[Extender]>) -> Scheduler {
        self.extenders = Rc::clone(extenders);
        self
    }

    /// Whether an extender serves one of these verbs for a pod.
    pub(super) fn is_extended(&self, id: PodId, verbs: &[Verb]) -> bool {
        let spec = &self.tracked(id).spec;
        self.extenders.iter().any(|e| verbs.iter().any(|verb| e.serves(*verb, spec)))
    }

    /// Begins to wait for what extenders say about nodes: about `first`, the one that the pod is nominated for, or
    /// about all that are feasible. `None` if none is. Until the answer is there, its nomination keeps its room.
    pub(super) fn ask_about_nodes(&mut self, id: PodId, before: Option<Slot>, first: Option<Slot>) -> Option<Decision> {
        let slots = first.map_or_else(|| self.feasible_slots(id), |slot| vec![slot]);
        if slots.is_empty() {
            return None;
        }
        let nodes = slots.into_iter().map(|slot| Rc::clone(self.nodes.name(slot))).collect();
        let (pod, uid) = self.begin_to_wait(id, before);
        Some(Decision::AskNodes { pod, uid, nodes, nominated: first.is_some() })
    }

    /// A popped pod waits for an answer.
    pub(super) fn begin_to_wait(&mut self, id: PodId, before: Option<Slot>) -> (ObjectKey, Rc<str>) {
        if let Some(slot) = before {
            self.nominate(id, slot);
        }
        self.tracked_mut(id).state = State::Asked;
        (self.tracked(id).key.clone(), Rc::clone(&self.tracked(id).uid))
    }

    fn feasible_slots(&mut self, id: PodId) -> Vec<Slot> {
        let (class, priority) = (self.tracked(id).class, self.tracked(id).priority);
        let scores = self.feasible(class, priority);
        let slots = scores.iter().zip(0..).filter(|(score, _)| **score >= 0).map(|(_, slot)| slot).collect();
        self.scores = scores;
        slots
    }

    /// A pod that waits, and where it is nominated for. It does not wait any longer. `None` if the pod is gone, is
    /// another one by now, or is decided anew since it has changed.
    fn end_waiting(&mut self, pod: &ObjectKey, uid: &str) -> Option<(PodId, Option<Slot>)> {
        let id = self.index.get(pod).copied()?;
        if self.tracked(id).state != State::Asked || *self.tracked(id).uid != *uid {
            return None;
        }
        self.tracked_mut(id).state = State::Queued;
        let before = self.withdraw(id);
        self.prepare(self.tracked(id).class);
        Some((id, before))
    }

    /// Extenders have said what they think of nodes. `nominated`: of those, only the one was asked about that the pod
    /// is nominated for. `None` if the pod waits no more, or is tried again later.
    pub fn nodes_answered(
        &mut self,
        now: Now,
        (pod, uid): (&ObjectKey, &str),
        opinion: &Opinion,
        nominated: bool,
    ) -> Option<Decision> {
        let (id, before) = self.end_waiting(pod, uid)?;
        if let Some(slot) = self.find_among(id, opinion) {
            return Some(self.assume(now, id, slot, before));
        }
        if nominated {
            let again = self.ask_about_nodes(id, before, None);
            return again.or_else(|| self.turn_down(now, id, before, opinion, None));
        }
        if self.is_outdated(id, opinion) {
            self.try_again(now, id, before);
            return None;
        }
        self.turn_down(now, id, before, opinion, None)
    }

    /// Extenders have chosen among the victims that they were asked about, after `opinion` on nodes.
    pub fn victims_answered(
        &mut self,
        now: Now,
        (pod, uid): (&ObjectKey, &str),
        opinion: &Opinion,
        chosen: Result<Vec<Candidate>, String>,
    ) -> Option<Decision> {
        let (id, before) = self.end_waiting(pod, uid)?;
        if self.is_outdated(id, opinion) || self.find_among(id, opinion).is_some() {
            self.try_again(now, id, before);
            return None;
        }
        self.turn_down(now, id, before, opinion, Some(chosen))
    }

    /// An extender that may not be ignored has failed: the pod is tried again after a back-off.
    pub fn not_answered(&mut self, now: Now, (pod, uid): (&ObjectKey, &str), message: String) -> Option<Decision> {
        let (id, before) = self.end_waiting(pod, uid)?;
        self.queue.retry(now.mono, id);
        if let Some(slot) = before {
            self.happened(now, Events::ASSIGNED_POD_DELETE, slot);
        }
        Some(Decision::Failed { pod: pod.clone(), uid: Rc::from(uid), message })
    }

    /// What extenders were asked about pods is forgotten: the pods are tried again.
    pub fn nobody_is_asked(&mut self, now: Now) {
        let asked = self.pods.iter().flatten().filter(|t| t.state == State::Asked);
        let asked: Vec<_> = asked.map(|t| (t.key.clone(), Rc::clone(&t.uid))).collect();
        for (pod, uid) in asked {
            if let Some((id, before)) = self.end_waiting(&pod, &uid) {
                self.try_again(now, id, before);
            }
        }
    }

    fn try_again(&mut self, now: Now, id: PodId, before: Option<Slot>) {
        if let Some(slot) = before {
            self.nominate(id, slot);
        }
        self.queue.retry(now.mono, id);
    }

    /// Whether a node is feasible by now that extenders were not asked about.
    fn is_outdated(&mut self, id: PodId, opinion: &Opinion) -> bool {
        let slots = self.feasible_slots(id);
        slots.into_iter().any(|slot| !opinion.asked.contains(self.nodes.name(slot)))
    }

    /// The best node of those that extenders pass and that are feasible still; one of several equally good ones is
    /// drawn.
    fn find_among(&mut self, id: PodId, opinion: &Opinion) -> Option<Slot> {
        let (class, priority) = (self.tracked(id).class, self.tracked(id).priority);
        let mut scores = self.feasible(class, priority);
        for (slot, score) in scores.iter_mut().enumerate().filter(|(_, score)| **score >= 0) {
            if !opinion.passed.contains(self.nodes.name(slot as Slot)) {
                *score = -1;
            }
        }
        self.add_other_scores(id, &mut scores);
        let passed = scores.iter().zip(0..).filter(|(score, _)| **score >= 0);
        let with = |(score, slot): (&i32, Slot)| {
            let more = opinion.scores.get(self.nodes.name(slot)).copied().unwrap_or(0);
            (i64::from(*score).saturating_add(more), slot)
        };
        let passed: Vec<(i64, Slot)> = passed.map(with).collect();
        self.scores = scores;
        let best = passed.iter().map(|(score, _)| *score).max()?;
        let best: Vec<Slot> = passed.iter().filter(|(score, _)| *score == best).map(|(_, slot)| *slot).collect();
        let first = self.peers.class(class).shape.rules.takes_first();
        let n = if first { 0 } else { self.draw(best.len() as u32) };
        Some(best[n as usize])
    }

    /// Why extenders make a feasible node none; `None` if they do not.
    pub(super) fn refusal(&self, slot: Slot, opinion: &Opinion) -> Option<Rejection> {
        let name = self.nodes.name(slot);
        if !opinion.asked.contains(name) || opinion.passed.contains(name) {
            return None;
        }
        // Where an extender leaves a node out and does not say why, evictions are taken not to help.
        let refused = opinion.refused.get(name);
        let reasons = refused.map(|refused| Reason::Said(Rc::clone(&refused.why))).into_iter().collect();
        Some(Rejection { plugin: EXTENDER, reasons, unresolvable: refused.is_none_or(|refused| refused.unresolvable) })
    }

    /// Adds the nodes that extenders refuse to those that are not feasible.
    pub(super) fn add_refusals(&mut self, id: PodId, opinion: &Opinion, rejections: &mut Rejections) {
        if opinion.asked.is_empty() {
            return;
        }
        for slot in self.feasible_slots(id) {
            if let Some(rejection) = self.refusal(slot, opinion) {
                rejections.add(rejection, 1);
            }
        }
    }

    /// Whether the victims that an extender names are on a node.
    pub fn check_victims(&self, extender: &Extender, candidate: &Candidate) -> Result<(), String> {
        let node = &candidate.node;
        let slot = self.nodes.slot(node).filter(|slot| self.nodes.is_present(*slot));
        let slot = slot.ok_or_else(|| format!("nodeinfo not found for node name {node:?}"))?;
        let gone = candidate.victims.iter().find(|uid| self.on_slot(slot, uid).is_none());
        match gone {
            None => Ok(()),
            Some(uid) => Err(format!(
                "extender: {} claims to preempt pod (UID: {uid}) on node: {node}, but the pod is not found on that node",
                extender.url_prefix
            )),
        }
    }

    /// The pod of this UID on a slot.
    pub(super) fn on_slot(&self, slot: Slot, uid: &str) -> Option<PodId> {
        self.there(slot).iter().copied().find(|pod| *self.tracked(*pod).uid == *uid)
    }

    /// The key of a pod on a node.
    pub fn pod_on(&self, node: &str, uid: &str) -> Option<&ObjectKey> {
        let id = self.on_slot(self.nodes.slot(node)?, uid)?;
        Some(&self.tracked(id).key)
    }
}
