//! `counts-at-rest`: at the end of a run, the statuses of ReplicaSets and ReplicationControllers count the pods that
//! there are, and those of PodDisruptionBudgets the healthy ones, and allow no more and no fewer disruptions than these
//! give; and a Deployment has kept no more ReplicaSets, and a CronJob no more Jobs, than their history limits say.

use std::collections::BTreeMap;

use skeg_core::object::{Kind, Object, Pod, Selector, controller_of};
use skeg_core::store::MemoryStore;

use super::reading::{is_active, is_ready};
use crate::converge::objects;

/// Active pods, and those of them that are ready.
type Counts = [i32; 2];

/// Returns a description of the first status that does not count what there is, or `None`.
pub(super) fn at_rest(store: &MemoryStore) -> Option<String> {
    let mut owned: BTreeMap<&str, Counts> = BTreeMap::new();
    let pods: Vec<&Pod> = objects(store, Kind::POD).filter_map(as_pod).filter(|pod| is_active(pod)).collect();
    for pod in &pods {
        let Some(owner) = controller_of(&pod.meta) else { continue };
        let [all, ready] = owned.entry(&owner.uid).or_default();
        (*all, *ready) = (*all + 1, *ready + i32::from(is_ready(pod)));
    }
    let sets = objects(store, Kind::REPLICA_SET).chain(objects(store, Kind::REPLICATION_CONTROLLER));
    let miscounted = sets.filter(|set| !set.is_deleting()).find_map(|set| {
        let said = match set {
            Object::ReplicaSet(set) => [set.status.replicas, set.status.ready_replicas.unwrap_or(0)],
            Object::ReplicationController(set) => [set.status.replicas, set.status.ready_replicas.unwrap_or(0)],
            _ => return None,
        };
        let there = owned.get(set.uid()).copied().unwrap_or_default();
        (said != there).then(|| {
            let told = |[all, ready]: Counts| format!("{all} pods, {ready} of them ready");
            format!("{}: its status says {}, and there are {}", set.key(), told(said), told(there))
        })
    });
    miscounted
        .or_else(|| objects(store, Kind::POD_DISRUPTION_BUDGET).find_map(|budget| misjudged(budget, &pods)))
        .or_else(|| objects(store, Kind::DEPLOYMENT).find_map(|deployment| hoards_sets(store, deployment)))
        .or_else(|| objects(store, Kind::CRON_JOB).find_map(|cron_job| hoards_jobs(store, cron_job)))
}

/// Whether a Deployment keeps more old ReplicaSets than it is to.
fn hoards_sets(store: &MemoryStore, object: &Object) -> Option<String> {
    let Object::Deployment(deployment) = object else { return None };
    let limit = usize::try_from(deployment.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let owned = |set: &&Object| controller_of(set.meta()).is_some_and(|owner| owner.uid == object.uid());
    let sets = objects(store, Kind::REPLICA_SET).filter(owned).count();
    let is_kept = deployment.spec.paused != Some(true) && sets > limit + 1;
    is_kept.then(|| format!("{}: it keeps {sets} ReplicaSets, and {limit} old ones are enough", object.key()))
}

/// Whether a CronJob keeps more finished Jobs than it is to. One may just have finished.
fn hoards_jobs(store: &MemoryStore, object: &Object) -> Option<String> {
    let Object::CronJob(cron_job) = object else { return None };
    let limits = [
        ("Complete", cron_job.spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", cron_job.spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    limits.into_iter().find_map(|(end, limit)| {
        let has_ended = |job: &&Object| match job {
            Object::Job(job) => {
                let owned = controller_of(&job.meta).is_some_and(|owner| owner.uid == object.uid());
                let mut conditions = job.status.conditions.iter().flatten();
                owned && !job.meta.is_deleting() && conditions.any(|c| c.type_ == end && c.status == "True")
            }
            _ => false,
        };
        let kept = objects(store, Kind::JOB).filter(has_ended).count();
        let limit = usize::try_from(limit).unwrap_or(0);
        (kept > limit + 1).then(|| format!("{}: it keeps {kept} Jobs that are {end}, at most {limit}", object.key()))
    })
}

fn as_pod(object: &Object) -> Option<&Pod> {
    match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    }
}

/// What is wrong with the status of a budget. Pods that it still remembers as evicted are left out, as its controller
/// leaves them out.
fn misjudged(object: &Object, pods: &[&Pod]) -> Option<String> {
    let Object::PodDisruptionBudget(budget) = object else { return None };
    let (spec, status) = (&budget.spec, &budget.status);
    let selector = Selector::from_label_selector(spec.selector.as_ref()?).ok()?;
    let evicted = |pod: &Pod| status.disrupted_pods.as_ref().is_some_and(|evicted| evicted.contains_key(pod.name()));
    let mine = pods.iter().filter(|p| p.namespace() == budget.namespace() && selector.matches(p.meta.labels.as_ref()));
    let healthy = mine.filter(|pod| is_ready(pod) && !evicted(pod)).count() as i32;
    let key = object.key();
    let [said, desired, expected, allowed] =
        [status.current_healthy, status.desired_healthy, status.expected_pods, status.disruptions_allowed]
            .map(Option::unwrap_or_default);
    if said != healthy {
        return Some(format!("{key}: {said} pods are said to be healthy, and {healthy} are"));
    }
    let spare = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    (allowed != spare).then(|| format!("{key}: it allows {allowed} disruptions, and {spare} pods can be spared"))
}
