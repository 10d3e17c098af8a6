//! Several servers over one etcd: they are one API, one of them leads, and neither the loss of any server or member of
//! etcd nor a restart in order loses what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Cluster, PATIENCE, scratch};
use crate::etcd_server::{Place, Server, free_ports};
use crate::load::MAPS;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
/// Times of an election that fails over in seconds.
pub const TUNED: [&str; 6] = [
    "--leader-elect-lease-duration",
    "2s",
    "--leader-elect-renew-deadline",
    "1500ms",
    "--leader-elect-retry-period",
    "300ms",
];

/// Several servers of a cluster, and how each is started.
pub struct Servers {
    /// The directory of keys.
    pub keys: PathBuf,
    etcd: String,
    places: Vec<Place>,
    ports: Vec<u16>,
    more: Vec<String>,
    /// `None` while a server is down.
    running: Vec<Option<Cluster>>,
}

impl Servers {
    /// Starts `count` servers with these arguments; `{n}` in them is the server's number.
    pub fn start(test: &str, etcd: &str, count: usize, more: &[&str]) -> Servers {
        let here = || Place { ip: "127.0.0.1".to_owned(), within: Vec::new() };
        Servers::start_with(test, etcd, free_ports(count).into_iter().map(|port| (here(), port)).collect(), more)
    }

    /// Starts a server at each place.
    pub fn start_at(test: &str, etcd: &str, places: Vec<Place>, more: &[&str]) -> Servers {
        Servers::start_with(test, etcd, places.into_iter().map(|place| (place, 6443)).collect(), more)
    }

    fn start_with(test: &str, etcd: &str, places: Vec<(Place, u16)>, more: &[&str]) -> Servers {
        let (keys, count) = (scratch(test).join("pki"), places.len());
        let (places, ports): (Vec<Place>, Vec<u16>) = places.into_iter().unzip();
        if keys.exists() {
            std::fs::remove_dir_all(&keys).expect("it is ours");
        }
        let urls = places.iter().zip(&ports).map(|(place, port)| format!("https://{}:{port}", place.ip));
        let urls: Vec<String> = urls.collect();
        let mut init = Command::new(env!("CARGO_BIN_EXE_skeg"));
        let made = init.args(["server", "init"]).arg(&keys).args(["--servers", &urls.join(",")]).output();
        let made = made.expect("the binary runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let more = more.iter().map(|arg| (*arg).to_owned()).collect();
        let running = (0..count).map(|_| None).collect();
        let mut servers = Servers { keys, etcd: etcd.to_owned(), places, ports, more, running };
        // All begin at once, on an etcd that is empty.
        let begun: Vec<Cluster> = (0..count).map(|n| servers.spawn(n)).collect();
        for (n, server) in begun.into_iter().enumerate() {
            server.wait_for("the server is ready", || server.get("/readyz").code == 200);
            servers.running[n] = Some(server);
        }
        servers
    }

    fn spawn(&self, n: usize) -> Cluster {
        let address = format!("{}:{}", self.places[n].ip, self.ports[n]);
        let mut command = self.places[n].command(env!("CARGO_BIN_EXE_skeg"));
        command.args(["server", "--listen", &address, "--etcd", &self.etcd, "--pki"]).arg(&self.keys);
        command.args(["--advertise-address", &self.advertised(n)]);
        command.args(self.more.iter().map(|arg| arg.replace("{n}", &n.to_string())));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the binary runs");
        let mut line = String::new();
        let read = BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line);
        assert!(read.is_ok() && line.starts_with("serving "), "it says that it serves: {line:?}");
        Cluster::at(child, address, self.keys.join("admin.conf"))
    }

    /// The address by which others reach a server: nobody does at the loopback address.
    fn advertised(&self, n: usize) -> String {
        let ip = &self.places[n].ip;
        if ip == "127.0.0.1" { format!("10.9.8.{n}") } else { ip.clone() }
    }

    /// Starts a server again, and waits until it is ready.
    pub fn restart(&mut self, n: usize) {
        let server = self.spawn(n);
        server.wait_for("the server is ready again", || server.try_get("/readyz").is_some_and(|a| a.code == 200));
        self.running[n] = Some(server);
    }

    /// Kills a server as `kill -9` does, whoever leads.
    pub fn kill(&mut self, n: usize) {
        self.running[n].take().expect("it runs").kill();
    }

    /// A server that runs.
    pub fn at(&self, n: usize) -> &Cluster {
        self.running[n].as_ref().expect("it runs")
    }

    /// Asks any server that answers.
    fn get(&self, path: &str) -> Option<Value> {
        let answers = self.running.iter().flatten().filter_map(|server| server.try_get(path));
        answers.into_iter().find(|answer| answer.code == 200).map(|answer| answer.json())
    }

    /// Which process leads the controllers, and how many did before.
    fn leader(&self) -> Option<(String, i64)> {
        let spec = self.get(&format!("{LEASES}/kube-controller-manager"))?["spec"].clone();
        Some((spec["holderIdentity"].as_str()?.to_owned(), spec["leaseTransitions"].as_i64().unwrap_or(0)))
    }

    /// Ends a server by `end`. If it led, waits until another one does; returns how long that took.
    pub fn lose(&mut self, n: usize, end: impl FnOnce(&mut Cluster)) -> Option<Duration> {
        let mut leader = None;
        wait_for("somebody leads", PATIENCE, || {
            leader = self.leader();
            leader.is_some()
        });
        let (holder, transitions) = leader.expect("somebody leads");
        // The server's own Lease says by which name its process takes part in elections.
        let leases = self.get(LEASES).expect("a server answers");
        let at = format!("{}:{}", self.advertised(n), self.ports[n]);
        let own = items(&leases).iter().find(|lease| lease["metadata"]["annotations"]["skeg.dev/serves-at"] == at);
        let led = own.expect("each server has a Lease")["spec"]["holderIdentity"] == holder;
        end(&mut self.running[n].take().expect("it runs"));
        led.then(|| {
            let follows = |(now, count): (String, i64)| now != holder && count > transitions;
            wait_for("another server leads", PATIENCE, || self.leader().is_some_and(follows))
        })
    }
}

impl Cluster {
    fn try_get(&self, path: &str) -> Option<Answer> {
        self.try_send("GET", path, b"")
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("there is a kill").success());
    }

    fn terminate(&self) {
        self.signal("TERM");
    }
}

/// The objects of a list.
pub fn items(list: &Value) -> &Vec<Value> {
    list["items"].as_array().expect("a list")
}

fn names(list: &Value) -> BTreeSet<String> {
    items(list).iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

fn addresses(endpoints: &Value) -> BTreeSet<String> {
    let subsets = endpoints["subsets"].as_array().into_iter().flatten();
    let all = subsets.flat_map(|subset| subset["addresses"].as_array().into_iter().flatten());
    all.map(|address| address["ip"].as_str().expect("an IP").to_owned()).collect()
}

/// Waits until a condition holds; returns how long that took.
pub fn wait_for(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

#[test]
fn several_servers_are_one_api() {
    let Some(etcd) = crate::etcd::etcd() else { return };
    let mut servers = Servers::start("servers-api", &etcd.url(), 2, &["--shutdown-delay-duration", "500ms"]);
    let (a, b) = (servers.at(0), servers.at(1));

    // A controller makes this one, at some time.
    wait_for("the namespace has its certificates", PATIENCE, || a.get(&format!("{MAPS}/kube-root-ca.crt")).code == 200);
    // What one acknowledged, the other shows: reads are consistent, and a watch goes on where the other's ended.
    let mut revision = a.get(MAPS).json()["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    for n in 0..20 {
        let (here, there) = if n % 2 == 0 { (a, b) } else { (b, a) };
        let made = here.create(MAPS, &json!({"metadata": {"name": format!("m-{n}")}}));
        assert_eq!(there.get(&format!("{MAPS}/m-{n}")).code, 200, "m-{n} is read at the other server");
        let listed = there.get(MAPS).json();
        assert!(items(&listed).iter().any(|map| map["metadata"]["name"] == format!("m-{n}")), "m-{n} is listed there");
        let seen = there.watch(&format!("{MAPS}?watch=1&resourceVersion={revision}"), 1);
        assert_eq!(seen[0]["object"]["metadata"]["uid"], made["metadata"]["uid"]);
        revision = made["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    }

    // A definition that one has established is served by the other at once.
    for n in 0..5 {
        let (here, there) = if n % 2 == 0 { (a, b) } else { (b, a) };
        let (plural, kind) = (format!("things{n}"), format!("Thing{n}"));
        let name = format!("{plural}.example.com");
        here.create(
            DEFINITIONS,
            &json!({"metadata": {"name": name}, "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": plural, "kind": kind, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}),
        );
        let established = || {
            let status = here.get(&format!("{DEFINITIONS}/{name}")).json()["status"].clone();
            let all = status["conditions"].as_array().cloned().unwrap_or_default();
            all.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
        };
        wait_for("the definition is established", PATIENCE, established);
        let things = format!("/apis/example.com/v1/namespaces/default/{plural}");
        there.create(&things, &json!({"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "x"}}));
        assert_eq!(here.get(&format!("{things}/x")).code, 200);
        assert_eq!(there.get("/apis/example.com/v1/namespaces/default/nothings").code, 404);
    }

    // A token for an account that the other server made, used at the other again.
    for n in 0..5 {
        let (here, there) = if n % 2 == 0 { (a, b) } else { (b, a) };
        here.create(ACCOUNTS, &json!({"metadata": {"name": format!("bot-{n}")}}));
        let made = there.create(&format!("{ACCOUNTS}/bot-{n}/token"), &json!({"spec": {}}));
        let bearer = format!("Bearer {}", made["status"]["token"].as_str().expect("a token"));
        let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
        let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        assert_eq!(here.send_as_stranger("POST", who, &headers, b"{}").code, 201);
    }

    no_address_twice(a, b);
    a_quota_holds(a, b);

    // Both are endpoints of the Service `kubernetes`, and have a Lease.
    let both = ["10.9.8.0", "10.9.8.1"].map(str::to_owned).into();
    wait_for("both servers are endpoints", PATIENCE, || addresses(&a.get(ENDPOINTS).json()) == both);
    let selector = "labelSelector=apiserver.kubernetes.io/identity%3Dkube-apiserver";
    assert_eq!(items(&a.get(&format!("{LEASES}?{selector}")).json()).len(), 2);

    // One ends in order: first it is not ready, then its watches end whole, and it is no endpoint any more.
    let watching = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| b.watch_to_its_end(&format!("{MAPS}?watch=1&resourceVersion={revision}")));
        std::thread::sleep(Duration::from_millis(200));
        b.terminate();
        wait_for("it is not ready", PATIENCE, || b.try_get("/readyz").is_none_or(|answer| answer.code == 500));
        assert!(b.try_get(MAPS).is_none_or(|answer| answer.code == 200), "it serves until the delay is over");
        watcher.join().expect("it does not panic")
    });
    assert!(watching, "the watch ends as HTTP says that it ends");
    assert_eq!(servers.running[1].as_mut().expect("it ran").exit_code(), Some(0));
    let left: BTreeSet<String> = BTreeSet::from(["10.9.8.0".to_owned()]);
    // It has taken itself out before it ended; the others would only have noticed after fifteen seconds.
    assert_eq!(addresses(&servers.at(0).get(ENDPOINTS).json()), left);
}

/// Services that are made at both servers at once get addresses and ports of their own.
fn no_address_twice(a: &Cluster, b: &Cluster) {
    std::thread::scope(|scope| {
        for (server, name) in [(a, "a"), (b, "b"), (a, "c"), (b, "d")] {
            scope.spawn(move || {
                for n in 0..8 {
                    let spec = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
                    server.create(SERVICES, &json!({"metadata": {"name": format!("{name}-{n}")}, "spec": spec}));
                }
            });
        }
    });
    let balanced = |list: &Value| {
        let ingress = |s: &&Value| s["status"]["loadBalancer"]["ingress"][0]["ip"].is_string();
        items(list).iter().filter(ingress).count()
    };
    let mut list = Value::Null;
    wait_for("all have the address of a load balancer", PATIENCE, || {
        list = b.get(SERVICES).json();
        balanced(&list) == 32
    });
    for pointer in ["/spec/clusterIP", "/spec/ports/0/nodePort", "/status/loadBalancer/ingress/0/ip"] {
        let mut holders: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for service in items(&list).iter().filter(|s| s["metadata"]["name"] != "kubernetes") {
            let name = service["metadata"]["name"].as_str().expect("a name").to_owned();
            holders.entry(service.pointer(pointer).expect("it has one").to_string()).or_default().push(name);
        }
        assert_eq!(holders.len(), 32, "{pointer}: {holders:?}");
    }
}

/// A quota is not exceeded by creates at both servers at once.
fn a_quota_holds(a: &Cluster, b: &Cluster) {
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/secrets": "7"}}});
    a.create("/api/v1/namespaces/default/resourcequotas", &quota);
    let counted = || {
        let quota = b.get("/api/v1/namespaces/default/resourcequotas/q").json();
        quota["status"]["used"]["count/secrets"].is_string()
    };
    wait_for("the quota is counted", PATIENCE, counted);
    let made = Mutex::new(0);
    std::thread::scope(|scope| {
        for (server, name) in [(a, "a"), (b, "b")] {
            let made = &made;
            scope.spawn(move || {
                for n in 0..10 {
                    let body = json!({"metadata": {"name": format!("s-{name}-{n}")}});
                    let answer = server.write("POST", SECRETS, &body);
                    assert!(matches!(answer.code, 201 | 403), "{}", answer.text());
                    *made.lock().expect("nobody panics") += i32::from(answer.code == 201);
                }
            });
        }
    });
    assert_eq!(made.into_inner().expect("nobody panics"), 7);
}

impl Cluster {
    /// Follows a watch until it ends; returns whether its last chunk came.
    fn watch_to_its_end(&self, path: &str) -> bool {
        let mut text = Vec::new();
        // Without the end of TLS, it is an error, which only says that the connection ended.
        let _ = self.open(path).read_to_end(&mut text);
        text.ends_with(b"0\r\n\r\n")
    }
}

/// Writes objects without a pause, over all servers in turn, and tries again elsewhere what failed.
struct Writer<'a> {
    addresses: &'a [Cluster],
    stop: &'a AtomicBool,
    acknowledged: &'a Mutex<BTreeSet<String>>,
}

impl Writer<'_> {
    /// Returns the longest time that one object took.
    fn run(&self, writer: usize) -> Duration {
        let mut longest = Duration::ZERO;
        for n in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("w-{writer}-{n}");
            let body = json!({"metadata": {"name": name}}).to_string();
            let begun = Instant::now();
            for server in self.addresses.iter().cycle().skip(n) {
                // 409: an earlier try has made it, whose outcome was unknown.
                let answer = server.try_send("POST", MAPS, body.as_bytes());
                if answer.is_some_and(|answer| matches!(answer.code, 201 | 409)) {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{name} is not made within {PATIENCE:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
            longest = longest.max(begun.elapsed());
            self.acknowledged.lock().expect("no writer panics").insert(name);
        }
        longest
    }
}

/// Counts up in one object, over all servers in turn, each time from what it has read there. Returns how often that was
/// acknowledged, and how often nobody knows.
fn count(servers: &[Cluster], stop: &AtomicBool) -> (u64, u64) {
    let path = format!("{MAPS}/counter");
    let (mut acknowledged, mut unknown) = (0, 0);
    for server in servers.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let Some(read) = server.try_get(&path).filter(|answer| answer.code == 200) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let mut map = read.json();
        let value: u64 = map["data"]["n"].as_str().and_then(|n| n.parse().ok()).expect("a number");
        assert!((acknowledged..=acknowledged + unknown).contains(&value), "{value} of {acknowledged} and {unknown}");
        map["data"]["n"] = json!((value + 1).to_string());
        match server.try_send("PUT", &path, map.to_string().as_bytes()).map(|answer| answer.code) {
            Some(200) => acknowledged += 1,
            // Refused: what was unknown before has happened meanwhile, or the server did nothing.
            Some(409 | 503) => {}
            Some(_) | None => unknown += 1,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    (acknowledged, unknown)
}

/// Follows ConfigMaps over all servers in turn, each watch from where the one before ended. Events must come in order.
/// Returns the names of all that it has heard of.
fn follow(servers: &[Cluster], stop: &AtomicBool) -> BTreeSet<String> {
    let (mut seen, mut last) = (BTreeSet::new(), None);
    let name = |map: &Value| map["metadata"]["name"].as_str().expect("a name").to_owned();
    let revision = |of: &Value| of["metadata"]["resourceVersion"].as_str().and_then(|rv| rv.parse::<u64>().ok());
    for server in servers.iter().cycle() {
        let ends = stop.load(Ordering::Relaxed);
        let path = match last {
            None => MAPS.to_owned(),
            Some(last) => format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={last}"),
        };
        let Some(answer) = server.try_get(&path).filter(|answer| answer.code == 200) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        if last.is_none() {
            let list = answer.json();
            assert!(seen.is_subset(&items(&list).iter().map(name).collect()), "nothing that was there is gone");
            seen.extend(items(&list).iter().map(name));
            last = revision(&list);
            if ends {
                return seen;
            }
            continue;
        }
        for line in answer.text().lines() {
            let event: Value = serde_json::from_str(line).expect("events are JSON");
            let object = &event["object"];
            if event["type"] == "ERROR" {
                assert_eq!(object["code"], 410, "{event}");
                last = None;
                break;
            }
            assert!(revision(object) > last, "events come in order: {event} after {last:?}");
            last = revision(object);
            assert!(event["type"] != "ADDED" || seen.insert(name(object)), "it comes once: {event}");
        }
        if ends {
            return seen;
        }
    }
    seen
}

/// Clients of all servers, which outlive the servers' processes.
pub fn clients(servers: &Servers) -> Vec<Cluster> {
    let idle = || Command::new("sleep").arg("86400").spawn().expect("there is a sleep");
    let all = servers.places.iter().zip(&servers.ports);
    all.map(|(at, port)| Cluster::at(idle(), format!("{}:{port}", at.ip), servers.keys.join("admin.conf"))).collect()
}

fn deployment(replicas: usize) -> Value {
    let labels = json!({"app": "web"});
    json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// Deletes pods all the time, so that the controllers have to make new ones, and sees to it that there are never more
/// than the Deployment asks for.
fn disturb(servers: &[Cluster], replicas: usize, stop: &AtomicBool) {
    for server in servers.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if let Some(answer) = server.try_get(&format!("{PODS}?labelSelector=app%3Dweb"))
            && answer.code == 200
        {
            let list = answer.json();
            let lives = |pod: &&Value| {
                pod["metadata"]["deletionTimestamp"].is_null()
                    && !matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
            };
            let pods: Vec<&str> =
                items(&list).iter().filter(lives).filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
            assert!(pods.len() <= replicas, "more pods than replicas, so somebody made some twice: {pods:?}");
            if let Some(pod) = pods.first().filter(|_| pods.len() == replicas) {
                let _ = server.try_send("DELETE", &format!("{PODS}/{pod}?gracePeriodSeconds=0"), b"");
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn ready(servers: &Servers, replicas: usize) -> bool {
    let found = servers.get(&format!("{DEPLOYMENTS}/web"));
    found.is_some_and(|web| web["status"]["readyReplicas"] == replicas && web["status"]["replicas"] == replicas)
}

#[test]
fn nothing_is_lost_by_kill_9_of_any_server_or_member_and_one_leads() {
    let Some(mut members) = Server::members(3) else { return };
    for member in &members {
        crate::etcd::listens(member);
    }
    let urls: Vec<String> = members.iter().map(Server::url).collect();
    let nodes = ["--nodes", "2", "--first-node", "{n}0"];
    let mut servers = Servers::start("servers-kill", &urls.join(","), 3, &[&TUNED[..], &nodes[..]].concat());
    let replicas = 6;
    servers.at(0).create(DEPLOYMENTS, &deployment(replicas));
    wait_for("the pods are ready", PATIENCE, || ready(&servers, replicas));

    let (clients, stop) = (clients(&servers), AtomicBool::new(false));
    let acknowledged = Mutex::new(BTreeSet::new());
    let (mut takeovers, mut longest) = (Vec::new(), Duration::ZERO);
    let (followed, mut heard, mut counted) = (AtomicBool::new(false), BTreeSet::new(), (0, 0));
    servers.at(0).create(MAPS, &json!({"metadata": {"name": "counter"}, "data": {"n": "0"}}));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|n| {
                let writer = Writer { addresses: &clients, stop: &stop, acknowledged: &acknowledged };
                scope.spawn(move || writer.run(n))
            })
            .collect();
        let disturber = scope.spawn(|| disturb(&clients, replicas, &stop));
        let counter = scope.spawn(|| count(&clients, &stop));
        let follower = scope.spawn(|| follow(&clients, &followed));
        // Whatever fails in here, the threads end.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (n, member) in members.iter_mut().enumerate() {
                takeovers.extend(servers.lose(n, Cluster::kill));
                servers.restart(n);
                member.kill();
                std::thread::sleep(Duration::from_millis(1500));
                member.restart();
                crate::etcd::listens(member);
                // Before the next one is killed, this one has caught up.
                std::thread::sleep(Duration::from_millis(1500));
            }
        }));
        stop.store(true, Ordering::Relaxed);
        disturber.join().expect("there are never too many pods");
        counted = counter.join().expect("it counts up by one");
        longest = writers.into_iter().map(|writer| writer.join().expect("all is written")).max().unwrap_or_default();
        // Once all is written, it has one more look.
        followed.store(true, Ordering::Relaxed);
        heard = follower.join().expect("events come once and in order");
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    wait_for("the pods are ready in the end", PATIENCE, || ready(&servers, replicas));
    let acknowledged = acknowledged.into_inner().expect("no writer panics");
    assert!(acknowledged.len() > 100, "something was written: {}", acknowledged.len());
    let unheard: Vec<&String> = acknowledged.difference(&heard).collect();
    assert!(unheard.is_empty(), "acknowledged, and no watch told of it: {unheard:?}");
    let counter = servers.at(0).get(&format!("{MAPS}/counter")).json();
    let value: u64 = counter["data"]["n"].as_str().and_then(|n| n.parse().ok()).expect("a number");
    let (sure, perhaps) = counted;
    assert!(sure > 20 && (sure..=sure + perhaps).contains(&value), "counted to {value}, of {sure} and {perhaps}");
    for n in 0..3 {
        let list = servers.at(n).get(MAPS).json();
        let there = names(&list);
        let lost: Vec<&String> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged and lost, as server {n} sees it: {lost:?}");
    }
    assert!(!takeovers.is_empty(), "of three servers, one led when it was killed");
    println!("written: {}, longest write {longest:?}; fail-overs {takeovers:?}", acknowledged.len());
}

#[test]
fn servers_are_restarted_one_by_one_without_a_failed_request() {
    let Some(etcd) = crate::etcd::etcd() else { return };
    let mut servers = Servers::start("servers-rolling", &etcd.url(), 2, &[]);
    let (clients, stop) = (clients(&servers), AtomicBool::new(false));
    let acknowledged = Mutex::new(BTreeSet::new());
    let (mut changes, mut longest) = (Vec::new(), Duration::ZERO);
    std::thread::scope(|scope| {
        let writer = Writer { addresses: &clients, stop: &stop, acknowledged: &acknowledged };
        let writing = scope.spawn(move || writer.run(0));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for n in 0..2 {
                changes.extend(servers.lose(n, |server| {
                    server.terminate();
                    assert_eq!(server.exit_code(), Some(0));
                }));
                servers.restart(n);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        longest = writing.join().expect("all is written");
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    // The default Lease lasts fifteen seconds; one that was given up is taken with the next look at it.
    let soon = |took: &Duration| *took < Duration::from_secs(8);
    assert!(!changes.is_empty() && changes.iter().all(soon), "the Lease was given up: {changes:?}");
    assert!(longest < Duration::from_secs(5), "a client that retries hardly notices: {longest:?}");
    let list = servers.at(0).get(MAPS).json();
    let there = names(&list);
    let acknowledged = acknowledged.into_inner().expect("no writer panics");
    let lost: Vec<&String> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    println!("a leader that ends in order is followed after {changes:?}, longest write {longest:?}");
}

#[test]
fn a_backup_is_restored_and_the_cluster_goes_on() {
    let Some(mut etcd) = crate::etcd::etcd() else { return };
    let nodes = ["--nodes", "2", "--first-node", "{n}0"];
    let mut servers = Servers::start("servers-backup", &etcd.url(), 2, &[&TUNED[..], &nodes[..]].concat());
    servers.at(0).create(DEPLOYMENTS, &deployment(3));
    servers.at(1).create(MAPS, &json!({"metadata": {"name": "before"}}));
    wait_for("the pods are ready", PATIENCE, || ready(&servers, 3));
    let file = scratch("servers-backup").join("backup.db");
    let _ = std::fs::remove_file(&file);
    etcd.save(&file);
    servers.at(0).create(MAPS, &json!({"metadata": {"name": "after"}}));

    // The servers go by revisions that the restored etcd does not have, so they are ended first.
    for server in &mut servers.running {
        server.take().expect("it runs").kill();
    }
    etcd.restore(&file);
    crate::etcd::listens(&etcd);
    for n in 0..2 {
        servers.restart(n);
    }
    for n in 0..2 {
        let server = servers.at(n);
        assert_eq!(server.get(&format!("{MAPS}/before")).code, 200, "what the backup has is there");
        assert_eq!(server.get(&format!("{MAPS}/after")).code, 404, "and what came later is not");
    }
    // Controllers, scheduler and nodes go on from there.
    let scaled = servers.at(0).write("PATCH", &format!("{DEPLOYMENTS}/web"), &json!({"spec": {"replicas": 5}}));
    assert_eq!(scaled.code, 200, "{}", scaled.text());
    wait_for("the pods are ready again, and two more", PATIENCE, || ready(&servers, 5));
    let revision = servers.at(0).get(MAPS).json()["metadata"]["resourceVersion"].as_str().expect("one").to_owned();
    servers.at(0).create(MAPS, &json!({"metadata": {"name": "again"}}));
    let seen = servers.at(1).watch(&format!("{MAPS}?watch=1&resourceVersion={revision}"), 1);
    assert_eq!(seen[0]["object"]["metadata"]["name"], "again");
}

#[test]
fn what_a_server_cannot_do_is_refused() {
    let dir = scratch("servers-refused");
    let refused = |args: &[&str], expect: &str| {
        let out = Command::new(env!("CARGO_BIN_EXE_skeg")).arg("server").args(args).output().expect("the binary runs");
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && why.contains(expect), "{args:?}: {why}");
    };
    let missing = Path::new(&dir).join("missing");
    let missing = missing.to_str().expect("paths of tests are text");
    let etcd = ["--etcd", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"];
    refused(&["--pki", missing], "--etcd is missing");
    refused(&[&["--pki", missing], &etcd[..]].concat(), "`skeg server init` makes it");
    refused(&etcd, "--pki");
    let short = ["--pki", missing, "--leader-elect-lease-duration", "5s"];
    refused(&[&short, &etcd[..]].concat(), "leaseDuration must be greater than renewDeadline");
    refused(&[&["--pki", missing, "--components", "scheduler"], &etcd[..]].concat(), "apiserver is missing");
    refused(&[&["--pki", missing, "--advertise-address", "127.0.0.1"], &etcd[..]].concat(), "do not reach this one");
    let ranges = ["--pki", missing, "--allocate-node-cidrs", "--cluster-cidr", "10.0.0.0/8", "--node-cidr-mask-size"];
    refused(&[&ranges[..], &["28"], &etcd[..]].concat(), "the node CIDR size is too big");
    refused(&["--pki", missing, "--allocate-node-cidrs"], "--cluster-cidr");
    refused(&["init", missing, "--servers", "10.0.0.1:6443"], "write it like https://");
}
