//! Strategies: the API server's rules for each kind (upstream: each resource's `strategy.go`).
//!
//! Here is one file per kind that has a typed form, or per few similar kinds. It says how an object is split into
//! parts, and holds the kind's rules. The trait's default methods are the rules that most kinds share. The kinds that
//! are held as JSON have theirs in [`json`]; custom kinds follow their schema.

mod controller_revision;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoints;
mod event;
mod job;
pub(super) mod json;
mod lease;
mod namespace;
mod node;
mod pod;
mod pod_disruption_budget;
mod replica_set;
mod replication_controller;
mod service;
mod service_account;
mod stateful_set;

use std::borrow::Cow;

pub use service::lacks_node_port;

use super::validation::names::{self, Wrongs};
use super::validation::{available, counted};
use super::{FieldError, LabelSelector, Obj, Part, Resource, Selector, SharedPodSpec};

/// What a deletion that names no propagation policy does with an object's dependants (`rest.GarbageCollectionPolicy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GarbageCollection {
    /// They are deleted too.
    DeleteDependents,
    /// They stay.
    OrphanDependents,
    /// Objects of the kind have no dependants, whatever policy a deletion names.
    Unsupported,
}

/// What the `/scale` subresource of an object shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replicas {
    /// The desired number of replicas.
    pub wanted: i32,
    /// The current number of replicas.
    pub current: i32,
    /// The label selector of the pods, as text.
    pub selector: String,
}

/// The rules of a kind.
pub trait Strategy: Resource {
    /// `PrepareForCreate`: clears what a client must not set in a new object. By default this is the status, since only
    /// controllers write it.
    fn prepare_for_create(object: &mut Obj<Self>) {
        if *object.status != Self::Status::default() {
            object.set_status(Self::Status::default());
        }
    }

    /// The rule for names: what is wrong with one.
    const NAME: fn(&str) -> Wrongs = names::subdomain;

    /// The maximum length of the name of a new object, if it is less than what the rule for names allows.
    const LONGEST_NAME: Option<usize> = None;

    /// Whether an update of the status subresource may change the labels too. Most kinds allow it.
    const LABELS_WITH_STATUS: bool = true;

    /// What a deletion that names no propagation policy does with the dependants (`DefaultGarbageCollectionPolicy`).
    const GARBAGE_COLLECTION: GarbageCollection = GarbageCollection::DeleteDependents;

    /// `PrepareForUpdate`: restores from `old` what an update must not change.
    fn prepare_for_update(_new: &mut Obj<Self>, _old: &Obj<Self>) {}

    /// Takes from `sent` what the `/finalize` subresource changes. Does nothing for kinds without that subresource.
    fn finalize(_object: &mut Obj<Self>, _sent: &Obj<Self>) {}

    /// Whether an object that is being deleted and has no finalizer in its metadata is removed by the write that left
    /// it so (`ShouldDeleteDuringUpdate`).
    fn ends_on_update(_object: &Obj<Self>, old: &Obj<Self>) -> bool {
        old.meta.deletion_grace_period_seconds == Some(0)
    }

    /// Sets defaults for fields that the client left out. Must not copy a shared part in which nothing is missing.
    fn apply_defaults(_object: &mut Obj<Self>) {}

    /// Validates a new object apart from its metadata.
    fn validate(_object: &Obj<Self>, _errors: &mut Vec<FieldError>) {}

    /// Validates an update apart from the metadata. A spec that is shared with the old object's has not changed and is
    /// not checked again.
    fn validate_update(new: &Obj<Self>, old: &Obj<Self>, errors: &mut Vec<FieldError>) {
        if !new.spec.shares(&old.spec) {
            Self::validate(new, errors);
        }
    }

    /// Validates an update of the status apart from the metadata.
    fn validate_status_update(_new: &Obj<Self>, _old: &Obj<Self>, _errors: &mut Vec<FieldError>) {}

    /// The value of a selectable field of the kind as text; `None` if there is no such field.
    fn field<'a>(_object: &'a Obj<Self>, _path: &str) -> Option<Cow<'a, str>> {
        None
    }

    /// The desired number of replicas; `None` for kinds without replicas.
    fn replicas(_object: &Obj<Self>) -> Option<i32> {
        None
    }

    /// What `/scale` shows; `None` for kinds without a scale.
    fn scale(_object: &Obj<Self>) -> Option<Replicas> {
        None
    }

    /// Sets the desired number of replicas, as an update of `/scale` does.
    fn set_replicas(_object: &mut Obj<Self>, _replicas: i32) {
        panic!("a kind without a scale is not scaled");
    }

    /// The pod spec: the pod's own or the template's. Versions of the object, its children and their pods share it.
    fn pod_spec(_object: &Obj<Self>) -> Option<&SharedPodSpec> {
        None
    }

    /// Replaces the pod spec.
    fn set_pod_spec(_object: &mut Obj<Self>, _spec: SharedPodSpec) {}
}

/// The value of a selectable text field; `None` if it is absent.
fn text(field: Option<&str>) -> Option<Cow<'_, str>> {
    field.map(Cow::Borrowed)
}

/// The value of a selectable boolean field; an absent one is `false`.
fn flag(field: Option<bool>) -> Option<Cow<'static, str>> {
    Some(Cow::Borrowed(if field == Some(true) { "true" } else { "false" }))
}

/// The value of a selectable number field; an absent one is zero.
fn number(field: Option<i32>) -> Option<Cow<'static, str>> {
    Some(Cow::Owned(field.unwrap_or(0).to_string()))
}

/// Builds the [`Replicas`] of a kind that has a [`LabelSelector`].
pub(super) fn scale_by(wanted: Option<i32>, current: Option<i32>, selector: &LabelSelector) -> Option<Replicas> {
    let selector = Selector::from_label_selector(selector).map(|s| s.to_string()).unwrap_or_default();
    Some(Replicas { wanted: wanted.unwrap_or(1), current: current.unwrap_or(0), selector })
}

/// Validates the counts that the statuses of ReplicaSets and ReplicationControllers share
/// (`ValidateReplicaSetStatus`, `ValidateReplicationControllerStatus`).
fn check_replicas(
    replicas: i32,
    labeled: Option<i32>,
    ready: Option<i32>,
    ready_for_long: Option<i32>,
    errors: &mut Vec<FieldError>,
) {
    let counts = [
        ("replicas", Some(replicas)),
        ("fullyLabeledReplicas", labeled),
        ("readyReplicas", ready),
        ("availableReplicas", ready_for_long),
    ];
    counted(&counts, replicas, errors);
    available(ready_for_long, ready, errors);
}
