//! What a controller is, and what it can ask for.

use std::rc::Rc;
use std::time::Duration;

use crate::api::{Patch, Propagation, Status, Subresource};
use crate::client::{Change, Index, Views};
use crate::limits;
use crate::machine::Now;
use crate::object::{Kind, KindInfo, Object, ObjectKey, Revision};
use crate::read_ahead::Step;

/// A kind that a controller reads, and the indexes that it asks.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// The kind.
    pub kind: Kind,
    /// Indexes to keep.
    pub indexes: &'static [Index],
}

/// A controller: decides, never acts.
pub trait Controller {
    /// Kubernetes' name of the controller, for events and traces: `deployment-controller`.
    fn name(&self) -> &'static str;

    /// What it reads.
    fn watches(&self) -> &'static [Watched];

    /// What it has learnt to read beside that: kinds that CustomResourceDefinitions have brought. Asked whenever one of
    /// those has changed, if it watches them.
    fn watches_also(&self, _views: &Views) -> Vec<Watched> {
        Vec::new()
    }

    /// Notes a change of a watched kind as it arrives; called before `keys`, once for each change. For memos that spare
    /// a walk, and for when something was seen; it decides nothing.
    fn observe(&mut self, _change: &Change, _now: Now) {}

    /// Reads what [`observe`](Self::observe) will touch for news of these objects; see [`crate::read_ahead`].
    fn read_ahead(&self, _keys: &[&ObjectKey], _step: Step) {}

    /// The keys that a change concerns. `views` already show the change.
    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>);

    /// What is to be done about a key, by this view and at this time. `&mut self` is for memos that change no
    /// decision and for state that dies with the process (rate limiters, last-seen times).
    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan;

    /// Something that this controller asked for was done; it may note it in an event (`SuccessfulCreate`). `object` is
    /// what the server answered: of a create, the child with the name that the runner chose.
    fn succeeded(
        &mut self,
        _views: &Views,
        _key: &ObjectKey,
        _write: &Write,
        _object: Option<&Object>,
    ) -> Option<EventNote> {
        None
    }

    /// Something that this controller asked for failed for good and will be tried again by back-off; it may note it
    /// in an event (`FailedCreate`).
    fn failed(&mut self, _views: &Views, _key: &ObjectKey, _write: &Write, _error: &Status) -> Option<EventNote> {
        None
    }
}

/// What is to be done about one key. An empty plan says that all is well.
#[derive(Debug, Default)]
pub struct Plan {
    /// Writes, in order. A run of `Create`s goes out in slow-start batches (1, 2, 4, …), a run of `Delete`s all at
    /// once, everything else one by one. The first failure ends the plan, and the key comes back by back-off.
    pub writes: Vec<Write>,
    /// Events to record once the writes have succeeded.
    pub events: Vec<EventNote>,
    /// Come back after this long whatever happens.
    pub requeue_after: Option<Duration>,
    /// Other keys of this controller to reconcile now, whether or not the writes succeed.
    pub wake: Vec<ObjectKey>,
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Plan {
        Plan::default()
    }

    /// Come back after this long, or sooner if already asked for.
    pub fn requeue(&mut self, after: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(after, |d| d.min(after)));
    }
}

/// One write that a controller asks for.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Write {
    /// Creates an object. With `generateName` and no name, the runner chooses the name before it sends, and uses the
    /// same name again if the outcome of an earlier try is unknown.
    Create(Object),
    /// Replaces an object, at the revision that it carries.
    Update(Object, Subresource),
    /// Patches an object, if it still has this UID (and revision, if given).
    Patch { key: ObjectKey, uid: Rc<str>, rv: Option<Revision>, patch: Patch, subresource: Subresource },
    /// Deletes an object, if it still has this UID.
    Delete {
        key: ObjectKey,
        uid: Rc<str>,
        rv: Option<Revision>,
        grace_seconds: Option<i64>,
        propagation: Option<Propagation>,
    },
    /// Deletes every object of a kind in a namespace.
    DeleteCollection { kind: Kind, namespace: Rc<str> },
    /// Writes nothing: lists one object of a kind in a namespace, as fresh as the store (`rv` unset, `limit` 1), and
    /// fails with [`Write::not_empty`] if there is any, which ends the plan.
    ExpectEmpty { kind: Kind, namespace: Rc<str> },
}

impl Write {
    /// The failure of [`Write::ExpectEmpty`] where `count` objects are left: not yet, ask again.
    pub fn not_empty(of: &KindInfo, count: u64) -> Status {
        let message = format!("{}. has {count} resource instances", of.qualified());
        Status::too_many_requests(message, limits::NAMESPACE_RETRY)
    }
}

/// An Event to record on an object.
#[derive(Clone, Debug)]
pub struct EventNote {
    /// The object that it is about.
    pub about: Object,
    /// `Normal`, or `Warning` if true.
    pub warning: bool,
    /// CamelCase reason: `SuccessfulCreate`.
    pub reason: &'static str,
    /// Human-readable message in Kubernetes' words.
    pub message: String,
}
