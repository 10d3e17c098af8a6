//! What a resize may ask for (`ValidatePodResize`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::path::Path;
use super::pod;
use crate::object::{FieldError, Pod, qos_class};

type Errors = Vec<FieldError>;

pub(super) fn update(new: &Pod, old: &Pod, errors: &mut Errors) {
    let (now, was): (&PodSpec, &PodSpec) = (&new.spec.shared, &old.spec.shared);
    let at = &Path::Root("spec");
    pod::spec(now, Some(new.name()), at, errors);
    let whole = |spec: &PodSpec| {
        let resources = spec.resources.as_ref();
        resources.is_some_and(|r| r.requests.as_ref().or(r.limits.as_ref()).is_some_and(|all| !all.is_empty()))
    };
    let windows = was.os.as_ref().is_some_and(|os| os.name == "windows");
    for (refused, why) in [
        (whole(now) || whole(was), "pods with pod-level resources cannot be resized"),
        (pod::is_mirror(old), "static pods cannot be resized"),
        (windows, "windows pods cannot be resized"),
    ] {
        if refused {
            *errors = vec![FieldError::forbidden("[]", why)];
            return;
        }
    }
    let class = qos_class(was);
    if class != qos_class(now) {
        errors.push(FieldError::invalid(at, class, "Pod QOS Class may not change as a result of resizing"));
    }
    let inits = now.init_containers.iter().flatten().zip(was.init_containers.iter().flatten());
    for (i, (now, was)) in inits.enumerate() {
        let list = at.field("initContainers");
        if was.restart_policy.as_deref() == Some("Always") {
            let what = "only cpu and memory resources for sidecar containers are mutable";
            container(now, was, what, &list.index(i), errors);
        } else if now != was {
            errors.push(FieldError::forbidden(at, "resources for non-sidecar init containers are immutable"));
        }
    }
    for (i, (now, was)) in now.containers.iter().zip(&was.containers).enumerate() {
        let list = at.field("containers");
        container(now, was, "only cpu and memory resources are mutable", &list.index(i), errors);
    }
}

fn container(now: &Container, was: &Container, others: &str, at: &Path<'_>, errors: &mut Errors) {
    let empty = ResourceRequirements::default();
    let (new, old) = (now.resources.as_ref().unwrap_or(&empty), was.resources.as_ref().unwrap_or(&empty));
    let at_resources = at.field("resources");
    for (field, new, old, why) in [
        ("requests", &new.requests, &old.requests, "resource requests cannot be removed"),
        ("limits", &new.limits, &old.limits, "resource limits cannot be removed"),
    ] {
        let kept = |name: &String| new.as_ref().is_some_and(|new| new.contains_key(name));
        if !old.iter().flatten().all(|(name, _)| kept(name)) {
            errors.push(FieldError::forbidden(at_resources.field(field), why));
        }
    }
    if without_cpu_and_memory(now) != without_cpu_and_memory(was) {
        errors.push(FieldError::forbidden("spec", others));
    }
}

/// A container with everything that a resize must leave as it is.
fn without_cpu_and_memory(container: &Container) -> Container {
    let mut rest = container.clone();
    let mut resources = rest.resources.take().unwrap_or_default();
    let drop = |map: &mut Option<BTreeMap<String, Quantity>>| {
        map.iter_mut().for_each(|map| map.retain(|name, _| name != "cpu" && name != "memory"));
        *map = map.take().filter(|map| !map.is_empty());
    };
    drop(&mut resources.requests);
    drop(&mut resources.limits);
    rest.resources = (resources != ResourceRequirements::default()).then_some(resources);
    rest
}
