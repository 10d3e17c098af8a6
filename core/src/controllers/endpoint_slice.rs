//! The EndpointSlice controller: the endpoints of each service, at most a hundred a slice unless configured otherwise.
//!
//! Changes are kept small: an endpoint stays in its slice, slices that must be written anyway are filled first, a new
//! slice is created only if no other has room, and a slice that would be deleted is reused. Slices of a deleted service
//! are garbage-collected through their owner reference.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::api::discovery::v1::{self as discovery_v1, EndpointConditions, EndpointHints, ForNode, ForZone};

use super::service_backends::{
    Family, HEADLESS_LABEL, can_back, endpoint_hostname, families, is_headless, is_managed, pod_address, selected_pods,
    services_of_pod, services_with_labels, target_port, target_ref,
};
use super::{Controller, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, Index, Views, Watched};
use crate::machine::Now;
use crate::object::{
    EndpointSlice, Kind, Labels, Object, ObjectKey, ObjectMeta, OwnerReference, Pod, Service, ZONE_LABEL,
    is_controlled_by, is_pod_ready,
};

/// Label of a slice that names its service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label of a slice that names the controller which manages it.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpointslice-controller.k8s.io";

static WATCHED: &[Watched] = &[
    Watched { kind: Kind::SERVICE, indexes: &[Index::Selector] },
    Watched { kind: Kind::POD, indexes: &[Index::Label, Index::Node] },
    Watched { kind: Kind::ENDPOINT_SLICE, indexes: &[Index::Label] },
    Watched { kind: Kind::NODE, indexes: &[] },
];

/// Maintains EndpointSlices. Keys are services.
#[derive(Debug)]
pub struct EndpointSliceController {
    max_per_slice: usize,
}

impl EndpointSliceController {
    /// Creates a controller that puts at most this many endpoints into a slice (`--max-endpoints-per-slice`).
    pub fn new(max_per_slice: usize) -> EndpointSliceController {
        assert!(max_per_slice > 0, "a slice has room for an endpoint");
        EndpointSliceController { max_per_slice }
    }
}

impl Controller for EndpointSliceController {
    fn name(&self) -> &'static str {
        "endpoint-slice-controller"
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
            Kind::NODE => services_of_node(change, views, keys),
            _ => {
                let mut names = BTreeSet::new();
                for slice in change.old.iter().chain(&change.new).filter(|s| is_ours(s.labels())) {
                    names.extend(slice.labels().and_then(|l| l.get(SERVICE_NAME_LABEL)));
                }
                keys.extend(names.iter().map(|n| ObjectKey::new(Kind::SERVICE, change.key.namespace(), n)));
            }
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        match views.get::<core_v1::Service>(key) {
            Some(service) if is_managed(service) && service.meta.deletion_timestamp.is_none() => {
                sync(views, service, self.max_per_slice)
            }
            _ => Plan::nothing(),
        }
    }
}

fn is_ours(labels: Option<&Labels>) -> bool {
    labels.and_then(|l| l.get(MANAGED_BY_LABEL)).is_some_and(|v| v == MANAGED_BY)
}

/// Adds the services of a node's pods if the node was created or deleted or its zone changed.
fn services_of_node(change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
    if let (Some(old), Some(new)) = (&change.old, &change.new) {
        let zone = |o: &Object| o.labels().and_then(|l| l.get(ZONE_LABEL)).cloned();
        if Rc::ptr_eq(old.meta(), new.meta()) || zone(old) == zone(new) {
            return;
        }
    }
    for pod in views.view(Kind::POD).indexed(Index::Node, change.key.name()) {
        services_with_labels(views, pod.namespace(), pod.labels(), keys);
    }
}

/// The ports of a slice; endpoints with the same ports may share a slice.
type PortSet = Vec<(String, String, Option<i32>, Option<String>)>;
/// The identity of an endpoint: address and UID of the pod.
type EndpointId = (String, String);

/// A slice as it will be; `object` is the stored slice, if there is one.
struct Draft {
    object: Option<EndpointSlice>,
    ports: PortSet,
    endpoints: Vec<discovery_v1::Endpoint>,
    changed: bool,
}

fn sync(views: &Views, service: &Service, max: usize) -> Plan {
    let labels = slice_labels(service);
    let families = families(service);
    let mut existing: BTreeMap<Family, Vec<&EndpointSlice>> = BTreeMap::new();
    let mut doomed: Vec<&EndpointSlice> = Vec::new();
    let label = format!("{}/{SERVICE_NAME_LABEL}={}", service.namespace(), service.name());
    let slices = views.view(Kind::ENDPOINT_SLICE).indexed(Index::Label, &label);
    let mut slices: Vec<&EndpointSlice> = slices.filter_map(Object::get::<discovery_v1::EndpointSlice>).collect();
    slices.sort_unstable_by_key(|slice| slice.name());
    for slice in slices {
        if !is_ours(slice.meta.labels.as_ref()) || slice.meta.deletion_timestamp.is_some() {
            continue;
        }
        let family = families.iter().find(|f| f.name() == slice.spec.address_type);
        match family {
            Some(family) if is_controlled_by(&slice.meta, service.uid()) => {
                existing.entry(*family).or_default().push(slice);
            }
            _ => doomed.push(slice),
        }
    }
    let pods = selected_pods(views, service);
    let (mut creates, mut updates) = (Vec::new(), Vec::new());
    for family in families {
        let desired = desired_endpoints(views, service, &pods, family);
        let (drafts, unused) = fit(existing.remove(&family).unwrap_or_default(), desired, max);
        doomed.extend(unused);
        for draft in drafts {
            match write(draft, service, family, &labels) {
                Some(w @ Write::Create(_)) => creates.push(w),
                Some(w) => updates.push(w),
                None => {}
            }
        }
    }
    let mut plan = Plan::nothing();
    plan.writes.extend(creates);
    plan.writes.extend(updates);
    plan.writes.extend(doomed.into_iter().map(|slice| Write::Delete {
        key: slice.key(),
        uid: Rc::from(slice.uid()),
        rv: None,
        grace_seconds: None,
        propagation: None,
    }));
    plan
}

/// The endpoints that should exist, grouped by their ports.
fn desired_endpoints(
    views: &Views,
    service: &Service,
    pods: &[&Pod],
    family: Family,
) -> BTreeMap<PortSet, BTreeMap<EndpointId, discovery_v1::Endpoint>> {
    let publish = service.spec.publish_not_ready_addresses == Some(true);
    let mut groups: BTreeMap<PortSet, BTreeMap<EndpointId, discovery_v1::Endpoint>> = BTreeMap::new();
    for pod in pods.iter().copied().filter(|p| can_back(p, true)) {
        let Some(address) = pod_address(pod, family) else { continue };
        let node = pod.spec.node.as_deref();
        let known = node.and_then(|n| views.named::<core_v1::Node>("", n));
        if node.is_some() && known.is_none() && !publish {
            // As in kube-controller-manager, a pod is left out while its node is not in the view. The event of the
            // node's creation requeues the service.
            continue;
        }
        let zone = known.and_then(|n| n.meta.labels.as_ref()?.get(ZONE_LABEL)).filter(|z| !z.is_empty()).cloned();
        let endpoint = endpoint(service, pod, address, zone, publish);
        let ports = pod_ports(service, pod);
        groups.entry(ports).or_default().insert((address.to_owned(), pod.uid().to_owned()), endpoint);
    }
    groups
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: &str,
    zone: Option<String>,
    publish: bool,
) -> discovery_v1::Endpoint {
    let serving = is_pod_ready(pod);
    let terminating = pod.meta.deletion_timestamp.is_some();
    let ready = publish || serving && !terminating;
    let node_name = pod.spec.node.as_deref().map(str::to_owned);
    discovery_v1::Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: endpoint_hostname(pod, service),
        hints: hints(service, ready, zone.as_deref(), node_name.as_deref()),
        node_name,
        target_ref: Some(target_ref(pod)),
        zone,
        deprecated_topology: None,
    }
}

/// Hints for `spec.trafficDistribution`: an endpoint is for its own zone, and with PreferSameNode for its own node.
fn hints(service: &Service, ready: bool, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.traffic_distribution.as_deref()?;
    let close = matches!(distribution, "PreferClose" | "PreferSameZone" | "PreferSameNode");
    let zone = zone.filter(|_| ready && close)?;
    let for_nodes = node.filter(|_| distribution == "PreferSameNode").map(|n| vec![ForNode { name: n.to_owned() }]);
    Some(EndpointHints { for_nodes, for_zones: Some(vec![ForZone { name: zone.to_owned() }]) })
}

fn pod_ports(service: &Service, pod: &Pod) -> PortSet {
    let mut ports: PortSet = service
        .spec
        .ports
        .iter()
        .flatten()
        .filter_map(|p| {
            let number = target_port(pod, p)?;
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((p.name.clone().unwrap_or_default(), protocol, Some(number), p.app_protocol.clone()))
        })
        .collect();
    ports.sort();
    ports
}

fn slice_ports(slice: &EndpointSlice) -> PortSet {
    let mut ports: PortSet = slice
        .spec
        .ports
        .iter()
        .flatten()
        .map(|p| {
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            (p.name.clone().unwrap_or_default(), protocol, p.port, p.app_protocol.clone())
        })
        .collect();
    ports.sort();
    ports
}

/// Distributes the desired endpoints over the existing slices. Returns the slices that should exist and those that are
/// left over.
fn fit(
    existing: Vec<&EndpointSlice>,
    mut desired: BTreeMap<PortSet, BTreeMap<EndpointId, discovery_v1::Endpoint>>,
    max: usize,
) -> (Vec<Draft>, Vec<&EndpointSlice>) {
    let (mut drafts, mut unused): (Vec<Draft>, Vec<&EndpointSlice>) = (Vec::new(), Vec::new());
    for slice in existing {
        let ports = slice_ports(slice);
        let draft = desired.get_mut(&ports).and_then(|wanted| keep(slice, ports, wanted));
        match draft {
            Some(draft) => drafts.push(draft),
            None => unused.push(slice),
        }
    }
    for (ports, missing) in desired {
        place(&mut drafts, &ports, missing.into_values().collect(), max);
    }
    if drafts.is_empty() {
        // A service without endpoints gets one empty slice, so that readers can tell "none" from "not yet".
        let new = Draft { object: None, ports: PortSet::new(), endpoints: Vec::new(), changed: true };
        drafts.push(new);
    }
    for draft in drafts.iter_mut().filter(|d| d.object.is_none()) {
        if unused.is_empty() {
            break;
        }
        let slice = unused.remove(0);
        let empty = slice.spec.endpoints.as_ref().is_none_or(Vec::is_empty) && draft.endpoints.is_empty();
        draft.changed = !(empty && slice_ports(slice) == draft.ports);
        draft.object = Some(slice.clone());
    }
    (drafts, unused)
}

/// Keeps those endpoints of a slice that are still wanted, and removes them from `wanted`. `None` if no endpoint is
/// kept.
fn keep(
    slice: &EndpointSlice,
    ports: PortSet,
    wanted: &mut BTreeMap<EndpointId, discovery_v1::Endpoint>,
) -> Option<Draft> {
    let mut endpoints = Vec::new();
    let mut changed = false;
    for old in slice.spec.endpoints.iter().flatten() {
        let address = old.addresses.first().cloned().unwrap_or_default();
        let uid = old.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default();
        match wanted.remove(&(address, uid)) {
            Some(new) => {
                changed |= new != *old;
                endpoints.push(new);
            }
            None => changed = true,
        }
    }
    (!endpoints.is_empty()).then(|| Draft { object: Some(slice.clone()), ports, endpoints, changed })
}

/// Finds slices for endpoints that have none.
fn place(drafts: &mut Vec<Draft>, ports: &PortSet, mut missing: Vec<discovery_v1::Endpoint>, max: usize) {
    for draft in drafts.iter_mut().filter(|d| d.changed && d.ports == *ports) {
        let room = max.saturating_sub(draft.endpoints.len()).min(missing.len());
        draft.endpoints.extend(missing.drain(..room));
    }
    while !missing.is_empty() {
        let closest = drafts
            .iter_mut()
            .filter(|d| d.ports == *ports && d.endpoints.len() + missing.len() <= max)
            .max_by_key(|d| d.endpoints.len());
        match closest {
            Some(draft) => {
                draft.endpoints.append(&mut missing);
                draft.changed = true;
            }
            None => {
                let endpoints = missing.drain(..missing.len().min(max)).collect();
                drafts.push(Draft { object: None, ports: ports.clone(), endpoints, changed: true });
            }
        }
    }
}

/// The labels of a service's slices: the service's own and those that mark slices.
fn slice_labels(service: &Service) -> Labels {
    let mut labels = service.meta.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS_LABEL);
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME_LABEL.to_owned(), service.name().to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels
}

fn write(draft: Draft, service: &Service, family: Family, labels: &Labels) -> Option<Write> {
    let ports = draft
        .ports
        .into_iter()
        .map(|(name, protocol, port, app_protocol)| discovery_v1::EndpointPort {
            name: Some(name),
            protocol: Some(protocol),
            port,
            app_protocol,
        })
        .collect();
    match draft.object {
        Some(current) => {
            if !draft.changed && current.meta.labels.as_ref() == Some(labels) {
                return None;
            }
            let mut next = current;
            next.meta_mut().labels = Some(labels.clone());
            if draft.changed {
                let spec = next.spec_mut();
                spec.endpoints = Some(draft.endpoints);
                spec.ports = Some(ports);
            }
            Some(Write::Update(next.into(), Subresource::None))
        }
        None => {
            let meta = ObjectMeta {
                generate_name: Some(format!("{}-", service.name())),
                namespace: service.meta.namespace.clone(),
                labels: Some(labels.clone()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Service".to_owned(),
                    name: service.name().to_owned(),
                    uid: service.uid().to_owned(),
                    controller: Some(true),
                    block_owner_deletion: Some(true),
                }]),
                ..ObjectMeta::default()
            };
            let spec = discovery_v1::EndpointSlice {
                address_type: family.name().to_owned(),
                endpoints: Some(draft.endpoints),
                ports: Some(ports),
                ..discovery_v1::EndpointSlice::default()
            };
            Some(Write::Create(EndpointSlice::new(meta, spec, ()).into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EndpointSliceController, Write};
    use crate::client::Change;
    use crate::controllers::Controller;
    use crate::controllers::fake_cluster::{Fake, at, node, pod, service, with};
    use crate::object::{Kind, Object, ObjectKey};
    use k8s_openapi::api::discovery::v1 as discovery_v1;
    use proptest::prelude::{Strategy, any, proptest};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    const KINDS: &[Kind] = &[Kind::SERVICE, Kind::POD, Kind::ENDPOINT_SLICE, Kind::NODE];

    fn controller() -> EndpointSliceController {
        EndpointSliceController::new(100)
    }

    fn key() -> ObjectKey {
        ObjectKey::new(Kind::SERVICE, "d", "s")
    }

    fn fake(patch: Value, pods: impl IntoIterator<Item = Object>) -> Fake {
        let base = [with(service("s"), patch), node("n1"), with(node("n2"), json!({"metadata":{"labels":null}}))];
        let mut fake = Fake::new(KINDS, base.into_iter().chain(pods));
        fake.settle(&mut controller(), &key(), at(0));
        fake
    }

    fn slices(fake: &Fake) -> Vec<&crate::object::EndpointSlice> {
        fake.views.list::<discovery_v1::EndpointSlice>("d").collect()
    }

    /// Every endpoint: address to `ready serving terminating zone`.
    fn endpoints(fake: &Fake) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for slice in slices(fake) {
            let list = slice.spec.endpoints.as_deref().unwrap_or(&[]);
            assert!(list.len() <= 100);
            for e in list {
                let c = e.conditions.as_ref().unwrap();
                let flag = |b: Option<bool>, t: char| if b == Some(true) { t } else { '-' };
                let text = format!(
                    "{}{}{} {}",
                    flag(c.ready, 'r'),
                    flag(c.serving, 's'),
                    flag(c.terminating, 't'),
                    e.zone.as_deref().unwrap_or("?")
                );
                assert!(all.insert(e.addresses[0].clone(), text).is_none(), "an endpoint stands in one slice");
            }
        }
        all
    }

    #[test]
    fn conditions_and_zones() {
        let unready = json!({"status":{"conditions":[{"type":"Ready","status":"False"}]}});
        let deleting = json!({"metadata":{"deletionTimestamp":"2024-01-01T00:00:00Z"}});
        let publish = json!({"spec":{"publishNotReadyAddresses":true}});
        for (svc, pod, expect) in [
            (json!({}), pod("p1", "n1"), Some("rs- zone-a")),
            (json!({}), pod("p1", "n2"), Some("rs- ?")),
            (json!({}), with(pod("p1", "n1"), unready.clone()), Some("--- zone-a")),
            (json!({}), with(pod("p1", "n1"), deleting.clone()), Some("-st zone-a")),
            (publish, with(with(pod("p1", "n1"), deleting), unready), Some("r-t zone-a")),
            (json!({}), with(pod("p1", "n1"), json!({"status":{"phase":"Succeeded"}})), None),
            (json!({}), pod("p1", "unknown"), None),
            (json!({"spec":{"selector":{"app":"x"}}}), pod("p1", "n1"), None),
        ] {
            let text = format!("{svc} {pod:?}");
            let fake = fake(svc, [pod]);
            assert_eq!(endpoints(&fake).get("10.0.0.1").map(String::as_str), expect, "{text}");
            assert_eq!(slices(&fake).len(), 1, "an empty service has one empty slice: {text}");
        }
    }

    #[test]
    fn metadata_of_a_slice() {
        let fake = fake(json!({"metadata":{"labels":{"team":"x"}},"spec":{"clusterIP":"None"}}), [pod("p1", "n1")]);
        let slice = Object::from(slices(&fake)[0].clone()).to_json();
        let meta = &slice["metadata"];
        assert_eq!(meta["generateName"], "s-");
        assert_eq!(meta["ownerReferences"][0]["uid"], "svc-s");
        assert_eq!(
            meta["labels"],
            json!({"team":"x","kubernetes.io/service-name":"s",
            "endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io",
            "service.kubernetes.io/headless":""})
        );
        assert_eq!(slice["addressType"], "IPv4");
        assert_eq!(slice["ports"], json!([{"name":"http","port":80,"protocol":"TCP"}]));
        assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "p1");
    }

    #[test]
    fn services_left_alone() {
        for patch in [
            json!({"spec":{"selector":null}}),
            json!({"spec":{"type":"ExternalName"}}),
            json!({"metadata":{"deletionTimestamp":"2024-01-01T00:00:00Z","finalizers":["x"]}}),
        ] {
            assert!(slices(&fake(patch, [pod("p1", "n1")])).is_empty());
        }
    }

    #[test]
    fn a_family_each_and_ports_apart() {
        let dual = json!({"spec":{"ipFamilies":["IPv4","IPv6"]}});
        let p = with(pod("p1", "n1"), json!({"status":{"podIPs":[{"ip":"10.0.0.1"},{"ip":"fd::1"}]}}));
        assert_eq!(endpoints(&fake(dual, [p])).len(), 2);
        let named = json!({"spec":{"ports":[{"name":"w","port":80,"targetPort":"web"}]}});
        let at_port = |n: &str, port: u16| {
            with(
                pod(n, "n1"),
                json!({"spec":{"containers":[{"name":"c","ports":[{"name":"web","containerPort":port}]}]}}),
            )
        };
        let fake = fake(named, [at_port("p1", 1), at_port("p2", 2), at_port("p3", 2)]);
        let sizes: Vec<usize> = slices(&fake).iter().map(|s| s.spec.endpoints.as_ref().unwrap().len()).collect();
        assert_eq!(sizes, [1, 2]);
    }

    #[test]
    fn one_more_pod_writes_one_slice() {
        let mut fake = fake(json!({}), (0..250).map(|i| pod(&format!("p{i:03}"), "n1")));
        assert_eq!(slices(&fake).len(), 3);
        fake.put(pod("p900", "n1"));
        let plan = fake.step(&mut controller(), &key(), at(1));
        assert!(matches!(plan.writes.as_slice(), [Write::Update(..)]), "{:?}", plan.writes);
        fake.remove(&ObjectKey::new(Kind::POD, "d", "p000"));
        let plan = fake.step(&mut controller(), &key(), at(1));
        assert!(matches!(plan.writes.as_slice(), [Write::Update(..)]), "{:?}", plan.writes);
        assert_eq!(endpoints(&fake).len(), 250);
    }

    #[test]
    fn slices_of_an_earlier_service_of_that_name_go() {
        let mut fake = fake(json!({}), [pod("p1", "n1")]);
        let old = slices(&fake)[0].key();
        fake.remove(&key());
        fake.put(with(service("s"), json!({"metadata":{"uid":"another"}})));
        fake.settle(&mut controller(), &key(), at(1));
        assert!(fake.views.view(Kind::ENDPOINT_SLICE).get(&old).is_none());
        assert_eq!(endpoints(&fake).len(), 1);
    }

    #[test]
    fn a_node_that_arrives_concerns_the_services_of_its_pods() {
        let mut fake = fake(json!({}), [pod("p1", "late")]);
        assert!(endpoints(&fake).is_empty());
        fake.put(node("late"));
        let mut keys = Vec::new();
        let change = Change { key: node("late").key(), old: None, new: Some(node("late")) };
        controller().keys(&change, &fake.views, &mut keys);
        assert_eq!(keys, [key()]);
        fake.settle(&mut controller(), &key(), at(1));
        assert_eq!(endpoints(&fake).len(), 1);
    }

    #[test]
    fn hints_follow_the_traffic_distribution() {
        let fake = fake(json!({"spec":{"trafficDistribution":"PreferClose"}}), [pod("p1", "n1")]);
        let slice = Object::from(slices(&fake)[0].clone()).to_json();
        assert_eq!(slice["endpoints"][0]["hints"], json!({"forZones":[{"name":"zone-a"}]}));
    }

    /// A random event: which pod, and what happens to it.
    fn event() -> impl Strategy<Value = (usize, u8)> {
        (0usize..260, any::<u8>())
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
        #[test]
        fn step_by_step_is_as_from_scratch(events in proptest::collection::vec(event(), 1..120)) {
            let mut live = fake(json!({}), (0..200).map(|i| pod(&format!("p{i:03}"), "n1")));
            for chunk in events.chunks(5) {
                for (i, what) in chunk {
                    let name = format!("p{i:03}");
                    match what % 5 {
                        0 => live.remove(&ObjectKey::new(Kind::POD, "d", &name)),
                        1 => live.put(with(pod(&name, "n1"), json!({"status":{"conditions":[]}}))),
                        2 => live.put(with(pod(&name, "n1"), json!({"metadata":{"labels":{"app":"no"}}}))),
                        3 => live.put(with(pod(&name, "n2"), json!({"metadata":{"uid":format!("again-{what}")}}))),
                        _ => live.put(pod(&name, "n2")),
                    }
                }
                live.settle(&mut controller(), &key(), at(0));
            }
            let pods: Vec<Object> = live.views.view(Kind::POD).iter().map(|(_, o)| o.clone()).collect();
            assert_eq!(endpoints(&live), endpoints(&fake(json!({}), pods)));
        }
    }
}
