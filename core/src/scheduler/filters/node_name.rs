//! NodeName: a pod that names its node runs nowhere else.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::events::Events;
use crate::scheduler::framework::{FilterPlugin, Reads, Rejection};
use crate::scheduler::profile::Plugin;
use crate::scheduler::shape::Shape;

/// The NodeName filter.
pub struct NodeName;

impl FilterPlugin for NodeName {
    fn plugin(&self) -> Plugin {
        Plugin::NodeName
    }

    fn reads(&self) -> Reads {
        Reads::Node
    }

    fn events(&self) -> Events {
        Events::NODE_ADD
    }

    fn filter(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> Option<Rejection> {
        let refused = shape.node_name.as_ref().is_some_and(|name| **name != **nodes.name(slot));
        refused.then(|| Rejection::unresolvable(self.name(), "node(s) didn't match the requested node name"))
    }
}
