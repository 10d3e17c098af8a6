//! The object model: Kubernetes' types at every edge, shared parts inside.
//!
//! An object is held as [`Obj`]: its revision, and one pointer to metadata, spec and status, each a [`Part`] of its
//! own, so that a change of a status copies one part, and passing an object on copies none. Beside them stands what is
//! written anew all the time, a Lease's `renewTime`. The resource version is a number beside the metadata, never inside
//! (`ObjectMeta::resource_version` is `None` here), so a write that changes only the revision shares everything.
//! `creation_timestamp`, `uid` and the rest stay in the metadata.
//!
//! A kind without spec and status (ConfigMap, EndpointSlice, …) has its whole k8s-openapi type, with empty
//! metadata, as its spec, and `()` as its status. Kinds that no machine of ours reads are [`Dynamic`].

#[macro_use]
mod typed;

mod builtin;
pub mod decode;
pub mod defaults;
mod digest;
mod dynamic;
mod event;
mod field_error;
mod helpers;
mod intern;
mod key;
mod key_map;
mod kind;
mod kinds;
mod lease;
mod meta;
mod name_map;
mod node;
mod part;
mod placement;
mod pod;
mod pod_spec;
mod pod_status;
mod quantity;
mod resources;
mod selector;
mod strategy;
pub mod structural;
mod table;
mod template;
mod text;
mod time;
pub mod validation;

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::{
    apps::v1 as apps_v1, batch::v1 as batch_v1, coordination::v1 as coordination_v1, core::v1 as core_v1,
    discovery::v1 as discovery_v1, policy::v1 as policy_v1,
};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, MicroTime, ObjectMeta, OwnerReference, Time};
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde_json::Value;

use crate::read_ahead::touch_shared;
use strategy::Strategy;

pub use digest::Digest;
pub use dynamic::{Dynamic, DynamicParts};
pub use event::{EventOrigin, EventSpec};
pub use field_error::{ErrorKind, FieldError};
pub use helpers::*;
pub use intern::Interner;
pub use key::ObjectKey;
pub(crate) use key::joined;
pub use key_map::KeyMap;
pub use kind::{GroupVersion, Kind, KindInfo, KindRef, SubresourceInfo, Verbs, Words};
pub use kinds::Kinds;
pub use lease::RenewTime;
pub use meta::Meta;
pub use name_map::NameMap;
pub use node::ReportedNodeStatus;
pub use part::{Inline, Part, Summarize, Summarized};
pub use placement::{matches_node, tolerates};
pub use pod::BoundPodSpec;
pub use pod_spec::SharedPodSpec;
pub use pod_status::{
    Addresses, ContainerState, ContainerStatus, PodCondition, PodPhase, PodReadiness, PodStatus, PodSummary, Terminated,
};
pub use quantity::{Milli, Nano, QuantityError};
pub use resources::{
    Amounts, container_limits, container_requests, is_pod_level, is_restartable_init, pod_limits, pod_requests,
    qos_class,
};
pub use selector::{FieldSelector, Labels, Requirement, Selector, SelectorError};
pub use strategy::{Replicas, lacks_node_port};
pub use template::{HasTemplate, Templated};
pub use text::{Stamp, Text};

/// A revision of the store, which is what `resourceVersion` shows. Zero: not stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Revision(pub u64);

impl std::fmt::Debug for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A built-in kind that the machines read as a type.
pub trait Resource: Sized + 'static {
    /// Its row in the registry.
    const KIND: Kind;
    /// Its spec, as held inside.
    type Spec: Clone + Default + PartialEq + std::fmt::Debug + Digest;
    /// Its status, as held inside; `()` where there is none.
    type Status: Clone + Default + PartialEq + std::fmt::Debug + Digest;
    /// How the spec is held.
    type SpecPart: Part<Of = Self::Spec>;
    /// How the status is held.
    type StatusPart: Part<Of = Self::Status>;
    /// What of the spec is written anew all the time, and held apart from the rest; `()` where nothing is.
    type Renewal: Copy + Default + PartialEq + std::fmt::Debug + Serialize;

    /// Takes a whole object apart.
    fn split(self) -> (ObjectMeta, Self::Spec, Self::Status);
    /// Puts a whole object together.
    fn join(meta: ObjectMeta, spec: &Self::Spec, status: &Self::Status) -> Self;
    /// Takes what is held apart out of a whole spec.
    fn take_renewal(_spec: &mut Self::Spec) -> Self::Renewal {
        Self::Renewal::default()
    }
    /// Puts what is held apart into a whole object.
    fn put_renewal(&mut self, _renewal: Self::Renewal) {}
    /// The typed object within an [`Object`], if it is of this kind.
    fn from_object(object: &Object) -> Option<&Obj<Self>>;
    /// The typed object within an [`Object`], for changing it.
    fn from_object_mut(object: &mut Object) -> Option<&mut Obj<Self>>;
    /// Wraps a typed object.
    fn into_object(obj: Obj<Self>) -> Object;
}

/// A typed object in shared parts. A clone copies one counter.
///
/// Reads go through to the [`Parts`]. A write to a part copies what other holders share: the three pointers, and that
/// part. The revision and the renewal are nobody else's: the store sets the one and a holder of a Lease the other for
/// free.
#[repr(C)]
pub struct Obj<R: Resource> {
    /// Revision of the last change; zero if not stored.
    pub rv: Revision,
    parts: Rc<Parts<R>>,
    /// What is held apart from the spec, since it is written anew all the time: a Lease's `renewTime`.
    pub renewal: R::Renewal,
}

/// What an object is made of. Versions of an object share what did not change. Metadata come first in every kind, so
/// that they are found without asking which kind it is.
#[repr(C)]
pub struct Parts<R: Resource> {
    /// Metadata, without the resource version.
    pub meta: Rc<Meta>,
    /// What is wanted.
    pub spec: R::SpecPart,
    /// What is.
    pub status: R::StatusPart,
}

impl<R: Resource> Clone for Parts<R> {
    fn clone(&self) -> Self {
        Parts { meta: Rc::clone(&self.meta), spec: self.spec.clone(), status: self.status.clone() }
    }
}

impl<R: Resource> Clone for Obj<R> {
    fn clone(&self) -> Self {
        Obj { rv: self.rv, parts: Rc::clone(&self.parts), renewal: self.renewal }
    }
}

impl<R: Resource> std::ops::Deref for Obj<R> {
    type Target = Parts<R>;
    fn deref(&self) -> &Parts<R> {
        &self.parts
    }
}

impl<R: Resource> std::ops::DerefMut for Obj<R> {
    fn deref_mut(&mut self) -> &mut Parts<R> {
        Rc::make_mut(&mut self.parts)
    }
}

impl<R: Resource> std::fmt::Debug for Obj<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.key(), self.rv)
    }
}

impl<R: Resource> PartialEq for Obj<R> {
    fn eq(&self, other: &Self) -> bool {
        self.rv == other.rv
            && self.renewal == other.renewal
            && (self.shares_parts(other)
                || (self.meta == other.meta && self.spec == other.spec && self.status == other.status))
    }
}

impl<R: Resource> Obj<R> {
    /// Builds one that is not stored yet.
    pub fn new(meta: ObjectMeta, spec: R::Spec, status: R::Status) -> Self {
        Obj::from_parts(Revision(0), meta, spec, status)
    }

    /// From the whole k8s-openapi type; an error says that its resource version is none.
    pub fn from_whole(whole: R) -> Result<Self, FieldError> {
        let (mut meta, spec, status) = whole.split();
        shrink(&mut meta);
        let rv = take_revision(&mut meta)?;
        Ok(Obj::from_parts(rv, meta, spec, status))
    }

    fn from_parts(rv: Revision, meta: ObjectMeta, mut spec: R::Spec, status: R::Status) -> Self {
        let renewal = R::take_renewal(&mut spec);
        let parts = Parts { meta: Rc::new(meta.into()), spec: Part::new(spec), status: Part::new(status) };
        Obj { rv, parts: Rc::new(parts), renewal }
    }

    /// As the whole k8s-openapi type, resource version included. Copies everything: for edges only.
    pub fn to_whole(&self) -> R {
        let mut meta = ObjectMeta::clone(&self.meta);
        put_revision(&mut meta, self.rv);
        let mut whole = R::join(meta, &self.spec, &self.status);
        whole.put_renewal(self.renewal);
        whole
    }

    /// Whether they surely differ in revision and renewal at most.
    #[inline(always)]
    pub fn shares_parts(&self, other: &Obj<R>) -> bool {
        Rc::ptr_eq(&self.parts, &other.parts)
    }

    /// Holds what is equal to another version of this object as it is held there.
    fn share(&mut self, other: &Obj<R>) {
        if self.shares_parts(other) {
            return;
        }
        let (meta, spec) = (self.meta == other.meta, self.spec.same(&other.spec));
        let status = self.status.same(&other.status);
        if meta && spec && status {
            self.parts = Rc::clone(&other.parts);
            return;
        }
        if meta {
            self.meta = Rc::clone(&other.meta);
        }
        if spec {
            self.spec = other.spec.clone();
        }
        if status {
            self.status = other.status.clone();
        }
    }

    /// Reads what a copy, and its end, will touch.
    #[inline]
    pub fn read_ahead(&self) {
        touch_shared(&self.parts);
    }

    /// Name of the object.
    pub fn key(&self) -> ObjectKey {
        self.meta.key(R::KIND).clone()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.meta.name.as_deref().unwrap_or("")
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.meta.namespace.as_deref().unwrap_or("")
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or("")
    }

    /// Metadata for writing (copied if shared).
    pub fn meta_mut(&mut self) -> &mut ObjectMeta {
        Rc::make_mut(&mut self.meta).edit()
    }

    /// Spec for writing (copied if shared).
    pub fn spec_mut(&mut self) -> &mut R::Spec {
        self.spec.make_mut()
    }

    /// Status for writing (copied if shared).
    pub fn status_mut(&mut self) -> &mut R::Status {
        self.status.make_mut()
    }

    /// Puts another status in its place: nothing of the old one is copied.
    pub fn set_status(&mut self, status: R::Status) {
        self.status = Part::new(status);
    }
}

/// Gives back the room that reading has left in lists: the store keeps many a version.
fn shrink(meta: &mut ObjectMeta) {
    meta.owner_references.iter_mut().for_each(Vec::shrink_to_fit);
    meta.finalizers.iter_mut().for_each(Vec::shrink_to_fit);
    meta.managed_fields.iter_mut().for_each(Vec::shrink_to_fit);
}

impl Revision {
    /// Reads a `resourceVersion`; empty is zero: not given. An error is in the words of Go's `strconv`.
    pub fn parse(text: &str, field: &str) -> Result<Revision, FieldError> {
        if text.is_empty() {
            return Ok(Revision(0));
        }
        // Go takes no sign here, and Rust takes a plus.
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let why = match text.parse() {
            Ok(number) if digits => return Ok(Revision(number)),
            Err(_) if digits => "value out of range",
            _ => "invalid syntax",
        };
        Err(FieldError::invalid(field, text, format!("strconv.ParseUint: parsing {text:?}: {why}")))
    }
}

fn take_revision(meta: &mut ObjectMeta) -> Result<Revision, FieldError> {
    Revision::parse(meta.resource_version.take().as_deref().unwrap_or(""), "metadata.resourceVersion")
}

fn put_revision(meta: &mut ObjectMeta, rv: Revision) {
    meta.resource_version = (rv.0 != 0).then(|| rv.0.to_string());
}

macro_rules! typed_kinds {
    ($($variant:ident $whole:ty, $konst:ident;)*) => {
        $(#[doc = concat!("`", stringify!($variant), "` in shared parts.")]
          pub type $variant = Obj<$whole>;)*

        /// Any object: one of the typed kinds, or a dynamic one. A clone copies a counter.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Object { $($variant($variant),)* Dynamic(Dynamic) }

        impl Object {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $(Object::$variant(_) => Kind::$konst,)* Object::Dynamic(d) => d.kind }
            }
            /// What is known of its kind.
            pub fn info(&self) -> &KindInfo {
                match self { $(Object::$variant(_) => Kind::$konst.row(),)* Object::Dynamic(d) => &d.of }
            }
            /// Revision of its last change.
            pub fn rv(&self) -> Revision {
                match self { $(Object::$variant(o) => o.rv,)* Object::Dynamic(d) => d.rv }
            }
            /// Sets the revision, as the store does at commit.
            pub fn set_rv(&mut self, rv: Revision) {
                match self { $(Object::$variant(o) => o.rv = rv,)* Object::Dynamic(d) => d.rv = rv }
            }
            /// Metadata, without the resource version.
            pub fn meta(&self) -> &Rc<Meta> {
                match self { $(Object::$variant(o) => &o.meta,)* Object::Dynamic(d) => &d.meta }
            }
            /// Metadata for writing (copied if shared).
            pub fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self {
                    $(Object::$variant(o) => Rc::make_mut(&mut o.meta).edit(),)*
                    Object::Dynamic(d) => Rc::make_mut(&mut d.meta).edit(),
                }
            }
            /// The same spec, held in the same place or equal.
            #[inline(always)]
            pub fn same_spec(&self, other: &Object) -> bool {
                match (self, other) {
                    $((Object::$variant(a), Object::$variant(b)) => a.renewal == b.renewal && a.spec.same(&b.spec),)*
                    (Object::Dynamic(a), Object::Dynamic(b)) => a.same_spec(b),
                    _ => false,
                }
            }
            /// Whether they surely differ in revision and renewal at most.
            #[inline]
            pub fn shares_parts(&self, other: &Object) -> bool {
                match (self, other) {
                    $((Object::$variant(a), Object::$variant(b)) => a.shares_parts(b),)*
                    _ => false,
                }
            }
            /// The same status, held in the same place or equal.
            #[inline]
            pub fn same_status(&self, other: &Object) -> bool {
                match (self, other) {
                    $((Object::$variant(a), Object::$variant(b)) => a.status.same(&b.status),)*
                    (Object::Dynamic(a), Object::Dynamic(b)) => a.same_status(b),
                    _ => false,
                }
            }
            /// Mixes into `hash` what differs from the version before, or all of it if there was none. The same for
            /// equal values, whatever they share; the revision is not in it.
            #[inline]
            pub fn digest_change(&self, before: Option<&Object>, hash: u64) -> u64 {
                match self {
                    $(Object::$variant(new) => digest::object(new, before.and_then(Object::get), hash),)*
                    Object::Dynamic(new) => {
                        let old = before.and_then(|o| match o { Object::Dynamic(old) => Some(old), _ => None });
                        digest::dynamic(new, old, hash)
                    }
                }
            }
            /// Takes the status of `from`, an object of the same kind (shared, not copied).
            pub fn take_status(&mut self, from: &Object) {
                match (self, from) {
                    $((Object::$variant(a), Object::$variant(b)) => a.status = b.status.clone(),)*
                    (Object::Dynamic(a), Object::Dynamic(b)) => a.take_status(b),
                    (a, b) => panic!("take_status between {:?} and {:?}", a.kind(), b.kind()),
                }
            }
            /// Takes everything but metadata and status from `from`, an object of the same kind.
            pub fn take_spec(&mut self, from: &Object) {
                match (self, from) {
                    $((Object::$variant(a), Object::$variant(b)) => {
                        a.spec = b.spec.clone();
                        a.renewal = b.renewal;
                    })*
                    (Object::Dynamic(a), Object::Dynamic(b)) => a.take_spec(b),
                    (a, b) => panic!("take_spec between {:?} and {:?}", a.kind(), b.kind()),
                }
            }
            /// As JSON with `apiVersion`, `kind` and resource version: what a client sees. Copies everything.
            pub fn to_json(&self) -> Value {
                match self {
                    $(Object::$variant(o) => serde_json::to_value(o.to_whole()).expect("k8s-openapi types serialise"),)*
                    Object::Dynamic(d) => d.to_json(),
                }
            }
            /// Takes away what a new object may not bring along (`PrepareForCreate`).
            pub fn prepare_for_create(&mut self) {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::prepare_for_create(o),)*
                    Object::Dynamic(d) => d.prepare_for_create(),
                }
            }
            /// Takes from the object that it is to replace what an update does not change (`PrepareForUpdate`).
            pub fn prepare_for_update(&mut self, old: &Object) {
                match (self, old) {
                    $((Object::$variant(n), Object::$variant(o)) => <$whole as Strategy>::prepare_for_update(n, o),)*
                    (Object::Dynamic(_), Object::Dynamic(_)) => {}
                    (n, o) => panic!("a {} does not become a {}", o.kind(), n.kind()),
                }
            }
            /// Whether an update of the status may change the labels too.
            pub fn labels_change_with_status(&self) -> bool {
                match self {
                    $(Object::$variant(_) => <$whole as Strategy>::LABELS_WITH_STATUS,)*
                    Object::Dynamic(_) => true,
                }
            }
            /// Whether a deletion that says nothing leaves its dependants behind.
            pub fn orphans_by_default(&self) -> bool {
                match self {
                    $(Object::$variant(_) => <$whole as Strategy>::ORPHANS_BY_DEFAULT,)*
                    Object::Dynamic(_) => false,
                }
            }
            /// Takes what `/finalize` changes from the object that was sent.
            pub fn finalize(&mut self, sent: &Object) {
                match (self, sent) {
                    $((Object::$variant(n), Object::$variant(s)) => <$whole as Strategy>::finalize(n, s),)*
                    (Object::Dynamic(_), Object::Dynamic(_)) => {}
                    (n, s) => panic!("a {} is not finalized by a {}", n.kind(), s.kind()),
                }
            }
            /// Whether it goes with the write that takes its last finalizer away, where it is being deleted.
            pub fn ends_on_update(&self, old: &Object) -> bool {
                match (self, old) {
                    $((Object::$variant(n), Object::$variant(o)) => <$whole as Strategy>::ends_on_update(n, o),)*
                    (Object::Dynamic(_), Object::Dynamic(o)) => o.meta.deletion_grace_period_seconds == Some(0),
                    (n, o) => panic!("a {} does not become a {}", o.kind(), n.kind()),
                }
            }
            /// Fills in what its author did not say; see [`defaults::apply`].
            fn apply_defaults(&mut self) {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::apply_defaults(o),)*
                    Object::Dynamic(d) => defaults::apply_dynamic(d),
                }
            }
            /// What is wrong with it beside its metadata; see [`validation::create`].
            fn validate(&self, errors: &mut Vec<FieldError>) {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::validate(o, errors),)*
                    Object::Dynamic(d) => validation::dynamic(d, errors),
                }
            }
            /// What is wrong with it, beside its metadata, as the successor of another; see [`validation::update`].
            fn validate_update(&self, old: &Object, errors: &mut Vec<FieldError>) {
                match (self, old) {
                    $((Object::$variant(n), Object::$variant(o)) => {
                        <$whole as Strategy>::validate_update(n, o, errors);
                    })*
                    (Object::Dynamic(n), Object::Dynamic(o)) => validation::dynamic_update(n, o, errors),
                    (n, o) => panic!("a {} does not become a {}", o.kind(), n.kind()),
                }
            }
            /// What is wrong with its status as the successor of another; see [`validation::status_update`].
            fn validate_status_update(&self, old: &Object, errors: &mut Vec<FieldError>) {
                match (self, old) {
                    $((Object::$variant(n), Object::$variant(o)) => {
                        <$whole as Strategy>::validate_status_update(n, o, errors);
                    })*
                    (Object::Dynamic(_), Object::Dynamic(_)) => {}
                    (n, o) => panic!("a {} does not become a {}", o.kind(), n.kind()),
                }
            }
            /// The text of a selectable field of its kind; `None` where there is none.
            pub fn field(&self, path: &str) -> Option<Cow<'_, str>> {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::field(o, path),)*
                    Object::Dynamic(d) => d.field(path),
                }
            }
            /// How many replicas it wants; `None` for kinds that have none.
            pub fn replicas(&self) -> Option<i32> {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::replicas(o),)*
                    Object::Dynamic(_) => None,
                }
            }
            /// What `/scale` shows; `None` for kinds that have none, and for custom ones, whose definition says where.
            pub fn scale(&self) -> Option<Replicas> {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::scale(o),)*
                    Object::Dynamic(_) => None,
                }
            }
            /// Sets how many replicas it wants. Panics for kinds that have none.
            pub fn set_replicas(&mut self, replicas: i32) {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::set_replicas(o, replicas),)*
                    Object::Dynamic(d) => panic!("a {} has its replicas where its definition says", d.kind),
                }
            }
            /// The pod spec that it is, or that its template holds.
            pub fn pod_spec(&self) -> Option<&SharedPodSpec> {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::pod_spec(o),)*
                    Object::Dynamic(_) => None,
                }
            }
            /// Holds this pod spec in the place of the one that it has.
            pub fn set_pod_spec(&mut self, pod: SharedPodSpec) {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::set_pod_spec(o, pod),)*
                    Object::Dynamic(_) => {}
                }
            }
            /// Reads a value as the type of its kind; gives it back if the kind has none.
            fn read_typed(
                kind: Kind,
                value: Value,
            ) -> Result<Result<Object, decode::DecodeError>, Value> {
                match kind {
                    $(Kind::$konst => Ok(decode::typed::<$whole>(value)),)*
                    _ => Err(value),
                }
            }
            /// As JSON without the revision: what a store that keeps bytes keeps.
            pub fn to_stored(&self) -> Vec<u8> {
                let mut unversioned = self.clone();
                unversioned.set_rv(Revision(0));
                match &unversioned {
                    $(Object::$variant(o) => serde_json::to_vec(&o.to_whole()),)*
                    Object::Dynamic(d) => serde_json::to_vec(&d.to_json()),
                }
                .expect("objects serialise")
            }
            /// From what [`to_stored`](Self::to_stored) has written. It was decoded and normalised before that, and is
            /// not again.
            pub fn from_stored(kind: Kind, of: KindRef, bytes: &[u8]) -> Result<Object, String> {
                match kind {
                    $(Kind::$konst => {
                        let whole = serde_json::from_slice::<$whole>(bytes).map_err(|e| e.to_string())?;
                        Obj::from_whole(whole).map(Object::$variant).map_err(|e| e.to_string())
                    })*
                    _ => Dynamic::from_stored(kind, of, bytes).map(Object::Dynamic),
                }
            }
            /// Holds what is equal to another version of this object as it is held there.
            pub fn share(&mut self, other: &Object) {
                self.share_pod_spec(other);
                if let (Object::Node(a), Object::Node(b)) = (&mut *self, other) {
                    a.status.share(&b.status);
                }
                match (self, other) {
                    $((Object::$variant(a), Object::$variant(b)) => a.share(b),)*
                    (Object::Dynamic(a), Object::Dynamic(b)) => a.share(b),
                    _ => {}
                }
            }
        }

        $(impl From<$variant> for Object {
            fn from(o: $variant) -> Object { Object::$variant(o) }
        })*
    };
}

typed_kinds! {
    Pod core_v1::Pod, POD;
    Node core_v1::Node, NODE;
    Lease coordination_v1::Lease, LEASE;
    Namespace core_v1::Namespace, NAMESPACE;
    Service core_v1::Service, SERVICE;
    Endpoints core_v1::Endpoints, ENDPOINTS;
    EndpointSlice discovery_v1::EndpointSlice, ENDPOINT_SLICE;
    Event core_v1::Event, EVENT;
    ServiceAccount core_v1::ServiceAccount, SERVICE_ACCOUNT;
    ReplicationController core_v1::ReplicationController, REPLICATION_CONTROLLER;
    ReplicaSet apps_v1::ReplicaSet, REPLICA_SET;
    Deployment apps_v1::Deployment, DEPLOYMENT;
    PodDisruptionBudget policy_v1::PodDisruptionBudget, POD_DISRUPTION_BUDGET;
    StatefulSet apps_v1::StatefulSet, STATEFUL_SET;
    DaemonSet apps_v1::DaemonSet, DAEMON_SET;
    ControllerRevision apps_v1::ControllerRevision, CONTROLLER_REVISION;
    Job batch_v1::Job, JOB;
    CronJob batch_v1::CronJob, CRON_JOB;
}

impl Object {
    /// From JSON that names its `apiVersion` and `kind`, lenient as the wire is: unknown fields are dropped. See
    /// [`decode`] for strict reading of manifests.
    pub fn from_json(value: Value) -> Result<Object, String> {
        decode::lenient(value).map_err(|errors| errors.first().map(ToString::to_string).unwrap_or_default())
    }

    /// Shares the pod spec of another object if it is equal.
    pub fn share_pod_spec(&mut self, other: &Object) {
        let (Some(own), Some(others)) = (self.pod_spec(), other.pod_spec()) else { return };
        if !own.is_held_as(others) && own == others {
            self.set_pod_spec(others.clone());
        }
    }

    /// Its key, as the metadata holds it.
    pub fn key_ref(&self) -> &ObjectKey {
        self.meta().key(self.kind())
    }

    /// Its key.
    pub fn key(&self) -> ObjectKey {
        self.meta().key(self.kind()).clone()
    }

    /// Reads what its copies and its end will touch.
    #[inline]
    pub fn read_ahead(&self) {
        match self {
            Object::Lease(lease) => lease.read_ahead(),
            _ => touch_shared(self.meta()),
        }
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or("")
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or("")
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or("")
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> Option<&Labels> {
        self.meta().labels.as_ref()
    }

    /// Whether deletion has been asked for.
    pub fn is_deleting(&self) -> bool {
        self.meta().is_deleting()
    }

    /// The typed object within, if it is of kind `R`.
    pub fn get<R: Resource>(&self) -> Option<&Obj<R>> {
        R::from_object(self)
    }

    /// The typed object within, for changing it, if it is of kind `R`.
    pub fn get_mut<R: Resource>(&mut self) -> Option<&mut Obj<R>> {
        R::from_object_mut(self)
    }
}

#[cfg(test)]
mod tests {
    use super::{Object, Revision};
    use serde_json::json;

    #[test]
    fn what_came_in_goes_out() {
        for value in [
            json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"d","resourceVersion":"7"},
                   "spec":{"nodeName":"n1","containers":[{"name":"c","image":"i"}]},"status":{"phase":"Running"}}),
            json!({"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{"name":"r","namespace":"d"},
                   "spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},
                   "spec":{"containers":[{"name":"c"}]}}}}),
            json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"v"}}),
            json!({"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"l","namespace":"d"},
                   "spec":{"holderIdentity":"n1","leaseDurationSeconds":40,"renewTime":"2026-01-01T00:00:10.500000Z"}}),
            json!({"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"s","generation":2},
                   "spec":{"serviceName":"x","selector":{},"template":{}},"status":{"replicas":1}}),
        ] {
            let object = Object::from_json(value.clone()).unwrap();
            assert_eq!(object.to_json(), value);
        }
    }

    #[test]
    fn a_clone_shares_and_a_revision_does_not_copy() {
        let value = json!({"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"l"},"spec":{}});
        let a = Object::from_json(value).unwrap();
        let mut b = a.clone();
        b.set_rv(Revision(9));
        assert!(std::rc::Rc::ptr_eq(a.meta(), b.meta()));
        assert_eq!(b.to_json()["metadata"]["resourceVersion"], "9");
    }
}
