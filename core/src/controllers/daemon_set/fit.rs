//! Whether a node should have a daemon of a set.

use k8s_openapi::api::core::v1 as core_v1;

use crate::object::{Node, matches_node, tolerates};

/// What a node is to a set (`NodeShouldRunDaemonPod`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// A daemon should run there.
    Runs,
    /// None is started there, and one that runs stays: a taint that it does not tolerate came after it.
    Stays,
    /// None should be there.
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
