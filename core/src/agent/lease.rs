//! The node's heartbeat: a Lease in `kube-node-lease`, renewed every quarter of its duration
//! (`component-helpers/apimachinery/lease`).
//!
//! This is the hottest path of a large cluster. The agent keeps the Lease from the API's last reply, and a renewal
//! changes only `renewTime`.

use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1 as coordination_v1;

use super::Out;
use super::backoff::Retry;
use crate::api::{Call, Reason, ReqId, ReqIds, Request, Response, Status, Subresource, ToServer, WriteOptions};
use crate::limits::{NODE_LEASE_DURATION, REQUEST_TIMEOUT};
use crate::machine::{Deadline, Mono, Now};
use crate::object::{
    Kind, Lease, NODE_LEASE_NAMESPACE, Node, Object, ObjectKey, ObjectMeta, OwnerReference, RenewTime,
};
use crate::random::Rng;

/// Maintains the node's Lease.
#[derive(Debug)]
#[repr(C)]
pub(super) struct NodeLease {
    in_flight: Option<(ReqId, Mono)>,
    /// When to act next; `None` until the node is registered.
    next: Option<Mono>,
    /// The Lease from the API's last reply.
    pub(super) lease: Option<Lease>,
    /// The Lease must be read from the API before it is written.
    stale: bool,
    retry: Retry,
    pub(super) renewed: Mono,
    ids: ReqIds,
    pub(super) user: Rc<str>,
    name: Rc<str>,
}

/// What a reply means for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heartbeat {
    /// Nothing to do.
    Steady,
    /// The heartbeat succeeded after a gap in which the node may have been declared unreachable, or the Lease (and
    /// perhaps the Node) is gone: the node's status must be checked.
    Check,
}

impl NodeLease {
    pub(super) fn new(name: Rc<str>, user: Rc<str>, part: u16) -> NodeLease {
        NodeLease {
            name,
            user,
            ids: ReqIds::new(part),
            lease: None,
            stale: false,
            in_flight: None,
            next: None,
            renewed: Mono::ZERO,
            retry: Retry::default(),
        }
    }

    /// Starts the heartbeat; called when the node is registered.
    pub(super) fn begin(&mut self, now: Now) {
        if self.next.is_none() {
            self.next = Some(now.mono);
            self.renewed = now.mono;
        }
    }

    /// Renews, creates or reads the Lease if that is due.
    #[inline(always)]
    pub(super) fn handle_timeout<'n>(
        &mut self,
        now: Now,
        node: impl FnOnce() -> Option<&'n Node>,
        rng: &mut Rng,
        out: &mut Vec<Out>,
    ) {
        if self.in_flight.is_some_and(|(_, at)| at <= now.mono) {
            self.in_flight = None;
            // The timed-out request may have been carried out.
            self.stale = self.lease.is_some();
            self.next = Some(now.mono + self.retry.next(rng));
        }
        if self.in_flight.is_some() || self.next.is_none_or(|at| at > now.mono) {
            return;
        }
        let call = match &mut self.lease {
            _ if self.stale => {
                let key = ObjectKey::new(Kind::LEASE, NODE_LEASE_NAMESPACE, &self.name);
                Call::Get { key, rv: None }
            }
            Some(lease) => {
                lease.renewal = RenewTime::of(now.wall);
                let object = Object::Lease(lease.clone());
                Call::Update { object, subresource: Subresource::None, options: WriteOptions::default() }
            }
            None => {
                let Some(node) = node() else {
                    self.next = None;
                    return;
                };
                Call::Create { object: Object::Lease(fresh(node, now)), options: WriteOptions::default() }
            }
        };
        let id = self.ids.next();
        self.in_flight = Some((id, now.mono + REQUEST_TIMEOUT));
        out.push(Out::Api(ToServer::Request(id, Request::new(&self.user, call))));
    }

    /// Handles a reply.
    #[inline(always)]
    pub(super) fn replied(
        &mut self,
        now: Now,
        id: ReqId,
        result: Result<Response, Status>,
        rng: &mut Rng,
    ) -> Heartbeat {
        if self.in_flight.take_if(|(i, _)| *i == id).is_none() {
            return Heartbeat::Steady;
        }
        match result {
            Ok(Response::Object(Object::Lease(lease))) => {
                let first = self.lease.is_none();
                let was_read = std::mem::take(&mut self.stale);
                self.lease = Some(lease);
                self.retry.reset();
                if was_read {
                    self.mend(now);
                    return Heartbeat::Steady;
                }
                let gap = now.mono.since(self.renewed);
                self.renewed = now.mono;
                let interval = NODE_LEASE_DURATION / 4;
                // Nodes that registered at the same moment are spread over the interval.
                let pause = if first { rng.duration(Duration::ZERO, interval) } else { rng.jitter(interval, 4) };
                self.next = Some(now.mono + pause);
                if gap > NODE_LEASE_DURATION / 2 { Heartbeat::Check } else { Heartbeat::Steady }
            }
            Err(status) if matches!(status.reason, Reason::Conflict | Reason::AlreadyExists) => {
                self.stale = true;
                self.next = Some(now.mono);
                Heartbeat::Steady
            }
            Err(status) if status.reason == Reason::NotFound => {
                // The Lease is deleted together with its Node. While the Node is checked, creating the Lease is retried
                // with back-off, because a missing namespace gives the same error.
                (self.lease, self.stale) = (None, false);
                self.next = Some(now.mono + self.retry.next(rng));
                Heartbeat::Check
            }
            Ok(_) | Err(_) => {
                self.next = Some(now.mono + self.retry.next(rng));
                Heartbeat::Steady
            }
        }
    }

    /// Takes over a Lease that was read: makes it this node's.
    fn mend(&mut self, now: Now) {
        self.next = Some(now.mono);
        if let Some(lease) = &mut self.lease {
            if lease.spec.holder_identity.as_deref() != Some(&*self.name) {
                lease.spec_mut().holder_identity = Some(self.name.to_string());
            }
            if lease.spec.lease_duration_seconds != Some(NODE_LEASE_DURATION.as_secs() as i32) {
                lease.spec_mut().lease_duration_seconds = Some(NODE_LEASE_DURATION.as_secs() as i32);
            }
        }
    }

    /// Handles the loss of the connection.
    pub(super) fn disconnected(&mut self, now: Now, rng: &mut Rng) {
        if self.in_flight.take().is_some() {
            self.stale = self.lease.is_some();
            self.next = Some(now.mono + self.retry.next(rng));
        }
    }

    /// The Lease's key.
    #[inline]
    pub(super) fn key(&self) -> Option<&ObjectKey> {
        self.lease.as_ref().map(|lease| lease.meta.key(Kind::LEASE))
    }

    /// When `handle_timeout` is next needed.
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        match (self.in_flight, self.next) {
            (Some((_, at)), _) => Some(Deadline { at, why: "renewal of the node's lease is overdue" }),
            (None, Some(at)) => Some(Deadline { at, why: "renew the node's lease" }),
            (None, None) => None,
        }
    }
}

fn fresh(node: &Node, now: Now) -> Lease {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.name().to_owned(),
        uid: node.uid().to_owned(),
        ..OwnerReference::default()
    };
    let meta = ObjectMeta {
        name: Some(node.name().to_owned()),
        namespace: Some(NODE_LEASE_NAMESPACE.to_owned()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    let spec = coordination_v1::LeaseSpec {
        holder_identity: Some(node.name().to_owned()),
        lease_duration_seconds: Some(NODE_LEASE_DURATION.as_secs() as i32),
        renew_time: Some(now.wall.to_micro_time()),
        ..coordination_v1::LeaseSpec::default()
    };
    Lease::new(meta, spec, ())
}
