//! Whole clusters in virtual time.

use std::time::Duration;

use serde_json::json;

use skeg_core::Object;
use skeg_sim::outcome::Outcome;
use skeg_sim::run::plain;
use skeg_sim::scenario::{FaultLevel, Scenario, Step, UserAction};
use skeg_sim::{RunOptions, Silent, run};

fn deployment(name: &str, replicas: i32) -> Object {
    Object::from_json(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [
                {"name": "c", "image": "shop/web:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                 "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5}}]}}}}))
    .unwrap()
}

fn service(name: &str) -> Object {
    Object::from_json(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}}))
    .unwrap()
}

fn shop(nodes: usize) -> Scenario {
    let mut scenario = plain(nodes, 3);
    let objects = vec![deployment("web", 6), service("web"), deployment("api", 9), deployment("db", 3)];
    scenario.timeline = vec![Step { at: Duration::from_secs(5), action: UserAction::Apply(objects).into() }];
    scenario
}

fn go(scenario: &Scenario, seed: u64) -> Outcome {
    match run(scenario, seed, &RunOptions::default(), &mut Silent) {
        Ok(outcome) => outcome,
        Err(crash) => panic!("{crash}"),
    }
}

fn assert_well(outcome: &Outcome) {
    assert!(outcome.converged, "seed {}: {:#?}\n{:?}", outcome.seed, outcome.not_converged, outcome.actions);
    for i in &outcome.invariants {
        assert!(!i.broken, "seed {}: {} {:#?}", outcome.seed, i.name, i.details);
    }
}

#[test]
fn a_shop_comes_up_and_stays() {
    let outcome = go(&shop(20), 1);
    assert_well(&outcome);
    assert_eq!(outcome.pods.get("Running"), Some(&18));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (a, b, c) = (go(&shop(10), 7), go(&shop(10), 7), go(&shop(10), 8));
    assert_eq!((a.event_hash.clone(), a.events), (b.event_hash, b.events));
    assert_ne!(a.event_hash, c.event_hash);
}

#[test]
fn heavy_faults_heal() {
    let mut scenario = shop(20);
    scenario.faults = FaultLevel::Heavy;
    for seed in 0..4 {
        assert_well(&go(&scenario, seed));
    }
}

/// A Deployment whose pods take most of a node, of a priority class.
fn large(name: &str, replicas: i32, class: &str) -> Object {
    let container = json!({"name": "c", "image": "shop/web:1", "resources": {"requests": {"cpu": "12"}}});
    Object::from_json(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"priorityClassName": class, "containers": [container]}}}}))
    .unwrap()
}

#[test]
fn who_is_more_important_gets_the_room_of_another() {
    let mut scenario = plain(2, 1);
    let class = |name: &str, value: i32| {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value});
        Object::from_json(class).unwrap()
    };
    let early = vec![class("low", 1), class("high", 1000), large("batch", 2, "low")];
    let late = vec![large("web", 1, "high")];
    let apply = |at: u64, objects| Step { at: Duration::from_secs(at), action: UserAction::Apply(objects).into() };
    scenario.timeline = vec![apply(5, early), apply(120, late)];
    let outcome = go(&scenario, 1);
    // One has to wait for good.
    for i in outcome.invariants.iter().filter(|i| i.name != "converged-and-kept") {
        assert!(!i.broken, "{} {:#?}", i.name, i.details);
    }
    let ready = |name: &str| outcome.workloads.iter().find(|w| w.name == name).map(|w| w.ready);
    assert_eq!((ready("web"), ready("batch")), (Some(1), Some(1)), "{:?}", outcome.workloads);
    let pending: Vec<&str> = outcome.pending.iter().map(|p| p.why.as_str()).collect();
    let why = "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims \
               found for incoming pod.";
    assert_eq!(pending, [why]);
}
