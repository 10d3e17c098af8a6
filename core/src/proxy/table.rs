//! The service table of one node: where connections to services go. It is a function of Services and EndpointSlices,
//! updated incrementally.
//!
//! The rules are kube-proxy's: ready endpoints, or if there are none, terminating ones that still serve (KEP-1669);
//! only those on this node if the traffic policy is Local; only those with a hint for this zone or node if every ready
//! endpoint has such a hint (KEP-2433, KEP-4444).

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::discovery::v1::{self as discovery_v1, EndpointHints};
use serde::Serialize;

use super::slices::{address, is_ready};
use crate::limits;
use crate::object::{EndpointSlice, ObjectKey, Service};

/// Transport protocol of a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn of(name: Option<&str>) -> Option<Protocol> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

/// The address of a front end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize)]
pub enum Host {
    /// One address: a cluster IP, an external IP or a load balancer's IP.
    Ip(IpAddr),
    /// Every IPv4 address of the node (a node port).
    NodeV4,
    /// Every IPv6 address of the node.
    NodeV6,
}

/// The destination of a client's connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize)]
pub struct Frontend {
    /// Address.
    pub host: Host,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// An endpoint that a connection may be sent to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize)]
pub struct Backend {
    /// The pod's address.
    pub ip: IpAddr,
    /// The pod's port.
    pub port: u16,
}

/// What happens to a connection if there is no backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum WhenEmpty {
    /// Rejected immediately: the service has no endpoints.
    Reject,
    /// Dropped: the service has endpoints, but its traffic policy excludes all of them on this node.
    Drop,
}

/// One entry of the table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Entry {
    /// The service, by its key.
    pub service: ObjectKey,
    /// Name of the service's port; empty if it has no name.
    pub port_name: Rc<str>,
    /// Backends in order of address, each equally likely.
    pub backends: Rc<[Backend]>,
    /// What happens if there are none.
    pub when_empty: WhenEmpty,
    /// `sessionAffinity: ClientIP`: how long a client stays with its backend. `None`: no affinity.
    pub affinity: Option<Duration>,
    /// `loadBalancerSourceRanges`: the permitted clients; empty means all.
    pub sources: Rc<[String]>,
    /// Whether backends see the node's address in place of the client's: connections to an external address under
    /// `externalTrafficPolicy: Cluster`, whose backend may be on another node and must reply through this one.
    pub masquerade: bool,
}

/// A change of the table, for the driver that applies it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub enum TableChange {
    /// The complete table. Always the first change; it replaces whatever an earlier proxy left behind.
    Replace(Vec<(Frontend, Rc<Entry>)>),
    /// This entry is new or has changed.
    Set(Frontend, Rc<Entry>),
    /// This entry was removed.
    Remove(Frontend),
}

/// Location of the node.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// Name of the node.
    pub node_name: Rc<str>,
    /// Its zone; empty if it has none.
    pub zone: Rc<str>,
}

/// The table.
#[derive(Debug, Default)]
pub struct ServiceTable {
    lines: BTreeMap<Frontend, Rc<Entry>>,
    by_service: BTreeMap<ObjectKey, Vec<Frontend>>,
    /// Front ends that several services claim. The service whose key sorts first gets the entry.
    contested: BTreeMap<Frontend, BTreeSet<ObjectKey>>,
}

impl ServiceTable {
    /// The entry of a front end; `None` if it belongs to no service.
    pub fn get(&self, frontend: &Frontend) -> Option<&Rc<Entry>> {
        self.lines.get(frontend)
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&Frontend, &Rc<Entry>)> {
        self.lines.iter()
    }

    /// Replaces the entries of one service and pushes the changes. Returns the other services whose entries must be
    /// replaced again because a front end that they claim has become free.
    pub fn put(
        &mut self,
        service: &ObjectKey,
        lines: Vec<(Frontend, Entry)>,
        changes: &mut Vec<TableChange>,
    ) -> Vec<ObjectKey> {
        let mut freed = Vec::new();
        let mut next: Vec<Frontend> = lines.iter().map(|(f, _)| *f).collect();
        next.sort_unstable();
        next.dedup();
        for frontend in self.by_service.remove(service).unwrap_or_default() {
            if next.binary_search(&frontend).is_err() {
                self.release(service, frontend, changes, &mut freed);
            }
        }
        for (frontend, entry) in lines {
            self.claim(service, frontend, entry, changes);
        }
        if !next.is_empty() {
            self.by_service.insert(service.clone(), next);
        }
        freed
    }

    fn claim(&mut self, service: &ObjectKey, frontend: Frontend, entry: Entry, changes: &mut Vec<TableChange>) {
        if let Some(current) = self.lines.get(&frontend) {
            if current.service != *service {
                let claims = self.contested.entry(frontend).or_default();
                claims.extend([current.service.clone(), service.clone()]);
                if current.service < *service {
                    return;
                }
            } else if **current == entry {
                return;
            }
        }
        let entry = Rc::new(entry);
        self.lines.insert(frontend, Rc::clone(&entry));
        changes.push(TableChange::Set(frontend, entry));
    }

    fn release(
        &mut self,
        service: &ObjectKey,
        frontend: Frontend,
        changes: &mut Vec<TableChange>,
        freed: &mut Vec<ObjectKey>,
    ) {
        if let Some(claims) = self.contested.get_mut(&frontend) {
            claims.remove(service);
            freed.extend(claims.first().cloned());
            if claims.len() < 2 {
                self.contested.remove(&frontend);
            }
        }
        if self.lines.get(&frontend).is_some_and(|e| e.service == *service) {
            self.lines.remove(&frontend);
            changes.push(TableChange::Remove(frontend));
        }
    }
}

/// An endpoint with respect to one port of a service.
struct Candidate<'a> {
    ready: bool,
    /// Terminating, but still serving.
    lingering: bool,
    local: bool,
    hints: Option<&'a EndpointHints>,
}

/// The entries of one service on this node.
pub fn lines(
    place: &Placement,
    key: &ObjectKey,
    service: Option<&Service>,
    slices: &[&EndpointSlice],
) -> Vec<(Frontend, Entry)> {
    let mut lines = Vec::new();
    let Some(service) = service.filter(|s| s.spec.type_.as_deref() != Some("ExternalName")) else { return lines };
    let primary = service.spec.cluster_ip.iter();
    let many = service.spec.cluster_ips.as_ref().filter(|ips| !ips.is_empty());
    let ips = many.map_or_else(|| primary.collect(), |ips| ips.iter().collect::<Vec<_>>());
    for cluster_ip in ips.into_iter().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
        for port in service.spec.ports.iter().flatten() {
            port_lines(place, key, service, slices, cluster_ip, port, &mut lines);
        }
    }
    lines
}

fn port_lines(
    place: &Placement,
    key: &ObjectKey,
    service: &Service,
    slices: &[&EndpointSlice],
    cluster_ip: IpAddr,
    port: &ServicePort,
    lines: &mut Vec<(Frontend, Entry)>,
) {
    let Some(protocol) = Protocol::of(port.protocol.as_deref()) else { return };
    let candidates = candidates(place, slices, cluster_ip.is_ipv4(), port, protocol);
    let spec = &service.spec;
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let outside = outside(service, cluster_ip.is_ipv4(), port);
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| affinity_timeout(service));
    let port_name: Rc<str> = Rc::from(port.name.as_deref().unwrap_or(""));
    let exists = candidates.values().any(|c| c.ready || c.lingering);
    let when_empty = if exists { WhenEmpty::Drop } else { WhenEmpty::Reject };
    let cluster = (!internal_local || !external_local && !outside.is_empty()).then(|| cluster_wide(place, &candidates));
    let local = (internal_local || external_local && !outside.is_empty()).then(|| node_local(&candidates));
    let pick = |only_local: bool| {
        let wanted = if only_local { &local } else { &cluster };
        wanted.clone().expect("whichever policy is in force has its backends computed")
    };
    let entry = |only_local: bool, masquerade: bool, sources: &Rc<[String]>| Entry {
        service: key.clone(),
        port_name: Rc::clone(&port_name),
        backends: pick(only_local),
        when_empty,
        affinity,
        sources: Rc::clone(sources),
        masquerade,
    };
    let everyone: Rc<[String]> = Rc::from([]);
    if let Ok(number) = u16::try_from(port.port) {
        let frontend = Frontend { host: Host::Ip(cluster_ip), port: number, protocol };
        lines.push((frontend, entry(internal_local, false, &everyone)));
    }
    for (host, number, guarded) in outside {
        let sources = if guarded { ranges(service) } else { Rc::clone(&everyone) };
        lines.push((Frontend { host, port: number, protocol }, entry(external_local, !external_local, &sources)));
    }
}

/// The front ends apart from the cluster IP: host, port, and whether source ranges apply.
fn outside(service: &Service, v4: bool, port: &ServicePort) -> Vec<(Host, u16, bool)> {
    let mut all = Vec::new();
    let parse = |ip: &str| ip.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == v4).map(Host::Ip);
    let type_ = service.spec.type_.as_deref();
    if let Some(node_port) = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)
        && matches!(type_, Some("NodePort" | "LoadBalancer"))
    {
        all.push((if v4 { Host::NodeV4 } else { Host::NodeV6 }, node_port, false));
    }
    let Ok(number) = u16::try_from(port.port) else { return all };
    all.extend(service.spec.external_ips.iter().flatten().filter_map(|ip| parse(ip)).map(|h| (h, number, false)));
    if type_ == Some("LoadBalancer") {
        let ingress = service.status.load_balancer.iter().flat_map(|l| l.ingress.iter().flatten());
        let ours = ingress.filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| parse(i.ip.as_deref()?));
        all.extend(ours.map(|h| (h, number, true)));
    }
    all
}

fn ranges(service: &Service) -> Rc<[String]> {
    service.spec.load_balancer_source_ranges.as_deref().unwrap_or(&[]).into()
}

fn affinity_timeout(service: &Service) -> Duration {
    let config = service.spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let seconds = config.and_then(|c| c.timeout_seconds).and_then(|s| u64::try_from(s).ok());
    seconds.map_or(limits::AFFINITY_TIMEOUT, Duration::from_secs)
}

/// The endpoints of a port, in order. An endpoint that is in two slices counts once, and is ready if either slice says
/// so.
fn candidates<'a>(
    place: &Placement,
    slices: &[&'a EndpointSlice],
    v4: bool,
    port: &ServicePort,
    protocol: Protocol,
) -> BTreeMap<Backend, Candidate<'a>> {
    let mut all: BTreeMap<Backend, Candidate<'a>> = BTreeMap::new();
    let family = if v4 { "IPv4" } else { "IPv6" };
    for slice in slices.iter().filter(|s| s.spec.address_type == family && s.meta.deletion_timestamp.is_none()) {
        let numbers = slice.spec.ports.iter().flatten().filter(|p| {
            p.name.as_deref().unwrap_or("") == port.name.as_deref().unwrap_or("")
                && Protocol::of(p.protocol.as_deref()) == Some(protocol)
        });
        for number in numbers.filter_map(|p| p.port).filter_map(|p| u16::try_from(p).ok()) {
            for endpoint in slice.spec.endpoints.iter().flatten() {
                let Some(ip) = address(endpoint) else { continue };
                let candidate = candidate(place, endpoint);
                let slot = all.entry(Backend { ip, port: number });
                let slot = slot.or_insert(Candidate { ready: false, lingering: false, local: false, hints: None });
                if candidate.ready || !slot.ready {
                    *slot = candidate;
                }
            }
        }
    }
    all
}

fn candidate<'a>(place: &Placement, endpoint: &'a discovery_v1::Endpoint) -> Candidate<'a> {
    let ready = is_ready(endpoint);
    let conditions = endpoint.conditions.as_ref();
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    Candidate {
        ready,
        lingering: !ready && serving && terminating,
        local: endpoint.node_name.as_deref() == Some(&*place.node_name),
        hints: endpoint.hints.as_ref(),
    }
}

fn collect(all: &BTreeMap<Backend, Candidate<'_>>, wanted: impl Fn(&Candidate<'_>) -> bool) -> Rc<[Backend]> {
    all.iter().filter(|(_, c)| wanted(c)).map(|(b, _)| *b).collect()
}

/// Backends for traffic with the policy Cluster.
fn cluster_wide(place: &Placement, all: &BTreeMap<Backend, Candidate<'_>>) -> Rc<[Backend]> {
    let ready = || all.values().filter(|c| c.ready);
    let for_node =
        |c: &Candidate<'_>| hinted(c.hints.and_then(|h| h.for_nodes.as_ref()), |n| n.name == *place.node_name);
    let for_zone = |c: &Candidate<'_>| hinted(c.hints.and_then(|h| h.for_zones.as_ref()), |z| z.name == *place.zone);
    let usable = |hint: &dyn Fn(&Candidate<'_>) -> Option<bool>| {
        ready().all(|c| hint(c).is_some()) && ready().any(|c| hint(c) == Some(true))
    };
    let backends = if usable(&for_node) {
        collect(all, |c| c.ready && for_node(c) == Some(true))
    } else if !place.zone.is_empty() && usable(&for_zone) {
        collect(all, |c| c.ready && for_zone(c) == Some(true))
    } else {
        collect(all, |c| c.ready)
    };
    if backends.is_empty() { collect(all, |c| c.lingering) } else { backends }
}

/// Whether there are hints, and if so, whether one matches; `None` if there are no hints.
fn hinted<T>(hints: Option<&Vec<T>>, ours: impl Fn(&T) -> bool) -> Option<bool> {
    hints.filter(|h| !h.is_empty()).map(|h| h.iter().any(ours))
}

/// Backends for traffic with the policy Local.
fn node_local(all: &BTreeMap<Backend, Candidate<'_>>) -> Rc<[Backend]> {
    let ready = collect(all, |c| c.local && c.ready);
    if ready.is_empty() { collect(all, |c| c.local && c.lingering) } else { ready }
}
