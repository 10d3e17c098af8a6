//! Resizing in place: what `/resize` may change of a pod is the resources of its containers, and how each of them is
//! resized.
//!
//! Source: KEP-1287, <https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/>.

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};

use super::{Pod, SharedPodSpec};

/// The containers that can be resized: all but ephemeral ones.
fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn containers_mut(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.init_containers.iter_mut().flatten().chain(&mut spec.containers)
}

/// The resources of a container; one that names none has empty ones.
pub fn resources_of(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

/// Whether the same containers have the same resources in both.
pub fn same_resources(a: &PodSpec, b: &PodSpec) -> bool {
    containers(a).map(resources_of).eq(containers(b).map(resources_of))
}

/// Takes from `sent` the resources and resize policies of the containers, and nothing else (`dropNonResizeUpdates`).
pub fn take_resources(pod: &mut Pod, sent: &Pod) {
    let mut wanted = PodSpec::clone(&pod.spec.shared);
    for container in containers_mut(&mut wanted) {
        if let Some(sent) = containers(&sent.spec.shared).find(|sent| sent.name == container.name) {
            container.resources.clone_from(&sent.resources);
            container.resize_policy.clone_from(&sent.resize_policy);
        }
    }
    if wanted != *pod.spec.shared {
        *pod.spec_mut().shared.make_mut() = wanted;
    }
}

/// The spec with the resources that a node has given its containers, as the pod's status says; `None` if the status
/// says nothing of any.
pub fn allocated(pod: &Pod) -> Option<SharedPodSpec> {
    let statuses = || pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    if statuses().all(|status| status.rest.as_deref().is_none_or(|rest| rest.resources.is_none())) {
        return None;
    }
    let mut spec = pod.spec.shared.clone();
    for container in containers_mut(spec.make_mut()) {
        let told = statuses().find(|status| status.name == *container.name);
        if let Some(given) = told.and_then(|status| status.rest.as_deref()?.resources.clone()) {
            container.resources = Some(given);
        }
    }
    Some(spec)
}
