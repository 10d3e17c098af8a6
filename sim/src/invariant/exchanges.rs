//! `fresh-reads`: a consistent read (a get or list without a resource version) never shows an older state than the one
//! that was stored when the read arrived. `deposed-leaders-write-nothing`: a create, an update or a binding that is
//! fenced with a leadership is carried out only while that leadership lasts. `updates-keep-others`: an update changes
//! the version that it names, so that what others have written is not lost.
//!
//! All compare a request, as it arrives at an API server, with its reply, as it leaves. Of fenced writes only those
//! are checked that commit something if they are carried out. Not checked in runs without faults, where no read is
//! late and no leader is deposed.

use std::collections::BTreeMap;

use skeg_core::api::{Call, Fence, FromServer, ReqId, Request, Response};
use skeg_core::object::{Object, ObjectKey, Revision};
use skeg_core::store::{MemoryStore, StoreEvent, StoreKey};

use super::{Invariant, Report};

/// What a reply is judged by.
#[derive(Debug)]
enum Asked {
    /// The read of an object that was stored at this revision.
    Get(ObjectKey, Revision),
    /// A list; the store's revision.
    List(Revision),
    /// A write of a leader.
    Fenced(Fence, String),
    /// An update, the leadership of its writer, if it has one, and the version that it changes: if the reply has the
    /// same, nothing was committed.
    Update(ObjectKey, Option<Fence>, String, Revision),
}

/// Of how many changes it is remembered which version they changed.
const BASES: usize = 4096;

/// Whether a create or binding commits something if it is carried out. A pod that is on its node already is bound by
/// saying so.
fn commits(store: &MemoryStore, call: &Call) -> bool {
    let Call::Bind { pod, .. } = call else { return !call.is_dry_run() };
    !matches!(store.object(pod), Some(Object::Pod(pod)) if pod.spec.node.is_some())
}

/// Requests without a reply, by connection.
#[derive(Debug, Default)]
pub struct Exchanges {
    asked: BTreeMap<(u64, ReqId), Asked>,
    /// For each election's Lease, the revisions at which leaderships began.
    terms: BTreeMap<ObjectKey, Vec<Revision>>,
    /// Which version of an object the change at a revision changed.
    bases: BTreeMap<(Revision, ObjectKey), Revision>,
}

impl Exchanges {
    /// Notes what a change has changed.
    pub fn changed(&mut self, change: &StoreEvent) {
        if let (StoreKey::Object(key), Some(before)) = (change.key(), &change.previous)
            && let Some(before) = before.value.object()
        {
            self.bases.insert((change.revision, key.clone()), before.rv());
            if self.bases.len() > BASES {
                self.bases.pop_first();
            }
        }
    }

    /// Notes the beginning of a leadership.
    pub fn committed(&mut self, change: &StoreEvent) {
        if let StoreKey::Fence(lease) = change.key()
            && change.value.is_some()
        {
            self.terms.entry(lease.clone()).or_default().push(change.revision);
        }
    }

    /// Notes a request as it arrives.
    pub fn asked(&mut self, store: &MemoryStore, conn: u64, id: ReqId, request: &Request) {
        let asked = match (&request.call, &request.fence) {
            (Call::Get { key, rv: None }, _) => match store.object(key) {
                Some(object) => Asked::Get(key.clone(), object.rv()),
                None => return,
            },
            (Call::List { options, .. }, _) if options.rv.is_none() && options.continue_from.is_none() => {
                Asked::List(store.revision())
            }
            (call @ (Call::Create { .. } | Call::Bind { .. }), Some(fence)) if commits(store, call) => {
                Asked::Fenced(fence.clone(), request.user.to_string())
            }
            (Call::Update { object, .. }, fence) if object.rv() > Revision(0) && !request.call.is_dry_run() => {
                Asked::Update(object.key(), fence.clone(), request.user.to_string(), object.rv())
            }
            _ => return,
        };
        self.asked.insert((conn, id), asked);
    }

    /// Whether a request has no reply yet.
    #[cfg(test)]
    pub fn is_waiting(&self, conn: u64, id: ReqId) -> bool {
        self.asked.contains_key(&(conn, id))
    }

    /// Judges a reply as it leaves.
    pub fn answered(&mut self, at: f64, conn: u64, msg: &FromServer, report: &mut Report) {
        let FromServer::Reply(id, result) = msg else { return };
        let (Some(asked), Ok(response)) = (self.asked.remove(&(conn, *id)), result) else { return };
        match (asked, response) {
            (Asked::Get(key, stored), Response::Object(object)) if object.rv() < stored => {
                let what = format!("{key} was stored at {stored:?}, and is read as it was at {:?}", object.rv());
                report.broken(Invariant::FreshReads, at, what);
            }
            (Asked::List(stored), Response::List { rv, .. }) if *rv < stored => {
                let what = format!("the store was at {stored:?}, and a list shows it at {rv:?}");
                report.broken(Invariant::FreshReads, at, what);
            }
            (Asked::Fenced(fence, user), Response::Object(object)) => {
                self.judge(at, &fence, &user, object.rv(), report);
            }
            (Asked::Fenced(fence, user), Response::Done { rv }) => self.judge(at, &fence, &user, *rv, report),
            (Asked::Update(key, fence, user, was), Response::Object(object)) if object.rv() != was => {
                if let Some(fence) = fence {
                    self.judge(at, &fence, &user, object.rv(), report);
                }
                if let Some(base) = self.bases.get(&(object.rv(), key.clone())).filter(|base| **base != was) {
                    let what = format!("{user} updates {key} as it was at {was:?}, and it was changed at {base:?}");
                    report.broken(Invariant::UpdatesKeepOthers, at, what);
                }
            }
            (Asked::Get(..) | Asked::List(_) | Asked::Fenced(..) | Asked::Update(..), _) => {}
        }
    }

    /// Judges what a leader has committed at a revision.
    fn judge(&self, at: f64, fence: &Fence, user: &str, revision: Revision, report: &mut Report) {
        let terms = self.terms.get(&fence.lease).map(Vec::as_slice).unwrap_or_default();
        let term = terms.iter().rev().find(|term| **term <= revision);
        if let Some(term) = term.filter(|term| **term != fence.epoch) {
            let what = format!(
                "{user} writes {revision:?} as the leader since {:?}; another leads since {term:?}",
                fence.epoch
            );
            report.broken(Invariant::DeposedLeadersWriteNothing, at, what);
        }
    }
}
