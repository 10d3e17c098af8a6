//! Binds the pods of a gang together: those that have to wait for claims are waited for, and if one of them does not
//! get there, none is bound (what upstream's `Permit` is for). It says in PodGroups' conditions what came of it.
//!
//! All binds of a gang are sent in one turn. What comes of each is its own: if a pod has been deleted meanwhile, or the
//! process or its connection ends between two of them, the others stay bound, and the rest of the gang is tried again
//! beside them, as in kube-scheduler.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::{Value, json};

use super::SchedulerProcess;
use super::binds::Bind;
use crate::api::ToServer;
use crate::limits;
use crate::machine::{Deadline, Mono, Now};
use crate::object::{Object, ObjectKey};
use crate::scheduler::pod_groups::{GangDecision, OTHERS, Place, Tried, group_of};

/// The type of a PodGroup's condition.
const SCHEDULED_TYPE: &str = "PodGroupScheduled";
/// Its reason when it is true.
pub(super) const SCHEDULED: &str = "Scheduled";

/// A gang some of whose pods wait for claims.
#[derive(Debug)]
struct Waiting {
    until: Mono,
    /// Those that are not bound yet.
    pods: BTreeSet<ObjectKey>,
}

/// The gangs that wait, by PodGroup.
#[derive(Debug, Default)]
pub(super) struct Gangs {
    waiting: BTreeMap<ObjectKey, Waiting>,
}

impl Gangs {
    /// Whether a pod may not be bound before others are ready.
    fn hold(&self, pod: &ObjectKey) -> bool {
        self.waiting.values().any(|gang| gang.pods.contains(pod))
    }

    /// A pod is bound.
    pub(super) fn bound(&mut self, pod: &ObjectKey) {
        for gang in self.waiting.values_mut() {
            gang.pods.remove(pod);
        }
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// When the next gang has waited long enough.
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.waiting.values().map(|gang| gang.until).min().map(|at| Deadline { at, why: "gang is not ready" })
    }
}

impl SchedulerProcess {
    /// Carries out what was decided about a gang.
    pub(super) fn carry_out_gang(&mut self, now: Now, decision: GangDecision, out: &mut Vec<ToServer>) {
        let GangDecision { group, tried, placed, message } = decision;
        let fits = || tried.iter().filter_map(|t| t.outcome.as_ref().ok().map(|place| (&t.pod, place)));
        if placed && fits().any(|(_, place)| !place.volumes.is_empty() || !place.claims.is_empty()) {
            let pods = fits().map(|(pod, _)| pod.clone()).collect();
            self.gangs.waiting.insert(group.clone(), Waiting { until: now.mono + limits::GANG_TIMEOUT, pods });
        }
        let reason = if placed { SCHEDULED } else { "Unschedulable" };
        self.report_group(now, &group, (reason, message), out);
        for Tried { pod, uid, outcome, cleared } in tried {
            if cleared {
                self.patch_nomination(now, &pod, &uid, None, out);
            }
            let why = match outcome {
                Ok(Place { node, volumes, claims, .. }) if placed => {
                    self.begin_bind(now, (pod, uid), node, (&volumes, claims), out);
                    continue;
                }
                Ok(_) => OTHERS.to_owned(),
                Err(why) => why,
            };
            self.record_failure(now, &pod, &why, out);
            self.report(now, (pod, uid), ("Unschedulable", why), out);
        }
    }

    /// Has a pod wait for others of its gang, if any of these is not ready. Returns whether it does.
    pub(super) fn waits_for_gang(&mut self, pod: &ObjectKey, uid: &Rc<str>, node: &Rc<str>) -> bool {
        let waits = self.gangs.hold(pod);
        if waits {
            self.binds.waits_for_gang(pod.clone(), Rc::clone(uid), Rc::clone(node));
        }
        waits
    }

    /// Binds the gangs all of whose pods are ready, and gives up those one of whose pods will not be. Only a leader
    /// may.
    pub(super) fn check_gangs(&mut self, now: Now, out: &mut Vec<ToServer>) {
        for group in self.gangs.waiting.keys().cloned().collect::<Vec<_>>() {
            let pods = &self.gangs.waiting[&group].pods;
            if pods.iter().any(|pod| self.binds.get(pod).is_none()) {
                self.give_up_gang(now, &group, OTHERS, out);
            } else if pods.iter().all(|pod| self.binds.get(pod).is_some_and(Bind::is_ready)) {
                let gang = self.gangs.waiting.remove(&group).expect("it was there above");
                for pod in gang.pods {
                    let bind = self.drop_bind(&pod).expect("it was ready above");
                    self.bind(now, pod, bind.uid, bind.node, out);
                }
            }
        }
    }

    /// Gives up the gangs that were not ready in time.
    pub(super) fn check_overdue_gangs(&mut self, now: Now, out: &mut Vec<ToServer>) {
        let due = self.gangs.waiting.iter().filter(|(_, gang)| gang.until <= now.mono);
        for group in due.map(|(group, _)| group.clone()).collect::<Vec<_>>() {
            let why = format!(
                "rejected due to timeout after waiting {}s at plugin GangScheduling",
                limits::GANG_TIMEOUT.as_secs()
            );
            self.give_up_gang(now, &group, &why, out);
        }
    }

    /// None of a gang's pods that wait is bound: they are scheduled again.
    fn give_up_gang(&mut self, now: Now, group: &ObjectKey, why: &str, out: &mut Vec<ToServer>) {
        let Some(gang) = self.gangs.waiting.remove(group) else { return };
        for key in gang.pods {
            if self.binds.get(&key).is_some() {
                self.record_failure(now, &key, why, out);
                self.settle(now, &key, false, out);
            }
        }
    }

    /// Says in the condition of the group that a pod names, if it names one, what came of the pod.
    pub(super) fn report_group_of(
        &mut self,
        now: Now,
        pod: &ObjectKey,
        (reason, message): (&'static str, &str),
        out: &mut Vec<ToServer>,
    ) {
        if let Some(Object::Pod(pod)) = self.pods.get(pod)
            && let Some(group) = group_of(pod)
        {
            self.report_group(now, &group, (reason, message.to_owned()), out);
        }
    }

    fn report_group(
        &mut self,
        now: Now,
        group: &ObjectKey,
        (reason, message): (&'static str, String),
        out: &mut Vec<ToServer>,
    ) {
        let is_under_way = self.reports.get(group).is_some_and(|r| r.reason == reason && *r.message == *message);
        if let Some(object) = self.surroundings.pod_group(group).filter(|_| !is_under_way) {
            let uid = Rc::from(object.uid());
            self.report(now, (group.clone(), uid), (reason, message), out);
        }
    }
}

/// The patch that sets a PodGroup's condition; `None` if it has that already, or has been scheduled once, which is not
/// taken back for more pods (`updatePodGroupCondition`).
pub(super) fn group_patch(now: Now, group: &Object, reason: &str, message: &str) -> Option<Value> {
    let Object::Dynamic(group) = group else { return None };
    let conditions = group.status.as_ref().and_then(|s| s.get("conditions")).and_then(Value::as_array);
    let old = conditions.into_iter().flatten().find(|c| c["type"] == SCHEDULED_TYPE);
    let status = if reason == SCHEDULED { "True" } else { "False" };
    let mut since = json!(now.wall.to_time());
    if let Some(old) = old {
        let same = old["status"] == status && old["reason"] == reason && old["message"] == message;
        if same || old["status"] == "True" && status == "False" {
            return None;
        }
        if old["status"] == status {
            since = old["lastTransitionTime"].clone();
        }
    }
    Some(json!({"status": {"conditions": [{"type": SCHEDULED_TYPE, "status": status, "reason": reason,
        "message": message, "lastTransitionTime": since}]}}))
}
