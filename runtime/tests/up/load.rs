//! A load of writes that somebody kills in its middle: ConfigMaps by four writers, and which of them were acknowledged.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::client::Cluster;

/// Where the load is written.
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The names of the ConfigMaps that tests have made.
pub fn names(cluster: &Cluster) -> BTreeSet<String> {
    let list = cluster.get(MAPS).json();
    let all = list["items"].as_array().expect("a list").iter();
    let names = all.map(|map| map["metadata"]["name"].as_str().expect("a name").to_owned());
    // Every namespace has this one.
    names.filter(|name| name != "kube-root-ca.crt").collect()
}

/// Writes for `time`, then calls `kill` while the writers go on. Adds the names that were acknowledged.
pub fn write_until_killed(
    cluster: &Cluster,
    round: usize,
    time: Duration,
    acknowledged: &Mutex<BTreeSet<String>>,
    kill: impl FnOnce(),
) {
    let stop = &AtomicBool::new(false);
    let before = acknowledged.lock().expect("no writer panics").len();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for n in 0.. {
                    let name = format!("m-{round}-{writer}-{n}");
                    let body = json!({"metadata": {"name": name}, "data": {"k": "v".repeat(200)}});
                    if stop.load(Ordering::Relaxed) || !cluster.try_create(MAPS, &body) {
                        return;
                    }
                    acknowledged.lock().expect("no writer panics").insert(name);
                }
            });
        }
        std::thread::sleep(time);
        kill();
        stop.store(true, Ordering::Relaxed);
    });
    let after = acknowledged.lock().expect("no writer panics").len();
    assert!(after > before, "round {round}: it was killed in the middle of writes");
}

/// Kills a cluster by its process id, because the writers hold the `Cluster`.
pub fn kill_9(cluster: &Cluster) {
    let killed = Command::new("kill").args(["-9", &cluster.pid().to_string()]).status();
    assert!(killed.expect("there is a kill").success());
}
