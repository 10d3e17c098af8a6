use proptest::prelude::*;
use serde_json::{Value, json};

use super::{apply_value, three_way};
use crate::api::Patch;
use crate::object::Kind;

/// The live object after `kubectl apply`, and the patch that was sent.
fn applied(kind: Kind, original: &Value, modified: &Value, current: &Value) -> (Value, Option<Value>) {
    let patch = three_way(kind, Some(original), modified, current).unwrap();
    let after = match &patch {
        Some(patch) => apply_value(kind, current.clone(), &Patch::Strategic(patch.clone())).unwrap(),
        None => current.clone(),
    };
    (after, patch)
}

fn check(kind: Kind, original: Value, modified: Value, current: Value, want: Value) {
    let (after, patch) = applied(kind, &original, &modified, &current);
    assert_eq!(after, want, "by {patch:?}");
}

fn spec(spec: Value) -> Value {
    json!({"spec": spec})
}

#[test]
fn what_the_file_does_not_speak_of_stays() {
    check(
        Kind::DEPLOYMENT,
        spec(json!({"template": {"spec": {"containers": [{"name": "a", "image": "1"}]}}})),
        spec(json!({"template": {"spec": {"containers": [{"name": "a", "image": "2"}]}}})),
        spec(json!({"replicas": 5, "paused": true, "template": {"spec": {"dnsPolicy": "ClusterFirst",
            "containers": [{"name": "a", "image": "1", "imagePullPolicy": "Always"}]}}})),
        spec(json!({"replicas": 5, "paused": true, "template": {"spec": {"dnsPolicy": "ClusterFirst",
            "containers": [{"name": "a", "image": "2", "imagePullPolicy": "Always"}]}}})),
    );
    check(
        Kind::SERVICE,
        spec(json!({"type": "NodePort", "ports": [{"port": 80}]})),
        spec(json!({"type": "NodePort", "ports": [{"port": 80, "targetPort": 8080}]})),
        spec(json!({"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30123}]})),
        spec(json!({"type": "NodePort", "clusterIP": "10.0.0.1",
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30123}]})),
    );
}

#[test]
fn what_the_file_has_no_more_goes() {
    check(
        Kind::DEPLOYMENT,
        spec(json!({"replicas": 3, "minReadySeconds": 5})),
        spec(json!({"minReadySeconds": 5})),
        spec(json!({"replicas": 7, "minReadySeconds": 5, "paused": true})),
        spec(json!({"minReadySeconds": 5, "paused": true})),
    );
    check(
        Kind::POD,
        spec(json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "b"}]})),
        spec(json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": "3"}]}]})),
        spec(json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "b"}, {"name": "injected"}]})),
        spec(json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": "3"}]}, {"name": "injected"}]})),
    );
    check(
        Kind::CONFIG_MAP,
        json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1", "y": "1"}}, "data": {"k": "1", "l": "1"}}),
        json!({"metadata": {"finalizers": ["b"], "labels": {"y": "1"}}, "data": {"l": "2"}}),
        json!({"metadata": {"finalizers": ["a", "b", "c"], "labels": {"x": "1", "y": "1", "z": "1"}},
            "data": {"k": "9", "l": "1", "m": "1"}}),
        json!({"metadata": {"finalizers": ["b", "c"], "labels": {"y": "1", "z": "1"}}, "data": {"l": "2", "m": "1"}}),
    );
}

#[test]
fn one_of_several_kinds_takes_the_place_of_the_other() {
    // The parameters of the rolling update were set by defaulting and not by the file, so only `$retainKeys` removes
    // them.
    check(
        Kind::DEPLOYMENT,
        spec(json!({"replicas": 1})),
        spec(json!({"replicas": 1, "strategy": {"type": "Recreate"}})),
        spec(json!({"replicas": 1, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}})),
        spec(json!({"replicas": 1, "strategy": {"type": "Recreate"}})),
    );
    check(
        Kind::POD,
        spec(json!({"volumes": [{"name": "v", "emptyDir": {}}]})),
        spec(json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]})),
        spec(json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "token"}]})),
        spec(json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}, {"name": "token"}]})),
    );
    check(
        Kind::POD_DISRUPTION_BUDGET,
        spec(json!({"selector": {"matchLabels": {"a": "1"}}})),
        spec(json!({"selector": {"matchLabels": {"b": "1"}}})),
        spec(json!({"selector": {"matchLabels": {"a": "1"}}})),
        spec(json!({"selector": {"matchLabels": {"b": "1"}}})),
    );
}

#[test]
fn lists_without_a_key_are_replaced_and_orders_kept() {
    check(
        Kind::POD,
        spec(json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a"}, {"name": "b"}]})),
        spec(json!({"tolerations": [{"key": "b"}], "containers": [{"name": "b"}, {"name": "a"}]})),
        spec(json!({"tolerations": [{"key": "a"}, {"key": "c"}], "containers": [{"name": "a"}, {"name": "b"}]})),
        spec(json!({"tolerations": [{"key": "b"}], "containers": [{"name": "b"}, {"name": "a"}]})),
    );
}

#[test]
fn the_patch_is_kubectls() {
    let patch = |original: Value, modified: Value, current: Value| {
        three_way(Kind::DEPLOYMENT, Some(&original), &modified, &current).unwrap()
    };
    let pod = |containers: Value| spec(json!({"template": {"spec": {"containers": containers}}}));
    assert_eq!(
        patch(
            pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
            pod(json!([{"name": "a", "image": "2"}])),
            pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
        ),
        Some(pod(json!([{"name": "a", "image": "2"}, {"$patch": "delete", "name": "b"}]))).map(|mut p| {
            p["spec"]["template"]["spec"]["$setElementOrder/containers"] = json!([{"name": "a"}]);
            p
        })
    );
    let same = pod(json!([{"name": "a", "image": "1"}]));
    assert_eq!(patch(same.clone(), same.clone(), same.clone()), None);
    assert_eq!(three_way(Kind::DEPLOYMENT, None, &same, &same), Ok(None), "without an annotation");
    assert_eq!(
        three_way(
            Kind::POD,
            None,
            &spec(json!({"containers": [{"image": "x"}]})),
            &spec(json!({"containers": [{"name": "a"}]}))
        ),
        Err("map: {\"image\":\"x\"} does not contain declared merge key: name".to_owned())
    );
}

/// Labels and the containers of a pod, from few names and values so that two of them overlap.
fn any_object() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let text = prop::sample::select(vec!["1", "2"]);
    let env = prop::collection::btree_map(name.clone(), text.clone(), 0..3)
        .prop_map(|m| m.into_iter().map(|(k, v)| json!({"name": k, "value": v})).collect::<Value>());
    let container = (env, prop::option::of(text.clone()), prop::collection::vec(text.clone(), 0..3))
        .prop_map(|(env, image, command)| json!({"env": env, "image": image, "command": command}));
    let containers = prop::collection::btree_map(name.clone(), container, 1..4).prop_map(|m| {
        let named = m.into_iter().map(|(name, mut c)| {
            c["name"] = json!(name);
            c.as_object_mut().unwrap().retain(|_, v| !v.is_null());
            c
        });
        named.collect::<Value>()
    });
    let labels = prop::collection::btree_map(name, text, 0..3);
    (containers, labels)
        .prop_map(|(containers, labels)| json!({"metadata": {"labels": labels}, "spec": {"containers": containers}}))
}

proptest! {
    #[test]
    fn after_an_apply_another_has_nothing_to_do_and_the_file_is_there(
        original in any_object(), modified in any_object(), current in any_object(),
    ) {
        let (after, _) = applied(Kind::POD, &original, &modified, &current);
        let (again, patch) = applied(Kind::POD, &modified, &modified, &after);
        prop_assert_eq!(&again, &after, "{:?}", patch);
        for c in modified["spec"]["containers"].as_array().unwrap() {
            let live = after["spec"]["containers"].as_array().unwrap().iter().find(|l| l["name"] == c["name"]).unwrap();
            for (field, value) in c.as_object().unwrap().iter().filter(|(k, _)| *k != "env") {
                prop_assert_eq!(&live[field], value);
            }
        }
        // If the live object is what the last file said, the result is what the new file says.
        let (after, _) = applied(Kind::POD, &original, &modified, &original);
        prop_assert_eq!(&after["metadata"]["labels"], &modified["metadata"]["labels"]);
        prop_assert_eq!(&after["spec"]["containers"].as_array().unwrap().len(),
            &modified["spec"]["containers"].as_array().unwrap().len());
    }
}
