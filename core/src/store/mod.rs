//! The store: an MVCC keyspace with etcd's semantics, behind one set of messages.
//!
//! What comes in: [`StoreRequest`]s, each with an id of the asker's. What goes out: one [`StoreReply`] for each, and
//! batches of [`StoreEvent`]s for each watch. What never happens: a reply that depends on anything but the requests
//! before it. In memory here ([`MemoryStore`]), with a journal beside it ([`DurableStore`]), whose files are a
//! driver's. etcd is another driver that speaks the same messages, so whoever talks to a store treats it as
//! asynchronous from the first day.
//!
//! Source: etcd's API, <https://etcd.io/docs/v3.5/learning/api/>.

mod batch;
pub mod codec;
pub mod conformance;
mod durable;
mod fragments;
pub mod journal;
mod memory;
#[cfg(test)]
mod memory_tests;
mod progress;

use std::num::NonZeroU64;
use std::rc::Rc;

pub use batch::Batch;
pub use codec::Codec;
pub use durable::{DurableStore, Recovered, RecoveryError};
pub use fragments::Fragments;
pub use memory::{In, MemoryStore, Out, StoreClient};

pub use progress::Progress;
use smallvec::SmallVec;

use crate::object::{Kind, Object, ObjectKey, Revision};
use crate::random::{mix, mix_bytes};

/// Name of an etcd lease (a key's time to live; not the Kubernetes kind).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct LeaseId(pub NonZeroU64);

/// Names a watch of one client of the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct WatchId(pub u64);

/// What is kept under a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// An API object. Its `rv` is set to the revision of the commit.
    Object(Object),
    /// A marker that says little but its revision, which is that of the commit too (fences, allocation ranges).
    Mark(Revision, Rc<str>),
}

impl Stored {
    /// A marker that is not stored yet.
    pub fn mark(text: &str) -> Stored {
        Stored::Mark(Revision(0), Rc::from(text))
    }

    /// The API object, unless it is a marker.
    pub fn object(&self) -> Option<&Object> {
        match self {
            Stored::Object(object) => Some(object),
            Stored::Mark(..) => None,
        }
    }

    /// Revision of the commit.
    #[inline]
    pub fn revision(&self) -> Revision {
        match self {
            Stored::Object(object) => object.rv(),
            Stored::Mark(revision, _) => *revision,
        }
    }

    #[inline]
    fn set_revision(&mut self, revision: Revision) {
        match self {
            Stored::Object(object) => object.set_rv(revision),
            Stored::Mark(own, _) => *own = revision,
        }
    }
}

/// A key of the store: an object's key, or the fence of an election's Lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StoreKey {
    /// An API object.
    Object(ObjectKey),
    /// Its revision is the epoch of the holder of this Lease; see [`Fence`](crate::api::Fence).
    Fence(ObjectKey),
    /// Server-private state: allocation of cluster IPs and node ports.
    Private(Rc<str>),
}

impl StoreKey {
    /// The first key that can come after this one.
    pub fn successor(&self) -> StoreKey {
        let next = |key: &ObjectKey| ObjectKey::from_path(key.kind, &format!("{}\0", key.path()));
        match self {
            StoreKey::Object(key) => StoreKey::Object(next(key)),
            StoreKey::Fence(key) => StoreKey::Fence(next(key)),
            StoreKey::Private(name) => StoreKey::Private(Rc::from(format!("{name}\0"))),
        }
    }
}

/// A key with its value and revisions, as etcd's `KeyValue`. Behind an `Rc` it fills one line of the processor's cache:
/// the history holds hundreds of thousands.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyValue {
    /// Puts since creation; 1 at first.
    pub version: u64,
    /// The value.
    pub value: Stored,
    /// What all versions of it have in common.
    pub entry: Rc<Entry>,
}

/// What stays as it is from put to put. Behind its `Rc` it fills one line as well.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: StoreKey,
    /// Revision of the put that created the key.
    pub create_revision: Revision,
    /// Lease that the key lives by.
    pub lease: Option<LeaseId>,
}

impl KeyValue {
    /// The key.
    pub fn key(&self) -> &StoreKey {
        &self.entry.key
    }

    /// Revision of the last put.
    #[inline]
    pub fn mod_revision(&self) -> Revision {
        self.value.revision()
    }
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Compare {
    /// The key's `mod_revision` equals this; zero: the key is absent.
    ModRevision(StoreKey, Revision),
    /// The key's `create_revision` equals this; zero: the key is absent.
    CreateRevision(StoreKey, Revision),
    /// The key's `version` equals this; zero: the key is absent.
    Version(StoreKey, u64),
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Op {
    /// Writes a key.
    Put { key: StoreKey, value: Stored, lease: Option<LeaseId> },
    /// Removes a key.
    Delete { key: StoreKey },
    /// Reads a key.
    Get { key: StoreKey },
}

/// Mostly one, which then stands in place.
pub type Few<T> = SmallVec<[T; 1]>;

/// If all compares hold, `success` is carried out at one revision; otherwise `failure`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Txn {
    /// Conditions.
    pub compare: Few<Compare>,
    /// Done if they hold.
    pub success: Few<Op>,
    /// Done if they don't.
    pub failure: Vec<Op>,
}

/// The keys from one on up to, and without, another.
pub type Span = std::ops::Range<StoreKey>;

/// All keys that are ours. The keys of others, if there are any, are not in it.
pub fn everything() -> Span {
    let start = StoreKey::Object(ObjectKey::range_start(Kind(0), ""));
    // Private keys sort last; none of ours begins with the last character there is.
    start..StoreKey::Private(Rc::from("\u{10FFFF}"))
}

/// What is asked of the store. Small: what is rare is boxed.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum StoreRequest {
    /// A transaction.
    Txn(Box<Txn>),
    /// Reads a span in order, at a revision (or the newest), at most `limit` (zero: all).
    Range { span: Box<Span>, at: Option<Revision>, limit: usize },
    /// Watches a span from a revision on (zero: from now).
    Watch { watch: WatchId, span: Box<Span>, from: Revision },
    /// Ends a watch.
    CancelWatch { watch: WatchId },
    /// Forgets everything before a revision.
    Compact { at: Revision },
    /// Grants a lease of so many seconds.
    LeaseGrant { ttl_seconds: u64 },
    /// Keeps a lease alive for another TTL.
    LeaseKeepAlive { lease: LeaseId },
    /// Ends a lease and deletes its keys.
    LeaseRevoke { lease: LeaseId },
    /// Asks for the newest revision: no older than this request, whoever answers. A driver of etcd reads for it, one
    /// key, counted only and not serializable: an empty transaction is answered there without asking the quorum.
    Revision,
    /// Asks for a notice of progress on all watches of the asker.
    Progress,
}

/// The store's answer.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum StoreReply {
    /// Of a transaction: whether the compares held, and what each `Get` read, in order.
    Txn { revision: Revision, succeeded: bool, results: Vec<Option<Rc<KeyValue>>> },
    /// Of a range: the keys in order, whether there are more, and how many match in all.
    Range { revision: Revision, kvs: Vec<Rc<KeyValue>>, more: bool, count: u64 },
    /// The watch stands; its events begin after this.
    Watching { revision: Revision, watch: WatchId },
    /// The watch has ended. With `compacted`: because it asked for a revision older than that.
    WatchCanceled { watch: WatchId, compacted: Option<Revision> },
    /// Compacted.
    Compacted { revision: Revision },
    /// Granted or kept alive.
    Lease { revision: Revision, lease: LeaseId, ttl_seconds: u64 },
    /// Revoked.
    Revoked { revision: Revision },
    /// The newest revision, as of the request or later.
    Revision { revision: Revision },
    /// Notices of progress are on their way, each in its watch.
    ProgressAsked,
    /// Refused, or lost.
    Error(StoreError),
}

/// Why the store refuses. All but [`Unavailable`](StoreError::Unavailable) say that nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StoreError {
    /// The revision has been compacted away (`ErrCompacted`): "mvcc: required revision has been compacted".
    Compacted { oldest: Revision },
    /// The revision is in the future (`ErrFutureRev`).
    FutureRevision { newest: Revision },
    /// No such lease (`ErrLeaseNotFound`).
    LeaseNotFound,
    /// The request is longer than the store takes (`ErrRequestTooLarge`, 1.5 MiB in etcd).
    TooLarge,
    /// The store's quota is used up (`ErrNoSpace`): it takes no writes until somebody makes room and disarms the alarm.
    NoSpace,
    /// This client may not do that (`ErrPermissionDenied`, `ErrInvalidAuthToken`).
    Denied,
    /// The store can't be reached, has no quorum, or did not answer in time: the outcome is unknown.
    Unavailable,
}

/// A change, as a watch sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreEvent {
    /// The key, and what else the value has in common with its other versions. Of a key that was deleted some stores
    /// tell the key alone: its `create_revision` is zero then.
    pub entry: Rc<Entry>,
    /// What is there now; none: deleted.
    pub value: Option<Rc<KeyValue>>,
    /// What was there before. None if there was nothing, or if the store leaves it out, as etcd does at and before the
    /// revision that it is compacted to: see [`lacks_previous`](Self::lacks_previous).
    pub previous: Option<Rc<KeyValue>>,
    /// Revision of the change.
    pub revision: Revision,
}

impl StoreEvent {
    /// The key.
    #[inline]
    pub fn key(&self) -> &StoreKey {
        &self.entry.key
    }

    /// Whether something was there before that the store leaves out.
    #[inline]
    pub fn lacks_previous(&self) -> bool {
        self.previous.is_none() && self.value.as_ref().is_none_or(|kv| kv.version > 1)
    }

    /// Mixes into `hash` what was changed: the key, the revision, and of the value what differs from before.
    #[inline]
    pub fn digest(&self, hash: u64) -> u64 {
        let hash = mix(hash, self.revision.0);
        let hash = match self.key() {
            StoreKey::Object(key) => mix(hash, key.digest()),
            StoreKey::Fence(key) => mix(hash, !key.digest()),
            StoreKey::Private(key) => mix_bytes(hash, key.as_bytes()),
        };
        let before = self.previous.as_deref().and_then(|kv| kv.value.object());
        match self.value.as_deref().map(|kv| &kv.value) {
            Some(Stored::Object(object)) => object.digest_change(before, hash),
            Some(Stored::Mark(_, text)) => mix_bytes(hash, text.as_bytes()),
            None => !hash,
        }
    }
}

/// From the store to one of its clients.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum FromStore {
    /// Answers the request of this id.
    Reply(u64, StoreReply),
    /// Events of a watch, in order of revision; all events of one revision come in one batch. Without events: a
    /// progress notice that nothing up to `revision` is missing.
    Events { watch: WatchId, revision: Revision, events: Batch },
    /// The store has ended a watch by itself. With `compacted`: because the watch was still at an older revision.
    WatchCanceled { watch: WatchId, compacted: Option<Revision> },
    /// What this store's notices of progress are worth. Said by the driver before anything else on a connection, unless
    /// they are needless.
    Progress(Progress),
    /// The connection broke: requests in flight have an unknown outcome, watches are gone.
    Disconnected,
}
