//! Containers that are resized in place: given what they ask for while the node has it, and told why not otherwise.

use serde_json::{Value, json};

use super::{World, container, ready_world, with};
use crate::object::ObjectKey;

fn asks(cpu: &str) -> Value {
    json!({"requests": {"cpu": cpu}})
}

fn resize(world: &mut World, key: &ObjectKey, cpu: &str) {
    world.edit(key, |pod| pod["spec"]["containers"][0]["resources"] = asks(cpu));
    world.run_for(2.0);
}

/// `given cpu, reason of the condition, restarts`.
fn state(world: &World, key: &ObjectKey) -> String {
    let status = serde_json::to_value(world.pod(key).status.to_whole()).unwrap();
    let c = &status["containerStatuses"][0];
    let pending = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "PodResizePending");
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    let (given, held) = (text(&c["resources"]["requests"]["cpu"]), text(&c["allocatedResources"]["cpu"]));
    assert_eq!(given, held);
    format!("{given} {} {}", pending.map_or("-".to_owned(), |c| text(&c["reason"])), c["restartCount"])
}

#[test]
fn a_resize_waits_for_room() {
    let mut world = ready_world();
    let spec = |cpu: &str| json!({"containers": [with(container("a", "app:1"), "resources", asks(cpu))]});
    let key = world.apply("p", spec("1"));
    world.run_for(10.0);
    assert_eq!(state(&world, &key), "- - 0", "what never changes is not repeated in the status");
    resize(&mut world, &key, "2");
    assert_eq!(state(&world, &key), "2 - 0");
    resize(&mut world, &key, "1000");
    assert_eq!(state(&world, &key), "2 Infeasible 0");
    let other = world.apply("q", spec("1"));
    world.run_for(10.0);
    resize(&mut world, &key, "4");
    assert_eq!(state(&world, &key), "2 Deferred 0");
    world.restart_agent();
    world.run_for(60.0);
    assert_eq!(state(&world, &key), "2 Deferred 0", "another agent knows what was given");
    world.delete(&other, 1);
    world.run_for(60.0);
    assert_eq!(state(&world, &key), "4 - 0");
}

#[test]
fn a_container_restarts_if_its_policy_says_so() {
    let mut world = ready_world();
    let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let c = with(with(container("a", "app:1"), "resources", asks("1")), "resizePolicy", policy);
    let key = world.apply("p", json!({"containers": [c]}));
    world.run_for(10.0);
    resize(&mut world, &key, "2");
    world.run_for(60.0);
    assert_eq!(state(&world, &key), "2 - 1");
}

/// `cpu limit, reason of the condition that it is in progress, what the runtime was told`.
fn real(world: &World, key: &ObjectKey) -> String {
    let status = serde_json::to_value(world.pod(key).status.to_whole()).unwrap();
    let progress = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "PodResizeInProgress");
    let progress = progress.map_or("done".to_owned(), |c| format!("goes on {}", c["reason"].as_str().unwrap_or("")));
    let has = &status["containerStatuses"][0]["resources"]["limits"]["cpu"];
    let told: Vec<&str> = world.runtime.mounted.iter().filter_map(|told| told.strip_prefix("update ")).collect();
    format!("{} {} {}", has.as_str().unwrap_or("-"), progress.trim(), told.join(","))
}

#[test]
fn the_runtime_of_real_containers_is_told() {
    let mut world = ready_world();
    world.config.resolve = true;
    world.restart_agent();
    let limits = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
    let key = world.apply("p", json!({"containers": [with(container("a", "app:1"), "resources", limits("1"))]}));
    world.run_for(10.0);
    let resize = |world: &mut World, cpu: &str, seconds: f64| {
        world.edit(&key, |pod| pod["spec"]["containers"][0]["resources"] = limits(cpu));
        world.run_for(seconds);
    };
    resize(&mut world, "2", 0.5);
    assert_eq!(real(&world, &key), "1 goes on 2");
    resize(&mut world, "3", 5.0);
    assert_eq!(real(&world, &key), "3 done 2,3", "one after the other");
    resize(&mut world, "1000", 5.0);
    assert_eq!(real(&world, &key), "3 done 2,3", "there is no such room");
    // A container that starts anew has what it was given, and not what its spec asks for.
    let id = world.runtime.containers.keys().next().unwrap().clone();
    world.exit(&id, 1);
    world.run_for(20.0);
    let spec = &world.runtime.containers.values().last().unwrap().spec;
    assert_eq!(spec.attempt, 1);
    let has = spec.container().unwrap().resources.as_ref().unwrap().limits.as_ref().unwrap()["cpu"].0.clone();
    assert_eq!(has, "3");
    world.runtime.busy_directory = Some("it is too small".to_owned());
    resize(&mut world, "2", 5.0);
    assert_eq!(real(&world, &key), "3 goes on Error 2,3,2");
    world.runtime.busy_directory = None;
    world.run_for(120.0);
    assert_eq!(real(&world, &key), "2 done 2,3,2,2", "it is told again");
}
