//! Small accessors that many state machines share: owners, pod phases, conditions, int-or-percent.

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::{IntOrString, Namespace, Node, Object, ObjectMeta, OwnerReference, Pod, PodPhase, PodStatus, Summarized};

/// The owner reference with `controller: true`; `None` if there is none.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// Whether `meta` is managed by the owner with this UID.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|o| o.uid == uid)
}

/// The class that one of these annotations makes the default one: of several the newest, of those of one age the first
/// by name.
pub fn default_class<'a>(classes: impl Iterator<Item = &'a Object>, annotations: &[&str]) -> Option<&'a Object> {
    let is_default = |class: &&Object| {
        let own = class.meta().annotations.as_ref();
        annotations.iter().any(|name| own.and_then(|own| own.get(*name)).is_some_and(|value| value == "true"))
    };
    // `max_by` takes the last of equals.
    classes.filter(is_default).max_by(|a, b| {
        let (age, name) = (a.meta().creation_timestamp.cmp(&b.meta().creation_timestamp), b.name().cmp(a.name()));
        age.then(name)
    })
}

/// Whether a namespace is being deleted, so that nothing new belongs in it.
pub fn is_namespace_ending(namespace: &Namespace) -> bool {
    namespace.meta.deletion_timestamp.is_some() || namespace.status.phase.as_deref() == Some("Terminating")
}

/// Scales an int-or-percent against a total, as `intstr.GetScaledValueFromIntOrPercent`. `None` if it is neither a
/// number nor a percentage.
pub fn scaled(value: &IntOrString, total: i32, round_up: bool) -> Option<i32> {
    match value {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(s) => {
            let percent: i64 = s.strip_suffix('%')?.parse().ok()?;
            let product = percent * i64::from(total);
            let scaled = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(scaled).ok()
        }
    }
}

/// `status.phase`; `Pending` if unset.
pub fn pod_phase(pod: &Pod) -> &str {
    match pod.status.summary().phase {
        PodPhase::Pending => "Pending",
        PodPhase::Running => "Running",
        PodPhase::Succeeded => "Succeeded",
        PodPhase::Failed => "Failed",
        PodPhase::Unknown => "Unknown",
        PodPhase::Other => pod.status.phase.as_str(),
    }
}

/// Whether the pod's phase is `Succeeded` or `Failed`.
pub fn is_pod_terminal(pod: &Pod) -> bool {
    is_status_terminal(&pod.status)
}

/// Whether the phase is one that a pod never leaves.
pub fn is_status_terminal(status: &Summarized<PodStatus>) -> bool {
    matches!(status.summary().phase, PodPhase::Succeeded | PodPhase::Failed)
}

/// Whether a controller counts the pod as active: it is neither terminal nor being deleted.
pub fn is_pod_active(pod: &Pod) -> bool {
    !is_pod_terminal(pod) && pod.meta.deletion_timestamp.is_none()
}

/// Whether the pod's `Ready` condition is true.
pub fn is_pod_ready(pod: &Pod) -> bool {
    pod.status.summary().is_ready()
}

/// A node's condition by type.
pub fn node_condition<'a>(status: &'a core_v1::NodeStatus, type_: &str) -> Option<&'a core_v1::NodeCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_)
}

/// Whether the node's `Ready` condition is true.
pub fn is_node_ready(node: &Node) -> bool {
    node_condition(&node.status, "Ready").is_some_and(|c| c.status == "True")
}

/// `true` if the two versions of a Node differ at most in the revision and in the time of the kubelet's report. Most
/// Node updates are of this kind, and are ignored by all other readers. May be `false` for equal Nodes that do not
/// share their parts.
#[inline]
pub fn is_mere_report(old: &Node, new: &Node) -> bool {
    Rc::ptr_eq(&old.meta, &new.meta)
        && Rc::ptr_eq(&old.spec, &new.spec)
        && old.status.same_apart_from_report(&new.status)
}

/// The well-known label of a node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The well-known label of a node's region.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// The well-known label of a node's host name.
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
/// Taint of a node whose kubelet reports that it is not ready.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node whose kubelet has stopped reporting.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of a cordoned node.
pub const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Namespace of the nodes' heartbeat leases.
pub const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";

#[cfg(test)]
mod tests {
    use super::{IntOrString, scaled};

    #[test]
    fn percentages_round_as_asked() {
        let quarter = IntOrString::String("25%".to_owned());
        assert_eq!(scaled(&quarter, 10, true), Some(3));
        assert_eq!(scaled(&quarter, 10, false), Some(2));
        assert_eq!(scaled(&IntOrString::Int(4), 10, false), Some(4));
        assert_eq!(scaled(&IntOrString::String("many".to_owned()), 10, false), None);
    }
}
