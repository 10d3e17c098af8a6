//! `budget-is-spent`: every eviction uses up one of the disruptions that the PodDisruptionBudget allows, and at least
//! one is left to use.
//!
//! The API server records an evicted pod in the budget's status and decrements `disruptionsAllowed` in the same write.
//! Only the disruption controller increments it, and that controller never records pods.

use skeg_core::object::Object;

use super::{Commit, Invariant, Report};

/// Checks a commit to a PodDisruptionBudget.
pub(super) fn check(commit: &Commit<'_>, report: &mut Report) {
    let (Some(Object::PodDisruptionBudget(old)), Some(Object::PodDisruptionBudget(new))) = (commit.old, commit.new)
    else {
        return;
    };
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
