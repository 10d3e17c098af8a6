//! `members-in-order`: an ordered StatefulSet creates no member before the one before it has been ready.
//!
//! The member before may have failed since, or have been deleted: the controller may not have seen that yet.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::object::{Kind, Object, ObjectKey, Pod, controller_of};

use super::reading::is_ready;
use super::{Commit, Invariant, Report};

/// The ordinals of which a pod has been ready, by StatefulSet UID.
#[derive(Debug, Default)]
pub(super) struct Members(BTreeMap<String, BTreeSet<i32>>);

impl Members {
    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let Some(pod) = commit.new_pod() else { return };
        let Some(owner) = controller_of(&pod.meta).filter(|o| o.kind == "StatefulSet") else { return };
        let is_owned = |old: &&Pod| controller_of(&old.meta).is_some_and(|o| o.uid == owner.uid);
        // A member that a set adopts may have become ready as an orphan, or as another set's.
        let became_ready = is_ready(pod) && !commit.old_pod().filter(is_owned).is_some_and(is_ready);
        if !became_ready && commit.old.is_some() {
            return;
        }
        let Some(ordinal) = pod.name().rsplit('-').next().and_then(|n| n.parse::<i32>().ok()) else { return };
        if became_ready {
            self.0.entry(owner.uid.clone()).or_default().insert(ordinal);
        }
        let set = commit.store.object(&ObjectKey::new(Kind::STATEFUL_SET, pod.namespace(), &owner.name));
        let Some(Object::StatefulSet(set)) = set.filter(|set| set.uid() == owner.uid) else { return };
        let first = set.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
        let is_ordered = set.spec.pod_management_policy.as_deref() != Some("Parallel");
        let before = self.0.get(&owner.uid).is_some_and(|ready| ready.contains(&(ordinal - 1)));
        if commit.old.is_none() && is_ordered && ordinal > first && !before {
            let what = format!("{} is created, and member {} has never been ready", pod.key(), ordinal - 1);
            report.broken(Invariant::MembersInOrder, commit.at, what);
        }
    }
}
