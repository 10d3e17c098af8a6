//! The scheduler process's own requests, from when they are sent until their outcome is known or unknown for good.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::evictions::Victim;
use crate::api::{ReqId, ReqIds};
use crate::limits;
use crate::machine::{Deadline, Mono, Now};
use crate::object::ObjectKey;

/// What a request is for.
#[derive(Clone, Debug)]
pub(super) enum Sent {
    /// The bind of a pod.
    Bind(ObjectKey),
    /// Reading a pod whose bind has an unknown outcome.
    Read(ObjectKey),
    /// The condition of an unschedulable pod, with this message.
    Condition(ObjectKey, Rc<str>),
    /// The condition of a pod that is about to be evicted.
    Mark(Victim),
    /// The deletion of a pod that is evicted.
    Evict(Victim),
    /// A claim or volume of this pod.
    Volume(ObjectKey),
    /// A claim for devices of this pod.
    Claim(ObjectKey, ObjectKey),
    /// A claim for devices that nobody uses. It is not retried: the pod's next attempt writes it again.
    Deallocation,
    /// A pod's nominated node. It is not retried: the pod's next attempt writes it again.
    Nomination,
}

impl Sent {
    /// Whether it is a write, which carries the leader's fence.
    pub(super) fn is_write(&self) -> bool {
        match self {
            Sent::Bind(_)
            | Sent::Condition(..)
            | Sent::Mark(_)
            | Sent::Evict(_)
            | Sent::Volume(_)
            | Sent::Claim(..)
            | Sent::Deallocation
            | Sent::Nomination => true,
            Sent::Read(_) => false,
        }
    }
}

/// The requests that have had no reply yet.
#[derive(Debug)]
pub(super) struct Requests {
    ids: ReqIds,
    sent: BTreeMap<ReqId, (Mono, Sent)>,
    /// The same requests by when they time out.
    timeouts: BTreeSet<(Mono, ReqId)>,
}

impl Requests {
    /// None yet. Their ids are those of this part of the connection.
    pub(super) fn new(part: u16) -> Requests {
        Requests { ids: ReqIds::new(part), sent: BTreeMap::new(), timeouts: BTreeSet::new() }
    }

    /// How many have had no reply.
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    /// Records a request that is sent now, and returns its id.
    pub(super) fn add(&mut self, now: Now, what: Sent) -> ReqId {
        let id = self.ids.next();
        let until = now.mono + limits::REQUEST_TIMEOUT;
        self.sent.insert(id, (until, what));
        self.timeouts.insert((until, id));
        id
    }

    /// Removes a request that has its reply, or whose reply no longer matters. `None` if it is not one of these.
    pub(super) fn remove(&mut self, id: ReqId) -> Option<Sent> {
        let (until, what) = self.sent.remove(&id)?;
        self.timeouts.remove(&(until, id));
        Some(what)
    }

    /// Removes one request that has timed out.
    pub(super) fn pop_expired(&mut self, now: Now) -> Option<Sent> {
        let (_, id) = self.timeouts.first().copied().filter(|(at, _)| *at <= now.mono)?;
        Some(self.remove(id).expect("every time-out belongs to a request"))
    }

    /// Removes all requests, in the order in which they were sent.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Sent> + use<> {
        self.timeouts.clear();
        std::mem::take(&mut self.sent).into_values().map(|(_, what)| what)
    }

    /// When the next request times out.
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.timeouts.first().map(|(at, _)| Deadline { at: *at, why: "request timed out" })
    }
}
