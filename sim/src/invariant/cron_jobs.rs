//! `cron-jobs-take-turns`: a CronJob with the policy `Forbid` creates no Job while another one of it is unfinished, one
//! with `Replace` only after it has deleted that one, and one that is suspended creates none.
//!
//! A controller knows its own writes, and a new leader waits for those of the one before. Only of a user's suspension
//! it may hear late.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::object::{CronJob, Job, Kind, Object, ObjectKey, controller_of};

use super::reading::is_finished;
use super::{Commit, Invariant, Report};

/// What is known of one CronJob.
#[derive(Debug, Default)]
struct Turns {
    /// Its Jobs that have not finished and are not being deleted.
    unfinished: BTreeSet<ObjectKey>,
    /// Since when it is suspended.
    suspended: Option<f64>,
}

/// CronJobs by UID.
#[derive(Debug, Default)]
pub(super) struct CronJobs(BTreeMap<String, Turns>);

fn is_unfinished(job: &Job) -> bool {
    !is_finished(job) && job.meta.deletion_timestamp.is_none()
}

impl CronJobs {
    pub fn cron_job(&mut self, at: f64, cron_job: &CronJob) {
        let turns = self.0.entry(cron_job.uid().to_owned()).or_default();
        match cron_job.spec.suspend {
            Some(true) => drop(turns.suspended.get_or_insert(at)),
            Some(false) | None => turns.suspended = None,
        }
    }

    /// Checks a Job that was written. A view may lag by `lag` seconds.
    pub fn job(&mut self, commit: &Commit<'_>, lag: f64, report: &mut Report) {
        let Some(Object::Job(job)) = commit.new.or(commit.old) else { return };
        let Some(owner) = controller_of(&job.meta).filter(|o| o.kind == "CronJob") else { return };
        let turns = self.0.entry(owner.uid.clone()).or_default();
        if commit.new.is_none() || !is_unfinished(job) {
            turns.unfinished.remove(&job.key());
            return;
        }
        let other = turns.unfinished.iter().find(|other| **other != job.key()).cloned();
        turns.unfinished.insert(job.key());
        if commit.old.is_some() {
            return;
        }
        let cron_job = commit.store.object(&ObjectKey::new(Kind::CRON_JOB, job.namespace(), &owner.name));
        let Some(Object::CronJob(cron_job)) = cron_job.filter(|c| c.uid() == owner.uid) else { return };
        let policy = cron_job.spec.concurrency_policy.as_deref().unwrap_or("Allow");
        if let Some(other) = other.filter(|_| policy != "Allow") {
            let what = format!("{} is created while {other} runs, and the policy is {policy}", job.key());
            report.broken(Invariant::CronJobsTakeTurns, commit.at, what);
        }
        if turns.suspended.is_some_and(|since| commit.at - since > lag) {
            let what = format!("{} is created, and {} is suspended", job.key(), cron_job.key());
            report.broken(Invariant::CronJobsTakeTurns, commit.at, what);
        }
    }
}
