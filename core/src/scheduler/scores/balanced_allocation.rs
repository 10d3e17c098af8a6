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
fn evenness(deviation: f64) -> i64 {
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}

/// The balance of two fractions.
fn balance_of_two(a: f64, b: f64) -> i64 {
    evenness(((a - b) / 2.0).abs())
}

/// The balance of any number of fractions.
fn balance(fractions: impl Iterator<Item = f64>) -> i64 {
    let all: Vec<f64> = fractions.collect();
    match all[..] {
        [] | [_] => evenness(0.0),
        [a, b] => balance_of_two(a, b),
        _ => {
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let sum = all.iter().fold(0.0, |sum, fraction| sum + (fraction - mean) * (fraction - mean));
            evenness((sum / all.len() as f64).sqrt())
        }
    }
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
        if shape.balanced.is_empty() {
            return 0;
        }
        let part = |(resource, asked): (ResourceId, i64)| Part {
            capacity: nodes.allocatable(resource, slot),
            used: nodes.requested(resource, slot),
            asked,
        };
        // As the default profile has it, and without an allocation.
        if let [a, b] = shape.balanced[..] {
            return balance_of_parts(&[part(a), part(b)]);
        }
        let parts: Vec<Part> = shape.balanced.iter().map(|balanced| part(*balanced)).collect();
        balance_of_parts(&parts)
    }
}

/// A resource of a node, and what a pod asks of it.
pub struct Part {
    /// How much is allocatable.
    pub capacity: i64,
    /// How much the pods there request.
    pub used: i64,
    /// How much the pod asks for.
    pub asked: i64,
}

impl Part {
    /// The share that is used with so many such pods more; `None` of a resource that the node does not have.
    fn fraction(&self, pods: i64) -> Option<f64> {
        let used = self.used.wrapping_add(pods * self.asked);
        (self.capacity != 0).then(|| (used as f64 / self.capacity as f64).min(1.0))
    }
}

/// How balanced a node with these two resources is without the pod; `None` if it lacks one of them.
pub fn balance_without(parts: &[Part; 2]) -> Option<i64> {
    let [a, b] = parts;
    Some(balance_of_two(a.fraction(0)?, b.fraction(0)?))
}

/// The same as [`balance_of_parts`], of a node whose [`balance_without`] is known.
pub fn balance_from(without: i64, parts: &[Part; 2]) -> i64 {
    let [a, b] = parts;
    match (a.fraction(1), b.fraction(1)) {
        (Some(a), Some(b)) => change(balance_of_two(a, b), without),
        _ => balance_of_parts(parts),
    }
}

/// The highest score that a node can get whose [`balance_without`] is known.
pub fn most_balance(without: i64) -> i64 {
    change(evenness(0.0), without)
}

/// The score of a node with these resources.
pub fn balance_of_parts(parts: &[Part]) -> i64 {
    if let [a, b] = parts {
        let of = |pods| Some(balance_of_two(a.fraction(pods)?, b.fraction(pods)?));
        if let (Some(with), Some(without)) = (of(1), of(0)) {
            return change(with, without);
        }
    }
    let of = |pods| balance(parts.iter().filter_map(|part| part.fraction(pods)));
    change(of(1), of(0))
}
