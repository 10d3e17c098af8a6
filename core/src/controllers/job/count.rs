//! The counts of a Job: which of its pods have terminated, and which of those are already included in the status.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1 as batch_v1;

use super::finish::Target;
use super::indexes::Indexes;
use super::pods::{failures_before, index_of, is_tracked, untrack};
use super::policy::{Verdict, judge};
use super::{Sync, TRACKING};
use crate::object::{Pod, PodPhase, is_pod_active, is_pod_ready};

/// Maximum number of UIDs in `uncountedTerminatedPods` (`MaxUncountedPods`).
const MAX_UNCOUNTED: usize = 500;

/// The counts in a Job's status, plus the pods that have terminated since it was written.
#[derive(Default)]
pub(super) struct Tally<'a> {
    pub succeeded: i32,
    pub failed: i32,
    pub succeeded_indexes: Indexes,
    pub failed_indexes: Indexes,
    /// Failed pods that are not included in the status yet.
    pub new_failed: Vec<&'a Pod>,
    /// With `backoffLimitPerIndex`: the last failed pod of each index that will be retried. It keeps its finalizer
    /// until its replacement exists, because the number of failures of the index is stored in its annotations.
    pub held: BTreeMap<i32, &'a Pod>,
}

impl<'a> Sync<'a> {
    pub(super) fn has_limit_per_index(&self) -> bool {
        self.is_indexed() && self.spec.backoff_limit_per_index.is_some()
    }

    /// Adds the UIDs whose pods no longer have the finalizer to the counts, and removes them from
    /// `uncountedTerminatedPods`.
    fn settle(&mut self) {
        let Some(mut waiting) = self.status.uncounted_terminated_pods.take() else { return };
        let still = |uid: &String| self.pods.iter().any(|p| p.uid() == uid && is_tracked(p));
        let counted = |list: &mut Option<Vec<String>>| {
            let before = list.as_ref().map_or(0, Vec::len);
            let left: Vec<String> = list.take().into_iter().flatten().filter(still).collect();
            let counted = i32::try_from(before - left.len()).expect("at most so many wait");
            *list = (!left.is_empty()).then_some(left);
            (counted != 0).then_some(counted)
        };
        let (succeeded, failed) = (counted(&mut waiting.succeeded), counted(&mut waiting.failed));
        add(&mut self.status.succeeded, succeeded);
        add(&mut self.status.failed, failed);
        self.status.uncounted_terminated_pods = Some(waiting);
    }

    /// Counts all pods that have terminated.
    pub(super) fn tally(&mut self) -> Tally<'a> {
        self.settle();
        let waiting = self.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let (completions, indexed) = (self.completions(), self.is_indexed());
        let known = |list: &Option<Vec<String>>, p: &Pod| list.iter().flatten().any(|uid| uid == p.uid());
        let fresh = |p: &&&Pod| {
            is_tracked(p) && self.is_valid(p) && !known(&waiting.succeeded, p) && !known(&waiting.failed, p)
        };
        let new: Vec<&'a Pod> = self.pods.iter().filter(fresh).copied().collect();
        let succeeded: Vec<&Pod> =
            new.iter().copied().filter(|p| p.status.summary().phase == PodPhase::Succeeded).collect();
        let new_failed: Vec<&'a Pod> = new.iter().copied().filter(|p| self.is_failed(p)).collect();
        let counted = new_failed.iter().filter(|p| self.judge(p) != Verdict::Ignore).count();
        let parse = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or(""), completions);
        let mut tally = Tally {
            succeeded_indexes: parse(&self.status.completed_indexes),
            failed_indexes: parse(&self.status.failed_indexes),
            failed: self.status.failed.unwrap_or(0) + len(&waiting.failed) + count(counted),
            ..Tally::default()
        };
        if indexed {
            succeeded.iter().filter_map(|p| index_of(p)).for_each(|i| tally.succeeded_indexes.insert(i));
            tally.succeeded = tally.succeeded_indexes.total();
        } else {
            tally.succeeded = self.status.succeeded.unwrap_or(0) + len(&waiting.succeeded) + count(succeeded.len());
        }
        tally.new_failed = new_failed;
        if self.has_limit_per_index() {
            self.hold(&mut tally);
        }
        self.note_failures(&tally, !succeeded.is_empty());
        tally
    }

    pub(super) fn judge(&self, pod: &Pod) -> Verdict {
        judge(self.spec.pod_failure_policy.as_ref(), pod, self.has_limit_per_index())
    }

    /// The number of failures of a pod's index, this pod's failure included: counted ones and ignored ones.
    pub(super) fn failures_of(&self, pod: &Pod) -> (i32, i32) {
        let (counted, ignored) = failures_before(pod);
        if self.judge(pod) == Verdict::Ignore { (counted, ignored + 1) } else { (counted + 1, ignored) }
    }

    /// Finds the indexes that have failed permanently, and the pods to hold for the other failed indexes.
    fn hold(&self, tally: &mut Tally<'a>) {
        let limit = self.spec.backoff_limit_per_index.unwrap_or(i32::MAX);
        let mut last: BTreeMap<i32, &'a Pod> = BTreeMap::new();
        for pod in &tally.new_failed {
            let index = index_of(pod).expect("only pods with an index are tallied");
            let is_later = |known: &&Pod| {
                let sum = |p: &Pod| failures_before(p).0 + failures_before(p).1;
                (sum(pod), pod.name()) > (sum(known), known.name())
            };
            if last.get(&index).is_none_or(is_later) {
                last.insert(index, pod);
            }
        }
        for (index, pod) in last {
            let failed = self.judge(pod) == Verdict::FailIndex || self.failures_of(pod).0 > limit;
            let replaced = self.pods.iter().any(|p| is_pod_active(p) && index_of(p) == Some(index));
            if tally.succeeded_indexes.contains(index) || tally.failed_indexes.contains(index) {
                continue;
            }
            if failed {
                tally.failed_indexes.insert(index);
            } else if !replaced {
                tally.held.insert(index, pod);
            }
        }
    }

    /// Updates the number of failures in a row, for the back-off before replacements.
    fn note_failures(&mut self, tally: &Tally<'_>, succeeded: bool) {
        let key = self.object.key();
        if succeeded && !self.has_limit_per_index() {
            self.failures.remove(&(key.clone(), None));
        }
        for pod in &tally.new_failed {
            let held = tally.held.values().any(|p| p.uid() == pod.uid());
            let index = self.has_limit_per_index().then(|| index_of(pod)).flatten();
            let place = self.failures.entry((key.clone(), index)).or_insert((0, self.now.mono));
            if held {
                // A held pod appears as newly failed in every pass until it is replaced, so the number comes from its
                // annotations.
                let often = u32::try_from(failures_before(pod).0).unwrap_or(0) + 1;
                if place.0 != often {
                    *place = (often, self.now.mono);
                }
            } else {
                *place = (place.0.saturating_add(1), self.now.mono);
            }
        }
    }

    /// Adds terminated pods to `uncountedTerminatedPods`, and removes the finalizers of the pods that are included.
    pub(super) fn collect(&mut self, tally: &mut Tally<'a>, target: Option<&Target>) {
        let mut waiting = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let ends = target.is_some() || self.object.is_deleting();
        for pod in self.pods.clone().into_iter().filter(|p| is_tracked(p)) {
            let (failed, succeeded) = (self.is_failed(pod), pod.status.summary().phase == PodPhase::Succeeded);
            let held = tally.held.values().any(|p| p.uid() == pod.uid());
            if !(ends || succeeded || failed && !held) {
                continue;
            }
            let known = |list: &Option<Vec<String>>| list.iter().flatten().any(|uid| uid == pod.uid());
            let is_known = known(&waiting.succeeded) || known(&waiting.failed);
            let uid = pod.uid().to_owned();
            // When a Job fails, pods that have not terminated count as failed.
            let with_job = target.is_some_and(|t| t.is_failure()) && !succeeded;
            if succeeded && !is_known && !self.is_indexed() {
                waiting.succeeded.get_or_insert_default().push(uid);
            } else if (failed || with_job) && !is_known && self.is_valid(pod) && self.judge(pod) != Verdict::Ignore {
                waiting.failed.get_or_insert_default().push(uid);
            }
            self.plan.writes.push(untrack(pod));
            if waiting.succeeded.iter().chain(&waiting.failed).map(Vec::len).sum::<usize>() >= MAX_UNCOUNTED {
                break;
            }
        }
        self.status.uncounted_terminated_pods = Some(waiting);
        if self.is_indexed() {
            let succeeded = &tally.succeeded_indexes;
            self.status.completed_indexes = (!succeeded.is_empty()).then(|| succeeded.to_string());
            self.status.succeeded = Some(tally.succeeded).filter(|n| *n != 0);
            if self.has_limit_per_index() {
                self.status.failed_indexes = Some(tally.failed_indexes.to_string());
            }
        }
    }

    /// Sets `active`, `ready` and `terminating` of the status.
    pub(super) fn count_active(&mut self) {
        let active = self.active();
        self.status.active = Some(count(active.len())).filter(|n| *n != 0);
        self.status.ready = Some(count(active.iter().filter(|p| is_pod_ready(p)).count()));
        self.status.terminating = Some(self.terminating());
    }

    /// Whether every terminated pod is included in the counts.
    pub(super) fn is_all_counted(&self) -> bool {
        let waiting: Option<&batch_v1::UncountedTerminatedPods> = self.status.uncounted_terminated_pods.as_ref();
        let tracked = self.pods.iter().any(|p| p.meta.finalizers.iter().flatten().any(|f| f == TRACKING));
        !tracked && waiting.is_none_or(|w| w.succeeded.is_none() && w.failed.is_none())
    }
}

fn add(place: &mut Option<i32>, more: Option<i32>) {
    if let Some(more) = more {
        *place = Some(place.unwrap_or(0) + more);
    }
}

fn len(list: &Option<Vec<String>>) -> i32 {
    count(list.as_ref().map_or(0, Vec::len))
}

fn count(n: usize) -> i32 {
    i32::try_from(n).expect("a Job has fewer pods than that")
}
