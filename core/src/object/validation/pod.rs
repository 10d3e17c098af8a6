//! Validation of pod specs and of pod updates. Source: `pkg/apis/core/validation` (`ValidatePodSpec`,
//! `ValidatePodUpdate`, `ValidatePodStatusUpdate`).

use std::collections::BTreeSet;
use std::rc::Rc;

use k8s_openapi::api::core::v1::{Affinity, NodeAffinity, NodeSelectorTerm, PodSpec, ResourceRequirements};

use super::path::{Go, Path};
use super::resources::{self, Of};
use super::{Owner, container, meta, names, one_of, push_all, scheduling, security, volume};
use crate::object::{ContainerStatus, FieldError, Labels, Pod, is_restartable_init};

/// Validates a new pod apart from its metadata (`ValidatePodCreate`).
pub(in crate::object) fn create(pod: &Pod, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    let annotations = pod.meta.annotations.as_ref();
    let path = Path::Root("metadata");
    self::annotations(annotations, &pod.spec.shared, &path.field("annotations"), errors);
    if pod.spec.node.is_none() && annotations.is_some_and(|a| a.contains_key(MIRROR)) {
        let at = path.field("annotations");
        let value = annotations.and_then(|a| a.get(MIRROR)).map_or("", String::as_str);
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(at.key(MIRROR), value, detail));
    }
    spec(&pod.spec.shared, Some(pod.name()), at, errors);
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

/// Whether a pod stands for one that a node has from a file of its own.
pub(super) fn is_mirror(pod: &Pod) -> bool {
    pod.meta.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR))
}

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// `ValidatePodSpecificAnnotations`: validates the annotations that Kubernetes itself uses.
pub(super) fn annotations(a: Option<&Labels>, spec: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    for (key, value) in a.into_iter().flatten() {
        if key == DELETION_COST {
            let digits = value.strip_prefix('-').unwrap_or(value);
            let plain = digits == "0" || !digits.starts_with(['0', '+']);
            if !plain || value.parse::<i32>().is_err() {
                errors.push(FieldError::invalid(at.key(key), value, "must be a 32bit integer"));
            }
        } else if key == SECCOMP_OF_POD || key.starts_with(SECCOMP_OF_CONTAINER) {
            match value.strip_prefix("localhost/") {
                Some(path) => volume::descending_path(path, &at.field(key), errors),
                None if matches!(value.as_str(), "runtime/default" | "docker/default" | "unconfined") => {}
                None => errors.push(FieldError::invalid(at.field(key), value, "must be a valid seccomp profile")),
            }
        } else if let Some(name) = key.strip_prefix(APP_ARMOR) {
            if !containers().any(|c| c.name == name) {
                errors.push(FieldError::invalid(at.key(key), name, "container not found"));
            }
            let good = matches!(value.as_str(), "" | "runtime/default" | "unconfined");
            if !good && !value.starts_with("localhost/") {
                let detail = format!("invalid AppArmor profile name: {value:?}");
                errors.push(FieldError::invalid(at.key(key), value, detail));
            }
        }
    }
}

/// `ValidatePodSpec`. `pod` is the pod's name; `None` for the spec of a template.
pub(super) fn spec(s: &PodSpec, pod: Option<&str>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let owner = if pod.is_some() { Owner::Pod } else { Owner::Template };
    if s.termination_grace_period_seconds.is_none() {
        errors.push(FieldError::required(at.field("terminationGracePeriodSeconds"), ""));
    }
    let volumes = s.volumes.as_deref().unwrap_or_default();
    let volumes = volume::all(volumes, pod.filter(|p| !p.is_empty()), owner, &at.field("volumes"), errors);
    let claims = claims(s, &at.field("resourceClaims"), errors);
    container::all(s, owner, &volumes, &claims, at, errors);
    resources::of_pod(s, &claims, &at.field("resources"), errors);
    container::host_network(s, owner, at, errors);
    policy(s.restart_policy.as_deref(), &["Always", "OnFailure", "Never"], &at.field("restartPolicy"), errors);
    let dns = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    policy(s.dns_policy.as_deref(), dns, &at.field("dnsPolicy"), errors);
    meta::labels(s.node_selector.as_ref(), &at.field("nodeSelector"), errors);
    security::of_pod(s, at, errors);
    if let Some(a) = &s.affinity {
        scheduling::affinity(a, &at.field("affinity"), errors);
    }
    dns_config(s, &at.field("dnsConfig"), errors);
    gates(s, at, errors);
    if let Some(group) = &s.scheduling_group {
        let at = at.field("schedulingGroup");
        match &group.pod_group_name {
            None => errors.push(FieldError::invalid(at, "", "must specify one of: `podGroupName`")),
            Some(name) => push_all(errors, &at.field("podGroupName"), name, names::subdomain(name)),
        }
    }
    let constraints = s.topology_spread_constraints.as_deref().unwrap_or_default();
    scheduling::spreading(constraints, &at.field("topologySpreadConstraints"), errors);
    security::host_process(s, at, errors);
    security::host_users(s, at, errors);
    identities(s, at, errors);
    rest(s, at, errors);
    security::operating_system(s, at, errors);
}

fn policy(value: Option<&str>, known: &[&str], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    match value.unwrap_or("") {
        "" => errors.push(FieldError::required(at, "")),
        value => one_of(value, known, at, errors),
    }
}

/// `validatePodResourceClaims`. Returns the names of the claims.
fn claims<'a>(s: &'a PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) -> BTreeSet<&'a str> {
    let mut all = BTreeSet::new();
    for (i, c) in s.resource_claims.iter().flatten().enumerate() {
        let at = at.index(i);
        if c.name.is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        } else if !all.insert(c.name.as_str()) {
            errors.push(FieldError::duplicate(at.field("name"), &c.name));
        } else {
            push_all(errors, &at.field("name"), &c.name, names::label(&c.name));
        }
        let detail = match (&c.resource_claim_name, &c.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                Some("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
            }
            (None, None) => Some("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => None,
        };
        if let Some(detail) = detail {
            let shown = Go(serde_json::to_string(c).expect("a k8s-openapi type is JSON"));
            errors.push(FieldError::invalid(at, shown, detail));
        }
        for (field, name) in [
            ("resourceClaimName", &c.resource_claim_name),
            ("resourceClaimTemplateName", &c.resource_claim_template_name),
        ] {
            if let Some(name) = name {
                push_all(errors, &at.field(field), name, names::subdomain(name));
            }
        }
    }
    all
}

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_BYTES: usize = 2048;

/// `validatePodDNSConfig`.
fn dns_config(s: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let none = s.dns_policy.as_deref() == Some("None");
    let Some(c) = &s.dns_config else {
        if none {
            errors.push(FieldError::required(at, "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        return;
    };
    let servers = c.nameservers.as_deref().unwrap_or_default();
    if none && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(at.field("nameservers"), detail));
        return;
    }
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(at.field("nameservers"), Go::strings(servers), detail));
    }
    for (i, ip) in servers.iter().enumerate().filter(|(_, ip)| ip.parse::<core::net::IpAddr>().is_err()) {
        errors.push(FieldError::invalid(at.field("nameservers").index(i), ip, names::IP));
    }
    let searches = c.searches.as_deref().unwrap_or_default();
    let path = at.field("searches");
    if searches.len() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(FieldError::invalid(path, Go::strings(searches), detail));
    }
    if searches.join(" ").len() > MAX_SEARCH_BYTES {
        let detail =
            format!("must not have more than {MAX_SEARCH_BYTES} characters (including spaces) in the search list");
        errors.push(FieldError::invalid(path, Go::strings(searches), detail));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        push_all(errors, &path.index(i), search, names::subdomain_with_underscore(search));
    }
    for (i, _) in c.options.iter().flatten().enumerate().filter(|(_, o)| o.name.as_deref().unwrap_or("").is_empty()) {
        errors.push(FieldError::required(at.field("options").index(i), "must not be empty"));
    }
}

fn gates(s: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, gate) in s.readiness_gates.iter().flatten().enumerate() {
        let at = at.field("readinessGates");
        let at = at.index(i);
        push_all(errors, &at.field("conditionType"), &gate.condition_type, names::qualified(&gate.condition_type));
    }
    let mut seen = BTreeSet::new();
    for (i, gate) in s.scheduling_gates.iter().flatten().enumerate() {
        let at = at.field("schedulingGates");
        let at = at.index(i);
        push_all(errors, &at, &gate.name, names::qualified(&gate.name));
        if !seen.insert(gate.name.as_str()) {
            errors.push(FieldError::duplicate(at, &gate.name));
        }
    }
}

/// Validates the names in a pod spec. `nodeName` is among them in a template only, since a pod holds it apart.
fn identities(s: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules: [(&str, &Option<String>, fn(&str) -> names::Wrongs); 7] = [
        ("serviceAccountName", &s.service_account_name, names::subdomain),
        ("nodeName", &s.node_name, names::subdomain),
        ("hostname", &s.hostname, names::label),
        ("hostnameOverride", &s.hostname_override, names::subdomain),
        ("subdomain", &s.subdomain, names::label),
        ("priorityClassName", &s.priority_class_name, names::subdomain),
        ("runtimeClassName", &s.runtime_class_name, names::subdomain),
    ];
    for (field, value, rule) in rules {
        // Unlike the other fields, `runtimeClassName` must not be empty if it is set.
        let given = |v: &&str| !v.is_empty() || field == "runtimeClassName";
        if let Some(value) = value.as_deref().filter(given) {
            push_all(errors, &at.field(field), value, rule(value));
        }
    }
}

fn rest(s: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(seconds) = s.active_deadline_seconds.filter(|n| !(1..=i64::from(i32::MAX)).contains(n)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(at.field("activeDeadlineSeconds"), seconds, detail));
    }
    scheduling::tolerations(s.tolerations.as_deref().unwrap_or_default(), &at.field("tolerations"), errors);
    for (i, alias) in s.host_aliases.iter().flatten().enumerate() {
        let at = at.field("hostAliases");
        let at = at.index(i);
        if alias.ip.parse::<core::net::IpAddr>().is_err() {
            errors.push(FieldError::invalid(at.field("ip"), &alias.ip, names::IP));
        }
        for (j, name) in alias.hostnames.iter().flatten().enumerate() {
            push_all(errors, &at.field("hostnames").index(j), name, names::subdomain(name));
        }
    }
    if let Some(value) = s.preemption_policy.as_deref() {
        policy(Some(value), &["PreemptLowerPriority", "Never"], &at.field("preemptionPolicy"), errors);
    }
    if let Some(overhead) = &s.overhead {
        let limits = ResourceRequirements { limits: Some(overhead.clone()), ..ResourceRequirements::default() };
        resources::requirements(&limits, Of::Container, &BTreeSet::new(), &at.field("overhead"), errors);
    }
}

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// `ValidatePodUpdate`. A shared spec is unchanged, and is not checked again.
pub(in crate::object) fn update(new: &Pod, old: &Pod, errors: &mut Vec<FieldError>) {
    if !Rc::ptr_eq(&new.meta, &old.meta) {
        let at = Path::Root("metadata");
        annotations(new.meta.annotations.as_ref(), &new.spec.shared, &at.field("annotations"), errors);
    }
    if Rc::ptr_eq(&new.spec, &old.spec) {
        return;
    }
    let at = &Path::Root("spec");
    let (n, o) = (&new.spec.shared, &old.spec.shared);
    if new.spec.node == old.spec.node && n.is_held_as(o) {
        return;
    }
    spec(n, Some(new.name()), at, errors);
    for (field, now, was) in [
        ("containers", n.containers.len(), o.containers.len()),
        ("initContainers", count(&n.init_containers), count(&o.init_containers)),
    ] {
        if now != was {
            errors.push(FieldError::forbidden(at.field(field), "pod updates may not add or remove containers"));
            return;
        }
    }
    deadline(n, o, at, errors);
    tolerations(n, o, at, errors);
    let gated = o.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
    new_gates(n, o, at, errors);
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
        narrower(&mut allowed, o, at, errors);
    }
    if allowed != **o || new.spec.node != old.spec.node {
        let changed = changed_fields(&allowed, new.spec.node.as_deref(), o, old.spec.node.as_deref());
        errors.push(FieldError::forbidden(at, format!("{FIXED}\n{changed}")));
    }
}

/// `ValidatePodEphemeralContainersUpdate`: ephemeral containers are added, and neither changed nor removed.
pub(super) fn ephemeral_update(new: &Pod, old: &Pod, errors: &mut Vec<FieldError>) {
    if is_mirror(old) {
        errors.clear();
        errors.push(FieldError::forbidden("[]", "static pods do not support ephemeral containers"));
        return;
    }
    let at = &Path::Root("spec");
    if !new.spec.shared.is_held_as(&old.spec.shared) {
        spec(&new.spec.shared, Some(new.name()), at, errors);
    }
    let at = at.field("ephemeralContainers");
    let kept = new.spec.ephemeral_containers.as_deref().unwrap_or_default();
    for old in old.spec.ephemeral_containers.iter().flatten() {
        // Patches do not keep the order.
        let name = &old.name;
        match kept.iter().find(|new| new.name == *name) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(FieldError::forbidden(at, detail));
            }
            Some(new) if new != old => {
                let [was, now] = [old, new].map(|c| serde_json::to_string(c).expect("a k8s-openapi type is JSON"));
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n- {was}\n+ {now}");
                errors.push(FieldError::forbidden(at, detail));
            }
            Some(_) => {}
        }
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

/// Checks that tolerations are only added. In an existing one, only `tolerationSeconds` may change.
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

fn new_gates(n: &PodSpec, o: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, gate) in n.scheduling_gates.iter().flatten().enumerate() {
        if !o.scheduling_gates.iter().flatten().any(|g| g == gate) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            let at = at.field("schedulingGates");
            errors.push(FieldError::forbidden(at.index(i).field("name"), detail));
        }
    }
}

/// Checks an update of a pod that has scheduling gates: its node selector and the terms of its required node affinity
/// may only be narrowed. Then resets both fields in `new` to their old values, so that the caller can compare the rest.
fn narrower(new: &mut PodSpec, old: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let kept = |(k, v): (&String, &String)| new.node_selector.as_ref().and_then(|s| s.get(k)) == Some(v);
    if !old.node_selector.iter().flatten().all(kept) {
        let shown = Go::map(new.node_selector.as_ref());
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid(at.field("nodeSelector"), shown, detail));
    }
    new.node_selector.clone_from(&old.node_selector);
    let of = |s: &PodSpec| s.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    let (now, was) = (of(new), of(old));
    if now == was {
        return;
    }
    let path = at.field("affinity");
    let path = path.field("nodeAffinity");
    let path = path.field("requiredDuringSchedulingIgnoredDuringExecution");
    let path = path.field("nodeSelectorTerms");
    let (now_terms, was_terms) = (terms(now.as_ref()), terms(was.as_ref()));
    let shown = |t: &[NodeSelectorTerm]| Go(serde_json::to_string(t).expect("a k8s-openapi type is JSON"));
    if !was_terms.is_empty() && was_terms.len() != now_terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(path, shown(now_terms), detail));
    } else {
        for (i, (now, was)) in now_terms.iter().zip(was_terms).enumerate() {
            if !only_grows(now, was) {
                let detail = "only additions are allowed (no mutations or deletions)";
                errors.push(FieldError::invalid(path.index(i), shown(std::slice::from_ref(now)), detail));
            }
        }
    }
    match (&mut new.affinity, &old.affinity) {
        (Some(a), None) if a.pod_affinity.is_none() && a.pod_anti_affinity.is_none() => new.affinity = None,
        (Some(a), _) => a.node_affinity = was,
        (none @ None, _) => *none = was.map(|n| Affinity { node_affinity: Some(n), ..Affinity::default() }),
    }
}

fn terms(a: Option<&NodeAffinity>) -> &[NodeSelectorTerm] {
    let required = a.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.map_or(&[], |r| &r.node_selector_terms)
}

/// `validateNodeSelectorTermHasOnlyAdditions`.
fn only_grows(now: &NodeSelectorTerm, was: &NodeSelectorTerm) -> bool {
    let lists = |t: &NodeSelectorTerm| {
        [t.match_expressions.clone().unwrap_or_default(), t.match_fields.clone().unwrap_or_default()]
    };
    let (now, was) = (lists(now), lists(was));
    let empty = |l: &[Vec<_>; 2]| l.iter().all(Vec::is_empty);
    // Adding to an empty term would widen it, since an empty term matches no node.
    let narrows = !empty(&was) || empty(&now);
    narrows && now.iter().zip(&was).all(|(now, was)| now.starts_with(was))
}

/// Lists the top-level fields that differ, since the message alone does not say which.
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

/// `ValidatePodStatusUpdate`: the QoS class must not change, and a terminated container that is not to be restarted
/// must stay terminated.
pub(in crate::object) fn status_update(new: &Pod, old: &Pod, errors: &mut Vec<FieldError>) {
    if new.status.is_held_as(&old.status) {
        return;
    }
    let at = &Path::Root("status");
    let (now, was) = (&new.status, &old.status);
    if now.qos_class != was.qos_class {
        errors.push(FieldError::invalid(at.field("qosClass"), now.qos_class.as_str(), "field is immutable"));
    }
    let nominated = now.nominated_node_name.as_str();
    if now.nominated_node_name != was.nominated_node_name && !nominated.is_empty() {
        push_all(errors, &at.field("nominatedNodeName"), nominated, names::subdomain(nominated));
    }
    let (current, before) = (now.ephemeral_container_statuses(), was.ephemeral_container_statuses());
    // As if each had the restart policy Never.
    come_back(false, (&current, &before), |_| false, &at.field("ephemeralContainerStatuses"), errors);
    let on_failure = match old.spec.restart_policy.as_deref().unwrap_or("Always") {
        "Always" => return,
        policy => policy == "OnFailure",
    };
    let mains = old.spec.containers.iter();
    let own_rules = |name: &str| mains.clone().any(|c| c.name == name && c.restart_policy.is_some());
    let path = at.field("containerStatuses");
    come_back(on_failure, (&now.container_statuses, &was.container_statuses), own_rules, &path, errors);
    let inits = old.spec.init_containers.iter().flatten();
    let sidecar = |name: &str| inits.clone().any(|c| c.name == name && is_restartable_init(c));
    let path = at.field("initContainerStatuses");
    come_back(on_failure, (&now.init_container_statuses, &was.init_container_statuses), sidecar, &path, errors);
}

/// `ValidateContainerStateTransition`.
fn come_back(
    on_failure: bool,
    (now, was): (&[ContainerStatus], &[ContainerStatus]),
    may: impl Fn(&str) -> bool,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    for (i, old) in was.iter().enumerate() {
        let Some(exit) = old.state.terminated() else { continue };
        if (exit.exit_code != 0 && on_failure) || may(old.name.as_str()) {
            continue;
        }
        for _ in now.iter().filter(|new| new.name == old.name && new.state.terminated().is_none()) {
            let detail = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(at.index(i).field("state"), detail));
        }
    }
}
