//! Admission that depends on other objects: RuntimeClasses, the namespace's Pod Security Standard, the cluster's IP
//! families.

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::{Cluster, cluster, cluster_of, key, pod, refusal};
use crate::api::Subresource;
use crate::apiserver::Config;
use crate::object::{Kind, Object, Pod};

fn pod_with(name: &str, spec: Value) -> Value {
    let mut manifest = pod(name);
    json_patch::merge(&mut manifest["spec"], &spec);
    manifest
}

fn class(name: &str, more: Value) -> Value {
    let mut manifest = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name},
        "handler": "kata"});
    json_patch::merge(&mut manifest, &more);
    manifest
}

fn made(c: &mut Cluster, manifest: Value) -> Pod {
    let object = c.create(manifest).unwrap();
    object.get::<core_v1::Pod>().unwrap().clone()
}

fn refused(c: &mut Cluster, manifest: Value) -> String {
    refusal(c.create(manifest)).1
}

#[test]
fn a_runtime_class_gives_overhead_and_where_to_run() {
    let mut c = cluster(1);
    let kata = || json!({"runtimeClassName": "kata"});
    assert_eq!(
        refused(&mut c, pod_with("a", kata())),
        "pods \"a\" is forbidden: pod rejected: RuntimeClass \"kata\" not found"
    );
    c.create(class(
        "kata",
        json!({"overhead": {"podFixed": {"cpu": "250m"}}, "scheduling": {"nodeSelector": {"kata": "yes"},
            "tolerations": [{"key": "kata", "operator": "Exists"}]}}),
    ))
    .unwrap();
    let a = made(&mut c, pod_with("a", kata()));
    assert_eq!(a.spec.overhead.as_ref().unwrap()["cpu"].0, "250m");
    assert_eq!(a.spec.node_selector.as_ref().unwrap()["kata"], "yes");
    assert!(a.spec.tolerations.iter().flatten().any(|t| t.key.as_deref() == Some("kata")));

    // The same overhead in another notation is equal.
    let mut same = kata();
    same["overhead"] = json!({"cpu": "0.25"});
    made(&mut c, pod_with("b", same));
    let mut other = kata();
    other["overhead"] = json!({"cpu": "1"});
    assert_eq!(
        refused(&mut c, pod_with("c", other)),
        "pods \"c\" is forbidden: pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
    );
    let mut elsewhere = kata();
    elsewhere["nodeSelector"] = json!({"kata": "no"});
    assert_eq!(
        refused(&mut c, pod_with("c", elsewhere)),
        "pods \"c\" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; \
         pod.spec.nodeSelector[kata] = no"
    );
}

#[test]
fn overhead_without_a_class_is_refused() {
    let mut c = cluster(1);
    let text = |name: &str| {
        format!(
            "pods \"{name}\" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
        )
    };
    assert_eq!(refused(&mut c, pod_with("a", json!({"overhead": {"cpu": "250m"}}))), text("a"));
    c.create(class("bare", json!({}))).unwrap();
    made(&mut c, pod_with("b", json!({"runtimeClassName": "bare"})));
    let spec = json!({"runtimeClassName": "bare", "overhead": {"cpu": "250m"}});
    assert_eq!(refused(&mut c, pod_with("c", spec)), text("c"));
}

#[test]
fn a_class_that_is_made_or_changed_is_not_missed_for_what_was_prepared_before() {
    let mut c = cluster(1);
    let overhead = |cpu: &str| json!({"overhead": {"podFixed": {"cpu": cpu}}});
    let made_cpu = |c: &mut Cluster, name: &str| {
        let pod = made(c, pod_with(name, json!({"runtimeClassName": "k"})));
        pod.spec.overhead.as_ref().map(|o| o["cpu"].0.clone())
    };
    c.create(class("k", json!({}))).unwrap();
    assert_eq!(made_cpu(&mut c, "a"), None);
    c.delete(&key(Kind::RUNTIME_CLASS, "k"), crate::api::DeleteOptions::default()).unwrap();
    c.create(class("k", overhead("1"))).unwrap();
    assert_eq!(made_cpu(&mut c, "b").as_deref(), Some("1"));
}

#[test]
fn a_claim_grows_as_its_class_in_the_store_says() {
    let mut c = cluster(2);
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "s"},
        "provisioner": "disk.example.com"});
    let class = c.create(class).unwrap();
    let sized = |claim: Object, size: &str| {
        let mut value = claim.to_json();
        value["spec"]["resources"]["requests"]["storage"] = json!(size);
        Object::from_json(value).unwrap()
    };
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {"storageClassName": "s", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
    let claim = c.create(claim).unwrap();
    assert_eq!(
        refusal(c.update(sized(claim.clone(), "2Gi"))).1,
        "persistentvolumeclaims \"c\" is forbidden: Only bound persistent volume claims can be expanded"
    );
    let mut bound = claim.to_json();
    bound["status"]["phase"] = json!("Bound");
    let claim = c.update_status(Object::from_json(bound).unwrap()).unwrap();
    let refused = "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and the \
                   storageclass that provisions the pvc must support resize";
    assert_eq!(refusal(c.update(sized(claim.clone(), "2Gi"))).1, refused);

    c.lagging[1] = true;
    let mut allows = class.to_json();
    allows["allowVolumeExpansion"] = json!(true);
    c.update(Object::from_json(allows).unwrap()).unwrap();
    let grown = c.update_at(1, sized(claim, "2Gi"), Subresource::None).unwrap();
    assert_eq!(grown.to_json()["spec"]["resources"]["requests"]["storage"], "2Gi");
}

fn namespace(labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}})
}

fn in_strict(name: &str, spec: Value) -> Value {
    let mut manifest = pod_with(name, spec);
    manifest["metadata"]["namespace"] = json!("strict");
    manifest
}

fn strict_cluster(labels: &Value) -> Cluster {
    let mut c = cluster(1);
    c.create(namespace(labels)).unwrap();
    c.create(
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "strict"}}),
    )
    .unwrap();
    c
}

const NO_ESCALATION: &str = "{\"allowPrivilegeEscalation\": false, \"capabilities\": {\"drop\": [\"ALL\"]}}";

#[test]
fn a_namespace_takes_only_pods_of_its_standard() {
    let mut c = strict_cluster(&json!({"pod-security.kubernetes.io/enforce": "restricted"}));
    assert_eq!(
        refused(&mut c, in_strict("a", json!({}))),
        "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false \
         (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities \
         (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or \
         container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    let tight: Value = serde_json::from_str(NO_ESCALATION).unwrap();
    let good = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": "i:1", "securityContext": tight}]});
    let good = c.create(in_strict("a", good)).unwrap();
    // A pod that is older than the namespace's enforcement may change its image only within the standard.
    let mut loose = strict_cluster(&json!({}));
    let mut before = loose.create(in_strict("a", json!({"hostPID": true}))).unwrap();
    let mut ns = loose.get(&key(Kind::NAMESPACE, "strict")).unwrap();
    ns.meta_mut().labels.get_or_insert_default().insert("pod-security.kubernetes.io/enforce".into(), "baseline".into());
    loose.update(ns).unwrap();
    before.meta_mut().labels.get_or_insert_default().insert("a".into(), "b".into());
    let before = loose.update(before).unwrap();
    assert_eq!(
        refusal(loose.update(with_image(before, "j:1"))).1,
        "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"
    );
    c.update(with_image(good, "j:1")).unwrap();
}

fn with_image(mut object: Object, image: &str) -> Object {
    let pod = object.get_mut::<core_v1::Pod>().unwrap();
    pod.spec_mut().shared.make_mut().containers[0].image = Some(image.to_owned());
    object
}

#[test]
fn a_standard_is_a_known_one() {
    let mut c = cluster(1);
    assert_eq!(
        refused(&mut c, namespace(&json!({"pod-security.kubernetes.io/enforce": "tight"}))),
        "Namespace \"strict\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \
         \"tight\": must be one of privileged, baseline, restricted"
    );
    // A controller's pods are rejected; the controller itself is not.
    let mut c = strict_cluster(&json!({"pod-security.kubernetes.io/enforce": "restricted"}));
    let mut deployment = super::deployment("d", 1);
    deployment["metadata"]["namespace"] = json!("strict");
    c.create(deployment).unwrap();
}

#[test]
fn cluster_scoped_objects_forget_their_namespace() {
    let mut c = cluster(1);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "r", "namespace": "kube-system"}, "rules": []});
    let mut made = c.create(role.clone()).unwrap();
    assert_eq!((made.meta().namespace.as_deref(), made.key()), (None, key(Kind::CLUSTER_ROLE, "r")));
    made.meta_mut().namespace = Some("default".to_owned());
    assert_eq!(c.update(made).unwrap().meta().namespace, None);
}

#[test]
fn services_have_the_clusters_ip_family() {
    let mut c = cluster(1);
    let service = |spec: Value| {
        let mut manifest = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
        json_patch::merge(&mut manifest["spec"], &spec);
        manifest
    };
    let invalid = |text: &str| format!("Service \"s\" is invalid: {text}");
    assert_eq!(
        refused(&mut c, service(json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}))),
        invalid("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster")
    );
    let dual = refused(&mut c, service(json!({"ipFamilyPolicy": "RequireDualStack"})));
    assert_eq!(
        dual,
        invalid(
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack \
             services"
        )
    );
    let prefer = c.create(service(json!({"ipFamilyPolicy": "PreferDualStack"}))).unwrap();
    let Object::Service(prefer) = prefer else { panic!("{prefer:?}") };
    assert_eq!(prefer.spec.ip_families.as_deref(), Some(&["IPv4".to_owned()][..]));
}

#[test]
fn a_pod_gets_a_volume_with_its_accounts_token() {
    let mut c = cluster_of(1, &Config { mount_tokens: true, ..Config::default() });
    let a = made(&mut c, pod("a"));
    let volume = &a.spec.volumes.as_ref().unwrap()[0];
    assert!(volume.name.starts_with("kube-api-access-"), "{volume:?}");
    assert_eq!(volume.projected.as_ref().unwrap().sources.as_ref().unwrap().len(), 3);
    let mount = &a.spec.containers[0].volume_mounts.as_ref().unwrap()[0];
    assert_eq!((&mount.name, mount.read_only), (&volume.name, Some(true)));
    let b = made(&mut c, pod("b"));
    assert_eq!(a.spec.shared, b.spec.shared, "pods of a template share their spec");
    let none = |name: &str, spec: Value| {
        made(&mut cluster_of(1, &Config { mount_tokens: true, ..Config::default() }), pod_with(name, spec))
    };
    let asked = none("c", json!({"automountServiceAccountToken": false}));
    assert_eq!(asked.spec.volumes, None);
    let path = "/var/run/secrets/kubernetes.io/serviceaccount";
    let own = none(
        "d",
        json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "c", "image": "i",
            "volumeMounts": [{"name": "v", "mountPath": path}]}]}),
    );
    assert_eq!(own.spec.volumes.as_ref().unwrap().len(), 1);
    // A copy of a pod has the volume, and containers of its own.
    let copy = json!({"volumes": [volume], "containers": [
        {"name": "c", "image": "i", "volumeMounts": [mount]}, {"name": "d", "image": "i"}]});
    let copied = none("f", copy);
    assert_eq!(copied.spec.volumes.as_deref(), Some(std::slice::from_ref(volume)));
    let mounts = copied.spec.containers.iter().map(|c| c.volume_mounts.as_deref());
    assert_eq!(mounts.collect::<Vec<_>>(), [Some(std::slice::from_ref(mount)); 2]);
    let plain = made(&mut cluster(1), pod("e"));
    assert_eq!(plain.spec.volumes, None, "no token is mounted where nobody can present it");
}

#[test]
fn admin_access_to_devices_is_for_labelled_namespaces() {
    let mut c = cluster(1);
    let claim = |name: &str, namespace: &str| {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"devices": {"requests": [
                {"name": "r", "exactly": {"deviceClassName": "c", "adminAccess": true}}]}}})
    };
    let why = "ResourceClaim.resource.k8s.io \"a\" is invalid: spec.devices.requests[0].exactly.adminAccess: Forbidden: \
        admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing \
        namespace";
    assert_eq!(refused(&mut c, claim("a", "default")), why);
    c.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "admins",
        "labels": {"resource.kubernetes.io/admin-access": "true"}}}))
        .unwrap();
    c.create(claim("a", "admins")).unwrap();
}
