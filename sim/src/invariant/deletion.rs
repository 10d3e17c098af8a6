//! `deleted-while-running`: a node's agent deletes a pod from the API only when none of its containers run. Otherwise a
//! replacement with the same identity could run beside them, with no API object for the old containers.
//!
//! `deletion-waits`: nobody else removes a pod that is bound to a node, unless the deletion is forced (a grace period
//! of zero), the pod has terminated, or its node is gone. An agent removes only pods of its own node that somebody has
//! deleted.

use std::collections::BTreeSet;

use skeg_core::api::{Call, DeleteOptions};
use skeg_core::object::{Kind, Object, ObjectKey};

use super::reading::is_terminal;
use super::{Asked, Commit, Invariant, Report};

/// Pods that somebody wants to be removed at once.
#[derive(Debug, Default)]
pub(super) struct Deletions(BTreeSet<ObjectKey>);

impl Deletions {
    /// Checks a delete as it arrives.
    pub fn asked(&mut self, asked: &Asked<'_>, key: &ObjectKey, options: &DeleteOptions, report: &mut Report) {
        if key.kind != Kind::POD {
            return;
        }
        if options.grace_seconds == Some(0) {
            self.0.insert(key.clone());
        }
        check(asked, key, options, report);
    }

    /// Notes an eviction as it arrives.
    pub fn evicted(&mut self, call: &Call) {
        if let Call::Evict { pod, options } = call
            && options.grace_seconds == Some(0)
        {
            self.0.insert(pod.clone());
        }
    }

    /// Checks a pod that is removed.
    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let (Some(pod), None) = (commit.old_pod(), commit.new) else { return };
        let forced = self.0.remove(&pod.key());
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
