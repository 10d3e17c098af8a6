//! Finds the best node for a pod, and says why other nodes are not feasible.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::cache::Slot;
use super::dynamic_resources::{self, ClaimStep, Needs};
use super::filters::{NAMES_CONFLICT, NOT_AMONG_NAMES};
use super::framework::{NORMALIZED, Reads, Rejection, filter, normalized_score, raw_scores};
use super::gpu::{self, Devices};
use super::images::Worth;
use super::once;
use super::peers::{ClassId, Extra, Placed};
use super::profile::Plugin;
use super::queue::PodId;
use super::table::{Rejections, Table, scan};
use super::trial::Trial;
use super::volumes::{self, There, VolumeStep};
use super::{Scheduler, State, Tracked};
use crate::limits;
use crate::object::ObjectKey;

/// The pods on nodes, in the form in which the counters of [`peers`](super::peers) take them.
pub(super) fn placed(pods: &[Option<Tracked>]) -> impl Iterator<Item = Placed> + use<'_> {
    pods.iter().flatten().filter_map(|t| match t.state {
        State::Assumed(slot) | State::Bound(slot) => Some(Placed { kin: t.kin, slot, alive: t.alive }),
        State::Gated | State::Queued | State::Asked => None,
    })
}

impl Scheduler {
    /// Brings what a class asks of other pods up to date.
    pub(super) fn prepare(&mut self, class: ClassId) {
        let pods = &self.pods;
        self.peers.prepare(class, &self.nodes, || placed(pods));
        let of = self.peers.class(class);
        self.volumes.prepare(class, &of.claims, of.shape.rules.filters);
        if of.shape.rules.filters.has(Plugin::DynamicResources) {
            self.dynamic_resources.prepare(class, &of.devices);
        }
    }

    /// What has to be written before a pod of a class is bound to a node that it fits.
    pub(super) fn volume_steps(&self, class: ClassId, slot: Slot) -> Vec<VolumeStep> {
        let needs = self.volumes.needs(class, &self.peers.class(class).claims);
        let plan = needs.map(|needs| volumes::plan(&needs, &self.nodes, slot).expect("the node was found to fit"));
        plan.unwrap_or_default()
    }

    /// What has to be written of the claims for devices of a pod before it is bound to a node that it fits.
    pub(super) fn claim_steps(&self, class: ClassId, slot: Slot, uid: &str) -> Vec<ClaimStep> {
        let needs = self.device_needs(class);
        needs.map(|needs| self.dynamic_resources.plan(&needs, &self.nodes, slot, uid)).unwrap_or_default()
    }

    /// What the claims for devices of a class ask, where they count; it must have been prepared.
    fn device_needs(&self, class: ClassId) -> Option<Rc<Needs>> {
        let of = self.peers.class(class);
        let counts = of.shape.rules.filters.has(Plugin::DynamicResources);
        if counts { self.dynamic_resources.needs(class, &of.devices) } else { None }
    }

    /// Why devices make a node none for pods of a class.
    pub(super) fn device_rejection(&self, class: ClassId, slot: Slot) -> Option<Rejection> {
        let needs = self.device_needs(class)?;
        self.dynamic_resources.rejection(&needs, &self.nodes, slot)
    }

    /// What is said about the claims for devices of a pod that fits no node, and one of them that is to be allocated
    /// anew (DynamicResources' `PostFilter`).
    pub(super) fn after_filters(
        &mut self,
        id: PodId,
        was_refused: bool,
        rejections: &Rejections,
    ) -> (Option<&'static str>, Option<ObjectKey>) {
        let Some(needs) = self.device_needs(self.tracked(id).class) else { return (None, None) };
        if was_refused {
            return (Some("no new claims to deallocate"), None);
        }
        let mut away = Vec::new();
        if rejections.iter().any(|(rejection, _)| dynamic_resources::is_elsewhere(rejection)) {
            for slot in (0..self.nodes.slots()).filter(|slot| self.nodes.is_present(*slot)).collect::<Vec<_>>() {
                if self.rejection(id, slot).is_some_and(|rejection| dynamic_resources::is_elsewhere(&rejection)) {
                    away.push(slot);
                }
            }
        }
        match self.dynamic_resources.idle(&needs, &self.nodes, &away, &self.tracked(id).uid) {
            Some(claim) => (Some("deallocation of ResourceClaim completed"), Some(claim)),
            None => (Some("still not schedulable"), None),
        }
    }

    /// Why volumes make a node none for pods of a class, beside pods of `nominees` and without those that are `gone`.
    pub(super) fn volume_rejection(
        &self,
        class: ClassId,
        slot: Slot,
        gone: &BTreeSet<PodId>,
        nominees: &[PodId],
    ) -> Option<Rejection> {
        let needs = self.volumes.needs(class, &self.peers.class(class).claims)?;
        self.volumes.rejection(&needs, &self.nodes, slot, &There { on: self.there(slot), gone, nominees })
    }

    /// Why volumes or other pods make a node none beside the pods that are nominated for it and go first.
    fn rejection_beside(&mut self, class: ClassId, slot: Slot, priority: i32) -> Option<Rejection> {
        let first = self.nodes.nominees(slot).iter().filter(|n| n.priority >= priority);
        let first: Vec<PodId> = first.map(|n| n.pod).collect();
        if first.is_empty() {
            return None;
        }
        let extra = self.nominated_extra(slot, priority);
        let volumes = self.volume_rejection(class, slot, &BTreeSet::new(), &first);
        volumes.or_else(|| self.peers.rejection(class, slot, &extra))
    }

    /// Brings the table of a class's shape, for pods of this priority, up to date and returns it.
    pub(super) fn table(&mut self, class: ClassId, priority: i32) -> &Table {
        let class = self.peers.class(class);
        let key = (class.shape_id, priority);
        self.uses += 1;
        if self.tables.len() >= limits::SCHEDULER_TABLES && !self.tables.contains_key(&key) {
            let oldest = self.tables.iter().min_by_key(|(_, t)| t.used).map(|(key, _)| *key);
            self.tables.remove(&oldest.expect("there are as many tables as there may be"));
        }
        let table = self.tables.entry(key).or_default();
        table.used = self.uses;
        table.refresh(&class.shape, priority, &self.nodes);
        table
    }

    /// The best node for a pod; one of several equally good ones is drawn, or the first is taken where the profile asks
    /// for that. `None` if no node is feasible.
    pub(super) fn find(&mut self, id: PodId) -> Option<Slot> {
        let (class, priority) = (self.tracked(id).class, self.tracked(id).priority);
        self.prepare(class);
        let of = self.peers.class(class);
        let takes_first = of.shape.rules.takes_first();
        if of.is_plain() && of.shape.only.is_none() && self.worth(id).is_none() {
            if self.is_first_of_shape(class, priority) {
                let best = once::best(&Rc::clone(&self.peers.class(class).shape), priority, &self.nodes);
                let n = if takes_first || best.is_empty() { 0 } else { self.draw(best.len() as u32) };
                return best.get(n as usize).copied();
            }
            let table = self.table(class, priority);
            let top = table.top();
            if top.count == 0 {
                return None;
            }
            let n = if takes_first { 0 } else { self.draw(top.count) };
            return Some(self.table(class, priority).nth(n));
        }
        let mut scores = self.feasible(class, priority);
        self.add_other_scores(id, &mut scores);
        let best = scores.iter().copied().max().filter(|best| *best >= 0);
        let found = best.map(|best| {
            let count = scores.iter().filter(|score| **score == best).count();
            let n = if takes_first { 0 } else { self.draw(count as u32) as usize };
            let mut winners = scores.iter().zip(0..).filter(|(score, _)| **score == best);
            winners.nth(n).expect("as many were counted").1
        });
        self.scores = scores;
        found
    }

    /// Whether no node has been looked for yet for pods of a class's shape and this priority, as far as is remembered.
    /// From the second time on a table pays.
    fn is_first_of_shape(&mut self, class: ClassId, priority: i32) -> bool {
        let key = (self.peers.class(class).shape_id, priority);
        if self.tables.contains_key(&key) {
            return false;
        }
        if self.sought.len() >= limits::SCHEDULER_SHAPES {
            self.sought.clear();
        }
        self.sought.insert(key)
    }

    /// Whether any node is feasible for pods of a class.
    pub(super) fn is_feasible(&mut self, class: ClassId, priority: i32) -> bool {
        self.prepare(class);
        let of = self.peers.class(class);
        if !of.is_particular() && of.shape.only.is_none() {
            return self.table(class, priority).top().count > 0;
        }
        let scores = self.feasible(class, priority);
        let any = scores.iter().any(|score| *score >= 0);
        self.scores = scores;
        any
    }

    /// By slot, the part of the score that depends on that node alone; -1 for a node that is not feasible.
    pub(super) fn feasible(&mut self, class: ClassId, priority: i32) -> Vec<i32> {
        let mut scores = std::mem::take(&mut self.scores);
        scores.clear();
        let shape = Rc::clone(&self.peers.class(class).shape);
        match &shape.only {
            None => scores.extend_from_slice(self.table(class, priority).scores()),
            Some(names) => {
                scores.resize(self.nodes.slots() as usize, -1);
                let slots: Vec<Slot> = self.named(names).collect();
                for (slot, _) in scan(&shape, priority, &self.nodes, slots.into_iter()).0 {
                    scores[slot as usize] = super::framework::plain_score(&shape, &self.nodes, slot) as i32;
                }
            }
        }
        self.peers.judge(class, &mut scores);
        if self.peers.class(class).claims.is_some() {
            self.judge_volumes(class, &mut scores);
        }
        if self.peers.class(class).devices.is_some() {
            self.judge_devices(class, &mut scores);
        }
        if self.peers.class(class).is_particular() {
            let nominated: Vec<Slot> = self.nodes.nominated().filter(|slot| scores[*slot as usize] >= 0).collect();
            for slot in nominated {
                if self.rejection_beside(class, slot, priority).is_some() {
                    scores[slot as usize] = -1;
                }
            }
        }
        scores
    }

    /// Marks the nodes that volumes make none.
    fn judge_volumes(&self, class: ClassId, scores: &mut [i32]) {
        if self.volumes.refused(class).is_some() {
            return scores.fill(-1);
        }
        for (slot, score) in scores.iter_mut().enumerate().filter(|(_, score)| **score >= 0) {
            if self.volume_rejection(class, slot as Slot, &BTreeSet::new(), &[]).is_some() {
                *score = -1;
            }
        }
    }

    /// Marks the nodes that devices make none.
    fn judge_devices(&self, class: ClassId, scores: &mut [i32]) {
        if self.dynamic_resources.refused(class).is_some() {
            return scores.fill(-1);
        }
        for (slot, score) in scores.iter_mut().enumerate().filter(|(_, score)| **score >= 0) {
            if self.device_rejection(class, slot as Slot).is_some() {
                *score = -1;
            }
        }
    }

    /// What the images that a pod needs are worth; `None` if they score no node.
    fn worth(&self, id: PodId) -> Option<Worth<'_>> {
        let tracked = self.tracked(id);
        if self.shapes.get(tracked.shape).rules.weights.of(Plugin::ImageLocality) == 0 {
            return None;
        }
        self.nodes.images.worth(&tracked.spec, self.nodes.len())
    }

    /// Adds the scores that depend on other nodes: those that are normalised over all feasible ones, and the images'.
    pub(super) fn add_other_scores(&mut self, id: PodId, scores: &mut [i32]) {
        let (class, priority) = (self.tracked(id).class, self.tracked(id).priority);
        let shape = Rc::clone(&self.peers.class(class).shape);
        if shape.only.is_none() {
            self.table(class, priority).add_normalized(&shape.rules, scores);
        } else {
            let feasible = scores.iter().zip(0..).filter(|(score, _)| **score >= 0).map(|(_, slot)| slot);
            let raws = feasible.map(|slot| (slot, raw_scores(&shape, &self.nodes, slot)));
            let raws: Vec<(Slot, [i64; NORMALIZED])> = raws.collect();
            let max = std::array::from_fn(|i| raws.iter().map(|(_, raw)| raw[i]).max().unwrap_or(0));
            raws.iter()
                .for_each(|(slot, raw)| scores[*slot as usize] += normalized_score(&shape.rules, raw, &max) as i32);
        }
        self.peers.score(class, scores);
        if let Some(worth) = self.worth(id) {
            worth.add(shape.rules.weights.of(Plugin::ImageLocality), scores);
        }
    }

    /// The score of each feasible node for a pod that is on no node, and why the other nodes are not feasible.
    pub(super) fn judgement(&mut self, id: PodId) -> Vec<(Slot, Result<i32, Rejection>)> {
        let (class, priority) = (self.tracked(id).class, self.tracked(id).priority);
        self.prepare(class);
        let mut scores = self.feasible(class, priority);
        self.add_other_scores(id, &mut scores);
        let there: Vec<Slot> = (0..self.nodes.slots()).filter(|slot| self.nodes.is_present(*slot)).collect();
        let judge = |slot: Slot| match self.rejection(id, slot) {
            None => (slot, Ok(scores[slot as usize])),
            Some(rejection) => (slot, Err(rejection)),
        };
        there.into_iter().map(judge).collect()
    }

    /// The slots of the existing nodes among these names.
    fn named<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = Slot> + use<'a> {
        let slots = names.iter().filter_map(|name| self.nodes.slot(name));
        slots.filter(|slot| self.nodes.is_present(*slot))
    }

    /// How the counts change while the pods that are nominated for a node count as if they were on it.
    fn nominated_extra(&mut self, slot: Slot, priority: i32) -> Extra {
        let first = self.nodes.nominees(slot).iter().filter(|n| n.priority >= priority);
        let pods: Vec<_> = first.map(|n| (n.class, true, 1)).collect();
        self.peers.extra(slot, pods.into_iter())
    }

    /// Why an existing node is not feasible for a pod, computed from scratch; `None` if it is feasible. What the pod's
    /// class asks of other pods must be up to date.
    pub(super) fn rejection(&mut self, id: PodId, slot: Slot) -> Option<Rejection> {
        let (class, priority) = (self.tracked(id).class, self.tracked(id).priority);
        let shape = Rc::clone(&self.peers.class(class).shape);
        if self.volumes.refused(class).is_some() {
            return Some(Rejection { plugin: "VolumeBinding", reasons: Vec::new(), unresolvable: true });
        }
        if self.dynamic_resources.refused(class).is_some() {
            return Some(Rejection { plugin: "DynamicResources", reasons: Vec::new(), unresolvable: true });
        }
        if !shape.admits(self.nodes.name(slot)) {
            return Some(Rejection::unresolvable("NodeAffinity", NOT_AMONG_NAMES));
        }
        if let Some(rejection) = filter(Reads::Node, &shape, &self.nodes, slot) {
            return Some(rejection);
        }
        if self.nodes.nominees(slot).iter().any(|n| n.priority >= priority) {
            let mut trial = Trial::new(&shape, slot);
            let first = self.nodes.nominees(slot).iter().filter(|n| n.priority >= priority);
            first.for_each(|n| trial.add(&n.shape));
            let refused = trial.rejection(&self.nodes).or_else(|| self.rejection_beside(class, slot, priority));
            if refused.is_some() {
                return refused;
            }
        }
        let usage = filter(Reads::Usage, &shape, &self.nodes, slot);
        let volumes = usage.or_else(|| self.volume_rejection(class, slot, &BTreeSet::new(), &[]));
        let others = volumes.or_else(|| self.peers.rejection(class, slot, &Extra::default()));
        others.or_else(|| self.device_rejection(class, slot))
    }

    /// Why a pod fits no node: a reason that holds before any node is looked at, and the reasons of the nodes.
    pub(super) fn unfit(&mut self, id: PodId) -> (Option<String>, Rejections) {
        let (class, priority) = (self.tracked(id).class, self.tracked(id).priority);
        let of = self.peers.class(class);
        let conflict = of.shape.only.as_ref().is_some_and(Vec::is_empty).then(|| NAMES_CONFLICT.to_owned());
        let conflict = conflict.or_else(|| self.volumes.refused(class).map(str::to_owned));
        let conflict = conflict.or_else(|| self.dynamic_resources.refused(class).map(str::to_owned));
        let mut rejections = Rejections::default();
        if !of.is_particular() && of.shape.only.is_none() {
            let table = self.table(class, priority);
            table.rejections().iter().for_each(|(rejection, nodes)| rejections.add(rejection.clone(), nodes));
            return (conflict, rejections);
        }
        for slot in 0..self.nodes.slots() {
            if self.nodes.is_present(slot)
                && let Some(rejection) = self.rejection(id, slot)
            {
                rejections.add(rejection, 1);
            }
        }
        (conflict, rejections)
    }

    /// The GPUs that a pod gets on a node that it fits.
    pub(super) fn choose_devices(&mut self, id: PodId, slot: Slot) -> Devices {
        let shape = Rc::clone(self.shapes.get(self.tracked(id).shape));
        let Scheduler { nodes, rng, .. } = self;
        gpu::devices(&shape, nodes, slot, |n| if n == 1 { 0 } else { rng.below(u64::from(n)) as u32 })
    }

    /// Draws one of `n` numbers, all equally likely.
    pub(super) fn draw(&mut self, n: u32) -> u32 {
        if n == 1 { 0 } else { self.rng.below(u64::from(n)) as u32 }
    }
}
