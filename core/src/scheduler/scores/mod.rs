//! Score plug-ins, each named as in kube-scheduler; GPUShare is our own.

mod balanced_allocation;
mod gpu_share;
mod inter_pod_affinity;
mod node_affinity;
mod node_resources_fit;
mod pod_topology_spread;
mod taint_toleration;

pub use balanced_allocation::{
    BalancedAllocation, Part, balance_from, balance_of_parts, balance_without, most_balance,
};
pub use gpu_share::GpuShareScore;
pub use inter_pod_affinity::affinity_score;
pub use node_affinity::PreferredNodeAffinity;
pub use node_resources_fit::{FitScore, left};
pub use pod_topology_spread::{log_of_domains, spread_count, spread_score};
pub use taint_toleration::PreferredTaints;

#[cfg(test)]
mod tests;
