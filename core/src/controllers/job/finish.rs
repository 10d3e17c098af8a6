//! The start, suspension and end of a Job, and the conditions that report them.

use std::time::Duration;

use k8s_openapi::api::batch::v1 as batch_v1;

use super::Sync;
use super::count::Tally;
use super::policy::{Verdict, satisfied};
use crate::client::EventType;
use crate::machine::Wall;
use crate::object::{Pod, PodPhase};

const FAILURE_TARGET: &str = "FailureTarget";
const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";

/// Why a Job is to end. The `Complete` or `Failed` condition follows only after its last pods have terminated.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    condition: &'static str,
    reason: String,
    message: String,
}

impl Target {
    fn failure(reason: &str, message: impl Into<String>) -> Target {
        Target { condition: FAILURE_TARGET, reason: reason.to_owned(), message: message.into() }
    }

    fn success(reason: &str, message: impl Into<String>) -> Target {
        Target { condition: SUCCESS_CRITERIA_MET, reason: reason.to_owned(), message: message.into() }
    }

    pub(super) fn is_failure(&self) -> bool {
        self.condition == FAILURE_TARGET
    }
}

fn condition<'a>(status: &'a batch_v1::JobStatus, type_: &str) -> Option<&'a batch_v1::JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == "True")
}

/// Whether a Job is `Complete` or `Failed`.
pub(in crate::controllers) fn is_finished(status: &batch_v1::JobStatus) -> bool {
    condition(status, "Complete").or_else(|| condition(status, "Failed")).is_some()
}

impl Sync<'_> {
    /// Sets the start time, and the `Suspended` condition if the Job is suspended or resumed.
    pub(super) fn start(&mut self) {
        self.status.uncounted_terminated_pods.get_or_insert_default();
        let suspended = condition(&self.job.status, "Suspended").is_some();
        if self.is_suspended() {
            if !suspended {
                self.put_condition("Suspended", "True", "JobSuspended", "Job suspended");
                self.event(EventType::Normal, "Suspended", "Job suspended".to_owned());
            }
            self.status.start_time = None;
            return;
        }
        if suspended {
            self.put_condition("Suspended", "False", "JobResumed", "Job resumed");
            self.event(EventType::Normal, "Resumed", "Job resumed".to_owned());
        }
        if self.status.start_time.is_none() {
            self.status.start_time = Some(self.now.wall.to_time());
        }
    }

    /// Why the Job is to end; `None` if it is not.
    pub(super) fn target(&mut self, tally: &Tally<'_>) -> Option<Target> {
        for type_ in [FAILURE_TARGET, SUCCESS_CRITERIA_MET] {
            if let Some(c) = condition(&self.job.status, type_) {
                let (reason, message) = (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default());
                return Some(Target { condition: type_, reason, message });
            }
        }
        self.failure(tally).or_else(|| self.success(tally))
    }

    fn failure(&mut self, tally: &Tally<'_>) -> Option<Target> {
        let fatal = tally.new_failed.iter().find_map(|p| match self.judge(p) {
            Verdict::FailJob(message) => Some(message),
            Verdict::Count | Verdict::Ignore | Verdict::FailIndex => None,
        });
        if let Some(message) = fatal {
            return Some(Target::failure("PodFailurePolicy", message));
        }
        if tally.failed > self.spec.backoff_limit.unwrap_or(6) || self.restarts_exceed_limit() {
            return Some(Target::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        if self.is_past_deadline() {
            return Some(Target::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        if self.has_limit_per_index() {
            let failed = tally.failed_indexes.total();
            if self.spec.max_failed_indexes.is_some_and(|most| failed > most) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return Some(Target::failure("MaxFailedIndexesExceeded", message));
            }
            if failed > 0 && failed + tally.succeeded >= self.completions() {
                return Some(Target::failure("FailedIndexes", "Job has failed indexes"));
            }
        }
        None
    }

    fn success(&self, tally: &Tally<'_>) -> Option<Target> {
        if let Some(policy) = self.spec.success_policy.as_ref().filter(|_| self.is_indexed())
            && let Some(rule) = satisfied(policy, &tally.succeeded_indexes, self.completions())
        {
            return Some(Target::success("SuccessPolicy", format!("Matched rules at index {rule}")));
        }
        let enough = match self.spec.completions {
            Some(completions) => tally.succeeded >= completions,
            None => tally.succeeded > 0,
        };
        let complete = enough && self.active().is_empty() && !self.is_suspended();
        complete.then(|| Target::success("CompletionsReached", "Reached expected number of succeeded pods"))
    }

    /// Whether the containers' restarts in place have reached the back-off limit (`pastBackoffLimitOnFailure`).
    fn restarts_exceed_limit(&self) -> bool {
        if self.spec.pod.restart_policy.as_deref() != Some("OnFailure") {
            return false;
        }
        let alive = |p: &&&Pod| matches!(p.status.summary().phase, PodPhase::Running | PodPhase::Pending);
        let restarts = |p: &&Pod| -> i32 {
            let statuses = p.status.init_container_statuses.iter().chain(&p.status.container_statuses);
            statuses.map(|s| s.restart_count).sum()
        };
        let sum: i32 = self.pods.iter().filter(alive).map(restarts).sum();
        match self.spec.backoff_limit.unwrap_or(6) {
            0 => sum > 0,
            limit => sum >= limit,
        }
    }

    /// Whether `activeDeadlineSeconds` have passed. If not, requeues the key for that time.
    fn is_past_deadline(&mut self) -> bool {
        let (Some(seconds), Some(start), false) =
            (self.spec.active_deadline_seconds, &self.status.start_time, self.is_suspended())
        else {
            return false;
        };
        let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let left = limit.saturating_sub(self.now.wall.since(Wall::from_time(start)));
        if !left.is_zero() {
            self.plan.requeue(left);
        }
        left.is_zero()
    }

    pub(super) fn set_condition(&mut self, target: &Target) {
        if condition(&self.job.status, target.condition).is_none() {
            self.put_condition(target.condition, "True", &target.reason, &target.message);
        }
    }

    /// Sets the `Complete` or `Failed` condition once all pods have terminated and are counted.
    pub(super) fn finish(&mut self) {
        let target =
            [FAILURE_TARGET, SUCCESS_CRITERIA_MET].into_iter().find_map(|t| condition(&self.status, t).cloned());
        let Some(target) = target else { return };
        if !self.active().is_empty() || self.terminating() > 0 || !self.is_all_counted() {
            return;
        }
        let (reason, message) = (target.reason.unwrap_or_default(), target.message.unwrap_or_default());
        if target.type_ == FAILURE_TARGET {
            self.put_condition("Failed", "True", &reason, &message);
            let known: &'static str = known_reason(&reason);
            self.event(EventType::Warning, known, message);
        } else {
            self.put_condition("Complete", "True", &reason, &message);
            self.status.completion_time = Some(self.now.wall.to_time());
            self.event(EventType::Normal, "Completed", "Job completed".to_owned());
        }
    }

    fn put_condition(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let now = self.now.wall.to_time();
        let new = batch_v1::JobCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(now.clone()),
            last_transition_time: Some(now),
        };
        let all = self.status.conditions.get_or_insert_default();
        match all.iter_mut().find(|c| c.type_ == type_) {
            Some(known) => *known = new,
            None => all.push(new),
        }
    }
}

/// The reason as a static string, as Events need it.
fn known_reason(reason: &str) -> &'static str {
    const KNOWN: [&str; 5] =
        ["PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded", "MaxFailedIndexesExceeded", "FailedIndexes"];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("JobFailed")
}
