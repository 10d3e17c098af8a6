//! `service-addresses`: no two Services have the same cluster IP.

use std::collections::BTreeMap;

use skeg_core::object::{Object, ObjectKey, Service};

use super::{Commit, Invariant, Report};

/// The Service that holds each cluster IP.
#[derive(Debug, Default)]
pub(super) struct Addresses(BTreeMap<String, ObjectKey>);

fn addresses(service: &Service) -> impl Iterator<Item = &String> {
    let (one, all) = (service.spec.cluster_ip.iter(), service.spec.cluster_ips.iter().flatten());
    one.chain(all).filter(|ip| !ip.is_empty() && *ip != "None")
}

impl Addresses {
    pub fn service(&mut self, commit: &Commit<'_>, report: &mut Report) {
        if let Some(Object::Service(old)) = commit.old {
            let key = old.key();
            self.0.retain(|_, owner| *owner != key);
        }
        let Some(Object::Service(new)) = commit.new else { return };
        for ip in addresses(new) {
            let owner = self.0.entry(ip.clone()).or_insert_with(|| new.key());
            if *owner != new.key() {
                let what = format!("{} and {owner} both have {ip}", new.key());
                report.broken(Invariant::ServiceAddresses, commit.at, what);
            }
        }
    }
}
