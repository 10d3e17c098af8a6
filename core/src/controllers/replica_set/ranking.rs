//! Which pods are deleted first when a set is scaled down (`ActivePodsWithRanks`).

use std::cmp::Ordering;
use std::time::Duration;

use crate::machine::{Now, Wall};
use crate::object::{NameMap, Pod, PodPhase};

/// Annotation with the cost of deleting a pod; pods with a lower cost are deleted first (KEP-2255).
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

struct Rank<'a> {
    pod: &'a Pod,
    unassigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    crowd: usize,
    ready_since: Option<Wall>,
    restarts: i32,
    created: Option<Wall>,
}

/// The `surplus` pods to delete, in order of deletion.
pub(super) fn to_delete<'a>(pods: Vec<&'a Pod>, surplus: usize, per_node: &NameMap<usize>, now: Now) -> Vec<&'a Pod> {
    let mut ranks: Vec<Rank<'a>> = pods.into_iter().map(|pod| rank(pod, per_node)).collect();
    // No two pods rank equally, so the selected pods do not depend on the algorithm.
    if surplus < ranks.len() {
        ranks.select_nth_unstable_by(surplus, |a, b| compare(a, b, now));
        ranks.truncate(surplus);
    }
    ranks.sort_by(|a, b| compare(a, b, now));
    ranks.into_iter().map(|r| r.pod).collect()
}

fn rank<'a>(pod: &'a Pod, per_node: &NameMap<usize>) -> Rank<'a> {
    let node = pod.spec.node.as_deref();
    let status = pod.status.summary();
    let annotations = pod.meta.annotations.as_ref();
    Rank {
        pod,
        unassigned: node.is_none(),
        phase: match status.phase {
            PodPhase::Pending => 0,
            PodPhase::Unknown => 1,
            PodPhase::Running | PodPhase::Succeeded | PodPhase::Failed | PodPhase::Other => 2,
        },
        ready: status.is_ready(),
        cost: annotations.and_then(|a| a.get(DELETION_COST)?.parse().ok()).unwrap_or(0),
        crowd: node.and_then(|n| per_node.get(n).copied()).unwrap_or(0),
        ready_since: status.since().filter(|_| status.is_ready()),
        restarts: status.restarts,
        created: pod.meta.creation_timestamp.as_ref().map(Wall::from_time),
    }
}

/// Time since a moment in powers of two, so that pods of about the same age rank equally (LogarithmicScaleDown).
fn age_class(since: Option<Wall>, now: Now) -> u32 {
    let age = since.map_or(Duration::MAX, |t| now.wall.since(t));
    u64::try_from(age.as_nanos()).unwrap_or(u64::MAX).max(1).ilog2()
}

fn compare(a: &Rank<'_>, b: &Rank<'_>, now: Now) -> Ordering {
    b.unassigned
        .cmp(&a.unassigned)
        .then(a.phase.cmp(&b.phase))
        .then(a.ready.cmp(&b.ready))
        .then(a.cost.cmp(&b.cost))
        .then(b.crowd.cmp(&a.crowd))
        .then_with(|| age_class(a.ready_since, now).cmp(&age_class(b.ready_since, now)))
        .then(b.restarts.cmp(&a.restarts))
        .then_with(|| age_class(a.created, now).cmp(&age_class(b.created, now)))
        .then_with(|| a.pod.uid().cmp(b.pod.uid()))
}
