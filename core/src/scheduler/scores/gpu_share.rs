//! GPUShare: a node scores as the profile's policy for sharing GPUs says.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::{Normalize, Reads, ScorePlugin};
use crate::scheduler::gpu::Room;
use crate::scheduler::profile::Plugin;
use crate::scheduler::resources::ResourceId;
use crate::scheduler::shape::Shape;

/// The GPUShare score. It is not among kube-scheduler's; a profile enables it.
pub struct GpuShareScore;

impl ScorePlugin for GpuShareScore {
    fn plugin(&self) -> Plugin {
        Plugin::GPUShare
    }

    fn reads(&self) -> Reads {
        Reads::Usage
    }

    fn normalize(&self) -> Normalize {
        Normalize::No
    }

    fn score(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> i64 {
        shape.rules.sharing.score(shape.gpu, shape.request(ResourceId::CPU), Room::at(nodes, slot))
    }
}
