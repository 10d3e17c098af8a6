//! Tests the binder with provisioner and resizer: objects as a user has them, and what becomes of them.

use serde_json::{Value, json};

use super::catalog::Catalog;
use super::{PersistentVolumeBinder, Provisioner, Resizer};
use crate::client::Views;
use crate::controllers::fake_cluster::{Fake, at, object};
use crate::controllers::{Controller, Write};
use crate::object::{Kind, Object, ObjectKey};

const KINDS: &[Kind] =
    &[Kind::PERSISTENT_VOLUME_CLAIM, Kind::PERSISTENT_VOLUME, Kind::STORAGE_CLASS, Kind::POD, Kind::NODE];

/// A claim for 5Gi of class `c`, changed by a merge patch.
fn claim(name: &str, patch: Value) -> Object {
    let mut value = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
        "spec": {"storageClassName": "c", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "5Gi"}}},
        "status": {"phase": "Pending"}});
    json_patch::merge(&mut value, &patch);
    object(value)
}

/// A free volume of 5Gi of class `c`, changed by a merge patch.
fn volume(name: &str, patch: Value) -> Object {
    let mut value = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "uid": name},
        "spec": {"storageClassName": "c", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"},
            "persistentVolumeReclaimPolicy": "Retain", "nfs": {"server": "s", "path": "/"}},
        "status": {"phase": "Available"}});
    json_patch::merge(&mut value, &patch);
    object(value)
}

/// StorageClass `c`, changed by a merge patch.
fn class(patch: Value) -> Object {
    let mut value = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "c"},
        "provisioner": "disk.example.com", "volumeBindingMode": "Immediate"});
    json_patch::merge(&mut value, &patch);
    object(value)
}

struct Bench {
    fake: Fake,
    binder: PersistentVolumeBinder,
    /// `Reason: message` of each Event, in order.
    told: Vec<String>,
}

impl Bench {
    fn new(objects: impl IntoIterator<Item = Object>) -> Bench {
        Bench { fake: Fake::new(KINDS, objects), binder: PersistentVolumeBinder::default(), told: Vec::new() }
    }

    /// Lets the controllers work until none has anything to write.
    fn settle(&mut self) {
        for _ in 0..30 {
            let kinds = [Kind::PERSISTENT_VOLUME_CLAIM, Kind::PERSISTENT_VOLUME];
            let keys: Vec<ObjectKey> = kinds.iter().flat_map(|k| self.keys(*k)).collect();
            let mut wrote = false;
            for key in keys {
                for of in 0..3 {
                    self.fake.tell(&mut self.binder, at(0));
                    let controller: &mut dyn Controller = match of {
                        0 => &mut self.binder,
                        1 => &mut Provisioner { real_nodes: false },
                        _ => &mut Resizer,
                    };
                    let plan = self.fake.step(controller, &key, at(0));
                    wrote |= !plan.writes.is_empty();
                    for event in plan.events {
                        let told = format!("{}: {}", event.reason, event.message);
                        if !self.told.contains(&told) {
                            self.told.push(told);
                        }
                    }
                }
            }
            if !wrote {
                let kept = self.binder.catalog.as_ref();
                assert!(kept.is_none_or(|kept| *kept == Catalog::of(&self.fake.views)), "{kept:#?}");
                return;
            }
        }
        panic!("it does not settle: {:#?}", self.told);
    }

    fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
        self.fake.views.view(kind).iter().map(|(key, _)| key.clone()).collect()
    }

    /// Every claim and every volume: `c Bound v`, `v Bound c`.
    fn state(&self) -> Vec<String> {
        let of = |kind: Kind, other: &str| -> Vec<String> {
            let view = self.fake.views.view(kind);
            let each = view.iter().map(|(key, object)| {
                let value = object.to_json();
                let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or("").to_owned();
                format!("{} {} {}", key.name(), text("/status/phase"), text(other)).trim_end().to_owned()
            });
            each.collect()
        };
        [of(Kind::PERSISTENT_VOLUME_CLAIM, "/spec/volumeName"), of(Kind::PERSISTENT_VOLUME, "/spec/claimRef/name")]
            .concat()
    }
}

fn check(objects: impl IntoIterator<Item = Object>, state: &[&str], told: &[&str]) {
    let mut bench = Bench::new(objects);
    bench.settle();
    assert_eq!(bench.state(), state, "{:#?}", bench.told);
    assert_eq!(bench.told, told, "{state:?}");
}

const NO_CLASS: &str = "FailedBinding: no persistent volumes available for this claim and no storage class is set";

#[test]
fn a_claim_gets_the_smallest_volume_that_suits_it() {
    let bare = || json!({"spec": {"storageClassName": ""}});
    let of = |patch: Value| {
        let mut value = bare();
        json_patch::merge(&mut value, &patch);
        value
    };
    let sized = |size: &str| of(json!({"spec": {"capacity": {"storage": size}}}));
    let bound = ["a Bound v"];
    for (claim_patch, volumes, expect) in [
        (bare(), vec![volume("v", bare())], vec![bound[0], "v Bound a"]),
        (
            bare(),
            vec![volume("big", sized("9Gi")), volume("small", sized("4Gi")), volume("v", sized("5Gi"))],
            vec![bound[0], "big Available", "small Available", "v Bound a"],
        ),
        (bare(), vec![volume("v", json!({}))], vec!["a Pending", "v Available"]),
        (
            of(json!({"spec": {"accessModes": ["ReadWriteMany"]}})),
            vec![volume("v", bare())],
            vec!["a Pending", "v Available"],
        ),
        (of(json!({"spec": {"volumeMode": "Block"}})), vec![volume("v", bare())], vec!["a Pending", "v Available"]),
        (
            of(json!({"spec": {"selector": {"matchLabels": {"tier": "fast"}}}})),
            vec![volume("other", bare()), volume("v", of(json!({"metadata": {"labels": {"tier": "fast"}}})))],
            vec![bound[0], "other Available", "v Bound a"],
        ),
        // One that names the claim comes first, whatever its size.
        (
            bare(),
            vec![
                volume("other", bare()),
                volume(
                    "v",
                    of(json!({"spec": {"capacity": {"storage": "50Gi"},
                    "claimRef": {"namespace": "d", "name": "a"}}})),
                ),
            ],
            vec![bound[0], "other Available", "v Bound a"],
        ),
        (
            bare(),
            vec![volume("v", of(json!({"spec": {"claimRef": {"namespace": "d", "name": "other"}}})))],
            vec!["a Pending", "v Available other"],
        ),
        (
            bare(),
            vec![volume(
                "v",
                of(json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["x"]}})),
            )],
            vec!["a Pending", "v Available"],
        ),
    ] {
        let told: &[&str] = if expect[0] == "a Pending" { &[NO_CLASS] } else { &[] };
        check(volumes.into_iter().chain([claim("a", claim_patch)]), &expect, told);
    }
}

#[test]
fn two_claims_never_share_a_volume() {
    let objects = [claim("a", json!({})), claim("b", json!({})), volume("v", json!({}))];
    let none = "ProvisioningFailed: storageclass.storage.k8s.io \"c\" not found";
    check(objects, &["a Bound v", "b Pending", "v Bound a"], &[none]);
}

#[test]
fn a_claim_that_names_its_volume() {
    let names = |patch: Value| {
        let mut value = json!({"spec": {"volumeName": "v"}});
        json_patch::merge(&mut value, &patch);
        claim("a", value)
    };
    check([names(json!({})), volume("v", json!({}))], &["a Bound v", "v Bound a"], &[]);
    check([names(json!({}))], &["a Pending v"], &[]);
    let taken =
        json!({"spec": {"claimRef": {"namespace": "d", "name": "b", "uid": "u-b"}}, "status": {"phase": "Bound"}});
    let other = claim(
        "b",
        json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound"},
        "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}}),
    );
    check(
        [names(json!({})), other, volume("v", taken)],
        &["a Pending v", "b Bound v", "v Bound b"],
        &["FailedBinding: volume \"v\" already bound to a different claim."],
    );
    for (patch, why) in [
        (json!({"spec": {"resources": {"requests": {"storage": "6Gi"}}}}), "requested PV is too small"),
        (json!({"spec": {"storageClassName": "other"}}), "storageClassName does not match"),
        (json!({"spec": {"volumeMode": "Block"}}), "incompatible volumeMode"),
        (json!({"spec": {"accessModes": ["ReadOnlyMany"]}}), "incompatible accessMode"),
    ] {
        let told = format!("VolumeMismatch: Cannot bind to requested volume \"v\": {why}");
        check([names(patch), volume("v", json!({}))], &["a Pending v", "v Available"], &[&told]);
    }
}

#[test]
fn a_class_makes_volumes() {
    let waiting = "ExternalProvisioning: Waiting for a volume to be created either by the external provisioner \
        'disk.example.com' or manually by the system administrator. If volume creation is delayed, please verify that \
        the provisioner is running and correctly registered.";
    let provisioning = "Provisioning: External provisioner is provisioning volume for claim \"d/a\"";
    let made = "ProvisioningSucceeded: Successfully provisioned volume pvc-u-a";
    let bound = ["a Bound pvc-u-a", "pvc-u-a Bound a"];
    check([claim("a", json!({})), class(json!({}))], &bound, &[waiting, provisioning, made]);
    let late = json!({"volumeBindingMode": "WaitForFirstConsumer"});
    let first = "WaitForFirstConsumer: waiting for first consumer to be created before binding";
    // A free volume is not for a claim that waits: which one it gets is up to the scheduler.
    let objects = [claim("a", json!({})), class(late.clone()), volume("v", json!({}))];
    check(objects, &["a Pending", "v Available"], &[first]);
    let pod = object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d"},
        "spec": {"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "a"}}]}}));
    let pods = "WaitForPodScheduled: waiting for pod p to be scheduled";
    check([pod, claim("a", json!({})), class(late.clone())], &["a Pending"], &[pods]);
    let chosen = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n"}}});
    let node = object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}));
    check([claim("a", chosen.clone()), class(late.clone()), node], &bound, &[waiting, provisioning, made]);
    // The node is gone: another one is to be chosen.
    let gone = "ProvisioningFailed: failed to get target node: node \"n\" not found";
    check([claim("a", chosen), class(late)], &["a Pending"], &[waiting, gone, first]);
    check(
        [claim("a", json!({})), class(json!({"provisioner": "kubernetes.io/no-provisioner"}))],
        &["a Pending"],
        &["ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner"],
    );
}

#[test]
fn a_claim_without_class_gets_the_default_one_when_there_is_one() {
    let default = json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    let none = json!({"spec": {"storageClassName": null}});
    let mut bench = Bench::new([claim("a", none.clone()), class(json!({}))]);
    bench.settle();
    assert_eq!((bench.state(), &bench.told[..]), (vec!["a Pending".to_owned()], &[NO_CLASS.to_owned()][..]));
    bench.fake.put(class(default.clone()));
    bench.settle();
    assert_eq!(bench.state(), ["a Bound pvc-u-a", "pvc-u-a Bound a"]);
    // One that asks for no class keeps none.
    let refuses = claim("a", json!({"spec": {"storageClassName": ""}}));
    check([refuses, class(default)], &["a Pending"], &[NO_CLASS]);
}

#[test]
fn a_made_volume_is_where_its_provisioner_says() {
    let node = |name: &str, zone: &str| {
        object(json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}}))
    };
    for (provisioner, selected, source, key, values) in [
        ("rancher.io/local-path", Some("n2"), "hostPath", "kubernetes.io/hostname", json!(["n2"])),
        ("k8s.io/minikube-hostpath", Some("n2"), "hostPath", "", Value::Null),
        ("kubernetes.io/gce-pd", Some("n2"), "csi", "topology.kubernetes.io/zone", json!(["z2"])),
        ("kubernetes.io/gce-pd", None, "csi", "topology.kubernetes.io/zone", json!(["z1"])),
        ("nfs.csi.k8s.io", Some("n2"), "csi", "", Value::Null),
    ] {
        let annotations = selected.map(|node| json!({"volume.kubernetes.io/selected-node": node}));
        let claim = claim("a-0", json!({"metadata": {"annotations": annotations}}));
        let class = class(json!({"provisioner": provisioner}));
        let mut bench = Bench::new([claim, class, node("n1", "z1"), node("n2", "z2")]);
        bench.settle();
        let made = bench.fake.get(Kind::PERSISTENT_VOLUME, "pvc-u-a-0").expect("it is made").to_json();
        assert!(made["spec"][source].is_object(), "{provisioner}: {made}");
        let term = &made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
        assert_eq!((term["key"].as_str().unwrap_or(""), &term["values"]), (key, &values), "{provisioner}");
    }
}

#[test]
fn on_real_nodes_directories_are_made_and_all_else_is_left_to_its_provisioner() {
    let made = |provisioner: &str, selected: Option<&str>| {
        let node = object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
        let mut annotations = json!({"volume.kubernetes.io/storage-provisioner": provisioner});
        annotations["volume.kubernetes.io/selected-node"] = json!(selected);
        let claim = claim("a", json!({"metadata": {"annotations": annotations}}));
        let key = claim.key();
        let views = Views::of(KINDS, [claim, class(json!({"provisioner": provisioner})), node]);
        let plan = Provisioner { real_nodes: true }.reconcile(&views, &key, at(0));
        let volume = plan.writes.iter().find_map(|write| match write {
            Write::Create(volume) => Some(volume.to_json()),
            _ => None,
        });
        (volume.unwrap_or_default(), plan.events.iter().map(|e| e.message.clone()).collect::<Vec<_>>())
    };
    for by in ["skeg.dev/local-path", "k8s.io/minikube-hostpath"] {
        let (volume, _) = made(by, Some("n1"));
        assert_eq!(volume["metadata"]["labels"], json!({"skeg.dev/directory-of": "n1"}), "{by}");
        assert_eq!(volume["spec"]["hostPath"]["path"], "/var/lib/skeg/volumes/pvc-u-a", "{by}");
        let terms = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
        assert_eq!(terms[0]["matchExpressions"][0]["values"], json!(["n1"]), "{by}");
        let why = "configuration error, no node was specified".to_owned();
        assert_eq!(made(by, None), (Value::Null, vec![why]), "{by}");
    }
    assert_eq!(made("disk.example.com", Some("n1")), (Value::Null, vec![]), "its provisioner runs as pods");
    let released = volume(
        "v",
        json!({"status": {"phase": "Released"},
        "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "skeg.dev/local-path"}},
        "spec": {"persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"namespace": "d", "name": "a", "uid": "u-a"}}}),
    );
    for (real_nodes, writes) in [(false, 1), (true, 0)] {
        let views = Views::of(KINDS, [released.clone()]);
        let plan = Provisioner { real_nodes }.reconcile(&views, &released.key(), at(0));
        assert_eq!(plan.writes.len(), writes, "the node's agent empties it first");
    }
}

#[test]
fn what_becomes_of_a_volume_whose_claim_is_gone() {
    let gone = |patch: Value| {
        let mut value = json!({"status": {"phase": "Bound"},
            "spec": {"claimRef": {"namespace": "d", "name": "a", "uid": "u-a"}}});
        json_patch::merge(&mut value, &patch);
        volume("v", value)
    };
    let policy = |policy: &str| json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
    check([gone(json!({}))], &["v Released a"], &[]);
    let why = "VolumeFailedDelete: error getting deleter volume plugin for volume \"v\": no deletable volume plugin \
        matched";
    check([gone(policy("Delete"))], &["v Failed a"], &[why]);
    check(
        [gone(policy("Recycle"))],
        &["v Failed a"],
        &["VolumeFailedRecycle: No recycler plugin found for the volume!"],
    );
    let mut made = policy("Delete");
    made["metadata"]["annotations"] = json!({"pv.kubernetes.io/provisioned-by": "p"});
    check([gone(made)], &[], &[]);
    let mut temporary = policy("Delete");
    json_patch::merge(&mut temporary, &json!({"spec": {"nfs": null, "hostPath": {"path": "/tmp/x"}}}));
    check([gone(temporary)], &[], &[]);
    // Another claim of that name is not the one that it was bound to.
    let other = claim("a", json!({"metadata": {"uid": "other"}, "spec": {"storageClassName": "", "volumeName": "x"}}));
    check([gone(json!({})), other], &["a Pending x", "v Released a"], &[]);
}

#[test]
fn a_claim_is_not_gone_by_a_view_that_is_behind() {
    let bound =
        json!({"spec": {"claimRef": {"namespace": "d", "name": "a", "uid": "u-a"}}, "status": {"phase": "Bound"}});
    let mut bench = Bench::new([volume("v", bound)]);
    bench.fake.views.view_mut(Kind::PERSISTENT_VOLUME_CLAIM).set_revision(crate::object::Revision(0));
    let key = ObjectKey::new(Kind::PERSISTENT_VOLUME, "", "v");
    let plan = bench.fake.step(&mut bench.binder, &key, at(0));
    assert!(plan.writes.is_empty() && plan.requeue_after.is_some(), "{plan:?}");
    bench.fake.advance();
    bench.settle();
    assert_eq!(bench.state(), ["v Released a"]);
}

#[test]
fn a_bound_claim_without_its_volume_is_lost() {
    let bound = |patch: Value| {
        let mut value = json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound"},
            "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}});
        json_patch::merge(&mut value, &patch);
        claim("a", value)
    };
    let why = "ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    check([bound(json!({}))], &["a Lost v"], &[why]);
    let why = "ClaimLost: Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
    check([bound(json!({"spec": {"volumeName": null}}))], &["a Lost"], &[why]);
    // The volume is there and has forgotten it.
    check([bound(json!({})), volume("v", json!({}))], &["a Bound v", "v Bound a"], &[]);
    let why = "ClaimMisbound: Two claims are bound to the same volume, this one is bound incorrectly";
    let other =
        json!({"spec": {"claimRef": {"namespace": "d", "name": "b", "uid": "u-b"}}, "status": {"phase": "Bound"}});
    let winner = claim(
        "b",
        json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound"},
        "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}}),
    );
    check([bound(json!({})), winner, volume("v", other)], &["a Lost v", "b Bound v", "v Bound b"], &[why]);
}

#[test]
fn a_claim_grows_with_its_class() {
    let mut bench = Bench::new([claim("a", json!({})), class(json!({"allowVolumeExpansion": true}))]);
    bench.settle();
    let mut larger = bench.fake.get(Kind::PERSISTENT_VOLUME_CLAIM, "d/a").unwrap().to_json();
    larger["spec"]["resources"]["requests"]["storage"] = json!("8Gi");
    bench.fake.put(object(larger));
    bench.told.clear();
    bench.settle();
    let now = bench.fake.get(Kind::PERSISTENT_VOLUME_CLAIM, "d/a").unwrap().to_json();
    let volume = bench.fake.get(Kind::PERSISTENT_VOLUME, "pvc-u-a").unwrap().to_json();
    assert_eq!(
        (&now["status"]["capacity"]["storage"], &volume["spec"]["capacity"]["storage"]),
        (&json!("8Gi"), &json!("8Gi"))
    );
    let told = [
        "ExternalExpanding: waiting for an external controller to expand this PVC",
        "Resizing: External resizer is resizing volume pvc-u-a",
        "VolumeResizeSuccessful: Resize volume succeeded",
    ];
    assert_eq!(bench.told, told);
}

#[test]
fn what_somebody_says_of_a_bound_volume_stays() {
    let bound = volume(
        "v",
        json!({"spec": {"claimRef": {"namespace": "d", "name": "c", "uid": "u-c"}},
        "status": {"phase": "Bound", "message": "checked"}}),
    );
    let by = json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound"},
        "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}});
    let mut bench = Bench::new([class(json!({})), bound, claim("c", by)]);
    bench.settle();
    let found = bench.fake.get(Kind::PERSISTENT_VOLUME, "v").unwrap().to_json();
    assert_eq!(found["status"]["message"], "checked");
}
