//! Hosts for tests of whole clusters: network namespaces on one network, whose links a test may cut; members of etcd,
//! servers, and agents with engines of their own in them. Skipped, and said to be, where that cannot be.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::client::scratch;
use crate::docker::{busybox, engine_at, make_image, skip};
use crate::etcd_server::{Place, Server};
use crate::recording;
use crate::servers::{Servers, TUNED, items, wait_for};

pub const NODES: usize = 3;
/// How long containers may take.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const SERVICES: &str = "/api/v1/namespaces/default/services";
/// The address of the test, on the network that all hosts are on; also of servers that have no host of their own.
const OWN: &str = "10.213.77.1";

/// There is one network of this name, so one test uses it at a time.
static NETWORK: Mutex<()> = Mutex::new(());

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
pub struct Network {
    /// The hosts that have none but the network: servers and members of etcd.
    bare: Vec<String>,
    _one: MutexGuard<'static, ()>,
}

impl Network {
    fn make() -> Result<Network, String> {
        // Another test's panic says nothing about the network.
        let one = NETWORK.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ip("netns del skeg-hub");
        let network = Network { bare: Vec::new(), _one: one };
        for line in [
            "netns add skeg-hub",
            "-n skeg-hub link add hub type bridge",
            "-n skeg-hub link set hub up",
            "link add skeg-servers type veth peer name servers netns skeg-hub",
            "-n skeg-hub link set servers master hub up",
            &format!("addr add {OWN}/24 dev skeg-servers"),
            "link set skeg-servers up",
        ] {
            ip(line)?;
        }
        Ok(network)
    }

    /// Adds a host that is a network namespace and no more, at this address of the network.
    fn add(&mut self, port: &str, number: u8) -> Result<Place, String> {
        let (name, address) = (format!("skeg-{port}"), format!("10.213.77.{number}"));
        join(&name, port, &address)?;
        self.bare.push(name.clone());
        Ok(Place { ip: address, within: vec!["nsenter".to_owned(), format!("--net=/run/netns/{name}")] })
    }

    /// Cuts links: packets from and to the first are dropped, or those between both. No others are.
    pub fn cut(&self, links: &[(&str, Option<&str>)]) {
        let rule = |(port, other): &(&str, Option<&str>)| match other {
            None => format!("iifname {port} drop; oifname {port} drop;"),
            Some(other) => {
                format!("iifname {port} oifname {other} drop; iifname {other} oifname {port} drop;")
            }
        };
        let rules: Vec<String> = links.iter().map(rule).collect();
        let table = format!(
            "table bridge cut {{}}; delete table bridge cut; table bridge cut {{ chain forward {{ type filter hook \
             forward priority 0; {} }}; }}",
            rules.join(" ")
        );
        let cut = run("ip", &["netns", "exec", "skeg-hub", "nft", &table]);
        assert_eq!(cut, Ok(String::new()), "{table}");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.bare.iter().map(String::as_str).chain(["skeg-hub"]) {
            // The pairs that lead to it go with it.
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// Makes a network namespace with an address on the network.
fn join(name: &str, port: &str, address: &str) -> Result<(), String> {
    let _ = ip(&format!("netns del {name}"));
    for line in [
        format!("netns add {name}"),
        format!("-n {name} link set lo up"),
        format!("link add eth0 netns {name} type veth peer name {port} netns skeg-hub"),
        format!("-n skeg-hub link set {port} master hub up"),
        format!("-n {name} addr add {address}/24 dev eth0"),
        format!("-n {name} link set eth0 up"),
        format!("-n {name} route add default via {OWN}"),
    ] {
        ip(&line)?;
    }
    Ok(())
}

/// A host: namespaces of network and mounts, with an engine in them. All is gone when it is dropped.
pub struct Host {
    pub number: usize,
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
        let mut host = Host { number, dir, init: None, engine: None };
        join(&name, &Host::port(number), &host.address())?;
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

    /// Its port of the network.
    pub fn port(number: usize) -> String {
        format!("host{number}")
    }

    pub fn address(&self) -> String {
        format!("10.213.77.{}", 10 + self.number)
    }

    fn socket(&self) -> String {
        self.dir.join("sock").display().to_string()
    }

    /// A command that runs on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let init = self.init.as_ref().expect("it has begun").id().to_string();
        command.args(["--target", &init, "--mount", "--net", program]);
        command
    }

    /// Moves this thread into the network of the host of this number, for good.
    pub fn enter(number: usize) {
        let network = std::fs::File::open(format!("/run/netns/{}", Host::name(number))).expect("it has one");
        let moved = move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network));
        moved.expect("root may move");
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
    pub fn containers(&self) -> Vec<Value> {
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
pub struct Agent {
    child: Child,
}

impl Agent {
    /// `more` are further arguments.
    pub fn spawn(host: &Host, kubeconfig: &Path, more: &[&str]) -> Agent {
        let mut command = host.command(env!("CARGO_BIN_EXE_skeg"));
        let node = node(host.number);
        command.args(["agent", "--docker", "--docker-host", &host.socket(), "--node-name", &node, "--kubeconfig"]);
        command.arg(kubeconfig).arg("--root-dir").arg(host.dir.join("pods"));
        // This host's disk may be full enough for the images of the tests to be removed, and their pods to be evicted.
        command.args(["--image-gc-high-threshold", "100", "--eviction-hard", "memory.available<1Mi"]);
        command.arg("--record").arg(kubeconfig.with_file_name("recordings")).args(more);
        Agent { child: command.stderr(Stdio::inherit()).spawn().expect("the binary runs") }
    }

    pub fn kill(&mut self) {
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

pub fn node(number: usize) -> String {
    format!("host-{number}")
}

/// Three servers, three members of etcd, and three hosts with their agents. What comes first is ended first.
pub struct Whole {
    pub agents: Vec<Agent>,
    pub kubeconfigs: Vec<PathBuf>,
    pub hosts: Vec<Host>,
    pub servers: Servers,
    pub etcd: Vec<Server>,
    pub network: Network,
    /// Where servers and agents are recorded.
    pub record: PathBuf,
}

impl Whole {
    /// `more` are further arguments of servers, and of agents.
    pub fn start(test: &str, more: (&[&str], &[&str])) -> Option<Whole> {
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
        let mut network = Network::make().expect("root may make networks");
        let mut places = |name: &str, first: u8| -> Vec<Place> {
            let place = |n: u8| network.add(&format!("{name}{n}"), first + n).expect("root may make networks");
            (0..3).map(place).collect()
        };
        let (members, servers) = (places("etcd", 30), places("server", 20));
        let etcd = Server::members_at(members.into_iter().map(|place| (place, [2379, 2380])).collect())?;
        etcd.iter().for_each(crate::etcd::listens);
        let hosts: Vec<Host> = (0..NODES).map(|n| Host::make(n, busybox).expect("root may make hosts")).collect();
        let urls: Vec<String> = etcd.iter().map(Server::url).collect();
        let record = recording::empty(test);
        let (of_servers, of_agents) = more;
        let more = [&TUNED[..], &["--record", record.to_str().expect("text")], of_servers].concat();
        let servers = Servers::start_at(test, &urls.join(","), servers, &more);
        let kubeconfigs = (0..NODES).map(|n| {
            let path = scratch(test).join(format!("{}.conf", node(n)));
            let mut make = Command::new(env!("CARGO_BIN_EXE_skeg"));
            make.args(["server", "kubeconfig"]).arg(&servers.keys).args(["--node", &node(n), "--out"]);
            let made = make.arg(&path).output().expect("the binary runs");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            path
        });
        let kubeconfigs: Vec<PathBuf> = kubeconfigs.collect();
        let agents = hosts.iter().zip(&kubeconfigs).map(|(host, file)| Agent::spawn(host, file, of_agents));
        let agents = agents.collect();
        let whole = Whole { agents, kubeconfigs, hosts, servers, etcd, network, record };
        wait_for("all nodes are ready", PATIENCE, || {
            let nodes = whole.servers.at(0).get("/api/v1/nodes").json();
            items(&nodes).len() == NODES && items(&nodes).iter().all(|node| is_true(node, "Ready"))
        });
        Some(whole)
    }
}

pub fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == condition && c["status"] == "True")
}
