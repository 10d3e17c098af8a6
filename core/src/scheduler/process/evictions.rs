//! Evicts the victims of a preemption: writes the reason into each one's conditions, then deletes it.

use std::rc::Rc;

use serde_json::json;

use super::SchedulerProcess;
use super::requests::Sent;
use crate::api::{
    Call, DeleteOptions, Patch, Precondition, Reason, Response, Status, Subresource, ToServer, WriteOptions,
};
use crate::client::EventType;
use crate::machine::Now;
use crate::object::{Object, ObjectKey, Text};
use crate::scheduler::preemption::Preemption;
use crate::scheduler::{DEFAULT_SCHEDULER, scheduler_of};

/// A pod to evict.
#[derive(Clone, Debug)]
pub(super) struct Victim {
    key: ObjectKey,
    uid: Rc<str>,
    /// The UID of the pod that it is evicted for.
    preemptor: Rc<str>,
    /// The scheduler of that pod.
    scheduler: Rc<str>,
    node: Rc<str>,
}

impl SchedulerProcess {
    /// Carries out a preemption.
    pub(super) fn preempt(
        &mut self,
        now: Now,
        (pod, preemptor): (&ObjectKey, &Rc<str>),
        what: &Preemption,
        out: &mut Vec<ToServer>,
    ) {
        let scheduler: Rc<str> = match self.pods.get(pod) {
            Some(Object::Pod(pod)) => Rc::from(scheduler_of(pod)),
            _ => Rc::from(DEFAULT_SCHEDULER),
        };
        for (key, uid) in &what.victims {
            let victim = Victim {
                key: key.clone(),
                uid: Rc::clone(uid),
                preemptor: Rc::clone(preemptor),
                scheduler: Rc::clone(&scheduler),
                node: Rc::clone(&what.node),
            };
            self.mark(now, victim, out);
        }
        for (key, uid) in &what.displaced {
            self.patch_nomination(now, key, uid, None, out);
        }
    }

    /// Writes into a victim's conditions that it is to be evicted.
    fn mark(&mut self, now: Now, victim: Victim, out: &mut Vec<ToServer>) {
        let Some(Object::Pod(pod)) = self.pods.get(&victim.key) else { return };
        if pod.meta.deletion_timestamp.is_some() {
            return;
        }
        let old = pod.status.condition(&Text::DISRUPTION_TARGET).filter(|c| c.status == Text::TRUE);
        let since = old.and_then(|c| c.last_transition_time.to_time()).unwrap_or_else(|| now.wall.to_time());
        let message = format!("{}: preempting to accommodate a higher priority pod", victim.scheduler);
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": since,
        });
        let call = Call::Patch {
            key: victim.key.clone(),
            patch: Patch::Strategic(json!({"status": {"conditions": [condition]}})),
            subresource: Subresource::Status,
            precondition: Precondition { uid: Some(Rc::clone(&victim.uid)), rv: None },
            options: WriteOptions::default(),
        };
        self.send(now, Sent::Mark(victim), call, out);
    }

    /// Handles the reply to the write of a victim's condition.
    pub(super) fn handle_marked(
        &mut self,
        now: Now,
        victim: Victim,
        result: &Result<Response, Status>,
        out: &mut Vec<ToServer>,
    ) {
        match result {
            Ok(_) => {
                let options = DeleteOptions {
                    precondition: Precondition { uid: Some(Rc::clone(&victim.uid)), rv: None },
                    ..DeleteOptions::default()
                };
                let call = Call::Delete { key: victim.key.clone(), options };
                self.send(now, Sent::Evict(victim), call, out);
            }
            Err(status) => self.handle_refused(now, &victim, status),
        }
    }

    /// Handles the reply to the deletion of a victim.
    pub(super) fn handle_evicted(
        &mut self,
        now: Now,
        victim: &Victim,
        result: &Result<Response, Status>,
        out: &mut Vec<ToServer>,
    ) {
        match result {
            Ok(_) => {
                if let Some(pod) = self.pods.get(&victim.key) {
                    let message = format!("Preempted by pod {} on node {}", victim.preemptor, victim.node);
                    let about = (pod, EventType::Normal, "Preempted");
                    self.recorder.record_as(&victim.scheduler, now, about, &message, out);
                }
            }
            Err(status) => self.handle_refused(now, victim, status),
        }
    }

    /// Handles a failed write. If the victim is gone, or another pod by now, nothing is left to do. Otherwise the pods
    /// that wait for the eviction are retried.
    fn handle_refused(&mut self, now: Now, victim: &Victim, status: &Status) {
        if status.reason != Reason::NotFound {
            self.core.spared(now, &victim.key, &victim.uid);
        }
    }

    /// Writes a pod's nominated node.
    pub(super) fn patch_nomination(
        &mut self,
        now: Now,
        key: &ObjectKey,
        uid: &Rc<str>,
        node: Option<&str>,
        out: &mut Vec<ToServer>,
    ) {
        let Some(Object::Pod(pod)) = self.pods.get(key) else { return };
        if pod.status.nominated_node_name.get() == node {
            return;
        }
        let call = Call::Patch {
            key: key.clone(),
            patch: Patch::Strategic(json!({"status": {"nominatedNodeName": node}})),
            subresource: Subresource::Status,
            precondition: Precondition { uid: Some(Rc::clone(uid)), rv: None },
            options: WriteOptions::default(),
        };
        self.send(now, Sent::Nomination, call, out);
    }
}
