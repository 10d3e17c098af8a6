//! NodeResourcesBalancedAllocation: a node scores higher the more the pod brings the used fractions of its resources
//! (CPU and memory, unless the profile names others) closer to each other.
//!
//! Source: `balanced_allocation.go`, as changed by kubernetes PR 135573: the score is not how balanced the node would
//! be, but how the pod changes the balance.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::{MAX_NODE_SCORE, Normalize, Reads, ScorePlugin};
use crate::scheduler::profile::Plugin;
use crate::scheduler::resources::ResourceId;
use crate::scheduler::shape::Shape;

/// The NodeResourcesBalancedAllocation score. A pod that requests none of the resources gets none.
pub struct BalancedAllocation;

/// 100 without the standard deviation of the used fractions, each at most 1. Computed in floating point and truncated,
/// as in kube-scheduler. The four basic operations and the square root give the same result on every machine.
fn balance(fractions: impl Iterator<Item = f64> + Clone) -> i64 {
    let (mut first, mut last, mut total, mut count) = (0.0, 0.0, 0.0, 0);
    for fraction in fractions.clone() {
        first = if count == 0 { fraction } else { first };
        last = fraction;
        total += fraction;
        count += 1;
    }
    let deviation = match count {
        0 | 1 => 0.0,
        2 => ((first - last) / 2.0_f64).abs(),
        _ => {
            let mean = total / f64::from(count);
            let sum = fractions.fold(0.0, |sum, fraction| sum + (fraction - mean) * (fraction - mean));
            (sum / f64::from(count)).sqrt()
        }
    };
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}

/// From 50, if the pod unbalances a balanced node, to 100; 75 if it changes nothing.
fn change(with: i64, without: i64) -> i64 {
    MAX_NODE_SCORE / 2 + (MAX_NODE_SCORE / 2 + with - without) / 2
}

impl ScorePlugin for BalancedAllocation {
    fn plugin(&self) -> Plugin {
        Plugin::NodeResourcesBalancedAllocation
    }

    fn reads(&self) -> Reads {
        Reads::Usage
    }

    fn normalize(&self) -> Normalize {
        Normalize::No
    }

    fn score(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> i64 {
        let resources = &shape.rules.balanced;
        if resources.iter().all(|r| shape.request(*r) == 0) {
            return 0;
        }
        let native = |r: ResourceId| matches!(r, ResourceId::CPU | ResourceId::MEMORY | ResourceId::EPHEMERAL_STORAGE);
        let fractions = |with_pod: bool| {
            resources.iter().filter_map(move |r| {
                let (asked, capacity) = (shape.request(*r), nodes.allocatable(*r, slot));
                // An extended resource counts only for pods that request it.
                if capacity == 0 || (asked == 0 && !native(*r)) {
                    return None;
                }
                let used = nodes.requested(*r, slot).wrapping_add(if with_pod { asked } else { 0 });
                Some((used as f64 / capacity as f64).min(1.0))
            })
        };
        change(balance(fractions(true)), balance(fractions(false)))
    }
}
