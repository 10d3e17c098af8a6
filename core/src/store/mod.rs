//! The store: an MVCC keyspace with etcd's semantics, behind one set of messages.
//!
//! What comes in: [`StoreRequest`]s, each with an id chosen by the client. What goes out: one [`StoreReply`] for each,
//! and batches of [`StoreEvent`]s for each watch. A reply never depends on anything but the requests before it.
//!
//! This module has the in-memory store ([`MemoryStore`]), the same with a journal ([`DurableStore`]), whose files a
//! driver handles, and the translation to bytes for a store elsewhere ([`Remote`](remote::Remote)), which is etcd.
//! Every client of a store must treat it as asynchronous.
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
pub mod remote;

use std::num::NonZeroU64;
use std::rc::Rc;

pub use batch::Batch;
pub use codec::Codec;
pub use durable::{DurableStore, Recovered, RecoveryError};
pub use fragments::Fragments;
pub use memory::{In, MemoryStore, Out, StoreClient};

pub use progress::Progress;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::object::{Kind, Object, ObjectKey, Revision};
use crate::random::{mix, mix_bytes};

/// Id of an etcd lease (a time to live for keys; not the Kubernetes Lease object).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub NonZeroU64);

/// Identifies a watch of one client of the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct WatchId(pub u64);

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Stored {
    /// An API object. Its `rv` is set to the revision of the commit.
    Object(Object),
    /// A marker whose main content is its revision, which is also the revision of the commit (fences, allocation
    /// ranges).
    Mark(Revision, Rc<str>),
}

impl Stored {
    /// Creates a marker that is not stored yet.
    pub fn mark(text: &str) -> Stored {
        Stored::Mark(Revision(0), Rc::from(text))
    }

    /// The API object; `None` for a marker.
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

/// A key of the store: the key of an object, the fence of an election's Lease, or a private key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum StoreKey {
    /// An API object.
    Object(ObjectKey),
    /// A fence. Its revision is the epoch of this Lease's holder; see [`Fence`](crate::api::Fence).
    Fence(ObjectKey),
    /// State private to API servers: allocations of cluster IPs and node ports.
    Private(Rc<str>),
}

impl StoreKey {
    /// The smallest key that is greater than this one.
    pub fn successor(&self) -> StoreKey {
        let next = |key: &ObjectKey| ObjectKey::from_path(key.kind, &format!("{}\0", key.path()));
        match self {
            StoreKey::Object(key) => StoreKey::Object(next(key)),
            StoreKey::Fence(key) => StoreKey::Fence(next(key)),
            StoreKey::Private(name) => StoreKey::Private(Rc::from(format!("{name}\0"))),
        }
    }
}

/// A key with its value and revisions, as etcd's `KeyValue`. Behind an `Rc` it fills one cache line, because the
/// history holds hundreds of thousands of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyValue {
    /// Number of puts since creation, starting at 1.
    pub version: u64,
    /// The value.
    pub value: Stored,
    /// The part that all versions of the key share.
    pub entry: Rc<Entry>,
}

/// The part of a key that does not change from put to put. Behind an `Rc` it fills one cache line as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: StoreKey,
    /// Revision of the put that created the key.
    pub create_revision: Revision,
    /// Lease that the key is attached to.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Compare {
    /// The key's `mod_revision` equals this; zero: the key is absent.
    ModRevision(StoreKey, Revision),
    /// The key's `create_revision` equals this; zero: the key is absent.
    CreateRevision(StoreKey, Revision),
    /// The key's `version` equals this; zero: the key is absent.
    Version(StoreKey, u64),
}

/// An operation in a transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Op {
    /// Puts a key.
    Put { key: StoreKey, value: Stored, lease: Option<LeaseId> },
    /// Deletes a key.
    Delete { key: StoreKey },
    /// Gets a key.
    Get { key: StoreKey },
}

/// A list that usually has one element, which is then stored inline.
pub type Few<T> = SmallVec<[T; 1]>;

/// A transaction: if all compares hold, `success` is carried out, otherwise `failure`; all changes get one revision.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Txn {
    /// Conditions.
    pub compare: Few<Compare>,
    /// Carried out if they hold.
    pub success: Few<Op>,
    /// Carried out if they do not hold.
    pub failure: Vec<Op>,
}

/// A range of keys with an exclusive end.
pub type Span = std::ops::Range<StoreKey>;

/// All of Skeg's keys. Keys of other users of the same store are not included.
pub fn everything() -> Span {
    let start = StoreKey::Object(ObjectKey::range_start(Kind(0), ""));
    // Private keys sort last, and none starts with the greatest character.
    start..StoreKey::Private(Rc::from("\u{10FFFF}"))
}

/// A request to the store. Rare variants are boxed to keep it small.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum StoreRequest {
    /// A transaction.
    Txn(Box<Txn>),
    /// Reads a span in order at a revision (`None`: the newest), at most `limit` keys (zero: all).
    Range { span: Box<Span>, at: Option<Revision>, limit: usize },
    /// Watches a span from a revision (zero: from now).
    Watch { watch: WatchId, span: Box<Span>, from: Revision },
    /// Ends a watch.
    CancelWatch { watch: WatchId },
    /// Discards the history before a revision.
    Compact { at: Revision },
    /// Grants a lease with this TTL.
    LeaseGrant { ttl_seconds: u64 },
    /// Restarts the TTL of a lease.
    LeaseKeepAlive { lease: LeaseId },
    /// Ends a lease and deletes its keys.
    LeaseRevoke { lease: LeaseId },
    /// Asks for the newest revision, which must not be older than this request, whichever member replies. A driver for
    /// etcd must read one key for this, count-only and not serializable, because etcd answers an empty transaction
    /// without asking the quorum.
    Revision,
    /// Requests a progress notification on all watches of the client.
    Progress,
}

/// The store's reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum StoreReply {
    /// To a transaction: whether the compares held, and what each `Get` read, in order.
    Txn { revision: Revision, succeeded: bool, results: Vec<Option<Rc<KeyValue>>> },
    /// To a range: the keys in order, whether there are more, and how many match in total.
    Range { revision: Revision, kvs: Vec<Rc<KeyValue>>, more: bool, count: u64 },
    /// The watch was created; its events begin after this revision.
    Watching { revision: Revision, watch: WatchId },
    /// The watch has ended. `compacted` is set if it asked for a revision older than that one.
    WatchCanceled { watch: WatchId, compacted: Option<Revision> },
    /// Compacted.
    Compacted { revision: Revision },
    /// Granted or kept alive.
    Lease { revision: Revision, lease: LeaseId, ttl_seconds: u64 },
    /// Revoked.
    Revoked { revision: Revision },
    /// The newest revision, at the time of the request or later.
    Revision { revision: Revision },
    /// Progress notifications have been requested; they arrive on each watch.
    ProgressAsked,
    /// The request was rejected or its outcome is unknown.
    Error(StoreError),
}

/// Why the store rejects a request. With every variant except [`Unavailable`](StoreError::Unavailable), nothing was
/// changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum StoreError {
    /// The revision has been compacted away (`ErrCompacted`): "mvcc: required revision has been compacted".
    Compacted { oldest: Revision },
    /// The revision is in the future (`ErrFutureRev`).
    FutureRevision { newest: Revision },
    /// No such lease (`ErrLeaseNotFound`).
    LeaseNotFound,
    /// The request is larger than the store accepts (`ErrRequestTooLarge`, 1.5 MiB in etcd).
    TooLarge,
    /// The store's quota is exhausted (`ErrNoSpace`): it accepts no writes until an operator frees space and disarms
    /// the alarm.
    NoSpace,
    /// This client is not permitted to do that (`ErrPermissionDenied`, `ErrInvalidAuthToken`).
    Denied,
    /// The store cannot be reached, has no quorum, or did not reply in time: the outcome is unknown.
    Unavailable,
}

/// A change as a watch receives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreEvent {
    /// The key and the data that all its versions share. For a deletion, some stores send only the key: its
    /// `create_revision` is then zero.
    pub entry: Rc<Entry>,
    /// The new value; `None` if the key was deleted.
    pub value: Option<Rc<KeyValue>>,
    /// The previous value. `None` if there was none or if the store omits it, as etcd does at and before its compacted
    /// revision: see [`lacks_previous`](Self::lacks_previous).
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

    /// Whether there was a previous value that the store omits.
    #[inline]
    pub fn lacks_previous(&self) -> bool {
        self.previous.is_none() && self.value.as_ref().is_none_or(|kv| kv.version > 1)
    }

    /// Mixes the change into `hash`: the key, the revision, and the parts of the value that differ from before.
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

/// A message from the store to one of its clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum FromStore {
    /// Reply to the request with this id.
    Reply(u64, StoreReply),
    /// Events of a watch, in order of revision; all events of one revision are in one batch. An empty batch is a
    /// progress notification: no change up to `revision` is missing.
    Events { watch: WatchId, revision: Revision, events: Batch },
    /// The store has ended a watch. `compacted` is set if the watch was still at an older revision.
    WatchCanceled { watch: WatchId, compacted: Option<Revision> },
    /// What this store's progress notifications guarantee. The driver sends it first on a connection, unless they are
    /// not needed.
    Progress(Progress),
    /// The connection was lost: the outcome of requests in flight is unknown, and the watches have ended.
    Disconnected,
}
