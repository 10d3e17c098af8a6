//! A workload and its pods for tests, plan by plan: each write is applied to the view, and pods start, terminate and
//! disappear as the test says.

use serde_json::{Value, json};

use super::{Controller, Plan, Write};
use crate::api::Patch;
use crate::client::Views;
use crate::machine::{Mono, Now, Wall};
use crate::object::{Kind, Object, ObjectKey, Revision};

/// The time at the start: 2024-01-01T00:01:40Z.
pub const NOW: Now = Now { mono: Mono(0), wall: Wall(1_704_067_200_000_000 + 100_000_000) };

/// The expected log if a workload has nothing to do.
pub const NOTHING: [&str; 0] = [];

/// One workload in namespace `d`, its controller's views, and the log of its writes.
pub struct World {
    pub views: Views,
    pub now: Now,
    /// The events of the plans that were carried out: `Reason: message`.
    pub told: Vec<String>,
    controller: Box<dyn Controller>,
    key: ObjectKey,
    /// How the log names a pod.
    tell: fn(&Value) -> String,
    revision: u64,
    made: usize,
}

impl World {
    pub fn new(controller: impl Controller + 'static, workload: Value, tell: fn(&Value) -> String) -> World {
        let workload = Object::from_json(workload).unwrap();
        let kinds: Vec<Kind> = controller.watches().iter().map(|w| w.kind).collect();
        let key = workload.key();
        let views = Views::of(&kinds, [workload]);
        World { views, now: NOW, told: Vec::new(), controller: Box::new(controller), key, tell, revision: 1, made: 0 }
    }

    pub fn put(&mut self, mut object: Object) {
        self.revision += 1;
        object.set_rv(Revision(self.revision));
        self.views.view_mut(object.kind()).upsert(object.key(), object);
    }

    pub fn get(&self, kind: Kind, name: &str) -> Option<&Object> {
        self.views.view(kind).find("d", name)
    }

    pub fn edit(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Value)) {
        let mut value = self.views.view(key.kind).get(key).expect("what is edited is there").to_json();
        change(&mut value);
        self.put(Object::from_json(value).unwrap());
    }

    pub fn edit_pod(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        self.edit(&ObjectKey::new(Kind::POD, "d", name), change);
    }

    /// Merges into the workload's spec.
    pub fn edit_spec(&mut self, spec: Value) {
        self.edit(&self.key.clone(), |v| json_patch::merge(&mut v["spec"], &spec));
    }

    /// Sets a pod's phase, and whether it has been ready since 00:01:00.
    pub fn phase(&mut self, pod: &str, phase: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        self.edit_pod(pod, |v| {
            v["status"] = json!({"phase": phase, "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2024-01-01T00:01:00Z"}]});
        });
    }

    pub fn ready(&mut self, pod: &str) {
        self.phase(pod, "Running", true);
    }

    /// Removes a pod from the store.
    pub fn gone(&mut self, pod: &str) {
        let key = ObjectKey::new(Kind::POD, "d", pod);
        self.views.view_mut(Kind::POD).remove(&key).expect("what goes is there");
    }

    /// Removes all terminating pods that have no finalizer.
    pub fn reap(&mut self) {
        let gone =
            |(key, o): (&ObjectKey, &Object)| (o.is_deleting() && !o.meta().has_finalizers()).then(|| key.clone());
        let keys: Vec<ObjectKey> = self.views.view(Kind::POD).iter().filter_map(gone).collect();
        for key in keys {
            self.views.view_mut(Kind::POD).remove(&key);
        }
    }

    /// Names of the pods that are not terminating.
    pub fn pods(&self) -> Vec<String> {
        let alive = self.views.view(Kind::POD).iter().filter(|(_, o)| !o.is_deleting());
        alive.map(|(key, _)| key.name().to_owned()).collect()
    }

    pub fn pod(&self, name: &str) -> Value {
        self.get(Kind::POD, name).expect("the pod is there").to_json()
    }

    pub fn status(&self, field: &str) -> Value {
        self.views.view(self.key.kind).get(&self.key).unwrap().to_json()["status"][field].clone()
    }

    pub fn keys(&self, change: &crate::client::Change) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        self.controller.keys(change, &self.views, &mut keys);
        keys
    }

    pub fn plan(&mut self) -> Plan {
        self.controller.reconcile(&self.views, &self.key, self.now)
    }

    /// Carries out plans until one is empty. Returns what was created (`+`) and deleted (`-`), in order, except
    /// revisions.
    pub fn settle(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..20 {
            let plan = self.plan();
            let is_last = plan.writes.is_empty();
            plan.writes.into_iter().for_each(|write| self.carry_out(write, &mut done));
            self.told.extend(plan.events.iter().map(|e| format!("{}: {}", e.reason, e.message)));
            if is_last {
                return done;
            }
        }
        panic!("{} does not settle: {done:?}", self.key);
    }

    fn carry_out(&mut self, write: Write, done: &mut Vec<String>) {
        let asked = write.clone();
        let made = match write {
            Write::Create(object) => Some(self.create(object, done)),
            other => {
                self.change(other, done);
                None
            }
        };
        let told = self.controller.succeeded(&self.views, &self.key, &asked, made.as_ref());
        self.told.extend(told.iter().map(|e| format!("{}: {}", e.reason, e.message)));
    }

    fn change(&mut self, write: Write, done: &mut Vec<String>) {
        match write {
            Write::Update(object, _) => self.put(object),
            Write::Delete { key, .. } if key.kind == Kind::POD => {
                done.push(format!("-{}", (self.tell)(&self.pod(key.name()))));
                self.edit(&key, |v| v["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:01:30Z"));
            }
            Write::Delete { key, .. } => {
                self.views.view_mut(key.kind).remove(&key);
            }
            Write::Patch { key, patch: Patch::Merge(body), .. } => self.edit(&key, |v| json_patch::merge(v, &body)),
            other => panic!("a workload does not ask for {other:?}"),
        }
    }

    fn create(&mut self, object: Object, done: &mut Vec<String>) -> Object {
        let mut value = object.to_json();
        if object.name().is_empty() {
            self.made += 1;
            value["metadata"]["name"] = json!(format!("p{}", self.made));
        }
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(self.get(object.kind(), &name).is_none(), "{name} exists");
        value["metadata"]["uid"] = json!(format!("u-{name}"));
        value["metadata"]["creationTimestamp"] = json!("2024-01-01T00:00:30Z");
        if object.kind() == Kind::POD {
            value["status"] = json!({"phase": "Pending"});
        }
        if object.kind() != Kind::CONTROLLER_REVISION {
            done.push(format!("+{}", (self.tell)(&value)));
        }
        let made = Object::from_json(value).unwrap();
        self.put(made.clone());
        made
    }
}

/// How the log names a pod that has a name of its own.
pub fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().expect("it has a name").to_owned()
}
