//! Validation of Services, Endpoints and EndpointSlices. Source: `pkg/apis/{core,discovery}/validation`.

use core::net::IpAddr;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Endpoints, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::path::{Go, Path};
use super::{meta, name_or_number, names, one_of, push_all, too_many};
use crate::object::FieldError;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// `ValidateService`.
pub(in crate::object) fn create(s: &ServiceSpec, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    let type_ = s.type_.as_deref().unwrap_or("");
    let headless = first_ip(s) == "None";
    let list = s.ports.as_deref().unwrap_or_default();
    if list.is_empty() && !headless && type_ != "ExternalName" {
        errors.push(FieldError::required(at.field("ports"), ""));
    }
    match type_ {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {type_} services");
            errors.push(FieldError::invalid(at.field("clusterIPs").index(0), "None", detail));
        }
        "ExternalName" => external_name(s, at, errors),
        "" => errors.push(FieldError::required(at.field("type"), "")),
        other => {
            one_of(other, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &at.field("type"), errors);
        }
    }
    ports(list, type_, at, errors);
    meta::labels(s.selector.as_ref(), &at.field("selector"), errors);
    affinity(s, at, errors);
    addresses(s, at, errors);
    policies(s, type_, at, errors);
}

fn first_ip(s: &ServiceSpec) -> &str {
    let first = s.cluster_ips.as_ref().and_then(|ips| ips.first()).map(String::as_str);
    first.or(s.cluster_ip.as_deref()).unwrap_or("")
}

fn external_name(s: &ServiceSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !first_ip(s).is_empty() {
        errors.push(FieldError::forbidden(at.field("clusterIPs"), "may not be set for ExternalName services"));
    }
    let name = s.external_name.as_deref().unwrap_or("");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.push(FieldError::required(at.field("externalName"), ""));
    } else {
        push_all(errors, &at.field("externalName"), name, names::subdomain(name));
    }
}

fn ports(list: &[ServicePort], type_: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (mut port_names, mut pairs, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, p) in list.iter().enumerate() {
        let at = at.field("ports");
        let at = at.index(i);
        let (name, protocol) = (p.name.as_deref().unwrap_or(""), p.protocol.as_deref().unwrap_or(""));
        if name.is_empty() && list.len() > 1 {
            errors.push(FieldError::required(at.field("name"), ""));
        } else if !name.is_empty() {
            push_all(errors, &at.field("name"), name, names::label(name));
            if !port_names.insert(name) {
                errors.push(FieldError::duplicate(at.field("name"), name));
            }
        }
        if !names::is_port(p.port) {
            errors.push(FieldError::invalid(at.field("port"), p.port, names::PORT));
        }
        if protocol.is_empty() {
            errors.push(FieldError::required(at.field("protocol"), ""));
        } else {
            one_of(protocol, PROTOCOLS, &at.field("protocol"), errors);
        }
        if let Some(target) = &p.target_port {
            name_or_number(target, &at.field("targetPort"), errors);
        }
        if !pairs.insert((protocol, p.port)) {
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{protocol:?},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\
                 \"NodePort\":0}}",
                p.port
            );
            errors.push(FieldError::duplicate(at, Go(shown)));
        }
        let node_port = p.node_port.unwrap_or(0);
        if node_port != 0 {
            if matches!(type_, "ClusterIP" | "ExternalName") {
                let detail = format!("may not be used when `type` is '{type_}'");
                errors.push(FieldError::forbidden(at.field("nodePort"), detail));
            }
            if !names::is_port(node_port) {
                errors.push(FieldError::invalid(at.field("nodePort"), node_port, names::PORT));
            }
            if !node_ports.insert((protocol, node_port)) {
                errors.push(FieldError::duplicate(at.field("nodePort"), node_port));
            }
        }
    }
}

fn affinity(s: &ServiceSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let affinity = s.session_affinity.as_deref().unwrap_or("");
    if affinity.is_empty() {
        errors.push(FieldError::required(at.field("sessionAffinity"), ""));
    } else {
        one_of(affinity, &["ClientIP", "None"], &at.field("sessionAffinity"), errors);
    }
    let client = s.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    if affinity == "ClientIP" {
        let at = at.field("sessionAffinityConfig");
        let at = at.field("clientIP");
        match client.and_then(|c| c.timeout_seconds) {
            Some(n) if n > 0 && n <= 86_400 => {}
            Some(n) => {
                let detail = "must be greater than 0 and less than 86400";
                errors.push(FieldError::invalid(at.field("timeoutSeconds"), n, detail));
            }
            None => errors.push(FieldError::required(at, "when session affinity type is ClientIP")),
        }
    }
}

fn addresses(s: &ServiceSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let (Some(ip), Some(ips)) = (&s.cluster_ip, s.cluster_ips.as_deref().filter(|l| !l.is_empty()))
        && !ip.is_empty()
        && *ip != ips[0]
    {
        errors.push(FieldError::invalid(
            at.field("clusterIPs"),
            Go::strings(ips),
            "first value must match `clusterIP`",
        ));
    }
    let single = s.cluster_ip.as_slice();
    let ips = s.cluster_ips.as_deref().filter(|l| !l.is_empty()).unwrap_or(single);
    for (i, ip) in ips.iter().enumerate() {
        let none = ip == "None" && i == 0;
        if !ip.is_empty() && !none && ip.parse::<IpAddr>().is_err() {
            errors.push(FieldError::invalid(at.field("clusterIPs").index(i), ip, names::IP));
        }
    }
    for (i, ip) in s.external_ips.iter().flatten().enumerate() {
        let at = at.field("externalIPs");
        let at = at.index(i);
        match ip.parse::<IpAddr>() {
            Err(_) => errors.push(FieldError::invalid(at, ip, names::IP)),
            Ok(ip) if ip.is_loopback() => {
                errors.push(FieldError::invalid(
                    at,
                    ip.to_string(),
                    "may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ));
            }
            Ok(ip) if ip.is_unspecified() => {
                errors.push(FieldError::invalid(at, ip.to_string(), "may not be unspecified (0.0.0.0 or ::)"));
            }
            Ok(_) => {}
        }
    }
}

fn policies(s: &ServiceSpec, type_: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    const BOTH: &[&str] = &["Cluster", "Local"];
    if let Some(policy) = s.external_traffic_policy.as_deref().filter(|p| !p.is_empty()) {
        let at = at.field("externalTrafficPolicy");
        let external = s.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
        if !matches!(type_, "NodePort" | "LoadBalancer") && !external {
            let detail = "may only be set for externally-accessible services";
            errors.push(FieldError::invalid(at, policy, detail));
        } else {
            one_of(policy, BOTH, &at, errors);
        }
    } else if matches!(type_, "NodePort" | "LoadBalancer") {
        errors.push(FieldError::required(at.field("externalTrafficPolicy"), ""));
    }
    if let Some(policy) = &s.internal_traffic_policy {
        one_of(policy, BOTH, &at.field("internalTrafficPolicy"), errors);
    }
    if let Some(policy) = &s.ip_family_policy {
        let known = &["SingleStack", "PreferDualStack", "RequireDualStack"];
        one_of(policy, known, &at.field("ipFamilyPolicy"), errors);
    }
    for (i, family) in s.ip_families.iter().flatten().enumerate() {
        one_of(family, &["IPv4", "IPv6"], &at.field("ipFamilies").index(i), errors);
    }
    if s.allocate_load_balancer_node_ports.is_some() && type_ != "LoadBalancer" {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden(at.field("allocateLoadBalancerNodePorts"), detail));
    }
}

/// An assigned cluster IP must not change, unless the new type has none.
pub(in crate::object) fn update(new: &ServiceSpec, old: &ServiceSpec, errors: &mut Vec<FieldError>) {
    let external = |s: &ServiceSpec| s.type_.as_deref() == Some("ExternalName");
    let (now, was) = (first_ip(new), first_ip(old));
    if !external(new) && !external(old) && !was.is_empty() && !now.is_empty() && now != was {
        let at = Path::Root("spec");
        let at = at.field("clusterIPs");
        let shown = Go::strings(&[now.to_owned()]);
        errors.push(FieldError::invalid(at.index(0), shown, "may not change once set"));
    }
}

/// `ValidateEndpoints`.
pub(in crate::object) fn endpoints(e: &Endpoints, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("subsets");
    for (i, s) in e.subsets.iter().flatten().enumerate() {
        let at = at.index(i);
        let ready = s.addresses.as_deref().unwrap_or_default();
        let waiting = s.not_ready_addresses.as_deref().unwrap_or_default();
        if ready.is_empty() && waiting.is_empty() {
            errors.push(FieldError::required(at, "must specify `addresses` or `notReadyAddresses`"));
        }
        for (list, field) in [(ready, "addresses"), (waiting, "notReadyAddresses")] {
            for (j, a) in list.iter().enumerate() {
                if a.ip.parse::<IpAddr>().is_err() {
                    errors.push(FieldError::invalid(at.field(field).index(j).field("ip"), &a.ip, names::IP));
                }
            }
        }
        let ports = s.ports.as_deref().unwrap_or_default();
        for (j, p) in ports.iter().enumerate() {
            let at = at.field("ports");
            let at = at.index(j);
            let name = p.name.as_deref().unwrap_or("");
            if name.is_empty() && ports.len() > 1 {
                errors.push(FieldError::required(at.field("name"), ""));
            } else if !name.is_empty() {
                push_all(errors, &at.field("name"), name, names::label(name));
            }
            if !names::is_port(p.port) {
                errors.push(FieldError::invalid(at.field("port"), p.port, names::PORT));
            }
            one_of(p.protocol.as_deref().unwrap_or(""), PROTOCOLS, &at.field("protocol"), errors);
        }
    }
}

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

/// `ValidateEndpointSlice`.
pub(in crate::object) fn slice(e: &EndpointSlice, errors: &mut Vec<FieldError>) {
    let family = e.address_type.as_str();
    if family.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    } else {
        one_of(family, &["FQDN", "IPv4", "IPv6"], &Path::Root("addressType"), errors);
    }
    let endpoints = e.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(too_many("endpoints", endpoints.len(), MAX_ENDPOINTS));
        return;
    }
    let root = &Path::Root("endpoints");
    for (i, endpoint) in endpoints.iter().enumerate() {
        let at = root.index(i);
        if endpoint.addresses.is_empty() {
            errors.push(FieldError::required(at.field("addresses"), "must contain at least 1 address"));
        } else if endpoint.addresses.len() > MAX_ADDRESSES {
            errors.push(too_many(at.field("addresses"), endpoint.addresses.len(), MAX_ADDRESSES));
        }
        for (j, address) in endpoint.addresses.iter().enumerate() {
            slice_address(family, address, &at.field("addresses").index(j), errors);
        }
        if let Some(node) = &endpoint.node_name {
            push_all(errors, &at.field("nodeName"), node, names::subdomain(node));
        }
        if let Some(host) = &endpoint.hostname {
            push_all(errors, &at.field("hostname"), host, names::label(host));
        }
    }
    slice_ports(e, errors);
}

fn slice_address(family: &str, address: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let parsed = address.parse::<IpAddr>();
    match (family, parsed) {
        ("FQDN", _) => push_all(errors, at, address, names::subdomain(address)),
        ("IPv4" | "IPv6", Err(_)) => errors.push(FieldError::invalid(at, address, names::IP)),
        ("IPv4", Ok(IpAddr::V6(_))) => errors.push(FieldError::invalid(at, address, "must be an IPv4 address")),
        ("IPv6", Ok(IpAddr::V4(_))) => errors.push(FieldError::invalid(at, address, "must be an IPv6 address")),
        (_, Ok(ip)) if ip.is_loopback() => {
            errors.push(FieldError::invalid(at, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)"));
        }
        (_, Ok(ip)) if ip.is_unspecified() => {
            errors.push(FieldError::invalid(at, address, "may not be unspecified (0.0.0.0 or ::)"));
        }
        _ => {}
    }
}

fn slice_ports(e: &EndpointSlice, errors: &mut Vec<FieldError>) {
    let ports = e.ports.as_deref().unwrap_or_default();
    if ports.len() > MAX_PORTS {
        errors.push(too_many("ports", ports.len(), MAX_PORTS));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, p) in ports.iter().enumerate() {
        let at = Path::Root("ports");
        let at = at.index(i);
        let name = p.name.as_deref().unwrap_or("");
        if !name.is_empty() {
            push_all(errors, &at.field("name"), name, names::label(name));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(at.field("name"), name));
        }
        one_of(p.protocol.as_deref().unwrap_or(""), PROTOCOLS, &at.field("protocol"), errors);
    }
}
