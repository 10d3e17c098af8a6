//! Discovery: the groups, versions and resources that are served (unaggregated and aggregated), and the server's
//! version.
//!
//! Source: apiserver `pkg/endpoints/discovery`, <https://kubernetes.io/docs/concepts/overview/kubernetes-api/>.

use serde_json::{Value, json};
use skeg_core::object::SubresourceInfo;

use super::aggregator::Remote;
use super::served::{Resource, Served, by_priority};

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

/// All groups except the core group, each with its versions in order of preference: those of this server, and those
/// that others serve.
pub fn groups<'a>(served: &'a Served, remotes: &'a [Remote]) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut groups = served.groups();
    let mut others: Vec<&Remote> = remotes.iter().filter(|remote| !remote.group.is_empty()).collect();
    others.sort_by(|a, b| {
        let by_name = || a.group.cmp(&b.group).then_with(|| by_priority(&a.version, &b.version));
        b.priority.cmp(&a.priority).then_with(by_name)
    });
    for remote in others {
        match groups.iter_mut().find(|(group, _)| *group == remote.group) {
            Some((_, versions)) if versions.contains(&&*remote.version) => {}
            Some((_, versions)) => versions.push(&remote.version),
            None => groups.push((&remote.group, vec![&remote.version])),
        }
    }
    groups
}

fn group_json(group: &str, versions: &[&str]) -> Value {
    let version = |v: &&str| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    json!({"name": group, "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": version(&versions[0])})
}

/// `/apis`.
pub fn api_groups(served: &Served, remotes: &[Remote]) -> Value {
    let groups: Vec<Value> =
        groups(served, remotes).iter().map(|(group, versions)| group_json(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn api_group(served: &Served, remotes: &[Remote], group: &str) -> Option<Value> {
    let (group, versions) = groups(served, remotes).into_iter().find(|(g, _)| *g == group)?;
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
pub fn aggregated(served: &Served, remotes: &[Remote], legacy: bool, version: &str) -> Value {
    let groups = if legacy { vec![("", vec!["v1"])] } else { groups(served, remotes) };
    let of_group = |(group, versions): &(&str, Vec<&str>)| aggregated_group(served, remotes, group, versions);
    let items: Vec<Value> = groups.iter().map(of_group).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items})
}

fn aggregated_group(served: &Served, remotes: &[Remote], group: &str, versions: &[&str]) -> Value {
    let of_version = |version: &&str| {
        if let Some(remote) = remotes.iter().find(|remote| remote.group == group && remote.version == *version) {
            return of_remote(remote);
        }
        let resources: Vec<Value> = served.of(group, version).map(|resource| aggregated_resource(resource)).collect();
        json!({"version": version, "resources": resources, "freshness": "Current"})
    };
    let mut metadata = json!({"creationTimestamp": null});
    if !group.is_empty() {
        metadata["name"] = json!(group);
    }
    json!({"metadata": metadata, "versions": versions.iter().map(of_version).collect::<Vec<_>>()})
}

/// What another server has said last of the group-version that it serves.
fn of_remote(remote: &Remote) -> Value {
    let mut resources: Vec<Value> = Vec::new();
    for listed in &remote.found.resources {
        let text =
            |name: &str, or: &str| listed[name].as_str().filter(|text| !text.is_empty()).unwrap_or(or).to_owned();
        let kind = json!({"group": text("group", &remote.group), "version": text("version", &remote.version),
            "kind": text("kind", "")});
        let name = text("name", "");
        if let Some((plural, subresource)) = name.split_once('/') {
            let parent = resources.iter_mut().find(|resource| resource["resource"] == plural);
            if let Some(parent) = parent {
                let mut all = parent["subresources"].as_array().cloned().unwrap_or_default();
                all.push(json!({"subresource": subresource, "responseKind": kind, "verbs": listed["verbs"]}));
                parent["subresources"] = Value::Array(all);
            }
            continue;
        }
        let scope = if listed["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut resource = json!({"resource": name, "responseKind": kind, "scope": scope,
            "singularResource": text("singularName", ""), "verbs": listed["verbs"]});
        for field in ["shortNames", "categories"] {
            if let Some(list) = listed.get(field) {
                resource[field] = list.clone();
            }
        }
        resources.push(resource);
    }
    let freshness = if remote.is_available { "Current" } else { "Stale" };
    json!({"version": remote.version, "resources": resources, "freshness": freshness})
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
    use super::{aggregated, api_group, api_groups, api_resources, groups};
    use crate::up::aggregator::{Found, Remote};
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
        assert!(api_group(&served, &[], "apps").is_some() && api_group(&served, &[], "none").is_none());
        let groups = api_groups(&served, &[]);
        assert!(
            groups["groups"].as_array().unwrap().iter().any(|g| g["preferredVersion"]["groupVersion"] == "apps/v1")
        );
    }

    #[test]
    fn what_others_serve_is_among_it() {
        let served = Served::built_in();
        let list = json!([{"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing",
            "verbs": ["get"], "shortNames": ["th"]}, {"name": "things/status", "kind": "Thing", "verbs": ["patch"]}]);
        let remote = |group: &str, version: &str, priority: (i64, i64), is_available: bool| Remote {
            group: group.to_owned(),
            version: version.to_owned(),
            service: (String::new(), String::new(), 443),
            ca: None,
            skips_verification: false,
            is_available,
            priority,
            found: Found { resources: list.as_array().unwrap().clone(), openapi: None },
        };
        let remotes = [
            remote("x.example.com", "v1", (100, 10), true),
            remote("y.example.com", "v1", (200, 10), true),
            remote("x.example.com", "v2", (100, 20), false),
            remote("apps", "v1", (1, 1), true),
        ];
        let all = groups(&served, &remotes);
        assert_eq!(all[all.len() - 2..], [("y.example.com", vec!["v1"]), ("x.example.com", vec!["v2", "v1"])]);
        assert_eq!(api_group(&served, &remotes, "x.example.com").unwrap()["preferredVersion"]["version"], "v2");
        let all = aggregated(&served, &remotes, false, "v2");
        let items = all["items"].as_array().unwrap();
        let versions = &items.last().unwrap()["versions"];
        assert_eq!((&versions[0]["freshness"], &versions[1]["freshness"]), (&json!("Stale"), &json!("Current")));
        assert_eq!(
            versions[1]["resources"],
            json!([{"resource": "things", "singularResource": "thing", "scope": "Namespaced", "verbs": ["get"],
                "responseKind": {"group": "x.example.com", "version": "v1", "kind": "Thing"}, "shortNames": ["th"],
                "subresources": [{"subresource": "status", "verbs": ["patch"],
                    "responseKind": {"group": "x.example.com", "version": "v1", "kind": "Thing"}}]}])
        );
    }

    #[test]
    fn aggregated_discovery_says_the_same_as_the_lists() {
        let served = widgets();
        for (legacy, group) in [(true, ""), (false, "apps"), (false, "example.com")] {
            let all = aggregated(&served, &[], legacy, "v2");
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
