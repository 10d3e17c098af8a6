//! Validation of pod specs, and of what may change in a pod. Source: `pkg/apis/core/validation`
//! (`ValidatePodSpec`, `ValidatePodUpdate`, `ValidatePodStatusUpdate`).

use std::collections::BTreeSet;
use std::rc::Rc;

use k8s_openapi::api::core::v1::PodSpec;

use super::path::{Go, Path};
use super::{container, meta, names, not_negative, one_of, push_all, scheduling, volume};
use crate::object::{FieldError, Pod};

/// A pod's own rules beyond those of its spec.
pub(super) fn create(pod: &Pod, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    spec(&pod.spec.shared, at, errors);
    if pod.spec.shared.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        errors.push(FieldError::forbidden(at.field("ephemeralContainers"), "cannot be set on create"));
    }
    if let Some(node) = &pod.spec.node {
        push_all(errors, &at.field("nodeName"), node, names::subdomain(node));
        if pod.spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
            let detail = "cannot be set until all schedulingGates have been cleared";
            errors.push(FieldError::forbidden(at.field("nodeName"), detail));
        }
    }
}

/// `ValidatePodSpec`.
pub(super) fn spec(s: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    volume::all(s.volumes.as_deref().unwrap_or_default(), &at.field("volumes"), errors);
    container::all(s, at, errors);
    policies(s, at, errors);
    identities(s, at, errors);
    meta::labels(s.node_selector.as_ref(), &at.field("nodeSelector"), errors);
    if let Some(a) = &s.affinity {
        scheduling::affinity(a, &at.field("affinity"), errors);
    }
    scheduling::tolerations(s.tolerations.as_deref().unwrap_or_default(), &at.field("tolerations"), errors);
    let constraints = s.topology_spread_constraints.as_deref().unwrap_or_default();
    scheduling::spreading(constraints, &at.field("topologySpreadConstraints"), errors);
    let mut gates = BTreeSet::new();
    for (i, gate) in s.scheduling_gates.iter().flatten().enumerate() {
        let at = at.field("schedulingGates");
        let at = at.index(i);
        push_all(errors, &at, &gate.name, names::qualified(&gate.name));
        if !gates.insert(gate.name.as_str()) {
            errors.push(FieldError::duplicate(at, &gate.name));
        }
    }
    for (i, gate) in s.readiness_gates.iter().flatten().enumerate() {
        let at = at.field("readinessGates").index(i).field("conditionType").to_string();
        errors.extend(
            names::qualified(&gate.condition_type)
                .into_iter()
                .map(|w| FieldError::invalid(&at, &gate.condition_type, w)),
        );
    }
    for (name, quantity) in s.overhead.iter().flatten() {
        super::quantity(name, quantity, &at.field("overhead").key(name), errors);
    }
    if let Some(r) = &s.resources {
        container::resources(r, &at.field("resources"), errors);
    }
}

fn policies(s: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    match s.restart_policy.as_deref().unwrap_or("") {
        "" => errors.push(FieldError::required(at.field("restartPolicy"), "")),
        policy => one_of(policy, &["Always", "OnFailure", "Never"], &at.field("restartPolicy"), errors),
    }
    match s.dns_policy.as_deref().unwrap_or("") {
        "" => errors.push(FieldError::required(at.field("dnsPolicy"), "")),
        policy => {
            let known = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
            one_of(policy, known, &at.field("dnsPolicy"), errors);
        }
    }
    if s.dns_policy.as_deref() == Some("None")
        && s.dns_config.as_ref().and_then(|c| c.nameservers.as_ref()).is_none_or(|n| n.is_empty())
    {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(at.field("dnsConfig").field("nameservers"), detail));
    }
    if let Some(seconds) = s.active_deadline_seconds.filter(|n| !(1..=i64::from(i32::MAX)).contains(n)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(at.field("activeDeadlineSeconds"), seconds, detail));
    }
    let grace = s.termination_grace_period_seconds;
    not_negative(grace, &at.field("terminationGracePeriodSeconds"), errors);
    if let Some(policy) = s.preemption_policy.as_deref().filter(|p| !p.is_empty()) {
        one_of(policy, &["PreemptLowerPriority", "Never"], &at.field("preemptionPolicy"), errors);
    }
    if let Some(os) = &s.os {
        one_of(&os.name, &["linux", "windows"], &at.field("os").field("name"), errors);
    }
}

/// Names of and in a pod spec, users and addresses.
fn identities(s: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules: [(&str, &Option<String>, fn(&str) -> names::Wrongs); 6] = [
        ("hostname", &s.hostname, names::label),
        ("subdomain", &s.subdomain, names::label),
        ("serviceAccountName", &s.service_account_name, names::subdomain),
        ("priorityClassName", &s.priority_class_name, names::subdomain),
        ("runtimeClassName", &s.runtime_class_name, names::subdomain),
        ("schedulerName", &s.scheduler_name, names::subdomain),
    ];
    for (field, value, rule) in rules {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            push_all(errors, &at.field(field), value, rule(value));
        }
    }
    for (i, secret) in s.image_pull_secrets.iter().flatten().enumerate() {
        if secret.name.is_empty() {
            errors.push(FieldError::required(at.field("imagePullSecrets").index(i).field("name"), ""));
        }
    }
    for alias in s.host_aliases.iter().flatten() {
        let at = at.field("hostAliases");
        if alias.ip.parse::<core::net::IpAddr>().is_err() {
            errors.push(FieldError::invalid(at.field("ip"), &alias.ip, names::IP));
        }
        for name in alias.hostnames.iter().flatten() {
            push_all(errors, &at.field("hostnames"), name, names::subdomain(name));
        }
    }
    if let Some(c) = &s.security_context {
        let at = at.field("securityContext");
        for (field, id) in [("runAsUser", c.run_as_user), ("runAsGroup", c.run_as_group), ("fsGroup", c.fs_group)] {
            container::id_in_range(id, &at.field(field), errors);
        }
        for (i, id) in c.supplemental_groups.iter().flatten().enumerate() {
            container::id_in_range(Some(*id), &at.field("supplementalGroups").index(i), errors);
        }
    }
    if s.host_pid == Some(true) && s.share_process_namespace == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(at.field("shareProcessNamespace"), true, detail));
    }
}

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// `ValidatePodUpdate`. A shared spec is the same spec.
pub(super) fn update(new: &Pod, old: &Pod, errors: &mut Vec<FieldError>) {
    if Rc::ptr_eq(&new.spec, &old.spec) {
        return;
    }
    let at = &Path::Root("spec");
    let (n, o) = (&new.spec.shared, &old.spec.shared);
    if new.spec.node == old.spec.node && n.is_held_as(o) {
        return;
    }
    spec(n, at, errors);
    for (field, now, was) in [
        ("containers", n.containers.len(), o.containers.len()),
        ("initContainers", count(&n.init_containers), count(&o.init_containers)),
        ("ephemeralContainers", count(&n.ephemeral_containers), count(&o.ephemeral_containers)),
    ] {
        if now != was {
            let detail = match field {
                "ephemeralContainers" => "pod updates may not change ephemeral containers",
                _ => "pod updates may not add or remove containers",
            };
            errors.push(FieldError::forbidden(at.field(field), detail));
            return;
        }
    }
    deadline(n, o, at, errors);
    tolerations(n, o, at, errors);
    let gated = o.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
    gates(n, o, at, errors);
    let mut allowed = (**n).clone();
    for (to, from) in allowed.containers.iter_mut().zip(&o.containers) {
        to.image.clone_from(&from.image);
    }
    for (to, from) in allowed.init_containers.iter_mut().flatten().zip(o.init_containers.iter().flatten()) {
        to.image.clone_from(&from.image);
    }
    allowed.active_deadline_seconds = o.active_deadline_seconds;
    allowed.tolerations.clone_from(&o.tolerations);
    allowed.scheduling_gates.clone_from(&o.scheduling_gates);
    if o.termination_grace_period_seconds.is_some_and(|s| s < 0) && allowed.termination_grace_period_seconds == Some(1)
    {
        allowed.termination_grace_period_seconds = o.termination_grace_period_seconds;
    }
    if gated {
        // A gated pod may still be told more narrowly where to run.
        allowed.node_selector.clone_from(&o.node_selector);
        allowed.affinity.clone_from(&o.affinity);
    }
    if allowed != **o || new.spec.node != old.spec.node {
        let changed = changed_fields(&allowed, new.spec.node.as_deref(), o, old.spec.node.as_deref());
        errors.push(FieldError::forbidden(at, format!("{FIXED}\n{changed}")));
    }
}

fn count<T>(list: &Option<Vec<T>>) -> usize {
    list.as_ref().map_or(0, Vec::len)
}

fn deadline(n: &PodSpec, o: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let at = at.field("activeDeadlineSeconds");
    match (n.active_deadline_seconds, o.active_deadline_seconds) {
        (Some(now), Some(was)) if now > was => {
            errors.push(FieldError::invalid(at, now, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(
                at,
                Go("null".to_owned()),
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

/// Tolerations may be added; of an existing one only the seconds may change.
fn tolerations(n: &PodSpec, o: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let now = n.tolerations.as_deref().unwrap_or_default();
    for was in o.tolerations.iter().flatten() {
        let kept = now.iter().any(|t| {
            let mut t = t.clone();
            t.toleration_seconds = was.toleration_seconds;
            t == *was
        });
        if !kept {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            errors.push(FieldError::forbidden(at.field("tolerations"), detail));
            return;
        }
    }
}

fn gates(n: &PodSpec, o: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for gate in n.scheduling_gates.iter().flatten() {
        if !o.scheduling_gates.iter().flatten().any(|g| g == gate) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.push(FieldError::forbidden(at.field("schedulingGates"), detail));
        }
    }
}

/// Names the top fields that differ, since the words alone do not say which.
fn changed_fields(n: &PodSpec, n_node: Option<&str>, o: &PodSpec, o_node: Option<&str>) -> String {
    let json = |s: &PodSpec| serde_json::to_value(s).unwrap_or_default();
    let (n, o) = (json(n), json(o));
    let keys: BTreeSet<&String> = [&n, &o].into_iter().filter_map(|v| v.as_object()).flat_map(|m| m.keys()).collect();
    let mut lines = Vec::new();
    if n_node != o_node {
        lines.push(format!("- nodeName: {o_node:?}\n+ nodeName: {n_node:?}"));
    }
    for key in keys {
        let (now, was) = (n.get(key), o.get(key));
        if now != was {
            let text = |v: Option<&serde_json::Value>| v.map_or_else(|| "nil".to_owned(), ToString::to_string);
            lines.push(format!("- {key}: {}\n+ {key}: {}", text(was), text(now)));
        }
    }
    lines.join("\n")
}

/// `ValidatePodStatusUpdate`: a container that is not to be started again stays terminated.
pub(super) fn status_update(new: &Pod, old: &Pod, errors: &mut Vec<FieldError>) {
    if new.status.is_held_as(&old.status) {
        return;
    }
    let restart = old.spec.restart_policy.as_deref().unwrap_or("Always");
    if restart == "Always" {
        return;
    }
    let rules = |name: &str| old.spec.containers.iter().any(|c| c.name == name && c.restart_policy.is_some());
    let was = |name: &str| old.status.container_statuses.iter().find(|c| c.name == *name);
    for (i, now) in new.status.container_statuses.iter().enumerate() {
        let Some(exit) = was(now.name.as_str()).and_then(|c| c.state.terminated()) else { continue };
        if (restart == "Never" || exit.exit_code == 0) && now.state.terminated().is_none() && !rules(now.name.as_str())
        {
            let at = Path::Root("status");
            let at = at.field("containerStatuses");
            errors.push(FieldError::forbidden(
                at.index(i).field("state"),
                "may not be transitioned to non-terminated state",
            ));
        }
    }
}
