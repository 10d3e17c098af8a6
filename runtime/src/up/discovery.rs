//! Discovery: which groups, versions and resources there are, as lists and aggregated, and the version of the server.
//!
//! Source: apiserver `pkg/endpoints/discovery`, <https://kubernetes.io/docs/concepts/overview/kubernetes-api/>.

use serde_json::{Value, json};
use skeg_core::Kind;

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

/// This machine's architecture as Go names it.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Groups but the core one, each with its versions, best first.
fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for kind in Kind::all_stored().filter(|kind| !kind.row().group.is_empty()) {
        let info = kind.row();
        match groups.iter_mut().find(|(group, _)| *group == info.group) {
            Some((_, versions)) if versions.contains(&&*info.version) => {}
            Some((_, versions)) => versions.push(&info.version),
            None => groups.push((&info.group, vec![&info.version])),
        }
    }
    groups
}

/// Group versions that are served, as paths below `/`: `api/v1`, `apis/apps/v1`.
pub fn group_versions() -> Vec<(String, &'static str, &'static str)> {
    let named = groups().into_iter();
    let named = named.flat_map(|(g, versions)| versions.into_iter().map(move |v| (format!("apis/{g}/{v}"), g, v)));
    std::iter::once(("api/v1".to_owned(), "", "v1")).chain(named).collect()
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
pub fn api_groups() -> Value {
    let groups: Vec<Value> = groups().iter().map(|(group, versions)| group_json(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn api_group(group: &str) -> Option<Value> {
    let (group, versions) = groups().into_iter().find(|(g, _)| *g == group)?;
    let mut value = group_json(group, &versions);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

/// A subresource: what its bodies are (group, version, kind), and what may be done.
struct Sub {
    name: &'static str,
    of: (&'static str, &'static str, &'static str),
    verbs: &'static [&'static str],
}

/// Subresources that are served.
fn subresources(kind: Kind) -> Vec<Sub> {
    let info = kind.row();
    let own: (&str, &str, &str) = (&info.group, &info.version, &info.kind);
    let read_write: &[&str] = &["get", "patch", "update"];
    let mut subs = Vec::new();
    for name in info.subresources.iter().map(|name| &**name) {
        let (of, verbs): (_, &'static [&'static str]) = match name {
            "status" => (own, read_write),
            "scale" => (("autoscaling", "v1", "Scale"), read_write),
            "finalize" => (own, &["update"]),
            "binding" => (("", "v1", "Binding"), &["create"]),
            "eviction" => (("policy", "v1", "Eviction"), &["create"]),
            // The others are not served yet.
            _ => continue,
        };
        subs.push(Sub { name, of, verbs });
    }
    if kind == Kind::POD {
        subs.push(Sub { name: "log", of: own, verbs: &["get"] });
    }
    subs
}

/// Whether a subresource is served.
pub fn has_subresource(kind: Kind, name: &str) -> bool {
    subresources(kind).iter().any(|sub| sub.name == name)
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub fn api_resources(group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in Kind::all_stored().filter(|k| k.row().group == group && k.row().version == version) {
        let info = kind.row();
        let mut resource = json!({"name": info.plural, "singularName": info.singular(), "namespaced": info.namespaced,
            "kind": info.kind, "verbs": info.verbs.names()});
        if !info.short_names.is_empty() {
            resource["shortNames"] = json!(info.short_names);
        }
        if !info.categories.is_empty() {
            resource["categories"] = json!(info.categories);
        }
        resources.push(resource);
        for Sub { name, of, verbs } in subresources(kind) {
            let name = format!("{}/{name}", info.plural);
            let mut resource = json!({"name": name, "singularName": "", "namespaced": info.namespaced, "kind": of.2,
                "verbs": verbs});
            if (of.0, of.1) != (&*info.group, &*info.version) {
                resource["group"] = json!(of.0);
                resource["version"] = json!(of.1);
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
pub fn aggregated(legacy: bool, version: &str) -> Value {
    let groups = if legacy { vec![("", vec!["v1"])] } else { groups() };
    let items: Vec<Value> = groups.iter().map(|(group, versions)| aggregated_group(group, versions)).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items})
}

fn aggregated_group(group: &str, versions: &[&str]) -> Value {
    let kind_json =
        |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
    let resource = |kind: Kind| {
        let info = kind.row();
        let scope = if info.namespaced { "Namespaced" } else { "Cluster" };
        let mut resource = json!({"resource": info.plural,
            "responseKind": kind_json((&info.group, &info.version, &info.kind)), "scope": scope,
            "singularResource": info.singular(), "verbs": info.verbs.names()});
        if !info.short_names.is_empty() {
            resource["shortNames"] = json!(info.short_names);
        }
        if !info.categories.is_empty() {
            resource["categories"] = json!(info.categories);
        }
        let sub = |s: Sub| json!({"subresource": s.name, "responseKind": kind_json(s.of), "verbs": s.verbs});
        let subs: Vec<Value> = subresources(kind).into_iter().map(sub).collect();
        if !subs.is_empty() {
            resource["subresources"] = json!(subs);
        }
        resource
    };
    let of_version = |version: &&str| {
        let kinds = Kind::all_stored().filter(|k| k.row().group == group && k.row().version == *version);
        json!({"version": version, "resources": kinds.map(resource).collect::<Vec<_>>(), "freshness": "Current"})
    };
    let mut metadata = json!({"creationTimestamp": null});
    if !group.is_empty() {
        metadata["name"] = json!(group);
    }
    json!({"metadata": metadata, "versions": versions.iter().map(of_version).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::{aggregated, api_group, api_groups, api_resources, has_subresource};
    use serde_json::json;
    use skeg_core::Kind;

    #[test]
    fn the_lists_name_what_there_is() {
        let core = api_resources("", "v1").unwrap();
        let find = |name: &str| core["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned();
        assert_eq!(find("pods").unwrap()["shortNames"], json!(["po"]));
        let eviction = find("pods/eviction").unwrap();
        assert_eq!((&eviction["group"], &eviction["kind"]), (&json!("policy"), &json!("Eviction")));
        assert!(api_resources("apps", "v1beta1").is_none());
        assert!(api_group("apps").is_some() && api_group("none").is_none());
        let groups = api_groups();
        assert!(
            groups["groups"].as_array().unwrap().iter().any(|g| g["preferredVersion"]["groupVersion"] == "apps/v1")
        );
        assert!(has_subresource(Kind::DEPLOYMENT, "scale") && !has_subresource(Kind::POD, "exec"));
    }

    #[test]
    fn aggregated_discovery_says_the_same_as_the_lists() {
        for (legacy, group) in [(true, ""), (false, "apps")] {
            let all = aggregated(legacy, "v2");
            let items = all["items"].as_array().unwrap();
            let found = items.iter().find(|i| i["metadata"]["name"].as_str().unwrap_or_default() == group).unwrap();
            let aggregated: usize = found["versions"][0]["resources"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| 1 + r["subresources"].as_array().map_or(0, Vec::len))
                .sum();
            let listed = api_resources(group, "v1").unwrap();
            assert_eq!(aggregated, listed["resources"].as_array().unwrap().len(), "{group}");
        }
    }
}
