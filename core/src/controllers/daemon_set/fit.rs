//! Whether a node should run a pod of a DaemonSet.

use k8s_openapi::api::core::v1 as core_v1;

use crate::object::{Node, matches_node, tolerates};

/// Whether a node runs a set's pod (`NodeShouldRunDaemonPod`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// The node should run a pod.
    Runs,
    /// No pod is created on the node, but an existing one stays: the node has a `NoSchedule` taint that the pod does
    /// not tolerate.
    Stays,
    /// The node should not have a pod; an existing one is deleted.
    Goes,
}

impl Fit {
    pub(super) fn of(pod: &core_v1::PodSpec, node: &Node) -> Fit {
        let named = pod.node_name.as_deref().is_none_or(|name| name.is_empty() || name == node.name());
        if !named || !matches_node(pod, node.name(), node.meta.labels.as_ref()) {
            return Fit::Goes;
        }
        let tolerations = pod.tolerations.as_deref().unwrap_or(&[]);
        let repelled = |effect: &str| {
            let taints = node.spec.taints.iter().flatten().filter(|t| t.effect == effect);
            taints.filter(|t| !tolerations.iter().any(|toleration| tolerates(toleration, t))).count() > 0
        };
        match (repelled("NoExecute"), repelled("NoSchedule")) {
            (true, _) => Fit::Goes,
            (false, true) => Fit::Stays,
            (false, false) => Fit::Runs,
        }
    }
}
