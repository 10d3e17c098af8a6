//! Admission, binding and eviction of pods.

use std::rc::Rc;

use serde_json::{Value, json};

use super::{Cluster, cluster, cluster_of, key, pod, refusal};
use crate::api::{Call, DeleteOptions, Patch, Precondition, Reason, Response, Status, Subresource, WriteOptions};
use crate::apiserver::{ApiServer, Config};
use crate::features::FeatureGates;
use crate::object::{Kind, Object, Pod, PodCondition, Text};
use crate::random::Rng;

fn as_pod(object: &Object) -> &Pod {
    object.get().unwrap()
}

#[test]
fn pods_start_pending_and_admitted() {
    let mut c = cluster(1);
    let mut manifest = pod("a");
    manifest["status"] = json!({"phase": "Running"});
    let made = c.create(manifest).unwrap();
    let p = as_pod(&made);
    assert_eq!((&p.status.phase, &p.status.qos_class), (&Text::PENDING, &Text::BEST_EFFORT));
    assert_eq!(p.spec.service_account_name.as_deref(), Some("default"));
    assert_eq!((p.spec.priority, p.spec.preemption_policy.as_deref()), (Some(0), Some("PreemptLowerPriority")));
    let tolerations: Vec<_> =
        p.spec.tolerations.iter().flatten().map(|t| (t.key.as_deref().unwrap(), t.toleration_seconds)).collect();
    assert_eq!(
        tolerations,
        [("node.kubernetes.io/not-ready", Some(300)), ("node.kubernetes.io/unreachable", Some(300))]
    );
}

#[test]
fn pods_of_a_template_share_what_is_prepared() {
    let mut c = cluster(1);
    let template = as_pod(&Object::from_json(pod("t")).unwrap()).spec.shared.clone();
    let mut create = |name: &str| {
        let mut object = Object::from_json(pod(name)).unwrap();
        object.get_mut::<k8s_openapi::api::core::v1::Pod>().unwrap().spec_mut().shared = template.clone();
        match c.call(Call::Create { object, options: WriteOptions::default() }).unwrap() {
            Response::Object(o) => o,
            other => panic!("{other:?}"),
        }
    };
    let (a, b) = (create("a"), create("b"));
    assert!(Rc::ptr_eq(&as_pod(&a).spec, &as_pod(&b).spec));
    assert!(as_pod(&a).status.is_held_as(&as_pod(&b).status));
    assert_ne!(a.uid(), b.uid());

    // A new default class applies although the pod spec was prepared before.
    let class = json!({"apiVersion":"scheduling.k8s.io/v1","kind":"PriorityClass","metadata":{"name":"high"},
        "value":7,"globalDefault":true});
    c.create(class).unwrap();
    let mut object = Object::from_json(pod("c")).unwrap();
    object.get_mut::<k8s_openapi::api::core::v1::Pod>().unwrap().spec_mut().shared = template;
    let Response::Object(made) = c.call(Call::Create { object, options: WriteOptions::default() }).unwrap() else {
        panic!()
    };
    assert_eq!(
        (as_pod(&made).spec.priority, as_pod(&made).spec.priority_class_name.as_deref()),
        (Some(7), Some("high"))
    );
}

#[test]
fn admission_refuses() {
    let mut c = cluster(1);
    let with = |patch: Value| {
        let mut manifest = pod("a");
        json_patch::merge(&mut manifest, &patch);
        manifest
    };
    for (manifest, text) in [
        (
            with(json!({"spec": {"serviceAccountName": "ghost"}})),
            "pods \"a\" is forbidden: error looking up service account default/ghost: serviceaccount \"ghost\" not found",
        ),
        (
            with(json!({"spec": {"priorityClassName": "ghost"}})),
            "pods \"a\" is forbidden: no PriorityClass with name ghost was found",
        ),
        (
            with(json!({"spec": {"priority": 3}})),
            "pods \"a\" is forbidden: the integer value of priority (3) must not be provided in pod spec; priority \
             admission controller computed 0 from the given PriorityClass name",
        ),
    ] {
        assert_eq!(refusal(c.create(manifest)), (Reason::Forbidden, text.to_owned()));
    }
    let made = c.create(with(json!({"spec": {"priorityClassName": "system-node-critical"}}))).unwrap();
    assert_eq!(as_pod(&made).spec.priority, Some(2_000_001_000));
}

#[test]
fn ephemeral_containers_are_added_by_themselves() {
    let mut c = cluster(1);
    let made = c.create(pod("a")).unwrap();
    let with = |object: Object, list: Value| {
        let mut whole = object.to_json();
        whole["spec"]["ephemeralContainers"] = list;
        whole["spec"]["containers"][0]["image"] = json!("other:1");
        whole["metadata"]["labels"] = json!({"more": "yes"});
        Object::from_json(whole).unwrap()
    };
    let debug = with(made.clone(), json!([{"name": "d", "image": "busybox"}]));
    let changed = c.update_at(0, debug, Subresource::EphemeralContainers).unwrap();
    let p = as_pod(&changed);
    let added = &p.spec.ephemeral_containers.as_ref().unwrap()[0];
    assert_eq!(added.termination_message_policy.as_deref(), Some("File"), "it has its defaults");
    assert_eq!(p.spec.containers, as_pod(&made).spec.containers, "nothing else is changed");
    assert_eq!((&p.meta.labels, p.meta.generation), (&as_pod(&made).meta.labels, Some(2)));
    let none = with(changed.clone(), json!([]));
    let refused = refusal(c.update_at(0, none, Subresource::EphemeralContainers));
    let why = "Pod \"a\" is invalid: spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be \
               removed\n";
    assert_eq!(refused, (Reason::Invalid, why.to_owned()));

    // A pod security standard applies to what is added.
    let mut namespace = c.get(&key(Kind::NAMESPACE, "default")).unwrap();
    let level = ("pod-security.kubernetes.io/enforce".to_owned(), "baseline".to_owned());
    namespace.meta_mut().labels = Some([level].into());
    c.update(namespace).unwrap();
    let root = json!([{"name": "d", "image": "busybox"},
        {"name": "e", "image": "busybox", "securityContext": {"privileged": true}}]);
    let (reason, why) = refusal(c.update_at(0, with(changed, root), Subresource::EphemeralContainers));
    assert_eq!(reason, Reason::Forbidden);
    assert!(why.contains("container \"e\" must not set securityContext.privileged=true"), "{why}");
    let deployment = c.create(super::deployment("d", 1)).unwrap();
    assert!(c.update_at(0, deployment, Subresource::EphemeralContainers).is_err(), "only pods have any");
}

#[test]
fn nodes_start_tainted() {
    let mut c = cluster(1);
    let manifest = json!({"apiVersion":"v1","kind":"Node","metadata":{"name":"n"},"status":{"capacity":{"cpu":"4"}}});
    let Object::Node(node) = c.create(manifest).unwrap() else { panic!() };
    let taints: Vec<_> = node.spec.taints.iter().flatten().map(|t| (t.key.as_str(), t.effect.as_str())).collect();
    assert_eq!(taints, [("node.kubernetes.io/not-ready", "NoSchedule")]);
    assert!(node.status.capacity.is_some(), "a node registers with its status");
}

#[test]
fn a_pod_is_bound_once() {
    let mut c = cluster(2);
    let made = c.create(pod("a")).unwrap();
    let mut other = made.clone();
    other.meta_mut().uid = Some("other".to_owned());
    assert_eq!(refusal(c.bind(0, &other, "n1")).0, Reason::Conflict);
    c.lagging[1] = true;
    let Response::Done { rv } = c.bind(0, &made, "n1").unwrap() else { panic!() };
    let bound = c.get(&made.key()).unwrap();
    assert_eq!((bound.rv(), as_pod(&bound).spec.node.as_deref()), (rv, Some("n1")));
    assert_eq!(as_pod(&bound).status.condition(&Text::POD_SCHEDULED).unwrap().status, Text::TRUE);
    assert!(as_pod(&bound).spec.shared.is_held_as(&as_pod(&made).spec.shared));

    // The other server has not seen the binding, but the store has it.
    let text = "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\"";
    assert_eq!(refusal(c.bind(1, &made, "n2")), (Reason::Conflict, text.to_owned()));
    let Response::Done { rv: again } = c.bind(1, &made, "n1").unwrap() else { panic!() };
    assert_eq!(again, rv, "the binding that is asked for stands already");

    c.delete(&made.key(), DeleteOptions::default()).unwrap();
    let text =
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is being deleted, cannot be assigned to a host";
    assert_eq!(refusal(c.bind(0, &made, "n1")), (Reason::Conflict, text.to_owned()));
    c.delete(&made.key(), DeleteOptions { grace_seconds: Some(0), ..Default::default() }).unwrap();
    assert_eq!(refusal(c.bind(1, &made, "n1")).0, Reason::NotFound);
}

fn budget(c: &mut Cluster, name: &str, allowed: i32, desired: i32, healthy: i32) {
    let manifest = json!({"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":name,"namespace":"default"},
        "spec":{"minAvailable":desired,"selector":{"matchLabels":{"app":"web"}}}});
    let mut made = c.create(manifest).unwrap();
    let Object::PodDisruptionBudget(b) = &mut made else { panic!() };
    let status = b.status_mut();
    status.disruptions_allowed = Some(allowed);
    status.desired_healthy = Some(desired);
    status.current_healthy = Some(healthy);
    status.observed_generation = Some(1);
    c.update_status(made).unwrap();
}

fn ready_pod(c: &mut Cluster, name: &str, ready: bool) -> Object {
    let mut made = c.running_pod(name, "n1");
    let p = made.get_mut::<k8s_openapi::api::core::v1::Pod>().unwrap();
    let status = if ready { Text::TRUE } else { Text::FALSE };
    let condition = PodCondition { type_: Text::READY, status, ..PodCondition::default() };
    p.status_mut().set_condition_at(c.now.wall, condition);
    c.update_status(made).unwrap()
}

fn evict(c: &mut Cluster, server: usize, name: &str) -> Result<Response, Status> {
    c.call_at(server, Call::Evict { pod: key(Kind::POD, name), options: DeleteOptions::default() })
}

#[test]
fn budgets_limit_evictions() {
    let mut c = cluster(2);
    for name in ["a", "b", "c"] {
        ready_pod(&mut c, name, true);
    }
    budget(&mut c, "pdb", 1, 2, 3);
    c.lagging[1] = true;
    evict(&mut c, 0, "a").unwrap();
    let gone = c.get(&key(Kind::POD, "a")).unwrap();
    assert!(gone.is_deleting());
    let condition = as_pod(&gone).status.condition(&Text::DISRUPTION_TARGET).unwrap().clone();
    assert_eq!(condition.reason, "EvictionByEvictionAPI");
    let Some(Object::PodDisruptionBudget(b)) = c.get(&key(Kind::POD_DISRUPTION_BUDGET, "pdb")) else { panic!() };
    assert_eq!(b.status.disruptions_allowed, Some(0));
    assert!(b.status.disrupted_pods.as_ref().unwrap().contains_key("a"));

    // The other server's cache shows that one disruption is left; the stored budget says otherwise.
    for server in [0, 1] {
        let status = evict(&mut c, server, "b").unwrap_err();
        assert_eq!(status.reason, Reason::TooManyRequests);
        assert_eq!(&*status.message, "Cannot evict pod as it would violate the pod's disruption budget.");
        let cause = &status.details.unwrap().causes[0];
        assert_eq!(cause.reason, "DisruptionBudget");
        assert_eq!(cause.message, "The disruption budget pdb does not allow evicting pods currently");
    }
    assert!(!c.get(&key(Kind::POD, "b")).unwrap().is_deleting());
    evict(&mut c, 0, "a").expect("it is on its way already");
}

#[test]
fn evictions_that_need_no_budget() {
    let mut c = cluster(1);
    ready_pod(&mut c, "sick", false);
    ready_pod(&mut c, "well", true);
    c.create(pod("pending")).unwrap();
    budget(&mut c, "pdb", 0, 1, 1);
    evict(&mut c, 0, "pending").unwrap();
    assert_eq!(c.get(&key(Kind::POD, "pending")), None);
    evict(&mut c, 0, "sick").expect("the budget is healthy without it");
    assert_eq!(refusal(evict(&mut c, 0, "well")).0, Reason::TooManyRequests);
    budget(&mut c, "second", 1, 1, 1);
    assert_eq!(refusal(evict(&mut c, 0, "well")).0, Reason::InternalError);
    assert_eq!(refusal(evict(&mut c, 0, "nobody")).0, Reason::NotFound);
}

#[test]
fn a_budget_that_its_controller_has_not_seen_refuses() {
    let mut c = cluster(1);
    ready_pod(&mut c, "a", true);
    let manifest = json!({"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{"name":"new","namespace":"default"},
        "spec":{"minAvailable":1,"selector":{"matchLabels":{"app":"web"}}}});
    c.create(manifest).unwrap();
    let status = evict(&mut c, 0, "a").unwrap_err();
    let details = status.details.unwrap();
    assert_eq!(details.retry_after_seconds, Some(10));
    assert_eq!(details.causes[0].message, "The disruption budget new is still being processed by the server.");
}

#[test]
fn a_resize_changes_resources_and_nothing_else() {
    let mut c = cluster(1);
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "100Mi"}, "limits": {"cpu": "1"}});
    let mut manifest = pod("a");
    manifest["spec"]["containers"][0]["resources"] = resources("100m");
    let made = c.create(manifest).unwrap();
    let with = |object: &Object, resources: Value| {
        let mut whole = object.to_json();
        whole["spec"]["containers"][0]["resources"] = resources;
        whole["spec"]["containers"][0]["image"] = json!("other:1");
        Object::from_json(whole).unwrap()
    };
    let changed = c.update_at(0, with(&made, resources("200m")), Subresource::Resize).unwrap();
    let whole = changed.to_json();
    assert_eq!(whole["spec"]["containers"][0]["resources"], resources("200m"));
    assert_eq!(whole["spec"]["containers"][0]["image"], made.to_json()["spec"]["containers"][0]["image"]);
    assert_eq!(whole["metadata"]["generation"], 2);
    for (resources, why) in [
        (
            json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "1"}}),
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ),
        (
            json!({"requests": {"cpu": "200m", "memory": "100Mi"}}),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
            "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
        ),
        (
            json!({"requests": {"cpu": "200m", "memory": "100Mi", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "1"}}),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
    ] {
        let refused = refusal(c.update_at(0, with(&changed, resources), Subresource::Resize));
        assert_eq!(refused, (Reason::Invalid, format!("Pod \"a\" is invalid: {why}")));
    }
    let deployment = c.create(super::deployment("d", 1)).unwrap();
    assert!(c.update_at(0, deployment, Subresource::Resize).is_err(), "only pods are resized");
}

/// A pod, and each kind of template, that names a group, with the path of that.
fn grouped() -> Vec<(Value, &'static str)> {
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "schedulingGroup": {"podGroupName": "g"}});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": spec});
    let mut once = template.clone();
    once["spec"]["restartPolicy"] = json!("Never");
    let of = |api_version: &str, kind: &str, body: Value| {
        let mut object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "default"}});
        json_patch::merge(&mut object, &body);
        object
    };
    let selected = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    vec![
        (of("v1", "Pod", json!({"spec": spec})), "/spec/schedulingGroup"),
        (of("apps/v1", "Deployment", selected), "/spec/template/spec/schedulingGroup"),
        (of("batch/v1", "Job", json!({"spec": {"template": once}})), "/spec/template/spec/schedulingGroup"),
        (
            of(
                "batch/v1",
                "CronJob",
                json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}}}),
            ),
            "/spec/jobTemplate/spec/template/spec/schedulingGroup",
        ),
        (of("v1", "PodTemplate", json!({"template": template})), "/template/spec/schedulingGroup"),
    ]
}

#[test]
fn the_group_of_pods_is_dropped_unless_its_gate_is_on() {
    let on = FeatureGates { generic_workload: true, ..FeatureGates::default() };
    for (manifest, path) in grouped() {
        let kind = manifest["kind"].clone();
        let shown = |object: &Object| object.to_json().pointer(path).cloned();
        let mut off = cluster(1);
        let made = off.create(manifest.clone()).unwrap();
        assert_eq!(shown(&made), None, "{kind}");
        if kind != "Pod" && kind != "Job" {
            let mut again = made.to_json();
            again["metadata"]["labels"] = json!({"new": "label"});
            let (parent, field) = path.rsplit_once('/').unwrap();
            again.pointer_mut(parent).unwrap()[field] = json!({"podGroupName": "g"});
            let updated = off.update(Object::from_json(again).unwrap()).unwrap();
            assert_eq!((shown(&updated), updated.meta().labels.is_some()), (None, true), "{kind}");
        }

        // The first server has the gate on, the second has not.
        let mut c = cluster_of(2, &Config { features: on, ..Config::default() });
        c.servers[1] = ApiServer::new(Config::default(), Rng::stream(8, "apiserver", 1));
        c.tick(30);
        let made = c.create(manifest).unwrap();
        assert_eq!(shown(&made), Some(json!({"podGroupName": "g"})), "{kind}");
        let patch = Call::Patch {
            key: made.key(),
            patch: Patch::Merge(json!({"metadata": {"labels": {"new": "label"}}})),
            subresource: Subresource::None,
            precondition: Precondition::default(),
            options: WriteOptions::default(),
        };
        let Response::Object(patched) = c.call_at(1, patch).unwrap() else { panic!("{kind}") };
        assert_eq!((shown(&patched), patched.meta().labels.is_some()), (shown(&made), true), "{kind}: it is used");
    }
}
