//! `unready-go-first`: a ReplicaSet or ReplicationController that has too many pods deletes no ready one while it has
//! one that is not ready; both have been so for longer than a view may lag.

use std::collections::{BTreeMap, VecDeque};

use skeg_core::api::DeleteOptions;
use skeg_core::object::{Object, ObjectKey, Pod, controller_of};

use super::binding::VIEW_LAG;
use super::reading::{is_active, is_ready};
use super::{Asked, Commit, Invariant, Report};

/// Pods with the time since when they are as they are.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    /// The active ones that are not ready, by the UIDs of their owners.
    waiting: BTreeMap<String, BTreeMap<ObjectKey, f64>>,
    /// Those that have become ready lately; earliest first.
    ready: VecDeque<(f64, ObjectKey)>,
}

/// The owner that deletes surplus pods.
fn owner_of(pod: &Pod) -> Option<&str> {
    let owner = controller_of(&pod.meta)?;
    matches!(&*owner.kind, "ReplicaSet" | "ReplicationController").then_some(&owner.uid)
}

impl Surplus {
    pub fn pod(&mut self, commit: &Commit<'_>) {
        let waits = |pod: &&Pod| is_active(pod) && !is_ready(pod);
        let (old, new) = (commit.old_pod().filter(waits), commit.new_pod().filter(waits));
        let (before, after) = (old.and_then(owner_of), new.and_then(owner_of));
        if before == after {
            return;
        }
        while self.ready.front().is_some_and(|(at, _)| commit.at - at > VIEW_LAG) {
            self.ready.pop_front();
        }
        if let Some(pod) = old.and(commit.new_pod()).filter(|pod| is_ready(pod)) {
            self.ready.push_back((commit.at, pod.key()));
        }
        if let (Some(pod), Some(owner)) = (old, before)
            && let Some(pods) = self.waiting.get_mut(owner)
        {
            pods.remove(&pod.key());
            if pods.is_empty() {
                self.waiting.remove(owner);
            }
        }
        if let (Some(pod), Some(owner)) = (new, after) {
            self.waiting.entry(owner.to_owned()).or_default().insert(pod.key(), commit.at);
        }
    }

    /// Checks a delete as it arrives. A view may lag by `lag` seconds.
    pub fn asked(
        &mut self,
        asked: &Asked<'_>,
        (key, options): (&ObjectKey, &DeleteOptions),
        lag: f64,
        report: &mut Report,
    ) {
        if !matches!(&*asked.request.user, "replicaset-controller" | "replication-controller") {
            return;
        }
        let Some(Object::Pod(pod)) = asked.store.object(key) else { return };
        if options.precondition.uid.as_deref() != Some(pod.uid()) || !is_active(pod) {
            return;
        }
        let Some(siblings) = owner_of(pod).and_then(|owner| self.waiting.get_mut(owner)) else { return };
        if siblings.remove(key).is_some() {
            return;
        }
        if self.ready.iter().any(|(at, ready)| ready == key && asked.at - at <= lag) {
            return;
        }
        let long = siblings.iter().find(|(_, since)| asked.at - **since > lag).filter(|_| is_ready(pod));
        if let Some((other, since)) = long {
            let what = format!("{key} is deleted and is ready, and {other} has not been so since {since:.1} s");
            report.broken(Invariant::UnreadyGoFirst, asked.at, what);
        }
    }
}
