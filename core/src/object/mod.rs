//! The object model: Kubernetes' own types at the edges of the system, reference-counted shared parts inside it.
//!
//! An object is held as an [`Obj`]: its revision and one pointer to its metadata, spec and status. Each of these is a
//! separate [`Part`], so changing the status copies only that part, and passing an object on copies nothing. A field
//! that is rewritten all the time (a Lease's `renewTime`) is stored directly in the `Obj`. The resource version is a
//! number beside the metadata, never inside it (`ObjectMeta::resource_version` is always `None` here), so a write that
//! changes only the revision shares everything else. `creation_timestamp`, `uid` and all other fields stay in the
//! metadata.
//!
//! For a kind without spec and status (ConfigMap, EndpointSlice, …), the spec is the whole k8s-openapi type with empty
//! metadata, and the status is `()`. Kinds that no state machine of Skeg reads are held as [`Dynamic`].

#[macro_use]
mod typed;

mod builtin;
pub mod cel;
pub mod decode;
pub mod defaults;
pub mod device_selector;
mod digest;
mod dynamic;
mod ephemeral;
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
mod resize;
mod resources;
mod selector;
mod strategy;
pub mod structural;
mod table;
mod template;
mod text;
mod time;
pub mod validation;
pub mod versions;
mod wire;

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::{
    apps::v1 as apps_v1, batch::v1 as batch_v1, coordination::v1 as coordination_v1, core::v1 as core_v1,
    discovery::v1 as discovery_v1, policy::v1 as policy_v1,
};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, MicroTime, ObjectMeta, OwnerReference, Time};
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Wall;
use crate::read_ahead::touch_shared;
use strategy::{Strategy, json};

pub use digest::Digest;
pub use dynamic::{Dynamic, DynamicParts};
pub use ephemeral::{all_containers, as_container, take_ephemeral_containers};
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
pub use resize::{allocated, resources_of, same_resources, take_resources};
pub use resources::{
    Amounts, container_limits, container_requests, is_pod_level, is_restartable_init, pod_limits, pod_requests,
    qos_class,
};
pub use selector::{FieldSelector, Labels, Requirement, Selector, SelectorError};
pub use strategy::{GarbageCollection, Replicas, lacks_node_port};
pub use template::{HasTemplate, Templated};
pub use text::{Stamp, Text};
pub(crate) use validation::networking::range as ip_range;
pub use validation::resources::is_extended as is_extended_resource;

/// A revision of the store; clients see it as `resourceVersion`. Zero means that the object is not stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
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

/// A built-in kind with a typed form: one whose fields Skeg's state machines read.
pub trait Resource: Sized + 'static {
    /// The kind's number in the registry.
    const KIND: Kind;
    /// The spec's type inside Skeg.
    type Spec: Clone + Default + PartialEq + std::fmt::Debug + Digest;
    /// The status's type inside Skeg; `()` for a kind without status.
    type Status: Clone + Default + PartialEq + std::fmt::Debug + Digest;
    /// How the spec is held: shared by reference count, or in place.
    type SpecPart: Part<Of = Self::Spec>;
    /// How the status is held: shared by reference count, or in place.
    type StatusPart: Part<Of = Self::Status>;
    /// The part of the spec that is rewritten all the time and is therefore held apart from the rest; `()` if there is
    /// none.
    type Renewal: Copy + Default + PartialEq + std::fmt::Debug + Serialize;

    /// Splits a whole k8s-openapi object into metadata, spec and status.
    fn split(self) -> (ObjectMeta, Self::Spec, Self::Status);
    /// Builds a whole k8s-openapi object from its parts.
    fn join(meta: ObjectMeta, spec: &Self::Spec, status: &Self::Status) -> Self;
    /// Takes the [`Renewal`](Self::Renewal) out of a whole spec.
    fn take_renewal(_spec: &mut Self::Spec) -> Self::Renewal {
        Self::Renewal::default()
    }
    /// Writes the [`Renewal`](Self::Renewal) into a whole object.
    fn put_renewal(&mut self, _renewal: Self::Renewal) {}
    /// The typed object inside an [`Object`]; `None` if that is of another kind.
    fn from_object(object: &Object) -> Option<&Obj<Self>>;
    /// The typed object inside an [`Object`], mutably; `None` if that is of another kind.
    fn from_object_mut(object: &mut Object) -> Option<&mut Obj<Self>>;
    /// Wraps a typed object in an [`Object`].
    fn into_object(obj: Obj<Self>) -> Object;
}

/// A typed object whose parts are shared. Cloning it only increments one reference count.
///
/// It dereferences to its [`Parts`]. Writing to a part copies what is shared with other holders: the struct of three
/// pointers and that part. The revision and the renewal are never shared, so the store can set the revision, and the
/// holder of a Lease the renewal, without copying anything.
#[repr(C)]
pub struct Obj<R: Resource> {
    /// Revision of the last change; zero if the object is not stored.
    pub rv: Revision,
    parts: Rc<Parts<R>>,
    /// The field that is rewritten all the time, held apart from the spec: a Lease's `renewTime`.
    pub renewal: R::Renewal,
}

/// The parts of an object. Versions of an object share the parts that did not change. `meta` is the first field for
/// every kind, so that the metadata can be found without looking at the kind.
#[repr(C)]
pub struct Parts<R: Resource> {
    /// Metadata, without the resource version.
    pub meta: Rc<Meta>,
    /// The desired state.
    pub spec: R::SpecPart,
    /// The observed state.
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
    /// Builds an object that is not stored yet.
    pub fn new(meta: ObjectMeta, spec: R::Spec, status: R::Status) -> Self {
        Obj::from_parts(Revision(0), meta, spec, status)
    }

    /// Converts from the whole k8s-openapi type. Fails if `resourceVersion` is not a number.
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

    /// Converts to the whole k8s-openapi type, including the resource version. Copies everything, so use it at the
    /// edges only.
    pub fn to_whole(&self) -> R {
        let mut meta = ObjectMeta::clone(&self.meta);
        put_revision(&mut meta, self.rv);
        let mut whole = R::join(meta, &self.spec, &self.status);
        whole.put_renewal(self.renewal);
        whole
    }

    /// `true` if both share the same parts, so that they can differ only in revision and renewal. If
    /// `false`, the contents may still be equal.
    #[inline(always)]
    pub fn shares_parts(&self, other: &Obj<R>) -> bool {
        Rc::ptr_eq(&self.parts, &other.parts)
    }

    /// Replaces every part that equals the same part of `other` (another version of this object) by a shared pointer to
    /// it.
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

    /// Prefetches the memory that cloning and dropping this object will touch.
    #[inline]
    pub fn read_ahead(&self) {
        touch_shared(&self.parts);
    }

    /// The object's key: kind, namespace and name.
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

    /// Metadata for writing (copied first if shared).
    pub fn meta_mut(&mut self) -> &mut ObjectMeta {
        Rc::make_mut(&mut self.meta).edit()
    }

    /// Spec for writing (copied first if shared).
    pub fn spec_mut(&mut self) -> &mut R::Spec {
        self.spec.make_mut()
    }

    /// Status for writing (copied first if shared).
    pub fn status_mut(&mut self) -> &mut R::Status {
        self.status.make_mut()
    }

    /// Replaces the status without copying the old one.
    pub fn set_status(&mut self, status: R::Status) {
        self.status = Part::new(status);
    }
}

/// Frees the unused capacity that decoding leaves in lists, since the store keeps many versions of an object.
fn shrink(meta: &mut ObjectMeta) {
    meta.owner_references.iter_mut().for_each(Vec::shrink_to_fit);
    meta.finalizers.iter_mut().for_each(Vec::shrink_to_fit);
    meta.managed_fields.iter_mut().for_each(Vec::shrink_to_fit);
}

impl Revision {
    /// Parses a `resourceVersion`. Empty text gives zero, which means that none was given. Errors have the text of Go's
    /// `strconv`.
    pub fn parse(text: &str, field: &str) -> Result<Revision, FieldError> {
        if text.is_empty() {
            return Ok(Revision(0));
        }
        // Go's `ParseUint` accepts no sign, but Rust's `parse` accepts a plus.
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

/// Appends a typed object's JSON without what k8s-openapi writes first: `apiVersion` and `kind`.
fn write_item<W: k8s_openapi::Resource + Serialize>(whole: &W, to: &mut Vec<u8>) {
    let start = to.len();
    serde_json::to_writer(&mut *to, whole).expect("k8s-openapi types serialise");
    let head = format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\"", W::API_VERSION, W::KIND);
    assert!(to[start..].starts_with(head.as_bytes()), "{} begins otherwise", W::KIND);
    let end = start + head.len();
    to.drain(start + 1..end + usize::from(to[end] == b','));
}

macro_rules! typed_kinds {
    ($($variant:ident $whole:ty, $konst:ident;)*) => {
        $(#[doc = concat!("`", stringify!($variant), "` in shared parts.")]
          pub type $variant = Obj<$whole>;)*

        /// Any object: one of the typed kinds, or a dynamic one. Cloning it only increments a reference count.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Object { $($variant($variant),)* Dynamic(Dynamic) }

        impl Object {
            /// The object's kind.
            pub fn kind(&self) -> Kind {
                match self { $(Object::$variant(_) => Kind::$konst,)* Object::Dynamic(d) => d.kind }
            }
            /// The description of the object's kind.
            pub fn info(&self) -> &KindInfo {
                match self { $(Object::$variant(_) => Kind::$konst.row(),)* Object::Dynamic(d) => &d.of }
            }
            /// Revision of the last change.
            pub fn rv(&self) -> Revision {
                match self { $(Object::$variant(o) => o.rv,)* Object::Dynamic(d) => d.rv }
            }
            /// Sets the revision; the store does this at commit.
            pub fn set_rv(&mut self, rv: Revision) {
                match self { $(Object::$variant(o) => o.rv = rv,)* Object::Dynamic(d) => d.rv = rv }
            }
            /// Metadata, without the resource version.
            pub fn meta(&self) -> &Rc<Meta> {
                match self { $(Object::$variant(o) => &o.meta,)* Object::Dynamic(d) => &d.meta }
            }
            /// Metadata for writing (copied first if shared).
            pub fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self {
                    $(Object::$variant(o) => Rc::make_mut(&mut o.meta).edit(),)*
                    Object::Dynamic(d) => Rc::make_mut(&mut d.meta).edit(),
                }
            }
            /// Whether the specs are equal. Specs that are shared compare equal at once.
            #[inline(always)]
            pub fn same_spec(&self, other: &Object) -> bool {
                match (self, other) {
                    $((Object::$variant(a), Object::$variant(b)) => a.renewal == b.renewal && a.spec.same(&b.spec),)*
                    (Object::Dynamic(a), Object::Dynamic(b)) => a.same_spec(b),
                    _ => false,
                }
            }
            /// `true` if both share the same parts, so that they can differ only in revision and renewal. If `false`,
            /// the contents may still be equal.
            #[inline]
            pub fn shares_parts(&self, other: &Object) -> bool {
                match (self, other) {
                    $((Object::$variant(a), Object::$variant(b)) => a.shares_parts(b),)*
                    _ => false,
                }
            }
            /// Whether the statuses are equal. Statuses that are shared compare equal at once.
            #[inline]
            pub fn same_status(&self, other: &Object) -> bool {
                match (self, other) {
                    $((Object::$variant(a), Object::$variant(b)) => a.status.same(&b.status),)*
                    (Object::Dynamic(a), Object::Dynamic(b)) => a.same_status(b),
                    _ => false,
                }
            }
            /// Mixes into `hash` what differs from the previous version, or everything if `before` is `None`. Equal
            /// values give equal hashes whatever they share. The revision is never included.
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
            /// Takes over the status of `from`, which must be of the same kind (shared, not copied).
            pub fn take_status(&mut self, from: &Object) {
                match (self, from) {
                    $((Object::$variant(a), Object::$variant(b)) => a.status = b.status.clone(),)*
                    (Object::Dynamic(a), Object::Dynamic(b)) => a.take_status(b),
                    (a, b) => panic!("take_status between {:?} and {:?}", a.kind(), b.kind()),
                }
            }
            /// Takes over everything but metadata and status from `from`, which must be of the same kind.
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
            /// Converts to JSON as a client sees it, with `apiVersion`, `kind` and resource version. Copies everything.
            pub fn to_json(&self) -> Value {
                match self {
                    $(Object::$variant(o) => serde_json::to_value(o.to_whole()).expect("k8s-openapi types serialise"),)*
                    Object::Dynamic(d) => d.to_json(),
                }
            }
            /// Writes its JSON, as [`to_json`](Self::to_json) makes it.
            fn write_json<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Object::$variant(o) => o.to_whole().serialize(to),)*
                    Object::Dynamic(d) => d.to_json().serialize(to),
                }
            }
            /// Appends its JSON as an item of a list of its kind, which says neither `apiVersion` nor `kind`.
            pub fn write_item(&self, to: &mut Vec<u8>) {
                match self {
                    $(Object::$variant(o) => write_item(&o.to_whole(), to),)*
                    Object::Dynamic(d) => {
                        let mut value = d.to_json();
                        if let Some(map) = value.as_object_mut() {
                            map.remove("apiVersion");
                            map.remove("kind");
                        }
                        serde_json::to_writer(to, &value).expect("values serialise");
                    }
                }
            }
            /// Clears what a client must not set in a new object (`PrepareForCreate`).
            pub fn prepare_for_create(&mut self) {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::prepare_for_create(o),)*
                    Object::Dynamic(d) => json::prepare_for_create(d),
                }
            }
            /// Restores from the stored object what an update must not change (`PrepareForUpdate`).
            pub fn prepare_for_update(&mut self, old: &Object) {
                match (self, old) {
                    $((Object::$variant(n), Object::$variant(o)) => <$whole as Strategy>::prepare_for_update(n, o),)*
                    (Object::Dynamic(n), Object::Dynamic(o)) => json::prepare_for_update(n, o),
                    (n, o) => panic!("a {} does not become a {}", o.kind(), n.kind()),
                }
            }
            /// Restores from the stored object what an update of its status must not change.
            pub fn prepare_for_status_update(&mut self, old: &Object, now: Wall) {
                if let (Object::Dynamic(n), Object::Dynamic(o)) = (self, old) {
                    json::prepare_for_status_update(n, o, now);
                }
            }
            /// Takes from the object that was sent what the `/approval` subresource changes.
            pub fn approve(&mut self, sent: &Object, now: Wall) {
                if let (Object::Dynamic(n), Object::Dynamic(s)) = (self, sent) {
                    json::approve(n, s, now);
                }
            }
            /// Whether an update of the status subresource may change the labels too.
            pub fn labels_change_with_status(&self) -> bool {
                match self {
                    $(Object::$variant(_) => <$whole as Strategy>::LABELS_WITH_STATUS,)*
                    Object::Dynamic(_) => true,
                }
            }
            /// What a deletion that names no propagation policy does with the dependants.
            pub fn garbage_collection(&self) -> GarbageCollection {
                match self {
                    $(Object::$variant(_) => <$whole as Strategy>::GARBAGE_COLLECTION,)*
                    Object::Dynamic(_) => GarbageCollection::DeleteDependents,
                }
            }
            /// Takes from the object that was sent what the `/finalize` subresource changes.
            pub fn finalize(&mut self, sent: &Object) {
                match (self, sent) {
                    $((Object::$variant(n), Object::$variant(s)) => <$whole as Strategy>::finalize(n, s),)*
                    (Object::Dynamic(_), Object::Dynamic(_)) => {}
                    (n, s) => panic!("a {} is not finalized by a {}", n.kind(), s.kind()),
                }
            }
            /// Whether an object that is being deleted is removed by the write that removes its last finalizer.
            pub fn ends_on_update(&self, old: &Object) -> bool {
                match (self, old) {
                    $((Object::$variant(n), Object::$variant(o)) => <$whole as Strategy>::ends_on_update(n, o),)*
                    (Object::Dynamic(_), Object::Dynamic(o)) => o.meta.deletion_grace_period_seconds == Some(0),
                    (n, o) => panic!("a {} does not become a {}", o.kind(), n.kind()),
                }
            }
            /// Sets defaults for fields that the client left out; see [`defaults::apply`].
            fn apply_defaults(&mut self) {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::apply_defaults(o),)*
                    Object::Dynamic(d) => json::apply_defaults(d),
                }
            }
            /// The rule for the object's name: what is wrong with one.
            fn name_rule(&self) -> fn(&str) -> validation::names::Wrongs {
                match self {
                    $(Object::$variant(_) => <$whole as Strategy>::NAME,)*
                    Object::Dynamic(d) => json::name_rule(d.kind),
                }
            }
            /// The maximum length of the name of a new object, if it is less than what the rule for names allows.
            fn longest_name(&self) -> Option<usize> {
                match self {
                    $(Object::$variant(_) => <$whole as Strategy>::LONGEST_NAME,)*
                    Object::Dynamic(_) => None,
                }
            }
            /// Validates a new object apart from its metadata; see [`validation::create`].
            fn validate(&self, errors: &mut Vec<FieldError>) {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::validate(o, errors),)*
                    Object::Dynamic(d) => json::validate_new(d, errors),
                }
            }
            /// Validates an update of `old` apart from the metadata; see [`validation::update`].
            fn validate_update(&self, old: &Object, errors: &mut Vec<FieldError>) {
                match (self, old) {
                    $((Object::$variant(n), Object::$variant(o)) => {
                        <$whole as Strategy>::validate_update(n, o, errors);
                    })*
                    (Object::Dynamic(n), Object::Dynamic(o)) => json::validate_update(n, o, errors),
                    (n, o) => panic!("a {} does not become a {}", o.kind(), n.kind()),
                }
            }
            /// Validates an update of `old`'s status; see [`validation::status_update`].
            fn validate_status_update(&self, old: &Object, errors: &mut Vec<FieldError>) {
                match (self, old) {
                    $((Object::$variant(n), Object::$variant(o)) => {
                        <$whole as Strategy>::validate_status_update(n, o, errors);
                    })*
                    (Object::Dynamic(n), Object::Dynamic(o)) => json::validate_status_update(n, o, errors),
                    (n, o) => panic!("a {} does not become a {}", o.kind(), n.kind()),
                }
            }
            /// Validates an approval of `old`; see [`validation::approval`].
            fn validate_approval(&self, old: &Object, errors: &mut Vec<FieldError>) {
                if let (Object::Dynamic(n), Object::Dynamic(o)) = (self, old) {
                    json::validate_approval(n, o, errors);
                }
            }
            /// The value of a selectable field as text; `None` if the kind has no such field.
            pub fn field(&self, path: &str) -> Option<Cow<'_, str>> {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::field(o, path),)*
                    Object::Dynamic(d) => d.field(path),
                }
            }
            /// The desired number of replicas; `None` for kinds without replicas.
            pub fn replicas(&self) -> Option<i32> {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::replicas(o),)*
                    Object::Dynamic(_) => None,
                }
            }
            /// What `/scale` shows. `None` for kinds without a scale, and for custom kinds: the paths of their scale
            /// are in their definition.
            pub fn scale(&self) -> Option<Replicas> {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::scale(o),)*
                    Object::Dynamic(_) => None,
                }
            }
            /// Sets the desired number of replicas. Panics for kinds without replicas.
            pub fn set_replicas(&mut self, replicas: i32) {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::set_replicas(o, replicas),)*
                    Object::Dynamic(d) => panic!("a {} has its replicas where its definition says", d.kind),
                }
            }
            /// The pod spec: that of the pod itself, or that of the object's pod template.
            pub fn pod_spec(&self) -> Option<&SharedPodSpec> {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::pod_spec(o),)*
                    Object::Dynamic(_) => None,
                }
            }
            /// Replaces the pod spec (the pod's own or the template's).
            pub fn set_pod_spec(&mut self, pod: SharedPodSpec) {
                match self {
                    $(Object::$variant(o) => <$whole as Strategy>::set_pod_spec(o, pod),)*
                    Object::Dynamic(_) => {}
                }
            }
            /// Decodes a value as the typed form of its kind; gives the value back if the kind has no typed form.
            fn read_typed(
                kind: Kind,
                value: Value,
            ) -> Result<Result<Object, decode::DecodeError>, Value> {
                match kind {
                    $(Kind::$konst => Ok(decode::typed::<$whole>(value)),)*
                    _ => Err(value),
                }
            }
            /// Encodes the object as JSON without the revision, for a store that keeps bytes.
            pub fn to_stored(&self) -> Vec<u8> {
                let mut unversioned = self.clone();
                unversioned.set_rv(Revision(0));
                match &unversioned {
                    $(Object::$variant(o) => serde_json::to_vec(&o.to_whole()),)*
                    Object::Dynamic(d) => serde_json::to_vec(&d.to_json()),
                }
                .expect("objects serialise")
            }
            /// Decodes what [`to_stored`](Self::to_stored) has written. It was normalised before it was encoded, and
            /// is not normalised again.
            pub fn from_stored(kind: Kind, of: KindRef, bytes: &[u8]) -> Result<Object, String> {
                match kind {
                    $(Kind::$konst => {
                        let whole = serde_json::from_slice::<$whole>(bytes).map_err(|e| e.to_string())?;
                        Obj::from_whole(whole).map(Object::$variant).map_err(|e| e.to_string())
                    })*
                    _ => Dynamic::from_stored(kind, of, bytes).map(Object::Dynamic),
                }
            }
            /// Replaces every part that equals the same part of `other` (another version of this object) by a shared
            /// pointer to it.
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
    /// Decodes JSON that has `apiVersion` and `kind`, and drops unknown fields as the API does by default. See
    /// [`decode`] for strict decoding of manifests.
    pub fn from_json(value: Value) -> Result<Object, String> {
        decode::lenient(value).map_err(|errors| errors.first().map(ToString::to_string).unwrap_or_default())
    }

    /// Shares the pod spec of another object if the two are equal.
    pub fn share_pod_spec(&mut self, other: &Object) {
        let (Some(own), Some(others)) = (self.pod_spec(), other.pod_spec()) else { return };
        if !own.is_held_as(others) && own == others {
            self.set_pod_spec(others.clone());
        }
    }

    /// The object's key, by reference: the metadata holds it.
    pub fn key_ref(&self) -> &ObjectKey {
        self.meta().key(self.kind())
    }

    /// The object's key.
    pub fn key(&self) -> ObjectKey {
        self.meta().key(self.kind()).clone()
    }

    /// Prefetches the memory that cloning and dropping this object will touch.
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

    /// Whether `metadata.deletionTimestamp` is set.
    pub fn is_deleting(&self) -> bool {
        self.meta().is_deleting()
    }

    /// The typed object inside; `None` if it is not of kind `R`.
    pub fn get<R: Resource>(&self) -> Option<&Obj<R>> {
        R::from_object(self)
    }

    /// The typed object inside, mutably; `None` if it is not of kind `R`.
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
            let (mut written, mut bare) = (b"[".to_vec(), value);
            object.write_item(&mut written);
            for field in ["apiVersion", "kind"] {
                bare.as_object_mut().unwrap().remove(field).unwrap();
            }
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&written[1..]).unwrap(), bare);
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
