//! Where cluster IPs come from, and the objects that say so: ServiceCIDRs, and an IPAddress for each cluster IP.
//!
//! A Service's IPAddresses are written and removed in the transaction that gives or takes its addresses, so neither is
//! ever there without the other. The controller manager mends what users do to them.

use core::net::Ipv4Addr;
use std::fmt;

use serde_json::json;

use super::addresses::ips_of;
use super::parse_cidr;
use super::write::{Commit, Deciding, Write};
use crate::machine::Wall;
use crate::object::{Kind, Object, ObjectKey};
use crate::store::{Compare, Op, StoreKey, Stored};

/// The ServiceCIDR that every cluster has: the network of the server's configuration.
pub const DEFAULT_SERVICE_CIDR_NAME: &str = "kubernetes";

/// A network of addresses for Services.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    /// The address of the network, which no Service gets.
    pub(super) network: u32,
    /// How many addresses it has.
    pub(super) size: u32,
    prefix: u8,
}

impl Range {
    pub(super) fn of((base, prefix): ([u8; 4], u8)) -> Range {
        let size = 1u32.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(u32::MAX);
        Range { network: u32::from(Ipv4Addr::from(base)) & !(size - 1), size, prefix }
    }

    pub(super) fn contains(self, ip: u32) -> bool {
        ip.wrapping_sub(self.network) < self.size
    }

    /// Whether a Service may have the address: that of the network and the broadcast address it may not.
    pub(super) fn gives(self, ip: u32) -> bool {
        let offset = ip.wrapping_sub(self.network);
        offset > 0 && offset < self.size - 1
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

/// The key of an address's IPAddress.
pub(super) fn ip_key(ip: u32) -> ObjectKey {
    ObjectKey::new(Kind::IP_ADDRESS, "", &Ipv4Addr::from(ip).to_string())
}

/// Whether an IPAddress is of this Service.
pub(super) fn is_parent(address: &Object, service: &ObjectKey) -> bool {
    let Object::Dynamic(address) = address else { return false };
    let Some(parent) = address.body.get("spec").and_then(|spec| spec.get("parentRef")) else { return false };
    let is = |field: &str, value: &str| parent.get(field).and_then(|v| v.as_str()).unwrap_or("") == value;
    is("group", "") && is("resource", "services") && is("namespace", service.namespace()) && is("name", service.name())
}

/// The IPAddress of a Service's cluster IP, as the allocator makes it.
pub fn ip_address(ip: &str, service: &ObjectKey) -> Object {
    let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
    let manifest = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": ip, "labels": {
            "ipaddress.kubernetes.io/ip-family": family,
            MANAGED_BY_LABEL: ALLOCATOR}},
        "spec": {"parentRef": {
            "group": "", "resource": "services", "namespace": service.namespace(), "name": service.name()}},
    });
    Object::from_json(manifest).expect("an IPAddress of a Service reads back")
}

/// The label of an IPAddress that names who keeps it.
pub const MANAGED_BY_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`] where the API server made the IPAddress for a Service.
pub const ALLOCATOR: &str = "ipallocator.k8s.io";

/// The ServiceCIDR that every cluster has.
pub(super) fn default_service_cidr(network: ([u8; 4], u8), now: Wall) -> Object {
    let manifest = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": DEFAULT_SERVICE_CIDR_NAME},
        "spec": {"cidrs": [Range::of(network).to_string()]},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
            "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": now.to_time()}]},
    });
    Object::from_json(manifest).expect("a built-in object reads back")
}

/// Whether addresses are given from a ServiceCIDR. One that nobody has judged yet is ready, as upstream has it for
/// clusters whose controller manager does not run.
fn is_ready(range: &Object) -> bool {
    let Object::Dynamic(range) = range else { return false };
    let conditions = range.status.as_deref().and_then(|status| status.get("conditions")?.as_array());
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    !range.meta.is_deleting() && ready.is_none_or(|condition| condition["status"] == "True")
}

impl Deciding<'_> {
    /// The networks that addresses are given from, the server's own first.
    pub(super) fn ranges(&self) -> Vec<Range> {
        let own = Range::of(self.config.service_cidr);
        let named = ObjectKey::new(Kind::SERVICE_CIDR, "", DEFAULT_SERVICE_CIDR_NAME);
        // Until a new cluster has its ServiceCIDR, Services need addresses all the same.
        let mut all = if self.cache.get(&named).is_none() { vec![own] } else { Vec::new() };
        for (_, object) in self.cache.objects(Kind::SERVICE_CIDR).filter(|(_, object)| is_ready(object)) {
            let Object::Dynamic(object) = object else { continue };
            let cidrs = object.body.get("spec").and_then(|spec| spec.get("cidrs")?.as_array());
            let networks = cidrs.into_iter().flatten().filter_map(|cidr| parse_cidr(cidr.as_str()?));
            for range in networks.map(Range::of).filter(|range| !all.contains(range)).collect::<Vec<_>>() {
                all.push(range);
            }
        }
        all.sort_by_key(|range| *range != own);
        all
    }

    /// Adds to a transaction about a Service what becomes of its IPAddresses.
    pub(super) fn follow_addresses(&mut self, write: &Write, commit: &mut Commit) {
        let (key, new) = match commit.txn.success.first() {
            Some(Op::Put { key: StoreKey::Object(key), value: Stored::Object(Object::Service(new)), .. }) => {
                (key.clone(), Some(new.clone()))
            }
            Some(Op::Delete { key: StoreKey::Object(key) }) if key.kind == Kind::SERVICE => (key.clone(), None),
            _ => return,
        };
        let old = self.object(write, &key);
        let held = old.iter().filter_map(|old| match old {
            Object::Service(old) => Some(old),
            _ => None,
        });
        let sorted = |ips: Vec<u32>| {
            let mut ips = ips;
            ips.sort_unstable();
            ips.dedup();
            ips
        };
        let held = sorted(held.flat_map(ips_of).collect());
        let wanted = sorted(new.iter().flat_map(ips_of).collect());
        for ip in held.iter().filter(|ip| !wanted.contains(ip)) {
            let address = ip_key(*ip);
            // What the cache shows as another's is left to its owner.
            if self.known(write, &address).is_none_or(|there| is_parent(there, &key)) {
                commit.txn.success.push(Op::Delete { key: StoreKey::Object(address) });
            }
        }
        for ip in wanted {
            let address = ip_key(ip);
            if self.known(write, &address).is_some() {
                continue;
            }
            let mut object = ip_address(address.name(), &key);
            let meta = object.meta_mut();
            meta.uid = Some(self.rng.uuid());
            meta.creation_timestamp = Some(self.now.wall.to_time());
            let address = StoreKey::Object(address);
            commit.txn.compare.push(Compare::Version(address.clone(), 0));
            commit.txn.success.push(Op::Put { key: address, value: Stored::Object(object), lease: None });
        }
    }
}
