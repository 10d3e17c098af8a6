//! A cluster that is kept in etcd: it works as any other, and nothing that it acknowledged is lost when it or etcd is
//! killed.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Cluster, scratch};
use crate::etcd_server::Server;
use crate::load::{MAPS, kill_9, names, write_until_killed};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// An etcd that listens; `None` if none is installed.
pub fn etcd() -> Option<Server> {
    let server = Server::start()?;
    listens(&server);
    Some(server)
}

/// Waits until an etcd listens.
pub fn listens(server: &Server) {
    let url = server.url();
    let address = url.strip_prefix("http://").expect("a URL");
    server.until_ready(|| TcpStream::connect(address).map_err(|e| e.to_string()));
}

fn start(test: &str, etcd: &Server, nodes: &str) -> Cluster {
    let dir = scratch(test).join("data");
    let dir = dir.to_str().expect("paths of tests are text");
    Cluster::start_with(test, &["--nodes", nodes, "--etcd", &etcd.url(), "--data-dir", dir])
}

#[test]
fn a_deployment_becomes_ready_and_goes_on_after_a_restart() {
    let Some(etcd) = etcd() else { return };
    let mut cluster = start("etcd-deployment", &etcd, "3");
    let labels = json!({"app": "web"});
    cluster.create(
        DEPLOYMENTS,
        &json!({"metadata": {"name": "web"}, "spec": {"replicas": 3, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    );
    let ready = |cluster: &Cluster| cluster.get(&format!("{DEPLOYMENTS}/web")).json()["status"]["readyReplicas"] == 3;
    cluster.wait_for("the pods are ready", || ready(&cluster));
    let pods = |cluster: &Cluster| -> BTreeSet<String> {
        let list = cluster.get("/api/v1/namespaces/default/pods").json();
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().expect("a UID").to_owned();
        list["items"].as_array().expect("a list").iter().map(uid).collect()
    };
    let before = pods(&cluster);
    cluster.kill();
    let cluster = start("etcd-deployment", &etcd, "3");
    cluster.wait_for("the pods are ready again", || ready(&cluster));
    assert_eq!(pods(&cluster), before, "they are the same pods");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_of_either() {
    let Some(mut etcd) = etcd() else { return };
    let acknowledged = Mutex::new(BTreeSet::new());
    let mut cluster = start("etcd-kill", &etcd, "0");
    for kill in 0..4 {
        // Each kill happens at a different moment.
        let time = Duration::from_millis(300 + 83 * kill as u64);
        write_until_killed(&cluster, kill, time, &acknowledged, || {
            if kill % 2 == 0 { etcd.kill() } else { kill_9(&cluster) }
        });
        if kill % 2 == 0 {
            etcd.restart();
            listens(&etcd);
            // The same server comes back by itself.
            cluster.wait_for("it is served again", || cluster.get(MAPS).code == 200);
        } else {
            cluster.kill();
            cluster = start("etcd-kill", &etcd, "0");
        }
        let acknowledged = acknowledged.lock().expect("no writer panics");
        let there = names(&cluster);
        let lost: Vec<&String> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "after {} kills, acknowledged and lost: {lost:?}", kill + 1);
    }
}
