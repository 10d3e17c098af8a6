//! The Endpoints controller: one Endpoints object for each service, with the same name.
//!
//! Services without a selector and ExternalName services are left alone, because others manage their endpoints.

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::core::v1::{self as core_v1, EndpointAddress, EndpointPort, EndpointSubset};

use super::service_backends::{
    Family, HEADLESS_LABEL, can_back, endpoint_hostname, families, is_headless, is_managed, pod_address, selected_pods,
    services_of_pod, target_port, target_ref,
};
use super::{Controller, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, Index, Views, Watched};
use crate::limits;
use crate::machine::Now;
use crate::object::{Endpoints, Kind, Object, ObjectKey, ObjectMeta, Pod, Service, is_pod_ready};

const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

static WATCHED: &[Watched] = &[
    Watched { kind: Kind::SERVICE, indexes: &[Index::Selector] },
    Watched { kind: Kind::POD, indexes: &[Index::Label] },
    Watched { kind: Kind::ENDPOINTS, indexes: &[] },
];

/// Maintains Endpoints. Keys are services, and Endpoints without a service.
#[derive(Debug, Default)]
pub struct EndpointsController;

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        match change.key.kind {
            Kind::POD => services_of_pod(change, views, keys),
            Kind::SERVICE => {
                let status_only = matches!((&change.old, &change.new), (Some(o), Some(n))
                    if Rc::ptr_eq(o.meta(), n.meta()) && o.same_spec(n));
                if !status_only {
                    keys.push(change.key.clone());
                }
            }
            _ => {
                let service = ObjectKey::from_path(Kind::SERVICE, change.key.path());
                let known = views.view(Kind::SERVICE).get(&service).is_some();
                keys.push(if known { service } else { change.key.clone() });
            }
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let service = views.named::<core_v1::Service>(key.namespace(), key.name());
        let current = views.named::<core_v1::Endpoints>(key.namespace(), key.name());
        match service {
            Some(service) => sync(views, service, current),
            None => current.map_or_else(Plan::nothing, |c| leftover(views, key, c)),
        }
    }
}

/// Deletes the Endpoints of a deleted service: immediately if the deletion was seen, otherwise only if this controller
/// manages the Endpoints.
fn leftover(views: &Views, key: &ObjectKey, current: &Endpoints) -> Plan {
    let mut plan = Plan::nothing();
    let ours = current.meta.labels.as_ref().and_then(|l| l.get(MANAGED_BY_LABEL)).is_some_and(|v| v == MANAGED_BY);
    if key.kind != Kind::SERVICE && !ours || current.meta.deletion_timestamp.is_some() {
        return plan;
    }
    if views.view(Kind::SERVICE).revision() < current.rv {
        plan.wait_for(Kind::SERVICE, limits::STALE_VIEW_RETRY);
        return plan;
    }
    plan.writes.push(Write::Delete {
        key: current.key(),
        uid: Rc::from(current.uid()),
        rv: None,
        grace_seconds: None,
        propagation: None,
    });
    plan
}

fn sync(views: &Views, service: &Service, current: Option<&Endpoints>) -> Plan {
    let mut plan = Plan::nothing();
    if !is_managed(service) || service.meta.deletion_timestamp.is_some() {
        return plan;
    }
    let mut subsets = desired_subsets(service, &selected_pods(views, service));
    let truncated = truncate(&mut subsets, limits::MAX_ENDPOINTS_PER_OBJECT);
    let subsets = (!subsets.is_empty()).then_some(subsets);
    let mut labels = service.meta.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS_LABEL);
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let mark = |annotations: &mut Option<BTreeMap<String, String>>| {
        if truncated {
            annotations.get_or_insert_default().insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
        } else if let Some(a) = annotations {
            a.remove(OVER_CAPACITY);
        }
    };
    match current {
        None => {
            let mut meta = ObjectMeta {
                name: service.meta.name.clone(),
                namespace: service.meta.namespace.clone(),
                labels: Some(labels),
                ..ObjectMeta::default()
            };
            mark(&mut meta.annotations);
            let spec = core_v1::Endpoints { subsets, ..core_v1::Endpoints::default() };
            plan.writes.push(Write::Create(Object::Endpoints(Endpoints::new(meta, spec, ()))));
        }
        Some(current) => {
            let mut annotations = current.meta.annotations.clone();
            mark(&mut annotations);
            let same = current.spec.subsets.as_deref().unwrap_or(&[]) == subsets.as_deref().unwrap_or(&[]);
            if same && current.meta.labels.as_ref() == Some(&labels) && current.meta.annotations == annotations {
                return plan;
            }
            let mut next = current.clone();
            let meta = next.meta_mut();
            meta.labels = Some(labels);
            meta.annotations = annotations;
            next.spec_mut().subsets = subsets;
            plan.writes.push(Write::Update(next.into(), Subresource::None));
        }
    }
    plan
}

/// The identity of a port in Endpoints: name, protocol, number, application protocol. `None` stands for a pod without
/// ports.
type PortId<'a> = Option<(&'a str, &'a str, i32, Option<&'a str>)>;

/// The subsets in canonical form: ports with the same set of addresses are in one subset (`RepackSubsets`).
fn desired_subsets(service: &Service, pods: &[&Pod]) -> Vec<EndpointSubset> {
    let publish = service.spec.publish_not_ready_addresses == Some(true);
    let family = families(service).first().copied().unwrap_or(Family::V4);
    let ports = service.spec.ports.as_deref().unwrap_or(&[]);
    let mut addresses: BTreeMap<(&str, &str), &Pod> = BTreeMap::new();
    let mut by_port: BTreeMap<PortId<'_>, BTreeMap<(&str, &str), bool>> = BTreeMap::new();
    for pod in pods.iter().copied().filter(|p| can_back(p, publish)) {
        let Some(ip) = pod_address(pod, family) else { continue };
        let (id, ready) = ((ip, pod.uid()), publish || is_pod_ready(pod));
        addresses.insert(id, pod);
        if ports.is_empty() && is_headless(service) {
            by_port.entry(None).or_default().insert(id, ready);
        }
        for port in ports {
            let Some(number) = target_port(pod, port) else { continue };
            let name = port.name.as_deref().unwrap_or("");
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            by_port.entry(Some((name, protocol, number, port.app_protocol.as_deref()))).or_default().insert(id, ready);
        }
    }
    let mut together: BTreeMap<BTreeMap<(&str, &str), bool>, Vec<PortId<'_>>> = BTreeMap::new();
    for (port, set) in by_port {
        together.entry(set).or_default().push(port);
    }
    let mut subsets: Vec<(Vec<PortId<'_>>, EndpointSubset)> = together
        .into_iter()
        .map(|(set, ports)| {
            let pick = |wanted: bool| {
                let list: Vec<EndpointAddress> = set
                    .iter()
                    .filter(|(_, ready)| **ready == wanted)
                    .map(|(id, _)| endpoint_address(id.0, addresses[id], service))
                    .collect();
                (!list.is_empty()).then_some(list)
            };
            let list: Vec<EndpointPort> = ports.iter().flatten().map(endpoint_port).collect();
            let ports_field = (!list.is_empty()).then_some(list);
            (ports, EndpointSubset { addresses: pick(true), not_ready_addresses: pick(false), ports: ports_field })
        })
        .collect();
    subsets.sort_by(|a, b| a.0.cmp(&b.0));
    subsets.into_iter().map(|(_, s)| s).collect()
}

fn endpoint_port(id: &(&str, &str, i32, Option<&str>)) -> EndpointPort {
    EndpointPort {
        name: (!id.0.is_empty()).then(|| id.0.to_owned()),
        protocol: Some(id.1.to_owned()),
        port: id.2,
        app_protocol: id.3.map(str::to_owned),
    }
}

fn endpoint_address(ip: &str, pod: &Pod, service: &Service) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: endpoint_hostname(pod, service),
        node_name: pod.spec.node.as_deref().map(str::to_owned),
        target_ref: Some(target_ref(pod)),
    }
}

/// Truncates the subsets to `max` addresses, keeping ready addresses first and each subset in proportion. Returns
/// whether it had to.
fn truncate(subsets: &mut Vec<EndpointSubset>, max: usize) -> bool {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|s| count(&s.addresses)).sum();
    let not_ready: usize = subsets.iter().map(|s| count(&s.not_ready_addresses)).sum();
    if ready + not_ready <= max {
        return false;
    }
    let cut_ready = ready > max;
    let (room, total) = if cut_ready { (max, ready) } else { (max - ready, not_ready) };
    let mut left = room;
    for subset in subsets.iter_mut() {
        if cut_ready {
            subset.not_ready_addresses = None;
        }
        let list = if cut_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        if let Some(addresses) = list {
            let share = (addresses.len() * room).div_ceil(total).min(left);
            addresses.truncate(share);
            left -= addresses.len();
            if addresses.is_empty() {
                *list = None;
            }
        }
    }
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    true
}

#[cfg(test)]
mod tests {
    use super::{EndpointsController, OVER_CAPACITY};
    use crate::controllers::fake_cluster::{Fake, at, object, pod, service, with};
    use crate::object::{Kind, Object, ObjectKey};
    use serde_json::{Value, json};

    const KINDS: &[Kind] = &[Kind::SERVICE, Kind::POD, Kind::ENDPOINTS];

    fn key() -> ObjectKey {
        ObjectKey::new(Kind::SERVICE, "d", "s")
    }

    fn settled(objects: Vec<Object>) -> Option<Value> {
        let mut fake = Fake::new(KINDS, objects);
        fake.settle(&mut EndpointsController, &key(), at(0));
        fake.get(Kind::ENDPOINTS, "d/s").map(Object::to_json)
    }

    /// Ready and not-ready addresses with their ports, one string for each subset.
    fn shape(endpoints: &Value) -> Vec<String> {
        let ips = |s: &Value, f: &str| -> String {
            s[f].as_array().into_iter().flatten().map(|a| a["ip"].as_str().unwrap()).collect::<Vec<_>>().join(",")
        };
        let subsets = endpoints["subsets"].as_array().cloned().unwrap_or_default();
        subsets
            .iter()
            .map(|s| {
                let ports: Vec<String> =
                    s["ports"].as_array().into_iter().flatten().map(|p| p["port"].to_string()).collect();
                format!("{}|{}|{}", ips(s, "addresses"), ips(s, "notReadyAddresses"), ports.join(","))
            })
            .collect()
    }

    #[test]
    fn subsets_are_what_the_pods_say() {
        let unready = json!({"status":{"conditions":[{"type":"Ready","status":"False"}]}});
        let deleting = json!({"metadata":{"deletionTimestamp":"2024-01-01T00:00:00Z"}});
        let two_ports = json!({"spec":{"ports":[{"name":"a","port":80},{"name":"b","port":81,"targetPort":"adm"}]}});
        let named = json!({"spec":{"containers":[{"name":"c","ports":[{"name":"adm","containerPort":9000}]}]}});
        let cases: Vec<(&str, Value, Vec<Object>, Vec<&str>)> = vec![
            ("ready", json!({}), vec![pod("p1", "n"), pod("p2", "n")], vec!["10.0.0.1,10.0.0.2||80"]),
            (
                "unready",
                json!({}),
                vec![pod("p1", "n"), with(pod("p2", "n"), unready.clone())],
                vec!["10.0.0.1|10.0.0.2|80"],
            ),
            ("deleting", json!({}), vec![with(pod("p1", "n"), deleting.clone())], vec![]),
            (
                "published",
                json!({"spec":{"publishNotReadyAddresses":true}}),
                vec![with(pod("p1", "n"), deleting), with(pod("p2", "n"), unready)],
                vec!["10.0.0.1,10.0.0.2||80"],
            ),
            (
                "ports apart",
                two_ports.clone(),
                vec![pod("p1", "n"), with(pod("p2", "n"), named.clone())],
                vec!["10.0.0.1,10.0.0.2||80", "10.0.0.2||9000"],
            ),
            ("ports together", two_ports, vec![with(pod("p2", "n"), named)], vec!["10.0.0.2||80,9000"]),
            (
                "headless without ports",
                json!({"spec":{"clusterIP":"None","ports":null}}),
                vec![pod("p1", "n")],
                vec!["10.0.0.1||"],
            ),
            ("other labels", json!({"spec":{"selector":{"app":"x"}}}), vec![pod("p1", "n")], vec![]),
        ];
        for (what, patch, pods, expect) in cases {
            let mut objects = vec![with(service("s"), patch)];
            objects.extend(pods);
            assert_eq!(shape(&settled(objects).expect("endpoints")), expect, "{what}");
        }
    }

    #[test]
    fn metadata_follows_the_service() {
        let patch = json!({"metadata":{"labels":{"team":"x"}},"spec":{"clusterIP":"None"}});
        let hosted = with(pod("p1", "n1"), json!({"spec":{"hostname":"h","subdomain":"s"}}));
        let found = settled(vec![with(service("s"), patch), hosted]).unwrap();
        assert_eq!(found["metadata"]["labels"]["team"], "x");
        assert_eq!(found["metadata"]["labels"]["service.kubernetes.io/headless"], "");
        let address = &found["subsets"][0]["addresses"][0];
        assert_eq!(address["hostname"], "h");
        assert_eq!(address["nodeName"], "n1");
        assert_eq!(address["targetRef"]["uid"], "pod-p1");
    }

    #[test]
    fn without_a_selector_nothing_is_touched() {
        let manual = object(json!({"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"s","namespace":"d"},
            "subsets":[{"addresses":[{"ip":"1.2.3.4"}]}]}));
        let found = settled(vec![with(service("s"), json!({"spec":{"selector":null}})), manual]).unwrap();
        assert_eq!(shape(&found), ["1.2.3.4||"]);
    }

    #[test]
    fn they_go_with_the_service_unless_someone_elses() {
        let mut fake = Fake::new(KINDS, [service("s"), pod("p1", "n")]);
        fake.settle(&mut EndpointsController, &key(), at(0));
        fake.remove(&key());
        let own = ObjectKey::new(Kind::ENDPOINTS, "d", "s");
        fake.settle(&mut EndpointsController, &own, at(0));
        assert!(fake.get(Kind::ENDPOINTS, "d/s").is_none());
        let manual = object(json!({"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"s","namespace":"d"}}));
        fake.put(manual);
        fake.settle(&mut EndpointsController, &own, at(0));
        assert!(fake.get(Kind::ENDPOINTS, "d/s").is_some(), "made by hand before its service");
        fake.settle(&mut EndpointsController, &key(), at(0));
        assert!(fake.get(Kind::ENDPOINTS, "d/s").is_none(), "the service was seen to go");
    }

    #[test]
    fn a_view_that_is_behind_deletes_nothing() {
        let mut fake = Fake::new(KINDS, [service("s"), pod("p1", "n")]);
        fake.settle(&mut EndpointsController, &key(), at(0));
        fake.views.view_mut(Kind::SERVICE).remove(&key());
        fake.views.view_mut(Kind::SERVICE).set_revision(crate::Revision(1));
        let plan = fake.step(&mut EndpointsController, &key(), at(0));
        assert!(plan.writes.is_empty() && plan.requeue_after.is_some());
    }

    #[test]
    fn a_thousand_is_the_most() {
        let pods = (0..1005).map(|i| pod(&format!("p{i:04}"), "n"));
        let found = settled(std::iter::once(service("s")).chain(pods).collect()).unwrap();
        assert_eq!(found["metadata"]["annotations"][OVER_CAPACITY], "truncated");
        assert_eq!(found["subsets"][0]["addresses"].as_array().unwrap().len(), 1000);
    }
}
