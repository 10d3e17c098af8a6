//! Claims, volumes, classes and CSINodes: what is drawn of them, and the naive rules about them, which read their JSON,
//! each time from scratch.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::naive::{Naive, Placed, World};
use super::{NAMESPACES, Play, pick};
use crate::object::{Kind, Nano, Node, Object, ObjectKey};
use crate::scheduler::profile::Plugin;
use crate::scheduler::volumes::VolumeStep;

/// A change of what is stored. `None` deletes.
#[derive(Clone, Debug)]
pub enum Change {
    /// A claim of a namespace, by number.
    Claim(&'static str, u8, Option<Value>),
    /// A volume, by number.
    Volume(u8, Option<Value>),
    /// The class `late`, whose claims wait for a pod.
    Class(Option<Value>),
    /// How many volumes of the driver `disk` a node may have.
    Limit(u8, Option<u64>),
}

/// Namespace and name of a claim.
pub type ClaimName = (String, String);
/// A claim that gets a volume, or one that is to be made.
pub type Step = (ClaimName, Option<String>);

#[derive(Default)]
pub struct Storage {
    pub claims: BTreeMap<ClaimName, Value>,
    pub volumes: BTreeMap<String, Value>,
    pub class: Option<Value>,
    pub limits: BTreeMap<String, u64>,
}

const ZONES: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const BOUND: &str = "pv.kubernetes.io/bind-completed";
const SELECTED: &str = "volume.kubernetes.io/selected-node";

/// The volume that a claim has if it is drawn as bound.
fn own_volume(namespace: &str, claim: u8) -> String {
    format!("v{}", if namespace == NAMESPACES[0] { claim } else { 2 + claim })
}

fn claim() -> impl Strategy<Value = Value> {
    let state = prop_oneof![
        5 => Just(json!({"spec": {"storageClassName": "late"}, "status": {"phase": "Pending"}})),
        1 => Just(json!({"spec": {"storageClassName": "now"}, "status": {"phase": "Pending"}})),
        1 => pick(&["n0", "n1", "n2"]).prop_map(|node| json!({"spec": {"storageClassName": "late"},
            "metadata": {"annotations": {SELECTED: node}}})),
        5 => Just(json!({"spec": {"storageClassName": "late", "volumeName": "own"}, "status": {"phase": "Bound"},
            "metadata": {"annotations": {BOUND: "yes"}}})),
        1 => Just(json!({"spec": {"storageClassName": "late", "volumeName": "own"}})),
        1 => Just(json!({"spec": {"volumeName": "own"}, "status": {"phase": "Lost"}})),
        1 => Just(json!({"spec": {"storageClassName": "late"},
            "metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["f"]}})),
    ];
    let mode = pick(&["ReadWriteOnce", "ReadWriteOnce", "ReadWriteOncePod"]);
    (state, mode, pick(&["1Gi", "2Gi"])).prop_map(|(mut value, mode, size)| {
        value["spec"]["accessModes"] = json!([mode]);
        value["spec"]["resources"] = json!({"requests": {"storage": size}});
        value
    })
}

fn volume() -> impl Strategy<Value = Value> {
    let place = prop_oneof![
        2 => Just(None),
        1 => (pick(&["zone", "kubernetes.io/hostname"]), pick(&["1", "2", "n0", "n1"])).prop_map(Some),
    ];
    let label = prop_oneof![4 => Just(None), 1 => (pick(&ZONES), pick(&["1", "2", "1__2"])).prop_map(Some)];
    let of = prop_oneof![
        3 => Just(None),
        2 => (pick(&NAMESPACES), 0..2u8, any::<bool>()).prop_map(Some),
    ];
    let kind =
        (pick(&["late", "late", "now"]), pick(&["1Gi", "2Gi", "3Gi"]), pick(&["Available", "Available", "Bound"]));
    let modes = pick(&[json!(["ReadWriteOnce", "ReadWriteOncePod"]), json!(["ReadWriteOnce"])]);
    (place, label, of, kind, modes, any::<bool>()).prop_map(
        |(place, label, of, (class, size, phase), modes, attached)| {
            let mut value = json!({"status": {"phase": phase}, "spec": {"storageClassName": class,
            "capacity": {"storage": size}, "accessModes": modes}});
            if let Some((key, at)) = place {
                value["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": key, "operator": "In", "values": [at]}]}]}});
            }
            if let Some((key, zones)) = label {
                value["metadata"] = json!({"labels": {key: zones}});
            }
            if let Some((namespace, claim, by_uid)) = of {
                value["spec"]["claimRef"] = json!({"namespace": namespace, "name": format!("c{claim}")});
                if by_uid {
                    value["spec"]["claimRef"]["uid"] = json!(format!("uid-{namespace}-c{claim}"));
                }
            }
            value["spec"][if attached { "csi" } else { "hostPath" }] =
                if attached { json!({"driver": "disk"}) } else { json!({"path": "/x"}) };
            value
        },
    )
}

fn class() -> impl Strategy<Value = Value> {
    let topology = prop_oneof![
        2 => Just(json!(null)),
        1 => pick(&["1", "2"]).prop_map(|zone| json!([{"matchLabelExpressions": [{"key": "zone", "values": [zone]}]}])),
    ];
    (pick(&["disk", "disk", "kubernetes.io/no-provisioner"]), topology).prop_map(|(provisioner, topologies)| {
        let mut class = json!({"provisioner": provisioner});
        if !topologies.is_null() {
            class["allowedTopologies"] = topologies;
        }
        class
    })
}

pub fn change() -> impl Strategy<Value = Change> {
    let maybe = |s: BoxedStrategy<Value>| prop_oneof![1 => Just(None), 7 => s.prop_map(Some)];
    prop_oneof![
        5 => (pick(&NAMESPACES), 0..2u8, maybe(claim().boxed())).prop_map(|(ns, n, body)| Change::Claim(ns, n, body)),
        5 => (0..6u8, maybe(volume().boxed())).prop_map(|(n, body)| Change::Volume(n, body)),
        2 => maybe(class().boxed()).prop_map(Change::Class),
        1 => (0..4u8, prop::option::of(0..3u64)).prop_map(|(n, limit)| Change::Limit(n, limit)),
    ]
}

impl Play {
    pub fn store(&mut self, change: &Change) {
        match change {
            Change::Claim(namespace, n, body) => {
                let name = format!("c{n}");
                let body = body.clone().map(|mut body| {
                    if body["spec"]["volumeName"] == "own" {
                        body["spec"]["volumeName"] = json!(own_volume(namespace, *n));
                    }
                    body
                });
                self.put_claim((*namespace).to_owned(), name, body);
            }
            Change::Volume(n, body) => self.put_volume(&format!("v{n}"), body.clone()),
            Change::Class(body) => {
                let key = ObjectKey::new(Kind::STORAGE_CLASS, "", "late");
                let whole = |body: &Value| {
                    let mut class = body.clone();
                    class["volumeBindingMode"] = json!("WaitForFirstConsumer");
                    object("storage.k8s.io/v1", "StorageClass", class, json!({"name": "late"}))
                };
                self.s.storage_changed(self.now, &key, body.as_ref().map(whole).as_ref());
                self.world.storage.class.clone_from(body);
            }
            Change::Limit(n, limit) => {
                let name = format!("n{n}");
                let whole = |limit: &u64| {
                    let drivers = json!([{"name": "disk", "nodeID": name, "allocatable": {"count": limit}}]);
                    object("storage.k8s.io/v1", "CSINode", json!({"spec": {"drivers": drivers}}), json!({"name": name}))
                };
                let key = ObjectKey::new(Kind::CSI_NODE, "", &name);
                self.s.storage_changed(self.now, &key, limit.as_ref().map(whole).as_ref());
                match limit {
                    Some(limit) => self.world.storage.limits.insert(name, *limit),
                    None => self.world.storage.limits.remove(&name),
                };
            }
        }
    }

    fn put_claim(&mut self, namespace: String, name: String, body: Option<Value>) {
        let key = ObjectKey::new(Kind::PERSISTENT_VOLUME_CLAIM, &namespace, &name);
        let meta = json!({"name": name, "namespace": namespace, "uid": format!("uid-{namespace}-{name}")});
        let whole = body.as_ref().map(|body| object("v1", "PersistentVolumeClaim", body.clone(), meta));
        self.s.storage_changed(self.now, &key, whole.as_ref());
        match body {
            Some(body) => self.world.storage.claims.insert((namespace, name), body),
            None => self.world.storage.claims.remove(&(namespace, name)),
        };
    }

    fn put_volume(&mut self, name: &str, body: Option<Value>) {
        let body = body.map(|mut body| {
            if body["spec"]["csi"].is_object() {
                body["spec"]["csi"]["volumeHandle"] = json!(name);
            }
            body
        });
        let key = ObjectKey::new(Kind::PERSISTENT_VOLUME, "", name);
        let whole = body.as_ref().map(|body| object("v1", "PersistentVolume", body.clone(), json!({"name": name})));
        self.s.storage_changed(self.now, &key, whole.as_ref());
        match body {
            Some(body) => self.world.storage.volumes.insert(name.to_owned(), body),
            None => self.world.storage.volumes.remove(name),
        };
    }

    /// What was decided for a pod's claims is stored, where the objects are still there.
    pub fn carry_out_steps(&mut self, pod: &str) {
        let steps = std::mem::take(&mut self.world.pods.get_mut(pod).unwrap().steps);
        for ((namespace, name), volume) in steps {
            let Some(mut claim) = self.world.storage.claims.get(&(namespace.clone(), name.clone())).cloned() else {
                continue;
            };
            let made = volume.is_none();
            let volume = volume.unwrap_or_else(|| format!("pvc-uid-{namespace}-{name}"));
            let fresh = json!({"spec": {"storageClassName": "late", "capacity": {"storage": "2Gi"},
                "accessModes": claim["spec"]["accessModes"], "csi": {"driver": "disk"}}});
            let Some(mut body) = self.world.storage.volumes.get(&volume).cloned().or(made.then_some(fresh)) else {
                continue;
            };
            body["spec"]["claimRef"] =
                json!({"namespace": namespace, "name": name, "uid": format!("uid-{namespace}-{name}")});
            body["status"] = json!({"phase": "Bound"});
            claim["spec"]["volumeName"] = json!(volume);
            claim["metadata"]["annotations"][BOUND] = json!("yes");
            claim["status"] = json!({"phase": "Bound"});
            self.put_volume(&volume, Some(body));
            self.put_claim(namespace, name, Some(claim));
        }
    }

    /// Checks what is to be written for a pod on a node, and notes it.
    pub fn check_steps(&mut self, pod: &str, node: &str, steps: &[VolumeStep]) {
        let name = |claim: &ObjectKey| (claim.namespace().to_owned(), claim.name().to_owned());
        let step = |step: &VolumeStep| match step {
            VolumeStep::Bind { volume, claim } => (name(claim), Some(volume.name().to_owned())),
            VolumeStep::Provision { claim } => (name(claim), None),
        };
        let got: BTreeSet<Step> = steps.iter().map(step).collect();
        let expect = self.world.steps(&self.world.pods[pod], &self.world.nodes[node]);
        assert_eq!(Some(&got), expect.as_ref(), "{pod} on {node}");
        self.world.pods.get_mut(pod).unwrap().steps = got.into_iter().collect();
    }
}

pub fn object(api_version: &str, kind: &str, mut body: Value, metadata: Value) -> Object {
    let mut meta = metadata;
    let given = body["metadata"].take();
    if given.is_object() {
        json_patch::merge(&mut meta, &given);
    }
    (body["apiVersion"], body["kind"], body["metadata"]) = (json!(api_version), json!(kind), meta);
    Object::from_json(body).unwrap()
}

fn size(value: &Value) -> Nano {
    Nano::of(&Quantity(value.as_str().unwrap().to_owned()))
}

fn is_bound(claim: &Value) -> bool {
    claim["metadata"]["annotations"][BOUND] == "yes" && claim["spec"]["volumeName"].is_string()
}

fn node_label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether a volume can be reached from a node.
fn reaches(volume: &Value, node: &Node) -> bool {
    let Some(terms) = volume.pointer("/spec/nodeAffinity/required/nodeSelectorTerms") else { return true };
    let wanted = &terms[0]["matchExpressions"][0];
    node_label(node, wanted["key"].as_str().unwrap()) == wanted["values"][0].as_str()
}

impl World {
    fn claims<'a>(&'a self, pod: &Naive) -> Vec<(ClaimName, Option<&'a Value>)> {
        let names = pod.pod.spec.volumes.iter().flatten().filter_map(|v| v.persistent_volume_claim.as_ref());
        let keys = names.map(|claim| (pod.pod.namespace().to_owned(), claim.claim_name.clone()));
        keys.map(|key| (key.clone(), self.storage.claims.get(&key))).collect()
    }

    /// Why claims keep a pod from every node.
    pub fn refused(&self, pod: &Naive) -> Option<String> {
        let claims = self.claims(pod);
        if let Some(((_, name), _)) = claims.iter().find(|(_, claim)| claim.is_none()) {
            return Some(format!("persistentvolumeclaim {name:?} not found"));
        }
        let claims: Vec<(&str, &Value)> =
            claims.iter().map(|((_, name), claim)| (name.as_str(), claim.unwrap())).collect();
        for (name, claim) in &claims {
            if claim["status"]["phase"] == "Lost" {
                let volume = claim["spec"]["volumeName"].as_str().unwrap();
                return Some(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                ));
            }
            if claim["metadata"]["deletionTimestamp"].is_string() {
                return Some(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
        }
        for (_, claim) in &claims {
            let late = claim["spec"]["storageClassName"] == "late" && self.storage.class.is_some();
            if !(is_bound(claim) || late && claim["spec"]["volumeName"].is_null()) {
                return Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
        }
        if !self.profile(&pod.pod).unwrap().filters.has(Plugin::VolumeZone) {
            return None;
        }
        let mut volumes = claims.iter().filter_map(|(_, claim)| claim["spec"]["volumeName"].as_str());
        let gone = volumes.find(|name| !self.storage.volumes.contains_key(*name));
        gone.map(|name| format!("persistentvolume {name:?} not found"))
    }

    /// The volumes of the driver `disk` that a pod has attached, or will have.
    fn attached(&self, pod: &Naive) -> BTreeSet<String> {
        let of = |((namespace, name), claim): (ClaimName, Option<&Value>)| {
            let claim = claim?;
            let volume = claim["spec"]["volumeName"].as_str();
            match volume.and_then(|name| Some((name, self.storage.volumes.get(name)?))) {
                Some((name, volume)) => volume["spec"]["csi"].is_object().then(|| name.to_owned()),
                None => {
                    let late = claim["spec"]["storageClassName"] == "late";
                    let class = self.storage.class.as_ref().filter(|class| late && class["provisioner"] == "disk");
                    class.map(|_| format!("pvc-uid-{namespace}-{name}"))
                }
            }
        };
        self.claims(pod).into_iter().filter_map(of).collect()
    }

    /// Why a node is none for a pod that claims do not keep from every node.
    pub fn volume_refusal(&self, pod: &Naive, node: &Node, placed: &Placed<'_>) -> Option<(Vec<String>, bool)> {
        let one = |why: &str, hopeless| Some((vec![why.to_owned()], hopeless));
        let filters = self.profile(&pod.pod).unwrap().filters;
        let claims: Vec<(ClaimName, &Value)> = self.claims(pod).into_iter().map(|(key, c)| (key, c.unwrap())).collect();
        let alone = claims.iter().filter(|(_, claim)| claim["spec"]["accessModes"][0] == "ReadWriteOncePod");
        let used = |key: &ClaimName| placed.iter().any(|(p, _)| self.claims(p).iter().any(|(other, _)| other == key));
        if filters.has(Plugin::VolumeRestrictions) && alone.into_iter().any(|(key, _)| used(key)) {
            let why = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
            return one(why, false);
        }
        if let Some(limit) = self.storage.limits.get(node.name()).filter(|_| filters.has(Plugin::NodeVolumeLimits)) {
            let here = placed.iter().filter(|(_, on)| on.name() == node.name());
            let there: BTreeSet<String> = here.flat_map(|(p, _)| self.attached(p)).collect();
            let new = self.attached(pod).difference(&there).count();
            if new > 0 && (there.len() + new) as u64 > *limit {
                return one("node(s) exceed max volume count", false);
            }
        }
        let mut reasons = Vec::new();
        let bound: Vec<&Value> = claims.iter().filter(|(_, claim)| is_bound(claim)).map(|(_, claim)| *claim).collect();
        let volume = |claim: &&Value| self.storage.volumes.get(claim["spec"]["volumeName"].as_str().unwrap());
        let volumes: Vec<&Value> = bound.iter().filter_map(volume).collect();
        let wrong = bound.iter().map(volume).find(|volume| volume.is_none_or(|volume| !reaches(volume, node)));
        reasons.extend(wrong.map(|volume| match volume {
            None => "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".to_owned(),
            Some(_) => "node(s) didn't match PersistentVolume's node affinity".to_owned(),
        }));
        if self.steps(pod, node).is_none() {
            reasons.push("node(s) didn't find available persistent volumes to bind".to_owned());
        }
        if !reasons.is_empty() {
            return Some((reasons, true));
        }
        if !filters.has(Plugin::VolumeZone) {
            return None;
        }
        let zoned = ZONES.iter().any(|key| node_label(node, key).is_some());
        let elsewhere = |volume: &&&Value| {
            ZONES.iter().filter_map(|key| volume["metadata"]["labels"][*key].as_str()).any(|zones| {
                let here = node_label(node, ZONES[0]);
                here.is_none_or(|here| zones.split("__").all(|zone| zone != here))
            })
        };
        if zoned && volumes.iter().filter(elsewhere).count() > 0 {
            return one("node(s) had no available volume zone", true);
        }
        None
    }

    /// What is to be written for the claims of a pod on a node; `None` if a claim could get no volume there.
    pub fn steps(&self, pod: &Naive, node: &Node) -> Option<BTreeSet<Step>> {
        let mut unbound: Vec<(ClaimName, &Value)> =
            self.claims(pod).into_iter().map(|(key, c)| (key, c.unwrap())).filter(|(_, c)| !is_bound(c)).collect();
        let asked = |claim: &Value| size(&claim["spec"]["resources"]["requests"]["storage"]);
        unbound.sort_by_key(|(key, claim)| (asked(claim), key.clone()));
        unbound.dedup_by_key(|(key, _)| key.clone());
        let decided = |key: &ClaimName| {
            self.pods.values().find(|p| p.steps.contains(&(key.clone(), None))).and_then(|p| p.on.as_deref())
        };
        let owner = |volume: &String| {
            let steps = self.pods.values().flat_map(|p| &p.steps);
            steps.filter(|(_, v)| v.as_ref() == Some(volume)).map(|(claim, _)| claim).next()
        };
        let mut steps: BTreeSet<Step> = BTreeSet::new();
        for (key, claim) in unbound {
            let selected = claim["metadata"]["annotations"][SELECTED].as_str().or_else(|| decided(&key));
            if selected.is_some_and(|selected| selected != node.name()) {
                return None;
            }
            if selected.is_none() {
                let taken = |volume: &String| steps.iter().any(|(_, v)| v.as_ref() == Some(volume));
                let suits = |(name, volume): &(&String, &Value)| {
                    volume["spec"]["storageClassName"] == "late"
                        && size(&volume["spec"]["capacity"]["storage"]) >= asked(claim)
                        && volume["spec"]["accessModes"].as_array().unwrap().contains(&claim["spec"]["accessModes"][0])
                        && !taken(name)
                };
                let is_mine = |(name, volume): &(&String, &Value)| {
                    let of = &volume["spec"]["claimRef"];
                    let uid = format!("uid-{}-{}", key.0, key.1);
                    let named = of["namespace"] == *key.0 && of["name"] == *key.1;
                    named && (of["uid"].is_null() || of["uid"] == uid) || owner(name) == Some(&key)
                };
                let is_free = |(name, volume): &(&String, &Value)| {
                    volume["spec"]["claimRef"].is_null()
                        && volume["status"]["phase"] == "Available"
                        && owner(name).is_none()
                };
                let all: Vec<(&String, &Value)> = self.storage.volumes.iter().filter(suits).collect();
                let found = match all.iter().find(|v| is_mine(v)) {
                    Some(mine) => Some(mine).filter(|(_, volume)| reaches(volume, node)),
                    None => {
                        let free = all.iter().filter(|v| is_free(v) && reaches(v.1, node));
                        free.min_by_key(|(name, volume)| {
                            (size(&volume["spec"]["capacity"]["storage"]), (*name).clone())
                        })
                    }
                };
                if let Some((name, _)) = found {
                    steps.insert((key, Some((*name).clone())));
                    continue;
                }
            }
            let class = self.storage.class.as_ref().filter(|class| class["provisioner"] == "disk")?;
            let zone = class["allowedTopologies"][0]["matchLabelExpressions"][0]["values"][0].as_str();
            if zone.is_some_and(|zone| node_label(node, "zone") != Some(zone)) {
                return None;
            }
            steps.insert((key, None));
        }
        Some(steps)
    }
}
