//! Custom resources whose versions a webhook converts that listens on this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::client::Cluster;
use crate::webhooks::Webhook;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/example.com/v1/namespaces/default/widgets";
const V2: &str = "/apis/example.com/v2/namespaces/default/widgets";

/// A webhook that makes `{count: 3}` of `v1`'s `3` for `v2`, as long as it is well.
fn converter(is_well: &Arc<AtomicBool>) -> Webhook {
    let is_well = Arc::clone(is_well);
    Webhook::start(move |request| {
        let to = request["desiredAPIVersion"].as_str().unwrap_or_default();
        let converted = |object: &Value| {
            let mut made = object.clone();
            made["apiVersion"] = json!(to);
            let size = object["spec"]["size"].clone();
            made["spec"]["size"] = if to.ends_with("v2") { json!({"count": size}) } else { size["count"].clone() };
            made
        };
        let objects: Vec<Value> = request["objects"].as_array().into_iter().flatten().map(converted).collect();
        let result = match is_well.load(Ordering::Relaxed) {
            true => json!({"status": "Success"}),
            false => json!({"status": "Failure", "message": "it is not well"}),
        };
        json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "response": {"uid": request["uid"], "result": result, "convertedObjects": objects}})
    })
}

fn definition(client: &Value) -> Value {
    let version = |name: &str, stored: bool, size: Value| {
        json!({"name": name, "served": true, "storage": stored, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {"size": size}}}}},
            "additionalPrinterColumns": [{"name": "Size", "type": "string", "jsonPath":
                if stored { ".spec.size.count" } else { ".spec.size" }}]})
    };
    let count = json!({"type": "object", "properties": {"count": {"type": "integer"}}});
    let conversion = json!({"strategy": "Webhook", "webhook": {"clientConfig": client,
        "conversionReviewVersions": ["v1"]}});
    json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"}, "conversion": conversion,
        "versions": [version("v1", false, json!({"type": "integer"})), version("v2", true, count)]}})
}

fn established(test: &str, hook: &Webhook) -> Cluster {
    let cluster = Cluster::start(test, &["--nodes", "0"]);
    cluster.create(DEFINITIONS, &definition(&hook.url()));
    cluster.wait_for("widgets are served", || cluster.get(V1).code == 200);
    cluster
}

fn widget(name: &str, version: &str, size: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget", "metadata": {"name": name},
        "spec": {"size": size}})
}

#[test]
fn objects_are_read_and_written_in_any_version() {
    let hook = converter(&Arc::new(AtomicBool::new(true)));
    let cluster = established("conversion", &hook);
    let questions = |hook: &Webhook| hook.asked.lock().expect("nobody panics").len();
    let made = cluster.create(V1, &widget("a", "v1", json!(3)));
    assert_eq!((&made["apiVersion"], &made["spec"]["size"]), (&json!("example.com/v1"), &json!(3)));
    let before = questions(&hook);
    assert_eq!(cluster.get(&format!("{V2}/a")).json()["spec"]["size"], json!({"count": 3}));
    assert_eq!(questions(&hook), before, "that is how it is stored");
    cluster.create(V2, &widget("b", "v2", json!({"count": 4})));
    cluster.create(V2, &widget("c", "v2", json!({"count": 5})));
    let before = questions(&hook);
    let list = cluster.get(V1).json();
    let sizes: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["spec"]["size"].clone()).collect();
    assert_eq!((&list["apiVersion"], json!(sizes)), (&json!("example.com/v1"), json!([3, 4, 5])));
    assert_eq!(questions(&hook), before + 1, "a list is one question");
    let table = [("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    assert_eq!(cluster.send("GET", V1, &table, b"").json()["rows"][1]["cells"], json!(["b", "4"]));

    let patched = cluster.write("PATCH", &format!("{V1}/a"), &json!({"spec": {"size": 6}}));
    assert_eq!((patched.code, &patched.json()["spec"]["size"]), (200, &json!(6)));
    let apply = [("Content-Type", "application/apply-patch+yaml")];
    let body = widget("a", "v1", json!(7)).to_string();
    let path = format!("{V1}/a?fieldManager=m&force=true");
    let applied = cluster.send("PATCH", &path, &apply, body.as_bytes());
    assert_eq!((applied.code, &applied.json()["spec"]["size"]), (200, &json!(7)), "{}", applied.text());
    let mut held = cluster.get(&format!("{V1}/a")).json();
    held["spec"]["size"] = json!(8);
    assert_eq!(cluster.write("PUT", &format!("{V1}/a"), &held).json()["spec"]["size"], 8);
    assert_eq!(cluster.get(&format!("{V2}/a")).json()["spec"]["size"], json!({"count": 8}));

    let rv = list["metadata"]["resourceVersion"].as_str().unwrap();
    let events = cluster.watch(&format!("{V1}?watch=1&resourceVersion={rv}"), 3);
    let seen: Vec<_> = events.iter().map(|event| event["object"]["spec"]["size"].clone()).collect();
    assert_eq!((json!(seen), &events[0]["object"]["apiVersion"]), (json!([6, 7, 8]), &json!("example.com/v1")));
    let initial = cluster.watch(&format!("{V1}?watch=1"), 3);
    let seen: Vec<_> = initial.iter().map(|event| event["object"]["spec"]["size"].clone()).collect();
    assert_eq!(json!(seen), json!([8, 4, 5]));
    assert_eq!(cluster.send("DELETE", &format!("{V1}/a"), &[], b"").code, 200);
    assert_eq!(cluster.send("DELETE", V1, &[], b"").code, 200);
    assert_eq!(cluster.get(V2).json()["items"], json!([]));
}

#[test]
fn a_webhook_that_fails_is_named() {
    let is_well = Arc::new(AtomicBool::new(true));
    let hook = converter(&is_well);
    let cluster = established("conversion-fails", &hook);
    cluster.create(V2, &widget("a", "v2", json!({"count": 1})));
    is_well.store(false, Ordering::Relaxed);
    let said = |answer: crate::client::Answer| (answer.code, answer.json()["message"].as_str().unwrap().to_owned());
    let failed = |kind: &str, version: &str, why: &str| {
        (500, format!("conversion webhook for example.com/{version}, Kind={kind} failed: {why}"))
    };
    let why = "it is not well";
    assert_eq!(said(cluster.get(&format!("{V1}/a"))), failed("Widget", "v2", why));
    assert_eq!(said(cluster.get(V1)), failed("WidgetList", "v1", why));
    assert_eq!(said(cluster.write("POST", V1, &widget("b", "v1", json!(1)))), failed("Widget", "v1", why));
    assert_eq!(said(cluster.send("DELETE", &format!("{V1}/a"), &[], b"")), failed("Widget", "v2", why));
    let error = cluster.watch(&format!("{V1}?watch=1"), 1).remove(0);
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(500)));
    assert_eq!(cluster.get(&format!("{V2}/a")).code, 200, "what is stored needs no webhook");
    let service = json!([{"op": "replace", "path": "/spec/conversion/webhook/clientConfig",
        "value": {"service": {"namespace": "default", "name": "none", "path": "/convert"}}}]);
    let json_patch = [("Content-Type", "application/json-patch+json")];
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let patched = cluster.send("PATCH", &path, &json_patch, service.to_string().as_bytes());
    assert_eq!(patched.code, 200, "{}", patched.text());
    let missing = "Post \"https://none.default.svc:443/convert?timeout=30s\": service \"none\" not found";
    cluster.wait_for("the new client is asked", || {
        said(cluster.get(&format!("{V1}/a"))) == failed("Widget", "v2", missing)
    });
}
