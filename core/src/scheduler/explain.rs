//! Why a pod could not be scheduled, in kube-scheduler's words (`framework.FitError`).

use std::collections::BTreeMap;

use super::resources::ResourceNames;
use super::table::Rejections;

/// The message if there are no nodes (`ErrNoNodesAvailable`).
pub const NO_NODES: &str = "no nodes available to schedule pods";
/// The reason of a node where an eviction could help but no pod can be evicted.
pub const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
/// The reason of a node where no eviction could help.
pub const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// `2 Insufficient cpu, 3 node(s) were unschedulable`, sorted as text, as kube-scheduler does.
fn histogram(counts: BTreeMap<String, u32>) -> String {
    let mut parts: Vec<String> = counts.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    parts.sort_unstable();
    parts.join(", ")
}

/// The reasons, each with its number of nodes, out of so many nodes in all.
pub fn reasons(nodes: usize, rejections: &Rejections, resources: &ResourceNames) -> String {
    let mut reasons = BTreeMap::new();
    for (rejection, n) in rejections.iter() {
        for reason in &rejection.reasons {
            *reasons.entry(reason.text(resources)).or_insert(0) += n;
        }
    }
    format!("0/{nodes} nodes are available: {}.", histogram(reasons))
}

/// The message for a pod that fits none of `nodes` nodes. `before` is a reason that holds before any node is looked at;
/// it replaces the nodes' own reasons. `claims` says what was tried with claims for devices, `preemption` why evictions
/// do not help; `None` if they do.
pub fn message(
    (nodes, resources): (usize, &ResourceNames),
    before: Option<&str>,
    rejections: &Rejections,
    (claims, preemption): (Option<&str>, Option<&str>),
) -> String {
    if nodes == 0 {
        return NO_NODES.to_owned();
    }
    let before = before.map(|before| format!("0/{nodes} nodes are available: {before}."));
    let said = before.unwrap_or_else(|| reasons(nodes, rejections, resources));
    let preemption = preemption.map(|why| format!("preemption: {why}"));
    let after: Vec<&str> = claims.into_iter().chain(preemption.as_deref()).collect();
    if after.is_empty() { said } else { format!("{said} {}", after.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::message;
    use crate::scheduler::framework::{Reason, Rejection};
    use crate::scheduler::resources::{ResourceId, ResourceNames};
    use crate::scheduler::table::Rejections;

    fn check(nodes: &[(Rejection, u32)], before: Option<&str>, preemption: Option<&str>, expect: &str) {
        let mut rejections = Rejections::default();
        nodes.iter().for_each(|(r, n)| rejections.add(r.clone(), *n));
        let total = nodes.iter().map(|(_, n)| *n as usize).sum();
        let after = (None, preemption);
        assert_eq!(message((total, &ResourceNames::default()), before, &rejections, after), expect);
    }

    #[test]
    fn says_it_as_kube_scheduler_does() {
        let fit = |resources: &[ResourceId]| Rejection {
            plugin: "NodeResourcesFit",
            reasons: resources.iter().map(|r| Reason::Insufficient(*r)).collect(),
            unresolvable: false,
        };
        let taint = Rejection::unresolvable("TaintToleration", "node(s) had untolerated taint(s)");
        check(&[], None, None, "no nodes available to schedule pods");
        check(
            &[(fit(&[ResourceId::CPU]), 2), (taint.clone(), 3)],
            None,
            Some("0/5 nodes are available: 2 No preemption victims found for incoming pod."),
            "0/5 nodes are available: 2 Insufficient cpu, 3 node(s) had untolerated taint(s). preemption: 0/5 nodes \
             are available: 2 No preemption victims found for incoming pod.",
        );
        check(
            &[(fit(&[ResourceId::PODS, ResourceId::MEMORY]), 9), (fit(&[ResourceId::MEMORY]), 1)],
            None,
            None,
            "0/10 nodes are available: 10 Insufficient memory, 9 Too many pods.",
        );
        check(
            &[(taint, 1)],
            Some("pod affinity terms conflict"),
            Some("not eligible due to preemptionPolicy=Never."),
            "0/1 nodes are available: pod affinity terms conflict. preemption: not eligible due to \
             preemptionPolicy=Never.",
        );
    }
}
