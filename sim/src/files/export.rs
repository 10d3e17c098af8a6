//! Exports of a live cluster: drops what the server had set, by the rule in `docs/scenarios.md`.
//!
//! An object with `metadata.uid` is considered exported; others are taken as they are. The rule works on JSON before
//! the object is decoded, so that a field that is dropped cannot cause a decoding error.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use skeg_core::object::{HOSTNAME_LABEL, ZONE_LABEL};

use crate::scenario::NodePool;

/// Kinds that controllers and nodes write; those of an export are of no use in another cluster.
const WRITTEN_BY_MACHINES: [&str; 6] =
    ["Event", "Endpoints", "EndpointSlice", "Lease", "ControllerRevision", "ComponentStatus"];
/// Metadata that the API server sets.
const SERVER_METADATA: [&str; 9] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
];
/// Annotations that controllers set.
const MACHINE_ANNOTATIONS: [&str; 4] = [
    "deployment.kubernetes.io/revision",
    "endpoints.kubernetes.io/last-change-trigger-time",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
];
/// Namespaces that exist in every cluster from the start.
pub const SYSTEM_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// The kind, namespace and name of every object of the input. An object whose controller is in the input is not
/// applied, because the controller creates it again.
#[derive(Default)]
pub struct Owners(BTreeSet<(String, String, String)>);

impl Owners {
    /// Adds an object of the input.
    pub fn note(&mut self, object: &Value) {
        self.0.insert((text(object, "kind"), meta_text(object, "namespace"), meta_text(object, "name")));
    }

    /// Whether the controller of an object is in the input.
    fn has_controller_of(&self, object: &Value) -> bool {
        let owners = object["metadata"]["ownerReferences"].as_array();
        owners.into_iter().flatten().any(|o| {
            o["controller"] == Value::Bool(true)
                && self.0.contains(&(text(o, "kind"), meta_text(object, "namespace"), text(o, "name")))
        })
    }
}

/// What is done with an object of the input.
#[derive(Debug, PartialEq)]
pub enum Fate {
    /// It is applied, with the changes that were made in place.
    Keep,
    /// It is left out; the value is the reason.
    Drop(&'static str),
}

/// Applies the rule to one object, in place.
pub fn strip(object: &mut Value, owners: &Owners, keep_bindings: bool) -> Fate {
    if !is_exported(object) {
        return Fate::Keep;
    }
    if let Some(why) = left_out(object, owners, keep_bindings) {
        return Fate::Drop(why);
    }
    let kind = text(object, "kind");
    if let Some(meta) = object["metadata"].as_object_mut() {
        strip_metadata(meta);
    }
    let Some(all) = object.as_object_mut() else { return Fate::Keep };
    let status = all.remove("status");
    if let Some(spec) = all.get_mut("spec").and_then(Value::as_object_mut) {
        match kind.as_str() {
            "Pod" => strip_pod(spec, keep_bindings),
            "Service" => strip_service(spec),
            "Namespace" => _ = spec.remove("finalizers"),
            "PersistentVolume" if status.is_some_and(|s| s["phase"] == "Bound") => strip_volume(spec),
            _ => {}
        }
    }
    if let Some(template) = all.get_mut("spec").and_then(|s| s.get_mut("template"))
        && let Some(meta) = template.get_mut("metadata").and_then(Value::as_object_mut)
    {
        meta.remove("creationTimestamp");
    }
    Fate::Keep
}

/// Whether the object comes from a live API server.
pub fn is_exported(object: &Value) -> bool {
    !meta_text(object, "uid").is_empty()
}

fn left_out(object: &Value, owners: &Owners, keep_bindings: bool) -> Option<&'static str> {
    let (kind, name) = (text(object, "kind"), meta_text(object, "name"));
    if WRITTEN_BY_MACHINES.contains(&kind.as_str()) {
        return Some("written by controllers and nodes");
    }
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Some("being deleted");
    }
    let phase = object["status"]["phase"].as_str();
    let mirror = !object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null();
    match kind.as_str() {
        "Pod" if mirror => Some("static pods of a node"),
        "Pod" if matches!(phase, Some("Succeeded" | "Failed")) => Some("pods that have run to their end"),
        "Pod" | "ReplicaSet" if keep_bindings => {
            let empty = kind == "ReplicaSet" && object["spec"]["replicas"] == 0;
            (empty && owners.has_controller_of(object)).then_some("old ReplicaSets of a Deployment in the input")
        }
        "ServiceAccount" if name == "default" => Some("made in every namespace"),
        "ConfigMap" if name == "kube-root-ca.crt" => Some("made in every namespace"),
        "Secret" if text(object, "type") == "kubernetes.io/service-account-token" => Some("made in every namespace"),
        "Service" if name == "kubernetes" && meta_text(object, "namespace") == "default" => {
            Some("made by the API server")
        }
        "Namespace" if SYSTEM_NAMESPACES.contains(&name.as_str()) => Some("made by the API server"),
        _ => owners.has_controller_of(object).then_some("owned by a controller in the input"),
    }
}

fn strip_metadata(meta: &mut Map<String, Value>) {
    for key in SERVER_METADATA {
        meta.remove(key);
    }
    // The controllers that would remove the finalizers do not run here.
    meta.remove("finalizers");
    if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !MACHINE_ANNOTATIONS.contains(&key.as_str()));
        if annotations.is_empty() {
            meta.remove("annotations");
        }
    }
    // The generated name is kept as a plain name.
    if meta.get("name").is_some_and(|n| n.as_str().is_some_and(|n| !n.is_empty())) {
        meta.remove("generateName");
    }
}

fn strip_pod(spec: &mut Map<String, Value>, keep_bindings: bool) {
    if !keep_bindings {
        spec.remove("nodeName");
    }
    // Admission sets it again from the priority class.
    spec.remove("priority");
    // Not allowed when a pod is created.
    spec.remove("ephemeralContainers");
    let is_token = |v: &Value| v["name"].as_str().is_some_and(|n| n.starts_with("kube-api-access-"));
    if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|v| !is_token(v));
    }
    for containers in ["containers", "initContainers"] {
        for container in spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                mounts.retain(|m| !is_token(m));
            }
        }
    }
}

/// The claim of a volume gets another UID: it is found again by its name.
fn strip_volume(spec: &mut Map<String, Value>) {
    if let Some(claim) = spec.get_mut("claimRef").and_then(Value::as_object_mut) {
        claim.remove("uid");
        claim.remove("resourceVersion");
    }
}

fn strip_service(spec: &mut Map<String, Value>) {
    if spec.get("clusterIP").and_then(Value::as_str) != Some("None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    for key in ["healthCheckNodePort", "ipFamilies", "ipFamilyPolicy"] {
        spec.remove(key);
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
}

/// Turns a Node of the input into a node pool with its labels, taints and capacity. `None` if it has no capacity.
pub fn node_pool(node: &Value) -> Option<NodePool> {
    let status = &node["status"];
    // Pods may use only what is allocatable, so this becomes the capacity of the simulated node.
    let resources = status["allocatable"].as_object().or_else(|| status["capacity"].as_object())?;
    let capacity: BTreeMap<String, String> =
        resources.iter().filter_map(|(k, v)| Some((k.clone(), quantity_text(v)?))).collect();
    let mut labels: BTreeMap<String, String> = node["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect();
    labels.remove(HOSTNAME_LABEL);
    let zone = labels.remove(ZONE_LABEL);
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let taints = taints.filter(|t| !text(t, "key").starts_with("node.kubernetes.io/"));
    let taints = taints.map(|t| format!("{}={}:{}", text(t, "key"), text(t, "value"), text(t, "effect"))).collect();
    let name = meta_text(node, "name");
    (!capacity.is_empty() && !name.is_empty()).then(|| NodePool {
        name: name.clone(),
        count: 1,
        names: vec![name],
        capacity,
        labels,
        taints,
        zone,
        cordoned: node["spec"]["unschedulable"] == Value::Bool(true),
    })
}

/// Merges equal nodes into one pool.
pub fn group_pools(pools: Vec<NodePool>) -> Vec<NodePool> {
    let mut grouped: Vec<NodePool> = Vec::new();
    for pool in pools {
        let same = grouped.iter_mut().rev().find(|p| {
            (&p.capacity, &p.labels, &p.taints) == (&pool.capacity, &pool.labels, &pool.taints)
                && (&p.zone, p.cordoned) == (&pool.zone, pool.cordoned)
        });
        match same {
            Some(p) => {
                p.count += pool.count;
                p.names.extend(pool.names);
            }
            None => grouped.push(pool),
        }
    }
    grouped
}

fn quantity_text(v: &Value) -> Option<String> {
    match v {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// A text field of a JSON object; empty if it is absent.
pub fn text(v: &Value, key: &str) -> String {
    v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A text field of `metadata`; empty if it is absent.
pub fn meta_text(v: &Value, key: &str) -> String {
    v.get("metadata").map(|m| text(m, key)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Fate, Owners, group_pools, node_pool, strip};
    use serde_json::{Value, json};

    fn fate(mut object: Value, keep: bool) -> (Fate, Value) {
        let mut owners = Owners::default();
        owners.note(&json!({"kind": "ReplicaSet", "metadata": {"name": "web-1", "namespace": "d"}}));
        let fate = strip(&mut object, &owners, keep);
        (fate, object)
    }

    fn pod() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1-x", "namespace": "d", "uid": "u", "generateName": "web-1-",
                "resourceVersion": "5", "labels": {"a": "b"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": true}]},
            "spec": {"nodeName": "n1", "priority": 0,
                "volumes": [{"name": "kube-api-access-abc"}, {"name": "data"}],
                "containers": [{"name": "c", "volumeMounts": [{"name": "kube-api-access-abc"}, {"name": "data"}]}]},
            "status": {"phase": "Running"}})
    }

    #[test]
    fn owned_pods_are_left_out_unless_their_bindings_are_kept() {
        assert_eq!(fate(pod(), false).0, Fate::Drop("owned by a controller in the input"));
        let (kept, object) = fate(pod(), true);
        assert_eq!(kept, Fate::Keep);
        assert_eq!(
            object,
            json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1-x", "namespace": "d", "labels": {"a": "b"}},
            "spec": {"nodeName": "n1", "volumes": [{"name": "data"}],
                "containers": [{"name": "c", "volumeMounts": [{"name": "data"}]}]}})
        );
    }

    #[test]
    fn bare_pods_lose_their_node() {
        let mut bare = pod();
        bare["metadata"]["ownerReferences"] = json!([]);
        let (kept, object) = fate(bare, false);
        assert_eq!((kept, object["spec"].get("nodeName")), (Fate::Keep, None));
    }

    #[test]
    fn what_was_written_by_hand_is_left_alone() {
        let service = json!({"kind": "Service", "metadata": {"name": "s"},
            "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 1, "nodePort": 30001}]}, "status": {}});
        assert_eq!(fate(service.clone(), false), (Fate::Keep, service));
    }

    #[test]
    fn services_lose_their_addresses_but_headless_ones_stay_so() {
        let service = |ip: &str| {
            json!({"kind": "Service", "metadata": {"name": "s", "uid": "u"}, "spec": {"clusterIP": ip,
                "clusterIPs": [ip], "ipFamilies": ["IPv4"], "ports": [{"port": 1, "nodePort": 30001}]}})
        };
        assert_eq!(fate(service("10.96.0.9"), false).1["spec"], json!({"ports": [{"port": 1}]}));
        let headless = json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 1}]});
        assert_eq!(fate(service("None"), false).1["spec"], headless);
    }

    #[test]
    fn machines_own_writings_are_left_out() {
        for (kind, name) in [("Event", "e"), ("Lease", "l"), ("Endpoints", "x"), ("ServiceAccount", "default")] {
            let object = json!({"kind": kind, "metadata": {"name": name, "uid": "u"}});
            assert!(matches!(fate(object, false).0, Fate::Drop(_)), "{kind}");
        }
    }

    #[test]
    fn nodes_become_pools_and_equal_ones_share_one() {
        let node = |name: &str, cpu: &str| {
            json!({"kind": "Node", "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z",
                "kubernetes.io/hostname": name, "disk": "ssd"}},
                "spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"},
                    {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]},
                "status": {"capacity": {"cpu": "9"}, "allocatable": {"cpu": cpu, "pods": 110}}})
        };
        let pools = [node("a", "4"), node("b", "8"), node("c", "4")];
        let pools = group_pools(pools.iter().filter_map(node_pool).collect());
        let shape: Vec<_> = pools.iter().map(|p| (p.names.clone(), p.capacity["cpu"].as_str())).collect();
        assert_eq!(shape, [(vec!["a".to_owned(), "c".to_owned()], "4"), (vec!["b".to_owned()], "8")]);
        assert_eq!(pools[0].taints, ["gpu=yes:NoSchedule"]);
        assert_eq!((pools[0].zone.as_deref(), pools[0].capacity["pods"].as_str()), (Some("z"), "110"));
        assert!(node_pool(&json!({"kind": "Node", "metadata": {"name": "x"}})).is_none());
    }
}
