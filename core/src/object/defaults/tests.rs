use std::rc::Rc;

use k8s_openapi::api::core::v1::PodSpec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::apply;
use crate::object::{Object, decode};

fn read(value: &Value) -> Object {
    decode::strict(value.clone()).unwrap_or_else(|e| panic!("{e:?} in {value}"))
}

fn defaulted(value: &Value) -> Value {
    let mut object = read(value);
    apply(&mut object);
    object.to_json()
}

/// Checks that defaulting `value` adds exactly `want` at `path`.
fn check(value: Value, path: &str, want: Value) {
    let got = defaulted(&value);
    assert_eq!(got.pointer(path), Some(&want), "{path} of {got}");
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d"}, "spec": spec})
}

fn workload(api_version: &str, kind: &str, mut spec: Value) -> Value {
    if spec.get("template").is_none() && kind != "CronJob" {
        spec["template"] = json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}]}});
    }
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "w", "namespace": "d"}, "spec": spec})
}

fn of(api_version: &str, kind: &str, body: Value) -> Value {
    let mut all = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "d"}});
    if let (Value::Object(all), Value::Object(body)) = (&mut all, body) {
        all.extend(body);
    }
    all
}

#[test]
fn a_pod_says_everything() {
    let got = defaulted(&pod(json!({"containers": [{"name": "c", "image": "nginx"}]})));
    assert_eq!(
        got["spec"],
        json!({
            "containers": [{"name": "c", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30
        })
    );
    assert_eq!(got["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
}

#[test]
fn containers() {
    let container = |c: Value| pod(json!({"containers": [c]}));
    let at = |field: &str| format!("/spec/containers/0/{field}");
    let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
    check(
        container(json!({"name": "c", "resources": limits})),
        &at("resources/requests"),
        json!({"cpu": "500m", "memory": "1Gi"}),
    );
    check(container(json!({"name": "c", "ports": [{"containerPort": 80}]})), &at("ports/0/protocol"), json!("TCP"));
    check(
        container(json!({"name": "c", "livenessProbe": {"httpGet": {"port": 80}, "timeoutSeconds": 0}})),
        &at("livenessProbe"),
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
               "successThreshold": 1, "failureThreshold": 3}),
    );
    check(
        container(json!({"name": "c", "readinessProbe": {"grpc": {"port": 80}}})),
        &at("readinessProbe/grpc"),
        json!({"port": 80, "service": ""}),
    );
    check(
        container(json!({"name": "c", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]})),
        &at("env/0/valueFrom/fieldRef/apiVersion"),
        json!("v1"),
    );
    check(
        pod(json!({"hostNetwork": true, "containers": [{"name": "c", "ports": [{"containerPort": 80}]}]})),
        &at("ports/0/hostPort"),
        json!(80),
    );
    check(pod(json!({"containers": [], "serviceAccount": "s"})), "/spec/serviceAccountName", json!("s"));
}

#[test]
fn a_pod_that_asks_as_a_whole() {
    let of_pod = |resources: Value, container: Value| {
        pod(json!({"resources": resources, "containers": [{"name": "c", "image": "i", "resources": container}]}))
    };
    for (whole, container, want) in [
        // Requests default to the containers' sums, or else to the pod's limits.
        (
            json!({"limits": {"cpu": "2", "memory": "1Gi"}}),
            json!({"requests": {"cpu": "250m"}}),
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "250m", "memory": "1Gi"}}),
        ),
        (
            json!({"limits": {"cpu": "2"}}),
            json!({"requests": {"memory": "64Mi"}}),
            json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2", "memory": "64Mi"}}),
        ),
        // Values that are set are kept.
        (
            json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}),
            json!({"requests": {"cpu": "500m"}}),
            json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}),
        ),
        (json!({"requests": {"cpu": "1"}}), json!({}), json!({"requests": {"cpu": "1"}})),
        // The containers' huge pages become limits of the pod.
        (
            json!({"limits": {"cpu": "2"}}),
            json!({"limits": {"hugepages-2Mi": "4Mi", "cpu": "1"}}),
            json!({"limits": {"cpu": "2", "hugepages-2Mi": "4Mi"}, "requests": {"cpu": "1", "hugepages-2Mi": "4Mi"}}),
        ),
        (json!({}), json!({"requests": {"cpu": "1"}}), json!({})),
    ] {
        check(of_pod(whole, container), "/spec/resources", want);
    }
}

#[test]
fn amounts_finer_than_thousandths_are_rounded_up() {
    let resources = json!({"requests": {"cpu": "2500u", "memory": "1.0001Ki"}, "limits": {"cpu": "1500000n"}});
    let p =
        pod(json!({"overhead": {"cpu": "1n"}, "containers": [{"name": "c", "image": "i", "resources": resources}]}));
    check(p.clone(), "/spec/containers/0/resources/requests/cpu", json!("3m"));
    check(p.clone(), "/spec/containers/0/resources/limits/cpu", json!("2m"));
    check(p, "/spec/overhead/cpu", json!("1m"));
    let claim = of("v1", "PersistentVolumeClaim", json!({"spec": {"resources": {"requests": {"storage": "1500u"}}}}));
    check(claim, "/spec/resources/requests/storage", json!("2m"));
    check(of("v1", "ResourceQuota", json!({"spec": {"hard": {"cpu": "1u"}}})), "/spec/hard/cpu", json!("1m"));
    let limits = json!({"limits": [{"type": "Container", "default": {"cpu": "1u"}}]});
    let limits = of("v1", "LimitRange", json!({"spec": limits}));
    check(limits.clone(), "/spec/limits/0/default/cpu", json!("1m"));
    check(limits, "/spec/limits/0/defaultRequest/cpu", json!("1m"));
    let whole = of("v1", "ResourceQuota", json!({"spec": {"hard": {"cpu": "2500m"}}}));
    check(whole, "/spec/hard/cpu", json!("2500m"));
}

#[test]
fn a_template_without_a_spec_has_an_empty_one() {
    let bare = json!({"metadata": {"labels": {"a": "b"}}});
    let d = workload("apps/v1", "Deployment", json!({"selector": {"matchLabels": {"a": "b"}}, "template": bare}));
    check(d, "/spec/template/spec/restartPolicy", json!("Always"));
}

#[test]
fn volumes() {
    for (given, want) in [
        (json!({}), json!({"emptyDir": {}})),
        (json!({"secret": {"secretName": "s"}}), json!({"secret": {"secretName": "s", "defaultMode": 420}})),
        (json!({"configMap": {"name": "c"}}), json!({"configMap": {"name": "c", "defaultMode": 420}})),
        (json!({"hostPath": {"path": "/x"}}), json!({"hostPath": {"path": "/x", "type": ""}})),
        (
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
            json!({"projected": {"defaultMode": 420,
                "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}),
        ),
        (
            json!({"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
            json!({"downwardAPI": {"defaultMode": 420,
                "items": [{"path": "l", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}]}}),
        ),
        (
            json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}}),
            json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"volumeMode": "Filesystem"}}}}),
        ),
    ] {
        let (mut given, mut want) = (given, want);
        given["name"] = json!("v");
        want["name"] = json!("v");
        check(pod(json!({"containers": [], "volumes": [given]})), "/spec/volumes/0", want);
    }
}

#[test]
fn templates_get_what_templates_get() {
    let got = defaulted(&workload("apps/v1", "Deployment", json!({"selector": {}})));
    let spec = &got["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!((&spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]), (&json!(10), &json!(600)));
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["restartPolicy"], "Always");
    // Requests and service links have defaults in pods only, not in templates.
    assert_eq!((pod.get("enableServiceLinks"), pod["containers"][0]["resources"].get("requests")), (None, None));
    let recreate = workload("apps/v1", "Deployment", json!({"selector": {}, "strategy": {"type": "Recreate"}}));
    check(recreate, "/spec/strategy", json!({"type": "Recreate"}));
}

#[test]
fn workloads() {
    let rc = defaulted(&workload("v1", "ReplicationController", json!({})));
    assert_eq!((&rc["metadata"]["labels"], &rc["spec"]["selector"]), (&json!({"a": "b"}), &json!({"a": "b"})));
    assert_eq!(rc["spec"]["replicas"], 1);
    let sts = defaulted(&workload(
        "apps/v1",
        "StatefulSet",
        json!({"serviceName": "s", "selector": {}, "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]}),
    ));
    assert_eq!(sts["spec"]["podManagementPolicy"], "OrderedReady");
    assert_eq!(sts["spec"]["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
    let retention = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    assert_eq!(sts["spec"]["persistentVolumeClaimRetentionPolicy"], retention);
    assert_eq!(sts["spec"]["volumeClaimTemplates"][0]["spec"]["volumeMode"], "Filesystem");
    assert_eq!(sts["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    check(
        workload("apps/v1", "DaemonSet", json!({"selector": {}})),
        "/spec/updateStrategy",
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
    );
    let job = defaulted(&workload("batch/v1", "Job", json!({})));
    assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
    for (field, want) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        assert_eq!(job["spec"][field], want, "{field}");
    }
    let queue = defaulted(&workload("batch/v1", "Job", json!({"parallelism": 3})));
    assert_eq!(queue["spec"].get("completions"), None);
    let template = json!({"spec": {"template": {"spec": {"containers": []}}}});
    let cron = defaulted(&workload("batch/v1", "CronJob", json!({"schedule": "* * * * *", "jobTemplate": template})));
    assert_eq!(cron["spec"]["concurrencyPolicy"], "Allow");
    assert_eq!(cron["spec"]["successfulJobsHistoryLimit"], 3);
    assert_eq!(cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"], "Always");
    assert_eq!(cron["spec"]["jobTemplate"]["spec"].get("parallelism"), None);
}

#[test]
fn services() {
    let service = |spec: Value| of("v1", "Service", json!({"spec": spec}));
    assert_eq!(
        defaulted(&service(json!({"ports": [{"port": 80}]})))["spec"],
        json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
    check(service(json!({"type": "NodePort"})), "/spec/externalTrafficPolicy", json!("Cluster"));
    check(service(json!({"type": "LoadBalancer"})), "/spec/allocateLoadBalancerNodePorts", json!(true));
    check(
        service(json!({"sessionAffinity": "ClientIP"})),
        "/spec/sessionAffinityConfig",
        json!({"clientIP": {"timeoutSeconds": 10800}}),
    );
    let external = defaulted(&service(json!({"type": "ExternalName", "externalName": "x.y"})));
    assert_eq!((external["spec"].get("ipFamilies"), external["spec"].get("internalTrafficPolicy")), (None, None));
}

#[test]
fn other_kinds() {
    check(of("v1", "Secret", json!({})), "/type", json!("Opaque"));
    check(of("v1", "PersistentVolumeClaim", json!({"spec": {}})), "/spec/volumeMode", json!("Filesystem"));
    check(of("v1", "PersistentVolumeClaim", json!({"spec": {}})), "/status/phase", json!("Pending"));
    let slice = json!({"addressType": "IPv4", "endpoints": [], "ports": [{"port": 80}]});
    check(
        of("discovery.k8s.io/v1", "EndpointSlice", slice),
        "/ports/0",
        json!({"name": "", "port": 80, "protocol": "TCP"}),
    );
    check(
        of("storage.k8s.io/v1", "StorageClass", json!({"provisioner": "p"})),
        "/volumeBindingMode",
        json!("Immediate"),
    );
    let policy = json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}});
    let policy = of("networking.k8s.io/v1", "NetworkPolicy", policy);
    check(policy.clone(), "/spec/policyTypes", json!(["Ingress", "Egress"]));
    check(policy, "/spec/egress/0/ports/0", json!({"port": 53, "protocol": "TCP"}));
    let limits = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}});
    let limits = of("v1", "LimitRange", limits);
    check(limits.clone(), "/spec/limits/0/default", json!({"cpu": "2"}));
    check(limits, "/spec/limits/0/defaultRequest", json!({"cpu": "2", "memory": "1Mi"}));
    let target = json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}});
    check(of("autoscaling/v2", "HorizontalPodAutoscaler", target), "/spec/minReplicas", json!(1));
    let binding = json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]});
    check(
        of("rbac.authorization.k8s.io/v1", "RoleBinding", binding),
        "/subjects/0/apiGroup",
        json!("rbac.authorization.k8s.io"),
    );
}

#[test]
fn a_namespace_waits_for_its_contents() {
    let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    let got = defaulted(&value);
    assert_eq!(got["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "n"}));
    assert_eq!(got["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(got["status"]["phase"], "Active");
    // A finalizer that was removed is not added again.
    let mut done = got;
    done["spec"]["finalizers"] = json!([]);
    assert_eq!(defaulted(&done)["spec"]["finalizers"], json!([]));
}

#[test]
fn what_is_complete_is_not_copied() {
    for value in [
        pod(json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}},
                   "livenessProbe": {"httpGet": {"port": 1}}}], "volumes": [{"name": "v"}]})),
        workload("apps/v1", "Deployment", json!({"selector": {}})),
        workload("apps/v1", "ReplicaSet", json!({"selector": {}})),
        workload("v1", "ReplicationController", json!({})),
        workload("apps/v1", "StatefulSet", json!({"selector": {}, "serviceName": "s"})),
        workload("batch/v1", "Job", json!({})),
        of(
            "v1",
            "Service",
            json!({"spec": {"ports": [{"port": 80}], "type": "LoadBalancer", "sessionAffinity": "ClientIP"}}),
        ),
        of("v1", "Secret", json!({})),
        of("v1", "LimitRange", json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}})),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
    ] {
        let mut once = read(&value);
        apply(&mut once);
        let mut twice = once.clone();
        apply(&mut twice);
        let same = match (&once, &twice) {
            (Object::Pod(a), Object::Pod(b)) => Rc::ptr_eq(&a.spec, &b.spec) && a.status.is_held_as(&b.status),
            (Object::Deployment(a), Object::Deployment(b)) => Rc::ptr_eq(&a.spec, &b.spec),
            (Object::ReplicaSet(a), Object::ReplicaSet(b)) => Rc::ptr_eq(&a.spec, &b.spec),
            (Object::ReplicationController(a), Object::ReplicationController(b)) => Rc::ptr_eq(&a.spec, &b.spec),
            (Object::StatefulSet(a), Object::StatefulSet(b)) => Rc::ptr_eq(&a.spec, &b.spec),
            (Object::Job(a), Object::Job(b)) => Rc::ptr_eq(&a.spec, &b.spec),
            (Object::Service(a), Object::Service(b)) => Rc::ptr_eq(&a.spec, &b.spec),
            (Object::Namespace(a), Object::Namespace(b)) => Rc::ptr_eq(&a.spec, &b.spec),
            (Object::Dynamic(a), Object::Dynamic(b)) => Rc::ptr_eq(&a.body, &b.body),
            _ => false,
        };
        assert!(same && Rc::ptr_eq(once.meta(), twice.meta()), "{value}");
        assert_eq!(once, twice);
    }
}

/// Random specs in which every field that has a default is present, absent or empty.
fn arbitrary_spec() -> impl Strategy<Value = Value> {
    let text = || prop::option::of(prop::sample::select(vec!["", "TCP", "File", "Always"]));
    let amounts = || prop::option::of(prop::collection::btree_map("(cpu|memory|x.y/z)", "[1-9]", 0..3));
    let number = || prop::option::of(0i32..3);
    let probe = prop::option::of((number(), number(), prop::option::of(text())).prop_map(|(a, b, http)| {
        let mut p = json!({"timeoutSeconds": a, "periodSeconds": b});
        if let Some(path) = http {
            p["httpGet"] = json!({"port": 1, "path": path});
        }
        p
    }));
    let container = (text(), text(), amounts(), amounts(), probe, prop::option::of((number(), text()))).prop_map(
        |(pull, policy, limits, requests, probe, port)| {
            let port =
                port.map(|(host, protocol)| json!([{"containerPort": 80, "hostPort": host, "protocol": protocol}]));
            json!({"name": "c", "image": "i", "imagePullPolicy": pull, "terminationMessagePolicy": policy,
                "resources": {"limits": limits, "requests": requests}, "livenessProbe": probe, "ports": port})
        },
    );
    let containers = || prop::collection::vec(container.clone(), 0..3);
    let volume = prop::sample::select(vec![
        json!({"name": "v"}),
        json!({"name": "v", "secret": {}}),
        json!({"name": "v", "hostPath": {"path": "/"}}),
        json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
    ]);
    let rest = (text(), text(), any::<Option<bool>>(), text(), text(), amounts());
    (containers(), prop::option::of(containers()), prop::collection::vec(volume, 0..2), rest).prop_map(
        |(containers, inits, volumes, (dns, restart, host, account, name, pod_limits))| {
            json!({"containers": containers, "initContainers": inits, "volumes": volumes, "dnsPolicy": dns,
                "restartPolicy": restart, "hostNetwork": host, "serviceAccount": account, "serviceAccountName": name,
                "resources": pod_limits.map(|l| json!({"limits": l}))})
        },
    )
}

proptest! {
    #[test]
    fn defaults_are_idempotent_and_need_what_they_fill(spec in arbitrary_spec()) {
        let Object::Pod(pod) = read(&pod(spec)) else { panic!() };
        for (fill, lacks) in [
            (super::pod_spec as fn(&mut PodSpec), super::pod_spec_lacks as fn(&PodSpec) -> bool),
            (super::template_spec, |s| super::rules::Defaults::lacks(s)),
        ] {
            let mut once = PodSpec::clone(&pod.spec.shared);
            fill(&mut once);
            prop_assert_eq!(lacks(&pod.spec.shared), once != *pod.spec.shared);
            prop_assert!(!lacks(&once));
            let mut twice = once.clone();
            fill(&mut twice);
            prop_assert_eq!(&once, &twice);
        }
    }
}
