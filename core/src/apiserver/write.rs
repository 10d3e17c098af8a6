//! The write path: decide on an object, transact on its revision, decide again where another writer was first.

use std::sync::Arc;

use super::{ApiServer, Job, Out, Pending};
use crate::api::{Call, FromServer, ReqId, Response, Status};
use crate::machine::Now;
use crate::object::{Kind, Namespace, Object, ObjectKey, ObjectMeta, Revision};
use crate::store::{Compare, KeyValue, Op, StoreKey, StoreRequest, Stored, Txn};

/// How often a write is decided anew before the client is told to come back.
const MOST_ATTEMPTS: u32 = 20;

/// What is to be done about a request, given the object as it stands.
pub(super) enum Decision {
    /// It is refused.
    Refuse(Status),
    /// Nothing has to be written.
    Unchanged(Response),
    /// It would be done, but this is a dry run.
    DryRun(Response),
    /// The object is put or deleted, with whatever else belongs into the same transaction.
    Commit(Commit),
}

/// A decided write.
pub(super) struct Commit {
    /// The object's key.
    pub key: ObjectKey,
    /// The new object; none: deleted.
    pub put: Option<Object>,
    /// Other keys' conditions.
    pub compare: Vec<Compare>,
    /// Other keys' operations.
    pub extra: Vec<Op>,
    /// What the client is told.
    pub reply: Reply,
}

/// What the client is told of a write that succeeded.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// The object, at the revision of the write.
    Object(Object),
    /// Only that it is done.
    Done,
    /// The scale of the object.
    Scale(Object),
}

/// What is kept of a decided write until the store has answered.
#[derive(Debug)]
pub(super) struct Settled {
    key: ObjectKey,
    reply: Reply,
}

/// A deletecollection: its parts and how many of them are still on their way.
#[derive(Debug)]
pub(super) struct Group {
    job: Job,
    left: usize,
    revision: Revision,
    error: Option<Status>,
}

impl ApiServer {
    /// The key that a write is about; the name of a create is chosen here.
    fn target(&mut self, job: &mut Job) -> Result<ObjectKey, Status> {
        Ok(match &mut job.request.call {
            Call::Create { object, .. } => {
                self.name_object(object)?;
                object.key()
            }
            Call::Update { object, .. } => object.key(),
            Call::Patch { key, .. } | Call::Delete { key, .. } | Call::SetScale { key, .. } => key.clone(),
            Call::Bind { pod, .. } | Call::Evict { pod, .. } => pod.clone(),
            other => unreachable!("not a write: {other:?}"),
        })
    }

    /// Decides and transacts. `current`: the object as the store has just told it, if it has.
    pub(super) fn write(&mut self, now: Now, mut job: Job, current: Option<Option<Object>>, out: &mut Vec<Out>) {
        let key = match self.target(&mut job) {
            Ok(key) => key,
            Err(status) => return self.finish(now, &job, Err(status), out),
        };
        let told = current.is_some();
        let (key, current) = match current {
            Some(current) => (key, current),
            // The cache's own copy of the key is shared from here on.
            None => match self.cache.get_entry(&key) {
                Some((cached, object)) => (cached.clone(), Some(object.clone())),
                None => (key, None),
            },
        };
        let decision = self.decide(now, &job, &key, current.as_ref());
        match decision {
            // A refusal (or the finding that there is nothing to do) counts only by a fresh cache.
            Decision::Refuse(_) | Decision::Unchanged(_) if !told && !job.verified => self.verify(now, job, out),
            Decision::Refuse(status) => self.finish(now, &job, Err(status), out),
            Decision::Unchanged(response) | Decision::DryRun(response) => self.finish(now, &job, Ok(response), out),
            Decision::Commit(commit) => {
                let based_on = current.as_ref().map_or(Revision(0), Object::rv);
                self.transact(now, job, commit, based_on, out);
            }
        }
    }

    fn decide(&mut self, now: Now, job: &Job, key: &ObjectKey, current: Option<&Object>) -> Decision {
        let missing = || Decision::Refuse(Status::not_found(key.kind, key.name()));
        match (&job.request.call, current) {
            (Call::Create { object, options }, current) => {
                // Whether it exists is the transaction's to say, unless the store has just said it.
                if current.is_some() && (job.attempts > 0 || job.verified) {
                    return Decision::Refuse(Status::already_exists(key.kind, key.name()));
                }
                self.decide_create(now, key, object, *options)
            }
            (_, None) => missing(),
            (Call::Update { object, subresource, options }, Some(current)) => {
                self.decide_update(now, key, object, *subresource, current, *options)
            }
            (Call::Patch { patch, subresource, precondition, options, .. }, Some(current)) => {
                self.decide_patch(now, key, patch, *subresource, precondition, current, *options)
            }
            (Call::Delete { options, .. }, Some(current)) => self.decide_delete(now, key, options, current),
            (Call::Bind { uid, node, .. }, Some(current)) => self.decide_bind(now, key, uid, node, current),
            (Call::Evict { options, .. }, Some(current)) => self.decide_evict(now, key, options, current),
            (Call::SetScale { replicas, rv, options, .. }, Some(current)) => {
                self.decide_scale(now, key, *replicas, *rv, current, *options)
            }
            (other, _) => unreachable!("not a write: {other:?}"),
        }
    }

    fn transact(&mut self, now: Now, job: Job, commit: Commit, based_on: Revision, out: &mut Vec<Out>) {
        let Commit { key, put, compare: more, extra, reply } = commit;
        let store_key = StoreKey::Object(key.clone());
        let based_on = if matches!(job.request.call, Call::Create { .. }) { Revision(0) } else { based_on };
        let mut compare = Vec::with_capacity(2 + more.len());
        compare.push(Compare::ModRevision(store_key.clone(), based_on));
        if let Some(fence) = &job.request.fence {
            compare.push(Compare::ModRevision(StoreKey::Fence(fence.lease.clone()), fence.epoch));
        }
        compare.extend(more);
        let failure = compare.iter().map(|c| Op::Get { key: compared(c).clone() }).collect();
        let mut success = Vec::with_capacity(1 + extra.len());
        success.push(match put {
            Some(object) => Op::Put { key: store_key, value: Stored::Object(object), lease: None },
            None => Op::Delete { key: store_key },
        });
        success.extend(extra);
        let settled = Box::new(Settled { key, reply });
        self.ask(now, StoreRequest::Txn(Txn { compare, success, failure }), Pending::Write(job, settled), out);
    }

    pub(super) fn settle(
        &mut self,
        now: Now,
        mut job: Job,
        settled: Settled,
        revision: Revision,
        succeeded: bool,
        results: Vec<Option<KeyValue>>,
        out: &mut Vec<Out>,
    ) {
        if succeeded {
            let response = match settled.reply {
                Reply::Object(mut object) => {
                    object.set_rv(revision);
                    Response::Object(object)
                }
                Reply::Done => Response::Done { rv: revision },
                Reply::Scale(mut object) => {
                    object.set_rv(revision);
                    super::scale::response(&object).expect("it was scaled")
                }
            };
            return self.finish(now, &job, Ok(response), out);
        }
        if let Some(fence) = &job.request.fence {
            let epoch = results.get(1).and_then(|r| r.as_ref()).map_or(Revision(0), |kv| kv.mod_revision);
            if epoch != fence.epoch {
                let status = Status::fenced(settled.key.kind, settled.key.name(), fence.lease.path());
                return self.finish(now, &job, Err(status), out);
            }
        }
        self.allocations.note_taken(results.iter().flatten());
        job.attempts += 1;
        if job.attempts > MOST_ATTEMPTS {
            let wait = std::time::Duration::from_secs(1);
            let status = Status::too_many_requests("too much contention on the object, try again later", wait);
            return self.finish(now, &job, Err(status), out);
        }
        let current = results.into_iter().next().flatten().and_then(|kv| match kv.value {
            Stored::Object(object) => Some(object),
            Stored::Mark(_) => None,
        });
        self.write(now, job, Some(current), out);
    }

    /// Ends a job: tells the client, or the group that it is part of.
    pub(super) fn finish(&mut self, now: Now, job: &Job, result: Result<Response, Status>, out: &mut Vec<Out>) {
        let Some(group_id) = job.group else {
            out.push(Out::Client(job.conn, FromServer::Reply(job.id, result)));
            return;
        };
        let group = self.groups.get_mut(&group_id).expect("a group lives until its last part has ended");
        group.left -= 1;
        match result {
            Ok(Response::Object(o)) => group.revision = group.revision.max(o.rv()),
            Ok(_) => {}
            Err(status) if status.reason == crate::api::Reason::NotFound => {}
            Err(status) => group.error = group.error.take().or(Some(status)),
        }
        if group.left == 0 {
            let group = self.groups.remove(&group_id).expect("it was just there");
            let result = match group.error {
                Some(status) => Err(status),
                None => Ok(Response::Done { rv: group.revision }),
            };
            self.finish(now, &group.job, result, out);
        }
    }

    /// Deletes every object that matches, each in a transaction of its own.
    pub(super) fn delete_collection(&mut self, now: Now, job: Job, out: &mut Vec<Out>) {
        let Call::DeleteCollection { kind, namespace, list, options } = &job.request.call else {
            unreachable!("not a deletecollection: {:?}", job.request.call)
        };
        if let Err(status) = super::fields::check(*kind, &list.fields) {
            return self.finish(now, &job, Err(status), out);
        }
        let selected =
            |o: &Object| list.labels.matches(o.labels()) && list.fields.matches(|path| super::fields::value(o, path));
        let keys: Vec<(ObjectKey, Arc<str>)> = self
            .cache
            .range(*kind, namespace, None)
            .filter(|(_, o)| selected(o))
            .map(|(k, o)| (k.clone(), Arc::from(o.uid())))
            .collect();
        if keys.is_empty() {
            return self.finish(now, &job, Ok(Response::Done { rv: Revision(0) }), out);
        }
        let group_id = self.next_group;
        self.next_group += 1;
        let parts: Vec<Job> = keys
            .into_iter()
            .map(|(key, uid)| {
                let mut options = options.clone();
                options.precondition.uid = Some(uid);
                let mut request = job.request.clone();
                request.call = Call::Delete { key, options };
                Job { conn: job.conn, id: ReqId(0), request, group: Some(group_id), attempts: 0, verified: true }
            })
            .collect();
        self.groups.insert(group_id, Group { job, left: parts.len(), revision: Revision(0), error: None });
        for part in parts {
            self.write(now, part, None, out);
        }
    }

    /// Creates the namespaces that every cluster has.
    pub(super) fn bootstrap(&mut self, now: Now, out: &mut Vec<Out>) {
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let key = ObjectKey::new(Kind::NAMESPACE, "", name);
            if self.cache.get(&key).is_some() {
                continue;
            }
            let meta = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            let object = Object::from(Namespace::new(meta, Default::default(), Default::default()));
            let decision = self.decide_create(now, &key, &object, Default::default());
            let Decision::Commit(commit) = decision else { unreachable!("a well-known namespace is valid") };
            let store_key = StoreKey::Object(key);
            let txn = Txn {
                compare: vec![Compare::ModRevision(store_key.clone(), Revision(0))],
                success: vec![Op::Put {
                    key: store_key,
                    value: Stored::Object(commit.put.expect("a create puts")),
                    lease: None,
                }],
                failure: Vec::new(),
            };
            self.ask(now, StoreRequest::Txn(txn), Pending::Bootstrap, out);
        }
    }
}

fn compared(compare: &Compare) -> &StoreKey {
    match compare {
        Compare::ModRevision(key, _) | Compare::CreateRevision(key, _) | Compare::Version(key, _) => key,
    }
}
