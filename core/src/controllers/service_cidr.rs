//! ServiceCIDRs and IPAddresses: a ServiceCIDR is ready once it has its finalizer, and stays, though deleted, while
//! IPAddresses need it; an IPAddress stands beside each cluster IP of a Service, whatever users do to it.
//!
//! What comes in: ServiceCIDRs, IPAddresses, Services. What goes out: conditions and finalizers of ServiceCIDRs, and
//! IPAddresses that are missing or that nobody has any more. The API server makes and removes IPAddresses with their
//! Services; that it does not is seen here only where a user has interfered, or with data of earlier versions.
//!
//! Source: upstream's `pkg/controller/servicecidrs` and `pkg/registry/core/service/ipallocator/controller`.

use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::{Controller, Plan, Write};
use crate::api::Subresource;
use crate::apiserver::{ALLOCATOR, MANAGED_BY_LABEL, ip_address};
use crate::client::{Change, Views, Watched};
use crate::limits;
use crate::machine::{Now, Wall};
use crate::object::{Dynamic, Kind, Object, ObjectKey, Service, ip_range};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

/// How long a deleted ServiceCIDR that nothing needs stays, so that every API server has heard of its end and gives no
/// address of it any more.
const DELETION_GRACE: Duration = Duration::from_secs(10);

/// How old an IPAddress without a Service must be before it is removed.
const LEAK_GRACE: Duration = Duration::from_secs(60);

/// Keeps the finalizers and conditions of ServiceCIDRs. Keys are ServiceCIDRs.
#[derive(Debug, Default)]
pub struct ServiceCidrController;

/// Mends IPAddresses. Keys are IPAddresses and Services.
#[derive(Debug, Default)]
pub struct IpAddressRepair;

const RANGE_WATCHES: &[Watched] =
    &[Watched { kind: Kind::SERVICE_CIDR, indexes: &[] }, Watched { kind: Kind::IP_ADDRESS, indexes: &[] }];

const REPAIR_WATCHES: &[Watched] =
    &[Watched { kind: Kind::SERVICE, indexes: &[] }, Watched { kind: Kind::IP_ADDRESS, indexes: &[] }];

/// A network: its first address as 128 bits from the left, whether it is of IPv4, and the length of its prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    bits: u128,
    v4: bool,
    length: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        ip_range(text).map(|(bits, v4, length)| Network { bits, v4, length })
    }

    /// An address as a network of its own.
    fn of_address(ip: &str) -> Option<Network> {
        Network::parse(&format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 }))
    }

    fn contains(self, other: Network) -> bool {
        let same = self.length == 0 || (self.bits ^ other.bits) >> (128 - self.length) == 0;
        self.v4 == other.v4 && self.length <= other.length && same
    }
}

fn networks(range: &Dynamic) -> Vec<Network> {
    let cidrs = range.body.get("spec").and_then(|spec| spec.get("cidrs")?.as_array());
    cidrs.into_iter().flatten().filter_map(|cidr| Network::parse(cidr.as_str()?)).collect()
}

fn ranges(views: &Views) -> impl Iterator<Item = (&ObjectKey, &Dynamic)> {
    views.view(Kind::SERVICE_CIDR).iter().filter_map(|(key, object)| match object {
        Object::Dynamic(range) => Some((key, range)),
        _ => None,
    })
}

fn is_allocated(address: &Object) -> bool {
    address.labels().and_then(|labels| labels.get(MANAGED_BY_LABEL)).is_some_and(|by| by == ALLOCATOR)
}

impl Controller for ServiceCidrController {
    fn name(&self) -> &'static str {
        "service-cidr-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        RANGE_WATCHES
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        // What comes and goes may hold or release a ServiceCIDR that is being deleted.
        let touched: Vec<Network> = match change.key.kind {
            Kind::SERVICE_CIDR => {
                keys.push(change.key.clone());
                let both = change.old.iter().chain(&change.new);
                both.filter_map(|object| if let Object::Dynamic(range) = object { Some(networks(range)) } else { None })
                    .flatten()
                    .collect()
            }
            _ if change.old.is_some() && change.new.is_some() => return,
            _ => Network::of_address(change.key.name()).into_iter().collect(),
        };
        let concerns = |range: &Dynamic| {
            let near = |a: &Network| touched.iter().any(|b| a.contains(*b) || b.contains(*a));
            range.meta.is_deleting() && networks(range).iter().any(near)
        };
        let others = ranges(views).filter(|(key, range)| **key != change.key && concerns(range));
        keys.extend(others.map(|(key, _)| key.clone()));
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let Some(Object::Dynamic(range)) = views.view(Kind::SERVICE_CIDR).get(key) else { return plan };
        let held = range.meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        if !range.meta.is_deleting() {
            if !held {
                plan.writes.push(with_finalizers(range, |all| all.push(FINALIZER.to_owned())));
            } else {
                plan.writes.extend(condition(range, now, "True", "", "Kubernetes Service CIDR is ready"));
            }
        } else if is_needed(views, key, range) {
            let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                       ServiceCIDR";
            plan.writes.extend(condition(range, now, "False", "Terminating", why));
        } else if held {
            let since = range.meta.deletion_timestamp.as_ref().map_or(now.wall, Wall::from_time);
            match left(since, DELETION_GRACE, now) {
                Some(left) => plan.requeue(left),
                None => plan.writes.push(with_finalizers(range, |all| all.retain(|one| one != FINALIZER))),
            }
        }
        plan
    }
}

/// How much of a time is left that began at `since`; `None` if it is over.
fn left(since: Wall, grace: Duration, now: Now) -> Option<Duration> {
    let end = since + grace;
    let left = u64::try_from(end.0 - now.wall.0).ok().filter(|left| *left > 0)?;
    // A clock that was set back must not make it longer.
    Some(Duration::from_micros(left).min(grace))
}

/// Whether a ServiceCIDR that is being deleted is the only one to contain some IPAddress (`canDeleteCIDR`).
fn is_needed(views: &Views, key: &ObjectKey, range: &Dynamic) -> bool {
    let others: Vec<Network> =
        ranges(views).filter(|(other, _)| *other != key).flat_map(|(_, o)| networks(o)).collect();
    let elsewhere = |network: Network| others.iter().any(|other| other.contains(network));
    let own = networks(range);
    if own.iter().all(|network| elsewhere(*network)) {
        return false;
    }
    let addresses = views.view(Kind::IP_ADDRESS).iter().filter(|(_, address)| is_allocated(address));
    let mut networks = addresses.filter_map(|(key, _)| Network::of_address(key.name()));
    networks.any(|address| own.iter().any(|network| network.contains(address)) && !elsewhere(address))
}

fn with_finalizers(range: &Dynamic, change: impl FnOnce(&mut Vec<String>)) -> Write {
    let mut copy = Object::Dynamic(range.clone());
    change(copy.meta_mut().finalizers.get_or_insert_default());
    Write::Update(copy, Subresource::None)
}

/// Sets the condition Ready; `None` if it is so already.
fn condition(range: &Dynamic, now: Now, status: &str, reason: &str, message: &str) -> Option<Write> {
    let mut whole = range.status.as_deref().cloned().unwrap_or_else(|| json!({}));
    let conditions = whole.as_object_mut()?.entry("conditions").or_insert_with(|| json!([])).as_array_mut()?;
    let wanted = |field: &str| match field {
        "status" => status,
        "reason" => reason,
        _ => message,
    };
    let same = |condition: &Value| ["status", "reason", "message"].iter().all(|f| condition[f] == wanted(f));
    let mut new = json!({"type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now.wall.to_time()});
    match conditions.iter_mut().find(|condition| condition["type"] == "Ready") {
        Some(old) if same(old) => return None,
        Some(old) => {
            if old["status"] == status {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
    let mut copy = range.clone();
    copy.status = Some(Rc::new(whole));
    Some(Write::Update(Object::Dynamic(copy), Subresource::Status))
}

impl Controller for IpAddressRepair {
    fn name(&self) -> &'static str {
        "ipallocator-repair-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        REPAIR_WATCHES
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        match change.key.kind {
            Kind::SERVICE => {
                let same = |(old, new): (&Object, &Object)| old.same_spec(new);
                if !change.old.as_ref().zip(change.new.as_ref()).is_some_and(same) {
                    keys.push(change.key.clone());
                }
                let Some(Object::Service(old)) = &change.old else { return };
                keys.extend(cluster_ips(old).map(|ip| ObjectKey::new(Kind::IP_ADDRESS, "", ip)));
            }
            _ => {
                keys.push(change.key.clone());
                let gone = change.old.as_ref().filter(|_| change.new.is_none());
                keys.extend(gone.filter(|address| is_allocated(address)).and_then(parent));
            }
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        match views.view(key.kind).get(key) {
            Some(Object::Service(service)) => missing_addresses(views, service),
            Some(address) if key.kind == Kind::IP_ADDRESS && is_allocated(address) => leaked(views, address, now),
            _ => Plan::nothing(),
        }
    }
}

fn cluster_ips(service: &Service) -> impl Iterator<Item = &str> {
    let all = service.spec.cluster_ips.iter().flatten().map(String::as_str);
    all.filter(|ip| !ip.is_empty() && *ip != "None")
}

/// The Service that an IPAddress names.
fn parent(address: &Object) -> Option<ObjectKey> {
    let Object::Dynamic(address) = address else { return None };
    let parent = address.body.get("spec")?.get("parentRef")?;
    let text = |field: &str| parent.get(field).and_then(Value::as_str).unwrap_or("");
    let is_service = text("group").is_empty() && text("resource") == "services";
    is_service.then(|| ObjectKey::new(Kind::SERVICE, text("namespace"), text("name")))
}

fn missing_addresses(views: &Views, service: &Service) -> Plan {
    let mut plan = Plan::nothing();
    let addresses = views.view(Kind::IP_ADDRESS);
    let missing: Vec<&str> = cluster_ips(service).filter(|ip| addresses.find("", ip).is_none()).collect();
    if missing.is_empty() || service.meta.is_deleting() {
        return plan;
    }
    if addresses.revision() < service.rv {
        plan.wait_for(Kind::IP_ADDRESS, limits::STALE_VIEW_RETRY);
        return plan;
    }
    plan.writes.extend(missing.into_iter().map(|ip| Write::Create(ip_address(ip, &service.key()))));
    plan
}

fn leaked(views: &Views, address: &Object, now: Now) -> Plan {
    let mut plan = Plan::nothing();
    let service = parent(address).and_then(|key| views.get::<core_v1::Service>(&key));
    if address.is_deleting() || service.is_some_and(|service| cluster_ips(service).any(|ip| ip == address.name())) {
        return plan;
    }
    let made = address.meta().creation_timestamp.as_ref().map_or(now.wall, Wall::from_time);
    if let Some(left) = left(made, LEAK_GRACE, now) {
        plan.requeue(left);
        return plan;
    }
    if views.view(Kind::SERVICE).revision() < address.rv() {
        plan.wait_for(Kind::SERVICE, limits::STALE_VIEW_RETRY);
        return plan;
    }
    plan.writes.push(Write::Delete {
        key: address.key(),
        uid: Rc::from(address.uid()),
        rv: Some(address.rv()),
        grace_seconds: None,
        propagation: None,
    });
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{IpAddressRepair, ServiceCidrController};
    use crate::apiserver::ip_address;
    use crate::controllers::fake_cluster::{Fake, at, object, service, with};
    use crate::object::{Kind, Object, ObjectKey};

    const KINDS: &[Kind] = &[Kind::SERVICE, Kind::SERVICE_CIDR, Kind::IP_ADDRESS];

    fn range(name: &str, cidr: &str) -> Object {
        object(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": name, "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
            "spec": {"cidrs": [cidr]}}))
    }

    fn deleted(range: Object) -> Object {
        with(range, json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}}))
    }

    fn of(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::SERVICE_CIDR, "", name)
    }

    fn address(ip: &str) -> Object {
        let made = ip_address(ip, &ObjectKey::new(Kind::SERVICE, "d", "s"));
        with(made, json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}}))
    }

    /// `finalized status reason`, or `gone`.
    fn state(fake: &Fake, name: &str) -> String {
        let Some(range) = fake.get(Kind::SERVICE_CIDR, name).map(Object::to_json) else { return "gone".to_owned() };
        let ready = &range["status"]["conditions"][0];
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let held = range["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        format!("{held} {} {}", text(&ready["status"]), text(&ready["reason"]))
    }

    #[test]
    fn a_new_range_is_held_and_ready() {
        let bare = with(range("a", "10.0.0.0/24"), json!({"metadata": {"finalizers": null}}));
        let mut fake = Fake::new(KINDS, [bare]);
        fake.settle(&mut ServiceCidrController, &of("a"), at(0));
        assert_eq!(state(&fake, "a"), "true True ");
        let whole = fake.get(Kind::SERVICE_CIDR, "a").unwrap().to_json();
        assert_eq!(whole["status"]["conditions"][0]["message"], "Kubernetes Service CIDR is ready");
        assert_eq!(whole["status"]["conditions"][0]["lastTransitionTime"], "2024-01-01T00:00:00Z");
    }

    #[test]
    fn a_deleted_range_stays_while_it_is_needed() {
        let by_hand = with(address("10.0.0.9"), json!({"metadata": {"labels": null}}));
        for (what, others, expect) in [
            ("nothing in it", vec![], "false  "),
            ("an address of a Service", vec![address("10.0.0.9")], "true False Terminating"),
            ("an address outside", vec![address("10.0.1.9")], "false  "),
            ("an address that somebody made by hand", vec![by_hand], "false  "),
            ("the address is in a smaller range too", vec![address("10.0.0.9"), range("b", "10.0.0.8/30")], "false  "),
            ("it is in a greater one", vec![address("10.0.0.9"), range("b", "10.0.0.0/16")], "false  "),
            ("there is another", vec![address("10.0.0.9"), range("b", "10.1.0.0/16")], "true False Terminating"),
        ] {
            let mut fake = Fake::new(KINDS, std::iter::once(deleted(range("a", "10.0.0.0/24"))).chain(others));
            let early = fake.step(&mut ServiceCidrController, &of("a"), at(4));
            let waits = early.requeue_after.map(|after| after.as_secs());
            assert_eq!(waits, expect.starts_with("false").then_some(6), "{what}");
            fake.step(&mut ServiceCidrController, &of("a"), at(10));
            let found = state(&fake, "a").replace("gone", "false  ");
            assert_eq!(found, expect, "{what}");
        }
    }

    #[test]
    fn an_address_stands_beside_each_cluster_ip() {
        let key = ObjectKey::new(Kind::SERVICE, "d", "s");
        let mut fake = Fake::new(KINDS, [service("s")]);
        fake.settle(&mut IpAddressRepair, &key, at(0));
        let made = fake.get(Kind::IP_ADDRESS, "10.96.0.1").expect("it is made").to_json();
        assert_eq!(
            made["metadata"]["labels"],
            json!({"ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
        );
        let parent = json!({"group": "", "resource": "services", "namespace": "d", "name": "s"});
        assert_eq!(made["spec"]["parentRef"], parent);

        fake.remove(&ObjectKey::new(Kind::IP_ADDRESS, "", "10.96.0.1"));
        fake.views.view_mut(Kind::IP_ADDRESS).set_revision(crate::Revision(1));
        let plan = fake.step(&mut IpAddressRepair, &key, at(0));
        assert!(plan.writes.is_empty() && plan.requeue_after.is_some(), "a view that is behind proves nothing");
    }

    #[test]
    fn an_address_without_its_service_goes_after_a_minute() {
        let foreign = with(address("10.0.0.2"), json!({"metadata": {"labels": null}}));
        let objects = [service("s"), address("10.96.0.1"), address("10.0.0.1"), foreign];
        let mut fake = Fake::new(KINDS, objects);
        for (seconds, left) in [(59, true), (60, false)] {
            for (ip, expect) in [("10.96.0.1", true), ("10.0.0.1", left), ("10.0.0.2", true)] {
                fake.step(&mut IpAddressRepair, &ObjectKey::new(Kind::IP_ADDRESS, "", ip), at(seconds));
                assert_eq!(fake.get(Kind::IP_ADDRESS, ip).is_some(), expect, "{ip} after {seconds} s");
            }
        }
    }
}
