//! The APIServices of what this server serves itself: its built-in group-versions, and those of definitions.
//!
//! Source: kubernetes `pkg/controlplane/apiserver/aggregator.go`, `pkg/controlplane/controller/crdregistration`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The label of those that are kept: `onstart` is made once, `true` always.
pub const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// The priorities of group and version for what definitions define.
const OF_DEFINITIONS: (i64, i64) = (1000, 100);

/// Group, version, and the priorities of both. What metrics-server would serve has none: it brings its own.
const BUILT_IN: [(&str, &str, i64, i64); 21] = [
    ("", "v1", 18000, 1),
    ("apps", "v1", 17800, 15),
    ("events.k8s.io", "v1", 17750, 15),
    ("authentication.k8s.io", "v1", 17700, 15),
    ("authorization.k8s.io", "v1", 17600, 15),
    ("autoscaling", "v1", 17500, 15),
    ("autoscaling", "v2", 17500, 30),
    ("batch", "v1", 17400, 15),
    ("certificates.k8s.io", "v1", 17300, 15),
    ("networking.k8s.io", "v1", 17200, 15),
    ("policy", "v1", 17100, 15),
    ("rbac.authorization.k8s.io", "v1", 17000, 15),
    ("storage.k8s.io", "v1", 16800, 15),
    ("apiextensions.k8s.io", "v1", 16700, 15),
    ("admissionregistration.k8s.io", "v1", 16700, 15),
    ("scheduling.k8s.io", "v1", 16600, 15),
    ("coordination.k8s.io", "v1", 16500, 15),
    ("node.k8s.io", "v1", 16300, 15),
    ("discovery.k8s.io", "v1", 16200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16100, 21),
    ("resource.k8s.io", "v1", 15900, 20),
];

fn service(group: &str, version: &str, (of_group, of_version): (i64, i64), managed: &str) -> (String, Value) {
    let name = format!("{version}.{group}");
    let mut spec = json!({"version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version});
    if !group.is_empty() {
        spec["group"] = json!(group);
    }
    let value = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": spec,
        "metadata": {"name": name, "labels": {MANAGED: managed}}});
    (name, value)
}

/// The APIServices of this server by name, with those of these definitions.
pub fn wanted(definitions: impl Iterator<Item = Value>) -> BTreeMap<String, Value> {
    let built_in = BUILT_IN.iter().map(|(group, version, g, v)| service(group, version, (*g, *v), "onstart"));
    let mut all: BTreeMap<String, Value> = built_in.collect();
    for definition in definitions {
        let group = definition["spec"]["group"].as_str().unwrap_or_default();
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
        for version in versions.filter(|version| version["served"] == true) {
            let name = version["name"].as_str().unwrap_or_default();
            let (name, service) = service(group, name, OF_DEFINITIONS, "true");
            all.entry(name).or_insert(service);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::wanted;
    use crate::up::served::Served;
    use crate::up::usage;

    #[test]
    fn every_group_version_that_is_built_in_has_one() {
        let served = Served::built_in();
        let all = wanted(std::iter::empty());
        let mut named: Vec<String> = served.group_versions().iter().map(|(_, g, v)| format!("{v}.{g}")).collect();
        named.retain(|name| !name.ends_with(usage::GROUP) && !name.ends_with("apiregistration.k8s.io"));
        named.sort();
        assert_eq!(named, all.keys().cloned().collect::<Vec<_>>());
    }

    #[test]
    fn each_served_version_of_a_definition_has_one() {
        let definition = json!({"spec": {"group": "example.com", "versions": [{"name": "v1", "served": true},
            {"name": "v2", "served": false}]}});
        let all = wanted(std::iter::once(definition));
        let own = &all["v1.example.com"];
        assert_eq!(
            (&own["spec"]["groupPriorityMinimum"], &own["spec"]["versionPriority"]),
            (&json!(1000), &json!(100))
        );
        assert!(!all.contains_key("v2.example.com"));
    }
}
