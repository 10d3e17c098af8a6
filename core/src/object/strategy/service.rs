//! Service. Source: `pkg/registry/core/service/strategy.go`.

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::{Strategy, text};
use crate::object::validation::names::{self, Wrongs};
use crate::object::validation::service;
use crate::object::{FieldError, Kind, Obj, Object, ObjectMeta, Resource, Service, defaults};

spec_and_status!(Service core_v1::Service, SERVICE, core_v1::ServiceSpec, core_v1::ServiceStatus);

impl Service {
    fn type_or_default(&self) -> &str {
        self.spec.type_.as_deref().unwrap_or("ClusterIP")
    }

    /// Whether a Service of this type has a cluster IP.
    pub fn wants_ip(&self) -> bool {
        self.type_or_default() != "ExternalName"
    }

    /// Whether a Service of this type has node ports.
    pub fn wants_ports(&self) -> bool {
        match self.type_or_default() {
            "NodePort" => true,
            "LoadBalancer" => self.spec.allocate_load_balancer_node_ports != Some(false),
            _ => false,
        }
    }

    /// Whether somebody outside of the cluster can reach it (`ExternallyAccessible`).
    fn is_external(&self) -> bool {
        let externals = self.spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
        matches!(self.type_or_default(), "NodePort" | "LoadBalancer")
            || self.type_or_default() == "ClusterIP" && externals
    }

    /// Whether this Service needs a health check node port.
    pub fn wants_health_port(&self) -> bool {
        self.type_or_default() == "LoadBalancer" && self.spec.external_traffic_policy.as_deref() == Some("Local")
    }
}

/// Whether a node port still has to be allocated for this port.
pub fn lacks_node_port(port: &core_v1::ServicePort) -> bool {
    port.node_port.unwrap_or(0) == 0
}

impl Strategy for core_v1::Service {
    const NAME: fn(&str) -> Wrongs = names::label_1035;

    /// Keeps allocated values (cluster IPs, node ports) that the client leaves out of an update, and clears values that
    /// the new type does not use (`patchAllocatedValues`, `dropTypeDependentFields`).
    fn prepare_for_update(new: &mut Service, old: &Service) {
        if Rc::ptr_eq(&new.spec, &old.spec) || new.spec == old.spec {
            return;
        }
        keep_ip(new, old);
        keep_ports(new, old);
        drop_policies(new, old);
    }

    fn apply_defaults(object: &mut Service) {
        defaults::fill_shared(&mut object.spec);
    }

    fn validate(object: &Service, errors: &mut Vec<FieldError>) {
        service::create(&object.spec, errors);
    }

    fn validate_update(new: &Service, old: &Service, errors: &mut Vec<FieldError>) {
        if !Rc::ptr_eq(&new.spec, &old.spec) {
            service::create(&new.spec, errors);
            service::update(&new.spec, &old.spec, errors);
        }
    }

    fn field<'a>(object: &'a Service, path: &str) -> Option<Cow<'a, str>> {
        match path {
            "spec.clusterIP" => text(object.spec.cluster_ip.as_deref()),
            _ => text(object.spec.type_.as_deref()),
        }
    }
}

fn keep_ip(new: &mut Service, old: &Service) {
    let before = &old.spec;
    if old.wants_ip() && new.wants_ip() {
        if new.spec.cluster_ip.as_deref().unwrap_or("").is_empty() {
            new.spec_mut().cluster_ip.clone_from(&before.cluster_ip);
        }
        if new.spec.cluster_ips.is_none() && new.spec.cluster_ip == before.cluster_ip {
            new.spec_mut().cluster_ips.clone_from(&before.cluster_ips);
        }
    }
    if old.wants_ip() && !new.wants_ip() && new.spec.cluster_ip == before.cluster_ip {
        let spec = new.spec_mut();
        spec.cluster_ip = None;
        spec.cluster_ips = None;
        spec.ip_families = None;
        spec.ip_family_policy = None;
    }
}

/// Clears how traffic from outside is led in where the new type takes none, unless the client has changed it.
fn drop_policies(new: &mut Service, old: &Service) {
    let same_policy = new.spec.external_traffic_policy == old.spec.external_traffic_policy;
    if old.is_external() && !new.is_external() && same_policy {
        new.spec_mut().external_traffic_policy = None;
    }
    let balanced = |service: &Service| service.type_or_default() == "LoadBalancer";
    if !balanced(old) || balanced(new) {
        return;
    }
    if new.spec.load_balancer_class == old.spec.load_balancer_class {
        new.spec_mut().load_balancer_class = None;
    }
    if new.spec.allocate_load_balancer_node_ports == old.spec.allocate_load_balancer_node_ports {
        new.spec_mut().allocate_load_balancer_node_ports = None;
    }
    if new.status.load_balancer.is_some() {
        new.status_mut().load_balancer = None;
    }
}

fn keep_ports(new: &mut Service, old: &Service) {
    let before = &old.spec;
    if old.wants_ports() && new.wants_ports() {
        for port in new.spec_mut().ports.iter_mut().flatten().filter(|p| lacks_node_port(p)) {
            let same = before.ports.iter().flatten().find(|o| o.port == port.port && o.protocol == port.protocol);
            port.node_port = same.and_then(|o| o.node_port);
        }
    }
    if old.wants_ports() && !new.wants_ports() {
        for port in new.spec_mut().ports.iter_mut().flatten() {
            if before.ports.iter().flatten().any(|o| o.node_port == port.node_port) {
                port.node_port = None;
            }
        }
    }
    if old.wants_health_port() {
        if !new.wants_health_port() {
            new.spec_mut().health_check_node_port = None;
        } else if new.spec.health_check_node_port.unwrap_or(0) == 0 {
            new.spec_mut().health_check_node_port = before.health_check_node_port;
        }
    }
}
