//! Writes of the claims for devices of a pod that the pod may use them, and what they get, before the pod is bound
//! (DynamicResources' `PreBind`).
//!
//! What is written next follows from the claim as the view shows it, and carries its revision. A write whose outcome is
//! unknown is sent again, until the view shows what came of it; meanwhile the devices stay chosen.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Value, json};

use super::SchedulerProcess;
use super::requests::Sent;
use super::retry_after;
use crate::api::{Call, Patch, Precondition, Reason, Response, Status, Subresource, ToServer, WriteOptions};
use crate::client::EventType;
use crate::machine::{Deadline, Mono, Now};
use crate::object::{Object, ObjectKey, Revision};
use crate::resource_claim::{self, FINALIZER};
use crate::scheduler::dynamic_resources::ClaimStep;
use crate::volume;

/// A claim of a pod that waits to be bound.
#[derive(Debug)]
pub(super) struct Writing {
    step: ClaimStep,
    /// The revision of the claim that the write in flight is based on.
    in_flight: Option<Revision>,
    /// Nothing is written before the view shows the claim at this revision.
    from: Revision,
    /// When the last write is sent again, if its outcome is unknown.
    retry: Option<Mono>,
    failures: u32,
}

/// The claims of pods that wait to be bound, by pod.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pods: BTreeMap<ObjectKey, Vec<Writing>>,
    /// Whether something may have to be done about them.
    pub(super) changed: bool,
}

impl Claims {
    /// The claims of a pod are to be written, once the pod waits for nothing else.
    pub(super) fn add(&mut self, pod: ObjectKey, steps: Vec<ClaimStep>) {
        let writing = |step| Writing { step, in_flight: None, from: Revision(0), retry: None, failures: 0 };
        self.pods.insert(pod, steps.into_iter().map(writing).collect());
        self.changed = true;
    }

    /// Whether claims of a pod are to be written.
    pub(super) fn has(&self, pod: &ObjectKey) -> bool {
        self.pods.contains_key(pod)
    }

    pub(super) fn remove(&mut self, pod: &ObjectKey) {
        self.pods.remove(pod);
    }

    /// Takes the claims of a pod out while its bind is made anew.
    pub(super) fn take(&mut self, pod: &ObjectKey) -> Option<Vec<Writing>> {
        self.pods.remove(pod)
    }

    pub(super) fn put_back(&mut self, pod: &ObjectKey, claims: Option<Vec<Writing>>) {
        if let Some(claims) = claims {
            self.pods.insert(pod.clone(), claims);
        }
    }

    fn writing(&mut self, pod: &ObjectKey, claim: &ObjectKey) -> Option<&mut Writing> {
        self.pods.get_mut(pod)?.iter_mut().find(|writing| writing.step.claim == *claim)
    }

    /// When a write must be sent again.
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let retries = self.pods.values().flatten().filter_map(|writing| writing.retry);
        retries.min().map(|at| Deadline { at, why: "write claim again" })
    }

    /// Notes that the writes whose time has come are to be sent again.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        for writing in self.pods.values_mut().flatten() {
            if writing.retry.is_some_and(|at| at <= now.mono) {
                writing.retry = None;
                self.changed = true;
            }
        }
    }
}

/// What is to be done about a claim.
enum Next {
    /// The pod may use it.
    Done,
    Wait,
    Write(Value, Subresource),
    /// It will not come to that.
    Fail(String),
}

impl Writing {
    fn next(&self, claim: Option<&Object>, pod: &ObjectKey, uid: &str) -> Next {
        let path = self.step.claim.path();
        let Some(claim) = claim.filter(|claim| claim.uid() == &*self.step.uid && !claim.is_deleting()) else {
            return Next::Fail(format!("claim {path} got deleted in the meantime"));
        };
        let allocation = resource_claim::allocation(claim);
        let is_ours =
            allocation.is_some() && self.step.allocation.as_deref().is_none_or(|ours| Some(ours) == allocation);
        if is_ours && resource_claim::is_reserved_for(claim, uid) {
            return Next::Done;
        }
        if self.in_flight.is_some() || self.retry.is_some() || claim.rv() < self.from {
            return Next::Wait;
        }
        let mut consumers = volume::value(claim, "/status/reservedFor").and_then(Value::as_array).cloned();
        consumers.get_or_insert_default().push(json!({"resource": "pods", "name": pod.name(), "uid": uid}));
        match (&self.step.allocation, allocation) {
            (Some(_), Some(_)) => Next::Fail(format!("claim {path} got allocated elsewhere in the meantime")),
            (None, None) => Next::Fail(format!("claim {path} got deallocated in the meantime")),
            (None, Some(_)) => Next::Write(json!({"status": {"reservedFor": consumers}}), Subresource::Status),
            (Some(ours), None) => {
                let mut finalizers = claim.meta().finalizers.clone().unwrap_or_default();
                if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
                    let status = json!({"allocation": **ours, "reservedFor": consumers});
                    return Next::Write(json!({"status": status}), Subresource::Status);
                }
                finalizers.push(FINALIZER.to_owned());
                Next::Write(json!({"metadata": {"finalizers": finalizers}}), Subresource::None)
            }
        }
    }
}

impl SchedulerProcess {
    /// Goes on with the claims of all pods that wait for nothing else. Only a leader may.
    pub(super) fn check_claims(&mut self, now: Now, out: &mut Vec<ToServer>) {
        self.claims.changed = false;
        let waits = |pod: &&ObjectKey| self.binds.get(pod).is_some_and(|bind| bind.waits_for_claims());
        let pods: Vec<ObjectKey> = self.claims.pods.keys().filter(waits).cloned().collect();
        pods.into_iter().for_each(|pod| self.check_claims_of(now, pod, out));
    }

    pub(super) fn check_claims_of(&mut self, now: Now, pod: ObjectKey, out: &mut Vec<ToServer>) {
        let Some(bind) = self.binds.get(&pod) else { return };
        let (uid, node) = (Rc::clone(&bind.uid), Rc::clone(&bind.node));
        if !self.core.has_node(&node) {
            return self.give_up_claims(now, &pod, &format!("node {node:?} not found"), out);
        }
        let mut writes = Vec::new();
        let mut done = true;
        for writing in self.claims.pods.get(&pod).into_iter().flatten() {
            let claim = self.core.device_claim(&writing.step.claim);
            match writing.next(claim, &pod, &uid) {
                Next::Done => {}
                Next::Wait => done = false,
                Next::Write(patch, subresource) => {
                    done = false;
                    writes.push((writing.step.claim.clone(), claim.map(Object::rv), patch, subresource));
                }
                Next::Fail(why) => return self.give_up_claims(now, &pod, &why, out),
            }
        }
        for (claim, rv, patch, subresource) in writes {
            self.write_claim(now, &pod, claim, (rv, patch, subresource), out);
        }
        if done {
            self.drop_bind(&pod);
            self.bind(now, pod, uid, node, out);
        }
    }

    fn write_claim(
        &mut self,
        now: Now,
        pod: &ObjectKey,
        claim: ObjectKey,
        (rv, patch, subresource): (Option<Revision>, Value, Subresource),
        out: &mut Vec<ToServer>,
    ) {
        if subresource == Subresource::Status {
            self.core.claim_sent(pod, &claim, rv);
        }
        let Some(writing) = self.claims.writing(pod, &claim) else { return };
        writing.in_flight = rv;
        let call = Call::Patch {
            key: claim.clone(),
            patch: Patch::Merge(patch),
            subresource,
            precondition: Precondition { uid: Some(Rc::clone(&writing.step.uid)), rv },
            options: WriteOptions::default(),
        };
        self.send(now, Sent::Claim(pod.clone(), claim), call, out);
    }

    /// A write of a claim was answered, or its outcome is unknown.
    pub(super) fn handle_claim(
        &mut self,
        now: Now,
        (pod, claim): (&ObjectKey, &ObjectKey),
        result: &Result<Response, Status>,
        out: &mut Vec<ToServer>,
    ) {
        self.claims.changed = true;
        let Some(writing) = self.claims.writing(pod, claim) else { return };
        let Some(rv) = writing.in_flight.take() else { return };
        match result {
            Ok(Response::Object(object)) => writing.from = object.rv(),
            // The view will show what it has become.
            Ok(_) => writing.from = Revision(rv.0 + 1),
            Err(status) if status.reason == Reason::Conflict => writing.from = Revision(rv.0 + 1),
            Err(status) if status.is_unknown_outcome() => {
                writing.retry = Some(now.mono + retry_after(writing.failures));
                writing.failures = writing.failures.saturating_add(1);
            }
            Err(status) => {
                if writing.failures == 0 {
                    self.core.claim_sent(pod, claim, None);
                }
                let why = status.to_string();
                self.give_up_claims(now, pod, &why, out);
            }
        }
    }

    /// A pod may not use its claims: it is scheduled again.
    fn give_up_claims(&mut self, now: Now, key: &ObjectKey, why: &str, out: &mut Vec<ToServer>) {
        if let Some(pod) = self.pods.get(key).filter(|pod| matches!(pod, Object::Pod(_))) {
            let message = format!("running PreBind plugin \"DynamicResources\": {why}");
            self.recorder.record(now, pod, EventType::Warning, "FailedScheduling", &message, out);
        }
        self.settle(now, key, false, out);
    }

    /// Takes its devices from a claim that nobody uses, since they keep a pod from nodes (`PostFilter`). If that fails,
    /// the pod's next attempt tries again.
    pub(super) fn deallocate(&mut self, now: Now, claim: &ObjectKey, out: &mut Vec<ToServer>) {
        let Some(object) = self.core.device_claim(claim) else { return };
        let call = Call::Patch {
            key: claim.clone(),
            patch: Patch::Merge(json!({"status": {"allocation": null, "reservedFor": null}})),
            subresource: Subresource::Status,
            precondition: Precondition { uid: Some(Rc::from(object.uid())), rv: Some(object.rv()) },
            options: WriteOptions::default(),
        };
        self.send(now, Sent::Deallocation, call, out);
    }
}
