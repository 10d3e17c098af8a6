use proptest::prelude::*;
use serde_json::{Value, json};

use super::{apply, apply_value};
use crate::api::{Patch, Reason, Status};
use crate::object::{Kind, Object};

fn strategic(kind: Kind, original: Value, patch: Value) -> Result<Value, Status> {
    apply_value(kind, original, &Patch::Strategic(patch))
}

fn pod(spec: Value) -> Value {
    json!({"spec": spec})
}

fn check(original: Value, patch: Value, want: Value) {
    assert_eq!(strategic(Kind::POD, pod(original.clone()), pod(patch.clone())), Ok(pod(want)), "{original} + {patch}");
}

fn refused(original: Value, patch: Value, want: &str) {
    let status = strategic(Kind::POD, pod(original), pod(patch)).expect_err(want);
    assert_eq!((status.reason, &*status.message), (Reason::BadRequest, want));
}

#[test]
fn containers_merge_by_name() {
    check(
        json!({"containers": [{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "1"}]}),
        json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "1"}]}),
        json!({"containers": [{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "2"}, {"name": "c", "image": "1"}]}),
    );
    check(
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}], "ports": [{"containerPort": 80, "name": "w"}]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}], "ports": [{"containerPort": 80, "name": "w"}]}]}),
    );
    refused(
        json!({"containers": [{"name": "a"}]}),
        json!({"containers": [{"image": "x"}]}),
        "map: {\"image\":\"x\"} does not contain declared merge key: name",
    );
}

#[test]
fn other_lists_are_replaced() {
    check(
        json!({"tolerations": [{"key": "a"}]}),
        json!({"tolerations": [{"key": "b"}]}),
        json!({"tolerations": [{"key": "b"}]}),
    );
    check(
        json!({"containers": [{"name": "a", "command": ["x", "y"]}]}),
        json!({"containers": [{"name": "a", "command": ["z"]}]}),
        json!({"containers": [{"name": "a", "command": ["z"]}]}),
    );
}

#[test]
fn nulls_delete() {
    check(
        json!({"nodeSelector": {"a": "1", "b": "2"}}),
        json!({"nodeSelector": {"a": null}}),
        json!({"nodeSelector": {"b": "2"}}),
    );
    check(json!({}), json!({"nodeSelector": {"a": null, "b": "1"}}), json!({"nodeSelector": {"b": "1"}}));
    check(json!({"hostname": "x"}), json!({"hostname": null}), json!({}));
}

#[test]
fn directives_of_maps() {
    check(
        json!({"nodeSelector": {"a": "1"}}),
        json!({"nodeSelector": {"$patch": "replace", "b": "2"}}),
        json!({"nodeSelector": {"b": "2"}}),
    );
    check(
        json!({"nodeSelector": {"a": "1"}}),
        json!({"nodeSelector": {"$patch": "delete"}}),
        json!({"nodeSelector": {}}),
    );
    check(
        json!({"nodeSelector": {"a": "1"}}),
        json!({"nodeSelector": {"$patch": "merge", "b": "2"}}),
        json!({"nodeSelector": {"a": "1", "b": "2"}}),
    );
    refused(
        json!({"nodeSelector": {"a": "1"}}),
        json!({"nodeSelector": {"$patch": "burn", "b": "2"}}),
        "unknown patch type found: burn in map: {\"b\":\"2\"}",
    );
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
    );
    let original = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let got = strategic(Kind::DEPLOYMENT, original, patch);
    assert_eq!(got, Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
}

#[test]
fn directives_of_lists() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "c"}, {"$patch": "replace"}]}),
        json!({"containers": [{"name": "c"}]}),
    );
    refused(
        json!({"containers": [{"name": "a"}]}),
        json!({"containers": [{"$patch": "merge"}]}),
        "merging lists cannot yet be specified in the patch",
    );
    let finalizers = |patch: Value| {
        let original = json!({"metadata": {"finalizers": ["a", "b"]}});
        strategic(Kind::CONFIG_MAP, original, json!({"metadata": patch}))
    };
    assert_eq!(
        finalizers(json!({"$deleteFromPrimitiveList/finalizers": ["a"]})),
        Ok(json!({"metadata": {"finalizers": ["b"]}}))
    );
    assert_eq!(finalizers(json!({"finalizers": ["b", "c"]})), Ok(json!({"metadata": {"finalizers": ["a", "b", "c"]}})));
}

#[test]
fn the_patch_may_state_the_order() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        json!({"containers": [{"name": "b"}, {"name": "a"}]}),
    );
    check(
        json!({"containers": [{"name": "a"}, {"name": "sidecar"}]}),
        json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "b", "image": "x"}]}),
        json!({"containers": [{"name": "a"}, {"name": "b", "image": "x"}, {"name": "sidecar"}]}),
    );
    check(
        json!({}),
        json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "b", "image": "x"}]}),
        json!({"containers": [{"name": "b", "image": "x"}]}),
    );
    let status = strategic(
        Kind::POD,
        pod(json!({"containers": [{"name": "a"}]})),
        pod(json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]})),
    );
    assert!(status.is_err_and(|s| s.message.starts_with("The order in patch list:")));
}

#[test]
fn service_ports_merge_by_port_alone() {
    let original = json!({"spec": {"ports": [{"port": 53, "protocol": "TCP"}]}});
    let patch = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}});
    let got = strategic(Kind::SERVICE, original, patch);
    assert_eq!(got, Ok(json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}})));
}

#[test]
fn a_budgets_selector_is_replaced() {
    let original = json!({"spec": {"selector": {"matchLabels": {"a": "1"}}}});
    let patch = json!({"spec": {"selector": {"matchLabels": {"b": "2"}}}});
    let got = strategic(Kind::POD_DISRUPTION_BUDGET, original, patch.clone());
    assert_eq!(got, Ok(patch));
}

#[test]
fn json_patches() {
    let doc = json!({"spec": {"replicas": 1, "list": ["a"]}});
    let run = |patch: Value| apply_value(Kind::DEPLOYMENT, doc.clone(), &Patch::Json(patch));
    let ok = run(json!([{"op": "test", "path": "/spec/replicas", "value": 1},
        {"op": "test", "path": "/spec/none", "value": null}, {"op": "replace", "path": "/spec/replicas", "value": 2},
        {"op": "add", "path": "/spec/list/-", "value": "b"}]));
    assert_eq!(ok, Ok(json!({"spec": {"replicas": 2, "list": ["a", "b"]}})));
    for (patch, want) in [
        (
            json!([{"op": "test", "path": "/spec/replicas", "value": 3}]),
            "testing value /spec/replicas failed: test failed",
        ),
        (json!([{"op": "test", "path": "/spec/x", "value": 3}]), "testing value /spec/x failed: test failed"),
        (
            json!([{"op": "test", "path": "/no/x", "value": 3}]),
            "test operation does not apply: doc is missing path: \"/no/x\": missing value",
        ),
        (
            json!([{"op": "replace", "path": "/spec/x", "value": 3}]),
            "replace operation does not apply: doc is missing key: /spec/x: missing value",
        ),
        (
            json!([{"op": "remove", "path": "/spec/x"}]),
            "error in remove for path: '/spec/x': Unable to remove nonexistent key: x: missing value",
        ),
        (
            json!([{"op": "add", "path": "/no/x", "value": 1}]),
            "add operation does not apply: doc is missing path: \"/no/x\": missing value",
        ),
        (json!([{"op": "burn", "path": "/spec"}]), "Unexpected kind: burn"),
    ] {
        let status = run(patch).expect_err(want);
        assert_eq!(status.reason, Reason::Invalid);
        assert_eq!(status.details.unwrap().causes[0].message, want);
    }
    assert_eq!(run(json!({})).unwrap_err().reason, Reason::BadRequest);
    // The size of copies is limited, because each of these doubles the document.
    let bomb: Vec<Value> =
        (0..40).map(|i| json!({"op": "copy", "from": "/spec", "path": format!("/spec/c{i}")})).collect();
    assert!(run(Value::from(bomb)).is_err());
}

#[test]
fn merge_patches() {
    let doc = json!({"data": {"a": "1", "b": "2"}});
    let run = |patch: Value| apply_value(Kind::CONFIG_MAP, doc.clone(), &Patch::Merge(patch));
    assert_eq!(run(json!({"data": {"a": null, "c": "3"}})), Ok(json!({"data": {"b": "2", "c": "3"}})));
    assert_eq!(run(json!([])).unwrap_err().reason, Reason::BadRequest);
}

#[test]
fn a_patched_object_reads_back() {
    let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "1"}]}}}});
    let object = Object::from_json(value).unwrap();
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "2"}]}}}});
    let patched = Object::from_json(apply(&object, &Patch::Strategic(patch)).unwrap()).unwrap();
    let Object::Deployment(d) = patched else { panic!("not a Deployment") };
    assert_eq!(d.spec.pod.containers[0].image.as_deref(), Some("2"));
}

proptest! {
    #[test]
    fn an_empty_patch_changes_nothing_and_no_patch_panics(
        original in crate::object::validation::tests::any_json(),
        patch in crate::object::validation::tests::any_json(),
    ) {
        for kind in [Kind::POD, Kind::DEPLOYMENT, Kind::SERVICE, Kind::CONFIG_MAP] {
            let wrapped = json!({"metadata": original.clone(), "spec": original.clone()});
            prop_assert_eq!(strategic(kind, wrapped.clone(), json!({})), Ok(wrapped.clone()));
            let patch_body = json!({"metadata": patch.clone(), "spec": patch.clone()});
            let _ = strategic(kind, wrapped.clone(), patch_body.clone());
            let _ = strategic(kind, original.clone(), patch.clone());
            let _ = apply_value(kind, wrapped.clone(), &Patch::Merge(patch_body));
            let _ = apply_value(kind, wrapped, &Patch::Json(patch.clone()));
        }
    }

    #[test]
    fn a_strategic_patch_applied_twice_is_applied_once(
        names in prop::collection::vec("[a-d]", 0..5), patched in prop::collection::vec("[a-d]", 0..4),
    ) {
        let items = |names: &[String], image: &str| {
            let mut list: Vec<Value> = Vec::new();
            for (i, n) in names.iter().enumerate().filter(|(i, n)| !names[..*i].contains(n)) {
                list.push(json!({"name": n, "image": image, "stdin": i == 0}));
            }
            pod(json!({"containers": list}))
        };
        let once = strategic(Kind::POD, items(&names, "1"), items(&patched, "2")).unwrap();
        prop_assert_eq!(strategic(Kind::POD, once.clone(), items(&patched, "2")), Ok(once));
    }
}
