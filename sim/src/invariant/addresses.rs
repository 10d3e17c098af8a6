//! `service-addresses`: no two Services have the same cluster IP, or the same node port of a protocol.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core_v1;
use skeg_core::object::{Object, ObjectKey, Service};

use super::{Commit, Invariant, Report};

/// The Service that holds each cluster IP and node port.
#[derive(Debug, Default)]
pub(super) struct Addresses(BTreeMap<String, ObjectKey>);

fn addresses(service: &Service) -> impl Iterator<Item = String> {
    let spec = &service.spec;
    let (one, all) = (spec.cluster_ip.iter(), spec.cluster_ips.iter().flatten());
    let ips = one.chain(all).filter(|ip| !ip.is_empty() && *ip != "None").cloned();
    let of_port = |port: &core_v1::ServicePort| {
        let number = port.node_port.filter(|number| *number != 0)?;
        Some(format!("node port {number}/{}", port.protocol.as_deref().unwrap_or("TCP")))
    };
    ips.chain(spec.ports.iter().flatten().filter_map(of_port))
}

impl Addresses {
    pub fn service(&mut self, commit: &Commit<'_>, report: &mut Report) {
        if let Some(Object::Service(old)) = commit.old {
            let key = old.key();
            self.0.retain(|_, owner| *owner != key);
        }
        let Some(Object::Service(new)) = commit.new else { return };
        for address in addresses(new) {
            let owner = self.0.entry(address.clone()).or_insert_with(|| new.key());
            if *owner != new.key() {
                let what = format!("{} and {owner} both have {address}", new.key());
                report.broken(Invariant::ServiceAddresses, commit.at, what);
            }
        }
    }
}
