//! Validation of Ingresses, their classes, and NetworkPolicies. Source: `pkg/apis/networking/validation`.

use core::net::IpAddr;

use k8s_openapi::api::core::v1::TypedLocalObjectReference;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, IPBlock, IngressBackend, IngressClassSpec, IngressSpec, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};

use super::path::{Go, Path};
use super::{meta, names, one_of, push_all};
use crate::object::{FieldError, IntOrString, ObjectMeta};

type Errors = Vec<FieldError>;

const CLASS: &str = "kubernetes.io/ingress.class";

/// Checks a new Ingress: if its class is set both in the annotation and in the spec, the two must be equal.
pub(in crate::object) fn class_given_twice(meta: &ObjectMeta, class: &str, errors: &mut Errors) {
    let annotation = meta.annotations.as_ref().and_then(|a| a.get(CLASS));
    if let Some(annotation) = annotation.filter(|a| !class.is_empty() && *a != class) {
        let detail = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid(format!("annotations.{CLASS}"), annotation, detail));
    }
}

/// `ValidateIngressSpec`.
pub(in crate::object) fn ingress(s: &IngressSpec, errors: &mut Errors) {
    let at = &Path::Root("spec");
    let rules = s.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && s.default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(at, Go("null".to_owned()), detail));
    }
    if let Some(b) = &s.default_backend {
        backend(b, &at.field("defaultBackend"), errors);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = at.field("rules");
        let at = at.index(i);
        let name = rule.host.as_deref().unwrap_or("");
        if name.parse::<IpAddr>().is_ok() {
            errors.push(FieldError::invalid(at.field("host"), name, "must be a DNS name, not an IP address"));
        }
        if !name.is_empty() {
            host(name, &at.field("host"), errors);
        }
        let Some(http) = &rule.http else { continue };
        let at = at.field("http");
        let at = at.field("paths");
        if http.paths.is_empty() {
            errors.push(FieldError::required(at, ""));
        }
        for (j, p) in http.paths.iter().enumerate() {
            path(p, &at.index(j), errors);
        }
    }
    for (i, tls) in s.tls.iter().flatten().enumerate() {
        let at = at.field("tls");
        let at = at.index(i);
        for (j, name) in tls.hosts.iter().flatten().enumerate() {
            host(name, &at.field("hosts").index(j), errors);
        }
        if let Some(secret) = tls.secret_name.as_deref().filter(|n| !n.is_empty()) {
            push_all(errors, &at.field("secretName"), secret, names::subdomain(secret));
        }
    }
    if let Some(class) = &s.ingress_class_name {
        push_all(errors, &at.field("ingressClassName"), class, names::subdomain(class));
    }
}

fn host(name: &str, at: &Path<'_>, errors: &mut Errors) {
    let wrongs = if name.contains('*') { names::wildcard(name) } else { names::subdomain(name) };
    push_all(errors, at, name, wrongs);
}

/// `validateHTTPIngressPath`.
fn path(p: &HTTPIngressPath, at: &Path<'_>, errors: &mut Errors) {
    let text = p.path.as_deref().unwrap_or("");
    let path = at.field("path");
    let mut wrong = |detail: String| errors.push(FieldError::invalid(path, text, detail));
    match p.path_type.as_str() {
        "" => {
            errors.push(FieldError::required(at.field("pathType"), "pathType must be specified"));
            return;
        }
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                wrong("must be an absolute path".to_owned());
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|bad| text.contains(bad)) {
                wrong(format!("must not contain '{bad}'"));
            }
            for bad in ["/..", "/."].into_iter().filter(|bad| text.ends_with(bad)) {
                wrong(format!("cannot end with '{bad}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                wrong("must be an absolute path".to_owned());
            }
        }
        other => one_of(other, &["Exact", "ImplementationSpecific", "Prefix"], &at.field("pathType"), errors),
    }
    backend(&p.backend, &at.field("backend"), errors);
}

/// `validateIngressBackend`.
fn backend(b: &IngressBackend, at: &Path<'_>, errors: &mut Errors) {
    let service = match (&b.resource, &b.service) {
        (Some(_), Some(_)) => {
            return errors.push(FieldError::invalid(at, "", "cannot set both resource and service backends"));
        }
        (None, None) => return errors.push(FieldError::invalid(at, "", "resource or service backend is required")),
        (Some(r), None) => return reference(r, &at.field("resource"), errors),
        (None, Some(service)) => service,
    };
    let path = at.field("service");
    if service.name.is_empty() {
        errors.push(FieldError::required(path.field("name"), ""));
    } else {
        push_all(errors, &path.field("name"), &service.name, names::label_1035(&service.name));
    }
    let port = service.port.as_ref();
    let name = port.and_then(|p| p.name.as_deref()).filter(|n| !n.is_empty());
    let number = port.and_then(|p| p.number).filter(|n| *n != 0);
    let path = path.field("port");
    match (name, number) {
        (Some(_), Some(_)) => errors.push(FieldError::invalid(at, "", "cannot set both port name & port number")),
        (Some(name), None) => push_all(errors, &path.field("name"), name, names::port_name(name)),
        (None, Some(n)) if !names::is_port(n) => {
            errors.push(FieldError::invalid(path.field("number"), n, names::PORT));
        }
        (None, Some(_)) => {}
        (None, None) => errors.push(FieldError::required(at, "port name or number is required")),
    }
}

/// `validateIngressTypedLocalObjectReference`.
fn reference(r: &TypedLocalObjectReference, at: &Path<'_>, errors: &mut Errors) {
    if let Some(group) = &r.api_group {
        push_all(errors, &at.field("apiGroup"), group, names::subdomain(group));
    }
    for (field, value) in [("kind", &r.kind), ("name", &r.name)] {
        if value.is_empty() {
            errors.push(FieldError::required(at.field(field), format!("{field} is required")));
        } else {
            push_all(errors, &at.field(field), value, names::path_segment(value));
        }
    }
}

/// `validateIngressClassSpec`.
pub(in crate::object) fn class(s: &IngressClassSpec, errors: &mut Errors) {
    let at = &Path::Root("spec");
    let controller = s.controller.as_deref().unwrap_or("");
    if controller.len() > 250 {
        errors.push(FieldError::too_long(at.field("controller"), 250));
    }
    meta::domain_prefixed(controller, &at.field("controller"), errors);
    let Some(p) = &s.parameters else { return };
    let at = at.field("parameters");
    let r = TypedLocalObjectReference { api_group: p.api_group.clone(), kind: p.kind.clone(), name: p.name.clone() };
    reference(&r, &at, errors);
    match (p.scope.as_deref(), &p.namespace) {
        (None, _) => errors.push(FieldError::required(at.field("scope"), "")),
        (Some("Namespace"), None) => {
            let detail = "`parameters.scope` is set to 'Namespace'";
            errors.push(FieldError::required(at.field("namespace"), detail));
        }
        (Some("Namespace"), Some(name)) => push_all(errors, &at.field("namespace"), name, names::label(name)),
        (Some("Cluster"), Some(_)) => {
            let detail = "`parameters.scope` is set to 'Cluster'";
            errors.push(FieldError::forbidden(at.field("namespace"), detail));
        }
        (Some("Cluster"), None) => {}
        (Some(other), _) => one_of(other, &["Cluster", "Namespace"], &at.field("scope"), errors),
    }
}

/// `ValidateNetworkPolicySpec`.
pub(in crate::object) fn policy(s: &NetworkPolicySpec, errors: &mut Errors) {
    let at = &Path::Root("spec");
    if let Some(selector) = &s.pod_selector {
        meta::selector(selector, &at.field("podSelector"), errors);
    }
    let ingress = s.ingress.iter().flatten().map(|r| (&r.ports, &r.from));
    rules(ingress, "from", &at.field("ingress"), errors);
    let egress = s.egress.iter().flatten().map(|r| (&r.ports, &r.to));
    rules(egress, "to", &at.field("egress"), errors);
    let types = s.policy_types.as_deref().unwrap_or_default();
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid(at.field("policyTypes"), Go::strings(types), detail));
        return;
    }
    for (i, t) in types.iter().enumerate() {
        one_of(t, &["Ingress", "Egress"], &at.field("policyTypes").index(i), errors);
    }
}

type Rule<'a> = (&'a Option<Vec<NetworkPolicyPort>>, &'a Option<Vec<NetworkPolicyPeer>>);

fn rules<'a>(list: impl Iterator<Item = Rule<'a>>, peers: &str, at: &Path<'_>, errors: &mut Errors) {
    for (i, (ports, others)) in list.enumerate() {
        let at = at.index(i);
        for (j, p) in ports.iter().flatten().enumerate() {
            port(p, &at.field("ports").index(j), errors);
        }
        for (j, p) in others.iter().flatten().enumerate() {
            peer(p, &at.field(peers).index(j), errors);
        }
    }
}

fn port(p: &NetworkPolicyPort, at: &Path<'_>, errors: &mut Errors) {
    if let Some(protocol) = &p.protocol {
        one_of(protocol, &["TCP", "UDP", "SCTP"], &at.field("protocol"), errors);
    }
    match (&p.port, p.end_port) {
        (Some(IntOrString::Int(port)), end) => {
            if !names::is_port(*port) {
                errors.push(FieldError::invalid(at.field("port"), port, names::PORT));
            }
            let Some(end) = end else { return };
            if end < *port {
                let detail = "must be greater than or equal to `port`";
                errors.push(FieldError::invalid(at.field("endPort"), port, detail));
            }
            if !names::is_port(end) {
                errors.push(FieldError::invalid(at.field("endPort"), end, names::PORT));
            }
        }
        (Some(IntOrString::String(name)), end) => {
            if let Some(end) = end {
                let detail = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(at.field("endPort"), end, detail));
            }
            push_all(errors, &at.field("port"), name, names::port_name(name));
        }
        (None, Some(end)) => {
            let detail = "may not be specified when `port` is not specified";
            errors.push(FieldError::invalid(at.field("endPort"), end, detail));
        }
        (None, None) => {}
    }
}

fn peer(p: &NetworkPolicyPeer, at: &Path<'_>, errors: &mut Errors) {
    for (field, selector) in [("podSelector", &p.pod_selector), ("namespaceSelector", &p.namespace_selector)] {
        if let Some(s) = selector {
            meta::selector(s, &at.field(field), errors);
        }
    }
    if let Some(block) = &p.ip_block {
        ip_block(block, &at.field("ipBlock"), errors);
    }
    let selects = p.pod_selector.is_some() || p.namespace_selector.is_some();
    match (selects, p.ip_block.is_some()) {
        (false, false) => errors.push(FieldError::required(at, "must specify a peer")),
        (true, true) => errors.push(FieldError::forbidden(at, "may not specify both ipBlock and another peer")),
        _ => {}
    }
}

/// What is wrong with a text that is no CIDR.
pub(in crate::object) const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Parses a CIDR: the bits of its address, whether it is IPv4, and the prefix length. `None` if it is invalid.
pub(crate) fn range(text: &str) -> Option<(u128, bool, u32)> {
    let (ip, bits) = text.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    match ip.parse().ok()? {
        IpAddr::V4(ip) if bits <= 32 => Some((u128::from(ip.to_bits()) << 96, true, bits)),
        IpAddr::V6(ip) if bits <= 128 => Some((ip.to_bits(), false, bits)),
        _ => None,
    }
}

fn ip_block(block: &IPBlock, at: &Path<'_>, errors: &mut Errors) {
    if block.cidr.is_empty() {
        return errors.push(FieldError::required(at.field("cidr"), ""));
    }
    let Some((ip, v4, bits)) = range(&block.cidr) else {
        return errors.push(FieldError::invalid(at.field("cidr"), &block.cidr, CIDR));
    };
    for (i, except) in block.except.iter().flatten().enumerate() {
        let at = at.field("except");
        let at = at.index(i);
        let Some((inner, inner_v4, inner_bits)) = range(except) else {
            errors.push(FieldError::invalid(at, except, CIDR));
            continue;
        };
        let same = bits == 0 || (ip ^ inner) >> (128 - bits) == 0;
        if v4 != inner_v4 || !same || bits >= inner_bits {
            errors.push(FieldError::invalid(at, except, "must be a strict subset of `cidr`"));
        }
    }
}
