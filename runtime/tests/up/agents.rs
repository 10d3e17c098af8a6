//! Agents in processes of their own, over two servers: they go on when a server is lost, their pods are replaced when
//! they are lost, and they clean up when they are back.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Cluster, PATIENCE, scratch};
use crate::servers::{DEPLOYMENTS, PODS, Servers, TUNED, items, wait_for};

const NODES: &str = "/api/v1/nodes";
/// How long a node's Lease may be silent (40 s), and the time to notice and to evict.
const LOST: Duration = Duration::from_secs(100);

/// A running agent; it is killed when the test ends.
struct Agent {
    child: Child,
    kubeconfig: PathBuf,
    number: usize,
}

impl Agent {
    /// Makes the kubeconfig of a node, and runs its agent.
    fn start(dir: &Path, keys: &Path, number: usize) -> Agent {
        let kubeconfig = dir.join(format!("node-{number}.conf"));
        let mut make = Command::new(env!("CARGO_BIN_EXE_skeg"));
        make.args(["server", "kubeconfig"]).arg(keys).args(["--node", &format!("node-{number}"), "--out"]);
        let made = make.arg(&kubeconfig).output().expect("the binary runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Agent { child: Agent::spawn(&kubeconfig, number), kubeconfig, number }
    }

    fn spawn(kubeconfig: &Path, number: usize) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skeg"));
        command.args(["agent", "--number", &number.to_string(), "--kubeconfig"]).arg(kubeconfig);
        command.stderr(Stdio::inherit()).spawn().expect("the binary runs")
    }

    fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    fn restart(&mut self) {
        self.child = Agent::spawn(&self.kubeconfig, self.number);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a node is `Ready`: `True`, `False` or `Unknown`.
fn ready(server: &Cluster, node: &str) -> Option<String> {
    let node = server.get(&format!("{NODES}/{node}")).json();
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready")?;
    Some(ready["status"].as_str()?.to_owned())
}

/// The pods of the Deployment, and of those that are not being deleted the ones that are ready, by node.
fn pods(server: &Cluster) -> (Vec<Value>, Vec<String>) {
    let list = server.get(&format!("{PODS}?labelSelector=app%3Dweb")).json();
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|c| c["type"] == "Ready" && c["status"] == "True");
        pod["metadata"]["deletionTimestamp"].is_null() && ready.next().is_some()
    };
    let node = |pod: &Value| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    let ready = items(&list).iter().filter(is_ready).map(node).collect();
    (items(&list).clone(), ready)
}

#[test]
fn agents_survive_servers_and_the_workload_survives_agents() {
    let Some(etcd) = crate::etcd::etcd() else { return };
    let mut servers = Servers::start("agents", &etcd.url(), 2, &TUNED);
    let mut agents: Vec<Agent> = (1..=2).map(|n| Agent::start(&scratch("agents"), &servers.keys, n)).collect();
    let nodes = ["node-1", "node-2"];
    let all_ready = |server: &Cluster| {
        nodes.iter().all(|node| server.get(&format!("{NODES}/{node}")).code == 200)
            && nodes.iter().all(|node| ready(server, node).as_deref() == Some("True"))
    };
    wait_for("the nodes are ready", PATIENCE, || all_ready(servers.at(0)));

    let labels = json!({"app": "web"});
    let soon = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
    let tolerations = [soon("node.kubernetes.io/not-ready"), soon("node.kubernetes.io/unreachable")];
    servers.at(0).create(
        DEPLOYMENTS,
        &json!({"metadata": {"name": "web"}, "spec": {"replicas": 4, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"tolerations": tolerations,
                "containers": [{"name": "c", "image": "i"}]}}}}),
    );
    wait_for("the pods are ready", PATIENCE, || pods(servers.at(0)).1.len() == 4);
    let (all, on) = pods(servers.at(0));
    assert!(nodes.iter().all(|node| on.iter().any(|on| on == node)), "both nodes are used: {on:?}");

    // What runs on an agent elsewhere is not looked into, and a client is told why.
    let name = all[0]["metadata"]["name"].as_str().expect("a name");
    let log = servers.at(0).get(&format!("{PODS}/{name}/log"));
    assert!(log.code == 500 && log.text().contains("is run by another process"), "{}", log.text());

    // Each server is lost in turn. The agents go to the other one, and carry out what is asked for there.
    for n in 0..2 {
        servers.lose(n, Cluster::kill);
        let other = servers.at(1 - n);
        let gone = pods(other).0[0]["metadata"]["name"].as_str().expect("a name").to_owned();
        assert_eq!(other.send("DELETE", &format!("{PODS}/{gone}?gracePeriodSeconds=1"), &[], b"").code, 200);
        wait_for("another pod is ready", PATIENCE, || {
            let (all, ready) = pods(other);
            ready.len() == 4 && all.len() == 4 && all.iter().all(|pod| pod["metadata"]["name"] != gone)
        });
        assert!(all_ready(other), "the nodes stay ready");
        servers.restart(n);
    }

    // An agent is lost: its node is not ready, and its pods are replaced on the other one.
    agents[0].kill();
    let took = wait_for("the node is found out", LOST, || ready(servers.at(0), nodes[0]).as_deref() == Some("Unknown"));
    assert!(took > Duration::from_secs(20), "a node is given its time: {took:?}");
    wait_for("the pods are replaced", LOST, || pods(servers.at(1)).1 == vec![nodes[1].to_owned(); 4]);
    let left = |server: &Cluster| pods(server).0.iter().filter(|pod| pod["spec"]["nodeName"] == nodes[0]).count();
    assert!(left(servers.at(0)) > 0, "nobody but its agent can say that what ran there has ended");

    // It is back: what it is not to run any more is gone, and the node takes pods again.
    agents[0].restart();
    wait_for("the old pods are gone", PATIENCE, || left(servers.at(0)) == 0);
    wait_for("the node is ready again", PATIENCE, || all_ready(servers.at(0)));
    assert_eq!(pods(servers.at(0)).0.len(), 4);
}

#[test]
fn an_agent_that_cannot_begin_says_why() {
    let dir = scratch("agents-refused");
    let refused = |text: Option<&str>, expect: &str| {
        let file = dir.join("kubeconfig");
        let _ = std::fs::remove_file(&file);
        if let Some(text) = text {
            std::fs::write(&file, text).expect("it is ours");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_skeg"));
        let out = command.args(["agent", "--kubeconfig"]).arg(&file).output().expect("the binary runs");
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && why.contains(expect), "{text:?}: {why}");
    };
    refused(None, "there is no such file");
    refused(Some("a: ["), "no kubeconfig");
    refused(Some("{}"), "no current-context");
}
