//! Convergence: whether the cluster has reached the state that was declared, and if not, why not.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core_v1;

use skeg_core::object::{
    ContainerState, Kind, Object, ObjectKey, Pod, Revision, Text, controller_of, is_node_ready, is_pod_ready,
    is_pod_terminal, pod_phase,
};
use skeg_core::store::{MemoryStore, StoreKey, Stored};

use crate::outcome::{NotConverged, PendingPod, Workload};
use crate::world::World;

/// Objects of a kind in the store.
pub fn objects(store: &MemoryStore, kind: Kind) -> impl Iterator<Item = &Object> {
    let start = StoreKey::Object(ObjectKey::range_start(kind, ""));
    let end = StoreKey::Object(ObjectKey::range_end(kind, ""));
    store.range(&start, &end).filter_map(|kv| match &kv.value {
        Stored::Object(object) => Some(object),
        Stored::Mark(..) => None,
    })
}

/// What has not reached its declared state; stops after `most`.
pub fn unconverged(store: &MemoryStore, most: usize) -> Vec<NotConverged> {
    let mut found = Vec::new();
    let checks: [fn(&MemoryStore, usize, &mut Vec<NotConverged>); 5] =
        [workloads_unconverged, nodes_unconverged, namespaces_unconverged, pods_unconverged, no_controller];
    for check in checks {
        if found.len() < most {
            check(store, most, &mut found);
        }
    }
    found
}

fn tell(found: &mut Vec<NotConverged>, object: &Object, why: String) {
    let place = if object.namespace().is_empty() {
        object.name().to_owned()
    } else {
        format!("{}/{}", object.namespace(), object.name())
    };
    found.push(NotConverged { what: format!("{} {place}", object.kind()), why });
}

fn workloads_unconverged(store: &MemoryStore, most: usize, found: &mut Vec<NotConverged>) {
    for kind in [Kind::DEPLOYMENT, Kind::REPLICA_SET, Kind::REPLICATION_CONTROLLER] {
        for object in objects(store, kind) {
            if found.len() >= most {
                return;
            }
            if object.is_deleting() {
                tell(found, object, "it is being deleted".to_owned());
                continue;
            }
            if let Some(mut why) = lagging(object) {
                if let Some(cause) = why_pods_wait(store, object) {
                    why = format!("{why}; {cause}");
                }
                tell(found, object, why);
            }
        }
    }
}

/// What a workload's status lacks.
fn lagging(object: &Object) -> Option<String> {
    let n = |v: Option<i32>| v.unwrap_or(0);
    let generation = object.meta().generation;
    let (observed, wanted, counts) = match object {
        Object::Deployment(d) => {
            let s = &d.status;
            let counts = vec![
                ("replicas", n(s.replicas)),
                ("updated", n(s.updated_replicas)),
                ("ready", n(s.ready_replicas)),
                ("available", n(s.available_replicas)),
            ];
            (s.observed_generation, n(d.spec.replicas.or(Some(1))), counts)
        }
        Object::ReplicaSet(r) => {
            let s = &r.status;
            let counts =
                vec![("replicas", s.replicas), ("ready", n(s.ready_replicas)), ("available", n(s.available_replicas))];
            (s.observed_generation, n(r.spec.replicas.or(Some(1))), counts)
        }
        Object::ReplicationController(r) => {
            let s = &r.status;
            let counts =
                vec![("replicas", s.replicas), ("ready", n(s.ready_replicas)), ("available", n(s.available_replicas))];
            (s.observed_generation, n(r.spec.replicas.or(Some(1))), counts)
        }
        _ => return None,
    };
    if let Object::Deployment(d) = object
        && d.spec.paused == Some(true)
    {
        return None;
    }
    if observed < generation {
        return Some(format!("generation {} is not observed yet", generation.unwrap_or(0)));
    }
    if counts.iter().all(|(_, n)| *n == wanted) {
        return None;
    }
    let list: Vec<String> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
    Some(format!("{wanted} wanted: {}", list.join(", ")))
}

/// The first reason that one of its pods gives for not being ready.
fn why_pods_wait(store: &MemoryStore, object: &Object) -> Option<String> {
    if let Object::Deployment(_) = object {
        let owned = |o: &&Object| controller_of(o.meta()).is_some_and(|c| c.uid == object.uid());
        return objects(store, Kind::REPLICA_SET)
            .filter(owned)
            .find_map(|rs| failure_of(rs).or_else(|| why_pods_wait(store, rs)));
    }
    let owned = |p: &&Pod| controller_of(&p.meta).is_some_and(|c| c.uid == object.uid());
    let pods = objects(store, Kind::POD).filter_map(Object::get::<core_v1::Pod>);
    pods.filter(owned).find_map(why_not_ready).or_else(|| failure_of(object))
}

fn failure_of(object: &Object) -> Option<String> {
    match object {
        Object::ReplicaSet(rs) => {
            let c = rs.status.conditions.iter().flatten().next()?;
            c.message.clone()
        }
        Object::ReplicationController(rc) => rc.status.conditions.iter().flatten().next()?.message.clone(),
        _ => None,
    }
}

/// Why a pod is not ready.
fn why_not_ready(pod: &Pod) -> Option<String> {
    if is_pod_ready(pod) || is_pod_terminal(pod) {
        return None;
    }
    let name = pod.name();
    if pod.meta.deletion_timestamp.is_some() {
        return Some(format!("pod {name} is terminating"));
    }
    if pod.spec.node.is_none() {
        let c = pod.status.condition(&Text::POD_SCHEDULED);
        let why = c.and_then(|c| c.message.to_option()).unwrap_or_else(|| "it has not been looked at".to_owned());
        return Some(format!("pod {name} is not scheduled: {why}"));
    }
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    for status in statuses {
        match &status.state {
            ContainerState::Waiting { reason, message } => {
                return Some(format!("container {} of pod {name} waits: {reason} {message}", status.name));
            }
            ContainerState::Running { .. } if !status.ready => {
                return Some(format!("container {} of pod {name} runs and is not ready", status.name));
            }
            _ => {}
        }
    }
    let node = pod.spec.node.as_deref().unwrap_or("");
    Some(format!("pod {name} is {} on {node}", pod_phase(pod)))
}

fn nodes_unconverged(store: &MemoryStore, most: usize, found: &mut Vec<NotConverged>) {
    for object in objects(store, Kind::NODE) {
        let Object::Node(node) = object else { continue };
        if found.len() < most && !is_node_ready(node) {
            tell(found, object, "the node is not ready".to_owned());
        }
        let tainted = |t: &core_v1::Taint| {
            t.key == skeg_core::object::TAINT_NOT_READY || t.key == skeg_core::object::TAINT_UNREACHABLE
        };
        if found.len() < most && is_node_ready(node) && node.spec.taints.iter().flatten().any(tainted) {
            tell(found, object, "the node is ready and still tainted".to_owned());
        }
    }
}

fn namespaces_unconverged(store: &MemoryStore, most: usize, found: &mut Vec<NotConverged>) {
    for object in objects(store, Kind::NAMESPACE) {
        if found.len() < most && object.is_deleting() {
            tell(found, object, "the namespace is terminating".to_owned());
        }
    }
}

fn pods_unconverged(store: &MemoryStore, most: usize, found: &mut Vec<NotConverged>) {
    for object in objects(store, Kind::POD) {
        let Object::Pod(pod) = object else { continue };
        if found.len() >= most {
            return;
        }
        if pod.meta.deletion_timestamp.is_some() {
            let node = pod.spec.node.as_deref().unwrap_or("no node");
            tell(found, object, format!("it is terminating, on {node}"));
        } else if controller_of(&pod.meta).is_none()
            && let Some(why) = why_not_ready(pod)
        {
            tell(found, object, why);
        }
    }
}

/// Kinds whose controllers come with a later part of the project.
fn no_controller(store: &MemoryStore, most: usize, found: &mut Vec<NotConverged>) {
    for kind in [Kind::STATEFUL_SET, Kind::DAEMON_SET, Kind::JOB, Kind::CRON_JOB] {
        for object in objects(store, kind) {
            if found.len() < most {
                tell(found, object, format!("this build has no controller for kind {kind}"));
            }
        }
    }
}

/// Workloads at the end of a run; those that belong to another are left out.
pub fn workloads(store: &MemoryStore) -> Vec<Workload> {
    let mut all = Vec::new();
    for kind in [Kind::DEPLOYMENT, Kind::REPLICA_SET, Kind::REPLICATION_CONTROLLER] {
        for object in objects(store, kind).filter(|o| controller_of(o.meta()).is_none()) {
            let (desired, ready) = match object {
                Object::Deployment(o) => (o.spec.replicas, o.status.ready_replicas),
                Object::ReplicaSet(o) => (o.spec.replicas, o.status.ready_replicas),
                Object::ReplicationController(o) => (o.spec.replicas, o.status.ready_replicas),
                other => unreachable!("{:?} is none of the kinds above", other.kind()),
            };
            all.push(Workload {
                kind: kind.to_string(),
                namespace: object.namespace().to_owned(),
                name: object.name().to_owned(),
                desired: desired.unwrap_or(1),
                ready: ready.unwrap_or(0),
            });
        }
    }
    all
}

/// Pods without a node, with the scheduler's words; at most a hundred.
pub fn pending(store: &MemoryStore) -> Vec<PendingPod> {
    let pods = objects(store, Kind::POD).filter_map(Object::get::<core_v1::Pod>);
    let waiting = pods.filter(|p| p.spec.node.is_none() && !is_pod_terminal(p)).take(100);
    waiting
        .map(|p| {
            let c = p.status.condition(&Text::POD_SCHEDULED);
            let why = c.and_then(|c| c.message.to_option()).unwrap_or_else(|| "not looked at yet".to_owned());
            PendingPod { pod: format!("{}/{}", p.namespace(), p.name()), why }
        })
        .collect()
}

/// Compares every API server's cache with the store as it was at a revision; a difference in words. Objects that have
/// changed since are left out: they may be on their way.
pub fn stale_cache(world: &World, judged: Revision) -> Option<String> {
    let changed: BTreeSet<StoreKey> = world.store.changes_after(judged).iter().map(|e| e.key().clone()).collect();
    for api in world.api_servers() {
        for kind in api.kinds().all() {
            let settled = |key: &ObjectKey| !changed.contains(&StoreKey::Object(key.clone()));
            let truth: BTreeMap<ObjectKey, Revision> =
                objects(&world.store, kind).map(|o| (o.key(), o.rv())).filter(|(k, _)| settled(k)).collect();
            let cached: BTreeMap<ObjectKey, Revision> =
                api.cached(kind).map(|(k, o)| (k.clone(), o.rv())).filter(|(k, _)| settled(k)).collect();
            if truth == cached {
                continue;
            }
            let differs = |key: &&ObjectKey| truth.get(*key) != cached.get(*key);
            let key = truth.keys().chain(cached.keys()).find(differs);
            if let Some(key) = key {
                let (t, c) = (truth.get(key), cached.get(key));
                return Some(format!("{}: the store has {key} at {t:?}, the cache at {c:?}", api.name()));
            }
        }
    }
    None
}
