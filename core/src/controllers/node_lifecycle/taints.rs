//! Taints that follow from a node's conditions.

use k8s_openapi::api::core::v1::{NodeStatus, Taint};

use super::health::Readiness;
use crate::object::{Node, TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE, Time, node_condition};

const NO_SCHEDULE: &str = "NoSchedule";
pub(super) const NO_EXECUTE: &str = "NoExecute";

/// Conditions that cause a NoSchedule taint while they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];

/// Key of the taint for this readiness; `None` for a ready node.
pub(super) fn readiness_taint(readiness: Readiness) -> Option<&'static str> {
    match readiness {
        Readiness::True => None,
        Readiness::False => Some(TAINT_NOT_READY),
        Readiness::Unknown => Some(TAINT_UNREACHABLE),
    }
}

/// Whether a taint is a NoExecute taint of this controller.
pub(super) fn is_own_no_execute(taint: &Taint) -> bool {
    taint.effect == NO_EXECUTE && (taint.key == TAINT_NOT_READY || taint.key == TAINT_UNREACHABLE)
}

fn is_own_no_schedule(taint: &Taint) -> bool {
    let keys = [TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE];
    taint.effect == NO_SCHEDULE
        && (keys.contains(&taint.key.as_str()) || PRESSURES.iter().any(|(_, key)| *key == taint.key))
}

fn no_schedule_keys(status: &NodeStatus, unschedulable: bool, readiness: Readiness) -> Vec<&'static str> {
    // A node that has never reported a Ready condition is not tainted for it.
    let posted = node_condition(status, "Ready").is_some();
    let mut keys: Vec<&'static str> = readiness_taint(readiness).filter(|_| posted).into_iter().collect();
    for (condition, key) in PRESSURES {
        if node_condition(status, condition).is_some_and(|c| c.status == "True") {
            keys.push(key);
        }
    }
    if unschedulable {
        keys.push(TAINT_UNSCHEDULABLE);
    }
    keys
}

/// The taints that the node should have: its existing ones, the NoSchedule taints for its conditions, and if
/// `no_execute` is true, the NoExecute taint for its readiness. `None` if it already has exactly these.
pub(super) fn desired(node: &Node, no_execute: bool, now: &Time) -> Option<Vec<Taint>> {
    let readiness = Readiness::of(node);
    let schedule = no_schedule_keys(&node.status, node.spec.unschedulable == Some(true), readiness);
    let execute = readiness_taint(readiness).filter(|_| no_execute);
    let current = node.spec.taints.as_deref().unwrap_or(&[]);
    let mut next: Vec<Taint> = current
        .iter()
        .filter(|t| {
            if is_own_no_schedule(t) {
                schedule.contains(&t.key.as_str())
            } else if is_own_no_execute(t) {
                execute == Some(t.key.as_str())
            } else {
                true
            }
        })
        .cloned()
        .collect();
    let mut changed = next.len() != current.len();
    let wanted = schedule.iter().map(|k| (*k, NO_SCHEDULE)).chain(execute.map(|k| (k, NO_EXECUTE)));
    for (key, effect) in wanted {
        if !next.iter().any(|t| t.key == key && t.effect == effect) {
            let time_added = (effect == NO_EXECUTE).then(|| now.clone());
            next.push(Taint { key: key.to_owned(), effect: effect.to_owned(), time_added, value: None });
            changed = true;
        }
    }
    changed.then_some(next)
}

#[cfg(test)]
mod tests {
    use super::desired;
    use crate::controllers::fake_cluster::{at, node, with};
    use k8s_openapi::api::core::v1 as core_v1;
    use serde_json::{Value, json};

    fn check(patch: Value, no_execute: bool, expect: Option<&[&str]>) {
        let object = with(node("n1"), patch.clone());
        let taints = desired(object.get::<core_v1::Node>().unwrap(), no_execute, &at(0).wall.to_time());
        let short = |key: &str| key.rsplit('/').next().unwrap().to_owned();
        let texts =
            taints.map(|list| list.iter().map(|t| format!("{}:{}", short(&t.key), t.effect)).collect::<Vec<_>>());
        assert_eq!(texts, expect.map(|e| e.iter().map(|s| (*s).to_owned()).collect()), "{patch}");
    }

    #[test]
    fn taints_follow_conditions() {
        let ready = |s: &str| json!({"status":{"conditions":[{"type":"Ready","status":s}]}});
        check(json!({}), true, None);
        check(json!({"status":{"conditions":null}}), false, None);
        check(ready("False"), false, Some(&["not-ready:NoSchedule"]));
        check(ready("Unknown"), true, Some(&["unreachable:NoSchedule", "unreachable:NoExecute"]));
        check(json!({"spec":{"unschedulable":true}}), true, Some(&["unschedulable:NoSchedule"]));
        let pressed =
            json!({"status":{"conditions":[{"type":"Ready","status":"True"},{"type":"DiskPressure","status":"True"}]}});
        check(pressed, true, Some(&["disk-pressure:NoSchedule"]));
    }

    #[test]
    fn recovery_takes_only_what_is_ours() {
        let tainted = |ready: &str| {
            json!({"spec":{"taints":[{"key":"mine","effect":"NoExecute"},
                {"key":"node.kubernetes.io/unreachable","effect":"NoSchedule"},
                {"key":"node.kubernetes.io/unreachable","effect":"NoExecute"}]},
                "status":{"conditions":[{"type":"Ready","status":ready}]}})
        };
        check(tainted("True"), true, Some(&["mine:NoExecute"]));
        check(tainted("Unknown"), true, None);
        check(tainted("Unknown"), false, Some(&["mine:NoExecute", "unreachable:NoSchedule"]));
        check(tainted("False"), true, Some(&["mine:NoExecute", "not-ready:NoSchedule", "not-ready:NoExecute"]));
    }
}
