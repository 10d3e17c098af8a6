//! Agents in processes of their own, over two servers: they go on when a server is lost, their pods are replaced when
//! they are lost, and they clean up when they are back.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Cluster, PATIENCE, scratch};
use crate::recording;
use crate::servers::{DEPLOYMENTS, PODS, Servers, TUNED, items, wait_for};

const NODES: &str = "/api/v1/nodes";
/// How long a node's Lease may be silent (40 s), and the time to notice and to evict.
const LOST: Duration = Duration::from_secs(100);

/// A running agent; it is killed when the test ends.
struct Agent {
    child: Child,
    kubeconfig: PathBuf,
    number: usize,
    /// Where it is recorded.
    record: Option<PathBuf>,
}

impl Agent {
    /// Makes the kubeconfig of a node, and runs its agent.
    fn start(dir: &Path, keys: &Path, number: usize) -> Agent {
        Agent::recorded(dir, keys, number, None)
    }

    /// The same, with a recording.
    fn recorded(dir: &Path, keys: &Path, number: usize, record: Option<&Path>) -> Agent {
        let kubeconfig = dir.join(format!("node-{number}.conf"));
        let mut make = Command::new(env!("CARGO_BIN_EXE_skeg"));
        make.args(["server", "kubeconfig"]).arg(keys).args(["--node", &format!("node-{number}"), "--out"]);
        let made = make.arg(&kubeconfig).output().expect("the binary runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let child = Agent::spawn(&kubeconfig, number, None, record);
        Agent { child, kubeconfig, number, record: record.map(Path::to_owned) }
    }

    /// Runs the agent of a node that has nothing but a bootstrap token.
    fn with_token(dir: &Path, bootstrap: &Path, number: usize) -> Agent {
        let kubeconfig = dir.join(format!("node-{number}.conf"));
        if kubeconfig.exists() {
            std::fs::remove_file(&kubeconfig).expect("it is ours");
        }
        Agent { child: Agent::spawn(&kubeconfig, number, Some(bootstrap), None), kubeconfig, number, record: None }
    }

    fn spawn(kubeconfig: &Path, number: usize, bootstrap: Option<&Path>, record: Option<&Path>) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skeg"));
        command.args(["agent", "--number", &number.to_string(), "--kubeconfig"]).arg(kubeconfig);
        if let Some(bootstrap) = bootstrap {
            command.arg("--bootstrap-kubeconfig").arg(bootstrap);
        }
        if let Some(record) = record {
            command.arg("--record").arg(record);
        }
        command.stderr(Stdio::inherit()).spawn().expect("the binary runs")
    }

    fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    fn restart(&mut self) {
        self.child = Agent::spawn(&self.kubeconfig, self.number, None, self.record.as_deref());
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
    let record = recording::empty("agents");
    let recorded = ["--record", record.to_str().expect("paths of tests are text")];
    let mut servers = Servers::start("agents", &etcd.url(), 2, &[&TUNED[..], &recorded].concat());
    let agent = |n| Agent::recorded(&scratch("agents"), &servers.keys, n, Some(&record));
    let mut agents: Vec<Agent> = (1..=2).map(agent).collect();
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

    // A simulated agent has no port, so what it runs is not looked into, and a client is told why.
    let name = all[0]["metadata"]["name"].as_str().expect("a name");
    let log = servers.at(0).get(&format!("{PODS}/{name}/log"));
    assert!(log.code == 500 && log.text().contains("error dialing backend: "), "{}", log.text());

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

    // Each process, in each of its lives, has decided what its machines decide again.
    drop((agents, servers));
    let replayed = recording::replays(&record);
    let count = |name: &str| {
        let machines = replayed["machines"].as_array().expect("a list");
        machines.iter().filter(|machine| machine["machine"] == name).count()
    };
    assert_eq!(["api-server", "scheduler", "agent node-1", "agent node-2"].map(count), [4, 4, 2, 1]);
}

#[test]
fn a_server_that_falls_silent_is_left() {
    let Some(etcd) = crate::etcd::etcd() else { return };
    let servers = Servers::start("agents-silent", &etcd.url(), 2, &TUNED);
    let _agent = Agent::start(&scratch("agents-silent"), &servers.keys, 4);
    let (first, other) = (servers.at(0), servers.at(1));
    wait_for("the node is ready", PATIENCE, || {
        first.get(&format!("{NODES}/node-4")).code == 200 && ready(first, "node-4").as_deref() == Some("True")
    });
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    wait_for("there is the account of pods", PATIENCE, || first.get(account).code == 200);
    let create = |name: &str| {
        let spec = json!({"nodeName": "node-4", "containers": [{"name": "c", "image": "i"}]});
        other.create(PODS, &json!({"metadata": {"name": name}, "spec": spec}));
        wait_for("the pod runs", PATIENCE, || {
            other.get(&format!("{PODS}/{name}")).json()["status"]["phase"] == "Running"
        })
    };
    let usual = create("before");
    // As if its host had vanished: no connection is closed, and nothing comes any more.
    let stopped = Command::new("kill").args(["-STOP", &first.pid().to_string()]).status();
    assert!(stopped.expect("there is a kill").success());
    let took = create("after");
    assert!(took < usual + Duration::from_secs(10), "{took:?}, and {usual:?} before");
}

/// The requests for certificates that were granted, by who asked.
fn granted(server: &Cluster) -> Vec<String> {
    let list = server.get("/apis/certificates.k8s.io/v1/certificatesigningrequests").json();
    let granted = items(&list).iter().filter(|request| request["status"]["certificate"].is_string());
    granted.map(|request| request["spec"]["username"].as_str().expect("a user").to_owned()).collect()
}

#[test]
fn an_agent_joins_by_a_token_and_renews_its_certificate() {
    let Some(etcd) = crate::etcd::etcd() else { return };
    let holds = Duration::from_secs(12);
    let duration = format!("{}s", holds.as_secs());
    let more = [&TUNED[..], &["--cluster-signing-duration", &duration]].concat();
    let mut servers = Servers::start("agents-token", &etcd.url(), 2, &more);
    let dir = scratch("agents-token");
    let bootstrap = dir.join("bootstrap.conf");
    let mut make = Command::new(env!("CARGO_BIN_EXE_skeg"));
    let made = make.args(["server", "token"]).arg(&servers.keys).arg("--out").arg(&bootstrap).output();
    let made = made.expect("the binary runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let secret: Value = serde_saphyr::from_str(&String::from_utf8_lossy(&made.stdout)).expect("a manifest");
    let data = &secret["stringData"];
    let text = |key: &str| data[key].as_str().expect("a text");
    let bearer = format!("Bearer {}.{}", text("token-id"), text("token-secret"));
    let as_bootstrapper =
        |server: &Cluster, path: &str| server.send_as_stranger("GET", path, &[("Authorization", &*bearer)], b"").code;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let a = servers.at(0);
    assert_eq!(as_bootstrapper(a, requests), 401, "there is no such token yet");

    // The agent asks until its token is there.
    let mut agent = Agent::with_token(&dir, &bootstrap, 3);
    a.create(secrets, &secret);
    assert_eq!(as_bootstrapper(servers.at(1), requests), 200, "the other server takes it at once");
    assert_eq!(as_bootstrapper(a, secrets), 403, "it is for nothing else");
    wait_for("the node is ready", PATIENCE, || {
        a.get(&format!("{NODES}/node-3")).code == 200 && ready(a, "node-3").as_deref() == Some("True")
    });
    assert_eq!(granted(a)[0], format!("system:bootstrap:{}", text("token-id")));

    // The certificate is renewed by what it says itself, and what is new is used: the server that the agent goes to is
    // lost after the first certificate has ended.
    std::thread::sleep(holds);
    wait_for("the certificate is renewed", PATIENCE, || granted(a).iter().any(|user| user == "system:node:node-3"));
    let beat = |server: &Cluster| {
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-3";
        server.get(lease).json()["spec"]["renewTime"].clone()
    };
    for n in 0..2 {
        servers.lose(n, Cluster::kill);
        let (other, mut last) = (servers.at(1 - n), Value::Null);
        wait_for("the node's heart beats at the other server", PATIENCE, || {
            let now = beat(other);
            let changed = !last.is_null() && now != last;
            last = now;
            changed
        });
        servers.restart(n);
    }
    assert_eq!(ready(servers.at(0), "node-3").as_deref(), Some("True"));

    // Its certificate ends while it is down: it joins again as it did at first.
    let by_token = |server: &Cluster| granted(server).iter().filter(|user| user.starts_with("system:boot")).count();
    assert_eq!(by_token(servers.at(0)), 0, "its first request has gone with the certificate");
    agent.kill();
    std::thread::sleep(holds);
    agent.child = Agent::spawn(&agent.kubeconfig, agent.number, Some(&bootstrap), None);
    wait_for("it is granted another certificate", PATIENCE, || by_token(servers.at(0)) == 1);
    let (down, mut last) = (beat(servers.at(0)), Value::Null);
    wait_for("the node's heart beats again", PATIENCE, || {
        last = beat(servers.at(0));
        last != down
    });
    let name = secret["metadata"]["name"].as_str().expect("a name");
    assert_eq!(servers.at(0).send("DELETE", &format!("{secrets}/{name}"), &[], b"").code, 200);
    wait_for("the token is no token any more", PATIENCE, || as_bootstrapper(servers.at(0), requests) == 401);
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
