//! `proxies-at-rest`: at the end of a run, every node's service table is the one computed from the store, and each
//! cluster IP leads to the ready pods that have the port.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use skeg_core::object::{EndpointSlice, Pod, Service};
use skeg_core::proxy::{Entry, Frontend, Host, Placement, ServiceTable, lines};
use skeg_core::store::MemoryStore;

use super::services::{address, all, cluster_ip, is_headless, ready_pods, slices, target_port};
use crate::world::{NodeHost, World};

/// A Service with this label is left to another proxy.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// The table that a node should have, computed in one pass from the store.
fn expected_table(store: &MemoryStore, node: &NodeHost) -> BTreeMap<Frontend, Rc<Entry>> {
    let place = Placement { node_name: Rc::from(&*node.name), zone: Rc::from(&*node.zone) };
    let mut table = ServiceTable::default();
    let ours = |s: &&Service| s.meta.labels.as_ref().is_none_or(|l| !l.contains_key(OTHER_PROXY));
    for service in all(store).filter(ours).filter(|s| !is_headless(s)) {
        let key = service.key();
        let own: Vec<&EndpointSlice> = slices(store, service).collect();
        table.put(&key, lines(&place, &key, Some(service), &own), &mut Vec::new());
    }
    table.iter().map(|(frontend, entry)| (*frontend, Rc::clone(entry))).collect()
}

/// The backends that an entry of a Service's table should have: the ready pods that have the port.
fn backends(service: &Service, pods: &[&Pod], entry: &Entry) -> BTreeSet<(IpAddr, u16)> {
    let of_name = |name: &Option<String>| name.as_deref().unwrap_or("") == &*entry.port_name;
    let port = service.spec.ports.iter().flatten().find(|port| of_name(&port.name));
    let backend = |pod: &&Pod| Some((address(pod)?, target_port(pod, port?)?));
    pods.iter().filter_map(backend).collect()
}

/// Compares every node's service table with the one computed from the store, and the backends of Services without
/// `internalTrafficPolicy: Local` or `trafficDistribution` with their ready pods. Returns a description of the first
/// difference, or `None`.
pub(super) fn at_rest(world: &World) -> Option<String> {
    let plain = |s: &&Service| {
        let spec = &s.spec;
        let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        !local(&spec.internal_traffic_policy) && spec.traffic_distribution.is_none() && !is_headless(s)
    };
    let truth: Vec<(IpAddr, Vec<&Pod>, &Service)> = all(&world.store)
        .filter(plain)
        .filter_map(|s| Some((cluster_ip(s)?, ready_pods(&world.store, s)?, s)))
        .collect();
    for node in world.nodes.iter().filter(|n| n.has_proxy()) {
        let expect = expected_table(&world.store, node);
        if expect != node.services {
            let differs = |f: &&Frontend| expect.get(*f) != node.services.get(*f);
            let frontend = expect.keys().chain(node.services.keys()).find(differs)?;
            let (want, have) = (expect.get(frontend), node.services.get(frontend));
            return Some(format!("{}: {frontend:?} should lead to {want:?}, and leads to {have:?}", node.name));
        }
        for (ip, pods, service) in &truth {
            let key = service.key();
            for (frontend, entry) in node.services.iter().filter(|(f, e)| f.host == Host::Ip(*ip) && e.service == key) {
                let found: BTreeSet<(IpAddr, u16)> = entry.backends.iter().map(|b| (b.ip, b.port)).collect();
                let expect = backends(service, pods, entry);
                if found != expect {
                    let name = &node.name;
                    return Some(format!("{name}: {key} at {frontend:?} leads to {found:?}, ready are {expect:?}"));
                }
            }
        }
    }
    None
}
