//! Validation of containers. Source: `pkg/apis/core/validation` (`ValidatePodSpec`'s containers).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec,
    Probe, ResourceRequirements, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::path::Path;
use super::{name_or_number, names, not_negative, one_of, push_all};
use crate::object::{FieldError, Milli};

const RESTART: &[&str] = &["Always", "OnFailure", "Never"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const MAX_ID: i64 = i32::MAX as i64;

/// Every container of a pod spec, and what they must not have in common.
pub(super) fn all(spec: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if spec.containers.is_empty() {
        errors.push(FieldError::required(at.field("containers"), ""));
    }
    let host_network = spec.host_network == Some(true);
    let volumes: BTreeSet<&str> = spec.volumes.iter().flatten().map(|v| v.name.as_str()).collect();
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    for (list, field, init) in [(inits, "initContainers", true), (&spec.containers[..], "containers", false)] {
        for (i, c) in list.iter().enumerate() {
            let at = at.field(field);
            let at = at.index(i);
            container(c, &volumes, init, &at, errors);
            if !c.name.is_empty() && !names.insert(c.name.as_str()) {
                errors.push(FieldError::duplicate(at.field("name"), &c.name));
            }
            ports(c, host_network, (!init || sidecar(c)).then_some(&mut host_ports), &at, errors);
        }
    }
    for (i, c) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let at = at.field("ephemeralContainers");
        let at = at.index(i);
        name(&c.name, &at, errors);
        if !c.name.is_empty() && !names.insert(c.name.as_str()) {
            errors.push(FieldError::duplicate(at.field("name"), &c.name));
        }
        image(c.image.as_deref(), &at, errors);
        if let Some(target) = c.target_container_name.as_deref().filter(|t| !t.is_empty())
            && !spec.containers.iter().chain(inits).any(|c| c.name == target)
        {
            errors.push(FieldError::not_found(at.field("targetContainerName"), target));
        }
    }
}

fn sidecar(c: &Container) -> bool {
    c.restart_policy.as_deref() == Some("Always")
}

fn container(c: &Container, volumes: &BTreeSet<&str>, init: bool, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    name(&c.name, at, errors);
    image(c.image.as_deref(), at, errors);
    if let Some(policy) = &c.restart_policy {
        one_of(policy, RESTART, &at.field("restartPolicy"), errors);
    }
    if let Some(policy) = &c.image_pull_policy {
        one_of(policy, &["Always", "IfNotPresent", "Never"], &at.field("imagePullPolicy"), errors);
    }
    if let Some(policy) = &c.termination_message_policy {
        one_of(policy, &["FallbackToLogsOnError", "File"], &at.field("terminationMessagePolicy"), errors);
    }
    if init && !sidecar(c) {
        for (field, given) in [
            ("lifecycle", c.lifecycle.is_some()),
            ("livenessProbe", c.liveness_probe.is_some()),
            ("readinessProbe", c.readiness_probe.is_some()),
            ("startupProbe", c.startup_probe.is_some()),
        ] {
            if given {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(FieldError::forbidden(at.field(field), detail));
            }
        }
    } else {
        probes(c, at, errors);
        if let Some(l) = &c.lifecycle {
            lifecycle(l, &at.field("lifecycle"), errors);
        }
    }
    for (i, e) in c.env.iter().flatten().enumerate() {
        env(e, &at.field("env").index(i), errors);
    }
    for (i, e) in c.env_from.iter().flatten().enumerate() {
        env_from(e, &at.field("envFrom").index(i), errors);
    }
    mounts(c, volumes, at, errors);
    if let Some(r) = &c.resources {
        resources(r, &at.field("resources"), errors);
    }
    if let Some(s) = &c.security_context {
        security(s, &at.field("securityContext"), errors);
    }
}

fn name(name: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        errors.push(FieldError::required(at.field("name"), ""));
    } else {
        push_all(errors, &at.field("name"), name, names::label(name));
    }
}

fn image(image: Option<&str>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let image = image.unwrap_or("");
    if image.is_empty() {
        errors.push(FieldError::required(at.field("image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(at.field("image"), image, detail));
    }
}

/// Ports of one container; `taken` are the host ports of containers that run at the same time.
fn ports<'a>(
    c: &'a Container,
    host_network: bool,
    mut taken: Option<&mut BTreeSet<(&'a str, &'a str, i32)>>,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let mut port_names = BTreeSet::new();
    for (i, p) in c.ports.iter().flatten().enumerate() {
        let at = at.field("ports");
        let at = at.index(i);
        port(p, host_network, &at, errors);
        if let Some(name) = p.name.as_deref().filter(|n| !n.is_empty()) {
            let wrongs = names::port_name(name);
            if wrongs.is_empty() && !port_names.insert(name) {
                errors.push(FieldError::duplicate(at.field("name"), name));
            }
            push_all(errors, &at.field("name"), name, wrongs);
        }
        let (host_port, protocol) = (p.host_port.unwrap_or(0), p.protocol.as_deref().unwrap_or("TCP"));
        let ip = p.host_ip.as_deref().unwrap_or("");
        if host_port != 0
            && let Some(taken) = taken.as_deref_mut()
            && !taken.insert((protocol, ip, host_port))
        {
            errors.push(FieldError::duplicate(at.field("hostPort"), format!("{protocol}/{ip}/{host_port}")));
        }
    }
}

fn port(p: &ContainerPort, host_network: bool, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if p.container_port == 0 {
        errors.push(FieldError::required(at.field("containerPort"), ""));
    } else if !names::is_port(p.container_port) {
        errors.push(FieldError::invalid(at.field("containerPort"), p.container_port, names::PORT));
    }
    let host_port = p.host_port.unwrap_or(0);
    if host_port != 0 && !names::is_port(host_port) {
        errors.push(FieldError::invalid(at.field("hostPort"), host_port, names::PORT));
    }
    if host_network && host_port != p.container_port {
        let detail = "must match `hostPort` when `hostNetwork` is true";
        errors.push(FieldError::invalid(at.field("containerPort"), p.container_port, detail));
    }
    match p.protocol.as_deref().unwrap_or("") {
        "" => errors.push(FieldError::required(at.field("protocol"), "")),
        protocol => one_of(protocol, PROTOCOLS, &at.field("protocol"), errors),
    }
}

fn probes(c: &Container, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (probe, field) in [(&c.liveness_probe, "livenessProbe"), (&c.startup_probe, "startupProbe")] {
        let Some(p) = probe else { continue };
        let at = at.field(field);
        self::probe(p, &at, errors);
        if let Some(n) = p.success_threshold.filter(|n| *n != 1) {
            errors.push(FieldError::invalid(at.field("successThreshold"), n, "must be 1"));
        }
        if let Some(n) = p.termination_grace_period_seconds.filter(|n| *n <= 0) {
            errors.push(FieldError::invalid(at.field("terminationGracePeriodSeconds"), n, "must be greater than 0"));
        }
    }
    if let Some(p) = &c.readiness_probe {
        let at = at.field("readinessProbe");
        probe(p, &at, errors);
        if let Some(n) = p.termination_grace_period_seconds {
            let detail = "must not be set for readinessProbes";
            errors.push(FieldError::invalid(at.field("terminationGracePeriodSeconds"), n, detail));
        }
    }
}

fn probe(p: &Probe, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given = [
        ("exec", p.exec.is_some()),
        ("httpGet", p.http_get.is_some()),
        ("tcpSocket", p.tcp_socket.is_some()),
        ("grpc", p.grpc.is_some()),
    ];
    one_handler(&given, at, errors);
    if p.exec.as_ref().is_some_and(|e| e.command.iter().flatten().next().is_none()) {
        errors.push(FieldError::required(at.field("exec").field("command"), ""));
    }
    if let Some(h) = &p.http_get {
        http(h, &at.field("httpGet"), errors);
    }
    if let Some(t) = &p.tcp_socket {
        name_or_number(&t.port, &at.field("tcpSocket").field("port"), errors);
    }
    if let Some(port) = p.grpc.as_ref().map(|g| g.port).filter(|p| !names::is_port(*p)) {
        errors.push(FieldError::invalid(at.field("grpc").field("port"), port, names::PORT));
    }
    for (field, n) in [
        ("initialDelaySeconds", p.initial_delay_seconds),
        ("timeoutSeconds", p.timeout_seconds),
        ("periodSeconds", p.period_seconds),
        ("successThreshold", p.success_threshold),
        ("failureThreshold", p.failure_threshold),
    ] {
        not_negative(n.map(i64::from), &at.field(field), errors);
    }
}

fn one_handler(given: &[(&str, bool)], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut handlers = given.iter().filter(|(_, given)| *given);
    if handlers.next().is_none() {
        errors.push(FieldError::required(at, "must specify a handler type"));
    }
    for (field, _) in handlers {
        errors.push(FieldError::forbidden(at.field(field), "may not specify more than 1 handler type"));
    }
}

fn http(h: &HTTPGetAction, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if h.path.as_deref().unwrap_or("").is_empty() {
        errors.push(FieldError::required(at.field("path"), ""));
    }
    name_or_number(&h.port, &at.field("port"), errors);
    if let Some(scheme) = &h.scheme {
        one_of(scheme, &["HTTP", "HTTPS"], &at.field("scheme"), errors);
    }
    for (i, header) in h.http_headers.iter().flatten().enumerate() {
        push_all(errors, &at.field("httpHeaders").index(i), &header.name, names::header_name(&header.name));
    }
}

fn lifecycle(l: &Lifecycle, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (handler, field) in [(&l.post_start, "postStart"), (&l.pre_stop, "preStop")] {
        if let Some(h) = handler {
            lifecycle_handler(h, &at.field(field), errors);
        }
    }
}

fn lifecycle_handler(h: &LifecycleHandler, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given = [
        ("exec", h.exec.is_some()),
        ("httpGet", h.http_get.is_some()),
        ("tcpSocket", h.tcp_socket.is_some()),
        ("sleep", h.sleep.is_some()),
    ];
    one_handler(&given, at, errors);
    if h.exec.as_ref().is_some_and(|e| e.command.iter().flatten().next().is_none()) {
        errors.push(FieldError::required(at.field("exec").field("command"), ""));
    }
    if let Some(get) = &h.http_get {
        http(get, &at.field("httpGet"), errors);
    }
    if let Some(t) = &h.tcp_socket {
        name_or_number(&t.port, &at.field("tcpSocket").field("port"), errors);
    }
    not_negative(h.sleep.as_ref().map(|s| s.seconds), &at.field("sleep").field("seconds"), errors);
}

fn env(e: &EnvVar, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if e.name.is_empty() {
        errors.push(FieldError::required(at.field("name"), ""));
    } else {
        push_all(errors, &at.field("name"), &e.name, names::env_name(&e.name));
    }
    let Some(source) = &e.value_from else { return };
    let at = at.field("valueFrom");
    let given = [
        source.field_ref.is_some(),
        source.resource_field_ref.is_some(),
        source.config_map_key_ref.is_some(),
        source.secret_key_ref.is_some(),
        source.file_key_ref.is_some(),
    ];
    match given.iter().filter(|g| **g).count() {
        0 => errors.push(FieldError::invalid(
            at,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )),
        _ if e.value.as_deref().is_some_and(|v| !v.is_empty()) => {
            errors.push(FieldError::invalid(at, "", "may not be specified when `value` is not empty"));
        }
        1 => {}
        _ => errors.push(FieldError::invalid(at, "", "may not have more than one field specified at a time")),
    }
    env_source(source, &at, errors);
}

/// What `fieldRef` can read of a pod besides labels and annotations.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

fn env_source(source: &EnvVarSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(f) = &source.field_ref {
        let at = at.field("fieldRef");
        let subscript = |prefix: &str| f.field_path.strip_prefix(prefix).is_some_and(|rest| rest.ends_with("']"));
        if f.field_path.is_empty() {
            errors.push(FieldError::required(at.field("fieldPath"), ""));
        } else if !FIELDS.contains(&f.field_path.as_str())
            && !subscript("metadata.labels['")
            && !subscript("metadata.annotations['")
        {
            let detail = format!("error converting fieldPath: field label not supported: {}", f.field_path);
            errors.push(FieldError::invalid(at.field("fieldPath"), &f.field_path, detail));
        }
    }
    if let Some(r) = &source.resource_field_ref {
        let at = at.field("resourceFieldRef");
        let huge = |prefix: &str| r.resource.starts_with(prefix);
        if r.resource.is_empty() {
            errors.push(FieldError::required(at.field("resource"), ""));
        } else if !RESOURCES.contains(&r.resource.as_str())
            && !huge("limits.hugepages-")
            && !huge("requests.hugepages-")
        {
            errors.push(FieldError::not_supported(at.field("resource"), &r.resource, RESOURCES));
        }
    }
    let keys = [
        ("configMapKeyRef", source.config_map_key_ref.as_ref().map(|r| (&r.name, &r.key))),
        ("secretKeyRef", source.secret_key_ref.as_ref().map(|r| (&r.name, &r.key))),
    ];
    for (field, reference) in keys {
        let Some((name, key)) = reference else { continue };
        let at = at.field(field);
        if name.is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        }
        if key.is_empty() {
            errors.push(FieldError::required(at.field("key"), ""));
        } else {
            push_all(errors, &at.field("key"), key, names::config_key(key));
        }
    }
}

fn env_from(e: &EnvFromSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(prefix) = e.prefix.as_deref().filter(|p| !p.is_empty()) {
        push_all(errors, &at.field("prefix"), prefix, names::env_name(prefix));
    }
    let sources = [
        ("configMapRef", e.config_map_ref.as_ref().map(|r| &r.name)),
        ("secretRef", e.secret_ref.as_ref().map(|r| &r.name)),
    ];
    for (field, name) in sources {
        if name.is_some_and(String::is_empty) {
            errors.push(FieldError::required(at.field(field).field("name"), ""));
        }
    }
    match sources.iter().filter(|(_, n)| n.is_some()).count() {
        0 => errors.push(FieldError::invalid(at, "", "must specify one of: `configMapRef` or `secretRef`")),
        1 => {}
        _ => errors.push(FieldError::invalid(at, "", "may not have more than one field specified at a time")),
    }
}

fn mounts(c: &Container, volumes: &BTreeSet<&str>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut paths = BTreeSet::new();
    for (i, m) in c.volume_mounts.iter().flatten().enumerate() {
        let at = at.field("volumeMounts");
        let at = at.index(i);
        if m.name.is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        } else if !volumes.contains(m.name.as_str()) {
            errors.push(FieldError::not_found(at.field("name"), &m.name));
        }
        if m.mount_path.is_empty() {
            errors.push(FieldError::required(at.field("mountPath"), ""));
        }
        if !paths.insert(m.mount_path.as_str()) {
            errors.push(FieldError::invalid(at.field("mountPath"), &m.mount_path, "must be unique"));
        }
        let sub = |s: &Option<String>| s.as_deref().unwrap_or("").to_owned();
        for (field, path) in [("subPath", sub(&m.sub_path)), ("subPathExpr", sub(&m.sub_path_expr))] {
            super::volume::local_path(&path, &at.field(field), errors);
        }
        if !sub(&m.sub_path).is_empty() && !sub(&m.sub_path_expr).is_empty() {
            let value = sub(&m.sub_path_expr);
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(at.field("subPathExpr"), value, detail));
        }
        if let Some(propagation) = &m.mount_propagation {
            let allowed = &["Bidirectional", "HostToContainer", "None"];
            one_of(propagation, allowed, &at.field("mountPropagation"), errors);
        }
    }
    for (i, d) in c.volume_devices.iter().flatten().enumerate() {
        let at = at.field("volumeDevices");
        let at = at.index(i);
        if d.name.is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        } else if !volumes.contains(d.name.as_str()) {
            errors.push(FieldError::not_found(at.field("name"), &d.name));
        }
        if d.device_path.is_empty() {
            errors.push(FieldError::required(at.field("devicePath"), ""));
        } else if !paths.insert(d.device_path.as_str()) {
            errors.push(FieldError::invalid(at.field("devicePath"), &d.device_path, "must be unique"));
        }
    }
}

/// `ValidateResourceRequirements`, for containers.
pub(super) fn resources(r: &ResourceRequirements, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let none = BTreeMap::new();
    let (limits, requests) = (r.limits.as_ref().unwrap_or(&none), r.requests.as_ref().unwrap_or(&none));
    for (list, field) in [(limits, "limits"), (requests, "requests")] {
        for (name, quantity) in list {
            amount(name, quantity, &at.field(field).key(name), errors);
        }
    }
    for (name, request) in requests {
        match limits.get(name) {
            Some(limit) if overcommits(name) && Milli::of(request) > Milli::of(limit) => {
                let detail = format!("must be less than or equal to {name} limit of {}", limit.0);
                errors.push(FieldError::invalid(at.field("requests"), &request.0, detail));
            }
            Some(limit) if !overcommits(name) && Milli::of(request) != Milli::of(limit) => {
                let detail = format!("must be equal to {name} limit of {}", limit.0);
                errors.push(FieldError::invalid(at.field("requests"), &request.0, detail));
            }
            None if !overcommits(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(at.field("limits"), detail));
            }
            Some(_) | None => {}
        }
    }
    let named = |name: &str| limits.contains_key(name) || requests.contains_key(name);
    let huge = limits.keys().chain(requests.keys()).any(|n| n.starts_with("hugepages-"));
    if huge && !named("cpu") && !named("memory") {
        errors.push(FieldError::forbidden(at, "HugePages require cpu or memory"));
    }
}

/// A name with a domain that is not Kubernetes' own.
pub(super) fn is_extended(name: &str) -> bool {
    match name.split_once('/') {
        Some((domain, _)) => {
            domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io") && !name.starts_with("requests.")
        }
        None => false,
    }
}

fn overcommits(name: &str) -> bool {
    !name.contains("hugepages-") && !is_extended(name)
}

/// One amount of a container's resource.
fn amount(name: &str, quantity: &Quantity, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    push_all(errors, at, name, names::qualified(name));
    if !name.contains('/') {
        let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if !standard {
            errors.push(FieldError::invalid(at, name, "must be a standard resource for containers"));
        }
    }
    super::quantity(name, quantity, at, errors);
}

fn security(s: &SecurityContext, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (field, id) in [("runAsUser", s.run_as_user), ("runAsGroup", s.run_as_group)] {
        id_in_range(id, &at.field(field), errors);
    }
    if s.allow_privilege_escalation == Some(false) {
        let shown = || super::path::Go(serde_json::to_string(s).unwrap_or_default());
        if s.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(at, shown(), detail));
        }
        let added = s.capabilities.iter().flat_map(|c| c.add.iter().flatten());
        if added.into_iter().any(|c| c == "CAP_SYS_ADMIN" || c == "SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(at, shown(), detail));
        }
    }
}

/// A numeric user or group.
pub(super) fn id_in_range(id: Option<i64>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(id) = id.filter(|id| !(0..=MAX_ID).contains(id)) {
        errors.push(FieldError::invalid(at, id, "must be between 0 and 2147483647, inclusive"));
    }
}
