//! Claims for devices, classes and slices: what is drawn of them, and the naive rules about them, which read their
//! JSON, try every order of devices, and know of each expression that is drawn what it means.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::naive::{Naive, World};
use super::storage::{ClaimName, object};
use super::{NAMESPACES, Play, pick};
use crate::object::{Kind, Node, ObjectKey};
use crate::scheduler::dynamic_resources::ClaimStep;
use crate::scheduler::profile::Plugin;

/// A change of what is stored. `None` deletes.
#[derive(Clone, Debug)]
pub enum Change {
    /// A claim of a namespace, by number.
    Claim(&'static str, u8, Option<Value>),
    /// A slice, by number.
    Slice(u8, Option<Value>),
    /// A class, by number.
    Class(u8, Option<Value>),
}

/// What a claim gets: requests and devices, and from which nodes they can be used.
pub type Allocation = (Vec<(String, String)>, Option<Value>);

#[derive(Default)]
pub struct Devices {
    pub claims: BTreeMap<ClaimName, Value>,
    slices: BTreeMap<String, Value>,
    classes: BTreeMap<String, Value>,
}

const IS_A: &str = "device.attributes['drv'].kind == 'a'";
const IS_B: &str = "device.attributes['drv'].kind == 'b'";
const IS_LARGE: &str = "device.capacity['drv'].memory.compareTo(quantity('2Gi')) >= 0";
const IS_RARE: &str = "device.attributes['drv'].rare";

/// What an expression says of a device.
fn says(expression: &str, device: &Value) -> Result<bool, String> {
    match expression {
        IS_A | IS_B if device["attributes"]["kind"].is_null() => Err("no such key: kind".to_owned()),
        IS_A => Ok(device["attributes"]["kind"]["string"] == "a"),
        IS_B => Ok(device["attributes"]["kind"]["string"] == "b"),
        IS_LARGE if device["capacity"]["memory"].is_null() => Err("no such key: memory".to_owned()),
        IS_LARGE => Ok(device["capacity"]["memory"]["value"] != "1Gi"),
        IS_RARE if device["attributes"]["rare"].is_null() => Err("no such key: rare".to_owned()),
        IS_RARE => Ok(device["attributes"]["rare"]["bool"] == true),
        other => panic!("{other}"),
    }
}

fn selectors() -> BoxedStrategy<Value> {
    let one = |expression: &str| json!([{"cel": {"expression": expression}}]);
    prop_oneof![
        6 => Just(Value::Null),
        2 => Just(one(IS_A)),
        1 => Just(one(IS_B)),
        2 => Just(one(IS_LARGE)),
        1 => Just(one(IS_RARE)),
    ]
    .boxed()
}

fn tolerations() -> BoxedStrategy<Value> {
    pick(&[
        Value::Null,
        Value::Null,
        json!([{"operator": "Exists"}]),
        json!([{"key": "bad", "operator": "Equal", "value": "x"}]),
    ])
}

fn asked() -> BoxedStrategy<Value> {
    let mode = pick(&[
        json!({"allocationMode": "ExactCount", "count": 1}),
        json!({"allocationMode": "ExactCount", "count": 1}),
        json!({"allocationMode": "ExactCount", "count": 2}),
        json!({"allocationMode": "ExactCount", "count": 3}),
        json!({"allocationMode": "All"}),
    ]);
    (pick(&["class0", "class0", "class0", "class1"]), selectors(), mode, tolerations())
        .prop_map(|(class, selectors, mut mode, tolerations)| {
            mode["deviceClassName"] = json!(class);
            for (field, value) in [("selectors", selectors), ("tolerations", tolerations)] {
                if !value.is_null() {
                    mode[field] = value;
                }
            }
            mode
        })
        .boxed()
}

fn request(name: &'static str) -> BoxedStrategy<Value> {
    let exactly = (asked(), prop::bool::weighted(0.1)).prop_map(move |(mut asked, admin)| {
        if admin {
            asked["adminAccess"] = json!(true);
        }
        json!({"name": name, "exactly": asked})
    });
    let several = prop::collection::vec(asked(), 1..3).prop_map(move |mut all| {
        all.iter_mut().enumerate().for_each(|(i, of)| of["name"] = json!(format!("s{i}")));
        json!({"name": name, "firstAvailable": all})
    });
    prop_oneof![3 => exactly, 1 => several].boxed()
}

fn claim() -> impl Strategy<Value = Value> {
    let requests = prop_oneof![2 => request("a").prop_map(|a| vec![a]),
        1 => (request("a"), request("b")).prop_map(|(a, b)| vec![a, b])];
    let constraint = pick(&[
        Value::Null,
        Value::Null,
        json!([{"matchAttribute": "drv/kind"}]),
        json!([{"matchAttribute": "drv/kind", "requests": ["a"]}]),
        json!([{"matchAttribute": "drv/kind", "requests": ["a/s0", "b"]}]),
        json!([{"matchAttribute": "other/kind"}]),
    ]);
    let somewhere = |name: &str| {
        json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": [name]}]}]})
    };
    let result = |device: &str| json!([{"request": "a", "driver": "drv", "pool": "pool0", "device": device}]);
    let status = pick(&[
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        json!({"allocation": {"devices": {"results": result("d0")}, "nodeSelector": somewhere("n0")},
            "reservedFor": [{"resource": "pods", "name": "other", "uid": "other"}]}),
        json!({"allocation": {"devices": {"results": result("d1")}, "nodeSelector": somewhere("n1")}}),
        json!({"allocation": {"devices": {"results": result("d2")}}}),
    ]);
    let going = prop::bool::weighted(0.1);
    (requests, constraint, status, going, prop::bool::weighted(0.3)).prop_map(
        |(requests, constraints, status, going, owned)| {
            let mut claim = json!({"spec": {"devices": {"requests": requests}}});
            if !constraints.is_null() {
                claim["spec"]["devices"]["constraints"] = constraints;
            }
            if !status.is_null() {
                claim["status"] = status;
            }
            if going {
                claim["metadata"] = json!({"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["f"]});
            }
            if owned {
                let pod = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
                claim["metadata"]["ownerReferences"] = pod;
            }
            claim
        },
    )
}

fn slice() -> impl Strategy<Value = Value> {
    let place = pick(&[
        json!({"nodeName": "n0"}),
        json!({"nodeName": "n1"}),
        json!({"nodeName": "n2"}),
        json!({"allNodes": true}),
        json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["1"]}]}]}}),
    ]);
    let device = (pick(&["a", "b", ""]), pick(&["1Gi", "2Gi"]), pick(&[None, None, Some(true), Some(false)]));
    let taint = pick(&["", "", "", "", "NoSchedule", "NoExecute", "None"]);
    let devices = prop::collection::vec((device, taint, 0..4u8), 0..4);
    let pool = (pick(&["pool0", "pool0", "pool1"]), pick(&[1, 1, 1, 2]), pick(&[1, 1, 1, 2]));
    (place, devices, pool).prop_map(|(mut spec, devices, (pool, generation, count))| {
        let device = |((kind, memory, rare), taint, n): ((&str, &str, Option<bool>), &str, u8)| {
            let mut device = json!({"name": format!("d{n}"), "capacity": {"memory": {"value": memory}}});
            if !kind.is_empty() {
                device["attributes"]["kind"] = json!({"string": kind});
            }
            if let Some(rare) = rare {
                device["attributes"]["rare"] = json!({"bool": rare});
            }
            if !taint.is_empty() {
                device["taints"] = json!([{"key": "bad", "value": "x", "effect": taint}]);
            }
            device
        };
        spec["driver"] = json!("drv");
        spec["pool"] = json!({"name": pool, "generation": generation, "resourceSliceCount": count});
        spec["devices"] = devices.into_iter().map(device).collect();
        json!({"spec": spec})
    })
}

pub fn change() -> impl Strategy<Value = Change> {
    let maybe = |s: BoxedStrategy<Value>| prop_oneof![1 => Just(None), 7 => s.prop_map(Some)];
    let class = selectors().prop_map(|selectors| match selectors {
        Value::Null => json!({"spec": {}}),
        selectors => json!({"spec": {"selectors": selectors}}),
    });
    prop_oneof![
        4 => (pick(&NAMESPACES), 0..2u8, maybe(claim().boxed())).prop_map(|(ns, n, body)| Change::Claim(ns, n, body)),
        5 => (0..5u8, maybe(slice().boxed())).prop_map(|(n, body)| Change::Slice(n, body)),
        2 => (0..2u8, maybe(class.boxed())).prop_map(|(n, body)| Change::Class(n, body)),
    ]
}

/// Classes, claims and slices that are all there from the beginning, or none.
pub fn beginning() -> BoxedStrategy<Vec<Change>> {
    let class = |n| Just(Change::Class(n, Some(json!({"spec": {}})))).boxed();
    let claim = |ns, n| claim().prop_map(move |body| Change::Claim(ns, n, Some(body))).boxed();
    let slice = |n| {
        let whole = slice().prop_map(|mut body| {
            body["spec"]["pool"] = json!({"name": "pool0", "generation": 1, "resourceSliceCount": 2});
            let names: BTreeSet<String> =
                body["spec"]["devices"].as_array().unwrap().iter().map(|d| d["name"].to_string()).collect();
            if names.len() < body["spec"]["devices"].as_array().unwrap().len() {
                body["spec"]["devices"] = json!([{"name": "d0"}, {"name": "d1"}]);
            }
            body
        });
        whole.prop_map(move |mut body| {
            if n == 1 {
                for device in body["spec"]["devices"].as_array_mut().unwrap() {
                    device["name"] = json!(device["name"].as_str().unwrap().replace('d', "e"));
                }
            }
            Change::Slice(n, Some(body))
        })
    };
    let [d, e] = NAMESPACES;
    let all = (class(0), class(1), claim(d, 0), claim(d, 1), claim(e, 0), claim(e, 1), slice(0), slice(1));
    let all = all.prop_map(|(a, b, c, d, e, f, g, h)| vec![a, b, c, d, e, f, g, h]);
    prop_oneof![1 => Just(vec![]), 1 => all].boxed()
}

/// The claims of a pod: by name, by a template that has or has not been followed, or none.
pub fn pod_claims() -> BoxedStrategy<Vec<Value>> {
    let one = pick(&[
        json!({"name": "x", "resourceClaimName": "g0"}),
        json!({"name": "x", "resourceClaimName": "g0"}),
        json!({"name": "y", "resourceClaimName": "g1"}),
        json!({"name": "y", "resourceClaimName": "g1"}),
        json!({"name": "made", "resourceClaimTemplateName": "t"}),
        json!({"name": "none", "resourceClaimTemplateName": "t"}),
        json!({"name": "late", "resourceClaimTemplateName": "t"}),
    ]);
    prop_oneof![4 => Just(vec![]), 2 => prop::collection::vec(one, 1..3)].boxed()
}

/// What pods' statuses say of claims from templates.
pub fn pod_statuses() -> Value {
    json!([{"name": "made", "resourceClaimName": "g1"}, {"name": "none"}])
}

impl Play {
    pub fn publish(&mut self, change: &Change) {
        match change {
            Change::Claim(namespace, n, body) => {
                self.put_device_claim(((*namespace).to_owned(), format!("g{n}")), body.clone());
            }
            Change::Slice(n, body) => {
                let name = format!("slice{n}");
                let key = ObjectKey::new(Kind::RESOURCE_SLICE, "", &name);
                let whole = |b: &Value| object("resource.k8s.io/v1", "ResourceSlice", b.clone(), json!({"name": name}));
                self.s.devices_changed(self.now, &key, body.as_ref().map(whole).as_ref());
                match body {
                    Some(body) => self.world.devices.slices.insert(name, body.clone()),
                    None => self.world.devices.slices.remove(&name),
                };
            }
            Change::Class(n, body) => {
                let name = format!("class{n}");
                let key = ObjectKey::new(Kind::DEVICE_CLASS, "", &name);
                let whole = |b: &Value| object("resource.k8s.io/v1", "DeviceClass", b.clone(), json!({"name": name}));
                self.s.devices_changed(self.now, &key, body.as_ref().map(whole).as_ref());
                match body {
                    Some(body) => self.world.devices.classes.insert(name, body.clone()),
                    None => self.world.devices.classes.remove(&name),
                };
            }
        }
    }

    fn put_device_claim(&mut self, name: ClaimName, body: Option<Value>) {
        let key = ObjectKey::new(Kind::RESOURCE_CLAIM, &name.0, &name.1);
        let meta = json!({"name": name.1, "namespace": name.0, "uid": format!("uid-{}-{}", name.0, name.1)});
        let whole = body.as_ref().map(|body| object("resource.k8s.io/v1", "ResourceClaim", body.clone(), meta));
        self.s.devices_changed(self.now, &key, whole.as_ref());
        match body {
            Some(body) => self.world.devices.claims.insert(name, body),
            None => self.world.devices.claims.remove(&name),
        };
    }

    /// What was decided for a pod's claims is stored, where the claims are still there and have nothing.
    pub fn carry_out_claims(&mut self, pod: &str) {
        let (chosen, uid) = {
            let p = self.world.pods.get_mut(pod).unwrap();
            (std::mem::take(&mut p.allocations), p.pod.uid().to_owned())
        };
        for (name, (results, selector)) in chosen {
            let Some(mut claim) = self.world.devices.claims.get(&name).cloned() else { continue };
            if !claim["status"]["allocation"].is_null() {
                continue;
            }
            let result = |(request, id): &(String, String)| {
                let (pool, device) = id.split_once('/').unwrap();
                let admin = request.strip_prefix('!');
                let mut result = json!({"request": admin.unwrap_or(request), "driver": "drv", "pool": pool,
                    "device": device});
                if admin.is_some() {
                    result["adminAccess"] = json!(true);
                }
                result
            };
            let results: Vec<Value> = results.iter().map(result).collect();
            claim["status"] = json!({"allocation": {"devices": {"results": results}},
                "reservedFor": [{"resource": "pods", "name": pod, "uid": uid}]});
            if let Some(selector) = selector {
                claim["status"]["allocation"]["nodeSelector"] = selector;
            }
            self.put_device_claim(name, Some(claim));
        }
    }

    /// Checks what is to be written for the claims of a pod on a node, and notes it.
    pub fn check_claims(&mut self, pod: &str, node: &str, steps: &[ClaimStep]) {
        let mut got: Vec<(ClaimName, Allocation)> = Vec::new();
        for step in steps {
            let name = (step.claim.namespace().to_owned(), step.claim.name().to_owned());
            let Some(value) = &step.allocation else { continue };
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let result = |r: &Value| {
                let admin = if r["adminAccess"] == true { "!" } else { "" };
                (admin.to_owned() + &text(&r["request"]), format!("{}/{}", text(&r["pool"]), text(&r["device"])))
            };
            let results = value["devices"]["results"].as_array().unwrap().iter().map(result).collect();
            let selector = value.get("nodeSelector").cloned();
            got.push((name, (results, selector)));
        }
        let p = &self.world.pods[pod];
        let expect = self.world.allocations(p, &self.world.nodes[node]);
        assert_eq!(Ok(Some(&got)), expect.as_ref().map(Option::as_ref), "{pod} on {node}");
        self.world.pods.get_mut(pod).unwrap().allocations = got;
    }
}

/// A request of a claim that is being allocated, in one of its ways.
struct Wanted {
    claim: usize,
    request: String,
    /// The names by which constraints may mean it.
    names: Vec<String>,
    class: String,
    of: Value,
}

type Found = Vec<(usize, String, Value, Value)>;

impl World {
    fn has_devices(&self, pod: &Naive) -> bool {
        self.profile(&pod.pod).unwrap().filters.has(Plugin::DynamicResources)
    }

    /// The names of a pod's claims, each once, and whether the pod must own them; an error says that one is not made.
    fn device_claims(&self, pod: &Naive) -> Result<Vec<(ClaimName, bool)>, String> {
        let mut all: Vec<(ClaimName, bool)> = Vec::new();
        for claim in pod.pod.spec.resource_claims.iter().flatten() {
            let (name, owned) = match claim.name.as_str() {
                "none" => continue,
                "late" => return Err(format!("pod \"{}\": ResourceClaim not created yet", pod.pod.key().path())),
                "made" => ("g1".to_owned(), true),
                _ => (claim.resource_claim_name.clone().unwrap(), false),
            };
            let name = (pod.pod.namespace().to_owned(), name);
            let lacks = self.lacks_claim(&name, owned, pod);
            if let Some(why) = lacks {
                return Err(why);
            }
            if !all.contains(&(name.clone(), owned)) {
                all.push((name, owned));
            }
        }
        Ok(all)
    }

    fn lacks_claim(&self, name: &ClaimName, owned: bool, pod: &Naive) -> Option<String> {
        let Some(claim) = self.devices.claims.get(name) else {
            return Some(format!("could not find ResourceClaim \"{}/{}\"", name.0, name.1));
        };
        if claim["metadata"]["deletionTimestamp"].is_string() {
            return Some(format!("resourceclaim {:?} is being deleted", name.1));
        }
        // Nothing that is drawn is owned by a pod that is there.
        owned.then(|| {
            let (claim, pod) = (format!("{}/{}", name.0, name.1), pod.pod.key());
            format!("ResourceClaim {claim} was not created for pod {} (pod is not owner)", pod.path())
        })
    }

    /// Whether a pod waits for its claims outside of the queue when it comes.
    pub fn waits_for_claims(&self, pod: &Naive) -> bool {
        self.has_devices(pod) && self.device_claims(pod).is_err()
    }

    /// Why claims for devices keep a pod from every node.
    pub fn devices_refused(&self, pod: &Naive) -> Option<String> {
        if !self.has_devices(pod) {
            return None;
        }
        let claims = match self.device_claims(pod) {
            Ok(claims) => claims,
            Err(why) => return Some(why),
        };
        for (name, _) in claims {
            let claim = &self.devices.claims[&name];
            if !claim["status"]["allocation"].is_null() {
                continue;
            }
            let mut others = self.pods.values().filter(|p| p.pod.name() != pod.pod.name());
            if others.any(|p| p.allocations.iter().any(|(of, _)| *of == name)) {
                return Some(format!("resource claim {}/{} is in the process of being allocated", name.0, name.1));
            }
            for request in claim["spec"]["devices"]["requests"].as_array().unwrap() {
                for (whole, _, of) in ways(request) {
                    let class = of["deviceClassName"].as_str().unwrap();
                    if !self.devices.classes.contains_key(class) {
                        return Some(format!("request {whole}: device class {class} does not exist"));
                    }
                }
            }
        }
        None
    }

    /// Why claims for devices make a node none for a pod.
    pub fn device_refusal(&self, pod: &Naive, node: &Node) -> Option<String> {
        if !self.has_devices(pod) || self.devices_refused(pod).is_some() {
            return None;
        }
        match self.allocations(pod, node) {
            Err(why) => Some(why),
            Ok(None) => Some("cannot allocate all claims".to_owned()),
            Ok(Some(_)) => {
                let away = self.device_claims(pod).unwrap().into_iter().any(|(name, _)| self.is_away(&name, node));
                away.then(|| "resourceclaim not available on the node".to_owned())
            }
        }
    }

    fn is_away(&self, name: &ClaimName, node: &Node) -> bool {
        let claim = &self.devices.claims[name];
        let selector = &claim["status"]["allocation"]["nodeSelector"];
        !selector.is_null() && !reaches(selector, node)
    }

    /// What is said about the claims of a pod that fits nowhere; `refused`: before any node was looked at.
    pub fn after_filters(&self, pod: &Naive, refused: bool) -> Option<&'static str> {
        let claims = pod.pod.spec.resource_claims.iter().flatten().filter(|claim| claim.name != "none").count();
        if !self.has_devices(pod) || claims == 0 {
            return None;
        }
        if refused {
            return Some("no new claims to deallocate");
        }
        let is_last = |node: &&Node| {
            let why = self.refusal(pod, node).unwrap().0;
            why == ["resourceclaim not available on the node"]
        };
        let nodes: Vec<&Node> = self.nodes.values().filter(is_last).collect();
        let idle = self.device_claims(pod).unwrap().into_iter().any(|(name, _)| {
            let users = &self.devices.claims[&name]["status"]["reservedFor"];
            let others = users.as_array().into_iter().flatten().any(|user| user["uid"] != pod.pod.uid());
            !others && nodes.iter().any(|node| self.is_away(&name, node))
        });
        Some(if idle { "deallocation of ResourceClaim completed" } else { "still not schedulable" })
    }

    /// The devices that claims have, or will have, but for these.
    fn taken(&self) -> BTreeSet<String> {
        let stored = self.devices.claims.values().flat_map(|claim| {
            let results = claim["status"]["allocation"]["devices"]["results"].as_array().cloned().unwrap_or_default();
            let own = results.into_iter().filter(|r| r["adminAccess"] != true);
            own.map(|r| format!("{}/{}", r["pool"].as_str().unwrap(), r["device"].as_str().unwrap()))
        });
        let chosen = self.pods.values().flat_map(|p| &p.allocations).flat_map(|(_, (results, _))| results);
        let own = chosen.filter(|(request, _)| !request.starts_with('!')).map(|(_, id)| id.clone());
        stored.chain(own).collect()
    }

    /// The newest slices of each pool with devices for a node: its name, whether it is incomplete or invalid, and the
    /// devices with their slices.
    fn pools(&self, node: &Node) -> Vec<(String, bool, bool, Vec<(Value, Value)>)> {
        let mut all = Vec::new();
        for name in ["pool0", "pool1"] {
            let of: Vec<&Value> = self.devices.slices.values().filter(|s| s["spec"]["pool"]["name"] == name).collect();
            let newest = of.iter().map(|s| s["spec"]["pool"]["generation"].as_i64().unwrap()).max();
            let of = of.into_iter().filter(|s| s["spec"]["pool"]["generation"].as_i64() == newest);
            let of: Vec<&Value> = of.collect();
            let Some(first) = of.first() else { continue };
            let incomplete = first["spec"]["pool"]["resourceSliceCount"].as_u64() != Some(of.len() as u64);
            let names: Vec<&str> = of
                .iter()
                .flat_map(|s| s["spec"]["devices"].as_array().unwrap())
                .map(|d| d["name"].as_str().unwrap())
                .collect();
            let invalid = names.iter().collect::<BTreeSet<_>>().len() < names.len();
            let here = |spec: &Value| {
                spec["nodeName"] == node.name()
                    || spec["allNodes"] == true
                    || !spec["nodeSelector"].is_null() && reaches(&spec["nodeSelector"], node)
            };
            let of: Vec<&Value> = of.into_iter().filter(|s| here(&s["spec"])).collect();
            if of.is_empty() {
                continue;
            }
            let devices = of.iter().flat_map(|s| {
                let devices = s["spec"]["devices"].as_array().unwrap().clone();
                devices.into_iter().map(|device| (device, s["spec"].clone()))
            });
            all.push((name.to_owned(), incomplete, invalid, devices.collect()));
        }
        all
    }

    fn selects(&self, wanted: &Wanted, claim: &str, id: &str, device: &Value) -> Result<bool, String> {
        let of = |value: &Value| -> Vec<String> {
            let all = value["selectors"].as_array().into_iter().flatten();
            all.map(|s| s["cel"]["expression"].as_str().unwrap().to_owned()).collect()
        };
        let class = of(&self.devices.classes[&wanted.class]["spec"]).into_iter().enumerate();
        let class = class.map(|(i, e)| (format!("class {}: selector #{i}", wanted.class), e));
        let own = of(&wanted.of).into_iter().enumerate().map(|(i, e)| (format!("claim {claim}: selector #{i}"), e));
        for (whose, expression) in class.chain(own) {
            match says(&expression, device) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(why) => return Err(format!("{whose} on device drv/{id}: CEL runtime error: {why}")),
            }
        }
        Ok(true)
    }

    /// What the claims of a pod that have nothing yet get on a node.
    pub fn allocations(&self, pod: &Naive, node: &Node) -> Result<Option<Vec<(ClaimName, Allocation)>>, String> {
        if !self.has_devices(pod) {
            return Ok(Some(Vec::new()));
        }
        let names: Vec<ClaimName> = self.device_claims(pod).unwrap().into_iter().map(|(name, _)| name).collect();
        let names = names.into_iter().filter(|n| self.devices.claims[n]["status"]["allocation"].is_null());
        let names: Vec<ClaimName> = names.collect();
        if names.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let pools = self.pools(node);
        let mut requests: Vec<(usize, Value)> = Vec::new();
        for (claim, name) in names.iter().enumerate() {
            let all = self.devices.claims[name]["spec"]["devices"]["requests"].as_array().unwrap();
            requests.extend(all.iter().map(|request| (claim, request.clone())));
        }
        let mut search = Search { world: self, names: &names, pools: &pools, taken: self.taken(), found: Vec::new() };
        for (claim, request) in &requests {
            for (name, _, of) in ways(request) {
                if of["allocationMode"] == "All" {
                    let wanted = search.wanted(*claim, &name, request, &of);
                    search.all(&wanted)?;
                }
            }
        }
        if !search.go(&requests)? {
            let invalid = pools.iter().any(|(_, _, invalid, _)| *invalid);
            return if invalid { Err("invalid resource pools were encountered".to_owned()) } else { Ok(None) };
        }
        let of = |(n, name): (usize, &ClaimName)| {
            let mine: Vec<_> = search.found.iter().filter(|(claim, ..)| *claim == n).collect();
            let results = mine.iter().map(|(_, request, device, _)| (request.clone(), id(device))).collect();
            (name.clone(), (results, place(&mine)))
        };
        Ok(Some(names.iter().enumerate().map(of).collect()))
    }
}

/// The ways to meet a request: its name in results, its own, and what is asked.
fn ways(request: &Value) -> Vec<(String, String, Value)> {
    let name = request["name"].as_str().unwrap();
    match request["firstAvailable"].as_array() {
        None => vec![(name.to_owned(), String::new(), request["exactly"].clone())],
        Some(all) => all
            .iter()
            .map(|of| {
                let own = of["name"].as_str().unwrap();
                (format!("{name}/{own}"), own.to_owned(), of.clone())
            })
            .collect(),
    }
}

fn id(device: &Value) -> String {
    device["id"].as_str().unwrap().to_owned()
}

fn reaches(selector: &Value, node: &Node) -> bool {
    let term = &selector["nodeSelectorTerms"][0];
    let label = |key: &str| node.meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
    let values = |r: &Value| -> Vec<String> {
        r["values"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    let fields = term["matchFields"].as_array().into_iter().flatten();
    let labels = term["matchExpressions"].as_array().into_iter().flatten();
    fields.into_iter().all(|r| values(r).contains(&node.name().to_owned()))
        && labels.into_iter().all(|r| label(r["key"].as_str().unwrap()).is_some_and(|v| values(r).contains(&v)))
}

/// From which nodes devices can be used.
fn place(found: &[&(usize, String, Value, Value)]) -> Option<Value> {
    if let Some(node) = found.iter().map(|(.., slice)| &slice["nodeName"]).find(|node| node.is_string()) {
        return Some(json!({"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": [node]}]}]}));
    }
    found.iter().map(|(.., slice)| &slice["nodeSelector"]).find(|selector| selector.is_object()).cloned()
}

struct Search<'a> {
    world: &'a World,
    names: &'a [ClaimName],
    pools: &'a [(String, bool, bool, Vec<(Value, Value)>)],
    taken: BTreeSet<String>,
    /// Claim, request, device and slice, in order.
    found: Found,
}

impl Search<'_> {
    fn wanted(&self, claim: usize, name: &str, request: &Value, of: &Value) -> Wanted {
        Wanted {
            claim,
            request: name.to_owned(),
            names: vec![name.to_owned(), request["name"].as_str().unwrap().to_owned()],
            class: of["deviceClassName"].as_str().unwrap().to_owned(),
            of: of.clone(),
        }
    }

    fn path(&self, claim: usize) -> String {
        format!("{}/{}", self.names[claim].0, self.names[claim].1)
    }

    /// All devices that a request for all is about.
    fn all(&self, wanted: &Wanted) -> Result<Found, String> {
        let mut all = Vec::new();
        for (pool, incomplete, invalid, devices) in self.pools {
            let state = if *incomplete { "being updated" } else { "invalid" };
            if *incomplete || *invalid {
                let claim = self.path(wanted.claim);
                let request = &wanted.request;
                return Err(format!(
                    "claim {claim}, request {request}: asks for all devices, but resource pool drv/{pool} is \
                     currently {state}"
                ));
            }
            for (device, slice) in devices {
                let id = format!("{pool}/{}", device["name"].as_str().unwrap());
                if self.world.selects(wanted, &self.path(wanted.claim), &id, device)? {
                    all.push(self.entry(wanted, &id, device, slice));
                }
            }
        }
        Ok(all)
    }

    fn entry(&self, wanted: &Wanted, id: &str, device: &Value, slice: &Value) -> (usize, String, Value, Value) {
        let mut device = device.clone();
        device["id"] = json!(id);
        device["names"] = json!(wanted.names);
        let admin = if wanted.of["adminAccess"] == true { "!" } else { "" };
        (wanted.claim, format!("{admin}{}", wanted.request), device, slice.clone())
    }

    fn is_usable(&self, wanted: &Wanted, id: &str, device: &Value) -> bool {
        let mut mine = self.found.iter().filter(|(.., device, _)| device["id"] == id);
        let free = if wanted.of["adminAccess"] == true {
            !mine.any(|(claim, ..)| *claim == wanted.claim)
        } else {
            mine.next().is_none() && !self.taken.contains(id)
        };
        let tolerated = !wanted.of["tolerations"].is_null();
        let tainted = device["taints"].as_array().into_iter().flatten().any(|taint| taint["effect"] != "None");
        free && (tolerated || !tainted)
    }

    fn suits(&self, wanted: &Wanted, device: &Value) -> bool {
        let claim = &self.world.devices.claims[&self.names[wanted.claim]];
        let constraints = claim["spec"]["devices"]["constraints"].as_array().into_iter().flatten();
        constraints.into_iter().all(|constraint| {
            let requests = constraint["requests"].as_array();
            let means = |names: &[String]| {
                requests.is_none_or(|r| r.iter().any(|r| names.iter().any(|name| r == name.as_str())))
            };
            if !means(&wanted.names) {
                return true;
            }
            if constraint["matchAttribute"] != "drv/kind" || device["attributes"]["kind"].is_null() {
                return false;
            }
            self.found.iter().filter(|(claim, ..)| *claim == wanted.claim).all(|(.., other, _)| {
                let names: Vec<String> = serde_json::from_value(other["names"].clone()).unwrap();
                !means(&names) || other["attributes"]["kind"] == device["attributes"]["kind"]
            })
        })
    }

    fn go(&mut self, requests: &[(usize, Value)]) -> Result<bool, String> {
        let Some(((claim, request), rest)) = requests.split_first() else { return Ok(true) };
        for (name, _, of) in ways(request) {
            let wanted = self.wanted(*claim, &name, request, &of);
            let done = if of["allocationMode"] == "All" {
                self.go_all(&wanted, rest)?
            } else {
                self.go_some(&wanted, of["count"].as_u64().unwrap(), rest)?
            };
            if done {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn go_all(&mut self, wanted: &Wanted, rest: &[(usize, Value)]) -> Result<bool, String> {
        let all = self.all(wanted)?;
        if all.is_empty() {
            return Ok(false);
        }
        let before = self.found.len();
        let mut fine = true;
        for entry in all {
            if !self.is_usable(wanted, &id(&entry.2), &entry.2) {
                fine = false;
                break;
            }
            if !self.suits(wanted, &entry.2) {
                let (claim, request) = (self.path(wanted.claim), wanted.names[0].clone());
                let device = id(&entry.2);
                return Err(format!(
                    "claim {claim}, request {request}: cannot add device drv/{device} because a claim constraint \
                     would not be satisfied"
                ));
            }
            self.found.push(entry);
        }
        let done = fine && self.go(rest)?;
        if !done {
            self.found.truncate(before);
        }
        Ok(done)
    }

    fn go_some(&mut self, wanted: &Wanted, count: u64, rest: &[(usize, Value)]) -> Result<bool, String> {
        if count == 0 {
            return self.go(rest);
        }
        for (pool, incomplete, invalid, devices) in self.pools {
            if *incomplete || *invalid {
                continue;
            }
            for (device, slice) in devices {
                let id = format!("{pool}/{}", device["name"].as_str().unwrap());
                if !self.is_usable(wanted, &id, device)
                    || !self.world.selects(wanted, &self.path(wanted.claim), &id, device)?
                    || !self.suits(wanted, device)
                {
                    continue;
                }
                self.found.push(self.entry(wanted, &id, device, slice));
                if self.go_some(wanted, count - 1, rest)? {
                    return Ok(true);
                }
                self.found.pop();
            }
        }
        Ok(false)
    }
}
