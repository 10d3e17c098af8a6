//! Each score, as tables.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::object::{Object, PodStatus};
use crate::scheduler::cache::Nodes;
use crate::scheduler::framework::{NORMALIZED_SCORES, SCORES, ScorePlugin};
use crate::scheduler::gpu::Devices;
use crate::scheduler::profile::{Profile, Rules, Strategy};
use crate::scheduler::shape::Shape;

fn check(score: &str, node: Value, used: Value, spec: Value, expect: i64) {
    check_by(&Profile::default(), score, node, used, spec, expect);
}

/// The score in a profile of a node with a pod of `used`, for a pod of `spec`.
fn check_by(profile: &Profile, score: &str, node: Value, used: Value, spec: Value, expect: i64) {
    let mut whole = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    json_patch::merge(&mut whole, &node);
    let Object::Node(parsed) = Object::from_json(whole).unwrap() else { panic!() };
    let mut nodes = Nodes::default();
    nodes.put(&parsed);
    let rules = Rc::new(Rules::new(0, profile, &mut nodes.resources));
    let mut shape = |spec: Value| {
        let mut whole = json!({"containers": []});
        json_patch::merge(&mut whole, &spec);
        Shape::new(&serde_json::from_value(whole).unwrap(), &PodStatus::default(), &mut nodes.resources, &rules)
    };
    let (there, shape) = ((!used.is_null()).then(|| shape(used.clone())), shape(spec.clone()));
    if let Some(there) = there {
        nodes.add_pod("n", &there, Devices::NONE);
    }
    let mut all = NORMALIZED_SCORES.iter().chain(&SCORES);
    let plugin: &&dyn ScorePlugin = all.find(|s| s.plugin().name() == score).unwrap();
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

fn by(strategy: Strategy, resources: &[(&str, i64)]) -> Profile {
    let resources = resources.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
    Profile { strategy, resources, ..Profile::default() }
}

/// A node with two more resources.
fn richer(gpus: &str) -> Value {
    json!({"status": {"allocatable": {"cpu": "4", "memory": "4000", "pods": "110", "ephemeral-storage": "100",
        "example.com/gpu": gpus, "storage": "100"}}})
}

#[test]
fn least_allocated_of_what_the_profile_names() {
    let check = |resources: &[(&str, i64)], node: Value, used: Value, spec: Value, expect| {
        check_by(&by(Strategy::LeastAllocated, resources), "NodeResourcesFit", node, used, spec, expect);
    };
    let pod = || asks(json!({"cpu": "1", "memory": "3000"}));
    check(&[("cpu", 1), ("memory", 1)], has("4", "4000"), Value::Null, pod(), 50);
    // (75 * 3 + 25 * 1) / 4, (75 * 1 + 25 * 2) / 3 = 41.67
    check(&[("cpu", 3), ("memory", 1)], has("4", "4000"), Value::Null, pod(), 62);
    check(&[("cpu", 1), ("memory", 2)], has("4", "4000"), Value::Null, pod(), 41);
    check(&[("memory", 7)], has("4", "4000"), Value::Null, pod(), 25);
    check(&[("cpu", 1)], has("0", "4000"), Value::Null, pod(), 0);
    // An extended resource counts only for a pod that asks for it: (75 * 1 + 50 * 3) / 4.
    let gpu = || asks(json!({"cpu": "1", "example.com/gpu": "1"}));
    check(&[("cpu", 1), ("example.com/gpu", 3)], richer("2"), Value::Null, gpu(), 56);
    check(&[("cpu", 1), ("example.com/gpu", 3)], richer("2"), gpu(), gpu(), 12);
    check(&[("cpu", 1), ("example.com/gpu", 3)], richer("2"), gpu(), asks(json!({"cpu": "1"})), 50);
    check(&[("cpu", 1), ("example.com/gpu", 3)], has("4", "4000"), Value::Null, gpu(), 75);
    // Storage counts also for others; what is no resource of nodes never does.
    check(&[("cpu", 1), ("ephemeral-storage", 1)], richer("0"), Value::Null, asks(json!({"cpu": "2"})), 75);
    check(&[("cpu", 1), ("pods", 1), ("storage", 9)], richer("0"), Value::Null, asks(json!({"cpu": "2"})), 50);
}

#[test]
fn most_allocated() {
    let check = |resources: &[(&str, i64)], node: Value, used: Value, spec: Value, expect| {
        check_by(&by(Strategy::MostAllocated, resources), "NodeResourcesFit", node, used, spec, expect);
    };
    let both = [("cpu", 1), ("memory", 1)];
    check(&both, has("4", "10000"), Value::Null, asks(json!({"cpu": "3", "memory": "5000"})), (75 + 50) / 2);
    check(&both, has("6", "10000"), Value::Null, asks(json!({"cpu": "3", "memory": "5000"})), 50);
    // 3/10 and 5/10 beside 6/10 and nothing.
    let used = || asks(json!({"cpu": "6", "memory": "0"}));
    check(&both, has("10", "10000"), used(), asks(json!({"cpu": "3", "memory": "5000"})), 70);
    // More than there is counts as all of it.
    check(&both, has("4", "4000"), Value::Null, asks(json!({"cpu": "9", "memory": "1000"})), (100 + 25) / 2);
    // Missing requests count with their defaults.
    check(&both, has("1", "2000Mi"), asks(json!({})), asks(json!({})), 20);
    check(
        &[("cpu", 3), ("memory", 1)],
        has("4", "10000"),
        Value::Null,
        asks(json!({"cpu": "3", "memory": "5000"})),
        68,
    );
    check(&both, has("0", "0"), Value::Null, asks(json!({"cpu": "1"})), 0);
    let gpu = asks(json!({"example.com/gpu": "1"}));
    check(&[("example.com/gpu", 5)], richer("4"), gpu.clone(), gpu, 50);
}

#[test]
fn requested_to_capacity_ratio() {
    let check = |points: &[(i64, i64)], resources: &[(&str, i64)], node: Value, used: Value, spec: Value, expect| {
        let profile = by(Strategy::RequestedToCapacityRatio(points.to_vec()), resources);
        check_by(&profile, "NodeResourcesFit", node, used, spec, expect);
    };
    let (falls, rises, both) = ([(0, 10), (100, 0)], [(0, 0), (100, 10)], [("cpu", 1), ("memory", 1)]);
    let none = || asks(json!({"cpu": "0", "memory": "0"}));
    let pod = || asks(json!({"cpu": "3", "memory": "5000"}));
    check(&falls, &both, has("4", "10000"), Value::Null, none(), 100);
    // 25 and 50, and 38 is the nearest to their mean of 37.5.
    check(&falls, &both, has("4", "10000"), Value::Null, pod(), 38);
    check(&rises, &both, has("4", "10000"), Value::Null, pod(), 63);
    check(&rises, &[("cpu", 3), ("memory", 1)], has("4", "10000"), Value::Null, pod(), 69);
    // A score of zero takes no part: only memory counts where CPU is full.
    check(&falls, &both, has("4", "10000"), Value::Null, asks(json!({"cpu": "4", "memory": "5000"})), 50);
    check(&falls, &both, has("4", "10000"), Value::Null, asks(json!({"cpu": "9", "memory": "20000"})), 0);
    // Between points by straight lines, before the first and after the last as there.
    let bent = [(10, 2), (50, 10), (90, 4)];
    for (cpu, expect) in [("0", 20), ("100m", 20), ("300m", 60), ("500m", 100), ("700m", 70), ("900m", 40), ("1", 40)] {
        check(&bent, &[("cpu", 1)], has("1", "1"), Value::Null, asks(json!({"cpu": cpu})), expect);
    }
    // Go's division cuts off towards zero: 100 - 30 * 10 / 70 is 100 - 4.
    check(&[(0, 10), (70, 7)], &[("cpu", 1)], has("10", "1"), Value::Null, asks(json!({"cpu": "1"})), 96);
    let gpu = |n: &str| asks(json!({"example.com/gpu": n}));
    check(&rises, &[("example.com/gpu", 3)], richer("8"), gpu("1"), gpu("3"), 50);
    check(&rises, &[("example.com/gpu", 3)], richer("8"), gpu("1"), none(), 0);
}

#[test]
fn balanced_allocation_of_what_the_profile_names() {
    let check = |resources: &[&str], node: Value, used: Value, spec: Value, expect| {
        let balanced = resources.iter().map(|r| (*r).to_owned()).collect();
        let profile = Profile { balanced, ..Profile::default() };
        check_by(&profile, "NodeResourcesBalancedAllocation", node, used, spec, expect);
    };
    let three = ["cpu", "memory", "example.com/gpu"];
    // 2/4, 1/4 and 3/4: their deviation from the mean of 1/2 is 20.4 %, so 79 after 100, and 50 + (50 - 21) / 2.
    let pod = || asks(json!({"cpu": "2", "memory": "1000", "example.com/gpu": "3"}));
    check(&three, richer("4"), Value::Null, pod(), 64);
    // Without the third, as if it were not named: 1/4 / 2 is 12.5 %, so 87.
    check(&three, has("4", "4000"), Value::Null, pod(), 50 + (50 + 87 - 100) / 2);
    check(&three, richer("4"), Value::Null, asks(json!({"cpu": "2", "memory": "1000"})), 68);
    check(&["example.com/gpu"], richer("4"), Value::Null, pod(), 75);
    check(&["example.com/gpu"], richer("4"), Value::Null, asks(json!({"cpu": "1"})), 0);
    check(&["cpu", "ephemeral-storage"], richer("4"), Value::Null, asks(json!({"cpu": "2"})), 62);
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
