//! GPUShare: the pod's share of a GPU must be free of one of the node's devices, its whole GPUs must be idle.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::events::Events;
use crate::scheduler::framework::{FilterPlugin, Reads, Rejection};
use crate::scheduler::gpu::{Ask, Gpus};
use crate::scheduler::profile::Plugin;
use crate::scheduler::shape::Shape;

const NO_SHARE: &str = "node(s) didn't have a GPU with enough alibabacloud.com/gpu-milli free";
const NO_DEVICES: &str = "node(s) didn't have enough idle GPUs";
const ODD: &str =
    "node(s) can't give parts of several GPUs, alibabacloud.com/gpu-milli must be less or a multiple of 1000";

/// The GPUShare filter. It is not among kube-scheduler's; a profile enables it.
pub struct GpuShareFit;

/// Why devices do not have what a pod asks for.
pub fn no_devices(ask: Ask, gpus: &Gpus) -> Option<Rejection> {
    let (why, unresolvable) = match ask {
        _ if ask.fits(gpus.free()) => return None,
        Ask::Share(_) => (NO_SHARE, gpus.free().is_empty()),
        Ask::Whole(devices) => (NO_DEVICES, gpus.free().len() < devices),
        Ask::Nothing | Ask::Odd => (ODD, true),
    };
    let of = if unresolvable { Rejection::unresolvable } else { Rejection::resolvable };
    Some(of(Plugin::GPUShare.name(), why))
}

impl FilterPlugin for GpuShareFit {
    fn plugin(&self) -> Plugin {
        Plugin::GPUShare
    }

    fn reads(&self) -> Reads {
        Reads::Usage
    }

    fn events(&self) -> Events {
        Events::NODE_ADD
            .and(Events::NODE_UPDATE_ALLOCATABLE)
            .and(Events::ASSIGNED_POD_DELETE)
            .and(Events::ASSIGNED_POD_SCALE_DOWN)
    }

    fn filter(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> Option<Rejection> {
        match shape.gpu {
            Ask::Nothing => None,
            ask => no_devices(ask, nodes.gpus(slot)),
        }
    }
}
