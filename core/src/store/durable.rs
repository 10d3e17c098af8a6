//! The durable store without its files: the in-memory store, plus the bytes that must be safe on disk before any client
//! learns of a change.
//!
//! What comes in: the inputs of the in-memory store. What goes out: its outputs, and bytes for the journal. Never
//! replies about a change without handing out the bytes of that change in the same call.
//!
//! Call order: [`recover`](DurableStore::recover) from the newest complete snapshot and the journals after it. Then
//! [`handle`](DurableStore::handle) and [`handle_timeout`](DurableStore::handle_timeout): after each call, the driver
//! must append the bytes to the journal and wait until they are safe before it sends the messages. From time to time
//! [`snapshot`](DurableStore::snapshot) into a new file, then start a new journal, then delete the old files.

use std::fmt;
use std::rc::Rc;

use super::codec::{self, Codec, CodecError};
use super::journal::{self, Change, NotAJournal, Reader, Record, Tail, Value};
use super::{Batch, Entry, In, KeyValue, MemoryStore, Op, Out, everything};
use crate::machine::{Deadline, Machine, Now};
use crate::object::{Kinds, Revision};

/// An in-memory store that also returns what must be written to the journal.
#[derive(Debug, Default)]
pub struct DurableStore {
    store: MemoryStore,
    kinds: Kinds,
}

/// Result of reading a snapshot and a journal.
#[derive(Debug)]
pub struct Recovered {
    /// The recovered store.
    pub store: DurableStore,
    /// Where the journal must be truncated before anything is appended; zero means that it must be started anew.
    pub end: usize,
    /// How the journal's bytes end, and so what the truncation removes.
    pub tail: Tail,
    /// How many commits of the journal were replayed.
    pub replayed: usize,
}

/// Why a store cannot be recovered. Nothing has been changed; an operator must decide.
#[derive(Debug)]
pub enum RecoveryError {
    /// A file is not a journal.
    NotAJournal(NotAJournal),
    /// The snapshot is not complete.
    Snapshot(Tail),
    /// The journal is damaged before its end, or was written by a newer version: truncating it would lose acknowledged
    /// changes.
    Journal(Tail),
    /// A commit is missing between the snapshot and the journal.
    Gap {
        /// The expected next revision.
        expected: Revision,
        /// The revision that was found.
        found: Revision,
    },
    /// A key or value cannot be decoded.
    Codec(CodecError),
    /// A record is in a place where it is not allowed.
    OutOfPlace(&'static str),
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryError::NotAJournal(error) => error.fmt(f),
            RecoveryError::Snapshot(tail) => write!(f, "the snapshot is not complete: {tail}"),
            RecoveryError::Journal(tail) => tail.fmt(f),
            RecoveryError::Gap { expected, found } => {
                write!(f, "the journal goes on at revision {found}, and the state before it ends before {expected}")
            }
            RecoveryError::Codec(error) => error.fmt(f),
            RecoveryError::OutOfPlace(what) => write!(f, "{what} stands where it does not belong"),
        }
    }
}

impl std::error::Error for RecoveryError {}

impl From<CodecError> for RecoveryError {
    fn from(error: CodecError) -> RecoveryError {
        RecoveryError::Codec(error)
    }
}

impl From<NotAJournal> for RecoveryError {
    fn from(error: NotAJournal) -> RecoveryError {
        RecoveryError::NotAJournal(error)
    }
}

impl DurableStore {
    /// Recovers the store from a snapshot (`None`: an empty store) and the journal that was written since the snapshot
    /// or earlier. An incomplete last record was never acknowledged and is discarded.
    pub fn recover(
        now: Now,
        codec: &mut Codec,
        snapshot: Option<&[u8]>,
        journal: &[u8],
    ) -> Result<Recovered, RecoveryError> {
        let mut store = match snapshot {
            Some(bytes) => read_snapshot(now, codec, bytes)?,
            None => MemoryStore::new(),
        };
        let (mut reader, mut replayed) = (Reader::new(journal)?, 0);
        for record in reader.by_ref() {
            replayed += usize::from(replay(now, codec, &mut store, record)?);
        }
        match reader.tail() {
            Tail::Clean | Tail::Torn { .. } | Tail::Corrupt { records_after: 0, .. } => {}
            lost => return Err(RecoveryError::Journal(lost.clone())),
        }
        Ok(Recovered {
            store: DurableStore { store, kinds: codec.kinds().clone() },
            end: reader.end(),
            tail: reader.tail().clone(),
            replayed,
        })
    }

    /// The in-memory store, for observers.
    pub fn memory(&self) -> &MemoryStore {
        &self.store
    }

    /// Handles an input. The bytes, which may be empty, must be safe on disk before any of the messages is sent.
    pub fn handle(&mut self, now: Now, input: In, out: &mut Vec<Out>, bytes: &mut Vec<u8>) {
        let compacted = self.store.compacted();
        self.store.handle(now, input, out);
        self.write_down(compacted, bytes);
    }

    /// Ends expired leases; otherwise as [`handle`](Self::handle).
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>, bytes: &mut Vec<u8>) {
        let compacted = self.store.compacted();
        self.store.handle_timeout(now, out);
        self.write_down(compacted, bytes);
    }

    /// When the next lease expires.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.store.poll_timeout()
    }

    /// The whole state as the contents of a file, in pieces of a few records each.
    pub fn snapshot(&self) -> impl Iterator<Item = Vec<u8>> {
        let store = &self.store;
        let mut first = Vec::new();
        journal::begin(&mut first);
        journal::append(&mut first, &Record::Snapshot { revision: store.revision(), next_lease: store.next_lease() });
        let mut records = 1;
        for (lease, ttl_seconds) in store.leases() {
            journal::append(&mut first, &Record::Lease { lease, ttl_seconds });
            records += 1;
        }
        let all = everything();
        let values = store.range(&all.start, &all.end).map(|kv| value_record(&self.kinds, kv));
        let last = std::iter::once_with(move || {
            let mut last = Vec::new();
            let values = store.range(&all.start, &all.end).count() as u64;
            journal::append(&mut last, &Record::Complete { records: records + values });
            last
        });
        std::iter::once(first).chain(values).chain(last)
    }

    /// Appends what the last step did. The end of a lease is recorded after the deletion of its keys: if the machine
    /// stops in between, the lease expires again.
    fn write_down(&self, compacted: Revision, bytes: &mut Vec<u8>) {
        self.store.just_changed().for_each(|batch| append_commit(&self.kinds, bytes, batch));
        for (lease, ttl_seconds) in self.store.just_leased() {
            let record = match *ttl_seconds {
                Some(ttl_seconds) => Record::Lease { lease: *lease, ttl_seconds },
                None => Record::Revoked { lease: *lease },
            };
            journal::append(bytes, &record);
        }
        if self.store.compacted() != compacted {
            journal::append(bytes, &Record::Compacted { revision: self.store.compacted() });
        }
    }
}

fn append_commit(kinds: &Kinds, bytes: &mut Vec<u8>, batch: &Batch) {
    let revision = batch.first().expect("a commit changes something").revision;
    let keys: Vec<Vec<u8>> = batch.iter().map(|event| codec::encode_key(kinds, event.key())).collect();
    let values: Vec<_> = batch.iter().map(|event| event.value.as_ref().map(|kv| codec::encode(&kv.value))).collect();
    let parts = batch.iter().zip(&keys).zip(&values);
    let changes = parts.map(|((event, key), value)| match (&event.value, value) {
        (Some(kv), Some(value)) => Change::Put { key, value, lease: kv.entry.lease },
        _ => Change::Delete { key },
    });
    let changes = changes.collect();
    journal::append(bytes, &Record::Commit { revision, changes });
}

fn value_record(kinds: &Kinds, kv: &Rc<KeyValue>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (key, value) = (codec::encode_key(kinds, kv.key()), codec::encode(&kv.value));
    let value = Value {
        key: &key,
        value: &value,
        create_revision: kv.entry.create_revision,
        mod_revision: kv.mod_revision(),
        version: kv.version,
        lease: kv.entry.lease,
    };
    journal::append(&mut bytes, &Record::Value(value));
    bytes
}

fn read_snapshot(now: Now, codec: &mut Codec, bytes: &[u8]) -> Result<MemoryStore, RecoveryError> {
    // Completeness is checked before anything is decoded, so that no data is in memory twice.
    let mut reader = Reader::new(bytes)?;
    let (mut records, mut complete) = (0, false);
    for record in reader.by_ref() {
        complete = matches!(record, Record::Complete { records: n } if n == records);
        records += 1;
    }
    if !complete || *reader.tail() != Tail::Clean {
        return Err(RecoveryError::Snapshot(reader.tail().clone()));
    }
    let (mut revision, mut next_lease, mut leases) = (Revision(0), None, Vec::new());
    let mut failed = None;
    let mut values = Reader::new(bytes)?.filter_map(|record| match record {
        Record::Value(value) => key_value(codec, &value).map_err(|error| failed = Some(error.into())).ok(),
        Record::Snapshot { .. } | Record::Lease { .. } | Record::Complete { .. } => None,
        Record::Revoked { .. } | Record::Commit { .. } | Record::Compacted { .. } => {
            failed = Some(RecoveryError::OutOfPlace("a commit in a snapshot"));
            None
        }
    });
    // The header records come before the values and are few.
    for record in Reader::new(bytes)?.take_while(|record| !matches!(record, Record::Value(_))) {
        match record {
            Record::Snapshot { revision: at, next_lease: next } => (revision, next_lease) = (at, Some(next)),
            Record::Lease { lease, ttl_seconds } => leases.push((lease, ttl_seconds)),
            // Out of place, as the values' reader finds, or of no concern here.
            Record::Revoked { .. }
            | Record::Value(_)
            | Record::Commit { .. }
            | Record::Compacted { .. }
            | Record::Complete { .. } => {}
        }
    }
    let Some(next_lease) = next_lease else { return Err(RecoveryError::OutOfPlace("a snapshot without its head")) };
    let store = MemoryStore::restore(now, revision, next_lease, leases, values.by_ref());
    drop(values);
    failed.map_or(Ok(store), Err)
}

fn key_value(codec: &mut Codec, value: &Value<'_>) -> Result<KeyValue, CodecError> {
    let key = codec::decode_key(codec.kinds(), value.key)?;
    let stored = codec.decode(&key, value.mod_revision, value.value, None)?;
    let entry = Rc::new(Entry { key, create_revision: value.create_revision, lease: value.lease });
    Ok(KeyValue { version: value.version, value: stored, entry })
}

/// Replays a record; returns whether it was a commit that the snapshot does not contain.
fn replay(now: Now, codec: &mut Codec, store: &mut MemoryStore, record: Record<'_>) -> Result<bool, RecoveryError> {
    match record {
        Record::Commit { revision, .. } if revision <= store.revision() => Ok(false),
        Record::Commit { revision, changes } => {
            let op = |change: Change<'_>| op(codec, store, revision, &change);
            let ops = changes.into_iter().map(op).collect::<Result<Vec<Op>, CodecError>>()?;
            store.replay(revision, ops).map_err(|expected| RecoveryError::Gap { expected, found: revision })?;
            Ok(true)
        }
        Record::Lease { lease, ttl_seconds } => {
            store.replay_lease(now, lease, ttl_seconds);
            Ok(false)
        }
        Record::Revoked { lease } => {
            store.replay_revoked(lease);
            Ok(false)
        }
        Record::Compacted { revision } => {
            store.replay_compaction(revision);
            Ok(false)
        }
        Record::Snapshot { .. } | Record::Value(_) | Record::Complete { .. } => {
            Err(RecoveryError::OutOfPlace("a part of a snapshot in a journal"))
        }
    }
}

fn op(codec: &mut Codec, store: &MemoryStore, revision: Revision, change: &Change<'_>) -> Result<Op, CodecError> {
    match change {
        Change::Put { key, value, lease } => {
            let key = codec::decode_key(codec.kinds(), key)?;
            let previous = store.get(&key).map(|kv| &kv.value);
            let value = codec.decode(&key, revision, value, previous)?;
            Ok(Op::Put { key, value, lease: *lease })
        }
        Change::Delete { key } => Ok(Op::Delete { key: codec::decode_key(codec.kinds(), key)? }),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use proptest::prelude::{Strategy, prop_oneof};
    use proptest::{collection, option, prop_assert, prop_assert_eq, proptest, sample};
    use serde_json::json;
    use smallvec::smallvec;

    use super::super::journal::{self, Tail};
    use super::super::{
        Codec, In, LeaseId, MemoryStore, Op, Out, StoreClient, StoreKey, StoreRequest, Stored, Txn, everything,
    };
    use super::{DurableStore, RecoveryError};
    use crate::machine::Now;
    use crate::object::{Object, Revision};

    #[derive(Clone, Debug)]
    enum Act {
        Put(usize, usize, Option<usize>),
        Delete(usize),
        Grant,
        Revoke(usize),
        Compact,
        Snapshot,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            8 => (0..6usize, 0..3usize, option::of(0..4usize)).prop_map(|(k, v, l)| Act::Put(k, v, l)),
            3 => (0..6usize).prop_map(Act::Delete),
            1 => sample::select(vec![Act::Grant, Act::Compact, Act::Snapshot]),
            1 => (0..4usize).prop_map(Act::Revoke),
        ]
    }

    fn key_value(key: usize, value: usize) -> (StoreKey, Stored) {
        if key < 3 {
            return (StoreKey::Private(Rc::from(format!("k{key}"))), Stored::mark(&format!("v{value}")));
        }
        let object = Object::from_json(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("c{key}"), "namespace": "d"}, "data": {"v": format!("{value}")}}));
        let object = object.unwrap();
        (StoreKey::Object(object.key()), Stored::Object(object))
    }

    fn request(act: &Act, store: &MemoryStore, leases: &[LeaseId]) -> Option<StoreRequest> {
        let txn = |op| Some(StoreRequest::Txn(Box::new(Txn { success: smallvec![op], ..Txn::default() })));
        match act {
            Act::Put(key, value, lease) => {
                let (key, value) = key_value(*key, *value);
                txn(Op::Put { key, value, lease: lease.and_then(|l| leases.get(l).copied()) })
            }
            Act::Delete(key) => txn(Op::Delete { key: key_value(*key, 0).0 }),
            Act::Grant => Some(StoreRequest::LeaseGrant { ttl_seconds: 60 }),
            Act::Revoke(lease) => leases.get(*lease).map(|lease| StoreRequest::LeaseRevoke { lease: *lease }),
            Act::Compact => Some(StoreRequest::Compact { at: store.revision() }),
            Act::Snapshot => None,
        }
    }

    fn told(store: &mut DurableStore, request: StoreRequest, bytes: &mut Vec<u8>) -> Vec<Out> {
        let mut out = Vec::new();
        store.handle(Now::default(), In::Request(StoreClient(1), 1, request), &mut out, bytes);
        out
    }

    /// Everything that can be queried from a store: its state, its leases, its history since a revision.
    fn state(store: &MemoryStore, since: Revision) -> String {
        let all = everything();
        let values: Vec<_> = store.range(&all.start, &all.end).collect();
        let leases: Vec<_> = store.leases().collect();
        format!("{:?} {leases:?} {values:?} {:?}", store.revision(), store.changes_after(since))
    }

    proptest! {
        #[test]
        fn what_was_written_down_is_there_after_a_restart(acts in collection::vec(act(), 1..40), cut in 0..64usize) {
            let (mut store, mut journal, mut snapshot) = (DurableStore::default(), Vec::new(), None);
            journal::begin(&mut journal);
            let (mut leases, mut taken_at, mut last) = (Vec::new(), Revision(1), journal.len());
            let mut before = state(store.memory(), taken_at);
            let mut revoked = false;
            for act in &acts {
                if let Act::Snapshot = act {
                    snapshot = Some(store.snapshot().flatten().collect::<Vec<u8>>());
                    taken_at = store.memory().revision();
                } else if let Some(request) = request(act, store.memory(), &leases) {
                    (before, last) = (state(store.memory(), taken_at), journal.len());
                    revoked = matches!(act, Act::Revoke(_));
                    told(&mut store, request, &mut journal);
                    let granted = store.memory().just_leased().iter().filter(|(_, ttl)| ttl.is_some());
                    leases.extend(granted.map(|(id, _)| *id));
                }
            }
            let recover = |journal: &[u8]| {
                DurableStore::recover(Now::default(), &mut Codec::default(), snapshot.as_deref(), journal)
            };
            let recovered = recover(&journal).unwrap();
            let same = state(recovered.store.memory(), taken_at);
            prop_assert_eq!((same, recovered.end), (state(store.memory(), taken_at), journal.len()));
            // Truncated within the last step: only that step may be missing.
            let cut = last + cut % (journal.len() - last + 1);
            let recovered = recover(&journal[..cut]).unwrap();
            let got = state(recovered.store.memory(), taken_at);
            let steps = [before, state(store.memory(), taken_at)];
            prop_assert!(steps.contains(&got) || revoked, "{got}");
            prop_assert_eq!(recovered.tail == Tail::Clean, recovered.end == cut);
        }
    }

    #[test]
    fn what_would_lose_acknowledged_changes_is_refused() {
        let (mut store, mut journal, mut ends) = (DurableStore::default(), Vec::new(), Vec::new());
        journal::begin(&mut journal);
        let mut snapshot = Vec::new();
        for key in 0..4 {
            let put = request(&Act::Put(key, 0, None), store.memory(), &[]).unwrap();
            told(&mut store, put, &mut journal);
            ends.push(journal.len());
            if key == 0 {
                snapshot = store.snapshot().flatten().collect();
            }
        }
        let recover = |snapshot: Option<&[u8]>, journal: &[u8]| {
            DurableStore::recover(Now::default(), &mut Codec::default(), snapshot, journal)
                .map(|r| (r.store.memory().revision(), r.replayed))
                .map_err(|e| e.to_string())
        };
        assert_eq!(recover(None, &journal), Ok((Revision(5), 4)));
        assert_eq!(recover(Some(&snapshot), &journal), Ok((Revision(5), 3)));
        let mut damaged = journal.clone();
        damaged[ends[0] + 12] ^= 1;
        let text = format!("the record at byte {} is damaged, and 2 whole records come after it", ends[0]);
        assert_eq!(recover(None, &damaged), Err(text));
        let torn = &journal[..ends[3] - 1];
        assert_eq!(recover(None, torn), Ok((Revision(4), 3)));
        let gap = [journal::MAGIC, &journal[ends[1]..]].concat();
        let text = "the journal goes on at revision 4, and the state before it ends before 3";
        assert_eq!(recover(Some(&snapshot), &gap), Err(text.to_owned()));
        let half = &snapshot[..snapshot.len() - 1];
        assert!(recover(Some(half), &journal).unwrap_err().starts_with("the snapshot is not complete: the last"));
        assert!(matches!(
            DurableStore::recover(Now::default(), &mut Codec::default(), None, b"something else"),
            Err(RecoveryError::NotAJournal(_))
        ));
    }
}
