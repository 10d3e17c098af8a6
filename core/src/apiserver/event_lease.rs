//! Gives Events a time to live of an hour: they are put with a lease of the store that many of them share.

use super::write::{Write, refused};
use super::{ApiServer, Job, Out, unavailable};
use crate::api::Status;
use crate::limits;
use crate::machine::{Mono, Now};
use crate::store::{LeaseId, StoreError, StoreReply, StoreRequest};

/// The store lease for new Events.
#[derive(Debug, Default)]
pub(super) struct EventLease {
    /// The lease, and the time until which new Events may use it.
    current: Option<(LeaseId, Mono)>,
    waiting: Vec<Write>,
}

impl EventLease {
    /// The lease that new events may join at this moment.
    pub(super) fn now(&self, now: Now) -> Option<LeaseId> {
        self.current.filter(|(_, until)| now.mono < *until).map(|(lease, _)| lease)
    }

    /// Handles that the store no longer knows the lease.
    pub(super) fn forget(&mut self) {
        self.current = None;
    }
}

impl ApiServer {
    pub(super) fn await_event_lease(&mut self, now: Now, write: Write, out: &mut Vec<Out>) {
        self.event_lease.waiting.push(write);
        if self.event_lease.waiting.len() == 1 {
            let ttl_seconds = (limits::EVENT_TTL + limits::EVENT_LEASE_REUSE).as_secs();
            self.ask_store(now, Job::EventLease, StoreRequest::LeaseGrant { ttl_seconds }, out);
        }
    }

    pub(super) fn event_lease_granted(&mut self, now: Now, answer: StoreReply, out: &mut Vec<Out>) {
        let lease = match answer {
            StoreReply::Lease { lease, .. } => lease,
            // The Event itself has not been sent to the store yet, so the outcome of its write is known.
            StoreReply::Error(StoreError::Unavailable) => return self.event_lease_failed(now, &unavailable(), out),
            StoreReply::Error(error) => return self.event_lease_failed(now, &refused(&error), out),
            StoreReply::Txn { .. }
            | StoreReply::Range { .. }
            | StoreReply::Watching { .. }
            | StoreReply::WatchCanceled { .. }
            | StoreReply::Compacted { .. }
            | StoreReply::Revoked { .. }
            | StoreReply::Revision { .. }
            | StoreReply::ProgressAsked => return self.event_lease_failed(now, &unavailable(), out),
        };
        self.event_lease.current = Some((lease, now.mono + limits::EVENT_LEASE_REUSE));
        for write in std::mem::take(&mut self.event_lease.waiting) {
            self.write(now, Box::new(write), out);
        }
    }

    pub(super) fn event_lease_failed(&mut self, now: Now, why: &Status, out: &mut Vec<Out>) {
        for write in std::mem::take(&mut self.event_lease.waiting) {
            self.answer(now, write.origin, Err(why.clone()), out);
        }
    }
}
