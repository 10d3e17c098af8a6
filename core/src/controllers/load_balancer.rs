//! The service load balancer controller: assigns addresses from a pool to Services of type LoadBalancer.
//!
//! It takes the place of a cloud provider's service controller. An address is free if no Service has it in its status.
//! A Service that requests an address (`spec.loadBalancerIP`) gets it if it is free. Services with a
//! `loadBalancerClass` are left to other controllers.
//!
//! Source: cloud-provider `controllers/service/controller.go`.

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{self as core_v1, LoadBalancerIngress, LoadBalancerStatus};
use serde::{Deserialize, Serialize};

use super::groups::Groups;
use super::{Controller, EventNote, Plan, Write};
use crate::client::{Change, EventType, Views, Watched};
use crate::limits;
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey, Service};

static WATCHED: &[Watched] = &[Watched { kind: Kind::SERVICE, indexes: &[] }];

/// The addresses that may be assigned: a network, without its first and last address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoadBalancerRange {
    /// The network and the length of its prefix, which is at most 30.
    pub cidr: ([u8; 4], u8),
}

impl LoadBalancerRange {
    fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let (base, prefix) = self.cidr;
        let (first, size) = (u32::from_be_bytes(base), 1u64 << (32 - u32::from(prefix)));
        (1..size.saturating_sub(1)).map(move |n| Ipv4Addr::from_bits(first.wrapping_add(n as u32)))
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.cidr.1)).unwrap_or(0);
        address.to_bits() & mask == u32::from_be_bytes(self.cidr.0) & mask
    }
}

/// Assigns addresses to Services. Keys are Services.
#[derive(Debug)]
pub struct LoadBalancerController {
    range: LoadBalancerRange,
    /// The Services by the address in their status. Two Services may have the same address after a fail-over between
    /// managers whose views differed; the first one by key keeps it. Made by the first reconcile of a term, and kept up
    /// to date from then on.
    owners: Option<Groups<Ipv4Addr, ObjectKey>>,
    /// Addresses that were assigned and do not appear in the view yet.
    given: BTreeMap<ObjectKey, Ipv4Addr>,
}

fn address_of(object: &Object) -> Option<Ipv4Addr> {
    let Object::Service(service) = object else { return None };
    first_address(service)
}

fn note(owners: &mut Groups<Ipv4Addr, ObjectKey>, service: &Object, there: bool) {
    if let Some(address) = address_of(service) {
        owners.put(address, service.key(), there);
    }
}

fn first_address(service: &Service) -> Option<Ipv4Addr> {
    let ingress = service.status.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.first()?.ip.as_ref()?.parse().ok()
}

fn wants_address(service: &Service) -> bool {
    service.spec.type_.as_deref() == Some("LoadBalancer")
        && service.spec.load_balancer_class.is_none()
        && service.meta.deletion_timestamp.is_none()
}

impl LoadBalancerController {
    /// Creates a controller that assigns the addresses of `range`.
    pub fn new(range: LoadBalancerRange) -> LoadBalancerController {
        LoadBalancerController { range, owners: None, given: BTreeMap::new() }
    }

    /// The Service that may keep an address: the first one with it in its status, otherwise the one to which it was
    /// just assigned.
    fn keeper(&self, address: Ipv4Addr) -> Option<&ObjectKey> {
        let owner = self.owners.as_ref().and_then(|owners| owners.get(&address)?.first());
        owner.or_else(|| self.given.iter().find(|(_, given)| **given == address).map(|(key, _)| key))
    }

    fn choose(&self, key: &ObjectKey, service: &Service) -> Option<Ipv4Addr> {
        let free = |address: &Ipv4Addr| self.keeper(*address).is_none_or(|keeper| keeper == key);
        let asked = service.spec.load_balancer_ip.as_deref().and_then(|ip| ip.parse().ok());
        match asked.filter(|address| self.range.contains(*address)) {
            Some(address) => Some(address).filter(free),
            None => self.range.addresses().find(free),
        }
    }

    fn give(&mut self, key: &ObjectKey, service: &Service) -> Plan {
        let mut plan = Plan::nothing();
        let note = |type_: EventType, reason: &'static str, message: String| EventNote {
            about: Object::Service(service.clone()),
            type_,
            reason,
            message,
        };
        let Some(address) = self.choose(key, service) else {
            let ((base, prefix), base_of) = (self.range.cidr, Ipv4Addr::from);
            let what = match service.spec.load_balancer_ip.as_deref() {
                Some(ip) if !ip.is_empty() => format!("address {ip} is not free in {}/{prefix}", base_of(base)),
                _ => format!("no address is free in {}/{prefix}", base_of(base)),
            };
            let message = format!("Error syncing load balancer: failed to ensure load balancer: {what}");
            plan.events.push(note(EventType::Warning, "SyncLoadBalancerFailed", message));
            plan.requeue(limits::LOAD_BALANCER_RETRY);
            return plan;
        };
        self.given.insert(key.clone(), address);
        let ingress = LoadBalancerIngress {
            ip: Some(address.to_string()),
            ip_mode: Some("VIP".to_owned()),
            ..LoadBalancerIngress::default()
        };
        plan.writes.extend(with_ingress(service, Some(vec![ingress])));
        plan.events.push(note(EventType::Normal, "EnsuredLoadBalancer", "Ensured load balancer".to_owned()));
        plan
    }
}

fn with_ingress(service: &Service, ingress: Option<Vec<LoadBalancerIngress>>) -> Option<Write> {
    let mut status: core_v1::ServiceStatus = (*service.status).clone();
    status.load_balancer = Some(LoadBalancerStatus { ingress });
    Write::status(service, status)
}

impl Controller for LoadBalancerController {
    fn name(&self) -> &'static str {
        "service-lb-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn observe(&mut self, change: &Change, _now: Now) {
        if let Some(owners) = &mut self.owners {
            change.old.iter().for_each(|old| note(owners, old, false));
            change.new.iter().for_each(|new| note(owners, new, true));
        }
        if change.new.as_ref().is_none_or(|new| address_of(new).is_some()) {
            self.given.remove(&change.key);
        }
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        if change.new.is_some() {
            keys.push(change.key.clone());
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        if self.owners.is_none() {
            let mut owners = Groups::default();
            views.view(Kind::SERVICE).iter().for_each(|(_, service)| note(&mut owners, service, true));
            self.owners = Some(owners);
        }
        let Some(service) = views.get::<core_v1::Service>(key) else { return Plan::nothing() };
        match (wants_address(service), first_address(service)) {
            (true, Some(address)) if self.keeper(address).is_none_or(|keeper| keeper == key) => Plan::nothing(),
            (true, _) => self.give(key, service),
            (false, Some(address)) if self.range.contains(address) && service.spec.load_balancer_class.is_none() => {
                let mut plan = Plan::nothing();
                plan.writes.extend(with_ingress(service, None));
                plan
            }
            (false, _) => Plan::nothing(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LoadBalancerController, LoadBalancerRange};
    use crate::controllers::fake_cluster::{Fake, at, object};
    use crate::object::{Kind, Object, ObjectKey};
    use serde_json::{Value, json};

    fn service(name: &str, spec: Value, address: Option<&str>) -> Object {
        let mut value = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "n"},
            "spec": spec});
        if let Some(address) = address {
            value["status"] = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
        }
        object(value)
    }

    /// Reconciles every Service once, in order, and checks their addresses.
    fn check(services: Vec<Object>, want: &[(&str, Option<&str>)]) {
        let mut controller = LoadBalancerController::new(LoadBalancerRange { cidr: ([10, 0, 0, 0], 30) });
        let keys: Vec<ObjectKey> = services.iter().map(Object::key).collect();
        let mut fake = Fake::new(&[Kind::SERVICE], services);
        for key in keys {
            fake.step(&mut controller, &key, at(0));
        }
        for (name, address) in want {
            let key = ObjectKey::new(Kind::SERVICE, "n", name);
            let got = fake.get(Kind::SERVICE, key.path()).and_then(super::address_of).map(|a| a.to_string());
            assert_eq!(got.as_deref(), *address, "{name}");
        }
    }

    #[test]
    fn services_of_the_type_get_free_addresses() {
        let wanting = || json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
        check(
            vec![service("a", wanting(), None), service("b", wanting(), None), service("c", wanting(), None)],
            &[("a", Some("10.0.0.1")), ("b", Some("10.0.0.2")), ("c", None)],
        );
        let mut asking = wanting();
        asking["loadBalancerIP"] = json!("10.0.0.2");
        check(
            vec![service("a", asking, None), service("b", wanting(), None)],
            &[("a", Some("10.0.0.2")), ("b", Some("10.0.0.1"))],
        );
        let mut foreign = wanting();
        foreign["loadBalancerClass"] = json!("example.com/lb");
        check(vec![service("a", foreign, None)], &[("a", None)]);
        check(vec![service("a", json!({"type": "ClusterIP"}), Some("10.0.0.1"))], &[("a", None)]);
        check(
            vec![service("a", wanting(), Some("10.0.0.1")), service("b", wanting(), Some("10.0.0.1"))],
            &[("a", Some("10.0.0.1")), ("b", Some("10.0.0.2"))],
        );
    }

    #[test]
    fn a_later_leadership_gives_no_address_twice() {
        let wanting = || json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
        let range = LoadBalancerRange { cidr: ([10, 0, 0, 0], 30) };
        let services = [service("b", wanting(), Some("10.0.0.1")), service("a", wanting(), None)];
        let mut fake = Fake::new(&[Kind::SERVICE], services);
        // Another leadership's controller was told of all that is there.
        fake.tell(&mut LoadBalancerController::new(range), at(0));
        let key = ObjectKey::new(Kind::SERVICE, "n", "a");
        fake.step(&mut LoadBalancerController::new(range), &key, at(0));
        let got = fake.get(Kind::SERVICE, key.path()).and_then(super::address_of).map(|a| a.to_string());
        assert_eq!(got.as_deref(), Some("10.0.0.2"));
    }
}
