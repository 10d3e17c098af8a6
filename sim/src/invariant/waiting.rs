//! `done-in-time`, of pods that wait for a node: when one that takes up room goes, a pod that may run anywhere and has
//! room there now is placed somewhere soon. Judged only if nothing has changed on that node since, and nothing has
//! disturbed the control plane.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use skeg_core::object::{Kind, Node, Object, ObjectKey, Pod};
use skeg_core::volume::has_claims;

use super::allocatable::Allocatable;
use super::overdue::{is_sound, nomination};
use super::reading::{has_host_port, is_active, place};
use super::{Commit, Invariant, Report};
use crate::converge::objects;

/// Within how many seconds: twice the longest back-off of a pod that did not fit, and some.
const PLACED_WITHIN: f64 = 40.0;

/// A pod that waited when room was made for it on a node.
#[derive(Debug)]
struct Chance {
    since: f64,
    node: String,
    pod: ObjectKey,
    uid: String,
}

/// The pods that wait for a node, and the chances that they had.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pods: BTreeSet<ObjectKey>,
    /// When something has last changed on a node.
    changed: BTreeMap<String, f64>,
    /// Earliest first.
    chances: VecDeque<Chance>,
}

/// Whether it waits for nothing but room on any node.
fn may_run_anywhere(pod: &Pod) -> bool {
    let spec = &pod.spec;
    let is_hard = spec.topology_spread_constraints.iter().flatten().any(|c| c.when_unsatisfiable == "DoNotSchedule");
    let is_bound_by_rules = spec.node_selector.is_some() || spec.affinity.is_some() || is_hard || has_host_port(pod);
    let default = spec.scheduler_name.as_deref().is_none_or(|name| name == "default-scheduler");
    let is_held = spec.scheduling_gates.iter().flatten().next().is_some() || spec.scheduling_group.is_some();
    default
        && !is_held
        && !is_bound_by_rules
        && !has_claims(&spec.shared)
        && spec.resource_claims.iter().flatten().next().is_none()
}

fn waits(pod: &Pod) -> bool {
    pod.spec.node.is_none() && is_active(pod)
}

impl Waiting {
    /// Notes that a node has changed.
    pub fn node(&mut self, commit: &Commit<'_>) {
        fn offer(object: Option<&Object>) -> Option<(bool, &Option<BTreeMap<String, Quantity>>)> {
            match object {
                Some(Object::Node(node)) => Some((is_sound(node), &node.status.allocatable)),
                _ => None,
            }
        }
        if offer(commit.old) != offer(commit.new)
            && let Some(node) = commit.new.or(commit.old)
        {
            self.changed.insert(node.name().to_owned(), commit.at);
        }
    }

    /// Notes where a pod comes to or goes from.
    pub fn pod(&mut self, commit: &Commit<'_>) {
        let (old, new) = (commit.old_pod(), commit.new_pod());
        match (old.is_some_and(waits), new.filter(|new| waits(new))) {
            (false, Some(new)) => drop(self.pods.insert(new.key())),
            (true, None) => drop(old.map(|old| self.pods.remove(&old.key()))),
            _ => {}
        }
        let (was, is) = (old.and_then(place), new.and_then(place));
        if was == is {
            return;
        }
        for node in was.into_iter().chain(is) {
            self.changed.insert(node.to_string(), commit.at);
        }
        let Some(node) = was.filter(|_| is.is_none()) else { return };
        let waiting = self.pods.iter().find_map(|key| match commit.store.object(key) {
            Some(Object::Pod(pod)) if may_run_anywhere(pod) => Some(pod),
            _ => None,
        });
        if let Some(pod) = waiting {
            let (pod, uid) = (pod.key(), pod.uid().to_owned());
            self.chances.push_back(Chance { since: commit.at, node: node.to_string(), pod, uid });
        }
    }

    /// Checks the chances that pods have had by now. Nothing has disturbed the control plane since `calm_since`.
    pub fn check(&mut self, commit: &Commit<'_>, calm_since: f64, allocatable: &mut Allocatable, report: &mut Report) {
        while self.chances.front().is_some_and(|chance| commit.at - chance.since > PLACED_WITHIN) {
            let chance = self.chances.pop_front().expect("it was seen");
            let is_as_then = self.changed.get(&chance.node).is_some_and(|changed| *changed <= chance.since);
            let Some(Object::Pod(pod)) = commit.store.object(&chance.pod) else { continue };
            if calm_since > chance.since || !is_as_then || pod.uid() != chance.uid || !waits(pod) {
                continue;
            }
            let node: Option<&Node> = match commit.store.object(&ObjectKey::new(Kind::NODE, "", &chance.node)) {
                Some(Object::Node(node)) => Some(node),
                _ => None,
            };
            let others = objects(commit.store, Kind::POD).any(|object| match object {
                Object::Pod(other) => nomination(other) == Some(&chance.node),
                _ => false,
            });
            if node.is_some_and(is_sound) && !others && allocatable.has_room(&chance.node, pod) {
                let (key, name) = (&chance.pod, &chance.node);
                let what = format!("{key} waits, and {name} has had room for it since {:.1} s", chance.since);
                report.broken(Invariant::DoneInTime, commit.at, what);
            }
        }
    }
}
