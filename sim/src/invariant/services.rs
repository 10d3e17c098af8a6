//! Which pods each Service should lead to, computed from the stored pods; used by the checkers of EndpointSlices,
//! service tables and DNS names.

use core::net::IpAddr;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{self as core_v1, ServicePort};
use k8s_openapi::api::discovery::v1 as discovery_v1;

use skeg_core::object::{EndpointSlice, IntOrString, Kind, Object, Pod, Selector, Service};
use skeg_core::store::MemoryStore;

use super::reading::{is_ready, is_terminal};
use crate::converge::objects;

/// The label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn all(store: &MemoryStore) -> impl Iterator<Item = &Service> {
    objects(store, Kind::SERVICE).filter_map(Object::get::<core_v1::Service>)
}

/// The name of the Service that a slice belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.meta.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

/// The EndpointSlices of a Service.
pub(super) fn slices<'a>(store: &'a MemoryStore, service: &'a Service) -> impl Iterator<Item = &'a EndpointSlice> {
    let all = objects(store, Kind::ENDPOINT_SLICE).filter_map(Object::get::<discovery_v1::EndpointSlice>);
    all.filter(|slice| slice.namespace() == service.namespace() && service_of(slice) == Some(service.name()))
}

/// Whether it publishes pods that are not ready as well (`publishNotReadyAddresses`).
pub(super) fn publishes_all(service: &Service) -> bool {
    service.spec.publish_not_ready_addresses == Some(true)
}

/// The pods that a Service with a selector should lead to: the ready ones, or, if it publishes all, every pod that has
/// an address and has not terminated. `None` if the controller does not manage its slices: it has no selector, or is of
/// type `ExternalName`.
pub(super) fn ready_pods<'a>(store: &'a MemoryStore, service: &Service) -> Option<Vec<&'a Pod>> {
    if service.spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let selector = Selector::from_map(service.spec.selector.as_ref().filter(|s| !s.is_empty())?);
    let own = |p: &&Object| p.namespace() == service.namespace() && selector.matches(p.labels());
    let pods = objects(store, Kind::POD).filter(own).filter_map(Object::get::<core_v1::Pod>);
    let serves = |p: &&Pod| publishes_all(service) || (is_ready(p) && p.meta.deletion_timestamp.is_none());
    Some(pods.filter(|p| !p.status.pod_ip.is_empty() && !is_terminal(p)).filter(serves).collect())
}

/// The container port that a Service's port leads to in a pod; `None` if the pod has no port with that name and
/// protocol.
pub(super) fn target_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => return u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = |p: &Option<String>| p.clone().unwrap_or_else(|| "TCP".to_owned());
    let sidecars = pod.spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let mut named =
        ports.filter(|p| p.name.as_ref() == Some(name) && protocol(&p.protocol) == protocol(&port.protocol));
    named.next().and_then(|p| u16::try_from(p.container_port).ok())
}

pub(super) fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.pod_ip.as_str().parse().ok()
}

pub(super) fn addresses<'a>(pods: impl IntoIterator<Item = &'a &'a Pod>) -> BTreeSet<IpAddr> {
    pods.into_iter().filter_map(|p| address(p)).collect()
}

pub(super) fn is_headless(service: &Service) -> bool {
    service.spec.cluster_ip.as_deref() == Some("None")
}

pub(super) fn cluster_ip(service: &Service) -> Option<IpAddr> {
    service.spec.cluster_ip.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use skeg_core::Object;

    use super::target_port;

    #[test]
    fn a_named_port_leads_to_pods_that_have_it() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "initContainers": [
                {"name": "i", "ports": [{"name": "init", "containerPort": 1}]},
                {"name": "s", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 2}]}],
            "containers": [{"name": "c", "ports": [
                {"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]}});
        let Object::Pod(pod) = Object::from_json(pod).expect("a pod") else { panic!("a pod") };
        let check = |port: Value, expect: Option<u16>| {
            assert_eq!(target_port(&pod, &serde_json::from_value(port.clone()).expect("a port")), expect, "{port}");
        };
        check(json!({"port": 80}), Some(80));
        check(json!({"port": 80, "targetPort": 9}), Some(9));
        check(json!({"port": 80, "targetPort": "web"}), Some(8080));
        check(json!({"port": 80, "targetPort": "side"}), Some(2));
        check(json!({"port": 80, "targetPort": "init"}), None);
        check(json!({"port": 80, "targetPort": "dns"}), None);
        check(json!({"port": 80, "targetPort": "dns", "protocol": "UDP"}), Some(53));
    }
}
