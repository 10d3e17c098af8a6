//! Defaults of Services, Endpoints and EndpointSlices. Source: `pkg/apis/{core,discovery}/v1/defaults.go`; the IP
//! families are those that a single-stack IPv4 cluster assigns.

use k8s_openapi::api::core::v1::{
    ClientIPConfig, EndpointPort, EndpointSubset, Endpoints, ServicePort, ServiceSpec, SessionAffinityConfig,
};
use k8s_openapi::api::discovery::v1::{EndpointPort as SlicePort, EndpointSlice};

use super::rules::{Parts, defaults, one_part};
use crate::object::IntOrString;

one_part!(SessionAffinityConfig, ClientIPConfig);

fn is_type(s: &ServiceSpec, types: &[&str]) -> bool {
    s.type_.as_deref().is_some_and(|t| types.contains(&t))
}

defaults!(ServiceSpec, |s| {
    set session_affinity = "None".to_owned();
    own no_affinity_config, affinity_config_is_idle;
    set session_affinity_config = SessionAffinityConfig::default(), if s.session_affinity.as_deref() == Some("ClientIP");
    set type_ = "ClusterIP".to_owned();
    set external_traffic_policy = "Cluster".to_owned(), if is_type(s, &["NodePort", "LoadBalancer"]);
    set internal_traffic_policy = "Cluster".to_owned(), if is_type(s, &["ClusterIP", "NodePort", "LoadBalancer"]);
    set allocate_load_balancer_node_ports = true, if is_type(s, &["LoadBalancer"]);
    set ip_family_policy = "SingleStack".to_owned(), if !is_type(s, &["ExternalName"]);
    set ip_families = vec!["IPv4".to_owned()], if !is_type(s, &["ExternalName"]);
    each session_affinity_config;
    each ports;
});
defaults!(SessionAffinityConfig, |c| { set client_ip = ClientIPConfig::default(); each client_ip; });
defaults!(ClientIPConfig, |c| { set timeout_seconds = 10_800; });
defaults!(ServicePort, |p| {
    set protocol = "TCP".to_owned();
    own same_target, no_target;
});

fn no_affinity_config(s: &mut ServiceSpec) {
    if affinity_config_is_idle(s) {
        s.session_affinity_config = None;
    }
}

fn affinity_config_is_idle(s: &ServiceSpec) -> bool {
    s.session_affinity_config.is_some() && s.session_affinity.as_deref().is_none_or(|a| a == "None")
}

fn same_target(p: &mut ServicePort) {
    if no_target(p) {
        p.target_port = Some(IntOrString::Int(p.port));
    }
}

fn no_target(p: &ServicePort) -> bool {
    match &p.target_port {
        None => true,
        Some(IntOrString::Int(n)) => *n == 0 && p.port != 0,
        Some(IntOrString::String(s)) => s.is_empty(),
    }
}

defaults!(Endpoints, |e| { each subsets; });
defaults!(EndpointSubset, |s| { each ports; });
defaults!(EndpointPort, |p| { set protocol = "TCP".to_owned(); });
defaults!(EndpointSlice, |e| { each ports; });
defaults!(SlicePort, |p| {
    set protocol = "TCP".to_owned();
    own empty_name, no_name;
});

fn empty_name(p: &mut SlicePort) {
    p.name.get_or_insert_default();
}

fn no_name(p: &SlicePort) -> bool {
    p.name.is_none()
}
