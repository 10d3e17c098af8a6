//! The store in memory: the current keyspace, and the log of changes since the last compaction.
//!
//! An old revision is read by undoing the log backwards, so that history costs its events and not a copy.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{
    Compare, FromStore, KeyValue, LeaseId, Op, StoreError, StoreEvent, StoreKey, StoreReply, StoreRequest, Stored, Txn,
    WatchId,
};
use crate::machine::{Deadline, Machine, Mono, Now};
use crate::object::Revision;

/// Names a client of the store: an API server's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct StoreClient(pub u32);

/// What the store can be told.
#[derive(Debug)]
pub enum In {
    /// A client asks; the id comes back with the reply.
    Request(StoreClient, u64, StoreRequest),
    /// A client's connection broke: its watches end.
    Closed(StoreClient),
}

/// What the store says to a client.
#[derive(Debug)]
pub struct Out {
    /// To whom.
    pub to: StoreClient,
    /// What.
    pub msg: FromStore,
}

#[derive(Debug)]
struct Watcher {
    client: StoreClient,
    id: WatchId,
    start: StoreKey,
    end: StoreKey,
}

impl Watcher {
    fn covers(&self, key: &StoreKey) -> bool {
        self.start <= *key && *key < self.end
    }
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    expires: Mono,
    keys: BTreeSet<StoreKey>,
}

/// An MVCC store in memory, with etcd's semantics.
#[derive(Debug, Default)]
pub struct MemoryStore {
    revision: Revision,
    /// Revisions below this are gone.
    compacted: Revision,
    current: BTreeMap<StoreKey, KeyValue>,
    /// Changes after `compacted`, in order of revision.
    log: VecDeque<StoreEvent>,
    watchers: Vec<Watcher>,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: u64,
}

impl MemoryStore {
    /// An empty store at revision 1, as etcd's.
    pub fn new() -> MemoryStore {
        MemoryStore { revision: Revision(1), ..MemoryStore::default() }
    }

    /// The revision of the last commit.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// A key as it stands.
    pub fn get(&self, key: &StoreKey) -> Option<&KeyValue> {
        self.current.get(key)
    }

    /// Keys as they stand, in order.
    pub fn range<'a>(&'a self, start: &StoreKey, end: &StoreKey) -> impl Iterator<Item = &'a KeyValue> + use<'a> {
        self.current.range(start.clone()..end.clone()).map(|(_, kv)| kv)
    }

    /// Changes after `revision`, oldest first, as far as they have not been compacted away.
    pub fn changes_after(&self, revision: Revision) -> impl Iterator<Item = &StoreEvent> {
        let first = self.log.partition_point(|e| e.revision <= revision);
        self.log.range(first..)
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::ModRevision(key, r) => self.current.get(key).map_or(Revision(0), |kv| kv.mod_revision) == *r,
            Compare::CreateRevision(key, r) => self.current.get(key).map_or(Revision(0), |kv| kv.create_revision) == *r,
            Compare::Version(key, v) => self.current.get(key).map_or(0, |kv| kv.version) == *v,
        }
    }

    fn txn(&mut self, txn: Txn, out: &mut Vec<Out>) -> StoreReply {
        let succeeded = txn.compare.iter().all(|c| self.holds(c));
        let ops = if succeeded { txn.success } else { txn.failure };
        let unknown_lease = |op: &Op| matches!(op, Op::Put { lease: Some(l), .. } if !self.leases.contains_key(l));
        if ops.iter().any(unknown_lease) {
            return StoreReply::Error(StoreError::LeaseNotFound);
        }
        let next = Revision(self.revision.0 + 1);
        let mut events = Vec::new();
        let mut results = Vec::with_capacity(ops.len());
        for op in ops {
            results.push(match op {
                Op::Get { key } => self.current.get(&key).cloned(),
                Op::Put { key, value, lease } => self.put(key, value, lease, next, &mut events),
                Op::Delete { key } => self.delete(&key, next, &mut events),
            });
        }
        self.commit(next, events, out);
        StoreReply::Txn { revision: self.revision, succeeded, results }
    }

    fn put(
        &mut self,
        key: StoreKey,
        mut value: Stored,
        lease: Option<LeaseId>,
        at: Revision,
        events: &mut Vec<StoreEvent>,
    ) -> Option<KeyValue> {
        if let Stored::Object(object) = &mut value {
            object.set_rv(at);
        }
        let previous = self.current.get(&key).cloned();
        if let Some(old) = previous.as_ref().and_then(|p| p.lease).filter(|l| Some(*l) != lease) {
            self.detach(old, &key);
        }
        if let Some(lease) = lease.and_then(|l| self.leases.get_mut(&l)) {
            lease.keys.insert(key.clone());
        }
        let kv = KeyValue {
            key: key.clone(),
            value,
            create_revision: previous.as_ref().map_or(at, |p| p.create_revision),
            mod_revision: at,
            version: previous.as_ref().map_or(0, |p| p.version) + 1,
            lease,
        };
        self.current.insert(key.clone(), kv.clone());
        events.push(StoreEvent { key, value: Some(kv), previous: previous.clone(), revision: at });
        previous
    }

    fn delete(&mut self, key: &StoreKey, at: Revision, events: &mut Vec<StoreEvent>) -> Option<KeyValue> {
        let previous = self.current.remove(key)?;
        if let Some(lease) = previous.lease {
            self.detach(lease, key);
        }
        events.push(StoreEvent { key: key.clone(), value: None, previous: Some(previous.clone()), revision: at });
        Some(previous)
    }

    fn detach(&mut self, lease: LeaseId, key: &StoreKey) {
        if let Some(lease) = self.leases.get_mut(&lease) {
            lease.keys.remove(key);
        }
    }

    fn commit(&mut self, at: Revision, events: Vec<StoreEvent>, out: &mut Vec<Out>) {
        if events.is_empty() {
            return;
        }
        self.revision = at;
        self.log.extend(events.iter().cloned());
        let all = Arc::new(events);
        for w in &self.watchers {
            let seen = all.iter().filter(|e| w.covers(&e.key)).count();
            if seen == 0 {
                continue;
            }
            let events = if seen == all.len() {
                Arc::clone(&all)
            } else {
                Arc::new(all.iter().filter(|e| w.covers(&e.key)).cloned().collect())
            };
            out.push(Out { to: w.client, msg: FromStore::Events { watch: w.id, revision: at, events } });
        }
    }

    fn read_range(&self, start: &StoreKey, end: &StoreKey, at: Option<Revision>, limit: usize) -> StoreReply {
        let at = at.filter(|r| r.0 != 0).unwrap_or(self.revision);
        if at > self.revision {
            return StoreReply::Error(StoreError::FutureRevision { newest: self.revision });
        }
        if at < self.compacted {
            return StoreReply::Error(StoreError::Compacted { oldest: self.compacted });
        }
        let take = if limit == 0 { usize::MAX } else { limit };
        if start >= end {
            return StoreReply::Range { revision: self.revision, kvs: Vec::new(), more: false, count: 0 };
        }
        // What keys of the range that changed later looked like at the time.
        let mut undone: BTreeMap<&StoreKey, Option<&KeyValue>> = BTreeMap::new();
        for event in self.log.iter().rev().take_while(|e| e.revision > at) {
            if *start <= event.key && event.key < *end {
                undone.insert(&event.key, event.previous.as_ref());
            }
        }
        let untouched = self.range(start, end).filter(|kv| !undone.contains_key(&kv.key));
        let mut all: Vec<&KeyValue> = untouched.chain(undone.values().copied().flatten()).collect();
        if !undone.is_empty() {
            all.sort_by(|a, b| a.key.cmp(&b.key));
        }
        let count = all.len() as u64;
        let kvs: Vec<KeyValue> = all.into_iter().take(take).cloned().collect();
        StoreReply::Range { revision: self.revision, more: kvs.len() as u64 != count, kvs, count }
    }

    fn watch(&mut self, client: StoreClient, rid: u64, w: Watcher, from: Revision, out: &mut Vec<Out>) {
        let id = w.id;
        if from.0 != 0 && from <= self.compacted {
            let reply = StoreReply::WatchCanceled { watch: id, compacted: Some(self.compacted) };
            out.push(Out { to: client, msg: FromStore::Reply(rid, reply) });
            return;
        }
        let reply = StoreReply::Watching { revision: self.revision, watch: id };
        out.push(Out { to: client, msg: FromStore::Reply(rid, reply) });
        if from.0 != 0 {
            let past = self.changes_after(Revision(from.0 - 1)).filter(|e| w.covers(&e.key)).cloned();
            let mut past: Vec<StoreEvent> = past.collect();
            while let Some(first) = past.first() {
                let revision = first.revision;
                let rest = past.split_off(past.partition_point(|e| e.revision == revision));
                let events = Arc::new(std::mem::replace(&mut past, rest));
                out.push(Out { to: client, msg: FromStore::Events { watch: id, revision, events } });
            }
        }
        self.watchers.push(w);
    }

    fn compact(&mut self, at: Revision) -> StoreReply {
        if at > self.revision {
            return StoreReply::Error(StoreError::FutureRevision { newest: self.revision });
        }
        if at < self.compacted {
            return StoreReply::Error(StoreError::Compacted { oldest: self.compacted });
        }
        self.compacted = at;
        let first = self.log.partition_point(|e| e.revision <= at);
        self.log.drain(..first);
        StoreReply::Compacted { revision: self.revision }
    }

    fn revoke(&mut self, lease: LeaseId, out: &mut Vec<Out>) -> StoreReply {
        let Some(lease) = self.leases.remove(&lease) else { return StoreReply::Error(StoreError::LeaseNotFound) };
        let next = Revision(self.revision.0 + 1);
        let mut events = Vec::new();
        for key in &lease.keys {
            self.delete(key, next, &mut events);
        }
        self.commit(next, events, out);
        StoreReply::Revoked { revision: self.revision }
    }

    fn lease_reply(&self, lease: LeaseId) -> StoreReply {
        let ttl_seconds = self.leases[&lease].ttl.as_secs();
        StoreReply::Lease { revision: self.revision, lease, ttl_seconds }
    }

    fn answer(&mut self, now: Now, client: StoreClient, request: StoreRequest, out: &mut Vec<Out>) -> StoreReply {
        match request {
            StoreRequest::Txn(txn) => self.txn(txn, out),
            StoreRequest::Range { start, end, at, limit } => self.read_range(&start, &end, at, limit),
            StoreRequest::Watch { .. } => unreachable!("a watch answers for itself"),
            StoreRequest::CancelWatch { watch } => {
                self.watchers.retain(|w| !(w.client == client && w.id == watch));
                StoreReply::WatchCanceled { watch, compacted: None }
            }
            StoreRequest::Compact { at } => self.compact(at),
            StoreRequest::LeaseGrant { ttl_seconds } => {
                self.next_lease += 1;
                let id = LeaseId(self.next_lease);
                let ttl = Duration::from_secs(ttl_seconds.max(1));
                self.leases.insert(id, Lease { ttl, expires: now.mono + ttl, keys: BTreeSet::new() });
                self.lease_reply(id)
            }
            StoreRequest::LeaseKeepAlive { lease } => match self.leases.get_mut(&lease) {
                Some(l) => {
                    l.expires = now.mono + l.ttl;
                    self.lease_reply(lease)
                }
                None => StoreReply::Error(StoreError::LeaseNotFound),
            },
            StoreRequest::LeaseRevoke { lease } => self.revoke(lease, out),
            StoreRequest::Progress => {
                for w in self.watchers.iter().filter(|w| w.client == client) {
                    let events = Arc::new(Vec::new());
                    out.push(Out {
                        to: client,
                        msg: FromStore::Events { watch: w.id, revision: self.revision, events },
                    });
                }
                StoreReply::Txn { revision: self.revision, succeeded: true, results: Vec::new() }
            }
        }
    }
}

impl Machine for MemoryStore {
    type In = In;
    type Out = Out;

    fn handle(&mut self, now: Now, input: In, out: &mut Vec<Out>) {
        match input {
            In::Closed(client) => self.watchers.retain(|w| w.client != client),
            In::Request(client, rid, StoreRequest::Watch { watch, start, end, from }) => {
                self.watch(client, rid, Watcher { client, id: watch, start, end }, from, out);
            }
            In::Request(client, rid, request) => {
                let reply = self.answer(now, client, request, out);
                out.push(Out { to: client, msg: FromStore::Reply(rid, reply) });
            }
        }
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        let expired: Vec<LeaseId> =
            self.leases.iter().filter(|(_, l)| l.expires <= now.mono).map(|(id, _)| *id).collect();
        for lease in expired {
            self.revoke(lease, out);
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.leases.values().map(|l| l.expires).min().map(|at| Deadline { at, why: "expire a lease" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::{In, MemoryStore, Out, StoreClient};
    use crate::machine::{Machine, Mono, Now, Wall};
    use crate::object::Revision;
    use crate::store::{
        Compare, FromStore, LeaseId, Op, StoreError, StoreKey, StoreReply, StoreRequest, Stored, Txn, WatchId,
    };

    const NOW: Now = Now { mono: Mono(0), wall: Wall(0) };
    const CLIENT: StoreClient = StoreClient(1);

    fn key(name: &str) -> StoreKey {
        StoreKey::Private(Arc::from(name))
    }

    fn mark(value: &str) -> Stored {
        Stored::Mark(Arc::from(value))
    }

    fn put(name: &str, value: &str) -> Op {
        Op::Put { key: key(name), value: mark(value), lease: None }
    }

    fn ask(store: &mut MemoryStore, request: StoreRequest) -> (StoreReply, Vec<FromStore>) {
        let mut out = Vec::new();
        store.handle(NOW, In::Request(CLIENT, 7, request), &mut out);
        let mut reply = None;
        let mut rest = Vec::new();
        for Out { msg, .. } in out {
            match msg {
                FromStore::Reply(7, r) => reply = Some(r),
                other => rest.push(other),
            }
        }
        (reply.expect("each request is answered"), rest)
    }

    fn write(store: &mut MemoryStore, ops: Vec<Op>) -> Vec<FromStore> {
        let (reply, events) = ask(store, StoreRequest::Txn(Txn { success: ops, ..Txn::default() }));
        assert!(matches!(reply, StoreReply::Txn { succeeded: true, .. }));
        events
    }

    fn range(store: &mut MemoryStore, at: Option<u64>) -> Result<Vec<(String, String)>, StoreError> {
        let at = at.map(Revision);
        let request = StoreRequest::Range { start: key(""), end: key("~"), at, limit: 0 };
        match ask(store, request).0 {
            StoreReply::Range { kvs, .. } => Ok(kvs
                .into_iter()
                .map(|kv| match (kv.key, kv.value) {
                    (StoreKey::Private(k), Stored::Mark(v)) => (k.to_string(), v.to_string()),
                    other => panic!("{other:?}"),
                })
                .collect()),
            StoreReply::Error(e) => Err(e),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_transaction_is_one_revision_and_one_batch() {
        let mut store = MemoryStore::new();
        let w = StoreRequest::Watch { watch: WatchId(1), start: key("a"), end: key("c"), from: Revision(0) };
        ask(&mut store, w);
        let events = write(&mut store, vec![put("a", "1"), put("b", "1"), put("z", "1")]);
        assert_eq!(store.revision(), Revision(2));
        let [FromStore::Events { revision, events, .. }] = &events[..] else { panic!("one batch: {events:?}") };
        assert_eq!((*revision, events.len()), (Revision(2), 2));
        let again = write(&mut store, vec![put("a", "2")]);
        let [FromStore::Events { events, .. }] = &again[..] else { panic!("one batch") };
        assert_eq!(events[0].previous.as_ref().unwrap().mod_revision, Revision(2));
        assert_eq!(events[0].value.as_ref().unwrap().version, 2);
    }

    #[test]
    fn compares_choose_the_branch() {
        let mut store = MemoryStore::new();
        let create = |v: &str| Txn {
            compare: vec![Compare::ModRevision(key("a"), Revision(0))],
            success: vec![put("a", v)],
            failure: vec![Op::Get { key: key("a") }],
        };
        let (first, _) = ask(&mut store, StoreRequest::Txn(create("1")));
        assert!(matches!(first, StoreReply::Txn { succeeded: true, .. }));
        let (second, _) = ask(&mut store, StoreRequest::Txn(create("2")));
        let StoreReply::Txn { succeeded: false, results, .. } = second else { panic!("{second:?}") };
        assert_eq!(results[0].as_ref().unwrap().value, mark("1"));
        assert_eq!(store.revision(), Revision(2), "a read takes no revision");
    }

    #[test]
    fn compaction_forgets_and_says_so() {
        let mut store = MemoryStore::new();
        write(&mut store, vec![put("a", "1")]);
        write(&mut store, vec![put("a", "2")]);
        assert_eq!(range(&mut store, Some(2)).unwrap(), [("a".to_owned(), "1".to_owned())]);
        ask(&mut store, StoreRequest::Compact { at: Revision(3) });
        assert_eq!(range(&mut store, Some(2)), Err(StoreError::Compacted { oldest: Revision(3) }));
        assert_eq!(range(&mut store, Some(9)), Err(StoreError::FutureRevision { newest: Revision(3) }));
        let w = StoreRequest::Watch { watch: WatchId(1), start: key("a"), end: key("b"), from: Revision(2) };
        let canceled = StoreReply::WatchCanceled { watch: WatchId(1), compacted: Some(Revision(3)) };
        assert_eq!(ask(&mut store, w).0, canceled);
    }

    #[test]
    fn a_watch_from_the_past_replays_in_batches() {
        let mut store = MemoryStore::new();
        write(&mut store, vec![put("a", "1"), put("b", "1")]);
        write(&mut store, vec![Op::Delete { key: key("a") }]);
        let w = StoreRequest::Watch { watch: WatchId(1), start: key(""), end: key("~"), from: Revision(2) };
        let (_, events) = ask(&mut store, w);
        let sizes: Vec<usize> = events
            .iter()
            .map(|e| match e {
                FromStore::Events { events, .. } => events.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes, [2, 1]);
    }

    #[test]
    fn a_lease_takes_its_keys_with_it() {
        let mut store = MemoryStore::new();
        let (reply, _) = ask(&mut store, StoreRequest::LeaseGrant { ttl_seconds: 10 });
        assert!(matches!(reply, StoreReply::Lease { lease: LeaseId(1), .. }));
        write(&mut store, vec![Op::Put { key: key("a"), value: mark("1"), lease: Some(LeaseId(1)) }]);
        let at = store.poll_timeout().unwrap().at;
        store.handle_timeout(Now { mono: at, wall: Wall(0) }, &mut Vec::new());
        assert!(store.get(&key("a")).is_none());
        let keep = StoreRequest::LeaseKeepAlive { lease: LeaseId(1) };
        assert_eq!(ask(&mut store, keep).0, StoreReply::Error(StoreError::LeaseNotFound));
    }

    proptest! {
        /// Every revision reads as a model that keeps a copy of each.
        #[test]
        fn history_reads_as_it_was(steps in proptest::collection::vec((0u8..5, proptest::option::of(0u8..9)), 1..40)) {
            let mut store = MemoryStore::new();
            let mut model = BTreeMap::new();
            let mut copies = vec![(store.revision().0, model.clone())];
            for (k, v) in steps {
                let name = format!("k{k}");
                let op = match v {
                    Some(v) => { model.insert(name.clone(), v.to_string()); put(&name, &v.to_string()) }
                    None => { model.remove(&name); Op::Delete { key: key(&name) } }
                };
                write(&mut store, vec![op]);
                copies.push((store.revision().0, model.clone()));
            }
            for (revision, model) in copies {
                let expect: Vec<(String, String)> = model.into_iter().collect();
                prop_assert_eq!(range(&mut store, Some(revision)).unwrap(), expect);
            }
        }
    }
}
