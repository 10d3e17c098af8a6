//! GPU sharing: a pod asks for a share of one GPU or for several whole GPUs, and gets devices of its node.
//!
//! A node says by its allocatable [`GPU_MILLI`] how many devices it has (1000 each), and by the label [`GPU_MODEL`]
//! what they are. A pod requests `GPU_MILLI`: less than 1000 is a share of one device, a multiple of 1000 are whole
//! devices. The devices that it gets stand in its annotation [`GPU_INDEX`], which its binding writes, so that a
//! scheduler that starts later counts the same ones. A pod on a node without that annotation is on no device that
//! anybody knows; NodeResourcesFit counts its request all the same.
//!
//! The names are those of Alibaba's GPU sharing, which the openb trace uses. The policies are those of Weng et al.,
//! "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC 2023.

mod devices;
mod fragmentation;
mod policy;
#[cfg(test)]
mod tests;

pub use devices::{Ask, Devices, Gpus, tightest};
pub use fragmentation::Fragmentation;
pub use policy::{GpuShare, Policy, Sharing, Target};

use super::cache::{Nodes, Slot};
use super::resources::ResourceId;
use super::shape::Shape;

/// The resource: thousandths of a GPU.
pub const GPU_MILLI: &str = "alibabacloud.com/gpu-milli";
/// The annotation of a pod on a node: its devices, such as `0` or `2-3`.
pub const GPU_INDEX: &str = "alibabacloud.com/gpu-index";
/// The label of a node: the model of its GPUs.
pub const GPU_MODEL: &str = "alibabacloud.com/gpu-card-model";

/// What a device has, in thousandths.
pub const WHOLE: i64 = 1000;

/// What is free on a node, as policies look at it.
#[derive(Clone, Copy, Debug)]
pub struct Room<'a> {
    /// Thousandths of a CPU.
    pub cpu: i64,
    /// Thousandths of each device.
    pub gpus: &'a [i64],
    /// The model of the devices.
    pub model: Option<&'a str>,
}

impl<'a> Room<'a> {
    /// What is free on the node at a slot.
    pub fn at(nodes: &'a Nodes, slot: Slot) -> Room<'a> {
        let cpu = nodes.allocatable(ResourceId::CPU, slot).wrapping_sub(nodes.requested(ResourceId::CPU, slot));
        let labels = nodes.meta(slot).labels.as_ref();
        Room { cpu, gpus: nodes.gpus(slot).free(), model: labels.and_then(|l| l.get(GPU_MODEL)).map(String::as_str) }
    }
}

/// The devices that a pod of a shape gets on a node that it fits. `draw` draws one of so many, all equally likely.
pub fn devices(shape: &Shape, nodes: &Nodes, slot: Slot, draw: impl FnOnce(u32) -> u32) -> Devices {
    shape.rules.sharing.devices(shape.gpu, shape.request(ResourceId::CPU), Room::at(nodes, slot), draw)
}
