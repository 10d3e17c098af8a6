//! `budget-is-spent`: every eviction of a healthy pod uses up one of the disruptions that its PodDisruptionBudget
//! allows, and at least one is left to use. `budget-is-earned`: the disruption controller never allows more disruptions
//! than there are healthy pods beyond what the budget desires.
//!
//! The API server records an evicted pod in the budget's status and decrements `disruptionsAllowed` in the same write.
//! Only the disruption controller increments it, and that controller never records pods. It counts the pods of its
//! view: a pod that is no longer healthy counts for `VIEW_LAG` more, unless it was evicted, which is recorded.

use std::collections::{BTreeMap, VecDeque};

use skeg_core::object::{Kind, Object, ObjectKey, Pod, PodDisruptionBudget, Selector, Text};
use skeg_core::store::StoreKey;

use super::binding::VIEW_LAG;
use super::reading::is_ready;
use super::{Commit, Invariant, Report};

/// Pods that have ceased to be healthy without an eviction, as they were, with the time; and since when each budget is
/// as it was declared last.
#[derive(Debug, Default)]
pub(super) struct Budgets(VecDeque<(f64, Pod)>, BTreeMap<ObjectKey, f64>);

fn is_healthy(pod: &Pod) -> bool {
    pod.meta.deletion_timestamp.is_none() && is_ready(pod)
}

fn is_evicted(pod: &Pod) -> bool {
    let evicted = |reason: &str| reason == "EvictionByEvictionAPI";
    pod.status.conditions.iter().any(|c| c.type_ == Text::DISRUPTION_TARGET && evicted(c.reason.as_str()))
}

impl Budgets {
    pub fn pod(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let Some(old) = commit.old_pod().filter(|old| is_healthy(old)) else { return };
        let new = commit.new_pod();
        if new.is_some_and(is_evicted) && !is_evicted(old) {
            self.unspent(commit, old, report);
        }
        if !new.is_some_and(is_healthy) && !new.is_some_and(is_evicted) {
            self.0.push_back((commit.at, old.clone()));
            while self.0.front().is_some_and(|(at, _)| commit.at - at > VIEW_LAG) {
                self.0.pop_front();
            }
        }
    }

    /// Checks a commit to a PodDisruptionBudget.
    pub fn budget(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let old = match commit.old {
            Some(Object::PodDisruptionBudget(old)) => Some(old),
            _ => None,
        };
        let Some(Object::PodDisruptionBudget(new)) = commit.new else {
            self.1.retain(|key, _| Some(key) != old.map(|old| old.key()).as_ref());
            return;
        };
        if old.is_none_or(|old| old.meta.generation != new.meta.generation) {
            self.1.insert(new.key(), commit.at);
        }
        if let Some(old) = old {
            spent(commit, old, new, report);
        }
        let allowed = |budget: &PodDisruptionBudget| budget.status.disruptions_allowed.unwrap_or(0);
        if allowed(new) > old.map_or(0, allowed) {
            self.earned(commit, new, allowed(new), report);
        }
    }

    /// Checks that the budget of a pod that is evicted has it recorded. A budget that is new or was changed is not
    /// judged: the API server that evicted the pod may not have heard of that.
    fn unspent(&self, commit: &Commit<'_>, pod: &Pod, report: &mut Report) {
        let (ns, kind) = (pod.namespace(), Kind::POD_DISRUPTION_BUDGET);
        let (start, end) = (ObjectKey::range_start(kind, ns), ObjectKey::range_end(kind, ns));
        for kv in commit.store.range(&StoreKey::Object(start), &StoreKey::Object(end)) {
            let Some(Object::PodDisruptionBudget(budget)) = kv.value.object() else { continue };
            let selector = budget.spec.selector.as_ref().and_then(|s| Selector::from_label_selector(s).ok());
            let is_its = selector.is_some_and(|s| s.matches(pod.meta.labels.as_ref()));
            let is_old = self.1.get(&budget.key()).is_some_and(|since| commit.at - since > VIEW_LAG);
            let is_noted = budget.status.disrupted_pods.iter().flatten().any(|(noted, _)| noted == pod.name());
            if is_its && is_old && !is_noted {
                let what = format!("{} is evicted, and {} does not know of it", pod.key(), budget.key());
                report.broken(Invariant::BudgetIsSpent, commit.at, what);
            }
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
