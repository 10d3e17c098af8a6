//! Validation of resources: their names, their amounts, and requests against limits.
//!
//! Source: `pkg/apis/core/validation` (`validateResourceRequirements`, `ValidateResourceQuantityValue`) and
//! `pkg/apis/core/helper`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceClaim, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::path::Path;
use super::{names, push_all};
use crate::object::{FieldError, Milli, container_requests, is_pod_level};

/// The owner of a resource list, which decides which resource names are allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::object) enum Of {
    Container,
    /// A pod's own resources (KEP-2837).
    Pod,
}

/// `validateResourceRequirements`. `claims` are the names of the pod's resource claims.
pub(in crate::object) fn requirements(
    r: &ResourceRequirements,
    of: Of,
    claims: &BTreeSet<&str>,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let none = BTreeMap::new();
    let (limits, requests) = (r.limits.as_ref().unwrap_or(&none), r.requests.as_ref().unwrap_or(&none));
    for (name, limit) in limits {
        amount(of, name, limit, &at.field("limits").key(name), errors);
    }
    for (name, request) in requests {
        amount(of, name, request, &at.field("requests").key(name), errors);
        match limits.get(name) {
            Some(limit) if !overcommits(name) && Milli::of(request) != Milli::of(limit) => {
                let detail = format!("must be equal to {name} limit of {}", limit.0);
                errors.push(FieldError::invalid(at.field("requests"), &request.0, detail));
            }
            Some(limit) if Milli::of(request) > Milli::of(limit) => {
                let detail = format!("must be less than or equal to {name} limit of {}", limit.0);
                errors.push(FieldError::invalid(at.field("requests"), &request.0, detail));
            }
            None if !overcommits(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(at.field("limits"), detail));
            }
            Some(_) | None => {}
        }
    }
    let named = |name: &str| limits.contains_key(name) || requests.contains_key(name);
    if limits.keys().chain(requests.keys()).any(|n| is_huge(n)) && !named("cpu") && !named("memory") {
        errors.push(FieldError::forbidden(at, "HugePages require cpu or memory"));
    }
    claim_names(r.claims.as_deref().unwrap_or_default(), claims, &at.field("claims"), errors);
}

/// Validates one entry of a resource list: the resource's name and its amount.
fn amount(of: Of, name: &str, q: &Quantity, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    match of {
        Of::Container => container_resource(name, at, errors),
        Of::Pod => pod_resource(name, at, errors),
    }
    quantity(name, q, at, errors);
    if is_huge(name) {
        let page = Milli::parse(&name["hugepages-".len()..]).unwrap_or_default();
        if page.0 <= 0 || Milli::of(q).0 % page.0 != 0 {
            let detail = format!("{} is not positive integer multiple of {name}", q.0);
            errors.push(FieldError::invalid(at, &q.0, detail));
        }
    }
}

/// `ValidateResourceQuantityValue`: must not be negative, and must be whole if the resource cannot be divided.
pub(in crate::object) fn quantity(name: &str, q: &Quantity, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Ok(amount) = Milli::parse(&q.0) else {
        errors.push(FieldError::invalid(at, &q.0, crate::object::QuantityError.to_string()));
        return;
    };
    if amount.0 < 0 {
        errors.push(FieldError::invalid(at, &q.0, names::NOT_NEGATIVE));
    }
    if is_whole(name) && amount.0 % 1000 != 0 {
        errors.push(FieldError::invalid(at, &q.0, "must be an integer"));
    }
}

/// `validatePodResources`: pod-level requests must cover the sum of the containers' requests.
pub(in crate::object) fn of_pod(spec: &PodSpec, claims: &BTreeSet<&str>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(r) = &spec.resources else { return };
    if r.claims.is_some() {
        let detail = "claims cannot be set for Resources at pod-level";
        errors.push(FieldError::forbidden(at.field("claims"), detail));
    }
    requirements(r, Of::Pod, claims, at, errors);
    let own = |name: &str| r.requests.as_ref().and_then(|q| q.get(name));
    for (name, asked) in container_requests(spec) {
        let granted = own(&name).map_or("0", |q| &q.0);
        if asked > Milli::parse(granted).unwrap_or_default() {
            let like = first_request(spec, &name).map_or("", |q| &q.0);
            let asked = crate::object::decode::in_family_of(like, asked);
            let detail = format!("must be greater than or equal to aggregate container requests of {asked}");
            errors.push(FieldError::invalid(at.field("requests").key(&name), granted, detail));
        }
    }
    for (i, c) in spec.containers.iter().enumerate() {
        for (name, limit) in limits_of(c) {
            let Some(pods) = r.limits.as_ref().and_then(|l| l.get(name)) else { continue };
            if Milli::of(limit) > Milli::of(pods) {
                let path = at.field("containers");
                let path = path.index(i);
                let path = path.key(name);
                let detail = format!("must be less than or equal to pod limits of {}", pods.0);
                errors.push(FieldError::invalid(path.field("limits"), &limit.0, detail));
            }
        }
    }
}

fn first_request<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a Quantity> {
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.find_map(|c| c.resources.as_ref()?.requests.as_ref()?.get(name))
}

fn limits_of(c: &Container) -> impl Iterator<Item = (&String, &Quantity)> {
    c.resources.iter().flat_map(|r| r.limits.iter().flatten())
}

/// `validateResourceClaimNames`.
fn claim_names(list: &[ResourceClaim], known: &BTreeSet<&str>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (i, claim) in list.iter().enumerate() {
        let at = at.index(i);
        let (name, request) = (claim.name.as_str(), claim.request.as_deref().unwrap_or(""));
        if name.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        if seen.contains(&(name, "")) {
            errors.push(FieldError::duplicate(at, name));
        } else {
            if !request.is_empty() {
                push_all(errors, &at.field("request"), request, names::label(request));
            }
            let whole = request.is_empty() && seen.iter().any(|(n, _)| *n == name);
            if whole || !seen.insert((name, request)) {
                let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
                errors.push(FieldError::duplicate(at, key));
            }
        }
        if !known.contains(name) {
            let mut error = FieldError::not_found(at, name);
            error.detail = "must be one of the names in pod.spec.resourceClaims".to_owned();
            if known.is_empty() {
                error.detail.push_str(" which is empty");
            } else {
                error.detail.push_str(": ");
                error.detail.push_str(&known.iter().copied().collect::<Vec<_>>().join(", "));
            }
            errors.push(error);
        }
    }
}

/// Kubernetes' own resources, which have names without a domain.
const STANDARD: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];

/// `validateResourceName`.
pub(in crate::object) fn resource(name: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) -> bool {
    let wrongs = names::qualified(name);
    let good = wrongs.is_empty();
    push_all(errors, at, name, wrongs);
    let huge = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    if good && !name.contains('/') && !STANDARD.contains(&name) && !huge {
        errors.push(FieldError::invalid(at, name, "must be a standard resource type or fully qualified"));
        return false;
    }
    good
}

/// `validateContainerResourceName`.
pub(in crate::object) fn container_resource(name: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    resource(name, at, errors);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge(name) {
            errors.push(FieldError::invalid(at, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(FieldError::invalid(at, name, "doesn't follow extended resource name standard"));
    }
}

/// `validatePodResourceName`.
fn pod_resource(name: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if resource(name, at, errors) && !is_pod_level(name) {
        errors.push(FieldError::not_supported(at, name, &["cpu", "hugepages-", "memory"]));
    }
}

/// `ValidateResourceQuotaResourceName`.
pub(in crate::object) fn quota_resource(name: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    resource(name, at, errors);
    let counted = STANDARD.contains(&name) && name != "storage";
    let huge = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    if !name.contains('/') && !counted && !huge {
        errors.push(FieldError::invalid(at, name, "must be a standard resource for quota"));
    }
}

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// `IsNativeResource`.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// `IsExtendedResourceName`: a name with a domain that is not Kubernetes' own.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified(&format!("requests.{name}")).is_empty()
}

/// `IsOvercommitAllowed`.
pub(in crate::object) fn overcommits(name: &str) -> bool {
    is_native(name) && !is_huge(name)
}

/// `IsIntegerResourceName`.
fn is_whole(name: &str) -> bool {
    let counted = [
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
    ];
    counted.contains(&name) || is_extended(name)
}
