//! The FlowSchemas and PriorityLevelConfigurations that every cluster has.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go`.

use serde_json::{Value, json};

/// The annotation that says whether a specification is kept as it is here.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// An object that every cluster has.
#[derive(Debug)]
pub struct Wanted {
    /// It, as JSON.
    pub object: Value,
    /// Its specification is kept whatever a user makes of it.
    pub is_mandatory: bool,
}

fn named(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}})
}

/// Shares, percentage that may be lent, and queues, size of a hand and longest queue.
fn limited(shares: u32, lendable: u32, queues: Option<(u32, u32)>) -> Value {
    let response = match queues {
        None => json!({"type": "Reject"}),
        Some((queues, hand)) => {
            json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
        }
    };
    json!({"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lendable,
        "limitResponse": response}})
}

/// The priority levels.
pub fn levels() -> Vec<Wanted> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let all = [
        ("exempt", exempt, true),
        ("catch-all", limited(5, 0, None), true),
        ("system", limited(30, 33, Some((64, 6))), false),
        ("node-high", limited(40, 25, Some((64, 6))), false),
        ("leader-election", limited(10, 0, Some((16, 4))), false),
        ("workload-high", limited(40, 50, Some((128, 6))), false),
        ("workload-low", limited(100, 90, Some((128, 6))), false),
        ("global-default", limited(20, 50, Some((128, 6))), false),
    ];
    let level = |(name, spec, is_mandatory)| {
        let object = named("PriorityLevelConfiguration", name, spec);
        Wanted { object, is_mandatory }
    };
    all.into_iter().map(level).collect()
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn accounts(names: &[&str]) -> Vec<Value> {
    let account =
        |name: &&str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}});
    names.iter().map(account).collect()
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], namespace: &str, cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": [namespace]});
    if cluster {
        rule["clusterScope"] = json!(true);
    }
    rule
}

/// A rule about whatever these subjects do.
fn everything(subjects: Vec<Value>) -> Value {
    json!({"subjects": subjects, "resourceRules": [resources(&["*"], "*", &["*"], "*", true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
}

fn schema(name: &str, level: &str, precedence: u32, method: &str, rule: Value, is_mandatory: bool) -> Wanted {
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        "rules": [rule]});
    if !method.is_empty() {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    Wanted { object: named("FlowSchema", name, spec), is_mandatory }
}

/// The flow schemas.
pub fn schemas() -> Vec<Wanted> {
    const MANAGER: &str = "system:kube-controller-manager";
    const SCHEDULER: &str = "system:kube-scheduler";
    const EVERYBODY: [&str; 2] = ["system:unauthenticated", "system:authenticated"];
    let elects = ["get", "create", "update"];
    let leases = || resources(&elects, "coordination.k8s.io", &["leases"], "*", false);
    let nodes = json!({"subjects": groups(&["system:nodes"]), "resourceRules": [
        resources(&["*"], "", &["nodes", "nodes/status"], "*", true),
        resources(&["*"], "coordination.k8s.io", &["leases"], "*", false)]});
    let probes = json!({"subjects": groups(&EVERYBODY), "nonResourceRules": [
        {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]});
    let system = [users(&[MANAGER, SCHEDULER]), accounts(&["*"])].concat();
    let system = json!({"subjects": system, "resourceRules": [leases()]});
    let workload = json!({"subjects": accounts(&["*"]), "resourceRules": [leases()]});
    let endpoints =
        [users(&[MANAGER]), accounts(&["endpoint-controller", "endpointslicemirroring-controller"])].concat();
    let endpoints = json!({"subjects": endpoints,
        "resourceRules": [resources(&elects, "", &["endpoints"], "*", false)]});
    vec![
        schema("exempt", "exempt", 1, "", everything(groups(&["system:masters"])), true),
        schema("catch-all", "catch-all", 10000, "ByUser", everything(groups(&EVERYBODY)), true),
        schema("system-nodes", "system", 500, "ByUser", everything(groups(&["system:nodes"])), false),
        schema("system-node-high", "node-high", 400, "ByUser", nodes, false),
        schema("probes", "exempt", 2, "", probes, false),
        schema("system-leader-election", "leader-election", 100, "ByUser", system, false),
        schema("workload-leader-election", "leader-election", 200, "ByUser", workload, false),
        schema("endpoint-controller", "workload-high", 150, "ByUser", endpoints, false),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", everything(users(&[MANAGER])), false),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", everything(users(&[SCHEDULER])), false),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            everything(accounts(&["*"])),
            false,
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            everything(groups(&["system:serviceaccounts"])),
            false,
        ),
        schema("global-default", "global-default", 9900, "ByUser", everything(groups(&EVERYBODY)), false),
    ]
}

#[cfg(test)]
mod tests {
    use crate::Object;

    use super::{levels, schemas};

    #[test]
    fn defaults_add_nothing_to_them() {
        for wanted in levels().into_iter().chain(schemas()) {
            let object = Object::from_json(wanted.object.clone()).unwrap();
            let mut object = object;
            crate::object::defaults::apply(&mut object);
            assert_eq!(object.to_json()["spec"], wanted.object["spec"], "{}", object.name());
        }
    }
}
