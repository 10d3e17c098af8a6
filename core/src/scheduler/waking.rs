//! Decides which unschedulable pods are retried after an event.
//!
//! kube-scheduler asks the plug-ins that rejected a pod. This scheduler checks whether the pod would fit now. If the
//! pod depends only on nodes, only the node of the event is checked. If it depends on other pods as well, all nodes are
//! checked, since a pod that comes to or leaves one node can make another node feasible.

use super::cache::Slot;
use super::events::Events;
use super::find::placed;
use super::framework::{QueueingHint, queueing_hint};
use super::peers::{ClassId, KinId};
use super::queue::PodId;
use super::volumes::PodClaim;
use super::{Scheduler, State};
use crate::machine::Now;

impl Scheduler {
    /// Handles a change of a node that may help: retries the waiting pods that it does help.
    pub(super) fn happened(&mut self, now: Now, events: Events, slot: Slot) {
        let about_others = Events::NODE_ADD.and(Events::NODE_UPDATE_LABEL).and(Events::NODE_UPDATE_TAINT);
        let others = events.intersects(about_others);
        self.wake_idle(now, Some((events, slot)), |_, _| others);
        self.wake_nominees(now, slot);
        self.queue.wake_unrejected(now.mono);
    }

    /// Handles that a pod has left a slot, or is being deleted there.
    pub(super) fn left(&mut self, now: Now, events: Events, slot: Slot, kin: KinId) {
        self.wake_idle(now, Some((events, slot)), |s, class| s.peers.concerns(kin, class));
        if !events.is_empty() {
            self.wake_nominees(now, slot);
            self.queue.wake_unrejected(now.mono);
        }
    }

    /// Handles that a pod has come to a slot.
    pub(super) fn arrived(&mut self, now: Now, id: PodId) {
        let (class, kin) = (self.tracked(id).class, self.tracked(id).kin);
        self.wake_idle(now, None, |s, class| s.peers.concerns(kin, class));
        // A volume that it has attached to the node counts for others no more.
        self.wake_sharing(now, class);
        // With its GPUs gone, those that nominated pods are thought to get are other ones.
        if let State::Assumed(slot) | State::Bound(slot) = self.tracked(id).state
            && !self.tracked(id).devices.is_empty()
            && !self.nodes.nominees(slot).is_empty()
        {
            self.happened(now, Events::ASSIGNED_POD_DELETE, slot);
        }
    }

    /// Handles that a pod has left its node, or will not be bound to it after all: its claims may be used by others,
    /// and so may the volumes and devices that were chosen for it.
    pub(super) fn free_volumes(&mut self, now: Now, id: PodId, class: ClassId) {
        self.settle_devices(now, id);
        if self.volumes.settle(id) {
            self.wake_users(now, |_| true);
        } else {
            self.wake_sharing(now, class);
        }
    }

    /// What was decided for a pod's claims for devices has come about, or will not.
    pub(super) fn settle_devices(&mut self, now: Now, id: PodId) {
        if self.dynamic_resources.settle(id) {
            self.wake_device_users(now, |_| true);
        }
    }

    /// Wakes the waiting classes that have claims for devices, are meant, and are feasible now.
    pub(super) fn wake_device_users(&mut self, now: Now, meant: impl Fn(ClassId) -> bool) {
        let uses = |class: &ClassId| self.peers.class(*class).devices.is_some() && meant(*class);
        let classes: Vec<ClassId> = self.queue.idle().filter(uses).collect();
        classes.into_iter().for_each(|class| self.wake_if_feasible(now, class));
    }

    /// Wakes the waiting classes that share a claim with a class and are feasible now.
    fn wake_sharing(&mut self, now: Now, class: ClassId) {
        if let Some(claims) = self.peers.class(class).claims.clone() {
            self.wake_users(now, |used| claims.iter().any(|claim| claim.key == used.key));
        }
    }

    /// Wakes the waiting classes that use a claim that is meant and are feasible now.
    pub(super) fn wake_users(&mut self, now: Now, meant: impl Fn(&PodClaim) -> bool) {
        let uses = |class: &ClassId| self.peers.class(*class).claims.iter().flat_map(|c| c.iter()).any(&meant);
        let classes: Vec<ClassId> = self.queue.idle().filter(uses).collect();
        classes.into_iter().for_each(|class| self.wake_if_feasible(now, class));
    }

    /// Handles a change that may concern every pod that depends on other pods.
    pub(super) fn others_changed(&mut self, now: Now) {
        self.wake_idle(now, None, |_, _| true);
    }

    /// Wakes each waiting class that an event at a slot helps. A class that depends on other pods, among them those of
    /// the event, is woken if it now fits any node.
    fn wake_idle(&mut self, now: Now, at: Option<(Events, Slot)>, concerned: impl Fn(&Scheduler, ClassId) -> bool) {
        let idle: Vec<ClassId> = self.queue.idle().collect();
        // A class whose counters were discarded cannot tell whether the event concerns it. Its counters are made again,
        // and it counts as concerned.
        let forgotten = |class: &ClassId| self.peers.class(*class).is_forgotten();
        let asked_again: Vec<ClassId> = idle.iter().copied().filter(forgotten).collect();
        let pods = &self.pods;
        self.peers.ask_all(&asked_again, || placed(pods));
        for class in idle {
            let of = self.peers.class(class);
            let here = at.is_some_and(|(events, slot)| {
                queueing_hint(events, &of.shape, &self.nodes, slot) == QueueingHint::Queue
            });
            // What a pod of a gang lacks may be a place for another of the gang.
            let helps = if of.is_particular() || of.group.is_some() {
                let may = here || asked_again.binary_search(&class).is_ok() || concerned(self, class);
                may && self.waits_in_vain(class)
            } else {
                here
            };
            if helps {
                self.queue.wake(now.mono, class);
            }
        }
    }

    /// Whether the first waiting pod of a class would find a node.
    fn waits_in_vain(&mut self, class: ClassId) -> bool {
        let Some(first) = self.queue.head(class) else { return false };
        if self.gang_of(first).is_some() {
            // It may fit only beside others of its gang.
            return true;
        }
        let priority = self.tracked(first).priority;
        self.is_feasible(class, priority)
    }

    /// Handles that a scout is gone or has found a node: retries the next pod of its class if a node is still feasible.
    pub(super) fn wake_if_feasible(&mut self, now: Now, class: ClassId) {
        if self.waits_in_vain(class) {
            self.queue.wake(now.mono, class);
        }
    }
}
