//! Tests a StatefulSet step by step: every plan is carried out on the view, and the test makes pods ready or removes
//! them.

use serde_json::{Value, json};

use super::{StatefulSetController, identity};
use crate::controllers::workload_world::{NOTHING, World, name};
use crate::object::{Kind, ObjectKey};

fn set(spec: Value) -> World {
    let mut all = json!({"replicas": 3, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
        "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}});
    json_patch::merge(&mut all, &spec);
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "d", "uid": "u", "generation": 1}, "spec": all});
    World::new(StatefulSetController, set, name)
}

fn image(world: &World, pod: &str) -> Value {
    world.pod(pod)["spec"]["containers"][0]["image"].clone()
}

/// A running set with three replicas.
fn running(spec: Value) -> World {
    let mut world = set(spec);
    for pod in ["web-0", "web-1", "web-2"] {
        world.settle();
        if world.get(Kind::POD, pod).is_some() {
            world.ready(pod);
        }
    }
    world.settle();
    world
}

#[test]
fn an_ordered_set_goes_up_one_by_one_and_down_from_the_end() {
    let mut world = set(json!({}));
    assert_eq!(world.settle(), ["+web-0"]);
    let pod = world.pod("web-0");
    assert_eq!(pod["spec"]["hostname"], "web-0");
    assert_eq!(pod["spec"]["subdomain"], "web");
    assert_eq!(pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"], "web-0");
    assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "0");
    world.ready("web-0");
    assert_eq!(world.settle(), ["+web-1"]);
    world.ready("web-1");
    assert_eq!(world.settle(), ["+web-2"]);
    world.ready("web-2");
    world.settle();
    assert_eq!((world.status("readyReplicas"), world.status("availableReplicas")), (json!(3), json!(3)));
    world.edit_spec(json!({"replicas": 1}));
    assert_eq!(world.settle(), ["-web-2"]);
    world.gone("web-2");
    assert_eq!(world.settle(), ["-web-1"]);
}

#[test]
fn an_ordered_set_waits_for_an_earlier_pod() {
    let mut world = running(json!({}));
    world.edit_pod("web-0", |v| v["status"]["conditions"][0]["status"] = json!("False"));
    world.edit_spec(json!({"replicas": 2}));
    // While the first pod is not ready, the last one is neither deleted nor would another one be created.
    assert_eq!(world.settle(), NOTHING);
    world.ready("web-0");
    assert_eq!(world.settle(), ["-web-2"]);
}

#[test]
fn a_parallel_set_goes_up_and_down_at_once() {
    let mut world = set(json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}));
    assert_eq!(world.settle(), ["+web-5", "+web-6", "+web-7"]);
    world.edit_spec(json!({"replicas": 0}));
    assert_eq!(world.settle(), ["-web-7", "-web-6", "-web-5"]);
}

#[test]
fn a_failed_pod_is_made_again_under_its_name_once_it_is_gone() {
    let mut world = running(json!({}));
    world.edit_pod("web-1", |v| v["status"]["phase"] = json!("Failed"));
    assert_eq!(world.settle(), ["-web-1"]);
    world.gone("web-1");
    assert_eq!(world.settle(), ["+web-1"]);
}

#[test]
fn an_update_rolls_from_the_end_and_stops_at_the_partition() {
    let mut world = running(json!({}));
    world.edit_spec(json!({"updateStrategy": {"rollingUpdate": {"partition": 1}},
        "template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}));
    for pod in ["web-2", "web-1"] {
        assert_eq!(world.settle(), [format!("-{pod}")]);
        world.gone(pod);
        assert_eq!(world.settle(), [format!("+{pod}")]);
        assert_eq!(image(&world, pod), "i:2");
        world.ready(pod);
    }
    assert_eq!(world.settle(), NOTHING);
    assert_eq!((world.status("updatedReplicas"), world.status("currentReplicas")), (json!(2), json!(1)));
    // Below the partition, a lost pod is created again at the current revision; from the partition on, at the update
    // revision.
    world.gone("web-0");
    assert_eq!(world.settle(), ["+web-0"]);
    assert_eq!(image(&world, "web-0"), "i:1");
    world.ready("web-0");
    world.edit_spec(json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}));
    assert_eq!(world.settle(), ["-web-0"]);
    world.gone("web-0");
    world.settle();
    world.ready("web-0");
    world.settle();
    assert_eq!(world.status("currentRevision"), world.status("updateRevision"));
}

#[test]
fn a_pod_lost_in_a_rollout_returns_at_the_update_revision() {
    let mut world = running(json!({}));
    world.edit_spec(json!({"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}));
    assert_eq!(world.settle(), ["-web-2"]);
    world.gone("web-2");
    world.gone("web-0");
    assert_eq!(world.settle(), ["+web-0"]);
    assert_eq!(image(&world, "web-0"), "i:2");
}

#[test]
fn as_many_are_updated_at_once_as_may_be_unavailable() {
    let mut world =
        running(json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}, "podManagementPolicy": "Parallel"}));
    for pod in ["web-0", "web-1", "web-2"] {
        world.ready(pod);
    }
    world.settle();
    world.edit_spec(json!({"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}));
    assert_eq!(world.settle(), ["-web-2", "-web-1"]);
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut world = running(json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    world.edit_spec(json!({"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}));
    assert_eq!(world.settle(), NOTHING);
    world.gone("web-1");
    assert_eq!(world.settle(), ["+web-1"]);
    assert_eq!(image(&world, "web-1"), "i:2");
}

#[test]
fn going_back_numbers_the_old_revision_anew_and_history_is_kept_short() {
    let mut world = running(json!({"revisionHistoryLimit": 1}));
    let first = world.status("updateRevision");
    for image in ["i:2", "i:3", "i:4"] {
        world.edit_spec(json!({"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}));
        world.settle();
    }
    // The first revision is in use by pods. Of the other three, one is the update revision and one is kept as history.
    assert_eq!(world.views.view(Kind::CONTROLLER_REVISION).len(), 3);
    world.edit_spec(json!({"template": {"spec": {"containers": [{"name": "c", "image": "i:1"}]}}}));
    world.settle();
    assert_eq!(world.status("updateRevision"), first);
    let revision = world.get(Kind::CONTROLLER_REVISION, first.as_str().unwrap()).unwrap().to_json();
    assert_eq!(revision["revision"], 5);
}

#[test]
fn claims_come_before_their_pod_and_go_as_the_policy_says() {
    let template = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}]);
    let mut world = set(json!({"replicas": 2, "volumeClaimTemplates": template,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}}));
    assert_eq!(world.settle(), ["+data-web-0", "+web-0"]);
    let volumes = world.pod("web-0")["spec"]["volumes"].clone();
    assert_eq!(volumes, json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}]));
    world.ready("web-0");
    assert_eq!(world.settle(), ["+data-web-1", "+web-1"]);
    world.ready("web-1");
    world.settle();
    let owner = |world: &World, claim: &str| {
        world.get(Kind::PERSISTENT_VOLUME_CLAIM, claim).unwrap().to_json()["metadata"]["ownerReferences"][0]["kind"]
            .clone()
    };
    assert_eq!(owner(&world, "data-web-1"), "StatefulSet");
    world.edit_spec(json!({"replicas": 1}));
    assert_eq!(world.settle(), ["-web-1"]);
    assert_eq!((owner(&world, "data-web-1"), owner(&world, "data-web-0")), (json!("Pod"), json!("StatefulSet")));
    // A pod must not be created while its claim is being deleted, nor while that is only bound to happen.
    world.gone("web-1");
    world.edit_spec(json!({"replicas": 2}));
    assert_eq!(world.settle(), NOTHING);
    world.edit(&ObjectKey::new(Kind::PERSISTENT_VOLUME_CLAIM, "d", "data-web-1"), |v| {
        v["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:01:30Z");
        v["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
    });
    assert_eq!(world.settle(), NOTHING);
}

#[test]
fn a_member_waits_until_a_claim_of_the_set_before_is_gone() {
    let template = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}]);
    let mut world = set(json!({"replicas": 2, "volumeClaimTemplates": template,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}}));
    world.settle();
    world.ready("web-0");
    world.settle();
    let claim = ObjectKey::new(Kind::PERSISTENT_VOLUME_CLAIM, "d", "data-web-1");
    world.edit(&claim, |v| {
        let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "of before"});
        v["metadata"]["ownerReferences"] = json!([owner]);
    });
    world.gone("web-1");
    assert_eq!(world.settle(), NOTHING, "the garbage collector is about to delete it");
    world.edit(&claim, |v| v["metadata"]["ownerReferences"] = json!(null));
    assert_eq!(world.settle(), ["+web-1"]);
}

#[test]
fn a_member_is_known_by_its_name() {
    for (name, ordinal) in
        [("web-0", Some(0)), ("web-12", Some(12)), ("web-01", None), ("web-", None), ("web-a-1", None), ("we-1", None)]
    {
        assert_eq!(identity::ordinal_of("web", name), ordinal, "{name}");
    }
}

#[test]
fn availability_waits_for_min_ready_seconds() {
    let mut world = set(json!({"minReadySeconds": 60}));
    world.settle();
    world.ready("web-0");
    assert_eq!(world.settle(), NOTHING);
    // The pod is ready since 00:01:00 and it is 00:01:40: twenty seconds are left, plus one because times are rounded.
    assert_eq!(world.plan().requeue_after, Some(std::time::Duration::from_secs(21)));
    assert_eq!(world.status("availableReplicas"), 0);
}
