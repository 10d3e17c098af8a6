use serde_json::{Value, json};

use super::{Descriptions, Resource, document, document_v2, encode_v2, index, location};
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
        let document = document(&api_version, &resources, &Descriptions::default());
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
    let document = document("apps/v1", &resources("apps/v1"), &Descriptions::default());
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
    let document = document("x.example.com/v1", &[widget], &Descriptions::default());
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

#[test]
fn v2_has_every_type_in_one_document() {
    let mut versions: Vec<String> = Kind::all_stored().map(|k| k.row().api_version()).collect();
    versions.sort();
    versions.dedup();
    let document = document_v2(
        versions.into_iter().map(|version| (version.clone(), resources(&version))),
        &Descriptions::default(),
    );
    check_references(&document, &document);
    let text = document.to_string();
    for word in ["#/components", "\"oneOf\":[", "\"allOf\":[", "\"requestBody\":", "\"content\":{"] {
        assert!(!text.contains(word), "{word} is of v3");
    }
    let types = &document["definitions"];
    let check = |name: &str, want: Value| assert_eq!(types.pointer(&format!("/io.k8s.{name}")), Some(&want), "{name}");
    check("apimachinery.pkg.api.resource.Quantity", json!({"type": "string"}));
    check("apimachinery.pkg.util.intstr.IntOrString", json!({"type": "string", "format": "int-or-string"}));
    check(
        "api.apps.v1.DeploymentSpec/properties/strategy",
        json!({"$ref": "#/definitions/io.k8s.api.apps.v1.DeploymentStrategy",
            "x-kubernetes-patch-strategy": "retainKeys"}),
    );
    check("api.core.v1.ContainerPort/properties/protocol", json!({"type": "string"}));
    check("api.core.v1.Pod/x-kubernetes-group-version-kind", json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    let put = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["put"];
    let parameters = put["parameters"].as_array().unwrap();
    assert_eq!(
        parameters.last(),
        Some(&json!({"name": "body", "in": "body", "required": false,
            "schema": {"$ref": "#/definitions/io.k8s.api.core.v1.Pod"}}))
    );
    assert_eq!(parameters[0], json!({"name": "dryRun", "in": "query", "type": "string", "uniqueItems": true}));
    assert_eq!(put["responses"]["200"]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
}

/// What v2 cannot say of a custom resource is left open.
#[test]
fn v2_leaves_open_what_it_cannot_say() {
    let check = |of: Value, want: Value| {
        let schema = json!({"type": "object", "properties": {"spec": of}});
        let info = KindInfo { kind: "Widget".into(), plural: "widgets".into(), ..KindInfo::custom() };
        let widget = Resource { info: &info, schema: Some(&schema) };
        let document = document_v2([("x.example.com/v1".to_owned(), vec![widget])], &Descriptions::default());
        check_references(&document, &document);
        assert_eq!(document["definitions"]["com.example.x.v1.Widget"]["properties"]["spec"], want);
    };
    check(json!({"type": "string", "nullable": true, "description": "d"}), json!({"description": "d"}));
    check(json!({"type": "integer", "default": 3, "minimum": 1}), json!({"type": "integer", "minimum": 1}));
    check(
        json!({"anyOf": [{"type": "integer"}], "x-kubernetes-int-or-string": true}),
        json!({"x-kubernetes-int-or-string": true}),
    );
    check(
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}}),
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {}}),
    );
    check(
        json!({"type": "array", "items": {"type": "object", "properties": {"default": {"type": "string", "default": ""}}}}),
        json!({"type": "array", "items": {"type": "object", "properties": {"default": {"type": "string"}}}}),
    );
}

/// kubectl would take what has any properties to have no others.
#[test]
fn v2_leaves_a_kind_with_unknown_fields_open() {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": "d",
        "properties": {"spec": {"type": "object"}}});
    let info = KindInfo { kind: "Widget".into(), plural: "widgets".into(), ..KindInfo::custom() };
    let widget = Resource { info: &info, schema: Some(&schema) };
    let document = document_v2([("x.example.com/v1".to_owned(), vec![widget])], &Descriptions::default());
    let of = document["definitions"]["com.example.x.v1.Widget"].as_object().unwrap();
    assert_eq!(of.keys().collect::<Vec<_>>(), ["type", "x-kubernetes-group-version-kind"]);
}

#[test]
fn v2_in_protobuf_has_the_numbers_of_gnostic() {
    let check = |document: Value, want: &[u8]| assert_eq!(encode_v2(&document), want, "{document}");
    check(json!({"swagger": "2.0", "info": {"title": "K"}}), b"\x12\x03\x0a\x01K\x0a\x032.0");
    // A map has entries of name and value; a type is a list of types.
    check(
        json!({"definitions": {"A": {"type": "object"}}}),
        b"J\x12\x0a\x10\x0a\x01A\x12\x0b\xb2\x01\x08\x0a\x06object",
    );
    // An extension is YAML; what v2 has no word for is left out.
    check(
        json!({"definitions": {"A": {"properties": {"c": {"$ref": "#/B"}}, "x-a": [1], "nullable": true}}}),
        b"J%\x0a#\x0a\x01A\x12\x1e\xca\x01\x0c\x0a\x0a\x0a\x01c\x12\x05\x0a\x03#/B\xfa\x01\x0c\x0a\x03x-a\x12\x05\x12\x03[1]",
    );
    check(
        json!({"paths": {"/v": {"get": {"parameters": [{"in": "query", "name": "n"}]}}}}),
        b"B\x1c\x12\x1a\x0a\x02/v\x12\x14\x12\x12B\x10\x0a\x0e\x12\x0c\x1a\x0a\x12\x05query\"\x01n",
    );
}

#[test]
fn built_in_types_are_described() {
    let text = "io.k8s.api.apps.v1.Deployment Declares pods.\n spec What\\nis \\\\ wanted.\n kind K.\n\
        io.k8s.api.apps.v1.DeploymentSpec A spec.\n paused P.\n\
        io.k8s.apimachinery.pkg.util.intstr.IntOrString Either.\n\
        io.k8s.api.core.v1.Pod A pod.\n apiVersion V.\n metadata M.\n";
    let descriptions = Descriptions::parse(text);
    let document = document("apps/v1", &resources("apps/v1"), &descriptions);
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["description"], "Declares pods.");
    let spec = "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec";
    let described = json!({"allOf": [{"$ref": spec}], "description": "What\nis \\ wanted."});
    assert_eq!(deployment["properties"]["spec"]["description"], described["description"]);
    assert_eq!(deployment["properties"]["spec"]["allOf"], described["allOf"]);
    assert_eq!(deployment["properties"]["kind"], json!({"type": "string", "description": "K."}));
    let of = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
    assert_eq!((&of["description"], &of["properties"]["paused"]["description"]), (&json!("A spec."), &json!("P.")));
    let either = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
    assert_eq!(schemas[either]["description"], "Either.");
    check_references(&document, &document);

    let v2 = document_v2([("apps/v1".to_owned(), resources("apps/v1"))], &descriptions);
    let spec = &v2["definitions"]["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
    assert_eq!(spec["description"], "What\nis \\ wanted.");
    assert_eq!(spec["$ref"], "#/definitions/io.k8s.api.apps.v1.DeploymentSpec");

    // A custom resource has the fields of every kind.
    let (info, schema) = (KindInfo { kind: "Widget".into(), ..KindInfo::custom() }, json!({"type": "object"}));
    let widget = Resource { info: &info, schema: Some(&schema) };
    let document = super::document("x.example.com/v1", &[widget], &descriptions);
    let properties = &document["components"]["schemas"]["com.example.x.v1.Widget"]["properties"];
    assert_eq!(
        (&properties["apiVersion"]["description"], &properties["metadata"]["description"]),
        (&json!("V."), &json!("M."))
    );
}
