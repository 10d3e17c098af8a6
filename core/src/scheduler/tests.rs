//! What the scheduler does as pods are added, changed and deleted.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::advice::Verdict;
use super::gpu::{GPU_INDEX, GPU_MILLI, GpuShare, Policy};
use super::preemption::Nomination;
use super::profile::{Plugin, Plugins, Profile, Strategy, Weights};
use super::{Decision, QueueCounts, Scheduler};
use crate::machine::{Mono, Now, Wall};
use crate::object::{Kind, Node, Object, ObjectKey, Pod};
use crate::random::Rng;

fn at(seconds: u64) -> Now {
    Now { mono: Mono(seconds * 1_000_000_000), wall: Wall(seconds as i64 * 1_000_000) }
}

fn node(name: &str, cpu: &str) -> Node {
    let allocatable = json!({"cpu": cpu, "memory": "8Gi", "pods": "110"});
    let whole = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"allocatable": allocatable}});
    let Object::Node(node) = Object::from_json(whole).unwrap() else { panic!() };
    node
}

/// A pod of one CPU; `more` is merged over its spec.
fn pod(name: &str, more: Value) -> Pod {
    let mut spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]});
    json_patch::merge(&mut spec, &more);
    let whole = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": name, "namespace": "d", "uid": format!("uid-{name}")}});
    let Object::Pod(pod) = Object::from_json(whole).unwrap() else { panic!() };
    pod
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::POD, "d", name)
}

fn with(nodes: &[(&str, &str)]) -> Scheduler {
    let mut s = Scheduler::new(&[Profile::default()], Rng::from_seed(1));
    nodes.iter().for_each(|(name, cpu)| s.node_changed(at(0), &node(name, cpu)));
    s
}

/// Decisions, as `pod>node` or `pod!`.
fn decisions(s: &mut Scheduler, now: Now) -> Vec<String> {
    s.handle_timeout(now);
    let all = std::iter::from_fn(|| s.next(now));
    all.map(|d| match d {
        Decision::Bind { pod, node, uid, .. } => {
            assert_eq!(&*uid, format!("uid-{}", pod.name()));
            format!("{}>{node}", pod.name())
        }
        Decision::Unschedulable { pod, .. } => format!("{}!", pod.name()),
        other => panic!("there are no extenders: {other:?}"),
    })
    .collect()
}

fn counts(active: usize, backoff: usize, unschedulable: usize) -> QueueCounts {
    QueueCounts { active, backoff, unschedulable }
}

#[test]
fn gated_foreign_deleted_and_finished_pods_are_left_alone() {
    let mut s = with(&[("n", "8")]);
    s.pod_changed(at(0), &pod("gated", json!({"schedulingGates": [{"name": "g"}]})));
    s.pod_changed(at(0), &pod("foreign", json!({"schedulerName": "other"})));
    let mut deleted = pod("deleted", json!({}));
    deleted.meta_mut().deletion_timestamp = Some(Wall(0).to_time());
    s.pod_changed(at(0), &deleted);
    let mut finished = pod("finished", json!({}));
    finished.status_mut().phase = crate::object::Text::FAILED;
    s.pod_changed(at(0), &finished);
    assert_eq!(decisions(&mut s, at(0)), Vec::<String>::new());
    s.pod_changed(at(1), &pod("gated", json!({})));
    assert_eq!(decisions(&mut s, at(1)), ["gated>n"]);
}

#[test]
fn higher_priority_first_and_no_node_is_overfilled() {
    let mut s = with(&[("n", "2")]);
    for (name, priority) in [("a", 0), ("b", 10), ("c", 5)] {
        s.pod_changed(at(0), &pod(name, json!({"priority": priority})));
    }
    assert_eq!(decisions(&mut s, at(0)), ["b>n", "c>n", "a!"]);
    assert_eq!((s.waiting(), s.assumed()), (counts(0, 0, 1), 2));
}

#[test]
fn room_is_given_to_whoever_waits_first_and_only_once() {
    let mut s = with(&[("n", "2")]);
    for name in ["a", "b", "c", "d", "e"] {
        s.pod_changed(at(0), &pod(name, json!({})));
    }
    assert_eq!(decisions(&mut s, at(0)), ["a>n", "b>n", "c!", "d!", "e!"]);
    s.pod_removed(at(60), &key("a"));
    assert_eq!(decisions(&mut s, at(60)), ["c>n"]);
    // On a greater node as many pods as fit are tried, and one more.
    s.node_changed(at(120), &node("n", "3"));
    assert_eq!(decisions(&mut s, at(120)), ["d>n"]);
    assert_eq!(s.waiting(), counts(0, 0, 1));
}

#[test]
fn the_next_one_tries_when_a_scout_goes_away() {
    let mut s = with(&[("n", "1")]);
    for name in ["a", "b", "c"] {
        s.pod_changed(at(0), &pod(name, json!({})));
    }
    assert_eq!(decisions(&mut s, at(0)), ["a>n", "b!", "c!"]);
    s.pod_removed(at(0), &key("a"));
    assert_eq!(s.waiting(), counts(0, 1, 1), "the scout waits for its back-off to end");
    s.pod_removed(at(0), &key("b"));
    assert_eq!(s.waiting(), counts(0, 1, 0));
    assert_eq!(decisions(&mut s, at(1)), ["c>n"]);
}

#[test]
fn events_that_do_not_help_wake_nobody() {
    let mut s = with(&[("n", "1")]);
    s.pod_changed(at(0), &pod("big", json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]})));
    s.pod_changed(at(0), &pod("a", json!({})));
    assert_eq!(decisions(&mut s, at(0)), ["big!", "a>n"]);
    s.pod_removed(at(30), &key("a"));
    s.node_changed(at(30), &node("m", "2"));
    assert_eq!(s.waiting(), counts(0, 0, 1));
    let mut cordoned = node("o", "4");
    cordoned.spec_mut().unschedulable = Some(true);
    s.node_changed(at(30), &cordoned);
    assert_eq!(s.waiting(), counts(0, 0, 1));
    s.node_changed(at(30), &node("o", "4"));
    assert_eq!(decisions(&mut s, at(30)), ["big>o"]);
}

#[test]
fn a_pod_that_changes_tries_again() {
    let mut s = with(&[]);
    let mut tainted = node("n", "1");
    let taint = serde_json::from_value(json!({"key": "k", "effect": "NoSchedule"})).unwrap();
    tainted.spec_mut().taints = Some(vec![taint]);
    s.node_changed(at(0), &tainted);
    s.pod_changed(at(0), &pod("a", json!({})));
    assert_eq!(decisions(&mut s, at(0)), ["a!"]);
    let mut noted = pod("a", json!({}));
    noted.status_mut().reason = "x".into();
    s.pod_changed(at(5), &noted);
    assert_eq!(s.waiting(), counts(0, 0, 1), "its own condition is no reason");
    s.pod_changed(at(5), &pod("a", json!({"tolerations": [{"operator": "Exists"}]})));
    assert_eq!(decisions(&mut s, at(5)), ["a>n"]);
}

#[test]
fn a_view_that_is_behind_takes_nothing_off_a_node() {
    let mut s = with(&[("n", "1")]);
    let p = pod("a", json!({}));
    s.pod_changed(at(0), &p);
    assert_eq!(decisions(&mut s, at(0)), ["a>n"]);
    s.pod_changed(at(1), &p);
    assert!(s.is_assumed(&key("a")));
    s.pod_changed(at(2), &pod("a", json!({"nodeName": "n"})));
    s.pod_changed(at(3), &p);
    assert!(!s.is_assumed(&key("a")));
    s.pod_changed(at(3), &pod("b", json!({})));
    assert_eq!(decisions(&mut s, at(3)), ["b!"]);
    assert_eq!(s.assumed(), 0);
}

#[test]
fn what_was_assumed_can_be_forgotten_and_be_elsewhere() {
    let mut s = with(&[("n", "1"), ("m", "1")]);
    s.pod_changed(at(0), &pod("a", json!({"nodeSelector": null})));
    let first = decisions(&mut s, at(0));
    assert_eq!(first.len(), 1);
    s.forget(at(1), &key("a"), "uid-other");
    assert!(s.is_assumed(&key("a")), "another pod's bind says nothing");
    s.forget(at(1), &key("a"), "uid-a");
    assert_eq!((s.waiting(), s.assumed()), (counts(0, 1, 0), 0));
    s.handle_timeout(at(2));
    assert_eq!(s.waiting(), counts(1, 0, 0));
    let again = decisions(&mut s, at(2));
    let other = if again == ["a>n"] { "m" } else { "n" };
    // Somebody else was faster.
    s.pod_changed(at(3), &pod("a", json!({"nodeName": other})));
    s.pod_changed(at(3), &pod("b", json!({})));
    assert_eq!(decisions(&mut s, at(3)), [format!("b>{}", if other == "m" { "n" } else { "m" })]);
}

#[test]
fn a_new_pod_of_the_same_name_is_another_pod() {
    let mut s = with(&[("n", "1")]);
    s.pod_changed(at(0), &pod("a", json!({})));
    assert_eq!(decisions(&mut s, at(0)), ["a>n"]);
    let mut other = pod("a", json!({"containers": [{"name": "c"}]}));
    other.meta_mut().uid = Some("uid-2".to_owned());
    s.pod_changed(at(1), &other);
    assert!(!s.is_assumed(&key("a")));
    s.pod_changed(at(1), &pod("b", json!({})));
    let all: Vec<_> = std::iter::from_fn(|| s.next(at(1))).collect();
    assert!(all.iter().all(|d| matches!(d, Decision::Bind { .. })), "{all:?}");
}

#[test]
fn pods_count_where_they_are_though_the_node_is_gone() {
    let mut s = with(&[("n", "1")]);
    s.pod_changed(at(0), &pod("a", json!({"nodeName": "n"})));
    s.node_removed(at(0), "n");
    s.pod_changed(at(0), &pod("b", json!({})));
    let message = match s.next(at(0)) {
        Some(Decision::Unschedulable { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(message, "no nodes available to schedule pods");
    s.node_changed(at(9), &node("n", "1"));
    assert_eq!(decisions(&mut s, at(9)), ["b!"], "the node is full as soon as it is back");
    s.pod_removed(at(20), &key("a"));
    assert_eq!(decisions(&mut s, at(20)), ["b>n"]);
}

#[test]
fn who_was_told_that_there_is_no_node_is_told_why_the_new_node_does_not_do() {
    let mut s = with(&[]);
    let big = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "10"}}}]});
    (0..3).for_each(|i| s.pod_changed(at(0), &pod(&format!("p{i}"), big.clone())));
    assert_eq!(decisions(&mut s, at(0)), ["p0!", "p1!", "p2!"]);
    s.node_changed(at(5), &node("n", "1"));
    let messages: Vec<_> = std::iter::from_fn(|| s.next(at(5))).collect();
    assert_eq!(messages.len(), 3);
    for decision in messages {
        let Decision::Unschedulable { message, .. } = decision else { panic!("{decision:?}") };
        assert!(message.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{message}");
    }
    s.node_changed(at(9), &node("m", "1"));
    assert_eq!(decisions(&mut s, at(9)), [] as [&str; 0], "plug-ins have rejected them by now");
}

#[test]
fn ties_are_drawn_and_draws_repeat() {
    let names: Vec<String> = (0..16).map(|i| format!("n{i:02}")).collect();
    let nodes: Vec<_> = names.iter().map(|n| (n.as_str(), "1")).collect();
    let run = |seed| {
        let mut s = Scheduler::new(&[Profile::default()], Rng::from_seed(seed));
        nodes.iter().for_each(|(n, cpu)| s.node_changed(at(0), &node(n, cpu)));
        (0..8).for_each(|i| s.pod_changed(at(0), &pod(&format!("p{i}"), json!({}))));
        decisions(&mut s, at(0))
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn deadlines_say_when_and_why() {
    let mut s = with(&[("n", "1")]);
    assert_eq!(s.poll_timeout(), None);
    s.pod_changed(at(0), &pod("a", json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]})));
    assert_eq!(decisions(&mut s, at(0)), ["a!"]);
    let deadline = s.poll_timeout().unwrap();
    assert_eq!((deadline.at, deadline.why), (Mono::ZERO + Duration::from_secs(300), "flush unschedulable pods"));
    assert_eq!(decisions(&mut s, at(300)), ["a!"]);
}

fn labelled(name: &str, label: &str, more: Value) -> Pod {
    let mut p = pod(name, more);
    p.meta_mut().labels = Some([("app".to_owned(), label.to_owned())].into());
    p
}

fn in_zone(name: &str, cpu: &str, zone: &str) -> Node {
    let mut n = node(name, cpu);
    let labels = [("topology.kubernetes.io/zone", zone), ("kubernetes.io/hostname", name)];
    n.meta_mut().labels = Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    n
}

/// The message of the next pod, which fits nowhere.
fn refusal(s: &mut Scheduler, now: Now) -> (String, Nomination) {
    match s.next(now) {
        Some(Decision::Unschedulable { message, nomination, .. }) => (message, nomination),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pods_are_spread_and_wait_for_the_other_zone() {
    let mut s = with(&[]);
    s.node_changed(at(0), &in_zone("n", "8", "a"));
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "minDomains": 2, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}}}]});
    for name in ["a", "b"] {
        s.pod_changed(at(0), &labelled(name, "x", spread.clone()));
    }
    assert!(matches!(s.next(at(0)), Some(Decision::Bind { .. })));
    let (message, _) = refusal(&mut s, at(0));
    let uneven = "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints. preemption: 0/1 \
                  nodes are available: 1 No preemption victims found for incoming pod.";
    assert_eq!(message, uneven);
    s.node_changed(at(30), &in_zone("m", "8", "b"));
    assert_eq!(decisions(&mut s, at(30)), ["b>m"]);
}

#[test]
fn whoever_wants_company_waits_for_it_unless_it_is_the_first() {
    let mut s = with(&[]);
    s.node_changed(at(0), &in_zone("n", "8", "a"));
    s.node_changed(at(0), &in_zone("m", "8", "b"));
    s.pod_changed(at(0), &labelled("guest", "guest", near("host", json!({}))));
    let (message, _) = refusal(&mut s, at(0));
    let alone = "0/2 nodes are available: 2 node(s) didn't match pod affinity rules. preemption: 0/2 nodes are \
                 available: 2 Preemption is not helpful for scheduling.";
    assert_eq!(message, alone);
    s.pod_changed(at(20), &labelled("host", "host", near("host", json!({}))));
    let all = decisions(&mut s, at(20));
    let zone = all[0].strip_prefix("host>").unwrap();
    assert_eq!(all, [format!("host>{zone}"), format!("guest>{zone}")]);
}

/// Affinity to pods of this label in the same zone; `more` is merged over the term.
fn near(app: &str, more: Value) -> Value {
    let mut term =
        json!({"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"app": app}}});
    json_patch::merge(&mut term, &more);
    json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

#[test]
fn whoever_waits_for_a_namespace_hears_of_its_labels() {
    let mut s = with(&[]);
    s.node_changed(at(0), &in_zone("n", "8", "a"));
    let x = json!({"namespaceSelector": {"matchLabels": {"team": "x"}}});
    s.pod_changed(at(0), &labelled("a", "app", near("app", x)));
    assert_eq!(decisions(&mut s, at(0)), ["a!"]);
    let team = |team: &str| [("team".to_owned(), team.to_owned())].into();
    s.namespace_changed(at(20), "d", Some(&team("y")));
    assert_eq!(decisions(&mut s, at(20)), [] as [&str; 0], "it is of the wrong team");
    s.namespace_changed(at(40), "d", Some(&team("x")));
    assert_eq!(decisions(&mut s, at(40)), ["a>n"]);
}

/// A pod that fits nowhere, with so many rules about others that all counters are made again at the next decision.
fn curious() -> Pod {
    let of = |i: usize| {
        json!({"weight": 1, "podAffinityTerm": {"topologyKey": "topology.kubernetes.io/zone",
            "labelSelector": {"matchLabels": {"app": format!("x{i}")}}}})
    };
    let all: Vec<Value> = (0..=crate::limits::SCHEDULER_COUNTERS).map(of).collect();
    let preferred = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": all}});
    let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "100"}}}]);
    pod("curious", json!({"affinity": preferred, "containers": containers}))
}

#[test]
fn whoever_waits_for_company_hears_of_it_though_counting_began_anew() {
    let mut s = with(&[]);
    s.node_changed(at(0), &in_zone("n", "8", "a"));
    s.pod_changed(at(0), &labelled("guest", "guest", near("host", json!({}))));
    s.pod_changed(at(0), &curious());
    assert_eq!(decisions(&mut s, at(0)), ["guest!", "curious!"]);
    s.pod_changed(at(20), &labelled("host", "host", json!({"nodeName": "n"})));
    assert_eq!(decisions(&mut s, at(20)), ["guest>n"]);
}

#[test]
fn a_pod_on_a_node_that_is_relabelled_is_not_counted_as_it_was() {
    let mut s = with(&[]);
    s.node_changed(at(0), &in_zone("n", "8", "a"));
    s.pod_changed(at(0), &labelled("host", "host", json!({"nodeName": "n"})));
    let mut alone = near("host", json!({}));
    alone["affinity"] = json!({"podAntiAffinity": alone["affinity"]["podAffinity"]});
    s.pod_changed(at(0), &pod("loner", alone));
    s.pod_changed(at(0), &curious());
    assert_eq!(decisions(&mut s, at(0)), ["loner!", "curious!"]);
    s.pod_changed(at(20), &labelled("host", "other", json!({"nodeName": "n"})));
    assert_eq!(decisions(&mut s, at(20)), ["loner>n"]);
}

#[test]
fn those_of_lowest_priority_go_and_the_room_is_kept() {
    let mut s = with(&[("n", "2"), ("m", "2")]);
    for (name, node, priority) in [("a", "n", 1), ("b", "n", 2), ("c", "m", 2), ("d", "m", 2)] {
        s.pod_changed(at(0), &pod(name, json!({"nodeName": node, "priority": priority})));
    }
    s.pod_changed(at(0), &pod("high", json!({"priority": 9})));
    let (message, nomination) = refusal(&mut s, at(0));
    assert_eq!(message, "0/2 nodes are available: 2 Insufficient cpu.");
    let Nomination::Preempts(preemption) = nomination else { panic!("{nomination:?}") };
    assert_eq!((&*preemption.node, preemption.victims[0].0.name(), preemption.victims.len()), ("n", "a", 1));
    // Another pod of its priority may not take the room, and evicts no pods for the same room.
    s.pod_removed(at(20), &key("a"));
    s.pod_changed(at(20), &pod("late", json!({"priority": 9, "preemptionPolicy": "Never"})));
    assert_eq!(decisions(&mut s, at(20)), ["high>n", "late!"]);
}

#[test]
fn a_pod_waits_for_its_victims_and_no_longer_than_they_live() {
    let mut s = with(&[("n", "1")]);
    s.pod_changed(at(0), &pod("low", json!({"nodeName": "n"})));
    s.pod_changed(at(0), &pod("high", json!({"priority": 9})));
    assert!(matches!(refusal(&mut s, at(0)).1, Nomination::Preempts(_)));
    s.node_changed(at(400), &node("n", "1"));
    s.handle_timeout(at(400));
    let (message, nomination) = refusal(&mut s, at(400));
    let waits = "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to a terminating pod on the \
                 nominated node.";
    assert_eq!((message.as_str(), nomination), (waits, Nomination::Kept));
    // It could not be evicted, so that is tried again.
    s.spared(at(500), &key("low"), "uid-low");
    s.handle_timeout(at(500));
    assert!(matches!(refusal(&mut s, at(500)).1, Nomination::Preempts(_)));
}

#[test]
fn advice_says_what_is_wrong_with_each_node_and_changes_nothing() {
    let mut s = with(&[("n", "1"), ("m", "4")]);
    s.pod_changed(at(0), &pod("a", json!({"nodeName": "n"})));
    s.pod_changed(at(0), &pod("b", json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "5"}}}]})));
    assert_eq!(decisions(&mut s, at(0)), ["b!"]);
    let advice = s.advise(&key("b")).unwrap();
    let remedy = |node: usize| match &advice.nodes[node].1 {
        Verdict::Refused { remedy, .. } => remedy.clone(),
        Verdict::Fits(score) => panic!("{score}"),
    };
    assert_eq!(advice.state, "waits for a node");
    let asked = "a larger node, or a smaller request";
    assert_eq!(remedy(0), format!("{asked}: 1000m more cpu free: it asks for 5000m, 4000m of 4000m is free"));
    assert_eq!(remedy(1), format!("{asked}: 5000m more cpu free: it asks for 5000m, 0m of 1000m is free"));
    let placed = s.advise(&key("a")).unwrap();
    assert_eq!(placed.state, "is on n");
    assert!(placed.nodes.iter().all(|(_, verdict)| matches!(verdict, Verdict::Fits(_))));
    assert_eq!(s.nodes().requested(super::resources::ResourceId::PODS, s.nodes().slot("n").unwrap()), 1);
}

#[test]
fn each_profile_places_its_own_pods() {
    let pack = Profile { name: "pack".to_owned(), strategy: Strategy::MostAllocated, ..Profile::default() };
    let blind = Profile {
        name: "blind".to_owned(),
        filters: Plugins::filters().without(Plugin::NodeResourcesFit).without(Plugin::NodeUnschedulable),
        preempts: false,
        ..Profile::default()
    };
    let mut s = Scheduler::new(&[Profile::default(), pack, blind], Rng::from_seed(1));
    ["m", "n"].iter().for_each(|name| s.node_changed(at(0), &node(name, "8")));
    let by = |scheduler: &str| json!({"schedulerName": scheduler});
    s.pod_changed(at(0), &pod("first", json!({"nodeName": "n"})));
    for (name, scheduler) in [("a", "pack"), ("b", "default-scheduler"), ("c", "pack"), ("d", ""), ("e", "nobody")] {
        s.pod_changed(at(0), &pod(name, by(scheduler)));
        let expect = match scheduler {
            "pack" => vec![format!("{name}>n")],
            "nobody" => Vec::new(),
            _ => vec![format!("{name}>m")],
        };
        assert_eq!(decisions(&mut s, at(0)), expect, "{name}");
    }
    // The same spec by two profiles: one has no room for it, the other does not look.
    let huge = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "64"}}}]});
    for (name, scheduler) in [("f", "pack"), ("g", "blind")] {
        let mut more = huge.clone();
        json_patch::merge(&mut more, &by(scheduler));
        s.pod_changed(at(1), &pod(name, more));
    }
    let decided = decisions(&mut s, at(1));
    assert!(decided[0] == "f!" && decided[1].starts_with("g>"), "{decided:?}");
}

#[test]
fn what_a_profile_leaves_out_is_not_said_either() {
    let message = |profile: Profile, more: Value| {
        let mut s = Scheduler::new(&[profile], Rng::from_seed(1));
        s.node_changed(at(0), &node("n", "1"));
        s.pod_changed(at(0), &pod("low", json!({"nodeName": "n"})));
        s.pod_changed(at(0), &pod("p", more));
        match s.next(at(0)) {
            Some(Decision::Unschedulable { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    };
    let no_room = "0/1 nodes are available: 1 Insufficient cpu.";
    let none = Profile { preempts: false, ..Profile::default() };
    assert_eq!(message(none, json!({"priority": 5})), no_room);
    assert_eq!(
        message(Profile::default(), json!({})),
        format!("{no_room} preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
    );
    let names = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["x"]}]}]}}}});
    let wide = Profile { narrows: false, preempts: false, ..Profile::default() };
    assert_eq!(message(wide, names), "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.");
    let added = json!({"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]}});
    let added_affinity = serde_json::from_value(added).unwrap();
    let enforced = Profile { added_affinity, preempts: false, ..Profile::default() };
    assert_eq!(
        message(enforced, json!({})),
        "0/1 nodes are available: 1 node(s) didn't match scheduler-enforced node affinity."
    );
}

#[test]
fn what_the_weight_of_required_affinity_is_worth() {
    let near = |key: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": "b"}}});
    let required = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [near("kubernetes.io/hostname")]}});
    let liked = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 10, "podAffinityTerm": near("kubernetes.io/hostname")}]}});
    let check = |hard: i64, ignore: bool, more: Value, expect: [i32; 3]| {
        let mut weights = Weights::default();
        Plugin::ALL.into_iter().for_each(|plugin| weights.set(plugin, 0));
        weights.set(Plugin::InterPodAffinity, 1);
        let (hard_pod_affinity_weight, ignore_preferred_terms) = (hard, ignore);
        let profile = Profile { weights, hard_pod_affinity_weight, ignore_preferred_terms, ..Profile::default() };
        let mut s = Scheduler::new(&[profile], Rng::from_seed(1));
        ["x", "y", "z"].iter().for_each(|name| s.node_changed(at(0), &in_zone(name, "8", "a")));
        // One that wants the pod near, one that would like it to be.
        s.pod_changed(at(0), &labelled("x0", "b", json!({"nodeName": "x", "affinity": required})));
        s.pod_changed(at(0), &labelled("y0", "c", json!({"nodeName": "y", "affinity": liked})));
        s.pod_changed(at(0), &labelled("p", "b", more.clone()));
        let advice = s.advise(&key("p")).unwrap();
        let scores: Vec<i32> =
            advice.nodes.iter().map(|(_, v)| if let Verdict::Fits(n) = v { *n } else { -1 }).collect();
        assert_eq!(scores, expect, "{hard} {ignore} {more}");
    };
    check(1, false, json!({}), [10, 100, 0]);
    check(5, false, json!({}), [50, 100, 0]);
    check(0, false, json!({}), [0, 100, 0]);
    check(100, false, json!({}), [100, 10, 0]);
    // Nothing is left of either unless the pod has preferences of its own.
    check(100, true, json!({}), [0, 0, 0]);
    check(10, true, json!({"affinity": liked}), [100, 50, 0]);
}

#[test]
fn constraints_of_the_profile_are_for_pods_of_owners_without_their_own() {
    let list = json!([
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"},
        {"maxSkew": 1, "topologyKey": "disk", "whenUnsatisfiable": "ScheduleAnyway"},
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}]);
    let default_constraints = Some(serde_json::from_value(list).unwrap());
    let mut s = Scheduler::new(&[Profile { default_constraints, ..Profile::default() }], Rng::from_seed(1));
    for (name, zone, disk) in [("x", "a", None), ("y", "a", Some("1")), ("z", "b", Some("2"))] {
        let mut node = in_zone(name, "8", zone);
        let labels = node.meta_mut().labels.as_mut().unwrap();
        labels.extend(disk.map(|disk| ("disk".to_owned(), disk.to_owned())));
        s.node_changed(at(0), &node);
    }
    s.service_changed(at(0), "d", "service", Some(&[("app".to_owned(), "w".to_owned())].into()));
    s.pod_changed(at(0), &labelled("x0", "w", json!({"nodeName": "x"})));
    let refused = |s: &mut Scheduler, name: &str| -> Vec<String> {
        let advice = s.advise(&key(name)).unwrap();
        let fits = advice.nodes.iter().filter(|(_, v)| matches!(v, Verdict::Refused { .. }));
        fits.map(|(node, _)| node.to_string()).collect()
    };
    s.pod_changed(at(0), &labelled("p", "w", json!({})));
    assert_eq!(refused(&mut s, "p"), ["x", "y"], "the other zone has one pod fewer");
    // Of no owner.
    s.pod_changed(at(0), &labelled("q", "v", json!({})));
    assert_eq!(refused(&mut s, "q"), [] as [&str; 0]);
    assert_eq!(decisions(&mut s, at(0))[0], "p>z");
    // Nodes that lack the label of any preferred constraint score nothing, as where a pod has its own.
    s.pod_changed(at(1), &labelled("r", "w", json!({})));
    assert_eq!(decisions(&mut s, at(1)), ["r>y"]);
}

#[test]
fn a_judged_pod_is_as_if_it_were_on_no_node_and_stays_where_it_is() {
    let mut s = with(&[]);
    ["x", "y"].iter().for_each(|name| s.node_changed(at(0), &in_zone(name, "8", "a")));
    let apart = json!({"nodeName": "y", "affinity": {"podAntiAffinity":
        {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "podAffinityTerm":
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "b"}}}}]}}});
    s.pod_changed(at(0), &labelled("p", "b", apart));
    let verdicts = |s: &mut Scheduler| s.advise(&key("p")).unwrap().nodes.into_iter().map(|(_, v)| v).collect();
    let nodes: Vec<Verdict> = verdicts(&mut s);
    assert!(
        matches!(nodes[..], [Verdict::Fits(x), Verdict::Fits(y)] if x == y),
        "it is not apart from itself: {nodes:?}"
    );
    // Of a node that is gone nothing is left while its only pod is judged.
    s.node_removed(at(1), "x");
    s.node_removed(at(1), "y");
    let nodes: Vec<Verdict> = verdicts(&mut s);
    assert_eq!(nodes, []);
    s.pod_removed(at(2), &key("p"));
    s.node_changed(at(2), &in_zone("x", "1", "a"));
    s.pod_changed(at(2), &pod("q", json!({})));
    assert_eq!(decisions(&mut s, at(2)), ["q>x"]);
}

/// A scheduler that shares GPUs by this policy and by nothing else.
fn sharing(policy: Policy) -> Scheduler {
    let mut weights = Weights::default();
    Plugin::ALL.into_iter().for_each(|plugin| weights.set(plugin, i64::from(plugin == Plugin::GPUShare)));
    let gpu_share = GpuShare { policy, ..GpuShare::default() };
    let filters: Plugins = Plugin::ALL.into_iter().filter(|p| p.is_filter()).collect();
    Scheduler::new(&[Profile { filters, weights, gpu_share, ..Profile::default() }], Rng::from_seed(1))
}

fn gpu_node(name: &str, gpus: i64) -> Node {
    let mut node = node(name, "64");
    let amount = Quantity((gpus * 1000).to_string());
    node.status_mut().allocatable.as_mut().unwrap().insert(GPU_MILLI.to_owned(), amount);
    node
}

fn gpu_pod(name: &str, milli: i64, more: Value) -> Pod {
    let requests = json!({"cpu": "1", GPU_MILLI: milli.to_string()});
    let mut spec = json!({"containers": [{"name": "c", "resources": {"requests": requests}}]});
    json_patch::merge(&mut spec, &more);
    pod(name, spec)
}

/// A pod on a node that names its devices.
fn on_devices(pod: &Pod, node: &str, devices: Option<&str>) -> Pod {
    let mut pod = pod.clone();
    pod.spec_mut().node = Some(node.into());
    pod.meta_mut().annotations = devices.map(|devices| [(GPU_INDEX.to_owned(), devices.to_owned())].into());
    pod
}

/// Decisions, as `pod>node:devices` or `pod!`.
fn shares(s: &mut Scheduler, now: Now) -> Vec<String> {
    s.handle_timeout(now);
    std::iter::from_fn(|| s.next(now))
        .map(|d| match d {
            Decision::Bind { pod, node, devices, .. } => format!("{}>{node}:{devices}", pod.name()),
            Decision::Unschedulable { pod, .. } => format!("{}!", pod.name()),
            other => panic!("there are no extenders: {other:?}"),
        })
        .collect()
}

#[test]
fn gpus_are_shared_device_by_device() {
    let mut s = sharing(Policy::BestFit);
    s.node_changed(at(0), &gpu_node("n", 3));
    for (name, milli) in [("a", 600), ("b", 500), ("c", 400), ("d", 2000), ("e", 1000), ("f", 500), ("g", 1500)] {
        s.pod_changed(at(0), &gpu_pod(name, milli, json!({})));
    }
    // The node has 1500 left for d, but not two devices.
    assert_eq!(shares(&mut s, at(0)), ["a>n:0", "b>n:1", "c>n:0", "d!", "e>n:2", "f>n:1", "g!"]);
    s.pod_removed(at(60), &key("c"));
    assert_eq!(shares(&mut s, at(60)), Vec::<String>::new(), "d needs whole devices");
    s.pod_removed(at(60), &key("b"));
    s.pod_removed(at(60), &key("f"));
    assert_eq!(shares(&mut s, at(60)), Vec::<String>::new(), "one is idle");
    s.pod_removed(at(120), &key("e"));
    assert_eq!(shares(&mut s, at(120)), ["d>n:1-2"]);
}

#[test]
fn a_scheduler_that_starts_later_counts_the_devices_that_pods_name() {
    let mut s = sharing(Policy::BestFit);
    s.node_changed(at(0), &gpu_node("n", 2));
    s.pod_changed(at(0), &on_devices(&gpu_pod("a", 600, json!({})), "n", Some("1")));
    s.pod_changed(at(0), &on_devices(&gpu_pod("foreign", 300, json!({"schedulerName": "other"})), "n", Some("0")));
    s.pod_changed(at(0), &on_devices(&gpu_pod("unknown", 100, json!({})), "n", None));
    s.pod_changed(at(0), &gpu_pod("b", 400, json!({})));
    // What it says while it is on no node is nothing to go by.
    let mut c = gpu_pod("c", 700, json!({}));
    c.meta_mut().annotations = Some([(GPU_INDEX.to_owned(), "1".to_owned())].into());
    s.pod_changed(at(0), &c);
    assert_eq!(shares(&mut s, at(0)), ["b>n:1", "c!"], "1000 are used of the second, 100 more of all");
    s.pod_removed(at(60), &key("unknown"));
    assert_eq!(shares(&mut s, at(60)), ["c>n:0"]);
    // Another than was decided is stored.
    s.pod_changed(at(61), &on_devices(&c, "n", Some("0")));
    s.pod_removed(at(61), &key("a"));
    s.pod_changed(at(61), &gpu_pod("d", 600, json!({})));
    assert_eq!(shares(&mut s, at(61)), ["d>n:1"]);
    // And b is moved, by whoever may.
    s.pod_removed(at(62), &key("foreign"));
    s.pod_changed(at(62), &on_devices(&gpu_pod("b", 400, json!({})), "n", Some("0")));
    s.pod_changed(at(62), &gpu_pod("e", 300, json!({})));
    assert_eq!(shares(&mut s, at(62)), ["e>n:1"], "1100 are used of the first");
}

#[test]
fn evictions_free_devices_and_the_nominated_pod_has_them_to_itself() {
    let mut s = sharing(Policy::Packing);
    s.node_changed(at(0), &gpu_node("n", 2));
    for (name, devices) in [("a", "0"), ("b", "1")] {
        s.pod_changed(at(0), &on_devices(&gpu_pod(name, 400, json!({})), "n", Some(devices)));
    }
    s.pod_changed(at(0), &gpu_pod("high", 1000, json!({"priority": 10})));
    s.handle_timeout(at(0));
    let Some(Decision::Unschedulable { message, nomination: Nomination::Preempts(preemption), .. }) = s.next(at(0))
    else {
        panic!("it preempts")
    };
    assert_eq!(message, "0/1 nodes are available: 1 node(s) didn't have enough idle GPUs.");
    assert_eq!(preemption.victims.len(), 1, "one device is enough");
    s.pod_removed(at(1), &preemption.victims[0].0);
    s.pod_changed(at(1), &gpu_pod("small", 300, json!({})));
    s.pod_changed(at(1), &gpu_pod("large", 500, json!({})));
    let all = shares(&mut s, at(30));
    assert!(all.iter().any(|d| d.starts_with("high>n:")) && all.contains(&"large!".to_owned()), "{all:?}");
    assert!(all.iter().any(|d| d.starts_with("small>n:")), "{all:?}");
}

#[test]
fn a_lack_of_devices_is_explained() {
    let mut s = sharing(Policy::BestFit);
    s.node_changed(at(0), &gpu_node("n", 2));
    s.node_changed(at(0), &gpu_node("none", 0));
    for (name, milli, devices) in [("a", 600, "0"), ("b", 700, "1")] {
        s.pod_changed(at(0), &on_devices(&gpu_pod(name, milli, json!({})), "n", Some(devices)));
    }
    let mut check = |milli: i64, expect: &str| {
        s.pod_changed(at(0), &gpu_pod("p", milli, json!({})));
        let advice = s.advise(&key("p")).unwrap();
        let Verdict::Refused { remedy, .. } = &advice.nodes[0].1 else { panic!("{advice:?}") };
        assert_eq!(remedy, expect);
        s.pod_removed(at(0), &key("p"));
    };
    check(500, "one GPU with 500m free: 400m, 300m is free");
    check(2000, "1300 more alibabacloud.com/gpu-milli free: it asks for 2000, 700 of 2000 is free");
}
