//! Conditions of unschedulable pods that are not known to be written.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::{Value, json};

use super::retry_after;
use crate::machine::{Deadline, Mono, Now};
use crate::object::{ObjectKey, Pod, PodCondition, Text};

/// That a pod is unschedulable.
#[derive(Debug)]
pub(super) struct Report {
    /// The pod's UID.
    pub(super) uid: Rc<str>,
    /// `Unschedulable`, or `SchedulerError` if it could not be tried.
    pub(super) reason: &'static str,
    /// Why, in kube-scheduler's words.
    pub(super) message: Rc<str>,
    failures: u32,
    /// When it is retried, if its last write failed.
    due: Option<Mono>,
}

/// All such reports, by pod.
#[derive(Debug, Default)]
pub(super) struct Reports {
    reports: BTreeMap<ObjectKey, Report>,
    /// Those that wait to be retried, by when.
    due: BTreeSet<(Mono, ObjectKey)>,
}

impl Reports {
    /// The report about a pod.
    pub(super) fn get(&self, pod: &ObjectKey) -> Option<&Report> {
        self.reports.get(pod)
    }

    /// Replaces what is reported about a pod.
    pub(super) fn insert(&mut self, pod: ObjectKey, uid: Rc<str>, reason: &'static str, message: Rc<str>) {
        self.remove(&pod);
        self.reports.insert(pod, Report { uid, reason, message, failures: 0, due: None });
    }

    /// Retries a write that failed, after a back-off.
    pub(super) fn retry(&mut self, now: Now, pod: &ObjectKey) {
        let Some(report) = self.reports.get_mut(pod).filter(|r| r.due.is_none()) else { return };
        let at = now.mono + retry_after(report.failures);
        report.failures = report.failures.saturating_add(1);
        report.due = Some(at);
        self.due.insert((at, pod.clone()));
    }

    /// A pod whose report must be written again now.
    pub(super) fn pop_due(&mut self, now: Now) -> Option<ObjectKey> {
        self.due.first().filter(|(at, _)| *at <= now.mono)?;
        let (_, pod) = self.due.pop_first()?;
        self.reports.get_mut(&pod).expect("a report is due only while it is kept").due = None;
        Some(pod)
    }

    /// Forgets a report.
    pub(super) fn remove(&mut self, pod: &ObjectKey) {
        if let Some(at) = self.reports.remove(pod).and_then(|r| r.due) {
            self.due.remove(&(at, pod.clone()));
        }
    }

    /// When the next report must be written again.
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.due.first().map(|(at, _)| Deadline { at: *at, why: "write condition again" })
    }
}

/// The patch that sets a pod's condition `PodScheduled`; `None` if the pod has that condition already.
pub(super) fn condition_patch(now: Now, pod: &Pod, reason: &str, message: &str) -> Option<Value> {
    let old = pod.status.condition(&Text::POD_SCHEDULED);
    let same = |c: &PodCondition| c.status == Text::FALSE && c.reason == *reason && c.message == *message;
    if old.is_some_and(same) {
        return None;
    }
    let since = old.filter(|c| c.status == Text::FALSE).and_then(|c| c.last_transition_time.to_time());
    Some(json!({"status": {"conditions": [{
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": since.unwrap_or_else(|| now.wall.to_time()),
    }]}}))
}
