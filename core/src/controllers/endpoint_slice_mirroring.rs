//! The EndpointSlice mirroring controller: Endpoints that somebody makes for a Service without a selector are repeated
//! as EndpointSlices, which is what proxies and DNS servers read.
//!
//! What comes in: Endpoints, Services, EndpointSlices. What goes out: EndpointSlices, one for each set of ports and
//! family of addresses. Endpoints of Services with a selector, those labelled `skip-mirror` and those that only keep a
//! leader's record are left alone.
//!
//! Source: upstream's `pkg/controller/endpointslicemirroring`.

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::core::v1::{self as core_v1, EndpointAddress};
use k8s_openapi::api::discovery::v1::{self as discovery_v1, EndpointConditions};

use super::claim::controller_ref;
use super::endpoint_slice::{MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use super::{Controller, EventNote, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, EventType, Index, Views, Watched};
use crate::limits;
use crate::machine::Now;
use crate::object::{EndpointSlice, Endpoints, Kind, Labels, Object, ObjectKey, ObjectMeta, OwnerReference};

const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are about the Endpoints and not about what they say.
const NOT_COPIED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

static WATCHED: &[Watched] = &[
    Watched { kind: Kind::SERVICE, indexes: &[] },
    Watched { kind: Kind::ENDPOINTS, indexes: &[] },
    Watched { kind: Kind::ENDPOINT_SLICE, indexes: &[Index::Label] },
];

/// Mirrors Endpoints. Keys are Endpoints.
#[derive(Debug, Default)]
pub struct EndpointSliceMirroringController;

impl Controller for EndpointSliceMirroringController {
    fn name(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        let both = || change.old.iter().chain(&change.new);
        match change.key.kind {
            Kind::SERVICE => {
                let selects = |object: &Object| matches!(object, Object::Service(s) if s.spec.selector.is_some());
                let flipped = match (&change.old, &change.new) {
                    (Some(old), Some(new)) => selects(old) != selects(new),
                    _ => both().any(|object| !selects(object)),
                };
                if flipped {
                    keys.push(ObjectKey::from_path(Kind::ENDPOINTS, change.key.path()));
                }
            }
            Kind::ENDPOINTS => {
                if both().any(|object| is_mirrored(object.meta())) {
                    keys.push(change.key.clone());
                }
            }
            _ => {
                for slice in both().filter(|slice| is_ours(slice.labels())) {
                    let name = slice.labels().and_then(|labels| labels.get(SERVICE_NAME_LABEL));
                    keys.extend(name.map(|name| ObjectKey::new(Kind::ENDPOINTS, slice.namespace(), name)));
                }
            }
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let label = format!("{}/{SERVICE_NAME_LABEL}={}", key.namespace(), key.name());
        let slices = views.view(Kind::ENDPOINT_SLICE).indexed(Index::Label, &label);
        let slices = slices.filter_map(Object::get::<discovery_v1::EndpointSlice>);
        let mut slices: Vec<&EndpointSlice> =
            slices.filter(|slice| is_ours(slice.meta.labels.as_ref()) && !slice.meta.is_deleting()).collect();
        slices.sort_unstable_by_key(|slice| slice.name());
        let service = views.named::<core_v1::Service>(key.namespace(), key.name());
        let endpoints = views.get::<core_v1::Endpoints>(key).filter(|endpoints| is_mirrored(&endpoints.meta));
        match endpoints {
            Some(endpoints) if service.is_some_and(|service| service.spec.selector.is_none()) => {
                mirror(endpoints, slices)
            }
            _ => {
                let mut plan = Plan::nothing();
                plan.writes.extend(slices.into_iter().map(delete));
                plan
            }
        }
    }
}

fn is_ours(labels: Option<&Labels>) -> bool {
    labels.and_then(|labels| labels.get(MANAGED_BY_LABEL)).is_some_and(|by| by == MANAGED_BY)
}

/// Whether Endpoints are for readers of EndpointSlices (`shouldMirror`).
fn is_mirrored(meta: &ObjectMeta) -> bool {
    let skipped = meta.labels.as_ref().and_then(|labels| labels.get(SKIP_MIRROR)).is_some_and(|v| v == "true");
    let leads = meta.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
    !skipped && !leads
}

fn delete(slice: &EndpointSlice) -> Write {
    Write::Delete { key: slice.key(), uid: Rc::from(slice.uid()), rv: None, grace_seconds: None, propagation: None }
}

/// A family, and the ports in order: what the endpoints of one slice have in common.
type SliceKey = (&'static str, Vec<(String, String, Option<i32>, Option<String>)>);
/// What tells endpoints apart: the address, and the object behind it.
type EndpointId = (String, String, String);

#[derive(Default)]
struct Desired {
    ports: Vec<discovery_v1::EndpointPort>,
    endpoints: BTreeMap<EndpointId, discovery_v1::Endpoint>,
}

fn mirror(endpoints: &Endpoints, slices: Vec<&EndpointSlice>) -> Plan {
    let mut plan = Plan::nothing();
    let (desired, skipped) = desired(endpoints);
    if skipped > 0 {
        let message = format!(
            "A max of {} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were \
             skipped",
            limits::MAX_MIRRORED_PER_SUBSET
        );
        let about = Object::Endpoints(endpoints.clone());
        plan.events.push(EventNote { about, type_: EventType::Warning, reason: "TooManyAddressesToMirror", message });
    }
    let mut existing: BTreeMap<SliceKey, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let ports = slice.spec.ports.as_deref().unwrap_or(&[]);
        existing.entry((family(&slice.spec.address_type), identity(ports))).or_default().push(slice);
    }
    let (mut creates, mut updates, mut doomed) = (Vec::new(), Vec::new(), Vec::new());
    for (key, wanted) in desired {
        let mut there = existing.remove(&key).unwrap_or_default();
        if wanted.endpoints.is_empty() {
            doomed.append(&mut there);
            continue;
        }
        let spec = discovery_v1::EndpointSlice {
            address_type: key.0.to_owned(),
            ports: Some(wanted.ports),
            endpoints: Some(wanted.endpoints.into_values().take(limits::MAX_MIRRORED_PER_SUBSET).collect()),
            ..discovery_v1::EndpointSlice::default()
        };
        let mut there = there.into_iter();
        match there.next() {
            Some(slice) => updates.extend(replaced(endpoints, slice, spec)),
            None => creates.push(spec),
        }
        doomed.extend(there);
    }
    doomed.extend(existing.into_values().flatten());
    for spec in creates {
        // A slice that would go is written anew instead.
        match doomed.iter().position(|slice| slice.spec.address_type == spec.address_type) {
            Some(i) => updates.extend(replaced(endpoints, doomed.remove(i), spec)),
            None if endpoints.meta.is_deleting() => {}
            None => plan.writes.push(created(endpoints, spec)),
        }
    }
    plan.writes.extend(updates);
    plan.writes.extend(doomed.into_iter().map(delete));
    plan
}

/// What is to be mirrored by ports and family, and how many addresses are too many.
fn desired(endpoints: &Endpoints) -> (BTreeMap<SliceKey, Desired>, usize) {
    let mut all: BTreeMap<SliceKey, Desired> = BTreeMap::new();
    let mut skipped = 0;
    for subset in endpoints.spec.subsets.iter().flatten() {
        let ports: Vec<discovery_v1::EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        for family in ["IPv4", "IPv6"] {
            all.entry((family, identity(&ports))).or_default().ports.clone_from(&ports);
        }
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let addresses: Vec<_> =
            ready.chain(subset.not_ready_addresses.iter().flatten().map(|address| (address, false))).collect();
        skipped += addresses.len().saturating_sub(limits::MAX_MIRRORED_PER_SUBSET);
        for (address, ready) in addresses.into_iter().take(limits::MAX_MIRRORED_PER_SUBSET) {
            let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
            let (id, endpoint) = endpoint(address, ready);
            all.entry((family, identity(&ports))).or_default().endpoints.insert(id, endpoint);
        }
    }
    (all, skipped)
}

fn port(port: &core_v1::EndpointPort) -> discovery_v1::EndpointPort {
    discovery_v1::EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn identity(ports: &[discovery_v1::EndpointPort]) -> Vec<(String, String, Option<i32>, Option<String>)> {
    let identity = |port: &discovery_v1::EndpointPort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        (port.name.clone().unwrap_or_default(), protocol, port.port, port.app_protocol.clone())
    };
    let mut all: Vec<_> = ports.iter().map(identity).collect();
    all.sort();
    all
}

fn family(address_type: &str) -> &'static str {
    if address_type == "IPv6" { "IPv6" } else { "IPv4" }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> (EndpointId, discovery_v1::Endpoint) {
    let target = address.target_ref.clone();
    let of = |field: Option<&String>| field.cloned().unwrap_or_default();
    let id = (
        address.ip.clone(),
        of(target.as_ref().and_then(|t| t.namespace.as_ref())),
        of(target.as_ref().and_then(|t| t.name.as_ref())),
    );
    let endpoint = discovery_v1::Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: target,
        ..discovery_v1::Endpoint::default()
    };
    (id, endpoint)
}

/// The labels and annotations of a mirrored slice: those of the Endpoints, and what marks slices.
fn marks(endpoints: &Endpoints) -> (Labels, Option<Labels>) {
    let mut labels = endpoints.meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME_LABEL.to_owned(), endpoints.name().to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let mut annotations = endpoints.meta.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !NOT_COPIED.contains(&name.as_str()));
    (labels, (!annotations.is_empty()).then_some(annotations))
}

fn owner(endpoints: &Endpoints) -> OwnerReference {
    controller_ref(&Object::Endpoints(endpoints.clone()))
}

/// Writes a slice anew; `None` if it is as it should be.
fn replaced(endpoints: &Endpoints, slice: &EndpointSlice, spec: discovery_v1::EndpointSlice) -> Option<Write> {
    let (labels, annotations) = marks(endpoints);
    let same_ports =
        identity(slice.spec.ports.as_deref().unwrap_or(&[])) == identity(spec.ports.as_deref().unwrap_or(&[]));
    let same = same_ports
        && same_endpoints(&slice.spec, &spec)
        && slice.meta.labels.as_ref() == Some(&labels)
        && slice.meta.annotations == annotations;
    if same {
        return None;
    }
    let mut next = slice.clone();
    let meta = next.meta_mut();
    meta.labels = Some(labels);
    meta.annotations = annotations;
    meta.owner_references = Some(vec![owner(endpoints)]);
    let body = next.spec_mut();
    body.endpoints = spec.endpoints;
    body.ports = spec.ports;
    Some(Write::Update(next.into(), Subresource::None))
}

fn same_endpoints(a: &discovery_v1::EndpointSlice, b: &discovery_v1::EndpointSlice) -> bool {
    let sorted = |slice: &discovery_v1::EndpointSlice| {
        let mut all = slice.endpoints.clone().unwrap_or_default();
        all.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        all
    };
    sorted(a) == sorted(b)
}

fn created(endpoints: &Endpoints, spec: discovery_v1::EndpointSlice) -> Write {
    let (labels, annotations) = marks(endpoints);
    let meta = ObjectMeta {
        generate_name: Some(format!("{}-", endpoints.name())),
        namespace: endpoints.meta.namespace.clone(),
        labels: Some(labels),
        annotations,
        owner_references: Some(vec![owner(endpoints)]),
        ..ObjectMeta::default()
    };
    Write::Create(EndpointSlice::new(meta, spec, ()).into())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1 as discovery_v1;
    use serde_json::{Value, json};

    use super::EndpointSliceMirroringController;
    use crate::controllers::fake_cluster::{Fake, at, object, service, with};
    use crate::object::{Kind, Object, ObjectKey};

    const KINDS: &[Kind] = &[Kind::SERVICE, Kind::ENDPOINTS, Kind::ENDPOINT_SLICE];

    fn key() -> ObjectKey {
        ObjectKey::new(Kind::ENDPOINTS, "d", "s")
    }

    fn unselecting() -> Object {
        with(service("s"), json!({"spec": {"selector": null}}))
    }

    fn endpoints(subsets: Value) -> Object {
        object(json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "s", "namespace": "d", "uid": "ep-s", "labels": {"l": "1"},
                "annotations": {"a": "2", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "subsets": subsets}))
    }

    fn two() -> Value {
        json!([{"addresses": [{"ip": "10.0.0.1", "nodeName": "n", "hostname": "h"}],
            "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}])
    }

    fn settle(fake: &mut Fake) {
        fake.settle(&mut EndpointSliceMirroringController, &key(), at(0));
    }

    /// Each slice as `family ports: address ready, …`, in order of their text.
    fn slices(fake: &Fake) -> Vec<String> {
        let shown = |slice: &crate::object::EndpointSlice| {
            let ports: Vec<String> =
                slice.spec.ports.iter().flatten().map(|p| p.port.unwrap_or_default().to_string()).collect();
            let of = |e: &discovery_v1::Endpoint| {
                format!("{} {}", e.addresses[0], e.conditions.as_ref().unwrap().ready.unwrap())
            };
            let endpoints: Vec<String> = slice.spec.endpoints.iter().flatten().map(of).collect();
            format!("{} {}: {}", slice.spec.address_type, ports.join(","), endpoints.join(", "))
        };
        let mut all: Vec<String> = fake.views.list::<discovery_v1::EndpointSlice>("d").map(shown).collect();
        all.sort();
        all
    }

    #[test]
    fn a_slice_says_what_the_endpoints_say() {
        let mut fake = Fake::new(KINDS, [unselecting(), endpoints(two())]);
        settle(&mut fake);
        assert_eq!(slices(&fake), ["IPv4 80: 10.0.0.1 true, 10.0.0.2 false"]);
        let slice = fake.views.list::<discovery_v1::EndpointSlice>("d").next().unwrap();
        let whole = Object::from(slice.clone()).to_json();
        let meta = &whole["metadata"];
        assert_eq!(
            meta["labels"],
            json!({"l": "1", "kubernetes.io/service-name": "s",
                "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"})
        );
        assert_eq!(meta["annotations"], json!({"a": "2"}));
        assert_eq!(
            meta["ownerReferences"],
            json!([{"apiVersion": "v1", "kind": "Endpoints", "name": "s", "uid": "ep-s", "controller": true,
                "blockOwnerDeletion": true}])
        );
        assert_eq!(whole["endpoints"][0]["nodeName"], "n");
        assert_eq!(whole["endpoints"][0]["hostname"], "h");
    }

    #[test]
    fn slices_follow_the_endpoints() {
        let port = |n: i32| json!([{"port": n, "protocol": "TCP"}]);
        for (what, subsets, expect) in [
            (
                "another address",
                json!([{"addresses": [{"ip": "10.0.0.3"}], "ports": port(80)}]),
                vec!["IPv4 80: 10.0.0.3 true"],
            ),
            (
                "another port",
                json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": port(81)}]),
                vec!["IPv4 81: 10.0.0.1 true"],
            ),
            (
                "two families",
                json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": port(80)}]),
                vec!["IPv4 80: 10.0.0.1 true", "IPv6 80: fd00::1 true"],
            ),
            (
                "two sets of ports",
                json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": port(80)},
                    {"addresses": [{"ip": "10.0.0.2"}], "ports": port(81)}]),
                vec!["IPv4 80: 10.0.0.1 true", "IPv4 81: 10.0.0.2 true"],
            ),
            ("none", json!([]), vec![]),
        ] {
            let mut fake = Fake::new(KINDS, [unselecting(), endpoints(two())]);
            settle(&mut fake);
            let first = fake.views.list::<discovery_v1::EndpointSlice>("d").next().unwrap().name().to_owned();
            fake.put(endpoints(subsets));
            settle(&mut fake);
            assert_eq!(slices(&fake), expect, "{what}");
            let kept = fake.views.list::<discovery_v1::EndpointSlice>("d").any(|slice| slice.name() == first);
            assert_eq!(kept, !expect.is_empty(), "{what}: a slice is written anew rather than replaced");
        }
    }

    #[test]
    fn what_is_not_for_readers_of_slices_is_left_alone() {
        let skip = json!({"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}});
        let lead = json!({"metadata": {"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}});
        for (what, objects) in [
            ("skip-mirror", vec![unselecting(), with(endpoints(two()), skip)]),
            ("a leader's record", vec![unselecting(), with(endpoints(two()), lead)]),
            ("a selector", vec![service("s"), endpoints(two())]),
            ("no Service", vec![endpoints(two())]),
            ("no Endpoints", vec![unselecting()]),
        ] {
            let mut fake = Fake::new(KINDS, [unselecting(), endpoints(two())]);
            settle(&mut fake);
            fake.remove(&ObjectKey::new(Kind::SERVICE, "d", "s"));
            fake.remove(&key());
            objects.into_iter().for_each(|object| fake.put(object));
            settle(&mut fake);
            assert_eq!(slices(&fake), [""; 0], "{what}");
        }
    }

    #[test]
    fn a_thousand_addresses_of_a_subset_are_mirrored() {
        let addresses: Vec<Value> = (0..1004).map(|i| json!({"ip": format!("10.1.{}.{}", i / 250, i % 250)})).collect();
        let mut fake = Fake::new(KINDS, [unselecting(), endpoints(json!([{"addresses": addresses}]))]);
        let plan = fake.step(&mut EndpointSliceMirroringController, &key(), at(0));
        let told: Vec<&str> = plan.events.iter().map(|event| event.message.as_str()).collect();
        assert_eq!(
            told,
            [
                "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 4 addresses were skipped"
            ]
        );
        let slice = fake.views.list::<discovery_v1::EndpointSlice>("d").next().unwrap();
        assert_eq!(slice.spec.endpoints.as_ref().unwrap().len(), 1000);
    }
}
