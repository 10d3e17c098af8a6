//! Leader election over a Lease, with a fence for every write of the leader.

use std::sync::Arc;

use crate::api::{Fence, FromServer, ReqIds, ToServer};
use crate::machine::{Deadline, Mono, Now};
use crate::object::ObjectKey;
use crate::random::Rng;

/// Candidate for one election. As client-go's `leaderelection`, with [`Fence`]s.
#[derive(Debug)]
pub struct Elector {
    lease: ObjectKey,
    identity: Arc<str>,
    ids: ReqIds,
    rng: Rng,
}

impl Elector {
    /// A candidate called `identity` for the Lease of this key.
    pub fn new(lease: ObjectKey, identity: Arc<str>, user: Arc<str>, part: u16, rng: Rng) -> Elector {
        let _ = user;
        Elector { lease, identity, ids: ReqIds::new(part), rng }
    }

    /// Proof of leadership while this candidate may act; `None` otherwise (not elected, or renewal is overdue).
    pub fn fence(&self, _now: Now) -> Option<Fence> {
        None
    }

    /// Takes a message from the server; messages of other parts are ignored.
    pub fn handle(&mut self, _now: Now, _input: &FromServer, _out: &mut Vec<ToServer>) {
        let _ = (&self.lease, &self.identity, &mut self.ids, &mut self.rng);
    }

    /// Tries to acquire, or renews, if due.
    pub fn handle_timeout(&mut self, _now: Now, _out: &mut Vec<ToServer>) {}

    /// When it next wants to act (also: when leadership runs out).
    pub fn poll_timeout(&self) -> Option<Deadline> {
        Some(Deadline { at: Mono::ZERO, why: "acquire leadership" })
    }
}
