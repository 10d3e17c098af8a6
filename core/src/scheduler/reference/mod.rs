//! Compares the scheduler with a naive one, which filters and scores every node from the API objects, each time from
//! scratch, and shares no code with it except the parsing of quantities and selectors. Profiles are drawn too.
//!
//! CI runs a thousand cases; `PROPTEST_CASES=10000 cargo test --release -p skeg-core decides_as_from_scratch`
//! runs ten thousand.

mod devices;
mod evict;
mod gangs;
mod gpu;
mod naive;
mod profiles;
mod storage;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use evict::Outcome;
use naive::{Naive, World};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::advice::Verdict;
use super::preemption::{Budget, Nomination};
use super::profile::Profile;
use super::{Decision, Scheduler};
use crate::machine::{Mono, Now, Wall};
use crate::object::{Kind, Labels, Node, Object, Pod, Selector};
use crate::random::Rng;

#[derive(Clone, Debug)]
enum Move {
    PutNode(u8, Value),
    RemoveNode(u8),
    AddPod(Value),
    /// An index, modulo the number of pods.
    RemovePod(u8),
    /// Starts to delete a pod on a node.
    EndPod(u8),
    /// Reports that an assumed pod is bound, and perhaps that it has started.
    Confirm(u8),
    /// Reports that the bind of an assumed pod has failed.
    Forget(u8),
    /// Somebody else binds a pod to a node, which may not exist.
    Foreign(u8, Value),
    /// Changes the selector of a namespace's Service, ReplicaSet or budget; `None` deletes it.
    Select(u8, &'static str, Option<&'static str>, i32),
    /// Changes a namespace's label.
    Namespace(&'static str, Option<&'static str>),
    /// Changes claims, volumes and what they depend on.
    Store(storage::Change),
    /// Changes claims for devices, devices and classes.
    Publish(devices::Change),
    /// Changes a PodGroup.
    Group(gangs::Change),
}

const NAMESPACES: [&str; 2] = ["d", "e"];

fn pick<T: Clone + std::fmt::Debug + 'static>(choices: &[T]) -> BoxedStrategy<T> {
    prop::sample::select(choices.to_vec()).boxed()
}

fn node_body() -> impl Strategy<Value = Value> {
    let taint = (pick(&["a", "b"]), pick(&["", "x"]), pick(&["NoSchedule", "PreferNoSchedule", "NoExecute"]));
    let taints = prop::collection::vec(taint, 0..3);
    let labels = prop::collection::btree_map(pick(&["zone", "disk", "n"]), pick(&["1", "2", "30"]), 0..3);
    let size = (
        pick(&["500m", "1", "4"]),
        pick(&["1Gi", "2Gi", "0", "300Ti"]),
        pick(&["2", "3", "110"]),
        pick(&["0", "1", "2"]),
        (pick(&["0", "1000", "2000", "3500"]), pick(&["", "T4", "A10", "P4"])),
    );
    let image = pick(&[("r/a:latest", 900), ("r/a:2", 300), ("b:latest", 70), ("b:latest", 70), ("r/v:1", 2000)]);
    let images = prop_oneof![1 => Just(vec![]), 1 => prop::collection::vec(image, 1..4)];
    (prop::bool::weighted(0.1), prop::bool::weighted(0.4), taints, labels, size, images).prop_map(
        |(cordoned, tainted, taints, labels, (cpu, memory, pods, gpu, (milli, model)), images)| {
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
            let mut labels = json!(labels);
            if labels.get("zone").is_some() {
                labels["topology.kubernetes.io/zone"] = labels["zone"].clone();
            }
            if !model.is_empty() {
                labels[gpu::MODEL] = json!(model);
            }
            let image = |(name, mb): (&str, i64)| json!({"names": [name], "sizeBytes": mb << 20});
            let images: Vec<_> = images.into_iter().map(image).collect();
            json!({"labels": labels, "spec": {"unschedulable": cordoned, "taints": taints}, "status": {
                "allocatable": {"cpu": cpu, "memory": memory, "pods": pods, "ephemeral-storage": "10Gi",
                    "example.com/gpu": gpu, gpu::GPU: milli}, "images": images}})
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

fn own_spec() -> impl Strategy<Value = Value> {
    let request =
        (pick(&["", "100m", "250m", "2", "300u"]), pick(&["", "100Mi", "600Mi", "700m"]), pick(&["", "", "1"]));
    let disk = pick(&["", "1Gi", "3Gi"]);
    let share = pick(&["", "", "", "100", "250", "400", "600", "1000", "2000", "1500"]);
    let request = (request, disk, share);
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
    let image = pick(&["r/a", "r/a:2", "b", "c"]);
    (request, whole, port, prop::collection::vec(toleration, 0..2), required, preferred, selector, image).prop_map(
        |(((cpu, memory, gpu), disk, share), whole, port, tolerations, required, preferred, selector, image)| {
            let mut requests = json!({});
            let all = [("cpu", cpu), ("memory", memory), ("example.com/gpu", gpu), ("ephemeral-storage", disk)];
            for (name, q) in all.into_iter().chain([(gpu::GPU, share)]) {
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
            let second = json!({"name": "d", "image": "b", "resources": {"requests": {"cpu": "300u", "memory": "300m"}}});
            let mut spec = json!({"tolerations": tolerations, "affinity": {"nodeAffinity": affinity}, "resources": whole,
                "containers": [{"name": "c", "image": image, "ports": ports, "resources": {"requests": requests}}, second]});
            if let Some((key, value)) = selector {
                spec["nodeSelector"] = json!({key: value});
            }
            spec
        },
    )
}

fn label_selector() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (pick(&["app", "tier"]), pick(&["a", "b"])).prop_map(|(k, v)| json!({"matchLabels": {k: v}})),
        1 => Just(json!({})),
        1 => Just(json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]})),
        1 => Just(json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["a"]}]})),
    ]
}

fn topology_key() -> BoxedStrategy<&'static str> {
    pick(&["zone", "zone", "disk", "kubernetes.io/hostname", "kubernetes.io/hostname"])
}

fn spread() -> impl Strategy<Value = Value> {
    let policies = (pick(&[None, Some("Honor"), Some("Ignore")]), pick(&[None, Some("Honor"), Some("Ignore")]));
    let kind = (pick(&["DoNotSchedule", "ScheduleAnyway"]), 1..3i32, pick(&[None, None, Some(1), Some(2), Some(3)]));
    (topology_key(), label_selector(), kind, policies, prop::bool::weighted(0.2)).prop_map(
        |(key, selector, (when, max_skew, min_domains), (affinity, taints), by_tier)| {
            let mut c = json!({"topologyKey": key, "whenUnsatisfiable": when, "maxSkew": max_skew,
                "labelSelector": selector});
            let set = |c: &mut Value, field: &str, value: Value| {
                if !value.is_null() {
                    c[field] = value;
                }
            };
            set(&mut c, "minDomains", json!(min_domains.filter(|_| when == "DoNotSchedule")));
            set(&mut c, "nodeAffinityPolicy", json!(affinity));
            set(&mut c, "nodeTaintsPolicy", json!(taints));
            if by_tier {
                c["matchLabelKeys"] = json!(["tier"]);
            }
            c
        },
    )
}

fn pod_term() -> impl Strategy<Value = Value> {
    let whose = prop_oneof![
        4 => Just(json!({})),
        1 => Just(json!({"namespaces": ["e"]})),
        1 => Just(json!({"namespaceSelector": {}})),
        1 => Just(json!({"namespaceSelector": {"matchLabels": {"team": "x"}}})),
        1 => Just(json!({"matchLabelKeys": ["tier"]})),
        1 => Just(json!({"mismatchLabelKeys": ["tier"]})),
    ];
    (topology_key(), label_selector(), whose).prop_map(|(key, selector, whose)| {
        let mut term = json!({"topologyKey": key, "labelSelector": selector});
        json_patch::merge(&mut term, &whose);
        term
    })
}

/// Labels, namespace, priority and rules about other pods, merged over the rules about nodes.
fn pod_spec() -> impl Strategy<Value = Value> {
    let none = || Just(Vec::<Value>::new());
    let some = |one: BoxedStrategy<Value>| prop_oneof![3 => none(), 1 => prop::collection::vec(one, 1..3)];
    let weighted = || (1..100i32, pod_term()).prop_map(|(w, t)| json!({"weight": w, "podAffinityTerm": t})).boxed();
    let terms = (some(pod_term().boxed()), some(pod_term().boxed()), some(weighted()), some(weighted()));
    let labels = prop::collection::btree_map(pick(&["app", "tier"]), pick(&["a", "b"]), 0..3);
    let who = (pick(&NAMESPACES), labels, pick(&[0, 0, 5, 10]), prop::bool::weighted(0.1), prop::bool::weighted(0.4));
    let constraints = prop_oneof![2 => none(), 1 => prop::collection::vec(spread(), 1..3)];
    let scheduler = (0..12usize, pick(&["", "", "0", "1", "0-1", "2", "x", "0-64"]));
    let claims = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(pick(&["c0", "c1"]), 1..3)];
    let claims = (claims, (devices::pod_claims(), gangs::of_pod()));
    ((own_spec(), scheduler), constraints, terms, who, claims).prop_map(
        |(
            (mut spec, (scheduler, devices)),
            constraints,
            (near, far, liked, disliked),
            (namespace, labels, priority, never, owned),
            (claims, (device_claims, group)),
        )| {
            let (required, preferred) =
                ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
            spec["affinity"]["podAffinity"] = json!({required: near, preferred: liked});
            spec["affinity"]["podAntiAffinity"] = json!({required: far, preferred: disliked});
            spec["topologySpreadConstraints"] = json!(constraints);
            spec["priority"] = json!(priority);
            let volume = |claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
            spec["volumes"] = claims.into_iter().map(volume).collect();
            if !device_claims.is_empty() {
                spec["resourceClaims"] = json!(device_claims);
            }
            if let Some(group) = group {
                spec["schedulingGroup"] = json!({"podGroupName": group});
            }
            if spec["containers"][0]["image"] == "c" {
                let image = json!({"name": "image", "image": {"reference": "r/v:1"}});
                spec["volumes"].as_array_mut().expect("a list").push(image);
            }
            if never {
                spec["preemptionPolicy"] = json!("Never");
            }
            json!({"spec": spec, "namespace": namespace, "labels": labels, "owned": owned, "scheduler": scheduler,
                "devices": devices})
        },
    )
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    // Few different specs, so that shapes are shared and their tables are reused.
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
                1 => any::<u8>().prop_map(Move::EndPod),
                1 => (0..3u8, pick(&NAMESPACES), pick(&[None, Some("a"), Some("b")]), 0..3i32)
                    .prop_map(|(what, ns, value, allowed)| Move::Select(what, ns, value, allowed)),
                1 => (pick(&NAMESPACES), pick(&[None, Some("x"), Some("y")]))
                    .prop_map(|(ns, team)| Move::Namespace(ns, team)),
                5 => storage::change().prop_map(Move::Store),
                5 => devices::change().prop_map(Move::Publish),
                2 => gangs::change().prop_map(Move::Group),
            ];
            let rest = prop::collection::vec(one, 1..50);
            (devices::beginning(), rest).prop_map(|(first, rest)| {
                let first = first.into_iter().map(Move::Publish);
                first.chain(rest).collect()
            })
        },
    )
}

fn node(n: u8, body: &Value) -> Node {
    let object = json!({"apiVersion": "v1", "kind": "Node", "spec": body["spec"], "status": body["status"],
        "metadata": {"name": format!("n{n}"), "labels": body["labels"]}});
    let mut object = object;
    // Some nodes lack the label, and two have the same value.
    if n != 7 {
        object["metadata"]["labels"]["kubernetes.io/hostname"] = json!(format!("n{}", n.min(5)));
    }
    match Object::from_json(object).unwrap() {
        Object::Node(n) => n,
        other => panic!("{other:?}"),
    }
}

/// A pod of one of the profiles, or now and then of none.
fn pod(profiles: &[Profile], name: &str, whole: &Value, node: Option<&str>) -> Pod {
    let mut spec = whole["spec"].clone();
    let scheduler = whole["scheduler"].as_u64().unwrap() as usize;
    spec["schedulerName"] = match scheduler {
        0 => json!("nobody"),
        n => json!(profiles[n % profiles.len()].name),
    };
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
    let mut meta = json!({"name": name, "namespace": whole["namespace"], "uid": format!("uid-{name}"),
        "labels": whole["labels"]});
    if whole["devices"] != "" {
        meta["annotations"] = json!({gpu::INDEX: whole["devices"]});
    }
    if whole["owned"] == json!(true) {
        meta["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "set", "uid": "s", "controller": true}]);
    }
    let status = json!({"resourceClaimStatuses": devices::pod_statuses()});
    let whole = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status});
    match Object::from_json(whole).unwrap() {
        Object::Pod(p) => p,
        other => panic!("{other:?}"),
    }
}

fn bound(p: &Pod, node: &str) -> Pod {
    let mut p = p.clone();
    p.spec_mut().node = Some(node.into());
    p
}

struct Play {
    s: Scheduler,
    world: World,
    now: Now,
}

/// Carries out moves. After each one, every decision must be one that the naive scheduler could have made.
fn play(profiles: Vec<Profile>, moves: &[Move]) {
    let s = Scheduler::new(&profiles, Rng::from_seed(7)).with_gangs(true);
    let mut p = Play { s, world: World { profiles, ..World::default() }, now: Now { mono: Mono(0), wall: Wall(0) } };
    for (i, m) in moves.iter().enumerate() {
        p.carry_out(i, m);
        p.now.mono = p.now.mono + Duration::from_secs(11);
        p.s.handle_timeout(p.now);
        p.decide();
        p.check_counts();
        p.check_scores(|n| n == i % 8);
        if i % 8 == 7 || i + 1 == moves.len() {
            p.check_nobody_is_left_waiting();
            p.check_scores(|_| true);
        }
    }
}

impl Play {
    /// The n-th pod (modulo their number) of those that are on a node, or of those that are not.
    fn nth(&self, n: u8, on: bool) -> Option<String> {
        let of = self.world.pods.iter().filter(|(_, p)| p.on.is_some() == on).map(|(k, _)| k);
        let of: Vec<_> = of.collect();
        if of.is_empty() { None } else { Some(of[usize::from(n) % of.len()].clone()) }
    }

    fn carry_out(&mut self, i: usize, m: &Move) {
        let now = self.now;
        match m {
            Move::PutNode(n, body) => {
                let node = node(*n, body);
                self.s.node_changed(now, &node);
                self.world.nodes.insert(node.name().to_owned(), node);
            }
            Move::RemoveNode(n) => {
                self.s.node_removed(now, &format!("n{n}"));
                self.world.nodes.remove(&format!("n{n}"));
            }
            Move::AddPod(spec) => {
                let p = pod(&self.world.profiles, &format!("p{i}"), spec, None);
                self.s.pod_changed(now, &p);
                let mut p = Naive::new(p, None);
                p.waits = self.world.profile(&p.pod).is_some();
                self.world.pods.insert(p.pod.name().to_owned(), p);
            }
            Move::Foreign(n, spec) => {
                let p = pod(&self.world.profiles, &format!("p{i}"), spec, Some(&format!("n{n}")));
                self.s.pod_changed(now, &p);
                self.world.pods.insert(p.name().to_owned(), Naive::new(p, Some(format!("n{n}"))));
            }
            Move::RemovePod(n) => {
                if let Some(name) = self.nth(*n, n % 3 != 0) {
                    let p = self.world.pods.remove(&name).unwrap();
                    self.s.pod_removed(now, &p.pod.key());
                }
            }
            Move::EndPod(n) => {
                if let Some(name) = self.nth(*n, true) {
                    let p = self.world.pods.get_mut(&name).unwrap();
                    p.pod.meta_mut().deletion_timestamp = Some(Wall(0).to_time());
                    p.steps.clear();
                    p.allocations.clear();
                    self.s.pod_changed(now, &bound(&p.pod, p.on.as_ref().unwrap()));
                }
            }
            Move::Confirm(n) => {
                if let Some(name) = self.nth(*n, true) {
                    self.carry_out_steps(&name);
                    self.carry_out_claims(&name);
                    let p = self.world.pods.get_mut(&name).unwrap();
                    // First a view that lags, then one that does not.
                    let mut behind = p.pod.clone();
                    behind.spec_mut().node = None;
                    self.s.pod_changed(now, &behind);
                    p.pod.status_mut().start_time = Some(Wall(i64::from(n % 4) * 1_000_000).to_time()).into();
                    self.s.pod_changed(now, &bound(&p.pod, p.on.as_ref().unwrap()));
                }
            }
            Move::Forget(n) => {
                let assumed = |name: &String| self.s.is_assumed(&self.world.pods[name].pod.key());
                if let Some(name) = self.nth(*n, true).filter(assumed) {
                    let p = self.world.pods.get_mut(&name).unwrap();
                    p.on = None;
                    p.steps.clear();
                    p.allocations.clear();
                    p.pod.meta_mut().annotations = p.annotations.clone();
                    self.s.forget(now, &p.pod.key(), p.pod.uid());
                }
            }
            Move::Store(change) => self.store(change),
            Move::Publish(change) => self.publish(change),
            Move::Group(change) => self.change_group(change),
            Move::Select(what, namespace, value, allowed) => self.select(*what, namespace, *value, *allowed),
            Move::Namespace(name, team) => {
                let labels: Option<Labels> = team.map(|t| Labels::from([("team".to_owned(), t.to_owned())]));
                self.s.namespace_changed(now, name, labels.as_ref());
                match labels {
                    Some(labels) => self.world.namespaces.insert((*name).to_owned(), labels),
                    None => self.world.namespaces.remove(*name),
                };
            }
        }
    }

    fn select(&mut self, what: u8, namespace: &str, value: Option<&str>, allowed: i32) {
        let labels: Option<Labels> = value.map(|v| Labels::from([("app".to_owned(), v.to_owned())]));
        let selector = labels.as_ref().map(Selector::from_map);
        let put = |all: &mut BTreeMap<String, Labels>| match &labels {
            Some(labels) => all.insert(namespace.to_owned(), labels.clone()),
            None => all.remove(namespace),
        };
        match what {
            0 => {
                self.s.service_changed(self.now, namespace, "service", labels.as_ref());
                put(&mut self.world.services);
            }
            1 => {
                self.s.controller_changed(self.now, Kind::REPLICA_SET, namespace, "set", selector);
                put(&mut self.world.sets);
            }
            _ => {
                let disrupted = Default::default();
                let budget = selector.map(|selector| Budget { selector, allowed, disrupted });
                self.s.budget_changed(namespace, "budget", budget);
                match labels {
                    Some(labels) => self.world.budgets.insert(namespace.to_owned(), (labels, allowed)),
                    None => self.world.budgets.remove(namespace),
                };
            }
        }
    }

    fn decide(&mut self) {
        let ready = |p: &&Naive| !self.world.waits_for_claims(p) && !self.world.waits_for_group(p);
        let waiting = self.world.pods.values().filter(|p| p.waits).filter(ready);
        for name in waiting.map(|p| p.pod.name().to_owned()).collect::<Vec<_>>() {
            self.world.pods.get_mut(&name).unwrap().waits = false;
        }
        while let Some(decision) = self.s.next(self.now) {
            if let Decision::Gang(decision) = &decision {
                self.check_gang(decision);
                continue;
            }
            let (Decision::Bind { pod, .. } | Decision::Unschedulable { pod, .. }) = &decision else {
                panic!("it has no extenders: {decision:?}")
            };
            let name = pod.name().to_owned();
            let p = &self.world.pods[&name];
            assert!(!p.waits, "{name} is tried, but its claims or its group are not there");
            assert!(!self.world.waits_for_group(p) && self.world.gang(p).is_none(), "{name} is tried alone");
            let nominated = p.nominated.as_ref().and_then(|n| self.world.nodes.get(n));
            let nominated = nominated.filter(|n| self.world.refusal(p, n).is_none());
            match decision {
                Decision::Bind { node, volumes, claims, devices, .. } => {
                    let best = self.world.best(p);
                    match nominated {
                        Some(n) => assert_eq!(&*node, n.name(), "{name}: it has a node that is fine"),
                        None => {
                            assert!(best.contains(&*node), "{name}: chose {node}, best are {best:?}");
                            let slot = |node: &str| self.s.nodes().slot(node);
                            let first = best.iter().min_by_key(|node| slot(node)).map(String::as_str);
                            assert!(first == Some(&*node) || self.world.draws(p), "{name}: {node} is not the first");
                        }
                    }
                    self.check_steps(&name, &node, &volumes);
                    self.check_claims(&name, &node, &claims);
                    self.world.check_devices(&name, &node, &devices.to_string());
                    let p = self.world.pods.get_mut(&name).unwrap();
                    p.on = Some(node.to_string());
                    p.nominated = None;
                }
                Decision::Gang(_)
                | Decision::AskNodes { .. }
                | Decision::AskVictims { .. }
                | Decision::Failed { .. } => {
                    unreachable!("it was looked at above")
                }
                Decision::Unschedulable { message, nomination, idle, .. } => {
                    let best = self.world.best(p);
                    assert!(best.is_empty(), "{name}: {message}, but there are {best:?}");
                    let expect = self.world.unfit(p);
                    assert_eq!(message, expect.message, "{name}");
                    assert_eq!(idle.is_some(), expect.idle, "{name}");
                    self.nominate(&name, nomination, expect.nomination);
                }
            }
        }
    }

    fn nominate(&mut self, name: &str, nomination: Nomination, expect: Outcome) {
        match (nomination, expect) {
            (Nomination::Kept, Outcome::Kept) => {}
            (Nomination::Cleared, Outcome::Cleared) => self.world.pods.get_mut(name).unwrap().nominated = None,
            (Nomination::Preempts(got), Outcome::Preempts(best)) => {
                let victims: Vec<String> = got.victims.iter().map(|(key, _)| key.name().to_owned()).collect();
                assert_eq!(Some(&victims), best.get(&*got.node), "{name} on {}: best are {best:?}", got.node);
                victims.iter().for_each(|v| self.world.pods.get_mut(v).unwrap().is_victim = true);
                let priority = self.world.pods[name].priority;
                for p in self.world.pods.values_mut() {
                    if p.nominated.as_deref() == Some(&*got.node) && p.priority < priority {
                        assert!(got.displaced.iter().any(|(key, _)| *key == p.pod.key()));
                        p.nominated = None;
                    }
                }
                self.world.pods.get_mut(name).unwrap().nominated = Some(got.node.to_string());
            }
            (got, expect) => panic!("{name}: {got:?}, but {expect:?}"),
        }
    }

    /// Checks that the pods counted on each node are those that are there.
    fn check_counts(&self) {
        use super::resources::ResourceId;
        for name in self.world.nodes.keys() {
            let slot = self.s.nodes().slot(name).unwrap();
            let here = self.world.pods.values().filter(|p| p.on.as_ref() == Some(name));
            for (r, text) in [(ResourceId::CPU, "cpu"), (ResourceId::MEMORY, "memory")] {
                let sum: i64 = here.clone().map(|p| p.asked(text)).sum();
                assert_eq!(self.s.nodes().requested(r, slot), sum, "{name} {text}");
            }
            assert_eq!(self.s.nodes().requested(ResourceId::PODS, slot), here.count() as i64);
        }
        assert_eq!(self.s.nodes().len(), self.world.nodes.len());
    }

    /// Checks the scores of some of the pods on nodes, each as if it were on none. What all nodes score alike does not
    /// count.
    fn check_scores(&mut self, some: impl Fn(usize) -> bool) {
        let judged = |p: &&Naive| {
            let claims = p.pod.spec.resource_claims.iter().flatten().count();
            let plain = p.pod.spec.volumes.iter().flatten().count() + claims == 0;
            p.on.is_some() && plain && self.world.profile(&p.pod).is_some()
        };
        let names: Vec<String> = self.world.pods.values().filter(judged).map(|p| p.pod.name().to_owned()).collect();
        names.iter().enumerate().filter(|(i, _)| some(*i)).for_each(|(_, name)| self.check_scores_of(name));
    }

    fn check_scores_of(&mut self, name: &str) {
        let advice = self.s.advise(&self.world.pods[name].pod.key()).unwrap();
        let score = |(node, verdict): (Rc<str>, Verdict)| match verdict {
            Verdict::Fits(score) => Some((node.to_string(), i64::from(score))),
            Verdict::Refused { .. } => None,
        };
        let got: BTreeMap<String, i64> = advice.nodes.into_iter().filter_map(score).collect();
        let on = self.world.pods.get_mut(name).unwrap().on.take();
        let expect = self.world.scores(&self.world.pods[name]);
        self.world.pods.get_mut(name).unwrap().on = on;
        let below_best = |scores: &BTreeMap<String, i64>| -> Vec<(String, i64)> {
            let best = scores.values().max().copied().unwrap_or(0);
            scores.iter().map(|(node, score)| (node.clone(), best - score)).collect()
        };
        assert_eq!(below_best(&got), below_best(&expect), "{name}");
    }

    /// Checks that no pod waits that would fit: no event that helps was missed.
    fn check_nobody_is_left_waiting(&mut self) {
        // Back-offs end by then, and the flush after five minutes has not happened yet.
        for _ in 0..3 {
            self.now.mono = self.now.mono + Duration::from_secs(10);
            self.s.handle_timeout(self.now);
            self.decide();
        }
        // Whether a gang fits may depend on which of equally good nodes are drawn.
        let alone = |p: &Naive| !self.world.waits_for_group(p) && self.world.gang(p).is_none();
        let mine = |p: &Naive| p.on.is_none() && self.world.profile(&p.pod).is_some() && alone(p);
        for (name, p) in self.world.pods.iter().filter(|(_, p)| mine(p)) {
            assert!(self.world.best(p).is_empty(), "{name} waits, but could run");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(1000),
        ..ProptestConfig::default()
    })]
    #[test]
    fn decides_as_from_scratch(profiles in profiles::profiles(), moves in moves()) {
        play(profiles, &moves);
    }
}
