//! Validation of containers. Source: `pkg/apis/core/validation` (`validateContainers`, `validateInitContainers`,
//! `validateEphemeralContainers`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule, EphemeralContainer, PodSpec,
};

use super::mount::{self, Volumes};
use super::path::Path;
use super::resources::{self, Of};
use super::{Owner, env, names, one_of, probe, push_all, security, too_many};
use crate::object::{FieldError, as_container, is_restartable_init};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// The context in which containers are validated.
struct Pod<'a> {
    spec: &'a PodSpec,
    volumes: &'a Volumes<'a>,
    claims: &'a BTreeSet<&'a str>,
    host_users: bool,
    owner: Owner,
}

/// Validates every container of a pod spec, and that names and host ports are unique.
pub(super) fn all(
    spec: &PodSpec,
    owner: Owner,
    volumes: &Volumes<'_>,
    claims: &BTreeSet<&str>,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let pod = Pod { spec, volumes, claims, host_users: spec.host_users != Some(false), owner };
    pod.mains(&at.field("containers"), errors);
    pod.inits(&at.field("initContainers"), errors);
    pod.ephemerals(&at.field("ephemeralContainers"), errors);
}

impl Pod<'_> {
    fn mains(&self, at: &Path<'_>, errors: &mut Vec<FieldError>) {
        let list = &self.spec.containers;
        if list.is_empty() {
            errors.push(FieldError::required(at, ""));
            return;
        }
        let mut names = BTreeSet::new();
        for (i, c) in list.iter().enumerate() {
            let at = at.index(i);
            self.common(c, &at, errors);
            if !names.insert(c.name.as_str()) {
                errors.push(FieldError::duplicate(at.field("name"), &c.name));
            }
            probe::all(c, self.spec.termination_grace_period_seconds, &at, errors);
            restarts(c, &at, errors);
        }
        host_port_conflicts(list, at, errors);
    }

    fn inits(&self, at: &Path<'_>, errors: &mut Vec<FieldError>) {
        let mut names: BTreeSet<&str> = self.spec.containers.iter().map(|c| c.name.as_str()).collect();
        for (i, c) in self.spec.init_containers.iter().flatten().enumerate() {
            let item = at.index(i);
            self.common(c, &item, errors);
            restarts(c, &item, errors);
            if names.contains(c.name.as_str()) {
                errors.push(FieldError::duplicate(item.field("name"), &c.name));
            } else if !c.name.is_empty() {
                names.insert(&c.name);
            }
            // Init containers run one after another, so each is checked alone. The error's path has index 0, as
            // upstream's.
            host_port_conflicts(std::slice::from_ref(c), at, errors);
            if is_restartable_init(c) {
                probe::all(c, self.spec.termination_grace_period_seconds, &item, errors);
                continue;
            }
            for (field, given) in [
                ("lifecycle", c.lifecycle.is_some()),
                ("livenessProbe", c.liveness_probe.is_some()),
                ("readinessProbe", c.readiness_probe.is_some()),
                ("startupProbe", c.startup_probe.is_some()),
            ] {
                if given {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    errors.push(FieldError::forbidden(item.field(field), detail));
                }
            }
        }
    }

    fn ephemerals(&self, at: &Path<'_>, errors: &mut Vec<FieldError>) {
        let lasting = self.spec.containers.iter().chain(self.spec.init_containers.iter().flatten());
        let lasting: BTreeSet<&str> = lasting.map(|c| c.name.as_str()).collect();
        let mut names = lasting.clone();
        for (i, e) in self.spec.ephemeral_containers.iter().flatten().enumerate() {
            let at = at.index(i);
            self.common(&as_container(e), &at, errors);
            if self.owner != Owner::Pod {
                no_padding(e.image.as_deref(), &at, errors);
            }
            if !names.insert(&e.name) {
                errors.push(FieldError::duplicate(at.field("name"), &e.name));
            }
            let target = e.target_container_name.as_deref().unwrap_or("");
            if !target.is_empty() && !lasting.contains(target) {
                errors.push(FieldError::not_found(at.field("targetContainerName"), target));
            }
            not_for_ephemeral(e, &at, errors);
        }
    }

    /// `validateContainerCommon`.
    fn common(&self, c: &Container, at: &Path<'_>, errors: &mut Vec<FieldError>) {
        if c.name.is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        } else {
            push_all(errors, &at.field("name"), &c.name, names::label(&c.name));
        }
        if c.image.as_deref().unwrap_or("").is_empty() {
            errors.push(FieldError::required(at.field("image"), ""));
        }
        let policies = [
            ("terminationMessagePolicy", &c.termination_message_policy, &["File", "FallbackToLogsOnError"][..]),
            ("imagePullPolicy", &c.image_pull_policy, &["Always", "IfNotPresent", "Never"][..]),
        ];
        let policy = |(field, value, known): (&str, &Option<String>, &[&str]), errors: &mut Vec<FieldError>| match value
            .as_deref()
            .unwrap_or("")
        {
            "" => errors.push(FieldError::required(at.field(field), "")),
            value => one_of(value, known, &at.field(field), errors),
        };
        policy(policies[0], errors);
        ports(c.ports.as_deref().unwrap_or_default(), &at.field("ports"), errors);
        env::vars(c.env.as_deref().unwrap_or_default(), &at.field("env"), errors);
        env::from(c.env_from.as_deref().unwrap_or_default(), &at.field("envFrom"), errors);
        let mounts = c.volume_mounts.as_deref().unwrap_or_default();
        let devices = c.volume_devices.as_deref().unwrap_or_default();
        mount::all(mounts, devices, c.security_context.as_ref(), self.volumes, at, errors);
        policy(policies[1], errors);
        if let Some(r) = &c.resources {
            resources::requirements(r, Of::Container, self.claims, &at.field("resources"), errors);
        }
        let resizes = c.resize_policy.as_deref().unwrap_or_default();
        let never = self.spec.restart_policy.as_deref() == Some("Never");
        resize_policies(resizes, never, &at.field("resizePolicy"), errors);
        if let Some(s) = &c.security_context {
            security::of_container(s, self.host_users, &at.field("securityContext"), errors);
        }
        if self.owner == Owner::Pod {
            no_padding(c.image.as_deref(), at, errors);
        }
    }
}

/// `validateContainerOnlyForPod`.
fn no_padding(image: Option<&str>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(image) = image.filter(|i| i.trim() != *i) {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(at.field("image"), image, detail));
    }
}

/// `validateContainerRestartPolicy` (KEP-5307).
fn restarts(c: &Container, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = c.restart_policy_rules.as_deref().unwrap_or_default();
    let Some(policy) = &c.restart_policy else {
        if !rules.is_empty() {
            let detail = "must specify restartPolicy when restart rules are used";
            errors.push(FieldError::required(at.field("restartPolicy"), detail));
        }
        return;
    };
    one_of(policy, &["Always", "Never", "OnFailure"], &at.field("restartPolicy"), errors);
    let at = at.field("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        errors.push(too_many(at, rules.len(), MAX_RESTART_RULES));
    }
    for (i, rule) in rules.iter().enumerate() {
        restart_rule(rule, &at.index(i), errors);
    }
}

fn restart_rule(rule: &ContainerRestartRule, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    one_of(&rule.action, &["Restart", "RestartAllContainers"], &at.field("action"), errors);
    let at = at.field("exitCodes");
    let Some(codes) = &rule.exit_codes else {
        errors.push(FieldError::required(at, "must be specified"));
        return;
    };
    one_of(&codes.operator, &["In", "NotIn"], &at.field("operator"), errors);
    let values = codes.values.as_deref().unwrap_or_default();
    if values.is_empty() {
        errors.push(FieldError::required(at.field("values"), "must specify at least one value"));
    } else if values.len() > MAX_EXIT_CODES {
        errors.push(too_many(at.field("values"), values.len(), MAX_EXIT_CODES));
    }
}

/// `validateContainerPorts`.
fn ports(list: &[ContainerPort], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut port_names = BTreeSet::new();
    for (i, p) in list.iter().enumerate() {
        let at = at.index(i);
        if let Some(name) = p.name.as_deref().filter(|n| !n.is_empty()) {
            let wrongs = names::port_name(name);
            if wrongs.is_empty() && !port_names.insert(name) {
                errors.push(FieldError::duplicate(at.field("name"), name));
            }
            push_all(errors, &at.field("name"), name, wrongs);
        }
        if p.container_port == 0 {
            errors.push(FieldError::required(at.field("containerPort"), ""));
        } else if !names::is_port(p.container_port) {
            errors.push(FieldError::invalid(at.field("containerPort"), p.container_port, names::PORT));
        }
        if let Some(port) = p.host_port.filter(|p| *p != 0 && !names::is_port(*p)) {
            errors.push(FieldError::invalid(at.field("hostPort"), port, names::PORT));
        }
        match p.protocol.as_deref().unwrap_or("") {
            "" => errors.push(FieldError::required(at.field("protocol"), "")),
            protocol => one_of(protocol, PROTOCOLS, &at.field("protocol"), errors),
        }
    }
}

/// `checkHostPortConflicts`: containers that run at the same time must not use the same host port.
fn host_port_conflicts(containers: &[Container], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut taken = BTreeSet::new();
    for (i, c) in containers.iter().enumerate() {
        let at = at.index(i);
        let at = at.field("ports");
        for (j, p) in c.ports.iter().flatten().enumerate() {
            let Some(port) = p.host_port.filter(|p| *p != 0) else { continue };
            let (protocol, ip) = (p.protocol.as_deref().unwrap_or(""), p.host_ip.as_deref().unwrap_or(""));
            if !taken.insert((protocol, ip, port)) {
                let shown = format!("{protocol}/{ip}/{port}");
                errors.push(FieldError::duplicate(at.index(j).field("hostPort"), shown));
            }
        }
    }
}

/// `validatePodHostNetworkDeps`: with `hostNetwork`, a container's host port must equal its container port. A template
/// may omit it, since defaulting sets it in the pod. Init containers are not checked.
pub(super) fn host_network(spec: &PodSpec, owner: Owner, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if spec.host_network != Some(true) {
        return;
    }
    for (i, c) in spec.containers.iter().enumerate() {
        let at = at.field("containers");
        let at = at.index(i);
        let at = at.field("ports");
        for (j, p) in c.ports.iter().flatten().enumerate() {
            let port = p.host_port.unwrap_or(0);
            if (owner == Owner::Pod || port != 0) && port != p.container_port {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(at.index(j).field("hostPort"), port, detail));
            }
        }
    }
}

/// `validateResizePolicy`.
fn resize_policies(list: &[ContainerResizePolicy], never: bool, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, p) in list.iter().enumerate() {
        if !seen.insert(p.resource_name.as_str()) {
            errors.push(FieldError::duplicate(at.index(i), &p.resource_name));
        }
        let fields =
            [(&p.resource_name, &["cpu", "memory"][..]), (&p.restart_policy, &["NotRequired", "RestartContainer"][..])];
        for (value, known) in fields {
            match value.as_str() {
                "" => errors.push(FieldError::required(at, "")),
                value => one_of(value, known, at, errors),
            }
        }
        if never && p.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(at, &p.restart_policy, detail));
        }
    }
}

/// Refuses the fields that an ephemeral container must not set.
fn not_for_ephemeral(e: &EphemeralContainer, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    const DETAIL: &str = "cannot be set for an Ephemeral Container";
    for (field, set) in [
        ("ports", e.ports.as_ref().is_some_and(|p| !p.is_empty())),
        ("resources", e.resources.as_ref().is_some_and(|r| *r != Default::default())),
        ("resizePolicy", e.resize_policy.is_some()),
        ("restartPolicy", e.restart_policy.is_some()),
        ("restartPolicyRules", e.restart_policy_rules.is_some()),
        ("livenessProbe", e.liveness_probe.is_some()),
        ("readinessProbe", e.readiness_probe.is_some()),
        ("startupProbe", e.startup_probe.is_some()),
        ("lifecycle", e.lifecycle.is_some()),
    ] {
        if set {
            errors.push(FieldError::forbidden(at.field(field), DETAIL));
        }
    }
    for (i, m) in e.volume_mounts.iter().flatten().enumerate() {
        let at = at.field("volumeMounts");
        let at = at.index(i);
        for (field, path) in [("subPath", &m.sub_path), ("subPathExpr", &m.sub_path_expr)] {
            if path.as_deref().is_some_and(|p| !p.is_empty()) {
                errors.push(FieldError::forbidden(at.field(field), DETAIL));
            }
        }
    }
}
