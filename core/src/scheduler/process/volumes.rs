//! Binds the claims of a pod before the pod: volumes are made to name claims, claims get the node that was chosen for
//! them, and then the pod waits until the binder has done the rest (VolumeBinding's `PreBind`).
//!
//! A write that fails, or whose outcome is unknown, is not repeated: the pod is scheduled again, by what is then known.

use std::rc::Rc;

use serde_json::json;

use super::SchedulerProcess;
use super::binds::Bind;
use super::requests::Sent;
use crate::api::{Call, Patch, Precondition, Response, Status, Subresource, ToServer, WriteOptions};
use crate::client::EventType;
use crate::limits;
use crate::machine::Now;
use crate::object::{Object, ObjectKey};
use crate::scheduler::volumes::{Readiness, VolumeStep};
use crate::volume::{BOUND_BY_CONTROLLER, SELECTED_NODE, claim_of};

impl SchedulerProcess {
    /// Writes what has to be written for the claims of a pod that is to be bound to a node.
    pub(super) fn bind_volumes(
        &mut self,
        now: Now,
        (pod, uid): (ObjectKey, Rc<str>),
        node: Rc<str>,
        steps: &[VolumeStep],
        out: &mut Vec<ToServer>,
    ) {
        let until = now.mono + limits::VOLUME_BIND_TIMEOUT;
        let calls: Option<Vec<Call>> = steps.iter().map(|step| self.volume_call(step, &node)).collect();
        self.binds.waits(pod.clone(), uid, node, until);
        match calls {
            Some(calls) => calls.into_iter().for_each(|call| {
                self.send(now, Sent::Volume(pod.clone()), call, out);
            }),
            None => self.give_up_volumes(now, &pod, "a claim or volume does not exist any more", out),
        }
    }

    /// The write of a step; `None` if its object is gone.
    fn volume_call(&self, step: &VolumeStep, node: &str) -> Option<Call> {
        let (object, patch) = match step {
            VolumeStep::Provision { claim } => {
                (self.core.storage(claim)?, json!({"metadata": {"annotations": {SELECTED_NODE: node}}}))
            }
            VolumeStep::Bind { volume, claim } => {
                let (volume, claim) = (self.core.storage(volume)?, self.core.storage(claim)?);
                let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.name(),
                    "namespace": claim.namespace(), "uid": claim.uid(), "resourceVersion": claim.rv().0.to_string()});
                let mut patch = json!({"spec": {"claimRef": reference}});
                if claim_of(volume).is_none() {
                    patch["metadata"] = json!({"annotations": {BOUND_BY_CONTROLLER: "yes"}});
                }
                (volume, patch)
            }
        };
        Some(Call::Patch {
            key: object.key(),
            patch: Patch::Merge(patch),
            subresource: Subresource::None,
            precondition: Precondition { uid: Some(Rc::from(object.uid())), rv: Some(object.rv()) },
            options: WriteOptions::default(),
        })
    }

    /// A write for a claim was answered.
    pub(super) fn handle_volume(
        &mut self,
        now: Now,
        pod: &ObjectKey,
        result: &Result<Response, Status>,
        out: &mut Vec<ToServer>,
    ) {
        let waits = self.binds.get(pod).is_some_and(Bind::waits_for_volumes);
        if let Err(status) = result
            && waits
        {
            let why = status.to_string();
            self.give_up_volumes(now, pod, &why, out);
        }
    }

    /// Binds the pods whose claims are bound by now. Only a leader may.
    pub(super) fn check_volumes(&mut self, now: Now, out: &mut Vec<ToServer>) {
        for pod in self.binds.waiting().cloned().collect::<Vec<_>>() {
            let Some(bind) = self.binds.get(&pod) else { continue };
            let (uid, node) = (Rc::clone(&bind.uid), Rc::clone(&bind.node));
            match self.core.readiness(&pod, &node) {
                Readiness::Waiting => {}
                Readiness::Failed(why) => self.give_up_volumes(now, &pod, &why, out),
                Readiness::Ready => {
                    let claims = self.claims.take(&pod);
                    self.drop_bind(&pod);
                    self.claims.put_back(&pod, claims);
                    self.bind_after_claims(now, pod, uid, node, out);
                }
            }
        }
    }

    /// A pod's claims are not bound: it is scheduled again.
    pub(super) fn give_up_volumes(&mut self, now: Now, key: &ObjectKey, why: &str, out: &mut Vec<ToServer>) {
        if let Some(pod) = self.pods.get(key).filter(|pod| matches!(pod, Object::Pod(_))) {
            let message = format!("running PreBind plugin \"VolumeBinding\": binding volumes: {why}");
            self.recorder.record(now, pod, EventType::Warning, "FailedScheduling", &message, out);
        }
        self.settle(now, key, false, out);
    }
}
