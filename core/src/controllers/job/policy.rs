//! The policies of a Job: how a failed pod is treated, and when a Job succeeds before all its indexes have.

use k8s_openapi::api::batch::v1::{PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, SuccessPolicy};

use super::indexes::Indexes;
use crate::object::{Pod, PodPhase};

/// How a failed pod is treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts towards the back-off limit; the default without a policy.
    Count,
    /// It does not count.
    Ignore,
    /// Its index is not retried.
    FailIndex,
    /// The Job fails; the value is the message.
    FailJob(String),
}

/// The action of the first rule that matches a failed pod (`matchPodFailurePolicy`).
pub(super) fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod, per_index: bool) -> Verdict {
    let Some(policy) = policy.filter(|_| pod.status.summary().phase == PodPhase::Failed) else { return Verdict::Count };
    for (i, rule) in policy.rules.iter().enumerate() {
        let by_exit = rule.on_exit_codes.as_ref().and_then(|r| exited(r, pod));
        let by_condition = || {
            let patterns = rule.on_pod_conditions.iter().flatten();
            let mut matching = patterns.filter(|p| {
                let status = p.status.as_deref().unwrap_or("True");
                pod.status.conditions.iter().any(|c| c.type_ == *p.type_.as_str() && c.status == *status)
            });
            matching.next().map(|p| format!("Pod {}/{} has condition {}", pod.namespace(), pod.name(), p.type_))
        };
        let Some(cause) = by_exit.or_else(by_condition) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "FailIndex" if per_index => return Verdict::FailIndex,
            "FailJob" => return Verdict::FailJob(format!("{cause} matching FailJob rule at index {i}")),
            "Count" => return Verdict::Count,
            _ => {}
        }
    }
    Verdict::Count
}

/// The container whose exit code matches a rule, in upstream's words; `None` if there is none.
fn exited(rule: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<String> {
    let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    for status in statuses.filter(|s| rule.container_name.as_deref().is_none_or(|name| s.name == *name)) {
        let Some(code) = status.state.terminated().map(|t| t.exit_code).filter(|code| *code != 0) else { continue };
        let listed = rule.values.contains(&code);
        if listed == (rule.operator == "In") {
            let (container, namespace, name) = (&status.name, pod.namespace(), pod.name());
            return Some(format!("Container {container} for pod {namespace}/{name} failed with exit code {code}"));
        }
    }
    None
}

/// The index of the first rule of a success policy that the succeeded indexes satisfy; `None` if there is none.
pub(super) fn satisfied(policy: &SuccessPolicy, succeeded: &Indexes, completions: i32) -> Option<usize> {
    policy.rules.iter().position(|rule| {
        let wanted = rule.succeeded_indexes.as_deref().map(|text| Indexes::parse(text, completions));
        let count = wanted.as_ref().map_or_else(|| succeeded.total(), |wanted| succeeded.common(wanted));
        match (rule.succeeded_count, &wanted) {
            (Some(needed), _) => count >= needed,
            (None, Some(wanted)) => !wanted.is_empty() && count == wanted.total(),
            (None, None) => false,
        }
    })
}
