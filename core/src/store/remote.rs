//! A store that keeps bytes and runs elsewhere, such as etcd: translates the messages of this port to bytes and back.
//!
//! Values of this port are shared by `Rc` and stay on the machines' thread, while the driver of such a store waits for
//! its network on another. [`Remote`] stands between them. Its input are requests of the API server, and what the
//! driver hears from the store ([`FromRemote`]). Its output are requests as bytes ([`ByteRequest`]), and messages of
//! this port. It never delivers a part of a revision, and never decodes a value that Skeg did not write: that is an
//! error, which names the key.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::rc::Rc;

use super::codec::{decode_key, encode, encode_key, encode_span};
use super::{
    Codec, Compare, Entry, Fragments, FromStore, KeyValue, LeaseId, Op, Progress, Span, StoreError, StoreEvent,
    StoreReply, StoreRequest, Stored, WatchId,
};
use crate::object::{Kinds, Revision};
use crate::store::codec::CodecError;

/// A key and its value as bytes, as etcd's `KeyValue`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ByteKeyValue {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub create_revision: u64,
    pub mod_revision: u64,
    pub version: u64,
    /// Zero if the key is attached to no lease.
    pub lease: u64,
}

/// What a condition of a transaction compares; see [`Compare`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Compared {
    ModRevision,
    CreateRevision,
    Version,
}

/// A condition of a transaction: that this number of a key equals this value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ByteCompare {
    pub key: Vec<u8>,
    pub what: Compared,
    pub equals: u64,
}

/// An operation in a transaction; see [`Op`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ByteOp {
    /// The lease is zero for none.
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        lease: u64,
    },
    Delete {
        key: Vec<u8>,
    },
    Get {
        key: Vec<u8>,
    },
}

/// Keys from the first, which is included, to the second, which is not.
pub type ByteSpan = std::ops::Range<Vec<u8>>;

/// A request; see [`StoreRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ByteRequest {
    Txn {
        compare: Vec<ByteCompare>,
        success: Vec<ByteOp>,
        failure: Vec<ByteOp>,
    },
    /// `at` is zero for the newest revision, `limit` zero for all keys.
    Range {
        span: ByteSpan,
        at: u64,
        limit: usize,
    },
    /// `from` is zero for now.
    Watch {
        watch: WatchId,
        span: ByteSpan,
        from: u64,
    },
    CancelWatch {
        watch: WatchId,
    },
    Compact {
        at: u64,
    },
    LeaseGrant {
        ttl_seconds: u64,
    },
    LeaseKeepAlive {
        lease: u64,
    },
    LeaseRevoke {
        lease: u64,
    },
    Revision,
    Progress,
}

/// A reply; see [`StoreReply`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ByteReply {
    /// `results` has what each get of the transaction has read.
    Txn {
        revision: u64,
        succeeded: bool,
        results: Vec<Option<ByteKeyValue>>,
    },
    Range {
        revision: u64,
        kvs: Vec<ByteKeyValue>,
        more: bool,
        count: u64,
    },
    Watching {
        revision: u64,
        watch: WatchId,
    },
    WatchCanceled {
        watch: WatchId,
        compacted: Option<u64>,
    },
    Compacted {
        revision: u64,
    },
    Lease {
        revision: u64,
        lease: NonZeroU64,
        ttl_seconds: u64,
    },
    Revoked {
        revision: u64,
    },
    Revision {
        revision: u64,
    },
    ProgressAsked,
    Error(StoreError),
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteEvent {
    /// The new state of the key. Of a deleted key it has only the key itself and the revision of the deletion.
    pub kv: ByteKeyValue,
    /// The state before; `None` if there was none or the store omits it.
    pub previous: Option<ByteKeyValue>,
    /// Whether the key was deleted.
    pub deleted: bool,
}

/// What the driver hears from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FromRemote {
    /// The reply to the request with this id.
    Reply(u64, ByteReply),
    /// A response of a watch: the revision in its header, its events in order, and whether it continues in the next
    /// response. Without events it says that no change up to that revision is missing.
    Events { watch: WatchId, revision: u64, events: Vec<ByteEvent>, more: bool },
    /// The store has ended a watch.
    WatchCanceled { watch: WatchId, compacted: Option<u64> },
    /// What the store's progress notifications guarantee. Comes first.
    Progress(Progress),
}

/// The translation for one client of such a store.
#[derive(Debug)]
pub struct Remote {
    codec: Codec,
    /// The responses of each watch that do not make a whole revision yet.
    watches: BTreeMap<WatchId, Fragments>,
}

impl Remote {
    /// A translation with the kinds of this world.
    pub fn new(kinds: Kinds) -> Remote {
        Remote { codec: Codec::new(kinds), watches: BTreeMap::new() }
    }

    /// Encodes a request.
    pub fn encode(&mut self, request: &StoreRequest) -> ByteRequest {
        let kinds = self.codec.kinds();
        match request {
            StoreRequest::Txn(txn) => ByteRequest::Txn {
                compare: txn.compare.iter().map(|c| byte_compare(kinds, c)).collect(),
                success: txn.success.iter().map(|op| byte_op(kinds, op)).collect(),
                failure: txn.failure.iter().map(|op| byte_op(kinds, op)).collect(),
            },
            StoreRequest::Range { span, at, limit } => {
                ByteRequest::Range { span: byte_span(kinds, span), at: at.map_or(0, |r| r.0), limit: *limit }
            }
            StoreRequest::Watch { watch, span, from } => {
                let span = byte_span(kinds, span);
                self.watches.insert(*watch, Fragments::default());
                ByteRequest::Watch { watch: *watch, span, from: from.0 }
            }
            StoreRequest::CancelWatch { watch } => {
                self.watches.remove(watch);
                ByteRequest::CancelWatch { watch: *watch }
            }
            StoreRequest::Compact { at } => ByteRequest::Compact { at: at.0 },
            StoreRequest::LeaseGrant { ttl_seconds } => ByteRequest::LeaseGrant { ttl_seconds: *ttl_seconds },
            StoreRequest::LeaseKeepAlive { lease } => ByteRequest::LeaseKeepAlive { lease: lease.0.get() },
            StoreRequest::LeaseRevoke { lease } => ByteRequest::LeaseRevoke { lease: lease.0.get() },
            StoreRequest::Revision => ByteRequest::Revision,
            StoreRequest::Progress => ByteRequest::Progress,
        }
    }

    /// Decodes what the driver hears. Fails if the store holds what Skeg did not write; nothing can be decided then.
    pub fn decode(&mut self, message: FromRemote) -> Result<Vec<FromStore>, CodecError> {
        Ok(match message {
            FromRemote::Reply(id, reply) => vec![FromStore::Reply(id, self.reply(reply)?)],
            FromRemote::Events { watch, revision, events, more } => self.events(watch, revision, events, more)?,
            FromRemote::WatchCanceled { watch, compacted } => {
                // After the end of a watch that was canceled here, nothing more is said about it.
                let ended = self.watches.remove(&watch).is_some();
                let message = FromStore::WatchCanceled { watch, compacted: compacted.map(Revision) };
                if ended { vec![message] } else { Vec::new() }
            }
            FromRemote::Progress(progress) => vec![FromStore::Progress(progress)],
        })
    }

    fn reply(&mut self, reply: ByteReply) -> Result<StoreReply, CodecError> {
        Ok(match reply {
            ByteReply::Txn { revision, succeeded, results } => {
                let read = results.into_iter().map(|kv| kv.map(|kv| self.key_value(&kv, None)).transpose());
                StoreReply::Txn { revision: Revision(revision), succeeded, results: read.collect::<Result<_, _>>()? }
            }
            ByteReply::Range { revision, kvs, more, count } => {
                let kvs = kvs.iter().map(|kv| self.key_value(kv, None)).collect::<Result<_, _>>()?;
                StoreReply::Range { revision: Revision(revision), kvs, more, count }
            }
            ByteReply::Watching { revision, watch } => StoreReply::Watching { revision: Revision(revision), watch },
            ByteReply::WatchCanceled { watch, compacted } => {
                self.watches.remove(&watch);
                StoreReply::WatchCanceled { watch, compacted: compacted.map(Revision) }
            }
            ByteReply::Compacted { revision } => StoreReply::Compacted { revision: Revision(revision) },
            ByteReply::Lease { revision, lease, ttl_seconds } => {
                StoreReply::Lease { revision: Revision(revision), lease: LeaseId(lease), ttl_seconds }
            }
            ByteReply::Revoked { revision } => StoreReply::Revoked { revision: Revision(revision) },
            ByteReply::Revision { revision } => StoreReply::Revision { revision: Revision(revision) },
            ByteReply::ProgressAsked => StoreReply::ProgressAsked,
            ByteReply::Error(error) => StoreReply::Error(error),
        })
    }

    fn events(
        &mut self,
        watch: WatchId,
        header: u64,
        events: Vec<ByteEvent>,
        more: bool,
    ) -> Result<Vec<FromStore>, CodecError> {
        if !self.watches.contains_key(&watch) {
            return Ok(Vec::new());
        }
        let events = events.iter().map(|event| self.event(event)).collect::<Result<Vec<_>, _>>()?;
        let fragments = self.watches.get_mut(&watch).expect("it is there above");
        let complete = fragments.take(Revision(header), events, more);
        Ok(complete.into_iter().map(|(revision, events)| FromStore::Events { watch, revision, events }).collect())
    }

    fn event(&mut self, event: &ByteEvent) -> Result<StoreEvent, CodecError> {
        let revision = Revision(event.kv.mod_revision);
        let previous = event.previous.as_ref().map(|kv| self.key_value(kv, None)).transpose()?;
        if event.deleted {
            let entry = match &previous {
                Some(kv) => Rc::clone(&kv.entry),
                None => {
                    let key = decode_key(self.codec.kinds(), &event.kv.key)?;
                    Rc::new(Entry { key, create_revision: Revision(0), lease: None })
                }
            };
            return Ok(StoreEvent { entry, value: None, previous, revision });
        }
        let value = self.key_value(&event.kv, previous.as_deref())?;
        Ok(StoreEvent { entry: Rc::clone(&value.entry), value: Some(value), previous, revision })
    }

    /// Decodes a key and its value, sharing what is equal to the previous version.
    fn key_value(&mut self, kv: &ByteKeyValue, previous: Option<&KeyValue>) -> Result<Rc<KeyValue>, CodecError> {
        let key = decode_key(self.codec.kinds(), &kv.key)?;
        let entry =
            Entry { key, create_revision: Revision(kv.create_revision), lease: NonZeroU64::new(kv.lease).map(LeaseId) };
        let entry = match previous {
            Some(previous) if *previous.entry == entry => Rc::clone(&previous.entry),
            Some(_) | None => Rc::new(entry),
        };
        let value: Stored =
            self.codec.decode(&entry.key, Revision(kv.mod_revision), &kv.value, previous.map(|p| &p.value))?;
        Ok(Rc::new(KeyValue { version: kv.version, value, entry }))
    }
}

fn byte_span(kinds: &Kinds, span: &Span) -> ByteSpan {
    let (start, end) = encode_span(kinds, span);
    start..end
}

fn byte_compare(kinds: &Kinds, compare: &Compare) -> ByteCompare {
    let (key, what, equals) = match compare {
        Compare::ModRevision(key, revision) => (key, Compared::ModRevision, revision.0),
        Compare::CreateRevision(key, revision) => (key, Compared::CreateRevision, revision.0),
        Compare::Version(key, version) => (key, Compared::Version, *version),
    };
    ByteCompare { key: encode_key(kinds, key), what, equals }
}

fn byte_op(kinds: &Kinds, op: &Op) -> ByteOp {
    match op {
        Op::Put { key, value, lease } => ByteOp::Put {
            key: encode_key(kinds, key),
            value: encode(value),
            lease: lease.map_or(0, |lease| lease.0.get()),
        },
        Op::Delete { key } => ByteOp::Delete { key: encode_key(kinds, key) },
        Op::Get { key } => ByteOp::Get { key: encode_key(kinds, key) },
    }
}

#[cfg(test)]
mod tests {
    use super::{ByteEvent, ByteKeyValue, ByteReply, FromRemote, Remote};
    use crate::object::{Kinds, Revision};
    use crate::store::{FromStore, StoreReply, StoreRequest, WatchId, everything};

    fn kv(key: &str, value: &str, revision: u64, version: u64) -> ByteKeyValue {
        let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        ByteKeyValue { key, value, create_revision: 1, mod_revision: revision, version, lease: 0 }
    }

    fn watching(remote: &mut Remote) {
        let (watch, span) = (WatchId(3), Box::new(everything()));
        remote.encode(&StoreRequest::Watch { watch, span, from: Revision(5) });
    }

    fn events(events: Vec<ByteEvent>, more: bool) -> FromRemote {
        FromRemote::Events { watch: WatchId(3), revision: 9, events, more }
    }

    #[test]
    fn a_revision_is_delivered_whole_and_only_while_it_is_watched() {
        let mut remote = Remote::new(Kinds::default());
        watching(&mut remote);
        let put = |revision, version| ByteEvent {
            kv: kv("/registry/~private/a", "=x", revision, version),
            previous: (version > 1).then(|| kv("/registry/~private/a", "=w", revision - 1, version - 1)),
            deleted: false,
        };
        let gone = ByteEvent { kv: kv("/registry/~private/b", "", 6, 0), previous: None, deleted: true };
        assert!(remote.decode(events(vec![put(6, 1)], true)).unwrap().is_empty());
        let told = remote.decode(events(vec![gone, put(7, 2)], false)).unwrap();
        let shown = told.iter().map(|message| match message {
            FromStore::Events { revision, events, .. } => (revision.0, events.len()),
            other => panic!("{other:?} instead of events"),
        });
        assert_eq!(shown.collect::<Vec<_>>(), [(6, 2), (7, 1)]);
        let Some(FromStore::Events { events: last, .. }) = told.last() else { panic!() };
        let event = last.iter().next().unwrap();
        assert!(std::rc::Rc::ptr_eq(&event.entry, &event.previous.as_ref().unwrap().entry), "the entry is shared");
        remote.encode(&StoreRequest::CancelWatch { watch: WatchId(3) });
        assert!(remote.decode(events(vec![put(8, 3)], false)).unwrap().is_empty());
        assert!(remote.decode(FromRemote::WatchCanceled { watch: WatchId(3), compacted: None }).unwrap().is_empty());
    }

    #[test]
    fn what_somebody_else_wrote_is_named() {
        let check = |key: &str, value: &str, expect: &str| {
            let reply = ByteReply::Range { revision: 9, kvs: vec![kv(key, value, 9, 1)], more: false, count: 1 };
            let error = Remote::new(Kinds::default()).decode(FromRemote::Reply(1, reply)).unwrap_err();
            assert_eq!(error.to_string(), expect);
        };
        check("/registry/minions/n", "{}", "there is no resource \"minions\" in the core group");
        check(
            "/registry/pods/d/p",
            "k8s\0x",
            "the value of /registry/pods/d/p is Kubernetes' protobuf, and not skeg's",
        );
    }

    #[test]
    fn a_reply_keeps_its_numbers() {
        let reply = ByteReply::Revision { revision: 7 };
        let told = Remote::new(Kinds::default()).decode(FromRemote::Reply(4, reply)).unwrap();
        assert_eq!(told, [FromStore::Reply(4, StoreReply::Revision { revision: Revision(7) })]);
    }
}
