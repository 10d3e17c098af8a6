//! The rules as text; and, where root may make network namespaces and `nft` is there, in the kernel. The latter is
//! skipped elsewhere, and said to be; with `SKEG_REQUIRE_DOCKER` set that is an error.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use skeg_core::Rng;
use skeg_core::proxy::{Frontend, Host, Protocol};

use super::rules::{Change, Flow, Rules, Target};
use super::{Applier, Nftables, forget, run, transact};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);

fn cluster_ip(port: u16, protocol: Protocol) -> Frontend {
    Frontend { host: Host::Ip(SERVICE.into()), port, protocol }
}

fn node_port(port: u16) -> Frontend {
    Frontend { host: Host::NodeV4, port, protocol: Protocol::Tcp }
}

fn target(backends: &[Ipv4Addr]) -> Target {
    Target {
        service: "d/web:http".to_owned(),
        backends: backends.iter().map(|ip| (*ip, 8080)).collect(),
        reject: true,
        affinity: None,
        sources: Vec::new(),
        masquerade: false,
    }
}

fn rules() -> Rules {
    Rules::new("t", "nobody", (Ipv4Addr::new(10, 96, 0, 0), 12), None)
}

/// The transaction that changes make of a table that has these entries.
fn change(had: &[(Frontend, Target)], change: Change) -> (Vec<String>, Vec<Flow>) {
    let mut rules = rules();
    rules.apply(Change::Replace(had.to_vec()));
    rules.take();
    rules.apply(change);
    let (text, flows) = rules.take();
    (text.lines().map(|line| line.replace(" ip t ", " ")).collect(), flows)
}

#[test]
fn a_change_touches_its_front_end_and_nothing_else() {
    let [a, b] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
    let (http, node) = (cluster_ip(80, Protocol::Tcp), node_port(30080));
    let check = |had: Option<Target>, now: Option<Target>, at: Frontend, want: &[&str]| {
        let had: Vec<(Frontend, Target)> = had.map(|target| (at, target)).into_iter().collect();
        let next = now.clone().map_or(Change::Remove(at), |target| Change::Set(at, target));
        assert_eq!(change(&had, next).0, want, "{had:?} {now:?}");
    };
    let first = "add rule service/10.96.0.7/tcp/80 numgen random mod 2 0 meta l4proto tcp dnat ip to 10.0.0.1:8080";
    let second = "add rule service/10.96.0.7/tcp/80 meta l4proto tcp dnat ip to 10.0.0.2:8080";
    let one = "add rule service/10.96.0.7/tcp/80 meta l4proto tcp dnat ip to 10.0.0.1:8080";
    let begin = "add chain service/10.96.0.7/tcp/80 { comment \"d/web:http\" ; }";
    let flush = "flush chain service/10.96.0.7/tcp/80";
    let end = "delete chain service/10.96.0.7/tcp/80";
    let (in_a, out_a) = (
        "add element hairpin-connections { 10.0.0.1 . 10.0.0.1 }",
        "delete element hairpin-connections { 10.0.0.1 . 10.0.0.1 }",
    );
    let (in_b, out_b) = (
        "add element hairpin-connections { 10.0.0.2 . 10.0.0.2 }",
        "delete element hairpin-connections { 10.0.0.2 . 10.0.0.2 }",
    );
    let in_both = "add element hairpin-connections { 10.0.0.1 . 10.0.0.1, 10.0.0.2 . 10.0.0.2 }";
    let map = "add element service-ips { 10.96.0.7 . tcp . 80 : goto service/10.96.0.7/tcp/80 }";
    let unmap = "delete element service-ips { 10.96.0.7 . tcp . 80 }";
    let refused = "add element no-endpoint-ips { 10.96.0.7 . tcp . 80 : goto reject-chain }";
    let dropped = "add element no-endpoint-ips { 10.96.0.7 . tcp . 80 : drop }";
    let filled = "delete element no-endpoint-ips { 10.96.0.7 . tcp . 80 }";
    let drops = Target { reject: false, ..target(&[]) };
    check(None, Some(target(&[a, b])), http, &[begin, first, second, map, in_both]);
    check(Some(target(&[a, b])), Some(target(&[a])), http, &[flush, one, out_b]);
    check(Some(target(&[a])), Some(target(&[a, b])), http, &[flush, first, second, in_b]);
    check(Some(target(&[a])), Some(target(&[])), http, &[unmap, flush, end, refused, out_a]);
    check(Some(target(&[])), Some(drops.clone()), http, &[filled, dropped]);
    check(Some(drops), Some(target(&[a])), http, &[filled, begin, one, map, in_a]);
    check(Some(target(&[a])), None, http, &[unmap, flush, end, out_a]);
    check(Some(target(&[])), None, http, &[filled]);
    let outside = Target { masquerade: true, ..target(&[a]) };
    check(
        None,
        Some(outside),
        node,
        &[
            "add chain service/node/tcp/30080 { comment \"d/web:http\" ; }",
            "add rule service/node/tcp/30080 jump mark-for-masquerade",
            "add rule service/node/tcp/30080 meta l4proto tcp dnat ip to 10.0.0.1:8080",
            "add element service-nodeports { tcp . 30080 : goto service/node/tcp/30080 }",
            in_a,
        ],
    );
    let guarded = Target { sources: vec![(Ipv4Addr::new(192, 0, 2, 0), 24)], ..target(&[a]) };
    check(
        Some(target(&[a])),
        Some(guarded.clone()),
        http,
        &[
            "add chain firewall/10.96.0.7/tcp/80",
            "add rule firewall/10.96.0.7/tcp/80 ip saddr 192.0.2.0/24 return",
            "add rule firewall/10.96.0.7/tcp/80 drop",
            "add element firewall-ips { 10.96.0.7 . tcp . 80 : jump firewall/10.96.0.7/tcp/80 }",
            flush,
            one,
        ],
    );
    check(Some(guarded.clone()), Some(guarded), http, &[]);
    let many: Vec<Ipv4Addr> = (0..17).map(|n| Ipv4Addr::new(10, 0, 1, n)).collect();
    let (lines, _) = change(&[(http, target(&[a]))], Change::Set(http, target(&many)));
    assert!(lines[1].contains("dnat ip to numgen random mod 17 map { 0 : 10.0.1.0 . 8080, 1 : "), "{lines:?}");
}

#[test]
fn a_sticky_client_keeps_its_backend_while_that_is_there() {
    let [a, b] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
    let http = cluster_ip(80, Protocol::Tcp);
    let sticky = |backends: &[Ipv4Addr]| Target { affinity: Some(Duration::from_secs(60)), ..target(backends) };
    let (lines, _) = change(&[(http, sticky(&[a, b]))], Change::Set(http, sticky(&[a])));
    let text = lines.join("\n");
    assert!(!text.contains("affinity/10.96.0.7/tcp/80/10.0.0.1/8080 {"), "the set of who stays is kept: {text}");
    assert!(text.contains("delete set affinity/10.96.0.7/tcp/80/10.0.0.2/8080"), "{text}");
    let (lines, _) = change(&[(http, sticky(&[a]))], Change::Set(http, target(&[a])));
    assert!(lines.join("\n").contains("delete set affinity/10.96.0.7/tcp/80/10.0.0.1/8080"), "{lines:?}");
}

#[test]
fn flows_of_udp_are_forgotten_with_their_backend() {
    let [a, b] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
    let dns = cluster_ip(53, Protocol::Udp);
    let check = |had: &[Ipv4Addr], now: Option<&[Ipv4Addr]>, want: &[Option<Ipv4Addr>]| {
        let next = now.map_or(Change::Remove(dns), |now| Change::Set(dns, target(now)));
        let (_, flows) = change(&[(dns, target(had))], next);
        let want: Vec<Flow> = want.iter().map(|backend| Flow { frontend: dns, backend: *backend }).collect();
        assert_eq!(flows, want, "{had:?} {now:?}");
    };
    check(&[a, b], Some(&[b]), &[Some(a)]);
    check(&[a], Some(&[a, b]), &[]);
    check(&[], Some(&[a]), &[None]);
    check(&[a], None, &[Some(a)]);
    let tcp = cluster_ip(53, Protocol::Tcp);
    assert_eq!(change(&[(tcp, target(&[a]))], Change::Remove(tcp)).1, []);
}

/// Network namespaces of one test. They end with it.
struct Spaces {
    names: Vec<String>,
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

/// Says past the test harness that something is not tested.
fn skip(missing: &str) {
    assert!(std::env::var_os("SKEG_REQUIRE_DOCKER").is_none(), "{missing}, and SKEG_REQUIRE_DOCKER is set");
    let line = format!("SKIPPED, nftables rules in the kernel are not tested: {missing}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error can be written");
}

impl Spaces {
    /// Makes these namespaces, each with its loopback device up; `None` where that is not possible.
    fn make(test: &str, names: &[&str]) -> Option<Spaces> {
        if !rustix::process::geteuid().is_root() {
            skip("only root may make network namespaces");
            return None;
        }
        for (program, package) in [("nft", "nftables"), ("ip", "iproute2"), ("conntrack", "conntrack")] {
            if run(program, &["--version"], "").is_err() && run(program, &["-V"], "").is_err() {
                skip(&format!("there is no {program} (apt-get install {package})"));
                return None;
            }
        }
        let mut spaces = Spaces { names: Vec::new() };
        for name in names {
            let name = format!("skeg-{test}-{}-{name}", std::process::id());
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
            spaces.names.push(name);
        }
        Some(spaces)
    }

    fn name(&self, of: &str) -> &str {
        self.names.iter().find(|name| name.ends_with(&format!("-{of}"))).expect("it was made")
    }

    /// Does something on a thread in a namespace: its sockets and programs are there.
    fn within<T: Send + 'static>(&self, of: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(of, work).join().expect("it ends well")
    }

    fn start<T: Send + 'static>(&self, of: &str, work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let space = std::fs::File::open(format!("/run/netns/{}", self.name(of))).expect("it was made");
        let thread = thread::Builder::new().spawn(move || {
            use std::os::fd::AsFd;
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
            work()
        });
        thread.expect("threads can be started")
    }
}

fn ip(args: &str) {
    let args: Vec<&str> = args.split(' ').collect();
    run("ip", &args, "").unwrap_or_else(|why| panic!("ip {}: {why}", args.join(" ")));
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 7, 1);
const A: Ipv4Addr = Ipv4Addr::new(172, 31, 7, 2);
const B: Ipv4Addr = Ipv4Addr::new(172, 31, 7, 3);
/// The node, and a client on another host.
const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// A node with a bridge and two pods, and a client outside; servers in both pods answer with the pod's name and the
/// address that they see.
fn network(test: &str) -> Option<Spaces> {
    let spaces = Spaces::make(test, &["node", "a", "b", "client"])?;
    let node = spaces.name("node").to_owned();
    ip(&format!("-n {node} link add br0 type bridge"));
    ip(&format!("-n {node} addr add {GATEWAY}/24 dev br0"));
    ip(&format!("-n {node} link set br0 up"));
    for (pod, address, gateway) in [("a", A, GATEWAY), ("b", B, GATEWAY), ("client", CLIENT, NODE)] {
        let space = spaces.name(pod);
        ip(&format!("-n {node} link add name {pod} type veth peer name eth0 netns {space}"));
        ip(&format!("-n {space} addr add {address}/24 dev eth0"));
        ip(&format!("-n {space} link set eth0 up"));
        ip(&format!("-n {node} link set dev {pod} up"));
        if pod == "client" {
            ip(&format!("-n {node} addr add {NODE}/24 dev client"));
        } else {
            ip(&format!("-n {node} link set dev {pod} master br0"));
            ip(&format!("-n {node} link set dev {pod} type bridge_slave hairpin on"));
        }
        ip(&format!("-n {space} route add default via {gateway}"));
    }
    spaces.within("node", || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("root may"));
    // The node needs some way to the services' network; which one does not matter.
    ip(&format!("-n {node} link add name away type bridge"));
    ip(&format!("-n {node} link set dev away up"));
    ip(&format!("-n {node} route add default dev away src {NODE}"));
    for pod in ["a", "b"] {
        let (ready, is_ready) = std::sync::mpsc::channel();
        // They end with the process.
        let _ = spaces.start(pod, move || serve(pod, &ready));
        is_ready.recv().expect("it listens");
    }
    Some(spaces)
}

fn serve(pod: &'static str, ready: &std::sync::mpsc::Sender<()>) {
    let tcp = TcpListener::bind("0.0.0.0:8080").expect("the port is free");
    let udp = UdpSocket::bind("0.0.0.0:8080").expect("the port is free");
    let answer = move |from: SocketAddr| format!("{pod} {}", from.ip());
    let _ = thread::Builder::new().spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(answer(from).as_bytes(), from);
        }
    });
    ready.send(()).expect("the test waits");
    while let Ok((mut stream, from)) = tcp.accept() {
        let _ = stream.write_all(answer(from).as_bytes());
    }
}

/// What answers at an address: pod and the client's address as it sees it, `refused` or `nothing`.
fn ask(spaces: &Spaces, from: &str, to: Ipv4Addr, port: u16) -> String {
    spaces.within(from, move || {
        let at = SocketAddr::from(SocketAddrV4::new(to, port));
        let mut stream = match TcpStream::connect_timeout(&at, Duration::from_millis(700)) {
            Ok(stream) => stream,
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => return "refused".to_owned(),
            Err(e) if e.kind() == ErrorKind::TimedOut => return "nothing".to_owned(),
            Err(e) => return e.to_string(),
        };
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    })
}

/// Everything that answers at an address in thirty attempts.
fn ask_often(spaces: &Spaces, from: &str, to: Ipv4Addr, port: u16) -> BTreeSet<String> {
    (0..30).map(|_| ask(spaces, from, to, port)).collect()
}

fn both(a: &str, b: &str) -> BTreeSet<String> {
    [a.to_owned(), b.to_owned()].into()
}

/// Puts a table with these entries into force on the node.
fn serve_table(spaces: &Spaces, table: Vec<(Frontend, Target)>) {
    let mut rules = rules();
    rules.apply(Change::Replace(table));
    let (text, _) = rules.take();
    spaces.within("node", move || transact(&text).unwrap_or_else(|why| panic!("{why}\n{text}")));
}

#[test]
fn connections_go_where_the_table_says() {
    let Some(spaces) = network("go") else { return };
    let balancer = Ipv4Addr::new(203, 0, 113, 9);
    let at = |host: Ipv4Addr, port| Frontend { host: Host::Ip(host.into()), port, protocol: Protocol::Tcp };
    let outside = Target { masquerade: true, ..target(&[A, B]) };
    let guarded = |last: u8| {
        let sources = vec![(Ipv4Addr::new(192, 0, 2, 0), 24), (Ipv4Addr::new(198, 51, 100, last), 32)];
        Target { sources, ..outside.clone() }
    };
    serve_table(
        &spaces,
        vec![
            (at(SERVICE, 80), target(&[A, B])),
            (at(SERVICE, 81), target(&[A])),
            (at(SERVICE, 82), target(&[])),
            (at(SERVICE, 83), Target { reject: false, ..target(&[]) }),
            (at(SERVICE, 84), Target { affinity: Some(Duration::from_secs(3600)), ..target(&[A, B]) }),
            (node_port(30080), outside.clone()),
            (node_port(30081), target(&[A])),
            (node_port(30082), target(&[])),
            (at(balancer, 80), guarded(2)),
            (at(balancer, 81), guarded(3)),
        ],
    );
    let (seen_a, seen_gateway) = (format!("b {A}"), format!("a {GATEWAY}"));
    assert_eq!(ask_often(&spaces, "a", SERVICE, 80), both(&seen_a, &seen_gateway), "from a pod, also to itself");
    let (a, b) = (format!("a {CLIENT}"), format!("b {CLIENT}"));
    assert_eq!(ask_often(&spaces, "client", SERVICE, 80), both(&a, &b), "clients keep their address");
    let from_node = ask_often(&spaces, "node", SERVICE, 80);
    assert_eq!(from_node, both(&format!("a {NODE}"), &format!("b {NODE}")), "from the node itself");
    let check = |from: &str, to: Ipv4Addr, port: u16, want: &str| {
        assert_eq!(ask(&spaces, from, to, port), want, "from {from} to {to}:{port}");
    };
    check("b", SERVICE, 81, &format!("a {B}"));
    for from in ["a", "node", "client"] {
        check(from, SERVICE, 82, "refused");
        check(from, SERVICE, 83, "nothing");
        check(from, SERVICE, 99, "refused");
        check(from, Ipv4Addr::new(10, 100, 1, 1), 80, "refused");
    }
    let sticky = ask_often(&spaces, "client", SERVICE, 84);
    assert_eq!(sticky.len(), 1, "{sticky:?}");
    let hidden = (format!("a {GATEWAY}"), format!("b {GATEWAY}"));
    assert_eq!(ask_often(&spaces, "client", NODE, 30080), both(&hidden.0, &hidden.1), "a node port");
    check("client", NODE, 30081, &format!("a {CLIENT}"));
    check("b", NODE, 30081, &format!("a {B}"));
    check("node", NODE, 30081, &format!("a {NODE}"));
    check("client", NODE, 30082, "refused");
    check("node", NODE, 30082, "refused");
    assert_eq!(ask_often(&spaces, "client", balancer, 80), both(&hidden.0, &hidden.1), "a load balancer's address");
    check("client", balancer, 81, "nothing");
}

#[test]
fn pods_of_a_bridge_without_netfilter_reach_each_other_by_a_service() {
    let Some(spaces) = network("within") else { return };
    let off = || std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0").expect("root may");
    spaces.within("node", off);
    let bridge = (Ipv4Addr::new(172, 31, 7, 0), 24);
    let mut rules = Rules::new("t", "nobody", (Ipv4Addr::new(10, 96, 0, 0), 12), Some(bridge));
    rules.apply(Change::Replace(vec![(cluster_ip(80, Protocol::Tcp), target(&[A, B]))]));
    let (text, _) = rules.take();
    spaces.within("node", move || transact(&text).unwrap_or_else(|why| panic!("{why}\n{text}")));
    let (a, b) = (format!("a {GATEWAY}"), format!("b {GATEWAY}"));
    assert_eq!(ask_often(&spaces, "a", SERVICE, 80), both(&a, &b));
    let (a, b) = (format!("a {CLIENT}"), format!("b {CLIENT}"));
    assert_eq!(ask_often(&spaces, "client", SERVICE, 80), both(&a, &b), "others keep their address");
}

#[test]
fn a_udp_client_follows_its_service() {
    let Some(spaces) = network("udp") else { return };
    let dns = cluster_ip(53, Protocol::Udp);
    serve_table(&spaces, vec![(dns, target(&[A]))]);
    let socket = spaces.within("client", || UdpSocket::bind("0.0.0.0:0").expect("ports are free"));
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("sockets have time-outs");
    let ask = |socket: &UdpSocket| {
        socket.send_to(b"?", (SERVICE, 53)).expect("there is a way");
        let mut buffer = [0; 64];
        let (length, _) = socket.recv_from(&mut buffer).expect("it answers");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(ask(&socket), format!("a {CLIENT}"));
    let mut rules = rules();
    rules.apply(Change::Replace(vec![(dns, target(&[A]))]));
    rules.take();
    rules.apply(Change::Set(dns, target(&[B])));
    let (text, flows) = rules.take();
    spaces.within("node", move || {
        transact(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
        flows.iter().for_each(forget);
    });
    assert_eq!(ask(&socket), format!("b {CLIENT}"), "the kernel has forgotten where this socket was led to");
}

fn drawn(rng: &mut Rng) -> (Frontend, Target) {
    let mut pick = |n: u64| rng.below(n) as u8;
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][pick(3) as usize];
    let host = if pick(3) == 0 { Host::NodeV4 } else { Host::Ip(Ipv4Addr::new(10, 96, 0, pick(3)).into()) };
    let mut backends: Vec<(Ipv4Addr, u16)> = (0..[0, 1, 3, 60][pick(4) as usize])
        .map(|_| (Ipv4Addr::new(10, 0, 0, pick(20)), 80 + u16::from(pick(2))))
        .collect();
    backends.sort_unstable();
    backends.dedup();
    let is_guarded = host != Host::NodeV4 && pick(4) == 0;
    let target = Target {
        service: "d/web".to_owned(),
        backends,
        reject: pick(2) == 0,
        affinity: (pick(3) == 0).then(|| Duration::from_secs(60 + u64::from(pick(2)))),
        sources: if is_guarded { vec![(Ipv4Addr::new(192, 0, 2, pick(2)), 32)] } else { Vec::new() },
        masquerade: pick(2) == 0,
    };
    (Frontend { host, port: 80, protocol }, target)
}

/// What is in force, as the sorted lines of each chain, map and set.
fn in_force() -> BTreeSet<Vec<String>> {
    let text = run("nft", &["-s", "list", "table", "ip", "t"], "").expect("it is there");
    let mut blocks: Vec<Vec<String>> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.ends_with('{') {
            blocks.push(Vec::new());
        }
        // Elements of a set are listed in the order of their hash.
        let mut words: Vec<&str> = line.trim_end_matches(',').split(", ").collect();
        if !line.contains("numgen") {
            words = words.into_iter().flat_map(|word| word.trim_start_matches("elements = {").split(',')).collect();
            let block = blocks.last_mut().expect("a table begins");
            block.extend(words.iter().map(|w| w.trim().trim_end_matches('}').trim().to_owned()));
        } else {
            blocks.last_mut().expect("a table begins").push(words.join(", "));
        }
    }
    for block in &mut blocks {
        block[1..].sort();
    }
    blocks.into_iter().collect()
}

#[test]
fn differences_lead_to_what_the_whole_table_is() {
    let Some(spaces) = Spaces::make("same", &["node"]) else { return };
    spaces.within("node", || {
        for seed in 0..4 {
            let mut rng = Rng::stream(seed, "nftables", 0);
            let mut kept = rules();
            kept.apply(Change::Replace((0..6).map(|_| drawn(&mut rng)).collect()));
            for _ in 0..12 {
                for _ in 0..=rng.below(5) {
                    let (frontend, target) = drawn(&mut rng);
                    let leaves = rng.below(4) == 0;
                    kept.apply(if leaves { Change::Remove(frontend) } else { Change::Set(frontend, target) });
                }
                let (text, _) = kept.take();
                transact(&text).unwrap_or_else(|why| panic!("seed {seed}: {why}\n{text}"));
            }
            let by_differences = in_force();
            kept.replace();
            transact(&kept.take().0).expect("the whole table can be set up");
            assert_eq!(by_differences, in_force(), "seed {seed}");
        }
    });
}

#[test]
fn what_somebody_removed_comes_back_and_nothing_is_left_at_the_end() {
    let Some(spaces) = Spaces::make("back", &["node"]) else { return };
    spaces.within("node", || {
        let found = Nftables::find("a test", (Ipv4Addr::new(10, 96, 0, 0), 12), None).expect("nft works");
        assert_eq!(found.warnings(), Vec::<String>::new());
        let mut applier = Applier::new(found.rules());
        let (http, other) = (cluster_ip(80, Protocol::Tcp), cluster_ip(81, Protocol::Tcp));
        applier.rules.apply(Change::Replace(vec![(http, target(&[A]))]));
        applier.carry_out();
        let tables = || run("nft", &["list", "ruleset"], "").expect("nft works");
        assert!(tables().contains("dnat to 172.31.7.2:8080"), "{}", tables());
        run("nft", &["flush", "ruleset"], "").expect("root may");
        applier.look();
        assert!(tables().contains("dnat to 172.31.7.2:8080"), "it is looked for: {}", tables());
        // A difference finds that it is gone, and the whole is tried again after that.
        run("nft", &["flush", "ruleset"], "").expect("root may");
        applier.rules.apply(Change::Set(other, target(&[B])));
        applier.carry_out();
        assert!(applier.retry.is_some());
        applier.mend();
        assert!(applier.retry.is_none());
        assert!(tables().contains("172.31.7.2:8080") && tables().contains("172.31.7.3:8080"), "{}", tables());
        let services = (Ipv4Addr::new(10, 96, 0, 0), 12);
        let refused = Nftables::find("a test", services, None).expect_err("it is served");
        assert!(refused.contains("another process of this cluster serves"), "{refused}");
        let another = Nftables::find("another", services, None).expect("nft works");
        another.clear();
        assert!(another.warnings()[0].starts_with("another cluster's Services are in the table"), "it runs");
        assert!(another.warnings()[0].contains(&found.table), "{:?}", another.warnings());
        drop(another);
        let (changes, inbox) = std::sync::mpsc::channel();
        drop(changes);
        applier.run(&inbox);
        assert_eq!(tables(), "");
    });
}

#[test]
fn what_a_killed_cluster_left_goes_where_it_is_in_the_way() {
    let Some(spaces) = Spaces::make("left", &["node"]) else { return };
    spaces.within("node", || {
        let serve = |cluster: &str, services: (Ipv4Addr, u8)| {
            let found = Nftables::find(cluster, services, None).expect("nft works");
            let mut applier = Applier::new(found.rules());
            applier.rules.apply(Change::Replace(vec![(cluster_ip(80, Protocol::Tcp), target(&[A]))]));
            applier.carry_out();
            found.table
            // The ownership ends here, and the table stays: as after a kill.
        };
        let ten = |second: u8| Ipv4Addr::new(10, second, 0, 0);
        let (near, far) = (serve("near", (ten(104), 16)), serve("far", (ten(112), 16)));
        let found = Nftables::find("a test", (ten(96), 12), None).expect("nft works");
        found.clear();
        let tables = run("nft", &["list", "tables"], "").expect("nft works");
        assert!(!tables.contains(&near) && tables.contains(&far), "{tables}");
        let warnings = found.warnings();
        assert!(warnings.len() == 1 && warnings[0].starts_with("a cluster that was killed"), "{warnings:?}");
    });
}

/// `proxy/endpoint-change-ms`: what one endpoint's change costs where there are 5,000 Services with 50,000 endpoints.
#[test]
fn the_cost_of_a_change_does_not_grow_with_the_table() {
    let Some(spaces) = Spaces::make("cost", &["node"]) else { return };
    spaces.within("node", || {
        let median = |services: u32| {
            let at = |n: u32| Frontend { host: Host::Ip(Ipv4Addr::from_bits(0x0a60_0000 + n).into()), ..node_port(80) };
            let backends = |n: u32, skip: u32| -> Vec<Ipv4Addr> {
                (0..10).filter(|i| *i != skip).map(|i| Ipv4Addr::from_bits(0x0a80_0000 + n * 16 + i)).collect()
            };
            let mut rules = rules();
            rules.apply(Change::Replace((0..services).map(|n| (at(n), target(&backends(n, 10)))).collect()));
            let (text, _) = rules.take();
            let begun = Instant::now();
            transact(&text).expect("the whole table can be set up");
            let whole = begun.elapsed();
            let mut times: Vec<Duration> = (0..21)
                .map(|n| {
                    rules.apply(Change::Set(at(n), target(&backends(n, n % 10))));
                    let (text, _) = rules.take();
                    let begun = Instant::now();
                    transact(&text).expect("it fits");
                    begun.elapsed()
                })
                .collect();
            times.sort();
            println!("{services} Services: whole table {whole:?}, a change {:?} (median)", times[10]);
            times[10]
        };
        let (few, many) = (median(100), median(5_000));
        assert!(many < 20 * few + Duration::from_millis(200), "{many:?} with 5,000 Services, {few:?} with 100");
    });
}
