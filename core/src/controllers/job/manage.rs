//! Creates and deletes the pods of a Job: as many as it needs, at most `parallelism` at a time, with a back-off after
//! failures.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Sync;
use super::count::Tally;
use super::pods::index_of;
use crate::controllers::Write;
use crate::object::{Pod, PodPhase, is_pod_active, is_pod_ready};

/// Maximum number of pods that one pass creates or deletes (`MaxPodCreateDeletePerSync`).
const MAX_PER_PASS: usize = 500;
/// The back-off before a failed pod is replaced: after the first failure, and maximum.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

impl<'a> Sync<'a> {
    /// Creates missing pods and deletes surplus ones.
    pub(super) fn manage(&mut self, tally: &Tally<'a>) {
        let active = self.active();
        if self.is_suspended() {
            return self.delete(&active);
        }
        let wanted = self.wanted(tally, active.len());
        let surplus = self.surplus(tally, &active, active.len().saturating_sub(wanted));
        if !surplus.is_empty() {
            return self.delete(&surplus);
        }
        let replaced = if self.replaces_only_failed() { usize::try_from(self.terminating()).unwrap_or(0) } else { 0 };
        let missing = wanted.saturating_sub(active.len() + replaced).min(MAX_PER_PASS);
        if missing == 0 {
            return;
        }
        if self.is_indexed() {
            self.create_indexed(tally, missing);
        } else if self.is_patient(None) {
            let pod = self.new_pod(None, None);
            self.plan.writes.extend((0..missing).map(|_| Write::Create(pod.clone())));
        }
    }

    pub(super) fn delete_active(&mut self) {
        self.delete(&self.active());
    }

    fn delete(&mut self, pods: &[&Pod]) {
        for pod in pods.iter().take(MAX_PER_PASS) {
            let (key, uid) = (pod.key(), pod.uid().into());
            self.plan.writes.push(Write::Delete { key, uid, rv: None, grace_seconds: None, propagation: None });
        }
    }

    /// How many pods should be active.
    fn wanted(&self, tally: &Tally<'_>, active: usize) -> usize {
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        match self.spec.completions {
            // A work queue (no `completions`): after the first success, running pods finish and no new ones are
            // created.
            None if tally.succeeded > 0 => active.min(parallelism),
            None => parallelism,
            Some(completions) => {
                let failed = if self.has_limit_per_index() { tally.failed_indexes.total() } else { 0 };
                let left = completions.saturating_sub(tally.succeeded).saturating_sub(failed);
                usize::try_from(left).unwrap_or(0).min(parallelism)
            }
        }
    }

    /// Active pods that should be deleted: first those whose index is not needed or has another pod, then others until
    /// `at_least` is reached, the least advanced ones first (`activePodsForRemoval`).
    fn surplus(&self, tally: &Tally<'_>, active: &[&'a Pod], at_least: usize) -> Vec<&'a Pod> {
        let mut going: Vec<&'a Pod> = Vec::new();
        let mut staying: Vec<&'a Pod> = Vec::new();
        let mut ranked = active.to_vec();
        ranked.sort_by_key(|p| std::cmp::Reverse(progress(p)));
        let mut seen = BTreeSet::new();
        for pod in ranked {
            let index = index_of(pod);
            let needed = |i: i32| i < self.completions() && !tally.succeeded_indexes.contains(i);
            let stays = !self.is_indexed() || index.is_some_and(|i| needed(i) && seen.insert(i));
            if stays { staying.push(pod) } else { going.push(pod) }
        }
        let more = at_least.saturating_sub(going.len());
        going.extend(staying.into_iter().rev().take(more));
        going
    }

    fn create_indexed(&mut self, tally: &Tally<'a>, missing: usize) {
        let terminating = |p: &&Pod| self.replaces_only_failed() && !is_ended(p);
        let taken: BTreeSet<i32> =
            self.pods.iter().filter(|p| is_pod_active(p) || terminating(p)).filter_map(|p| index_of(p)).collect();
        let open =
            |i: &i32| !taken.contains(i) && !tally.succeeded_indexes.contains(*i) && !tally.failed_indexes.contains(*i);
        let pending: Vec<i32> = (0..self.completions()).filter(open).take(missing).collect();
        for index in pending {
            let of_index = self.has_limit_per_index().then_some(index);
            if self.is_patient(of_index) {
                let known = tally.held.get(&index).map(|pod| self.failures_of(pod));
                let failures = self.has_limit_per_index().then(|| known.unwrap_or((0, 0)));
                let pod = self.new_pod(Some(index), failures);
                self.plan.writes.push(Write::Create(pod));
            }
        }
    }

    /// Whether the back-off after the last failure is over. If not, requeues the key for its end.
    fn is_patient(&mut self, index: Option<i32>) -> bool {
        let Some((often, since)) = self.failures.get(&(self.object.key(), index)) else { return true };
        let (first, most) = BACKOFF;
        let doubled = first.checked_mul(1u32.checked_shl(often.saturating_sub(1)).unwrap_or(u32::MAX)).unwrap_or(most);
        let left = doubled.min(most).saturating_sub(self.now.mono.since(*since));
        if !left.is_zero() {
            self.plan.requeue(left);
        }
        left.is_zero()
    }
}

fn is_ended(pod: &Pod) -> bool {
    crate::object::is_pod_terminal(pod)
}

/// The sort key for how far a pod has advanced; of pods that are equally far, the older one counts as further.
fn progress(pod: &Pod) -> (bool, bool, bool, std::cmp::Reverse<Option<crate::object::Time>>) {
    let running = pod.status.summary().phase == PodPhase::Running;
    let made = std::cmp::Reverse(pod.meta.creation_timestamp.clone());
    (pod.spec.node.is_some(), running, is_pod_ready(pod), made)
}
