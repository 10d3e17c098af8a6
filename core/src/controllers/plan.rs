//! The interface of a controller, and the plans that it returns.

use std::any::Any;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::api::{Cause, Patch, Propagation, Status, Subresource};
use crate::client::{Change, EventType, Views, Watched};
use crate::limits;
use crate::machine::Now;
use crate::object::{Kind, KindInfo, Obj, Object, ObjectKey, Resource, Revision};

/// A controller: it decides and never acts.
pub trait Controller: Any {
    /// Kubernetes' name of the controller, for events and traces, such as `deployment-controller`.
    fn name(&self) -> &'static str;

    /// The kinds that it reads.
    fn watches(&self) -> &'static [Watched];

    /// Kinds that it additionally reads at present: those of CustomResourceDefinitions. Called whenever a definition
    /// has changed, if the controller watches them.
    fn watches_also(&self, _views: &Views) -> Vec<Watched> {
        Vec::new()
    }

    /// Observes a change of a watched kind; called before `keys`, once for each change. For caches that make a scan
    /// unnecessary and for recording when something was seen. It must not make decisions.
    fn observe(&mut self, _change: &Change, _now: Now) {}

    /// Adds the keys that a change affects. `views` already show the change.
    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>);

    /// Plans what to do about a key, from these views at this time. `&mut self` is for caches that affect no decision,
    /// and for state that is lost with the process (rate limiters, last-seen times).
    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan;

    /// Whether the create of this child, which has a fixed name, is sent again where its outcome is unknown, before the
    /// key is reconciled: where the next decision may make a child by another name, and so one too many.
    fn must_settle(&self, _child: &Object) -> bool {
        false
    }

    /// A planned write has succeeded; returns an Event to record, such as `SuccessfulCreate`. `object` is the server's
    /// reply: for a create, the child with the name that the runner generated.
    fn succeeded(
        &mut self,
        _views: &Views,
        _key: &ObjectKey,
        _write: &Write,
        _object: Option<&Object>,
    ) -> Option<EventNote> {
        None
    }

    /// A planned write was rejected and the key will be retried with back-off; returns an Event to record, such as
    /// `FailedCreate`.
    fn failed(&mut self, _views: &Views, _key: &ObjectKey, _write: &Write, _error: &Status) -> Option<EventNote> {
        None
    }
}

/// What to do about one key. An empty plan means that nothing has to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// Writes, in order. A run of `Create`s is sent in slow-start batches (1, 2, 4, …), a run of `Delete`s all at once,
    /// everything else one at a time. The first failure ends the plan, and the key is retried with back-off.
    pub writes: Vec<Write>,
    /// Events to record once the writes have succeeded.
    pub events: Vec<EventNote>,
    /// Reconcile the key again after this time in any case.
    pub requeue_after: Option<Duration>,
    /// Kinds whose views are too old for this decision.
    pub behind: Vec<Kind>,
    /// Other keys of this controller to reconcile now, whether or not the writes succeed.
    pub wake: Vec<ObjectKey>,
}

impl Plan {
    /// A plan without writes.
    pub fn nothing() -> Plan {
        Plan::default()
    }

    /// Reconciles the key again after this time, or earlier if that is already planned.
    pub fn requeue(&mut self, after: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(after, |d| d.min(after)));
    }

    /// Waits for the view of a kind to come to a later revision: reconciles the key again after this time. Where
    /// nothing of the kind changes, its view stays where it is, so it is listed again if a key waits for long.
    pub fn wait_for(&mut self, kind: Kind, after: Duration) {
        self.behind.push(kind);
        self.requeue(after);
    }
}

/// One write of a plan.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Write {
    /// Creates an object. If it has `generateName` and no name, the runner generates the name before sending, and
    /// reuses that name if the outcome of an earlier attempt is unknown.
    Create(Object),
    /// Replaces an object at the revision that it carries.
    Update(Object, Subresource),
    /// Patches an object if its UID (and revision, if given) is unchanged.
    Patch { key: ObjectKey, uid: Rc<str>, rv: Option<Revision>, patch: Patch, subresource: Subresource },
    /// Changes how many replicas an object at this revision is to have; `reason` is for Events about it.
    SetScale { key: ObjectKey, replicas: i32, rv: Revision, reason: String },
    /// Deletes an object if its UID is unchanged.
    Delete {
        key: ObjectKey,
        uid: Rc<str>,
        rv: Option<Revision>,
        grace_seconds: Option<i64>,
        propagation: Option<Propagation>,
    },
    /// Deletes all objects of a kind in a namespace.
    DeleteCollection { kind: Kind, namespace: Rc<str> },
    /// Writes nothing: lists the objects of a kind in a namespace, as fresh as the store (`rv` unset). If any is left,
    /// it fails with [`Write::not_empty`], which ends the plan.
    ExpectEmpty { kind: Kind, namespace: Rc<str> },
    /// Writes nothing: lists the pods of a claim's namespace, as fresh as the store. If one of them uses the claim, it
    /// fails with [`Write::in_use`], which ends the plan.
    ExpectUnused { claim: Object },
    /// Writes nothing: lists the object of this key, as fresh as the store. If it is there, with this UID where one is
    /// given, it fails with [`Write::is_there`], which ends the plan.
    ExpectMissing { key: ObjectKey, uid: Option<Rc<str>> },
}

impl Write {
    /// Gives an object this status; `None` if it has it already.
    pub fn status<R: Resource>(object: &Obj<R>, status: R::Status) -> Option<Write> {
        if *object.status == status {
            return None;
        }
        let mut copy = object.clone();
        copy.set_status(status);
        Some(Write::Update(R::into_object(copy), Subresource::Status))
    }

    /// The failure of [`Write::ExpectMissing`] if the object is there: the view will show it, and the plan is made
    /// anew.
    pub fn is_there(object: &Object) -> Status {
        Status::already_exists(object.info(), object.name())
    }

    /// The failure of [`Write::ExpectUnused`] if a pod uses the claim; the plan is retried later.
    pub fn in_use(claim: &Object, pod: &Object) -> Status {
        let message = format!("{} is used by pod {}", claim.key(), pod.key().path());
        Status::too_many_requests(message, limits::CLAIM_CONFLICT_RETRY)
    }

    /// The failure of [`Write::ExpectEmpty`] if these objects are left; the plan is retried later. Its causes are the
    /// finalizers that hold them.
    pub fn not_empty(of: &KindInfo, left: &[Object]) -> Status {
        let message = format!("{}. has {} resource instances", of.qualified(), left.len());
        let mut held: BTreeMap<&str, usize> = BTreeMap::new();
        for finalizer in left.iter().flat_map(|object| object.meta().finalizers.iter().flatten()) {
            *held.entry(finalizer).or_default() += 1;
        }
        let cause = |(finalizer, count): (&str, usize)| Cause {
            reason: String::new(),
            message: format!("{finalizer} in {count} resource instances"),
            field: "metadata.finalizers".to_owned(),
        };
        let mut status = Status::too_many_requests(message, limits::NAMESPACE_RETRY);
        status.details.get_or_insert_default().causes = held.into_iter().map(cause).collect();
        status
    }
}

/// An Event to record on an object.
#[derive(Clone, Debug)]
pub struct EventNote {
    /// The object that the Event is about.
    pub about: Object,
    /// Its type.
    pub type_: EventType,
    /// CamelCase reason, such as `SuccessfulCreate`.
    pub reason: &'static str,
    /// Human-readable message, as in Kubernetes.
    pub message: String,
}
