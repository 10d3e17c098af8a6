//! Kubernetes' validation, with Kubernetes' error texts and field paths.
//!
//! Objects must have their defaults. Validation allocates only if there is an error to report. Parts that an update
//! shares with the stored object are unchanged, and are not read.

mod cloud_volume;
mod container;
mod env;
pub(super) mod job;
pub(super) mod meta;
mod mount;
pub(super) mod names;
pub(super) mod networking;
pub(super) mod path;
pub(super) mod pod;
mod probe;
mod resize;
pub(super) mod resources;
pub(super) mod scheduling;
mod security;
pub(super) mod service;
pub(super) mod volume;
pub(super) mod workload;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::api::core::v1::NodeSpec;
use k8s_openapi::api::discovery::v1::EndpointSlice as WholeSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudgetSpec;

use super::{ErrorKind, Event, FieldError, IntOrString, Labels, Object};
use path::{Go, Path};

pub(crate) use meta::finalizer_warnings;
pub use volume::volume_sources;

/// What is wrong with a qualified name, as those of labels and resources are (`IsQualifiedName`).
pub fn qualified_name(name: &str) -> Vec<String> {
    names::qualified(name)
}

/// Whether a pod spec belongs to a pod or to a template. A template may omit some fields that a pod must have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Pod,
    Template,
}

/// Validates an object that is to be created.
pub fn create(object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    meta::create(object, &mut errors);
    object.validate(&mut errors);
    errors
}

/// Validates only the metadata of an object that is to be created. The caller must know that the rest is valid.
pub fn metadata_of_new(object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    meta::create(object, &mut errors);
    if let Object::Pod(pod) = object {
        let at = Path::Root("metadata");
        pod::annotations(pod.meta.annotations.as_ref(), &pod.spec.shared, &at.field("annotations"), &mut errors);
    }
    errors
}

/// Validates labels that are at a path.
pub fn labels_of(at: &'static str, map: &Labels) -> Vec<FieldError> {
    let mut errors = Vec::new();
    meta::labels(Some(map), &Path::Root(at), &mut errors);
    errors
}

/// Validates annotations that are at a path.
pub fn annotations_of(at: &'static str, map: &Labels) -> Vec<FieldError> {
    let mut errors = Vec::new();
    meta::annotations(Some(map), &Path::Root(at), &mut errors);
    errors
}

/// Validates an update of an object. A name, UID or time stamp that the update leaves out counts as unchanged.
#[inline]
pub fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    assert_eq!(new.kind(), old.kind(), "an update does not change the kind");
    meta::update(new, old, &mut errors);
    new.validate_update(old, &mut errors);
    errors
}

/// Validates an update of an object's status.
pub fn status_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    meta::update(new, old, &mut errors);
    new.validate_status_update(old, &mut errors);
    errors
}

/// Validates what the subresource `/approval` makes of an object.
pub fn approval(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    meta::update(new, old, &mut errors);
    new.validate_approval(old, &mut errors);
    errors
}

/// Validates an update of a pod's ephemeral containers.
pub fn ephemeral_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    meta::update(new, old, &mut errors);
    let (Object::Pod(new), Object::Pod(old)) = (new, old) else { panic!("only pods have ephemeral containers") };
    pod::ephemeral_update(new, old, &mut errors);
    errors
}

/// Validates a resize of a pod's containers.
pub fn resize(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    meta::update(new, old, &mut errors);
    let (Object::Pod(new), Object::Pod(old)) = (new, old) else { panic!("only pods are resized") };
    resize::update(new, old, &mut errors);
    errors
}

/// Checks that `availableReplicas` is at most `readyReplicas`.
pub(super) fn available(available: Option<i32>, ready: Option<i32>, errors: &mut Vec<FieldError>) {
    if let Some(n) = available.filter(|n| *n > ready.unwrap_or(0)) {
        let detail = "cannot be greater than readyReplicas";
        errors.push(FieldError::invalid("status.availableReplicas", n, detail));
    }
}

/// Checks that an EndpointSlice keeps its address type.
pub(super) fn slice_update(new: &WholeSlice, old: &WholeSlice, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("addressType");
    meta::immutable(&new.address_type, &old.address_type, at, |t| Go(format!("{t:?}")), errors);
}

pub(super) fn counted(counts: &[(&str, Option<i32>)], total: i32, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("status");
    for (field, n) in counts {
        not_negative(n.map(i64::from), &at.field(field), errors);
        if n.is_some_and(|n| n > total) {
            let detail = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(at.field(field), n.unwrap_or(0), detail));
        }
    }
}

pub(super) fn node(spec: &NodeSpec, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    // Upstream reports `metadata.taints`, although taints are in the spec.
    scheduling::taints(spec.taints.as_deref().unwrap_or_default(), &Path::Root("metadata").field("taints"), errors);
    let cidrs = spec.pod_cidrs.as_deref().unwrap_or_default();
    let v6 = |cidr: &String| cidr.contains(':');
    for (i, cidr) in spec.pod_cidrs.iter().flatten().enumerate() {
        let good = cidr.split_once('/').is_some_and(|(ip, bits)| match ip.parse::<core::net::IpAddr>() {
            Ok(ip) => bits.parse::<u8>().is_ok_and(|b| b <= if ip.is_ipv4() { 32 } else { 128 }),
            Err(_) => false,
        });
        if !good {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(FieldError::invalid(at.field("podCIDRs").index(i), cidr, detail));
        }
    }
    let dual_stack = cidrs.len() == 2 && v6(&cidrs[0]) != v6(&cidrs[1]);
    if cidrs.len() > 1 && !dual_stack {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(at.field("podCIDRs"), Go::strings(cidrs), detail));
    }
    for (i, cidr) in cidrs.iter().enumerate().filter(|(i, cidr)| cidrs[..*i].contains(cidr)) {
        errors.push(FieldError::duplicate(at.field("podCIDRs").index(i), cidr));
    }
}

pub(super) fn node_update(new: &NodeSpec, old: &NodeSpec, errors: &mut Vec<FieldError>) {
    let was = old.pod_cidrs.as_deref().unwrap_or_default();
    if !was.is_empty() && new.pod_cidrs.as_deref().unwrap_or_default() != was {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.podCIDRs", detail));
    }
    let was = old.provider_id.as_deref().unwrap_or("");
    if !was.is_empty() && new.provider_id.as_deref().unwrap_or("") != was {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.providerID", detail));
    }
}

pub(super) fn lease(spec: &LeaseSpec, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    if let Some(n) = spec.lease_duration_seconds.filter(|n| *n <= 0) {
        errors.push(FieldError::invalid(at.field("leaseDurationSeconds"), n, "must be greater than 0"));
    }
    not_negative(spec.lease_transitions.map(i64::from), &at.field("leaseTransitions"), errors);
}

pub(super) fn budget(spec: &PodDisruptionBudgetSpec, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        let shown = Go(serde_json::to_string(spec).expect("a k8s-openapi type is JSON"));
        errors.push(FieldError::invalid(at, shown, "minAvailable and maxUnavailable cannot be both set"));
    }
    for (value, field) in [(&spec.min_available, "minAvailable"), (&spec.max_unavailable, "maxUnavailable")] {
        if let Some(v) = value {
            int_or_percent(v, &at.field(field), errors);
            workload::at_most_all(v, &at.field(field), errors);
        }
    }
    if let Some(policy) = &spec.unhealthy_pod_eviction_policy {
        one_of(policy, &["AlwaysAllow", "IfHealthyBudget"], &at.field("unhealthyPodEvictionPolicy"), errors);
    }
    if let Some(s) = &spec.selector {
        meta::selector(s, &at.field("selector"), errors);
    }
}

/// Checks that a ControllerRevision keeps its data.
pub(super) fn revision_update(new: &ControllerRevision, old: &ControllerRevision, errors: &mut Vec<FieldError>) {
    revision(new, errors);
    if new.data != old.data {
        errors.push(FieldError::invalid("data", Go("{}".to_owned()), "field is immutable"));
    }
}

/// Validates the revision number.
pub(super) fn revision(revision: &ControllerRevision, errors: &mut Vec<FieldError>) {
    not_negative(Some(revision.revision), &Path::Root("revision"), errors);
}

/// Checks that an event is in the namespace of its involved object, or in `default` if that object has none.
pub(super) fn involved(event: &Event, errors: &mut Vec<FieldError>) {
    let about = event.spec.about.namespace.as_deref().unwrap_or("");
    let own = event.namespace();
    if (about.is_empty() && own != "default" && !own.is_empty()) || (!about.is_empty() && about != own) {
        let detail = "does not match event.namespace";
        errors.push(FieldError::invalid("involvedObject.namespace", about, detail));
    }
}

/// Adds one error for each rule that a value breaks.
pub(super) fn push_all(errors: &mut Vec<FieldError>, at: &Path<'_>, value: &str, wrongs: names::Wrongs) {
    errors.extend(wrongs.into_iter().map(|w| FieldError::invalid(at, value, w)));
}

fn not_negative(n: Option<i64>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(n) = n.filter(|n| *n < 0) {
        errors.push(FieldError::invalid(at, n, names::NOT_NEGATIVE));
    }
}

pub(super) fn one_of(value: &str, known: &[&str], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !known.contains(&value) {
        errors.push(FieldError::not_supported(at, value, known));
    }
}

pub(super) fn too_many(at: impl Into<String>, count: usize, max: usize) -> FieldError {
    FieldError {
        kind: ErrorKind::TooMany,
        field: at.into(),
        value: Some(count.to_string()),
        detail: format!("must have at most {max} items"),
    }
}

/// Validates a port that is given by number or by name.
fn name_or_number(port: &IntOrString, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    match port {
        IntOrString::Int(n) if !names::is_port(*n) => errors.push(FieldError::invalid(at, *n, names::PORT)),
        IntOrString::Int(_) => {}
        IntOrString::String(name) => push_all(errors, at, name, names::port_name(name)),
    }
}

fn int_or_percent(v: &IntOrString, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    match v {
        IntOrString::Int(n) if *n < 0 => {
            errors.push(FieldError::invalid(at, *n, names::NOT_NEGATIVE));
        }
        IntOrString::Int(_) => {}
        IntOrString::String(s) => {
            let shown = || Go::int_or_string(v);
            errors.extend(names::percent(s).into_iter().map(|w| FieldError::invalid(at, shown(), w)));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
