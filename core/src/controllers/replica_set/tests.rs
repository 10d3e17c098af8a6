use serde_json::{Value, json};

use super::ReplicaSetController;
use crate::client::Views;
use crate::controllers::{Controller, Plan, Write};
use crate::machine::{Mono, Now, Wall};
use crate::object::{Kind, Object};

pub(super) const NOW: Now = Now { mono: Mono(0), wall: Wall(1_704_067_200_000_000 + 100_000_000) };

fn set(replicas: i32) -> Object {
    Object::from_json(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "d", "uid": "u", "generation": 1, "resourceVersion": "5"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                         "spec": {"containers": [{"name": "c", "image": "i"}]}}}}))
    .unwrap()
}

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Object {
    let mut value = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}"), "labels": {"app": "web"},
            "creationTimestamp": "2024-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u",
                                 "controller": true}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:01:00Z"}]}});
    change(&mut value);
    Object::from_json(value).unwrap()
}

fn plan(set: Object, pods: Vec<Object>) -> Plan {
    let key = set.key();
    let views = Views::of(&[Kind::REPLICA_SET, Kind::POD], pods.into_iter().chain([set]));
    ReplicaSetController::replica_sets().reconcile(&views, &key, NOW)
}

fn deleted(plan: &Plan) -> Vec<&str> {
    let each = plan.writes.iter().filter_map(|w| match w {
        Write::Delete { key, .. } => Some(key.name()),
        _ => None,
    });
    each.collect()
}

fn created(plan: &Plan) -> usize {
    plan.writes.iter().filter(|w| matches!(w, Write::Create(_))).count()
}

#[test]
fn missing_pods_are_made_and_share_one_spec() {
    let plan = plan(set(3), vec![pod("a", |_| {})]);
    assert_eq!((created(&plan), deleted(&plan).len()), (2, 0));
    let specs: Vec<_> = plan
        .writes
        .iter()
        .filter_map(|w| match w {
            Write::Create(Object::Pod(p)) => Some((p.meta.generate_name.clone(), std::ptr::from_ref(&*p.spec.shared))),
            _ => None,
        })
        .collect();
    assert_eq!(specs[0], specs[1]);
    assert_eq!(specs[0].0.as_deref(), Some("web-"));
}

#[test]
fn terminal_and_deleting_pods_do_not_count() {
    let pods = vec![
        pod("a", |v| v["status"]["phase"] = json!("Failed")),
        pod("b", |v| v["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z")),
        pod("c", |_| {}),
    ];
    assert_eq!(created(&plan(set(2), pods)), 1);
}

#[test]
fn surplus_pods_go_in_kubernetes_order() {
    let not_ready = |v: &mut Value| v["status"]["conditions"][0]["status"] = json!("False");
    for (pods, expect) in [
        (vec![pod("a", |_| {}), pod("b", |v| v["spec"]["nodeName"] = json!(""))], "b"),
        (vec![pod("a", |_| {}), pod("b", |v| v["status"]["phase"] = json!("Pending"))], "b"),
        (vec![pod("a", |_| {}), pod("b", not_ready)], "b"),
        (
            vec![
                pod("a", |v| v["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "5"})),
                pod("b", |_| {}),
            ],
            "b",
        ),
        (
            vec![
                pod("a", |_| {}),
                pod("b", |v| {
                    v["status"]["containerStatuses"] = json!([{"name": "c", "image": "i", "imageID": "",
                    "ready": true, "restartCount": 3}])
                }),
            ],
            "b",
        ),
    ] {
        let plan = plan(set(1), pods);
        assert_eq!(deleted(&plan), [expect]);
    }
    let crowded =
        ["a", "b", "c"].map(|n| pod(n, |v| v["spec"]["nodeName"] = json!(if n == "a" { "n1" } else { "n2" })));
    assert_ne!(deleted(&plan(set(2), crowded.to_vec())), ["a"]);
}

#[test]
fn orphans_are_adopted_and_strangers_released() {
    let orphan = pod("o", |v| {
        v["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    });
    let stranger = pod("s", |v| v["metadata"]["labels"] = json!({"app": "other"}));
    let plan = plan(set(2), vec![orphan, stranger]);
    let patched: Vec<&str> = plan
        .writes
        .iter()
        .map(|w| match w {
            Write::Patch { key, .. } => key.name(),
            other => panic!("claims come alone: {other:?}"),
        })
        .collect();
    // The adopting set is checked before the adoption.
    assert_eq!(patched, ["s", "web", "o"]);
}

#[test]
fn availability_waits_for_min_ready_seconds() {
    let mut waiting = set(1);
    let Object::ReplicaSet(rs) = &mut waiting else { unreachable!() };
    rs.spec_mut().min_ready_seconds = Some(60);
    let plan = plan(waiting, vec![pod("a", |_| {})]);
    let Some(Write::Update(Object::ReplicaSet(rs), _)) = plan.writes.first() else { panic!("a status is written") };
    assert_eq!((rs.status.ready_replicas, rs.status.available_replicas), (Some(1), None));
    // Ready since 00:01:00 and now it is 00:01:40: twenty seconds are left, plus one because timestamps are rounded.
    assert_eq!(plan.requeue_after, Some(std::time::Duration::from_secs(21)));
}

#[test]
fn a_failure_shows_as_a_condition_once() {
    let mut controller = ReplicaSetController::replica_sets();
    let key = set(1).key();
    let views = Views::of(&[Kind::REPLICA_SET, Kind::POD], [set(1)]);
    let plan = controller.reconcile(&views, &key, NOW);
    let create = plan.writes.iter().find(|w| matches!(w, Write::Create(_))).unwrap();
    let note =
        controller.failed(&views, &key, create, &crate::api::Status::forbidden(Kind::POD.row(), "", "quota")).unwrap();
    assert_eq!(note.message, "Error creating: pods is forbidden: quota");
    let again = controller.reconcile(&views, &key, NOW);
    let Some(Write::Update(Object::ReplicaSet(rs), _)) = again.writes.first() else { panic!("a status is written") };
    assert_eq!(rs.status.conditions.as_ref().unwrap()[0].reason.as_deref(), Some("FailedCreate"));
}
