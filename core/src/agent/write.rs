//! Writes a pod's status to the API, and finally deletes the pod (kubelet `status_manager.go`).
//!
//! At most one request per pod is in flight; the latest status wins; a write is repeated until the API has acknowledged
//! it.

use std::rc::Rc;

use super::Out;
use super::backoff::Retry;
use super::pod::{Ctx, PodState, StopReason};
use crate::api::{
    Call, DeleteOptions, Precondition, Reason, ReqId, Request, Response, Status, Subresource, ToServer, WriteOptions,
};
use crate::limits::REQUEST_TIMEOUT;
use crate::machine::Mono;
use crate::object::{Object, Part, Pod, PodStatus, Revision, Summarized, is_status_terminal};

/// The purpose of a request in flight.
#[derive(Clone, Debug)]
enum Purpose {
    /// Writes this status, based on this revision.
    Status(Summarized<PodStatus>, Revision),
    /// Reads the newest version of the pod after a conflict.
    Read,
    /// Deletes the pod finally.
    Delete,
}

/// The API side of one pod.
#[derive(Debug)]
pub(super) struct StatusWrite {
    /// Something changed since the status was last generated.
    pub(super) dirty: bool,
    /// The status as last generated or last received from the API.
    pub(super) base: Summarized<PodStatus>,
    /// Whether the API has `base`.
    pub(super) acked: bool,
    /// Revision of the last acknowledged write.
    acked_rv: Revision,
    in_flight: Option<(ReqId, Mono, Purpose)>,
    retry_at: Option<Mono>,
    retry: Retry,
    /// There was a conflict: the pod must be read before it is written.
    stale: bool,
    /// The final deletion has been acknowledged.
    pub(super) deleted: bool,
}

impl StatusWrite {
    pub(super) fn new(pod: &Pod) -> StatusWrite {
        StatusWrite {
            dirty: true,
            base: pod.status.clone(),
            acked: true,
            acked_rv: Revision(0),
            in_flight: None,
            retry_at: None,
            retry: Retry::default(),
            stale: false,
            deleted: false,
        }
    }

    /// Requires a read before any other request, because the known version of the pod may be wrong.
    pub(super) fn read_again(&mut self) {
        self.stale = true;
        self.deleted = false;
    }

    /// The request in flight.
    pub(super) fn request_in_flight(&self) -> Option<ReqId> {
        self.in_flight.as_ref().map(|(id, ..)| *id)
    }

    /// When something is due, and why.
    pub(super) fn deadline(&self) -> Option<(Mono, &'static str)> {
        match (&self.in_flight, self.retry_at) {
            (Some((_, at, _)), _) => Some((*at, "request of a pod's status is overdue")),
            (None, Some(at)) => Some((at, "write a pod's status again")),
            (None, None) => None,
        }
    }
}

impl PodState {
    /// Generates the status if something changed, and writes it if it is different.
    pub(super) fn write_status(&mut self, ctx: &mut Ctx<'_>) {
        if !self.in_api || self.write.deleted {
            return;
        }
        // The placeholder for a pod that only the runtime knows is never written; it may only be read.
        if self.unverified.is_some() && !self.write.stale {
            return;
        }
        if self.write.dirty && !self.holds_status() {
            self.write.dirty = false;
            let status = self.make_status(ctx.now, ctx.shared);
            if status != *self.write.base {
                self.write.base = Part::new(status);
                self.write.acked = false;
            }
        }
        if self.write.in_flight.is_some() || self.write.retry_at.is_some_and(|at| at > ctx.now.mono) {
            return;
        }
        self.write.retry_at = None;
        if self.write.stale {
            let rv = None;
            self.request(Call::Get { key: self.pod.key(), rv }, Purpose::Read, ctx);
        } else if !self.write.acked {
            let mut pod = self.pod.clone();
            pod.status = self.write.base.clone();
            let purpose = Purpose::Status(self.write.base.clone(), pod.rv);
            let (subresource, options) = (Subresource::Status, WriteOptions::default());
            self.request(Call::Update { object: Object::Pod(pod), subresource, options }, purpose, ctx);
        } else if self.may_delete() {
            let precondition = Precondition { uid: Some(Rc::clone(&self.uid)), rv: None };
            let options = DeleteOptions { precondition, grace_seconds: Some(0), ..DeleteOptions::default() };
            self.request(Call::Delete { key: self.pod.key(), options }, Purpose::Delete, ctx);
        }
    }

    /// Whether everything is done that must precede the deletion of the API object.
    fn may_delete(&self) -> bool {
        self.ending.finished && self.pod.meta.deletion_timestamp.is_some() && !self.write.dirty && self.ops.is_empty()
    }

    fn request(&mut self, call: Call, purpose: Purpose, ctx: &mut Ctx<'_>) {
        let id = ctx.shared.ids.next();
        self.write.in_flight = Some((id, ctx.now.mono + REQUEST_TIMEOUT, purpose));
        ctx.shared.requests.insert(id, self.slot);
        ctx.out.push(Out::Api(ToServer::Request(id, Request::new(&ctx.shared.user, call))));
    }

    /// Handles the reply to a request of this pod.
    pub(super) fn replied(&mut self, id: ReqId, result: Result<Response, Status>, ctx: &mut Ctx<'_>) {
        let Some((_, _, purpose)) = self.write.in_flight.take_if(|(i, ..)| *i == id) else { return };
        match (purpose, result) {
            (Purpose::Status(sent, _), Ok(response)) => {
                self.write.retry.reset();
                if sent.is_held_as(&self.write.base) {
                    self.write.acked = true;
                }
                if let Response::Object(Object::Pod(pod)) = response {
                    self.acknowledged(pod);
                }
            }
            (Purpose::Read, Ok(Response::Object(Object::Pod(pod)))) => {
                self.write.stale = false;
                if pod.uid() == &*self.uid {
                    self.newer(pod);
                } else {
                    self.vanished(ctx);
                }
            }
            (Purpose::Read, Ok(_)) => self.fail(ctx),
            (Purpose::Delete, Ok(_)) => {
                self.write.retry.reset();
                self.write.deleted = true;
            }
            (_, Err(status)) if status.reason == Reason::NotFound => self.vanished(ctx),
            (Purpose::Delete, Err(status)) if status.reason == Reason::Conflict => self.vanished(ctx),
            (Purpose::Status(_, rv), Err(status)) if status.reason == Reason::Conflict => {
                // The view may have advanced in the meantime; if not, the pod is read from the API.
                self.write.stale |= self.pod.rv <= rv;
            }
            (_, Err(_)) => self.fail(ctx),
        }
    }

    /// Handles that the API has accepted the status; the reply is the newest version of the pod.
    fn acknowledged(&mut self, pod: Pod) {
        self.write.acked_rv = pod.rv;
        if pod.rv < self.pod.rv {
            return;
        }
        if self.write.acked && pod.status == self.write.base {
            // All holders share one copy of the status.
            self.write.base = pod.status.clone();
        }
        self.spec_changed(&pod);
        self.pod = pod;
    }

    /// Handles that the pod no longer exists in the API.
    pub(super) fn vanished(&mut self, ctx: &mut Ctx<'_>) {
        self.in_api = false;
        if let Some(found) = self.unverified.take() {
            self.reconcile(*found, ctx);
        }
        if self.ending.stop.is_none_or(|s| s.reason != StopReason::Removed) && !self.ending.finished {
            self.begin_pod_stop(StopReason::Removed, 1, ctx.now.mono);
        }
    }

    fn fail(&mut self, ctx: &mut Ctx<'_>) {
        self.write.retry_at = Some(ctx.now.mono + self.write.retry.next(&mut ctx.shared.rng));
    }

    /// Handles the loss of the connection: the outcome of the request in flight, if any, is unknown.
    pub(super) fn lost_connection(&mut self, ctx: &mut Ctx<'_>) {
        if self.write.in_flight.take().is_some() {
            self.fail(ctx);
        }
    }

    /// Gives up waiting for a reply that is overdue.
    pub(super) fn check_request(&mut self, ctx: &mut Ctx<'_>) {
        if self.write.in_flight.as_ref().is_some_and(|(_, at, _)| *at <= ctx.now.mono) {
            let (id, _, _) = self.write.in_flight.take().expect("checked just above");
            ctx.shared.requests.remove(&id);
            // The request may have been carried out, so the pod must be read before a write that is based on the old
            // revision.
            self.write.stale = true;
            self.fail(ctx);
        }
    }

    /// Applies a newer version of the pod from the API.
    pub(super) fn newer(&mut self, pod: Pod) {
        if self.unverified.is_some() {
            self.verified = Some(Box::new(pod));
            return;
        }
        if pod.rv < self.pod.rv || !self.in_api {
            return;
        }
        let same_status = pod.status == self.write.base;
        let foreign = pod.rv > self.write.acked_rv && !same_status;
        let same = Rc::ptr_eq(&pod.meta, &self.pod.meta)
            || (pod.meta.generation == self.pod.meta.generation
                && pod.meta.deletion_timestamp == self.pod.meta.deletion_timestamp);
        self.write.dirty |= !same;
        if foreign {
            // Another client wrote the status, or a write whose reply was lost did: the agent's status is written
            // again. A terminal phase that somebody else has set is never left, even if a status waits to be written.
            let ended_otherwise = is_status_terminal(&pod.status) && pod.status.phase != self.write.base.phase;
            if self.write.acked || ended_otherwise {
                self.write.base = pod.status.clone();
                self.write.acked = true;
            }
            self.write.dirty = true;
        } else if same_status {
            self.write.base = pod.status.clone();
            self.write.acked = true;
        }
        self.spec_changed(&pod);
        self.pod = pod;
    }
}
