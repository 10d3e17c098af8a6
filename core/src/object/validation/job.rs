//! Validation of Jobs and CronJobs. Source: `pkg/apis/batch/validation`.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{
    CronJobSpec, JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::PodSpec;

use super::path::{Go, Path};
use super::workload::{MISMATCH, template};
use super::{meta, names, not_negative, one_of, push_all, too_many};
use crate::cron::{self, Schedule};
use crate::object::{ErrorKind, FieldError, LabelSelector, Selector, Templated};

type Errors = Vec<FieldError>;

const MOST_INDEXES: i32 = 100_000;
/// The maximum parallelism, and the maximum of failed indexes, of a Job with more completions than this limit.
const MOST_OF_MANY: i32 = 10_000;
const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_INDEXES_TEXT: usize = 64 * 1024;

fn is_indexed(j: &JobSpec) -> bool {
    j.completion_mode.as_deref() == Some("Indexed")
}

/// Checks that an Indexed Job's name with the largest index is a valid host name, since its pods get such host names.
pub(in crate::object) fn host_names(name: &str, j: &JobSpec, errors: &mut Errors) {
    let Some(completions) = j.completions.filter(|n| is_indexed(j) && *n > 0) else { return };
    let host = format!("{name}-{}", completions - 1);
    if !names::label(&host).is_empty() {
        let detail = format!("will not able to create pod with invalid DNS label: {host}");
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
}

/// `ValidateJobSpec`.
pub(in crate::object) fn job(j: &Templated<JobSpec>, errors: &mut Errors) {
    let at = &Path::Root("spec");
    spec(j, &j.pod, at, errors);
    if let Some(s) = &j.selector {
        meta::selector(s, &at.field("selector"), errors);
        let labels = j.template_meta().and_then(|m| m.labels.as_ref());
        // A generated selector matches by construction; only a selector set by the client can mismatch.
        if j.manual_selector == Some(true) && Selector::from_label_selector(s).is_ok_and(|p| !p.matches(labels)) {
            let path = at.field("template");
            let path = path.field("metadata");
            errors.push(FieldError::invalid(path.field("labels"), Go::map(labels), MISMATCH));
        }
    }
}

/// `validateJobSpec`.
fn spec(j: &JobSpec, pod: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    for (field, n) in [
        ("parallelism", j.parallelism.map(i64::from)),
        ("completions", j.completions.map(i64::from)),
        ("activeDeadlineSeconds", j.active_deadline_seconds),
        ("backoffLimit", j.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", j.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", j.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", j.max_failed_indexes.map(i64::from)),
    ] {
        not_negative(n, &at.field(field), errors);
    }
    if j.max_failed_indexes.is_some() && j.backoff_limit_per_index.is_none() {
        errors.push(FieldError::required(at.field("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = &j.managed_by {
        let at = at.field("managedBy");
        meta::domain_prefixed(manager, &at, errors);
        if manager.len() > 63 {
            errors.push(FieldError::too_long(at, 63));
        }
    }
    if let Some(mode) = &j.completion_mode {
        one_of(mode, &["NonIndexed", "Indexed"], &at.field("completionMode"), errors);
    }
    if is_indexed(j) {
        indexed(j, at, errors);
    } else if j.completion_mode.as_deref().is_none_or(|m| m == "NonIndexed") {
        for (field, n) in
            [("backoffLimitPerIndex", j.backoff_limit_per_index), ("maxFailedIndexes", j.max_failed_indexes)]
        {
            if let Some(n) = n {
                errors.push(FieldError::invalid(at.field(field), n, "requires indexed completion mode"));
            }
        }
    }
    failure_policy(j, pod, &at.field("podFailurePolicy"), errors);
    success_policy(j, &at.field("successPolicy"), errors);
    if let Some(policy) = &j.pod_replacement_policy {
        let known = if j.pod_failure_policy.is_some() { &["Failed"][..] } else { &["Failed", "TerminatingOrFailed"] };
        one_of(policy, known, &at.field("podReplacementPolicy"), errors);
    }
    let path = at.field("template");
    template(j.template.metadata.as_ref(), pod, &path, errors);
    let path = path.field("spec");
    let path = path.field("restartPolicy");
    match pod.restart_policy.as_deref().unwrap_or("") {
        "" | "Always" => errors.push(FieldError::required(path, "valid values: \"OnFailure\", \"Never\"")),
        "Never" => {}
        "OnFailure" => {
            if j.pod_failure_policy.is_some() {
                let detail = "only \"Never\" is supported when podFailurePolicy is specified";
                errors.push(FieldError::invalid(path, "OnFailure", detail));
            }
        }
        other => one_of(other, &["OnFailure", "Never"], &path, errors),
    }
}

fn indexed(j: &JobSpec, at: &Path<'_>, errors: &mut Errors) {
    let mut most = |field: &str, n: Option<i32>, max: i32, detail: String| {
        if let Some(n) = n.filter(|n| *n > max) {
            errors.push(FieldError::invalid(at.field(field), n, detail));
        }
    };
    let at_most = |n: i32| format!("must be less than or equal to {n}");
    let (parallel, failed) = (j.parallelism, j.max_failed_indexes);
    most("parallelism", parallel, MOST_INDEXES, format!("{} when completion mode is Indexed", at_most(MOST_INDEXES)));
    let completions = j.completions.unwrap_or(i32::MAX);
    most("maxFailedIndexes", failed, completions, "must be less than or equal to completions".to_owned());
    most("maxFailedIndexes", failed, MOST_INDEXES, at_most(MOST_INDEXES));
    if j.completions.is_some_and(|n| n > MOST_INDEXES) && j.backoff_limit_per_index.is_some() {
        let detail = format!(
            "{} when completions are above {MOST_INDEXES} and used with backoff limit per index",
            at_most(MOST_OF_MANY)
        );
        most("parallelism", parallel, MOST_OF_MANY, detail.clone());
        most("maxFailedIndexes", failed, MOST_OF_MANY, detail);
        if failed.is_none() {
            let detail = format!("must be specified when completions is above {MOST_INDEXES}");
            errors.push(FieldError::required(at.field("maxFailedIndexes"), detail));
        }
    }
    if j.completions.is_none() {
        errors.push(FieldError::required(at.field("completions"), "when completion mode is Indexed"));
    }
}

/// An error whose message shows no value.
fn wrong(at: &Path<'_>, detail: &str) -> FieldError {
    FieldError { kind: ErrorKind::Invalid, field: at.into(), value: None, detail: detail.to_owned() }
}

fn failure_policy(j: &JobSpec, pod: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    let Some(policy) = &j.pod_failure_policy else { return };
    let at = at.field("rules");
    if policy.rules.len() > MAX_RULES {
        errors.push(too_many(at, policy.rules.len(), MAX_RULES));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        failure_rule(j, pod, rule, &at.index(i), errors);
    }
}

fn failure_rule(j: &JobSpec, pod: &PodSpec, rule: &PodFailurePolicyRule, at: &Path<'_>, errors: &mut Errors) {
    let action = at.field("action");
    match rule.action.as_str() {
        "" => {
            let detail = "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]";
            errors.push(FieldError::required(action, detail));
        }
        "FailIndex" if j.backoff_limit_per_index.is_none() => {
            errors.push(FieldError::invalid(action, "FailIndex", "requires the backoffLimitPerIndex to be set"));
        }
        other => one_of(other, &["Count", "FailIndex", "FailJob", "Ignore"], &action, errors),
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(pod, codes, &at.field("onExitCodes"), errors);
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let path = at.field("onPodConditions");
    if patterns.len() > MAX_RULES {
        errors.push(too_many(path, patterns.len(), MAX_RULES));
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let at = path.index(i);
        push_all(errors, &at.field("type"), &pattern.type_, names::qualified(&pattern.type_));
        match pattern.status.as_deref().unwrap_or("") {
            "" => {
                errors.push(FieldError::required(at.field("status"), "valid values: [\"False\" \"True\" \"Unknown\"]"));
            }
            status => one_of(status, &["False", "True", "Unknown"], &at.field("status"), errors),
        }
    }
    match (rule.on_exit_codes.is_some(), !patterns.is_empty()) {
        (true, true) => {
            errors.push(wrong(at, "specifying both OnExitCodes and OnPodConditions is not supported"));
        }
        (false, false) => {
            errors.push(wrong(at, "specifying one of OnExitCodes and OnPodConditions is required"));
        }
        _ => {}
    }
}

fn exit_codes(pod: &PodSpec, codes: &PodFailurePolicyOnExitCodesRequirement, at: &Path<'_>, errors: &mut Errors) {
    match codes.operator.as_str() {
        "" => errors.push(FieldError::required(at.field("operator"), "valid values: [\"In\" \"NotIn\"]")),
        operator => one_of(operator, &["In", "NotIn"], &at.field("operator"), errors),
    }
    let known = |name: &str| {
        let mut all = pod.containers.iter().chain(pod.init_containers.iter().flatten());
        all.any(|c| c.name == name)
    };
    if let Some(name) = codes.container_name.as_deref().filter(|n| !known(n)) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(at.field("containerName"), name, detail));
    }
    let path = at.field("values");
    let shown = || Go(format!("[{}]", codes.values.iter().map(i32::to_string).collect::<Vec<_>>().join(",")));
    if codes.values.is_empty() {
        errors.push(FieldError::invalid(path, shown(), "at least one value is required"));
    } else if codes.values.len() > MAX_EXIT_CODES {
        errors.push(too_many(path, codes.values.len(), MAX_EXIT_CODES));
    }
    let mut seen = BTreeSet::new();
    for (i, code) in codes.values.iter().enumerate() {
        if codes.operator == "In" && *code == 0 {
            errors.push(FieldError::invalid(path.index(i), 0, "must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(FieldError::duplicate(path.index(i), code));
        }
    }
    if !codes.values.is_sorted() {
        errors.push(FieldError::invalid(path, shown(), "must be ordered"));
    }
}

fn success_policy(j: &JobSpec, at: &Path<'_>, errors: &mut Errors) {
    let Some(policy) = &j.success_policy else { return };
    if !is_indexed(j) {
        let rule = |r: &SuccessPolicyRule| serde_json::json!({"SucceededIndexes": r.succeeded_indexes, "SucceededCount": r.succeeded_count});
        let shown = serde_json::json!({"Rules": policy.rules.iter().map(rule).collect::<Vec<_>>()});
        errors.push(FieldError::invalid(at, Go(shown.to_string()), "requires indexed completion mode"));
        return;
    }
    let at = at.field("rules");
    if policy.rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(at, detail));
    }
    if policy.rules.len() > MAX_RULES {
        errors.push(too_many(at, policy.rules.len(), MAX_RULES));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        success_rule(rule, j.completions.unwrap_or(0), &at.index(i), errors);
    }
}

fn success_rule(rule: &SuccessPolicyRule, completions: i32, at: &Path<'_>, errors: &mut Errors) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(at, detail));
    }
    let mut total = 0;
    if let Some(text) = &rule.succeeded_indexes {
        let at = at.field("succeededIndexes");
        if text.len() > MAX_INDEXES_TEXT {
            errors.push(FieldError::too_long(at, MAX_INDEXES_TEXT));
        }
        match indexes(text, completions) {
            Ok(n) => total = n,
            Err(why) => {
                let detail = format!("error parsing succeededIndexes: {why}");
                errors.push(FieldError::invalid(at, text, detail));
            }
        }
    }
    if let Some(count) = rule.succeeded_count {
        let at = at.field("succeededCount");
        not_negative(Some(i64::from(count)), &at, errors);
        if count > completions {
            let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.push(FieldError::invalid(at, count, detail));
        }
        if rule.succeeded_indexes.is_some() && count > total {
            let detail = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.push(FieldError::invalid(at, count, detail));
        }
    }
}

/// The number of indexes in a text such as `1,3-5` (`validateIndexesFormat`).
fn indexes(text: &str, completions: i32) -> Result<i32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total) = (None, 0);
    for part in text.split(',') {
        let ends: Vec<&str> = part.split('-').collect();
        if ends.len() > 2 {
            return Err(format!(
                "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let mut numbers = Vec::new();
        for end in ends {
            let n: i32 = end.parse().map_err(|_| format!("cannot convert string to integer for index: {end:?}"))?;
            if n >= completions {
                return Err(format!("too large index: {end:?}"));
            }
            if n < 0 || last.is_some_and(|last| last >= n) {
                let last = last.map_or(-1, |n| n);
                return Err(format!("non-increasing order, previous: {last}, current: {n}"));
            }
            last = Some(n);
            numbers.push(n);
        }
        total += numbers[numbers.len() - 1] - numbers[0] + 1;
    }
    Ok(total)
}

/// `validateCronJobSpec`.
pub(in crate::object) fn cron_job(c: &CronJobSpec, errors: &mut Errors) {
    let at = &Path::Root("spec");
    let schedule = at.field("schedule");
    if c.schedule.is_empty() {
        errors.push(FieldError::required(schedule, ""));
    } else if c.schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(schedule, &c.schedule, detail));
    } else if let Err(detail) = Schedule::parse(&c.schedule) {
        errors.push(FieldError::invalid(schedule, &c.schedule, detail));
    }
    not_negative(c.starting_deadline_seconds, &at.field("startingDeadlineSeconds"), errors);
    if let Some(zone) = &c.time_zone {
        time_zone(zone, &at.field("timeZone"), errors);
    }
    let policy = c.concurrency_policy.as_deref().unwrap_or("");
    if policy.is_empty() {
        errors.push(FieldError::required(at.field("concurrencyPolicy"), ""));
    } else {
        one_of(policy, &["Allow", "Forbid", "Replace"], &at.field("concurrencyPolicy"), errors);
    }
    let path = at.field("jobTemplate");
    let path = path.field("spec");
    let none = JobSpec::default();
    let job = c.job_template.spec.as_ref().unwrap_or(&none);
    let no_pod = PodSpec::default();
    spec(job, job.template.spec.as_ref().unwrap_or(&no_pod), &path, errors);
    if let Some(selector) = &job.selector {
        let detail = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(path.field("selector"), Go::selector(selector), detail));
    }
    if job.manual_selector == Some(true) {
        errors.push(FieldError::not_supported(path.field("manualSelector"), true, &["nil", "false"]));
    }
    for (field, n) in [
        ("successfulJobsHistoryLimit", c.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", c.failed_jobs_history_limit),
    ] {
        not_negative(n.map(i64::from), &at.field(field), errors);
    }
}

/// `validateTimeZone`.
fn time_zone(zone: &str, at: &Path<'_>, errors: &mut Errors) {
    if zone.is_empty() {
        errors.push(FieldError::invalid(at, zone, "timeZone must be nil or non-empty string"));
    } else if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(FieldError::invalid(at, zone, detail));
    } else if cron::time_zone(zone).is_none() {
        errors.push(FieldError::invalid(at, zone, format!("unknown time zone {zone}")));
    }
}

/// `ValidateJobSpecUpdate`: which fields of a Job may change.
pub(in crate::object) fn update(new: &Templated<JobSpec>, old: &Templated<JobSpec>, errors: &mut Errors) {
    let at = &Path::Root("spec");
    let number = |n: &Option<i32>| Go(n.map_or_else(|| "null".to_owned(), |n| n.to_string()));
    if is_indexed(new) {
        // An Indexed Job may be resized if completions and parallelism change together.
        if new.completions != old.completions && new.completions.is_some() && new.completions != new.parallelism {
            let detail = "can only be modified in tandem with spec.parallelism";
            errors.push(FieldError::invalid(at.field("completions"), number(&new.completions), detail));
        }
    } else {
        meta::immutable(&new.completions, &old.completions, &at.field("completions"), number, errors);
    }
    if new.selector.is_some() {
        let show = |s: &Option<LabelSelector>| s.as_ref().map_or_else(|| Go("null".to_owned()), Go::selector);
        meta::immutable(&new.selector, &old.selector, &at.field("selector"), show, errors);
    }
    let (mut now, mut was) = (new.template(), old.template());
    if old.suspend == Some(true) {
        // While a Job is suspended, the template's scheduling directives, labels and annotations may change.
        for t in [&mut now, &mut was] {
            if let Some(m) = &mut t.metadata {
                (m.labels, m.annotations) = (None, None);
            }
            if let Some(s) = &mut t.spec {
                (s.node_selector, s.tolerations, s.scheduling_gates) = (None, None, None);
                if let Some(a) = &mut s.affinity {
                    a.node_affinity = None;
                    if a.pod_affinity.is_none() && a.pod_anti_affinity.is_none() {
                        s.affinity = None;
                    }
                }
            }
        }
    }
    if now != was {
        let show = |t: &_| Go(serde_json::to_string(t).unwrap_or_default());
        meta::immutable(&new.template(), &old.template(), &at.field("template"), show, errors);
    }
    let text = |m: &Option<String>| Go(format!("{:?}", m.as_deref().unwrap_or("")));
    meta::immutable(&new.completion_mode, &old.completion_mode, &at.field("completionMode"), text, errors);
    let show = |p: &_| Go(serde_json::to_string(p).unwrap_or_default());
    meta::immutable(&new.pod_failure_policy, &old.pod_failure_policy, &at.field("podFailurePolicy"), show, errors);
    let limit = &at.field("backoffLimitPerIndex");
    meta::immutable(&new.backoff_limit_per_index, &old.backoff_limit_per_index, limit, number, errors);
    meta::immutable(&new.managed_by, &old.managed_by, &at.field("managedBy"), text, errors);
    let show = |p: &_| Go(serde_json::to_string(p).unwrap_or_default());
    meta::immutable(&new.success_policy, &old.success_policy, &at.field("successPolicy"), show, errors);
}
