//! Pod groups: gangs, whose pods are placed together or not at all (GangScheduling, and kube-scheduler's pod group
//! cycle of 1.36: `pkg/scheduler/schedule_one_podgroup.go`; KEP-4671, KEP-5832).
//!
//! A pod that names a group waits until the group is there, and until a gang has as many pods as it needs
//! (`PreEnqueue`). When one pod of a gang is tried, all are that wait: one after another, each beside those before it.
//! If enough find a node, with those that have one already, these are bound; otherwise nothing has happened. Groups of
//! the policy `basic` only wait for their object: their pods are tried one by one.
//!
//! Left out: pods of a gang preempt nobody, and extenders are not asked about them. Both are said in a message.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::Value;

use super::cache::Slot;
use super::dynamic_resources::ClaimStep;
use super::extenders::Verb;
use super::gpu::Devices;
use super::queue::PodId;
use super::volumes::VolumeStep;
use super::{Scheduler, State, explain};
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey, Pod};

/// What is said of a pod that would fit, while its gang does not (`errPodGroupUnschedulable`).
pub const OTHERS: &str = "other pods from a pod group are unschedulable";
/// What is said of preemption.
const NO_PREEMPTION: &str = "pods of a gang do not preempt yet";
/// What is said where extenders would have to be asked.
const NO_EXTENDERS: &str = "extenders are not asked about pods of a gang yet";

/// How the pods of a group are placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// One by one.
    Basic,
    /// This many at least, or none.
    Gang(usize),
}

impl Policy {
    /// The policy of a PodGroup.
    pub fn of(group: &Object) -> Policy {
        let Object::Dynamic(group) = group else { panic!("a PodGroup is held as JSON") };
        let count = group.body.get("spec").and_then(|spec| spec.pointer("/schedulingPolicy/gang/minCount"));
        let count = count.and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        count.map_or(Policy::Basic, Policy::Gang)
    }
}

/// The groups, and which pods name them.
#[derive(Debug, Default)]
pub(super) struct PodGroups {
    policies: BTreeMap<ObjectKey, Policy>,
    members: BTreeMap<ObjectKey, BTreeSet<PodId>>,
}

/// What came of trying a gang.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GangDecision {
    /// The PodGroup.
    pub group: ObjectKey,
    /// Its pods that were tried, in this order.
    pub tried: Vec<Tried>,
    /// Whether those that fit are to be bound. The scheduler counts them on their nodes from now on, and no other.
    pub placed: bool,
    /// Why they are not.
    pub message: String,
}

/// What came of trying one pod of a gang.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    /// The pod.
    pub pod: ObjectKey,
    /// Its UID.
    pub uid: Rc<str>,
    /// Where it fits, or why it does not.
    pub outcome: Result<Place, String>,
    /// Whether it was nominated for a node, which it is no more.
    pub cleared: bool,
}

/// A node for a pod, and what its bind takes, as in [`Decision::Bind`](super::Decision::Bind).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The node.
    pub node: Rc<str>,
    /// What has to be written, and its claims bound, before it is.
    pub volumes: Vec<VolumeStep>,
    /// What has to be written of its claims for devices, and seen, before it is.
    pub claims: Vec<ClaimStep>,
    /// Its GPUs.
    pub devices: Devices,
}

/// The group that a pod names.
pub fn group_of(pod: &Pod) -> Option<ObjectKey> {
    let name = pod.spec.scheduling_group.as_ref()?.pod_group_name.as_deref()?;
    Some(ObjectKey::new(Kind::POD_GROUP, pod.namespace(), name))
}

impl Scheduler {
    /// Whether pods wait for the groups that they name, and gangs are placed as a whole. To be said before any pod is.
    #[must_use]
    pub fn with_gangs(mut self, gangs: bool) -> Scheduler {
        self.groups = gangs.then(PodGroups::default);
        self
    }

    /// A PodGroup is there, or has changed; `None` if it is gone.
    pub fn pod_group_changed(&mut self, now: Now, key: &ObjectKey, object: Option<&Object>) {
        let Some(groups) = &mut self.groups else { return };
        let policy = object.map(Policy::of);
        let before = match policy {
            Some(policy) => groups.policies.insert(key.clone(), policy),
            None => groups.policies.remove(key),
        };
        if policy.is_some() && policy != before {
            self.wake_group(now, key);
        }
    }

    /// Notes that a pod names a group; the pods that wait for others of it may go on.
    pub(super) fn join_group(&mut self, now: Now, id: PodId) {
        let (Some(groups), Some(group)) =
            (&mut self.groups, self.pods[id as usize].as_ref().and_then(|t| t.group.clone()))
        else {
            return;
        };
        groups.members.entry(group.clone()).or_default().insert(id);
        self.wake_group(now, &group);
    }

    /// Notes that a pod is gone.
    pub(super) fn leave_group(&mut self, group: Option<&ObjectKey>, id: PodId) {
        let (Some(groups), Some(group)) = (&mut self.groups, group) else { return };
        if let Some(members) = groups.members.get_mut(group) {
            members.remove(&id);
            if members.is_empty() {
                groups.members.remove(group);
            }
        }
    }

    fn members(&self, group: &ObjectKey) -> Vec<PodId> {
        let members = self.groups.as_ref().and_then(|groups| groups.members.get(group));
        members.into_iter().flatten().copied().collect()
    }

    fn wake_group(&mut self, now: Now, group: &ObjectKey) {
        for id in self.members(group) {
            self.enqueue(now, id);
            self.queue.wake_pod(now.mono, id);
        }
    }

    /// Why a pod waits for its group; `None` if it does not.
    pub(super) fn waits_for_group(&self, id: PodId) -> Option<String> {
        let (groups, group) = (self.groups.as_ref()?, self.tracked(id).group.as_ref()?);
        match groups.policies.get(group) {
            None => Some(format!("waiting for pods's pod group {:?} to appear in scheduling queue", group.name())),
            Some(Policy::Gang(least)) if groups.members.get(group).map_or(0, BTreeSet::len) < *least => {
                Some("waiting for minCount pods from a gang to appear in scheduling queue".to_owned())
            }
            Some(Policy::Gang(_) | Policy::Basic) => None,
        }
    }

    /// The gang of a pod, and how many of it are to be placed at least.
    pub(super) fn gang_of(&self, id: PodId) -> Option<(ObjectKey, usize)> {
        let (groups, group) = (self.groups.as_ref()?, self.tracked(id).group.as_ref()?);
        match groups.policies.get(group)? {
            Policy::Basic => None,
            Policy::Gang(least) => Some((group.clone(), *least)),
        }
    }

    /// Takes a popped pod out of the queue again, since it has to wait for its group as before.
    pub(super) fn gate(&mut self, id: PodId) {
        self.queue.remove(id);
        self.tracked_mut(id).state = State::Gated;
    }

    /// Tries the gang of a popped pod.
    pub(super) fn try_gang(&mut self, now: Now, popped: PodId, (group, least): (ObjectKey, usize)) -> GangDecision {
        let (mut pods, mut there) = (Vec::new(), 0);
        for id in self.members(&group) {
            match self.tracked(id).state {
                State::Queued => pods.push(id),
                State::Assumed(_) | State::Bound(_) => there += 1,
                State::Gated | State::Asked => {}
            }
        }
        pods.iter().filter(|id| **id != popped).for_each(|id| self.queue.take(*id));
        // By priority, and then as the scheduler first heard of them.
        pods.sort_by_key(|id| (Reverse(self.tracked(*id).priority), self.tracked(*id).heard));
        if let Some(message) = self.cannot_try(&pods) {
            return self.reject(now, group, &pods, message);
        }
        let tried: Vec<(PodId, Option<Slot>, Tried)> = pods.iter().map(|id| self.try_member(*id)).collect();
        let fits = tried.iter().filter(|(_, slot, _)| slot.is_some()).count();
        let placed = fits > 0 && there + fits >= least;
        let message = format!("minCount ({least}) cannot be satisfied: {} scheduled, 0 remaining", there + fits);
        if placed {
            self.keep(now, &tried);
        } else {
            self.undo(now, &tried);
        }
        let tried = tried.into_iter().map(|(_, _, tried)| tried).collect();
        GangDecision { group, tried, placed, message: if placed { String::new() } else { message } }
    }

    /// Why a gang is not tried at all; `None` if it is.
    fn cannot_try(&self, pods: &[PodId]) -> Option<String> {
        let scheduler =
            |id: &PodId| self.tracked(*id).spec.scheduler_name.as_deref().unwrap_or(super::DEFAULT_SCHEDULER);
        let first = pods.first().map(scheduler)?;
        if let Some(other) = pods.iter().map(scheduler).find(|other| *other != first) {
            return Some(format!(
                "all pods in a single pod group should have the same .spec.schedulerName set, got: {other:?} and {first:?}"
            ));
        }
        let asks = pods.iter().any(|id| self.is_extended(*id, &[Verb::Filter, Verb::Prioritize]));
        asks.then(|| NO_EXTENDERS.to_owned())
    }

    /// Turns down all pods of a gang for one reason.
    fn reject(&mut self, now: Now, group: ObjectKey, pods: &[PodId], message: String) -> GangDecision {
        let mut tried = Vec::new();
        for id in pods {
            self.queue.unschedulable(now.mono, *id, false);
            let of = self.tracked(*id);
            let (pod, uid) = (of.key.clone(), Rc::clone(&of.uid));
            tried.push(Tried { pod, uid, outcome: Err(message.clone()), cleared: false });
        }
        GangDecision { group, tried, placed: false, message }
    }

    /// Looks for a node for a pod, and counts the pod there.
    fn try_member(&mut self, id: PodId) -> (PodId, Option<Slot>, Tried) {
        let cleared = self.withdraw(id).is_some();
        let (pod, uid) = (self.tracked(id).key.clone(), Rc::clone(&self.tracked(id).uid));
        let slot = self.find(id);
        let outcome = match slot {
            Some(slot) => Ok(self.reserve(id, slot)),
            None => Err(self.why_unfit(id)),
        };
        (id, slot, Tried { pod, uid, outcome, cleared })
    }

    fn why_unfit(&mut self, id: PodId) -> String {
        let (said_before, rejections) = self.unfit(id);
        let nodes = (self.nodes.len(), &self.nodes.resources);
        let preemption = self.peers.class(self.tracked(id).class).shape.rules.preempts.then_some(NO_PREEMPTION);
        let preemption = preemption.filter(|_| !self.nodes.is_empty());
        explain::message(nodes, said_before.as_deref(), &rejections, (None, preemption))
    }

    /// Enough pods fit: they stay where they are, and the others wait.
    fn keep(&mut self, now: Now, tried: &[(PodId, Option<Slot>, Tried)]) {
        let rejected = !self.nodes.is_empty();
        for (id, slot, _) in tried {
            match slot {
                Some(_) => {
                    self.queue.found(*id);
                }
                None => {
                    self.queue.unschedulable(now.mono, *id, rejected);
                }
            }
        }
        tried.iter().filter(|(_, slot, _)| slot.is_some()).for_each(|(id, _, _)| self.arrived(now, *id));
    }

    /// Too few fit: all is as it was, which is no event for anybody.
    fn undo(&mut self, now: Now, tried: &[(PodId, Option<Slot>, Tried)]) {
        for (id, slot, _) in tried.iter().rev() {
            if let Some(slot) = slot {
                self.uncount(*id, *slot);
                self.tracked_mut(*id).state = State::Queued;
                self.tracked_mut(*id).devices = Devices::of(&self.tracked(*id).meta);
                self.dynamic_resources.settle(*id);
                self.volumes.settle(*id);
            }
        }
        let rejected = !self.nodes.is_empty();
        for (id, _, _) in tried {
            self.queue.unschedulable(now.mono, *id, rejected);
        }
    }
}

#[cfg(test)]
mod tests;
