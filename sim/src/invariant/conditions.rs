//! `conditions-at-rest`: at the end of a run, when all of its pods are available, a Deployment says that it is
//! available and that its newest ReplicaSet is, whatever came in between, and has that one's revision, which is the
//! highest.
//!
//! Not judged: what is paused or being deleted.

use skeg_core::object::{Deployment, Kind, Object, ReplicaSet, controller_of};
use skeg_core::store::MemoryStore;

use crate::converge::objects;

/// The annotation of Deployments and ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Returns a description of the first Deployment that says something else than what is so, or `None`.
pub(super) fn at_rest(store: &MemoryStore) -> Option<String> {
    objects(store, Kind::DEPLOYMENT).find_map(|object| match object {
        Object::Deployment(d) if !object.is_deleting() && d.spec.paused != Some(true) => misled(store, d),
        _ => None,
    })
}

fn revision(object: &Object) -> Option<i64> {
    object.meta().annotations.as_ref()?.get(REVISION)?.parse().ok()
}

fn misled(store: &MemoryStore, d: &Deployment) -> Option<String> {
    let size = d.spec.replicas.unwrap_or(1);
    let (status, key) = (&d.status, d.key());
    let is_complete = [status.replicas, status.updated_replicas, status.available_replicas]
        .into_iter()
        .all(|count| count.unwrap_or(0) == size);
    if !is_complete || status.observed_generation != d.meta.generation {
        return None;
    }
    let said = |type_: &str| {
        let condition = status.conditions.iter().flatten().find(|c| c.type_ == type_);
        condition.map(|c| (c.status.as_str(), c.reason.as_deref().unwrap_or("")))
    };
    if said("Available") != Some(("True", "MinimumReplicasAvailable")) {
        return Some(format!("{key}: all {size} pods are available, and Available is {:?}", said("Available")));
    }
    // Without a time to make progress in, there is no such condition.
    let timed = d.spec.progress_deadline_seconds.is_some_and(|seconds| seconds < i32::MAX);
    if timed && said("Progressing") != Some(("True", "NewReplicaSetAvailable")) {
        return Some(format!("{key}: it has been rolled out, and Progressing is {:?}", said("Progressing")));
    }
    let owned = |object: &&Object| controller_of(object.meta()).is_some_and(|owner| owner.uid == d.uid());
    let sets: Vec<&Object> = objects(store, Kind::REPLICA_SET).filter(owned).collect();
    let newest = sets.iter().find(|set| matches!(set, Object::ReplicaSet(set) if has_pods(set)));
    let highest = sets.iter().filter_map(|set| revision(set)).max();
    let own = d.meta.annotations.as_ref().and_then(|all| all.get(REVISION)?.parse().ok());
    let newest = newest.and_then(|set| revision(set));
    (size > 0 && (own != highest || newest != highest))
        .then(|| format!("{key}: its revision is {own:?}, that of its pods {newest:?}, and the highest {highest:?}"))
}

fn has_pods(set: &ReplicaSet) -> bool {
    set.spec.replicas.is_some_and(|replicas| replicas > 0)
}
