//! `done-in-time`: while nothing disturbs the control plane, the pods of a Job that is suspended are deleted within
//! seconds, a pod that others were evicted for is bound soon after these have had their time, and a pod that is deleted
//! on a sound node is gone soon after its grace period.
//!
//! That such things happen at all is seen at the end of a run; what is set right by then, only here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use skeg_core::object::{Kind, Node, Object, ObjectKey, Pod, controller_of, is_node_ready};

use super::reading::{DRIFT, is_active, is_terminal, micros};
use super::{Commit, Invariant, Report};
use crate::converge::objects;

/// Within how many seconds a suspended Job has no active pods.
const SUSPENDED_WITHIN: f64 = 30.0;
/// Within how many seconds a pod is bound that others were evicted for, in addition to the longest time that these
/// have.
const BOUND_WITHIN: f64 = 90.0;
/// Within how many seconds after its grace period a pod is gone.
const GONE_WITHIN: f64 = 90.0;

/// What is to be so by a time. The keys come with the UIDs of the objects.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Promise {
    /// A suspended Job, by its generation.
    Suspended(ObjectKey, String, Option<i64>),
    /// A pod that is nominated for a node.
    Nominated(ObjectKey, String, String),
    /// A pod that is being deleted on a node.
    Gone(ObjectKey, String, String),
}

/// What is due, in microseconds, and since when.
#[derive(Debug, Default)]
pub(super) struct Overdue(BinaryHeap<Reverse<(u64, u64, Promise)>>);

/// The node for which a pod that waits is nominated.
pub(super) fn nomination(pod: &Pod) -> Option<&str> {
    pod.status.nominated_node_name.get().filter(|_| pod.spec.node.is_none() && is_active(pod))
}

/// Whether a node takes any pod.
pub(super) fn is_sound(node: &Node) -> bool {
    let is_tainted = node.spec.taints.iter().flatten().next().is_some();
    is_node_ready(node) && !is_tainted && node.spec.unschedulable != Some(true)
}

impl Overdue {
    fn push(&mut self, at: f64, within: f64, promise: Promise) {
        self.0.push(Reverse((micros(at + within), micros(at), promise)));
    }

    /// Notes what is due.
    pub fn note(&mut self, commit: &Commit<'_>) {
        match (commit.old, commit.new) {
            (old, Some(Object::Job(job))) if job.spec.suspend == Some(true) => {
                let was = matches!(old, Some(Object::Job(old)) if old.spec.suspend == Some(true));
                if !was {
                    let promise = Promise::Suspended(job.key(), job.uid().to_owned(), job.meta.generation);
                    self.push(commit.at, SUSPENDED_WITHIN, promise);
                }
            }
            (_, Some(Object::Pod(pod))) => {
                let old = commit.old_pod();
                if let Some(node) = nomination(pod).filter(|node| old.and_then(nomination) != Some(node)) {
                    let longest = objects(commit.store, Kind::POD).filter_map(|object| match object {
                        Object::Pod(victim) if victim.spec.node.as_deref() == Some(node) => {
                            victim.spec.termination_grace_period_seconds
                        }
                        _ => None,
                    });
                    let within = BOUND_WITHIN + longest.max().unwrap_or(0) as f64;
                    self.push(commit.at, within, Promise::Nominated(pod.key(), pod.uid().to_owned(), node.to_owned()));
                }
                let goes = |pod: &Pod| pod.meta.deletion_timestamp.is_some();
                if let Some(node) = pod.spec.node.as_ref().filter(|_| goes(pod) && !old.is_some_and(goes)) {
                    let grace = pod.meta.deletion_grace_period_seconds.unwrap_or(0) as f64;
                    let promise = Promise::Gone(pod.key(), pod.uid().to_owned(), node.to_string());
                    self.push(commit.at, grace * (1.0 + DRIFT) + GONE_WITHIN, promise);
                }
            }
            _ => {}
        }
    }

    /// Checks what is due by now. Nothing has disturbed the control plane since `calm_since`.
    pub fn check(&mut self, commit: &Commit<'_>, calm_since: f64, report: &mut Report) {
        let now = micros(commit.at);
        while self.0.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Reverse((_, since, promise)) = self.0.pop().expect("it was seen");
            if micros(calm_since.max(0.0)) > since {
                continue;
            }
            if let Some(what) = promise.broken(commit) {
                let what = format!("{what}, since {:.1} s", since as f64 / 1e6);
                report.broken(Invariant::DoneInTime, commit.at, what);
            }
        }
    }
}

impl Promise {
    /// What is still not done.
    fn broken(&self, commit: &Commit<'_>) -> Option<String> {
        let node = |name: &str| match commit.store.object(&ObjectKey::new(Kind::NODE, "", name)) {
            Some(Object::Node(node)) => Some(node),
            _ => None,
        };
        match self {
            Promise::Suspended(key, uid, generation) => {
                let Some(Object::Job(job)) = commit.store.object(key) else { return None };
                if job.uid() != uid || job.meta.generation != *generation || job.meta.deletion_timestamp.is_some() {
                    return None;
                }
                let owned = |pod: &Pod| controller_of(&pod.meta).is_some_and(|owner| owner.uid == *uid);
                let pod = objects(commit.store, Kind::POD).find_map(|object| match object {
                    Object::Pod(pod) if owned(pod) && is_active(pod) => Some(pod),
                    _ => None,
                })?;
                Some(format!("{key} is suspended, and {} is there", pod.key()))
            }
            Promise::Nominated(key, uid, name) => {
                let Some(Object::Pod(pod)) = commit.store.object(key) else { return None };
                let waits = pod.uid() == uid && nomination(pod) == Some(name);
                // On a node that is not sound the evicted pods may never end.
                let may = node(name).is_none_or(is_sound);
                (waits && may).then(|| format!("{key} waits for {name}, where others were evicted for it"))
            }
            Promise::Gone(key, uid, name) => {
                let Some(Object::Pod(pod)) = commit.store.object(key) else { return None };
                let is_there = pod.uid() == uid && !is_terminal(pod);
                (is_there && node(name).is_some_and(is_sound)).then(|| format!("{key} is being deleted on {name}"))
            }
        }
    }
}
