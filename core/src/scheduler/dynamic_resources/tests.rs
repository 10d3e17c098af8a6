//! Pods with claims for devices: what their claims get, what they wait for, and what counts while nobody knows whether
//! it was written.

use serde_json::{Value, json};

use crate::machine::{Mono, Now, Wall};
use crate::object::{Kind, Object, ObjectKey, Revision};
use crate::random::Rng;
use crate::scheduler::profile::Profile;
use crate::scheduler::{Decision, Scheduler};

fn at(seconds: u64) -> Now {
    Now { mono: Mono(seconds * 1_000_000_000), wall: Wall(seconds as i64 * 1_000_000) }
}

fn object(value: Value) -> Object {
    Object::from_json(value).unwrap()
}

fn node(name: &str) -> Object {
    object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}}}))
}

fn pod(name: &str, claim: &str) -> Object {
    object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "d", "uid": name},
        "spec": {"containers": [], "resourceClaims": [{"name": "c", "resourceClaimName": claim}]}}))
}

/// A claim for one device, at a revision.
fn claim(name: &str, rv: u64, status: Value) -> Object {
    let exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    let mut claim = object(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "d", "uid": name},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}, "status": status}));
    claim.set_rv(Revision(rv));
    claim
}

fn class() -> Object {
    let config = json!([{"opaque": {"driver": "drv", "parameters": {"mode": "fast"}}}]);
    object(json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "gpu"},
        "spec": {"selectors": [{"cel": {"expression": "device.driver == 'drv'"}}], "config": config}}))
}

/// The only device of a node.
fn slice(node: &str) -> Object {
    object(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": node},
        "spec": {"driver": "drv", "nodeName": node, "devices": [{"name": "gpu-0"}],
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}}))
}

fn tell(s: &mut Scheduler, second: u64, object: &Object) {
    match object {
        Object::Node(node) => s.node_changed(at(second), node),
        Object::Pod(pod) => s.pod_changed(at(second), pod),
        other => s.devices_changed(at(second), other.key_ref(), Some(other)),
    }
}

fn scheduler(objects: impl IntoIterator<Item = Object>) -> Scheduler {
    let mut s = Scheduler::new(&[Profile::default()], Rng::from_seed(1));
    objects.into_iter().for_each(|object| tell(&mut s, 0, &object));
    s
}

/// What becomes of each pod: `p>n1 c: pool/device`, or `p: message`.
fn decide(s: &mut Scheduler, second: u64) -> Vec<String> {
    s.handle_timeout(at(second));
    let all = std::iter::from_fn(|| s.next(at(second)));
    all.map(|decision| match decision {
        Decision::Bind { pod, node, claims, .. } => {
            let devices = claims.iter().flat_map(|step| {
                let of = |device: &crate::resource_claim::DeviceId| {
                    format!(" {}: {}/{}", step.claim.name(), device.pool, device.device)
                };
                step.devices.iter().map(of).collect::<Vec<String>>()
            });
            format!("{}>{node}{}", pod.name(), devices.collect::<String>())
        }
        Decision::Unschedulable { pod, message, .. } => format!("{}: {message}", pod.name()),
        other => panic!("there are no extenders: {other:?}"),
    })
    .collect()
}

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, "d", name)
}

const HELPLESS: &str = "still not schedulable, preemption: 0/1 nodes are available: 1 Preemption is not helpful for \
    scheduling.";

fn one_device() -> [Object; 3] {
    [node("n1"), class(), slice("n1")]
}

#[test]
fn what_a_claim_gets_is_written_with_its_place_and_the_class_configuration() {
    let mut s = scheduler(one_device().into_iter().chain([claim("a", 1, json!({})), pod("p", "a")]));
    s.handle_timeout(at(0));
    let Some(Decision::Bind { claims, .. }) = s.next(at(0)) else { panic!("it fits") };
    let config = json!([{"opaque": {"driver": "drv", "parameters": {"mode": "fast"}}, "source": "FromClass",
        "requests": ["r"]}]);
    let here = json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]});
    let expect = json!({"nodeSelector": here, "devices": {"config": config,
        "results": [{"request": "r", "driver": "drv", "pool": "n1", "device": "gpu-0"}]}});
    assert_eq!(claims[0].allocation.as_deref(), Some(&expect));
}

#[test]
fn a_pod_is_not_tried_before_its_claim_is_there() {
    let mut s = scheduler(one_device().into_iter().chain([pod("p", "a")]));
    assert!(decide(&mut s, 0).is_empty());
    let advice = s.advise(&key(Kind::POD, "p")).unwrap();
    assert_eq!(advice.state, "waits for its claims: could not find ResourceClaim \"d/a\"");
    tell(&mut s, 1, &claim("a", 1, json!({})));
    assert_eq!(decide(&mut s, 1), ["p>n1 a: n1/gpu-0"]);
}

#[test]
fn a_device_is_chosen_for_one_claim_and_free_again_when_that_comes_to_nothing() {
    let objects = [claim("a", 1, json!({})), claim("b", 1, json!({})), pod("p", "a"), pod("q", "b")];
    let mut s = scheduler(one_device().into_iter().chain(objects));
    let why = format!("q: 0/1 nodes are available: 1 cannot allocate all claims. {HELPLESS}");
    assert_eq!(decide(&mut s, 0), ["p>n1 a: n1/gpu-0".to_owned(), why]);
    s.pod_removed(at(30), &key(Kind::POD, "p"));
    assert_eq!(decide(&mut s, 30), ["q>n1 b: n1/gpu-0"]);
}

#[test]
fn a_device_stays_chosen_while_the_write_may_still_be_carried_out() {
    let objects = [claim("a", 4, json!({})), claim("b", 1, json!({})), pod("p", "a"), pod("q", "b")];
    let mut s = scheduler(one_device().into_iter().chain(objects));
    decide(&mut s, 0);
    s.claim_sent(&key(Kind::POD, "p"), &key(Kind::RESOURCE_CLAIM, "a"), Some(Revision(4)));
    s.pod_removed(at(30), &key(Kind::POD, "p"));
    assert!(decide(&mut s, 30).is_empty(), "the write may still arrive");
    // Another pod with the same claim may have the device: one of the two writes is refused.
    tell(&mut s, 31, &pod("r", "a"));
    assert_eq!(decide(&mut s, 31), ["r>n1 a: n1/gpu-0"]);
    s.pod_removed(at(32), &key(Kind::POD, "r"));
    assert!(decide(&mut s, 32).is_empty());
    tell(&mut s, 60, &claim("a", 5, json!({})));
    assert_eq!(decide(&mut s, 60), ["q>n1 b: n1/gpu-0"], "it was refused: the claim is at another revision");
}

#[test]
fn a_claim_that_is_being_allocated_is_waited_for_and_then_shared() {
    let objects = [claim("a", 1, json!({})), pod("p", "a"), pod("q", "a")];
    let mut s = scheduler(one_device().into_iter().chain(objects));
    let why = "q: 0/1 nodes are available: resource claim d/a is in the process of being allocated. no new claims to \
        deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(decide(&mut s, 0), ["p>n1 a: n1/gpu-0", why]);
    let here = json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]});
    let allocation = json!({"nodeSelector": here,
        "devices": {"results": [{"request": "r", "driver": "drv", "pool": "n1", "device": "gpu-0"}]}});
    tell(&mut s, 30, &claim("a", 2, json!({"allocation": allocation})));
    assert_eq!(decide(&mut s, 30), ["q>n1"]);
}

#[test]
fn a_pod_is_retried_when_a_device_is_published_or_given_back() {
    let objects = [claim("a", 1, json!({})), pod("p", "a")];
    let mut s = scheduler([node("n1"), class()].into_iter().chain(objects));
    assert_eq!(decide(&mut s, 0).len(), 1);
    tell(&mut s, 30, &slice("n1"));
    assert_eq!(decide(&mut s, 30), ["p>n1 a: n1/gpu-0"]);
    let taken = json!({"allocation": {"devices": {"results": [
        {"request": "r", "driver": "drv", "pool": "n1", "device": "gpu-0"}]}}});
    let objects = [claim("a", 1, taken), claim("b", 1, json!({})), pod("q", "b")];
    let mut s = scheduler(one_device().into_iter().chain(objects));
    assert_eq!(decide(&mut s, 0).len(), 1);
    tell(&mut s, 30, &claim("a", 2, json!({})));
    assert_eq!(decide(&mut s, 30), ["q>n1 b: n1/gpu-0"]);
}

#[test]
fn a_claim_that_nobody_uses_is_allocated_anew_where_its_pod_can_run() {
    let elsewhere = json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["gone"]}]}]});
    let taken = json!({"allocation": {"nodeSelector": elsewhere, "devices": {"results": [
        {"request": "r", "driver": "drv", "pool": "gone", "device": "gpu-0"}]}}});
    let mut s = scheduler(one_device().into_iter().chain([claim("a", 1, taken), pod("p", "a")]));
    s.handle_timeout(at(0));
    let Some(Decision::Unschedulable { message, idle, .. }) = s.next(at(0)) else { panic!("it fits nowhere") };
    assert_eq!(
        message,
        "0/1 nodes are available: 1 resourceclaim not available on the node. deallocation of ResourceClaim completed, \
         preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    assert_eq!(idle, Some(key(Kind::RESOURCE_CLAIM, "a")));
}

#[test]
fn an_expression_that_fails_is_told_also_where_there_are_too_few_devices() {
    let mut many = claim("a", 1, json!({})).to_json();
    let expression = "device.attributes['drv'].model == 'large'";
    many["spec"]["devices"]["requests"][0]["exactly"]["count"] = json!(2);
    many["spec"]["devices"]["requests"][0]["exactly"]["selectors"] = json!([{"cel": {"expression": expression}}]);
    let mut s = scheduler(one_device().into_iter().chain([object(many), pod("p", "a")]));
    let why = "claim d/a: selector #0 on device drv/n1/gpu-0: CEL runtime error: no such key: model";
    assert_eq!(decide(&mut s, 0), [format!("p: 0/1 nodes are available: 1 {why}. {HELPLESS}")]);
}

#[test]
fn a_search_that_takes_too_long_ends() {
    let devices: Vec<Value> = (0..40).map(|i| json!({"name": format!("d{i}")})).collect();
    let mut many = slice("n1").to_json();
    many["spec"]["devices"] = json!(devices);
    let request = |i: usize| {
        let expression = if i == 15 { "device.driver == 'none'" } else { "device.driver == 'drv'" };
        json!({"name": format!("r{i}"), "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1,
            "selectors": [{"cel": {"expression": expression}}]}})
    };
    let mut hard = claim("a", 1, json!({})).to_json();
    hard["spec"]["devices"]["requests"] = (0..16).map(request).collect();
    let mut s = scheduler([node("n1"), class(), object(many), object(hard), pod("p", "a")]);
    let why = format!("p: 0/1 nodes are available: 1 timed out trying to allocate devices. {HELPLESS}");
    assert_eq!(decide(&mut s, 0), [why]);
}
