//! `victims-are-lesser`: the scheduler deletes a pod only for the sake of a waiting pod of higher priority
//! that may preempt.

use std::collections::{BTreeMap, VecDeque};

use skeg_core::api::DeleteOptions;
use skeg_core::object::{Object, ObjectKey, Pod};

use super::binding::VIEW_LAG;
use super::reading::{SCHEDULER, is_terminal};
use super::{Asked, Commit, Invariant, Report};

/// The priorities of the pods that wait for a node and may preempt, and of those that have ceased to.
#[derive(Debug, Default)]
pub(super) struct Victims {
    waiting: BTreeMap<ObjectKey, i32>,
    /// With the time since when they do not wait any more.
    lately: VecDeque<(f64, i32)>,
}

fn waits(pod: &Pod) -> bool {
    let may = pod.spec.preemption_policy.as_deref() != Some("Never");
    pod.spec.node.is_none() && !is_terminal(pod) && may
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.priority.unwrap_or(0)
}

impl Victims {
    pub fn pod(&mut self, commit: &Commit<'_>) {
        let (old, new) = (commit.old_pod(), commit.new_pod());
        if let Some(new) = new.filter(|new| waits(new)) {
            if !old.is_some_and(waits) {
                self.waiting.insert(new.key(), priority(new));
            }
        } else if let Some(old) = old.filter(|old| waits(old)) {
            self.waiting.remove(&old.key());
            self.lately.push_back((commit.at, priority(old)));
        }
    }

    /// Checks a delete as it arrives.
    pub fn asked(&mut self, asked: &Asked<'_>, key: &ObjectKey, options: &DeleteOptions, report: &mut Report) {
        if *asked.request.user != *SCHEDULER {
            return;
        }
        let Some(Object::Pod(victim)) = asked.store.object(key) else { return };
        if options.precondition.uid.as_deref().is_some_and(|uid| uid != victim.uid()) {
            return;
        }
        while self.lately.front().is_some_and(|(at, _)| asked.at - at > VIEW_LAG) {
            self.lately.pop_front();
        }
        let waiting = self.waiting.values().chain(self.lately.iter().map(|(_, priority)| priority));
        if waiting.max().is_none_or(|most| *most <= priority(victim)) {
            let what = format!("{key} is deleted for another pod, and none of higher priority waits");
            report.broken(Invariant::VictimsAreLesser, asked.at, what);
        }
    }
}
