//! Score plug-ins, each named as in kube-scheduler. Integers only.

mod balanced_allocation;
mod least_allocated;
mod node_affinity;
mod taint_toleration;

pub use balanced_allocation::BalancedAllocation;
pub use least_allocated::LeastAllocated;
pub use node_affinity::PreferredNodeAffinity;
pub use taint_toleration::PreferredTaints;

#[cfg(test)]
mod tests;
