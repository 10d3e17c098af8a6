//! The store in memory: etcd's semantics for simulations, tests and benchmarks.
//!
//! What comes in: requests of the store's clients ([`In`]). What goes out: replies and watch events ([`Out`]), a reply
//! before the events of the change that it reports. What never happens: a revision with no change, a change without a
//! revision, or a watch that sees half of a revision.
//!
//! The newest state is one ordered map per kind. Of the past it keeps the events from the last compaction on, the very
//! ones that went to the watches; an old revision is the newest state with the later changes taken back. Time only ends
//! leases.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use super::{
    Batch, Compare, Entry, FromStore, KeyValue, LeaseId, Op, Span, StoreError, StoreEvent, StoreKey, StoreReply,
    StoreRequest, Stored, Txn, WatchId,
};
use crate::limits;
use crate::machine::{Deadline, Machine, Mono, Now};
use crate::object::{KeyMap, Kind, Object, ObjectKey, Revision};
use crate::read_ahead::{Step, touch, touch_shared};

/// Names a client of the store: one connection of one API server. A reconnect is another client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct StoreClient(pub u32);

/// What the store can be told.
#[derive(Clone, Debug, PartialEq)]
pub enum In {
    /// A client asks, with an id that the reply will carry.
    Request(StoreClient, u64, StoreRequest),
    /// A client's connection broke; its watches end.
    Closed(StoreClient),
}

/// What the store says, and to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Out {
    /// The client.
    pub to: StoreClient,
    /// The message.
    pub msg: FromStore,
}

#[derive(Debug)]
struct Watch {
    /// Whose it is, and its name there.
    of: (StoreClient, WatchId),
    span: Span,
    from: Revision,
}

impl Watch {
    #[inline(always)]
    fn covers(&self, key: &StoreKey) -> bool {
        self.span.contains(key)
    }

    /// What of a revision it covers, if anything.
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

/// An MVCC store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    /// The newest state of objects, by the number of their kind.
    objects: Vec<KeyMap<Rc<KeyValue>>>,
    /// The newest state of everything else. In the order of [`StoreKey`] it comes after every object.
    others: BTreeMap<StoreKey, Rc<KeyValue>>,
    /// Changes at and after `compacted`, oldest first.
    log: VecDeque<Batch>,
    revision: Revision,
    compacted: Revision,
    /// In order of their clients and ids.
    watches: Vec<Watch>,
    /// How many revisions the last step made.
    latest: usize,
    /// Versions that nobody holds any more: the next ones take their places in memory, which are near.
    spare: Vec<Rc<KeyValue>>,
    /// Scratch: the changes of the revision in the making.
    changes: Vec<StoreEvent>,
    leases: BTreeMap<LeaseId, Lease>,
    expiries: BTreeSet<(Mono, LeaseId)>,
    next_lease: NonZeroU64,
    /// Leases that the last step granted (with their TTL in seconds) or ended.
    leased: Vec<(LeaseId, Option<u64>)>,
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

/// Reads what the end of an event will touch.
#[inline]
fn read_ahead(event: &StoreEvent) {
    event.value.iter().for_each(touch_shared);
    if let Some(KeyValue { value: Stored::Object(object), .. }) = event.previous.as_deref() {
        object.read_ahead();
    }
}

/// Lets an object's metadata hold the same copy of the key as the store does.
fn share_key(kv: &KeyValue) {
    if let (StoreKey::Object(key), Stored::Object(object)) = (kv.key(), &kv.value) {
        object.meta().share_key(key);
    }
}

/// Holds a version, in the place of a spare one if there is any.
#[inline]
fn hold(spare: Option<Rc<KeyValue>>, version: KeyValue) -> Rc<KeyValue> {
    let Some(mut place) = spare else { return Rc::new(version) };
    *Rc::get_mut(&mut place).expect("a spare version is held once") = version;
    place
}

impl MemoryStore {
    /// An empty store. Its revision is 1, as etcd's is.
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

    /// A store with the state of another one at a revision. What was before is compacted away: it can be read at this
    /// revision and watched from the next one on. Leases begin anew, as with etcd after a restart. Keys are of one
    /// version each, none newer than `revision`.
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

    /// Does again what another store has committed at the next revision, without an answer or an event. Reading and
    /// watching from before it is possible as if it had been done here. `Err` with the next revision if this is not it:
    /// then something is missing, or was there already.
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

    /// A lease that another store has granted: the next one has a later name.
    pub fn replay_lease(&mut self, now: Now, lease: LeaseId, ttl_seconds: u64) {
        let ttl = Duration::from_secs(ttl_seconds);
        let expires = now.mono + ttl;
        self.leases.insert(lease, Lease { ttl, expires, keys: BTreeSet::new() });
        self.expiries.insert((expires, lease));
        self.next_lease = self.next_lease.max(lease.0.checked_add(1).expect("leases are numbered"));
    }

    /// A lease that another store has ended, after its keys were deleted.
    pub fn replay_revoked(&mut self, lease: LeaseId) {
        if let Some(ended) = self.leases.remove(&lease) {
            self.expiries.remove(&(ended.expires, lease));
        }
    }

    /// A compaction of another store, as far as it goes further than what was restored.
    pub fn replay_compaction(&mut self, at: Revision) {
        self.compacted = self.compacted.max(at.min(self.revision));
    }

    /// Leases and their TTLs in seconds.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, u64)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl.as_secs()))
    }

    /// The lease that is granted next.
    pub fn next_lease(&self) -> LeaseId {
        LeaseId(self.next_lease)
    }

    /// What the last call of `handle` or `handle_timeout` did to leases: those that it granted, with their TTL in
    /// seconds, and those that it ended.
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

    /// How many revisions are kept for reading and watching.
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

    /// Reads what writes of these objects will touch.
    pub fn read_ahead(&self, keys: &[&ObjectKey], step: Step) {
        for key in keys {
            match self.of_kind(key.kind).and_then(|map| map.read_ahead(key, step)) {
                Some(kv) if step == Step::Parts => touch_shared(&kv.entry),
                Some(kv) => touch(&kv.version),
                None => {}
            }
        }
    }

    /// The newest values of `start..end`, in order.
    pub fn range<'a>(&'a self, start: &StoreKey, end: &StoreKey) -> impl Iterator<Item = &'a Rc<KeyValue>> + use<'a> {
        // Objects come first in the order of keys: a bound that is none ends or begins behind all of them.
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

    /// Changes after `revision`, oldest first, as far as they have not been compacted away. For observers: costs what
    /// has changed since.
    pub fn changes_after(&self, revision: Revision) -> Vec<StoreEvent> {
        self.batches_after(revision).flat_map(|batch| batch.iter().cloned()).collect()
    }

    /// What the last call of `handle` or `handle_timeout` changed, a batch a revision. For observers: costs nothing.
    pub fn just_changed(&self) -> impl Iterator<Item = &Batch> {
        self.log.range(self.log.len() - self.latest..)
    }

    /// The newest state of every object of a kind, in order of their keys.
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
        // etcd refuses such a transaction; whoever sends one has a bug.
        let twice = self.changes.iter().any(|c| c.key() == event.key());
        assert!(!twice, "duplicate key given in txn request: {:?}", event.key());
        self.changes.push(event);
    }

    /// The changes after `revision`, oldest first.
    fn batches_after(&self, revision: Revision) -> impl Iterator<Item = &Batch> {
        self.log.range(self.log.partition_point(|batch| batch[0].revision <= revision)..)
    }

    /// The state of `start..end` as it was at `at`, in terms of what differs from the newest state.
    fn differences(
        &self,
        start: &StoreKey,
        end: &StoreKey,
        at: Revision,
    ) -> BTreeMap<&StoreKey, Option<&Rc<KeyValue>>> {
        let mut differences = BTreeMap::new();
        let later = self.batches_after(at).flat_map(|batch| batch.iter());
        for event in later.filter(|e| e.key() >= start && e.key() < end) {
            // The first change after `at` replaced what was there then.
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
            // Where both know a key, the past decides; a key that was not there then is skipped.
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

    /// Sends what a new watch has missed.
    fn send_history(&self, client: StoreClient, id: WatchId, out: &mut Vec<Out>) {
        let Some(watch) = self.watches.iter().find(|w| w.of == (client, id)) else { return };
        for batch in self.batches_after(Revision(watch.from.0 - 1)) {
            if let Some(events) = watch.part_of(batch) {
                let msg = FromStore::Events { watch: id, revision: batch[0].revision, events };
                out.push(Out { to: client, msg });
            }
        }
    }

    /// Closes the revision in the making: what it changed goes into the history and to the watches.
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

    /// Lets go of some of what has been compacted away, twice as much as has come since the last time. Their memory is
    /// used again while it is near, and no step waits for all of it; etcd's compaction deletes bit by bit as well.
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

    /// Ends a lease; all its keys go at one revision.
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
