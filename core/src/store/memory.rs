//! The in-memory store: etcd's semantics for simulations, tests and benchmarks.
//!
//! What comes in: requests from the store's clients ([`In`]). What goes out: replies and watch events ([`Out`]); a
//! reply precedes the events of the change that it reports. Never makes a revision without a change, or a change
//! without a revision. A watch never receives part of a revision.
//!
//! The newest state is one ordered map per kind. The history consists of the events since the last compaction, shared
//! with the watches; the state at an old revision is computed from the newest state by undoing later changes. The
//! passing of time has no effect except that leases expire.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Batch, Compare, Entry, FromStore, KeyValue, LeaseId, Op, Span, StoreError, StoreEvent, StoreKey, StoreReply,
    StoreRequest, Stored, Txn, WatchId,
};
use crate::limits;
use crate::machine::{Deadline, Machine, Mono, Now};
use crate::object::{KeyMap, Kind, Object, ObjectKey, Revision};
use crate::read_ahead::{Step, touch, touch_shared};

/// Identifies a client of the store: one connection of one API server. After a reconnect it is a different client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct StoreClient(pub u32);

/// Inputs of the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum In {
    /// A request from a client, with an id that the reply repeats.
    Request(StoreClient, u64, StoreRequest),
    /// A client's connection was closed; its watches end.
    Closed(StoreClient),
}

/// A message from the store to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Out {
    /// The client.
    pub to: StoreClient,
    /// The message.
    pub msg: FromStore,
}

#[derive(Debug)]
struct Watch {
    /// The client that owns the watch, and the client's id for it.
    of: (StoreClient, WatchId),
    span: Span,
    from: Revision,
}

impl Watch {
    #[inline(always)]
    fn covers(&self, key: &StoreKey) -> bool {
        self.span.contains(key)
    }

    /// The part of a batch that this watch covers; `None` if it covers nothing of it.
    #[inline(always)]
    fn part_of(&self, batch: &Batch) -> Option<Batch> {
        let covered = batch.iter().filter(|e| self.covers(e.key())).count();
        match covered {
            0 => None,
            n if n == batch.len() => Some(batch.clone()),
            _ => Some(batch.iter().filter(|e| self.covers(e.key())).cloned().collect()),
        }
    }
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    expires: Mono,
    keys: BTreeSet<StoreKey>,
}

/// An in-memory MVCC store.
#[derive(Debug)]
pub struct MemoryStore {
    /// The newest state of objects, indexed by the number of their kind.
    objects: Vec<KeyMap<Rc<KeyValue>>>,
    /// The newest state of all other keys. In the order of [`StoreKey`] they come after every object.
    others: BTreeMap<StoreKey, Rc<KeyValue>>,
    /// Changes at and after `compacted`, oldest first.
    log: VecDeque<Batch>,
    revision: Revision,
    compacted: Revision,
    /// Sorted by client and id.
    watches: Vec<Watch>,
    /// How many revisions the last step created.
    latest: usize,
    /// Versions that nothing refers to any more. New versions reuse their memory, which is still in the cache.
    spare: Vec<Rc<KeyValue>>,
    /// Scratch space for the changes of the current revision.
    changes: Vec<StoreEvent>,
    leases: BTreeMap<LeaseId, Lease>,
    expiries: BTreeSet<(Mono, LeaseId)>,
    next_lease: NonZeroU64,
    /// Leases that the last step granted (with their TTL in seconds) or ended (`None`).
    leased: Vec<(LeaseId, Option<u64>)>,
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

/// Reads ahead the memory that dropping an event will touch.
#[inline]
fn read_ahead(event: &StoreEvent) {
    event.value.iter().for_each(touch_shared);
    if let Some(KeyValue { value: Stored::Object(object), .. }) = event.previous.as_deref() {
        object.read_ahead();
    }
}

/// Makes an object's metadata share the store's copy of its key.
fn share_key(kv: &KeyValue) {
    if let (StoreKey::Object(key), Stored::Object(object)) = (kv.key(), &kv.value) {
        object.meta().share_key(key);
    }
}

/// Allocates a version, reusing a spare one if there is any.
#[inline]
fn hold(spare: Option<Rc<KeyValue>>, version: KeyValue) -> Rc<KeyValue> {
    let Some(mut place) = spare else { return Rc::new(version) };
    *Rc::get_mut(&mut place).expect("a spare version is held once") = version;
    place
}

impl MemoryStore {
    /// Creates an empty store. Its revision is 1, as in etcd.
    pub fn new() -> MemoryStore {
        MemoryStore {
            objects: Vec::new(),
            others: BTreeMap::new(),
            log: VecDeque::new(),
            revision: Revision(1),
            compacted: Revision(0),
            watches: Vec::new(),
            latest: 0,
            spare: Vec::new(),
            changes: Vec::new(),
            leases: BTreeMap::new(),
            expiries: BTreeSet::new(),
            next_lease: NonZeroU64::MIN,
            leased: Vec::new(),
        }
    }

    /// Creates a store with the state of another store at a revision. Everything earlier counts as compacted: the store
    /// can be read at this revision and watched from the next one. Leases start a new TTL, as in etcd after a restart.
    /// Each key must occur once, and none may be newer than `revision`.
    pub fn restore(
        now: Now,
        revision: Revision,
        next_lease: LeaseId,
        leases: impl IntoIterator<Item = (LeaseId, u64)>,
        values: impl IntoIterator<Item = KeyValue>,
    ) -> MemoryStore {
        let next_lease = next_lease.0;
        let mut store = MemoryStore { revision, compacted: revision, next_lease, ..MemoryStore::new() };
        leases.into_iter().for_each(|(lease, ttl)| store.replay_lease(now, lease, ttl));
        for kv in values {
            assert!(kv.mod_revision() <= revision, "{:?} is newer than {revision:?}", kv.key());
            share_key(&kv);
            let (key, lease) = (kv.key().clone(), kv.entry.lease);
            match &key {
                StoreKey::Object(key) => drop(store.of_kind_mut(key.kind).put(key, Rc::new(kv))),
                StoreKey::Fence(_) | StoreKey::Private(_) => drop(store.others.insert(key.clone(), Rc::new(kv))),
            }
            store.attach(lease, key);
        }
        store
    }

    /// Replays a commit that another store made at the next revision, without a reply or an event. The replayed history
    /// can be read and watched as if the commit had been made here. Returns `Err` with the expected revision if
    /// `revision` is not the next one: a commit is then missing or was already replayed.
    pub fn replay(&mut self, revision: Revision, ops: impl IntoIterator<Item = Op>) -> Result<(), Revision> {
        let next = Revision(self.revision.0 + 1);
        if revision != next {
            return Err(next);
        }
        for op in ops {
            match op {
                Op::Put { key, value, lease } => self.put(revision, key, value, lease),
                Op::Delete { key } => self.delete(revision, &key),
                Op::Get { .. } => {}
            }
        }
        self.revision = revision;
        self.publish(&mut Vec::new());
        Ok(())
    }

    /// Replays a lease that another store granted; new leases get larger ids.
    pub fn replay_lease(&mut self, now: Now, lease: LeaseId, ttl_seconds: u64) {
        let ttl = Duration::from_secs(ttl_seconds);
        let expires = now.mono + ttl;
        self.leases.insert(lease, Lease { ttl, expires, keys: BTreeSet::new() });
        self.expiries.insert((expires, lease));
        self.next_lease = self.next_lease.max(lease.0.checked_add(1).expect("leases are numbered"));
    }

    /// Replays the end of a lease in another store, after its keys were deleted.
    pub fn replay_revoked(&mut self, lease: LeaseId) {
        if let Some(ended) = self.leases.remove(&lease) {
            self.expiries.remove(&(ended.expires, lease));
        }
    }

    /// Replays a compaction of another store if it goes further than the restored state.
    pub fn replay_compaction(&mut self, at: Revision) {
        self.compacted = self.compacted.max(at.min(self.revision));
    }

    /// Leases and their TTLs in seconds.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, u64)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl.as_secs()))
    }

    /// The id of the next lease to be granted.
    pub fn next_lease(&self) -> LeaseId {
        LeaseId(self.next_lease)
    }

    /// What the last call of `handle` or `handle_timeout` did to leases: those that it granted, with their TTL in
    /// seconds, and those that it ended (`None`).
    pub fn just_leased(&self) -> &[(LeaseId, Option<u64>)] {
        &self.leased
    }

    /// Revision of the newest change.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that can still be read.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// How many revisions are kept for reads and watches.
    pub fn history_len(&self) -> usize {
        self.log.len() - self.log.partition_point(|batch| batch[0].revision < self.compacted)
    }

    fn of_kind(&self, kind: Kind) -> Option<&KeyMap<Rc<KeyValue>>> {
        self.objects.get(usize::from(kind.0))
    }

    fn of_kind_mut(&mut self, kind: Kind) -> &mut KeyMap<Rc<KeyValue>> {
        let kind = usize::from(kind.0);
        if kind >= self.objects.len() {
            self.objects.resize_with(kind + 1, KeyMap::default);
        }
        &mut self.objects[kind]
    }

    /// The newest value of a key.
    #[inline(always)]
    pub fn get(&self, key: &StoreKey) -> Option<&Rc<KeyValue>> {
        match key {
            StoreKey::Object(key) => self.of_kind(key.kind)?.get(key),
            StoreKey::Fence(_) | StoreKey::Private(_) => self.others.get(key),
        }
    }

    /// The newest state of an object.
    pub fn object(&self, key: &ObjectKey) -> Option<&Object> {
        match &self.of_kind(key.kind)?.get(key)?.value {
            Stored::Object(o) => Some(o),
            Stored::Mark(..) => None,
        }
    }

    /// Reads ahead the memory that writes of these objects will touch.
    pub fn read_ahead(&self, keys: &[&ObjectKey], step: Step) {
        for key in keys {
            match self.of_kind(key.kind).and_then(|map| map.read_ahead(key, step)) {
                Some(kv) if step == Step::Parts => touch_shared(&kv.entry),
                Some(kv) => touch(&kv.version),
                None => {}
            }
        }
    }

    /// The newest values in `start..end`, in order.
    pub fn range<'a>(&'a self, start: &StoreKey, end: &StoreKey) -> impl Iterator<Item = &'a Rc<KeyValue>> + use<'a> {
        // Objects sort before all other keys, so a bound that is not an object lies after all objects.
        let bound = |key: &StoreKey| match key {
            StoreKey::Object(key) => key.clone(),
            StoreKey::Fence(_) | StoreKey::Private(_) => ObjectKey::range_start(Kind(u16::MAX), ""),
        };
        let (first, last) = (bound(start), bound(end));
        let number = |kind: Kind| usize::from(kind.0).min(self.objects.len());
        let (from, to) = (number(first.kind), number(Kind(last.kind.0.saturating_add(1))));
        let kinds = if start < end { &self.objects[from..to] } else { &[] };
        let objects = kinds.iter().flat_map(move |map| map.range(first.clone()..last.clone()));
        let others = (start < end).then(|| self.others.range(start.clone()..end.clone()));
        objects.map(|(_, kv)| kv).chain(others.into_iter().flatten().map(|(_, kv)| kv))
    }

    /// Changes after `revision` that have not been compacted, oldest first. For observers; the cost is proportional to
    /// the number of changes.
    pub fn changes_after(&self, revision: Revision) -> Vec<StoreEvent> {
        self.batches_after(revision).flat_map(|batch| batch.iter().cloned()).collect()
    }

    /// What the last call of `handle` or `handle_timeout` changed, one batch per revision. For observers; free of cost.
    pub fn just_changed(&self) -> impl Iterator<Item = &Batch> {
        self.log.range(self.log.len() - self.latest..)
    }

    /// The newest state of every object of a kind, in key order.
    pub fn objects(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        let entries = self.of_kind(kind).into_iter().flat_map(KeyMap::iter);
        entries.filter_map(|(key, kv)| match &kv.value {
            Stored::Object(object) => Some((key, object)),
            Stored::Mark(..) => None,
        })
    }

    #[inline]
    fn request(&mut self, now: Now, from: StoreClient, id: u64, request: StoreRequest, out: &mut Vec<Out>) {
        let mut history = None;
        let reply = match request {
            StoreRequest::Txn(txn) => self.txn(*txn),
            StoreRequest::Range { span, at, limit } => self.read_range(&span.start, &span.end, at, limit),
            StoreRequest::Watch { watch, span, from: revision } => {
                let reply = self.watch(from, watch, *span, revision);
                history = matches!(reply, StoreReply::Watching { .. }).then_some(watch);
                reply
            }
            StoreRequest::CancelWatch { watch } => {
                self.watches.retain(|w| w.of != (from, watch));
                StoreReply::WatchCanceled { watch, compacted: None }
            }
            StoreRequest::Compact { at } => self.compact(at),
            StoreRequest::LeaseGrant { ttl_seconds } => self.grant(now, ttl_seconds),
            StoreRequest::LeaseKeepAlive { lease } => self.keep_alive(now, lease),
            StoreRequest::LeaseRevoke { lease } => {
                if self.revoke(lease) {
                    StoreReply::Revoked { revision: self.revision }
                } else {
                    StoreReply::Error(StoreError::LeaseNotFound)
                }
            }
            StoreRequest::Progress => {
                self.progress(from, out);
                StoreReply::ProgressAsked
            }
            StoreRequest::Revision => StoreReply::Revision { revision: self.revision },
        };
        out.push(Out { to: from, msg: FromStore::Reply(id, reply) });
        if let Some(watch) = history {
            self.send_history(from, watch, out);
        }
        self.publish(out);
    }

    #[inline(always)]
    fn txn(&mut self, txn: Txn) -> StoreReply {
        let succeeded = txn.compare.iter().all(|c| self.holds(c));
        let ops = if succeeded { txn.success } else { txn.failure.into() };
        let lacks = |op: &Op| matches!(op, Op::Put { lease: Some(lease), .. } if !self.leases.contains_key(lease));
        if ops.iter().any(lacks) {
            return StoreReply::Error(StoreError::LeaseNotFound);
        }
        let revision = Revision(self.revision.0 + 1);
        let mut results = Vec::new();
        for op in ops {
            match op {
                Op::Get { key } => results.push(self.get(&key).cloned()),
                Op::Put { key, value, lease } => self.put(revision, key, value, lease),
                Op::Delete { key } => self.delete(revision, &key),
            }
        }
        if !self.changes.is_empty() {
            self.revision = revision;
        }
        StoreReply::Txn { revision: self.revision, succeeded, results }
    }

    #[inline(always)]
    fn holds(&self, compare: &Compare) -> bool {
        let (Compare::ModRevision(key, _) | Compare::CreateRevision(key, _) | Compare::Version(key, _)) = compare;
        let kv = self.get(key);
        match compare {
            Compare::ModRevision(_, want) => kv.map_or(Revision(0), |kv| kv.mod_revision()) == *want,
            Compare::CreateRevision(_, want) => kv.map_or(Revision(0), |kv| kv.entry.create_revision) == *want,
            Compare::Version(_, want) => kv.map_or(0, |kv| kv.version) == *want,
        }
    }

    #[inline(always)]
    fn put(&mut self, revision: Revision, key: StoreKey, mut value: Stored, lease: Option<LeaseId>) {
        value.set_revision(revision);
        let spare = self.spare.pop();
        let place = match &key {
            StoreKey::Object(key) => self.of_kind_mut(key.kind).get_mut(key),
            StoreKey::Fence(_) | StoreKey::Private(_) => self.others.get_mut(&key),
        };
        let Some(place) = place else { return self.put_new(spare, revision, key, value, lease) };
        let old = &**place;
        let same = old.entry.lease == lease;
        let entry = if same { Rc::clone(&old.entry) } else { Rc::new(Entry { lease, ..Entry::clone(&old.entry) }) };
        let new = hold(spare, KeyValue { version: old.version + 1, value, entry });
        share_key(&new);
        let previous = std::mem::replace(place, Rc::clone(&new));
        if !same {
            self.detach(previous.entry.lease, &key);
            self.attach(lease, key);
        }
        self.record(StoreEvent { entry: Rc::clone(&new.entry), value: Some(new), previous: Some(previous), revision });
    }

    fn put_new(
        &mut self,
        spare: Option<Rc<KeyValue>>,
        revision: Revision,
        key: StoreKey,
        value: Stored,
        lease: Option<LeaseId>,
    ) {
        let entry = Rc::new(Entry { key: key.clone(), create_revision: revision, lease });
        let new = hold(spare, KeyValue { version: 1, value, entry });
        share_key(&new);
        match &key {
            StoreKey::Object(key) => drop(self.of_kind_mut(key.kind).insert_new(key.clone(), Rc::clone(&new))),
            StoreKey::Fence(_) | StoreKey::Private(_) => drop(self.others.insert(key.clone(), Rc::clone(&new))),
        }
        self.attach(lease, key);
        self.record(StoreEvent { entry: Rc::clone(&new.entry), value: Some(new), previous: None, revision });
    }

    fn delete(&mut self, revision: Revision, key: &StoreKey) {
        let previous = match key {
            StoreKey::Object(key) => self.of_kind_mut(key.kind).remove(key),
            StoreKey::Fence(_) | StoreKey::Private(_) => self.others.remove(key),
        };
        let Some(previous) = previous else { return };
        self.detach(previous.entry.lease, key);
        self.record(StoreEvent { entry: Rc::clone(&previous.entry), value: None, previous: Some(previous), revision });
    }

    fn attach(&mut self, lease: Option<LeaseId>, key: StoreKey) {
        if let Some(lease) = lease.and_then(|l| self.leases.get_mut(&l)) {
            lease.keys.insert(key);
        }
    }

    fn detach(&mut self, lease: Option<LeaseId>, key: &StoreKey) {
        if let Some(lease) = lease.and_then(|l| self.leases.get_mut(&l)) {
            lease.keys.remove(key);
        }
    }

    #[inline(always)]
    fn record(&mut self, event: StoreEvent) {
        // etcd rejects such a transaction; sending one is a bug in the client.
        let twice = self.changes.iter().any(|c| c.key() == event.key());
        assert!(!twice, "duplicate key given in txn request: {:?}", event.key());
        self.changes.push(event);
    }

    /// The changes after `revision`, oldest first.
    fn batches_after(&self, revision: Revision) -> impl Iterator<Item = &Batch> {
        self.log.range(self.log.partition_point(|batch| batch[0].revision <= revision)..)
    }

    /// How the state of `start..end` at revision `at` differs from the newest state.
    fn differences(
        &self,
        start: &StoreKey,
        end: &StoreKey,
        at: Revision,
    ) -> BTreeMap<&StoreKey, Option<&Rc<KeyValue>>> {
        let mut differences = BTreeMap::new();
        let later = self.batches_after(at).flat_map(|batch| batch.iter());
        for event in later.filter(|e| e.key() >= start && e.key() < end) {
            // The first change after `at` replaced the value at `at`.
            differences.entry(event.key()).or_insert(event.previous.as_ref());
        }
        differences
    }

    fn read_range(&self, start: &StoreKey, end: &StoreKey, at: Option<Revision>, limit: usize) -> StoreReply {
        let at = at.filter(|r| r.0 != 0).unwrap_or(self.revision);
        if at > self.revision {
            return StoreReply::Error(StoreError::FutureRevision { newest: self.revision });
        }
        if at < self.compacted {
            return StoreReply::Error(StoreError::Compacted { oldest: self.compacted });
        }
        let mut past = self.differences(start, end, at).into_iter().peekable();
        let mut present = self.range(start, end).peekable();
        let (mut kvs, mut count) = (Vec::new(), 0u64);
        loop {
            // If both have a key, the past value counts; a key that did not exist then is skipped.
            let order = match (past.peek(), present.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((key, _)), Some(kv)) => (*key).cmp(kv.key()),
            };
            let new = if order.is_ge() { present.next() } else { None };
            let kv = if order.is_le() { past.next().and_then(|(_, old)| old) } else { new };
            if let Some(kv) = kv {
                count += 1;
                if limit == 0 || kvs.len() < limit {
                    kvs.push(kv.clone());
                }
            }
        }
        let more = count > kvs.len() as u64;
        StoreReply::Range { revision: self.revision, kvs, more, count }
    }

    fn watch(&mut self, client: StoreClient, watch: WatchId, span: Span, from: Revision) -> StoreReply {
        let from = if from.0 == 0 { Revision(self.revision.0 + 1) } else { from };
        if from < self.compacted {
            return StoreReply::WatchCanceled { watch, compacted: Some(self.compacted) };
        }
        let new = Watch { of: (client, watch), span, from };
        match self.watches.binary_search_by_key(&new.of, |w| w.of) {
            Ok(at) => self.watches[at] = new,
            Err(at) => self.watches.insert(at, new),
        }
        StoreReply::Watching { revision: Revision(from.0 - 1), watch }
    }

    /// Sends the past events that a new watch asked for.
    fn send_history(&self, client: StoreClient, id: WatchId, out: &mut Vec<Out>) {
        let Some(watch) = self.watches.iter().find(|w| w.of == (client, id)) else { return };
        for batch in self.batches_after(Revision(watch.from.0 - 1)) {
            if let Some(events) = watch.part_of(batch) {
                let msg = FromStore::Events { watch: id, revision: batch[0].revision, events };
                out.push(Out { to: client, msg });
            }
        }
    }

    /// Ends the current revision: its changes go into the history and to the watches.
    #[inline(always)]
    fn publish(&mut self, out: &mut Vec<Out>) {
        let Some(first) = self.changes.first() else { return };
        let revision = first.revision;
        let batch = Batch::take(&mut self.changes);
        for watch in self.watches.iter().filter(|watch| revision >= watch.from) {
            if let Some(events) = watch.part_of(&batch) {
                let (to, id) = watch.of;
                out.push(Out { to, msg: FromStore::Events { watch: id, revision, events } });
            }
        }
        self.latest += 1;
        self.log.push_back(batch);
        if revision.0.is_multiple_of(limits::FORGOTTEN_AT_ONCE as u64 / 2) {
            self.forget_some();
        }
    }

    /// Drops some of the compacted history, twice as much as was added since the last call. The memory is reused while
    /// it is still in the cache, and no step has to wait for all of it; etcd's compaction deletes in small batches as
    /// well.
    fn forget_some(&mut self) {
        let gone = |log: &VecDeque<Batch>| log.front().is_some_and(|batch| batch[0].revision < self.compacted);
        if !gone(&self.log) {
            return;
        }
        let some = limits::FORGOTTEN_AT_ONCE;
        self.log.iter().take(some).for_each(|batch| batch.iter().for_each(read_ahead));
        for _ in 0..some {
            if !gone(&self.log) {
                break;
            }
            let batch = self.log.pop_front().expect("it is there as of the line before");
            let previous = batch.into_one().and_then(|event| event.previous);
            self.spare.extend(previous.filter(|kv| self.spare.len() < some && Rc::strong_count(kv) == 1));
        }
    }

    fn progress(&self, client: StoreClient, out: &mut Vec<Out>) {
        let watches = self.watches.iter().map(|watch| watch.of).filter(|(to, _)| *to == client);
        let none = Batch::from_iter([]);
        for (to, watch) in watches {
            let msg = FromStore::Events { watch, revision: self.revision, events: none.clone() };
            out.push(Out { to, msg });
        }
    }

    fn compact(&mut self, at: Revision) -> StoreReply {
        if at > self.revision {
            return StoreReply::Error(StoreError::FutureRevision { newest: self.revision });
        }
        if at <= self.compacted {
            return StoreReply::Error(StoreError::Compacted { oldest: self.compacted });
        }
        self.compacted = at;
        if self.log.capacity() > 4 * self.log.len().max(1024) {
            self.log.shrink_to_fit();
        }
        StoreReply::Compacted { revision: self.revision }
    }

    fn grant(&mut self, now: Now, ttl_seconds: u64) -> StoreReply {
        let ttl_seconds = ttl_seconds.max(1);
        let ttl = Duration::from_secs(ttl_seconds);
        let lease = LeaseId(self.next_lease);
        self.next_lease = self.next_lease.checked_add(1).expect("leases are numbered");
        let expires = now.mono + ttl;
        self.leases.insert(lease, Lease { ttl, expires, keys: BTreeSet::new() });
        self.expiries.insert((expires, lease));
        self.leased.push((lease, Some(ttl_seconds)));
        StoreReply::Lease { revision: self.revision, lease, ttl_seconds }
    }

    fn keep_alive(&mut self, now: Now, id: LeaseId) -> StoreReply {
        let Some(lease) = self.leases.get_mut(&id) else { return StoreReply::Error(StoreError::LeaseNotFound) };
        self.expiries.remove(&(lease.expires, id));
        lease.expires = now.mono + lease.ttl;
        self.expiries.insert((lease.expires, id));
        StoreReply::Lease { revision: self.revision, lease: id, ttl_seconds: lease.ttl.as_secs() }
    }

    /// Ends a lease; all its keys are deleted at one revision.
    fn revoke(&mut self, id: LeaseId) -> bool {
        let Some(lease) = self.leases.remove(&id) else { return false };
        self.expiries.remove(&(lease.expires, id));
        self.leased.push((id, None));
        let revision = Revision(self.revision.0 + 1);
        for key in &lease.keys {
            self.delete(revision, key);
        }
        if !self.changes.is_empty() {
            self.revision = revision;
        }
        true
    }
}

impl Machine for MemoryStore {
    type In = In;
    type Out = Out;

    fn handle(&mut self, now: Now, input: In, out: &mut Vec<Out>) {
        self.latest = 0;
        self.leased.clear();
        match input {
            In::Request(from, id, request) => self.request(now, from, id, request, out),
            In::Closed(client) => self.watches.retain(|watch| watch.of.0 != client),
        }
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        self.latest = 0;
        self.leased.clear();
        while let Some((at, lease)) = self.expiries.first().copied()
            && at <= now.mono
        {
            let known = self.revoke(lease);
            assert!(known, "an expiry names a lease");
            self.publish(out);
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.expiries.first().map(|(at, _)| Deadline { at: *at, why: "lease expires" })
    }
}
