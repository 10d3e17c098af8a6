//! `names-at-rest`: at the end of a run, DNS resolves each Service's name to its cluster IP, or, if it is headless, to
//! its ready pods.

use core::net::IpAddr;
use std::collections::BTreeSet;

use skeg_core::dns::RecordData;

use super::services::{addresses, all, cluster_ip, is_headless, ready_pods};
use crate::world::World;

/// Compares the addresses that each DNS replica returns for each Service with the expected ones. Returns a description
/// of the first difference, or `None`.
pub(super) fn at_rest(world: &World) -> Option<String> {
    for (index, zone) in world.zones.iter().enumerate() {
        for service in all(&world.store) {
            let name = format!("{}.{}.svc.cluster.local", service.name(), service.namespace());
            let expect = match (is_headless(service), cluster_ip(service)) {
                (false, Some(ip)) => BTreeSet::from([ip]),
                (true, _) => {
                    let Some(pods) = ready_pods(&world.store, service) else { continue };
                    addresses(&pods)
                }
                (false, None) => continue,
            };
            let address = |record: &RecordData| match record {
                RecordData::A(ip) => Some(IpAddr::V4(*ip)),
                RecordData::Aaaa(ip) => Some(IpAddr::V6(*ip)),
                _ => None,
            };
            let found: BTreeSet<IpAddr> = zone.get(&*name).into_iter().flatten().filter_map(address).collect();
            if found != expect {
                return Some(format!("dns {index}: {name} is {found:?}, and should be {expect:?}"));
            }
        }
    }
    None
}
