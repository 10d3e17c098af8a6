//! `most-replicas`: no set makes a pod that is one more than the most replicas that it ever had. Whoever decides by a
//! view that does not show its own last write makes too many.
//!
//! Counted when a pod is made are the set's pods that are neither at their end nor being deleted, itself included. What
//! a set adopts it has not made.

use std::collections::BTreeMap;
use std::rc::Rc;

use skeg_core::object::{OwnerReference, Pod, controller_of};

use super::reading::{is_active, is_terminal};
use super::{Commit, Invariant, Report};

#[derive(Debug, Default)]
struct Set {
    /// The most replicas that it ever had; none: it has not been seen.
    most: Option<i32>,
    active: i32,
}

/// Sets by UID.
#[derive(Debug, Default)]
pub(super) struct Replicas(BTreeMap<String, Set>);

fn owner(pod: &Pod) -> Option<&OwnerReference> {
    controller_of(&pod.meta).filter(|o| o.kind == "ReplicaSet" || o.kind == "ReplicationController")
}

impl Replicas {
    pub fn set(&mut self, uid: &str, replicas: Option<i32>) {
        let replicas = replicas.unwrap_or(1);
        let known = match self.0.get_mut(uid) {
            Some(set) => set,
            None => self.0.entry(uid.to_owned()).or_default(),
        };
        known.most = Some(known.most.map_or(replicas, |most| most.max(replicas)));
    }

    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let (old, new) = (commit.old_pod(), commit.new_pod());
        if let (Some(old), Some(new)) = (old, new)
            && Rc::ptr_eq(&old.meta, &new.meta)
            && is_terminal(old) == is_terminal(new)
        {
            return;
        }
        let counted = |pod: &&Pod| is_active(pod);
        self.count(old.filter(counted), -1);
        self.count(new.filter(counted), 1);
        let (None, Some(pod)) = (old, new.filter(counted)) else { return };
        let Some(owner) = owner(pod) else { return };
        let Some(Set { most: Some(most), active }) = self.0.get(&owner.uid) else { return };
        if active > most {
            let (key, kind, name) = (pod.key(), &owner.kind, &owner.name);
            let what =
                format!("{kind} {name} made {key}: it has {active} pods, and never had more than {most} replicas");
            report.broken(Invariant::MostReplicas, commit.at, what);
        }
    }

    fn count(&mut self, pod: Option<&Pod>, by: i32) {
        let Some(owner) = pod.and_then(owner) else { return };
        match self.0.get_mut(&owner.uid) {
            Some(set) => set.active += by,
            None => self.0.entry(owner.uid.clone()).or_default().active += by,
        }
    }
}
