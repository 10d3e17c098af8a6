//! The scheduler machine alone.

use std::time::Instant;

use serde_json::json;
use skeg_core::machine::{Mono, Now, Wall};
use skeg_core::object::{BoundPodSpec, Node, Object, ObjectMeta, Pod};
use skeg_core::scheduler::{Decision, Scheduler};
use skeg_core::Rng;

const NODES: usize = 5_000;
const PODS: usize = 50_000;

fn node(i: usize) -> Node {
    let name = format!("node-{i:05}");
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", i % 3)});
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}}});
    match Object::from_json(object) {
        Ok(Object::Node(node)) => node,
        other => panic!("a node is a node: {other:?}"),
    }
}

/// Pods of one template, each with its own name and UID.
fn pods() -> Vec<Pod> {
    let spec = json!({"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]});
    let spec = BoundPodSpec::new(serde_json::from_value(spec).expect("a pod's spec is one"));
    let name = |i: usize| ObjectMeta {
        name: Some(format!("pod-{i:06}")),
        namespace: Some("default".to_owned()),
        uid: Some(format!("00000000-0000-4000-8000-{i:012}")),
        ..ObjectMeta::default()
    };
    (0..PODS).map(|i| Pod::new(name(i), spec.clone(), Default::default())).collect()
}

/// `schedule/basic-5000`: 50,000 pods of 100m and 500Mi on 5,000 nodes of 4 CPU, 32 Gi and 110 pods. Each pod is
/// added, decided, and shown bound; the result is pods per second.
#[allow(clippy::disallowed_types, clippy::disallowed_methods)]
pub fn basic_5000() -> f64 {
    let now = Now { mono: Mono(1), wall: Wall(1) };
    let mut scheduler = Scheduler::new("default-scheduler".into(), Rng::from_seed(1));
    let nodes: Vec<Node> = (0..NODES).map(node).collect();
    let pods = pods();
    nodes.iter().for_each(|node| scheduler.node_changed(now, node));
    let start = Instant::now();
    pods.iter().for_each(|pod| scheduler.pod_changed(now, pod));
    let mut bound = 0;
    while let Some(decision) = scheduler.next(now) {
        let Decision::Bind { node, .. } = decision else { panic!("there is room for every pod: {decision:?}") };
        // Decided in order of arrival: priority is equal.
        let mut pod = pods[bound].clone();
        pod.spec_mut().node = Some(node);
        scheduler.pod_changed(now, &pod);
        bound += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!((bound, scheduler.assumed()), (PODS, 0), "every pod is bound");
    PODS as f64 / seconds
}

#[cfg(test)]
mod tests {
    /// Prints the figure: `cargo test --release -p skeg-benches -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    #[allow(clippy::print_stdout)]
    fn basic_5000() {
        for _ in 0..3 {
            println!("schedule/basic-5000 {:.0} pods/s", super::basic_5000());
        }
    }
}
