//! NodeResourcesFit: what the pod requests must be free, and the node must have room for one more pod.

use crate::scheduler::cache::{Nodes, ResourceId, Slot};
use crate::scheduler::framework::{Events, FilterPlugin, Reads, Reason, Rejection};
use crate::scheduler::shape::Shape;

/// The plug-in.
pub struct NodeResourcesFit;

fn is_short(nodes: &Nodes, slot: Slot, resource: ResourceId, request: i64) -> bool {
    request > nodes.allocatable(resource, slot).wrapping_sub(nodes.requested(resource, slot))
}

impl FilterPlugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
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
        let all = || std::iter::once((ResourceId::PODS, 1)).chain(shape.requests.iter().copied());
        let short = || all().filter(|(r, n)| is_short(nodes, slot, *r, *n)).map(|(r, _)| r);
        short().next()?;
        // More than the whole node could ever give; a node without room for pods is not meant by it.
        let unresolvable = shape.requests.iter().any(|(r, n)| *n > nodes.allocatable(*r, slot));
        let reasons = short().map(Reason::Insufficient).collect();
        Some(Rejection { plugin: self.name(), reasons, unresolvable })
    }
}
