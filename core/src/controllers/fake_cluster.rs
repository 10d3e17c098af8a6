//! A fake cluster for tests of one controller: plans are applied to the views immediately, as an API server would.

use serde_json::{Value, json};

use super::{Controller, Plan, Write};
use crate::api::{Patch, Propagation, Subresource};
use crate::client::{Change, Views};
use crate::machine::{Mono, Now, Wall};
use crate::object::{Kind, Object, ObjectKey, Revision};

/// 2024-01-01T00:00:00Z plus `secs` seconds.
pub(crate) fn at(secs: u64) -> Now {
    let wall = Wall(1_704_067_200_000_000 + secs as i64 * 1_000_000);
    Now { mono: Mono(secs * 1_000_000_000), wall }
}

/// An object from JSON; panics if it is invalid.
pub(crate) fn object(value: Value) -> Object {
    Object::from_json(value).expect("a well-formed object")
}

/// The object with a merge patch applied.
pub(crate) fn with(base: Object, patch: Value) -> Object {
    let mut value = base.to_json();
    json_patch::merge(&mut value, &patch);
    object(value)
}

/// A running, ready pod in namespace `d` with label `app: web`; its address is made from the digits in its name.
pub(crate) fn pod(name: &str, node: &str) -> Object {
    let n: u32 = name.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let ip = format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255);
    object(json!({"apiVersion":"v1","kind":"Pod",
        "metadata":{"name":name,"namespace":"d","uid":format!("pod-{name}"),"labels":{"app":"web"}},
        "spec":{"nodeName":node,"containers":[{"name":"c","image":"i"}]},
        "status":{"phase":"Running","podIP":ip,"podIPs":[{"ip":ip}],"conditions":[{"type":"Ready","status":"True"}]}}))
}

/// A ClusterIP service in namespace `d` that selects `app: web` at port 80.
pub(crate) fn service(name: &str) -> Object {
    object(json!({"apiVersion":"v1","kind":"Service",
        "metadata":{"name":name,"namespace":"d","uid":format!("svc-{name}")},
        "spec":{"selector":{"app":"web"},"clusterIP":"10.96.0.1","clusterIPs":["10.96.0.1"],"ipFamilies":["IPv4"],
            "type":"ClusterIP","ports":[{"name":"http","port":80,"protocol":"TCP","targetPort":80}]}}))
}

/// A ready node in `zone-a`.
pub(crate) fn node(name: &str) -> Object {
    object(json!({"apiVersion":"v1","kind":"Node",
        "metadata":{"name":name,"uid":format!("node-{name}"),"labels":{"topology.kubernetes.io/zone":"zone-a"}},
        "spec":{},"status":{"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady"}]}}))
}

/// Views, and the revision of the store.
pub(crate) struct Fake {
    pub(crate) views: Views,
    pub(crate) rv: u64,
    /// Changes that no controller has observed yet.
    changes: Vec<Change>,
}

impl Fake {
    /// Creates it with these stored objects.
    pub(crate) fn new(kinds: &[Kind], objects: impl IntoIterator<Item = Object>) -> Fake {
        let mut fake = Fake { views: Views::of(kinds, []), rv: 1, changes: Vec::new() };
        for object in objects {
            fake.put(object);
        }
        fake
    }

    /// Stores an object at the next revision; every view shows it.
    pub(crate) fn put(&mut self, mut object: Object) {
        self.advance();
        object.set_rv(Revision(self.rv));
        if object.uid().is_empty() {
            object.meta_mut().uid = Some(format!("uid-{}", self.rv));
        }
        let (key, new) = (object.key(), Some(object.clone()));
        let old = self.views.view_mut(object.kind()).upsert(key.clone(), object);
        self.changes.push(Change { key, old, new });
    }

    /// Removes an object.
    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.advance();
        if let Some(old) = self.views.view_mut(key.kind).remove(key) {
            self.changes.push(Change { key: key.clone(), old: Some(old), new: None });
        }
    }

    /// One object.
    pub(crate) fn get(&self, kind: Kind, path: &str) -> Option<&Object> {
        self.views.view(kind).get(&ObjectKey::from_path(kind, path))
    }

    /// Advances the revision of every view by one.
    pub(crate) fn advance(&mut self) {
        self.rv += 1;
        let kinds: Vec<Kind> = self.views.iter().map(crate::client::View::kind).collect();
        for kind in kinds {
            self.views.view_mut(kind).set_revision(Revision(self.rv));
        }
    }

    /// Tells a controller of the changes since the last call, or since the last step of any controller.
    pub(crate) fn tell(&mut self, controller: &mut dyn Controller, now: Now) {
        self.changes.drain(..).for_each(|change| controller.observe(&change, now));
    }

    /// Reconciles a key, applies the plan and returns it.
    pub(crate) fn step(&mut self, controller: &mut dyn Controller, key: &ObjectKey, now: Now) -> Plan {
        self.tell(controller, now);
        let plan = controller.reconcile(&self.views, key, now);
        for write in &plan.writes {
            self.apply(write, now);
        }
        plan
    }

    /// Reconciles a key until there is nothing left to write.
    pub(crate) fn settle(&mut self, controller: &mut dyn Controller, key: &ObjectKey, now: Now) {
        for _ in 0..20 {
            if self.step(controller, key, now).writes.is_empty() {
                return;
            }
        }
        panic!("{key} does not settle");
    }

    fn apply(&mut self, write: &Write, now: Now) {
        match write {
            Write::Create(object) => {
                let mut object = object.clone();
                if object.name().is_empty() {
                    let prefix = object.meta().generate_name.clone().expect("a name or a prefix");
                    object.meta_mut().name = Some(format!("{prefix}{}", self.rv));
                }
                assert!(self.views.view(object.kind()).get(&object.key()).is_none(), "{} exists", object.key());
                self.put(object);
            }
            Write::Update(object, subresource) => {
                let current = self.views.view(object.kind()).get(&object.key()).expect("updated objects exist");
                assert_eq!(current.rv(), object.rv(), "update of {} at a stale revision", object.key());
                let mut next = object.clone();
                match subresource {
                    Subresource::None => {
                        if object.kind() != Kind::NODE {
                            next.take_status(current);
                        }
                    }
                    Subresource::Status => {
                        next = current.clone();
                        next.take_status(object);
                    }
                    Subresource::Scale
                    | Subresource::Finalize
                    | Subresource::Approval
                    | Subresource::EphemeralContainers
                    | Subresource::Resize => {}
                }
                let held =
                    matches!(&next, Object::Namespace(n) if n.spec.finalizers.as_ref().is_some_and(|f| !f.is_empty()));
                // A pod that is being deleted stays until it is deleted without grace, whoever writes its status.
                let stays = *subresource == Subresource::Status && next.kind() == Kind::POD;
                let is_free = next.meta().finalizers.as_ref().is_none_or(Vec::is_empty);
                let done = next.is_deleting() && !held && !stays && is_free;
                if done { self.remove(&next.key()) } else { self.put(next) }
            }
            Write::SetScale { key, replicas, rv, .. } => {
                let mut object = self.views.view(key.kind).get(key).expect("scaled objects exist").clone();
                assert_eq!(object.rv(), *rv, "scale of {key} at a stale revision");
                object.set_replicas(*replicas);
                self.put(object);
            }
            Write::Patch { key, uid, rv, patch: Patch::Merge(body), subresource: Subresource::None } => {
                let current = self.views.view(key.kind).get(key).expect("patched objects exist").clone();
                assert_eq!(current.uid(), &**uid);
                assert!(rv.is_none_or(|rv| rv == current.rv()), "patch of {key} at a stale revision");
                self.put(with(current, body.clone()));
            }
            Write::Patch { .. } => panic!("no controller of these patches so"),
            Write::Delete { key, uid, rv, propagation, .. } => {
                let mut object = self.views.view(key.kind).get(key).expect("deleted objects exist").clone();
                assert_eq!(object.uid(), &**uid);
                assert!(rv.is_none_or(|rv| rv == object.rv()));
                let finalizers = object.meta_mut().finalizers.get_or_insert_default();
                if *propagation == Some(Propagation::Foreground) {
                    finalizers.push("foregroundDeletion".to_owned());
                }
                if finalizers.is_empty() {
                    self.remove(key);
                } else {
                    object.meta_mut().deletion_timestamp.get_or_insert(now.wall.to_time());
                    self.put(object);
                }
            }
            Write::DeleteCollection { kind, namespace } => {
                if self.views.iter().any(|v| v.kind() == *kind) {
                    let keys: Vec<ObjectKey> = self.views.view(*kind).namespace(namespace).map(Object::key).collect();
                    for key in keys {
                        self.remove(&key);
                    }
                }
            }
            Write::ExpectEmpty { .. } | Write::ExpectUnused { .. } | Write::ExpectMissing { .. } => {}
        }
    }
}
