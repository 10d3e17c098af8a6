//! Taint-based eviction: when a pod must leave a node with NoExecute taints.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::machine::Now;
use crate::object::{Pod, PodCondition, Stamp, Text, is_pod_ready, tolerates};

/// How long a pod may stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stay {
    /// Forever.
    Forever,
    /// For this long after the taints were first seen.
    For(Duration),
}

/// How long a pod with these tolerations may stay on a node with these NoExecute taints.
pub(super) fn stay(tolerations: &[Toleration], taints: &[&Taint]) -> Stay {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let mut tolerated = false;
        for toleration in tolerations.iter().filter(|t| tolerates(t, taint)) {
            tolerated = true;
            if let Some(seconds) = toleration.toleration_seconds {
                shortest = Some(shortest.map_or(seconds, |s| s.min(seconds)));
            }
        }
        if !tolerated {
            return Stay::For(Duration::ZERO);
        }
    }
    shortest.map_or(Stay::Forever, |s| Stay::For(Duration::from_secs(u64::try_from(s).unwrap_or(0))))
}

/// The pod with the condition that says why it is deleted; `None` if it already has the condition.
pub(super) fn disruption_target(pod: &Pod, now: Now) -> Option<Pod> {
    const REASON: &str = "DeletionByTaintManager";
    let current = pod.status.condition(&Text::DISRUPTION_TARGET);
    if current.is_some_and(|c| c.status == Text::TRUE && c.reason == REASON) {
        return None;
    }
    let mut next = pod.clone();
    let conditions = &mut next.status_mut().conditions;
    conditions.retain(|c| c.type_ != Text::DISRUPTION_TARGET);
    conditions.push(PodCondition {
        type_: Text::DISRUPTION_TARGET,
        status: Text::TRUE,
        reason: REASON.into(),
        message: "Taint manager: deleting due to NoExecute taint".into(),
        last_transition_time: Stamp::of(now.wall),
        ..PodCondition::default()
    });
    Some(next)
}

/// The pod with Ready set to false because its node is not ready; `None` if it is already not ready.
pub(super) fn not_ready(pod: &Pod, now: Now) -> Option<Pod> {
    if !is_pod_ready(pod) {
        return None;
    }
    let mut next = pod.clone();
    for condition in next.status_mut().conditions.iter_mut().filter(|c| c.type_ == Text::READY) {
        condition.status = Text::FALSE;
        condition.reason = Text::NODE_NOT_READY;
        condition.message = "Node is not ready".into();
        condition.last_transition_time = Stamp::of(now.wall);
    }
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::{Stay, stay};
    use k8s_openapi::api::core::v1::{Taint, Toleration};
    use serde_json::{Value, json};
    use std::time::Duration;

    fn check(tolerations: Value, expect: Stay) {
        let taints: Vec<Taint> = serde_json::from_value(json!([
            {"key":"node.kubernetes.io/unreachable","effect":"NoExecute"},
            {"key":"dedicated","value":"db","effect":"NoExecute"}]))
        .unwrap();
        let text = tolerations.to_string();
        let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).unwrap();
        assert_eq!(stay(&tolerations, &taints.iter().collect::<Vec<_>>()), expect, "{text}");
    }

    #[test]
    fn the_shortest_toleration_counts() {
        let secs = |n| Stay::For(Duration::from_secs(n));
        check(json!([]), secs(0));
        check(json!([{"operator":"Exists"}]), Stay::Forever);
        check(json!([{"key":"node.kubernetes.io/unreachable","operator":"Exists"}]), secs(0));
        check(
            json!([{"key":"node.kubernetes.io/unreachable","operator":"Exists","tolerationSeconds":300},
                   {"key":"dedicated","value":"db"}]),
            secs(300),
        );
        check(
            json!([{"operator":"Exists","tolerationSeconds":30},{"key":"dedicated","value":"db","tolerationSeconds":10}]),
            secs(10),
        );
        check(json!([{"operator":"Exists","tolerationSeconds":-1}]), secs(0));
        check(json!([{"operator":"Exists","effect":"NoSchedule"}]), secs(0));
        check(json!([{"operator":"Exists"},{"key":"dedicated","value":"other","tolerationSeconds":1}]), Stay::Forever);
    }
}
