//! Gangs in the scheduler's process: conditions of PodGroups, and pods that wait for each other's claims.

use std::time::Duration;

use serde_json::{Value, json};

use super::tests::Cluster;
use crate::api::{Call, Patch, Precondition, Subresource, WriteOptions};
use crate::features::FeatureGates;
use crate::limits;
use crate::object::{Kind, ObjectKey};

fn cluster(seed: u64) -> Cluster {
    Cluster::with(seed, FeatureGates { generic_workload: true, gang_scheduling: true })
}

impl Cluster {
    fn gang(&mut self, name: &str, least: u32) {
        self.create(json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"schedulingPolicy": {"gang": {"minCount": least}}}}));
    }

    /// A pod of one CPU in a group, with a claim if one is named.
    fn member(&mut self, name: &str, group: &str, claim: Option<&str>) {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}});
        let volume = |claim| json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}});
        let volumes: Vec<Value> = claim.into_iter().map(volume).collect();
        self.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [container], "volumes": volumes, "schedulingGroup": {"podGroupName": group}}}));
    }

    /// The group's condition: status, reason and message.
    /// A gang of two, one of which has a claim that waits for a volume.
    fn gang_with_claim(&mut self) {
        self.create(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "late"},
            "provisioner": "disk", "volumeBindingMode": "WaitForFirstConsumer"}));
        self.create(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "default"},
            "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}));
        self.gang("g", 2);
        self.member("x", "g", Some("data"));
        self.member("y", "g", None);
    }

    fn condition(&self, group: &str) -> Option<(String, String, String)> {
        let key = ObjectKey::new(Kind::POD_GROUP, "default", group);
        let object = self.object(&key)?.to_json();
        let condition = object["status"]["conditions"].as_array()?.first()?.clone();
        assert_eq!(condition["type"], "PodGroupScheduled");
        let text = |field: &str| condition[field].as_str().unwrap().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    fn merge(&mut self, kind: Kind, name: &str, patch: Value) {
        self.user(Call::Patch {
            key: ObjectKey::new(kind, "default", name),
            patch: Patch::Merge(patch),
            subresource: Subresource::None,
            precondition: Precondition::default(),
            options: WriteOptions::default(),
        });
    }
}

fn told(status: &str, reason: &str, message: &str) -> Option<(String, String, String)> {
    Some((status.to_owned(), reason.to_owned(), message.to_owned()))
}

#[test]
fn a_group_says_whether_it_is_scheduled_and_does_not_take_it_back() {
    let mut c = cluster(1);
    c.node("n", "2");
    c.start("a", true);
    c.gang("g", 3);
    ["x", "y", "z"].iter().for_each(|name| c.member(name, "g", None));
    c.run(Duration::from_secs(5));
    assert_eq!((c.bound(), c.condition("g")), (0, told("False", "Unschedulable", LACKS)));
    let messages: Vec<Value> = c.events("FailedScheduling").iter().map(|e| e["message"].clone()).collect();
    let would_fit = messages.iter().filter(|m| *m == "other pods from a pod group are unschedulable").count();
    assert_eq!((messages.len(), would_fit), (3, 2));
    c.node("m", "1");
    c.run(Duration::from_secs(15));
    assert_eq!((c.bound(), c.condition("g")), (3, told("True", "Scheduled", "")));
    assert_eq!(c.events("Scheduled").len(), 3);
    c.member("w", "g", None);
    c.run(Duration::from_secs(5));
    assert_eq!((c.bound(), c.condition("g")), (3, told("True", "Scheduled", "")));
    c.check_counts(0);
}

const LACKS: &str = "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining";

#[test]
fn a_new_leader_places_the_rest_beside_what_the_old_one_bound() {
    let mut c = cluster(2);
    c.node("n", "4");
    c.gang("g", 3);
    ["x", "y", "z"].iter().for_each(|name| c.member(name, "g", None));
    // The first leader came no further than one bind.
    let uid = c.pods().iter().find(|p| p.name() == "x").unwrap().uid().to_owned();
    let pod = ObjectKey::new(Kind::POD, "default", "x");
    c.user(Call::Bind { pod, uid: uid.into(), node: "n".into(), annotations: Default::default() });
    c.start("b", true);
    c.run(Duration::from_secs(30));
    assert_eq!((c.bound(), c.condition("g")), (3, told("True", "Scheduled", "")));
}

#[test]
fn none_is_bound_before_the_claims_of_all_are_and_none_if_they_never_are() {
    let mut c = cluster(3);
    c.node("n", "4");
    c.start("a", true);
    c.gang_with_claim();
    c.run(limits::GANG_TIMEOUT - Duration::from_secs(5));
    // Nobody makes a volume.
    assert_eq!((c.bound(), c.events("FailedScheduling").len()), (0, 0));
    c.run(Duration::from_secs(6));
    let why = "rejected due to timeout after waiting 300s at plugin GangScheduling";
    let failed = c.events("FailedScheduling");
    assert_eq!(failed.iter().map(|e| e["message"].clone()).collect::<Vec<_>>(), [why, why]);
    assert_eq!(c.bound(), 0);
    c.create(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "late",
            "claimRef": {"namespace": "default", "name": "data"}, "csi": {"driver": "disk", "volumeHandle": "h"}}}));
    let done = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "pv"}});
    c.merge(Kind::PERSISTENT_VOLUME_CLAIM, "data", done);
    c.run(Duration::from_secs(30));
    assert_eq!((c.bound(), c.condition("g")), (2, told("True", "Scheduled", "")));
    c.check_counts(0);
}

#[test]
fn a_pod_that_goes_while_a_gang_waits_has_the_others_tried_again() {
    let mut c = cluster(4);
    c.node("n", "4");
    c.start("a", true);
    c.gang_with_claim();
    c.run(Duration::from_secs(20));
    c.delete("x");
    c.run(Duration::from_secs(20));
    assert_eq!((c.bound(), c.lines[0].process.scheduler().assumed()), (0, 0));
    c.member("z", "g", None);
    c.run(Duration::from_secs(20));
    assert_eq!(c.bound(), 2);
    assert!(c.object(&ObjectKey::new(Kind::POD, "default", "x")).is_none());
    c.check_counts(0);
}
