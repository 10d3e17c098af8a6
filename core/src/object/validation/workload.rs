//! Validation of workloads: Deployments, ReplicaSets, ReplicationControllers, and the specs of StatefulSets and
//! DaemonSets. Source: `pkg/apis/{apps,core}/validation`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    DaemonSetSpec, DeploymentSpec, DeploymentStrategy, ReplicaSetSpec, RollingUpdateDaemonSet, RollingUpdateDeployment,
    StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{PodSpec, ReplicationControllerSpec};

use super::path::{Go, Path};
use super::{int_or_percent, meta, not_negative, one_of, pod};
use crate::object::{FieldError, IntOrString, LabelSelector, ObjectMeta, Selector, Templated};

pub(super) const MISMATCH: &str = "`selector` does not match template `labels`";

/// `ValidateDeploymentSpec`.
pub(in crate::object) fn deployment(d: &Templated<DeploymentSpec>, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    not_negative(d.replicas.map(i64::from), &at.field("replicas"), errors);
    selected_template(&d.selector, "deployment", d.template_meta(), &d.pod, at, errors);
    always_restarts(&d.pod, "ReplicaSet", at, errors);
    if let Some(s) = &d.strategy {
        strategy(s, &at.field("strategy"), errors);
    }
    let ready = d.min_ready_seconds.unwrap_or(0);
    not_negative(Some(i64::from(ready)), &at.field("minReadySeconds"), errors);
    not_negative(d.revision_history_limit.map(i64::from), &at.field("revisionHistoryLimit"), errors);
    if let Some(deadline) = d.progress_deadline_seconds {
        let at = at.field("progressDeadlineSeconds");
        not_negative(Some(i64::from(deadline)), &at, errors);
        if deadline <= ready {
            errors.push(FieldError::invalid(at, deadline, "must be greater than minReadySeconds"));
        }
    }
}

fn strategy(s: &DeploymentStrategy, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    match (s.type_.as_deref().unwrap_or(""), &s.rolling_update) {
        ("Recreate", Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(at.field("rollingUpdate"), detail));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            let detail = "this should be defaulted and never be nil";
            errors.push(FieldError::required(at.field("rollingUpdate"), detail));
        }
        ("RollingUpdate", Some(r)) => rolling(r, &at.field("rollingUpdate"), errors),
        (other, rolling) => {
            let shown = strategy_in_go(other, rolling.as_ref());
            errors.push(FieldError::not_supported(at, shown, &["Recreate", "RollingUpdate"]));
        }
    }
}

/// A deployment strategy in the form in which Go prints its internal type.
fn strategy_in_go(type_: &str, rolling: Option<&impl serde::Serialize>) -> Go {
    let rolling = rolling.and_then(|r| serde_json::to_value(r).ok()).unwrap_or_default();
    let fields = rolling.as_object().into_iter().flatten().map(|(k, v)| {
        let (first, rest) = k.split_at(1);
        format!("\"{}{rest}\":{v}", first.to_uppercase())
    });
    let fields: Vec<String> = fields.collect();
    let rolling = if rolling.is_null() { "null".to_owned() } else { format!("{{{}}}", fields.join(",")) };
    Go(format!("{{\"Type\":{type_:?},\"RollingUpdate\":{rolling}}}"))
}

fn rolling(r: &RollingUpdateDeployment, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (unavailable, surge) = (at.field("maxUnavailable"), at.field("maxSurge"));
    for (value, at) in [(&r.max_unavailable, &unavailable), (&r.max_surge, &surge)] {
        if let Some(v) = value {
            int_or_percent(v, at, errors);
        }
    }
    if let Some(v) = &r.max_unavailable {
        if is_zero(v) && r.max_surge.as_ref().is_none_or(is_zero) {
            let detail = "may not be 0 when `maxSurge` is 0";
            errors.push(FieldError::invalid(unavailable, Go::int_or_string(v), detail));
        }
        at_most_all(v, &unavailable, errors);
    }
}

/// Whether `getIntOrPercentValue` gives zero; text that is neither a number nor a percentage counts as zero.
fn is_zero(v: &IntOrString) -> bool {
    match v {
        IntOrString::Int(n) => *n == 0,
        IntOrString::String(s) => {
            let digits = s.strip_suffix('%').unwrap_or(s);
            digits.parse::<i64>().unwrap_or(0) == 0
        }
    }
}

/// Checks that a percentage is at most 100%.
pub(super) fn at_most_all(v: &IntOrString, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let IntOrString::String(s) = v
        && s.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()).is_some_and(|n| n > 100)
    {
        errors.push(FieldError::invalid(at, Go::int_or_string(v), "must not be greater than 100%"));
    }
}

/// `ValidateReplicaSetSpec`.
pub(in crate::object) fn replica_set(r: &Templated<ReplicaSetSpec>, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    not_negative(r.replicas.map(i64::from), &at.field("replicas"), errors);
    not_negative(r.min_ready_seconds.map(i64::from), &at.field("minReadySeconds"), errors);
    if r.template.is_none() && !r.template_is_given() {
        errors.push(FieldError::required(at.field("template"), ""));
        return;
    }
    // Upstream says "deployment" here for ReplicaSets too.
    selected_template(&r.selector, "deployment", r.template_meta(), &r.pod, at, errors);
    always_restarts(&r.pod, "ReplicaSet", at, errors);
}

/// `ValidateReplicationControllerSpec`.
pub(in crate::object) fn replication_controller(
    r: &Templated<ReplicationControllerSpec>,
    errors: &mut Vec<FieldError>,
) {
    let at = &Path::Root("spec");
    not_negative(r.min_ready_seconds.map(i64::from), &at.field("minReadySeconds"), errors);
    let none = BTreeMap::new();
    let selector = r.selector.as_ref().unwrap_or(&none);
    meta::labels(Some(selector), &at.field("selector"), errors);
    if selector.is_empty() {
        errors.push(FieldError::required(at.field("selector"), ""));
    }
    not_negative(r.replicas.map(i64::from), &at.field("replicas"), errors);
    if r.template.is_none() && !r.template_is_given() {
        errors.push(FieldError::required(at.field("template"), ""));
        return;
    }
    let labels = r.template_meta().and_then(|m| m.labels.as_ref());
    if !Selector::from_map(selector).matches(labels) {
        let path = at.field("template");
        let path = path.field("metadata");
        errors.push(FieldError::invalid(path.field("labels"), Go::map(labels), MISMATCH));
    }
    template(r.template_meta(), &r.pod, &at.field("template"), errors);
    always_restarts(&r.pod, "ReplicationController", at, errors);
}

/// Validates a selector and the template that it must match.
fn selected_template(
    selector: &LabelSelector,
    what: &str,
    template_meta: Option<&ObjectMeta>,
    pod: &PodSpec,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    selects(selector, what, template_meta, at, errors);
    template(template_meta, pod, &at.field("template"), errors);
}

/// Validates a selector, and that it matches the template's labels. An absent selector matches nothing.
fn selects(
    selector: &LabelSelector,
    what: &str,
    template_meta: Option<&ObjectMeta>,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let no_labels = selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty);
    let no_expressions = selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    let absent = selector.match_labels.is_none() && selector.match_expressions.is_none();
    if !absent {
        meta::selector(selector, &at.field("selector"), errors);
        if no_labels && no_expressions {
            let detail = format!("empty selector is invalid for {what}");
            errors.push(FieldError::invalid(at.field("selector"), Go::selector(selector), detail));
        }
    } else if what != "daemonset" {
        errors.push(FieldError::required(at.field("selector"), ""));
    }
    let labels = template_meta.and_then(|m| m.labels.as_ref());
    let mismatch = Selector::from_label_selector(selector).is_ok_and(|s| !s.is_everything() && !s.matches(labels));
    if absent || mismatch {
        let path = at.field("template");
        let path = path.field("metadata");
        errors.push(FieldError::invalid(path.field("labels"), Go::map(labels), MISMATCH));
    }
}

/// `ValidatePodTemplateSpec`.
pub(in crate::object) fn template(
    meta: Option<&ObjectMeta>,
    pod: &PodSpec,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    meta::template(meta, at, errors);
    let annotations = meta.and_then(|m| m.annotations.as_ref());
    pod::annotations(annotations, pod, &at.field("annotations"), errors);
    let at = at.field("spec");
    pod::spec(pod, None, &at, errors);
    if pod.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        errors.push(FieldError::forbidden(
            at.field("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
}

fn always_restarts(pod: &PodSpec, what: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let at = at.field("template");
    let at = at.field("spec");
    if let Some(policy) = pod.restart_policy.as_deref().filter(|p| *p != "Always") {
        errors.push(FieldError::not_supported(at.field("restartPolicy"), policy, &["Always"]));
    }
    if pod.active_deadline_seconds.is_some() {
        let detail = format!("activeDeadlineSeconds in {what} is not Supported");
        errors.push(FieldError::forbidden(at.field("activeDeadlineSeconds"), detail));
    }
}

/// `ValidateStatefulSetSpec`. The pod template's spec is not validated until a pod is created from it.
pub(in crate::object) fn stateful_set(s: &Templated<StatefulSetSpec>, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    match s.pod_management_policy.as_deref().unwrap_or("") {
        "" => errors.push(FieldError::required(at.field("podManagementPolicy"), "")),
        "OrderedReady" | "Parallel" => {}
        other => {
            let detail = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid(at.field("podManagementPolicy"), other, detail));
        }
    }
    if let Some(u) = &s.update_strategy {
        update_strategy(u, &at.field("updateStrategy"), errors);
    }
    if let Some(p) = &s.persistent_volume_claim_retention_policy {
        let at = at.field("persistentVolumeClaimRetentionPolicy");
        for (value, field) in [(&p.when_deleted, "whenDeleted"), (&p.when_scaled, "whenScaled")] {
            one_of(value.as_deref().unwrap_or(""), &["Retain", "Delete"], &at.field(field), errors);
        }
    }
    for (field, n) in [
        ("replicas", s.replicas),
        ("minReadySeconds", s.min_ready_seconds),
        ("ordinals.start", s.ordinals.as_ref().and_then(|o| o.start)),
        ("revisionHistoryLimit", s.revision_history_limit),
    ] {
        not_negative(n.map(i64::from), &at.field(field), errors);
    }
    let (template_meta, pod) = (s.template_meta(), &s.pod);
    selects(&s.selector, "statefulset", template_meta, at, errors);
    let path = at.field("template");
    meta::template(template_meta, &path, errors);
    let annotations = template_meta.and_then(|m| m.annotations.as_ref());
    pod::annotations(annotations, pod, &path.field("annotations"), errors);
    always_restarts(pod, "StatefulSet", at, errors);
}

fn update_strategy(u: &StatefulSetUpdateStrategy, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    match (u.type_.as_deref().unwrap_or(""), &u.rolling_update) {
        ("OnDelete", Some(r)) => {
            let partition = r.partition.unwrap_or(0);
            let most =
                r.max_unavailable.as_ref().map_or_else(|| "null".to_owned(), |v| format!("{:?}", Go::int_or_string(v)));
            let shown = Go(format!("{{\"Partition\":{partition},\"MaxUnavailable\":{most}}}"));
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(at.field("rollingUpdate"), shown, detail));
        }
        ("OnDelete", None) | ("RollingUpdate", None) => {}
        ("RollingUpdate", Some(r)) => {
            let at = at.field("rollingUpdate");
            not_negative(r.partition.map(i64::from), &at.field("partition"), errors);
            if let Some(v) = &r.max_unavailable {
                let at = at.field("maxUnavailable");
                int_or_percent(v, &at, errors);
                if is_zero(v) {
                    errors.push(FieldError::invalid(at, Go::int_or_string(v), "cannot be 0"));
                }
                at_most_all(v, &at, errors);
            }
        }
        ("", _) => errors.push(FieldError::required(at, "")),
        (other, rolling) => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid(at, strategy_in_go(other, rolling.as_ref()), detail));
        }
    }
}

/// `ValidateDaemonSetSpec`.
pub(in crate::object) fn daemon_set(d: &Templated<DaemonSetSpec>, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    selected_template(&d.selector, "daemonset", d.template_meta(), &d.pod, at, errors);
    always_restarts(&d.pod, "DaemonSet", at, errors);
    not_negative(d.min_ready_seconds.map(i64::from), &at.field("minReadySeconds"), errors);
    not_negative(d.revision_history_limit.map(i64::from), &at.field("revisionHistoryLimit"), errors);
    if let Some(u) = &d.update_strategy {
        let at = at.field("updateStrategy");
        match (u.type_.as_deref().unwrap_or(""), &u.rolling_update) {
            ("OnDelete", _) => {}
            ("RollingUpdate", None) => errors.push(FieldError::required(at.field("rollingUpdate"), "")),
            ("RollingUpdate", Some(r)) => rolling_daemons(r, &at.field("rollingUpdate"), errors),
            (other, rolling) => {
                let shown = strategy_in_go(other, rolling.as_ref());
                errors.push(FieldError::not_supported(at, shown, &["RollingUpdate", "OnDelete"]));
            }
        }
    }
}

fn rolling_daemons(r: &RollingUpdateDaemonSet, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let zero = IntOrString::Int(0);
    let (unavailable, surge) = (r.max_unavailable.as_ref().unwrap_or(&zero), r.max_surge.as_ref().unwrap_or(&zero));
    for (v, field) in [(unavailable, "maxUnavailable"), (surge, "maxSurge")] {
        int_or_percent(v, &at.field(field), errors);
    }
    for (v, field) in [(unavailable, "maxUnavailable"), (surge, "maxSurge")] {
        at_most_all(v, &at.field(field), errors);
    }
    match (is_zero(unavailable), is_zero(surge)) {
        (true, true) => {
            let detail = "cannot be 0 when maxSurge is 0";
            errors.push(FieldError::required(at.field("maxUnavailable"), detail));
        }
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(at.field("maxSurge"), Go::int_or_string(surge), detail));
        }
        _ => {}
    }
}

/// Checks that a selector has not changed.
pub(in crate::object) fn fixed_selector(new: &LabelSelector, old: &LabelSelector, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    meta::immutable(new, old, &at.field("selector"), Go::selector, errors);
}

/// Checks which fields of a StatefulSet have changed.
pub(in crate::object) fn stateful_set_update(
    new: &StatefulSetSpec,
    old: &StatefulSetSpec,
    errors: &mut Vec<FieldError>,
) {
    let fixed = |s: &StatefulSetSpec| StatefulSetSpec {
        replicas: None,
        ordinals: None,
        template: Default::default(),
        update_strategy: None,
        revision_history_limit: None,
        persistent_volume_claim_retention_policy: None,
        min_ready_seconds: None,
        ..s.clone()
    };
    if fixed(new) != fixed(old) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden("spec", detail));
    }
}
