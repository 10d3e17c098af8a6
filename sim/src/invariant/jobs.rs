//! `job-counts`: a Job never counts more succeeded pods than have succeeded, no more pods succeed than it has
//! completions, and it is complete only when so many have.
//!
//! `jobs-fail-rightly`: until a Job comes to its end, it counts no more failed pods than have failed or were deleted;
//! it fails for its `backoffLimit` only when so many have, or were restarted so often, for its `activeDeadlineSeconds`
//! not before that time, and for failed indexes only if it may; and long after it has finished it makes no pods. One
//! that is suspended does not say when it began.
//!
//! `ttl-is-kept`: it is deleted for its `ttlSecondsAfterFinished` not before that time has passed. That it is deleted
//! soon after, a run that does not converge tells.
//!
//! A pod that succeeds while it is being deleted may have been replaced already, so it does not count as one too many.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1 as batch_v1;
use skeg_core::Wall;
use skeg_core::api::DeleteOptions;
use skeg_core::object::{Job, Kind, Object, ObjectKey, Pod, Text, controller_of};

use super::binding::VIEW_LAG;
use super::reading::{DRIFT, is_finished};
use super::{Asked, Commit, Invariant, Report};
use crate::clock::EPOCH;

/// The succeeded pods of a Job.
#[derive(Debug, Default)]
struct Succeeded {
    all: i32,
    /// Those that were not being deleted.
    undisturbed: i32,
}

/// The pods of a Job that have not succeeded.
#[derive(Debug, Default)]
struct Failed {
    /// How many have failed, or were deleted before they ended.
    pods: i32,
    /// How often containers were restarted, by pod UID.
    restarts: BTreeMap<String, i32>,
}

/// The ended pods of Jobs, and when Jobs finished, by Job UID.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    succeeded: BTreeMap<String, Succeeded>,
    failed: BTreeMap<String, Failed>,
    finished: BTreeMap<String, f64>,
}

/// Whether it has failed, or is to be removed before it has ended.
fn is_lost(pod: &Pod) -> bool {
    let deleted = pod.meta.deletion_timestamp.is_some() && pod.status.phase != Text::SUCCEEDED;
    deleted || pod.status.phase == Text::FAILED
}

/// How often its containers were restarted.
fn restarts(pod: &Pod) -> i32 {
    let all = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    all.map(|container| container.restart_count).sum()
}

/// In seconds.
const SLACK: f64 = 2.0;

impl Jobs {
    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        self.lost(commit, report);
        let Some(pod) = commit.new_pod().filter(|pod| pod.status.phase == Text::SUCCEEDED) else { return };
        if commit.old_pod().is_some_and(|old| old.status.phase == Text::SUCCEEDED) {
            return;
        }
        let Some(owner) = controller_of(&pod.meta).filter(|o| o.kind == "Job") else { return };
        let succeeded = self.succeeded.entry(owner.uid.clone()).or_default();
        succeeded.all += 1;
        succeeded.undisturbed += i32::from(pod.meta.deletion_timestamp.is_none());
        let job = commit.store.object(&ObjectKey::new(Kind::JOB, pod.namespace(), &owner.name));
        let Some(Object::Job(job)) = job.filter(|job| job.uid() == owner.uid) else { return };
        let (count, key) = (succeeded.undisturbed, job.key());
        if let Some(completions) = job.spec.completions.filter(|completions| count > *completions) {
            let what = format!("{} is the {count}. pod of {key} to succeed; {completions} are enough", pod.key());
            report.broken(Invariant::JobCounts, commit.at, what);
        }
    }

    /// Counts a pod that has not succeeded.
    fn lost(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let (old, new) = (commit.old_pod(), commit.new_pod());
        let Some(pod) = new.or(old) else { return };
        let Some(owner) = controller_of(&pod.meta).filter(|o| o.kind == "Job") else { return };
        if old.is_none()
            && let Some(at) = self.finished.get(&owner.uid).filter(|finished| commit.at - **finished > VIEW_LAG)
        {
            let what = format!("{} is made, and Job {} finished at {at:.1} s", pod.key(), owner.name);
            report.broken(Invariant::JobsFailRightly, commit.at, what);
        }
        let failed = self.failed.entry(owner.uid.clone()).or_default();
        let ends = match (old, new) {
            (Some(old), None) => !is_lost(old) && old.status.phase != Text::SUCCEEDED,
            (old, Some(new)) => is_lost(new) && !old.is_some_and(is_lost),
            (None, None) => false,
        };
        failed.pods += i32::from(ends);
        let count = new.map_or(0, restarts);
        if count > 0 {
            failed.restarts.insert(pod.uid().to_owned(), count);
        }
    }

    /// Checks how a Job has failed.
    fn fails(&self, commit: &Commit<'_>, job: &Job, lag: f64, report: &mut Report) {
        let nothing = Failed::default();
        let failed = self.failed.get(job.uid()).unwrap_or(&nothing);
        let waiting = job.status.uncounted_terminated_pods.as_ref().and_then(|w| w.failed.as_ref());
        let waiting = i32::try_from(waiting.map_or(0, Vec::len)).unwrap_or(i32::MAX);
        let counted = job.status.failed.unwrap_or(0) + waiting;
        // The pods that it ends are counted before they are deleted.
        let ends = |c: &batch_v1::JobCondition| c.type_ != "Suspended" && c.status == "True";
        if counted > failed.pods && !job.status.conditions.iter().flatten().any(ends) {
            let what = format!("{} counts {counted} failed pods; {} have failed", job.key(), failed.pods);
            report.broken(Invariant::JobsFailRightly, commit.at, what);
        }
        let suspended = |c: &batch_v1::JobCondition| c.type_ == "Suspended" && c.status == "True";
        if job.status.start_time.is_some() && job.status.conditions.iter().flatten().any(suspended) {
            let what = format!("{} is suspended, and says when it began", job.key());
            report.broken(Invariant::JobsFailRightly, commit.at, what);
        }
        let is_so = |c: &&batch_v1::JobCondition| matches!(&*c.type_, "Failed" | "FailureTarget") && c.status == "True";
        let Some(condition) = job.status.conditions.iter().flatten().find(is_so) else { return };
        let restarts: i32 = failed.restarts.values().sum();
        let spec = &job.spec;
        let wrong = match condition.reason.as_deref() {
            Some("BackoffLimitExceeded") => {
                let limit = spec.backoff_limit.unwrap_or(6);
                let may = failed.pods > limit || restarts >= limit.max(1);
                (!may).then(|| format!("{} failures and {restarts} restarts; {limit} are allowed", failed.pods))
            }
            Some("DeadlineExceeded") if lag < VIEW_LAG => {
                let deadline = spec.active_deadline_seconds.unwrap_or(i64::MAX) as f64;
                let begun = job.status.start_time.as_ref().map_or(0, |at| Wall::from_time(at).0 - EPOCH) as f64 / 1e6;
                let passed = commit.at - begun;
                let early = passed * (1.0 + DRIFT) + SLACK < deadline;
                early.then(|| format!("{passed:.1} s after it began; it has {deadline} s"))
            }
            Some("FailedIndexes" | "MaxFailedIndexesExceeded") => {
                spec.backoff_limit_per_index.is_none().then(|| "it has no limit per index".to_owned())
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            let reason = condition.reason.as_deref().unwrap_or("");
            let what = format!("{} has failed ({reason}): {wrong}", job.key());
            report.broken(Invariant::JobsFailRightly, commit.at, what);
        }
    }

    /// Checks a delete as it arrives. While clocks may differ, it is not judged.
    pub fn asked(
        &self,
        asked: &Asked<'_>,
        (key, options): (&ObjectKey, &DeleteOptions),
        lag: f64,
        report: &mut Report,
    ) {
        if *asked.request.user != *"ttl-after-finished-controller" || lag >= VIEW_LAG {
            return;
        }
        let Some(Object::Job(job)) = asked.store.object(key) else { return };
        let meant = options.precondition.uid.as_deref() == Some(job.uid());
        let Some(ttl) = job.spec.ttl_seconds_after_finished.filter(|_| meant) else { return };
        let passed = self.finished.get(job.uid()).map(|at| asked.at - at);
        if passed.is_none_or(|passed| passed + SLACK < f64::from(ttl)) {
            let when = passed.map_or("before it has finished".to_owned(), |s| format!("{s:.1} s after it finished"));
            let what = format!("{key} is deleted {when}, and is to stay for {ttl} s");
            report.broken(Invariant::TtlIsKept, asked.at, what);
        }
    }

    /// Checks a Job. While clocks may differ, its deadline is not judged.
    pub fn job(&mut self, commit: &Commit<'_>, job: &Job, lag: f64, report: &mut Report) {
        if commit.new.is_some() && is_finished(job) {
            self.finished.entry(job.uid().to_owned()).or_insert(commit.at);
        }
        if commit.new.is_some() {
            self.fails(commit, job, lag, report);
        }
        let waiting = job.status.uncounted_terminated_pods.as_ref().and_then(|w| w.succeeded.as_ref());
        let waiting = i32::try_from(waiting.map_or(0, Vec::len)).unwrap_or(i32::MAX);
        let counted = job.status.succeeded.unwrap_or(0) + waiting;
        let all = self.succeeded.get(job.uid()).map_or(0, |s| s.all);
        if counted > all {
            let what = format!("{} counts {counted} succeeded pods; {all} have succeeded", job.key());
            report.broken(Invariant::JobCounts, commit.at, what);
        }
        let by_all = job.spec.completions.filter(|_| job.spec.success_policy.is_none());
        let is_complete = |c: &batch_v1::JobCondition| c.type_ == "Complete" && c.status == "True";
        if let Some(completions) = by_all.filter(|completions| all < *completions)
            && job.status.conditions.iter().flatten().any(is_complete)
        {
            let what = format!("{} is complete; {all} of {completions} pods have succeeded", job.key());
            report.broken(Invariant::JobCounts, commit.at, what);
        }
    }
}
