//! NodeUnschedulable: a cordoned node takes only pods that tolerate the unschedulable taint.

use crate::object::TAINT_UNSCHEDULABLE;
use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::events::Events;
use crate::scheduler::framework::{FilterPlugin, Reads, Rejection};
use crate::scheduler::profile::Plugin;
use crate::scheduler::shape::{Effect, Shape};

/// The NodeUnschedulable filter.
pub struct NodeUnschedulable;

impl FilterPlugin for NodeUnschedulable {
    fn plugin(&self) -> Plugin {
        Plugin::NodeUnschedulable
    }

    fn reads(&self) -> Reads {
        Reads::Node
    }

    fn events(&self) -> Events {
        Events::NODE_ADD.and(Events::NODE_UPDATE_TAINT)
    }

    fn filter(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> Option<Rejection> {
        let refused = nodes.is_unschedulable(slot) && !shape.tolerates(TAINT_UNSCHEDULABLE, "", Effect::NoSchedule);
        refused.then(|| Rejection::unresolvable(self.name(), "node(s) were unschedulable"))
    }
}
