//! NodePorts: the pod's host ports must be free on the node.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::events::Events;
use crate::scheduler::framework::{FilterPlugin, Reads, Rejection};
use crate::scheduler::profile::Plugin;
use crate::scheduler::shape::Shape;

/// The reason of nodes where a port is in use.
pub const PORTS_TAKEN: &str = "node(s) didn't have free ports for the requested pod ports";

/// The NodePorts filter.
pub struct NodePorts;

impl FilterPlugin for NodePorts {
    fn plugin(&self) -> Plugin {
        Plugin::NodePorts
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
