//! NodeResourcesBalancedAllocation: the closer the used fractions of CPU and memory, the better.

use crate::scheduler::cache::{Nodes, ResourceId, Slot};
use crate::scheduler::framework::{MAX_NODE_SCORE, Normalize, Reads, ScorePlugin};
use crate::scheduler::shape::Shape;

/// The plug-in. A pod that requests neither CPU nor memory is not scored by it.
pub struct BalancedAllocation;

/// `(1 - |a/A - b/B| / 2) * 100`, each fraction at most 1: half the difference is the standard deviation of two
/// numbers. kube-scheduler computes this in floating point and truncates; here the same value is computed exactly
/// and rounded down, so that the two differ, by one, only where a rounding error carries the float over an integer.
fn balance(a: i64, cap_a: i64, b: i64, cap_b: i64) -> i64 {
    let (a, b) = (i128::from(a.min(cap_a)), i128::from(b.min(cap_b)));
    let (cap_a, cap_b) = (i128::from(cap_a), i128::from(cap_b));
    let whole = 2 * cap_a * cap_b;
    let apart = (a * cap_b - b * cap_a).abs();
    let score = (whole - apart) * i128::from(MAX_NODE_SCORE) / whole;
    i64::try_from(score).expect("a score is at most 100")
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
        if cpu.1 == 0 || memory.1 == 0 {
            // One fraction, or none, is balanced in itself.
            return MAX_NODE_SCORE;
        }
        let cpu_used = nodes.requested(ResourceId::CPU, slot) + cpu.0;
        let memory_used = nodes.requested(ResourceId::MEMORY, slot) + memory.0;
        balance(cpu_used, cpu.1, memory_used, memory.1)
    }
}
