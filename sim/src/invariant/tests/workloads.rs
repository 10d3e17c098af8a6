//! Violations of what must hold of workloads, their limits, and what is left of them.

use serde_json::{Value, json};
use skeg_core::api::{Call, DeleteOptions, Response, Subresource};
use skeg_core::object::{Kind, Object, Text};
use skeg_core::store::{Op, StoreKey};

use super::{key, object, status, web_pod};
use crate::invariant::Invariant;
use crate::world::World;

/// A Job with this status, which nobody looks after.
fn put_job(world: &mut World, mut spec: Value, status: Value) {
    world.stop("controller-manager");
    spec["suspend"] = json!(true);
    spec["template"] = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    world.put(object(json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "once", "namespace": "default", "uid": "once"}, "spec": spec, "status": status})));
}

/// A Job that has failed for this reason.
fn put_failed_job(world: &mut World, spec: Value, reason: &str) {
    let failed = json!([{"type": "Failed", "status": "True", "reason": reason}]);
    put_job(world, spec, json!({"conditions": failed, "startTime": "2026-01-01T00:00:55Z"}));
}

/// The same Deployment in another state, which nobody corrects.
fn change_deployment(world: &mut World, change: impl FnOnce(&mut skeg_core::object::Deployment)) {
    world.stop("controller-manager");
    world.tamper(&key(Kind::DEPLOYMENT, "web"), |deployment| {
        let Object::Deployment(deployment) = deployment else { panic!("a Deployment") };
        change(deployment);
    });
}

/// Each invariant with an action that violates it.
pub(super) const PLANTED: &[(Invariant, fn(&mut World))] = &[
    (Invariant::JobsFailRightly, |w| put_job(w, json!({}), json!({"failed": 1}))),
    (Invariant::JobsFailRightly, |w| put_failed_job(w, json!({"backoffLimit": 0}), "BackoffLimitExceeded")),
    (Invariant::JobsFailRightly, |w| put_failed_job(w, json!({"activeDeadlineSeconds": 60}), "DeadlineExceeded")),
    (Invariant::JobsFailRightly, |w| put_failed_job(w, json!({}), "FailedIndexes")),
    (Invariant::JobsFailRightly, |w| {
        let suspended = json!([{"type": "Suspended", "status": "True"}]);
        put_job(w, json!({}), json!({"conditions": suspended, "startTime": "2026-01-01T00:00:55Z"}));
    }),
    // A pod of a Job that has finished long ago.
    (Invariant::JobsFailRightly, |w| {
        put_failed_job(w, json!({}), "PodFailurePolicy");
        w.run_to(200);
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "once", "uid": "once", "controller": true});
        w.put(object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "once-1", "namespace": "default",
            "uid": "once-1", "ownerReferences": [owner]},
            "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]}})));
    }),
    (Invariant::LimitsAreKept, |w| {
        let item = json!({"type": "Container", "default": {"memory": "64Mi"}});
        w.put(object(json!({"apiVersion": "v1", "kind": "LimitRange",
            "metadata": {"name": "limits", "namespace": "default"}, "spec": {"limits": [item]}})));
        w.run_to(200);
        w.put(super::twin(&web_pod(w), "without-limits"));
    }),
    (Invariant::ForegroundWaits, |w| {
        w.stop("controller-manager");
        let set = object_of(w, Kind::REPLICA_SET);
        w.tamper(&set.key(), |set| {
            set.meta_mut().finalizers = Some(vec!["foregroundDeletion".to_owned()]);
            set.meta_mut().deletion_timestamp = set.meta().creation_timestamp.clone();
        });
        w.run_to(90);
        w.write(Op::Delete { key: StoreKey::Object(set.key()) }, false);
    }),
    (Invariant::OrphansAtRest, |w| {
        w.stop("controller-manager");
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "gone", "uid": "gone",
            "controller": true});
        w.tamper(&key(Kind::POD, "waiting"), |pod| {
            pod.meta_mut().owner_references = serde_json::from_value(json!([owner])).expect("a reference");
        });
    }),
    (Invariant::ConditionsAtRest, |w| {
        change_deployment(w, |deployment| {
            let conditions = deployment.status_mut().conditions.iter_mut().flatten();
            conditions.filter(|c| c.type_ == "Progressing").for_each(|c| c.status = "False".to_owned());
        });
    }),
    (Invariant::ConditionsAtRest, |w| {
        change_deployment(w, |deployment| {
            let annotations = deployment.meta_mut().annotations.get_or_insert_default();
            annotations.insert("deployment.kubernetes.io/revision".to_owned(), "7".to_owned());
        });
    }),
    // Its spec changes, and not its generation.
    (Invariant::GenerationCounts, |w| {
        change_deployment(w, |deployment| deployment.spec_mut().min_ready_seconds = Some(1))
    }),
    (Invariant::StatusesAddUp, |w| {
        let pod = web_pod(w).key();
        w.tamper(&pod, |pod| status(pod).container_statuses[0].restart_count = 3);
        w.tamper(&pod, |pod| status(pod).container_statuses[0].restart_count = 2);
    }),
    (Invariant::StatusesAddUp, |w| {
        let pod = web_pod(w).key();
        w.run_to(70);
        w.tamper(&pod, |pod| {
            let scheduled = status(pod).conditions.iter_mut().find(|c| c.type_ == Text::POD_SCHEDULED);
            scheduled.expect("it is").last_transition_time = Default::default();
        });
    }),
    (Invariant::StatusesAddUp, |w| {
        let pod = web_pod(w).key();
        w.tamper(&pod, |pod| {
            let ready = status(pod).conditions.iter_mut().find(|c| c.type_ == Text::CONTAINERS_READY);
            ready.expect("they are ready").status = Text::FALSE;
        });
    }),
    (Invariant::VictimsAreNeeded, |w| {
        w.stop("scheduler");
        let spec = json!({"schedulerName": "nobody", "priority": 9, "containers": [{"name": "c", "image": "i"}]});
        w.put(object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "urgent", "namespace": "default", "uid": "urgent"}, "spec": spec})));
        let waiting = w.store.object(&key(Kind::POD, "waiting")).expect("it is there").clone();
        for name in ["one", "two", "three", "four"] {
            let victim = super::twin(&waiting, name);
            w.put(victim.clone());
            super::ask_to_delete(w, "system:kube-scheduler", &victim.key());
        }
    }),
    // Somebody else has changed it, and its update is said to have succeeded.
    (Invariant::UpdatesKeepOthers, |w| {
        let mut quota = w.store.object(&key(Kind::RESOURCE_QUOTA, "quota")).expect("it is there").clone();
        let update =
            Call::Update { object: quota.clone(), subresource: Subresource::None, options: Default::default() };
        w.tamper(&quota.key(), |quota| quota.meta_mut().labels = Some([("a".to_owned(), "b".to_owned())].into()));
        w.tamper(&quota.key(), |quota| quota.meta_mut().labels = None);
        quota = w.store.object(&quota.key()).expect("it is there").clone();
        let user = w.process("user");
        w.ask(user, "somebody", update);
        w.answer_first(user, Response::Object(quota));
    }),
    (Invariant::ClaimsAtRest, |w| {
        w.stop("controller-manager");
        w.put(object(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "default", "uid": "new"}, "spec": {"volumeName": "v"},
            "status": {"phase": "Bound"}})));
        w.put(object(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
            "spec": {"claimRef": {"namespace": "default", "name": "c", "uid": "old"}},
            "status": {"phase": "Bound"}})));
    }),
    // Room is made, and nobody places the pod that waits for it.
    (Invariant::DoneInTime, |w| {
        w.stop("scheduler");
        w.stop("controller-manager");
        let waits = json!({"containers": [{"name": "c", "image": "i"}]});
        w.put(object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "waits", "namespace": "default", "uid": "waits"}, "spec": waits})));
        let goes = StoreKey::Object(web_pod(w).key());
        w.write(Op::Delete { key: goes }, false);
        w.run_to(105);
        w.put(object(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "m", "namespace": "default"}})));
    }),
    // Whoever deletes it says five seconds, and it gets thirty.
    (Invariant::GraceIsKept, |w| {
        let pod = web_pod(w);
        let options = DeleteOptions { grace_seconds: Some(5), dry_run: true, ..DeleteOptions::default() };
        let call = Call::Delete { key: pod.key(), options };
        w.ask(w.process("user"), "somebody", call);
        w.run_to(61);
        super::begin_to_delete(w, &pod);
    }),
    (Invariant::CountsAtRest, |w| {
        w.stop("controller-manager");
        w.put(object(json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "each", "namespace": "default", "uid": "each"},
            "spec": {"selector": {"matchLabels": {"app": "each"}}, "template": {
                "metadata": {"labels": {"app": "each"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
            "status": {"desiredNumberScheduled": 2, "currentNumberScheduled": 0, "numberMisscheduled": 0,
                "numberReady": 0}})));
    }),
];

fn object_of(world: &World, kind: Kind) -> Object {
    crate::converge::objects(&world.store, kind).next().expect("there is one").clone()
}
