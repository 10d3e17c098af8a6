//! The Job controller: pods that run to completion, each counted exactly once.
//!
//! What comes in: a Job and its pods. What goes out: pods to create and delete, finalizers to remove, and a status.
//!
//! Never counts a pod twice. Never creates more pods than the Job still needs.
//!
//! A pod has a finalizer until it is counted, which takes three steps. First the pod's UID is written to
//! `status.uncountedTerminatedPods`. Then the finalizer is removed. Once the view shows that, the count is increased
//! and the UID is removed, in one write. Since views always show at least what this leader and earlier ones have
//! written, each pod goes through these steps once.
//!
//! Source: upstream's `pkg/controller/job`; KEP-2307 (tracking), KEP-2214 (indexes), KEP-2232 (suspend), KEP-3939
//! (replacement), KEP-4368 (managedBy).

mod count;
mod finish;
mod indexes;
mod manage;
mod pods;
mod policy;

use std::collections::BTreeMap;

use k8s_openapi::api::{batch::v1 as batch_v1, core::v1 as core_v1};

use crate::api::Status;
use crate::client::{Change, EventType, Index, Views, Watched};
use crate::controllers::claim::{Candidate, claim, concerned};
use crate::controllers::{Controller, EventNote, Plan, Write, pod_control};
use crate::machine::{Mono, Now};
use crate::object::{Job, Kind, Object, ObjectKey, Pod, PodPhase, Selector, Templated, controller_of, is_pod_active};

pub(super) use finish::is_finished;
pub(super) use pods::INDEX;
use pods::{index_of, is_tracked, untrack};

/// The finalizer of a pod that is not counted yet.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The label of a Job's pods that contains the Job's name.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The value of `managedBy` for this controller, which also manages Jobs without `managedBy`.
const JOB_CONTROLLER: &str = "kubernetes.io/job-controller";

/// The controller.
#[derive(Debug, Default)]
pub struct JobController {
    /// The number of failures since the last success and the time of the last failure; the back-off before failed pods
    /// are replaced depends on them.
    failures: Failures,
}

/// The key is the Job, and the index if the Job has `backoffLimitPerIndex`.
type Failures = BTreeMap<(ObjectKey, Option<i32>), (u32, Mono)>;

const WATCHES: &[Watched] = &[
    Watched { kind: Kind::JOB, indexes: &[] },
    Watched { kind: Kind::POD, indexes: &[Index::Controller, Index::Label] },
];

impl Controller for JobController {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        if change.key.kind == Kind::JOB {
            keys.push(change.key.clone());
            return;
        }
        concerned(Kind::JOB, change, views, may_adopt, keys);
        // If a pod without a controller still has the finalizer, the Job that its label names removes it.
        for pod in change.old.iter().chain(change.new.iter()).filter(|o| controller_of(o.meta()).is_none()) {
            let name = pod.labels().and_then(|l| l.get(JOB_NAME));
            let key = name.map(|name| ObjectKey::new(Kind::JOB, pod.namespace(), name));
            keys.extend(key.filter(|key| !keys.contains(key)));
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let object = views.view(Kind::JOB).get(key);
        let mut plan = Plan::nothing();
        plan.writes = abandoned(views, key, object.map(Object::uid)).into_iter().map(untrack).collect();
        let Some(object) = object else {
            self.failures.retain(|(job, _), _| job != key);
            return plan;
        };
        let Some(job) = object.get::<batch_v1::Job>() else { return plan };
        let Some(selector) = selector_of(job) else { return plan };
        let managed = job.spec.managed_by.as_deref().is_none_or(|by| by == JOB_CONTROLLER);
        if !managed || is_finished(&job.status) || !plan.writes.is_empty() {
            return plan;
        }
        let owned = views.controlled_by::<core_v1::Pod>(object.uid());
        plan.writes = claim(
            object,
            &selector,
            owned.chain(views.orphans::<core_v1::Pod>(object.namespace())).map(Candidate::from),
        );
        if !plan.writes.is_empty() {
            return plan;
        }
        let mut pods: Vec<&Pod> = views.controlled_by::<core_v1::Pod>(object.uid()).collect();
        pods.sort_by_key(|p| p.name());
        let (spec, status) = (&*job.spec, (*job.status).clone());
        let mut sync = Sync { object, job, spec, status, pods, now, plan, failures: &mut self.failures };
        sync.run();
        sync.plan
    }

    fn succeeded(
        &mut self,
        views: &Views,
        key: &ObjectKey,
        write: &Write,
        object: Option<&Object>,
    ) -> Option<EventNote> {
        let about = views.view(Kind::JOB).get(key)?.clone();
        let (reason, message) = pod_control::succeeded(write, object)?;
        Some(EventNote { about, type_: EventType::Normal, reason, message })
    }

    fn failed(&mut self, views: &Views, key: &ObjectKey, write: &Write, error: &Status) -> Option<EventNote> {
        let about = views.view(Kind::JOB).get(key)?.clone();
        let (reason, message) = pod_control::failed(write, error)?;
        Some(EventNote { about, type_: EventType::Warning, reason, message })
    }
}

/// The selector of a Job's pods; `None` if it is missing or would match everything.
fn selector_of(job: &Job) -> Option<Selector> {
    Selector::from_label_selector(job.spec.selector.as_ref()?).ok().filter(|s| !s.is_everything())
}

fn may_adopt(job: &Object, pod: &Object) -> bool {
    job.get::<batch_v1::Job>().and_then(selector_of).is_some_and(|s| s.matches(pod.labels()))
}

/// Pods with the finalizer that will never be counted: their Job is gone, or no longer controls them.
fn abandoned<'a>(views: &'a Views, key: &ObjectKey, uid: Option<&str>) -> Vec<&'a Pod> {
    let labelled = views.view(Kind::POD).paired(Index::Label, key.namespace(), JOB_NAME, key.name());
    // The pods of a Job with a manual selector need not have the label.
    let all = uid.is_none().then(|| views.list::<core_v1::Pod>(key.namespace())).into_iter().flatten();
    let is_abandoned = |pod: &&Pod| match controller_of(&pod.meta) {
        Some(owner) => owner.kind == "Job" && owner.name == key.name() && Some(owner.uid.as_str()) != uid,
        // A pod that may be adopted again is left to its Job.
        None => {
            let named = pod.meta.labels.as_ref().and_then(|l| l.get(JOB_NAME)).is_some_and(|n| n == key.name());
            named && (uid.is_none() || pod.meta.deletion_timestamp.is_some())
        }
    };
    let pods = labelled.filter_map(Object::get::<core_v1::Pod>).chain(all);
    let mut found: Vec<&Pod> = pods.filter(|p| is_tracked(p)).filter(is_abandoned).collect();
    found.sort_by_key(|p| p.name());
    found.dedup_by_key(|p| p.name());
    found
}

/// One reconciliation of one Job.
struct Sync<'a> {
    /// The Job as the view shows it, as a generic object and as a typed one.
    object: &'a Object,
    job: &'a Job,
    spec: &'a Templated<batch_v1::JobSpec>,
    /// The new status.
    status: batch_v1::JobStatus,
    pods: Vec<&'a Pod>,
    now: Now,
    plan: Plan,
    failures: &'a mut Failures,
}

impl<'a> Sync<'a> {
    fn run(&mut self) {
        self.start();
        let mut tally = self.tally();
        let target = self.target(&tally);
        if let Some(target) = &target {
            self.set_condition(target);
        }
        self.collect(&mut tally, target.as_ref());
        if target.is_some() {
            self.delete_active();
        } else if !self.object.is_deleting() {
            self.manage(&tally);
        }
        self.count_active();
        self.finish();
        self.write_status();
    }

    /// The status is the first write of the plan: a pod must be recorded in it before its finalizer is removed.
    fn write_status(&mut self) {
        if let Some(write) = Write::status(self.job, self.status.clone()) {
            self.plan.writes.insert(0, write);
        }
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    /// Whether a pod is replaced only after it has failed, and not already while it is terminating.
    fn replaces_only_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    /// Whether a pod counts as failed (`isPodFailed`).
    fn is_failed(&self, pod: &Pod) -> bool {
        match pod.status.summary().phase {
            PodPhase::Failed => true,
            PodPhase::Succeeded => false,
            PodPhase::Pending | PodPhase::Running | PodPhase::Unknown | PodPhase::Other => {
                !self.replaces_only_failed() && pod.meta.deletion_timestamp.is_some()
            }
        }
    }

    /// Whether a pod's index is below `completions`; true for every pod of a Job that is not Indexed.
    fn is_valid(&self, pod: &Pod) -> bool {
        !self.is_indexed() || index_of(pod).is_some_and(|i| i < self.completions())
    }

    fn active(&self) -> Vec<&'a Pod> {
        self.pods.iter().copied().filter(|p| is_pod_active(p)).collect()
    }

    /// The number of pods that are being deleted and have not terminated yet.
    fn terminating(&self) -> i32 {
        let ended = |p: &&Pod| crate::object::is_pod_terminal(p);
        let all = self.pods.iter().filter(|p| p.meta.deletion_timestamp.is_some() && !ended(p));
        i32::try_from(all.count()).expect("a Job has fewer pods than that")
    }

    fn event(&mut self, type_: EventType, reason: &'static str, message: String) {
        self.plan.events.push(EventNote { about: self.object.clone(), type_, reason, message });
    }
}

#[cfg(test)]
mod tests;
