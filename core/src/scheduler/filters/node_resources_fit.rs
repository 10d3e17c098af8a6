//! NodeResourcesFit: the pod's requests must be free on the node, which must also take one more pod.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::events::Events;
use crate::scheduler::framework::{FilterPlugin, Reads, Reason, Rejection};
use crate::scheduler::profile::Plugin;
use crate::scheduler::resources::ResourceId;
use crate::scheduler::shape::Shape;

/// The NodeResourcesFit filter.
pub struct NodeResourcesFit;

/// Why a pod does not fit a node; `free` is how much of each resource is free there.
pub fn insufficient(shape: &Shape, nodes: &Nodes, slot: Slot, free: impl Fn(ResourceId) -> i64) -> Option<Rejection> {
    let all = || std::iter::once((ResourceId::PODS, 1)).chain(shape.checked());
    let short = || all().filter(|(r, n)| *n > free(*r)).map(|(r, _)| r);
    short().next()?;
    // Unresolvable if the pod requests more than the node's allocatable. That the node takes no more pods does not
    // count.
    let unresolvable = shape.checked().any(|(r, n)| n > nodes.allocatable(r, slot));
    let reasons = short().map(Reason::Insufficient).collect();
    Some(Rejection { plugin: NodeResourcesFit.name(), reasons, unresolvable })
}

impl FilterPlugin for NodeResourcesFit {
    fn plugin(&self) -> Plugin {
        Plugin::NodeResourcesFit
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
        insufficient(shape, nodes, slot, |r| nodes.allocatable(r, slot).wrapping_sub(nodes.requested(r, slot)))
    }
}
