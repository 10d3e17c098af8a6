//! Agents that run real containers, over three servers and three members of etcd. Each has a host of its own: a network
//! namespace with an engine in it ([`crate::hosts`]).

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Cluster;
use crate::docker::IMAGE;
use crate::hosts::{Agent, NODES, PATIENCE, SERVICES, Whole, is_true, node};
use crate::recording;
use crate::servers::{PODS, items, wait_for};
use crate::streams::{exec, web_socket};

const DAEMONS: &str = "/apis/apps/v1/namespaces/default/daemonsets";

/// The pods of the DaemonSet by node, once all are ready.
fn daemons(server: &Cluster) -> Vec<Value> {
    let mut pods = Vec::new();
    wait_for("there is a ready pod on each node", PATIENCE, || {
        let list = server.get(&format!("{PODS}?labelSelector=app%3Dweb")).json();
        pods.clone_from(items(&list));
        pods.sort_by_key(|pod| pod["spec"]["nodeName"].to_string());
        let stays = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null() && is_true(pod, "Ready");
        pods.len() == NODES && pods.iter().all(stays)
    });
    pods
}

/// What a pod does before it serves: it finds its token, and reaches the API by its name.
const CHECKS: &str = "test -s /var/run/secrets/kubernetes.io/serviceaccount/token || exit 3; \
    for i in 1 2 3 4 5 6 7 8 9; do exec 3<>/dev/tcp/kubernetes.default/443 && exit 0; sleep 2; done; exit 4";

fn daemon_set() -> Value {
    let labels = json!({"app": "web"});
    let script = "cat /proc/sys/kernel/hostname | tee /tmp/index.html; exec httpd -f -v -p 8080 -h /tmp 2>&1";
    json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 1,
            "initContainers": [{"name": "checks", "image": IMAGE, "command": ["/bin/bash", "-c", CHECKS]}],
            "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", script],
                "ports": [{"containerPort": 8080}],
                "readinessProbe": {"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1}}]}}}})
}

#[test]
fn agents_run_real_containers() {
    let Some(mut whole) = Whole::start("docker-agents", (&[], &[])) else { return };
    let server = whole.servers.at(0);
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    wait_for("there is the account of pods", PATIENCE, || server.get(account).code == 200);
    server.create(DAEMONS, &daemon_set());
    let pods = daemons(server);
    for (n, pod) in pods.iter().enumerate() {
        assert_eq!(pod["spec"]["nodeName"], node(n));
        assert_eq!(pod["status"]["hostIP"], whole.hosts[n].address());
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("it runs");
        let runs = |container: &Value| format!("docker://{}", container["Id"].as_str().unwrap_or_default()) == id;
        assert!(whole.hosts[n].containers().iter().any(runs), "its container is in the engine of its host: {id}");
    }

    // A Service reaches the pod that is on the node itself, by its name.
    let spec = json!({"selector": {"app": "web"}, "internalTrafficPolicy": "Local",
        "ports": [{"port": 80, "targetPort": 8080}]});
    server.create(SERVICES, &json!({"metadata": {"name": "own"}, "spec": spec}));
    for (n, pod) in pods.iter().enumerate() {
        let own = pod["metadata"]["name"].as_str().expect("a name");
        let script = format!(
            "for i in {{1..20}}; do got=$(exec 3<>/dev/tcp/own/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && \
             tail -n 1 <&3); [ \"$got\" = {own} ] && exit 0; sleep 1; done; exit 5"
        );
        let name = format!("client-{n}");
        let container = json!({"name": "c", "image": IMAGE, "command": ["/bin/bash", "-c", script]});
        let spec = json!({"nodeName": node(n), "restartPolicy": "Never", "containers": [container]});
        server.create(PODS, &json!({"metadata": {"name": name}, "spec": spec}));
        let phase = || server.get(&format!("{PODS}/{name}")).json()["status"]["phase"].clone();
        wait_for("the client has asked", PATIENCE, || phase() == "Succeeded" || phase() == "Failed");
        assert_eq!(phase(), "Succeeded", "{own} on {}", node(n));
    }

    for n in 0..3 {
        look_into(whole.servers.at(n), &pods);
        usage_is_shown(whole.servers.at(n), &pods);
    }
    the_port_is_for_servers(&whole, &pods[0]);
    pods_reach_each_other(&whole, &pods);
    claims_are_directories_of_nodes(whole.servers.at(2));

    // A server is lost, and the agents go on.
    whole.servers.lose(0, Cluster::kill);
    let server = whole.servers.at(1);
    let name = pods[1]["metadata"]["name"].as_str().expect("a name");
    assert_eq!(server.send("DELETE", &format!("{PODS}/{name}"), &[], b"").code, 200);
    wait_for("the pod is gone", PATIENCE, || server.get(&format!("{PODS}/{name}")).code == 404);
    let pods = daemons(server);

    // An agent is killed: its containers go on, and are its own again when it is back.
    whole.agents[0].kill();
    let id = |pods: &[Value]| pods[0]["status"]["containerStatuses"][0]["containerID"].clone();
    let before = id(&pods);
    whole.agents[0] = Agent::spawn(&whole.hosts[0], &whole.kubeconfigs[0], &[]);
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", node(0));
    let beat = || server.get(&lease).json()["spec"]["renewTime"].clone();
    let down = beat();
    wait_for("its heart beats again", PATIENCE, || beat() != down);
    let name = pods[0]["metadata"]["name"].as_str().expect("a name");
    std::thread::sleep(Duration::from_secs(2));
    let pods = daemons(server);
    assert_eq!((pods[0]["metadata"]["name"].as_str(), id(&pods)), (Some(name), before));
    assert_eq!(pods[0]["status"]["containerStatuses"][0]["restartCount"], 0);

    // Every machine of every process, of those that were killed, too, decides the same again.
    let record = whole.record.clone();
    drop(whole);
    recording::replays(&record);
}

/// Any server shows what nodes and pods use (`kubectl top`).
fn usage_is_shown(server: &Cluster, pods: &[Value]) {
    let metrics = |path: &str| server.get(&format!("/apis/metrics.k8s.io/v1beta1/{path}")).json();
    let is_measured = |usage: &Value| {
        let memory = usage["memory"].as_str().and_then(|memory| memory.strip_suffix("Ki")?.parse::<u64>().ok());
        usage["cpu"].as_str().is_some_and(|cpu| cpu.ends_with('n')) && memory.is_some_and(|memory| memory > 0)
    };
    let nodes = metrics("nodes");
    let nodes = nodes["items"].as_array().expect("a list");
    assert!(nodes.len() == 3 && nodes.iter().all(|node| is_measured(&node["usage"])), "{nodes:?}");
    let all = metrics("namespaces/default/pods");
    for pod in pods {
        let name = &pod["metadata"]["name"];
        let found = all["items"].as_array().expect("a list").iter().find(|of| of["metadata"]["name"] == *name);
        let containers = &found.unwrap_or_else(|| panic!("{name} in {all}"))["containers"];
        assert!(containers[0]["name"] == "c" && is_measured(&containers[0]["usage"]), "{containers}");
    }
}

/// Any server shows the logs of all nodes' pods, and leads into their containers.
fn look_into(server: &Cluster, pods: &[Value]) {
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let path = |subresource: &str| format!("{PODS}/{name}/{subresource}");
        assert_eq!(server.get(&path("log?container=c&limitBytes=7")).text(), &format!("{name}\n")[..7]);
        let node = pod["spec"]["nodeName"].as_str().expect("it is placed");
        assert_eq!(server.get(&format!("/api/v1/nodes/{node}/proxy/healthz")).text(), "ok");
        let through = server.get(&format!("/api/v1/nodes/{node}/proxy/containerLogs/default/{name}/c?limitBytes=7"));
        assert_eq!(through.text(), &format!("{name}\n")[..7]);
        let refused = server.get(&path("log?container=c&previous=true"));
        assert_eq!(refused.code, 400, "{}", refused.text());
        assert!(refused.text().contains("previous terminated container \\\"c\\\""), "{}", refused.text());

        let [_, out, err, outcome] = exec(server, name, &["sh", "-c", "cat /tmp/index.html; echo oops >&2; exit 3"]);
        assert_eq!((out, err), (format!("{name}\n"), "oops\n".to_owned()));
        assert!(outcome.contains("NonZeroExitCode"), "{outcome}");
        let mut shell = web_socket(server, &path("exec?command=cat&stdin=1&stdout=1"), "v5.channel.k8s.io");
        shell.send(b"\0through");
        shell.send(&[255, 0]);
        let said: Vec<u8> =
            std::iter::from_fn(|| shell.next()).filter(|m| m[0] == 1).flat_map(|m| m[1..].to_vec()).collect();
        assert_eq!(said, b"through");

        let mut forward = web_socket(server, &path("portforward?ports=8080"), "v4.channel.k8s.io");
        for channel in 0..2 {
            assert_eq!(forward.next(), Some(vec![channel, 144, 31]));
        }
        forward.send(b"\0GET / HTTP/1.0\r\n\r\n");
        let mut answer = Vec::new();
        while let Some(message) = forward.next() {
            answer.extend_from_slice(&message[1..]);
        }
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.contains(" 200 ") && answer.ends_with(&format!("{name}\n")), "{answer}");
    }
}

/// The port of an agent answers only who may use it.
fn the_port_is_for_servers(whole: &Whole, pod: &Value) {
    let (at, server) = (whole.hosts[0].address(), whole.servers.at(0));
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let log = format!("/containerLogs/default/{name}/c");
    let answer = server.get_at(&at, 10250, &log);
    assert!(answer.code == 200 && answer.text().starts_with(&format!("{name}\n")), "{}", answer.text());
    assert_eq!(server.get_at(&at, 10250, "/containerLogs/default/nobody/c").code, 404);
    assert_eq!(server.get_at_as_stranger(&at, 10250, &log).code, 401);
    // Another node may not.
    let idle = Command::new("sleep").arg("600").spawn().expect("there is a sleep");
    let other = Cluster::at(idle, at.clone(), whole.kubeconfigs[1].clone());
    let refused = other.get_at(&at, 10250, &log);
    assert_eq!(refused.code, 403);
    assert!(refused.text().contains("user=system:node:host-1, verb=get, resource=nodes"), "{}", refused.text());
    // Its certificate was asked for by the node itself.
    let requests = server.get("/apis/certificates.k8s.io/v1/certificatesigningrequests").json();
    let serves = |request: &&Value| request["spec"]["signerName"] == "kubernetes.io/kubelet-serving";
    let mut users: Vec<_> = items(&requests).iter().filter(serves).map(|r| r["spec"]["username"].to_string()).collect();
    users.sort();
    assert_eq!(users, [0, 1, 2].map(|n| format!("\"system:node:host-{n}\"")));
}

/// A claim gets a directory of the node that its pod is scheduled to, which goes with it.
fn claims_are_directories_of_nodes(server: &Cluster) {
    let (claims, volumes) = ("/api/v1/namespaces/default/persistentvolumeclaims", "/api/v1/persistentvolumes");
    let wants = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}});
    server.create(claims, &json!({"metadata": {"name": "data"}, "spec": wants}));
    let container = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", "echo here > /data/file"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    let spec = json!({"nodeSelector": {"kubernetes.io/hostname": node(1)}, "restartPolicy": "Never",
        "containers": [container], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
    server.create(PODS, &json!({"metadata": {"name": "writes"}, "spec": spec}));
    let phase = || server.get(&format!("{PODS}/writes")).json()["status"]["phase"].clone();
    wait_for("it has written", PATIENCE, || phase() == "Succeeded");
    let volume = server.get(volumes).json()["items"][0].clone();
    assert_eq!(volume["metadata"]["labels"]["skeg.dev/directory-of"], node(1), "{volume}");
    let path = volume["spec"]["hostPath"]["path"].as_str().expect("it is a directory").to_owned();
    assert_eq!(std::fs::read_to_string(format!("{path}/file")).expect("hosts share it here"), "here\n");
    for path in [format!("{PODS}/writes"), format!("{claims}/data")] {
        assert_eq!(server.send("DELETE", &path, &[], b"").code, 200);
    }
    wait_for("the volume goes with its claim", PATIENCE, || items(&server.get(volumes).json()).is_empty());
    wait_for("and its directory", PATIENCE, || !std::path::Path::new(&path).exists());
}

/// Who answers at a place of the cluster, asked from a pod a number of times.
fn answers(server: &Cluster, from: &str, place: &str) -> BTreeSet<String> {
    let script = format!(
        "for i in {{1..20}}; do exec 3<>/dev/tcp/{place} || exit; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; \
         tail -n 1 <&3; done"
    );
    let [_, out, ..] = exec(server, from, &["timeout", "20", "/bin/bash", "-c", &script]);
    out.lines().map(str::to_owned).collect()
}

/// Pods of different nodes reach each other by their own addresses, and by Services.
fn pods_reach_each_other(whole: &Whole, pods: &[Value]) {
    let server = whole.servers.at(0);
    let nodes = server.get("/api/v1/nodes").json();
    let ranges: Vec<_> = items(&nodes).iter().map(|node| node["spec"]["podCIDR"].clone()).collect();
    assert_eq!(json!(ranges), json!(["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]));
    let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
    server.create(SERVICES, &json!({"metadata": {"name": "all"}, "spec": spec}));
    let name = |pod: &Value| pod["metadata"]["name"].as_str().expect("a name").to_owned();
    let all: BTreeSet<String> = pods.iter().map(name).collect();
    for from in pods {
        for to in pods {
            let address = to["status"]["podIP"].as_str().expect("it runs");
            let got = answers(server, &name(from), &format!("{address}/8080"));
            assert_eq!(got, BTreeSet::from([name(to)]), "{} asks {}", name(from), name(to));
            // Who answers sees who asked.
            let log = || server.get(&format!("{PODS}/{}/log?container=c", name(to))).text();
            let source = format!("[::ffff:{}]:", from["status"]["podIP"].as_str().expect("it runs"));
            wait_for("the source is in the log of who answers", PATIENCE, || log().contains(&source));
        }
        wait_for("the Service has its endpoints", PATIENCE, || answers(server, &name(from), "all/80") == all);
    }
}
