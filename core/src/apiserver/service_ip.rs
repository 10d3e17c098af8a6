//! Cluster IPs and node ports of Services.
//!
//! The allocated addresses are derived from the cached Services, so there is no second record that could disagree.
//! Beside a Service its IPAddresses are written (`service_range.rs`), in the same transaction.
//! Every allocation writes one mark in the store and compares the mark's revision with the cached one. Thus a server
//! allocates only if its cache shows every earlier allocation, and two servers never allocate the same address.

use core::net::Ipv4Addr;
use std::rc::Rc;

use super::addresses::{ips_of, ports_of};
use super::service_range::{Range, ip_key, is_parent};
use super::write::{Commit, Deciding, Decision, Write};
use crate::api::Status;
use crate::object::{FieldError, Kind, Object, ObjectKey, Revision, Service, lacks_node_port};
use crate::store::{Compare, Op, StoreKey, Stored};

/// The private key that every allocation writes.
const MARK: &str = "service-allocations";

/// Where Services get their addresses unless something else is configured.
pub const DEFAULT_SERVICE_CIDR: ([u8; 4], u8) = ([10, 96, 0, 0], 12);

/// A network of IPv4 for Services, such as `10.96.0.0/12`: its first address and the length of its prefix, at most 30.
/// `None` if the text is not one.
pub fn parse_cidr(text: &str) -> Option<([u8; 4], u8)> {
    let (ip, prefix) = text.split_once('/')?;
    let (ip, prefix) = (ip.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok().filter(|prefix| *prefix <= 30)?);
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    Some((Ipv4Addr::from_bits(ip.to_bits() & mask).octets(), prefix))
}

/// What an allocation adds to a transaction.
#[derive(Debug, Default)]
pub(super) struct Allocation {
    /// Revision of the mark at which the allocation was decided; `None` if nothing was allocated.
    by: Option<Revision>,
    /// What is charged to quotas.
    pub(super) charges: Vec<Charge>,
}

/// A ResourceQuota that counts what is written.
#[derive(Debug)]
pub(super) struct Charge {
    pub(super) key: StoreKey,
    /// The revision by which it was decided.
    pub(super) rv: Revision,
    /// As it is to be.
    pub(super) quota: Object,
}

impl Allocation {
    #[inline]
    pub(super) fn join(self, mut commit: Commit) -> Commit {
        if let Some(revision) = self.by {
            let key = StoreKey::Private(Rc::from(MARK));
            commit.txn.compare.push(Compare::ModRevision(key.clone(), revision));
            commit.txn.success.push(Op::Put { key, value: Stored::mark(""), lease: None });
        }
        for Charge { key, rv, quota } in self.charges {
            commit.txn.compare.push(Compare::ModRevision(key.clone(), rv));
            commit.txn.success.push(Op::Put { key, value: Stored::Object(quota), lease: None });
        }
        commit
    }
}

impl Deciding<'_> {
    /// Allocates the addresses and ports that a Service's type needs and that it does not have.
    pub(super) fn allocate_addresses(
        &mut self,
        write: &Write,
        key: &ObjectKey,
        old: Option<&Object>,
        new: &mut Object,
    ) -> Result<Allocation, Decision> {
        let Object::Service(service) = new else { return Ok(Allocation::default()) };
        let old = old.and_then(|o| match o {
            Object::Service(s) => Some(s),
            _ => None,
        });
        if old.is_some_and(|o| Rc::ptr_eq(&o.spec, &service.spec)) {
            return Ok(Allocation::default());
        }
        let by = self.cache.mark(MARK);
        let private = write.fresh.iter().find(|(k, _)| matches!(k, StoreKey::Private(name) if &**name == MARK));
        let stands = private.and_then(|(_, kv)| kv.as_ref()).map_or(Revision(0), |kv| kv.mod_revision());
        if stands > by {
            // Another server has allocated in the meantime; wait until the cache shows it.
            return Err(Decision::Await(stands));
        }
        let ip = self.allocate_ip(write, key, old, service)?;
        let ports = self.allocate_ports(write, key, old, service)?;
        Ok(Allocation { by: (ip || ports).then_some(by), charges: Vec::new() })
    }

    fn allocate_ip(
        &mut self,
        write: &Write,
        key: &ObjectKey,
        old: Option<&Service>,
        service: &mut Service,
    ) -> Result<bool, Decision> {
        if !service.wants_ip() {
            return Ok(false);
        }
        refuse_other_families(key, service)?;
        let asked = service.spec.cluster_ip.clone().unwrap_or_default();
        let asked = if asked.is_empty() {
            service.spec.cluster_ips.as_ref().and_then(|ips| ips.first().cloned()).unwrap_or_default()
        } else {
            asked
        };
        let held = old.is_some_and(|o| !asked.is_empty() && o.spec.cluster_ip.as_deref() == Some(asked.as_str()));
        let (text, allocated) = match asked.as_str() {
            "" => {
                let free = self.free_ip(write).map_err(|why| refuse_service(key, "spec.clusterIPs", "", &why))?;
                (free.to_string(), true)
            }
            "None" => (asked, false),
            _ if held => (asked, false),
            _ => {
                self.check_ip(write, key, &asked)?;
                (asked, true)
            }
        };
        let spec = service.spec_mut();
        if spec.cluster_ips.as_ref().is_none_or(|ips| ips.first() != Some(&text)) {
            spec.cluster_ips = Some(vec![text.clone()]);
        }
        spec.cluster_ip = Some(text);
        spec.ip_families.get_or_insert_with(|| vec!["IPv4".to_owned()]);
        spec.ip_family_policy.get_or_insert_with(|| "SingleStack".to_owned());
        Ok(allocated)
    }

    /// A free address: searched in each range from a random one onwards. The first address of the server's own range is
    /// reserved for the API server's own Service.
    fn free_ip(&mut self, write: &Write) -> Result<Ipv4Addr, String> {
        let own = Range::of(self.config.service_cidr);
        let ranges = self.ranges();
        if let Some(looked_up) = self.looked_up(write, &ranges) {
            return Ok(looked_up);
        }
        for range in ranges {
            let first = if range == own { 2 } else { 1 };
            let usable = range.size.saturating_sub(first + 1);
            if usable == 0 {
                continue;
            }
            let start = self.rng.below(u64::from(usable)) as u32;
            let taken = &self.cache.addresses().ips;
            let mut each = (0..usable).map(|i| range.network + first + (start.wrapping_add(i)) % usable);
            let free = |ip: &u32| !taken.contains_key(ip) && self.known(write, &ip_key(*ip)).is_none();
            if let Some(free) = each.find(free) {
                return Ok(Ipv4Addr::from(free));
            }
        }
        Err("failed to allocate a serviceIP: range is full".to_owned())
    }

    /// A free address that the store has been asked about for this write: another would have to be asked about again.
    fn looked_up(&self, write: &Write, ranges: &[Range]) -> Option<Ipv4Addr> {
        let absent = write.fresh.iter().filter(|(_, value)| value.is_none());
        let mut ips = absent.filter_map(|(key, _)| match key {
            StoreKey::Object(key) if key.kind == Kind::IP_ADDRESS => key.name().parse::<Ipv4Addr>().ok(),
            _ => None,
        });
        let free = |ip: &u32| !self.cache.addresses().ips.contains_key(ip) && ranges.iter().any(|r| r.gives(*ip));
        ips.find(|ip| free(&u32::from(*ip)))
    }

    fn check_ip(&self, write: &Write, key: &ObjectKey, asked: &str) -> Result<(), Decision> {
        let Ok(ip) = asked.parse::<Ipv4Addr>().map(u32::from) else {
            return Err(refuse_service(key, "spec.clusterIPs[0]", asked, "must be a valid IP address"));
        };
        let shown = format!("[{asked:?}]");
        let refuse = |why: &str| {
            let why = format!("failed to allocate IP {asked}: {why}");
            Err(refuse_service(key, "spec.clusterIPs", &shown, &why))
        };
        let within: Vec<Range> = self.ranges().into_iter().filter(|range| range.contains(ip)).collect();
        let Some(range) = within.first() else {
            return refuse("the provided network does not match the current range");
        };
        if !within.iter().any(|range| range.gives(ip)) {
            return refuse(&format!(
                "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {range}"
            ));
        }
        let why = format!("failed to allocate IP {asked}: provided IP is already allocated");
        match self.cache.addresses().ips.get(&ip).filter(|holder| *holder != key) {
            Some(holder) if self.holds(write, holder, |s| ips_of(s).any(|i| i == ip)) => {
                return Err(taken(key, holder, "spec.clusterIPs", &shown, &why));
            }
            _ => {}
        }
        match self.known(write, &ip_key(ip)) {
            Some(address) if !is_parent(address, key) => Err(taken(key, &ip_key(ip), "spec.clusterIPs", &shown, &why)),
            _ => Ok(()),
        }
    }

    /// Whether a Service, as far as this write knows, still has the address or port that the index says it holds.
    fn holds(&self, write: &Write, holder: &ObjectKey, has: impl Fn(&Service) -> bool) -> bool {
        matches!(self.object(write, holder), Some(Object::Service(s)) if has(&s))
    }

    fn allocate_ports(
        &mut self,
        write: &Write,
        key: &ObjectKey,
        old: Option<&Service>,
        service: &mut Service,
    ) -> Result<bool, Decision> {
        let held: Vec<u16> = old.into_iter().flat_map(ports_of).collect();
        let mut given: Vec<u16> = Vec::new();
        let mut allocated = false;
        if service.wants_ports() {
            for (i, port) in service.spec.ports.iter().flatten().enumerate().filter(|(_, p)| !lacks_node_port(p)) {
                let field = format!("spec.ports[{i}].nodePort");
                let number = self.check_port(write, key, &field, port.node_port.unwrap_or(0), &held)?;
                allocated |= !held.contains(&number);
                given.push(number);
            }
            if service.spec.ports.iter().flatten().any(lacks_node_port) {
                let mut ports = service.spec.ports.clone().unwrap_or_default();
                for port in ports.iter_mut().filter(|p| lacks_node_port(p)) {
                    port.node_port = Some(i32::from(self.free_port(key, &mut given)?));
                }
                service.spec_mut().ports = Some(ports);
                allocated = true;
            }
        }
        if service.wants_health_port() {
            let asked = service.spec.health_check_node_port.unwrap_or(0);
            if asked == 0 {
                service.spec_mut().health_check_node_port = Some(i32::from(self.free_port(key, &mut given)?));
                allocated = true;
            } else {
                let number = self.check_port(write, key, "spec.healthCheckNodePort", asked, &held)?;
                allocated |= !held.contains(&number);
            }
        }
        Ok(allocated)
    }

    fn check_port(
        &self,
        write: &Write,
        key: &ObjectKey,
        field: &str,
        asked: i32,
        held: &[u16],
    ) -> Result<u16, Decision> {
        let (first, last) = self.config.node_port_range;
        let Some(port) = u16::try_from(asked).ok().filter(|p| held.contains(p) || (first..=last).contains(p)) else {
            let why = format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
            return Err(refuse_service(key, field, &asked.to_string(), &why));
        };
        match self.cache.addresses().ports.get(&port).filter(|holder| *holder != key) {
            Some(holder) if self.holds(write, holder, |s| ports_of(s).any(|p| p == port)) => {
                Err(taken(key, holder, field, &port.to_string(), "provided port is already allocated"))
            }
            _ => Ok(port),
        }
    }

    fn free_port(&mut self, key: &ObjectKey, given: &mut Vec<u16>) -> Result<u16, Decision> {
        let (first, last) = self.config.node_port_range;
        let count = u32::from(last.saturating_sub(first)) + 1;
        let start = self.rng.below(u64::from(count)) as u32;
        let taken = &self.cache.addresses().ports;
        let mut each = (0..count).map(|i| first + ((start + i) % count) as u16);
        let free = each.find(|p| !taken.contains_key(p) && !given.contains(p));
        let port = free.ok_or_else(|| {
            Decision::refuse(Status::internal(format!(
                "failed to allocate a nodePort for {}: range is full",
                key.path()
            )))
        })?;
        given.push(port);
        Ok(port)
    }
}

/// The cluster supports only IPv4: rejects a Service that requires IPv6 (`initIPFamilyFields`). A Service that only
/// prefers dual-stack, or that is headless without a selector, is accepted.
fn refuse_other_families(key: &ObjectKey, service: &Service) -> Result<(), Decision> {
    let spec = &service.spec;
    let headless = spec.cluster_ip.as_deref() == Some("None");
    if headless && spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
        return Ok(());
    }
    let mut errors = Vec::new();
    if spec.ip_family_policy.as_deref() == Some("RequireDualStack") {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(field_error("spec.ipFamilyPolicy", "\"RequireDualStack\"", why));
    }
    // If no family is given, it follows from the address.
    let given = spec.ip_families.as_deref().unwrap_or_default();
    let addresses = spec.cluster_ips.as_deref().unwrap_or_default().iter().skip(given.len());
    let implied = addresses.map(|ip| if ip.contains(':') { "IPv6" } else { "IPv4" });
    for (i, family) in given.iter().map(String::as_str).chain(implied).enumerate().filter(|(_, f)| *f != "IPv4") {
        let field = format!("spec.ipFamilies[{i}]");
        errors.push(field_error(&field, &format!("{family:?}"), "not configured on this cluster"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Decision::refuse(Status::invalid(key.kind.row(), key.name(), &errors))) }
}

fn field_error(field: &str, shown: &str, why: &str) -> FieldError {
    FieldError {
        kind: crate::object::ErrorKind::Invalid,
        field: field.to_owned(),
        value: Some(shown.to_owned()),
        detail: why.to_owned(),
    }
}

fn refuse_service(key: &ObjectKey, field: &str, shown: &str, why: &str) -> Decision {
    if why.ends_with("range is full") {
        return Decision::refuse(Status::internal(why));
    }
    Decision::refuse(Status::invalid(key.kind.row(), key.name(), &[field_error(field, shown, why)]))
}

/// Rejects the value if the holder still holds it.
fn taken(key: &ObjectKey, holder: &ObjectKey, field: &str, shown: &str, why: &str) -> Decision {
    let status = Status::invalid(key.kind.row(), key.name(), &[field_error(field, shown, why)]);
    Decision::AnswerIf(vec![StoreKey::Object(holder.clone())], Err(status))
}
