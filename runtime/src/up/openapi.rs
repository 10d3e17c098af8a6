//! OpenAPI v3, as little of it as clients need to know which kinds there are and that unknown fields are refused.

use serde_json::{Map, Value, json};

use super::discovery;
use super::served::Served;

/// `/openapi/v3`: the documents that there are.
pub fn index(served: &Served) -> Value {
    let paths: Map<String, Value> = served
        .group_versions()
        .into_iter()
        .map(|(path, ..)| {
            let hash = format!("{:016x}", skeg_core::random::mix_bytes(0, path.as_bytes()));
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// The document of a group version, `apis/apps/v1`.
pub fn document(served: &Served, path: &str) -> Option<Value> {
    let (_, group, version) = served.group_versions().into_iter().find(|(p, ..)| p == path)?;
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for resource in served.of(group, version) {
        let info = &resource.info;
        let gvk = json!({"group": group, "version": version, "kind": info.kind});
        let place = if info.namespaced { "namespaces/{namespace}/" } else { "" };
        let parameter =
            |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        let patch = json!({
            "operationId": format!("patch{}", info.kind),
            "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": gvk,
        });
        paths.insert(format!("/{path}/{place}{}/{{name}}", info.plural), json!({"patch": patch}));
        let name = format!("io.k8s.api.{}.{version}.{}", if group.is_empty() { "core" } else { group }, info.kind);
        schemas.insert(name, json!({"type": "object", "x-kubernetes-group-version-kind": [gvk]}));
    }
    Some(json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": discovery::KUBERNETES_VERSION},
        "paths": paths, "components": {"schemas": schemas}}))
}

#[cfg(test)]
mod tests {
    use super::{document, index};
    use crate::up::served::tests::widgets;

    #[test]
    fn every_document_of_the_index_is_there() {
        let served = widgets();
        let index = index(&served);
        for path in index["paths"].as_object().unwrap().keys() {
            let document = document(&served, path).unwrap();
            assert!(!document["paths"].as_object().unwrap().is_empty(), "{path}");
        }
        assert!(document(&served, "apis/apps/v9").is_none());
    }
}
