//! Requests, replies and watch events.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Status;
use crate::auth::User;
use crate::object::decode::DecodeError;
use crate::object::{FieldSelector, Kind, Object, ObjectKey, Revision, Selector};

/// Annotations, by key.
pub type Annotations = BTreeMap<String, String>;

/// Identifies a request (or watch) within one client connection. The high 16 bits identify the part of the client that
/// sent it (an informer, a controller's runner, …), so that a process routes a reply without a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ReqId(pub u64);

impl ReqId {
    /// The part of the client that sent the request.
    pub fn part(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// Generates request ids for one part of a client.
#[derive(Clone, Debug)]
pub struct ReqIds {
    part: u16,
    next: u64,
}

impl ReqIds {
    /// Creates a generator for the part with this number.
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

    /// Whether this part sent the request.
    pub fn owns(&self, id: ReqId) -> bool {
        id.part() == self.part
    }
}

/// A message from a client to an API server. The driver chooses the server, as a load balancer would.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToServer {
    /// A request. It gets exactly one `Reply` unless that is lost. A watch gets events, or a `Reply` with an error.
    Request(ReqId, Box<Request>),
    /// Ends a watch.
    Cancel(ReqId),
}

/// A message from an API server to a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FromServer {
    /// The reply. For a watch: its end (410 Expired, time-out, …).
    Reply(ReqId, Result<Response, Status>),
    /// An event of a watch.
    Watch(ReqId, WatchEvent),
    /// The connection was lost: the outcome of every request in flight is unknown, and every watch has ended.
    Disconnected,
}

/// Proof of leadership for a write: the write is carried out only if the lease was last acquired at `epoch`.
///
/// The epoch is the revision of the Lease update by which the holder acquired the lease (renewals do not change it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The election's Lease.
    pub lease: ObjectKey,
    /// Revision of the acquisition.
    pub epoch: Revision,
}

/// A request to the API server, after decoding.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Name of the user or component, for managedFields, events and audit.
    pub user: Rc<str>,
    /// Who asks, where that has to be known: without it the client is trusted. A driver that serves a network gives it.
    pub identity: Option<Rc<User>>,
    /// `fieldManager`: who manages the written fields; otherwise the user's name up to the first `/`.
    pub field_manager: Option<Rc<str>>,
    /// The version of a custom resource in which the request is made, unless its object says it. Without it, the one in
    /// which objects are stored.
    pub version: Option<Rc<str>>,
    /// Fields of a custom object that come twice, or that no metadata has. Those that its definition does not have are
    /// added where that is known.
    pub minded: Vec<DecodeError>,
    /// Leadership that must still hold when the write is committed.
    pub fence: Option<Fence>,
    /// The API call.
    pub call: Call,
}

impl Request {
    /// Creates a request without a fence and without options.
    pub fn new(user: &Rc<str>, call: Call) -> Box<Request> {
        Box::new(Request {
            user: Rc::clone(user),
            identity: None,
            field_manager: None,
            version: None,
            minded: Vec::new(),
            fence: None,
            call,
        })
    }
}

/// The part of an object that a call applies to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// `/approval` of a CertificateSigningRequest.
    Approval,
    /// `/ephemeralcontainers` of a pod.
    EphemeralContainers,
    /// `/resize` of a pod.
    Resize,
}

impl Subresource {
    /// The name in paths; empty for the object itself.
    pub fn name(self) -> &'static str {
        match self {
            Subresource::None => "",
            Subresource::Status => "status",
            Subresource::Scale => "scale",
            Subresource::Finalize => "finalize",
            Subresource::Approval => "approval",
            Subresource::EphemeralContainers => "ephemeralcontainers",
            Subresource::Resize => "resize",
        }
    }
}

/// What becomes of fields that a kind does not have, or that come twice (`fieldValidation`). Over HTTP, `Warn` is what
/// a request means that says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum FieldValidation {
    /// They are dropped.
    #[default]
    Ignore,
    /// They are dropped, and a warning names each.
    Warn,
    /// They are refused.
    Strict,
}

/// Options of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WriteOptions {
    /// `dryRun=All`: validate and admit, but store nothing.
    pub dry_run: bool,
    /// `fieldValidation`, for patches and custom objects. Other bodies are checked where they are decoded.
    pub field_validation: FieldValidation,
}

/// Conditions on the stored object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Precondition {
    /// Expected UID.
    pub uid: Option<Rc<str>>,
    /// Expected revision.
    pub rv: Option<Revision>,
}

/// What happens to dependents (`propagationPolicy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Propagation {
    /// The garbage collector deletes them after the owner.
    Background,
    /// They are deleted first; the owner keeps the `foregroundDeletion` finalizer until then.
    Foreground,
    /// They are kept and lose the owner reference.
    Orphan,
}

/// Options of a delete.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DeleteOptions {
    /// Conditions on the stored object.
    pub precondition: Precondition,
    /// `gracePeriodSeconds`; `None` means the object's own.
    pub grace_seconds: Option<i64>,
    /// `propagationPolicy`; `None` means the kind's default (Background; historically Orphan for
    /// ReplicationControllers).
    pub propagation: Option<Propagation>,
    /// `dryRun=All`.
    pub dry_run: bool,
}

/// Options of a list.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ListOptions {
    /// `labelSelector`.
    pub labels: Selector,
    /// `fieldSelector`.
    pub fields: FieldSelector,
    /// `limit`; zero: no limit.
    pub limit: usize,
    /// `continue`: the opaque token of an earlier reply.
    pub continue_from: Option<String>,
    /// `resourceVersion`. `None` (not set): as fresh as the store; `Some(0)`: whatever the server's cache has;
    /// otherwise not older than this.
    pub rv: Option<Revision>,
    /// `resourceVersionMatch=Exact`.
    pub exact: bool,
}

/// Options of a watch.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct WatchOptions {
    /// `labelSelector`.
    pub labels: Selector,
    /// `fieldSelector`.
    pub fields: FieldSelector,
    /// Events after this revision; zero: start with a synthetic `Added` for every existing object.
    pub rv: Revision,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`: start with every existing object, then a bookmark with `initial_events_end`.
    pub send_initial_events: bool,
    /// `timeoutSeconds`: when whoever serves it ends it. A bookmark comes shortly before, so that the next watch begins
    /// as close to the present as possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// How an object is patched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// A call of the API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Call {
    /// Reads one object; `rv` has the same meaning as in [`ListOptions::rv`].
    Get { key: ObjectKey, rv: Option<Revision> },
    /// Lists a kind in one namespace, or in all namespaces if `namespace` is empty.
    List { kind: Kind, namespace: Rc<str>, options: ListOptions },
    /// Watches a kind in one namespace, or in all namespaces if `namespace` is empty.
    Watch { kind: Kind, namespace: Rc<str>, options: WatchOptions },
    /// Creates an object. If its name is empty and `generateName` is set, a name is generated.
    Create { object: Object, options: WriteOptions },
    /// Replaces an object; `rv` zero means unconditional.
    Update { object: Object, subresource: Subresource, options: WriteOptions },
    /// Patches an object.
    Patch { key: ObjectKey, patch: Patch, subresource: Subresource, precondition: Precondition, options: WriteOptions },
    /// Deletes an object.
    Delete { key: ObjectKey, options: DeleteOptions },
    /// Deletes every object that matches.
    DeleteCollection { kind: Kind, namespace: Rc<str>, list: ListOptions, options: DeleteOptions },
    /// `pods/binding`: assigns a pod to a node, and annotates it. The UID must match.
    Bind { pod: ObjectKey, uid: Rc<str>, node: Rc<str>, annotations: Annotations },
    /// `pods/eviction`: a delete that PodDisruptionBudgets may reject with 429.
    Evict { pod: ObjectKey, options: DeleteOptions },
    /// Connects to a subresource, as `exec`: nothing is read or written, but admission judges it. `options` is what
    /// goes with it, as PodExecOptions.
    Connect {
        key: ObjectKey,
        #[serde(deserialize_with = "connected")]
        subresource: SubresourceName,
        options: Box<Value>,
    },
    /// Reads `/scale`.
    GetScale { key: ObjectKey },
    /// Writes `/scale`; `rv` zero means unconditional.
    SetScale { key: ObjectKey, replicas: i32, rv: Revision, options: WriteOptions },
}

/// The name of a subresource that is connected to.
type SubresourceName = &'static str;

/// The subresources of [`Call::Connect`].
const CONNECTED: [SubresourceName; 4] = ["attach", "exec", "portforward", "proxy"];

fn connected<'de, D: Deserializer<'de>>(from: D) -> Result<SubresourceName, D::Error> {
    let name = String::deserialize(from)?;
    let known = CONNECTED.into_iter().find(|known| *known == name);
    known.ok_or_else(|| D::Error::custom(format!("{name:?} is nothing to connect to")))
}

impl Call {
    /// The kind of the objects that the call applies to.
    #[inline]
    pub fn kind(&self) -> Kind {
        match self {
            Call::Create { object, .. } | Call::Update { object, .. } => object.kind(),
            Call::Patch { key, .. }
            | Call::Delete { key, .. }
            | Call::GetScale { key }
            | Call::Connect { key, .. }
            | Call::SetScale { key, .. }
            | Call::Get { key, .. } => key.kind,
            Call::Bind { pod, .. } | Call::Evict { pod, .. } => pod.kind,
            Call::List { kind, .. } | Call::Watch { kind, .. } | Call::DeleteCollection { kind, .. } => *kind,
        }
    }

    /// Whether it may change something.
    pub fn writes(&self) -> bool {
        let reads = matches!(
            self,
            Call::Get { .. } | Call::List { .. } | Call::Watch { .. } | Call::GetScale { .. } | Call::Connect { .. }
        );
        !reads
    }

    /// Whether everything is done but the write to the store (`dryRun=All`).
    pub fn is_dry_run(&self) -> bool {
        match self {
            Call::Create { options, .. }
            | Call::Update { options, .. }
            | Call::Patch { options, .. }
            | Call::SetScale { options, .. } => options.dry_run,
            Call::Delete { options, .. } | Call::Evict { options, .. } | Call::DeleteCollection { options, .. } => {
                options.dry_run
            }
            Call::Get { .. }
            | Call::List { .. }
            | Call::Watch { .. }
            | Call::Bind { .. }
            | Call::Connect { .. }
            | Call::GetScale { .. } => false,
        }
    }
}

/// The continuation of a list page.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rest {
    /// `continue`: token for the next page.
    pub continue_from: String,
    /// `remainingItemCount`; `None` if unknown.
    pub remaining: Option<u64>,
}

/// Current and desired number of replicas of an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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

/// A successful reply. Rare variants are boxed to keep it small, because every reply is moved several times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Response {
    /// The object after the call. For a delete: its last state (its `rv` is the revision of the deletion).
    Object(Object),
    /// A list.
    List {
        /// The objects, in key order.
        items: Rc<Vec<Object>>,
        /// Revision of the list.
        rv: Revision,
        /// The continuation; `None` on the last page.
        rest: Option<Box<Rest>>,
    },
    /// `/scale`.
    Scale(Box<Scale>),
    /// Success without a body (eviction, binding, deletecollection).
    Done {
        /// Revision of the write; zero if nothing was written.
        rv: Revision,
    },
}

/// One event of a watch. Revisions never go back within a watch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum WatchEvent {
    /// The object is new to this watch.
    Added(Object),
    /// The object changed.
    Modified(Object),
    /// The object was deleted or no longer matches: its last state, with the revision of the deletion or change.
    Deleted(Object),
    /// Every event up to this revision has been sent.
    Bookmark {
        /// The revision.
        rv: Revision,
        /// The `k8s.io/initial-events-end` annotation.
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
