//! Which pods that wait try again, and when: what has happened, told to those whom it may help.
//!
//! kube-scheduler asks the plug-ins that a pod failed by. Here it is asked whether the pod would fit: for a pod that
//! asks about nodes alone, at the node where something happened; for one that asks about others too, wherever it may,
//! since what comes or goes at one node can help at another.

use super::Scheduler;
use super::cache::Slot;
use super::events::Events;
use super::find::placed;
use super::framework::{QueueingHint, queueing_hint};
use super::peers::{ClassId, KinId};
use super::queue::PodId;
use crate::machine::Now;

impl Scheduler {
    /// A node changed in a way that may help: lets waiting pods try that it does help.
    pub(super) fn happened(&mut self, now: Now, events: Events, slot: Slot) {
        let about_others = Events::NODE_ADD.and(Events::NODE_UPDATE_LABEL).and(Events::NODE_UPDATE_TAINT);
        let others = events.intersects(about_others);
        self.wake_idle(now, Some((events, slot)), |_, _| others);
        self.wake_nominees(now, slot);
        self.queue.wake_unrejected(now.mono);
    }

    /// A pod is no longer on a slot, or about not to be.
    pub(super) fn left(&mut self, now: Now, events: Events, slot: Slot, kin: KinId) {
        self.wake_idle(now, Some((events, slot)), |s, class| s.peers.concerns(kin, class));
        if !events.is_empty() {
            self.wake_nominees(now, slot);
        }
    }

    /// A pod is on a slot that was not.
    pub(super) fn arrived(&mut self, now: Now, id: PodId) {
        let kin = self.tracked(id).kin;
        self.wake_idle(now, None, |s, class| s.peers.concerns(kin, class));
    }

    /// Something changed that may concern every pod that asks about others.
    pub(super) fn others_changed(&mut self, now: Now) {
        self.wake_idle(now, None, |_, _| true);
    }

    /// Wakes the classes that wait and that an event at a slot helps, or, if they ask about others and these are
    /// concerned, that now fit anywhere.
    fn wake_idle(&mut self, now: Now, at: Option<(Events, Slot)>, concerned: impl Fn(&Scheduler, ClassId) -> bool) {
        let idle: Vec<ClassId> = self.queue.idle().collect();
        // What was forgotten when counting began anew cannot tell whom this concerns: it is asked again, and each such
        // class is concerned.
        let forgotten = |class: &ClassId| self.peers.class(*class).is_forgotten();
        let asked_again: Vec<ClassId> = idle.iter().copied().filter(forgotten).collect();
        let pods = &self.pods;
        self.peers.ask_all(&asked_again, || placed(pods));
        for class in idle {
            let of = self.peers.class(class);
            let here = at.is_some_and(|(events, slot)| {
                queueing_hint(events, &of.shape, &self.nodes, slot) == QueueingHint::Queue
            });
            let helps = if of.is_particular() {
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
        let priority = self.tracked(first).priority;
        self.is_feasible(class, priority)
    }

    /// A scout is gone, or has found a node: the next pod of its class tries, if there is still anything to be found.
    pub(super) fn wake_if_feasible(&mut self, now: Now, class: ClassId) {
        if self.waits_in_vain(class) {
            self.queue.wake(now.mono, class);
        }
    }
}
