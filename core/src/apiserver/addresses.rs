//! Which addresses and ports the cached Services hold.

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use crate::object::{Object, ObjectKey, Service};

/// Which Service holds which address and port.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pub(super) ips: BTreeMap<u32, ObjectKey>,
    pub(super) ports: BTreeMap<u16, ObjectKey>,
}

impl Addresses {
    /// Applies a change of a Service.
    pub(super) fn replace(&mut self, key: &ObjectKey, old: Option<&Object>, new: Option<&Object>) {
        if let Some(Object::Service(old)) = old {
            for ip in ips_of(old) {
                if self.ips.get(&ip) == Some(key) {
                    self.ips.remove(&ip);
                }
            }
            for port in ports_of(old) {
                if self.ports.get(&port) == Some(key) {
                    self.ports.remove(&port);
                }
            }
        }
        if let Some(Object::Service(new)) = new {
            self.ips.extend(ips_of(new).map(|ip| (ip, key.clone())));
            self.ports.extend(ports_of(new).map(|port| (port, key.clone())));
        }
    }
}

pub(super) fn ips_of(service: &Service) -> impl Iterator<Item = u32> {
    let text = service.spec.cluster_ips.as_deref().unwrap_or(&[]).iter().chain(service.spec.cluster_ip.as_ref());
    text.filter_map(|ip| ip.parse::<Ipv4Addr>().ok()).map(u32::from)
}

pub(super) fn ports_of(service: &Service) -> impl Iterator<Item = u16> {
    let spec = &service.spec;
    let all = spec.ports.iter().flatten().filter_map(|p| p.node_port).chain(spec.health_check_node_port);
    all.filter_map(|p| u16::try_from(p).ok()).filter(|p| *p != 0)
}
