//! The loss of any server, member of etcd or agent, killed or cut off by the network, under load: what clients and
//! watches are told stays right, one leader acts, and the workload goes on.
//!
//! With `SKEG_SOAK_MINUTES` it goes on that long (`cargo xtask soak`), and is harder: everything is killed and cut off
//! once a round, and hosts for so long that their nodes are given up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Cluster, Tried};
use crate::docker::IMAGE;
use crate::history::{Recorder, acknowledged, longest_silence};
use crate::hosts::{Agent, Host, NODES, PATIENCE, SERVICES, Whole, is_true, node};
use crate::leaders::{self, Terms};
use crate::linear::{self, Op};
use crate::recording;
use crate::servers::{DEPLOYMENTS, PODS, clients, items, wait_for};
use crate::services::http;
use crate::told::{self, Told};

/// How long a host is cut off, so that its node stays ready.
const SHORT: Duration = Duration::from_secs(4);
/// How long, so that its node does not: the controllers' grace is 50 s.
const LONG: Duration = Duration::from_secs(75);
/// How long the Service may lead to nothing there once such a host is back: its pod was marked as not ready, and the
/// host has heard of that.
const BACK: Duration = Duration::from_secs(30);
/// How long an answer may take.
const MOMENT: Duration = Duration::from_secs(2);
/// Servers give nodes the ranges of their pods, of which agents make networks.
const RANGES: [&str; 3] = ["--allocate-node-cidrs", "--cluster-cidr", "10.245.0.0/16"];
const NETWORK: [&str; 2] = ["--docker-network", "skeg0"];
/// Of the Service.
const ADDRESS: &str = "10.96.7.7";
const SERVICE: &str = "10.96.7.7:80";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const HEARTS: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// Asks any server that answers.
fn ask(servers: &[Cluster], path: &str) -> Option<Value> {
    servers.iter().find_map(|server| match server.attempt("GET", path, b"", MOMENT) {
        Tried::Answered(answer) if answer.code == 200 => Some(answer.json()),
        Tried::Answered(_) | Tried::Unanswered | Tried::Unsent => None,
    })
}

/// Waits until all servers answer that they are ready: they reach etcd.
fn all_are_ready(servers: &[Cluster]) {
    for server in servers {
        wait_for(
            "each server is ready",
            PATIENCE,
            || matches!(server.attempt("GET", "/readyz", b"", MOMENT), Tried::Answered(answer) if answer.code == 200),
        );
    }
}

/// Asks from a host, over and over, the Service of the pod that it runs; returns how often there was an answer, and
/// which requests, by when they were sent, had none.
fn probe(host: usize, stop: &AtomicBool) -> (usize, Vec<(Instant, String)>) {
    Host::enter(host);
    let (mut well, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        match http(SERVICE) {
            Ok(_) => well += 1,
            Err(e) => failed.push((sent, e.to_string())),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    (well, failed)
}

/// A pod on each host, which tells its name; a Service that leads to the one of the host where it is asked; and a
/// Deployment without pods, whose pods lack their image.
fn deploy(server: &Cluster) {
    let labels = json!({"app": "web"});
    let script = "cat /proc/sys/kernel/hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";
    let spread = json!({"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels}});
    let container = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", script],
        "ports": [{"containerPort": 8080}], "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}});
    server.create(
        DEPLOYMENTS,
        &json!({"metadata": {"name": "web"}, "spec": {"replicas": NODES, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"topologySpreadConstraints": [spread],
                "automountServiceAccountToken": false, "containers": [container]}}}}),
    );
    let spec = json!({"selector": labels, "internalTrafficPolicy": "Local", "clusterIP": ADDRESS,
        "ports": [{"port": 80, "targetPort": 8080}]});
    server.create(SERVICES, &json!({"metadata": {"name": "web"}, "spec": spec}));
    let labels = json!({"app": "churn"});
    let container = json!({"name": "c", "image": "not-there:1", "imagePullPolicy": "Never"});
    let deployment = json!({"metadata": {"name": "churn"}, "spec": {"replicas": 0, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "hostNetwork": true,
            "automountServiceAccountToken": false, "containers": [container]}}}});
    server.create(DEPLOYMENTS, &deployment);
}

/// The pods by node: their containers and how often these were restarted. Empty until all are ready.
fn pods(servers: &[Cluster]) -> BTreeMap<String, (String, u64)> {
    let list = ask(servers, &format!("{PODS}?labelSelector=app%3Dweb")).unwrap_or_default();
    let all: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
    let stays = |pod: &&&Value| pod["metadata"]["deletionTimestamp"].is_null() && is_true(pod, "Ready");
    if all.len() != NODES || all.iter().filter(stays).count() != NODES {
        return BTreeMap::new();
    }
    let row = |pod: &&Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let text = |value: &Value| value.as_str().expect("it runs").to_owned();
        (text(&pod["spec"]["nodeName"]), (text(&status["containerID"]), status["restartCount"].as_u64().unwrap_or(99)))
    };
    all.iter().map(row).collect()
}

/// Each node has a range of its own, and its pod an address in it.
fn ranges_are_given(servers: &[Cluster]) {
    let nodes = ask(servers, "/api/v1/nodes").expect("a server answers");
    let pods = ask(servers, &format!("{PODS}?labelSelector=app%3Dweb")).expect("a server answers");
    let mut ranges: Vec<String> = Vec::new();
    for one in items(&nodes) {
        let range = one["spec"]["podCIDR"].as_str().and_then(|cidr| cidr.strip_suffix(".0/24")).expect("it has one");
        assert!(range.starts_with("10.245."), "{range}");
        let pod = items(&pods).iter().find(|pod| pod["spec"]["nodeName"] == one["metadata"]["name"]);
        let address = pod.expect("each has a pod")["status"]["podIP"].as_str().expect("it runs").to_owned();
        assert!(address.starts_with(&format!("{range}.")), "{address} is in {range}");
        ranges.push(range.to_owned());
    }
    ranges.sort();
    ranges.dedup();
    assert_eq!(ranges.len(), NODES);
}

/// The addresses that the Service leads to.
fn ready_endpoints(servers: &[Cluster]) -> Option<usize> {
    let selector = "labelSelector=kubernetes.io/service-name%3Dweb";
    let slices = ask(servers, &format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?{selector}"))?;
    let all = items(&slices).iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    Some(all.filter(|endpoint| endpoint["conditions"]["ready"] == true).count())
}

/// Most pods of the Deployment that is scaled up and down.
const MOST: usize = 3;

/// Scales a Deployment up and down, so that controllers and scheduler have something to do, and sees to it that there
/// are never more pods than it may have. They come to be bound and no further.
fn churn(servers: &[Cluster], stop: &AtomicBool) {
    let scale = |replicas: usize| {
        let body = json!({"metadata": {"name": "churn"}, "spec": {"replicas": replicas}}).to_string();
        let path = format!("{DEPLOYMENTS}/churn/scale");
        // What comes of it does not matter.
        servers.iter().any(|server| {
            let tried = server.attempt("PUT", &path, body.as_bytes(), MOMENT);
            matches!(tried, Tried::Answered(answer) if answer.code == 200)
        })
    };
    for n in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            scale(0);
            return;
        }
        scale(if n.is_multiple_of(2) { MOST } else { 0 });
        for _ in 0..5 {
            let list = ask(servers, &format!("{PODS}?labelSelector=app%3Dchurn")).unwrap_or_default();
            let all = list["items"].as_array().into_iter().flatten();
            let lives = all.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).count();
            assert!(lives <= MOST, "{lives} pods where {MOST} may be, so somebody made some twice");
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

/// Follows both Leases over all servers; who held them, and since when.
fn terms(servers: &[Cluster], stop: &AtomicBool) -> Terms {
    let (mut terms, mut last) = (Terms::new(), None);
    for server in servers.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
        let Some(from) = last.clone() else {
            let list = ask(servers, LEASES).expect("all servers are there at first");
            items(&list).iter().for_each(|lease| note(lease, &mut terms));
            last = list["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            continue;
        };
        let path = format!("{LEASES}?watch=1&resourceVersion={from}&timeoutSeconds=20");
        server.follow(&path, 3 * MOMENT, |event| {
            if event["type"] == "ERROR" {
                assert!(event["object"]["code"].as_u64() >= Some(500), "{event}");
                return false;
            }
            note(&event["object"], &mut terms);
            last = event["object"]["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            !stop.load(Ordering::Relaxed)
        });
    }
    terms
}

fn note(lease: &Value, terms: &mut Terms) {
    let name = lease["metadata"]["name"].as_str().unwrap_or_default();
    if !["kube-controller-manager", "kube-scheduler"].contains(&name) {
        return;
    }
    let rv = lease["metadata"]["resourceVersion"].as_str().and_then(|rv| rv.parse().ok()).expect("a revision");
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    terms.insert((format!("leases.coordination.k8s.io:kube-system/{name}"), rv), holder);
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    CutServer(usize),
    /// It is reached, and does not reach etcd.
    CutServerFromEtcd(usize),
    KillServer(usize),
    /// It stands still, and goes on as if nothing had been.
    FreezeServer(usize),
    CutMember(usize),
    KillMember(usize),
    CutHost(usize, Duration),
    KillAgent(usize),
}

impl Fault {
    /// Those of one round. The short one cuts everything off once, and kills one of each.
    fn round(is_soak: bool) -> Vec<Fault> {
        use Fault::{
            CutHost, CutMember, CutServer, CutServerFromEtcd, FreezeServer, KillAgent, KillMember, KillServer,
        };
        let cuts = (0..3).flat_map(|n| [CutServer(n), CutMember(n), CutHost(n, SHORT)]);
        if is_soak {
            let kills = (0..3).flat_map(|n| [KillServer(n), KillMember(n), KillAgent(n)]);
            let others = (0..3).flat_map(|n| [CutServerFromEtcd(n), FreezeServer(n)]);
            return cuts.chain(kills).chain(others).chain((0..3).map(|n| CutHost(n, LONG))).collect();
        }
        cuts.chain([KillServer(0), CutServerFromEtcd(1), FreezeServer(2), KillMember(1), KillAgent(2)]).collect()
    }

    /// Does it, and makes it good.
    fn strike(self, whole: &mut Whole, servers: &[Cluster]) {
        let cut = |links: &[(&str, Option<&str>)], time: Duration| {
            whole.network.cut(links);
            std::thread::sleep(time);
            whole.network.cut(&[]);
        };
        match self {
            Fault::CutServer(n) => cut(&[(&format!("server{n}"), None)], SHORT),
            Fault::CutServerFromEtcd(n) => {
                let server = format!("server{n}");
                let members = ["etcd0", "etcd1", "etcd2"].map(|member| (server.as_str(), Some(member)));
                cut(&members, SHORT);
            }
            Fault::CutMember(n) => cut(&[(&format!("etcd{n}"), None)], SHORT),
            Fault::CutHost(n, time) => cut(&[(&Host::port(n), None)], time),
            Fault::KillServer(n) => {
                whole.servers.kill(n);
                std::thread::sleep(SHORT);
                whole.servers.restart(n);
            }
            Fault::FreezeServer(n) => {
                whole.servers.at(n).signal("STOP");
                std::thread::sleep(SHORT);
                whole.servers.at(n).signal("CONT");
            }
            Fault::KillMember(n) => {
                whole.etcd[n].kill();
                std::thread::sleep(SHORT);
                whole.etcd[n].restart();
                crate::etcd::listens(&whole.etcd[n]);
            }
            Fault::KillAgent(n) => {
                whole.agents[n].kill();
                std::thread::sleep(SHORT);
                whole.agents[n] = Agent::spawn(&whole.hosts[n], &whole.kubeconfigs[n], &NETWORK);
            }
        }
        // Before the next one is lost, this one has caught up.
        all_are_ready(servers);
        if let Fault::CutHost(n, _) | Fault::KillAgent(n) = self {
            let beat =
                || ask(servers, &format!("{HEARTS}/{}", node(n))).map(|lease| lease["spec"]["renewTime"].clone());
            let before = beat();
            wait_for("its heart beats", PATIENCE, || beat().is_some_and(|now| Some(now) != before));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// What was recorded while things went wrong.
struct Recorded {
    ops: Vec<(String, Op)>,
    watches: Vec<Vec<Told>>,
    terms: Terms,
    probes: Vec<(usize, Vec<(Instant, String)>)>,
    fewest_endpoints: usize,
}

/// Clients, watches and probes, while `faults` has its way.
fn record(whole: &mut Whole, servers: &[Cluster], faults: impl FnOnce(&mut Whole)) -> Recorded {
    let recorder = Recorder::new(servers);
    let watched = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let probers: Vec<_> = (0..NODES)
            .map(|n| {
                scope.spawn({
                    let stop = &watched;
                    move || probe(n, stop)
                })
            })
            .collect();
        let workers: Vec<_> = (0..6)
            .map(|n| {
                scope.spawn({
                    let recorder = &recorder;
                    move || recorder.work(n)
                })
            })
            .collect();
        let watches = [
            scope.spawn(|| recorder.watch(0, Some(4))),
            scope.spawn(|| recorder.watch(1, None)),
            scope.spawn(|| recorder.watch(2, None)),
            scope.spawn(|| recorder.watch_anew(1)),
        ];
        scope.spawn(|| recorder.make_noise());
        let churner = scope.spawn(|| churn(servers, &watched));
        let leases = scope.spawn(|| terms(servers, &watched));
        let endpoints = scope.spawn(|| {
            let mut fewest = usize::MAX;
            while !recorder.has_ended() {
                fewest = ready_endpoints(servers).map_or(fewest, |now| fewest.min(now));
                std::thread::sleep(Duration::from_millis(200));
            }
            fewest
        });
        // Whatever fails in here, the threads end.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            faults(whole);
            recorder.end();
        }));
        recorder.stop();
        watched.store(true, Ordering::Relaxed);
        let ops = workers.into_iter().flat_map(|worker| worker.join().expect("a client ends well"));
        let recorded = Recorded {
            ops: ops.collect(),
            watches: watches.into_iter().map(|watch| watch.join().expect("a watch ends well")).collect(),
            terms: leases.join().expect("Leases are read"),
            probes: probers.into_iter().map(|prober| prober.join().expect("a host is entered")).collect(),
            fewest_endpoints: endpoints.join().expect("endpoints are read"),
        };
        churner.join().expect("there are never too many pods");
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        recorded
    })
}

/// Checks what clients and watches were told.
fn judge(recorded: &Recorded) {
    let mut committed = acknowledged(&recorded.ops).expect("no revision is that of two writes");
    let count = committed.len();
    for told in &recorded.watches {
        told::commit(&mut committed, told).expect("all watches are told the same");
    }
    for (n, told) in recorded.watches.iter().enumerate() {
        let lists = told.iter().filter(|one| matches!(one, Told::Listed { .. })).count();
        let bookmarks = told.iter().filter(|one| matches!(one, Told::Bookmark(_))).count();
        println!("watch {n}: {} told, {lists} lists, {bookmarks} bookmarks", told.len());
        told::check(told, &committed).unwrap_or_else(|why| panic!("watch {n}: {why}"));
    }
    let bookmarks = recorded.watches.iter().flatten().filter(|one| matches!(one, Told::Bookmark(_))).count();
    assert!(bookmarks > 3, "there were {bookmarks} bookmarks");
    let revisions = committed.iter().filter_map(|(rv, (_, value))| Some(((*value)?, *rv))).collect();
    let mut keys: BTreeMap<&str, Vec<Op>> = BTreeMap::new();
    recorded.ops.iter().for_each(|(key, op)| keys.entry(key).or_default().push(*op));
    for (key, ops) in &keys {
        linear::check(ops, &revisions).unwrap_or_else(|why| panic!("{key} is not linearizable: {why}"));
    }
    let unknown = recorded.ops.iter().filter(|(_, op)| op.outcome == linear::Outcome::Unknown).count();
    println!(
        "{} operations on {} keys, {count} writes acknowledged, {unknown} unknown",
        recorded.ops.len(),
        keys.len()
    );
    assert!(count > 100, "something was written: {count}");
}

#[test]
fn nothing_is_lost_by_partitions_and_one_leader_acts() {
    let Some(mut whole) = Whole::start("partitions", (&RANGES, &NETWORK)) else { return };
    let minutes: Option<u64> = std::env::var("SKEG_SOAK_MINUTES").ok().map(|text| text.parse().expect("a number"));
    deploy(whole.servers.at(0));
    let servers = clients(&whole.servers);
    let mut before = BTreeMap::new();
    wait_for("there is a ready pod on each host", PATIENCE, || {
        before = pods(&servers);
        !before.is_empty()
    });
    ranges_are_given(&servers);
    wait_for("the Service leads to all", PATIENCE, || ready_endpoints(&servers) == Some(NODES));
    std::thread::scope(|scope| {
        for host in 0..NODES {
            scope.spawn(move || {
                Host::enter(host);
                wait_for("the Service is served on each host", PATIENCE, || http(SERVICE).is_ok());
            });
        }
    });
    let until = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let mut long_cuts: Vec<(usize, Instant)> = Vec::new();
    let recorded = record(&mut whole, &servers, |whole| {
        loop {
            for fault in Fault::round(until.is_some()) {
                let begun = Instant::now();
                fault.strike(whole, &servers);
                println!("{fault:?}: made good after {:?}", begun.elapsed());
                if let Fault::CutHost(host, LONG) = fault {
                    long_cuts.push((host, begun + LONG));
                }
            }
            if until.is_none_or(|until| Instant::now() > until) {
                return;
            }
        }
    });
    judge(&recorded);
    let silence = longest_silence(&recorded.ops);
    println!("no write was acknowledged for {silence:?} at the longest");
    assert!(silence < Duration::from_secs(15), "of all clients nobody got on for {silence:?}");

    wait_for("all pods are ready in the end", PATIENCE, || pods(&servers).len() == NODES);
    assert_eq!(pods(&servers), before, "the same containers run, and none was restarted");
    for (n, (well, failed)) in recorded.probes.iter().enumerate() {
        let is_back =
            |sent: Instant| long_cuts.iter().any(|(host, end)| *host == n && (*end..*end + BACK).contains(&sent));
        let (after, failed): (Vec<_>, Vec<_>) = failed.iter().partition(|(sent, _)| is_back(*sent));
        println!("host {n}: {well} requests were answered, {} not after the host was back", after.len());
        assert!(*well > 50 && failed.is_empty(), "host {n}: {well} requests were answered, and not: {failed:?}");
    }
    // A host that is cut off for long is not ready, and no other is at the same time.
    let fewest = if minutes.is_some() { NODES - 1 } else { NODES };
    assert!(recorded.fewest_endpoints >= fewest, "{} of {NODES} endpoints", recorded.fewest_endpoints);

    let record = whole.record.clone();
    drop(whole);
    let acts = leaders::acts(&record);
    let (count, holders) = leaders::check(&acts, &recorded.terms).unwrap_or_else(|why| panic!("{why}"));
    println!("{count} writes by {holders} leaders");
    assert!(count > 10 && holders > 2, "{count} writes by {holders} leaders, of controllers and schedulers");
    recording::replays(&record);
}
