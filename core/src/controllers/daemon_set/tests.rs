//! Daemons on three nodes, plan by plan: each is carried out on the view.

use serde_json::{Value, json};

use super::DaemonSetController;
use crate::client::{Change, Views};
use crate::controllers::{Controller, Plan, Write};
use crate::machine::{Mono, Now, Wall};
use crate::object::{Kind, Object, ObjectKey, Revision};

const NOW: Now = Now { mono: Mono(0), wall: Wall(1_704_067_200_000_000 + 100_000_000) };
const KINDS: &[Kind] = &[Kind::DAEMON_SET, Kind::POD, Kind::NODE, Kind::CONTROLLER_REVISION];

/// A set, its nodes and what became of them.
struct World {
    views: Views,
    controller: DaemonSetController,
    revision: u64,
    made: usize,
    now: Now,
}

fn node(name: &str) -> Object {
    Object::from_json(
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"disk": "ssd"}}}),
    )
    .unwrap()
}

impl World {
    fn new(spec: Value) -> World {
        let mut all = json!({"selector": {"matchLabels": {"app": "log"}}, "revisionHistoryLimit": 10,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            "template": {"metadata": {"labels": {"app": "log"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}});
        json_patch::merge(&mut all, &spec);
        let set = Object::from_json(json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "log", "namespace": "d", "uid": "u", "generation": 1}, "spec": all}))
        .unwrap();
        let views = Views::of(KINDS, [set, node("n1"), node("n2"), node("n3")]);
        World { views, controller: DaemonSetController::default(), revision: 1, made: 0, now: NOW }
    }

    fn put(&mut self, mut object: Object) {
        self.revision += 1;
        object.set_rv(Revision(self.revision));
        self.views.view_mut(object.kind()).upsert(object.key(), object);
    }

    fn edit(&mut self, kind: Kind, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.views.view(kind).find(namespace, name).expect("what is edited is there").to_json();
        change(&mut value);
        self.put(Object::from_json(value).unwrap());
    }

    fn edit_set(&mut self, spec: Value) {
        self.edit(Kind::DAEMON_SET, "d", "log", |v| json_patch::merge(&mut v["spec"], &spec));
    }

    fn taint(&mut self, node: &str, effect: &str) {
        self.edit(Kind::NODE, "", node, |v| v["spec"]["taints"] = json!([{"key": "k", "effect": effect}]));
    }

    fn phase(&mut self, pod: &str, phase: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        self.edit(Kind::POD, "d", pod, |v| {
            v["status"] = json!({"phase": phase, "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2024-01-01T00:01:00Z"}]});
        });
    }

    fn all_ready(&mut self) {
        for pod in self.pods() {
            self.phase(pod.split('@').next().unwrap(), "Running", true);
        }
    }

    /// The pods that are not on their way out, as `name@node`.
    fn pods(&self) -> Vec<String> {
        let alive = self.views.view(Kind::POD).iter().filter(|(_, o)| !o.is_deleting());
        alive.map(|(key, o)| format!("{}@{}", key.name(), node_of(&o.to_json()))).collect()
    }

    fn reap(&mut self) {
        let gone = |(key, o): (&ObjectKey, &Object)| o.is_deleting().then(|| key.clone());
        let keys: Vec<ObjectKey> = self.views.view(Kind::POD).iter().filter_map(gone).collect();
        for key in keys {
            self.views.view_mut(Kind::POD).remove(&key);
        }
    }

    fn plan(&mut self) -> Plan {
        self.controller.reconcile(&self.views, &ObjectKey::new(Kind::DAEMON_SET, "d", "log"), self.now)
    }

    /// Carries out plans until one is empty; what was made and deleted, apart from revisions.
    fn settle(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..20 {
            let plan = self.plan();
            if plan.writes.is_empty() {
                done.sort();
                return done;
            }
            plan.writes.into_iter().for_each(|write| self.carry_out(write, &mut done));
        }
        panic!("the set does not settle: {done:?}");
    }

    fn carry_out(&mut self, write: Write, done: &mut Vec<String>) {
        match write {
            Write::Create(object) if object.kind() == Kind::POD => {
                self.made += 1;
                let mut value = object.to_json();
                value["metadata"]["name"] = json!(format!("p{}", self.made));
                value["metadata"]["uid"] = json!(format!("u{}", self.made));
                value["status"] = json!({"phase": "Pending"});
                done.push(format!("+{}", node_of(&value)));
                self.put(Object::from_json(value).unwrap());
            }
            Write::Create(mut object) => {
                object.meta_mut().uid = Some(object.name().to_owned());
                self.put(object);
            }
            Write::Update(object, _) => self.put(object),
            Write::Delete { key, .. } if key.kind == Kind::POD => {
                let value = self.views.view(Kind::POD).get(&key).unwrap().to_json();
                done.push(format!("-{}", node_of(&value)));
                self.edit(Kind::POD, "d", key.name(), |v| {
                    v["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:01:30Z")
                });
            }
            Write::Delete { key, .. } => {
                self.views.view_mut(key.kind).remove(&key);
            }
            other => panic!("a set does not ask for {other:?}"),
        }
    }

    fn status(&self, field: &str) -> Value {
        self.views.view(Kind::DAEMON_SET).find("d", "log").unwrap().to_json()["status"][field].clone()
    }
}

/// The node that a pod's affinity names.
fn node_of(pod: &Value) -> String {
    let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0";
    let term = pod.pointer(path).expect("a daemon has its node's name");
    term["matchFields"][0]["values"][0].as_str().unwrap().to_owned()
}

/// A set that runs on three nodes.
fn running(spec: Value) -> World {
    let mut world = World::new(spec);
    world.settle();
    world.all_ready();
    world.settle();
    world
}

const NOTHING: [&str; 0] = [];
const IMAGE_2: &str = r#"{"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}"#;

fn image_2() -> Value {
    serde_json::from_str(IMAGE_2).unwrap()
}

#[test]
fn each_node_gets_one_and_a_new_node_too() {
    let mut world = World::new(json!({}));
    assert_eq!(world.settle(), ["+n1", "+n2", "+n3"]);
    world.all_ready();
    world.settle();
    assert_eq!((world.status("desiredNumberScheduled"), world.status("numberAvailable")), (json!(3), json!(3)));
    world.put(node("n4"));
    assert_eq!(world.settle(), ["+n4"]);
    let pod = world.views.view(Kind::POD).find("d", "p1").unwrap().to_json();
    let keys: Vec<&str> =
        pod["spec"]["tolerations"].as_array().unwrap().iter().map(|t| t["key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 6, "{keys:?}");
}

#[test]
fn selectors_and_taints_say_where() {
    let mut world = World::new(json!({"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}));
    world.edit(Kind::NODE, "", "n1", |v| v["metadata"]["labels"] = json!({"disk": "hdd"}));
    world.taint("n2", "NoSchedule");
    assert_eq!(world.settle(), ["+n3"]);
    // What runs stays under NoSchedule, and counts as misplaced; NoExecute and a label that no longer fits drive it out.
    world.taint("n3", "NoSchedule");
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(world.status("numberMisscheduled"), 1);
    world.taint("n3", "NoExecute");
    assert_eq!(world.settle(), ["-n3"]);
}

#[test]
fn a_cordon_keeps_no_daemon_away() {
    let mut world = World::new(json!({}));
    world.edit(Kind::NODE, "", "n1", |v| {
        v["spec"] = json!({"unschedulable": true,
            "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]});
    });
    assert_eq!(world.settle(), ["+n1", "+n2", "+n3"]);
}

#[test]
fn an_update_replaces_as_many_at_once_as_may_be_unavailable() {
    let mut world = running(json!({}));
    world.edit_set(image_2());
    let mut replaced = Vec::new();
    for _ in 0..3 {
        let deleted = world.settle();
        assert_eq!(deleted.len(), 1);
        world.reap();
        replaced.extend(world.settle());
        assert_eq!(world.settle(), NOTHING, "the next waits until this one is available");
        world.all_ready();
    }
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(replaced, ["+n1", "+n2", "+n3"]);
    assert_eq!(world.status("updatedNumberScheduled"), 3);
}

#[test]
fn unavailable_pods_are_updated_at_once() {
    let mut world = running(json!({}));
    world.phase("p2", "Running", false);
    world.edit_set(image_2());
    assert_eq!(world.settle(), ["-n2"], "the one that is missing already counts as the one that may be");
}

#[test]
fn a_surge_makes_the_new_beside_the_old() {
    let mut world = running(json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "50%"}}}));
    world.edit_set(image_2());
    assert_eq!(world.settle(), ["+n1", "+n2"]);
    world.phase("p4", "Running", true);
    // Where the new one is available the old one goes, and another node may surge.
    assert_eq!(world.settle(), ["+n3", "-n1"]);
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut world = running(json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    world.edit_set(image_2());
    assert_eq!(world.settle(), NOTHING);
}

#[test]
fn failed_daemons_are_replaced_with_growing_patience() {
    let mut world = running(json!({}));
    world.phase("p1", "Failed", false);
    assert_eq!(world.settle(), ["-n1"]);
    world.reap();
    assert_eq!(world.settle(), ["+n1"]);
    world.phase("p4", "Failed", false);
    assert_eq!(world.settle(), NOTHING);
    assert_eq!(world.plan().requeue_after, Some(std::time::Duration::from_secs(1)));
    world.now = world.now + std::time::Duration::from_secs(1);
    assert_eq!(world.settle(), ["-n1"]);
}

#[test]
fn surplus_goes_and_so_does_what_waits_for_a_lost_node() {
    let mut world = running(json!({}));
    world.edit(Kind::POD, "d", "p1", |v| {
        v["metadata"]["name"] = json!("twin");
        v["metadata"]["uid"] = json!("twin");
        v["metadata"]["creationTimestamp"] = json!("2024-01-01T00:01:20Z");
    });
    assert_eq!(world.settle(), ["-n1"]);
    world.reap();
    world.views.view_mut(Kind::NODE).remove(&ObjectKey::new(Kind::NODE, "", "n2"));
    assert_eq!(world.settle(), ["-n2"]);
}

#[test]
fn heartbeats_and_conditions_of_nodes_wake_nothing() {
    let world = World::new(json!({}));
    let changed = |change: fn(&mut Value)| {
        let mut value = node("n1").to_json();
        change(&mut value);
        let new = Some(Object::from_json(value).unwrap());
        let change = Change { key: node("n1").key(), old: Some(node("n1")), new };
        let mut keys = Vec::new();
        DaemonSetController::default().keys(&change, &world.views, &mut keys);
        keys.len()
    };
    assert_eq!(changed(|v| v["status"] = json!({"conditions": [{"type": "Ready", "status": "False"}]})), 0);
    assert_eq!(changed(|v| v["metadata"]["labels"]["disk"] = json!("hdd")), 1);
    assert_eq!(changed(|v| v["spec"] = json!({"taints": [{"key": "k", "effect": "NoExecute"}]})), 1);
}
