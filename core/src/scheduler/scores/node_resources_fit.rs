//! NodeResourcesFit: a node scores by how much of its resources would be left or used, as the profile's strategy says.
//!
//! Source: `least_allocated.go`, `most_allocated.go` and `requested_to_capacity_ratio.go` of `noderesources`.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::{MAX_NODE_SCORE, Normalize, Reads, ScorePlugin};
use crate::scheduler::profile::{Plugin, Strategy};
use crate::scheduler::resources::ResourceId;
use crate::scheduler::shape::Shape;

/// The highest score of a point of a shape (`MaxCustomPriorityScore`).
const MAX_POINT_SCORE: i64 = 10;

/// The NodeResourcesFit score. Missing requests of CPU and memory count with Kubernetes' defaults (100m CPU, 200Mi
/// memory per container). An extended resource counts only for pods that request it.
pub struct FitScore;

/// `part * 100 / capacity`, rounded down.
fn percent(part: i64, capacity: i64) -> i64 {
    match part.checked_mul(MAX_NODE_SCORE) {
        Some(hundredfold) => hundredfold / capacity,
        None => (i128::from(part) * i128::from(MAX_NODE_SCORE) / i128::from(capacity)) as i64,
    }
}

/// In proportion to what is left; zero if more is requested than the capacity.
pub fn left(requested: i64, capacity: i64) -> i64 {
    let free = capacity.saturating_sub(requested);
    if free < 0 { 0 } else { percent(free, capacity) }
}

/// In proportion to what is requested, which counts as no more than the capacity.
fn used(requested: i64, capacity: i64) -> i64 {
    percent(requested.clamp(0, capacity), capacity)
}

/// By straight lines between points, which are in order (`BuildBrokenLinearFunction`).
fn on_lines(points: &[(i64, i64)], utilization: i64) -> i64 {
    let scale = |score: i64| score * (MAX_NODE_SCORE / MAX_POINT_SCORE);
    let after = points.iter().position(|(at, _)| utilization <= *at);
    match after {
        Some(0) => scale(points[0].1),
        Some(i) => {
            let ((from, low), (to, high)) = (points[i - 1], points[i]);
            scale(low) + (scale(high) - scale(low)) * (utilization - from) / (to - from)
        }
        None => points.last().map_or(0, |(_, score)| scale(*score)),
    }
}

/// What pods on a node request of a resource, of CPU and memory with Kubernetes' defaults.
fn requested(nodes: &Nodes, slot: Slot, resource: ResourceId) -> i64 {
    match resource {
        ResourceId::CPU => nodes.nonzero_requested(0, slot),
        ResourceId::MEMORY => nodes.nonzero_requested(1, slot),
        other => nodes.requested(other, slot),
    }
}

impl ScorePlugin for FitScore {
    fn plugin(&self) -> Plugin {
        Plugin::NodeResourcesFit
    }

    fn reads(&self) -> Reads {
        Reads::Usage
    }

    fn normalize(&self) -> Normalize {
        Normalize::No
    }

    fn score(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for (resource, weight, asked) in &shape.scored {
            let capacity = nodes.allocatable(*resource, slot);
            if capacity <= 0 {
                continue;
            }
            let requested = requested(nodes, slot, *resource).wrapping_add(*asked);
            let score = match &shape.rules.strategy {
                Strategy::LeastAllocated => left(requested, capacity),
                Strategy::MostAllocated => used(requested, capacity),
                Strategy::RequestedToCapacityRatio(points) => match on_lines(points, used(requested, capacity)) {
                    // A resource without any score does not lower that of the others.
                    0 => continue,
                    score => score,
                },
            };
            sum += score * weight;
            weights += weight;
        }
        match &shape.rules.strategy {
            _ if weights == 0 => 0,
            Strategy::LeastAllocated | Strategy::MostAllocated => sum / weights,
            // Rounded to the nearest integer, and halves up.
            Strategy::RequestedToCapacityRatio(_) => (2 * sum + weights) / (2 * weights),
        }
    }
}
