//! Agents that run real containers, over three servers and three members of etcd. Each has a host of its own: a network
//! namespace with an engine in it. As the tests of [`crate::docker`], these are skipped where that cannot be.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Cluster, scratch};
use crate::docker::{IMAGE, busybox, engine_at, make_image, skip};
use crate::etcd_server::Server;
use crate::recording;
use crate::servers::{PODS, Servers, TUNED, items, wait_for};
use crate::streams::{exec, web_socket};

const NODES: usize = 3;
/// How long containers may take.
const PATIENCE: Duration = Duration::from_secs(120);
const DAEMONS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const SERVICES: &str = "/api/v1/namespaces/default/services";
/// The address of the servers, on the network that all hosts are on.
const SERVERS: &str = "10.213.77.1";

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Runs `ip` with the words of a line.
fn ip(line: &str) -> Result<String, String> {
    run("ip", &line.split(' ').collect::<Vec<_>>()).map_err(|why| format!("ip {line}: {why}"))
}

/// The network of all hosts: a bridge in a namespace of its own, for a bridge beside another engine's rules forwards
/// nothing.
struct Network;

impl Network {
    fn make() -> Result<Network, String> {
        let _ = ip("netns del skeg-hub");
        let network = Network;
        for line in [
            "netns add skeg-hub",
            "-n skeg-hub link add hub type bridge",
            "-n skeg-hub link set hub up",
            "link add skeg-servers type veth peer name servers netns skeg-hub",
            "-n skeg-hub link set servers master hub up",
            &format!("addr add {SERVERS}/24 dev skeg-servers"),
            "link set skeg-servers up",
        ] {
            ip(line)?;
        }
        Ok(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The pair that leads to it goes with it.
        let _ = ip("netns del skeg-hub");
    }
}

/// A host: namespaces of network and mounts, with an engine in them. All is gone when it is dropped.
struct Host {
    number: usize,
    dir: PathBuf,
    /// Holds the namespaces.
    init: Option<Child>,
    engine: Option<Child>,
}

/// What holds a host's namespaces: `/sys` is of its network, and has the control groups that an engine needs.
const INIT: &str = "mkdir -p $0/groups && mount --rbind /sys/fs/cgroup $0/groups && mount -t sysfs none /sys && \
    mount --rbind $0/groups /sys/fs/cgroup && echo ready && exec sleep 3600";

impl Host {
    fn make(number: usize, busybox: &str) -> Result<Host, String> {
        let name = Host::name(number);
        let dir = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let _ = ip(&format!("netns del {name}"));
        let mut host = Host { number, dir, init: None, engine: None };
        for line in [
            format!("netns add {name}"),
            format!("-n {name} link set lo up"),
            format!("link add eth0 netns {name} type veth peer name host{number} netns skeg-hub"),
            format!("-n skeg-hub link set host{number} master hub up"),
            format!("-n {name} addr add {}/24 dev eth0", host.address()),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add default via {SERVERS}"),
        ] {
            ip(&line)?;
        }
        host.begin()?;
        host.start_engine()?;
        // As an engine does where it was it that made the host forward packets.
        let dropped = host.command("iptables").args(["-P", "FORWARD", "DROP"]).status();
        dropped.map_err(|e| e.to_string())?;
        make_image(&host.socket(), busybox);
        Ok(host)
    }

    fn name(number: usize) -> String {
        format!("skeg-host-{number}")
    }

    fn address(&self) -> String {
        format!("10.213.77.{}", 10 + self.number)
    }

    fn socket(&self) -> String {
        self.dir.join("sock").display().to_string()
    }

    /// A command that runs on this host.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let init = self.init.as_ref().expect("it has begun").id().to_string();
        command.args(["--target", &init, "--mount", "--net", program]);
        command
    }

    fn begin(&mut self) -> Result<(), String> {
        std::fs::create_dir_all(&self.dir).map_err(|e| e.to_string())?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", Host::name(self.number)));
        command.args(["unshare", "--mount", "--propagation", "private", "sh", "-c", INIT]).arg(&self.dir);
        let mut init = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("nsenter: {e}"))?;
        let mut line = String::new();
        let read = BufReader::new(init.stdout.take().expect("it is piped")).read_line(&mut line);
        self.init = Some(init);
        if read.is_ok() && line == "ready\n" { Ok(()) } else { Err(format!("its namespaces are not made: {line:?}")) }
    }

    fn start_engine(&mut self) -> Result<(), String> {
        let log = std::fs::File::create(self.dir.join("log")).map_err(|e| e.to_string())?;
        let mut command = self.command("dockerd");
        for (flag, file) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(flag).arg(self.dir.join(file));
        }
        command.args([
            "--host",
            &format!("unix://{}", self.socket()),
            "--bip",
            &format!("10.244.{}.1/24", self.number),
        ]);
        let logs = log.try_clone().map_err(|e| e.to_string())?;
        command.stdin(Stdio::null()).stdout(log).stderr(logs);
        self.engine = Some(command.spawn().map_err(|e| format!("dockerd: {e}"))?);
        wait_for("the engine answers", PATIENCE, || {
            matches!(engine_at(&self.socket(), "GET", "/_ping", b""), Some((200, _)))
        });
        Ok(())
    }

    /// The containers of this host, running or not, by name.
    fn containers(&self) -> Vec<Value> {
        let listed = engine_at(&self.socket(), "GET", "/containers/json?all=1", b"");
        let (_, body) = listed.filter(|(code, _)| *code == 200).unwrap_or_default();
        serde_json::from_slice(&body).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            for container in self.containers() {
                let id = container["Id"].as_str().unwrap_or_default();
                let _ = engine_at(&self.socket(), "DELETE", &format!("/containers/{id}?force=1"), b"");
            }
            let _ = run("kill", &["-TERM", &engine.id().to_string()]);
            let _ = engine.wait();
        }
        if let Some(mut init) = self.init.take() {
            let _ = init.kill();
            let _ = init.wait();
        }
        let _ = ip(&format!("netns del {}", Host::name(self.number)));
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// An agent on a host. It is killed when it is dropped.
struct Agent {
    child: Child,
}

impl Agent {
    fn spawn(host: &Host, kubeconfig: &Path) -> Agent {
        let mut command = host.command(env!("CARGO_BIN_EXE_skeg"));
        let node = node(host.number);
        command.args(["agent", "--docker", "--docker-host", &host.socket(), "--node-name", &node, "--kubeconfig"]);
        command.arg(kubeconfig).arg("--root-dir").arg(host.dir.join("pods"));
        command.arg("--record").arg(kubeconfig.with_file_name("recordings"));
        Agent { child: command.stderr(Stdio::inherit()).spawn().expect("the binary runs") }
    }

    fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn node(number: usize) -> String {
    format!("host-{number}")
}

/// Three servers and three hosts with their agents. What comes first is ended first.
struct Whole {
    agents: Vec<Agent>,
    kubeconfigs: Vec<PathBuf>,
    hosts: Vec<Host>,
    servers: Servers,
    _etcd: Vec<Server>,
    _network: Network,
    /// Where servers and agents are recorded.
    record: PathBuf,
}

impl Whole {
    fn start(test: &str) -> Option<Whole> {
        let what = "what agents with Docker do";
        let root = rustix::process::geteuid().is_root();
        let Some(busybox) = busybox().filter(|_| root) else {
            skip(what, "only root may run them, with a static busybox (apt-get install busybox-static)");
            return None;
        };
        for program in ["dockerd", "ip", "nft"] {
            if let Err(why) = run(program, &[if program == "ip" { "-V" } else { "--version" }]) {
                skip(what, &format!("{why} (apt-get install docker.io iproute2 nftables)"));
                return None;
            }
        }
        let etcd = Server::members(3)?;
        etcd.iter().for_each(crate::etcd::listens);
        let network = Network::make().expect("root may make networks");
        let hosts: Vec<Host> = (0..NODES).map(|n| Host::make(n, busybox).expect("root may make hosts")).collect();
        let urls: Vec<String> = etcd.iter().map(Server::url).collect();
        let record = recording::empty(test);
        let more = [&TUNED[..], &["--record", record.to_str().expect("text")]].concat();
        let servers = Servers::start_at(test, &urls.join(","), 3, SERVERS, &more);
        let kubeconfigs = (0..NODES).map(|n| {
            let path = scratch(test).join(format!("{}.conf", node(n)));
            let mut make = Command::new(env!("CARGO_BIN_EXE_skeg"));
            make.args(["server", "kubeconfig"]).arg(&servers.keys).args(["--node", &node(n), "--out"]);
            let made = make.arg(&path).output().expect("the binary runs");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            path
        });
        let kubeconfigs: Vec<PathBuf> = kubeconfigs.collect();
        let agents = hosts.iter().zip(&kubeconfigs).map(|(host, file)| Agent::spawn(host, file)).collect();
        let whole = Whole { agents, kubeconfigs, hosts, servers, _etcd: etcd, _network: network, record };
        wait_for("all nodes are ready", PATIENCE, || {
            let nodes = whole.servers.at(0).get("/api/v1/nodes").json();
            items(&nodes).len() == NODES && items(&nodes).iter().all(|node| is_true(node, "Ready"))
        });
        Some(whole)
    }
}

fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == condition && c["status"] == "True")
}

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
    let Some(mut whole) = Whole::start("docker-agents") else { return };
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
    whole.agents[0] = Agent::spawn(&whole.hosts[0], &whole.kubeconfigs[0]);
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
