//! Writes that webhooks are asked about.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Cluster, cluster_of, config_map, key, object_in, pod, request};
use crate::api::{Call, DeleteOptions, Response, Status, Subresource, WriteOptions};
use crate::apiserver::{Answered, Callee, Config, Consultation};
use crate::object::{Kind, Object, Revision};

fn guarded() -> Cluster {
    cluster_of(1, &Config { webhooks: true, ..Config::default() })
}

fn hook(name: &str, resource: &str, more: Value) -> Value {
    let mut hook = json!({"name": name, "clientConfig": {"url": format!("https://{name}")}, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"],
            "resources": [resource]}]});
    json_patch::merge(&mut hook, &more);
    hook
}

fn configure(c: &mut Cluster, kind: &str, hooks: &[Value]) {
    let value = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
        "metadata": {"name": "w"}, "webhooks": hooks});
    c.create(value).unwrap();
}

fn create(c: &mut Cluster, value: Value, dry_run: bool) -> u64 {
    let options = WriteOptions { dry_run, ..WriteOptions::default() };
    c.send(0, request(Call::Create { object: Object::from_json(value).unwrap(), options }))
}

fn response(asked: &Consultation, more: Value) -> Answered {
    let mut response = json!({"uid": asked.body["request"]["uid"], "allowed": true});
    json_patch::merge(&mut response, &more);
    Ok(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

fn patch(operations: Value) -> Value {
    json!({"patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

fn done(c: &mut Cluster, id: u64) -> Result<Response, Status> {
    c.reply(id).expect("it is answered")
}

#[test]
fn a_webhook_changes_what_is_written_and_another_hears_of_it() {
    let mut c = guarded();
    configure(&mut c, "Mutating", &[hook("m.example.com", "configmaps", json!({"timeoutSeconds": 3}))]);
    configure(&mut c, "Validating", &[hook("v.example.com", "configmaps", json!({}))]);
    let id = create(&mut c, config_map("a"), false);
    let mut answer = patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]));
    answer["warnings"] = json!(["old"]);
    let asked = c.consult(|asked| response(asked, answer.clone())).remove(0);
    assert_eq!((asked.callee, asked.timeout.as_secs()), (Callee::Url("https://m.example.com".to_owned()), 3));
    let question = &asked.body["request"];
    assert_eq!((&question["operation"], &question["name"]), (&json!("CREATE"), &json!("a")));
    assert_eq!(question["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&question["object"]["data"], &question["oldObject"]), (&json!({"k": "v"}), &Value::Null));
    assert_eq!(question["userInfo"]["username"], "test");
    assert!(c.reply(id).is_none(), "the other webhook has not answered yet");
    let asked = c.consult(|asked| response(asked, json!({}))).remove(0);
    assert_eq!(asked.body["request"]["object"]["metadata"]["labels"], json!({"seen": "yes"}));
    let made = object_in(done(&mut c, id).unwrap());
    assert_eq!(made.meta().labels.as_ref().unwrap()["seen"], "yes");
    assert_eq!(c.warnings.last().unwrap().1, "old");

    let mut changed = made.clone();
    super::set_data(&mut changed, "w");
    let call = Call::Update { object: changed, subresource: Subresource::None, options: WriteOptions::default() };
    let id = c.send(0, request(call));
    c.consult(|asked| response(asked, json!({})));
    let asked = c.consult(|asked| response(asked, json!({}))).remove(0);
    let question = &asked.body["request"];
    assert_eq!((&question["operation"], &question["oldObject"]["data"]), (&json!("UPDATE"), &json!({"k": "v"})));
    assert_eq!(object_in(done(&mut c, id).unwrap()).to_json()["data"], json!({"k": "w"}));

    let id = c.send(0, request(Call::Delete { key: made.key(), options: DeleteOptions::default() }));
    let asked = c.consult(|asked| response(asked, json!({})));
    assert_eq!(asked.len(), 2, "all are asked about a delete at once");
    assert_eq!(asked[0].body["request"]["object"], Value::Null);
    done(&mut c, id).unwrap();
    assert!(c.get(&made.key()).is_none());
}

#[test]
fn a_webhook_refuses_or_fails() {
    let check = |more: Value, answer: &dyn Fn(&Consultation) -> Answered, dry_run: bool, code: u16, want: &str| {
        let mut c = guarded();
        configure(&mut c, "Validating", &[hook("v.example.com", "configmaps", more.clone())]);
        let id = create(&mut c, config_map("a"), dry_run);
        if !c.questions.is_empty() {
            c.consult(answer);
        }
        let told = done(&mut c, id)
            .map_or_else(|status| (status.reason.code(), status.message.into()), |_| (201, String::new()));
        assert_eq!(told, (code, want.to_owned()), "{more}");
        let kept = c.get(&key(Kind::CONFIG_MAP, "a")).is_some();
        assert_eq!(kept, code == 201 && !dry_run);
    };
    let denies =
        |status: Value| move |asked: &Consultation| response(asked, json!({"allowed": false, "status": status}));
    let by = "admission webhook \"v.example.com\" denied the request";
    check(json!({}), &denies(json!({"message": "no", "code": 403})), false, 403, &format!("{by}: no"));
    check(json!({}), &denies(json!({"reason": "Because"})), false, 400, &format!("{by}: Because"));
    check(json!({}), &denies(Value::Null), false, 400, &format!("{by} without explanation"));
    let lost = |_: &Consultation| Err("Post \"https://v\": EOF".to_owned());
    let failed = "Internal error occurred: failed calling webhook \"v.example.com\"";
    let eof = format!("{failed}: failed to call webhook: Post \"https://v\": EOF");
    check(json!({}), &lost, false, 500, &eof);
    check(json!({"failurePolicy": "Ignore"}), &lost, false, 201, "");
    let other = |_: &Consultation| Ok(json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}));
    check(json!({}), &other, false, 500, &format!("{failed}: webhook response was absent"));
    let dry = "admission webhook \"v.example.com\" does not support dry run";
    let condition = json!({"matchConditions": [{"name": "c", "expression": "object.none == 1"}]});
    let why = "configmaps \"a\" is forbidden: expression 'object.none == 1' resulted in error: no such key: none";
    check(condition.clone(), &lost, false, 403, why);
    let mut ignored = condition;
    ignored["failurePolicy"] = json!("Ignore");
    check(ignored, &lost, false, 201, "");
    check(json!({"sideEffects": "Some"}), &lost, true, 400, dry);
    check(json!({}), &|asked| response(asked, json!({})), true, 201, "");
}

#[test]
fn webhooks_are_asked_about_what_they_select() {
    let asked = |more: Value, resource: &str, value: Value| {
        let mut c = guarded();
        c.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {"team": "a"}}}))
            .unwrap();
        configure(&mut c, "Validating", &[hook("v.example.com", resource, more)]);
        create(&mut c, value, false);
        !c.questions.is_empty()
    };
    let map = |namespace: &str| {
        let mut map = config_map("a");
        map["metadata"]["namespace"] = json!(namespace);
        map["metadata"]["labels"] = json!({"x": "y"});
        map
    };
    let of = |field: &str, label: &str, value: &str| json!({field: {"matchLabels": {label: value}}});
    assert!(asked(json!({}), "*", map("n")));
    assert!(!asked(json!({}), "secrets", map("n")));
    assert!(asked(of("namespaceSelector", "team", "a"), "*", map("n")));
    assert!(!asked(of("namespaceSelector", "team", "a"), "*", map("default")));
    assert!(asked(of("objectSelector", "x", "y"), "*", map("n")));
    assert!(!asked(of("objectSelector", "x", "z"), "*", map("n")));
    let condition = |expression: &str| json!({"matchConditions": [{"name": "c", "expression": expression}]});
    assert!(asked(condition("object.metadata.namespace == 'n' && request.operation == 'CREATE'"), "*", map("n")));
    assert!(!asked(condition("object.metadata.namespace == 'm'"), "*", map("n")));
    assert!(!asked(condition("object.none == 1"), "*", map("n")), "one that fails refuses the write");
    let own = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "other"}});
    assert!(!asked(json!({}), "*", own), "a broken configuration can be mended");
}

#[test]
fn webhooks_change_one_after_another_and_again() {
    let mut c = guarded();
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    configure(&mut c, "Mutating", &[hook("a.example.com", "pods", again), hook("b.example.com", "pods", json!({}))]);
    let id = create(&mut c, pod("p"), false);
    let sidecar = json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "s", "image": "side:1"}}]);
    let first = c.consult(|asked| response(asked, json!({}))).remove(0);
    assert_eq!(first.callee, Callee::Url("https://a.example.com".to_owned()));
    c.consult(|asked| response(asked, patch(sidecar.clone())));
    let second = c.consult(|asked| response(asked, json!({}))).remove(0);
    assert_eq!(second.callee, first.callee, "the first is asked again, since the second changed the pod");
    assert_eq!(second.body["request"]["object"]["spec"]["containers"].as_array().unwrap().len(), 2);
    let made = object_in(done(&mut c, id).unwrap()).to_json();
    let container = &made["spec"]["containers"][1];
    assert_eq!(
        (&container["name"], &container["imagePullPolicy"]),
        (&json!("s"), &json!("IfNotPresent")),
        "with defaults"
    );
    assert_eq!(made["status"]["phase"], "Pending");
    // The next pod of this spec is asked about too.
    create(&mut c, pod("q"), false);
    assert_eq!(c.questions.len(), 1);
}

#[test]
fn what_webhooks_add_is_defaulted_and_what_the_server_sets_is_not_theirs() {
    let mut c = guarded();
    let limits = json!({"limits": [{"type": "Container", "default": {"memory": "64Mi"}}]});
    c.create(json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l", "namespace": "default"},
        "spec": limits}))
        .unwrap();
    configure(&mut c, "Mutating", &[hook("a.example.com", "pods", json!({}))]);
    let id = create(&mut c, pod("p"), false);
    let operations = json!([
        {"op": "add", "path": "/spec/containers/-", "value": {"name": "s", "image": "side:1"}},
        {"op": "add", "path": "/metadata/uid", "value": "mine"},
        {"op": "add", "path": "/status/message", "value": "mine"},
    ]);
    let asked = c.consult(|asked| response(asked, patch(operations.clone()))).remove(0);
    let made = object_in(done(&mut c, id).unwrap()).to_json();
    assert_eq!(made["spec"]["containers"][1]["resources"]["limits"]["memory"], "64Mi");
    assert_eq!(made["metadata"]["uid"], asked.body["request"]["object"]["metadata"]["uid"]);
    assert_eq!((&made["status"]["phase"], made["status"].get("message")), (&json!("Pending"), None));
    // An update of the status changes nothing else, whoever changes it.
    configure_status(&mut c);
    let mut object = Object::from_json(made.clone()).unwrap();
    let Object::Pod(p) = &mut object else { panic!("a pod") };
    p.status_mut().message = "told".into();
    let (subresource, options) = (Subresource::Status, WriteOptions::default());
    let id = c.send(0, request(Call::Update { object, subresource, options }));
    let operations = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "other:1"},
        {"op": "replace", "path": "/status/message", "value": "changed"}]);
    c.consult(|asked| response(asked, patch(operations.clone())));
    let after = object_in(done(&mut c, id).unwrap()).to_json();
    assert_eq!((&after["spec"], &after["status"]["message"]), (&made["spec"], &json!("changed")));
}

/// A webhook that is asked about the statuses of pods.
fn configure_status(c: &mut Cluster) {
    let value = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "status"}, "webhooks": [hook("s.example.com", "pods/status", json!({}))]});
    c.create(value).unwrap();
}

#[test]
fn webhooks_are_asked_about_bindings_evictions_and_scales() {
    let mut c = guarded();
    let about = |resources: &[&str]| json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}]});
    let pods = ["pods/binding", "pods/eviction"];
    configure(&mut c, "Mutating", &[hook("m.example.com", "", about(&pods))]);
    let all = about(&["pods/binding", "pods/eviction", "deployments/scale"]);
    configure(&mut c, "Validating", &[hook("v.example.com", "", all)]);
    let p = c.create(pod("p")).unwrap();
    let call = |node: &str| Call::Bind {
        pod: p.key(),
        uid: Rc::from(p.uid()),
        node: Rc::from(node),
        annotations: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into(),
    };
    let id = c.send(0, request(call("n1")));
    let other = json!([{"op": "replace", "path": "/target/name", "value": "n2"},
        {"op": "replace", "path": "/metadata/annotations/b", "value": "3"}]);
    let asked = c.consult(|asked| response(asked, patch(other.clone()))).remove(0);
    let question = &asked.body["request"];
    assert_eq!(question["kind"], json!({"group": "", "version": "v1", "kind": "Binding"}));
    assert_eq!((&question["subResource"], &question["resource"]["resource"]), (&json!("binding"), &json!("pods")));
    assert_eq!((&question["object"]["target"]["name"], &question["operation"]), (&json!("n1"), &json!("CREATE")));
    assert_eq!(c.consult(|asked| response(asked, json!({})))[0].body["request"]["object"]["target"]["name"], "n2");
    done(&mut c, id).unwrap();
    let bound = c.get(&p.key()).unwrap().to_json();
    assert_eq!(question["object"]["metadata"]["annotations"], json!({"a": "1", "b": "2"}));
    assert_eq!(bound["spec"]["nodeName"], "n2");
    assert_eq!(bound["metadata"]["annotations"], json!({"a": "1", "b": "3"}));

    let evict = || Call::Evict { pod: p.key(), options: DeleteOptions::default() };
    let id = c.send(0, request(evict()));
    c.consult(|asked| response(asked, json!({})));
    let refuse = json!({"allowed": false, "status": {"message": "not now", "code": 429}});
    let question = c.consult(|asked| response(asked, refuse.clone())).remove(0).body["request"].clone();
    assert_eq!(question["kind"], json!({"group": "policy", "version": "v1", "kind": "Eviction"}));
    assert_eq!((&question["object"]["apiVersion"], &question["name"]), (&json!("policy/v1"), &json!("p")));
    let refused = done(&mut c, id).unwrap_err();
    assert_eq!(refused.reason.code(), 429);
    assert!(refused.message.ends_with("denied the request: not now"), "{}", refused.message);
    assert!(!c.get(&p.key()).unwrap().is_deleting());
    let id = c.send(0, request(evict()));
    let grace = json!([{"op": "add", "path": "/deleteOptions", "value": {"gracePeriodSeconds": 7}}]);
    c.consult(|asked| response(asked, patch(grace.clone())));
    c.consult(|asked| response(asked, json!({})));
    done(&mut c, id).unwrap();
    assert_eq!(c.get(&p.key()).unwrap().meta().deletion_grace_period_seconds, Some(7));

    let d = c.create(super::deployment("d", 1)).unwrap();
    let call = Call::SetScale { key: d.key(), replicas: 3, rv: Revision(0), options: WriteOptions::default() };
    let id = c.send(0, request(call));
    let question = c.consult(|asked| response(asked, json!({}))).remove(0).body["request"].clone();
    assert_eq!(question["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    let replicas = |field: &str| question[field]["spec"]["replicas"].clone();
    assert_eq!((replicas("object"), replicas("oldObject")), (json!(3), json!(1)));
    assert!(matches!(done(&mut c, id), Ok(Response::Scale(scale)) if scale.replicas == 3));
}

#[test]
fn webhooks_are_asked_about_connections() {
    let mut c = guarded();
    let attach = json!({"rules": [{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["pods/attach"]}]});
    configure(&mut c, "Validating", &[hook("v.example.com", "", attach)]);
    let p = c.create(pod("p")).unwrap();
    let connect = |subresource: &'static str, kind: &str| {
        let options = Box::new(json!({"kind": kind, "apiVersion": "v1", "stdin": true}));
        request(Call::Connect { key: p.key(), subresource, options })
    };
    let id = c.send(0, connect("exec", "PodExecOptions"));
    assert!(matches!(done(&mut c, id), Ok(Response::Done { .. })), "nobody is asked");
    let id = c.send(0, connect("attach", "PodAttachOptions"));
    let refuse = json!({"allowed": false, "status": {"message": "not this one"}});
    let question = c.consult(|asked| response(asked, refuse.clone())).remove(0).body["request"].clone();
    assert_eq!((&question["operation"], &question["subResource"]), (&json!("CONNECT"), &json!("attach")));
    assert_eq!((&question["name"], &question["namespace"]), (&json!("p"), &json!("default")));
    assert_eq!(question["kind"], json!({"group": "", "version": "v1", "kind": "PodAttachOptions"}));
    assert_eq!(question["object"], json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true}));
    assert_eq!((&question["options"], &question["dryRun"]), (&Value::Null, &json!(false)));
    let refused = done(&mut c, id).unwrap_err().message;
    assert!(refused.ends_with("denied the request: not this one"), "{refused}");
}
