//! NodePorts: ports of the node that the pod needs must be free.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::events::Events;
use crate::scheduler::framework::{FilterPlugin, Reads, Rejection};
use crate::scheduler::shape::Shape;

/// Said of nodes where a port is taken.
pub const PORTS_TAKEN: &str = "node(s) didn't have free ports for the requested pod ports";

/// The plug-in.
pub struct NodePorts;

impl FilterPlugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn reads(&self) -> Reads {
        Reads::Usage
    }

    fn events(&self) -> Events {
        Events::NODE_ADD.and(Events::ASSIGNED_POD_DELETE)
    }

    fn filter(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> Option<Rejection> {
        let refused = shape.ports.iter().any(|p| nodes.is_port_taken(p, slot));
        refused.then(|| Rejection::resolvable(self.name(), PORTS_TAKEN))
    }
}
