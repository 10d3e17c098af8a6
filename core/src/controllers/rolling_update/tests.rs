use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::step::next_sizes;
use super::{CleanupPolicy, RollingUpdate, RollingUpdateConfig, UpdateState, with_image};
use crate::controllers::testing::Cluster;
use crate::controllers::{ControllerManager, ManagerConfig};
use crate::object::{IntOrString, Kind, Object, ReplicationController};
use crate::random::Rng;

const MINUTE: Duration = Duration::from_secs(60);

fn old(replicas: i32) -> ReplicationController {
    let value = json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "web", "namespace": "d", "labels": {"app": "web"}},
        "spec": {"replicas": replicas, "selector": {"app": "web"}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}}}});
    Object::from_json(value).unwrap().get::<core_v1::ReplicationController>().unwrap().clone()
}

fn config(replicas: i32, image: &str) -> RollingUpdateConfig {
    let new = with_image(&old(replicas), Some("web-2"), None, image, "deployment").unwrap();
    let mut config = RollingUpdateConfig::new("d", "web", new);
    config.update_period = Duration::from_secs(5);
    config.interval = Duration::from_secs(1);
    config
}

/// A cluster with a settled old controller and an update about to start, as clients 0 and 1.
fn cluster(seed: u64, replicas: i32, config: &RollingUpdateConfig) -> Cluster {
    let mut cluster = Cluster::new(seed);
    let manager = ManagerConfig { leader_elect: false, record_events: false, ..ManagerConfig::default() };
    cluster.add(Box::new(ControllerManager::new(manager, Rng::from_seed(seed))));
    let now = cluster.now;
    cluster.server.create(now, Object::ReplicationController(old(replicas))).unwrap();
    cluster.run(2 * MINUTE);
    cluster.loss = 20;
    cluster.lag = Duration::from_secs(2);
    cluster.add(Box::new(RollingUpdate::new(config.clone(), 1, Rng::from_seed(seed))));
    cluster
}

fn controllers(cluster: &Cluster) -> Vec<(String, i32)> {
    let rcs = cluster.server.of(Kind::REPLICATION_CONTROLLER).map(Object::to_json);
    rcs.map(|rc| (rc["metadata"]["name"].as_str().unwrap().to_owned(), rc["spec"]["replicas"].as_i64().unwrap() as i32))
        .collect()
}

fn images(cluster: &Cluster) -> Vec<String> {
    let mut all: Vec<String> = cluster
        .server
        .of(Kind::POD)
        .map(|p| p.to_json()["spec"]["containers"][0]["image"].as_str().unwrap().to_owned())
        .collect();
    all.dedup();
    all
}

/// At any time, at most one replica above the desired number is requested, and the desired number is ready.
fn bounds(c: &Cluster, wanted: i32) {
    let asked: i32 = controllers(c).iter().map(|(_, n)| n).sum();
    assert!(asked <= wanted + 1, "{:?}", controllers(c));
    assert!(c.server.pods().1 as i32 >= wanted, "{} ready pods at {:?}", c.server.pods().1, c.now.mono);
}

#[test]
fn rolls_pod_by_pod_whatever_is_lost() {
    for seed in 1..9 {
        let config = config(4, "a:2");
        let mut c = cluster(seed, 4, &config);
        for restart in 0..6 {
            c.run_checked(MINUTE / 2, |c| bounds(c, 4));
            if restart < 4 {
                c.restart(1, Box::new(RollingUpdate::new(config.clone(), 1, Rng::from_seed(seed + restart))));
            }
        }
        c.run_checked(20 * MINUTE, |c| bounds(c, 4));
        let update: &mut RollingUpdate = c.machine(1);
        assert_eq!(update.state(), &UpdateState::Done, "seed {seed}");
        assert_eq!(controllers(&c), [("web-2".to_owned(), 4)], "seed {seed}");
        assert_eq!((images(&c), c.server.pods()), (vec!["a:2".to_owned()], (4, 4)), "seed {seed}");
    }
}

#[test]
fn says_what_kubectl_says() {
    let mut c = cluster(1, 2, &config(2, "a:2"));
    c.loss = 0;
    c.run(5 * MINUTE);
    let update: &mut RollingUpdate = c.machine(1);
    assert_eq!(
        update.take_messages(),
        [
            "Created web-2",
            "Scaling web-2 up to 1",
            "Scaling web down to 1",
            "Scaling web-2 up to 2",
            "Scaling web down to 0",
            "Update succeeded. Deleting web"
        ]
    );
}

#[test]
fn turns_round_at_any_point() {
    for seed in 1..12 {
        let mut c = cluster(seed, 4, &config(4, "a:2"));
        c.run_checked(Duration::from_secs(6 * seed), |c| bounds(c, 4));
        let now = c.now;
        c.machine::<RollingUpdate>(1).rollback(now);
        let mut back = config(4, "a:2");
        back.rollback = true;
        c.run_checked(MINUTE, |c| bounds(c, 4));
        c.restart(1, Box::new(RollingUpdate::new(back, 1, Rng::from_seed(seed))));
        c.run_checked(6 * MINUTE, |c| bounds(c, 4));
        assert_eq!(c.machine::<RollingUpdate>(1).state(), &UpdateState::Done, "seed {seed}");
        assert_eq!(controllers(&c), [("web".to_owned(), 4)], "seed {seed}");
        assert_eq!(images(&c), ["a:1"], "seed {seed}");
        let rc = c.server.of(Kind::REPLICATION_CONTROLLER).next().unwrap().to_json();
        assert!(rc["metadata"]["annotations"].as_object().is_none_or(|a| a.is_empty()), "seed {seed}: {rc}");
    }
}

#[test]
fn the_new_one_can_take_over_the_name() {
    for seed in 1..6 {
        let mut config = config(3, "a:2");
        config.cleanup = CleanupPolicy::Rename;
        let mut c = cluster(seed, 3, &config);
        for restart in 0..12 {
            c.run_checked(MINUTE / 2, |c| assert!(c.server.pods().1 >= 3));
            if c.machine::<RollingUpdate>(1).state() == &UpdateState::Done {
                break;
            }
            c.restart(1, Box::new(RollingUpdate::new(config.clone(), 1, Rng::from_seed(seed + restart))));
        }
        c.run_checked(15 * MINUTE, |c| assert!(c.server.pods().1 >= 3));
        assert_eq!(controllers(&c), [("web".to_owned(), 3)], "seed {seed}");
        assert_eq!((images(&c), c.server.pods()), (vec!["a:2".to_owned()], (3, 3)), "seed {seed}");
    }
}

#[test]
fn the_old_one_can_stay() {
    let mut config = config(3, "a:2");
    config.cleanup = CleanupPolicy::Preserve;
    let mut c = cluster(1, 3, &config);
    c.run(15 * MINUTE);
    assert_eq!(c.machine::<RollingUpdate>(1).state(), &UpdateState::Done);
    assert_eq!(controllers(&c), [("web".to_owned(), 0), ("web-2".to_owned(), 3)]);
    c.restart(1, Box::new(RollingUpdate::new(config, 1, Rng::from_seed(1))));
    c.run(5 * MINUTE);
    assert_eq!(c.machine::<RollingUpdate>(1).state(), &UpdateState::Done);
}

#[test]
fn a_version_that_does_not_start_costs_nothing() {
    let mut c = cluster(1, 4, &config(4, "broken"));
    c.run_checked(25 * MINUTE, |c| bounds(c, 4));
    let stuck = UpdateState::Failed("timed out waiting for any update progress to be made".to_owned());
    assert_eq!(c.machine::<RollingUpdate>(1).state(), &stuck);
    let now = c.now;
    c.machine::<RollingUpdate>(1).rollback(now);
    c.run_checked(10 * MINUTE, |c| bounds(c, 4));
    assert_eq!(controllers(&c), [("web".to_owned(), 4)]);
}

#[test]
fn the_next_size() {
    let check = |unavailable: Value, surge: Value, sizes, available, desired, expect| {
        let read = |v: Value| serde_json::from_value::<IntOrString>(v).unwrap();
        let mut config = config(1, "a:2");
        (config.max_unavailable, config.max_surge) = (read(unavailable), read(surge));
        assert_eq!(next_sizes(&config, sizes, available, desired), expect, "{sizes:?} {available:?}");
    };
    check(json!(0), json!(1), (4, 0), 0, 4, Some((4, 1)));
    check(json!(0), json!(1), (4, 1), 0, 4, None);
    check(json!(0), json!(1), (4, 1), 1, 4, Some((3, 1)));
    check(json!(1), json!(0), (4, 0), 0, 4, Some((3, 0)));
    check(json!("50%"), json!("50%"), (4, 0), 0, 4, Some((4, 2)));
    check(json!("50%"), json!("50%"), (4, 2), 2, 4, Some((0, 2)));
    check(json!(0), json!(0), (4, 0), 0, 4, Some((4, 1)));
    check(json!(0), json!(1), (1, 4), 4, 4, Some((0, 4)));
    // A broken old version is replaced pod by pod.
    check(json!(0), json!(1), (4, 1), 1, 4, Some((3, 1)));
    check(json!(0), json!(1), (0, 2), 2, 4, Some((0, 4)));
    check(json!(0), json!(1), (4, 0), 0, 0, Some((0, 0)));
    check(json!(0), json!(1), (2, 5), 5, 4, Some((2, 4)));
}

#[test]
fn an_image_needs_its_container() {
    let mut two = old(1);
    let more = core_v1::Container { name: "d".to_owned(), ..Default::default() };
    two.spec_mut().pod_mut().containers.push(more);
    assert!(with_image(&two, None, None, "x", "k").unwrap_err().starts_with("must specify container"));
    assert!(with_image(&two, None, Some("e"), "x", "k").is_err());
    let new = with_image(&two, None, Some("d"), "x", "k").unwrap();
    assert!(new.name().starts_with("web-") && new.spec.selector.as_ref().unwrap().contains_key("k"));
    assert_eq!(two.spec.pod.containers[1].image, None);
}
