//! `metrics.k8s.io`: what nodes and pods use, for `kubectl top`. The simulated containers use what their images'
//! profiles say.
//!
//! Source: <https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/>, `metrics-server`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use skeg_core::Wall;
use skeg_core::api::{Reason, Status};
use skeg_core::object::{Kind, KindInfo, Verbs};

use super::served::Resource;

/// The group.
pub const GROUP: &str = "metrics.k8s.io";
/// The numbers of the two kinds, which no machine knows.
const KINDS: [Kind; 2] = [Kind(u16::MAX - 1), Kind(u16::MAX - 2)];
/// What a node itself uses, beside its containers: CPU in thousandths of a core, and bytes.
const NODE_ITSELF: (u64, u64) = (100, 512 << 20);

/// What one container uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// The node.
    pub node: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the container.
    pub container: String,
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Working set in bytes.
    pub memory_bytes: u64,
}

/// The resources of the group.
pub fn resources() -> [Resource; 2] {
    let column = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
    let info = |kind: &str, plural: &str, namespaced: bool| KindInfo {
        group: GROUP.into(),
        version: "v1beta1".into(),
        kind: kind.to_owned().into(),
        plural: plural.to_owned().into(),
        namespaced,
        verbs: Verbs::Read,
        ..KindInfo::custom()
    };
    let window = column("Window", ".window");
    let of_nodes = [column("CPU", ".usage.cpu"), column("Memory", ".usage.memory"), window.clone()];
    let of_pods = [column("CPU", ".containers[*].usage.cpu"), column("Memory", ".containers[*].usage.memory"), window];
    [
        Resource::computed(KINDS[0], info("NodeMetrics", "nodes", false), &of_nodes),
        Resource::computed(KINDS[1], info("PodMetrics", "pods", true), &of_pods),
    ]
}

/// 404 for metrics that are not there.
pub fn not_found(resource: &Resource, namespace: &str, name: &str) -> Status {
    let qualified = format!("{}.{GROUP}", resource.info.kind.to_lowercase());
    let name = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    Status { reason: Reason::NotFound, message: format!("{qualified} {name:?} not found").into(), details: None }
}

fn usage(cpu_milli: u64, memory_bytes: u64) -> Value {
    json!({"cpu": format!("{}n", cpu_milli * 1_000_000), "memory": format!("{}Ki", memory_bytes >> 10)})
}

/// The metrics of an object: its name and labels, and when they were measured.
fn metrics(kind: &str, object: &Value, now: Wall) -> Value {
    let (meta, time) = (&object["metadata"], now.to_time().0.to_string());
    let mut metadata = json!({"name": meta["name"], "creationTimestamp": time});
    for field in ["namespace", "labels"] {
        if !meta[field].is_null() {
            metadata[field] = meta[field].clone();
        }
    }
    json!({"kind": kind, "apiVersion": format!("{GROUP}/v1beta1"), "metadata": metadata, "timestamp": time,
        "window": "15s"})
}

/// The metrics of those of these pods that run.
pub fn of_pods(pods: &[Value], used: &[Usage], now: Wall) -> Vec<Value> {
    let mut by_pod: BTreeMap<&str, Vec<&Usage>> = BTreeMap::new();
    for usage in used {
        by_pod.entry(&usage.pod_uid).or_default().push(usage);
    }
    let of = |pod: &Value| {
        let containers = by_pod.get(pod["metadata"]["uid"].as_str()?)?.iter();
        let containers = containers.map(|c| json!({"name": c.container, "usage": usage(c.cpu_milli, c.memory_bytes)}));
        let mut metrics = metrics("PodMetrics", pod, now);
        metrics["containers"] = containers.collect();
        Some(metrics)
    };
    pods.iter().filter_map(of).collect()
}

/// The metrics of these nodes.
pub fn of_nodes(nodes: &[Value], used: &[Usage], now: Wall) -> Vec<Value> {
    let mut by_node: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for usage in used {
        let (cpu, memory) = by_node.entry(&usage.node).or_insert(NODE_ITSELF);
        (*cpu, *memory) = (*cpu + usage.cpu_milli, *memory + usage.memory_bytes);
    }
    let of = |node: &Value| {
        let (cpu, memory) = by_node.get(node["metadata"]["name"].as_str()?).copied().unwrap_or(NODE_ITSELF);
        let mut metrics = metrics("NodeMetrics", node, now);
        metrics["usage"] = usage(cpu, memory);
        Some(metrics)
    };
    nodes.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::{Usage, of_nodes, of_pods, resources};
    use serde_json::json;
    use skeg_core::Wall;
    use skeg_core::table::Time;

    #[test]
    fn what_containers_use_is_summed_up() {
        let used = |pod: &str, container: &str, cpu_milli: u64| Usage {
            node: "n".to_owned(),
            pod_uid: pod.to_owned(),
            container: container.to_owned(),
            cpu_milli,
            memory_bytes: 1 << 20,
        };
        let all = [used("u", "a", 50), used("u", "b", 25), used("other", "c", 1)];
        let pods = [
            json!({"metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"a": "b"}}}),
            json!({"metadata": {"name": "waits", "namespace": "d", "uid": "v"}}),
        ];
        let pods = of_pods(&pods, &all, Wall(0));
        let time = "1970-01-01T00:00:00Z";
        assert_eq!(
            pods,
            [json!({"kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1", "window": "15s",
            "metadata": {"name": "p", "namespace": "d", "labels": {"a": "b"}, "creationTimestamp": time},
            "timestamp": time, "containers": [
                {"name": "a", "usage": {"cpu": "50000000n", "memory": "1024Ki"}},
                {"name": "b", "usage": {"cpu": "25000000n", "memory": "1024Ki"}}]})]
        );
        let nodes =
            of_nodes(&[json!({"metadata": {"name": "n"}}), json!({"metadata": {"name": "idle"}})], &all, Wall(0));
        assert_eq!(nodes[0]["usage"], json!({"cpu": "176000000n", "memory": "527360Ki"}));
        assert_eq!(nodes[1]["usage"], json!({"cpu": "100000000n", "memory": "524288Ki"}));
        assert_eq!(resources()[1].cells(&pods[0], Time(Wall(0)))[1], "50000000n");
    }
}
