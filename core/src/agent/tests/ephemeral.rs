//! Ephemeral containers: started once in a pod that is there, whatever its other containers do.

use serde_json::{Value, json};

use super::{World, container, ready_world, with};
use crate::object::ObjectKey;

fn debug(world: &mut World, key: &ObjectKey, ephemeral: Value) {
    world.edit(key, |pod| {
        let list = &mut pod["spec"]["ephemeralContainers"];
        match list.as_array_mut() {
            Some(list) => list.push(ephemeral),
            None => *list = json!([ephemeral]),
        }
    });
}

fn target(world: &World, name: &str) -> Option<String> {
    let made = world.runtime.containers.values().find(|c| *c.spec.name == *name).unwrap();
    made.spec.target.as_ref().map(|id| world.runtime.containers[id].spec.name.to_string())
}

#[test]
fn one_starts_once_and_counts_for_nothing() {
    let mut world = ready_world();
    let key = world.apply("p", json!({"containers": [container("a", "app:1")]}));
    world.run_for(10.0);
    debug(&mut world, &key, with(container("d", "crash:1"), "targetContainerName", json!("a")));
    world.run_for(60.0);
    assert_eq!((target(&world, "d").as_deref(), target(&world, "a")), (Some("a"), None));
    let status = serde_json::to_value(world.pod(&key).status.to_whole()).unwrap();
    let status = &status["ephemeralContainerStatuses"][0];
    assert_eq!((&status["ready"], &status["restartCount"], status.get("started")), (&json!(false), &json!(0), None));
    world.restart_agent();
    world.run_for(60.0);
    world.delete(&key, 5);
    world.run_for(10.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating
         11.3 p Running PIRCS a=running+
         20.0 p Running PIRCS a=running+ d=ContainerCreating
         21.2 p Running PIRCS a=running+ d=running
         22.2 p Running PIRCS a=running+ d=Error(1)
         140.0 stop a grace=5
         140.5 p Failed IS a=Error(143) d=Error(1)
         140.5 p deleted",
    );
    for told in ["Pulling: Pulling image \"crash:1\"", "Created: Created container: d", "Started: Started container d"]
    {
        assert!(world.api.events.iter().any(|e| e == told), "{told} in {:?}", world.api.events);
    }
}

#[test]
fn one_starts_beside_an_init_container_that_does_not_end() {
    let mut world = ready_world();
    let key =
        world.apply("p", json!({"initContainers": [container("i", "app:1")], "containers": [container("a", "app:1")]}));
    world.run_for(10.0);
    debug(&mut world, &key, container("d", "app:1"));
    world.run_for(10.0);
    // Its target has to be there already.
    debug(&mut world, &key, with(container("e", "app:1"), "targetContainerName", json!("a")));
    world.run_for(5.0);
    world.check(
        "10.0 p Pending S i=PodInitializing a=PodInitializing
         11.3 p Pending PS i=running a=PodInitializing
         20.2 p Pending PS i=running a=PodInitializing d=running
         30.0 p Pending PS i=running a=PodInitializing d=running e=CreateContainerConfigError",
    );
    let event = "Failed: Error: unable to find target container a";
    assert!(world.api.events.iter().any(|e| e == event), "{:?}", world.api.events);
}

#[test]
fn one_stops_with_its_pod() {
    let mut world = ready_world();
    let once = json!({"restartPolicy": "Never", "containers": [container("a", "step:1")]});
    let key = world.apply("p", once);
    world.run_for(1.5);
    debug(&mut world, &key, container("d", "app:1"));
    world.run_for(20.0);
    world.check(
        "10.0 p Pending IS a=ContainerCreating
         11.3 p Running PIRCS a=running+
         11.5 p Running PIRCS a=running+ d=ContainerCreating
         12.7 p Running PIRCS a=running+ d=running
         13.3 stop d grace=30
         13.3 p Running PIS a=Completed(0) d=running
         13.8 p Succeeded IS a=Completed(0) d=Error(143)",
    );
}

#[test]
fn one_that_ran_before_its_agent_does_not_run_again() {
    let mut world = ready_world();
    let key = world.apply("p", json!({"containers": [container("a", "app:1")]}));
    world.run_for(10.0);
    debug(&mut world, &key, container("d", "app:1"));
    world.run_for(10.0);
    // The machine restarts, and nothing is left of what ran on it.
    world.runtime.containers.clear();
    world.runtime.sandboxes.clear();
    world.restart_agent();
    world.run_for(10.0);
    let last = world.transcript.last().unwrap();
    assert!(last.ends_with("a=running<ContainerStatusUnknown(137)#1+ d=ContainerStatusUnknown(137)"), "{last}");
}
