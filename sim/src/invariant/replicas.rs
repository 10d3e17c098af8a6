//! `most-replicas`: a ReplicaSet or ReplicationController never creates a pod beyond the highest number of replicas
//! that it ever had, a Job never one beyond its highest parallelism nor a second one for an index, and a DaemonSet
//! never a second one for a node. A controller that decides from a view that does not show its own last write creates
//! too many.
//!
//! When a pod is created, the owner's active pods (not terminated, not being deleted) are counted, the new one
//! included. Exceeding the number by adopting pods is allowed. A DaemonSet with `maxSurge` may have more than one pod
//! on a node.

use std::collections::BTreeMap;
use std::rc::Rc;

use skeg_core::object::{DaemonSet, IntOrString, Job, OwnerReference, Pod, controller_of};

use super::reading::{is_active, is_terminal};
use super::{Commit, Invariant, Report};

#[derive(Debug, Default)]
struct Set {
    /// The highest number of replicas that it ever had; `None` if it has not been seen.
    most: Option<i32>,
    active: i32,
}

/// Owners by UID; a DaemonSet's pods are counted per node, under `UID/node`.
#[derive(Debug, Default)]
pub(super) struct Replicas(BTreeMap<String, Set>);

/// The pod's owner, and the key under which the pod is counted; `None` if the pod is not counted.
fn counted_as(pod: &Pod) -> Option<(&OwnerReference, String)> {
    let owner = controller_of(&pod.meta)?;
    match owner.kind.as_str() {
        "ReplicaSet" | "ReplicationController" | "Job" => Some((owner, owner.uid.clone())),
        "DaemonSet" => Some((owner, format!("{}/{}", owner.uid, made_for(pod)?))),
        _ => None,
    }
}

/// The node that a DaemonSet created the pod for: the one that its node affinity names.
fn made_for(pod: &Pod) -> Option<&str> {
    let node = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &node.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == "metadata.name")?;
    field.values.iter().flatten().next().map(String::as_str)
}

/// The key under which a pod with an index of its Job is counted.
fn index_of(pod: &Pod) -> Option<String> {
    let owner = controller_of(&pod.meta).filter(|owner| owner.kind == "Job")?;
    let index = pod.meta.annotations.as_ref()?.get("batch.kubernetes.io/job-completion-index")?;
    Some(format!("{}/index {index}", owner.uid))
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

    pub fn job(&mut self, job: &Job) {
        self.set(job.uid(), job.spec.parallelism);
    }

    pub fn daemon_set(&mut self, set: &DaemonSet) {
        let rolling = set.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let surge = rolling.and_then(|r| r.max_surge.as_ref());
        let surges = surge.is_some_and(|surge| *surge != IntOrString::Int(0));
        // No pods are counted under the DaemonSet's own UID; its entry only holds the limit for each node.
        self.set(set.uid(), Some(if surges { i32::MAX } else { 1 }));
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
        if let Some(name) = index_of(pod)
            && self.0.get(&name).is_some_and(|set| set.active > 1)
        {
            let what = format!("{} is made, and another pod has its index", pod.key());
            report.broken(Invariant::MostReplicas, commit.at, what);
        }
        let Some((owner, name)) = counted_as(pod) else { return };
        let most = self.0.get(&owner.uid).and_then(|set| set.most);
        let (Some(most), Some(Set { active, .. })) = (most, self.0.get(&name)) else { return };
        if *active > most {
            let (key, kind, name) = (pod.key(), &owner.kind, &owner.name);
            let place = if kind == "DaemonSet" { made_for(pod).unwrap_or("") } else { "" };
            let of = if place.is_empty() { String::new() } else { format!(" for {place}") };
            let what =
                format!("{kind} {name} made {key}: it has {active} pods{of}, and never had more than {most} replicas");
            report.broken(Invariant::MostReplicas, commit.at, what);
        }
    }

    fn count(&mut self, pod: Option<&Pod>, by: i32) {
        let names = [pod.and_then(counted_as).map(|(_, name)| name), pod.and_then(index_of)];
        for name in names.into_iter().flatten() {
            self.0.entry(name).or_default().active += by;
        }
    }
}
