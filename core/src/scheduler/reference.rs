//! The scheduler proved against a naive one that filters and scores every node from the API objects, each time from
//! scratch, and shares no code with it but the parsing of quantities.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Decision, Scheduler};
use crate::machine::{Mono, Now, Wall};
use crate::object::{Nano, Node, Object, Pod};
use crate::random::Rng;

/// Everything that is true, as API objects.
#[derive(Default)]
struct World {
    nodes: BTreeMap<String, Node>,
    /// With the node that each is on, if any.
    pods: BTreeMap<String, (Pod, Option<String>)>,
}

fn amount(list: Option<&BTreeMap<String, Quantity>>, name: &str) -> Nano {
    list.and_then(|l| l.get(name)).map_or(Nano(0), Nano::of)
}

/// In the unit that Kubernetes counts in, rounded up.
fn rounded(name: &str, n: Nano) -> i64 {
    let unit = if name == "cpu" { 1_000_000 } else { 1_000_000_000 };
    ((n.0 + unit - 1) / unit) as i64
}

fn whole_pod(pod: &Pod) -> Option<&BTreeMap<String, Quantity>> {
    pod.spec.resources.as_ref().and_then(|r| r.requests.as_ref())
}

fn requests(c: &core_v1::Container) -> Option<&BTreeMap<String, Quantity>> {
    c.resources.as_ref().and_then(|r| r.requests.as_ref())
}

/// What a container counts with: the greatest of spec and status, or the status where its resize is infeasible.
fn counted(pod: &Pod, c: &core_v1::Container, name: &str) -> Nano {
    let status = pod.status.container_statuses.iter().find(|s| s.name == *c.name.as_str());
    let Some(said) = status.and_then(|s| s.rest.as_ref()).filter(|r| r.resources.is_some()) else {
        return amount(requests(c), name);
    };
    let infeasible = pod.status.conditions.iter().any(|c| c.type_ == *"PodResizePending" && c.reason == *"Infeasible");
    let given = amount(said.allocated_resources.as_ref(), name);
    let taken = amount(said.resources.as_ref().and_then(|r| r.requests.as_ref()), name);
    let asked = if infeasible { Nano(0) } else { amount(requests(c), name) };
    given.max(taken).max(asked)
}

fn asked(pod: &Pod, name: &str) -> i64 {
    let exact = if whole_pod(pod).is_some_and(|r| r.contains_key(name)) && name != "example.com/gpu" {
        amount(whole_pod(pod), name)
    } else {
        Nano(pod.spec.containers.iter().map(|c| counted(pod, c, name).0).sum())
    };
    rounded(name, exact)
}

fn asked_or_default(pod: &Pod, name: &str, default: Nano) -> i64 {
    let mine = whole_pod(pod).is_some_and(|r| r.contains_key("cpu") || r.contains_key("memory"));
    let somebody = pod.spec.containers.iter().any(|c| requests(c).is_some_and(|r| r.contains_key(name)));
    if mine && (somebody || whole_pod(pod).is_some_and(|r| r.contains_key(name))) {
        return asked(pod, name);
    }
    let of = |c: &core_v1::Container| {
        if requests(c).is_some_and(|r| r.contains_key(name)) { counted(pod, c, name).0 } else { default.0 }
    };
    rounded(name, Nano(pod.spec.containers.iter().map(of).sum()))
}

fn host_ports(pod: &Pod) -> Vec<(i32, String, String)> {
    let ports = pod.spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
    let ports = ports.filter(|p| p.host_port.is_some());
    ports
        .map(|p| {
            let ip = p.host_ip.clone().unwrap_or_else(|| "0.0.0.0".to_owned());
            (p.host_port.unwrap(), p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), ip)
        })
        .collect()
}

fn tolerated(pod: &Pod, key: &str, value: &str, effect: &str) -> bool {
    pod.spec.tolerations.iter().flatten().any(|t| {
        let effect_ok = t.effect.as_deref().is_none_or(|e| e == effect);
        let key_ok = t.key.as_deref().is_none_or(|k| k == key);
        let value_ok = t.operator.as_deref() == Some("Exists") || t.value.as_deref().unwrap_or("") == value;
        effect_ok && key_ok && value_ok
    })
}

fn requirement(labels: &BTreeMap<String, String>, r: &core_v1::NodeSelectorRequirement) -> bool {
    let value = labels.get(&r.key);
    let values = r.values.clone().unwrap_or_default();
    match r.operator.as_str() {
        "In" => value.is_some_and(|v| values.contains(v)),
        "NotIn" => value.is_none_or(|v| !values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > values[0].parse::<i64>().unwrap()),
        "Lt" => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < values[0].parse::<i64>().unwrap()),
        other => panic!("{other}"),
    }
}

fn term(node: &Node, t: &core_v1::NodeSelectorTerm) -> bool {
    let labels = node.meta.labels.clone().unwrap_or_default();
    let name = BTreeMap::from([("metadata.name".to_owned(), node.name().to_owned())]);
    let (e, f) = (t.match_expressions.iter().flatten(), t.match_fields.iter().flatten());
    (e.clone().count() + f.clone().count() > 0)
        && e.into_iter().all(|r| requirement(&labels, r))
        && f.into_iter().all(|r| requirement(&name, r))
}

fn affinity(pod: &Pod) -> Option<&core_v1::NodeAffinity> {
    pod.spec.affinity.as_ref()?.node_affinity.as_ref()
}

impl World {
    fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> + Clone {
        self.pods.values().filter(move |(_, on)| on.as_deref() == Some(node)).map(|(p, _)| p)
    }

    fn reasons(&self, pod: &Pod, node: &Node) -> (Vec<String>, bool) {
        let one = |s: &str| (vec![s.to_owned()], true);
        if node.spec.unschedulable == Some(true)
            && !tolerated(pod, "node.kubernetes.io/unschedulable", "", "NoSchedule")
        {
            return one("node(s) were unschedulable");
        }
        for t in node.spec.taints.iter().flatten().filter(|t| t.effect != "PreferNoSchedule") {
            if !tolerated(pod, &t.key, t.value.as_deref().unwrap_or(""), &t.effect) {
                return one("node(s) had untolerated taint(s)");
            }
        }
        let labels = node.meta.labels.clone().unwrap_or_default();
        let selected = pod.spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
        let required = affinity(pod).and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        if !selected || required.is_some_and(|s| !s.node_selector_terms.iter().any(|t| term(node, t))) {
            return one("node(s) didn't match Pod's node affinity/selector");
        }
        let taken: Vec<_> = self.on(node.name()).flat_map(host_ports).collect();
        for (port, protocol, ip) in host_ports(pod) {
            let any = "0.0.0.0";
            if taken.iter().any(|(p, q, i)| *p == port && *q == protocol && (i == any || ip == any || *i == ip)) {
                return (vec!["node(s) didn't have free ports for the requested pod ports".to_owned()], false);
            }
        }
        let allocatable = node.status.allocatable.as_ref();
        let mut short = Vec::new();
        let mut hopeless = false;
        if self.on(node.name()).count() as i64 + 1 > rounded("pods", amount(allocatable, "pods")) {
            short.push("Too many pods".to_owned());
        }
        for r in ["cpu", "memory", "ephemeral-storage", "example.com/gpu"] {
            let (wanted, whole) = (asked(pod, r), rounded(r, amount(allocatable, r)));
            let used: i64 = self.on(node.name()).map(|p| asked(p, r)).sum();
            if wanted > 0 && wanted > whole - used {
                short.push(format!("Insufficient {r}"));
                hopeless |= wanted > whole;
            }
        }
        (short, hopeless)
    }

    fn plain_score(&self, pod: &Pod, node: &Node) -> i64 {
        let allocatable = node.status.allocatable.as_ref();
        let mut parts = Vec::new();
        for (r, default) in [("cpu", Nano(100_000_000)), ("memory", Nano((200 << 20) * 1_000_000_000))] {
            let whole = rounded(r, amount(allocatable, r));
            let used: i64 = self.on(node.name()).chain([pod]).map(|p| asked_or_default(p, r, default)).sum();
            if whole > 0 {
                let hundredfold = i128::from(whole - used) * 100;
                parts.push(if used > whole { 0 } else { (hundredfold / i128::from(whole)) as i64 });
            }
        }
        let least = parts.iter().sum::<i64>() / (parts.len() as i64).max(1);
        let balance = |pods: &[&Pod]| {
            let fractions: Vec<f64> = ["cpu", "memory"]
                .iter()
                .filter(|r| rounded(r, amount(allocatable, r)) > 0)
                .map(|r| {
                    let used: i64 = pods.iter().map(|p| asked(p, r)).sum();
                    f64::min(1.0, used as f64 / rounded(r, amount(allocatable, r)) as f64)
                })
                .collect();
            let deviation = if fractions.len() == 2 { ((fractions[0] - fractions[1]) / 2.0).abs() } else { 0.0 };
            ((1.0 - deviation) * 100.0) as i64
        };
        let before: Vec<&Pod> = self.on(node.name()).collect();
        let after: Vec<&Pod> = before.iter().copied().chain([pod]).collect();
        let balanced = if asked(pod, "cpu") == 0 && asked(pod, "memory") == 0 {
            0
        } else {
            50 + (50 + balance(&after) - balance(&before)) / 2
        };
        least + balanced
    }

    /// The best nodes; or the message.
    fn schedule(&self, pod: &Pod) -> Result<BTreeSet<String>, String> {
        let total = self.nodes.len();
        if total == 0 {
            return Err("no nodes available to schedule pods".to_owned());
        }
        let names = self.named_only(pod);
        let (mut said, mut evict) = (BTreeMap::new(), BTreeMap::new());
        let mut feasible = Vec::new();
        for node in self.nodes.values() {
            let left_out = names.as_ref().is_some_and(|n| !n.contains(node.name()));
            let (reasons, hopeless) = if left_out {
                (vec!["node(s) didn't satisfy plugin(s) [NodeAffinity]".to_owned()], true)
            } else {
                self.reasons(pod, node)
            };
            if reasons.is_empty() {
                feasible.push(node);
                continue;
            }
            reasons.into_iter().for_each(|r| *said.entry(r).or_insert(0) += 1);
            let why = ["No preemption victims found for incoming pod", "Preemption is not helpful for scheduling"];
            *evict.entry(why[usize::from(hopeless)].to_owned()).or_insert(0) += 1;
        }
        if feasible.is_empty() {
            let list = |m: BTreeMap<String, i32>| {
                let mut all: Vec<_> = m.into_iter().map(|(r, n)| format!("{n} {r}")).collect();
                all.sort();
                all.join(", ")
            };
            let said = match names {
                Some(names) if names.is_empty() => "pod affinity terms conflict".to_owned(),
                Some(_) | None => list(said),
            };
            let head = format!("0/{total} nodes are available");
            return Err(format!("{head}: {said}. preemption: {head}: {}.", list(evict)));
        }
        let soft = |node: &&Node| {
            let taints = node.spec.taints.iter().flatten().filter(|t| t.effect == "PreferNoSchedule");
            taints.filter(|t| !tolerated(pod, &t.key, t.value.as_deref().unwrap_or(""), &t.effect)).count() as i64
        };
        let liked = |node: &&Node| {
            let terms = affinity(pod).and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
            terms.into_iter().flatten().filter(|p| term(node, &p.preference)).map(|p| i64::from(p.weight)).sum::<i64>()
        };
        let (max_soft, max_liked) =
            (feasible.iter().map(soft).max().unwrap(), feasible.iter().map(liked).max().unwrap());
        let score = |node: &&Node| {
            let taint = if max_soft == 0 { 100 } else { 100 - soft(node) * 100 / max_soft };
            let affinity = if max_liked == 0 { 0 } else { liked(node) * 100 / max_liked };
            3 * taint + 2 * affinity + self.plain_score(pod, node)
        };
        let best = feasible.iter().map(score).max().unwrap();
        Ok(feasible.iter().filter(|n| score(n) == best).map(|n| n.name().to_owned()).collect())
    }

    /// Names that every required term insists on.
    fn named_only(&self, pod: &Pod) -> Option<BTreeSet<String>> {
        let required = affinity(pod)?.required_during_scheduling_ignored_during_execution.as_ref()?;
        let mut all = BTreeSet::new();
        for t in &required.node_selector_terms {
            let mut sets = t.match_fields.iter().flatten().filter(|r| r.operator == "In");
            let first: BTreeSet<String> = sets.next()?.values.clone().unwrap().into_iter().collect();
            let both =
                sets.fold(first, |a, r| a.into_iter().filter(|n| r.values.as_ref().unwrap().contains(n)).collect());
            all.extend(both);
        }
        Some(all)
    }
}

#[derive(Clone, Debug)]
enum Move {
    PutNode(u8, Value),
    RemoveNode(u8),
    AddPod(Value),
    /// Of those there are, counted round.
    RemovePod(u8),
    /// A decided pod is shown bound.
    Confirm(u8),
    /// A decided pod is not bound after all.
    Forget(u8),
    /// A pod on a node, perhaps one that is not there, by somebody else.
    Foreign(u8, Value),
}

fn pick<T: Clone + std::fmt::Debug + 'static>(choices: &[T]) -> BoxedStrategy<T> {
    prop::sample::select(choices.to_vec()).boxed()
}

fn node_body() -> impl Strategy<Value = Value> {
    let taint = (pick(&["a", "b"]), pick(&["", "x"]), pick(&["NoSchedule", "PreferNoSchedule", "NoExecute"]));
    let taints = prop::collection::vec(taint, 0..3);
    let labels = prop::collection::btree_map(pick(&["zone", "disk", "n"]), pick(&["1", "2", "30"]), 0..3);
    let size =
        (pick(&["500m", "1", "4"]), pick(&["1Gi", "2Gi", "0", "300Ti"]), pick(&["2", "3", "110"]), pick(&["0", "1", "2"]));
    (prop::bool::weighted(0.1), prop::bool::weighted(0.4), taints, labels, size).prop_map(
        |(cordoned, tainted, taints, labels, (cpu, memory, pods, gpu))| {
            let taints: Vec<_> = taints
                .iter()
                .filter(|_| tainted)
                .map(|(k, v, e)| {
                    if v.is_empty() {
                        json!({"key": k, "effect": e})
                    } else {
                        json!({"key": k, "value": v, "effect": e})
                    }
                })
                .collect();
            json!({"labels": labels, "spec": {"unschedulable": cordoned, "taints": taints}, "status": {"allocatable": {
                "cpu": cpu, "memory": memory, "pods": pods, "ephemeral-storage": "10Gi", "example.com/gpu": gpu}}})
        },
    )
}

fn selector_term() -> impl Strategy<Value = Value> {
    let expression = prop_oneof![
        (pick(&["In", "NotIn"]), pick(&["zone", "disk", "n"]), prop::collection::vec(pick(&["1", "2", "30"]), 1..3))
            .prop_map(|(op, key, values)| json!({"key": key, "operator": op, "values": values})),
        (pick(&["Exists", "DoesNotExist"]), pick(&["zone", "disk", "n"]))
            .prop_map(|(op, key)| json!({"key": key, "operator": op})),
        (pick(&["Gt", "Lt"]), pick(&["n", "zone"]), pick(&["1", "2", "15"]))
            .prop_map(|(op, key, value)| json!({"key": key, "operator": op, "values": [value]})),
    ];
    let field = (pick(&["In", "In", "NotIn"]), prop::collection::vec(pick(&["n0", "n1", "n2", "n9"]), 1..3))
        .prop_map(|(op, values)| json!({"key": "metadata.name", "operator": op, "values": values}));
    let fields = prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(field, 1..3)];
    (prop::collection::vec(expression, 0..3), fields)
        .prop_map(|(e, f)| json!({"matchExpressions": e, "matchFields": f}))
}

fn pod_spec() -> impl Strategy<Value = Value> {
    let request = (pick(&["", "100m", "250m", "2", "300u"]), pick(&["", "100Mi", "600Mi", "700m"]), pick(&["", "", "1"]));
    let whole = prop_oneof![
        5 => Just(json!(null)),
        1 => (pick(&["cpu", "memory"]), pick(&["300m", "200Mi"])).prop_map(|(r, n)| json!({"requests": {r: n}})),
    ];
    let port = prop_oneof![
        3 => Just(None),
        1 => (pick(&[80, 81]), pick(&["TCP", "UDP"]), pick(&["0.0.0.0", "10.0.0.1", "10.0.0.2"])).prop_map(Some),
    ];
    let toleration = prop_oneof![
        (pick(&["a", "b"]), pick(&["", "NoSchedule", "PreferNoSchedule"])).prop_map(|(k, e)| {
            let mut t = json!({"key": k, "operator": "Exists"});
            if !e.is_empty() {
                t["effect"] = json!(e);
            }
            t
        }),
        Just(json!({"key": "a", "value": "x"})),
        Just(json!({"operator": "Exists"})),
    ];
    let required = prop_oneof![3 => Just(None), 1 => prop::collection::vec(selector_term(), 1..3).prop_map(Some)];
    let preferred = prop_oneof![
        2 => Just(vec![]),
        1 => prop::collection::vec((1..100i32, selector_term()), 1..3),
    ];
    let selector = prop_oneof![4 => Just(None), 1 => (pick(&["zone", "disk"]), pick(&["1", "2"])).prop_map(Some)];
    (request, whole, port, prop::collection::vec(toleration, 0..2), required, preferred, selector).prop_map(
        |((cpu, memory, gpu), whole, port, tolerations, required, preferred, selector)| {
            let mut requests = json!({});
            for (name, q) in [("cpu", cpu), ("memory", memory), ("example.com/gpu", gpu)] {
                if !q.is_empty() {
                    requests[name] = json!(q);
                }
            }
            let ports: Vec<_> = port
                .iter()
                .map(|(p, protocol, ip)| json!({"containerPort": p, "hostPort": p, "protocol": protocol, "hostIP": ip}))
                .collect();
            let mut affinity = json!({});
            if let Some(terms) = required {
                affinity["requiredDuringSchedulingIgnoredDuringExecution"] = json!({"nodeSelectorTerms": terms});
            }
            let preferred: Vec<_> = preferred.iter().map(|(w, t)| json!({"weight": w, "preference": t})).collect();
            affinity["preferredDuringSchedulingIgnoredDuringExecution"] = json!(preferred);
            let second = json!({"name": "d", "resources": {"requests": {"cpu": "300u", "memory": "300m"}}});
            let mut spec = json!({"tolerations": tolerations, "affinity": {"nodeAffinity": affinity}, "resources": whole,
                "containers": [{"name": "c", "ports": ports, "resources": {"requests": requests}}, second]});
            if let Some((key, value)) = selector {
                spec["nodeSelector"] = json!({key: value});
            }
            spec
        },
    )
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    // Few different specs, so that shapes are shared and their tables are used again.
    (prop::collection::vec(pod_spec(), 1..5), prop::collection::vec(node_body(), 1..4)).prop_flat_map(
        |(specs, bodies)| {
            let spec = move || prop::sample::select(specs.clone());
            let one = prop_oneof![
                4 => (0..8u8, prop::sample::select(bodies)).prop_map(|(n, b)| Move::PutNode(n, b)),
                1 => (0..8u8).prop_map(Move::RemoveNode),
                8 => spec().prop_map(Move::AddPod),
                2 => any::<u8>().prop_map(Move::RemovePod),
                3 => any::<u8>().prop_map(Move::Confirm),
                1 => any::<u8>().prop_map(Move::Forget),
                1 => (0..8u8, spec()).prop_map(|(n, s)| Move::Foreign(n, s)),
            ];
            prop::collection::vec(one, 1..80)
        },
    )
}

fn node(n: u8, body: &Value) -> Node {
    let object = json!({"apiVersion": "v1", "kind": "Node", "spec": body["spec"], "status": body["status"],
        "metadata": {"name": format!("n{n}"), "labels": body["labels"]}});
    match Object::from_json(object).unwrap() {
        Object::Node(n) => n,
        other => panic!("{other:?}"),
    }
}

fn pod(name: &str, spec: &Value, node: Option<&str>) -> Pod {
    let mut spec = spec.clone();
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
    let meta = json!({"name": name, "namespace": "d", "uid": format!("uid-{name}")});
    match Object::from_json(json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})).unwrap() {
        Object::Pod(p) => p,
        other => panic!("{other:?}"),
    }
}

fn bound(p: &Pod, node: &str) -> Pod {
    let mut p = p.clone();
    p.spec_mut().node = Some(node.into());
    p
}

/// Plays moves; after each, every decision must be one that the naive scheduler would have taken.
fn play(moves: &[Move]) {
    let (mut s, mut world) = (Scheduler::new("default-scheduler".into(), Rng::from_seed(7)), World::default());
    let mut now = Now { mono: Mono(0), wall: Wall(0) };
    for (i, m) in moves.iter().enumerate() {
        let nth = |world: &World, n: u8, on: bool| {
            let of: Vec<_> =
                world.pods.iter().filter(|(_, (_, at))| at.is_some() == on).map(|(k, _)| k.clone()).collect();
            if of.is_empty() { None } else { Some(of[usize::from(n) % of.len()].clone()) }
        };
        match m {
            Move::PutNode(n, body) => {
                let node = node(*n, body);
                s.node_changed(now, &node);
                world.nodes.insert(node.name().to_owned(), node);
            }
            Move::RemoveNode(n) => {
                s.node_removed(&format!("n{n}"));
                world.nodes.remove(&format!("n{n}"));
            }
            Move::AddPod(spec) => {
                let p = pod(&format!("p{i}"), spec, None);
                s.pod_changed(now, &p);
                world.pods.insert(p.name().to_owned(), (p, None));
            }
            Move::Foreign(n, spec) => {
                let p = pod(&format!("p{i}"), spec, Some(&format!("n{n}")));
                s.pod_changed(now, &p);
                world.pods.insert(p.name().to_owned(), (p, Some(format!("n{n}"))));
            }
            Move::RemovePod(n) => {
                if let Some(name) = nth(&world, *n, n % 3 != 0) {
                    let (p, _) = world.pods.remove(&name).unwrap();
                    s.pod_removed(now, &p.key());
                }
            }
            Move::Confirm(n) => {
                if let Some(name) = nth(&world, *n, true) {
                    let (p, at) = &world.pods[&name];
                    // A view that is behind first, then one that is not.
                    let mut behind = p.clone();
                    behind.spec_mut().node = None;
                    s.pod_changed(now, &behind);
                    s.pod_changed(now, &bound(p, at.as_ref().unwrap()));
                }
            }
            Move::Forget(n) => {
                if let Some(name) = nth(&world, *n, true).filter(|n| s.is_assumed(&world.pods[n].0.key())) {
                    let (p, at) = world.pods.get_mut(&name).unwrap();
                    *at = None;
                    s.forget(now, &p.key(), p.uid());
                }
            }
        }
        now.mono = now.mono + std::time::Duration::from_secs(11);
        s.handle_timeout(now);
        decide(&mut s, &mut world, now);
        check_counts(&s, &world);
        check_nobody_is_left_waiting(&mut s, &mut world, &mut now);
    }
}

fn decide(s: &mut Scheduler, world: &mut World, now: Now) {
    while let Some(decision) = s.next(now) {
        let key = match &decision {
            Decision::Bind { pod, .. } | Decision::Unschedulable { pod, .. } => pod.name().to_owned(),
        };
        let expect = world.schedule(&world.pods[&key].0);
        match (decision, expect) {
            (Decision::Bind { node, .. }, Ok(best)) => {
                assert!(best.contains(&*node), "{key}: chose {node}, best are {best:?}");
                world.pods.get_mut(&key).unwrap().1 = Some(node.to_string());
            }
            (Decision::Unschedulable { message, .. }, Err(expect)) => assert_eq!(message, expect, "{key}"),
            (decision, expect) => panic!("{key}: {decision:?}, but {expect:?}"),
        }
    }
}

/// What is counted on each node is what is there.
fn check_counts(s: &Scheduler, world: &World) {
    use super::cache::ResourceId;
    for name in world.nodes.keys() {
        let slot = s.nodes().slot(name).unwrap();
        for (r, text) in [(ResourceId::CPU, "cpu"), (ResourceId::MEMORY, "memory")] {
            assert_eq!(
                s.nodes().requested(r, slot),
                world.on(name).map(|p| asked(p, text)).sum::<i64>(),
                "{name} {text}"
            );
        }
        assert_eq!(s.nodes().requested(ResourceId::PODS, slot), world.on(name).count() as i64);
    }
    assert_eq!(s.nodes().len(), world.nodes.len());
}

/// Pods that wait do so for a reason: no event that helps has been missed.
fn check_nobody_is_left_waiting(s: &mut Scheduler, world: &mut World, now: &mut Now) {
    // Back-offs end; the flush after five minutes must not be what helps.
    for _ in 0..3 {
        now.mono = now.mono + std::time::Duration::from_secs(10);
        s.handle_timeout(*now);
        decide(s, world, *now);
    }
    for (name, (p, at)) in &world.pods {
        if at.is_none() {
            assert!(world.schedule(p).is_err(), "{name} waits, but could run");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn decides_as_from_scratch(moves in moves()) {
        play(&moves);
    }
}
