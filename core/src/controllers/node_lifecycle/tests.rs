use super::{NodeLifecycleController, Write};
use crate::client::Change;
use crate::controllers::fake_cluster::{Fake, at, node, object, pod, with};
use crate::controllers::{Controller, Plan};
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey, Revision};
use serde_json::json;

const KINDS: &[Kind] = &[Kind::NODE, Kind::LEASE, Kind::POD];

fn lease(node: &str) -> Object {
    object(json!({"apiVersion":"coordination.k8s.io/v1","kind":"Lease",
        "metadata":{"name":node,"namespace":"kube-node-lease","uid":format!("lease-{node}"),
            "ownerReferences":[{"apiVersion":"v1","kind":"Node","name":node,"uid":format!("node-{node}")}]},
        "spec":{"holderIdentity":node}}))
}

fn in_zone(name: &str, zone: &str) -> Object {
    with(node(name), json!({"metadata":{"labels":{"topology.kubernetes.io/zone":zone}}}))
}

/// A cluster with the controller, which runs every five seconds. Before each run, the nodes in `alive` renew their
/// leases.
struct Run {
    fake: Fake,
    controller: NodeLifecycleController,
    secs: u64,
    events: Vec<String>,
    deletes: Vec<(u64, String)>,
}

impl Run {
    fn new(objects: impl IntoIterator<Item = Object>) -> Run {
        let fake = Fake::new(KINDS, objects);
        Run { fake, controller: NodeLifecycleController::default(), secs: 0, events: Vec::new(), deletes: Vec::new() }
    }

    fn step(&mut self, key: &ObjectKey, now: Now) -> Plan {
        let plan = self.fake.step(&mut self.controller, key, now);
        for write in &plan.writes {
            self.controller.succeeded(&self.fake.views, key, write, None);
        }
        self.events.extend(plan.events.iter().map(|e| format!("{} {}", e.reason, e.message)));
        for write in &plan.writes {
            if let Write::Delete { key, .. } = write {
                self.deletes.push((self.secs, key.name().to_owned()));
            }
        }
        plan
    }

    fn until(&mut self, secs: u64, alive: &[&str]) {
        while self.secs < secs {
            self.secs += 5;
            for name in alive {
                self.fake.put(lease(name));
            }
            self.fake.advance();
            let now = at(self.secs);
            let look = self.controller.look.clone();
            self.step(&look, now);
            for kind in [Kind::NODE, Kind::POD] {
                for _ in 0..4 {
                    let keys: Vec<ObjectKey> = self.fake.views.view(kind).iter().map(|(k, _)| k.clone()).collect();
                    for key in keys {
                        self.step(&key, now);
                    }
                }
            }
        }
    }

    fn taints(&self, name: &str) -> Vec<String> {
        let json = self.fake.get(Kind::NODE, name).expect("the node").to_json();
        let list = json["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let short = |t: &serde_json::Value| t["key"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        list.iter().map(|t| format!("{}:{}", short(t), t["effect"].as_str().unwrap())).collect()
    }

    fn ready(&self, kind: Kind, path: &str) -> String {
        let json = self.fake.get(kind, path).expect("the object").to_json();
        let list = json["status"]["conditions"].as_array().cloned().unwrap_or_default();
        list.iter().find(|c| c["type"] == "Ready").map_or("", |c| c["status"].as_str().unwrap()).to_owned()
    }
}

fn tolerant(name: &str, node: &str, seconds: Option<i64>) -> Object {
    with(
        pod(name, node),
        json!({"spec":{"tolerations":[{"key":"node.kubernetes.io/unreachable","operator":"Exists",
            "effect":"NoExecute","tolerationSeconds":seconds}]}}),
    )
}

fn three_nodes() -> Run {
    let nodes = ["n1", "n2", "n3"];
    let pods = [pod("p1", "n1"), tolerant("p2", "n1", Some(30)), tolerant("p3", "n1", None), pod("p4", "n2")];
    let objects = nodes.iter().flat_map(|n| [node(n), lease(n)]).chain(pods);
    Run::new(objects)
}

#[test]
fn a_silent_node_is_declared_tainted_and_emptied() {
    let mut run = three_nodes();
    run.until(45, &["n1", "n2", "n3"]);
    run.until(85, &["n2", "n3"]);
    assert_eq!(run.ready(Kind::NODE, "n1"), "True", "40 s of silence are allowed");
    run.until(90, &["n2", "n3"]);
    assert_eq!(run.ready(Kind::NODE, "n1"), "Unknown");
    assert!(run.taints("n1").contains(&"unreachable:NoSchedule".to_owned()));
    assert_eq!(run.ready(Kind::POD, "d/p1"), "False");
    assert_eq!(run.ready(Kind::POD, "d/p4"), "True");
    run.until(95, &["n2", "n3"]);
    assert_eq!(run.taints("n1"), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
    assert_eq!(run.deletes, [(95, "p1".to_owned())]);
    run.until(300, &["n2", "n3"]);
    assert_eq!(run.deletes, [(95, "p1".to_owned()), (125, "p2".to_owned())]);
    assert!(run.events.contains(&"NodeNotReady Node n1 status is now: NodeNotReady".to_owned()));
    assert!(run.events.contains(&"TaintManagerEviction Marking for deletion Pod d/p1".to_owned()));
    assert_eq!(run.taints("n2"), Vec::<String>::new());
}

#[test]
fn a_pod_is_declared_once() {
    let mut run = three_nodes();
    run.until(45, &["n1", "n2", "n3"]);
    run.until(90, &["n2", "n3"]);
    let pod = run.fake.get(Kind::POD, "d/p3").expect("it tolerates").clone();
    run.fake.put(with(pod, json!({"status":{"conditions":[{"type":"Ready","status":"True"}]}})));
    run.controller.nodes.get_mut(&ObjectKey::new(Kind::NODE, "", "n1")).unwrap().pods_marked = false;
    run.until(120, &["n2", "n3"]);
    assert_eq!(run.ready(Kind::POD, "d/p3"), "True", "its agent lives after all");
}

#[test]
fn recovery_takes_the_taints_and_cancels_evictions() {
    let mut run = three_nodes();
    run.until(45, &["n1", "n2", "n3"]);
    run.until(100, &["n2", "n3"]);
    run.fake.put(with(
        node("n1"),
        json!({"spec":{"taints":[
        {"key":"node.kubernetes.io/unreachable","effect":"NoSchedule"},
        {"key":"node.kubernetes.io/unreachable","effect":"NoExecute"}]}}),
    ));
    run.until(200, &["n1", "n2", "n3"]);
    assert_eq!(run.taints("n1"), Vec::<String>::new());
    assert!(!run.deletes.iter().any(|(_, p)| p == "p2"));
    assert!(run.events.contains(&"TaintManagerEviction Cancelling deletion of Pod d/p2".to_owned()));
}

#[test]
fn where_every_zone_is_lost_nothing_is_evicted() {
    let mut run = three_nodes();
    run.until(45, &["n1", "n2", "n3"]);
    run.until(300, &[]);
    for name in ["n1", "n2", "n3"] {
        assert_eq!(run.ready(Kind::NODE, name), "Unknown");
        assert_eq!(run.taints(name), ["unreachable:NoSchedule"]);
    }
    assert!(run.deletes.is_empty());
}

#[test]
fn a_zone_is_tainted_node_by_node() {
    let names: Vec<String> = (0..8).map(|i| format!("n{i}")).collect();
    let zone = |i: usize| if i < 4 { "a" } else { "b" };
    let nodes = names.iter().enumerate().flat_map(|(i, n)| [in_zone(n, zone(i)), lease(n)]);
    let mut run = Run::new(nodes);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    run.until(45, &all);
    let count =
        |run: &Run| names.iter().filter(|n| run.taints(n).contains(&"unreachable:NoExecute".to_owned())).count();
    run.until(95, &all[4..]);
    assert_eq!(count(&run), 1, "zone a is fully disrupted: one node, then one in ten seconds");
    run.until(115, &all[4..]);
    assert_eq!(count(&run), 3);
    let mut small = Run::new(names.iter().flat_map(|n| [in_zone(n, "a"), lease(n)]));
    small.until(45, &all);
    small.until(300, &all[5..]);
    assert_eq!(names.iter().filter(|n| small.taints(n).contains(&"unreachable:NoExecute".to_owned())).count(), 0);
}

#[test]
fn who_sees_nothing_declares_nothing() {
    let mut run = three_nodes();
    run.until(45, &["n1", "n2", "n3"]);
    let look = run.controller.look.clone();
    for secs in (50..200).step_by(5) {
        assert!(run.fake.step(&mut run.controller, &look, at(secs)).wake.is_empty());
    }
    run.secs = 200;
    run.until(230, &["n2", "n3"]);
    assert_eq!(run.ready(Kind::NODE, "n1"), "True", "silence counts anew after blindness");
    run.until(260, &["n2", "n3"]);
    assert_eq!(run.ready(Kind::NODE, "n1"), "Unknown");
}

/// The news of other nodes may be right behind the one that ends a pause.
#[test]
fn after_a_pause_nobody_is_silent_at_once() {
    for (pause, unknown_at) in [(15, 90), (30, 130), (60, 160)] {
        let mut run = three_nodes();
        run.until(45, &["n1", "n2", "n3"]);
        let look = run.controller.look.clone();
        for secs in (50..=45 + pause).step_by(5) {
            assert!(run.fake.step(&mut run.controller, &look, at(secs)).wake.is_empty());
        }
        run.secs = 45 + pause;
        run.until(unknown_at - 10, &["n2", "n3"]);
        assert_eq!(run.ready(Kind::NODE, "n1"), "True", "after a pause of {pause} s");
        run.until(unknown_at, &["n2", "n3"]);
        assert_eq!(run.ready(Kind::NODE, "n1"), "Unknown", "after a pause of {pause} s");
    }
}

#[test]
fn a_node_that_says_it_is_not_ready() {
    let mut run = three_nodes();
    run.until(10, &["n1", "n2", "n3"]);
    let sick = json!({"status":{"conditions":[{"type":"Ready","status":"False"}]}});
    run.fake.put(with(node("n1"), sick));
    run.until(15, &["n1", "n2", "n3"]);
    assert_eq!(run.taints("n1"), ["not-ready:NoSchedule", "not-ready:NoExecute"]);
    let gone: Vec<&str> = run.deletes.iter().map(|(_, p)| p.as_str()).collect();
    assert_eq!(gone, ["p1", "p2", "p3"], "nobody tolerates not-ready");
}

#[test]
fn the_lease_of_a_node_that_is_gone_goes() {
    let mut run = three_nodes();
    run.until(10, &["n1", "n2", "n3"]);
    let key = ObjectKey::new(Kind::NODE, "", "n1");
    run.fake.remove(&key);
    run.fake.views.view_mut(Kind::NODE).set_revision(Revision(1));
    assert!(run.step(&key, at(11)).writes.is_empty(), "the view of nodes is behind the lease");
    run.fake.advance();
    run.step(&key, at(12));
    assert!(run.fake.get(Kind::LEASE, "kube-node-lease/n1").is_none());
}

#[test]
fn heartbeats_concern_nobody() {
    let run = three_nodes();
    let (a, b) = (lease("n1"), lease("n1"));
    let beat = with(
        node("n1"),
        json!({"status":{"conditions":[
        {"type":"Ready","status":"True","reason":"KubeletReady","lastHeartbeatTime":"2024-01-01T00:00:00Z"}]}}),
    );
    let cordoned = with(node("n1"), json!({"spec":{"unschedulable":true}}));
    let tainted = with(node("n1"), json!({"spec":{"taints":[{"key":"k","effect":"NoExecute"}]}}));
    for (old, new, expect) in [
        (a, b, 0),
        (node("n1"), beat, 0),
        (node("n1"), cordoned, 1),
        (node("n1"), tainted, 4),
        (pod("p1", "n1"), with(pod("p1", "n1"), json!({"status":{"phase":"Failed"}})), 0),
    ] {
        let mut keys = Vec::new();
        let change = Change { key: new.key(), old: Some(old), new: Some(new) };
        run.controller.keys(&change, &run.fake.views, &mut keys);
        assert_eq!(keys.len(), expect, "{change:?}");
    }
}

#[test]
fn what_is_kept_of_a_node_goes_with_it() {
    for lease_goes_first in [true, false] {
        let mut run = three_nodes();
        run.until(10, &["n1", "n2", "n3"]);
        let kept = |run: &mut Run| {
            let zone = run.controller.zones.get_mut(0);
            (zone.ready + zone.not_ready, run.controller.nodes.len(), run.controller.beats.len())
        };
        assert_eq!(kept(&mut run), (3, 3, 3));
        let mut gone = [ObjectKey::new(Kind::LEASE, "kube-node-lease", "n1"), ObjectKey::new(Kind::NODE, "", "n1")];
        if !lease_goes_first {
            gone.reverse();
        }
        for key in gone {
            run.fake.remove(&key);
            run.until(run.secs + 5, &["n2", "n3"]);
        }
        assert_eq!(kept(&mut run), (2, 2, 2), "lease first: {lease_goes_first}");
    }
}
