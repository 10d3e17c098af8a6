//! Custom resources whose versions a webhook converts: `v2`, which is stored, counts what `v1` has as a number.

use std::rc::Rc;

use serde_json::{Value, json};

use super::{Cluster, cluster_of, object_in, request};
use crate::api::{Call, DeleteOptions, Patch, Precondition, Reason, Response, Status, Subresource, WriteOptions};
use crate::apiserver::{Answered, Callee, Config, Consultation};
use crate::object::{Kind, Kinds, Object, ObjectKey, Revision, decode};

struct World {
    cluster: Cluster,
    kinds: Kinds,
}

fn version(name: &str, stored: bool, size: &Value, path: &str) -> Value {
    json!({"name": name, "served": true, "storage": stored,
        "subresources": {"status": {}, "scale": {"specReplicasPath": path, "statusReplicasPath": ".status.size"}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"size": size, "colour": {"type": "string"}}},
            "status": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}})
}

fn definition() -> Value {
    let count = json!({"type": "object", "properties": {"count": {"type": "integer", "minimum": 0}}});
    let versions = json!([
        version("v1", false, &json!({"type": "integer", "maximum": 9}), ".spec.size"),
        version("v2", true, &count, ".spec.size.count")
    ]);
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": versions, "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v2", "v1"],
                "clientConfig": {"service": {"namespace": "n", "name": "s", "path": "/convert"}}}}}})
}

/// What the webhook makes of an object.
fn converted(object: &Value, to: &str) -> Value {
    let mut made = object.clone();
    made["apiVersion"] = json!(to);
    let size = &object["spec"]["size"];
    if !size.is_null() {
        made["spec"]["size"] = if to.ends_with("v2") { json!({"count": size}) } else { size["count"].clone() };
    }
    made
}

fn respond(asked: &Consultation, result: Value, objects: Value) -> Answered {
    Ok(json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
        "response": {"uid": asked.body["request"]["uid"], "result": result, "convertedObjects": objects}}))
}

fn convert(asked: &Consultation) -> Answered {
    let request = &asked.body["request"];
    let to = request["desiredAPIVersion"].as_str().unwrap();
    let objects = request["objects"].as_array().unwrap().iter().map(|object| converted(object, to)).collect();
    respond(asked, json!({"status": "Success"}), objects)
}

fn widget(version: &str, size: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Widget",
        "metadata": {"name": "w", "namespace": "default"}, "spec": {"size": size, "colour": "red"}})
}

impl World {
    fn new() -> World {
        let kinds = Kinds::default();
        let config = Config { webhooks: true, track_fields: true, kinds: kinds.clone(), ..Config::default() };
        let mut cluster = cluster_of(1, &config);
        cluster.create(definition()).unwrap();
        cluster.tick(5);
        World { cluster, kinds }
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new(self.kinds.by_path("example.com", "v2", "widgets").unwrap(), "default", "w")
    }

    fn object(&self, value: Value) -> Object {
        decode::lenient_in(&self.kinds, value).unwrap()
    }

    /// Sends a call in a version; the webhook answers by `answer`. Returns the answer, and to which versions it was
    /// asked to convert.
    fn ask(
        &mut self,
        version: &str,
        call: Call,
        answer: fn(&Consultation) -> Answered,
    ) -> (Result<Response, Status>, String) {
        let mut request = request(call);
        request.version = Some(Rc::from(version));
        let id = self.cluster.send(0, request);
        let mut versions = Vec::new();
        while !self.cluster.questions.is_empty() && versions.len() < 5 {
            // The time that it takes is none of what is converted.
            self.cluster.now = self.cluster.now + std::time::Duration::from_secs(2);
            let asked = self.cluster.consult(answer).remove(0);
            let to = asked.body["request"]["desiredAPIVersion"].as_str().unwrap().to_owned();
            versions.push(to.replace("example.com/", ""));
        }
        (self.cluster.reply(id).expect("it is answered"), versions.join(" "))
    }

    fn done(&mut self, version: &str, call: Call, asked: &str) -> Value {
        let (result, versions) = self.ask(version, call, convert);
        assert_eq!(versions, asked);
        object_in(result.unwrap()).to_json()
    }

    fn create(&self, value: Value) -> Call {
        Call::Create { object: self.object(value), options: WriteOptions::default() }
    }

    fn update(&self, value: Value, subresource: Subresource) -> Call {
        Call::Update { object: self.object(value), subresource, options: WriteOptions::default() }
    }

    fn patch(&self, patch: Patch) -> Call {
        let (subresource, precondition, options) =
            (Subresource::None, Precondition::default(), WriteOptions::default());
        Call::Patch { key: self.key(), patch, subresource, precondition, options }
    }

    fn delete(&self) -> Call {
        Call::Delete { key: self.key(), options: DeleteOptions::default() }
    }
}

#[test]
fn writes_are_decided_in_their_version_and_stored_in_the_other() {
    let mut w = World::new();
    let made = w.done("v1", w.create(widget("v1", json!(3))), "v2");
    assert_eq!((&made["apiVersion"], &made["spec"]["size"]), (&json!("example.com/v2"), &json!({"count": 3})));
    assert_eq!(made["metadata"]["managedFields"][0]["apiVersion"], "example.com/v1");
    let mut sent = converted(&made, "example.com/v1");
    sent["spec"]["size"] = json!(4);
    let made = w.done("v1", w.update(sent.clone(), Subresource::None), "v1 v2");
    assert_eq!((&made["spec"]["size"]["count"], &made["metadata"]["generation"]), (&json!(4), &json!(2)));
    assert_eq!(w.cluster.get(&w.key()).unwrap().to_json(), made);
    let mut again = converted(&made, "example.com/v1");
    assert_eq!(w.done("v1", w.update(again.clone(), Subresource::None), "v1"), made, "nothing has changed");
    again["status"] = json!({"size": 4});
    let made = w.done("v1", w.update(again, Subresource::Status), "v1 v2");
    assert_eq!((&made["status"]["size"], &made["metadata"]["generation"]), (&json!(4), &json!(2)));

    let merge = Patch::Merge(json!({"spec": {"size": 5}}));
    assert_eq!(w.done("v1", w.patch(merge), "v1 v2")["spec"]["size"]["count"], 5);
    let merge = Patch::Merge(json!({"spec": {"size": {"count": 6}}}));
    assert_eq!(w.done("v2", w.patch(merge), "")["spec"]["size"]["count"], 6, "that is how it is stored");
    let json_patch = Patch::Json(json!([{"op": "test", "path": "/spec/size", "value": 6},
        {"op": "replace", "path": "/spec/size", "value": 7}]));
    assert_eq!(w.done("v1", w.patch(json_patch), "v1 v2")["spec"]["size"]["count"], 7);
    let call = Call::SetScale { key: w.key(), replicas: 8, rv: Revision(0), options: WriteOptions::default() };
    let (result, asked) = w.ask("v1", call, convert);
    assert!(matches!(result, Ok(Response::Scale(scale)) if (scale.replicas, scale.current) == (8, 4)));
    assert_eq!(asked, "v1 v2");
    let gone = w.done("v1", w.delete(), "v1");
    assert_eq!(gone["spec"]["size"]["count"], 8);
    assert!(w.cluster.get(&w.key()).is_none());
}

#[test]
fn an_applied_configuration_is_merged_in_its_version() {
    let mut w = World::new();
    let apply = |size: u32| Patch::Apply { body: widget("v1", json!(size)), manager: "m".to_owned(), force: false };
    let made = w.done("v1", w.patch(apply(2)), "v2");
    assert_eq!((&made["spec"]["size"]["count"], w.cluster.created.len()), (&json!(2), 1));
    let made = w.done("v1", w.patch(apply(3)), "v1 v2");
    assert_eq!(made["spec"]["size"]["count"], 3);
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["fieldsV1"]["f:spec"]["f:size"]), (&json!("example.com/v1"), &json!({})));
}

#[test]
fn what_is_stored_in_another_version_is_stored_anew() {
    let mut w = World::new();
    w.done("v2", w.create(widget("v2", json!({"count": 1}))), "");
    let mut held = w.cluster.get(&ObjectKey::new(Kind::CUSTOM_RESOURCE_DEFINITION, "", "widgets.example.com")).unwrap();
    let mut value = held.to_json();
    (value["spec"]["versions"][0]["storage"], value["spec"]["versions"][1]["storage"]) = (json!(true), json!(false));
    held = Object::from_json(value).unwrap();
    w.cluster.update(held).unwrap();
    w.cluster.tick(2);
    let stored = w.cluster.get(&w.key()).unwrap();
    assert_eq!(stored.info().version, "v2", "what is stored stays");
    let made = w.done("v2", w.update(stored.to_json(), Subresource::None), "v1");
    assert_eq!((&made["apiVersion"], &made["spec"]["size"]), (&json!("example.com/v1"), &json!(1)));
    assert_eq!(w.done("v1", w.update(made.clone(), Subresource::None), ""), made);
}

#[test]
fn a_webhook_that_fails_refuses_the_write() {
    let failed = "conversion webhook for example.com/v1, Kind=Widget failed: ";
    let returned = "conversion webhook for example.com/v1, Kind=Widget returned ";
    let check = |answer: fn(&Consultation) -> Answered, want: &str| {
        let mut w = World::new();
        let call = w.create(widget("v1", json!(3)));
        let status = w.ask("v1", call, answer).0.unwrap_err();
        assert_eq!((status.reason, &*status.message), (Reason::InternalError, want));
        assert!(w.cluster.get(&w.key()).is_none());
    };
    /// Answers with an object that is changed.
    fn with(asked: &Consultation, change: impl FnOnce(&mut Value)) -> Answered {
        let mut made = converted(&asked.body["request"]["objects"][0], "example.com/v2");
        change(&mut made);
        respond(asked, json!({"status": "Success"}), json!([made]))
    }
    check(|_| Err("Post \"https://s\": EOF".to_owned()), &format!("{failed}Post \"https://s\": EOF"));
    check(
        |_| Ok(json!({"kind": "Other", "apiVersion": "v1"})),
        &format!(
            "{failed}expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got v1, Kind=Other"
        ),
    );
    let review = |_: &Consultation| Ok(json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1"}));
    check(review, &format!("{failed}no response provided"));
    check(|asked| respond(asked, json!({"status": "Failure", "message": "no"}), json!([])), &format!("{failed}no"));
    check(
        |asked| respond(asked, json!({"status": "Failure"}), json!([])),
        &format!("{failed}response.result.status was 'Failure', not 'Success'"),
    );
    check(|asked| respond(asked, json!({"status": "Success"}), json!([])), &format!("{returned}0 objects, expected 1"));
    check(
        |asked| with(asked, |made| made["apiVersion"] = json!("example.com/v3")),
        &format!(
            "{returned}invalid object at index 0: invalid groupVersion (expected example.com/v2, received \
            example.com/v3)"
        ),
    );
    check(
        |asked| with(asked, |made| made["metadata"]["name"] = json!("x")),
        &format!("{returned}invalid object: must have the same name: w != x"),
    );
    check(
        |asked| with(asked, |made| made["metadata"]["labels"] = json!({"a": 1})),
        &format!("{returned}invalid metadata: metadata.labels[a] must be a string, but is int64 in converted object"),
    );
    let label = "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of \
                 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
                 (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                 '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
    check(
        |asked| with(asked, |made| made["metadata"]["labels"] = json!({"a": "-"})),
        &format!("{returned}invalid metadata: {label}"),
    );
}

#[test]
fn a_webhook_changes_labels_and_no_other_metadata() {
    let mut w = World::new();
    let answer = |asked: &Consultation| {
        assert_eq!(asked.body["apiVersion"], "apiextensions.k8s.io/v1");
        let service = ("n".to_owned(), "s".to_owned(), "/convert".to_owned());
        let Callee::Service { namespace, name, path, port } = &asked.callee else { panic!("a Service") };
        assert_eq!((namespace.clone(), name.clone(), path.clone()), service);
        assert_eq!((*port, asked.timeout.as_secs()), (443, 30));
        let mut made = converted(&asked.body["request"]["objects"][0], "example.com/v2");
        made["metadata"]["labels"] = json!({"from": "hook"});
        made["metadata"]["finalizers"] = json!(["example.com/mine"]);
        made["unknown"] = json!(1);
        respond(asked, json!({"status": "Success"}), json!([made]))
    };
    let mut value = widget("v1", json!(3));
    value["metadata"]["annotations"] = json!({"kept": "yes"});
    let call = w.create(value);
    let made = object_in(w.ask("v1", call, answer).0.unwrap()).to_json();
    let meta = &made["metadata"];
    assert_eq!((&meta["labels"], &meta["annotations"]), (&json!({"from": "hook"}), &json!({"kept": "yes"})));
    assert_eq!((meta.get("finalizers"), made.get("unknown")), (None, None));
}

#[test]
fn an_admission_webhook_is_asked_in_the_version_of_its_rules() {
    let mut w = World::new();
    let hook = json!({"name": "v.example.com", "clientConfig": {"url": "https://v"}, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "rules": [{"operations": ["*"], "apiGroups": ["example.com"],
            "apiVersions": ["v2"], "resources": ["widgets"]}]});
    for kind in ["Mutating", "Validating"] {
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": format!("{kind}WebhookConfiguration"), "metadata": {"name": "h"}, "webhooks": [hook]});
        w.cluster.create(configuration).unwrap();
    }
    let mut sent = request(w.create(widget("v1", json!(3))));
    sent.version = Some(Rc::from("v1"));
    let id = w.cluster.send(0, sent);
    let mut asked: Vec<Value> = Vec::new();
    while !w.cluster.questions.is_empty() && asked.len() < 5 {
        let question = w.cluster.consult(|question| {
            if question.body["kind"] == "ConversionReview" {
                return convert(question);
            }
            let patch = json!([{"op": "replace", "path": "/spec/size/count", "value": 5}]);
            let mutates = question.body["request"]["object"]["spec"]["size"]["count"] == 3;
            let mut response = json!({"uid": question.body["request"]["uid"], "allowed": true});
            if mutates {
                use base64::Engine;
                let patch = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
                (response["patchType"], response["patch"]) = (json!("JSONPatch"), json!(patch));
            }
            Ok(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
        });
        let request = &question[0].body["request"];
        if question[0].body["kind"] == "AdmissionReview" {
            asked.push(json!([
                request["kind"]["version"],
                request["requestKind"]["version"],
                request["object"]["apiVersion"],
                request["object"]["spec"]["size"]
            ]));
        }
    }
    let version = "example.com/v2";
    assert_eq!(json!(asked), json!([["v2", "v1", version, {"count": 3}], ["v2", "v1", version, {"count": 5}]]));
    let made = object_in(w.cluster.reply(id).expect("it is answered").unwrap()).to_json();
    assert_eq!(made["spec"]["size"]["count"], 5);
}
