//! Nodes and pods for benchmarks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};
use skeg_core::Object;
use skeg_core::object::{BoundPodSpec, Labels, Node, Obj, ObjectMeta, Pod, Revision, SharedPodSpec};

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

/// What pods of one template share.
pub struct Template {
    spec: SharedPodSpec,
    namespace: &'static str,
    labels: Labels,
    owner: Option<OwnerReference>,
}

impl Template {
    /// Pods that request 100m and 500Mi.
    pub fn new() -> Template {
        Template::with(json!({}))
    }

    /// The same, with more in their spec.
    pub fn with(more: Value) -> Template {
        let mut spec = json!({
            "schedulerName": "default-scheduler", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "containers": [{"name": "main", "image": "registry.k8s.io/pause:3.9",
                "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]});
        for (field, value) in more.as_object().expect("a pod spec is an object") {
            spec[field] = value.clone();
        }
        let spec: k8s_openapi::api::core::v1::PodSpec = serde_json::from_value(spec).expect("a pod spec is a pod spec");
        Template {
            spec: spec.into(),
            namespace: "bench",
            labels: [("app".to_owned(), "bench".to_owned())].into(),
            owner: None,
        }
    }

    /// With another label.
    pub fn labelled(mut self, key: &str, value: &str) -> Template {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// In another namespace.
    pub fn in_namespace(mut self, namespace: &'static str) -> Template {
        self.namespace = namespace;
        self
    }

    /// Of a ReplicaSet.
    pub fn owned_by(mut self, set: &str) -> Template {
        self.owner = Some(OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: set.to_owned(),
            controller: Some(true),
            ..OwnerReference::default()
        });
        self
    }

    /// The `i`-th pod, not bound to a node.
    pub fn pod(&self, i: usize, rv: u64) -> Pod {
        let meta = ObjectMeta {
            name: Some(format!("pod-{i}")),
            namespace: Some(self.namespace.to_owned()),
            uid: Some(format!("p{i}")),
            labels: Some(self.labels.clone()),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let spec = BoundPodSpec { shared: self.spec.clone(), node: None };
        let mut pod = Obj::new(meta, spec, Default::default());
        pod.rv = Revision(rv);
        pod
    }
}
