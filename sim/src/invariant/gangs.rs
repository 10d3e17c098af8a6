//! `gangs-bind-together`: 30 seconds after the first pods of a gang are bound, at least its `minCount` are.
//!
//! All binds of a gang are sent at once, but each is carried out for itself. So a gang is not judged if, in that time,
//! something disturbs the control plane, or one of its pods or its PodGroup is deleted. Pods that have been bound
//! before count, and so do those that name a node from the beginning.

use std::collections::BTreeMap;

use skeg_core::object::{Kind, Object, ObjectKey, Pod};

use super::reading::is_active;
use super::{Commit, Invariant, Report};
use crate::converge::objects;

/// Within how many seconds the rest is bound.
const BOUND_WITHIN: f64 = 30.0;

/// The gangs of which too few pods are bound, with the time since when.
#[derive(Debug, Default)]
pub(super) struct Gangs(BTreeMap<ObjectKey, f64>);

fn group_of(pod: &Pod) -> Option<ObjectKey> {
    let name = pod.spec.scheduling_group.as_ref()?.pod_group_name.as_deref()?;
    Some(ObjectKey::new(Kind::POD_GROUP, pod.namespace(), name))
}

/// How many pods of a group are on nodes, and how many are to be at least; `None` if it is no gang.
fn bound(commit: &Commit<'_>, group: &ObjectKey) -> Option<(usize, usize)> {
    let Object::Dynamic(object) = commit.store.object(group)? else { return None };
    let least = object.body.get("spec")?.pointer("/schedulingPolicy/gang/minCount")?.as_u64()?;
    let is_there = |object: &&Object| match object {
        Object::Pod(pod) => pod.spec.node.is_some() && group_of(pod).as_ref() == Some(group),
        _ => false,
    };
    Some((objects(commit.store, Kind::POD).filter(is_there).count(), least as usize))
}

impl Gangs {
    pub fn pod(&mut self, commit: &Commit<'_>) {
        let Some(group) = commit.new_pod().or(commit.old_pod()).and_then(group_of) else { return };
        if !commit.new_pod().is_some_and(is_active) {
            self.0.remove(&group);
            return;
        }
        let is_bound = |pod: Option<&Pod>| pod.is_some_and(|pod| pod.spec.node.is_some());
        if is_bound(commit.new_pod()) && commit.old_pod().is_some() && !is_bound(commit.old_pod()) {
            match bound(commit, &group) {
                Some((bound, least)) if bound < least => drop(self.0.entry(group).or_insert(commit.at)),
                Some(_) | None => drop(self.0.remove(&group)),
            }
        }
    }

    /// Checks what is due. Nothing has disturbed the control plane since `calm_since`.
    pub fn check_due(&mut self, commit: &Commit<'_>, calm_since: f64, report: &mut Report) {
        let due = self.0.iter().filter(|(_, since)| commit.at - **since > BOUND_WITHIN);
        for (group, since) in due.map(|(group, since)| (group.clone(), *since)).collect::<Vec<_>>() {
            self.0.remove(&group);
            if calm_since > since {
                continue;
            }
            if let Some((bound, least)) = bound(commit, &group).filter(|(bound, least)| bound < least) {
                let what = format!("{bound} pods of {group} are bound since {since:.1} s, and {least} belong together");
                report.broken(Invariant::GangsBindTogether, commit.at, what);
            }
        }
    }
}
