//! `victims-are-lesser`: the scheduler deletes a pod only for the sake of a waiting pod of higher priority that may
//! preempt.
//!
//! `victims-are-needed`: where every victim makes room for any pod that waits, it deletes no more pods than were
//! nominated for nodes, or wait, and a few more: the room may be taken by others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k8s_openapi::api::core::v1::Container;
use skeg_core::api::DeleteOptions;
use skeg_core::object::{Milli, Object, ObjectKey, Pod};
use skeg_core::volume::has_claims;

use super::binding::VIEW_LAG;
use super::overdue::nomination;
use super::reading::{SCHEDULER, has_host_port, is_terminal};
use super::{Asked, Commit, Invariant, Report};

/// How many more pods may be deleted than are needed.
const SPARE: usize = 2;

/// A pod that waits.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    priority: i32,
    /// What it asks for of CPU, in thousandths; `None` if it may need more than that.
    cpu: Option<i128>,
}

/// The pods that wait for a node and may preempt, and those that have ceased to.
#[derive(Debug, Default)]
pub(super) struct Victims {
    waiting: BTreeMap<ObjectKey, Waiter>,
    /// With the time since when they do not wait any more.
    lately: VecDeque<(f64, Waiter)>,
    /// How often a pod was nominated for a node.
    nominations: usize,
    /// The UIDs of the pods that were deleted for others.
    deleted: BTreeSet<String>,
}

/// What a pod asks for of CPU, if that is all by which it can be kept from a node.
fn cpu(pod: &Pod) -> Option<i128> {
    let spec = &pod.spec;
    let has_rules = spec.affinity.is_some() || spec.topology_spread_constraints.is_some() || has_claims(&spec.shared);
    let is_plain =
        !has_host_port(pod) && !has_rules && spec.init_containers.is_none() && spec.resource_claims.is_none();
    let of = |c: &Container| c.resources.as_ref()?.requests.as_ref()?.get("cpu").map(|cpu| Milli::of(cpu).0);
    is_plain.then(|| spec.containers.iter().map(|c| of(c).unwrap_or(0)).sum())
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
                self.waiting.insert(new.key(), Waiter { priority: priority(new), cpu: cpu(new) });
            }
            let node = nomination(new);
            self.nominations += usize::from(node.is_some() && node != old.and_then(nomination));
        } else if let Some(old) = old.filter(|old| waits(old)) {
            self.waiting.remove(&old.key());
            self.lately.push_back((commit.at, Waiter { priority: priority(old), cpu: cpu(old) }));
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
        let waiting = self.waiting.values().chain(self.lately.iter().map(|(_, waiter)| waiter));
        let higher: Vec<&Waiter> = waiting.filter(|waiter| waiter.priority > priority(victim)).collect();
        if higher.is_empty() {
            let what = format!("{key} is deleted for another pod, and none of higher priority waits");
            report.broken(Invariant::VictimsAreLesser, asked.at, what);
        }
        self.deleted.insert(victim.uid().to_owned());
        let room = cpu(victim).unwrap_or(0);
        let is_enough = higher.iter().all(|waiter| waiter.cpu.is_some_and(|cpu| cpu <= room));
        let most = self.nominations + higher.len() + SPARE;
        if is_enough && self.deleted.len() > most {
            let what = format!("{key} is the {}. pod to be deleted for others, {most} are enough", self.deleted.len());
            report.broken(Invariant::VictimsAreNeeded, asked.at, what);
        }
    }
}
