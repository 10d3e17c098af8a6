//! `evicted-in-time`: the node controller deletes a pod from a tainted node when its tolerations say so: neither
//! before, nor much later; and never a DaemonSet's pod because its node is not ready.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use k8s_openapi::api::core::v1::{Taint, Toleration};
use skeg_core::api::DeleteOptions;
use skeg_core::object::{Kind, Node, Object, ObjectKey, Pod, controller_of};

use super::binding::VIEW_LAG;
use super::reading::{DRIFT, is_active, micros};
use super::{Asked, Commit, Invariant, Report};
use crate::converge::objects;

const USER: &str = "node-controller";
/// Within how many seconds a pod that is due is deleted, while nothing is wrong.
const DONE_WITHIN: f64 = 30.0;
/// The taints of nodes that are not ready. A DaemonSet's pods tolerate them.
const UNREADY: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The NoExecute taints of a node.
#[derive(Debug, Default)]
struct Tainted {
    taints: Vec<Taint>,
    /// When the first of these came.
    since: f64,
    /// When one of them last went or was replaced.
    changed: f64,
}

/// A pod that is to be gone by a time: in microseconds, with its node and since when that is tainted.
type Due = Reverse<(u64, ObjectKey, String, String, u64)>;

/// The taints of nodes by name, and the pods that are to leave them.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    nodes: BTreeMap<String, Tainted>,
    due: BinaryHeap<Due>,
}

fn no_execute(node: &Node) -> Vec<Taint> {
    node.spec.taints.iter().flatten().filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

/// Whether a toleration fits a taint.
pub(super) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    let fits = (effect.is_empty() || effect == taint.effect) && (key.is_empty() || key == taint.key);
    match toleration.operator.as_deref() {
        Some("Exists") => fits,
        _ => fits && !key.is_empty() && text(&toleration.value) == text(&taint.value),
    }
}

/// How many seconds a pod may stay with these taints; `None` if for ever.
fn stay(pod: &Pod, taints: &[Taint]) -> Option<f64> {
    let tolerations = pod.spec.tolerations.as_deref().unwrap_or_default();
    let of_taint = |taint: &Taint| {
        let mut fitting = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        match fitting.peek() {
            None => Some(0),
            Some(_) => fitting.filter_map(|toleration| toleration.toleration_seconds).min(),
        }
    };
    taints.iter().filter_map(of_taint).min().map(|seconds| seconds.max(0) as f64)
}

impl Evictions {
    /// Notes a node's taints, and which pods are to leave it.
    pub fn node(&mut self, commit: &Commit<'_>) {
        let Some(name) = commit.new.or(commit.old).map(Object::name) else { return };
        let taints = match commit.new {
            Some(Object::Node(node)) => no_execute(node),
            _ => Vec::new(),
        };
        let known = self.nodes.get(name).map(|known| known.taints.as_slice()).unwrap_or_default();
        if known == taints {
            return;
        }
        let known = self.nodes.entry(name.to_owned()).or_default();
        if known.taints.is_empty() {
            known.since = commit.at;
        } else if known.taints.iter().any(|taint| !taints.contains(taint)) {
            known.changed = commit.at;
        }
        known.taints = taints;
        let (since, all) = (micros(known.since), known.taints.clone());
        if all.is_empty() {
            return;
        }
        let here = objects(commit.store, Kind::POD).filter_map(Object::get::<k8s_openapi::api::core::v1::Pod>);
        for pod in here.filter(|pod| is_active(pod) && pod.spec.node.as_deref() == Some(name)) {
            if let Some(seconds) = stay(pod, &all) {
                let due = micros(commit.at + seconds * (1.0 + DRIFT) + DONE_WITHIN);
                self.due.push(Reverse((due, pod.key(), pod.uid().to_owned(), name.to_owned(), since)));
            }
        }
    }

    /// Checks the pods that are to be gone by now. Nothing has disturbed the control plane since `calm_since`.
    pub fn check_due(&mut self, commit: &Commit<'_>, calm_since: f64, report: &mut Report) {
        let now = micros(commit.at);
        while self.due.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Reverse((_, key, uid, node, since)) = self.due.pop().expect("it was seen");
            let Some(Object::Pod(pod)) = commit.store.object(&key) else { continue };
            let still =
                self.nodes.get(&node).is_some_and(|known| !known.taints.is_empty() && micros(known.since) == since);
            let changed = self.nodes.get(&node).is_some_and(|known| micros(known.changed) > since);
            if still && !changed && pod.uid() == uid && is_active(pod) && micros(calm_since.max(0.0)) <= since {
                let what = format!("{key} is still on {node}, whose taints it tolerates no longer");
                report.broken(Invariant::EvictedInTime, commit.at, what);
            }
        }
    }

    /// Checks a delete as it arrives.
    pub fn asked(&self, asked: &Asked<'_>, key: &ObjectKey, options: &DeleteOptions, report: &mut Report) {
        if *asked.request.user != *USER {
            return;
        }
        let Some(Object::Pod(pod)) = asked.store.object(key) else { return };
        if options.precondition.uid.as_deref().is_some_and(|uid| uid != pod.uid()) {
            return;
        }
        let Some(node) = pod.spec.node.as_ref().map(Rc::clone) else { return };
        let Some(known) = self.nodes.get(&*node) else { return };
        let mut broken = |why: &str| {
            report.broken(Invariant::EvictedInTime, asked.at, format!("{key} is evicted from {node}{why}"));
        };
        let of_daemons = controller_of(&pod.meta).is_some_and(|owner| owner.kind == "DaemonSet");
        if of_daemons && !known.taints.is_empty() && known.taints.iter().all(|t| UNREADY.contains(&&*t.key)) {
            broken(", which is not ready: it is a DaemonSet's");
        }
        if asked.at - known.changed <= VIEW_LAG && known.changed > 0.0 {
            return;
        }
        match stay(pod, &known.taints) {
            None => broken(", whose taints it tolerates"),
            Some(seconds) if asked.at - known.since < seconds * (1.0 - DRIFT) - 1.0 => {
                broken(&format!(" after {:.1} s; it tolerates its taints for {seconds} s", asked.at - known.since));
            }
            Some(_) => {}
        }
    }
}
