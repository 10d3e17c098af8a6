//! `pods/eviction`: a delete that PodDisruptionBudgets may reject.
//!
//! The budget is decremented in the same transaction that deletes the pod, so neither happens without the other.
//!
//! Source: upstream's `pkg/registry/core/pod/storage/eviction.go`.

use std::time::Duration;

use k8s_openapi::api::policy::v1::PodDisruptionBudgetStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

use super::admission::webhook::Operation;
use super::update::check_precondition;
use super::write::{Deciding, Decision, Write};
use crate::api::{Call, Cause, DeleteOptions, Response, Status};
use crate::limits;
use crate::object::{
    Kind, Object, ObjectKey, Pod, PodCondition, PodDisruptionBudget, Revision, Selector, Text, Time, is_pod_ready,
};
use crate::store::{Compare, Op, StoreKey, Stored};

const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What the PodDisruptionBudgets say about an eviction.
enum Verdict {
    /// No budget applies.
    Free,
    /// The budget allows the eviction and was decremented.
    Counted(ObjectKey, Box<PodDisruptionBudget>),
}

impl Deciding<'_> {
    pub(super) fn evict(&mut self, write: &mut Write) -> Decision {
        let Call::Evict { pod: key, options } = &write.request.call else { unreachable!("not an eviction") };
        let options = &match self.judged_eviction(write, key, options) {
            Ok(options) => options,
            Err(decision) => return decision,
        };
        let current = self.object(write, key);
        let Some(Object::Pod(pod)) = &current else {
            return Decision::refuse_if(key, Status::not_found(Kind::POD.row(), key.name()));
        };
        if let Err(status) = check_precondition(key, &options.precondition, &Object::Pod(pod.clone())) {
            return Decision::refuse_if(key, status);
        }
        let verdict = match self.ask_budgets(write, key, pod) {
            Ok(verdict) => verdict,
            Err(decision) => return decision,
        };
        let mut last = pod.clone();
        if last.meta.deletion_timestamp.is_none() {
            let target = PodCondition {
                type_: Text::DISRUPTION_TARGET,
                status: Text::TRUE,
                reason: "EvictionByEvictionAPI".into(),
                message: "Eviction API: evicting".into(),
                ..PodCondition::default()
            };
            last.status_mut().set_condition_at(self.now.wall, target);
        }
        let mut decision = self.delete_object(key, &Object::Pod(pod.clone()), Object::Pod(last), options);
        match &mut decision {
            Decision::Commit(commit) => {
                commit.response = Response::Done { rv: Revision(0) };
                if let Verdict::Counted(key, budget) = verdict {
                    let (key, rv) = (StoreKey::Object(key), budget.rv);
                    commit.txn.compare.push(Compare::ModRevision(key.clone(), rv));
                    commit.txn.success.push(Op::Put { key, value: Stored::Object(Object::from(*budget)), lease: None });
                }
            }
            Decision::AnswerIf(_, result @ Ok(_)) => *result = Ok(Response::Done { rv: Revision(0) }),
            Decision::Answer(_)
            | Decision::AnswerIf(..)
            | Decision::Await(_)
            | Decision::AwaitEventLease
            | Decision::Consult(_) => {}
        }
        decision
    }

    /// The options of an eviction that policies and webhooks allow, as they have them.
    fn judged_eviction(
        &mut self,
        write: &Write,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<DeleteOptions, Decision> {
        let mut options = options.clone();
        if !self.consults_about(Kind::POD) {
            return Ok(options);
        }
        let mut eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": key.name(), "namespace": key.namespace()}});
        if let Some(seconds) = options.grace_seconds {
            eviction["deleteOptions"] = json!({"gracePeriodSeconds": seconds});
        }
        let made = self.consult_about_subresource(write, key, (Operation::Create, "eviction"), (eviction, None))?;
        options.grace_seconds = made["deleteOptions"]["gracePeriodSeconds"].as_i64();
        Ok(options)
    }

    fn ask_budgets(&self, write: &Write, key: &ObjectKey, pod: &Pod) -> Result<Verdict, Decision> {
        // Pods that are not running yet, or have terminated, may always be evicted (`canIgnorePDB`).
        let phase = pod.status.phase.as_str();
        if matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.meta.deletion_timestamp.is_some() {
            return Ok(Verdict::Free);
        }
        let mut budgets = self.budgets_of(write, pod);
        let Some((budget_key, mut budget)) = budgets.pop() else { return Ok(Verdict::Free) };
        if !budgets.is_empty() {
            let text =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Decision::refuse(Status::internal(text)));
        }
        if !is_pod_ready(pod) && may_evict_unhealthy(&budget) {
            return Ok(Verdict::Free);
        }
        match count(&mut budget, key.name(), self.now.wall.to_time()) {
            Ok(()) => Ok(Verdict::Counted(budget_key, Box::new(budget))),
            Err(status) => {
                let keys = vec![StoreKey::Object(key.clone()), StoreKey::Object(budget_key)];
                Err(Decision::AnswerIf(keys, Err(status)))
            }
        }
    }

    fn budgets_of(&self, write: &Write, pod: &Pod) -> Vec<(ObjectKey, PodDisruptionBudget)> {
        let labels = pod.meta.labels.as_ref();
        let mut found = Vec::new();
        for (key, _) in self.cache.range(Kind::POD_DISRUPTION_BUDGET, pod.namespace()) {
            // If a budget was fetched from the store for this write, that version counts.
            let Some(Object::PodDisruptionBudget(budget)) = self.object(write, key) else { continue };
            let selector = budget.spec.selector.as_ref().and_then(|s| Selector::from_label_selector(s).ok());
            if selector.is_some_and(|s| s.matches(labels)) {
                found.push((key.clone(), budget));
            }
        }
        found
    }
}

/// Whether a pod that is not ready may be evicted without being counted (`unhealthyPodEvictionPolicy`).
fn may_evict_unhealthy(budget: &PodDisruptionBudget) -> bool {
    let status = &budget.status;
    match budget.spec.unhealthy_pod_eviction_policy.as_deref() {
        Some("AlwaysAllow") => true,
        _ => status.current_healthy >= status.desired_healthy && status.desired_healthy > Some(0),
    }
}

/// Decrements the budget, or returns why it must not be (`checkAndDecrement`).
fn count(budget: &mut PodDisruptionBudget, pod: &str, now: Time) -> Result<(), Status> {
    let name = budget.name().to_owned();
    let refuse = |message: String, retry_after: u64| {
        let mut status = Status::too_many_requests(VIOLATES, Duration::from_secs(retry_after));
        if let Some(details) = &mut status.details {
            details.causes.push(Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() });
            details.retry_after_seconds = details.retry_after_seconds.filter(|s| *s > 0);
        }
        status
    };
    let status = &budget.status;
    if status.observed_generation.unwrap_or(0) < budget.meta.generation.unwrap_or(0) {
        return Err(refuse(format!("The disruption budget {name} is still being processed by the server."), 10));
    }
    let allowed = status.disruptions_allowed.unwrap_or(0);
    if allowed < 0 {
        return Err(Status::forbidden(Kind::POD_DISRUPTION_BUDGET.row(), &name, "pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.as_ref().is_some_and(|p| p.len() > limits::DISRUPTED_PODS) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(Kind::POD_DISRUPTION_BUDGET.row(), &name, why));
    }
    if allowed == 0 {
        return Err(refuse(format!("The disruption budget {name} {}", why_none_is_allowed(status)), 0));
    }
    let generation = budget.meta.generation;
    let status = budget.status_mut();
    status.disruptions_allowed = Some(allowed - 1);
    if allowed == 1 {
        no_more_allowed(status.conditions.get_or_insert_with(Vec::new), generation, &now);
    }
    status.disrupted_pods.get_or_insert_with(Default::default).insert(pod.to_owned(), now);
    Ok(())
}

fn why_none_is_allowed(status: &PodDisruptionBudgetStatus) -> String {
    let (wanted, healthy) = (status.desired_healthy.unwrap_or(0), status.current_healthy.unwrap_or(0));
    let refuses = |c: &&Condition| c.type_ == "DisruptionAllowed" && c.status == "False" && !c.message.is_empty();
    match status.conditions.iter().flatten().find(refuses) {
        // Its counts are of before.
        Some(c) if c.reason == "SyncFailed" => {
            format!("does not allow evicting pods currently because it failed sync: {}", c.message)
        }
        _ if healthy <= wanted => format!("needs {wanted} healthy pods and has {healthy} currently"),
        Some(c) => format!("does not allow evicting pods currently ({}): {}", c.reason, c.message),
        None => "does not allow evicting pods currently".to_owned(),
    }
}

fn no_more_allowed(conditions: &mut Vec<Condition>, generation: Option<i64>, now: &Time) {
    let since = conditions.iter().find(|c| c.type_ == "DisruptionAllowed" && c.status == "False");
    let last_transition_time = since.map_or_else(|| now.clone(), |c| c.last_transition_time.clone());
    conditions.retain(|c| c.type_ != "DisruptionAllowed");
    conditions.push(Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: "False".to_owned(),
        reason: "InsufficientPods".to_owned(),
        message: String::new(),
        observed_generation: generation,
        last_transition_time,
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::why_none_is_allowed;

    fn check(wanted: i32, healthy: i32, (reason, message): (&str, &str), expect: &str) {
        let status = json!({"desiredHealthy": wanted, "currentHealthy": healthy, "expectedPods": 9,
            "disruptionsAllowed": 0, "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": reason,
                "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        assert_eq!(why_none_is_allowed(&serde_json::from_value(status).unwrap()), expect);
    }

    #[test]
    fn says_what_stands_against_an_eviction() {
        check(3, 2, ("InsufficientPods", ""), "needs 3 healthy pods and has 2 currently");
        check(2, 2, ("Other", "why"), "needs 2 healthy pods and has 2 currently");
        check(2, 3, ("InsufficientPods", ""), "does not allow evicting pods currently");
        check(2, 3, ("Other", "why"), "does not allow evicting pods currently (Other): why");
        let failed = "does not allow evicting pods currently because it failed sync: no scale";
        check(0, 0, ("SyncFailed", "no scale"), failed);
    }
}
