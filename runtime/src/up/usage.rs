//! `metrics.k8s.io`: what nodes and pods use, for `kubectl top`. The simulated containers use what their images'
//! profiles say.
//!
//! Source: <https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/>, `metrics-server`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use skeg_core::Wall;
use skeg_core::api::{Reason, Status};
use skeg_core::object::{Kind, KindInfo, Verbs};
use tokio::sync::oneshot;

use super::ask::Inbound;
use super::handler::Handler;
use super::served::Resource;
use crate::measured::INTERVAL;

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

/// What containers and nodes use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Used {
    /// Each container that runs.
    pub containers: Vec<Usage>,
    /// Whole nodes, where that is measured: CPU in thousandths of a core, and the working set in bytes.
    pub nodes: BTreeMap<String, (u64, u64)>,
    /// Nodes whose agents could not be asked.
    pub unknown: BTreeSet<String>,
}

impl Handler {
    /// Measures what pods use for as long as the cluster runs, and tells its controllers while they need it.
    pub(super) async fn measure(&self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let (reply, needs) = oneshot::channel();
            if self.cluster.send(Inbound::NeedsUsage(reply)).is_err() {
                return;
            }
            if needs.await != Ok(true) {
                continue;
            }
            match self.used().await {
                Ok(used) => drop(self.cluster.send(Inbound::Measured(used))),
                Err(status) => tracing::debug!("what pods use is not known: {status}"),
            }
        }
    }
}

impl Used {
    /// What the containers of a node use.
    fn on(&self, node: &str) -> (u64, u64) {
        let here = self.containers.iter().filter(|usage| usage.node == node);
        here.fold((0, 0), |(cpu, memory), usage| (cpu + usage.cpu_milli, memory + usage.memory_bytes))
    }

    /// Adds what another node uses.
    pub fn extend(&mut self, other: Used) {
        self.containers.extend(other.containers);
        self.nodes.extend(other.nodes);
    }
}

/// The kubelet's Summary of a node, as far as it is known: processor and memory.
pub fn summary(node: &str, pods: &[Value], used: &Used, now: Wall) -> Value {
    let now = now.to_time();
    let stats = |(cpu, memory): (u64, u64)| {
        (json!({"time": now, "usageNanoCores": cpu * 1_000_000}), json!({"time": now, "workingSetBytes": memory}))
    };
    let of_pod = |pod: &Value| {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let own: Vec<&Usage> = used.containers.iter().filter(|usage| usage.pod_uid == uid).collect();
        let containers = own.iter().map(|usage| {
            let (cpu, memory) = stats((usage.cpu_milli, usage.memory_bytes));
            json!({"name": usage.container, "cpu": cpu, "memory": memory})
        });
        let (cpu, memory) = stats((own.iter().map(|u| u.cpu_milli).sum(), own.iter().map(|u| u.memory_bytes).sum()));
        json!({
            "podRef": {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"], "uid": uid},
            "startTime": pod["status"]["startTime"], "containers": containers.collect::<Vec<_>>(), "cpu": cpu,
            "memory": memory,
        })
    };
    let (cpu, memory) = stats(used.nodes.get(node).copied().unwrap_or_else(|| used.on(node)));
    json!({"node": {"nodeName": node, "cpu": cpu, "memory": memory}, "pods": pods.iter().map(of_pod).collect::<Vec<_>>()})
}

/// What a Summary says that a node uses; `None` if it is none.
pub fn of_summary(node: &str, summary: &Value) -> Option<Used> {
    let stats = |of: &Value| {
        let cpu = of["cpu"]["usageNanoCores"].as_u64()?;
        Some((cpu / 1_000_000, of["memory"]["workingSetBytes"].as_u64()?))
    };
    let mut used = Used::default();
    used.nodes.insert(node.to_owned(), stats(&summary["node"])?);
    for pod in summary["pods"].as_array()? {
        for container in pod["containers"].as_array().into_iter().flatten() {
            let (cpu_milli, memory_bytes) = stats(container)?;
            let (pod_uid, container) =
                (pod["podRef"]["uid"].as_str()?.to_owned(), container["name"].as_str()?.to_owned());
            used.containers.push(Usage { node: node.to_owned(), pod_uid, container, cpu_milli, memory_bytes });
        }
    }
    Some(used)
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
pub fn of_pods(pods: &[Value], used: &Used, now: Wall) -> Vec<Value> {
    let mut by_pod: BTreeMap<&str, Vec<&Usage>> = BTreeMap::new();
    for usage in &used.containers {
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

/// The metrics of those of these nodes that are known.
pub fn of_nodes(nodes: &[Value], used: &Used, now: Wall) -> Vec<Value> {
    let mut by_node: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for usage in &used.containers {
        let (cpu, memory) = by_node.entry(&usage.node).or_insert(NODE_ITSELF);
        (*cpu, *memory) = (*cpu + usage.cpu_milli, *memory + usage.memory_bytes);
    }
    by_node.extend(used.nodes.iter().map(|(node, measured)| (node.as_str(), *measured)));
    let of = |node: &Value| {
        let name = node["metadata"]["name"].as_str().filter(|name| !used.unknown.contains(*name))?;
        let (cpu, memory) = by_node.get(name).copied().unwrap_or(NODE_ITSELF);
        let mut metrics = metrics("NodeMetrics", node, now);
        metrics["usage"] = usage(cpu, memory);
        Some(metrics)
    };
    nodes.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::{Usage, Used, of_nodes, of_pods, of_summary, resources, summary};
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
        let containers = vec![used("u", "a", 50), used("u", "b", 25), used("other", "c", 1)];
        let all = Used { containers, unknown: ["away".to_owned()].into(), ..Used::default() };
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
        let nodes = of_nodes(&["n", "away", "idle"].map(|name| json!({"metadata": {"name": name}})), &all, Wall(0));
        assert_eq!(nodes[0]["usage"], json!({"cpu": "176000000n", "memory": "527360Ki"}));
        assert_eq!(nodes[1]["usage"], json!({"cpu": "100000000n", "memory": "524288Ki"}));
        assert_eq!(nodes.len(), 2, "of a node that could not be asked nothing is said");
        let measured = Used { nodes: [("n".to_owned(), (7, 8 << 10))].into(), ..all };
        let node = &of_nodes(&[json!({"metadata": {"name": "n"}})], &measured, Wall(0))[0];
        assert_eq!(node["usage"], json!({"cpu": "7000000n", "memory": "8Ki"}));
        assert_eq!(resources()[1].cells(&pods[0], Time(Wall(0)))[1], "50000000n");
    }

    #[test]
    fn what_a_summary_says_is_what_it_was_made_of() {
        let usage = |pod: &str, cpu_milli: u64| Usage {
            node: "n".to_owned(),
            pod_uid: pod.to_owned(),
            container: "c".to_owned(),
            cpu_milli,
            memory_bytes: 5 << 20,
        };
        let pods = ["u", "v"].map(|uid| json!({"metadata": {"name": uid, "namespace": "d", "uid": uid}}));
        let used = Used {
            containers: vec![usage("u", 3), usage("v", 4)],
            nodes: [("n".to_owned(), (250, 1 << 30))].into(),
            ..Used::default()
        };
        assert_eq!(of_summary("n", &summary("n", &pods, &used, Wall(0))), Some(used));
        for bad in [json!(null), json!({}), json!({"node": {"cpu": {}, "memory": {}}, "pods": []}), json!([1])] {
            assert_eq!(of_summary("n", &bad), None, "{bad}");
        }
    }
}
