//! Services at rest: whether slices, tables of proxies and names of the DNS say what the pods in the store say.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use skeg_core::dns::RecordData;
use skeg_core::object::{EndpointSlice, Kind, Object, Pod, Selector, Service, is_pod_ready};
use skeg_core::proxy::{Entry, Frontend, Host, Placement, ServiceTable, lines};
use skeg_core::store::MemoryStore;

use crate::converge::objects;
use crate::world::{NodeHost, World};

/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label by which a Service is left to another proxy.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

fn services(store: &MemoryStore) -> impl Iterator<Item = &Service> {
    objects(store, Kind::SERVICE).filter_map(Object::get::<core_v1::Service>)
}

/// The ready pods of a Service with a selector.
fn ready_pods<'a>(store: &'a MemoryStore, service: &Service) -> Option<Vec<&'a Pod>> {
    let selector = Selector::from_map(service.spec.selector.as_ref().filter(|s| !s.is_empty())?);
    let own = |p: &&Object| p.namespace() == service.namespace() && selector.matches(p.labels()) && !p.is_deleting();
    let pods = objects(store, Kind::POD).filter(own).filter_map(Object::get::<core_v1::Pod>);
    Some(pods.filter(|p| is_pod_ready(p)).collect())
}

fn slices<'a>(store: &'a MemoryStore, service: &'a Service) -> impl Iterator<Item = &'a EndpointSlice> {
    let of_service = |o: &&Object| {
        o.namespace() == service.namespace()
            && o.labels().and_then(|l| l.get(SERVICE_NAME)).is_some_and(|name| name == service.name())
    };
    let all = objects(store, Kind::ENDPOINT_SLICE).filter(of_service);
    all.filter_map(Object::get::<k8s_openapi::api::discovery::v1::EndpointSlice>)
}

fn addresses<'a>(pods: impl IntoIterator<Item = &'a &'a Pod>) -> BTreeSet<IpAddr> {
    pods.into_iter().filter_map(|p| p.status.pod_ip.as_str().parse().ok()).collect()
}

fn is_headless(service: &Service) -> bool {
    service.spec.cluster_ip.as_deref() == Some("None")
}

fn cluster_ip(service: &Service) -> Option<IpAddr> {
    service.spec.cluster_ip.as_deref()?.parse().ok()
}

/// The first invariant of Services that does not hold at this moment, and why.
pub fn unsettled(world: &World) -> Option<(&'static str, String)> {
    let endpoints = wrong_endpoints(&world.store).map(|what| ("endpoints-at-rest", what));
    let tables = || wrong_tables(world).map(|what| ("proxies-at-rest", what));
    let names = || wrong_names(world).map(|what| ("names-at-rest", what));
    endpoints.or_else(tables).or_else(names)
}

/// Compares the EndpointSlices of each Service with its ready pods; a difference in words.
fn wrong_endpoints(store: &MemoryStore) -> Option<String> {
    for service in services(store) {
        let Some(pods) = ready_pods(store, service) else { continue };
        let mut expect: Vec<&str> = pods.iter().map(|p| p.name()).collect();
        let mut found: Vec<&str> = Vec::new();
        for slice in slices(store, service) {
            for e in slice.spec.endpoints.iter().flatten() {
                if e.conditions.as_ref().and_then(|c| c.ready) == Some(true) {
                    found.extend(e.target_ref.as_ref().and_then(|t| t.name.as_deref()));
                }
            }
        }
        expect.sort_unstable();
        found.sort_unstable();
        if expect != found {
            let key = service.key();
            return Some(format!("{key}: ready pods are {expect:?}, its EndpointSlices name {found:?}"));
        }
    }
    None
}

/// The table that a node should have, made at once from what the store holds.
fn expected_table(store: &MemoryStore, node: &NodeHost) -> BTreeMap<Frontend, Rc<Entry>> {
    let place = Placement { node_name: Rc::from(&*node.name), zone: Rc::from(&*node.zone) };
    let mut table = ServiceTable::default();
    let ours = |s: &&Service| s.meta.labels.as_ref().is_none_or(|l| !l.contains_key(OTHER_PROXY));
    for service in services(store).filter(ours).filter(|s| !is_headless(s)) {
        let key = service.key();
        let own: Vec<&EndpointSlice> = slices(store, service).collect();
        table.put(&key, lines(&place, &key, Some(service), &own), &mut Vec::new());
    }
    table.iter().map(|(frontend, entry)| (*frontend, Rc::clone(entry))).collect()
}

/// Compares the table of every node with what the store says, and the backends of plain Services with their ready
/// pods; a difference in words.
fn wrong_tables(world: &World) -> Option<String> {
    let plain = |s: &&Service| {
        let spec = &s.spec;
        let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        !local(&spec.internal_traffic_policy) && spec.traffic_distribution.is_none() && !is_headless(s)
    };
    let truth: Vec<(IpAddr, BTreeSet<IpAddr>, &Service)> = services(&world.store)
        .filter(plain)
        .filter_map(|s| Some((cluster_ip(s)?, addresses(&ready_pods(&world.store, s)?), s)))
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
            let of_service =
                node.services.iter().filter(|(f, e)| f.host == Host::Ip(*ip) && e.service == service.key());
            for (frontend, entry) in of_service {
                let backends: BTreeSet<IpAddr> = entry.backends.iter().map(|b| b.ip).collect();
                if backends != *pods {
                    let key = service.key();
                    return Some(format!(
                        "{}: {key} at {frontend:?} leads to {backends:?}, ready are {pods:?}",
                        node.name
                    ));
                }
            }
        }
    }
    None
}

/// Compares the addresses that the DNS gives for each Service with its cluster IP, or its ready pods; a difference in
/// words.
fn wrong_names(world: &World) -> Option<String> {
    for (index, zone) in world.zones.iter().enumerate() {
        for service in services(&world.store) {
            let name = format!("{}.{}.svc.cluster.local", service.name(), service.namespace());
            let expect = match (is_headless(service), cluster_ip(service)) {
                (false, Some(ip)) => BTreeSet::from([ip]),
                (true, _) if service.spec.publish_not_ready_addresses != Some(true) => {
                    let Some(pods) = ready_pods(&world.store, service) else { continue };
                    addresses(&pods)
                }
                _ => continue,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use skeg_core::Object;

    use super::unsettled;
    use crate::run::plain;
    use crate::scenario::UserAction;
    use crate::world::World;

    /// A Deployment of two behind a Service with an address and one without, a minute after they were applied.
    fn settled() -> World {
        let object = |value| Object::from_json(value).expect("a well-formed object");
        let service = |name: &str, ip: Option<&str>| {
            object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
                "spec": {"clusterIP": ip, "selector": {"app": "web"}, "ports": [{"port": 80}]}}))
        };
        let web = object(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}}}));
        let objects = vec![service("web", None), service("each", Some("None")), web];
        let mut world =
            World::new(&plain(3, 1), 1, vec![(Duration::from_secs(2), UserAction::Apply(objects).into())], false);
        while world.step(60_000_000_000) {}
        world
    }

    fn broken(tamper: impl FnOnce(&mut World)) -> Option<&'static str> {
        let mut world = settled();
        tamper(&mut world);
        unsettled(&world).map(|(invariant, _)| invariant)
    }

    #[test]
    fn what_is_wrong_with_services_is_seen() {
        assert_eq!(unsettled(&settled()), None);
        assert_eq!(settled().nodes[1].services.len(), 1, "one front end, and none for the headless service");
        assert_eq!(broken(|w| w.nodes[1].services.clear()), Some("proxies-at-rest"));
        let no_backends = |w: &mut World| {
            let mut entry = w.nodes[2].services.pop_first().expect("a line").1;
            std::rc::Rc::make_mut(&mut entry).backends = [].into();
        };
        assert_eq!(broken(no_backends), Some("proxies-at-rest"));
        let name = "each.default.svc.cluster.local";
        assert_eq!(broken(|w| drop(w.zones[0].remove(name))), Some("names-at-rest"));
        assert_eq!(broken(|w| w.zones[1].clear()), Some("names-at-rest"));
    }
}
