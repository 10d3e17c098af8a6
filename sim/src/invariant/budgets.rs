//! `budget-is-spent`: every eviction uses up one of the disruptions that the PodDisruptionBudget allows, and at least
//! one is left to use. `budget-is-earned`: the disruption controller never allows more disruptions than there are
//! healthy pods beyond what the budget desires.
//!
//! The API server records an evicted pod in the budget's status and decrements `disruptionsAllowed` in the same write.
//! Only the disruption controller increments it, and that controller never records pods. It counts the pods of its
//! view: a pod that is no longer healthy counts for `VIEW_LAG` more, unless it was evicted, which is recorded.

use std::collections::VecDeque;

use skeg_core::object::{Kind, Object, ObjectKey, Pod, PodDisruptionBudget, Selector, Text};
use skeg_core::store::StoreKey;

use super::binding::VIEW_LAG;
use super::reading::is_ready;
use super::{Commit, Invariant, Report};

/// Pods that have ceased to be healthy without an eviction, as they were, with the time.
#[derive(Debug, Default)]
pub(super) struct Budgets(VecDeque<(f64, Pod)>);

fn is_healthy(pod: &Pod) -> bool {
    pod.meta.deletion_timestamp.is_none() && is_ready(pod)
}

fn is_evicted(pod: &Pod) -> bool {
    let evicted = |reason: &str| reason == "EvictionByEvictionAPI";
    pod.status.conditions.iter().any(|c| c.type_ == Text::DISRUPTION_TARGET && evicted(c.reason.as_str()))
}

impl Budgets {
    pub fn pod(&mut self, commit: &Commit<'_>) {
        let Some(old) = commit.old_pod().filter(|old| is_healthy(old)) else { return };
        let new = commit.new_pod();
        if !new.is_some_and(is_healthy) && !new.is_some_and(is_evicted) {
            self.0.push_back((commit.at, old.clone()));
            while self.0.front().is_some_and(|(at, _)| commit.at - at > VIEW_LAG) {
                self.0.pop_front();
            }
        }
    }

    /// Checks a commit to a PodDisruptionBudget.
    pub fn budget(&self, commit: &Commit<'_>, report: &mut Report) {
        let Some(Object::PodDisruptionBudget(new)) = commit.new else { return };
        let old = match commit.old {
            Some(Object::PodDisruptionBudget(old)) => Some(old),
            _ => None,
        };
        if let Some(old) = old {
            spent(commit, old, new, report);
        }
        let allowed = |budget: &PodDisruptionBudget| budget.status.disruptions_allowed.unwrap_or(0);
        if allowed(new) > old.map_or(0, allowed) {
            self.earned(commit, new, allowed(new), report);
        }
    }

    fn earned(&self, commit: &Commit<'_>, budget: &PodDisruptionBudget, allowed: i32, report: &mut Report) {
        let Some(selector) = budget.spec.selector.as_ref().and_then(|s| Selector::from_label_selector(s).ok()) else {
            return;
        };
        let ns = budget.namespace();
        let (start, end) = (ObjectKey::range_start(Kind::POD, ns), ObjectKey::range_end(Kind::POD, ns));
        let pods = commit.store.range(&StoreKey::Object(start), &StoreKey::Object(end));
        let pods = pods.filter_map(|kv| kv.value.object()).filter(|o| selector.matches(o.labels()));
        let healthy = pods.filter(|o| matches!(o, Object::Pod(pod) if is_healthy(pod))).count();
        let lost = self.0.iter().filter(|(at, pod)| {
            commit.at - at <= VIEW_LAG && pod.namespace() == ns && selector.matches(pod.meta.labels.as_ref())
        });
        let seen = i32::try_from(healthy + lost.count()).unwrap_or(i32::MAX);
        let desired = budget.status.desired_healthy.unwrap_or(0);
        if allowed > (seen - desired).max(0) {
            let key = budget.key();
            let what = format!("{key} allows {allowed} disruptions; {healthy} pods are healthy, {desired} are desired");
            report.broken(Invariant::BudgetIsEarned, commit.at, what);
        }
    }
}

/// Checks `budget-is-spent`.
fn spent(commit: &Commit<'_>, old: &PodDisruptionBudget, new: &PodDisruptionBudget, report: &mut Report) {
    let before = old.status.disrupted_pods.as_ref();
    let mut noted = new.status.disrupted_pods.iter().flatten().map(|(pod, _)| pod);
    let Some(pod) = noted.find(|pod| before.is_none_or(|pods| !pods.contains_key(*pod))) else { return };
    let allowed = |status: Option<i32>| status.unwrap_or(0);
    let (had, has) = (allowed(old.status.disruptions_allowed), allowed(new.status.disruptions_allowed));
    if had < 1 || has != had - 1 {
        let what = format!("{} allowed {had} disruptions, and {has} after the eviction of {pod}", new.key());
        report.broken(Invariant::BudgetIsSpent, commit.at, what);
    }
}
