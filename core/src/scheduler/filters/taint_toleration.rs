//! TaintToleration: the pod must tolerate the node's `NoSchedule` and `NoExecute` taints.

use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::events::Events;
use crate::scheduler::framework::{FilterPlugin, Reads, Rejection};
use crate::scheduler::profile::Plugin;
use crate::scheduler::shape::{Effect, Shape};

/// The TaintToleration filter.
pub struct TaintToleration;

impl FilterPlugin for TaintToleration {
    fn plugin(&self) -> Plugin {
        Plugin::TaintToleration
    }

    fn reads(&self) -> Reads {
        Reads::Node
    }

    fn events(&self) -> Events {
        Events::NODE_ADD.and(Events::NODE_UPDATE_TAINT)
    }

    fn filter(&self, shape: &Shape, nodes: &Nodes, slot: Slot) -> Option<Rejection> {
        let mut keep_away = nodes.taints(slot).iter().filter(|t| match t.effect {
            Effect::NoSchedule | Effect::NoExecute => true,
            Effect::PreferNoSchedule | Effect::Other => false,
        });
        let refused = keep_away.any(|t| !shape.tolerates(&t.key, &t.value, t.effect));
        refused.then(|| Rejection::unresolvable(self.name(), "node(s) had untolerated taint(s)"))
    }
}
