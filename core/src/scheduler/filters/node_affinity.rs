//! NodeAffinity: `nodeSelector` and required node affinity, and the affinity that the profile adds.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::events::Events;
use crate::scheduler::framework::{FilterPlugin, Reads, Rejection};
use crate::scheduler::profile::Plugin;
use crate::scheduler::shape::Shape;

/// The reason of nodes that the names in the required affinity exclude (`PreFilterResult`).
pub const NOT_AMONG_NAMES: &str = "node(s) didn't satisfy plugin(s) [NodeAffinity]";
/// The reason if the names in the required affinity exclude every node.
pub const NAMES_CONFLICT: &str = "pod affinity terms conflict";

/// The reason of nodes that do not match what the profile adds.
const ENFORCED: &str = "node(s) didn't match scheduler-enforced node affinity";

/// The NodeAffinity filter.
pub struct NodeAffinity;

impl FilterPlugin for NodeAffinity {
    fn plugin(&self) -> Plugin {
        Plugin::NodeAffinity
    }

    fn reads(&self) -> Reads {
        Reads::Node
    }

    fn events(&self) -> Events {
        Events::NODE_ADD.and(Events::NODE_UPDATE_LABEL)
    }

    fn filter(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> Option<Rejection> {
        let added = shape.rules.required.as_ref();
        if added.is_some_and(|terms| !terms.iter().any(|term| term.matches(nodes.meta(slot)))) {
            return Some(Rejection::unresolvable(self.name(), ENFORCED));
        }
        let refused = !shape.likes_node(nodes.meta(slot));
        refused.then(|| Rejection::unresolvable(self.name(), "node(s) didn't match Pod's node affinity/selector"))
    }
}
