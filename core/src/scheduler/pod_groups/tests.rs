//! What becomes of gangs as their pods, their group and the room for them come and go.

use std::time::Duration;

use serde_json::{Value, json};

use super::OTHERS;
use crate::machine::{Mono, Now, Wall};
use crate::object::{Kind, Object, ObjectKey, Pod};
use crate::random::Rng;
use crate::scheduler::extenders::Extender;
use crate::scheduler::profile::Profile;
use crate::scheduler::{Decision, Scheduler};

fn at(seconds: u64) -> Now {
    Now { mono: Mono(seconds * 1_000_000_000), wall: Wall(seconds as i64 * 1_000_000) }
}

fn put_node(s: &mut Scheduler, now: Now, name: &str, cpu: &str) {
    let allocatable = json!({"cpu": cpu, "memory": "8Gi", "pods": "110"});
    let whole = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"allocatable": allocatable}});
    let Object::Node(node) = Object::from_json(whole).unwrap() else { panic!() };
    s.node_changed(now, &node);
}

/// A pod of one CPU in a group; `more` is merged over its spec.
fn pod(name: &str, group: &str, more: Value) -> Pod {
    let mut spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
        "schedulingGroup": {"podGroupName": group}});
    json_patch::merge(&mut spec, &more);
    let whole = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": name, "namespace": "d", "uid": format!("uid-{name}")}});
    let Object::Pod(pod) = Object::from_json(whole).unwrap() else { panic!() };
    pod
}

fn put(s: &mut Scheduler, now: Now, group: &str, pods: &[&str]) {
    pods.iter().for_each(|name| s.pod_changed(now, &pod(name, group, json!({}))));
}

fn put_group(s: &mut Scheduler, now: Now, name: &str, policy: Value) {
    let value = json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup",
        "metadata": {"name": name, "namespace": "d"}, "spec": {"schedulingPolicy": policy}});
    let key = ObjectKey::new(Kind::POD_GROUP, "d", name);
    s.pod_group_changed(now, &key, Some(&Object::from_json(value).unwrap()));
}

fn gang(least: u32) -> Value {
    json!({"gang": {"minCount": least}})
}

fn with(nodes: &[(&str, &str)]) -> Scheduler {
    let mut s = Scheduler::new(&[Profile::default()], Rng::from_seed(1)).with_gangs(true);
    nodes.iter().for_each(|(name, cpu)| put_node(&mut s, at(0), name, cpu));
    s
}

/// Decisions: `pod>node`, `pod!` or, of gangs, `[…]` with `~` for a pod that would fit, and `=` if they are placed.
fn decisions(s: &mut Scheduler, now: Now) -> Vec<String> {
    s.handle_timeout(now);
    let told = |decision| match decision {
        Decision::Bind { pod, node, .. } => format!("{}>{node}", pod.name()),
        Decision::Unschedulable { pod, .. } => format!("{}!", pod.name()),
        Decision::Gang(gang) => {
            let tried = gang.tried.iter().map(|t| match &t.outcome {
                Ok(place) if gang.placed => format!("{}>{}", t.pod.name(), place.node),
                Ok(_) => format!("{}~", t.pod.name()),
                Err(_) => format!("{}!", t.pod.name()),
            });
            format!("[{}]{}", tried.collect::<Vec<_>>().join(" "), if gang.placed { "=" } else { "" })
        }
        other => panic!("{other:?}"),
    };
    std::iter::from_fn(|| s.next(now)).map(told).collect()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::POD, "d", name)
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_gang_waits_for_its_group_and_for_its_pods() {
    let mut s = with(&[("n", "8")]);
    put(&mut s, at(0), "g", &["a", "b"]);
    assert_eq!(decisions(&mut s, at(0)), NOTHING);
    let waits = |s: &mut Scheduler| s.advise(&key("a")).unwrap().state;
    assert_eq!(waits(&mut s), "waiting for pods's pod group \"g\" to appear in scheduling queue");
    put_group(&mut s, at(1), "g", gang(3));
    assert_eq!(decisions(&mut s, at(1)), NOTHING);
    assert_eq!(waits(&mut s), "waiting for minCount pods from a gang to appear in scheduling queue");
    put(&mut s, at(2), "other", &["x"]);
    put(&mut s, at(2), "g", &["c"]);
    assert_eq!(decisions(&mut s, at(2)), ["[a>n b>n c>n]="]);
    assert_eq!(s.assumed(), 3);
    put(&mut s, at(3), "g", &["d"]);
    assert_eq!(decisions(&mut s, at(3)), ["[d>n]="], "one more is placed beside the others");
}

#[test]
fn the_policy_basic_waits_for_nothing_but_the_group() {
    let mut s = with(&[("n", "1")]);
    put(&mut s, at(0), "g", &["a", "b"]);
    assert_eq!(decisions(&mut s, at(0)), NOTHING);
    put_group(&mut s, at(1), "g", json!({"basic": {}}));
    assert_eq!(decisions(&mut s, at(1)), ["a>n", "b!"]);
}

#[test]
fn without_its_gate_groups_do_not_matter() {
    let mut s = Scheduler::new(&[Profile::default()], Rng::from_seed(1));
    put_node(&mut s, at(0), "n", "1");
    put(&mut s, at(0), "g", &["a", "b"]);
    assert_eq!(decisions(&mut s, at(0)), ["a>n", "b!"]);
}

#[test]
fn too_little_room_leaves_all_as_it_was_until_there_is_enough() {
    let mut s = with(&[("n", "2"), ("m", "1")]);
    let mut alone = pod("alone", "", json!({}));
    alone.spec_mut().shared.make_mut().scheduling_group = None;
    s.pod_changed(at(0), &alone);
    let node = decisions(&mut s, at(0)).remove(0)[6..].to_owned();
    put_group(&mut s, at(1), "g", gang(3));
    put(&mut s, at(1), "g", &["a", "b", "c"]);
    let Some(Decision::Gang(tried)) = s.next(at(1)) else { panic!() };
    assert!(!tried.placed);
    assert_eq!(tried.message, "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining");
    let why = "0/2 nodes are available: 2 Insufficient cpu. preemption: pods of a gang do not preempt yet";
    assert_eq!(tried.tried[2].outcome.as_ref().unwrap_err(), why);
    assert_eq!((s.assumed(), s.next(at(1)).is_none()), (1, true));
    // What the gang would have got is free for others.
    put(&mut s, at(2), "single", &["x"]);
    put_group(&mut s, at(2), "single", gang(1));
    assert_eq!(decisions(&mut s, at(2)).len(), 1);
    assert_eq!(s.assumed(), 2);
    s.pod_removed(at(60), &key("x"));
    assert_eq!(decisions(&mut s, at(60)), ["[a~ b~ c!]"]);
    s.pod_removed(at(120), &key("alone"));
    let placed = decisions(&mut s, at(120));
    assert_eq!((placed.len(), s.assumed()), (1, 3), "{placed:?}, once {node} is free");
    assert!(OTHERS.starts_with("other pods"));
}

#[test]
fn those_beyond_the_least_wait_for_room_alone() {
    let mut s = with(&[("n", "2")]);
    put_group(&mut s, at(0), "g", gang(2));
    put(&mut s, at(0), "g", &["a", "b"]);
    s.pod_changed(at(0), &pod("c", "g", json!({"priority": 5})));
    assert_eq!(decisions(&mut s, at(0)), ["[c>n a>n b!]="], "by priority, then by age");
    s.pod_removed(at(60), &key("a"));
    assert_eq!(decisions(&mut s, at(60)), ["[b>n]="]);
}

#[test]
fn pods_that_are_bound_already_count() {
    let mut s = with(&[("n", "3"), ("m", "1")]);
    put_group(&mut s, at(0), "g", gang(3));
    put(&mut s, at(0), "g", &["b", "c"]);
    assert_eq!(decisions(&mut s, at(0)), NOTHING);
    // An earlier scheduler came no further than this.
    let mut bound = pod("a", "g", json!({}));
    bound.spec_mut().node = Some("n".into());
    s.pod_changed(at(1), &bound);
    let placed = decisions(&mut s, at(1));
    assert!(placed.len() == 1 && placed[0].ends_with("]="), "{placed:?}");
}

#[test]
fn a_gang_that_has_lost_pods_waits_again() {
    let mut s = with(&[("n", "2")]);
    put_group(&mut s, at(0), "g", gang(3));
    put(&mut s, at(0), "g", &["a", "b", "c"]);
    assert_eq!(decisions(&mut s, at(0)), ["[a~ b~ c!]"]);
    s.pod_removed(at(1), &key("c"));
    put_node(&mut s, at(60), "m", "4");
    assert_eq!(decisions(&mut s, at(60)), NOTHING);
    put(&mut s, at(61), "g", &["d"]);
    let placed = decisions(&mut s, at(61));
    assert!(placed.len() == 1 && placed[0].ends_with("]="), "{placed:?}");
}

#[test]
fn a_gang_that_waits_keeps_nobody_like_it_waiting() {
    let mut s = with(&[("n", "1")]);
    put_group(&mut s, at(0), "large", gang(3));
    put_group(&mut s, at(0), "small", gang(2));
    put(&mut s, at(0), "large", &["a", "b", "c"]);
    put(&mut s, at(0), "small", &["x", "y"]);
    assert_eq!(decisions(&mut s, at(0)), ["[a~ b! c!]", "[x~ y!]"]);
    put_node(&mut s, at(60), "n", "2");
    let placed = decisions(&mut s, at(60));
    assert_eq!(placed, ["[a~ b~ c!]", "[x>n y>n]="]);
}

#[test]
fn what_is_not_carried_out_is_said() {
    let check = |mut s: Scheduler, other: Value, expect: &str| {
        put_node(&mut s, at(0), "n", "8");
        put_group(&mut s, at(0), "g", gang(2));
        put(&mut s, at(0), "g", &["a"]);
        s.pod_changed(at(0), &pod("b", "g", other));
        let Some(Decision::Gang(gang)) = s.next(at(0)) else { panic!("{expect}") };
        assert_eq!((gang.placed, &*gang.message), (false, expect));
        assert!(gang.tried.iter().all(|t| t.outcome.as_ref().is_err_and(|why| why == expect)));
    };
    let profiles = [Profile::default(), Profile { name: "b".to_owned(), ..Profile::default() }];
    check(
        Scheduler::new(&profiles, Rng::from_seed(1)).with_gangs(true),
        json!({"schedulerName": "b"}),
        "all pods in a single pod group should have the same .spec.schedulerName set, got: \"b\" and \
         \"default-scheduler\"",
    );
    let none = String::new;
    let extender = Extender {
        url_prefix: "http://x".to_owned(),
        filter_verb: "filter".to_owned(),
        prioritize_verb: none(),
        preempt_verb: none(),
        bind_verb: none(),
        weight: 1,
        timeout: Duration::from_secs(5),
        node_cache_capable: true,
        managed_resources: Vec::new(),
        ignorable: false,
    };
    check(
        Scheduler::new(&profiles, Rng::from_seed(1)).with_extenders(&[extender].into()).with_gangs(true),
        json!({}),
        "extenders are not asked about pods of a gang yet",
    );
}
