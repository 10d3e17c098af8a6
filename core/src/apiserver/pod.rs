//! Binding and eviction of pods.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::api::policy::v1 as policy_v1;

use super::ApiServer;
use super::write::{Commit, Decision, Reply};
use crate::api::{Cause, DeleteOptions, Status};
use crate::machine::Now;
use crate::object::{
    Kind, Object, ObjectKey, Pod, PodDisruptionBudget, Selector, is_pod_ready, is_pod_terminal, pod_condition,
};
use crate::store::{Compare, Op, StoreKey, Stored};

/// Most entries of a budget's `disruptedPods` (upstream `MaxDisruptedPodSize`).
const MAX_DISRUPTED_PODS: usize = 2000;

impl ApiServer {
    pub(super) fn decide_bind(
        &mut self,
        now: Now,
        key: &ObjectKey,
        uid: &str,
        node: &Arc<str>,
        current: &Object,
    ) -> Decision {
        let Object::Pod(pod) = current else {
            return Decision::Refuse(Status::method_not_allowed(key.kind, "binding"));
        };
        let conflict = |why: &str| Decision::Refuse(Status::conflict(Kind::POD, key.name(), why));
        if pod.uid() != uid {
            return conflict(&format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                pod.uid()
            ));
        }
        if pod.meta.deletion_timestamp.is_some() {
            return conflict(&format!("pod {} is being deleted, cannot be assigned to a host", key.name()));
        }
        if let Some(bound) = &pod.spec.node {
            return conflict(&format!("pod {} is already assigned to node {bound:?}", key.name()));
        }
        if pod.spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
            return conflict(&format!("pod {} has non-empty .spec.schedulingGates", key.name()));
        }
        let mut new = pod.clone();
        new.spec_mut().node = Some(Arc::clone(node));
        set_scheduled(&mut new, now);
        let object = Object::from(new);
        let reply = Reply::Done;
        Decision::Commit(Commit { key: key.clone(), put: Some(object), compare: Vec::new(), extra: Vec::new(), reply })
    }

    pub(super) fn decide_evict(
        &mut self,
        now: Now,
        key: &ObjectKey,
        options: &DeleteOptions,
        current: &Object,
    ) -> Decision {
        let Object::Pod(pod) = current else {
            return Decision::Refuse(Status::method_not_allowed(key.kind, "eviction"));
        };
        let unprotected = is_pod_terminal(pod) || pod.spec.node.is_none() || pod.meta.deletion_timestamp.is_some();
        let budgets: Vec<PodDisruptionBudget> = if unprotected { Vec::new() } else { self.budgets_of(pod) };
        let mut compare = Vec::new();
        let mut extra = Vec::new();
        match budgets.as_slice() {
            [] => {}
            [budget] => match take(now, pod, budget) {
                Ok(None) => {}
                Ok(Some(taken)) => {
                    let budget_key = StoreKey::Object(budget.key());
                    compare.push(Compare::ModRevision(budget_key.clone(), budget.rv));
                    extra.push(Op::Put { key: budget_key, value: Stored::Object(Object::from(taken)), lease: None });
                }
                Err(status) => return Decision::Refuse(status),
            },
            _ => {
                let text =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Decision::Refuse(Status::internal(text));
            }
        }
        match self.decide_delete(now, key, options, current) {
            Decision::Commit(mut commit) if !options.dry_run => {
                commit.compare.extend(compare);
                commit.extra.extend(extra);
                commit.reply = Reply::Done;
                Decision::Commit(commit)
            }
            other => other,
        }
    }

    fn budgets_of(&self, pod: &Pod) -> Vec<PodDisruptionBudget> {
        let all = self.cache.range(Kind::POD_DISRUPTION_BUDGET, pod.namespace(), None);
        let matching = all.filter_map(|(_, o)| o.get::<policy_v1::PodDisruptionBudget>()).filter(|b| {
            let selector = b.spec.selector.as_ref().map_or(Ok(Selector::nothing()), Selector::from_label_selector);
            selector.is_ok_and(|s| s.matches(pod.meta.labels.as_ref()))
        });
        matching.cloned().collect()
    }
}

fn set_scheduled(pod: &mut Pod, now: Now) {
    if pod_condition(&pod.status, "PodScheduled").is_some_and(|c| c.status == "True") {
        return;
    }
    let all = pod.status_mut().conditions.get_or_insert_with(Default::default);
    all.retain(|c| c.type_ != "PodScheduled");
    all.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(now.wall.to_time()),
        ..PodCondition::default()
    });
}

/// Takes one disruption from a budget, or refuses. `None`: the pod's eviction costs nothing.
fn take(now: Now, pod: &Pod, budget: &PodDisruptionBudget) -> Result<Option<PodDisruptionBudget>, Status> {
    let refuse = |message: String| {
        let mut status = Status::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            Duration::from_secs(10),
        );
        if let Some(details) = &mut status.details {
            let field = String::new();
            details.causes = vec![Cause { reason: "DisruptionBudget".to_owned(), message, field }];
        }
        Err(status)
    };
    let name = budget.name();
    let s = &budget.status;
    let (current, desired) = (s.current_healthy.unwrap_or(0), s.desired_healthy.unwrap_or(0));
    let allowed = s.disruptions_allowed.unwrap_or(0);
    let always = budget.spec.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow");
    let healthy_enough = current >= desired && desired > 0;
    if !is_pod_ready(pod) && (always || healthy_enough) {
        return Ok(None);
    }
    if s.observed_generation.unwrap_or(0) < budget.meta.generation.unwrap_or(0) {
        return refuse(format!("The disruption budget {name} is still being processed by the server."));
    }
    if allowed < 0 {
        return Err(Status::forbidden(Kind::POD_DISRUPTION_BUDGET, name, "pdb disruptions allowed is negative"));
    }
    if s.disrupted_pods.as_ref().is_some_and(|d| d.len() > MAX_DISRUPTED_PODS) {
        return Err(Status::forbidden(
            Kind::POD_DISRUPTION_BUDGET,
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        return refuse(format!(
            "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
        ));
    }
    let mut taken = budget.clone();
    let status = taken.status_mut();
    status.disruptions_allowed = Some(allowed - 1);
    let disrupted = status.disrupted_pods.get_or_insert_with(Default::default);
    disrupted.insert(pod.name().to_owned(), now.wall.to_time());
    Ok(Some(taken))
}
