//! An operator written with kube-rs, with and without a bug that no calm cluster shows: it counts in its cache what it
//! has made itself, and a cache may be late.

#![cfg(feature = "up")]

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use skeg_runtime::testing::{Builder, Perturb, Service, TestCluster};

/// How the operator names the pods of a pool.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// The API server draws one. Whether there are enough is known from the cache alone.
    Drawn,
    /// By their number: what exists already cannot be made again, whatever the cache says.
    Numbered,
}

fn pod(names: Names, number: i64) -> Pod {
    let metadata = ObjectMeta {
        name: (names == Names::Numbered).then(|| format!("pool-{number}")),
        generate_name: (names == Names::Drawn).then(|| "pool-".to_owned()),
        labels: Some(BTreeMap::from([("pool".to_owned(), "pool".to_owned())])),
        ..ObjectMeta::default()
    };
    let container = Container { name: "c".to_owned(), image: Some("i".to_owned()), ..Container::default() };
    Pod { metadata, spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }), status: None }
}

/// Keeps as many pods as the ConfigMap `pool` says.
async fn operator(service: Service, names: Names) {
    let client = Client::new(service, "default");
    let (pods, pools) = (Api::<Pod>::default_namespaced(client.clone()), Api::<ConfigMap>::default_namespaced(client));
    let (cache, writer) = reflector::store();
    let watched = watcher(pods.clone(), watcher::Config::default().labels("pool=pool"));
    let mut watched = pin!(reflector(writer, watched).default_backoff().touched_objects());
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            biased;
            _ = watched.next() => continue,
            _ = tick.tick() => {}
        }
        if cache.wait_until_ready().now_or_never().is_none() {
            continue;
        }
        let Ok(pool) = pools.get("pool").await else { continue };
        let wanted = pool.data.as_ref().and_then(|data| data.get("size")?.parse::<i64>().ok()).unwrap_or(0);
        let have = match names {
            Names::Drawn => cache.len() as i64,
            Names::Numbered => 0,
        };
        for number in have..wanted {
            // What exists, and what fails, is seen to at the next tick.
            let _ = pods.create(&PostParams::default(), &pod(names, number)).await;
        }
    }
}

/// A pool of three, for two minutes.
async fn a_pool(cluster: TestCluster, names: Names) {
    let pools = Api::<ConfigMap>::default_namespaced(Client::new(cluster.service(), "default"));
    let data = Some(BTreeMap::from([("size".to_owned(), "3".to_owned())]));
    let metadata = ObjectMeta { name: Some("pool".to_owned()), ..ObjectMeta::default() };
    let pool = ConfigMap { data, metadata, ..ConfigMap::default() };
    pools.create(&PostParams::default(), &pool).await.expect("nothing disturbs the test's own client");
    cluster.program("operator", move |service| operator(service, names));
    tokio::time::sleep(Duration::from_secs(120)).await;
    cluster.heal().await;
    let pods = Api::<Pod>::default_namespaced(Client::new(cluster.service(), "default"));
    let count = pods.list(&Default::default()).await.expect("it is listed").items.len();
    assert_eq!(count, 3, "in the end there are as many as wanted");
}

/// What every run is judged by.
fn judged() -> Builder {
    TestCluster::builder().nodes(3).perturb(Perturb::Heavy).invariant("never more than wanted", |objects| match objects
        .list("v1", "pods")
        .len()
    {
        0..=3 => Ok(()),
        count => Err(format!("{count} pods of a pool of 3")),
    })
}

fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    *panic.downcast::<String>().expect("it is told")
}

#[test]
fn the_bug_does_not_show_on_a_calm_cluster() {
    let calm = TestCluster::builder().nodes(3).run(|cluster| a_pool(cluster, Names::Drawn));
    calm.expect("the cache is never late");
}

#[test]
fn a_seed_finds_it_and_shows_what_it_takes() {
    let found = std::panic::catch_unwind(|| judged().check(0..50, |cluster| a_pool(cluster, Names::Drawn)));
    let told = message(found.expect_err("a late cache is among the disturbances of 50 seeds"));
    assert!(told.contains("invariant never more than wanted: 4 pods of a pool of 3"), "{told}");
    assert!(told.contains("with 1 of "), "{told}");
    // The same seed fails alike.
    let again = std::panic::catch_unwind(|| judged().check(0..50, |cluster| a_pool(cluster, Names::Drawn)));
    assert_eq!(message(again.expect_err("it fails again")), told);
}

#[test]
fn without_the_bug_all_seeds_hold() {
    judged().check(0..20, |cluster| a_pool(cluster, Names::Numbered));
}
