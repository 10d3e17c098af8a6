//! The path of every write: decide on what is known, commit what was decided, decide anew where that has changed.
//!
//! A decision reads the cache, or what the store has said since (`fresh`). It may answer at once, ask for fresh values
//! before it refuses, commit a transaction that compares whatever it was decided by, or wait for the cache.

use std::rc::Rc;

use k8s_openapi::api::coordination::v1::Lease as WholeLease;
use serde_json::Value;
use smallvec::smallvec;

use super::cache::object_of;
use super::{ApiServer, ConnId, Job, Out, admission, reply, unavailable, unknown_outcome};
use crate::api::{Call, ReqId, Request, Response, Status};
use crate::limits;
use crate::machine::Now;
use crate::object::{Kind, KindRef, Kinds, Object, ObjectKey, Revision, decode};
use crate::random::Rng;
use crate::store::{Compare, KeyValue, LeaseId, Op, StoreError, StoreKey, StoreReply, StoreRequest, Stored, Txn};

/// Who wants the answer of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Client(ConnId, ReqId),
    /// One of many deletes; the key of its collection.
    Collection(u64),
    /// The server itself.
    Bootstrap,
}

/// A write on its way.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) origin: Origin,
    pub(super) request: Box<Request>,
    /// What the store has said of keys that matter, newer than the cache was at the time.
    pub(super) fresh: Vec<(StoreKey, Option<Rc<KeyValue>>)>,
    attempts: u32,
    /// The object of a create as it was admitted, so that another attempt need not admit it again.
    pub(super) admitted: Option<Object>,
    /// Generated names that were taken.
    pub(super) names_tried: u32,
    /// A transaction has failed: what the next one compares is asked for first.
    conflicted: bool,
    /// The answer if the commit that is on its way succeeds.
    response: Option<Response>,
}

impl Write {
    pub(super) fn new(origin: Origin, mut request: Box<Request>) -> Box<Write> {
        if let Call::Create { object, .. } | Call::Update { object, .. } = &mut request.call {
            forget_namespace(object);
        }
        let (fresh, admitted, response) = (Vec::new(), None, None);
        Box::new(Write { origin, request, fresh, attempts: 0, admitted, names_tried: 0, conflicted: false, response })
    }

    fn is_fresh(&self, key: &StoreKey) -> bool {
        self.fresh.iter().any(|(k, _)| k == key)
    }
}

/// What is to become of a write.
#[derive(Debug)]
pub(super) enum Decision {
    /// The answer, whatever else the store may know.
    Answer(Result<Response, Status>),
    /// The answer if these keys are what the cache says.
    AnswerIf(Vec<StoreKey>, Result<Response, Status>),
    /// To be committed.
    Commit(Commit),
    /// To be decided once the cache has got there.
    Await(Revision),
    /// To be decided once there is a lease for events.
    AwaitEventLease,
}

/// A transaction, and the answer if it succeeds (its revision is filled in).
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) txn: Box<Txn>,
    pub(super) response: Response,
}

impl Decision {
    pub(super) fn refuse(status: Status) -> Decision {
        Decision::Answer(Err(status))
    }

    /// Refused if the object is as the cache has it.
    pub(super) fn refuse_if(key: &ObjectKey, status: Status) -> Decision {
        Decision::AnswerIf(vec![StoreKey::Object(key.clone())], Err(status))
    }
}

/// One operation, if the key is still at this revision.
fn guarded(key: StoreKey, rv: Revision, op: Op) -> Box<Txn> {
    let (compare, success) = (smallvec![Compare::ModRevision(key, rv)], smallvec![op]);
    Box::new(Txn { compare, success, failure: Vec::new() })
}

impl Commit {
    /// Puts `new` in the place of `old`. A Lease that changes hands moves its fence in the same transaction; see
    /// [`Fence`](crate::api::Fence).
    pub(super) fn replace(key: &ObjectKey, old: &Object, new: Object) -> Commit {
        Commit::put(key, old.rv(), Some(old), new)
    }

    /// Puts a new object.
    pub(super) fn create(key: &ObjectKey, new: Object) -> Commit {
        Commit::put(key, Revision(0), None, new)
    }

    #[inline(always)]
    fn put(key: &ObjectKey, rv: Revision, old: Option<&Object>, new: Object) -> Commit {
        let fence = (key.kind == Kind::LEASE && !same_holder(old, &new)).then(|| {
            let value = Stored::mark(holder(&new));
            Op::Put { key: StoreKey::Fence(key.clone()), value, lease: None }
        });
        let key = StoreKey::Object(key.clone());
        let response = Response::Object(new.clone());
        let put = Op::Put { key: key.clone(), value: Stored::Object(new), lease: None };
        let mut txn = guarded(key, rv, put);
        if let Some(fence) = fence {
            txn.success.push(fence);
        }
        Commit { txn, response }
    }

    /// Lets what is put live by a lease of the store.
    pub(super) fn live_by(mut self, id: LeaseId) -> Commit {
        for op in &mut self.txn.success {
            if let Op::Put { lease, .. } = op {
                *lease = Some(id);
            }
        }
        self
    }

    /// Removes `old`; the answer is `last`, its last state. A Lease that goes takes its fence with it.
    pub(super) fn remove(key: &ObjectKey, old: &Object, last: Object) -> Commit {
        let object = StoreKey::Object(key.clone());
        let mut txn = guarded(object.clone(), old.rv(), Op::Delete { key: object });
        if key.kind == Kind::LEASE {
            txn.success.push(Op::Delete { key: StoreKey::Fence(key.clone()) });
        }
        Commit { txn, response: Response::Object(last) }
    }
}

/// What a decision may look at.
pub(super) struct Deciding<'a> {
    pub(super) now: Now,
    pub(super) cache: &'a super::Cache,
    pub(super) customs: &'a super::custom::Customs,
    pub(super) config: &'a super::Config,
    pub(super) rng: &'a mut Rng,
    pub(super) memo: &'a mut admission::Memo,
    pub(super) event_lease: &'a super::event_lease::EventLease,
}

impl<'a> Deciding<'a> {
    /// What is known of a kind.
    pub(super) fn info(&self, kind: Kind) -> KindRef {
        self.config.kinds.info(kind)
    }

    /// Reads what a client has written; fields that its kind does not have are dropped.
    pub(super) fn decode(&self, value: Value) -> Result<Object, Status> {
        decode::lenient_in(&self.config.kinds, value).map_err(|errors| {
            let first = errors.first().expect("what cannot be read says why");
            Status::bad_request(first.to_string())
        })
    }

    /// The newest state of an object that is known to this write.
    pub(super) fn object(&self, write: &Write, key: &ObjectKey) -> Option<Object> {
        self.known(write, key).cloned()
    }

    /// The same, where it stands.
    pub(super) fn known<'w>(&self, write: &'w Write, key: &ObjectKey) -> Option<&'w Object>
    where
        'a: 'w,
    {
        let fresh = write.fresh.iter().find(|(k, _)| matches!(k, StoreKey::Object(k) if k == key));
        match fresh {
            Some((_, value)) => value.as_deref().and_then(object_of),
            None => self.cache.get(key),
        }
    }

    #[inline]
    fn decide(&mut self, write: &mut Write) -> Decision {
        match &write.request.call {
            Call::Create { .. } => self.create(write),
            Call::Update { .. } => self.update(write),
            Call::Patch { .. } => self.patch(write),
            Call::Delete { .. } => self.delete(write),
            Call::Bind { .. } => self.bind(write),
            Call::Evict { .. } => self.evict(write),
            Call::GetScale { .. } => self.get_scale(write),
            Call::SetScale { .. } => self.set_scale(write),
            Call::Get { .. } | Call::List { .. } | Call::Watch { .. } | Call::DeleteCollection { .. } => {
                unreachable!("not a single write")
            }
        }
    }
}

impl ApiServer {
    /// Decides a write, and does what was decided.
    #[inline]
    pub(super) fn write(&mut self, now: Now, mut write: Box<Write>, out: &mut Vec<Out>) {
        write.attempts += 1;
        if write.attempts > limits::WRITE_ATTEMPTS {
            let status = Status::too_many_requests("too much contention; try again", std::time::Duration::from_secs(1));
            return self.answer(now, write.origin, Err(status), out);
        }
        let mut deciding = Deciding {
            now,
            cache: &self.cache,
            customs: &self.customs,
            config: &self.config,
            rng: &mut self.rng,
            memo: &mut self.memo,
            event_lease: &self.event_lease,
        };
        match deciding.decide(&mut write) {
            Decision::Answer(result) => self.answer(now, write.origin, result, out),
            Decision::AnswerIf(mut keys, result) => {
                keys.retain(|key| !write.is_fresh(key));
                if keys.is_empty() {
                    self.answer(now, write.origin, result, out);
                } else {
                    self.fetch_fresh(now, write, keys, out);
                }
            }
            Decision::Commit(commit) => self.commit(now, write, commit, out),
            Decision::Await(revision) => {
                write.fresh.clear();
                self.waits.add_write(now, revision, write);
                self.link.wait_for_revision(now);
            }
            Decision::AwaitEventLease => self.await_event_lease(now, *write, out),
        }
    }

    fn fetch_fresh(&mut self, now: Now, mut write: Box<Write>, keys: Vec<StoreKey>, out: &mut Vec<Out>) {
        assert!(!keys.is_empty(), "a look has something to look for");
        // The answer carries no keys of what is absent, so the questions are kept, last and in order.
        write.fresh.extend(keys.iter().map(|key| (key.clone(), None)));
        let txn = Txn { success: keys.into_iter().map(|key| Op::Get { key }).collect(), ..Txn::default() };
        self.ask_store(now, Job::FetchFresh(write), StoreRequest::Txn(Box::new(txn)), out);
    }

    pub(super) fn fetched_fresh(&mut self, now: Now, mut write: Box<Write>, answer: StoreReply, out: &mut Vec<Out>) {
        match answer {
            StoreReply::Txn { results, .. } => {
                let first = write.fresh.len() - results.len();
                for (slot, value) in write.fresh[first..].iter_mut().zip(results) {
                    slot.1 = value;
                }
                match fenced_off(&self.config.kinds, &write) {
                    Some(status) => self.answer(now, write.origin, Err(status), out),
                    None => self.write(now, write, out),
                }
            }
            _ => self.answer(now, write.origin, Err(unavailable()), out),
        }
    }

    fn commit(&mut self, now: Now, mut write: Box<Write>, commit: Commit, out: &mut Vec<Out>) {
        let Commit { mut txn, response } = commit;
        if is_dry_run(&write.request.call) {
            return self.answer(now, write.origin, Ok(response), out);
        }
        if let Some(fence) = &write.request.fence {
            txn.compare.push(Compare::ModRevision(StoreKey::Fence(fence.lease.clone()), fence.epoch));
        }
        if write.conflicted {
            let stale =
                txn.compare.iter().map(compared).filter(|key| !write.is_fresh(key)).cloned().collect::<Vec<_>>();
            if !stale.is_empty() {
                return self.fetch_fresh(now, write, stale, out);
            }
        }
        write.response = Some(response);
        self.ask_store(now, Job::Commit(write), StoreRequest::Txn(txn), out);
    }

    pub(super) fn committed(&mut self, now: Now, mut write: Box<Write>, answer: StoreReply, out: &mut Vec<Out>) {
        match answer {
            StoreReply::Txn { revision, succeeded: true, .. } => {
                let response = write.response.take().expect("a commit has an answer for its success");
                self.answer(now, write.origin, Ok(at_revision(response, revision)), out);
            }
            StoreReply::Txn { .. } => {
                // Somebody was faster. That is rare, so only then is what it compares read afresh.
                write.conflicted = true;
                write.fresh.clear();
                self.write(now, write, out);
            }
            StoreReply::Error(StoreError::LeaseNotFound) => {
                self.event_lease.forget();
                self.write(now, write, out);
            }
            StoreReply::Error(error) => self.answer(now, write.origin, Err(refused(&error)), out),
            _ => self.answer(now, write.origin, Err(unknown_outcome()), out),
        }
    }

    /// The write is over.
    #[inline(always)]
    pub(super) fn answer(&mut self, now: Now, origin: Origin, result: Result<Response, Status>, out: &mut Vec<Out>) {
        match origin {
            Origin::Client(conn, id) => reply(conn, id, result, out),
            Origin::Collection(collection) => self.collection_answer(now, collection, result, out),
            // What is missing is noticed and made again by the next housekeeping.
            Origin::Bootstrap => {}
        }
    }
}

/// What a client hears of a write that the store did not carry out, or may not have: the store's own words, with the
/// codes that Kubernetes gives them.
pub(super) fn refused(error: &StoreError) -> Status {
    match error {
        StoreError::TooLarge => Status::too_large("etcdserver: request is too large"),
        StoreError::NoSpace => Status::internal("etcdserver: mvcc: database space exceeded"),
        StoreError::Denied => Status::internal("etcdserver: permission denied"),
        StoreError::Compacted { .. } | StoreError::FutureRevision { .. } | StoreError::LeaseNotFound => unavailable(),
        StoreError::Unavailable => unknown_outcome(),
    }
}

fn compared(compare: &Compare) -> &StoreKey {
    match compare {
        Compare::ModRevision(key, _) | Compare::CreateRevision(key, _) | Compare::Version(key, _) => key,
    }
}

#[inline(always)]
fn at_revision(response: Response, revision: Revision) -> Response {
    match response {
        Response::Object(mut object) => {
            object.set_rv(revision);
            Response::Object(object)
        }
        Response::Done { .. } => Response::Done { rv: revision },
        Response::Scale(mut scale) => {
            scale.rv = revision;
            Response::Scale(scale)
        }
        Response::List { .. } => unreachable!("a write answers no list"),
    }
}

/// The refusal of a write whose leader has lost the lead, by what the store has said.
fn fenced_off(kinds: &Kinds, write: &Write) -> Option<Status> {
    let fence = write.request.fence.as_ref()?;
    let at = |k: &StoreKey| matches!(k, StoreKey::Fence(lease) if *lease == fence.lease);
    let (_, stands) = write.fresh.iter().find(|(k, _)| at(k))?;
    let epoch = stands.as_ref().map_or(Revision(0), |kv| kv.mod_revision());
    let key = about(&write.request.call);
    (epoch != fence.epoch).then(|| Status::fenced(&kinds.info(key.kind), key.name(), fence.lease.path()))
}

/// An object of the whole cluster has no namespace, whatever it says (`EnsureObjectNamespaceMatchesRequestNamespace`).
#[inline]
fn forget_namespace(object: &mut Object) {
    if !object.info().namespaced && !object.namespace().is_empty() {
        object.meta_mut().namespace = None;
    }
}

/// The object that a write is about.
fn about(call: &Call) -> ObjectKey {
    match call {
        Call::Create { object, .. } | Call::Update { object, .. } => object.key(),
        Call::Patch { key, .. }
        | Call::Delete { key, .. }
        | Call::GetScale { key }
        | Call::SetScale { key, .. }
        | Call::Get { key, .. } => key.clone(),
        Call::Bind { pod, .. } | Call::Evict { pod, .. } => pod.clone(),
        Call::List { kind, namespace, .. }
        | Call::Watch { kind, namespace, .. }
        | Call::DeleteCollection { kind, namespace, .. } => ObjectKey::range_start(*kind, namespace),
    }
}

fn is_dry_run(call: &Call) -> bool {
    match call {
        Call::Create { options, .. }
        | Call::Update { options, .. }
        | Call::Patch { options, .. }
        | Call::SetScale { options, .. } => options.dry_run,
        Call::Delete { options, .. } | Call::Evict { options, .. } | Call::DeleteCollection { options, .. } => {
            options.dry_run
        }
        Call::Get { .. } | Call::List { .. } | Call::Watch { .. } | Call::Bind { .. } | Call::GetScale { .. } => false,
    }
}

/// The name of a Lease's holder.
fn holder(object: &Object) -> &str {
    object.get::<WholeLease>().and_then(|l| l.spec.holder_identity.as_deref()).unwrap_or("")
}

fn same_holder(old: Option<&Object>, new: &Object) -> bool {
    let (Some(Object::Lease(old)), Object::Lease(new)) = (old, new) else { return false };
    Rc::ptr_eq(&old.spec, &new.spec)
        || (old.spec.holder_identity.as_deref().unwrap_or("") == new.spec.holder_identity.as_deref().unwrap_or("")
            && old.spec.lease_transitions == new.spec.lease_transitions)
}
