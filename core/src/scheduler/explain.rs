//! Why a pod could not be scheduled, in kube-scheduler's words (`framework.FitError`).

use std::collections::BTreeMap;

use super::cache::ResourceNames;
use super::table::Rejections;

/// Said where there is no node at all (`ErrNoNodesAvailable`).
pub const NO_NODES: &str = "no nodes available to schedule pods";
/// Said of nodes where an eviction could help but there is nobody to evict.
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
/// Said of nodes where no eviction could help.
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// `2 Insufficient cpu, 3 node(s) were unschedulable`, sorted as text, as kube-scheduler does.
fn histogram(counts: BTreeMap<String, u32>) -> String {
    let mut parts: Vec<String> = counts.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    parts.sort_unstable();
    parts.join(", ")
}

/// The message for a pod that fits none of `nodes` nodes. `before` is what was said before any node was looked at,
/// which then stands for the nodes' own reasons.
///
/// This scheduler evicts nobody yet, so that for each node where an eviction could help it finds no victims.
pub fn message(
    nodes: usize,
    before: Option<&str>,
    rejections: &Rejections,
    resources: &ResourceNames,
    may_preempt: bool,
) -> String {
    if nodes == 0 {
        return NO_NODES.to_owned();
    }
    let (mut reasons, mut preemption) = (BTreeMap::new(), BTreeMap::new());
    for (rejection, n) in rejections.iter() {
        for reason in &rejection.reasons {
            *reasons.entry(reason.text(resources)).or_insert(0) += n;
        }
        let why = if rejection.unresolvable { NOT_HELPFUL } else { NO_VICTIMS };
        *preemption.entry(why.to_owned()).or_insert(0) += n;
    }
    let reasons = before.map_or_else(|| histogram(reasons), str::to_owned);
    let preemption = if may_preempt {
        format!("0/{nodes} nodes are available: {}.", histogram(preemption))
    } else {
        "not eligible due to preemptionPolicy=Never.".to_owned()
    };
    format!("0/{nodes} nodes are available: {reasons}. preemption: {preemption}")
}

#[cfg(test)]
mod tests {
    use super::message;
    use crate::scheduler::cache::{ResourceId, ResourceNames};
    use crate::scheduler::framework::{Reason, Rejection};
    use crate::scheduler::table::Rejections;

    fn check(nodes: &[(Rejection, u32)], before: Option<&str>, may_preempt: bool, expect: &str) {
        let mut rejections = Rejections::default();
        nodes.iter().for_each(|(r, n)| rejections.add(r.clone(), *n));
        let total = nodes.iter().map(|(_, n)| *n as usize).sum();
        assert_eq!(message(total, before, &rejections, &ResourceNames::default(), may_preempt), expect);
    }

    #[test]
    fn says_it_as_kube_scheduler_does() {
        let fit = |resources: &[ResourceId]| Rejection {
            plugin: "NodeResourcesFit",
            reasons: resources.iter().map(|r| Reason::Insufficient(*r)).collect(),
            unresolvable: false,
        };
        let taint = Rejection::unresolvable("TaintToleration", "node(s) had untolerated taint(s)");
        check(&[], None, true, "no nodes available to schedule pods");
        check(
            &[(fit(&[ResourceId::CPU]), 2), (taint.clone(), 3)],
            None,
            true,
            "0/5 nodes are available: 2 Insufficient cpu, 3 node(s) had untolerated taint(s). preemption: 0/5 nodes \
             are available: 2 No preemption victims found for incoming pod, 3 Preemption is not helpful for \
             scheduling.",
        );
        check(
            &[(fit(&[ResourceId::PODS, ResourceId::MEMORY]), 9), (fit(&[ResourceId::MEMORY]), 1)],
            None,
            false,
            "0/10 nodes are available: 10 Insufficient memory, 9 Too many pods. preemption: not eligible due to \
             preemptionPolicy=Never.",
        );
        check(
            &[(taint, 1)],
            Some("pod affinity terms conflict"),
            true,
            "0/1 nodes are available: pod affinity terms conflict. preemption: 0/1 nodes are available: 1 Preemption \
             is not helpful for scheduling.",
        );
    }
}
