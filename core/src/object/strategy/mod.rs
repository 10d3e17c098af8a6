//! Strategies: what the API server does with objects of a kind that the machines read as a type (upstream's
//! `strategy.go` of each resource). One file a kind, or a few that are alike: how an object is taken apart, and its
//! rules.
//!
//! What is not said here is what holds for most kinds. Kinds without a typed form have their rules in
//! [`defaults`](super::defaults) and [`validation`](super::validation); custom ones follow their schema.

mod controller_revision;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoints;
mod event;
mod job;
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

use super::validation::counted;
use super::{FieldError, LabelSelector, Obj, Part, Resource, Selector, SharedPodSpec};

/// What `/scale` shows of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replicas {
    /// How many are wanted.
    pub wanted: i32,
    /// How many there are.
    pub current: i32,
    /// The selector of their pods, as text.
    pub selector: String,
}

/// The rules of a kind.
pub trait Strategy: Resource {
    /// `PrepareForCreate`: what a new object may not bring along. The status belongs to the machines.
    fn prepare_for_create(object: &mut Obj<Self>) {
        if *object.status != Self::Status::default() {
            object.set_status(Self::Status::default());
        }
    }

    /// Whether an update of the status may change the labels too, as most kinds let it.
    const LABELS_WITH_STATUS: bool = true;

    /// Whether a deletion that says nothing leaves the dependants behind (`DefaultGarbageCollectionPolicy`).
    const ORPHANS_BY_DEFAULT: bool = false;

    /// `PrepareForUpdate`: what an update keeps of the object that it changes.
    fn prepare_for_update(_new: &mut Obj<Self>, _old: &Obj<Self>) {}

    /// What `/finalize` changes; nothing for kinds without it.
    fn finalize(_object: &mut Obj<Self>, _sent: &Obj<Self>) {}

    /// Whether an object that is being deleted, and has no finalizer in its metadata, goes with the write that left it
    /// so (`ShouldDeleteDuringUpdate`).
    fn ends_on_update(_object: &Obj<Self>, old: &Obj<Self>) -> bool {
        old.meta.deletion_grace_period_seconds == Some(0)
    }

    /// Fills in what its author did not say. A part in which nothing is missing stays the shared part it was.
    fn apply_defaults(_object: &mut Obj<Self>) {}

    /// What is wrong with a new object, beside its metadata.
    fn validate(_object: &Obj<Self>, _errors: &mut Vec<FieldError>) {}

    /// What is wrong with a change, beside the metadata. Where the spec is shared nothing has changed.
    fn validate_update(new: &Obj<Self>, old: &Obj<Self>, errors: &mut Vec<FieldError>) {
        if !new.spec.shares(&old.spec) {
            Self::validate(new, errors);
        }
    }

    /// What is wrong with a change of the status, beside the metadata.
    fn validate_status_update(_new: &Obj<Self>, _old: &Obj<Self>, _errors: &mut Vec<FieldError>) {}

    /// The text of a selectable field of the kind's row; `None` where there is none.
    fn field<'a>(_object: &'a Obj<Self>, _path: &str) -> Option<Cow<'a, str>> {
        None
    }

    /// How many replicas are wanted; `None` for kinds that have none.
    fn replicas(_object: &Obj<Self>) -> Option<i32> {
        None
    }

    /// What `/scale` shows; `None` for kinds that have none.
    fn scale(_object: &Obj<Self>) -> Option<Replicas> {
        None
    }

    /// Sets what `/scale` sets.
    fn set_replicas(_object: &mut Obj<Self>, _replicas: i32) {
        panic!("a kind without a scale is not scaled");
    }

    /// The pod spec, or that of its template, which versions, children and pods share.
    fn pod_spec(_object: &Obj<Self>) -> Option<&SharedPodSpec> {
        None
    }

    /// Holds this pod spec in the place of its own.
    fn set_pod_spec(_object: &mut Obj<Self>, _spec: SharedPodSpec) {}
}

/// A field of text that may be absent.
fn text(field: Option<&str>) -> Option<Cow<'_, str>> {
    field.map(Cow::Borrowed)
}

/// A flag that is `false` where it is absent.
fn flag(field: Option<bool>) -> Option<Cow<'static, str>> {
    Some(Cow::Borrowed(if field == Some(true) { "true" } else { "false" }))
}

/// A number that is zero where it is absent.
fn number(field: Option<i32>) -> Option<Cow<'static, str>> {
    Some(Cow::Owned(field.unwrap_or(0).to_string()))
}

/// A scale by a label selector.
pub(super) fn scale_by(wanted: Option<i32>, current: Option<i32>, selector: &LabelSelector) -> Option<Replicas> {
    let selector = Selector::from_label_selector(selector).map(|s| s.to_string()).unwrap_or_default();
    Some(Replicas { wanted: wanted.unwrap_or(1), current: current.unwrap_or(0), selector })
}

/// Counts of a status that none may be greater than the first, `replicas`.
fn check_counts(total: i32, counts: &[(&str, Option<i32>)], errors: &mut Vec<FieldError>) {
    counted(counts, total, errors);
}
