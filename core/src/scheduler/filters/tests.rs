//! Each filter's decisions, as tables.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::object::{Node, Object, PodStatus};
use crate::scheduler::cache::Nodes;
use crate::scheduler::framework::{FILTERS, FilterPlugin};
use crate::scheduler::gpu::{Devices, GPU_MILLI};
use crate::scheduler::profile::{Plugin, Plugins, Profile, Rules};
use crate::scheduler::shape::Shape;

fn nodes(node: &Value, pods: &[Value]) -> Nodes {
    let mut whole = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    json_patch::merge(&mut whole, node);
    let Object::Node(node) = Object::from_json(whole).unwrap() else { panic!() };
    let mut nodes = Nodes::default();
    nodes.put(&node);
    for pod in pods {
        let shape = shape(pod, &mut nodes);
        nodes.add_pod("n", &shape, Devices::NONE);
    }
    nodes
}

fn shape(spec: &Value, nodes: &mut Nodes) -> Shape {
    let mut whole = json!({"containers": []});
    json_patch::merge(&mut whole, spec);
    let (spec, status) = (serde_json::from_value(whole).unwrap(), PodStatus::default());
    Shape::new(&spec, &status, &mut nodes.resources, &Rc::default())
}

/// A filter's reasons, sorted, with a `*` if no eviction helps.
fn check(filter: &str, node: Value, pods: &[Value], spec: Value, expect: &[&str]) {
    let mut nodes = nodes(&node, pods);
    let shape = shape(&spec, &mut nodes);
    check_shape(filter, &nodes, &shape, expect, &format!("{node} {spec}"));
}

fn check_shape(filter: &str, nodes: &Nodes, shape: &Shape, expect: &[&str], what: &str) {
    let plugin: &&dyn FilterPlugin = FILTERS.iter().find(|f| f.name() == filter).unwrap();
    let mut got = Vec::new();
    if let Some(r) = plugin.filter(shape, nodes, 0) {
        assert_eq!(r.plugin, filter);
        let star = if r.unresolvable { "*" } else { "" };
        got.extend(r.reasons.iter().map(|reason| format!("{star}{}", reason.text(&nodes.resources))));
    }
    got.sort();
    assert_eq!(got, expect, "{what}");
}

#[test]
fn node_unschedulable() {
    let check = |cordoned: bool, tolerations: Value, expect: &[&str]| {
        let node = json!({"spec": {"unschedulable": cordoned}});
        check("NodeUnschedulable", node, &[], json!({"tolerations": tolerations}), expect);
    };
    let no = "*node(s) were unschedulable";
    check(false, json!([]), &[]);
    check(true, json!([]), &[no]);
    check(
        true,
        json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}]),
        &[],
    );
    check(
        true,
        json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoExecute"}]),
        &[no],
    );
    check(true, json!([{"operator": "Exists"}]), &[]);
}

#[test]
fn node_name() {
    let mut nodes = nodes(&json!({}), &[]);
    let mut shape = shape(&json!({}), &mut nodes);
    check_shape("NodeName", &nodes, &shape, &[], "no name");
    shape.node_name = Some("n".to_owned());
    check_shape("NodeName", &nodes, &shape, &[], "its name");
    shape.node_name = Some("m".to_owned());
    check_shape("NodeName", &nodes, &shape, &["*node(s) didn't match the requested node name"], "another name");
}

#[test]
fn taint_toleration() {
    let check = |taints: Value, tolerations: Value, ok: bool| {
        let expect: &[&str] = if ok { &[] } else { &["*node(s) had untolerated taint(s)"] };
        check("TaintToleration", json!({"spec": {"taints": taints}}), &[], json!({"tolerations": tolerations}), expect);
    };
    let taint = |effect: &str| json!([{"key": "k", "value": "v", "effect": effect}]);
    check(json!([]), json!([]), true);
    check(taint("NoSchedule"), json!([]), false);
    check(taint("NoExecute"), json!([]), false);
    check(taint("PreferNoSchedule"), json!([]), true);
    for (toleration, ok) in [
        (json!({"key": "k", "operator": "Equal", "value": "v"}), true),
        (json!({"key": "k", "value": "v", "effect": "NoSchedule"}), true),
        (json!({"key": "k", "value": "v", "effect": "NoExecute"}), false),
        (json!({"key": "k", "value": "w"}), false),
        (json!({"key": "k", "operator": "Exists"}), true),
        (json!({"key": "l", "operator": "Exists"}), false),
        (json!({"operator": "Exists"}), true),
        (json!({"key": "k", "operator": "Lt", "value": "v"}), false),
    ] {
        check(taint("NoSchedule"), json!([toleration]), ok);
    }
    let two = json!([{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"}]);
    check(two.clone(), json!([{"key": "a", "operator": "Exists"}]), false);
    check(two, json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]), true);
}

#[test]
fn node_affinity() {
    let check = |spec: Value, ok: bool| {
        let expect: &[&str] = if ok { &[] } else { &["*node(s) didn't match Pod's node affinity/selector"] };
        let node = json!({"metadata": {"labels": {"zone": "a", "cores": "8", "odd": "x"}}});
        check("NodeAffinity", node, &[], spec, expect);
    };
    check(json!({}), true);
    check(json!({"nodeSelector": {"zone": "a"}}), true);
    check(json!({"nodeSelector": {"zone": "b"}}), false);
    check(json!({"nodeSelector": {"none": "a"}}), false);
    let required = |terms: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}}})
    };
    let one = |key: &str, operator: &str, values: &[&str]| {
        let expression = json!({"key": key, "operator": operator, "values": values});
        json!([{"matchExpressions": [expression]}])
    };
    for (key, operator, values, ok) in [
        ("zone", "In", &["a", "b"][..], true),
        ("zone", "In", &["b"], false),
        ("zone", "NotIn", &["b"], true),
        ("zone", "NotIn", &["a"], false),
        ("none", "NotIn", &["a"], true),
        ("zone", "Exists", &[], true),
        ("none", "Exists", &[], false),
        ("none", "DoesNotExist", &[], true),
        ("zone", "DoesNotExist", &[], false),
        ("cores", "Gt", &["7"], true),
        ("cores", "Gt", &["8"], false),
        ("cores", "Lt", &["9"], true),
        ("odd", "Gt", &["0"], false),
        ("cores", "Gt", &["x"], false),
        ("zone", "Near", &["a"], false),
    ] {
        check(required(one(key, operator, values)), ok);
    }
    let field = |operator: &str, name: &str| {
        let field = json!({"key": "metadata.name", "operator": operator, "values": [name]});
        json!([{"matchFields": [field]}])
    };
    check(required(field("In", "n")), true);
    check(required(field("In", "m")), false);
    check(required(field("NotIn", "m")), true);
    check(required(json!([])), false);
    check(required(json!([{}])), false);
    let mut both = one("zone", "In", &["b"]);
    both.as_array_mut().unwrap().extend(one("cores", "Exists", &[]).as_array().unwrap().clone());
    check(required(both), true);
}

#[test]
fn node_ports() {
    let pod = |port: i32, protocol: &str, ip: &str| {
        let mut p = json!({"containerPort": 80, "hostPort": port});
        for (name, value) in [("protocol", protocol), ("hostIP", ip)] {
            if !value.is_empty() {
                p[name] = json!(value);
            }
        }
        json!({"containers": [{"name": "c", "ports": [p]}]})
    };
    let held = [
        pod(80, "TCP", "10.0.0.1"),
        pod(81, "", ""),
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 82}]}]}),
    ];
    for (port, protocol, ip, ok) in [
        (80, "TCP", "10.0.0.1", false),
        (80, "TCP", "10.0.0.2", true),
        (80, "UDP", "10.0.0.1", true),
        (80, "", "", false),
        (80, "TCP", "0.0.0.0", false),
        (81, "TCP", "10.0.0.9", false),
        (82, "TCP", "", true),
        (0, "TCP", "", true),
    ] {
        let expect: &[&str] = if ok { &[] } else { &["node(s) didn't have free ports for the requested pod ports"] };
        check("NodePorts", json!({}), &held, pod(port, protocol, ip), expect);
    }
}

#[test]
fn a_port_is_free_when_its_last_holder_goes() {
    let spec = json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 1}]}]});
    let mut nodes = nodes(&json!({}), &[spec.clone(), spec.clone()]);
    let shape = shape(&spec, &mut nodes);
    let no: &[&str] = &["node(s) didn't have free ports for the requested pod ports"];
    for expect in [no, no, &[]] {
        check_shape("NodePorts", &nodes, &shape, expect, "one less");
        if !expect.is_empty() {
            nodes.remove_pod(0, &shape, Devices::NONE);
        }
    }
}

#[test]
fn node_resources_fit() {
    let pod = |requests: Value| json!({"containers": [{"name": "c", "resources": {"requests": requests}}]});
    let node = |pods: &str| {
        json!({"status": {"allocatable": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "1Gi", "pods": pods,
            "example.com/gpu": "1"}}})
    };
    let used = [pod(json!({"cpu": "1500m", "memory": "1Gi", "example.com/gpu": "1"}))];
    let fit = |pods: &str, requests: Value, expect: &[&str]| {
        check("NodeResourcesFit", node(pods), &used, pod(requests), expect);
    };
    fit("2", json!({"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1Gi"}), &[]);
    fit("2", json!({}), &[]);
    fit("1", json!({}), &["Too many pods"]);
    fit("2", json!({"cpu": "501m"}), &["Insufficient cpu"]);
    fit("2", json!({"cpu": "2001m"}), &["*Insufficient cpu"]);
    fit("1", json!({"cpu": "1", "memory": "1025Mi"}), &["Insufficient cpu", "Insufficient memory", "Too many pods"]);
    fit("2", json!({"example.com/gpu": "1"}), &["Insufficient example.com/gpu"]);
    fit("2", json!({"example.com/fpga": "1"}), &["*Insufficient example.com/fpga"]);
    fit("2", json!({"ephemeral-storage": "2Gi"}), &["*Insufficient ephemeral-storage"]);
    check("NodeResourcesFit", json!({}), &[], pod(json!({})), &["Too many pods"]);
    let capacity = json!({"status": {"capacity": {"pods": "1"}}});
    check("NodeResourcesFit", capacity, &[], pod(json!({})), &[]);
}

#[test]
fn gpu_share() {
    let filters: Plugins = Plugin::ALL.into_iter().filter(|p| p.is_filter()).collect();
    let check = |gpus: &str, used: &[(&str, &str)], asks: &str, expect: &[&str]| {
        let node = json!({"status": {"allocatable": {"pods": "9", GPU_MILLI: gpus}}});
        let mut nodes = nodes(&node, &[]);
        let rules = Rc::new(Rules::new(0, &Profile { filters, ..Profile::default() }, &mut nodes.resources));
        let mut shape = |milli: &str| {
            let pod = json!({"containers": [{"name": "c", "resources": {"requests": {GPU_MILLI: milli}}}]});
            Shape::new(&serde_json::from_value(pod).unwrap(), &PodStatus::default(), &mut nodes.resources, &rules)
        };
        let used: Vec<(Shape, &str)> = used.iter().map(|(milli, devices)| (shape(milli), *devices)).collect();
        let shape = shape(asks);
        used.iter().for_each(|(shape, devices)| _ = nodes.add_pod("n", shape, Devices::parse(devices)));
        check_shape("GPUShare", &nodes, &shape, expect, &format!("{gpus} {asks}"));
    };
    let (share, idle) = (
        "node(s) didn't have a GPU with enough alibabacloud.com/gpu-milli free",
        "node(s) didn't have enough idle GPUs",
    );
    check("0", &[], "0", &[]);
    check("0", &[], "1", &[&format!("*{share}")]);
    check("999", &[], "1", &[&format!("*{share}")]);
    check("2000", &[("600", "0"), ("500", "1")], "500", &[]);
    check("2000", &[("600", "0"), ("500", "1")], "501", &[share]);
    check("2000", &[("600", "0")], "1000", &[]);
    check("2000", &[("600", "0")], "2000", &[idle]);
    check("2000", &[("2000", "0-1")], "1", &[share]);
    check("2000", &[], "3000", &[&format!("*{idle}")]);
    check("2000", &[("600", "")], "2000", &[]);
    check(
        "9000",
        &[],
        "1500",
        &["*node(s) can't give parts of several GPUs, alibabacloud.com/gpu-milli must be less or a multiple of 1000"],
    );
}

#[test]
fn odd_quantities_are_survived() {
    let requests = json!({"cpu": "1E", "memory": "99E", "x": "-5", "pods": "9"});
    let huge = json!({"containers": [{"name": "c", "resources": {"requests": requests}}]});
    let node = json!({"status": {"allocatable": {"cpu": "-1", "memory": "7E", "pods": "0"}}});
    let mut nodes = nodes(&node, &[huge.clone(), huge.clone()]);
    let shape = shape(&huge, &mut nodes);
    check_shape(
        "NodeResourcesFit",
        &nodes,
        &shape,
        &["*Insufficient cpu", "*Insufficient memory", "*Too many pods"],
        "huge",
    );
}

#[test]
fn a_node_says_what_changed_about_it() {
    use crate::scheduler::events::Events;
    let parse = |v: Value| -> Node {
        let Object::Node(n) = Object::from_json(v).unwrap() else { panic!() };
        n
    };
    let mut nodes = Nodes::default();
    let mut v = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "status": {"allocatable": {"cpu": "1"}}});
    assert!(nodes.put(&parse(v.clone())).1.intersects(Events::NODE_ADD));
    assert_eq!(nodes.put(&parse(v.clone())).1, Events::NONE);
    let before = nodes.now();
    v["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    assert_eq!(nodes.put(&parse(v.clone())).1, Events::NONE);
    assert_eq!(nodes.now(), before, "a heartbeat is no change");
    v["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(nodes.put(&parse(v.clone())).1, Events::NODE_UPDATE_LABEL);
    v["spec"] = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    assert_eq!(nodes.put(&parse(v.clone())).1, Events::NODE_UPDATE_TAINT);
    v["status"]["allocatable"] = json!({"memory": "1"});
    assert_eq!(nodes.put(&parse(v)).1, Events::NODE_UPDATE_ALLOCATABLE);
}
