//! Each score, as tables.

use serde_json::{Value, json};

use crate::object::{Object, PodStatus};
use crate::scheduler::cache::Nodes;
use crate::scheduler::framework::{NORMALIZED_SCORES, SCORES, ScorePlugin};
use crate::scheduler::shape::Shape;

fn check(score: &str, node: Value, used: Value, spec: Value, expect: i64) {
    let mut whole = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    json_patch::merge(&mut whole, &node);
    let Object::Node(parsed) = Object::from_json(whole).unwrap() else { panic!() };
    let mut nodes = Nodes::default();
    nodes.put(&parsed);
    if !used.is_null() {
        let shape =
            Shape::new(&serde_json::from_value(used.clone()).unwrap(), &PodStatus::default(), &mut nodes.resources);
        nodes.add_pod("n", &shape);
    }
    let mut whole = json!({"containers": []});
    json_patch::merge(&mut whole, &spec);
    let shape = Shape::new(&serde_json::from_value(whole).unwrap(), &PodStatus::default(), &mut nodes.resources);
    let plugin: &&dyn ScorePlugin = NORMALIZED_SCORES.iter().chain(&SCORES).find(|s| s.name() == score).unwrap();
    assert_eq!(plugin.score(&shape, &nodes, 0), expect, "{score} {node} {used} {spec}");
}

fn asks(requests: Value) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": requests}}]})
}

fn has(cpu: &str, memory: &str) -> Value {
    json!({"status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": "110"}}})
}

#[test]
fn least_allocated() {
    let check = |node: Value, used: Value, spec: Value, expect| check("NodeResourcesFit", node, used, spec, expect);
    check(has("4", "4000"), Value::Null, asks(json!({"cpu": "1", "memory": "1000"})), 75);
    check(
        has("4", "4000"),
        asks(json!({"cpu": "2", "memory": "1000"})),
        asks(json!({"cpu": "1", "memory": "1000"})),
        (25 + 50) / 2,
    );
    // (99 * 100 / 100 + 2 * 100 / 3) / 2 = (99 + 66) / 2
    check(has("10", "3"), Value::Null, asks(json!({"cpu": "100m", "memory": "1"})), 82);
    check(has("1", "1000"), asks(json!({"cpu": "1", "memory": "0"})), asks(json!({"cpu": "1", "memory": "0"})), 50);
    // Defaults: 100m and 200Mi each.
    check(has("1", "2000Mi"), asks(json!({})), asks(json!({})), 80);
    check(has("0", "4000"), Value::Null, asks(json!({"cpu": "1", "memory": "1000"})), 75);
    check(has("0", "0"), Value::Null, asks(json!({"cpu": "1"})), 0);
}

#[test]
fn balanced_allocation() {
    let check = |node: Value, used: Value, spec: Value, expect| {
        check("NodeResourcesBalancedAllocation", node, used, spec, expect)
    };
    // Nothing changes, so 75.
    check(has("4", "4000"), Value::Null, asks(json!({"cpu": "1", "memory": "1000"})), 75);
    check(has("4", "4000"), Value::Null, asks(json!({"cpu": "4"})), 50);
    check(has("4", "4000"), Value::Null, asks(json!({"cpu": "9"})), 50);
    // As far apart as before: |2/4| / 2 and |1/4 - 3/4| / 2.
    check(has("4", "4000"), asks(json!({"memory": "2000"})), asks(json!({"cpu": "1", "memory": "1000"})), 75);
    // From wholly unbalanced (50) to balanced (100).
    check(has("4", "4000"), asks(json!({"memory": "4000"})), asks(json!({"cpu": "4"})), 100);
    // 1/3 / 2 = 16.67 %, of which 83 is left, and 50 + (50 - 17) / 2.
    check(has("3", "4000"), Value::Null, asks(json!({"cpu": "1"})), 66);
    check(has("4", "4000"), asks(json!({"cpu": "1"})), asks(json!({})), 0);
    check(has("4", "0"), Value::Null, asks(json!({"cpu": "1"})), 75);
    check(has("1E", "1E"), Value::Null, asks(json!({"cpu": "1E", "memory": "1E"})), 75);
}

#[test]
fn preferred_taints() {
    let node = json!({"spec": {"taints": [{"key": "a", "effect": "PreferNoSchedule"},
        {"key": "b", "value": "x", "effect": "PreferNoSchedule"}, {"key": "c", "effect": "NoSchedule"}]}});
    for (tolerations, expect) in [
        (json!([]), 2),
        (json!([{"key": "a", "operator": "Exists"}]), 1),
        (json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]), 2),
        (json!([{"operator": "Exists", "effect": "PreferNoSchedule"}]), 0),
    ] {
        check("TaintToleration", node.clone(), Value::Null, json!({"tolerations": tolerations}), expect);
    }
}

#[test]
fn preferred_node_affinity() {
    let node = json!({"metadata": {"labels": {"zone": "a", "disk": "ssd"}}});
    let exists = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
    for (terms, expect) in [
        (json!([]), 0),
        (json!([{"weight": 5, "preference": exists("zone")}, {"weight": 7, "preference": exists("disk")}]), 12),
        (json!([{"weight": 5, "preference": exists("none")}, {"weight": 7, "preference": exists("disk")}]), 7),
        (json!([{"weight": 5, "preference": {}}]), 0),
        (json!([{"weight": -5, "preference": exists("zone")}]), 0),
    ] {
        let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}});
        check("NodeAffinity", node.clone(), Value::Null, json!({"affinity": affinity}), expect);
    }
}
