//! Pod templates of explored workloads: probes, hooks, init containers, what they refer to, and where they may run.

use serde_json::{Value, json};

use skeg_core::Rng;
use skeg_core::object::Object;

use super::SLOT;
use super::workload::URGENT;

/// What limits where the pods of a workload may run.
pub struct Placing {
    /// The workload's number, from which its host port follows.
    pub number: u64,
    /// Whether each pod can have a node of its own, with some to spare.
    pub has_own_nodes: bool,
}

/// The first zone: every cluster has it.
const ZONE: &str = "zone-a";

/// Draws a pod template; one in three has no readiness probe. Without `placing`, its pods may run anywhere.
pub fn template(rng: &mut Rng, name: &str, image: &str, placing: Option<&Placing>) -> Value {
    let grace = rng.below(30);
    let container = container(rng, name, image, grace);
    let mut spec = json!({"containers": [container], "terminationGracePeriodSeconds": grace});
    if rng.chance(1, 4) {
        spec["initContainers"] = init_containers(rng);
    }
    if rng.chance(1, 4) {
        spec["topologySpreadConstraints"] = json!([spread(rng, name, "ScheduleAnyway")]);
    }
    if rng.chance(1, 6) {
        spec["priorityClassName"] = json!(URGENT);
    }
    if rng.chance(1, 4) {
        let seconds = rng.below(60);
        let toleration = |key: &str| {
            json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": seconds})
        };
        let keys = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
        spec["tolerations"] = json!(keys.map(toleration));
    }
    if let Some(placing) = placing.filter(|_| rng.chance(1, 5)) {
        place(rng, name, placing, &mut spec);
    }
    json!({"metadata": {"labels": {"app": name}}, "spec": spec})
}

fn container(rng: &mut Rng, name: &str, image: &str, grace: u64) -> Value {
    let mut container = json!({
        "name": "main", "image": format!("{image}:1"), "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"requests": {"cpu": format!("{SLOT}m"), "memory": "16Mi"}}
    });
    if rng.chance(2, 3) && image != "explore/task" {
        let period = 1 + rng.below(5);
        container["readinessProbe"] = json!({"httpGet": {"path": "/", "port": "http"}, "periodSeconds": period});
    }
    if grace > 1 && rng.chance(1, 6) {
        container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 1 + rng.below(grace - 1)}}});
    }
    if rng.chance(1, 8) {
        container["envFrom"] = json!([{"configMapRef": {"name": format!("{name}-config")}}]);
    }
    container
}

/// The ConfigMap that a template refers to, if it does.
pub fn config(object: &Object) -> Option<Object> {
    let spec = object.pod_spec()?;
    let source = spec.containers.first()?.env_from.as_ref()?.first()?.config_map_ref.as_ref()?;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"level": "info"},
        "metadata": {"name": source.name, "namespace": object.namespace()}});
    Some(Object::from_json(map).expect("what is drawn is well formed"))
}

fn spread(rng: &mut Rng, name: &str, else_: &str) -> Value {
    let key = *rng.pick(&["topology.kubernetes.io/zone", "kubernetes.io/hostname"]).expect("there are some");
    json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": else_, "labelSelector": {"matchLabels": {"app": name}}})
}

/// Draws a rule that nodes must obey.
fn place(rng: &mut Rng, name: &str, placing: &Placing, spec: &mut Value) {
    let others = json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": name}}}]);
    match rng.below(4) {
        0 => spec["nodeSelector"] = json!({"topology.kubernetes.io/zone": ZONE}),
        1 => spec["topologySpreadConstraints"] = json!([spread(rng, name, "DoNotSchedule")]),
        2 if placing.has_own_nodes => {
            let key = "requiredDuringSchedulingIgnoredDuringExecution";
            spec["affinity"] = json!({"podAntiAffinity": {key: others}});
        }
        3 if placing.has_own_nodes => spec["containers"][0]["ports"][0]["hostPort"] = json!(7000 + placing.number),
        _ => {}
    }
}

/// Whether the pods of a workload may run on some nodes only, or not beside each other.
pub fn is_placed(object: &Object) -> bool {
    let Some(spec) = object.pod_spec() else { return false };
    let is_hard = |c: &k8s_openapi::api::core::v1::TopologySpreadConstraint| c.when_unsatisfiable == "DoNotSchedule";
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let spread = spec.topology_spread_constraints.iter().flatten().any(is_hard);
    spec.node_selector.is_some()
        || spec.affinity.is_some()
        || spread
        || ports.into_iter().any(|p| p.host_port.is_some())
}

/// Init containers, sidecars among them.
pub fn init_containers(rng: &mut Rng) -> Value {
    let init = |name: &str| json!({"name": name, "image": "explore/init:1"});
    let sidecar = json!({"name": "sidecar", "image": "explore/web:1", "restartPolicy": "Always"});
    match rng.below(3) {
        0 => json!([init("first"), init("second")]),
        1 => json!([sidecar]),
        _ => json!([init("first"), sidecar, init("second")]),
    }
}
