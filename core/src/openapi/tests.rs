use serde_json::{Value, json};

use super::{Resource, document, index, location};
use crate::object::{Kind, KindInfo};

/// The registry's resources of a group-version.
fn resources(api_version: &str) -> Vec<Resource<'static>> {
    let served = Kind::all_stored().map(Kind::row).filter(|info| info.api_version() == api_version);
    served.map(|info| Resource { info, schema: None }).collect()
}

/// Checks that every reference in a document refers to an existing schema.
fn check_references(document: &Value, at: &Value) {
    match at {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get("$ref") {
                let found = document.pointer(target.trim_start_matches('#'));
                assert!(found.is_some_and(Value::is_object), "{target}");
            }
            fields.values().for_each(|v| check_references(document, v));
        }
        Value::Array(items) => items.iter().for_each(|v| check_references(document, v)),
        _ => {}
    }
}

#[test]
fn every_group_version_has_a_document_whose_references_lead_somewhere() {
    let mut versions: Vec<String> = Kind::all_stored().map(|k| k.row().api_version()).collect();
    versions.sort();
    versions.dedup();
    for api_version in versions {
        let resources = resources(&api_version);
        let document = document(&api_version, &resources);
        check_references(&document, &document);
        let paths = document["paths"].as_object().unwrap();
        let patches = paths.values().filter_map(|p| p.get("patch"));
        let named = |p: &Value| p["x-kubernetes-group-version-kind"]["kind"].as_str().unwrap().to_owned();
        let patched: Vec<String> = patches.map(named).collect();
        assert!(resources.iter().all(|r| patched.contains(&r.info.kind.to_string())), "{api_version}");
    }
}

#[test]
fn a_deployment_is_described_as_kubectl_asks() {
    let document = document("apps/v1", &resources("apps/v1"));
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    let names: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    assert_eq!(
        deployment["properties"]["spec"],
        json!({"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"})
    );
    assert_eq!(schemas["io.k8s.api.apps.v1.DeploymentSpec"]["required"], json!(["selector", "template"]));
    assert_eq!(
        schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"],
        json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"}],
            "x-kubernetes-patch-strategy": "retainKeys"})
    );
    assert_eq!(
        schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"],
        json!({"type": "array", "items": {"$ref": "#/components/schemas/io.k8s.api.core.v1.ContainerPort"},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "containerPort"})
    );
    assert_eq!(schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"]["default"], "TCP");
    assert_eq!(
        schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["nodeSelector"],
        json!({"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"})
    );
    assert!(schemas.get("io.k8s.api.apps.v1.DeploymentList").is_some());
}

#[test]
fn a_custom_resource_is_described_by_its_definition() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer"}}}, "metadata": {"type": "object"}}});
    let info = KindInfo {
        kind: "Widget".into(),
        plural: "widgets".into(),
        namespaced: false,
        subresources: vec!["status".into()].into(),
        ..KindInfo::custom()
    };
    let widget = Resource { info: &info, schema: Some(&schema) };
    let document = document("x.example.com/v1", &[widget]);
    check_references(&document, &document);
    let schemas = &document["components"]["schemas"];
    let got = &schemas["com.example.x.v1.Widget"];
    assert_eq!(got["properties"]["spec"], schema["properties"]["spec"]);
    assert!(got["properties"]["metadata"]["$ref"].is_string());
    assert!(schemas.get("com.example.x.v1.WidgetList").is_some());
    let patch = &document["paths"]["/apis/x.example.com/v1/widgets/{name}/status"]["patch"];
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
}

#[test]
fn the_index_names_documents_by_their_hash() {
    assert_eq!((location("v1").as_str(), location("apps/v1").as_str()), ("api/v1", "apis/apps/v1"));
    assert_eq!(
        index([("api/v1", "A1"), ("apis/apps/v1", "B2")]),
        json!({"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=A1"},
            "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=B2"}}})
    );
}
