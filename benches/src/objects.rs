//! Nodes and pods for benchmarks.

use serde_json::json;
use skeg_core::Object;
use skeg_core::object::{BoundPodSpec, Node, Obj, ObjectMeta, Pod, Revision, SharedPodSpec};

/// A ready node with 4 CPUs, 32Gi and room for 110 pods, in one of three zones.
pub fn node(i: usize) -> Node {
    let resources = json!({"cpu": "4", "memory": "32Gi", "pods": "110"});
    let name = format!("node-{i}");
    let zone = format!("zone-{}", ["a", "b", "c"][i % 3]);
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone});
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": format!("n{i}"), "labels": labels},
        "status": {"capacity": resources, "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True"}]}});
    match Object::from_json(node) {
        Ok(Object::Node(node)) => node,
        other => panic!("a node is a node: {other:?}"),
    }
}

/// The spec that pods of one template share.
pub struct Template(SharedPodSpec);

impl Template {
    /// Pods that request 100m and 500Mi.
    pub fn new() -> Template {
        let spec = json!({
            "schedulerName": "default-scheduler", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "containers": [{"name": "main", "image": "registry.k8s.io/pause:3.9",
                "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]});
        let spec: k8s_openapi::api::core::v1::PodSpec = serde_json::from_value(spec).expect("a pod spec is a pod spec");
        Template(spec.into())
    }

    /// The `i`-th pod, not bound to a node.
    pub fn pod(&self, i: usize, rv: u64) -> Pod {
        let meta = ObjectMeta {
            name: Some(format!("pod-{i}")),
            namespace: Some("bench".to_owned()),
            uid: Some(format!("p{i}")),
            labels: Some([("app".to_owned(), "bench".to_owned())].into()),
            ..ObjectMeta::default()
        };
        let spec = BoundPodSpec { shared: self.0.clone(), node: None };
        let mut pod = Obj::new(meta, spec, Default::default());
        pod.rv = Revision(rv);
        pod
    }
}
