//! NodeResourcesBalancedAllocation: a node scores higher the more the pod brings its used fractions of CPU and memory
//! closer to each other.
//!
//! Source: `balanced_allocation.go`, as changed by kubernetes PR 135573: the score is not how balanced the node would
//! be, but how the pod changes the balance.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::{MAX_NODE_SCORE, Normalize, Reads, ScorePlugin};
use crate::scheduler::resources::ResourceId;
use crate::scheduler::shape::Shape;

/// The NodeResourcesBalancedAllocation score. A pod that requests neither CPU nor memory gets none.
pub struct BalancedAllocation;

/// `(1 - |a/A - b/B| / 2) * 100`, each fraction at most 1; half the difference is the standard deviation of two
/// numbers. Computed in floating point and truncated, as in kube-scheduler. The four basic operations give the same
/// result on every machine.
fn balance([a, b]: [i64; 2], [cap_a, cap_b]: [i64; 2]) -> i64 {
    let fraction = |used: i64, capacity: i64| (used as f64 / capacity as f64).min(1.0);
    let deviation = ((fraction(a, cap_a) - fraction(b, cap_b)) / 2.0).abs();
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}

/// From 50, if the pod unbalances a balanced node, to 100; 75 if it changes nothing.
fn change(with: i64, without: i64) -> i64 {
    MAX_NODE_SCORE / 2 + (MAX_NODE_SCORE / 2 + with - without) / 2
}

impl ScorePlugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn reads(&self) -> Reads {
        Reads::Usage
    }

    fn weight(&self) -> i64 {
        1
    }

    fn normalize(&self) -> Normalize {
        Normalize::No
    }

    fn score(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> i64 {
        let [cpu, memory] =
            [ResourceId::CPU, ResourceId::MEMORY].map(|r| (shape.request(r), nodes.allocatable(r, slot)));
        if cpu.0 == 0 && memory.0 == 0 {
            return 0;
        }
        let capacity = [cpu.1, memory.1];
        if capacity.contains(&0) {
            // A single fraction is always balanced.
            return change(MAX_NODE_SCORE, MAX_NODE_SCORE);
        }
        let before = [ResourceId::CPU, ResourceId::MEMORY].map(|r| nodes.requested(r, slot));
        let after = [before[0].wrapping_add(cpu.0), before[1].wrapping_add(memory.0)];
        change(balance(after, capacity), balance(before, capacity))
    }
}
