//! Tests a DaemonSet on three nodes, plan by plan: every plan is carried out on the view.

use serde_json::{Value, json};

use super::DaemonSetController;
use crate::client::Change;
use crate::controllers::workload_world::{NOTHING, World};
use crate::object::{Kind, Object, ObjectKey};

fn node(name: &str) -> Object {
    Object::from_json(
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"disk": "ssd"}}}),
    )
    .unwrap()
}

fn set(spec: Value) -> World {
    let mut all = json!({"selector": {"matchLabels": {"app": "log"}}, "revisionHistoryLimit": 10,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        "template": {"metadata": {"labels": {"app": "log"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}});
    json_patch::merge(&mut all, &spec);
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "log", "namespace": "d", "uid": "u", "generation": 1}, "spec": all});
    let mut world = World::new(DaemonSetController::default(), set, node_of);
    ["n1", "n2", "n3"].map(node).into_iter().for_each(|node| world.put(node));
    world
}

fn edit_node(world: &mut World, name: &str, change: impl FnOnce(&mut Value)) {
    world.edit(&ObjectKey::new(Kind::NODE, "", name), change);
}

fn taint(world: &mut World, node: &str, effect: &str) {
    edit_node(world, node, |v| v["spec"]["taints"] = json!([{"key": "k", "effect": effect}]));
}

fn all_ready(world: &mut World) {
    world.pods().iter().for_each(|pod| world.ready(pod));
}

fn sorted(mut done: Vec<String>) -> Vec<String> {
    done.sort();
    done
}

/// The node that a pod's affinity names.
fn node_of(pod: &Value) -> String {
    let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0";
    let term = pod.pointer(path).expect("a daemon has its node's name");
    term["matchFields"][0]["values"][0].as_str().unwrap().to_owned()
}

/// A set that runs on three nodes.
fn running(spec: Value) -> World {
    let mut world = set(spec);
    world.settle();
    all_ready(&mut world);
    world.settle();
    world
}

fn image_2() -> Value {
    json!({"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}})
}

#[test]
fn each_node_gets_one_and_a_new_node_too() {
    let mut world = set(json!({}));
    assert_eq!(sorted(world.settle()), ["+n1", "+n2", "+n3"]);
    all_ready(&mut world);
    world.settle();
    assert_eq!((world.status("desiredNumberScheduled"), world.status("numberAvailable")), (json!(3), json!(3)));
    world.put(node("n4"));
    assert_eq!(sorted(world.settle()), ["+n4"]);
    let pod = world.pod("p1");
    let keys: Vec<&str> =
        pod["spec"]["tolerations"].as_array().unwrap().iter().map(|t| t["key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 6, "{keys:?}");
}

#[test]
fn selectors_and_taints_say_where() {
    let mut world = set(json!({"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}));
    edit_node(&mut world, "n1", |v| v["metadata"]["labels"] = json!({"disk": "hdd"}));
    taint(&mut world, "n2", "NoSchedule");
    assert_eq!(sorted(world.settle()), ["+n3"]);
    // An existing pod stays despite a NoSchedule taint and counts as misscheduled. A NoExecute taint, or a label that
    // no longer matches, removes it.
    taint(&mut world, "n3", "NoSchedule");
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(world.status("numberMisscheduled"), 1);
    taint(&mut world, "n3", "NoExecute");
    assert_eq!(sorted(world.settle()), ["-n3"]);
}

#[test]
fn a_cordon_keeps_no_daemon_away() {
    let mut world = set(json!({}));
    edit_node(&mut world, "n1", |v| {
        v["spec"] = json!({"unschedulable": true,
            "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]});
    });
    assert_eq!(sorted(world.settle()), ["+n1", "+n2", "+n3"]);
}

#[test]
fn an_update_replaces_as_many_at_once_as_may_be_unavailable() {
    let mut world = running(json!({}));
    world.edit_spec(image_2());
    let mut replaced = Vec::new();
    for _ in 0..3 {
        let deleted = world.settle();
        assert_eq!(deleted.len(), 1);
        world.reap();
        replaced.extend(world.settle());
        assert_eq!(world.settle(), NOTHING, "the next waits until this one is available");
        all_ready(&mut world);
    }
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(replaced, ["+n1", "+n2", "+n3"]);
    assert_eq!(world.status("updatedNumberScheduled"), 3);
}

#[test]
fn unavailable_pods_are_updated_at_once() {
    let mut world = running(json!({}));
    world.phase("p2", "Running", false);
    world.edit_spec(image_2());
    assert_eq!(sorted(world.settle()), ["-n2"], "the one that is missing already counts as the one that may be");
}

#[test]
fn a_surge_makes_the_new_beside_the_old() {
    let mut world = running(json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "50%"}}}));
    world.edit_spec(image_2());
    assert_eq!(sorted(world.settle()), ["+n1", "+n2"]);
    world.phase("p4", "Running", true);
    // Once the new pod on a node is available, the old one is deleted and the next node may surge.
    assert_eq!(sorted(world.settle()), ["+n3", "-n1"]);
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut world = running(json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    world.edit_spec(image_2());
    assert_eq!(world.settle(), NOTHING);
}

#[test]
fn failed_daemons_are_replaced_with_growing_patience() {
    let mut world = running(json!({}));
    world.phase("p1", "Failed", false);
    assert_eq!(sorted(world.settle()), ["-n1"]);
    world.reap();
    assert_eq!(sorted(world.settle()), ["+n1"]);
    world.phase("p4", "Failed", false);
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(world.plan().requeue_after, Some(std::time::Duration::from_secs(1)));
    world.now = world.now + std::time::Duration::from_secs(1);
    assert_eq!(sorted(world.settle()), ["-n1"]);
}

/// Without the wait, a node that refuses its daemon gets one after the other (explored seed 11372; kubernetes#14528).
#[test]
fn a_failed_daemon_is_replaced_with_patience_by_a_surge_too() {
    let mut world = running(json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}));
    world.phase("p1", "Failed", false);
    world.settle();
    world.reap();
    world.settle();
    world.phase("p4", "Failed", false);
    assert_eq!(world.settle(), NOTHING);
    world.now = world.now + std::time::Duration::from_secs(1);
    assert_eq!(sorted(world.settle())[..], ["+n1", "-n1"]);
}

#[test]
fn surplus_goes_and_so_does_what_waits_for_a_lost_node() {
    let mut world = running(json!({}));
    world.edit_pod("p1", |v| {
        v["metadata"]["name"] = json!("twin");
        v["metadata"]["uid"] = json!("twin");
        v["metadata"]["creationTimestamp"] = json!("2024-01-01T00:01:20Z");
    });
    assert_eq!(sorted(world.settle()), ["-n1"]);
    world.reap();
    world.views.view_mut(Kind::NODE).remove(&ObjectKey::new(Kind::NODE, "", "n2"));
    assert_eq!(sorted(world.settle()), ["-n2"]);
}

#[test]
fn heartbeats_and_conditions_of_nodes_wake_nothing() {
    let world = set(json!({}));
    let changed = |change: fn(&mut Value)| {
        let mut value = node("n1").to_json();
        change(&mut value);
        let new = Some(Object::from_json(value).unwrap());
        let change = Change { key: node("n1").key(), old: Some(node("n1")), new };
        world.keys(&change).len()
    };
    assert_eq!(changed(|v| v["status"] = json!({"conditions": [{"type": "Ready", "status": "False"}]})), 0);
    assert_eq!(changed(|v| v["metadata"]["labels"]["disk"] = json!("hdd")), 1);
    assert_eq!(changed(|v| v["spec"] = json!({"taints": [{"key": "k", "effect": "NoExecute"}]})), 1);
}
