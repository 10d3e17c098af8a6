//! The CronJob controller: creates a Job at each scheduled time.
//!
//! What comes in: a CronJob and its Jobs. What goes out: Jobs to create and delete, and a status.
//!
//! Never creates two Jobs for one scheduled time (a Job's name contains the minute). Never creates a Job beside an
//! unfinished one if `concurrencyPolicy` is `Forbid`.
//!
//! A new Job is recorded in the status once the view shows it; until then the runner does not reconcile the key. So if
//! a controller dies between creating a Job and recording it, its successor records the Job.
//!
//! Source: upstream's `pkg/controller/cronjob` (`cronjob_controllerv2.go`, `utils.go`).

mod missed;

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use k8s_openapi::api::{batch::v1 as batch_v1, core::v1 as core_v1};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta as WholeMeta;

use super::claim::controller_ref;
use super::{Controller, EventNote, Plan, Write};
use crate::api::{Propagation, Status};
use crate::client::{Change, EventType, Index, Views, Watched};
use crate::cron::{self, Schedule};
use crate::machine::{Now, Wall};
use crate::object::{CronJob, Job, Kind, Obj, Object, ObjectKey, controller_of};
use missed::Missed;

/// The annotation of a Job that contains its scheduled time.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// How long after a scheduled time the Job is created, so that the clock is certainly past it (`nextScheduleDelta`).
const DELTA: Duration = Duration::from_millis(100);

/// The controller. It is stateless.
#[derive(Debug, Default)]
pub struct CronJobController;

const WATCHES: &[Watched] =
    &[Watched { kind: Kind::CRON_JOB, indexes: &[] }, Watched { kind: Kind::JOB, indexes: &[Index::Controller] }];

impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        if change.key.kind == Kind::CRON_JOB {
            keys.push(change.key.clone());
            return;
        }
        for object in change.old.iter().chain(change.new.iter()) {
            let owner = controller_of(object.meta()).filter(|owner| owner.kind == "CronJob");
            let key = owner.map(|owner| ObjectKey::new(Kind::CRON_JOB, object.namespace(), &owner.name));
            keys.extend(key.filter(|key| !keys.contains(key)));
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let Some(object) = views.view(Kind::CRON_JOB).get(key) else { return Plan::nothing() };
        let Some(cron_job) = object.get::<batch_v1::CronJob>() else { return Plan::nothing() };
        let mut jobs: Vec<&Job> = views.controlled_by::<batch_v1::Job>(object.uid()).collect();
        jobs.sort_by_key(|job| job.name());
        let status = (*cron_job.status).clone();
        let mut sync = Sync { object, cron_job, status, jobs, now, plan: Plan::nothing() };
        sync.run();
        sync.plan
    }

    /// A minute later its name is another one.
    fn must_settle(&self, _job: &Object) -> bool {
        true
    }

    fn succeeded(
        &mut self,
        views: &Views,
        key: &ObjectKey,
        write: &Write,
        object: Option<&Object>,
    ) -> Option<EventNote> {
        let about = views.view(Kind::CRON_JOB).get(key)?.clone();
        let (reason, message) = match write {
            Write::Create(_) => ("SuccessfulCreate", format!("Created job {}", object?.name())),
            Write::Delete { key, .. } => ("SuccessfulDelete", format!("Deleted job {}", key.name())),
            Write::Update(..)
            | Write::Patch { .. }
            | Write::SetScale { .. }
            | Write::DeleteCollection { .. }
            | Write::ExpectEmpty { .. }
            | Write::ExpectUnused { .. }
            | Write::ExpectMissing { .. } => return None,
        };
        Some(EventNote { about, type_: EventType::Normal, reason, message })
    }

    fn failed(&mut self, views: &Views, key: &ObjectKey, write: &Write, error: &Status) -> Option<EventNote> {
        let about = views.view(Kind::CRON_JOB).get(key)?.clone();
        let (reason, message) = match write {
            Write::Create(_) => ("FailedCreate", format!("Error creating job: {error}")),
            Write::Delete { .. } => ("FailedDelete", format!("Deleted job: {error}")),
            Write::Update(..)
            | Write::Patch { .. }
            | Write::SetScale { .. }
            | Write::DeleteCollection { .. }
            | Write::ExpectEmpty { .. }
            | Write::ExpectUnused { .. }
            | Write::ExpectMissing { .. } => return None,
        };
        Some(EventNote { about, type_: EventType::Warning, reason, message })
    }
}

/// How a Job has finished: `Complete` or `Failed`; `None` if it has not.
fn end_of(job: &Job) -> Option<&str> {
    let ends = |c: &&batch_v1::JobCondition| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True";
    job.status.conditions.iter().flatten().find(ends).map(|c| c.type_.as_str())
}

fn deletion(job: &Job) -> Write {
    Write::Delete {
        key: job.key(),
        uid: job.uid().into(),
        rv: None,
        grace_seconds: None,
        propagation: Some(Propagation::Background),
    }
}

/// The scheduled time of a Job, in Unix seconds; `None` if this controller did not create it.
fn scheduled(job: &Job, cron_job: &CronJob) -> Option<i64> {
    let at: Timestamp = job.meta.annotations.as_ref()?.get(SCHEDULED)?.parse().ok()?;
    (job.name() == job_name(cron_job, at.as_second())).then_some(at.as_second())
}

/// The name of the Job for a scheduled time. It contains the minute, so that no scheduled time has two Jobs.
fn job_name(cron_job: &CronJob, at: i64) -> String {
    format!("{}-{}", cron_job.name(), at / 60)
}

/// One reconciliation of one CronJob.
struct Sync<'a> {
    /// The CronJob as the view shows it, as a generic object and as a typed one.
    object: &'a Object,
    cron_job: &'a CronJob,
    /// The new status.
    status: batch_v1::CronJobStatus,
    jobs: Vec<&'a Job>,
    now: Now,
    plan: Plan,
}

impl Sync<'_> {
    fn run(&mut self) {
        self.forget_the_oldest();
        self.take_in();
        self.forget_the_missing();
        let job = self.due();
        // The status must be written before the Job is created, because it no longer lists the Jobs that are replaced.
        self.plan.writes.extend(Write::status(self.cron_job, self.status.clone()));
        self.plan.writes.extend(job.map(Write::Create));
    }

    fn event(&mut self, type_: EventType, reason: &'static str, message: String) {
        self.plan.events.push(EventNote { about: self.object.clone(), type_, reason, message });
    }

    fn is_active(&self, uid: &str) -> bool {
        self.status.active.iter().flatten().any(|r| r.uid.as_deref() == Some(uid))
    }

    fn deactivate(&mut self, uid: &str) {
        let Some(active) = &mut self.status.active else { return };
        active.retain(|r| r.uid.as_deref() != Some(uid));
        if active.is_empty() {
            self.status.active = None;
        }
    }

    /// Deletes the oldest finished Jobs beyond the history limits.
    fn forget_the_oldest(&mut self) {
        let limits = [
            ("Failed", self.cron_job.spec.failed_jobs_history_limit),
            ("Complete", self.cron_job.spec.successful_jobs_history_limit),
        ];
        let mut gone: Vec<String> = Vec::new();
        for (end, limit) in limits {
            let Some(limit) = limit else { continue };
            let is_kept = |job: &&&Job| end_of(job) == Some(end) && job.meta.deletion_timestamp.is_none();
            let mut ended: Vec<&Job> = self.jobs.iter().filter(is_kept).copied().collect();
            let start = |job: &Job| job.status.start_time.as_ref().map(|t| t.0);
            // Jobs that have not started are sorted last.
            ended.sort_by_key(|job| (start(job).is_none(), start(job), job.name().to_owned()));
            let many = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            self.plan.writes.extend(ended[..many].iter().map(|job| deletion(job)));
            gone.extend(ended[..many].iter().map(|job| job.uid().to_owned()));
        }
        gone.iter().for_each(|uid| self.deactivate(uid));
    }

    /// Updates the status from the state of each Job.
    fn take_in(&mut self) {
        for job in self.jobs.clone() {
            let last = self.status.last_schedule_time.as_ref().map(|t| t.0.as_second());
            let is_new = scheduled(job, self.cron_job).filter(|at| last.is_none_or(|last| last < *at));
            match (self.is_active(job.uid()), end_of(job), is_new) {
                (false, _, Some(at)) => self.note(job, at),
                (false, None, None) => {
                    let message = format!("Saw a job that the controller did not create or forgot: {}", job.name());
                    self.event(EventType::Warning, "UnexpectedJob", message);
                }
                (true, Some(end), _) => {
                    self.deactivate(job.uid());
                    let message = format!("Saw completed job: {}, condition: {end}", job.name());
                    self.event(EventType::Normal, "SawCompletedJob", message);
                    self.succeeded_at(job);
                }
                (false, Some(_), None) => self.succeeded_at(job),
                (true, None, _) => {}
            }
        }
    }

    /// Adds a Job to the status that this controller, or a previous leader, has created.
    fn note(&mut self, job: &Job, at: i64) {
        let reference = core_v1::ObjectReference {
            api_version: Some("batch/v1".to_owned()),
            kind: Some("Job".to_owned()),
            namespace: job.meta.namespace.clone(),
            name: Some(job.name().to_owned()),
            uid: Some(job.uid().to_owned()),
            resource_version: Some(job.rv.to_string()),
            field_path: None,
        };
        self.status.active.get_or_insert_default().push(reference);
        self.status.last_schedule_time = Some(Wall(at * 1_000_000).to_time());
    }

    fn succeeded_at(&mut self, job: &Job) {
        if end_of(job) != Some("Complete") {
            return;
        }
        let (completed, last) = (&job.status.completion_time, &self.status.last_successful_time);
        if completed.as_ref().map(|t| t.0) > last.as_ref().map(|t| t.0) {
            self.status.last_successful_time.clone_from(completed);
        }
    }

    fn forget_the_missing(&mut self) {
        let is_there = |uid: Option<&str>| self.jobs.iter().any(|job| Some(job.uid()) == uid);
        let missing = self.status.active.iter().flatten().filter(|r| !is_there(r.uid.as_deref()));
        let missing: Vec<core_v1::ObjectReference> = missing.cloned().collect();
        for reference in missing {
            self.event(
                EventType::Normal,
                "MissingJob",
                format!("Active job went missing: {}", reference.name.unwrap_or_default()),
            );
            self.deactivate(reference.uid.as_deref().unwrap_or(""));
        }
    }

    /// The Job that is due, if any. Also requeues the key for the next scheduled time.
    fn due(&mut self) -> Option<Object> {
        if self.object.is_deleting() {
            return None;
        }
        let zone = self.cron_job.spec.time_zone.clone().unwrap_or_default();
        let Some(clock) = cron::time_zone(&zone) else {
            self.event(
                EventType::Warning,
                "UnknownTimeZone",
                format!("invalid timeZone: {zone:?}: unknown time zone {zone}"),
            );
            return None;
        };
        if self.cron_job.spec.suspend == Some(true) {
            return None;
        }
        let text = self.cron_job.spec.schedule.clone();
        let schedule = match Schedule::parse(&text) {
            Ok(schedule) => schedule,
            Err(why) => {
                self.event(
                    EventType::Warning,
                    "UnparseableSchedule",
                    format!("unparseable schedule: {text:?} : {why}"),
                );
                return None;
            }
        };
        let missed = Missed { schedule: &schedule, zone: &clock, now: self.now.wall, earliest: self.earliest() };
        let deadline = self.cron_job.spec.starting_deadline_seconds;
        let (due, many) = match missed.due(deadline) {
            Ok(due) => due,
            Err(why) => {
                self.event(EventType::Warning, "InvalidSchedule", format!("invalid schedule: {text} : {why}"));
                return None;
            }
        };
        if let Some(at) = missed.next() {
            self.plan.requeue(Wall(at * 1_000_000).since(self.now.wall) + DELTA);
        }
        let at = due?;
        if many {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.event(EventType::Warning, "TooManyMissedTimes", message.to_owned());
        }
        if deadline.is_some_and(|s| Wall(at.saturating_add(s).saturating_mul(1_000_000)) < self.now.wall) {
            let message = format!("Missed scheduled time to start a job: {}", in_words(at));
            self.event(EventType::Warning, "MissSchedule", message);
            return None;
        }
        self.start(at, &clock)
    }

    /// The time after which scheduled times count, in Unix seconds.
    fn earliest(&self) -> i64 {
        let last = self.status.last_schedule_time.as_ref().or(self.cron_job.meta.creation_timestamp.as_ref());
        last.map_or(0, |t| t.0.as_second())
    }

    /// The Job for a scheduled time; `None` if it exists already or the concurrency policy forbids it.
    fn start(&mut self, at: i64, zone: &TimeZone) -> Option<Object> {
        let name = job_name(self.cron_job, at);
        let is_noted = self.status.active.iter().flatten().any(|r| r.name.as_deref() == Some(&name));
        if is_noted || self.status.last_schedule_time.as_ref().is_some_and(|t| t.0.as_second() == at) {
            return None;
        }
        let active = self.status.active.clone().unwrap_or_default();
        match self.cron_job.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid".to_owned();
                self.event(EventType::Normal, "JobAlreadyActive", message);
                return None;
            }
            Some("Replace") => {
                let is_active = |job: &&&Job| active.iter().any(|r| r.uid.as_deref() == Some(job.uid()));
                self.plan.writes.extend(self.jobs.iter().filter(is_active).map(|job| deletion(job)));
                self.status.active = None;
            }
            _ => {}
        }
        Some(self.job(&name, at, zone))
    }

    fn job(&self, name: &str, at: i64, zone: &TimeZone) -> Object {
        let template = self.cron_job.spec.job_template.clone();
        let of_template = template.metadata.unwrap_or_default();
        let mut annotations = of_template.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED.to_owned(), timestamp(at, zone));
        let job = batch_v1::Job {
            metadata: WholeMeta {
                name: Some(name.to_owned()),
                namespace: self.object.meta().namespace.clone(),
                labels: of_template.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![controller_ref(self.object)]),
                ..WholeMeta::default()
            },
            spec: Some(template.spec.unwrap_or_default()),
            status: None,
        };
        Object::from(Obj::from_whole(job).expect("a Job of a template that was read reads"))
    }
}

/// RFC 3339, in the time zone of the schedule.
fn timestamp(at: i64, zone: &TimeZone) -> String {
    let at = Timestamp::from_second(at).expect("a schedule keeps to the years that there are");
    let offset = zone.to_offset(at);
    if offset == Offset::UTC { at.to_string() } else { at.display_with_offset(offset).to_string() }
}

/// RFC 1123 as Go formats it: `Mon, 02 Jan 2006 15:04:05 +0000`.
fn in_words(at: i64) -> String {
    let at = Timestamp::from_second(at).expect("a schedule keeps to the years that there are");
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests;
