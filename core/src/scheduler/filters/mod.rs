//! Filter plug-ins, each named as in kube-scheduler; GPUShare is our own.

mod gpu_share;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod taint_toleration;

pub use gpu_share::{GpuShareFit, no_devices};
pub use node_affinity::{NAMES_CONFLICT, NOT_AMONG_NAMES, NodeAffinity};
pub use node_name::NodeName;
pub use node_ports::{NodePorts, PORTS_TAKEN};
pub use node_resources_fit::{NodeResourcesFit, insufficient};
pub use node_unschedulable::NodeUnschedulable;
pub use taint_toleration::TaintToleration;

#[cfg(test)]
mod tests;
