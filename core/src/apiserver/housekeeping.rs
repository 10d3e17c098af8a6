//! Periodic work, once a second: bookmarks, time-outs, a check of the store connection, compaction.

use std::rc::Rc;

use smallvec::smallvec;

use super::{ApiServer, Job, Out};
use crate::limits;
use crate::machine::{Mono, Now};
use crate::object::Revision;
use crate::store::{Compare, Op, StoreKey, StoreReply, StoreRequest, Stored, Txn};

/// The key whose version counts compactions, so that only one of several servers compacts at a time.
const COMPACT_KEY: &str = "compact_rev_key";

/// This server's state of compaction, as in upstream's `compactor`.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// When compaction is next tried; `None` before the first housekeeping.
    next: Option<Mono>,
    /// How many compactions this server knows of.
    turn: u64,
    /// The store's revision one interval ago; everything older may be compacted.
    past: Revision,
}

impl ApiServer {
    pub(super) fn housekeep(&mut self, now: Now, out: &mut Vec<Out>) {
        self.watchers.send_bookmarks(now, &self.cache, out);
        self.expire_waiting(now, out);
        self.expire_requests(now, out);
        self.probe_store(now, out);
        if self.link.is_up() {
            self.bootstrap(now, out);
            self.retry_policy(now, out);
            self.tend_definitions(now, out);
            self.take_compaction_turn(now, out);
        }
    }

    fn expire_requests(&mut self, now: Now, out: &mut Vec<Out>) {
        let Some(overdue) = now.mono.0.checked_sub(limits::STORE_TIMEOUT.as_nanos() as u64) else { return };
        while let Some(flight) = self.inflight.take_sent_by(Mono(overdue)) {
            self.give_up(now, flight.job, out);
        }
    }

    fn take_compaction_turn(&mut self, now: Now, out: &mut Vec<Out>) {
        let due = *self.compaction.next.get_or_insert(now.mono + limits::COMPACTION_INTERVAL);
        let (past, newest) = (self.compaction.past, self.cache.revision());
        let many = newest.0.saturating_sub(past.0) >= limits::COMPACTION_REVISIONS;
        if now.mono < due && !many {
            return;
        }
        self.compaction.next = Some(now.mono + limits::COMPACTION_INTERVAL);
        let key = StoreKey::Private(Rc::from(COMPACT_KEY));
        let value = Stored::mark(&self.compaction.past.to_string());
        let txn = Txn {
            compare: smallvec![Compare::Version(key.clone(), self.compaction.turn)],
            success: smallvec![Op::Put { key: key.clone(), value, lease: None }],
            failure: vec![Op::Get { key }],
        };
        self.ask_store(now, Job::CompactTurn, StoreRequest::Txn(Box::new(txn)), out);
    }

    pub(super) fn compact(&mut self, now: Now, answer: StoreReply, out: &mut Vec<Out>) {
        let StoreReply::Txn { revision, succeeded, results } = answer else { return };
        let past = std::mem::replace(&mut self.compaction.past, revision);
        if !succeeded {
            let version = results.into_iter().next().flatten().map_or(0, |kv| kv.version);
            self.compaction.turn = version;
            return;
        }
        self.compaction.turn += 1;
        if past.0 != 0 {
            self.ask_store(now, Job::Forget, StoreRequest::Compact { at: past }, out);
        }
    }
}
