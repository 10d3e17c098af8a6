//! Statistics for reports, progress and expectations. They are collected during the run and judge nothing.

use std::collections::BTreeMap;
use std::rc::Rc;

use skeg_core::object::{
    Amounts, Kind, Milli, Node, Object, ObjectKey, Pod, SharedPodSpec, controller_of, is_node_ready, pod_requests,
};

use crate::invariant::Commit;
use crate::invariant::reading::{is_ready, phase, place};
use crate::outcome::{PodStarts, Rollout};

/// A watched number of ready pods, of several workloads together.
#[derive(Clone, Debug)]
pub struct Mark {
    keys: Vec<ObjectKey>,
    replicas: i32,
    /// When that many pods were first ready.
    pub reached: Option<f64>,
    /// The lowest number since then, and when.
    pub lowest: Option<(i32, f64)>,
}

/// The requests of pods, including the pod itself (`pods: 1`); computed once for all pods of a template.
#[derive(Debug, Default)]
pub struct Requests(BTreeMap<u64, (SharedPodSpec, Rc<Amounts>)>);

impl Requests {
    /// The requests of one pod.
    pub fn of(&mut self, pod: &Pod) -> Rc<Amounts> {
        let print = pod.spec.shared.fingerprint();
        if let Some((spec, amounts)) = self.0.get(&print)
            && *spec == pod.spec.shared
        {
            return Rc::clone(amounts);
        }
        let mut amounts = pod_requests(&pod.spec.shared);
        amounts.insert("pods".into(), Milli::units(1));
        let amounts = Rc::new(amounts);
        if self.0.len() > 10_000 {
            self.0.clear();
        }
        self.0.insert(print, (pod.spec.shared.clone(), Rc::clone(&amounts)));
        amounts
    }
}

/// Adds or subtracts amounts.
pub fn add(to: &mut Amounts, what: &Amounts, sign: i128) {
    for (resource, n) in what {
        match to.get_mut(resource) {
            Some(known) => known.0 += sign * n.0,
            None => drop(to.insert(resource.clone(), Milli(sign * n.0))),
        }
    }
}

/// The allocatable resources of a node.
pub fn allocatable(node: &Node) -> Amounts {
    let given = node.status.allocatable.as_ref().or(node.status.capacity.as_ref());
    given.into_iter().flatten().map(|(k, q)| (k.as_str().into(), Milli::of(q))).collect()
}

/// All statistics.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Number of commits, except lease renewals and node status reports without changes.
    pub changes: u64,
    /// Pods by phase.
    pub phases: BTreeMap<String, i64>,
    /// Number of ready pods.
    pub ready: i64,
    /// Number of ready nodes.
    pub nodes_ready: i64,
    /// Kubernetes Events by reason.
    pub event_reasons: BTreeMap<String, u64>,
    /// Total of all nodes.
    allocatable: Amounts,
    /// Total of all bound pods.
    requested: Amounts,
    requests: Requests,
    /// The Deployment that owns a ReplicaSet, by the ReplicaSet's UID.
    deployment_of: BTreeMap<String, ObjectKey>,
    rollouts: Vec<(ObjectKey, Rollout)>,
    /// When pods that have not been ready were created, by UID.
    created: BTreeMap<Box<str>, f64>,
    /// How long those took that have been ready.
    pod_starts: Vec<f64>,
    /// Ready pods by workload.
    ready_of: BTreeMap<ObjectKey, i32>,
    marks: Vec<Mark>,
}

impl Statistics {
    /// Counts a commit.
    pub fn commit(&mut self, commit: &Commit<'_>) {
        self.changes += 1;
        match commit.new.or(commit.old) {
            Some(Object::Pod(_)) => self.pod(commit.at, commit.old_pod(), commit.new_pod()),
            Some(Object::Node(_)) => self.node(commit.old, commit.new),
            Some(Object::ReplicaSet(set)) => {
                if let Some(owner) = controller_of(&set.meta).filter(|o| o.kind == "Deployment") {
                    let key = ObjectKey::new(Kind::DEPLOYMENT, set.namespace(), &owner.name);
                    self.deployment_of.insert(set.uid().to_owned(), key);
                }
            }
            Some(Object::Deployment(_)) => self.deployment(commit.at, commit.old, commit.new),
            Some(Object::Event(e)) if commit.new.is_some() => {
                let reason = e.spec.reason.as_str().to_owned();
                *self.event_reasons.entry(reason).or_default() += 1;
            }
            _ => {}
        }
    }

    fn pod(&mut self, at: f64, old: Option<&Pod>, new: Option<&Pod>) {
        self.tally(old, -1);
        self.tally(new, 1);
        if old.and_then(place) != new.and_then(place) {
            for (pod, sign) in [(old, -1), (new, 1)] {
                if let Some(pod) = pod.filter(|p| place(p).is_some()) {
                    let requests = self.requests.of(pod);
                    add(&mut self.requested, &requests, sign);
                }
            }
        }
        match (old, new) {
            (None, Some(new)) => _ = self.created.insert(new.uid().into(), at),
            (Some(_), Some(new)) if is_ready(new) => {
                self.pod_starts.extend(self.created.remove(new.uid()).map(|created| at - created));
            }
            (Some(old), None) => _ = self.created.remove(old.uid()),
            (Some(_), Some(_)) | (None, None) => {}
        }
        let serves = |p: &Pod| is_ready(p) && p.meta.deletion_timestamp.is_none();
        let (was, is) = (old.is_some_and(serves), new.is_some_and(serves));
        if was != is
            && let Some(pod) = new.or(old)
        {
            self.readiness_changed(at, pod, if is { 1 } else { -1 });
        }
    }

    fn tally(&mut self, pod: Option<&Pod>, by: i64) {
        let Some(pod) = pod else { return };
        match self.phases.get_mut(phase(pod)) {
            Some(n) => *n += by,
            None => drop(self.phases.insert(phase(pod).to_owned(), by)),
        }
        if is_ready(pod) {
            self.ready += by;
        }
    }

    fn node(&mut self, old: Option<&Object>, new: Option<&Object>) {
        for (object, sign) in [(old, -1), (new, 1)] {
            if let Some(Object::Node(node)) = object {
                self.nodes_ready += if is_node_ready(node) { i64::from(sign) } else { 0 };
                add(&mut self.allocatable, &allocatable(node), i128::from(sign));
            }
        }
    }

    /// Requested share of the allocatable resources of all nodes, by resource.
    pub fn utilisation(&self) -> BTreeMap<String, f64> {
        let some = self.allocatable.iter().filter(|(_, n)| n.0 > 0);
        some.map(|(r, n)| {
            let share = self.requested.get(r).copied().unwrap_or(Milli::ZERO).0 as f64 / n.0 as f64;
            (r.to_string(), (share * 10_000.0).round() / 10_000.0)
        })
        .filter(|(_, share)| *share > 0.0)
        .collect()
    }

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

    fn deployment(&mut self, at: f64, old: Option<&Object>, new: Option<&Object>) {
        let Some(Object::Deployment(d)) = new else { return };
        let key = d.key();
        let old = match old {
            Some(Object::Deployment(old)) => Some(old),
            _ => None,
        };
        let desired = d.spec.replicas.unwrap_or(1);
        if old.is_none_or(|o| !o.spec.same_template(&d.spec)) {
            let ready = self.ready_pods(&key);
            for (_, r) in self.rollouts.iter_mut().filter(|(k, r)| *k == key && r.finished.is_none()) {
                r.workload.push_str(" (superseded)");
                r.finished = Some(at);
            }
            let rollout = Rollout {
                workload: format!("Deployment {}", key.path()),
                started: at,
                finished: None,
                lowest_available: ready,
                desired,
            };
            self.rollouts.push((key.clone(), rollout));
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

    /// How long pods took to be ready.
    pub fn pod_starts(&self) -> PodStarts {
        PodStarts::of(self.pod_starts.clone())
    }

    /// How many pods of a workload are ready.
    pub fn ready_pods(&self, key: &ObjectKey) -> i32 {
        self.ready_of.get(key).copied().unwrap_or(0)
    }

    /// Starts watching the total number of ready pods of these workloads; returns the number of the mark.
    pub fn watch_for(&mut self, keys: &[ObjectKey], replicas: i32) -> usize {
        self.marks.push(Mark { keys: keys.to_vec(), replicas, reached: None, lowest: None });
        self.marks.len() - 1
    }

    /// Returns a mark by its number.
    pub fn marked(&self, number: usize) -> &Mark {
        &self.marks[number]
    }

    /// Updates the marks after a workload's number of ready pods changed.
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
}
