//! Allocation of cluster IPs and node ports.
//!
//! What is taken stands in the store, a key an address or port, written in the transaction that writes the Service:
//! two servers cannot give out one address twice, whatever their caches say.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::Config;
use crate::object::{FieldError, Object, Revision, Service};
use crate::random::Rng;
use crate::store::{Compare, KeyValue, Op, StoreKey, Stored};

/// What a write adds to its transaction.
type Additions = (Vec<Compare>, Vec<Op>);

/// What this server knows to be taken. May be behind; the transaction decides.
#[derive(Debug)]
pub(super) struct Allocations {
    network: u32,
    size: u32,
    ports: (u16, u16),
    taken_ips: BTreeSet<u32>,
    taken_ports: BTreeSet<u16>,
}

fn ip_key(ip: u32) -> StoreKey {
    StoreKey::Private(Arc::from(format!("ip/{}", Ipv4Addr::from(ip))))
}

fn port_key(port: u16) -> StoreKey {
    StoreKey::Private(Arc::from(format!("port/{port}")))
}

/// The address of a Service, if it has one of its own.
fn ip_of(service: &Service) -> Option<u32> {
    service.spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()).map(u32::from)
}

fn ports_of(service: &Service) -> impl Iterator<Item = u16> {
    service
        .spec
        .ports
        .iter()
        .flatten()
        .filter_map(|p| p.node_port)
        .filter_map(|p| u16::try_from(p).ok())
        .filter(|p| *p != 0)
}

fn kind_of(service: &Service) -> &str {
    service.spec.type_.as_deref().unwrap_or("ClusterIP")
}

impl Allocations {
    pub fn new(config: &Config) -> Allocations {
        let (base, prefix) = config.service_cidr;
        let size = 1u32.checked_shl(32 - u32::from(prefix)).unwrap_or(u32::MAX);
        Allocations {
            network: u32::from(Ipv4Addr::from(base)),
            size,
            ports: config.node_port_range,
            taken_ips: BTreeSet::new(),
            taken_ports: BTreeSet::new(),
        }
    }

    /// Follows a change in the cache.
    pub fn note(&mut self, old: &Option<Object>, new: &Option<Object>) {
        if let Some(Object::Service(s)) = old {
            ip_of(s).map(|ip| self.taken_ips.remove(&ip));
            ports_of(s).for_each(|p| {
                self.taken_ports.remove(&p);
            });
        }
        if let Some(Object::Service(s)) = new {
            self.taken_ips.extend(ip_of(s));
            self.taken_ports.extend(ports_of(s));
        }
    }

    /// Learns from a transaction that failed: these keys are taken.
    pub fn note_taken<'a>(&mut self, kvs: impl Iterator<Item = &'a KeyValue>) {
        for kv in kvs {
            let StoreKey::Private(name) = &kv.key else { continue };
            if let Some(ip) = name.strip_prefix("ip/").and_then(|ip| ip.parse::<Ipv4Addr>().ok()) {
                self.taken_ips.insert(u32::from(ip));
            } else if let Some(port) = name.strip_prefix("port/").and_then(|p| p.parse().ok()) {
                self.taken_ports.insert(port);
            }
        }
    }

    /// Gives a new Service its address and ports.
    pub fn for_create(&mut self, object: &mut Object, rng: &mut Rng) -> Result<Additions, Vec<FieldError>> {
        let Object::Service(service) = object else { return Ok(Additions::default()) };
        self.allocate(service, None, rng)
    }

    /// Keeps, takes or releases addresses and ports with a change of a Service.
    pub fn for_update(&mut self, new: &mut Object, old: &Object, rng: &mut Rng) -> Result<Additions, Vec<FieldError>> {
        let (Object::Service(service), Object::Service(old)) = (new, old) else { return Ok(Additions::default()) };
        if Arc::ptr_eq(&service.spec, &old.spec) {
            return Ok(Additions::default());
        }
        if kind_of(service) != "ExternalName" && kind_of(old) != "ExternalName" {
            // As upstream's `patchAllocatedValues`: what a client leaves out stays as it was given.
            if service.spec.cluster_ip.as_deref().unwrap_or("").is_empty() {
                let spec = service.spec_mut();
                spec.cluster_ip.clone_from(&old.spec.cluster_ip);
                spec.cluster_ips.clone_from(&old.spec.cluster_ips);
            }
            if wants_ports(service) && wants_ports(old) && service.spec.ports != old.spec.ports {
                keep_ports(service, old);
            }
        }
        self.allocate(service, Some(old), rng)
    }

    /// Releases what a Service held.
    pub fn for_delete(&self, object: &Object) -> Vec<Op> {
        let Object::Service(service) = object else { return Vec::new() };
        let keys = ip_of(service).map(ip_key).into_iter().chain(ports_of(service).map(port_key));
        keys.map(|key| Op::Delete { key }).collect()
    }

    fn allocate(
        &mut self,
        service: &mut Service,
        old: Option<&Service>,
        rng: &mut Rng,
    ) -> Result<Additions, Vec<FieldError>> {
        let mut errors = Vec::new();
        let held_ip = old.and_then(ip_of);
        let held_ports: BTreeSet<u16> = old.into_iter().flat_map(ports_of).collect();
        self.allocate_ip(service, held_ip, rng, &mut errors);
        self.allocate_ports(service, &held_ports, rng, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut compare = Vec::new();
        let mut ops = Vec::new();
        let mut take = |key: StoreKey, owner: String| {
            compare.push(Compare::ModRevision(key.clone(), Revision(0)));
            ops.push(Op::Put { key, value: Stored::Mark(Arc::from(owner)), lease: None });
        };
        let owner = format!("{}/{}", service.namespace(), service.name());
        let ip = ip_of(service);
        if let Some(ip) = ip.filter(|ip| Some(*ip) != held_ip) {
            take(ip_key(ip), owner.clone());
        }
        let ports: BTreeSet<u16> = ports_of(service).collect();
        for port in ports.difference(&held_ports) {
            take(port_key(*port), owner.clone());
        }
        let released = held_ip.filter(|held| ip != Some(*held)).map(ip_key);
        let released = released.into_iter().chain(held_ports.difference(&ports).map(|p| port_key(*p)));
        ops.extend(released.map(|key| Op::Delete { key }));
        Ok((compare, ops))
    }

    fn allocate_ip(&self, service: &mut Service, held: Option<u32>, rng: &mut Rng, errors: &mut Vec<FieldError>) {
        if kind_of(service) == "ExternalName" {
            if service.spec.cluster_ip.is_some() {
                let spec = service.spec_mut();
                (spec.cluster_ip, spec.cluster_ips) = (None, None);
            }
            return;
        }
        match service.spec.cluster_ip.as_deref().unwrap_or("") {
            "None" => {
                if service.spec.cluster_ips.is_none() {
                    service.spec_mut().cluster_ips = Some(vec!["None".to_owned()]);
                }
            }
            "" => match self.free_ip(rng) {
                Some(ip) => {
                    let text = Ipv4Addr::from(ip).to_string();
                    let spec = service.spec_mut();
                    spec.cluster_ip = Some(text.clone());
                    spec.cluster_ips = Some(vec![text]);
                }
                None => errors.push(FieldError::invalid(
                    "spec.clusterIPs",
                    "",
                    "failed to allocate a serviceIP: range is full",
                )),
            },
            text => match text.parse::<Ipv4Addr>().map(u32::from) {
                Ok(ip) if Some(ip) == held => {}
                Ok(ip) if ip.wrapping_sub(self.network) >= self.size => errors.push(FieldError::invalid(
                    "spec.clusterIPs",
                    [text],
                    format!("failed to allocate IP {text}: the provided IP is not in the valid range"),
                )),
                Ok(ip) if self.taken_ips.contains(&ip) => errors.push(FieldError::invalid(
                    "spec.clusterIPs",
                    [text],
                    format!("failed to allocate IP {text}: provided IP is already allocated"),
                )),
                Ok(_) => {
                    if service.spec.cluster_ips.is_none() {
                        let text = text.to_owned();
                        service.spec_mut().cluster_ips = Some(vec![text]);
                    }
                }
                Err(_) => errors.push(FieldError::invalid("spec.clusterIPs[0]", text, "must be a valid IP address")),
            },
        }
    }

    /// A free address: a random one first, then the next free one after it.
    fn free_ip(&self, rng: &mut Rng) -> Option<u32> {
        // The network and broadcast addresses, and the first (the API server's), are not given out.
        let usable = self.size.saturating_sub(3);
        if usable == 0 {
            return None;
        }
        let start = rng.below(u64::from(usable)) as u32;
        let each = (0..usable).map(|i| self.network + 2 + (start + i) % usable);
        each.into_iter().find(|ip| !self.taken_ips.contains(ip))
    }

    fn allocate_ports(&self, service: &mut Service, held: &BTreeSet<u16>, rng: &mut Rng, errors: &mut Vec<FieldError>) {
        if !wants_ports(service) {
            if ports_of(service).next().is_some() && kind_of(service) == "ClusterIP" && !held.is_empty() {
                // A Service that stops being a NodePort gives its ports back.
                for port in service.spec_mut().ports.iter_mut().flatten() {
                    port.node_port = None;
                }
            }
            return;
        }
        let (first, last) = self.ports;
        let mut given: BTreeSet<u16> = ports_of(service).collect();
        for port in &given {
            let field = "spec.ports[0].nodePort";
            if !(first..=last).contains(port) {
                let text =
                    format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
                errors.push(FieldError::invalid(field, *port, text));
            } else if self.taken_ports.contains(port) && !held.contains(port) {
                errors.push(FieldError::invalid(field, *port, "provided port is already allocated"));
            }
        }
        let missing = |p: &k8s_openapi::api::core::v1::ServicePort| p.node_port.is_none_or(|n| n == 0);
        if !service.spec.ports.iter().flatten().any(missing) {
            return;
        }
        let count = u32::from(last - first) + 1;
        for port in service.spec_mut().ports.iter_mut().flatten().filter(|p| missing(p)) {
            let start = rng.below(u64::from(count)) as u32;
            let mut each = (0..count).map(|i| first + ((start + i) % count) as u16);
            let Some(free) = each.find(|p| !self.taken_ports.contains(p) && !given.contains(p)) else {
                errors.push(FieldError::invalid("spec.ports", "", "failed to allocate a nodePort: range is full"));
                return;
            };
            given.insert(free);
            port.node_port = Some(i32::from(free));
        }
    }
}

fn wants_ports(service: &Service) -> bool {
    match kind_of(service) {
        "NodePort" => true,
        "LoadBalancer" => service.spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// Ports that a client sent without a node port keep the one they had, by port and protocol.
fn keep_ports(service: &mut Service, old: &Service) {
    for port in service.spec_mut().ports.iter_mut().flatten().filter(|p| p.node_port.is_none()) {
        let same = old.spec.ports.iter().flatten().find(|o| o.port == port.port && o.protocol == port.protocol);
        port.node_port = same.and_then(|o| o.node_port);
    }
}
