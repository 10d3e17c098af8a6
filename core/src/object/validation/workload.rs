//! Validation of workloads: Deployments, ReplicaSets, ReplicationControllers, and the specs of StatefulSets,
//! DaemonSets, Jobs and CronJobs. Source: `pkg/apis/{apps,batch,core}/validation`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    DaemonSetSpec, DeploymentSpec, DeploymentStrategy, ReplicaSetSpec, RollingUpdateDaemonSet, RollingUpdateDeployment,
    StatefulSetSpec,
};
use k8s_openapi::api::batch::v1::{CronJobSpec, JobSpec};
use k8s_openapi::api::core::v1::{PodSpec, ReplicationControllerSpec};

use super::path::{Go, Path};
use super::{int_or_percent, meta, not_negative, one_of, pod, volume};
use crate::object::{FieldError, IntOrString, LabelSelector, ObjectMeta, Selector, Templated, scaled};

const MISMATCH: &str = "`selector` does not match template `labels`";

/// `ValidateDeploymentSpec`.
pub(super) fn deployment(d: &Templated<DeploymentSpec>, errors: &mut Vec<FieldError>) {
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
        (other, _) => one_of(other, &["Recreate", "RollingUpdate"], at, errors),
    }
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

fn is_zero(v: &IntOrString) -> bool {
    scaled(v, 100, true) == Some(0)
}

/// A percentage of at most 100.
pub(super) fn at_most_all(v: &IntOrString, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let IntOrString::String(s) = v
        && s.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()).is_some_and(|n| n > 100)
    {
        errors.push(FieldError::invalid(at, Go::int_or_string(v), "must not be greater than 100%"));
    }
}

/// `ValidateReplicaSetSpec`.
pub(super) fn replica_set(r: &Templated<ReplicaSetSpec>, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    not_negative(r.replicas.map(i64::from), &at.field("replicas"), errors);
    not_negative(r.min_ready_seconds.map(i64::from), &at.field("minReadySeconds"), errors);
    if r.template.is_none() && !r.template_is_given() {
        errors.push(FieldError::required(at.field("template"), ""));
        return;
    }
    selected_template(&r.selector, "replicaset", r.template_meta(), &r.pod, at, errors);
    always_restarts(&r.pod, "ReplicaSet", at, errors);
}

/// `ValidateReplicationControllerSpec`.
pub(super) fn replication_controller(r: &Templated<ReplicationControllerSpec>, errors: &mut Vec<FieldError>) {
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

/// A selector, and the template that it must select.
fn selected_template(
    selector: &LabelSelector,
    what: &str,
    template_meta: Option<&ObjectMeta>,
    pod: &PodSpec,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let empty = |list: bool, labels: bool| list && labels;
    let no_labels = selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty);
    let no_expressions = selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    if selector.match_labels.is_none() && selector.match_expressions.is_none() {
        errors.push(FieldError::required(at.field("selector"), ""));
    } else {
        meta::selector(selector, &at.field("selector"), errors);
        if empty(no_expressions, no_labels) {
            let detail = format!("empty selector is invalid for {what}");
            errors.push(FieldError::invalid(at.field("selector"), Go::selector(selector), detail));
        }
    }
    let labels = template_meta.and_then(|m| m.labels.as_ref());
    if let Ok(parsed) = Selector::from_label_selector(selector)
        && !parsed.is_everything()
        && !parsed.matches(labels)
    {
        let path = at.field("template");
        let path = path.field("metadata");
        errors.push(FieldError::invalid(path.field("labels"), Go::map(labels), MISMATCH));
    }
    template(template_meta, pod, &at.field("template"), errors);
}

/// `ValidatePodTemplateSpec`.
pub(super) fn template(meta: Option<&ObjectMeta>, pod: &PodSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
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

/// `ValidateStatefulSetSpec`.
pub(super) fn stateful_set(s: &StatefulSetSpec, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    one_of(
        s.pod_management_policy.as_deref().unwrap_or(""),
        &["OrderedReady", "Parallel"],
        &at.field("podManagementPolicy"),
        errors,
    );
    if let Some(u) = &s.update_strategy {
        let at = at.field("updateStrategy");
        match (u.type_.as_deref().unwrap_or(""), &u.rolling_update) {
            ("OnDelete", Some(_)) => {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                errors.push(FieldError::invalid(at.field("rollingUpdate"), Go("{}".to_owned()), detail));
            }
            ("OnDelete", None) | ("RollingUpdate", None) => {}
            ("RollingUpdate", Some(r)) => {
                let at = at.field("rollingUpdate");
                not_negative(r.partition.map(i64::from), &at.field("partition"), errors);
                if let Some(v) = &r.max_unavailable {
                    int_or_percent(v, &at.field("maxUnavailable"), errors);
                    at_most_all(v, &at.field("maxUnavailable"), errors);
                    if is_zero(v) {
                        errors.push(FieldError::invalid(
                            at.field("maxUnavailable"),
                            Go::int_or_string(v),
                            "cannot be 0",
                        ));
                    }
                }
            }
            ("", _) => errors.push(FieldError::required(at, "")),
            (other, _) => {
                let detail = "must be 'RollingUpdate' or 'OnDelete'";
                errors.push(FieldError::invalid(at, other, detail));
            }
        }
    }
    if let Some(p) = &s.persistent_volume_claim_retention_policy {
        let at = at.field("persistentVolumeClaimRetentionPolicy");
        for (value, field) in [(&p.when_deleted, "whenDeleted"), (&p.when_scaled, "whenScaled")] {
            one_of(value.as_deref().unwrap_or(""), &["Delete", "Retain"], &at.field(field), errors);
        }
    }
    not_negative(s.replicas.map(i64::from), &at.field("replicas"), errors);
    not_negative(s.min_ready_seconds.map(i64::from), &at.field("minReadySeconds"), errors);
    not_negative(s.revision_history_limit.map(i64::from), &at.field("revisionHistoryLimit"), errors);
    not_negative(
        s.ordinals.as_ref().and_then(|o| o.start).map(i64::from),
        &at.field("ordinals").field("start"),
        errors,
    );
    if let Some(spec) = &s.template.spec {
        // Claims stand in for volumes of their name: the pods will have them.
        let mut spec = spec.clone();
        let claims = s.volume_claim_templates.iter().flatten().filter_map(|c| c.metadata.name.clone());
        for name in claims {
            let volumes = spec.volumes.get_or_insert_default();
            volumes.retain(|v| v.name != name);
            volumes.push(k8s_openapi::api::core::v1::Volume {
                name,
                empty_dir: Some(Default::default()),
                ..Default::default()
            });
        }
        selected_template(&s.selector, "statefulset", s.template.metadata.as_ref(), &spec, at, errors);
        always_restarts(&spec, "StatefulSet", at, errors);
    } else {
        selected_template(&s.selector, "statefulset", s.template.metadata.as_ref(), &PodSpec::default(), at, errors);
    }
    for (i, c) in s.volume_claim_templates.iter().flatten().enumerate() {
        let at = at.field("volumeClaimTemplates");
        let at = at.index(i);
        if let Some(spec) = &c.spec {
            volume::claim(spec, &at.field("spec"), errors);
        }
    }
}

/// `ValidateDaemonSetSpec`.
pub(super) fn daemon_set(d: &DaemonSetSpec, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    let none = PodSpec::default();
    let pod = d.template.spec.as_ref().unwrap_or(&none);
    selected_template(&d.selector, "daemonset", d.template.metadata.as_ref(), pod, at, errors);
    always_restarts(pod, "DaemonSet", at, errors);
    not_negative(d.min_ready_seconds.map(i64::from), &at.field("minReadySeconds"), errors);
    not_negative(d.revision_history_limit.map(i64::from), &at.field("revisionHistoryLimit"), errors);
    if let Some(u) = &d.update_strategy {
        let at = at.field("updateStrategy");
        match (u.type_.as_deref().unwrap_or(""), &u.rolling_update) {
            ("OnDelete", _) => {}
            ("RollingUpdate", None) => errors.push(FieldError::required(at.field("rollingUpdate"), "")),
            ("RollingUpdate", Some(r)) => rolling_daemons(r, &at.field("rollingUpdate"), errors),
            (other, _) => one_of(other, &["OnDelete", "RollingUpdate"], &at.field("type"), errors),
        }
    }
}

fn rolling_daemons(r: &RollingUpdateDaemonSet, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let zero = IntOrString::Int(0);
    let (unavailable, surge) = (r.max_unavailable.as_ref().unwrap_or(&zero), r.max_surge.as_ref().unwrap_or(&zero));
    for (v, field) in [(unavailable, "maxUnavailable"), (surge, "maxSurge")] {
        int_or_percent(v, &at.field(field), errors);
        at_most_all(v, &at.field(field), errors);
    }
    let shown = Go::int_or_string;
    match (is_zero(unavailable), is_zero(surge)) {
        (true, true) => {
            let detail = "cannot be 0 when maxSurge is 0";
            errors.push(FieldError::invalid(at.field("maxUnavailable"), shown(unavailable), detail));
        }
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(at.field("maxSurge"), shown(surge), detail));
        }
        _ => {}
    }
}

/// `ValidateJobSpec`. The selector is checked where it is given: the API server makes it otherwise.
pub(super) fn job(j: &JobSpec, at: &Path<'_>, made: bool, errors: &mut Vec<FieldError>) {
    for (field, n) in [
        ("parallelism", j.parallelism),
        ("completions", j.completions),
        ("backoffLimit", j.backoff_limit),
        ("ttlSecondsAfterFinished", j.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", j.backoff_limit_per_index),
        ("maxFailedIndexes", j.max_failed_indexes),
    ] {
        not_negative(n.map(i64::from), &at.field(field), errors);
    }
    not_negative(j.active_deadline_seconds, &at.field("activeDeadlineSeconds"), errors);
    if let Some(mode) = &j.completion_mode {
        one_of(mode, &["Indexed", "NonIndexed"], &at.field("completionMode"), errors);
        if mode == "Indexed" && made && j.completions.is_none() {
            let detail = "when completion mode is Indexed";
            errors.push(FieldError::required(at.field("completions"), detail));
        }
    }
    if j.backoff_limit_per_index.is_some() && j.completion_mode.as_deref() != Some("Indexed") {
        let detail = "requires indexed completion mode";
        errors.push(FieldError::invalid(
            at.field("backoffLimitPerIndex"),
            j.backoff_limit_per_index.unwrap_or(0),
            detail,
        ));
    }
    if let Some(policy) = &j.pod_replacement_policy {
        one_of(policy, &["Failed", "TerminatingOrFailed"], &at.field("podReplacementPolicy"), errors);
    }
    let path = at.field("template");
    let none = PodSpec::default();
    let pod = j.template.spec.as_ref().unwrap_or(&none);
    if let Some(s) = &j.selector {
        meta::selector(s, &at.field("selector"), errors);
        let labels = j.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
        if j.manual_selector == Some(true) && Selector::from_label_selector(s).is_ok_and(|p| !p.matches(labels)) {
            let path = path.field("metadata");
            errors.push(FieldError::invalid(path.field("labels"), Go::map(labels), MISMATCH));
        }
    }
    template(j.template.metadata.as_ref(), pod, &path, errors);
    let path = path.field("spec");
    match pod.restart_policy.as_deref() {
        Some("Always") => {
            let detail = "valid values: \"OnFailure\", \"Never\"";
            errors.push(FieldError::required(path.field("restartPolicy"), detail));
        }
        Some(policy) if j.pod_failure_policy.is_some() && policy != "Never" => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(path.field("restartPolicy"), policy, detail));
        }
        _ => {}
    }
}

/// `ValidateCronJobSpec`.
pub(super) fn cron_job(c: &CronJobSpec, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    let schedule = at.field("schedule");
    if c.schedule.is_empty() {
        errors.push(FieldError::required(schedule, ""));
    } else if c.schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(schedule, &c.schedule, detail));
    } else if let Some(detail) = super::cron::wrong(&c.schedule) {
        errors.push(FieldError::invalid(schedule, &c.schedule, detail));
    }
    not_negative(c.starting_deadline_seconds, &at.field("startingDeadlineSeconds"), errors);
    if let Some(zone) = &c.time_zone
        && zone.is_empty()
    {
        errors.push(FieldError::invalid(at.field("timeZone"), zone, "timeZone must be nil or non-empty string"));
    }
    let policy = c.concurrency_policy.as_deref().unwrap_or("");
    if policy.is_empty() {
        errors.push(FieldError::required(at.field("concurrencyPolicy"), ""));
    } else {
        one_of(policy, &["Allow", "Forbid", "Replace"], &at.field("concurrencyPolicy"), errors);
    }
    let job_at = at.field("jobTemplate");
    match &c.job_template.spec {
        None => errors.push(FieldError::required(job_at.field("spec"), "")),
        Some(spec) => {
            let at = job_at.field("spec");
            if spec.manual_selector == Some(true) {
                let detail = "`manualSelector` must be nil or false";
                errors.push(FieldError::not_supported(at.field("manualSelector"), true, &["nil", "false"]));
                if let Some(last) = errors.last_mut() {
                    last.detail.push_str(": ");
                    last.detail.push_str(detail);
                }
            }
            job(spec, &at, false, errors);
        }
    }
    for (field, n) in [
        ("successfulJobsHistoryLimit", c.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", c.failed_jobs_history_limit),
    ] {
        not_negative(n.map(i64::from), &at.field(field), errors);
    }
}

/// A selector that may not change.
pub(super) fn fixed_selector(new: &LabelSelector, old: &LabelSelector, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    meta::immutable(new, old, &at.field("selector"), Go::selector, errors);
}

/// What may change in a StatefulSet.
pub(super) fn stateful_set_update(new: &StatefulSetSpec, old: &StatefulSetSpec, errors: &mut Vec<FieldError>) {
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

/// What may change in a Job.
pub(super) fn job_update(new: &JobSpec, old: &JobSpec, errors: &mut Vec<FieldError>) {
    let at = &Path::Root("spec");
    let json = |v: serde_json::Value| Go(v.to_string());
    let indexed = new.completion_mode.as_deref() == Some("Indexed");
    // An indexed Job may be resized, completions and parallelism together.
    if !(indexed && new.completions.is_some() && new.completions == new.parallelism) {
        let show = |n: &Option<i32>| Go(n.map_or_else(|| "null".to_owned(), |n| n.to_string()));
        meta::immutable(&new.completions, &old.completions, &at.field("completions"), show, errors);
    }
    if new.selector.is_some() {
        let show = |s: &Option<LabelSelector>| s.as_ref().map_or_else(|| Go("nil".to_owned()), Go::selector);
        meta::immutable(&new.selector, &old.selector, &at.field("selector"), show, errors);
    }
    let show = |t: &_| json(serde_json::to_value(t).unwrap_or_default());
    let (mut now, mut was) = (new.template.clone(), old.template.clone());
    if old.suspend == Some(true) {
        // Where the pods of a suspended Job may run is still open, as are labels and annotations.
        for t in [&mut now, &mut was] {
            if let Some(m) = &mut t.metadata {
                (m.labels, m.annotations) = (None, None);
            }
            if let Some(s) = &mut t.spec {
                (s.node_selector, s.tolerations, s.affinity, s.scheduling_gates) = (None, None, None, None);
            }
        }
    }
    if now != was {
        meta::immutable(&new.template, &old.template, &at.field("template"), show, errors);
    }
    let show = |m: &Option<String>| Go(format!("{:?}", m.as_deref().unwrap_or("")));
    meta::immutable(&new.completion_mode, &old.completion_mode, &at.field("completionMode"), show, errors);
}
