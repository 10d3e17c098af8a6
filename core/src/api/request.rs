//! Requests, replies and watch events.

use std::rc::Rc;

use serde_json::Value;

use super::Status;
use crate::object::{FieldSelector, Kind, Object, ObjectKey, Revision, Selector};

/// Names a request (or watch) within one client connection. The high 16 bits name the part of the client that asked
/// (an informer, a controller's runner, …), so that a process routes a reply without a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReqId(pub u64);

impl ReqId {
    /// The part of the client that asked.
    pub fn part(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// Hands out request ids for one part of a client.
#[derive(Clone, Debug)]
pub struct ReqIds {
    part: u16,
    next: u64,
}

impl ReqIds {
    /// For the part of this number.
    pub fn new(part: u16) -> ReqIds {
        ReqIds { part, next: 1 }
    }

    /// The next id; never repeats.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> ReqId {
        let id = ReqId((u64::from(self.part) << 48) | self.next);
        self.next += 1;
        id
    }

    /// Whether this part asked.
    pub fn owns(&self, id: ReqId) -> bool {
        id.part() == self.part
    }
}

/// From a client to the API server that its connection leads to. The driver picks the server, as a load balancer.
#[derive(Clone, Debug)]
pub enum ToServer {
    /// Asks for something; exactly one `Reply` answers, unless it is lost. A watch is answered by events instead,
    /// or by a `Reply` with an error.
    Request(ReqId, Box<Request>),
    /// Ends a watch.
    Cancel(ReqId),
}

/// From the API server to a client.
#[derive(Clone, Debug)]
pub enum FromServer {
    /// The answer. For a watch: its end (410 Expired, time-out, …).
    Reply(ReqId, Result<Response, Status>),
    /// An event of a watch.
    Watch(ReqId, WatchEvent),
    /// The connection broke: every request in flight has an unknown outcome, every watch is gone.
    Disconnected,
}

/// Proof of leadership that a write carries: it is carried out only if the lease was last acquired at `epoch`.
///
/// The epoch is the revision of the Lease update by which the holder became the holder (renewals don't change it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The election's Lease.
    pub lease: ObjectKey,
    /// Revision of the acquisition.
    pub epoch: Revision,
}

/// A request as the API server takes it, after the wire has been decoded.
#[derive(Clone, Debug)]
pub struct Request {
    /// Name of the user or component, for managedFields, events and audit.
    pub user: Rc<str>,
    /// Leadership that must still hold when the write commits.
    pub fence: Option<Fence>,
    /// What is asked.
    pub call: Call,
}

impl Request {
    /// An unfenced request.
    pub fn new(user: &Rc<str>, call: Call) -> Box<Request> {
        Box::new(Request { user: Rc::clone(user), fence: None, call })
    }
}

/// Which part of an object a call is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord)]
pub enum Subresource {
    /// The object itself.
    #[default]
    None,
    /// `/status`.
    Status,
    /// `/scale`: bodies are `autoscaling/v1 Scale` as [`Dynamic`](crate::object::Dynamic)-like JSON in `Call::Patch`,
    /// see [`Call::GetScale`] and [`Call::SetScale`].
    Scale,
    /// `/finalize` of a namespace.
    Finalize,
}

/// Options of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteOptions {
    /// `dryRun=All`: go through everything, store nothing.
    pub dry_run: bool,
}

/// What must hold of the stored object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Precondition {
    /// Its UID.
    pub uid: Option<Rc<str>>,
    /// Its revision.
    pub rv: Option<Revision>,
}

/// What becomes of dependants (`propagationPolicy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Propagation {
    /// The garbage collector deletes them afterwards.
    Background,
    /// They are deleted first; the owner waits with the `foregroundDeletion` finalizer.
    Foreground,
    /// They are kept and lose the owner reference.
    Orphan,
}

/// Options of a delete.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeleteOptions {
    /// What must hold.
    pub precondition: Precondition,
    /// `gracePeriodSeconds`; absent: the object's own.
    pub grace_seconds: Option<i64>,
    /// `propagationPolicy`; absent: the kind's default (Background, save Orphan for ReplicationControllers of old).
    pub propagation: Option<Propagation>,
    /// `dryRun=All`.
    pub dry_run: bool,
}

/// Options of a list.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ListOptions {
    /// `labelSelector`.
    pub labels: Selector,
    /// `fieldSelector`.
    pub fields: FieldSelector,
    /// `limit`; zero: no limit.
    pub limit: usize,
    /// `continue`: an opaque token from an earlier reply.
    pub continue_from: Option<String>,
    /// `resourceVersion`: `None` (not set): as fresh as the store; `Some(0)`: whatever the server's cache has;
    /// otherwise not older than this.
    pub rv: Option<Revision>,
    /// `resourceVersionMatch=Exact`.
    pub exact: bool,
}

/// Options of a watch.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WatchOptions {
    /// `labelSelector`.
    pub labels: Selector,
    /// `fieldSelector`.
    pub fields: FieldSelector,
    /// Events after this revision; zero: begin with synthetic `Added` for everything there is.
    pub rv: Revision,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`: begin with everything, then a bookmark with `initial_events_end`.
    pub send_initial_events: bool,
}

/// How an object is patched.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// RFC 7386 merge patch.
    Merge(Value),
    /// RFC 6902 JSON patch.
    Json(Value),
    /// Kubernetes' strategic merge patch.
    Strategic(Value),
    /// Server-side apply.
    Apply {
        /// The applied configuration.
        body: Value,
        /// `fieldManager`.
        manager: String,
        /// `force`.
        force: bool,
    },
}

/// What is asked of the API server.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Call {
    /// Reads one object; `rv` as in [`ListOptions::rv`].
    Get { key: ObjectKey, rv: Option<Revision> },
    /// Lists a kind, in one namespace or (empty) all.
    List { kind: Kind, namespace: Rc<str>, options: ListOptions },
    /// Watches a kind, in one namespace or (empty) all.
    Watch { kind: Kind, namespace: Rc<str>, options: WatchOptions },
    /// Creates an object. An empty name with `generateName` gets one.
    Create { object: Object, options: WriteOptions },
    /// Replaces an object; `rv` zero means unconditional.
    Update { object: Object, subresource: Subresource, options: WriteOptions },
    /// Patches an object.
    Patch { key: ObjectKey, patch: Patch, subresource: Subresource, precondition: Precondition, options: WriteOptions },
    /// Deletes an object.
    Delete { key: ObjectKey, options: DeleteOptions },
    /// Deletes every object that matches.
    DeleteCollection { kind: Kind, namespace: Rc<str>, list: ListOptions, options: DeleteOptions },
    /// `pods/binding`: assigns a pod to a node. The UID must match.
    Bind { pod: ObjectKey, uid: Rc<str>, node: Rc<str> },
    /// `pods/eviction`: a delete that PodDisruptionBudgets may refuse with 429.
    Evict { pod: ObjectKey, options: DeleteOptions },
    /// Reads `/scale`.
    GetScale { key: ObjectKey },
    /// Writes `/scale`; `rv` zero means unconditional.
    SetScale { key: ObjectKey, replicas: i32, rv: Revision, options: WriteOptions },
}

impl Call {
    /// The kind of the objects that it is about.
    #[inline]
    pub fn kind(&self) -> Kind {
        match self {
            Call::Create { object, .. } | Call::Update { object, .. } => object.kind(),
            Call::Patch { key, .. }
            | Call::Delete { key, .. }
            | Call::GetScale { key }
            | Call::SetScale { key, .. }
            | Call::Get { key, .. } => key.kind,
            Call::Bind { pod, .. } | Call::Evict { pod, .. } => pod.kind,
            Call::List { kind, .. } | Call::Watch { kind, .. } | Call::DeleteCollection { kind, .. } => *kind,
        }
    }
}

/// What follows a page of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rest {
    /// `continue`: token for the next page.
    pub continue_from: String,
    /// `remainingItemCount`, where known.
    pub remaining: Option<u64>,
}

/// How large an object is and is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scale {
    /// The scaled object.
    pub key: ObjectKey,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `status.replicas`.
    pub current: i32,
    /// `status.selector`.
    pub selector: String,
    /// Revision of the scaled object.
    pub rv: Revision,
}

/// A successful reply. Small, since every answer is moved from hand to hand: what is rare is boxed.
#[derive(Clone, Debug)]
pub enum Response {
    /// The object as it now stands. For a delete: its last state (its `rv` is that of the deletion).
    Object(Object),
    /// A list.
    List {
        /// The objects, in order of their keys.
        items: Rc<Vec<Object>>,
        /// Revision that the list is of.
        rv: Revision,
        /// What follows, unless this is the end.
        rest: Option<Box<Rest>>,
    },
    /// `/scale`.
    Scale(Box<Scale>),
    /// Done, with nothing to show (eviction, binding, deletecollection).
    Done {
        /// Revision of the write; zero where nothing was written.
        rv: Revision,
    },
}

/// One event of a watch. Revisions never go back within a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// The object is new to this watch.
    Added(Object),
    /// The object changed.
    Modified(Object),
    /// The object is gone, or no longer matches; in its last state, with the revision of the deletion.
    Deleted(Object),
    /// Nothing up to this revision is missing.
    Bookmark {
        /// The revision.
        rv: Revision,
        /// `k8s.io/initial-events-end`.
        initial_events_end: bool,
    },
}

impl WatchEvent {
    /// The revision that the watch has reached with this event.
    pub fn rv(&self) -> Revision {
        match self {
            WatchEvent::Added(o) | WatchEvent::Modified(o) | WatchEvent::Deleted(o) => o.rv(),
            WatchEvent::Bookmark { rv, .. } => *rv,
        }
    }
}
