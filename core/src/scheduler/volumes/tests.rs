//! Pods with claims: which nodes they may go to, what is to be written first, and what they wait for.

use serde_json::{Value, json};

use super::{Readiness, VolumeStep};
use crate::machine::{Mono, Now, Wall};
use crate::object::{Object, ObjectKey};
use crate::random::Rng;
use crate::scheduler::profile::Profile;
use crate::scheduler::{Decision, Scheduler};

fn at(seconds: u64) -> Now {
    Now { mono: Mono(seconds * 1_000_000_000), wall: Wall(seconds as i64 * 1_000_000) }
}

fn object(value: Value) -> Object {
    Object::from_json(value).unwrap()
}

/// Node `n1` in zone `a`, `n2` in zone `b`.
fn node(name: &str) -> Object {
    let zone = if name == "n1" { "a" } else { "b" };
    object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}},
        "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}}}))
}

/// A pod with these claims, or these volumes.
fn pod(name: &str, volumes: &[Value]) -> Object {
    let volume = |(i, v): (usize, &Value)| match v.as_str() {
        Some(claim) => json!({"name": format!("v{i}"), "persistentVolumeClaim": {"claimName": claim}}),
        None => v.clone(),
    };
    let volumes: Vec<Value> = volumes.iter().enumerate().map(volume).collect();
    object(json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [], "volumes": volumes},
        "metadata": {"name": name, "namespace": "d", "uid": format!("uid-{name}")}}))
}

/// A claim of class `late`, changed by a merge patch.
fn claim(name: &str, patch: Value) -> Object {
    let mut value = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
        "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "5Gi"}}},
        "status": {"phase": "Pending"}});
    json_patch::merge(&mut value, &patch);
    object(value)
}

fn bound(name: &str, volume: &str, patch: Value) -> Object {
    let mut value = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": volume}, "status": {"phase": "Bound"}});
    json_patch::merge(&mut value, &patch);
    claim(name, value)
}

/// A free volume of class `late` on a node; everywhere if it is empty.
fn volume(name: &str, node: &str, patch: Value) -> Object {
    let mut value = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "uid": name},
        "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"},
            "csi": {"driver": "disk", "volumeHandle": name}},
        "status": {"phase": "Available"}});
    if !node.is_empty() {
        value["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}});
    }
    json_patch::merge(&mut value, &patch);
    object(value)
}

/// A class whose claims wait for a consumer.
fn class(name: &str, patch: Value) -> Object {
    let mut value = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "disk", "volumeBindingMode": "WaitForFirstConsumer"});
    json_patch::merge(&mut value, &patch);
    object(value)
}

fn scheduler(objects: impl IntoIterator<Item = Object>) -> Scheduler {
    let mut s = Scheduler::new(&[Profile::default()], Rng::from_seed(1));
    for object in objects {
        tell(&mut s, 0, &object);
    }
    s
}

fn tell(s: &mut Scheduler, second: u64, object: &Object) {
    match object {
        Object::Node(node) => s.node_changed(at(second), node),
        Object::Pod(pod) => s.pod_changed(at(second), pod),
        other => s.storage_changed(at(second), other.key_ref(), Some(other)),
    }
}

/// What becomes of each pod: `p>n1 bind v for c, provision d`, or `p: message`.
fn decide(s: &mut Scheduler, second: u64) -> Vec<String> {
    s.handle_timeout(at(second));
    let step = |step: &VolumeStep| match step {
        VolumeStep::Bind { volume, claim } => format!("bind {} for {}", volume.name(), claim.name()),
        VolumeStep::Provision { claim } => format!("provision {}", claim.name()),
    };
    let all = std::iter::from_fn(|| s.next(at(second)));
    all.map(|decision| match decision {
        Decision::Bind { pod, node, volumes, .. } => {
            let steps: Vec<String> = volumes.iter().map(step).collect();
            format!("{}>{node} {}", pod.name(), steps.join(", ")).trim_end().to_owned()
        }
        Decision::Unschedulable { pod, message, .. } => format!("{}: {message}", pod.name()),
        other => panic!("there are no extenders: {other:?}"),
    })
    .collect()
}

fn check(objects: impl IntoIterator<Item = Object>, expect: &[&str]) {
    assert_eq!(decide(&mut scheduler(objects), 0), expect);
}

const HELPLESS: &str = "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";

fn nodes() -> [Object; 2] {
    [node("n1"), node("n2")]
}

#[test]
fn claims_that_keep_a_pod_from_every_node() {
    let p = || pod("p", &[json!("c")]);
    let refused = |objects: Vec<Object>, why: &str| {
        let told = format!("p: 0/2 nodes are available: {why}. {HELPLESS}");
        check(nodes().into_iter().chain(objects), &[&told]);
    };
    refused(vec![p()], "persistentvolumeclaim \"c\" not found");
    refused(
        vec![class("late", json!({"volumeBindingMode": "Immediate"})), claim("c", json!({})), p()],
        "pod has unbound immediate PersistentVolumeClaims",
    );
    let lost = claim("c", json!({"status": {"phase": "Lost"}, "spec": {"volumeName": "v"}}));
    refused(vec![lost, p()], "persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"v\"");
    let going = json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["f"]}});
    refused(vec![claim("c", going), p()], "persistentvolumeclaim \"c\" is being deleted");
    let ephemeral = || pod("p", &[json!({"name": "v", "ephemeral": {}})]);
    let waits = "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\"";
    refused(vec![ephemeral()], waits);
    let foreign = "PVC d/p-v was not created for pod d/p (pod is not owner)";
    refused(vec![claim("p-v", json!({})), ephemeral()], foreign);
}

#[test]
fn a_bound_volume_decides_where_its_pods_run() {
    let objects = |node: &str| [bound("c", "v", json!({})), volume("v", node, json!({})), pod("p", &[json!("c")])];
    check(nodes().into_iter().chain(objects("n2")), &["p>n2"]);
    let nowhere =
        format!("p: 0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity. {HELPLESS}");
    check(nodes().into_iter().chain(objects("n3")), &[&nowhere]);
    let [claim, _, p] = objects("n1");
    let missing = format!("p: 0/2 nodes are available: persistentvolume \"v\" not found. {HELPLESS}");
    check(nodes().into_iter().chain([claim, p]), &[&missing]);
    // VolumeZone looks at no claims of ephemeral volumes.
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p", "controller": true});
    let owned = bound("p-v", "v", json!({"metadata": {"ownerReferences": [owner]}}));
    let gone = format!(
        "p: 0/2 nodes are available: 2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s). \
         {HELPLESS}"
    );
    check(nodes().into_iter().chain([owned, pod("p", &[json!({"name": "v", "ephemeral": {}})])]), &[&gone]);
    let in_zone = |zone: &str| {
        let labelled = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
        [bound("c", "v", json!({})), volume("v", "", labelled), pod("p", &[json!("c")])]
    };
    check(nodes().into_iter().chain(in_zone("b")), &["p>n2"]);
    let far = format!("p: 0/2 nodes are available: 2 node(s) had no available volume zone. {HELPLESS}");
    check(nodes().into_iter().chain(in_zone("c__d")), &[&far]);
}

#[test]
fn a_claim_that_waits_gets_its_volume_with_the_node() {
    let p = || pod("p", &[json!("c")]);
    let waits = || [class("late", json!({})), claim("c", json!({})), p()];
    let one = |objects: Vec<Object>, expect: &str| {
        check([node("n1")].into_iter().chain(waits()).chain(objects), &[expect]);
    };
    one(vec![], "p>n1 provision c");
    one(vec![volume("v", "n1", json!({}))], "p>n1 bind v for c");
    one(vec![volume("v", "n2", json!({}))], "p>n1 provision c");
    let sized = |name: &str, size: &str| volume(name, "", json!({"spec": {"capacity": {"storage": size}}}));
    one(vec![sized("a", "9Gi"), sized("b", "6Gi"), sized("c", "1Gi")], "p>n1 bind b for c");
    one(vec![volume("v", "", json!({"spec": {"accessModes": ["ReadOnlyMany"]}}))], "p>n1 provision c");
    let named = json!({"spec": {"claimRef": {"namespace": "d", "name": "c"}, "capacity": {"storage": "90Gi"}}});
    one(vec![volume("a", "", json!({})), volume("v", "", named)], "p>n1 bind v for c");
    let no_more =
        format!("p: 0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind. {HELPLESS}");
    let by_hand = || class("late", json!({"provisioner": "kubernetes.io/no-provisioner"}));
    check(nodes().into_iter().chain([by_hand(), claim("c", json!({})), p()]), &[&no_more]);
    check(
        nodes().into_iter().chain([by_hand(), claim("c", json!({})), volume("v", "n2", json!({})), p()]),
        &["p>n2 bind v for c"],
    );
    let chosen = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n2"}}});
    check(nodes().into_iter().chain([class("late", json!({})), claim("c", chosen), p()]), &["p>n2 provision c"]);
    let in_b = class(
        "late",
        json!({"allowedTopologies": [{"matchLabelExpressions": [
        {"key": "topology.kubernetes.io/zone", "values": ["b", "c"]}]}]}),
    );
    check(nodes().into_iter().chain([in_b, claim("c", json!({})), p()]), &["p>n2 provision c"]);
}

#[test]
fn what_is_decided_counts_before_any_view_shows_it() {
    let both = [class("late", json!({"provisioner": "kubernetes.io/no-provisioner"})), volume("v", "", json!({}))];
    let claims = [claim("c", json!({})), claim("d", json!({}))];
    let pods = [pod("p", &[json!("c")]), pod("q", &[json!("d")])];
    let objects = [node("n1")].into_iter().chain(both).chain(claims).chain(pods);
    let mut s = scheduler(objects);
    let told = decide(&mut s, 0);
    assert_eq!(told[0], "p>n1 bind v for c");
    assert!(told[1].starts_with("q: 0/1 nodes are available: 1 node(s) didn't find available"), "{told:?}");
    // The first one comes to nothing: the volume is free again.
    s.forget(at(1), &ObjectKey::from_path(crate::object::Kind::POD, "d/p"), "uid-p");
    s.pod_removed(at(1), &ObjectKey::from_path(crate::object::Kind::POD, "d/p"));
    tell(&mut s, 20, &volume("v", "", json!({"metadata": {"labels": {"touched": "1"}}})));
    assert_eq!(decide(&mut s, 20), ["q>n1 bind v for d"]);
    // Two pods that share a claim go where the first one went.
    let shared = [class("late", json!({})), claim("c", json!({})), pod("p", &[json!("c")]), pod("q", &[json!("c")])];
    let told = decide(&mut scheduler(nodes().into_iter().chain(shared)), 0);
    assert_eq!(told[0].replace("p>", ""), told[1].replace("q>", ""), "{told:?}");
}

#[test]
fn one_pod_uses_a_claim_of_its_own() {
    let alone = json!({"spec": {"accessModes": ["ReadWriteOncePod"]}});
    let objects =
        [bound("c", "v", alone), volume("v", "", json!({})), pod("p", &[json!("c")]), pod("q", &[json!("c")])];
    let mut s = scheduler(nodes().into_iter().chain(objects));
    let told = decide(&mut s, 0);
    assert!(told[0].starts_with("p>"), "{told:?}");
    let why = "q: 0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name and \
        ReadWriteOncePod access mode. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming \
        pod.";
    assert_eq!(told[1], why);
    s.pod_removed(at(30), &ObjectKey::from_path(crate::object::Kind::POD, "d/p"));
    assert!(decide(&mut s, 30)[0].starts_with("q>"));
}

#[test]
fn a_node_has_no_more_volumes_than_its_driver_allows() {
    let limited = object(json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "n1"},
        "spec": {"drivers": [{"name": "disk", "nodeID": "n1", "allocatable": {"count": 1}}]}}));
    let objects = |second: &str| {
        [
            node("n1"),
            bound("c", "v", json!({})),
            bound("d", second, json!({})),
            volume("v", "", json!({})),
            volume("w", "", json!({})),
            pod("p", &[json!("c")]),
            pod("q", &[json!("d")]),
        ]
    };
    let why = "q: 0/1 nodes are available: 1 node(s) exceed max volume count. preemption: 0/1 nodes are available: 1 \
        No preemption victims found for incoming pod.";
    check([limited.clone()].into_iter().chain(objects("w")), &["p>n1", why]);
    check([limited].into_iter().chain(objects("v")), &["p>n1", "q>n1"]);
    check(objects("w"), &["p>n1", "q>n1"]);
}

#[test]
fn a_pod_tries_again_when_its_claim_helps() {
    let immediate = class("late", json!({"volumeBindingMode": "Immediate"}));
    let mut s = scheduler(nodes().into_iter().chain([immediate, claim("c", json!({})), pod("p", &[json!("c")])]));
    assert_eq!(decide(&mut s, 0).len(), 1);
    tell(&mut s, 10, &volume("v", "n1", json!({})));
    assert!(decide(&mut s, 10).is_empty(), "its claim is not bound");
    tell(&mut s, 20, &bound("c", "v", json!({})));
    assert_eq!(decide(&mut s, 20), ["p>n1"]);
}

#[test]
fn a_pod_is_bound_once_its_claims_are() {
    let objects = [class("late", json!({})), claim("c", json!({})), pod("p", &[json!("c")])];
    let mut s = scheduler([node("n1")].into_iter().chain(objects));
    decide(&mut s, 0);
    let key = ObjectKey::from_path(crate::object::Kind::POD, "d/p");
    let mut told = |object: Object| {
        tell(&mut s, 1, &object);
        s.readiness(&key, "n1")
    };
    let on = |node: &str| json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": node}}});
    assert_eq!(told(claim("c", on("n1"))), Readiness::Waiting);
    let failed = Readiness::Failed("provisioning failed for PVC \"c\"".to_owned());
    assert_eq!(told(claim("c", on("n2"))), failed);
    assert_eq!(told(bound("c", "v", json!({}))), Readiness::Waiting, "its volume is not known");
    assert_eq!(told(volume("v", "n1", json!({}))), Readiness::Ready);
    let far = "pv \"v\" node affinity doesn't match node \"n1\": no matching NodeSelectorTerms".to_owned();
    assert_eq!(told(volume("v", "n2", json!({}))), Readiness::Failed(far));
}
