//! `counts-at-rest`: at the end of a run, the statuses of ReplicaSets and ReplicationControllers count the pods that
//! there are, and those of PodDisruptionBudgets the healthy ones, and allow no more and no fewer disruptions than these
//! give; and a Deployment has kept no more ReplicaSets, and a CronJob no more Jobs, than their history limits say.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core_v1;
use skeg_core::object::{IntOrString, Kind, Node, Object, ObjectKey, Pod, Selector, controller_of, scaled};
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
        .or_else(|| objects(store, Kind::POD_DISRUPTION_BUDGET).find_map(|budget| misjudged(store, budget, &pods)))
        .or_else(|| objects(store, Kind::DEPLOYMENT).find_map(|deployment| hoards_sets(store, deployment)))
        .or_else(|| objects(store, Kind::CRON_JOB).find_map(|cron_job| hoards_jobs(store, cron_job)))
        .or_else(|| objects(store, Kind::DAEMON_SET).find_map(|set| miscounts_nodes(store, set)))
        .or_else(|| [Kind::DAEMON_SET, Kind::STATEFUL_SET].into_iter().find_map(|kind| hoards_revisions(store, kind)))
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

/// Whether a DaemonSet whose pods may run on every node with some labels wants more or fewer pods than there are such
/// nodes.
fn miscounts_nodes(store: &MemoryStore, object: &Object) -> Option<String> {
    let Object::DaemonSet(set) = object else { return None };
    let spec = object.pod_spec()?;
    let chosen = spec.node_selector.clone().unwrap_or_default();
    let nodes = || objects(store, Kind::NODE).filter_map(Object::get::<core_v1::Node>);
    if object.is_deleting() || spec.affinity.is_some() || nodes().any(is_tainted) {
        return None;
    }
    let has = |node: &Node, (key, value): (&String, &String)| {
        node.meta.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|label| label == value)
    };
    let there = nodes().filter(|node| chosen.iter().all(|label| has(node, label))).count() as i32;
    let wanted = set.status.desired_number_scheduled;
    (wanted != there).then(|| format!("{}: it wants {wanted} pods, and {there} nodes are for them", object.key()))
}

fn is_tainted(node: &Node) -> bool {
    node.spec.taints.iter().flatten().next().is_some()
}

/// Whether a set keeps more revisions than it is to: the old ones that its limit allows, the current one, the one that
/// it comes to, and those that pods still have.
fn hoards_revisions(store: &MemoryStore, kind: Kind) -> Option<String> {
    objects(store, kind).filter(|set| !set.is_deleting()).find_map(|set| {
        let limit = match set {
            Object::DaemonSet(set) => set.spec.revision_history_limit,
            Object::StatefulSet(set) => set.spec.revision_history_limit,
            _ => None,
        };
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        let owned = |object: &Object| controller_of(object.meta()).is_some_and(|owner| owner.uid == set.uid());
        let kept = objects(store, Kind::CONTROLLER_REVISION).filter(|revision| owned(revision)).count();
        let mut live: BTreeSet<&str> = objects(store, Kind::POD)
            .filter(|pod| owned(pod))
            .filter_map(|pod| pod.labels()?.get("controller-revision-hash").map(String::as_str))
            .collect();
        if let Object::StatefulSet(set) = set {
            live.extend(
                [&set.status.current_revision, &set.status.update_revision].into_iter().flatten().map(|r| &**r),
            );
        }
        let most = limit + live.len().max(1) + 1;
        (kept > most).then(|| format!("{}: it keeps {kept} revisions, {most} are enough", set.key()))
    })
}

fn as_pod(object: &Object) -> Option<&Pod> {
    match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    }
}

/// How many pods the controllers of these are to have, and how many of them must stay healthy if so many may be
/// unavailable; `None` if a pod has no controller whose size is known.
fn wanted(store: &MemoryStore, pods: &[&Pod], most: &IntOrString) -> Option<(i32, i32)> {
    let mut sizes: BTreeMap<ObjectKey, i32> = BTreeMap::new();
    for pod in pods {
        let owner = controller_of(&pod.meta)?;
        let kind = [Kind::REPLICA_SET, Kind::REPLICATION_CONTROLLER, Kind::STATEFUL_SET]
            .into_iter()
            .find(|kind| kind.row().kind.as_ref() == owner.kind)?;
        let mut set = store.object(&ObjectKey::new(kind, pod.namespace(), &owner.name))?;
        if let Some(above) = controller_of(set.meta()).filter(|above| above.kind == "Deployment") {
            set = store.object(&ObjectKey::new(Kind::DEPLOYMENT, pod.namespace(), &above.name))?;
        }
        let size = match set {
            Object::ReplicaSet(set) => set.spec.replicas,
            Object::ReplicationController(set) => set.spec.replicas,
            Object::StatefulSet(set) => set.spec.replicas,
            Object::Deployment(deployment) => deployment.spec.replicas,
            _ => return None,
        };
        sizes.insert(set.key(), size.unwrap_or(1));
    }
    let all = sizes.values().sum();
    Some((all, (all - scaled(most, all, true)?).max(0)))
}

/// What is wrong with the status of a budget. Pods that it still remembers as evicted are left out, as its controller
/// leaves them out.
fn misjudged(store: &MemoryStore, object: &Object, pods: &[&Pod]) -> Option<String> {
    let Object::PodDisruptionBudget(budget) = object else { return None };
    let (spec, status) = (&budget.spec, &budget.status);
    let selector = Selector::from_label_selector(spec.selector.as_ref()?).ok()?;
    let evicted = |pod: &Pod| status.disrupted_pods.as_ref().is_some_and(|evicted| evicted.contains_key(pod.name()));
    let is_mine = |p: &&&Pod| p.namespace() == budget.namespace() && selector.matches(p.meta.labels.as_ref());
    let mine: Vec<&Pod> = pods.iter().filter(is_mine).copied().collect();
    let healthy = mine.iter().filter(|pod| is_ready(pod) && !evicted(pod)).count() as i32;
    let key = object.key();
    let [said, desired, expected, allowed] =
        [status.current_healthy, status.desired_healthy, status.expected_pods, status.disruptions_allowed]
            .map(Option::unwrap_or_default);
    if said != healthy {
        return Some(format!("{key}: {said} pods are said to be healthy, and {healthy} are"));
    }
    if let Some((all, least)) = spec.max_unavailable.as_ref().and_then(|most| wanted(store, &mine, most))
        && (expected, desired) != (all, least)
    {
        let said = format!("{expected} pods are expected and {desired} are to be healthy");
        return Some(format!("{key}: {said}, and these are {all} and {least}"));
    }
    let spare = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    (allowed != spare).then(|| format!("{key}: it allows {allowed} disruptions, and {spare} pods can be spared"))
}
