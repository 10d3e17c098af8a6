//! Invariants: what must hold at every commit, and what must hold at rest. Cost follows the commits, not the cluster.
//!
//! | name | what |
//! |---|---|
//! | `node-over-allocatable` | the scheduler binds no pod to a node that cannot allocate it beside those that it has |
//! | `pod-bound-twice` | a pod's node is written once, and is a node that exists |
//! | `available-floor` | a Deployment's controller never scales its ReplicaSets below `replicas - maxUnavailable` in all |
//! | `one-leader` | at most one candidate acts as leader of a role |
//! | `child-outlives-owner` | the garbage collector deletes nothing that has a living owner |
//! | `generation-counts` | `metadata.generation` and the uid of an object never go back or change |
//! | `caches-at-rest-equal-store` | at the end every API server's cache shows what the store holds |
//! | `endpoints-at-rest` | at the end the EndpointSlices of a Service name its ready pods, and no others |
//! | `proxies-at-rest` | at the end every node's service table is what follows from the store; a cluster IP leads to the ready pods |
//! | `names-at-rest` | at the end the DNS answers each Service's name with its cluster IP, or its ready pods where it is headless |
//! | `converged-and-kept` | at the end the declared state is reached, and kept |

use std::collections::BTreeMap;
use std::rc::Rc;

use skeg_core::api::{Call, Request};
use skeg_core::object::{
    Amounts, Deployment, IntOrString, Kind, Milli, NameMap, Object, ObjectKey, ObjectMeta, Pod, ReplicaSet,
    SharedPodSpec, controller_of, is_mere_report, is_pod_ready, is_pod_terminal, pod_phase, pod_requests, scaled,
};
use skeg_core::store::{KeyValue, MemoryStore, StoreEvent, Stored};

use crate::outcome::{Happening, InvariantResult, Rollout};

/// How many breaks of one invariant are told in words.
const TOLD: usize = 5;

const NAMES: [&str; 11] = [
    "node-over-allocatable",
    "pod-bound-twice",
    "available-floor",
    "one-leader",
    "child-outlives-owner",
    "generation-counts",
    "caches-at-rest-equal-store",
    "endpoints-at-rest",
    "proxies-at-rest",
    "names-at-rest",
    "converged-and-kept",
];

#[derive(Debug, Default)]
struct NodeUse {
    allocatable: Amounts,
    used: Amounts,
}

/// A number of ready pods, of some workloads together, that is watched for.
#[derive(Clone, Debug)]
pub struct Mark {
    keys: Vec<ObjectKey>,
    replicas: i32,
    /// When so many were first ready.
    pub reached: Option<f64>,
    /// The fewest since then, and when.
    pub lowest: Option<(i32, f64)>,
}

/// All checkers, and the tallies that they keep by the way.
#[derive(Debug, Default)]
pub struct Checkers {
    broken: BTreeMap<&'static str, (u64, Vec<Happening>)>,
    nodes: NameMap<NodeUse>,
    /// Of all nodes together.
    total: NodeUse,
    requests: BTreeMap<u64, (SharedPodSpec, Rc<Amounts>)>,
    leaders: BTreeMap<(&'static str, u32), bool>,
    /// Sizes of the ReplicaSets of a Deployment, by UIDs.
    sizes: BTreeMap<String, BTreeMap<String, i32>>,
    /// Owner of a ReplicaSet: UID of the set to key of the Deployment.
    deployment_of: BTreeMap<String, ObjectKey>,
    rollouts: Vec<(ObjectKey, Rollout)>,
    /// Ready pods by workload.
    ready_of: BTreeMap<ObjectKey, i32>,
    marks: Vec<Mark>,
    /// How many commits there were but for renewals of Leases and reports of Nodes that say nothing new.
    pub changes: u64,
    /// Pods by phase.
    pub phases: BTreeMap<String, i64>,
    /// Pods that are ready.
    pub ready: i64,
    /// Nodes that are ready.
    pub nodes_ready: i64,
    /// Kubernetes Events by reason.
    pub event_reasons: BTreeMap<String, u64>,
}

fn object(kv: Option<&KeyValue>) -> Option<&Object> {
    match kv.map(|kv| &kv.value) {
        Some(Stored::Object(object)) => Some(object),
        Some(Stored::Mark(..)) | None => None,
    }
}

fn stored<'a>(store: &'a MemoryStore, key: &ObjectKey) -> Option<&'a Object> {
    store.object(key)
}

impl Checkers {
    /// Notes that an invariant is broken.
    pub fn broken(&mut self, name: &'static str, at: f64, what: String) {
        assert!(NAMES.contains(&name), "{name} is in the table");
        let (count, told) = self.broken.entry(name).or_default();
        *count += 1;
        if told.len() < TOLD {
            told.push(Happening { at, what });
        }
    }

    /// Every invariant with what came of it.
    pub fn results(&self) -> Vec<InvariantResult> {
        let result = |name: &&'static str| {
            let details = self.broken.get(name).map(|(_, told)| told.clone()).unwrap_or_default();
            InvariantResult { name: (*name).to_owned(), broken: self.broken.contains_key(name), details }
        };
        NAMES.iter().map(result).collect()
    }

    /// Looks at what the store's last step committed.
    #[inline(always)]
    pub fn commits(&mut self, at: f64, store: &MemoryStore) {
        for event in store.just_changed().flat_map(|batch| &**batch) {
            self.commit(at, store, event);
        }
    }

    #[inline(always)]
    fn commit(&mut self, at: f64, store: &MemoryStore, event: &StoreEvent) {
        let (old, new) = (object(event.previous.as_deref()), object(event.value.as_deref()));
        if let (Some(Object::Node(old)), Some(Object::Node(new))) = (old, new)
            && is_mere_report(old, new)
        {
            return;
        }
        if let (Some(old), Some(new)) = (old, new)
            && !Rc::ptr_eq(old.meta(), new.meta())
        {
            self.generations(at, old.meta(), new);
        }
        self.changes += u64::from(!matches!(new.or(old), Some(Object::Lease(_))));
        match new.or(old) {
            Some(Object::Pod(_)) => self.pod(at, store, pod(old), pod(new)),
            Some(Object::Node(_)) => self.node(old, new),
            Some(Object::ReplicaSet(_)) => self.replica_set(at, store, old, new),
            Some(Object::Deployment(_)) => self.deployment(at, old, new),
            Some(Object::Event(e)) if new.is_some() => {
                let reason = e.spec.reason.clone().unwrap_or_default();
                *self.event_reasons.entry(reason).or_default() += 1;
            }
            _ => {}
        }
    }

    fn generations(&mut self, at: f64, old: &ObjectMeta, new: &Object) {
        if old.generation > new.meta().generation || old.uid != new.meta().uid {
            let what = format!(
                "{}: generation {:?} became {:?}, uid {:?} became {:?}",
                new.key(),
                old.generation,
                new.meta().generation,
                old.uid,
                new.meta().uid
            );
            self.broken("generation-counts", at, what);
        }
    }

    // --- pods and nodes -------------------------------------------------------------------------------------------

    fn pod(&mut self, at: f64, store: &MemoryStore, old: Option<&Pod>, new: Option<&Pod>) {
        self.tally(old, -1);
        self.tally(new, 1);
        if let (Some(old), Some(new)) = (old, new)
            && let (Some(before), Some(now)) = (&old.spec.node, &new.spec.node)
            && before != now
        {
            self.broken("pod-bound-twice", at, format!("{} was on {before} and is on {now}", new.key()));
        }
        let was = old.and_then(place);
        let is = new.and_then(place);
        if was != is {
            if let (Some(node), Some(pod)) = (was, old) {
                let requests = self.requests_of(pod);
                add(&mut self.nodes.entry(node).used, &requests, -1);
                add(&mut self.total.used, &requests, -1);
            }
            if let (Some(node), Some(pod)) = (is, new) {
                self.bound(at, store, node, pod, old.is_some_and(|o| o.spec.node.is_none()));
            }
        }
        let was = old.is_some_and(|p| is_pod_ready(p) && p.meta.deletion_timestamp.is_none());
        let is = new.is_some_and(|p| is_pod_ready(p) && p.meta.deletion_timestamp.is_none());
        if was != is
            && let Some(pod) = new.or(old)
        {
            self.readiness_changed(at, pod, if is { 1 } else { -1 });
        }
    }

    fn tally(&mut self, pod: Option<&Pod>, by: i64) {
        let Some(pod) = pod else { return };
        let phase = pod_phase(pod);
        match self.phases.get_mut(phase) {
            Some(n) => *n += by,
            None => {
                self.phases.insert(phase.to_owned(), by);
            }
        }
        if is_pod_ready(pod) {
            self.ready += by;
        }
    }

    fn bound(&mut self, at: f64, store: &MemoryStore, node: &Rc<str>, pod: &Pod, just_bound: bool) {
        if just_bound && stored(store, &ObjectKey::new(Kind::NODE, "", node)).is_none() {
            self.broken("pod-bound-twice", at, format!("{} was bound to {node}, which is gone", pod.key()));
        }
        let requests = self.requests_of(pod);
        let usage = self.nodes.entry(node);
        add(&mut usage.used, &requests, 1);
        add(&mut self.total.used, &requests, 1);
        // Who names a node by hand asks no scheduler; the node's agent turns away what does not fit.
        if !just_bound {
            return;
        }
        let over = usage.used.iter().find(|(r, n)| **n > usage.allocatable.get(*r).copied().unwrap_or(Milli::ZERO));
        if let Some((resource, n)) = over {
            let has = usage.allocatable.get(resource).copied().unwrap_or(Milli::ZERO);
            let what = format!(
                "{node} has {resource} {} and its pods ask for {} since {}",
                has.to_decimal(),
                n.to_decimal(),
                pod.key()
            );
            self.broken("node-over-allocatable", at, what);
        }
    }

    /// What a pod asks for, itself included (`pods: 1`); computed once for all pods of a template.
    fn requests_of(&mut self, pod: &Pod) -> Rc<Amounts> {
        let print = pod.spec.shared.fingerprint();
        if let Some((spec, amounts)) = self.requests.get(&print)
            && *spec == pod.spec.shared
        {
            return Rc::clone(amounts);
        }
        let mut amounts = pod_requests(&pod.spec.shared);
        amounts.insert("pods".into(), Milli::units(1));
        let amounts = Rc::new(amounts);
        if self.requests.len() > 10_000 {
            self.requests.clear();
        }
        self.requests.insert(print, (pod.spec.shared.clone(), Rc::clone(&amounts)));
        amounts
    }

    fn node(&mut self, old: Option<&Object>, new: Option<&Object>) {
        let ready = |o: Option<&Object>| matches!(o, Some(Object::Node(n)) if skeg_core::object::is_node_ready(n));
        self.nodes_ready += i64::from(ready(new)) - i64::from(ready(old));
        let Some(Object::Node(node)) = new.or(old) else { return };
        let usage = self.nodes.entry(node.name());
        let same = match (old, new) {
            (Some(Object::Node(a)), Some(Object::Node(b))) => {
                a.status.same_apart_from_report(&b.status) || a.status.allocatable == b.status.allocatable
            }
            _ => false,
        };
        if !same {
            let of = |n: &skeg_core::object::Node| {
                let given = n.status.allocatable.as_ref().or(n.status.capacity.as_ref());
                given.into_iter().flatten().map(|(k, q)| (k.as_str().into(), Milli::of(q))).collect()
            };
            add(&mut self.total.allocatable, &usage.allocatable, -1);
            usage.allocatable = if new.is_some() { of(node) } else { Amounts::default() };
            add(&mut self.total.allocatable, &usage.allocatable, 1);
        }
    }

    /// Share of what all nodes can allocate that is requested, by resource.
    pub fn utilisation(&self) -> BTreeMap<String, f64> {
        let NodeUse { allocatable, used } = &self.total;
        let some = allocatable.iter().filter(|(_, n)| n.0 > 0);
        some.map(|(r, n)| {
            let share = used.get(r).copied().unwrap_or(Milli::ZERO).0 as f64 / n.0 as f64;
            (r.to_string(), (share * 10_000.0).round() / 10_000.0)
        })
        .filter(|(_, share)| *share > 0.0)
        .collect()
    }

    // --- workloads ------------------------------------------------------------------------------------------------

    fn readiness_changed(&mut self, at: f64, pod: &Pod, by: i32) {
        let Some(owner) = controller_of(&pod.meta) else { return };
        let Some(kind) = Kind::by_api_version(&owner.api_version, &owner.kind) else { return };
        let own = ObjectKey::new(kind, pod.namespace(), &owner.name);
        let above = self.deployment_of.get(&owner.uid).cloned();
        for key in [Some(own), above].into_iter().flatten() {
            let ready = self.ready_of.entry(key.clone()).or_default();
            *ready += by;
            let ready = *ready;
            self.mark(at, &key);
            for (k, rollout) in self.rollouts.iter_mut().rev() {
                if *k == key && rollout.finished.is_none() {
                    rollout.lowest_available = rollout.lowest_available.min(ready);
                }
            }
        }
    }

    fn replica_set(&mut self, at: f64, store: &MemoryStore, old: Option<&Object>, new: Option<&Object>) {
        let Some(Object::ReplicaSet(rs)) = new.or(old) else { return };
        let Some(owner) = controller_of(&rs.meta).filter(|o| o.kind == "Deployment") else { return };
        let sizes = self.sizes.entry(owner.uid.clone()).or_default();
        if new.is_none() {
            sizes.remove(rs.uid());
            return;
        }
        let size = rs.spec.replicas.unwrap_or(1);
        let before = sizes.insert(rs.uid().to_owned(), size);
        let total: i32 = sizes.values().sum();
        let key = ObjectKey::new(Kind::DEPLOYMENT, rs.namespace(), &owner.name);
        self.deployment_of.insert(rs.uid().to_owned(), key.clone());
        if before.is_some_and(|b| b > size)
            && let Some(Object::Deployment(d)) = stored(store, &key)
            && let Some(floor) = floor(d, rs)
            && total < floor
        {
            let what =
                format!("{key} has {total} replicas in all, the floor is {floor}, since {} has {size}", rs.name());
            self.broken("available-floor", at, what);
        }
    }

    fn deployment(&mut self, at: f64, old: Option<&Object>, new: Option<&Object>) {
        let Some(Object::Deployment(d)) = new else { return };
        let key = d.key();
        let old = match old {
            Some(Object::Deployment(old)) => Some(old),
            _ => None,
        };
        let desired = d.spec.replicas.unwrap_or(1);
        if old.is_none_or(|o| !o.spec.same_template(&d.spec)) {
            let ready = self.ready(&key);
            for (_, r) in self.rollouts.iter_mut().filter(|(k, r)| *k == key && r.finished.is_none()) {
                r.workload.push_str(" (superseded)");
                r.finished = Some(at);
            }
            self.rollouts.push((
                key.clone(),
                Rollout {
                    workload: format!("Deployment {}", key.path()),
                    started: at,
                    finished: None,
                    lowest_available: ready,
                    desired,
                },
            ));
        }
        let s = &d.status;
        let n = Some(desired);
        let done = s.observed_generation >= d.meta.generation
            && (desired == 0 || (s.updated_replicas == n && s.replicas == n && s.available_replicas == n));
        if done {
            for (_, r) in self.rollouts.iter_mut().filter(|(k, r)| *k == key && r.finished.is_none()) {
                r.finished = Some(at);
            }
        }
    }

    /// Rollouts so far.
    pub fn rollouts(&self) -> Vec<Rollout> {
        self.rollouts.iter().map(|(_, r)| r.clone()).collect()
    }

    /// How many pods of a workload are ready.
    pub fn ready(&self, key: &ObjectKey) -> i32 {
        self.ready_of.get(key).copied().unwrap_or(0)
    }

    /// Watches for so many ready pods of these workloads together; answers the number of the mark.
    pub fn watch_for(&mut self, keys: &[ObjectKey], replicas: i32) -> usize {
        self.marks.push(Mark { keys: keys.to_vec(), replicas, reached: None, lowest: None });
        self.marks.len() - 1
    }

    /// A mark by its number.
    pub fn marked(&self, number: usize) -> &Mark {
        &self.marks[number]
    }

    /// Ready pods of a workload have come or gone.
    fn mark(&mut self, at: f64, key: &ObjectKey) {
        for mark in self.marks.iter_mut().filter(|m| m.keys.contains(key)) {
            let ready: i32 = mark.keys.iter().map(|k| self.ready_of.get(k).copied().unwrap_or(0)).sum();
            if ready >= mark.replicas {
                mark.reached.get_or_insert(at);
            }
            if mark.reached.is_some() && mark.lowest.is_none_or(|(lowest, _)| ready < lowest) {
                mark.lowest = Some((ready, at));
            }
        }
    }

    // --- requests and leaders ---------------------------------------------------------------------------------------

    /// Looks at a request as an API server gets it.
    #[inline(always)]
    pub fn request(&mut self, at: f64, store: &MemoryStore, request: &Request) {
        let Call::Delete { key, options } = &request.call else { return };
        if !request.user.contains("garbage") {
            return;
        }
        let Some(child) = stored(store, key) else { return };
        if options.precondition.uid.as_deref().is_some_and(|uid| uid != child.uid()) {
            return;
        }
        for owner in child.meta().owner_references.iter().flatten() {
            let Some(kind) = Kind::by_api_version(&owner.api_version, &owner.kind) else { continue };
            let namespace = if kind.row().namespaced { child.namespace() } else { "" };
            let living = stored(store, &ObjectKey::new(kind, namespace, &owner.name))
                .is_some_and(|o| o.uid() == owner.uid && !o.is_deleting());
            if living {
                let what = format!("{key} is deleted while its owner {} {} lives", owner.kind, owner.name);
                self.broken("child-outlives-owner", at, what);
            }
        }
    }

    /// Notes whether a process leads its role; true if it has just begun to.
    pub fn leads(&mut self, role: &'static str, process: u32, leads: bool) -> bool {
        let before = self.leaders.insert((role, process), leads).unwrap_or(false);
        leads && !before
    }
}

fn pod(object: Option<&Object>) -> Option<&Pod> {
    match object {
        Some(Object::Pod(pod)) => Some(pod),
        _ => None,
    }
}

/// The node on which a pod takes room.
fn place(pod: &Pod) -> Option<&Rc<str>> {
    pod.spec.node.as_ref().filter(|_| !is_pod_terminal(pod))
}

fn add(to: &mut Amounts, what: &Amounts, sign: i128) {
    for (resource, n) in what {
        match to.get_mut(resource) {
            Some(known) => known.0 += sign * n.0,
            None => drop(to.insert(resource.clone(), Milli(sign * n.0))),
        }
    }
}

/// The floor that a ReplicaSet's scaling had to respect, by the numbers that its controller noted with it. None where
/// it does not apply: another strategy, or the Deployment has been scaled since.
fn floor(d: &Deployment, rs: &ReplicaSet) -> Option<i32> {
    let strategy = d.spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") != "RollingUpdate" {
        return None;
    }
    let noted: i32 = rs.meta.annotations.as_ref()?.get("deployment.kubernetes.io/desired-replicas")?.parse().ok()?;
    if noted != d.spec.replicas.unwrap_or(1) {
        return None;
    }
    let quarter = IntOrString::String("25%".to_owned());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = scaled(unavailable, noted, false)?;
    let surge = scaled(surge, noted, true)?;
    Some(noted - if unavailable == 0 && surge == 0 { 1 } else { unavailable })
}
