//! `job-counts`: a Job never counts more succeeded pods than have succeeded, no more pods succeed than it has
//! completions, and it is complete only when so many have.
//!
//! `ttl-is-kept`: it is deleted for its `ttlSecondsAfterFinished` not before that time has passed. That it is deleted
//! soon after, a run that does not converge tells.
//!
//! A pod that succeeds while it is being deleted may have been replaced already, so it does not count as one too many.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1 as batch_v1;
use skeg_core::api::DeleteOptions;
use skeg_core::object::{Job, Kind, Object, ObjectKey, Text, controller_of};

use super::binding::VIEW_LAG;
use super::reading::is_finished;
use super::{Asked, Commit, Invariant, Report};

/// The succeeded pods of a Job.
#[derive(Debug, Default)]
struct Succeeded {
    all: i32,
    /// Those that were not being deleted.
    undisturbed: i32,
}

/// The succeeded pods of Jobs, and when Jobs finished, by Job UID.
#[derive(Debug, Default)]
pub(super) struct Jobs(BTreeMap<String, Succeeded>, BTreeMap<String, f64>);

/// In seconds.
const SLACK: f64 = 2.0;

impl Jobs {
    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let Some(pod) = commit.new_pod().filter(|pod| pod.status.phase == Text::SUCCEEDED) else { return };
        if commit.old_pod().is_some_and(|old| old.status.phase == Text::SUCCEEDED) {
            return;
        }
        let Some(owner) = controller_of(&pod.meta).filter(|o| o.kind == "Job") else { return };
        let succeeded = self.0.entry(owner.uid.clone()).or_default();
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
        let passed = self.1.get(job.uid()).map(|at| asked.at - at);
        if passed.is_none_or(|passed| passed + SLACK < f64::from(ttl)) {
            let when = passed.map_or("before it has finished".to_owned(), |s| format!("{s:.1} s after it finished"));
            let what = format!("{key} is deleted {when}, and is to stay for {ttl} s");
            report.broken(Invariant::TtlIsKept, asked.at, what);
        }
    }

    pub fn job(&mut self, commit: &Commit<'_>, job: &Job, report: &mut Report) {
        if commit.new.is_some() && is_finished(job) {
            self.1.entry(job.uid().to_owned()).or_insert(commit.at);
        }
        let waiting = job.status.uncounted_terminated_pods.as_ref().and_then(|w| w.succeeded.as_ref());
        let waiting = i32::try_from(waiting.map_or(0, Vec::len)).unwrap_or(i32::MAX);
        let counted = job.status.succeeded.unwrap_or(0) + waiting;
        let all = self.0.get(job.uid()).map_or(0, |s| s.all);
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
