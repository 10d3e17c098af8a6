//! Pods that go because the node is short of something, or because they hold more than they may.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::{World, container, ready_world, with};
use crate::agent::{EvictionPolicy, ImagePolicy, Supply};
use crate::object::{Kind, ObjectKey};

fn world(thresholds: &str) -> World {
    let mut world = ready_world();
    world.config.eviction = Some(EvictionPolicy::parse(thresholds, Duration::from_secs(60)).unwrap());
    world.config.images = Some(ImagePolicy { minimum_age: Duration::ZERO, ..ImagePolicy::default() });
    world.restart_agent();
    world.run_for(5.0);
    world
}

fn short() -> Supply {
    Supply { capacity: 1000, available: 1 }
}

/// A pod of one container, which uses a megabyte for each character of its name.
fn spec(name: &str, memory: &str) -> Value {
    let container = with(container(name, "app:1"), "resources", json!({"requests": {"memory": memory}}));
    json!({"containers": [container]})
}

/// Phase, reason and message.
fn ended(world: &World, key: &ObjectKey) -> [String; 3] {
    let status = &world.pod(key).status;
    [&status.phase, &status.reason, &status.message].map(|text| text.as_str().to_owned())
}

fn said(world: &World, event: &str) -> bool {
    world.api.events.iter().any(|e| e.contains(event))
}

fn condition(world: &World, type_: &str) -> String {
    let node = world.api.objects[&ObjectKey::new(Kind::NODE, "", "n1")].get::<core_v1::Node>().unwrap();
    let status = serde_json::to_value(&**node.status).unwrap();
    let all = status["conditions"].as_array().unwrap();
    let is = all.iter().find(|c| c["type"] == type_).unwrap();
    format!("{} {}", is["status"].as_str().unwrap(), is["reason"].as_str().unwrap())
}

#[test]
fn one_pod_after_the_other_goes_until_there_is_enough() {
    let mut world = world("memory.available<100Mi");
    let (small, large) = (world.apply("small", spec("b", "8Mi")), world.apply("large", spec("greedy", "1Mi")));
    let greedy = world.apply("greedier", spec("greediest", "1Mi"));
    world.run_for(30.0);
    world.runtime.node.memory = short();
    world.run_for(12.0);
    let message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 1. Container greediest was \
                   using 9Mi, request is 1Mi, has larger consumption of memory. ";
    assert_eq!(ended(&world, &greedy), ["Failed", "Evicted", message]);
    assert_eq!(ended(&world, &large)[0], "Running", "one at a time");
    let target = world.pod(&greedy).status.condition(&"DisruptionTarget".into()).cloned().unwrap();
    assert_eq!((target.reason.as_str(), target.message.as_str()), ("TerminationByKubelet", message));
    assert!(said(&world, &format!("Evicted: {message}")), "{:?}", world.api.events);
    assert!(said(&world, "EvictionThresholdMet: Attempting to reclaim memory"), "{:?}", world.api.events);
    assert!(said(&world, "NodeHasInsufficientMemory"), "{:?}", world.api.events);
    world.run_for(6.0);
    assert_eq!(ended(&world, &large)[1], "Evicted");
    assert_eq!(condition(&world, "MemoryPressure"), "True KubeletHasInsufficientMemory");
    let late = world.apply("late", json!({"containers": [container("a", "app:1")]}));
    world.run_for(1.0);
    let why = "Pod was rejected: The node had condition: [MemoryPressure]. ";
    assert_eq!(ended(&world, &late), ["Failed", "Evicted", why]);
    world.runtime.node.memory = super::plenty().memory;
    world.run_for(45.0);
    assert_eq!(condition(&world, "MemoryPressure"), "True KubeletHasInsufficientMemory", "not at once");
    world.run_for(40.0);
    assert_eq!(condition(&world, "MemoryPressure"), "False KubeletHasSufficientMemory");
    assert_eq!(ended(&world, &small)[0], "Running", "who stays within what it asked for stays");
}

#[test]
fn images_go_before_pods() {
    let mut world = world("imagefs.available<10%");
    let pod = world.apply("p", spec("a", "1Mi"));
    let gone = world.apply("q", json!({"restartPolicy": "Never", "containers": [container("a", "step:1")]}));
    world.run_for(30.0);
    world.delete(&gone, 1);
    world.run_for(10.0);
    assert!(world.runtime.images.contains_key("step:1"));
    world.runtime.node.image_disk = short();
    world.run_for(20.0);
    assert!(!world.runtime.images.contains_key("step:1"), "{:?}", world.runtime.images);
    assert!(said(&world, "EvictionThresholdMet: Attempting to reclaim ephemeral-storage"), "{:?}", world.api.events);
    world.run_for(10.0);
    assert_eq!(ended(&world, &pod)[1], "Evicted", "that was not enough");
    assert_eq!(condition(&world, "DiskPressure"), "True KubeletHasDiskPressure");
}

#[test]
fn who_holds_more_than_it_may_goes_though_there_is_enough() {
    let mut world = world("");
    let limited = |name: &str| {
        let limits = json!({"limits": {"ephemeral-storage": "2Mi"}});
        json!({"containers": [with(container(name, "app:1"), "resources", limits)]})
    };
    let (over, within) = (world.apply("over", limited("abc")), world.apply("within", limited("ab")));
    world.run_for(40.0);
    let why = "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ";
    assert_eq!(ended(&world, &over), ["Failed", "Evicted", why]);
    assert!(world.pod(&over).status.condition(&"DisruptionTarget".into()).is_none(), "it is its own fault");
    assert_eq!(ended(&world, &within)[0], "Running");
}
