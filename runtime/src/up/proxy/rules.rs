//! The nftables rules of a node's service table, as text for `nft -f`: all of them, or what a change makes of them.
//!
//! The layout is that of kube-proxy's nftables mode (KEP-3866, kubernetes `pkg/proxy/nftables/proxier.go`). A
//! connection is looked up once, in a map from address, protocol and port to the chain of its front end; a change
//! touches that front end's chain and elements and nothing else. Differences from kube-proxy: endpoints have no chains
//! of their own unless they need one for session affinity, and node ports are served at every address of the node but
//! loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use skeg_core::proxy::{Backend, Entry, Frontend, Host, Protocol, TableChange, WhenEmpty};

/// The bit of a packet's mark by which it is masqueraded when it leaves (kube-proxy's `--iptables-masquerade-bit`).
const MASQUERADE: &str = "0x4000";
/// Most backends that a connection passes one after the other. More are found in a map, which takes no longer for many,
/// but is an anonymous set: `nft` reads all of those for each change, which takes twice as long with 5,000 Services.
const IN_A_ROW: usize = 16;
/// Most clients that the affinity to one endpoint is remembered of.
const STICKY_CLIENTS: u32 = 65_535;

/// Where a front end leads: a service table's entry as plain values, which may cross threads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// `namespace/name:port`, for whoever reads the rules.
    pub service: String,
    /// Address and port of each backend.
    pub backends: Vec<(Ipv4Addr, u16)>,
    /// Whether connections are refused if there is no backend; otherwise they are dropped.
    pub reject: bool,
    /// How long a client stays with its backend.
    pub affinity: Option<Duration>,
    /// The clients that are permitted, as networks; empty means all.
    pub sources: Vec<(Ipv4Addr, u8)>,
    /// Whether backends see the node's address in place of the client's.
    pub masquerade: bool,
}

/// A change of the table as plain values.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// The whole table.
    Replace(Vec<(Frontend, Target)>),
    /// This front end now leads there.
    Set(Frontend, Target),
    /// This front end leads nowhere any more.
    Remove(Frontend),
}

/// Connections of a UDP client that the kernel still remembers by where they led.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Flow {
    /// Where the client sent to.
    pub frontend: Frontend,
    /// The backend that it was led to; `None`: wherever.
    pub backend: Option<Ipv4Addr>,
}

/// A network such as `10.0.0.0/8`, in IPv4.
pub fn network(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, length) = text.trim().split_once('/')?;
    let length = length.parse::<u8>().ok().filter(|length| *length <= 32)?;
    Some((address.parse().ok()?, length))
}

/// The network of cluster IPs that a table serves, from the listing of its chain `no-endpoints`.
pub fn served(listing: &str) -> Option<(Ipv4Addr, u8)> {
    let rule =
        listing.lines().find_map(|line| line.trim().strip_prefix("ip daddr ")?.strip_suffix(" goto reject-chain"));
    rule.and_then(network)
}

fn is_v4(frontend: &Frontend) -> bool {
    match frontend.host {
        Host::Ip(ip) => ip.is_ipv4(),
        Host::NodeV4 => true,
        Host::NodeV6 => false,
    }
}

impl Change {
    /// The same as plain values; `None` if it is about IPv6 alone, which the API server gives no Service.
    pub fn of(change: &TableChange) -> Option<Change> {
        match change {
            TableChange::Replace(all) => {
                let v4 = all.iter().filter(|(frontend, _)| is_v4(frontend));
                Some(Change::Replace(v4.map(|(frontend, entry)| (*frontend, Target::of(entry))).collect()))
            }
            TableChange::Set(frontend, entry) => is_v4(frontend).then(|| Change::Set(*frontend, Target::of(entry))),
            TableChange::Remove(frontend) => is_v4(frontend).then_some(Change::Remove(*frontend)),
        }
    }
}

impl Target {
    fn of(entry: &Entry) -> Target {
        let port = if entry.port_name.is_empty() { String::new() } else { format!(":{}", entry.port_name) };
        let backend = |b: &Backend| match b.ip {
            IpAddr::V4(ip) => Some((ip, b.port)),
            IpAddr::V6(_) => None,
        };
        Target {
            service: comment(&format!("{}{port}", entry.service.path())),
            backends: entry.backends.iter().filter_map(backend).collect(),
            reject: entry.when_empty == WhenEmpty::Reject,
            affinity: entry.affinity,
            sources: entry.sources.iter().filter_map(|text| network(text)).collect(),
            masquerade: entry.masquerade,
        }
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// A front end in the rules: the suffix of its chains' names, the suffix of its maps' names, and its key there.
struct Named {
    name: String,
    maps: &'static str,
    key: String,
}

fn named(frontend: &Frontend) -> Named {
    let (port, protocol) = (frontend.port, protocol(frontend.protocol));
    match frontend.host {
        Host::Ip(ip) => {
            Named { name: format!("{ip}/{protocol}/{port}"), maps: "ips", key: format!("{ip} . {protocol} . {port}") }
        }
        Host::NodeV4 | Host::NodeV6 => {
            Named { name: format!("node/{protocol}/{port}"), maps: "nodeports", key: format!("{protocol} . {port}") }
        }
    }
}

/// What may stand in quotes as a comment: nft takes at most 128 bytes.
fn comment(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '_' };
    text.chars().map(plain).take(100).collect()
}

/// The name of what belongs to one backend of a front end.
fn endpoint(name: &str, (ip, port): (Ipv4Addr, u16)) -> String {
    format!("{name}/{ip}/{port}")
}

/// The rules that are in force, and the text of the next transaction.
#[derive(Debug)]
pub struct Rules {
    /// Name of the table.
    table: String,
    /// Whose table it is.
    owner: String,
    /// The network of the cluster IPs.
    services: (Ipv4Addr, u8),
    /// A network within which all that is led to a backend is masqueraded.
    within: Option<(Ipv4Addr, u8)>,
    targets: BTreeMap<Frontend, Target>,
    /// By how many front ends each backend's address is used.
    uses: BTreeMap<Ipv4Addr, usize>,
    /// Those of them that the kernel does not know yet: they are added all at once.
    fresh: BTreeSet<Ipv4Addr>,
    text: String,
    flows: Vec<Flow>,
}

impl Rules {
    /// An empty table of this name and owner, for cluster IPs of this network. `within` is the network of a bridge
    /// whose pods would answer each other past netfilter: what they send each other by a Service is masqueraded, so
    /// that the answers pass the node.
    pub fn new(table: &str, owner: &str, services: (Ipv4Addr, u8), within: Option<(Ipv4Addr, u8)>) -> Rules {
        Rules {
            table: table.to_owned(),
            owner: comment(owner),
            services,
            within,
            targets: BTreeMap::new(),
            uses: BTreeMap::new(),
            fresh: BTreeSet::new(),
            text: String::new(),
            flows: Vec::new(),
        }
    }

    /// The name of the table.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Adds a change to the next transaction.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Replace(all) => {
                self.targets = all.into_iter().collect();
                self.replace();
            }
            Change::Set(frontend, target) => self.set(frontend, target),
            Change::Remove(frontend) => self.remove(&frontend),
        }
    }

    /// The next transaction, and the flows that must be forgotten once it is in force.
    pub fn take(&mut self) -> (String, Vec<Flow>) {
        let pairs: Vec<String> = std::mem::take(&mut self.fresh).iter().map(|ip| format!("{ip} . {ip}")).collect();
        if !pairs.is_empty() {
            let (table, pairs) = (self.table.clone(), pairs.join(", "));
            self.line(format_args!("add element ip {table} hairpin-connections {{ {pairs} }}"));
        }
        (std::mem::take(&mut self.text), std::mem::take(&mut self.flows))
    }

    /// Makes the next transaction one that sets up the whole table, whatever is there.
    pub fn replace(&mut self) {
        self.text.clear();
        self.uses.clear();
        self.fresh.clear();
        let (table, owner) = (&self.table, &self.owner);
        let (network, length) = self.services;
        // To delete a table that is not there would be an error.
        self.text = format!("add table ip {table}\ndelete table ip {table}\n");
        self.text += &BASE
            .replace("TABLE", table)
            .replace("SERVICES", &format!("{network}/{length}"))
            .replace("MARK", MASQUERADE)
            .replace("OWNER", owner);
        if let Some((network, length)) = self.within {
            let table = self.table.clone();
            self.line(format_args!(
                "add rule ip {table} nat-postrouting ct status dnat ip saddr {network}/{length} \
                 ip daddr {network}/{length} masquerade fully-random"
            ));
        }
        for (frontend, target) in std::mem::take(&mut self.targets) {
            self.set(frontend, target);
        }
    }

    /// What removes the table.
    pub fn removal(&self) -> String {
        let table = &self.table;
        format!("add table ip {table}\ndelete table ip {table}\n")
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("text can be written");
    }

    fn set(&mut self, frontend: Frontend, target: Target) {
        if self.targets.get(&frontend) == Some(&target) {
            return;
        }
        if self.targets.get(&frontend).is_some_and(|old| old.affinity != target.affinity) {
            // Sets and chains of endpoints come or go, or have another time: they are made anew.
            self.remove(&frontend);
        }
        let old = self.targets.insert(frontend, target.clone());
        let (table, at) = (self.table.clone(), named(&frontend));
        self.forget(&frontend, old.as_ref(), Some(&target));
        let had = old.as_ref();
        self.firewall(&at, had, &target);
        let verdict = |of: &Target| if of.reject { "goto reject-chain" } else { "drop" };
        let before = had.map(|of| (of.backends.is_empty(), verdict(of)));
        let now = (target.backends.is_empty(), verdict(&target));
        let (name, maps, key) = (&at.name, at.maps, &at.key);
        match before {
            Some((true, old)) if now != (true, old) => {
                self.line(format_args!("delete element ip {table} no-endpoint-{maps} {{ {key} }}"));
            }
            Some((false, _)) if now.0 => {
                self.line(format_args!("delete element ip {table} service-{maps} {{ {key} }}"));
                self.line(format_args!("flush chain ip {table} service/{name}"));
                self.line(format_args!("delete chain ip {table} service/{name}"));
            }
            _ => {}
        }
        if now.0 && before != Some(now) {
            let verdict = now.1;
            self.line(format_args!("add element ip {table} no-endpoint-{maps} {{ {key} : {verdict} }}"));
        }
        self.use_backends(&target);
        if !now.0 {
            let fresh = before.is_none_or(|(empty, _)| empty);
            self.chain(&at, had.filter(|_| !fresh), &target);
            if fresh {
                self.line(format_args!("add element ip {table} service-{maps} {{ {key} : goto service/{name} }}"));
            }
        }
        if let Some(old) = &old {
            self.release(&at, old, Some(&target));
        }
    }

    fn remove(&mut self, frontend: &Frontend) {
        let Some(old) = self.targets.remove(frontend) else { return };
        let (table, Named { name, maps, key }) = (self.table.clone(), named(frontend));
        self.forget(frontend, Some(&old), None);
        if old.backends.is_empty() {
            self.line(format_args!("delete element ip {table} no-endpoint-{maps} {{ {key} }}"));
        } else {
            self.line(format_args!("delete element ip {table} service-{maps} {{ {key} }}"));
            self.line(format_args!("flush chain ip {table} service/{name}"));
            self.line(format_args!("delete chain ip {table} service/{name}"));
        }
        let at = Named { name, maps, key };
        self.end_firewall(&at, &old);
        self.release(&at, &old, None);
    }

    /// The chain of a front end, which has backends. `had` is what the chain was made of, if it is there.
    fn chain(&mut self, at: &Named, had: Option<&Target>, target: &Target) {
        let (table, name) = (self.table.clone(), &at.name);
        let service = &target.service;
        match had {
            Some(_) => self.line(format_args!("flush chain ip {table} service/{name}")),
            None => self.line(format_args!("add chain ip {table} service/{name} {{ comment \"{service}\" ; }}")),
        }
        if target.masquerade {
            self.line(format_args!("add rule ip {table} service/{name} jump mark-for-masquerade"));
        }
        let protocol = at.protocol();
        let all = &target.backends;
        let count = all.len();
        let Some(stay) = target.affinity else {
            if count > IN_A_ROW {
                let lines = all.iter().enumerate().map(|(n, (ip, port))| format!("{n} : {ip} . {port}"));
                let to = format!("numgen random mod {count} map {{ {} }}", lines.collect::<Vec<_>>().join(", "));
                self.line(format_args!("add rule ip {table} service/{name} meta l4proto {protocol} dnat ip to {to}"));
                return;
            }
            for (n, (ip, port)) in all.iter().enumerate() {
                // The last one takes all that come to it.
                let left = count - n;
                let one_of = if left > 1 { format!("numgen random mod {left} 0 ") } else { String::new() };
                self.line(format_args!(
                    "add rule ip {table} service/{name} {one_of}meta l4proto {protocol} dnat ip to {ip}:{port}"
                ));
            }
            return;
        };
        let mut choices = Vec::new();
        for (n, backend) in all.iter().enumerate() {
            let own = endpoint(name, *backend);
            if had.is_none_or(|had| !had.backends.contains(backend)) {
                let (ip, port) = backend;
                let seconds = stay.as_secs();
                self.line(format_args!(
                    "add set ip {table} affinity/{own} {{ type ipv4_addr ; size {STICKY_CLIENTS} ; \
                     flags dynamic,timeout ; timeout {seconds}s ; }}"
                ));
                self.line(format_args!("add chain ip {table} endpoint/{own}"));
                self.line(format_args!(
                    "add rule ip {table} endpoint/{own} update @affinity/{own} {{ ip saddr }} \
                     meta l4proto {protocol} dnat ip to {ip}:{port}"
                ));
            }
            self.line(format_args!("add rule ip {table} service/{name} ip saddr @affinity/{own} goto endpoint/{own}"));
            choices.push(format!("{n} : goto endpoint/{own}"));
        }
        let choices = choices.join(", ");
        self.line(format_args!("add rule ip {table} service/{name} numgen random mod {count} vmap {{ {choices} }}"));
    }

    /// Removes what belongs to backends of an old target that the new one does not have, when nothing refers to it any
    /// more.
    fn release(&mut self, at: &Named, old: &Target, new: Option<&Target>) {
        let table = self.table.clone();
        let stays = |backend: &(Ipv4Addr, u16)| new.is_some_and(|new| new.backends.contains(backend));
        if old.affinity.is_some() {
            for backend in old.backends.iter().filter(|backend| !stays(backend)) {
                let own = endpoint(&at.name, *backend);
                self.line(format_args!("flush chain ip {table} endpoint/{own}"));
                self.line(format_args!("delete chain ip {table} endpoint/{own}"));
                self.line(format_args!("delete set ip {table} affinity/{own}"));
            }
        }
        for (ip, _) in &old.backends {
            let uses = self.uses.get_mut(ip).expect("what is released was used");
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(ip);
                if self.fresh.remove(ip) {
                    continue;
                }
                self.line(format_args!("delete element ip {table} hairpin-connections {{ {ip} . {ip} }}"));
            }
        }
    }

    /// Notes who uses which backend, so that a backend's connections to itself are masqueraded.
    fn use_backends(&mut self, target: &Target) {
        for (ip, _) in &target.backends {
            let uses = self.uses.entry(*ip).or_insert(0);
            *uses += 1;
            if *uses == 1 {
                self.fresh.insert(*ip);
            }
        }
    }

    /// Only load balancers' addresses have source ranges, so there are none of node ports.
    fn firewall(&mut self, at: &Named, had: Option<&Target>, target: &Target) {
        if had.is_some_and(|had| had.sources == target.sources) {
            return;
        }
        if let Some(had) = had {
            self.end_firewall(at, had);
        }
        if target.sources.is_empty() {
            return;
        }
        let (table, Named { name, key, .. }) = (self.table.clone(), at);
        self.line(format_args!("add chain ip {table} firewall/{name}"));
        for (network, length) in &target.sources {
            self.line(format_args!("add rule ip {table} firewall/{name} ip saddr {network}/{length} return"));
        }
        self.line(format_args!("add rule ip {table} firewall/{name} drop"));
        self.line(format_args!("add element ip {table} firewall-ips {{ {key} : jump firewall/{name} }}"));
    }

    fn end_firewall(&mut self, at: &Named, had: &Target) {
        if had.sources.is_empty() {
            return;
        }
        let (table, Named { name, key, .. }) = (self.table.clone(), at);
        self.line(format_args!("delete element ip {table} firewall-ips {{ {key} }}"));
        self.line(format_args!("flush chain ip {table} firewall/{name}"));
        self.line(format_args!("delete chain ip {table} firewall/{name}"));
    }

    /// Notes the UDP flows that lead where they should not any more. TCP connections end by themselves; a UDP client
    /// that goes on sending keeps its flow alive for ever (kubernetes `pkg/proxy/conntrack`).
    fn forget(&mut self, frontend: &Frontend, old: Option<&Target>, new: Option<&Target>) {
        if frontend.protocol != Protocol::Udp {
            return;
        }
        let Some(old) = old else {
            // It may have been sent to before it was there.
            return self.flows.push(Flow { frontend: *frontend, backend: None });
        };
        if old.backends.is_empty() && new.is_some_and(|new| !new.backends.is_empty()) {
            return self.flows.push(Flow { frontend: *frontend, backend: None });
        }
        let gone = old.backends.iter().filter(|b| new.is_none_or(|new| !new.backends.contains(b)));
        self.flows.extend(gone.map(|(ip, _)| Flow { frontend: *frontend, backend: Some(*ip) }));
    }
}

impl Named {
    fn protocol(&self) -> &str {
        self.name.split('/').nth(1).expect("a name has a protocol")
    }
}

/// The table without any front end.
///
/// What has no endpoints is looked up after translation and before anybody else's filter (priority 0), so that nothing
/// that was translated can match; what is sent to the services' network and belongs to nobody is refused there too, and
/// does not leave the node.
const BASE: &str = r#"table ip TABLE {
    comment "Services of the cluster OWNER"
    map service-ips {
        type ipv4_addr . inet_proto . inet_service : verdict
    }
    map service-nodeports {
        type inet_proto . inet_service : verdict
    }
    map no-endpoint-ips {
        type ipv4_addr . inet_proto . inet_service : verdict
    }
    map no-endpoint-nodeports {
        type inet_proto . inet_service : verdict
    }
    map firewall-ips {
        type ipv4_addr . inet_proto . inet_service : verdict
    }
    set hairpin-connections {
        type ipv4_addr . ipv4_addr
    }
    chain mark-for-masquerade {
        meta mark set meta mark | MARK
    }
    chain reject-chain {
        reject
    }
    chain services {
        ip daddr . meta l4proto . th dport vmap @service-ips
        ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @service-nodeports
    }
    chain no-endpoints {
        ip daddr . meta l4proto . th dport vmap @no-endpoint-ips
        ip daddr SERVICES goto reject-chain
    }
    chain filter-prerouting {
        type filter hook prerouting priority -110; policy accept;
        ct state new ip daddr . meta l4proto . th dport vmap @firewall-ips
    }
    chain filter-input {
        type filter hook input priority -10; policy accept;
        ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-ips
        ct state new ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @no-endpoint-nodeports
    }
    chain filter-forward {
        type filter hook forward priority -10; policy accept;
        ct state new jump no-endpoints
    }
    chain firewall-output {
        type filter hook output priority -110; policy accept;
        ct state new ip daddr . meta l4proto . th dport vmap @firewall-ips
    }
    chain filter-output {
        type filter hook output priority -10; policy accept;
        ct state new jump no-endpoints
        ct state new ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @no-endpoint-nodeports
    }
    chain nat-prerouting {
        type nat hook prerouting priority -100; policy accept;
        jump services
    }
    chain nat-output {
        type nat hook output priority -100; policy accept;
        jump services
    }
    chain nat-postrouting {
        type nat hook postrouting priority 100; policy accept;
        meta mark & MARK != 0 meta mark set meta mark ^ MARK masquerade fully-random
        ct status dnat ip saddr . ip daddr @hairpin-connections masquerade fully-random
    }
}
"#;
