//! The path of every write: decide from what is known, commit the decision, and decide again if something changed in
//! between.
//!
//! A decision reads the cache, or what the store has replied since (`fresh`). It may answer immediately, ask for fresh
//! values before it rejects, commit a transaction that compares everything it was decided from, or wait for the cache.

use std::cell::RefCell;
use std::rc::Rc;

use k8s_openapi::api::coordination::v1::Lease as WholeLease;
use serde_json::Value;
use smallvec::smallvec;

use super::admission::policy::Policies;
use super::admission::webhook::{Answered, Consultation, Hooks, Progress};
use super::cache::object_of;
use super::conversion::Conversions;
use super::service_ip::Allocation;
use super::{ApiServer, ConnId, Job, Note, Out, admission, reply, unavailable, unknown_outcome};
use crate::api::{Call, Patch, ReqId, Request, Response, Status};
use crate::limits;
use crate::machine::Now;
use crate::object::{Kind, KindRef, Kinds, Object, ObjectKey, Revision, decode};
use crate::random::Rng;
use crate::store::{Compare, KeyValue, LeaseId, Op, StoreError, StoreKey, StoreReply, StoreRequest, Stored, Txn};

/// The recipient of a write's result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Client(ConnId, ReqId),
    /// A `deletecollection`, for one of its deletes; its number.
    Collection(u64),
    /// The server itself.
    Bootstrap,
    /// The server itself, for the roles and bindings that every cluster has.
    Policy,
}

/// A write in progress.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) origin: Origin,
    pub(super) request: Box<Request>,
    /// Values of relevant keys that were read from the store and were newer than the cache at that time.
    pub(super) fresh: Vec<(StoreKey, Option<Rc<KeyValue>>)>,
    attempts: u32,
    /// The object of a create after admission, so that another attempt need not admit it again.
    pub(super) admitted: Option<Object>,
    /// How many generated names were already in use.
    pub(super) names_tried: u32,
    /// A transaction has failed: the keys that the next one compares must be read first.
    conflicted: bool,
    /// The reply if the commit in flight succeeds.
    response: Option<Response>,
    /// Whether it is a server-side apply, which may create the object.
    pub(super) applies: bool,
    /// Whether the apply creates the object.
    pub(super) creates: bool,
    /// Warnings for the client if the write succeeds.
    pub(super) warnings: Vec<String>,
    /// What webhooks have been asked about it.
    pub(super) hooks: RefCell<Option<Box<Progress>>>,
    /// What has been converted for it.
    pub(super) conversions: RefCell<Conversions>,
}

impl Write {
    /// The user who asked for it, and over which connection; `None` if it is the server's own.
    pub(super) fn asker(&self) -> Option<(ConnId, &str)> {
        match self.origin {
            Origin::Client(conn, _) => Some((conn, &self.request.user)),
            Origin::Collection(_) | Origin::Bootstrap | Origin::Policy => None,
        }
    }

    pub(super) fn new(origin: Origin, mut request: Box<Request>) -> Box<Write> {
        if let Call::Create { object, .. } | Call::Update { object, .. } = &mut request.call {
            forget_namespace(object);
        }
        let applies = matches!(&request.call, Call::Patch { patch: Patch::Apply { .. }, .. });
        Box::new(Write {
            origin,
            request,
            fresh: Vec::new(),
            attempts: 0,
            admitted: None,
            names_tried: 0,
            conflicted: false,
            response: None,
            applies,
            creates: false,
            warnings: Vec::new(),
            hooks: RefCell::default(),
            conversions: RefCell::default(),
        })
    }

    fn is_fresh(&self, key: &StoreKey) -> bool {
        self.fresh.iter().any(|(k, _)| k == key)
    }
}

/// The decision about a write.
#[derive(Debug)]
pub(super) enum Decision {
    /// Answer, whatever else the store may have.
    Answer(Result<Response, Status>),
    /// Answer, provided that these keys in the store are as in the cache.
    AnswerIf(Vec<StoreKey>, Result<Response, Status>),
    /// Commit.
    Commit(Commit),
    /// Decide again once the cache has reached this revision.
    Await(Revision),
    /// Decide again once there is a store lease for Events.
    AwaitEventLease,
    /// Decide again once these questions have been answered.
    Consult(Vec<Consultation>),
}

/// A transaction, and the reply if it succeeds (its revision is filled in).
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) txn: Box<Txn>,
    pub(super) response: Response,
}

impl Decision {
    pub(super) fn refuse(status: Status) -> Decision {
        Decision::Answer(Err(status))
    }

    /// Rejects the write if the stored object is as in the cache.
    pub(super) fn refuse_if(key: &ObjectKey, status: Status) -> Decision {
        Decision::AnswerIf(vec![StoreKey::Object(key.clone())], Err(status))
    }
}

/// A transaction with one operation, carried out if the key is still at this revision.
fn guarded(key: StoreKey, rv: Revision, op: Op) -> Box<Txn> {
    let (compare, success) = (smallvec![Compare::ModRevision(key, rv)], smallvec![op]);
    Box::new(Txn { compare, success, failure: Vec::new() })
}

impl Commit {
    /// Replaces `old` by `new`. If a Lease changes its holder, its fence is moved in the same transaction; see
    /// [`Fence`](crate::api::Fence).
    pub(super) fn replace(key: &ObjectKey, old: &Object, new: Object) -> Commit {
        Commit::put(key, old.rv(), Some(old), new)
    }

    /// Creates an object.
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

    /// Attaches what is put to a lease of the store.
    pub(super) fn live_by(mut self, id: LeaseId) -> Commit {
        for op in &mut self.txn.success {
            if let Op::Put { lease, .. } = op {
                *lease = Some(id);
            }
        }
        self
    }

    /// Removes `old`; the reply is `last`, its last state. Removing a Lease also removes its fence.
    pub(super) fn remove(key: &ObjectKey, old: &Object, last: Object) -> Commit {
        let object = StoreKey::Object(key.clone());
        let mut txn = guarded(object.clone(), old.rv(), Op::Delete { key: object });
        if key.kind == Kind::LEASE {
            txn.success.push(Op::Delete { key: StoreKey::Fence(key.clone()) });
        }
        Commit { txn, response: Response::Object(last) }
    }
}

/// What a decision may read.
pub(super) struct Deciding<'a> {
    pub(super) now: Now,
    pub(super) cache: &'a super::Cache,
    pub(super) customs: &'a super::custom::Customs,
    pub(super) hooks: &'a Hooks,
    pub(super) policies: &'a Policies,
    pub(super) grants: Option<&'a super::policy::Grants>,
    pub(super) config: &'a super::Config,
    pub(super) rng: &'a mut Rng,
    pub(super) memo: &'a mut admission::Memo,
    pub(super) event_lease: &'a super::event_lease::EventLease,
}

impl<'a> Deciding<'a> {
    /// Adds what a kind's commits need: a lease for Events, the address allocation for Services.
    #[inline]
    pub(super) fn finish_commit(&self, commit: Commit, kind: Kind, allocation: Allocation) -> Decision {
        if kind != Kind::EVENT {
            return Decision::Commit(allocation.join(commit));
        }
        match self.event_lease.now(self.now) {
            Some(lease) => Decision::Commit(commit.live_by(lease)),
            None => Decision::AwaitEventLease,
        }
    }

    /// The description of a kind.
    pub(super) fn info(&self, kind: Kind) -> KindRef {
        self.config.kinds.info(kind)
    }

    /// Decodes an object from a client; fields that its kind does not have are dropped.
    pub(super) fn decode(&self, value: Value) -> Result<Object, Status> {
        decode::lenient_in(&self.config.kinds, value).map_err(|errors| {
            let first = errors.first().expect("what cannot be read says why");
            Status::bad_request(first.to_string())
        })
    }

    /// The newest version of an object that this write knows.
    pub(super) fn object(&self, write: &Write, key: &ObjectKey) -> Option<Object> {
        self.known(write, key).cloned()
    }

    /// The same, by reference.
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
            Call::Connect { .. } => self.connect(write),
            Call::GetScale { .. } => self.get_scale(write),
            Call::SetScale { .. } => self.set_scale(write),
            Call::Get { .. } | Call::List { .. } | Call::Watch { .. } | Call::DeleteCollection { .. } => {
                unreachable!("not a single write")
            }
        }
    }
}

impl ApiServer {
    /// Decides a write and carries out the decision.
    #[inline]
    pub(super) fn write(&mut self, now: Now, mut write: Box<Write>, out: &mut Vec<Out>) {
        write.attempts += 1;
        if write.attempts > limits::WRITE_ATTEMPTS {
            let status = Status::too_many_requests("too much contention; try again", std::time::Duration::from_secs(1));
            return self.answer(now, write.origin, Err(status), out);
        }
        if self.config.webhooks {
            self.hooks.refresh(&self.cache);
        }
        self.policies.refresh(&self.cache);
        let mut deciding = Deciding {
            now,
            cache: &self.cache,
            customs: &self.customs,
            hooks: &self.hooks,
            policies: &self.policies,
            grants: self.grants.as_ref(),
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
                    if result.is_ok() {
                        send_notes(&write, out);
                    }
                    self.answer(now, write.origin, result, out);
                } else {
                    self.fetch_fresh(now, write, keys, out);
                }
            }
            Decision::Commit(mut commit) => {
                deciding.follow_addresses(&write, &mut commit);
                self.commit(now, write, commit, out);
            }
            Decision::Await(revision) => {
                write.fresh.clear();
                self.waits.add_write(now, revision, write);
                self.link.wait_for_revision(now);
            }
            Decision::AwaitEventLease => self.await_event_lease(now, *write, out),
            Decision::Consult(questions) => {
                // It was not the store that asked for another attempt.
                write.attempts -= 1;
                let id = self.next_task();
                self.consulting.insert(id, write);
                out.push(Out::Consult(id, questions));
            }
        }
    }

    /// Somebody outside has answered the questions about a write.
    pub(super) fn consulted(&mut self, now: Now, id: u64, mut answers: Vec<Answered>, out: &mut Vec<Out>) {
        if let Some(mut write) = self.consulting.remove(&id) {
            if !write.conversions.get_mut().take(&mut answers) {
                write.hooks.get_mut().get_or_insert_default().answers = answers;
            }
            self.write(now, write, out);
        }
    }

    fn fetch_fresh(&mut self, now: Now, mut write: Box<Write>, keys: Vec<StoreKey>, out: &mut Vec<Out>) {
        assert!(!keys.is_empty(), "a look has something to look for");
        // The reply does not name the keys that do not exist, so the requested keys are kept here, last and in order.
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
            StoreReply::Range { .. }
            | StoreReply::Watching { .. }
            | StoreReply::WatchCanceled { .. }
            | StoreReply::Compacted { .. }
            | StoreReply::Lease { .. }
            | StoreReply::Revoked { .. }
            | StoreReply::Revision { .. }
            | StoreReply::ProgressAsked
            | StoreReply::Error(_) => self.answer(now, write.origin, Err(unavailable()), out),
        }
    }

    fn commit(&mut self, now: Now, mut write: Box<Write>, commit: Commit, out: &mut Vec<Out>) {
        let Commit { mut txn, response } = commit;
        if write.request.call.is_dry_run() {
            send_notes(&write, out);
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
                send_notes(&write, out);
                self.answer(now, write.origin, Ok(at_revision(response, revision)), out);
            }
            StoreReply::Txn { .. } => {
                // Another write came first. That is rare, so the compared keys are read from the store only now and not
                // before every write.
                write.conflicted = true;
                write.fresh.clear();
                self.write(now, write, out);
            }
            StoreReply::Error(StoreError::LeaseNotFound) => {
                self.event_lease.forget();
                self.write(now, write, out);
            }
            StoreReply::Error(error) => self.answer(now, write.origin, Err(refused(&error)), out),
            StoreReply::Range { .. }
            | StoreReply::Watching { .. }
            | StoreReply::WatchCanceled { .. }
            | StoreReply::Compacted { .. }
            | StoreReply::Lease { .. }
            | StoreReply::Revoked { .. }
            | StoreReply::Revision { .. }
            | StoreReply::ProgressAsked => self.answer(now, write.origin, Err(unknown_outcome()), out),
        }
    }

    /// Delivers the result of a write.
    #[inline(always)]
    pub(super) fn answer(&mut self, now: Now, origin: Origin, result: Result<Response, Status>, out: &mut Vec<Out>) {
        match origin {
            Origin::Client(conn, id) => reply(conn, id, result, out),
            Origin::Collection(collection) => self.collection_answer(now, collection, result, out),
            // If an object is missing, the next housekeeping creates it again.
            Origin::Bootstrap => {}
            Origin::Policy => self.policy_written(now, &result, out),
        }
    }
}

/// Sends the notes about a write, which come before its reply.
#[inline]
fn send_notes(write: &Write, out: &mut Vec<Out>) {
    if let Origin::Client(conn, id) = write.origin {
        let hooks = write.hooks.borrow();
        let warnings = write.warnings.iter().chain(hooks.iter().flat_map(|hooks| &hooks.warnings));
        out.extend(warnings.map(|text| Out::Note(conn, id, Note::Warning(text.as_str().into()))));
        if write.creates {
            out.push(Out::Note(conn, id, Note::Created));
        }
    }
}

/// The reply to a write that the store rejected or whose outcome is unknown: the store's message, with Kubernetes'
/// status code for it.
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

/// The rejection of a write whose leader has lost its leadership according to the store; `None` if it has not.
fn fenced_off(kinds: &Kinds, write: &Write) -> Option<Status> {
    let fence = write.request.fence.as_ref()?;
    let at = |k: &StoreKey| matches!(k, StoreKey::Fence(lease) if *lease == fence.lease);
    let (_, stands) = write.fresh.iter().find(|(k, _)| at(k))?;
    let epoch = stands.as_ref().map_or(Revision(0), |kv| kv.mod_revision());
    let key = about(&write.request.call);
    (epoch != fence.epoch).then(|| Status::fenced(&kinds.info(key.kind), key.name(), fence.lease.path()))
}

/// Removes the namespace of a cluster-scoped object (`EnsureObjectNamespaceMatchesRequestNamespace`).
#[inline]
fn forget_namespace(object: &mut Object) {
    if !object.info().namespaced && !object.namespace().is_empty() {
        object.meta_mut().namespace = None;
    }
}

/// The key of the object that a write is about.
fn about(call: &Call) -> ObjectKey {
    match call {
        Call::Create { object, .. } | Call::Update { object, .. } => object.key(),
        Call::Patch { key, .. }
        | Call::Delete { key, .. }
        | Call::GetScale { key }
        | Call::Connect { key, .. }
        | Call::SetScale { key, .. }
        | Call::Get { key, .. } => key.clone(),
        Call::Bind { pod, .. } | Call::Evict { pod, .. } => pod.clone(),
        Call::List { kind, namespace, .. }
        | Call::Watch { kind, namespace, .. }
        | Call::DeleteCollection { kind, namespace, .. } => ObjectKey::range_start(*kind, namespace),
    }
}

/// The identity of a Lease's holder.
fn holder(object: &Object) -> &str {
    object.get::<WholeLease>().and_then(|l| l.spec.holder_identity.as_deref()).unwrap_or("")
}

fn same_holder(old: Option<&Object>, new: &Object) -> bool {
    let (Some(Object::Lease(old)), Object::Lease(new)) = (old, new) else { return false };
    Rc::ptr_eq(&old.spec, &new.spec)
        || (old.spec.holder_identity.as_deref().unwrap_or("") == new.spec.holder_identity.as_deref().unwrap_or("")
            && old.spec.lease_transitions == new.spec.lease_transitions)
}
