//! Tests that a pod gets every field of its template.

use k8s_openapi::api::core::v1::PodSpec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::tests::NOW;
use super::{Controller, ReplicaSetController};
use crate::client::Views;
use crate::controllers::Write;
use crate::object::{Kind, Object, decode};

/// A pod spec with a value in every field. If Kubernetes adds fields, this no longer compiles until they are added.
fn every_field() -> PodSpec {
    fn from<T: serde::de::DeserializeOwned>(v: Value) -> Option<T> {
        Some(serde_json::from_value(v).unwrap())
    }
    let text = |s: &str| Some(s.to_owned());
    PodSpec {
        active_deadline_seconds: Some(600),
        affinity: from(json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname"}]}})),
        automount_service_account_token: Some(false),
        containers: from(json!([{"name": "c", "image": "i:1", "ports": [{"containerPort": 80, "hostPort": 8080}]}]))
            .unwrap(),
        dns_config: from(json!({"nameservers": ["1.2.3.4"]})),
        dns_policy: text("None"),
        enable_service_links: Some(false),
        ephemeral_containers: from(json!([{"name": "e", "image": "i:1"}])),
        host_aliases: from(json!([{"ip": "1.2.3.4", "hostnames": ["h"]}])),
        host_ipc: Some(true),
        host_network: Some(true),
        host_pid: Some(true),
        host_users: Some(true),
        hostname: text("h"),
        hostname_override: text("o"),
        image_pull_secrets: from(json!([{"name": "s"}])),
        init_containers: from(json!([{"name": "n", "image": "i:1", "restartPolicy": "Always"}])),
        node_name: text("node-0"),
        node_selector: from(json!({"disk": "ssd"})),
        os: from(json!({"name": "linux"})),
        overhead: from(json!({"cpu": "250m"})),
        preemption_policy: text("Never"),
        priority: Some(7),
        priority_class_name: text("high"),
        readiness_gates: from(json!([{"conditionType": "x.y/z"}])),
        resource_claims: from(json!([{"name": "gpu", "resourceClaimName": "g"}])),
        resources: from(json!({"requests": {"cpu": "1"}})),
        restart_policy: text("Always"),
        runtime_class_name: text("kata"),
        scheduler_name: text("mine"),
        scheduling_gates: from(json!([{"name": "x.y/z"}])),
        scheduling_group: from(json!({"podGroupName": "g"})),
        security_context: from(json!({"runAsUser": 7})),
        service_account: text("robot"),
        service_account_name: text("robot"),
        set_hostname_as_fqdn: Some(true),
        share_process_namespace: Some(true),
        subdomain: text("sub"),
        termination_grace_period_seconds: Some(5),
        tolerations: from(json!([{"operator": "Exists"}])),
        topology_spread_constraints: from(json!([
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}])),
        volumes: from(json!([{"name": "v", "emptyDir": {}}])),
    }
}

/// The pod that a controller creates from a template.
fn pod_of(kind: Kind, template: &Value) -> Value {
    let (api_version, controller) = if kind == Kind::REPLICA_SET {
        ("apps/v1", ReplicaSetController::replica_sets as fn() -> ReplicaSetController)
    } else {
        ("v1", ReplicaSetController::replication_controllers as fn() -> ReplicaSetController)
    };
    let selector = if kind == Kind::REPLICA_SET { json!({"matchLabels": {"a": "b"}}) } else { json!({"a": "b"}) };
    let set = json!({"apiVersion": api_version, "kind": kind.row().kind,
        "metadata": {"name": "s", "namespace": "d", "uid": "u"},
        "spec": {"replicas": 1, "selector": selector, "template": template}});
    let set = decode::strict(set).unwrap();
    let views = Views::of(&[kind, Kind::POD], [set.clone()]);
    let plan = controller().reconcile(&views, &set.key(), NOW);
    let pod = plan.writes.iter().find_map(|w| match w {
        Write::Create(pod @ Object::Pod(_)) => Some(pod.to_json()),
        _ => None,
    });
    pod.expect("a pod is made")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A pod has exactly the fields of its template.
    #[test]
    fn a_pod_has_what_its_template_has(
        kept in proptest::collection::vec(any::<bool>(), 64),
        replica_set in any::<bool>(),
        finalizer in any::<bool>(),
    ) {
        let Value::Object(all) = serde_json::to_value(every_field()).unwrap() else { unreachable!() };
        prop_assert!(all.len() <= kept.len());
        let spec: Map<String, Value> = all
            .into_iter()
            .zip(&kept)
            .filter_map(|((field, value), kept)| (*kept || field == "containers").then_some((field, value)))
            .collect();
        let mut meta = json!({"labels": {"a": "b"}, "annotations": {"c": "d"}});
        if finalizer {
            meta["finalizers"] = json!(["x.y/z"]);
        }
        let kind = if replica_set { Kind::REPLICA_SET } else { Kind::REPLICATION_CONTROLLER };
        let pod = pod_of(kind, &json!({"metadata": meta, "spec": spec}));
        prop_assert_eq!(&pod["spec"], &Value::Object(spec));
        for field in ["labels", "annotations", "finalizers"] {
            prop_assert_eq!(&pod["metadata"][field], &meta[field]);
        }
    }
}

#[test]
fn every_field_of_a_template_reaches_its_pod() {
    let spec = serde_json::to_value(every_field()).unwrap();
    for kind in [Kind::REPLICA_SET, Kind::REPLICATION_CONTROLLER] {
        assert_eq!(pod_of(kind, &json!({"metadata": {"labels": {"a": "b"}}, "spec": spec}))["spec"], spec);
    }
}
