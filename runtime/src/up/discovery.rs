//! Discovery: the groups, versions and resources that are served (unaggregated and aggregated), and the server's
//! version.
//!
//! Source: apiserver `pkg/endpoints/discovery`, <https://kubernetes.io/docs/concepts/overview/kubernetes-api/>.

use serde_json::{Value, json};
use skeg_core::object::SubresourceInfo;

use super::served::{Resource, Served};

/// Version of the API that is served.
pub const KUBERNETES_VERSION: &str = "v1.36.0";

/// `/version`.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": KUBERNETES_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, arch()),
        "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
    })
}

/// This host's architecture as Go names it.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/api`.
pub fn api_versions(server: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]})
}

fn group_json(group: &str, versions: &[&str]) -> Value {
    let version = |v: &&str| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    json!({"name": group, "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": version(&versions[0])})
}

/// `/apis`.
pub fn api_groups(served: &Served) -> Value {
    let groups: Vec<Value> = served.groups().iter().map(|(group, versions)| group_json(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn api_group(served: &Served, group: &str) -> Option<Value> {
    let (group, versions) = served.groups().into_iter().find(|(g, _)| *g == group)?;
    let mut value = group_json(group, &versions);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub fn api_resources(served: &Served, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for found in served.of(group, version) {
        let info = &found.info;
        let mut resource = json!({"name": info.plural, "singularName": info.singular(), "namespaced": info.namespaced,
            "kind": info.kind, "verbs": info.verbs.names()});
        if !info.short_names.is_empty() {
            resource["shortNames"] = json!(info.short_names);
        }
        if !info.categories.is_empty() {
            resource["categories"] = json!(info.categories);
        }
        resources.push(resource);
        for (name, sub) in found.subresources() {
            let name = format!("{}/{name}", info.plural);
            let mut resource = json!({"name": name, "singularName": "", "namespaced": info.namespaced,
                "kind": sub.kind, "verbs": sub.verbs});
            if (&sub.group, &sub.version) != (&info.group, &info.version) {
                resource["group"] = json!(sub.group);
                resource["version"] = json!(sub.version);
            }
            resources.push(resource);
        }
    }
    if resources.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}))
}

/// The media type of aggregated discovery in one of its versions.
pub fn aggregated_type(version: &str) -> String {
    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
}

/// Aggregated discovery of `/api` or `/apis`.
pub fn aggregated(served: &Served, legacy: bool, version: &str) -> Value {
    let groups = if legacy { vec![("", vec!["v1"])] } else { served.groups() };
    let items: Vec<Value> = groups.iter().map(|(group, versions)| aggregated_group(served, group, versions)).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items})
}

fn aggregated_group(served: &Served, group: &str, versions: &[&str]) -> Value {
    let of_version = |version: &&str| {
        let resources: Vec<Value> = served.of(group, version).map(|resource| aggregated_resource(resource)).collect();
        json!({"version": version, "resources": resources, "freshness": "Current"})
    };
    let mut metadata = json!({"creationTimestamp": null});
    if !group.is_empty() {
        metadata["name"] = json!(group);
    }
    json!({"metadata": metadata, "versions": versions.iter().map(of_version).collect::<Vec<_>>()})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind_json = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let info = &resource.info;
    let scope = if info.namespaced { "Namespaced" } else { "Cluster" };
    let mut value = json!({"resource": info.plural,
        "responseKind": kind_json(&info.group, &info.version, &info.kind), "scope": scope,
        "singularResource": info.singular(), "verbs": info.verbs.names()});
    if !info.short_names.is_empty() {
        value["shortNames"] = json!(info.short_names);
    }
    if !info.categories.is_empty() {
        value["categories"] = json!(info.categories);
    }
    let sub = |(name, sub): (&str, SubresourceInfo)| {
        let kind = kind_json(&sub.group, &sub.version, &sub.kind);
        json!({"subresource": name, "responseKind": kind, "verbs": sub.verbs})
    };
    let subs: Vec<Value> = resource.subresources().map(sub).collect();
    if !subs.is_empty() {
        value["subresources"] = json!(subs);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::{aggregated, api_group, api_groups, api_resources};
    use crate::up::served::Served;
    use crate::up::served::tests::widgets;
    use serde_json::json;

    #[test]
    fn the_lists_name_what_there_is() {
        let served = Served::built_in();
        let core = api_resources(&served, "", "v1").unwrap();
        let find = |name: &str| core["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned();
        assert_eq!(find("pods").unwrap()["shortNames"], json!(["po"]));
        let eviction = find("pods/eviction").unwrap();
        assert_eq!((&eviction["group"], &eviction["kind"]), (&json!("policy"), &json!("Eviction")));
        assert!(api_resources(&served, "apps", "v1beta1").is_none());
        assert!(api_group(&served, "apps").is_some() && api_group(&served, "none").is_none());
        let groups = api_groups(&served);
        assert!(
            groups["groups"].as_array().unwrap().iter().any(|g| g["preferredVersion"]["groupVersion"] == "apps/v1")
        );
    }

    #[test]
    fn aggregated_discovery_says_the_same_as_the_lists() {
        let served = widgets();
        for (legacy, group) in [(true, ""), (false, "apps"), (false, "example.com")] {
            let all = aggregated(&served, legacy, "v2");
            let items = all["items"].as_array().unwrap();
            let found = items.iter().find(|i| i["metadata"]["name"].as_str().unwrap_or_default() == group).unwrap();
            let aggregated: usize = found["versions"][0]["resources"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| 1 + r["subresources"].as_array().map_or(0, Vec::len))
                .sum();
            let listed = api_resources(&served, group, "v1").unwrap();
            assert_eq!(aggregated, listed["resources"].as_array().unwrap().len(), "{group}");
        }
    }
}
