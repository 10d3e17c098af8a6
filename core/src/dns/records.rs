//! The DNS records of one service, by the specification of Kubernetes' DNS-based service discovery (1.1.0).
//!
//! Source: <https://github.com/kubernetes/dns/blob/master/docs/specification.md>. Where it leaves a choice, CoreDNS's
//! behaviour is used.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::discovery::v1::Endpoint;
use serde::Serialize;

use crate::object::{EndpointSlice, Service};
use crate::proxy::slices::{address, is_ready};

/// The data of a record. Names are absolute, in lower case, without the trailing dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[allow(missing_docs)]
pub enum RecordData {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(Rc<str>),
    Ptr(Rc<str>),
    Srv { priority: u16, weight: u16, port: u16, target: Rc<str> },
    Txt(Rc<str>),
}

impl RecordData {
    /// An A or AAAA record.
    pub(super) fn address(ip: IpAddr) -> RecordData {
        match ip {
            IpAddr::V4(ip) => RecordData::A(ip),
            IpAddr::V6(ip) => RecordData::Aaaa(ip),
        }
    }
}

/// The records of one service, by name; each list is sorted and without duplicates.
pub(super) type Records = BTreeMap<Rc<str>, BTreeSet<RecordData>>;

/// The records that are published for a service.
pub(super) fn records(domain: &str, service: Option<&Service>, slices: &[&EndpointSlice]) -> Records {
    let mut records = Records::new();
    let Some(service) = service else { return records };
    let name: Rc<str> = Rc::from(format!("{}.{}.svc.{domain}", service.name(), service.namespace()));
    if service.spec.type_.as_deref() == Some("ExternalName") {
        if let Some(target) = service.spec.external_name.as_deref().filter(|t| !t.is_empty()) {
            let target = Rc::from(target.trim_end_matches('.').to_lowercase());
            records.entry(name).or_default().insert(RecordData::Cname(target));
        }
        return records;
    }
    let spec = &service.spec;
    let ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|ip| ip.parse().ok());
    let ips: BTreeSet<IpAddr> = ips.collect();
    if ips.is_empty() {
        headless(&name, slices, &mut records);
    } else {
        cluster_ips(&name, service, &ips, &mut records);
    }
    records
}

fn cluster_ips(name: &Rc<str>, service: &Service, ips: &BTreeSet<IpAddr>, records: &mut Records) {
    for ip in ips {
        records.entry(Rc::clone(name)).or_default().insert(RecordData::address(*ip));
        records.entry(reverse_name(*ip)).or_default().insert(RecordData::Ptr(Rc::clone(name)));
    }
    for port in service.spec.ports.iter().flatten() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        srv(name, port.name.as_deref(), protocol, port.port, name, records);
    }
}

/// Adds the addresses of the ready endpoints, each also under the endpoint's own name.
fn headless(name: &Rc<str>, slices: &[&EndpointSlice], records: &mut Records) {
    for slice in slices.iter().filter(|s| s.meta.deletion_timestamp.is_none()) {
        let ready = slice.spec.endpoints.iter().flatten().filter(|e| is_ready(e));
        for (endpoint, ip) in ready.filter_map(|e| Some((e, address(e)?))) {
            let own: Rc<str> = Rc::from(format!("{}.{name}", endpoint_name(endpoint, ip)));
            for owner in [name, &own] {
                records.entry(Rc::clone(owner)).or_default().insert(RecordData::address(ip));
            }
            records.entry(reverse_name(ip)).or_default().insert(RecordData::Ptr(Rc::clone(&own)));
            for port in slice.spec.ports.iter().flatten() {
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                srv(name, port.name.as_deref(), protocol, port.port.unwrap_or(0), &own, records);
            }
        }
    }
}

/// Name of an endpoint within its service: its host name, or its address with dashes.
fn endpoint_name(endpoint: &Endpoint, ip: IpAddr) -> String {
    match endpoint.hostname.as_deref().filter(|h| !h.is_empty()) {
        Some(hostname) => hostname.to_lowercase(),
        None => ip.to_string().replace(['.', ':'], "-"),
    }
}

/// Adds the SRV record of a port; only a named port has one.
fn srv(name: &str, port_name: Option<&str>, protocol: &str, port: i32, target: &Rc<str>, records: &mut Records) {
    let (Some(port_name), Ok(port)) = (port_name.filter(|n| !n.is_empty()), u16::try_from(port)) else { return };
    let owner = format!("_{}._{}.{name}", port_name.to_lowercase(), protocol.to_lowercase());
    let data = RecordData::Srv { priority: 0, weight: 100, port, target: Rc::clone(target) };
    records.entry(Rc::from(owner)).or_default().insert(data);
}

/// The name for a reverse lookup of an address: `4.3.2.1.in-addr.arpa`.
pub(super) fn reverse_name(ip: IpAddr) -> Rc<str> {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            Rc::from(format!("{d}.{c}.{b}.{a}.in-addr.arpa"))
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|o| [o & 15, o >> 4]);
            let mut name: String = nibbles.map(|n| format!("{n:x}.")).collect();
            name.push_str("ip6.arpa");
            Rc::from(name)
        }
    }
}
