//! NodeResourcesFit with the LeastAllocated strategy: a node scores higher the more CPU and memory would be left.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::{MAX_NODE_SCORE, Normalize, Reads, ScorePlugin};
use crate::scheduler::resources::ResourceId;
use crate::scheduler::shape::Shape;

/// The NodeResourcesFit score. Missing requests count with Kubernetes' defaults (100m CPU, 200Mi memory per container).
pub struct LeastAllocated;

/// `(capacity - requested) * 100 / capacity`, rounded down; zero if more is requested than the capacity.
fn left(requested: i64, capacity: i64) -> i64 {
    let free = capacity.saturating_sub(requested);
    match free.checked_mul(MAX_NODE_SCORE) {
        _ if free < 0 => 0,
        Some(hundredfold) => hundredfold / capacity,
        None => (i128::from(free) * i128::from(MAX_NODE_SCORE) / i128::from(capacity)) as i64,
    }
}

impl ScorePlugin for LeastAllocated {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
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
        let (mut sum, mut weights) = (0, 0);
        for (i, resource) in [ResourceId::CPU, ResourceId::MEMORY].into_iter().enumerate() {
            let capacity = nodes.allocatable(resource, slot);
            if capacity > 0 {
                sum += left(nodes.nonzero_requested(i, slot).wrapping_add(shape.nonzero[i]), capacity);
                weights += 1;
            }
        }
        if weights == 0 { 0 } else { sum / weights }
    }
}
