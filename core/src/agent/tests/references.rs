//! Pods that refer to ConfigMaps and Secrets that exist, do not exist, or are created later.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::{World, container, ready_world, with};
use crate::agent::{ImagePolicy, PullSecret};
use crate::object::{ContainerState, Kind, Object, ObjectKey};

fn put(world: &mut World, kind: &str, name: &str, data: Value) {
    let uid = format!("uid-{kind}-{name}");
    let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "d", "uid": uid},
        "data": data});
    world.put(Object::from_json(object).unwrap());
}

fn config_map(world: &mut World, name: &str) {
    put(world, "ConfigMap", name, json!({"k": "v"}));
}

fn env_from(name: &str) -> Value {
    with(container("a", "app:1"), "envFrom", json!([{"configMapRef": {"name": name}}]))
}

/// Reason and message with which the first container waits.
fn waits(world: &World, key: &ObjectKey) -> (String, String) {
    match &world.pod(key).status.container_statuses[0].state {
        ContainerState::Waiting { reason, message } => (reason.to_string(), message.to_string()),
        ContainerState::Running { .. } => ("Running".to_owned(), String::new()),
        other => panic!("{other:?}"),
    }
}

fn config_error(message: &str) -> (String, String) {
    ("CreateContainerConfigError".to_owned(), message.to_owned())
}

fn running() -> (String, String) {
    ("Running".to_owned(), String::new())
}

fn said(world: &World, event: &str) -> usize {
    world.api.events.iter().filter(|e| e.ends_with(event)).count()
}

#[test]
fn an_environment_waits_for_what_it_names() {
    let mut world = ready_world();
    let a = with(
        env_from("settings"),
        "env",
        json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "password", "key": "k"}}}]),
    );
    let key = world.apply("p", json!({"containers": [a, container("b", "app:1")]}));
    world.run_for(10.0);
    assert_eq!(waits(&world, &key), config_error("configmap \"settings\" not found"));
    assert!(said(&world, "Failed: Error: configmap \"settings\" not found") > 0, "{:?}", world.api.events);
    let b = &world.pod(&key).status.container_statuses[1];
    assert!(matches!(b.state, ContainerState::Running { .. }), "the other container runs: {:?}", b.state);

    config_map(&mut world, "settings");
    world.run_for(30.0);
    assert_eq!(waits(&world, &key), config_error("secret \"password\" not found"));
    put(&mut world, "Secret", "password", json!({"other": "dg=="}));
    world.run_for(30.0);
    assert_eq!(waits(&world, &key), config_error("couldn't find key k in Secret d/password"));
    // A cached object is used for a minute.
    put(&mut world, "Secret", "password", json!({"k": "dg=="}));
    world.run_for(90.0);
    assert_eq!(waits(&world, &key), running());
}

#[test]
fn volumes_wait_for_what_they_name() {
    let mut world = ready_world();
    let key = world.apply(
        "p",
        json!({"containers": [container("a", "app:1")], "volumes": [
            {"name": "one", "secret": {"secretName": "keys"}},
            {"name": "two", "projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "y"}}]}},
            {"name": "three", "configMap": {"name": "z", "optional": true}},
        ]}),
    );
    world.run_for(5.0);
    assert_eq!(waits(&world, &key).0, "ContainerCreating");
    let mount =
        |volume: &str, why: &str| format!("FailedMount: MountVolume.SetUp failed for volume \"{volume}\" : {why}");
    assert_eq!(said(&world, &mount("one", "secret \"keys\" not found")), 1, "{:?}", world.api.events);
    let both = "[configmap \"x\" not found, secret \"y\" not found]";
    assert_eq!(said(&world, &mount("two", both)), 1, "{:?}", world.api.events);
    assert_eq!(world.runtime.sandboxes.len(), 0, "volumes come before the sandbox");
    assert!(said(&world, "MountVolume.SetUp failed for volume \"one\" : secret \"keys\" not found") > 1, "tried again");

    config_map(&mut world, "x");
    put(&mut world, "Secret", "y", json!({}));
    put(&mut world, "Secret", "keys", json!({}));
    world.run_for(30.0);
    assert_eq!(waits(&world, &key), running());
    world.delete(&key, 1);
    world.run_for(10.0);
    assert_eq!(world.agent.pods(), 0);
}

#[test]
fn items_of_a_volume_are_keys_that_are_there() {
    let mut world = ready_world();
    config_map(&mut world, "x");
    let volumes = json!([{"name": "v", "configMap": {"name": "x", "items": [{"key": "k", "path": "k"},
        {"key": "l", "path": "l"}]}}]);
    let key = world.apply("p", json!({"containers": [container("a", "app:1")], "volumes": volumes}));
    world.run_for(5.0);
    assert_eq!(waits(&world, &key).0, "ContainerCreating");
    let why = "configmap references non-existent config key: l";
    assert!(said(&world, why) > 0, "{:?}", world.api.events);
}

#[test]
fn what_is_optional_may_be_missing() {
    let mut world = ready_world();
    let a = json!({"name": "a", "image": "app:1",
        "envFrom": [{"secretRef": {"name": "x", "optional": true}}],
        "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "y", "key": "k", "optional": true}}}]});
    let volumes = json!([{"name": "v", "secret": {"secretName": "z", "optional": true}}]);
    let key = world.apply("p", json!({"containers": [a], "volumes": volumes}));
    world.run_for(5.0);
    assert_eq!(waits(&world, &key), running());
}

#[test]
fn pods_share_what_is_read_and_others_read_nothing() {
    let requests = |container: &Value| {
        let mut world = ready_world();
        config_map(&mut world, "x");
        let before = world.api.requests;
        for i in 0..5 {
            world.apply(&format!("p{i}"), json!({"containers": [container]}));
        }
        world.run_for(5.0);
        world.api.requests - before
    };
    assert_eq!(requests(&env_from("x")), requests(&container("a", "app:1")) + 1);
}

#[test]
fn a_pod_may_go_while_it_waits() {
    let mut world = ready_world();
    let volumes = json!([{"name": "v", "secret": {"secretName": "z"}}]);
    let one = world.apply("one", json!({"containers": [container("a", "app:1")], "volumes": volumes}));
    let two = world.apply("two", json!({"containers": [env_from("x")]}));
    world.run_for(5.0);
    world.delete(&one, 30);
    world.delete(&two, 30);
    world.run_for(40.0);
    assert_eq!(world.agent.pods(), 0);
    assert!(world.runtime.sandboxes.is_empty());
}

#[test]
fn a_broken_connection_and_a_new_agent_ask_again() {
    let mut world = ready_world();
    let key = world.apply("p", json!({"containers": [env_from("x")]}));
    world.run_for(5.0);
    assert_eq!(waits(&world, &key), config_error("configmap \"x\" not found"));
    world.restart_agent();
    world.run_for(20.0);
    assert_eq!(waits(&world, &key), config_error("configmap \"x\" not found"));
    config_map(&mut world, "x");
    world.run_for(20.0);
    assert_eq!(waits(&world, &key), running());
}

#[test]
fn a_pod_waits_for_its_claim_to_be_bound() {
    let mut world = ready_world();
    let spec = json!({"containers": [container("a", "app:1")],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]});
    let key = world.apply("p", spec);
    world.run_for(10.0);
    let prefix = "FailedMount: Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], \
        failed to process volumes=[data]: error processing PVC d/c: ";
    let missing = format!("{prefix}failed to fetch PVC from API server: persistentvolumeclaims \"c\" not found");
    assert!(said(&world, &missing) > 0, "{:?}", world.api.events);
    let claim = |status: Value, volume: Value| {
        Object::from_json(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": status,
            "metadata": {"name": "c", "namespace": "d", "uid": "uid-c"}, "spec": {"volumeName": volume}}))
        .unwrap()
    };
    world.put(claim(json!({"phase": "Pending"}), Value::Null));
    world.run_for(40.0);
    assert!(said(&world, &format!("{prefix}PVC is not bound")) > 0, "{:?}", world.api.events);
    assert_ne!(waits(&world, &key), running());
    world.put(claim(json!({"phase": "Bound"}), json!("v")));
    world.run_for(60.0);
    let gone = format!("{prefix}failed to fetch PV v from API server: persistentvolumes \"v\" not found");
    assert!(said(&world, &gone) > 0, "{:?}", world.api.events);
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v", "uid": "uid-v"},
        "spec": {"hostPath": {"path": "/x"}}});
    world.put(Object::from_json(volume).unwrap());
    world.run_for(130.0);
    assert_eq!(waits(&world, &key), running());
}

/// A world with a claim that is bound to a volume of a CSI driver, and the spec of a pod that uses it.
fn world_with_disk() -> (World, Value) {
    let mut world = ready_world();
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Bound"},
        "metadata": {"name": "c", "namespace": "d", "uid": "uid-c"}, "spec": {"volumeName": "v"}});
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v", "uid": "uid-v"},
        "spec": {"csi": {"driver": "disk", "volumeHandle": "h"}}});
    for value in [claim, volume] {
        world.put(Object::from_json(value).unwrap());
    }
    let spec = json!({"containers": [container("a", "app:1")], "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]});
    (world, spec)
}

const DISK: &str = "kubernetes.io/csi/disk^h";

fn node_status(world: &World) -> &core_v1::NodeStatus {
    let node = world.api.objects[&ObjectKey::new(Kind::NODE, "", "n1")].get::<core_v1::Node>().unwrap();
    &node.status
}

fn in_use(world: &World) -> &[String] {
    node_status(world).volumes_in_use.as_deref().unwrap_or_default()
}

/// Lets the node's status say that the disk is attached, or not.
fn attach(world: &mut World, attached: bool) {
    let mut object = world.api.objects[&ObjectKey::new(Kind::NODE, "", "n1")].clone();
    let Object::Node(node) = &mut object else { unreachable!("it is a node") };
    let disk = core_v1::AttachedVolume { name: DISK.to_owned(), device_path: String::new() };
    node.status_mut().volumes_attached = attached.then(|| vec![disk]);
    world.put(object);
}

#[test]
fn a_pod_waits_for_its_volume_to_be_attached_to_its_node() {
    let (mut world, spec) = world_with_disk();
    let key = world.apply("p", spec);
    world.run_for(15.0);
    assert_eq!(in_use(&world), [DISK]);
    world.run_for(285.0);
    assert_ne!(waits(&world, &key), running());
    let told = "FailedMount: Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[data], \
        failed to process volumes=[]: context deadline exceeded";
    assert!(said(&world, told) > 0, "{:?}", world.api.events);
    attach(&mut world, true);
    world.run_for(130.0);
    assert_eq!(waits(&world, &key), running());
    // Once its containers have ended, the volume is not in use any more.
    world.delete(&key, 1);
    world.run_for(15.0);
    assert!(in_use(&world).is_empty(), "{:?}", in_use(&world));
}

#[test]
fn a_volume_that_is_attached_waits_until_the_node_says_that_it_is_in_use() {
    let (mut world, spec) = world_with_disk();
    attach(&mut world, true);
    let key = world.apply("p", spec.clone());
    world.run_for(5.0);
    assert_eq!((waits(&world, &key).0 == "Running", in_use(&world).len()), (false, 0));
    world.run_for(10.0);
    assert_eq!((waits(&world, &key), in_use(&world)), (running(), &[DISK.to_owned()][..]));
    // What was said for a pod that is gone does not serve the next one after it was taken back.
    world.delete(&key, 1);
    world.run_for(15.0);
    assert!(in_use(&world).is_empty());
    let next = world.apply("q", spec);
    world.run_for(5.0);
    assert_eq!((waits(&world, &next).0 == "Running", in_use(&world).len()), (false, 0));
    world.run_for(10.0);
    assert_eq!((waits(&world, &next), in_use(&world)), (running(), &[DISK.to_owned()][..]));
}

#[test]
fn a_volume_stays_in_use_when_the_agent_starts_anew() {
    let (mut world, spec) = world_with_disk();
    attach(&mut world, true);
    let key = world.apply("p", spec);
    world.run_for(20.0);
    assert_eq!(in_use(&world), [DISK]);
    world.restart_agent();
    for _ in 0..300 {
        world.run_for(0.1);
        assert_eq!(in_use(&world), [DISK]);
    }
    assert_eq!(waits(&world, &key), running());
    world.delete(&key, 1);
    world.run_for(15.0);
    assert!(in_use(&world).is_empty());
}

#[test]
fn real_containers_get_what_their_pods_refer_to() {
    let mut world = ready_world();
    world.config.resolve = true;
    world.restart_agent();
    config_map(&mut world, "x");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "namespace": "d", "uid": "s"},
        "spec": {"clusterIP": "10.0.0.9", "ports": [{"port": 5432}]}});
    world.put(Object::from_json(service).unwrap());
    let a = json!({"name": "a", "image": "app:1", "command": ["run", "$(K)", "$(NONE)"],
        "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "k"}}},
            {"name": "AT", "value": "$(DB_SERVICE_HOST)"}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath":
            "status.podIP"}}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v", "subPathExpr": "of-$(K)"}]});
    let volumes = json!([{"name": "v", "configMap": {"name": "x"}}]);
    let key = world.apply("p", json!({"containers": [a], "volumes": volumes}));
    world.run_for(10.0);
    assert_eq!(waits(&world, &key), running());
    let spec = &world.runtime.containers.values().next().unwrap().spec;
    let resolved = spec.resolved.as_ref().unwrap();
    assert_eq!(resolved.command, ["run", "v", "$(NONE)"]);
    assert_eq!(resolved.mounts[0].sub_path, "of-v");
    let variable = |name: &str| resolved.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    assert_eq!((variable("AT"), variable("IP")), (Some("10.0.0.9"), world.pod(&key).status.pod_ip.as_str().into()));
    assert_eq!(variable("DB_PORT"), Some("tcp://10.0.0.9:5432"));
    assert_eq!(world.runtime.mounted.len(), 1, "{:?}", world.runtime.mounted);

    // What has changed is mounted again within two minutes; what has not, is not.
    world.run_for(200.0);
    assert_eq!(world.runtime.mounted.len(), 1, "{:?}", world.runtime.mounted);
    put(&mut world, "ConfigMap", "x", json!({"k": "new"}));
    world.run_for(150.0);
    assert_eq!(world.runtime.mounted.len(), 2, "{:?}", world.runtime.mounted);
    world.delete(&key, 1);
    world.run_for(10.0);
    let last = world.runtime.mounted.last().unwrap();
    assert!(last.starts_with("unmount p-"), "{last}");
    assert_eq!((world.agent.pods(), world.runtime.sandboxes.len()), (0, 0));
}

#[test]
fn real_containers_get_the_volumes_of_their_claims() {
    let made = json!({"labels": {"skeg.dev/directory-of": "n1"}});
    for (metadata, spec, expect) in [
        (
            made,
            json!({"hostPath": {"path": "/dir", "type": "DirectoryOrCreate"}}),
            "Persistent { path: \"/dir\", type_: \"DirectoryOrCreate\", made: true, takes_group: true }",
        ),
        (
            json!({}),
            json!({"hostPath": {"path": "/dir"}}),
            "Persistent { path: \"/dir\", type_: \"\", made: false, takes_group: false }",
        ),
        (
            json!({}),
            json!({"local": {"path": "/disk"}}),
            "Persistent { path: \"/disk\", type_: \"Directory\", made: false, takes_group: true }",
        ),
        (json!({}), json!({"nfs": {"server": "s", "path": "/"}}), "Unknown(\"persistentVolumeClaim: nfs\")"),
        (
            json!({}),
            json!({"local": {"path": "/dev/x"}, "volumeMode": "Block"}),
            "Unknown(\"persistentVolumeClaim: block devices\")",
        ),
    ] {
        let mut world = ready_world();
        world.config.resolve = true;
        world.restart_agent();
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "d", "uid": "u"},
            "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
        let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec});
        volume["metadata"]["name"] = json!("v");
        for object in [claim, volume] {
            world.put(Object::from_json(object).unwrap());
        }
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]);
        world.apply("p", json!({"containers": [container("a", "app:1")], "volumes": volumes}));
        world.run_for(10.0);
        let mounted = world.runtime.mounted.first().expect("it is mounted");
        assert!(mounted.contains(expect), "{mounted}");
    }
}

#[test]
fn a_sub_path_stays_inside_its_volume() {
    for (value, why) in [
        ("data", ""),
        ("/tmp", "error SubPath `/tmp` must not be an absolute path"),
        ("a/../..", "unable to provision SubPath `a/../..`: must not contain '..'"),
        ("", "missing value for SUB"),
    ] {
        let mut world = ready_world();
        let mounts = json!([{"name": "v", "mountPath": "/v", "subPathExpr": "$(SUB)"}]);
        let c = with(container("a", "app:1"), "env", json!([{"name": "SUB", "value": value}]));
        let spec = json!({"containers": [with(c, "volumeMounts", mounts)], "volumes": [{"name": "v", "emptyDir": {}}]});
        let key = world.apply("p", spec);
        world.run_for(20.0);
        let reason = if why.is_empty() { "Running" } else { "CreateContainerConfigError" };
        assert_eq!(waits(&world, &key), (reason.to_owned(), why.to_owned()), "{value}");
    }
}

#[test]
fn images_are_pulled_with_the_secrets_that_exist() {
    let mut world = ready_world();
    world.config.resolve = true;
    world.restart_agent();
    let secret = |name: &str, type_: &str, entry: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": type_, "data": {entry: "e30="},
            "metadata": {"name": name, "namespace": "d", "uid": name}})
    };
    for object in [
        secret("new", "kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
        secret("old", "kubernetes.io/dockercfg", ".dockercfg"),
        secret("other", "Opaque", ".dockerconfigjson"),
    ] {
        world.put(Object::from_json(object).unwrap());
    }
    let names = ["new", "", "other", "none", "old", "neither"].map(|name| json!({"name": name}));
    let key = world.apply("p", json!({"containers": [container("a", "app:1")], "imagePullSecrets": names}));
    let alone = world.apply("q", json!({"containers": [container("a", "app:1")]}));
    world.run_for(10.0);
    assert_eq!((waits(&world, &key), waits(&world, &alone)), (running(), running()));
    let secret = |is_dockercfg| PullSecret { is_dockercfg, config: b"{}".to_vec() };
    assert_eq!(world.runtime.pulls, [vec![], vec![secret(false), secret(true)]], "each pod its own");
    let why = "FailedToRetrieveImagePullSecret: Unable to retrieve some image pull secrets (none, neither); attempting to \
               pull the image may not succeed.";
    assert_eq!(said(&world, why), 1, "{:?}", world.api.events);
}

#[test]
fn images_that_nothing_uses_are_removed_and_pulled_again() {
    let mut world = ready_world();
    world.config.images = Some(ImagePolicy { minimum_age: Duration::from_secs(10), ..ImagePolicy::default() });
    world.restart_agent();
    let once = |image: &str| json!({"restartPolicy": "Never", "containers": [container("a", image)]});
    world.apply("stays", once("app:1"));
    let key = world.apply("ends", once("step:1"));
    world.run_for(400.0);
    let there = |world: &World| world.runtime.images.keys().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(there(&world), ["app:1", "step:1"], "a container that has ended uses its image");
    world.delete(&key, 1);
    world.run_for(400.0);
    assert_eq!(there(&world), ["app:1"]);
    let why = "Attempted to free 2000 bytes, but only found 1000 bytes eligible to free.";
    assert!(said(&world, why) > 0, "{:?}", world.api.events);
    let pulls = world.runtime.pulls.len();
    let key = world.apply("again", once("step:1"));
    world.run_for(20.0);
    assert_eq!((world.pod(&key).status.phase.as_str(), world.runtime.pulls.len()), ("Succeeded", pulls + 1));
}
