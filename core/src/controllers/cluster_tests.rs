//! Whole controller managers over an unreliable connection: the declared state is reached and limits are never
//! exceeded.

use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::{Value, json};

use super::testing::Cluster;
use super::{ControllerManager, ManagerConfig};
use crate::object::{Kind, Object, ObjectKey};
use crate::random::Rng;

const MINUTE: Duration = Duration::from_secs(60);

fn manager(identity: &str, seed: u64) -> Box<ControllerManager> {
    let config = ManagerConfig {
        identity: identity.into(),
        leader_elect: true,
        record_events: true,
        share_informers: false,
        ..ManagerConfig::default()
    };
    Box::new(ControllerManager::new(config, Rng::from_seed(seed)))
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn replica_set(replicas: i32) -> Object {
    Object::from_json(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "d"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template("a:1")}}))
    .unwrap()
}

fn replication_controller(replicas: i32) -> Object {
    Object::from_json(json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "web", "namespace": "d"},
        "spec": {"replicas": replicas, "selector": {"app": "web"}, "template": template("a:1")}}))
    .unwrap()
}

fn deployment(replicas: i32, image: &str, strategy: Value) -> Object {
    Object::from_json(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 1, "template": template(image)}}))
    .unwrap()
}

/// A cluster with this many managers over a connection that loses a fifth of all requests and delays watch events.
fn bad_cluster(seed: u64, managers: usize) -> Cluster {
    let mut cluster = Cluster::new(seed);
    cluster.loss = 20;
    cluster.lag = Duration::from_secs(3);
    for i in 0..managers {
        cluster.add(manager(&format!("m{i}"), seed * 10 + i as u64));
    }
    cluster
}

fn count_created(cluster: &Cluster, kind: Kind) -> usize {
    cluster.server.created.iter().filter(|k| k.kind == kind).count()
}

fn edit(cluster: &mut Cluster, key: &ObjectKey, patch: &Value) {
    cluster.server.edit(key, |object| {
        let mut value = object.to_json();
        json_patch::merge(&mut value, patch);
        *object = Object::from_json(value).unwrap();
    });
}

fn status(cluster: &Cluster, key: &ObjectKey) -> Value {
    cluster.server.objects[key].to_json()["status"].clone()
}

/// Breaks the connection repeatedly while work is in progress, so that replies are lost and views lag.
fn flap(cluster: &mut Cluster, seed: u64, check: impl Fn(&Cluster)) {
    for i in 0..60 {
        cluster.run_checked(Duration::from_millis(400 + (seed * 97 + i * 131) % 1500), &check);
        cluster.disconnect(0);
    }
}

#[test]
fn lost_replies_and_stale_views_make_no_pod_twice() {
    for (seed, set) in (1..4).flat_map(|seed| [(seed, replica_set(12)), (seed, replication_controller(12))]) {
        for lag in [3, 40] {
            let mut cluster = bad_cluster(seed, 1);
            cluster.lag = Duration::from_secs(lag);
            let now = cluster.now;
            let key = cluster.server.create(now, set.clone()).unwrap().key();
            let check = |c: &Cluster| assert!(c.server.pods().0 <= 12, "seed {seed}, lag {lag}: too many pods");
            flap(&mut cluster, seed, check);
            cluster.run_checked(20 * MINUTE, check);
            assert_eq!(cluster.server.pods(), (12, 12), "seed {seed}, lag {lag}");
            assert_eq!(count_created(&cluster, Kind::POD), 12, "seed {seed}, lag {lag}");
            assert_eq!(status(&cluster, &key)["readyReplicas"], 12, "seed {seed}, lag {lag}");
        }
    }
}

#[test]
fn a_shrinking_set_loses_no_pod_too_many() {
    for seed in 1..6 {
        let mut cluster = bad_cluster(seed, 1);
        let now = cluster.now;
        let key = cluster.server.create(now, replica_set(12)).unwrap().key();
        cluster.run(5 * MINUTE);
        cluster.lag = Duration::from_secs(if seed % 2 == 0 { 3 } else { 40 });
        let check = |c: &Cluster| assert!(c.server.pods().0 >= 4, "seed {seed}: too few pods");
        for replicas in [9, 6, 4] {
            edit(&mut cluster, &key, &json!({"spec": {"replicas": replicas}}));
            // The order in which pods rank for deletion changes all the time.
            for i in 0..20 {
                cluster.run_checked(Duration::from_millis(700), check);
                cluster.disconnect(0);
                let active = |p: &&Object| !p.is_deleting();
                let pods: Vec<ObjectKey> = cluster.server.of(Kind::POD).filter(active).map(Object::key).collect();
                let cost = json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}});
                edit(&mut cluster, &pods[(seed + i) as usize % pods.len()], &cost);
            }
        }
        cluster.run_checked(20 * MINUTE, check);
        assert_eq!(cluster.server.pods(), (4, 4), "seed {seed}");
        assert_eq!(count_created(&cluster, Kind::POD), 12, "seed {seed}");
    }
}

#[test]
fn a_new_leader_makes_no_pod_that_the_old_one_made() {
    for seed in 1..6 {
        let mut cluster = bad_cluster(seed, 2);
        // The lag is longer than it takes to become the leader, so a standby's view is older than its leader's writes.
        cluster.lag = Duration::from_secs(60);
        let now = cluster.now;
        cluster.server.create(now, replica_set(30)).unwrap();
        let check = |c: &Cluster| assert!(c.server.pods().0 <= 30, "seed {seed}: too many pods");
        for life in 0..4 {
            // The two managers die in turn in the middle of their work, and restart without any state.
            cluster.run_checked(Duration::from_secs(15 + 5 * life), check);
            cluster.restart((life % 2) as usize, manager(&format!("m{life}"), seed + 100 + life));
            cluster.run_checked(MINUTE, check);
        }
        cluster.run_checked(20 * MINUTE, check);
        assert_eq!(cluster.server.pods(), (30, 30), "seed {seed}");
        assert_eq!(count_created(&cluster, Kind::POD), 30, "seed {seed}");
    }
}

#[test]
fn a_rollout_keeps_its_bounds_on_a_bad_line() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}});
    for seed in 1..4 {
        let mut cluster = bad_cluster(seed, 1);
        let now = cluster.now;
        let key = cluster.server.create(now, deployment(8, "a:1", strategy.clone())).unwrap().key();
        cluster.run(5 * MINUTE);
        assert_eq!(cluster.server.pods(), (8, 8), "seed {seed}");
        for image in ["a:2", "a:3", "a:4"] {
            edit(&mut cluster, &key, &json!({"spec": {"template": template(image)}}));
            cluster.run_checked(12 * MINUTE, |c| {
                let sizes = c.server.of(Kind::REPLICA_SET).filter_map(Object::get::<ReplicaSet>);
                let size: i32 = sizes.map(|rs| rs.spec.replicas.unwrap()).sum();
                assert!(size <= 10, "seed {seed}: {size} pods are more than the surge allows");
                let (_, ready) = c.server.pods();
                assert!(ready >= 7, "seed {seed}: {ready} ready pods are too few");
            });
            let images: Vec<_> = cluster.server.of(Kind::POD).map(|p| p.to_json()).collect();
            assert!(images.iter().all(|p| p["spec"]["containers"][0]["image"] == image), "seed {seed} {image}");
            assert_eq!(cluster.server.pods(), (8, 8), "seed {seed} {image}");
        }
        let status = status(&cluster, &key);
        assert_eq!((&status["updatedReplicas"], &status["availableReplicas"]), (&json!(8), &json!(8)), "seed {seed}");
        let reasons: Vec<_> = status["conditions"].as_array().unwrap().iter().map(|c| c["reason"].clone()).collect();
        assert!(reasons.contains(&json!("NewReplicaSetAvailable")), "seed {seed}: {reasons:?}");
        // `revisionHistoryLimit` keeps one old ReplicaSet.
        assert_eq!(cluster.server.of(Kind::REPLICA_SET).count(), 2, "seed {seed}");
    }
}

#[test]
fn recreate_runs_no_two_versions_at_once() {
    for seed in 1..5 {
        let mut cluster = bad_cluster(seed, 1);
        let now = cluster.now;
        let key = cluster.server.create(now, deployment(5, "a:1", json!({"type": "Recreate"}))).unwrap().key();
        cluster.run(4 * MINUTE);
        edit(&mut cluster, &key, &json!({"spec": {"template": template("a:2")}}));
        cluster.run_checked(6 * MINUTE, |c| {
            let image = |p: &Object| p.to_json()["spec"]["containers"][0]["image"].clone();
            let mut images: Vec<String> = c.server.of(Kind::POD).map(|p| image(p).to_string()).collect();
            images.sort_unstable();
            images.dedup();
            assert!(images.len() <= 1, "seed {seed}: {images:?}");
        });
        assert_eq!(cluster.server.pods(), (5, 5), "seed {seed}");
    }
}

#[test]
fn a_refused_pod_shows_in_condition_and_event_and_comes_when_it_may() {
    let mut cluster = bad_cluster(1, 1);
    cluster.server.refuse_pods = true;
    let now = cluster.now;
    let key = cluster.server.create(now, replica_set(3)).unwrap().key();
    cluster.run(2 * MINUTE);
    assert_eq!(status(&cluster, &key)["conditions"][0]["reason"], "FailedCreate");
    let reasons: Vec<_> = cluster.server.of(Kind::EVENT).map(|e| e.to_json()["reason"].clone()).collect();
    assert!(reasons.contains(&json!("FailedCreate")), "{reasons:?}");
    cluster.server.refuse_pods = false;
    cluster.run(3 * MINUTE);
    assert_eq!(cluster.server.pods(), (3, 3));
    assert_eq!(status(&cluster, &key)["conditions"], Value::Null);
}

#[test]
fn an_idle_cluster_causes_no_writes_but_renewals() {
    let mut cluster = Cluster::new(1);
    cluster.add(manager("m0", 1));
    let now = cluster.now;
    cluster.server.create(now, deployment(3, "a:1", json!({"type": "RollingUpdate"}))).unwrap();
    cluster.run(3 * MINUTE);
    let before = cluster.server.revision;
    cluster.run(MINUTE);
    let renewals = cluster.server.revision - before;
    assert!((25..=31).contains(&renewals), "{renewals} writes in a minute of rest");
}
