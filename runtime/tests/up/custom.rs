//! Custom resources over HTTP: the resources of a definition are discovered, served in their versions, shown in Tables,
//! and removed with the definition.

use serde_json::{Value, json};

use crate::client::Cluster;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 0}, "color": {"type": "string", "default": "red"}}},
        "status": {"type": "object", "properties": {"size": {"type": "integer"}}}}}});
    let subresources = json!({"status": {}, "scale": {"specReplicasPath": ".spec.size",
        "statusReplicasPath": ".status.size"}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
                "shortNames": ["wd"], "categories": ["all"]},
            "versions": [
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": schema,
                    "subresources": subresources},
                {"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": subresources,
                    "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                        {"name": "Color", "type": "string", "jsonPath": ".spec.color"}]}]}})
}

fn widget(version: &str, name: &str) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget", "metadata": {"name": name},
        "spec": {"size": 3, "unknown": true}})
}

/// Posts an object, and returns the response.
fn post(cluster: &Cluster, path: &str, body: &Value) -> crate::client::Answer {
    cluster.send("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
}

fn established(cluster: &Cluster) {
    cluster.create(DEFINITIONS, &definition());
    cluster.wait_for("the definition is established", || cluster.get(WIDGETS).code == 200);
}

#[test]
fn a_definition_adds_a_resource_in_its_versions() {
    let cluster = Cluster::start("custom", &["--nodes", "0"]);
    assert_eq!(cluster.get(WIDGETS).code, 404);
    established(&cluster);
    let group = cluster.get("/apis/example.com").json();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let resources = cluster.get("/apis/example.com/v1").json();
    let names: Vec<_> = resources["resources"].as_array().unwrap().iter().map(|r| r["name"].clone()).collect();
    assert_eq!(json!(names), json!(["widgets", "widgets/status", "widgets/scale"]));

    let made = post(&cluster, &WIDGETS.replace("v1", "v1beta1"), &widget("v1beta1", "a"));
    assert_eq!(made.code, 201, "{}", made.text());
    assert!(made.header("warning").unwrap_or_default().contains("is deprecated"), "{:?}", made.headers);
    let made = made.json();
    assert_eq!(made["apiVersion"], "example.com/v1beta1");
    assert_eq!(made["spec"], json!({"size": 3, "color": "red"}), "pruned and defaulted");
    assert_eq!(cluster.get(&format!("{WIDGETS}/a")).json()["apiVersion"], "example.com/v1");
    let list = cluster.get(&WIDGETS.replace("v1", "v1beta1")).json();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("WidgetList"), &json!("example.com/v1beta1")));

    let mut wrong = widget("v1", "b");
    wrong["spec"]["size"] = json!(-1);
    let refused = post(&cluster, WIDGETS, &wrong);
    assert_eq!(refused.code, 422, "{}", refused.text());
    let mismatch = post(&cluster, WIDGETS, &widget("v1beta1", "b"));
    assert_eq!(mismatch.code, 400, "{}", mismatch.text());

    let table = cluster.send("GET", WIDGETS, &[("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], b"").json();
    let columns: Vec<_> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(json!(columns), json!(["Name", "Size", "Color"]));
    assert_eq!(table["rows"][0]["cells"], json!(["a", 3, "red"]));

    let scale = cluster.get(&format!("{WIDGETS}/a/scale")).json();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let patch = [("Content-Type", "application/merge-patch+json")];
    let status = cluster.send("PATCH", &format!("{WIDGETS}/a/status"), &patch, br#"{"status": {"size": 2}}"#);
    assert_eq!(status.json()["status"]["size"], 2);
}

#[test]
fn what_was_stored_before_a_default_is_read_with_it() {
    let cluster = Cluster::start("custom-defaults", &["--nodes", "0"]);
    established(&cluster);
    assert_eq!(post(&cluster, WIDGETS, &widget("v1", "a")).code, 201);
    let path = "/spec/versions/1/schema/openAPIV3Schema/properties/spec/properties/shape";
    let patch = json!([{"op": "add", "path": path, "value": {"type": "string", "default": "round"}}]);
    let json_patch = [("Content-Type", "application/json-patch+json")];
    let definition = format!("{DEFINITIONS}/widgets.example.com");
    let patched = cluster.send("PATCH", &definition, &json_patch, patch.to_string().as_bytes());
    assert_eq!(patched.code, 200, "{}", patched.text());
    let one = format!("{WIDGETS}/a");
    cluster.wait_for("the default", || cluster.get(&one).json()["spec"]["shape"] == "round");
    assert_eq!(cluster.get(WIDGETS).json()["items"][0]["spec"]["shape"], "round");
    let older = cluster.get(&one.replace("v1", "v1beta1")).json();
    assert_eq!(older["spec"].get("shape"), None, "only its own version has the default");
}

#[test]
fn watchers_see_the_version_that_they_asked_for() {
    let cluster = Cluster::start("custom-watch", &["--nodes", "0"]);
    established(&cluster);
    let rv = cluster.get(WIDGETS).json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    cluster.create(WIDGETS, &widget("v1", "a"));
    for version in ["v1", "v1beta1"] {
        let path = WIDGETS.replace("v1", version);
        let events = cluster.watch(&format!("{path}?watch=1&resourceVersion={rv}"), 1);
        assert_eq!(events[0]["object"]["apiVersion"], format!("example.com/{version}"));
    }
}

#[test]
fn a_definition_that_goes_takes_its_objects_with_it() {
    let cluster = Cluster::start("custom-end", &["--nodes", "0"]);
    established(&cluster);
    cluster.create(WIDGETS, &widget("v1", "a"));
    let gone = cluster.send("DELETE", &format!("{DEFINITIONS}/widgets.example.com"), &[], b"");
    assert_eq!(gone.code, 200, "{}", gone.text());
    cluster.wait_for("nothing is served any more", || cluster.get(WIDGETS).code == 404);
    assert_eq!(cluster.get("/apis/example.com").code, 404);
    established(&cluster);
    assert_eq!(cluster.get(WIDGETS).json()["items"], json!([]));
}
