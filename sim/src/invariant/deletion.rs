//! `deleted-while-running`: a node's agent deletes a pod from the API only when none of its containers run. Otherwise a
//! replacement with the same identity could run beside them, with no API object for the old containers.
//!
//! `deletion-waits`: nobody else removes a pod that is bound to a node, unless the deletion is forced (a grace period
//! of zero), the pod has terminated, or its node is gone. An agent removes only pods of its own node that somebody has
//! deleted.
//!
//! `grace-is-kept`, for whoever deletes a pod with another grace period than its own: it has that one.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::api::{Call, DeleteOptions};
use skeg_core::object::{Kind, Object, ObjectKey};

use super::reading::is_terminal;
use super::{Asked, Commit, Invariant, Report};

/// Pods that somebody wants to be removed.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    /// Those that somebody wants to be removed at once.
    forced: BTreeSet<ObjectKey>,
    /// With which grace periods, by the names of the pods; `None` for their own.
    graces: BTreeMap<ObjectKey, BTreeSet<Option<i64>>>,
}

impl Deletions {
    /// Checks a delete as it arrives.
    pub fn asked(&mut self, asked: &Asked<'_>, key: &ObjectKey, options: &DeleteOptions, report: &mut Report) {
        if key.kind != Kind::POD {
            return;
        }
        let meant = |pod: &Object| options.precondition.uid.as_deref().is_none_or(|uid| uid == pod.uid());
        if asked.store.object(key).is_none_or(meant) {
            self.graces.entry(key.clone()).or_default().insert(options.grace_seconds);
        }
        if options.grace_seconds == Some(0) {
            self.forced.insert(key.clone());
        }
        check(asked, key, options, report);
    }

    /// Notes an eviction as it arrives.
    pub fn evicted(&mut self, call: &Call) {
        let Call::Evict { pod, options } = call else { return };
        self.graces.entry(pod.clone()).or_default().insert(options.grace_seconds);
        if options.grace_seconds == Some(0) {
            self.forced.insert(pod.clone());
        }
    }

    /// Checks the grace period of a pod whose deletion has begun. Those of a namespace go with their own.
    fn begun(&self, commit: &Commit<'_>, report: &mut Report) {
        let Some(pod) = commit.new_pod().filter(|pod| pod.meta.deletion_timestamp.is_some()) else { return };
        if commit.old_pod().is_none_or(|old| old.meta.deletion_timestamp.is_some()) {
            return;
        }
        let Some(asked) = self.graces.get(&pod.key()) else { return };
        let given = pod.meta.deletion_grace_period_seconds.unwrap_or(0);
        if given != 0 && !asked.contains(&None) && !asked.contains(&Some(given)) {
            let what = format!("{} has {given} s to end in, and whoever deletes it has said {asked:?}", pod.key());
            report.broken(Invariant::GraceIsKept, commit.at, what);
        }
    }

    /// Checks a pod that is removed.
    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        self.begun(commit, report);
        let (Some(pod), None) = (commit.old_pod(), commit.new) else { return };
        self.graces.remove(&pod.key());
        let forced = self.forced.remove(&pod.key());
        let at_once = [pod.spec.termination_grace_period_seconds, pod.meta.deletion_grace_period_seconds];
        if forced || is_terminal(pod) || at_once.contains(&Some(0)) {
            return;
        }
        let node = pod.spec.node.as_deref().map(|node| ObjectKey::new(Kind::NODE, "", node));
        if let Some(node) = node.filter(|node| commit.store.object(node).is_some()) {
            let what = format!("{} is removed before {} has confirmed that it has ended", pod.key(), node.name());
            report.broken(Invariant::DeletionWaits, commit.at, what);
        }
    }
}

fn check(asked: &Asked<'_>, key: &ObjectKey, options: &DeleteOptions, report: &mut Report) {
    let Some(node) = asked.from else { return };
    let Some(Object::Pod(pod)) = asked.store.object(key) else { return };
    let meant = options.precondition.uid.as_deref().is_none_or(|uid| uid == pod.uid());
    if !meant {
        return;
    }
    let is_its = pod.spec.node.as_deref() == Some(&*node.name);
    if !is_its || pod.meta.deletion_timestamp.is_none() {
        let (user, on) = (&asked.request.user, pod.spec.node.as_deref().unwrap_or("no node"));
        let what = format!("{user} removes {key}, which nobody has deleted or is another node's: it is on {on}");
        report.broken(Invariant::DeletionWaits, asked.at, what);
    }
    if !is_its {
        return;
    }
    let running = node.runtime.running(pod.uid());
    if let Some(container) = running.first() {
        let (user, count) = (&asked.request.user, running.len());
        let what = format!("{user} deletes {key} while {count} of its containers run, {} first", container.0);
        report.broken(Invariant::DeletedWhileRunning, asked.at, what);
    }
}
